//! The thread that sweeps up after compactions, one at a time, a little at a time, and between them
//! keeps the index checkpoint fresh.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::checkpointer::Checkpointer;
use super::waits::Waits;
use crate::apply::{self, Reply};
use crate::clock::Clock;
use crate::limits;
use crate::metrics;
use crate::mvcc::{Compaction, CompactionStep, Mvcc};
use crate::planted;
use crate::supervise::{Supervisor, Thread};

/// How long the sweeper waits for readers and for the committer before it looks again.
const WAIT: Duration = Duration::from_millis(2);

pub(super) struct Sweep {
    pub compaction: Compaction,
    /// The reply of a physical compaction, which waits for the sweep.
    pub answer: Option<(u64, Result<Reply, apply::Error>)>,
}

/// Where applied compactions go. A full queue makes apply wait.
#[derive(Clone)]
pub(super) struct SweepQueue(SyncSender<Sweep>);

impl SweepQueue {
    pub(super) fn push(&self, sweep: Sweep) {
        // The sweeper ends only when the member stops.
        let _ = self.0.send(sweep);
    }
}

/// The thread, and how it is told to end.
#[derive(Default)]
pub(super) struct Sweeper {
    is_stopping: Arc<AtomicBool>,
    thread: Mutex<Option<Thread<()>>>,
}

/// What the thread does.
pub(super) struct SweepWorker {
    mvcc: Arc<Mvcc>,
    waits: Arc<Waits>,
    clock: Arc<dyn Clock>,
    pause: Duration,
    sweeps: Receiver<Sweep>,
    /// The sweep under way, and since when.
    current: Option<(Sweep, Duration)>,
    checkpointer: Checkpointer,
}

impl Sweeper {
    pub(super) fn start(worker: SweepWorker, supervisor: &Supervisor) -> std::io::Result<Self> {
        let is_stopping = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&is_stopping);
        let thread = supervisor.thread("sweeper", move || worker.run(&stopping))?;
        Ok(Self { is_stopping, thread: Mutex::new(Some(thread)) })
    }

    /// Ends the sweep under way where it is; a start resumes it.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl SweepWorker {
    pub(super) fn new(
        mvcc: Arc<Mvcc>,
        waits: Arc<Waits>,
        clock: Arc<dyn Clock>,
        pause: Duration,
        unfinished: Option<Compaction>,
        checkpointer: Checkpointer,
    ) -> (Self, SweepQueue) {
        let (sender, sweeps) = sync_channel(limits::SWEEPS_PENDING_MAX);
        let mut worker = Self { mvcc, waits, clock, pause, sweeps, current: None, checkpointer };
        if let Some(compaction) = unfinished {
            let revision = compaction.revision();
            tracing::info!("scheduled-compact-revision" = revision, "resume scheduled compaction");
            worker.begin(Sweep { compaction, answer: None });
        }
        (worker, SweepQueue(sender))
    }

    fn run(mut self, is_stopping: &AtomicBool) {
        while !is_stopping.load(Ordering::Acquire) {
            match self.turn() {
                Some(Duration::ZERO) => std::thread::yield_now(),
                Some(pause) => std::thread::sleep(pause),
                None => match self.sweeps.recv_timeout(Duration::from_millis(50)) {
                    Ok(sweep) => self.begin(sweep),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                },
            }
        }
        self.end();
    }

    fn begin(&mut self, sweep: Sweep) {
        tracing::info!(revision = sweep.compaction.revision(), "compact tree index");
        self.current = Some((sweep, self.clock.now()));
    }

    /// Who waited for the sweep goes on, whether it was completed or the next start will do that.
    fn end(&mut self) {
        if let Some((Sweep { answer: Some((id, reply)), .. }, _)) = self.current.take() {
            self.waits.answer(id, reply);
        }
    }

    /// A bounded piece of a sweep or of the checkpoint. Says how long to rest after it; nothing if
    /// there is none.
    pub(super) fn turn(&mut self) -> Option<Duration> {
        planted::trip("sweeper");
        if self.checkpointer.is_busy() {
            return self.checkpointer.turn();
        }
        if self.current.is_none() {
            let Ok(sweep) = self.sweeps.try_recv() else { return self.checkpointer.turn() };
            self.begin(sweep);
        }
        let (sweep, started) = self.current.as_mut()?;
        let revision = sweep.compaction.revision();
        match sweep.compaction.step(&self.mvcc) {
            Ok(CompactionStep::Waiting) => return Some(WAIT),
            Ok(CompactionStep::Thinned) => return Some(limits::INDEX_COMPACT_REST),
            Ok(CompactionStep::More) => return Some(self.pause),
            Ok(CompactionStep::Done { deleted, hash }) => {
                metrics::compacted_keys().inc_by(deleted as u64);
                let took = self.clock.now().saturating_sub(*started);
                tracing::info!(
                    "compact-revision" = revision,
                    took = ?took,
                    "number-of-keys-compacted" = deleted,
                    hash = hash.hash,
                    "finished scheduled compaction"
                );
            }
            Err(error) => tracing::warn!(%error, "Failed compaction"),
        }
        self.end();
        Some(Duration::ZERO)
    }
}
