//! The first state of a member that is restored from a backup or taken over: a store, and the log
//! that belongs to it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::conf_state::StoredConfState;
use super::error::{InstallError, refused};
use super::fill::Source;
use super::load::{due_storage_version, load};
use crate::apply;
use crate::members::{Founders, Member, member_key};
use crate::mvcc::{self, Compacted, KeyValueHash};
use crate::raft::{self, Bootstrap, ConfState, log};
use crate::store::{Bucket, Building, Opened, Options, Pair, Row, schema};
use crate::types::{Revision, Version};
use crate::upkeep::close_store;

/// A new cluster that begins with the state of an old one.
pub struct Seed<'a> {
    /// The directory to make the store in; it must not exist.
    pub db: &'a Path,
    /// The directory to make the log in; it must not exist.
    pub wal: &'a Path,
    pub founders: &'a Founders,
    pub member_id: u64,
    /// Adds this to the newest revision, and compacts everything before: clients that saw revisions
    /// of the lost cluster beyond the backup then never see one twice.
    pub bump_revision: Option<i64>,
}

impl Seed<'_> {
    /// Makes the store and the log. Keys, leases, users and alarms come from the source; the
    /// members and the place in the log are new.
    pub fn create(&self, source: &Source<'_>, options: Options) -> Result<(), InstallError> {
        let mut building = Building::first(self.db)?;
        source.fill(&mut building)?;
        adopt_versions(source, &mut building)?;
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
            // The log begins with one entry for each founder.
            (schema::CONSISTENT_INDEX.to_vec(), number(members.len() as u64)),
            (schema::TERM.to_vec(), number(1)),
            (schema::CONF_STATE.to_vec(), StoredConfState::from(&conf_state).to_json()),
        ];
        Ok(building.pairs(Bucket::Meta, &place)?)
    }
}

/// The first entries of the log, which add the founders.
pub fn bootstrap(founders: &Founders) -> Bootstrap {
    let members = founders.members.iter();
    let members = members.map(|member| (member.id, Bytes::from(member.to_json())));
    Bootstrap { members: members.collect() }
}

/// Completes the store that was filled: loads it as a start would, then names its generation in
/// CURRENT.
fn complete(building: Building, db: &Path, options: Options) -> Result<Opened, InstallError> {
    let clock = Arc::clone(&options.clock);
    let (store, opened) = building.finish(options)?;
    let store = Arc::new(store);
    let loaded = load(&store, &opened, None)?;
    let (mvcc, lessor) = (Arc::new(loaded.restore.mvcc), Arc::new(Mutex::new(loaded.lessor)));
    if loaded.restore.unfinished.is_none() {
        // Writes the index checkpoint, so that the first start need not read all rows again.
        close_store(&store, &mvcc, &lessor, clock)?;
    }
    Building::name_current(db, opened.generation)?;
    Ok(opened)
}

/// A member of another server that was taken over with its ids.
pub struct Adopted {
    pub metadata: log::Metadata,
    /// Index of the last entry that is part of the state.
    pub applied: u64,
    /// Index of the last entry of the log.
    pub last: u64,
    /// The number of API v2 requests after the applied entry, which change nothing here.
    pub ignored: u64,
}

/// Makes a store in `db` for the log that exists in `wal`. `check` fails if an entry cannot be
/// applied, and returns true for a request of API v2, which changes nothing.
pub fn adopt(
    source: &Source<'_>,
    db: &Path,
    wal: &Path,
    disk: Arc<dyn log::Disk>,
    options: Options,
    check: impl Fn(&raft::Entry) -> Result<bool, String>,
) -> Result<Adopted, InstallError> {
    // After a first start that was cut short, nothing is applied and the log holds everything.
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
    adopt_versions(source, &mut building)?;
    // etcd starts with the members that its file lists, and ignores the stored configuration:
    // `etcdutl snapshot restore` leaves there the voters of the cluster that the snapshot came
    // from.
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
        ignored += u64::from(check(entry)?);
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

/// Writes the versions of the cluster and of the store as this release has them, where a later one
/// has written its own. A version that this release does not understand stays, and `load` refuses it.
fn adopt_versions(source: &Source<'_>, building: &mut Building) -> Result<(), InstallError> {
    let cluster = source.get(Bucket::Cluster, schema::CLUSTER_VERSION)?;
    let stored = source.get(Bucket::Meta, schema::STORAGE_VERSION)?;
    let mut set = |bucket, key: &[u8], version: Version| {
        building.pairs(bucket, &[(key.to_vec(), version.to_string().into_bytes())])
    };
    let written = cluster.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok());
    if let Some(written) = written.and_then(Version::parse)
        && let Ok(adopted) = apply::adopted_version(written)
        && adopted != written
    {
        set(Bucket::Cluster, schema::CLUSTER_VERSION, adopted)?;
    }
    if let Some(due) = due_storage_version(cluster.as_deref(), stored.as_deref()) {
        set(Bucket::Meta, schema::STORAGE_VERSION, due)?;
    }
    Ok(())
}

/// Raises the revision as `etcdutl` does: by an empty record at the new revision, and a scheduled
/// compaction there.
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
    building.rows(&[Row { rev, tombstone: false, kv: Bytes::new() }])?;
    let scheduled = schema::revision_bytes(rev).to_vec();
    Ok(building.pairs(Bucket::Meta, &[(schema::SCHEDULED_COMPACT.to_vec(), scheduled)])?)
}

/// HashKV of a state at rest, at a revision; at 0, of its whole history.
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
