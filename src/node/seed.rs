//! A member's first state, for who restores a backup: the store and the log that belong together.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;

use super::boot::{StartError, StoredConfState, Surroundings, bootstrap, close_store, load};
use super::fill::Source;
use super::install::{InstallError, refused};
use super::steps::Steps;
use super::{Config, Node, membership};
use crate::apply::{self, Command};
use crate::clock::{Clock, SystemClock};
use crate::limits;
use crate::members::{Founders, Member, member_key};
use crate::mvcc::{self, Compacted, KeyValueHash};
use crate::raft::{self, ConfState, log};
use crate::store::{Bucket, Building, Opened, Options, Pair, Row, schema};
use crate::types::Revision;

/// Between two looks at a member that elects itself.
const SETTLE_TURN: Duration = Duration::from_millis(1);

/// A new cluster that begins with the state of an old one.
pub struct Seed<'a> {
    /// Where the store is made; nothing may be there.
    pub db: &'a Path,
    /// Where the log is made; nothing may be there.
    pub wal: &'a Path,
    pub founders: &'a Founders,
    pub member_id: u64,
    /// Makes history continue so much later, with everything before compacted: clients that saw
    /// revisions of the lost cluster beyond the backup never see one twice.
    pub bump_revision: Option<i64>,
}

impl Seed<'_> {
    /// Makes both. Keys, leases, users and alarms come from the source; the members, and the place
    /// in the log, are new.
    pub fn plant(&self, source: &Source<'_>, options: Options) -> Result<(), InstallError> {
        let mut building = Building::first(self.db)?;
        source.fill(&mut building)?;
        self.replace_members(&mut building)?;
        if let Some(bump) = self.bump_revision {
            bump_revision(source, &mut building, bump)?;
        }
        complete(building, self.db, options)?;
        let metadata =
            log::Metadata { node_id: self.member_id, cluster_id: self.founders.cluster_id };
        let (disk, bootstrap) = (log::SystemDisk, bootstrap(self.founders));
        Ok(raft::create(&disk, self.wal, metadata, &bootstrap, log::Options::default())?)
    }

    fn replace_members(&self, building: &mut Building) -> Result<(), InstallError> {
        let members = &self.founders.members;
        building.clear(Bucket::Members)?;
        building.clear(Bucket::MembersRemoved)?;
        let pairs: Vec<Pair> =
            members.iter().map(|member| (member_key(member.id), member.to_json())).collect();
        building.pairs(Bucket::Members, &pairs)?;
        let voters = members.iter().map(|member| member.id).collect();
        let conf_state = ConfState { voters, ..ConfState::default() };
        let number = |number: u64| number.to_be_bytes().to_vec();
        let place = [
            // One entry for each founder.
            (schema::CONSISTENT_INDEX.to_vec(), number(members.len() as u64)),
            (schema::TERM.to_vec(), number(1)),
            (schema::CONF_STATE.to_vec(), StoredConfState::from(&conf_state).to_json()),
        ];
        Ok(building.pairs(Bucket::Meta, &place)?)
    }
}

/// Makes what was filled the store, if a start would take it.
fn complete(building: Building, db: &Path, options: Options) -> Result<Opened, InstallError> {
    let clock = Arc::clone(&options.clock);
    let (store, opened) = building.finish(options)?;
    let store = Arc::new(store);
    let loaded = load(&store, &opened, None)?;
    let (mvcc, lessor) = (Arc::new(loaded.restore.mvcc), Arc::new(Mutex::new(loaded.lessor)));
    if loaded.restore.unfinished.is_none() {
        // With it the first start need not read all rows again.
        close_store(&store, &mvcc, &lessor, clock)?;
    }
    Building::name_current(db, opened.generation)?;
    Ok(opened)
}

/// Another server's member, taken over with its ids.
pub struct Adopted {
    pub metadata: log::Metadata,
    /// Last entry that is part of the state.
    pub applied: u64,
    /// Last entry of the log.
    pub last: u64,
    /// Requests of API v2 behind the applied entry, which change nothing here.
    pub ignored: u64,
}

/// Whether an entry of the log can be applied, by what it says alone. It is true of a request of
/// API v2, which changes nothing.
pub fn check_entry(entry: &raft::Entry) -> Result<bool, String> {
    let data = entry.data.clone();
    if entry.entry_type == 0 {
        let command = apply::check(data).map_err(|fatal| fatal.to_string())?;
        return Ok(matches!(command, Some(Command::V2(_))));
    }
    let change = <raft::ConfChange as Message>::decode(data).map_err(|error| error.to_string())?;
    membership::wanted(&change).map(|_| false).map_err(|fatal| fatal.to_string())
}

/// Makes a store in `db` that belongs to the log in `wal`, which is there already.
pub fn adopt(
    source: &Source<'_>,
    db: &Path,
    wal: &Path,
    disk: Arc<dyn log::Disk>,
    options: Options,
) -> Result<Adopted, InstallError> {
    // A first start that was cut short has applied nothing yet, and its log holds all that there is.
    let index = source.get(Bucket::Meta, schema::CONSISTENT_INDEX)?;
    let is_new = index.is_none_or(|index| index.iter().all(|byte| *byte == 0));
    if !is_new && source.get(Bucket::Meta, schema::TERM)?.is_none() {
        return Err(refused(
            "it does not say how far the log is applied, as it was written by an etcd before 3.5; \
             save a snapshot and restore it",
        ));
    }
    let mut building = Building::first(db)?;
    source.fill(&mut building)?;
    // etcd starts with the members that its file lists, whatever else the file says: etcdutl's
    // restore leaves there who voted in the cluster that the snapshot came from.
    let mut voters = ConfState::default();
    for (_, json) in source.bucket(Bucket::Members)? {
        let member = Member::from_json(&json).map_err(|error| refused(error.to_string()))?;
        let those = if member.is_learner { &mut voters.learners } else { &mut voters.voters };
        those.push(member.id);
    }
    if !voters.voters.is_empty() {
        let json = StoredConfState::from(&voters).to_json();
        building.pairs(Bucket::Meta, &[(schema::CONF_STATE.to_vec(), json)])?;
    }
    let opened = complete(building, db, options)?;
    if opened.conf_state.is_none() && !is_new {
        return Err(refused("it does not say who votes; save a snapshot and restore it"));
    }
    let applied = opened.consistent_index;
    let mut ignored = 0;
    let (metadata, last) = raft::inspect(&disk, wal, applied, opened.term, |entry| {
        ignored += u64::from(check_entry(entry)?);
        Ok(())
    })?;
    if last == 0 {
        return Err(refused(
            "neither it nor its log says who the members are, since its first start was cut short; \
             nothing is in it, so start anew",
        ));
    }
    Ok(Adopted { metadata, applied, last, ignored })
}

/// Applies what the log of a stopped member holds and its store does not: what it knows to be
/// committed, and in a cluster of one everything. Nothing else of the member runs. There must be a
/// log, since a start makes one if there is none.
pub fn settle(data_dir: &Path, wal_dir: Option<&Path>) -> Result<(), StartError> {
    let clock = Arc::new(SystemClock::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // Tasks are made there and never run, so that no lease ends and nothing is proposed.
    let _entered = runtime.enter();
    let mut surroundings = Surroundings::system(Arc::clone(&clock) as Arc<dyn Clock>);
    surroundings.transport = Some(Arc::new(raft::NoTransport));
    surroundings.store.reserve_bytes = 0;
    let config = Config { wal_dir: wal_dir.map(Path::to_path_buf), ..Config::of(data_dir) };
    let (node, steps) = Node::start_stepped(config, surroundings)?;
    // Whoever votes alone elects itself, which commits all of the log. That can change on the way.
    let votes_alone = || {
        let members = node.0.machine.members.read();
        let mut voters = members.voters();
        voters.next().is_some_and(|one| one.id == node.0.member_id) && voters.next().is_none()
    };
    let (mut reached, mut since) = (None, clock.now());
    loop {
        let status = turn(&node, &steps)?;
        let applied = node.0.applied.index();
        let is_committed = !votes_alone() || status.committed == status.last_index;
        if is_committed && applied >= status.committed {
            break;
        }
        if reached != Some((applied, status.committed)) {
            (reached, since) = (Some((applied, status.committed)), clock.now());
        } else if clock.now().saturating_sub(since) >= limits::SETTLE_STALL {
            let what = format!(
                "the log ends with entry {}, but no entry after {applied} was applied for {} s",
                status.last_index,
                limits::SETTLE_STALL.as_secs()
            );
            return Err(StartError::Unsettled(what));
        }
        std::thread::sleep(SETTLE_TURN);
    }
    node.stop_now();
    Ok(())
}

/// A turn of everybody. Each batch is committed before the next one, since nobody else makes room in
/// the tail, in which apply waits for it, and a full disk must end this instead of hiding entries.
fn turn(node: &Node, steps: &Steps) -> Result<raft::Status, StartError> {
    steps.raft()?;
    while steps.log()? {}
    while steps.apply(usize::MAX).is_some() {
        node.0.machine.store.flush()?;
    }
    match node.0.supervisor.why() {
        Some(why) => Err(StartError::Unsettled(why)),
        None => Ok(steps.status()),
    }
}

/// As etcd does it: an empty record stands for the new revision, and a compaction there is due.
fn bump_revision(
    source: &Source<'_>,
    building: &mut Building,
    by: i64,
) -> Result<(), InstallError> {
    let mut last = 0;
    source.rows(|row| {
        last = last.max(row.rev.main);
        Ok(())
    })?;
    let main = last.checked_add(by).ok_or_else(|| refused("the revision would be too large"))?;
    let rev = Revision::new(main, 0);
    building.rows(&[Row { rev, tombstone: false, kv: bytes::Bytes::new() }])?;
    let scheduled = schema::revision_bytes(rev).to_vec();
    Ok(building.pairs(Bucket::Meta, &[(schema::SCHEDULED_COMPACT.to_vec(), scheduled)])?)
}

/// HashKV of a state at rest; at 0, of all of its history.
pub fn hash_kv(source: &Source<'_>, revision: i64) -> Result<KeyValueHash, InstallError> {
    let compaction = |key: &[u8]| -> Result<Option<i64>, InstallError> {
        let Some(bytes) = source.get(Bucket::Meta, key)? else { return Ok(None) };
        let revision = schema::revision_parse(&bytes);
        let malformed = || refused(format!("its {} is malformed", key.escape_ascii()));
        Ok(Some(revision.ok_or_else(malformed)?.main))
    };
    let compacted = Compacted {
        scheduled: compaction(schema::SCHEDULED_COMPACT)?,
        finished: compaction(schema::FINISHED_COMPACT)?,
    };
    mvcc::hash_rows(compacted, revision, |each| source.rows(|row| Ok(each(&row)?)))
}
