//! The raft loop: takes queued events through the core, and carries out the effects.
//!
//! One turn is one call of [`Core::handle`] with all events that waited. The effects are carried
//! out in their order. A short job is written within the turn, where two thread hops would cost
//! more than writing beside the loop saves; a second call then tells the core that it is durable.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use parking_lot::Mutex;

use super::core::{Committed, Core, Effect, Event, Job};
use super::handle::Shared;
use super::inbox::{ReadReply, RefusalLog};
use super::log::Disk;
use super::log_writer::{JobsEnd, LogWriter, Work, Written};
use super::{Error, Observer, Role, Status, Transport};
use crate::clock::Clock;
use crate::go;
use crate::planted;
use crate::supervise::Supervisor;
use crate::{limits, metrics};

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

pub(super) struct RaftThread {
    pub(super) core: Core,
    pub(super) writer: Arc<Mutex<LogWriter>>,
    pub(super) jobs: JobsEnd,
    pub(super) shared: Arc<Shared>,
    pub(super) surroundings: Surroundings,
    pub(super) tick: Duration,
    pub(super) next_tick: Duration,
    /// How long the next turn may wait for work.
    pub(super) patience: Duration,
    /// Reads that wait for an index, by token; all reads that one turn took share a token.
    pub(super) reads: HashMap<u64, Vec<ReadReply>>,
    /// The number of replies in `reads`.
    pub(super) reads_waiting: usize,
    /// The rounds without an answer that were counted.
    pub(super) reads_unanswered: u64,
    pub(super) next_token: u64,
    /// The last index of each batch that this leader has appended and not committed, and the time
    /// when it was appended.
    pub(super) appended: VecDeque<(u64, Duration)>,
    /// A simulator runs the turns of this loop and of the log writer, which then have no threads.
    pub(super) is_stepped: bool,
    pub(super) refusals: RefusalLog,
}

impl RaftThread {
    pub(super) fn run(mut self) {
        let supervisor = self.surroundings.supervisor.clone();
        let outcome = supervisor.run("raft", || {
            while self.run_once(true)? {}
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

    /// Runs one turn, with `waits` after waiting for work. Returns false if the loop has to end.
    pub(super) fn run_once(&mut self, waits: bool) -> Result<bool, Error> {
        planted::panic_if_planted("raft");
        let wants_apply_reports = self.core.wants_apply_reports();
        let proposals_min = self.core.proposals_min();
        let patience = if waits { self.patience } else { Duration::ZERO };
        let mut taken = self.shared.inbox.take(patience, proposals_min, wants_apply_reports);
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
            // Ticks that were missed in a pause are skipped: made up for at once, they would let an
            // election timeout or a leader's quorum check run out before other members can answer.
            self.next_tick = (self.next_tick + self.tick).max(now);
        }
        self.turn(taken.events)?;
        self.count_slow_reads();
        let now = self.surroundings.clock.now();
        self.patience = self.next_tick.saturating_sub(now).max(Duration::from_nanos(1));
        Ok(true)
    }

    /// Bounds the reads that the loop has taken and that wait for a leader, as those in the inbox
    /// are bounded: the newest reads beyond the bound are refused as busy.
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

    /// Heartbeats leave with ticks: a follower that waits too long for one calls an election.
    fn note_lateness(&self, late: Duration) {
        if late > self.tick && self.core.leads() && !self.core.is_alone() {
            metrics::heartbeat_send_failures().inc();
            tracing::warn!(
                "heartbeat-interval" = go::duration(self.tick),
                "exceeded-duration" = go::duration(late),
                "leader failed to send out heartbeat on time; took too long, leader is overloaded"
            );
        }
    }

    /// Takes events through the core and carries out the effects. If one of them is a short job, it
    /// is written here, and the core hears in the same turn that it is durable.
    fn turn(&mut self, mut events: Vec<Event>) -> Result<(), Error> {
        let shows_progress =
            |event: &Event| matches!(event, Event::Tick | Event::ConfChange { .. });
        let shows = events.iter().any(shows_progress);
        let is_snapshot = |event: &&Event| matches!(event, Event::ReceiveSnapshot(_));
        let mut snapshots = events.iter().filter(is_snapshot).count() as u64;
        loop {
            self.core.set_space_short(self.shared.is_space_short.load(Ordering::Relaxed));
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
            // The commit index is published before apply gets the entries and can acknowledge them:
            // the reads of a sole voter rely on that order.
            self.shared.status.set(status, self.core.answers_reads_alone());
            let short = self.take_short_job(&mut effects);
            for effect in effects {
                self.carry_out(effect)?;
            }
            let Some(job) = short else { return Ok(()) };
            // No job is with the log writer, so at most a purge holds this lock.
            let Written { number, places, without_room } =
                self.writer.lock().carry_out(vec![Work::Job(job)])?;
            if !without_room.is_empty() {
                // The log writer can wait for room, and the loop cannot.
                let _ = self.shared.inbox.persisted(number, places);
                without_room.into_iter().for_each(|work| self.jobs.0.put(work));
                return Ok(());
            }
            events = vec![Event::Persisted { number, places }];
        }
    }

    /// Measures on a leader how long appended entries take to be committed.
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

    /// Takes a short job out of the effects, to be written within this turn, because two thread
    /// hops to the log writer and back cost more than the overlap saves. Only a sole voter does so,
    /// and a follower while syncs are quick: a leader's messages to others would wait for the disk.
    /// Longer jobs go to the log writer, whose sync runs beside the loop's work.
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

    /// Counts the rounds of reads that no leader answered in time.
    fn count_slow_reads(&mut self) {
        let unanswered = self.core.reads_unanswered();
        metrics::slow_read_indexes().inc_by(unanswered - self.reads_unanswered);
        self.reads_unanswered = unanswered;
    }

    fn carry_out(&mut self, effect: Effect) -> Result<(), Error> {
        match effect {
            Effect::Persist(job) => self.jobs.0.put(Work::Job(job)),
            Effect::Send(messages) => self.surroundings.transport.send(messages),
            // The channel has room: the core counts the batches that apply holds.
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
                    // The channel has room for the one answer. The send fails only if apply has
                    // ended and waits no longer.
                    let _ = reply.try_send(outcome);
                }
            }
            Effect::Leader(leader) => {
                let before = self.shared.leader.send_replace(leader);
                if before.id != 0 && before.id != leader.id && !self.reads.is_empty() {
                    metrics::read_indexes_failed().inc();
                }
            }
            Effect::Purge { below, record } => self.jobs.0.put(Work::Purge { below, record }),
            Effect::Refused(refusal) => self.refusals.note(refusal),
            Effect::Fatal(error) => return Err(error),
        }
        Ok(())
    }
}
