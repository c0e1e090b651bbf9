//! The threads around the core: the raft loop and the log writer.

mod turns;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;
use raft::eraftpb::{ConfChange, ConfState, Entry, EntryType, HardState, Message};
use tokio::sync::watch;

use super::core::{Committed, Core, CoreConfig, Effect, Event, Job, Proposal};
use super::inbox::{Inbox, ReadReply, RefusalLog};
use super::latency::{Counted, Latencies};
use super::log::{self, Batch, Disk, Metadata, Recovered, SnapshotRecord, Writer};
use super::log_writer::{Jobs, JobsEnd, LogThread, LogWriter, Work, Written};
use super::status::StatusCells;
use super::store::Store;
use super::{Bootstrap, Config, Error, Leader, Observer, Role, Status, Transport};
use crate::clock::Clock;
use crate::limits;
use crate::metrics;
use crate::planted::{self, Bug};
use crate::supervise::{Supervisor, Thread};
pub use turns::Turns;

/// Asks raft, from any thread; nothing here blocks but [`Handle::apply_conf_change`].
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) inbox: Inbox,
    status: StatusCells,
    leader: watch::Sender<Leader>,
    /// As of the last tick; nothing unless this member leads.
    progress: Mutex<Option<Vec<(u64, u64)>>>,
    /// Whether this member is still in the cluster, or may end.
    may_leave: AtomicBool,
    /// Snapshots that the loop has not looked at.
    snapshots_waiting: AtomicU64,
    /// Whether one that it has taken is not applied.
    awaits_snapshot: AtomicBool,
    conf_states: Mutex<HashMap<u64, SyncSender<Result<ConfState, Error>>>>,
    /// How long what the leader appends takes to be committed.
    committing: Latencies,
    /// How long callers on this member wait for what they proposed.
    answering: Latencies,
    log_room: log::Room,
    /// Whether the log is to forget all that it can.
    is_space_short: AtomicBool,
    /// Without a thread for the raft loop, who waits for it takes its turn.
    while_waiting: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// The running threads. Dropping it stops them.
pub struct Raft {
    metadata: Metadata,
    shared: Arc<Shared>,
    threads: Vec<Thread<()>>,
}

/// Whether a directory holds a log.
pub fn exists(disk: &dyn Disk, dir: &Path) -> bool {
    log::exists(disk, dir)
}

/// Whose log a directory holds.
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
    // A log may hold the record of an older state after that of a snapshot.
    Ok(recovered.snapshots.into_iter().max_by_key(|record| record.index))
}

/// Everything that raft needs from outside.
pub struct Surroundings {
    pub clock: Arc<dyn Clock>,
    pub disk: Arc<dyn Disk>,
    pub transport: Arc<dyn Transport>,
    pub observer: Arc<dyn Observer>,
    /// Committed entries go here, in order.
    pub applier: SyncSender<Vec<Committed>>,
    pub supervisor: Supervisor,
}

/// Opens the log, or makes it, and starts the threads. A log that exists says whose it is: an id
/// of 0 takes its word, any other must agree.
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
        running.threads.push(supervisor.thread(name, body).map_err(Error::Thread)?);
    }
    Ok((Handle { shared: Arc::clone(&running.shared) }, running))
}

/// As [`start`], but nothing runs by itself: the caller takes the turns of both threads.
pub fn start_stepped(
    config: Config,
    surroundings: Surroundings,
    bootstrap: Option<&Bootstrap>,
) -> Result<(Handle, Raft, Turns), Error> {
    let (raft, log, running) = open(config, surroundings, bootstrap)?;
    let shared = Arc::clone(&running.shared);
    let raft = Arc::new(Mutex::new(RaftThread { is_stepped: true, ..raft }));
    let waited_for = Arc::downgrade(&raft);
    let _ = shared.while_waiting.set(Box::new(move || {
        let Some(raft) = waited_for.upgrade() else { return };
        let mut raft = raft.lock();
        if let Err(error) = raft.next_turn(false) {
            raft.surroundings.observer.fatal(&error);
        }
    }));
    Ok((Handle { shared }, running, Turns { raft, log }))
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
    let (mut writer, reader, recovered) = log::open(&surroundings.disk, &config.dir, config.log)?;
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
    let hard_state = check(whose, config.applied, config.applied_term, &recovered)?;
    if !planted::is(Bug::BelievedTail) {
        // Apply gets only what is durable.
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
        while_waiting: OnceLock::new(),
    });
    let running =
        Raft { metadata: recovered.metadata, shared: Arc::clone(&shared), threads: Vec::new() };
    let (raft, log) = assemble(core, writer, shared, surroundings, config.heartbeat_interval);
    Ok((raft, log, running))
}

/// Makes the log of a new member. The changes that add the first members are committed already,
/// as every one of them starts with the same ones.
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

/// Compares the log with what has been applied from it, and returns the state to start with.
///
/// A state that only moves the commit is not synced, while the applied state is, so the log may say
/// less than was committed.
pub(super) fn check(
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
        held: Mutex::default(),
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
        next_token: 0,
        appended: VecDeque::new(),
        is_stepped: false,
        refusals: RefusalLog::default(),
    };
    (raft, log)
}

impl Handle {
    /// Queues data for the log. Whether it is committed shows when it is applied; if raft drops it,
    /// the observer learns the ticket.
    pub fn propose(&self, ticket: u64, data: Bytes) -> Result<(), Error> {
        self.shared.inbox.propose(Proposal { ticket, data, term: 0 })
    }

    /// As [`Handle::propose`], but only this member may put it into the log, as the leader of
    /// `term`; otherwise it is dropped.
    pub fn propose_as_leader(&self, ticket: u64, data: Bytes, term: u64) -> Result<(), Error> {
        self.shared.inbox.propose(Proposal { ticket, data, term })
    }

    /// Queues a configuration change.
    pub fn propose_conf_change(&self, ticket: u64, change: ConfChange) -> Result<(), Error> {
        self.shared.inbox.event(Event::ProposeConfChange { ticket, change })
    }

    /// Asks for an index such that a state which includes it shows every write acknowledged before
    /// this call. The reply comes within this call or from raft's thread, and must not block.
    ///
    /// A sole voter that leads has nobody to ask: without it nothing can be committed, and it
    /// publishes what is committed before apply can acknowledge it.
    pub fn read_index(&self, reply: impl FnOnce(Result<u64, Error>) + Send + 'static) {
        if let Some(index) = self.shared.status.committed_alone() {
            return reply(Ok(index));
        }
        if planted::is(Bug::StaleRead) && self.status().role == Role::Leader {
            return reply(Ok(self.status().committed));
        }
        if let Err((error, reply)) = self.shared.inbox.read(Box::new(reply)) {
            reply(Err(error));
        }
    }

    /// Hands in a message of another member.
    pub fn step(&self, message: Message) -> Result<(), Error> {
        self.shared.inbox.message(message)
    }

    pub fn status(&self) -> Status {
        self.shared.status.get()
    }

    /// How far each member's log is known to go, within a heartbeat; nothing unless this member
    /// leads.
    pub fn progress(&self) -> Option<Vec<(u64, u64)>> {
        self.shared.progress.lock().clone()
    }

    /// Whether somebody who stays knows that this member was removed, if it was, within a heartbeat.
    pub fn may_leave(&self) -> bool {
        self.shared.may_leave.load(Ordering::Acquire)
    }

    /// A caller has waited so long for what it proposed.
    pub fn note_answer(&self, took: Duration) {
        self.shared.answering.note(took);
    }

    /// How long proposals took so far: from the leader's log to their commit, if this member leads,
    /// and for callers on this member.
    pub fn latencies(&self) -> [Counted; 2] {
        [self.shared.committing.counted(), self.shared.answering.counted()]
    }

    /// Entries up to this one are part of the state.
    pub fn applied(&self, index: u64) {
        self.shared.inbox.applied(index);
    }

    /// Entries up to this one are part of the state on disk, with this configuration.
    pub fn durable(&self, index: u64, term: u64, conf_state: ConfState) {
        self.shared.inbox.durable(index, term, conf_state);
    }

    /// Makes a committed configuration change effective, or none if it was rejected, and returns
    /// the configuration from there on. Apply calls this once for each, in log order, and waits.
    pub fn apply_conf_change(
        &self,
        index: u64,
        change: Option<ConfChange>,
    ) -> Result<ConfState, Error> {
        let (reply, answer) = sync_channel(1);
        self.shared.conf_states.lock().insert(index, reply);
        let asked = self.shared.inbox.event_of_apply(Event::ConfChange { index, change });
        if let Err(error) = asked {
            self.shared.conf_states.lock().remove(&index);
            return Err(error);
        }
        if let Some(take_turn) = self.shared.while_waiting.get() {
            take_turn();
            // Nobody else will answer.
            return answer.try_recv().unwrap_or(Err(Error::Stopped));
        }
        answer.recv().unwrap_or(Err(Error::Stopped))
    }

    /// What the log can take before it needs more of its disk.
    pub fn log_room(&self) -> &log::Room {
        &self.shared.log_room
    }

    /// While space is short, the log keeps only what is not in the state on disk, and what members
    /// that are reached need of its last segment.
    pub fn spare_space(&self, is_short: bool) {
        self.shared.is_space_short.store(is_short, Ordering::Relaxed);
    }

    pub fn transfer_leader(&self, to: u64) -> Result<(), Error> {
        self.shared.inbox.event(Event::TransferLeader(to))
    }

    /// Tells a member that starts that it has reached the others.
    pub fn reached_peers(&self) -> Result<(), Error> {
        self.shared.inbox.event(Event::Reached)
    }

    pub fn report_unreachable(&self, id: u64) -> Result<(), Error> {
        self.shared.inbox.event(Event::Unreachable(id))
    }

    /// Hands in another member's snapshot, whose data is on disk and checked.
    pub fn step_snapshot(&self, message: Message) -> Result<(), Error> {
        let waiting = &self.shared.snapshots_waiting;
        waiting.fetch_add(1, Ordering::AcqRel);
        let queued = self.shared.inbox.event(Event::ReceiveSnapshot(message));
        if queued.is_err() {
            waiting.fetch_sub(1, Ordering::AcqRel);
        }
        queued
    }

    /// Hands in one that is not wanted, since the commit is further: raft answers its sender.
    pub fn ignore_snapshot(&self, message: Message) -> Result<(), Error> {
        self.shared.inbox.event(Event::IgnoreSnapshot(message))
    }

    /// Whether a snapshot that was handed in is, or may be, on its way into the state. Its data must
    /// stay until then.
    pub fn awaits_snapshot(&self) -> bool {
        let waits = self.shared.snapshots_waiting.load(Ordering::Acquire) > 0;
        waits || self.shared.awaits_snapshot.load(Ordering::Acquire)
    }

    /// Says whether a snapshot reached the member that it was sent to.
    pub fn report_snapshot(&self, to: u64, arrived: bool) -> Result<(), Error> {
        self.shared.inbox.event(Event::SnapshotSent { to, arrived })
    }

    pub fn subscribe_leader(&self) -> watch::Receiver<Leader> {
        self.shared.leader.subscribe()
    }

    /// Asks the threads to end; [`Raft::stop`] also waits for them.
    pub fn stop(&self) {
        self.shared.inbox.stop();
    }
}

impl Raft {
    /// Whose log it is.
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

struct RaftThread {
    core: Core,
    writer: Arc<Mutex<LogWriter>>,
    jobs: JobsEnd,
    shared: Arc<Shared>,
    surroundings: Surroundings,
    tick: Duration,
    next_tick: Duration,
    /// How long the next turn may wait for work.
    patience: Duration,
    /// Reads by token; all that came in one turn share one.
    reads: HashMap<u64, Vec<ReadReply>>,
    /// How many these are.
    reads_waiting: usize,
    next_token: u64,
    /// Last entries of batches that this member appended as the leader, and when.
    appended: VecDeque<(u64, Duration)>,
    /// Somebody else takes the turns of this loop and of the log writer.
    is_stepped: bool,
    refusals: RefusalLog,
}

impl RaftThread {
    fn run(mut self) {
        let supervisor = self.surroundings.supervisor.clone();
        let outcome = supervisor.run("raft", || {
            while self.next_turn(true)? {}
            Ok(())
        });
        if let Err(error) = outcome.unwrap_or_else(|panicked| Err(panicked.into())) {
            self.surroundings.observer.fatal(&error);
        }
        self.jobs.0.end();
        self.shared.status.retire();
        let unread = self.shared.inbox.close();
        let rounds = self.reads.drain().flat_map(|(_, replies)| replies);
        for reply in rounds.chain(unread) {
            reply(Err(Error::Stopped));
        }
        self.shared.conf_states.lock().clear();
    }

    /// Waits for work, if it may, and takes a turn's worth of it; false if the loop is to end.
    fn next_turn(&mut self, waits: bool) -> Result<bool, Error> {
        planted::trip("raft");
        let awaits_apply = self.core.awaits_apply();
        let proposals_min = self.core.proposals_min();
        let patience = if waits { self.patience } else { Duration::ZERO };
        let mut taken = self.shared.inbox.take(patience, proposals_min, awaits_apply);
        if let Some(error) = taken.fatal {
            return Err(error);
        }
        if taken.stopped {
            return Ok(false);
        }
        self.refuse_reads(&mut taken.reads);
        if !taken.reads.is_empty() {
            self.reads_waiting += taken.reads.len();
            self.next_token += 1;
            self.reads.insert(self.next_token, taken.reads);
            taken.events.push(Event::Read(self.next_token));
        }
        let now = self.surroundings.clock.now();
        if now >= self.next_tick {
            taken.events.push(Event::Tick);
            self.note_lateness(now - self.next_tick);
            // After a pause the missed ticks are not made up for: others had no pause.
            self.next_tick = (self.next_tick + self.tick).max(now);
        }
        self.turn(taken.events)?;
        let now = self.surroundings.clock.now();
        self.patience = self.next_tick.saturating_sub(now).max(Duration::from_nanos(1));
        Ok(true)
    }

    /// What waits for a leader has a bound, too, and not only what waits for this loop.
    fn refuse_reads(&self, reads: &mut Vec<ReadReply>) {
        let room = limits::RAFT_READS_MAX.saturating_sub(self.reads_waiting);
        for reply in reads.drain(room.min(reads.len())..) {
            reply(Err(Error::Busy));
        }
    }

    fn settle_reads(&mut self, tokens: &[u64], outcome: impl Fn() -> Result<u64, Error>) {
        for token in tokens {
            let replies = self.reads.remove(token).unwrap_or_default();
            self.reads_waiting -= replies.len();
            for reply in replies {
                reply(outcome());
            }
        }
    }

    /// Heartbeats leave with ticks. Who waits for one too long calls an election.
    fn note_lateness(&self, late: Duration) {
        if late > self.tick && self.core.leads() && !self.core.is_alone() {
            metrics::heartbeat_send_failures().inc();
            tracing::warn!(
                "heartbeat-interval" = ?self.tick,
                "exceeded-duration" = ?late,
                "leader failed to send out heartbeat on time; took too long, leader is overloaded"
            );
        }
    }

    /// Takes events through the core, and what a short write makes durable at once as well.
    fn turn(&mut self, mut events: Vec<Event>) -> Result<(), Error> {
        let shows_progress =
            |event: &Event| matches!(event, Event::Tick | Event::ConfChange { .. });
        let shows = events.iter().any(shows_progress);
        let is_snapshot = |event: &&Event| matches!(event, Event::ReceiveSnapshot(_));
        let mut snapshots = events.iter().filter(is_snapshot).count() as u64;
        loop {
            self.core.spare_space(self.shared.is_space_short.load(Ordering::Relaxed));
            let mut effects = self.core.handle(events);
            self.shared.awaits_snapshot.store(self.core.awaits_snapshot(), Ordering::Release);
            let looked_at = std::mem::take(&mut snapshots);
            self.shared.snapshots_waiting.fetch_sub(looked_at, Ordering::AcqRel);
            if shows {
                *self.shared.progress.lock() = self.core.progress();
                self.shared.may_leave.store(self.core.may_leave(), Ordering::Release);
            }
            let status = self.core.status();
            self.note_latencies(&status);
            // Before apply can acknowledge anything: reads rely on it.
            self.shared.status.set(status, self.core.answers_reads_alone());
            let short = self.take_short_job(&mut effects);
            for effect in effects {
                self.carry_out(effect)?;
            }
            let Some(job) = short else { return Ok(()) };
            // Only a purge may hold the writer now: no job is with it.
            let Written { number, places, held } =
                self.writer.lock().carry_out(vec![Work::Job(job)])?;
            if !held.is_empty() {
                // The log writer can wait for room, and the loop cannot.
                let _ = self.shared.inbox.persisted(number, places);
                held.into_iter().for_each(|work| self.jobs.0.put(work));
                return Ok(());
            }
            events = vec![Event::Persisted { number, places }];
        }
    }

    /// Sees how long it takes until what the leader appends is committed.
    fn note_latencies(&mut self, status: &Status) {
        if status.role != Role::Leader {
            return self.appended.clear();
        }
        let is_new =
            self.appended.back().map_or(status.committed, |(index, _)| *index) < status.last_index;
        let is_over = self.appended.front().is_some_and(|(index, _)| *index <= status.committed);
        if !is_new && !is_over {
            return;
        }
        let now = self.surroundings.clock.now();
        while self.appended.front().is_some_and(|(index, _)| *index <= status.committed) {
            if let Some((_, since)) = self.appended.pop_front() {
                self.shared.committing.note(now.saturating_sub(since));
            }
        }
        if is_new && self.appended.len() < limits::LOG_JOBS_MAX {
            self.appended.push_back((status.last_index, now));
        }
    }

    /// Who has nobody waiting for this thread, and little to write, saves the way to the log writer
    /// and back: a sole voter, and a follower while the disk is quick. With more to write, the
    /// writer's sync and this thread's work are better done side by side.
    fn take_short_job(&self, effects: &mut Vec<Effect>) -> Option<Job> {
        if !self.core.awaits_one_job() {
            return None;
        }
        let (mut entries_max, mut bytes_max) =
            (limits::LOG_INLINE_ENTRIES_MAX, limits::LOG_INLINE_BYTES_MAX);
        if !self.core.is_alone() {
            let is_quick = self
                .writer
                .try_lock()
                .is_some_and(|writer| writer.sync_average < limits::LOG_INLINE_SYNC_MAX);
            if self.is_stepped || self.core.leads() || !is_quick {
                return None;
            }
            entries_max = limits::LOG_INLINE_FOLLOWER_ENTRIES_MAX;
            bytes_max = limits::LOG_INLINE_FOLLOWER_BYTES_MAX;
        }
        let at = effects.iter().position(|effect| match effect {
            Effect::Persist(Job { batch, .. }) => {
                batch.entries.len() <= entries_max
                    && batch.entries.iter().map(|entry| entry.data.len()).sum::<usize>()
                        <= bytes_max
            }
            _ => false,
        })?;
        match effects.remove(at) {
            Effect::Persist(job) => Some(job),
            other => {
                effects.insert(at, other);
                None
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), Error> {
        match effect {
            Effect::Persist(job) => self.jobs.0.put(Work::Job(job)),
            Effect::Send(messages) => self.surroundings.transport.send(messages),
            // There is room: the core counts what apply holds.
            Effect::Commit(batch) => {
                self.surroundings.applier.try_send(batch).map_err(|_| Error::ApplyGone)?;
            }
            Effect::ReadIndex { tokens, index } => {
                self.settle_reads(&tokens, || Ok(index));
            }
            Effect::ReadsLate(tokens) => self.settle_reads(&tokens, || Err(Error::Late)),
            Effect::Dropped(tickets) => self.surroundings.observer.dropped(&tickets),
            Effect::ConfState { index, outcome } => {
                if let Some(reply) = self.shared.conf_states.lock().remove(&index) {
                    // There is room for the one answer; if nobody waits, nobody needs it.
                    let _ = reply.try_send(outcome);
                }
            }
            Effect::Leader(leader) => {
                self.shared.leader.send_replace(leader);
            }
            Effect::Purge { below, record } => self.jobs.0.put(Work::Purge { below, record }),
            Effect::Refused(refusal) => self.refusals.note(refusal),
            Effect::Fatal(error) => return Err(error),
        }
        Ok(())
    }
}
