//! Starting raft: the log is made or opened and compared with the state, then the threads run.
//!
//! ```text
//!   create? --> log::open --> check against the state --> Core --> raft loop + log writer
//! ```

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use raft::eraftpb::{ConfChange, Entry, EntryType, HardState};
use tokio::sync::watch;

use super::core::{Core, CoreConfig};
use super::handle::{Handle, Shared};
use super::inbox::{Inbox, RefusalLog};
use super::latency::Latencies;
use super::log::{self, Batch, Disk, Metadata, Recovered, SnapshotRecord, Writer};
use super::log_writer::{Jobs, JobsEnd, LogThread, LogWriter};
use super::raft_loop::{RaftThread, Surroundings};
use super::status::StatusCells;
use super::stepped::RaftSteps;
use super::store::Store;
use super::{Bootstrap, Config, Error, Leader};
use crate::planted::{self, Bug};
use crate::supervise::Thread;

/// The running threads. Dropping it stops them and waits for their end.
pub struct Raft {
    metadata: Metadata,
    shared: Arc<Shared>,
    threads: Vec<Thread<()>>,
}

/// Whether a directory holds a log.
pub fn exists(disk: &dyn Disk, dir: &Path) -> Result<bool, Error> {
    Ok(log::exists(disk, dir)?)
}

/// The member and the cluster that a directory's log belongs to.
pub fn identity(disk: &dyn Disk, dir: &Path) -> Result<Metadata, Error> {
    Ok(log::identity(disk, dir)?)
}

/// The latest snapshot that the log says is part of the state.
pub fn last_snapshot(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: log::Options,
) -> Result<Option<SnapshotRecord>, Error> {
    let (_, _, recovered) = log::open(disk, dir, options)?;
    // The last record need not be the latest: a purge writes that of the state on disk, which may
    // be older than a snapshot that has just arrived.
    Ok(recovered.snapshots.into_iter().max_by_key(|record| record.index))
}

/// Opens the log, or makes it if there is a `bootstrap`, and starts the threads. An existing log
/// names its member and cluster: with a [`Config::id`] of 0 these are taken, any other must agree.
pub fn start(
    config: Config,
    surroundings: Surroundings,
    bootstrap: Option<&Bootstrap>,
) -> Result<(Handle, Raft), Error> {
    let supervisor = surroundings.supervisor.clone();
    let (raft, log, mut running) = open(config, surroundings, bootstrap)?;
    for (name, body) in [
        ("raft-log", Box::new(move || log.run()) as Box<dyn FnOnce() + Send>),
        ("raft", Box::new(move || raft.run())),
    ] {
        running.threads.push(supervisor.prompt_thread(name, body).map_err(Error::Thread)?);
    }
    Ok((Handle { shared: Arc::clone(&running.shared) }, running))
}

/// As [`start`], but without threads: the caller runs the turns of both by [`RaftSteps`].
pub fn start_stepped(
    config: Config,
    surroundings: Surroundings,
    bootstrap: Option<&Bootstrap>,
) -> Result<(Handle, Raft, RaftSteps), Error> {
    let (raft, log, running) = open(config, surroundings, bootstrap)?;
    let shared = Arc::clone(&running.shared);
    let raft = Arc::new(Mutex::new(RaftThread { is_stepped: true, ..raft }));
    let waited_for = Arc::downgrade(&raft);
    let _ = shared.run_loop_turn.set(Box::new(move || {
        let Some(raft) = waited_for.upgrade() else { return };
        let mut raft = raft.lock();
        if let Err(error) = raft.run_once(false) {
            raft.surroundings.observer.fatal(&error);
        }
    }));
    Ok((Handle { shared }, running, RaftSteps { raft, log }))
}

fn open(
    mut config: Config,
    surroundings: Surroundings,
    bootstrap: Option<&Bootstrap>,
) -> Result<(RaftThread, LogThread, Raft), Error> {
    if let Some(bootstrap) = bootstrap {
        let metadata = Metadata { node_id: config.id, cluster_id: config.cluster_id };
        create(surroundings.disk.as_ref(), &config.dir, metadata, bootstrap, config.log)?;
    }
    let (mut writer, reader, recovered) =
        log::open_applied(&surroundings.disk, &config.dir, config.log, config.applied)?;
    if config.log.fill_ahead {
        writer.fill_ahead(&surroundings.supervisor);
    }
    if let Some(repair) = &recovered.repair {
        tracing::warn!(
            file = %repair.file.display(), offset = repair.offset, kept = %repair.kept.display(),
            "an interrupted write at the log's end was undone: {}", repair.what
        );
    }
    if config.id == 0 {
        config.id = recovered.metadata.node_id;
        config.cluster_id = recovered.metadata.cluster_id;
    }
    let whose = Metadata { node_id: config.id, cluster_id: config.cluster_id };
    let hard_state =
        reconcile_with_applied(whose, config.applied, config.applied_term, &recovered)?;
    if !planted::is(Bug::BelievedTail) {
        // After a sync that failed, the system shows entries that the disk does not hold. They are
        // written and synced again, since apply must get only what is durable.
        writer.rewrite(recovered.table.place(config.applied))?;
    }
    let core_config = CoreConfig {
        id: config.id,
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        pre_vote: config.pre_vote,
        applied: config.applied,
        snapshot_count: config.snapshot_count,
        catch_up_entries: config.catch_up_entries,
        nonce: surroundings.clock.random(),
    };
    let durable = (config.applied, config.applied_term, config.conf_state.clone());
    let mut store = Store::new(recovered.table, hard_state, config.conf_state, Some(reader));
    store.durable = Some(durable);
    let core = Core::new(core_config, store)?;
    let shared = Arc::new(Shared {
        inbox: Inbox::default(),
        status: StatusCells::new(core.status()),
        leader: watch::Sender::new(Leader::default()),
        progress: Mutex::default(),
        may_leave: AtomicBool::new(true),
        snapshots_waiting: AtomicU64::new(0),
        awaits_snapshot: AtomicBool::new(false),
        conf_states: Mutex::default(),
        committing: Latencies::default(),
        answering: Latencies::default(),
        log_room: writer.room(),
        is_space_short: AtomicBool::new(false),
        run_loop_turn: OnceLock::new(),
    });
    let running =
        Raft { metadata: recovered.metadata, shared: Arc::clone(&shared), threads: Vec::new() };
    let (raft, log) = assemble(core, writer, shared, surroundings, config.heartbeat_interval);
    Ok((raft, log, running))
}

/// Makes the log of a new member. The changes that add the first members are committed from the
/// start, since each of these members begins with the same ones (as in etcd's
/// `RawNode.Bootstrap`).
pub fn create(
    disk: &dyn Disk,
    dir: &Path,
    metadata: Metadata,
    bootstrap: &Bootstrap,
    options: log::Options,
) -> Result<(), Error> {
    let mut entries = Vec::with_capacity(bootstrap.members.len());
    for (at, (id, context)) in bootstrap.members.iter().enumerate() {
        let change = ConfChange { node_id: *id, context: context.clone(), ..ConfChange::default() };
        let data = Bytes::from(change.encode_to_vec());
        let mut entry = Entry { term: 1, index: at as u64 + 1, data, ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChange);
        entries.push(entry);
    }
    let commit = entries.len() as u64;
    let hard_state = (commit > 0).then_some(HardState { term: 1, vote: 0, commit });
    let batch = Batch { snapshot: None, entries, hard_state };
    Ok(log::create(disk, dir, metadata, &batch, options)?)
}

/// Compares the log with what has been applied from it, and returns the hard state to start with.
///
/// Its commit index is at least the applied one. A hard state whose commit alone is new is not
/// synced, while the applied state is, so the commit index in the log may be lower.
pub(super) fn reconcile_with_applied(
    whose: Metadata,
    applied: u64,
    applied_term: u64,
    recovered: &Recovered,
) -> Result<HardState, Error> {
    if recovered.metadata != whose {
        return Err(Error::Foreign {
            found_id: recovered.metadata.node_id,
            found_cluster: recovered.metadata.cluster_id,
            id: whose.node_id,
            cluster: whose.cluster_id,
        });
    }
    let table = &recovered.table;
    if applied > table.last_index() {
        return Err(Error::LogEndsBefore { last: table.last_index(), applied });
    }
    if applied + 1 < table.first_index() {
        return Err(Error::LogBeginsAfter { first: table.first_index(), applied });
    }
    let logged = table.term(applied).unwrap_or_default();
    if logged != applied_term {
        return Err(Error::TermMismatch { index: applied, applied: applied_term, logged });
    }
    let mut hard_state = recovered.hard_state.clone();
    if planted::is(Bug::CommitOnly) {
        return Ok(hard_state);
    }
    hard_state.commit = hard_state.commit.max(applied).max(table.first_index() - 1);
    Ok(hard_state)
}

fn assemble(
    core: Core,
    writer: Writer,
    shared: Arc<Shared>,
    surroundings: Surroundings,
    tick: Duration,
) -> (RaftThread, LogThread) {
    let jobs = Arc::new(Jobs::default());
    let writer = Arc::new(Mutex::new(LogWriter::new(
        writer,
        Arc::clone(&surroundings.transport),
        Arc::clone(&surroundings.observer),
        Arc::clone(&surroundings.clock),
    )));
    let log = LogThread {
        supervisor: surroundings.supervisor.clone(),
        writer: Arc::clone(&writer),
        jobs: Arc::clone(&jobs),
        shared: Arc::clone(&shared),
        without_room: Mutex::default(),
    };
    let raft = RaftThread {
        core,
        writer,
        jobs: JobsEnd(jobs),
        shared,
        next_tick: surroundings.clock.now() + tick,
        patience: Duration::ZERO,
        surroundings,
        tick,
        reads: HashMap::new(),
        reads_waiting: 0,
        reads_unanswered: 0,
        next_token: 0,
        appended: VecDeque::new(),
        is_stepped: false,
        refusals: RefusalLog::default(),
    };
    (raft, log)
}

impl Raft {
    /// The member and the cluster that the log belongs to.
    pub fn metadata(&self) -> Metadata {
        self.metadata
    }

    /// Ends the threads and waits for them.
    pub fn stop(self) {}
}

impl Drop for Raft {
    fn drop(&mut self) {
        self.shared.inbox.stop();
        for thread in self.threads.drain(..) {
            // The supervisor knows of a panic.
            let _ = thread.join();
        }
    }
}
