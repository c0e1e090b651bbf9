//! The log writer: its queue, its thread, and the messages that wait for its syncs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::core::Job;
use super::handle::Shared;
use super::log::{self, EntryPosition, SnapshotRecord, Writer};
use super::{Error, Observer, Transport};
use crate::clock::Clock;
use crate::limits;
use crate::metrics;
use crate::planted::{self, Bug};
use crate::supervise::Supervisor;

/// One piece of work for the log writer.
pub(super) enum Work {
    Job(Job),
    Purge { below: u64, record: SnapshotRecord },
}

/// The queue of the log writer. It has no bound of its own: the core gives out at most
/// `LOG_JOBS_MAX` jobs that are not durable.
#[derive(Default)]
pub(super) struct Jobs {
    state: Mutex<JobsState>,
    filled: Condvar,
}

#[derive(Default)]
struct JobsState {
    work: Vec<Work>,
    sleeping: bool,
    ended: bool,
}

impl Jobs {
    pub(super) fn len(&self) -> usize {
        self.state.lock().work.len()
    }

    pub(super) fn put(&self, work: Work) {
        let mut state = self.state.lock();
        state.work.push(work);
        let wake = std::mem::take(&mut state.sleeping);
        drop(state);
        if wake {
            self.filled.notify_one();
        }
    }

    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.filled.notify_one();
    }

    pub(super) fn has_work(&self) -> bool {
        !self.state.lock().work.is_empty()
    }

    /// All work that has queued. If there is none, waits for it if `waits`, and returns `None` at
    /// the queue's end or without waiting.
    pub(super) fn take(&self, waits: bool) -> Option<Vec<Work>> {
        let mut state = self.state.lock();
        while waits && state.work.is_empty() && !state.ended {
            state.sleeping = true;
            self.filled.wait(&mut state);
        }
        state.sleeping = false;
        (!state.work.is_empty()).then(|| std::mem::take(&mut state.work))
    }

    /// All work that queues, perhaps none, within `LOG_ROOM_RETRY`, after which the log has to look
    /// for room again. Returns `None` once the queue has ended: work without room is given up then.
    fn take_soon(&self) -> Option<Vec<Work>> {
        let mut state = self.state.lock();
        if state.work.is_empty() && !state.ended {
            state.sleeping = true;
            self.filled.wait_for(&mut state, limits::LOG_ROOM_RETRY);
        }
        state.sleeping = false;
        (!state.ended).then(|| std::mem::take(&mut state.work))
    }
}

/// The raft loop's end of the queue. Dropping it ends the log writer, also if the loop never ran.
pub(super) struct JobsEnd(pub(super) Arc<Jobs>);

impl Drop for JobsEnd {
    fn drop(&mut self) {
        self.0.end();
    }
}

pub(super) struct LogThread {
    pub(super) supervisor: Supervisor,
    pub(super) writer: Arc<Mutex<LogWriter>>,
    pub(super) jobs: Arc<Jobs>,
    pub(super) shared: Arc<Shared>,
    /// Work that waits for room on the log's disk, in order.
    pub(super) without_room: Mutex<Vec<Work>>,
}

impl LogThread {
    pub(super) fn run(self) {
        let outcome = self.supervisor.run("raft-log", || {
            let mut is_said = false;
            loop {
                let waits = !self.without_room.lock().is_empty();
                let taken = if waits { self.jobs.take_soon() } else { self.jobs.take(true) };
                let Some(taken) = taken else { return Ok(()) };
                self.carry_out(taken)?;
                let is_full = !self.without_room.lock().is_empty();
                if is_full && !is_said {
                    tracing::error!(
                        hint = "make room on the disk of the log, or raise its limits",
                        "no space is left for the log; what is proposed waits until there is"
                    );
                }
                is_said = is_full;
            }
        });
        if let Err(error) = outcome.unwrap_or_else(|panicked| Err(panicked.into())) {
            self.shared.inbox.fail(error);
        }
    }

    /// Carries out the held work and the new. Jobs for which the log has no room stay held. A purge
    /// overtakes them, since it makes room, unless one of them holds the record of a snapshot.
    pub(super) fn carry_out(&self, work: Vec<Work>) -> Result<(), Error> {
        planted::panic_if_planted("raft-log");
        let mut waiting = self.without_room.lock();
        waiting.extend(work);
        let work = std::mem::take(&mut *waiting);
        let (jobs, mut purges): (Vec<Work>, Vec<Work>) =
            work.into_iter().partition(|work| matches!(work, Work::Job(_)));
        let Written { number, places, mut without_room } = self.writer.lock().carry_out(jobs)?;
        if number > 0 || !places.is_empty() {
            // This fails once raft has stopped; the next start finds what is durable.
            let _ = self.shared.inbox.persisted(number, places);
        }
        let is_snapshot =
            |work: &Work| matches!(work, Work::Job(job) if job.batch.snapshot.is_some());
        if without_room.iter().any(is_snapshot) {
            without_room.append(&mut purges);
        }
        without_room.extend(self.writer.lock().carry_out(purges)?.without_room);
        *waiting = without_room;
        Ok(())
    }
}

/// Which work the log writer has done.
pub(super) struct Written {
    /// The last job that is durable; 0 for none.
    pub(super) number: u64,
    /// Where the written entries stand.
    pub(super) places: Vec<EntryPosition>,
    /// Work for which the log has no room, in order.
    pub(super) without_room: Vec<Work>,
}

/// Writes and syncs the log, then sends the messages that wait for that.
pub(super) struct LogWriter {
    writer: Writer,
    transport: Arc<dyn Transport>,
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
    /// Moving average of how long a sync takes; the last one counts for an eighth.
    pub(super) sync_average: Duration,
}

impl LogWriter {
    pub(super) fn new(
        writer: Writer,
        transport: Arc<dyn Transport>,
        observer: Arc<dyn Observer>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { writer, transport, observer, clock, sync_average: Duration::ZERO }
    }

    /// Writes and syncs all jobs at once, then sends their messages. Work for which the log has no
    /// room comes back in [`Written::without_room`]: a job with those entries that are not written,
    /// together with all work behind it, and a purge whose record has no room.
    pub(super) fn carry_out(&mut self, work: Vec<Work>) -> Result<Written, log::Error> {
        let mut places = Vec::new();
        let mut messages = Vec::new();
        let mut purge = None;
        let (mut number, mut sync) = (0, false);
        let (mut work, mut without_room) = (VecDeque::from(work), Vec::new());
        if !work.is_empty() {
            self.observer.log_busy_since(Some(self.clock.now()));
        }
        while let Some(next) = work.pop_front() {
            match next {
                Work::Job(mut job) => {
                    places.extend(self.writer.put(&mut job.batch)?);
                    if !job.batch.is_empty() {
                        without_room.push(Work::Job(job));
                        if planted::is(Bug::OvertakenJob) {
                            continue;
                        }
                        without_room.extend(work);
                        break;
                    }
                    messages.append(&mut job.messages);
                    number = job.number;
                    sync |= job.sync;
                }
                Work::Purge { below, record } => purge = Some((below, record)),
            }
        }
        let begun = self.clock.now();
        let bytes = self.writer.write()?;
        let written = self.clock.now();
        if bytes > 0 {
            self.observer.written(bytes, written.saturating_sub(begun));
        }
        if planted::is(Bug::AckBeforeSync) {
            self.transport.send(std::mem::take(&mut messages));
        }
        if sync {
            self.writer.sync()?;
            let took = self.clock.now().saturating_sub(written);
            self.sync_average = (self.sync_average * 7 + took) / 8;
            self.observer.synced(took);
        }
        if !messages.is_empty() {
            self.transport.send(messages);
        }
        if let Some((below, record)) = purge {
            let begun = self.clock.now();
            if self.writer.purge(below, &record)? {
                let took = self.clock.now().saturating_sub(begun);
                metrics::snap_fsync_seconds().observe(took.as_secs_f64());
                metrics::snap_save_seconds().observe(took.as_secs_f64());
            } else {
                without_room.push(Work::Purge { below, record });
            }
        }
        self.observer.log_busy_since(None);
        Ok(Written { number, places, without_room })
    }
}
