//! Start and stop of a member: directories, state, threads, in an order in which a crash at any
//! point does no harm.

use std::path::Path;
use std::sync::Arc;

use super::assemble::assemble;
use super::error::StartError;
use super::identity::Identity;
use super::steps::Steps;
use super::surroundings::Surroundings;
use super::{Config, Node, conf_change};
use crate::clock::Clock;
use crate::raft;
use crate::store::{self, Bucket, Opened, Options, Store, schema};
use crate::transfer::{StoredConfState, due_storage_version, load_members};
use crate::upkeep::{close_store, defragment_at_start};

/// Opens or makes the data directory, then starts the member's threads, or returns its steps.
fn start(
    config: Config,
    mut surroundings: Surroundings,
    stepped: bool,
) -> Result<(Node, Option<Steps>), StartError> {
    let lock = store::lock(&config.data_dir)?;
    store::lay_out(&config.data_dir)?;
    let wal = config.log_dir();
    let db = config.data_dir.join("member/db");
    let has_log = raft::exists(&*surroundings.disk, &wal)?;
    if has_log && store::is_vacant(&db)? {
        return Err(StartError::MissingStore { db, wal });
    }
    if has_log && store::has_other(&db)? {
        let snapshot = raft::last_snapshot(&surroundings.disk, &wal, surroundings.log)?;
        store::settle(&db, snapshot.map(|record| record.index))?;
    }
    let options = &mut surroundings.store;
    options.commit_interval = config.commit_interval;
    options.commit_ops_max = config.commit_ops_max;
    options.compaction_rows_max = config.compaction_rows_max;
    options.committer = !stepped;
    options.supervisor = surroundings.supervisor.clone();
    let (store, mut opened) = open_store(&db, options)?;
    opened.generation = defragment_at_start(&store, config.defrag_at_start_bytes);
    if !has_log && opened.consistent_index > 0 {
        let applied = opened.consistent_index;
        return Err(StartError::MissingLog { db, wal, applied });
    }
    let store = Arc::new(store);
    let disk = &*surroundings.disk;
    let identity =
        if has_log { Identity::of_the_log(disk, &wal)? } else { Identity::new(&config)? };
    let conf_state = opened.conf_state.as_deref().map(StoredConfState::parse).transpose()?;
    let conf_state = conf_state.unwrap_or_default();
    let raft_config = raft::Config {
        id: identity.member_id,
        cluster_id: identity.cluster_id,
        dir: wal,
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        pre_vote: config.pre_vote,
        applied: opened.consistent_index,
        applied_term: opened.term,
        conf_state,
        catch_up_entries: config.snapshot_catchup_entries,
        snapshot_count: config.snapshot_count,
        log: surroundings.log,
    };
    if config.force_new_cluster && has_log {
        let mut members = load_members(&store)?;
        let takes = |change: &raft::ConfChange| conf_change::apply_to(&mut members, change);
        let removed = raft::force_alone(&raft_config, &surroundings.disk, takes)?;
        let removed: Vec<String> = removed.iter().map(|id| format!("{id:x}")).collect();
        tracing::warn!(
            "cluster-id" = format!("{:x}", identity.cluster_id),
            "local-member-id" = format!("{:x}", identity.member_id),
            ?removed,
            "forcing restart member"
        );
    }
    assemble(config, surroundings, lock, store, opened, identity, raft_config, stepped)
}

/// Opens the store. Before anything is applied to it, it gets the storage version that it ought to
/// have, if it has another. That is no entry's change, so it is made while the store is closed.
fn open_store(db: &Path, options: &Options) -> Result<(Store, Opened), StartError> {
    let (store, opened) = Store::open(db, options.clone())?;
    let cluster = store.bucket_get(Bucket::Cluster, schema::CLUSTER_VERSION)?;
    let stored = store.bucket_get(Bucket::Meta, schema::STORAGE_VERSION)?;
    let Some(due) = due_storage_version(cluster.as_deref(), stored.as_deref()) else {
        return Ok((store, opened));
    };
    store.close()?;
    drop(store);
    let version = due.to_string();
    store::amend(db, Bucket::Meta, schema::STORAGE_VERSION, Some(version.as_bytes()))?;
    tracing::info!("new-storage-version" = version, "updated storage version");
    Ok(Store::open(db, options.clone())?)
}

impl Node {
    /// Opens or makes the data directory and starts the member's threads. Must be called within an
    /// async runtime, on a thread that may block.
    pub fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        Self::start_with(config, Surroundings::system(clock))
    }

    /// As [`Node::start`], with a clock, disk, network and store that need not be the system's.
    pub fn start_with(config: Config, surroundings: Surroundings) -> Result<Self, StartError> {
        start(config, surroundings, false).map(|(node, _)| node)
    }

    /// As [`Node::start`], but without threads.
    pub fn start_stepped(
        config: Config,
        surroundings: Surroundings,
    ) -> Result<(Self, Steps), StartError> {
        let (node, steps) = start(config, surroundings, true)?;
        let steps = steps.ok_or_else(|| std::io::Error::other("there are no steps"))?;
        Ok((node, steps))
    }

    /// Ends the threads, makes everything that was applied durable, and writes the index
    /// checkpoint. Calls under way get `Error::Stopped`. The data directory's lock is released once
    /// the caller's own clones are gone.
    pub async fn stop(&self) {
        let node = self.clone();
        // The result is ignored: the supervisor has noted a panic.
        let _ = self.0.supervisor.blocking("stop", move || node.stop_now()).await;
        // Waits until all duties have ended, because each holds the member and with it the
        // directory's lock.
        self.0.stopping.closed().await;
    }

    /// As [`Node::stop`], but blocks the calling thread.
    pub fn stop_now(&self) {
        let inner = &self.0;
        inner.stopping.send_replace(true);
        inner.leading.has_leader.notify_waiters();
        let Some(raft) = inner.raft_threads.lock().take() else { return };
        // Ends apply's wait for room in the tail: on a full disk it would never end, nor would the
        // join below. Entries that are not in LMDB are still in the log.
        inner.machine.store.stop_waiting_for_room();
        raft.stop();
        inner.known_peers.peers.stop();
        for thread in inner.threads.lock().drain(..) {
            // The result is ignored: the supervisor has noted a panic.
            let _ = thread.join();
        }
        inner.waits.stop();
        inner.applied.stop();
        inner.sweeper.stop();
        if inner.supervisor.failure_reason().is_some() {
            return;
        }
        let clock = Arc::clone(&inner.clock);
        if let Err(error) =
            close_store(&inner.machine.store, &inner.machine.mvcc, &inner.machine.lessor, clock)
        {
            tracing::error!(%error, "failed to close the store");
        }
    }
}

#[cfg(test)]
mod tests;
