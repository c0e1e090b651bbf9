//! The thread that sweeps after compactions, one sweep at a time and in small steps, and writes the
//! index checkpoint. A checkpoint that is due comes before the next step of a sweep: it takes some
//! seconds each minute at most, while sweeps may follow each other without end.
//!
//! Apply never waits for this thread. Compactions that are applied during a sweep are merged into
//! the next one, so a client that compacts after each put causes one sweep after the other, and no
//! queue.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use super::checkpointer::Checkpointer;
use crate::apply::{self, Reply};
use crate::clock::{self, Clock};
use crate::go;
use crate::limits;
use crate::members::Members;
use crate::metrics;
use crate::mvcc::{self, Mvcc, Sweep, SweepStep};
use crate::pb::AlarmType;
use crate::planted;
use crate::supervise::{Supervisor, Thread};

/// How long the sweeper sleeps between two looks at whether readers and the committer are done.
const WAIT: Duration = Duration::from_millis(2);
/// How long the sweeper waits for work before it checks whether the member stops.
const IDLE: Duration = Duration::from_millis(50);

/// The callers that wait for sweeps, by request id.
pub trait SweepWaiters: Send + Sync {
    /// Whether a call still waits for the answer to the applied request `id`.
    fn are_waiting(&self, id: u64) -> bool;

    fn answer(&self, id: u64, reply: Result<Reply, apply::Error>);
}

/// A request id, and the reply that a physical compaction gets after its sweep.
type Answer = (u64, Result<Reply, apply::Error>);

pub struct SweepJob {
    pub compaction: Sweep,
    pub answers: Vec<Answer>,
}

impl SweepJob {
    pub fn new(compaction: Sweep, answer: Option<Answer>) -> Self {
        Self { compaction, answers: answer.into_iter().collect() }
    }
}

#[derive(Default)]
struct Pending {
    state: Mutex<PendingState>,
    changed: Condvar,
}

#[derive(Default)]
struct PendingState {
    sweep: Option<SweepJob>,
    is_stopping: bool,
}

/// Counts the part of a compaction that a step was.
fn observe(step: &Result<SweepStep, mvcc::Error>, took: Duration) {
    match step {
        Ok(SweepStep::Thinned) => metrics::index_compaction_pause_millis().observe(millis(took)),
        Ok(SweepStep::Part | SweepStep::More | SweepStep::Read) => {
            metrics::compaction_pause_millis().observe(millis(took));
        }
        _ => {}
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl Pending {
    /// Sleeps, but not after a stop: the pause between batches is a flag's and can be hours.
    fn rest(&self, time: Duration) {
        let end = clock::instant() + time;
        let mut state = self.state.lock();
        while !state.is_stopping && !self.changed.wait_until(&mut state, end).timed_out() {}
    }

    /// Waits until there is a sweep, for `IDLE` at most.
    fn wait(&self) {
        let mut state = self.state.lock();
        if !state.is_stopping && state.sweep.is_none() {
            self.changed.wait_for(&mut state, IDLE);
        }
    }

    fn is_stopping(&self) -> bool {
        self.state.lock().is_stopping
    }

    fn stop(&self) {
        self.state.lock().is_stopping = true;
        self.changed.notify_all();
    }
}

/// The queue of applied compactions, which holds one merged sweep.
#[derive(Clone)]
pub struct SweepQueue {
    pending: Arc<Pending>,
    waiters: Arc<dyn SweepWaiters>,
}

impl SweepQueue {
    /// Hands a compaction to the sweeper. Called on the apply thread; never waits for a sweep,
    /// because compactions that wait are merged.
    pub fn push(&self, later: SweepJob) {
        let mut pending = self.pending.state.lock();
        match &mut pending.sweep {
            Some(sweep) => {
                sweep.compaction.absorb(later.compaction);
                sweep.answers.extend(later.answers);
                if sweep.answers.len() > limits::SWEEP_ANSWERS_MAX {
                    sweep.answers.retain(|(id, _)| self.waiters.are_waiting(*id));
                }
            }
            None => pending.sweep = Some(later),
        }
        self.pending.changed.notify_all();
    }
}

/// The sweeper's thread, and the means to end it.
#[derive(Default)]
pub struct Sweeper {
    pending: Arc<Pending>,
    thread: Mutex<Option<Thread<()>>>,
}

/// How a sweep goes through history.
#[derive(Clone, Copy, Debug)]
pub struct SweepBatches {
    /// Rows between two pauses; not 0.
    pub rows: usize,
    pub pause: Duration,
}

/// The sweeper's work, done by its thread or, in a stepped member, by `Steps`.
pub struct SweepWorker {
    mvcc: Arc<Mvcc>,
    members: Arc<RwLock<Members>>,
    waiters: Arc<dyn SweepWaiters>,
    clock: Arc<dyn Clock>,
    batches: SweepBatches,
    pending: Arc<Pending>,
    /// The sweep under way, and the time when it began.
    current: Option<(SweepJob, Duration)>,
    checkpointer: Checkpointer,
}

impl Sweeper {
    pub fn start(worker: SweepWorker, supervisor: &Supervisor) -> std::io::Result<Self> {
        let pending = Arc::clone(&worker.pending);
        let thread = supervisor.thread("sweeper", move || worker.run())?;
        Ok(Self { pending, thread: Mutex::new(Some(thread)) })
    }

    /// Ends the thread. The sweep under way stays unfinished, and the next start resumes it.
    pub fn stop(&self) {
        self.pending.stop();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl SweepWorker {
    pub fn new(
        (mvcc, members): (Arc<Mvcc>, Arc<RwLock<Members>>),
        waiters: Arc<dyn SweepWaiters>,
        clock: Arc<dyn Clock>,
        batches: SweepBatches,
        unfinished: Option<Sweep>,
        checkpointer: Checkpointer,
    ) -> (Self, SweepQueue) {
        let pending = Arc::<Pending>::default();
        let queue = SweepQueue { pending: Arc::clone(&pending), waiters: Arc::clone(&waiters) };
        let mut worker =
            Self { mvcc, members, waiters, clock, batches, pending, current: None, checkpointer };
        if let Some(compaction) = unfinished {
            let revision = compaction.revision();
            tracing::info!("scheduled-compact-revision" = revision, "resume scheduled compaction");
            worker.begin(SweepJob::new(compaction, None));
        }
        (worker, queue)
    }

    fn run(mut self) {
        while !self.pending.is_stopping() {
            match self.turn() {
                Some(Duration::ZERO) => std::thread::yield_now(),
                Some(pause) => self.pending.rest(pause),
                None => self.pending.wait(),
            }
        }
        let pending = self.pending.state.lock().sweep.take();
        self.end(pending.map(|sweep| sweep.answers).unwrap_or_default());
        if self.current.is_some() {
            tracing::warn!(error = "interrupted due to stop signal", "Failed compaction");
        }
        self.end_current();
    }

    fn begin(&mut self, sweep: SweepJob) {
        tracing::info!(revision = sweep.compaction.revision(), "compact tree index");
        self.current = Some((sweep, self.clock.now()));
    }

    /// Answers the callers that wait for a sweep, whether it was completed or is left to the next
    /// start.
    fn end(&self, answers: Vec<Answer>) {
        for (id, reply) in answers {
            self.waiters.answer(id, reply);
        }
    }

    fn end_current(&mut self) {
        if let Some((sweep, _)) = self.current.take() {
            self.end(sweep.answers);
        }
    }

    /// While a sweep waits: makes a deletion that a caller waits for begin at once, and ends answers
    /// that have held the sweep up for long enough.
    fn shorten_wait(&self) {
        let Some((sweep, _)) = &self.current else { return };
        if !sweep.answers.is_empty() {
            sweep.compaction.hurry(&self.mvcc);
        }
        // Without space, writes wait for what the sweep deletes.
        let max = match self.members.read().has_alarm(AlarmType::Nospace) {
            true => limits::ANSWER_HOLD_WITHOUT_SPACE,
            false => limits::ANSWER_HOLD_MAX,
        };
        let ended = sweep.compaction.end_pins(&self.mvcc, self.clock.now(), max);
        if ended > 0 {
            let revision = sweep.compaction.revision();
            tracing::warn!(
                "compact-revision" = revision,
                answers = ended,
                "ending answers whose clients take them too slowly: a compaction waits for their rows"
            );
        }
    }

    /// Does a bounded piece of the checkpoint, and one of a sweep unless the checkpoint is writing
    /// the index. Returns the pause after it; None if there was nothing to do.
    pub fn turn(&mut self) -> Option<Duration> {
        planted::panic_if_planted("sweeper");
        let rest = self.checkpointer.turn();
        if self.checkpointer.needs_index() {
            return rest;
        }
        if self.current.is_none() {
            let pending = self.pending.state.lock().sweep.take();
            let Some(sweep) = pending else { return rest };
            self.begin(sweep);
        }
        let (sweep, started) = self.current.as_mut()?;
        let revision = sweep.compaction.revision();
        let step_began = self.clock.now();
        let step = sweep.compaction.step(&self.mvcc, self.batches.rows);
        observe(&step, self.clock.now().saturating_sub(step_began));
        match step {
            Ok(SweepStep::Waiting) => {
                self.shorten_wait();
                return Some(WAIT);
            }
            Ok(SweepStep::Begun | SweepStep::Thinned | SweepStep::Part | SweepStep::Read) => {
                return Some(limits::INDEX_COMPACT_REST);
            }
            Ok(SweepStep::More) => return Some(self.batches.pause),
            Ok(SweepStep::Done { deleted, hash }) => {
                let took = self.clock.now().saturating_sub(*started);
                let sizes = self.mvcc.store_sizes();
                metrics::compacted_keys().inc_by(deleted as u64);
                metrics::compaction_millis().observe(millis(took));
                let seconds = self.clock.unix_nanos() / 1_000_000_000;
                metrics::compaction_last().set(seconds.cast_signed());
                tracing::info!(
                    "compact-revision" = revision,
                    took = go::duration(took),
                    "number-of-keys-compacted" = deleted,
                    hash = hash.hash,
                    "current-db-size-bytes" = sizes.total,
                    "current-db-size-in-use-bytes" = sizes.in_use,
                    "finished scheduled compaction"
                );
                if !sweep.compaction.keeps_hash() {
                    tracing::info!(
                        "previous compaction was interrupted, skip storing compaction hash value"
                    );
                }
            }
            // The member stops, or another member's snapshot has replaced the state that this sweep
            // belongs to.
            Err(error @ mvcc::Error::Stopped) => tracing::info!(%error, "compaction ended early"),
            Err(error) => {
                // The sweep is kept and tried again, because only it knows the rows to delete.
                // Callers get their answer at once, those of the next sweep too: the disk may never
                // recover.
                tracing::warn!(%error, "Failed compaction");
                let mut answers = std::mem::take(&mut sweep.answers);
                if let Some(later) = &mut self.pending.state.lock().sweep {
                    answers.append(&mut later.answers);
                }
                self.end(answers);
                return Some(limits::SWEEP_RETRY_PAUSE);
            }
        }
        self.end_current();
        Some(Duration::ZERO)
    }
}
