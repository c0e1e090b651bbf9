//! The log writer: what it is to do, its thread, and the messages that wait for its syncs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::core::Job;
use super::handle::Shared;
use super::log::{self, Placed, SnapshotRecord, Writer};
use super::{Error, Observer, Transport};
use crate::clock::Clock;
use crate::limits;
use crate::metrics;
use crate::planted::{self, Bug};
use crate::supervise::Supervisor;

/// What the log writer is to do.
pub(super) enum Work {
    Job(Job),
    Purge { below: u64, record: SnapshotRecord },
}

/// The queue of the log writer; the core bounds what it puts in.
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

    /// All that queued, or nothing at the end.
    pub(super) fn take(&self, waits: bool) -> Option<Vec<Work>> {
        let mut state = self.state.lock();
        while waits && state.work.is_empty() && !state.ended {
            state.sleeping = true;
            self.filled.wait(&mut state);
        }
        state.sleeping = false;
        (!state.work.is_empty()).then(|| std::mem::take(&mut state.work))
    }

    /// All that queued before the log has to look for room again; nothing once the queue has ended.
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

/// The raft loop's end of the queue. The log writer ends with it, also if the loop never ran.
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
    /// What waits for room on the log's disk, in order.
    pub(super) held: Mutex<Vec<Work>>,
}

impl LogThread {
    pub(super) fn run(self) {
        let outcome = self.supervisor.run("raft-log", || {
            let mut is_said = false;
            loop {
                let waits = !self.held.lock().is_empty();
                let taken = if waits { self.jobs.take_soon() } else { self.jobs.take(true) };
                let Some(taken) = taken else { return Ok(()) };
                self.carry_out(taken)?;
                let is_full = !self.held.lock().is_empty();
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

    /// Carries out what waited and what came. Jobs for which the log has no room wait on, and a
    /// purge goes before them, since it makes room; but not before the record of a snapshot.
    pub(super) fn carry_out(&self, work: Vec<Work>) -> Result<(), Error> {
        planted::trip("raft-log");
        let mut waiting = self.held.lock();
        waiting.extend(work);
        let work = std::mem::take(&mut *waiting);
        let (jobs, mut purges): (Vec<Work>, Vec<Work>) =
            work.into_iter().partition(|work| matches!(work, Work::Job(_)));
        let Written { number, places, mut held } = self.writer.lock().carry_out(jobs)?;
        if number > 0 || !places.is_empty() {
            // If raft has stopped, what is durable is found at the next start.
            let _ = self.shared.inbox.persisted(number, places);
        }
        let is_snapshot =
            |work: &Work| matches!(work, Work::Job(job) if job.batch.snapshot.is_some());
        if held.iter().any(is_snapshot) {
            held.append(&mut purges);
        }
        held.extend(self.writer.lock().carry_out(purges)?.held);
        *waiting = held;
        Ok(())
    }
}

/// How far the writer has come with its work.
pub(super) struct Written {
    /// The last job that is durable; 0 for none.
    pub(super) number: u64,
    /// Where the written entries stand.
    pub(super) places: Vec<Placed>,
    /// Work for which the log has no room, in order.
    pub(super) held: Vec<Work>,
}

/// The log's end, and where the messages go that wait for it.
pub(super) struct LogWriter {
    writer: Writer,
    transport: Arc<dyn Transport>,
    observer: Arc<dyn Observer>,
    clock: Arc<dyn Clock>,
    /// How long the last syncs took.
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
    /// room comes back in [`Written::held`]: a job keeps only the entries that are not written, all
    /// that stands behind it waits with it, and a purge comes back whose record has no room.
    pub(super) fn carry_out(&mut self, work: Vec<Work>) -> Result<Written, log::Error> {
        let mut places = Vec::new();
        let mut messages = Vec::new();
        let mut purge = None;
        let (mut number, mut sync) = (0, false);
        let (mut work, mut held) = (VecDeque::from(work), Vec::new());
        if !work.is_empty() {
            self.observer.writes(Some(self.clock.now()));
        }
        while let Some(next) = work.pop_front() {
            match next {
                Work::Job(mut job) => {
                    places.extend(self.writer.put(&mut job.batch)?);
                    if !job.batch.is_empty() {
                        held.push(Work::Job(job));
                        if planted::is(Bug::OvertakenJob) {
                            continue;
                        }
                        held.extend(work);
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
            } else {
                held.push(Work::Purge { below, record });
            }
        }
        self.observer.writes(None);
        Ok(Written { number, places, held })
    }
}
