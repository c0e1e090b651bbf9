//! A member's first state, for who restores a backup: the store and the log that belong together.

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use super::boot::{StoredConfState, bootstrap, close_store, load};
use super::fill::Source;
use super::install::{InstallError, refused};
use crate::members::{Founders, member_key};
use crate::mvcc::{self, Compacted, KeyValueHash};
use crate::raft::{self, ConfState, log};
use crate::store::{Bucket, Building, Options, Pair, Row, schema};
use crate::types::Revision;

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
        let clock = Arc::clone(&options.clock);
        let (store, opened) = building.finish(options)?;
        let store = Arc::new(store);
        // What a start would refuse is refused here.
        let loaded = load(&store, &opened)?;
        let (mvcc, lessor) = (Arc::new(loaded.restore.mvcc), Arc::new(Mutex::new(loaded.lessor)));
        if loaded.restore.unfinished.is_none() {
            // With it the first start need not read all rows again.
            close_store(&store, &mvcc, &lessor, clock)?;
        }
        Building::name_current(self.db, opened.generation)?;
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
