//! Loads the state that a member keeps in memory from its store.

use std::io::Read;
use std::sync::Arc;

use prost::Message;

use super::error::LoadError;
use crate::apply;
use crate::auth::Auth;
use crate::lease::Lessor;
use crate::members::{Downgrade, Member, Members};
use crate::mvcc::{Checkpoint, Compacted, Current, Restore, Restoring};
use crate::pb::{AlarmMember, leasepb};
use crate::store::{Bucket, CheckpointBinding, Opened, Store, schema};
use crate::types::Version;

/// The state in memory, as loaded.
pub struct Loaded {
    pub lessor: Lessor,
    pub members: Members,
    pub auth: Auth,
    pub restore: Restore,
    /// The revision of the checkpoint that was used (-1 without one), and the number of rows read
    /// besides.
    pub used: (i64, u64),
}

/// Loads the state of a store. `index` is the key index if it was built with the store; otherwise
/// the checkpoint and the rows are read.
pub fn load(
    store: &Arc<Store>,
    opened: &Opened,
    index: Option<Restoring>,
) -> Result<Loaded, LoadError> {
    let mut lessor = Lessor::default();
    for (_, value) in store.bucket_iter(Bucket::Lease)? {
        let lease = leasepb::Lease::decode(value.as_slice()).map_err(|error| {
            LoadError::Malformed { table: Bucket::Lease.name(), what: error.to_string() }
        })?;
        lessor.restore(lease.id, lease.ttl, lease.remaining_ttl);
    }
    let members = load_members(store)?;
    check_storage_version(store)?;
    let compacted = Compacted {
        scheduled: opened.scheduled_compact.map(|revision| revision.main),
        finished: opened.finished_compact.map(|revision| revision.main),
    };
    let (restore, checkpoint) = match index {
        Some(index) => (index.finish(Arc::clone(store), compacted), None),
        None => {
            let checkpoint = read_checkpoint(store, opened);
            let read = Restore::read(Arc::clone(store), compacted, checkpoint.as_ref())?;
            (read, checkpoint)
        }
    };
    let used = (checkpoint.map_or(-1, |checkpoint| checkpoint.current.revision), restore.rows);
    let last = opened.last.map_or(1, |revision| revision.main);
    if restore.mvcc.current().revision < last {
        let what = format!("index: it ends before revision {last}, which is there");
        return Err(LoadError::Malformed { table: "rev", what });
    }
    for (key, id) in &restore.attachments {
        lessor.set(key, *id);
    }
    let auth = Auth::load(Arc::clone(store))?;
    Ok(Loaded { lessor, members, auth, restore, used })
}

/// Fails if a release has written the store whose state this one could misread.
fn check_storage_version(store: &Store) -> Result<(), LoadError> {
    let Some(text) = store.bucket_get(Bucket::Meta, schema::STORAGE_VERSION)? else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&text);
    match Version::parse(&text).map(apply::adopted_version) {
        Some(Ok(_)) => Ok(()),
        _ => Err(LoadError::StorageVersion(text.into_owned())),
    }
}

/// The storage version that a store is to get: that of its cluster, as etcd sets it within seconds
/// of a start, and no later one than this release writes. None if it has it, or if `load` refuses
/// the one that it has. An offline command may have set another one, and a store that was taken over
/// has the one of the release that wrote it.
pub fn due_storage_version(cluster: Option<&[u8]>, stored: Option<&[u8]>) -> Option<Version> {
    let read = |bytes: &[u8]| {
        let version = Version::parse(std::str::from_utf8(bytes).ok()?)?;
        apply::adopted_version(version).ok().map(|adopted| (version, adopted))
    };
    let stored = match stored {
        Some(bytes) => Some(read(bytes)?),
        None => None,
    };
    let cluster = cluster.and_then(read).map(|(_, adopted)| adopted);
    let of_cluster = cluster.filter(|version| apply::has_storage_version(*version));
    let due = of_cluster.or(stored.map(|(_, adopted)| adopted))?;
    (stored.map(|(version, _)| version) != Some(due)).then_some(due)
}

pub fn load_members(store: &Store) -> Result<Members, LoadError> {
    let mut members = Members::default();
    for (_, json) in store.bucket_iter(Bucket::Members)? {
        members.insert(Member::from_json(&json)?);
    }
    for (key, _) in store.bucket_iter(Bucket::MembersRemoved)? {
        let id = std::str::from_utf8(&key).ok().and_then(|key| u64::from_str_radix(key, 16).ok());
        let id = id.ok_or_else(|| LoadError::Malformed {
            table: Bucket::MembersRemoved.name(),
            what: format!("key {}", key.escape_ascii()),
        })?;
        members.mark_removed(id);
    }
    for (key, _) in store.bucket_iter(Bucket::Alarm)? {
        let alarm = AlarmMember::decode(key.as_slice()).map_err(|error| LoadError::Malformed {
            table: Bucket::Alarm.name(),
            what: error.to_string(),
        })?;
        members.raise(alarm);
    }
    if let Some(version) = store.bucket_get(Bucket::Cluster, schema::CLUSTER_VERSION)? {
        let text = String::from_utf8_lossy(&version);
        let version = Version::parse(&text).ok_or_else(|| LoadError::Malformed {
            table: Bucket::Cluster.name(),
            what: format!("clusterVersion {text:?}"),
        })?;
        apply::check_cluster_version(version)?;
        members.set_cluster_version(version);
    }
    if let Some(json) = store.bucket_get(Bucket::Cluster, schema::DOWNGRADE)? {
        members.set_downgrade(Downgrade::from_json(&json)?);
    }
    Ok(members)
}

/// The index checkpoint, if it belongs to this state; without one all rows are read.
fn read_checkpoint(store: &Store, opened: &Opened) -> Option<Checkpoint> {
    let mut bytes = Vec::new();
    let read = store
        .read_checkpoint(opened)
        .map(|mut reader| reader.read_to_end(&mut bytes).map(|_| reader.binding));
    match read {
        Ok(Ok(CheckpointBinding { revision, compact_revision, .. })) => {
            Some(Checkpoint { current: Current { revision, compact_revision }, bytes })
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the index checkpoint is damaged; reading all rows instead");
            None
        }
        Err(why) => {
            if !opened.created {
                tracing::info!(%why, "the index checkpoint is not used; reading all rows instead");
            }
            None
        }
    }
}

#[cfg(test)]
mod tests;
