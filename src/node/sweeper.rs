//! The thread that sweeps up after compactions, one at a time, a little at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::waits::Waits;
use crate::apply::{self, Reply};
use crate::clock::Clock;
use crate::limits;
use crate::metrics;
use crate::mvcc::{Compaction, CompactionStep, Mvcc};

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

pub(super) struct Sweeper {
    is_stopping: Arc<AtomicBool>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

struct Worker {
    mvcc: Arc<Mvcc>,
    waits: Arc<Waits>,
    clock: Arc<dyn Clock>,
    pause: Duration,
    is_stopping: Arc<AtomicBool>,
}

impl Sweeper {
    pub(super) fn start(
        mvcc: Arc<Mvcc>,
        waits: Arc<Waits>,
        clock: Arc<dyn Clock>,
        pause: Duration,
        unfinished: Option<Compaction>,
    ) -> std::io::Result<(Self, SweepQueue)> {
        let (sender, receiver) = sync_channel(limits::SWEEPS_PENDING_MAX);
        let is_stopping = Arc::new(AtomicBool::new(false));
        let worker = Worker { mvcc, waits, clock, pause, is_stopping: Arc::clone(&is_stopping) };
        let thread = std::thread::Builder::new().name("sweeper".into()).spawn(move || {
            if let Some(compaction) = unfinished {
                let revision = compaction.revision();
                tracing::info!(
                    "scheduled-compact-revision" = revision,
                    "resume scheduled compaction"
                );
                worker.sweep(Sweep { compaction, answer: None });
            }
            worker.run(&receiver);
        })?;
        Ok((Self { is_stopping, thread: Mutex::new(Some(thread)) }, SweepQueue(sender)))
    }

    /// Ends the sweep under way where it is; a start resumes it.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn run(&self, sweeps: &Receiver<Sweep>) {
        while !self.is_stopping.load(Ordering::Acquire) {
            match sweeps.recv_timeout(Duration::from_millis(50)) {
                Ok(sweep) => self.sweep(sweep),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn sweep(&self, mut sweep: Sweep) {
        let started = self.clock.now();
        let revision = sweep.compaction.revision();
        tracing::info!(revision, "compact tree index");
        while !self.is_stopping.load(Ordering::Acquire) {
            match sweep.compaction.step(&self.mvcc) {
                Ok(CompactionStep::Waiting) => std::thread::sleep(WAIT),
                Ok(CompactionStep::Thinned) => std::thread::yield_now(),
                Ok(CompactionStep::More) => std::thread::sleep(self.pause),
                Ok(CompactionStep::Done { deleted, hash }) => {
                    metrics::compacted_keys().inc_by(deleted as u64);
                    let took = self.clock.now().saturating_sub(started);
                    tracing::info!(
                        "compact-revision" = revision,
                        took = ?took,
                        "number-of-keys-compacted" = deleted,
                        hash = hash.hash,
                        "finished scheduled compaction"
                    );
                    break;
                }
                Err(error) => {
                    tracing::warn!(%error, "Failed compaction");
                    break;
                }
            }
        }
        if let Some((id, reply)) = sweep.answer {
            self.waits.answer(id, reply);
        }
    }
}
