//! The apply thread: takes committed entries, gives them their effect, publishes views and events,
//! and answers callers.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use bytes::Bytes;

use super::conf_change;
use super::conf_states::ConfStates;
use super::known_peers::KnownPeers;
use super::slow::warn_if_slow;
use super::waits::{AppliedWaits, Waits};
use crate::apply::{self, Entry, Fatal, Machine, Outcome, Reply};
use crate::auth::Auth;
use crate::clock::Clock;
use crate::go;
use crate::limits;
use crate::metrics;
use crate::mvcc::{Change, Restore};
use crate::pb::AlarmType;
use crate::planted;
use crate::raft::{self, Committed, ConfChange, ConfState};
use crate::supervise::Supervisor;
use crate::transfer::{Loaded, Prepared, PreparedSlot, StoredConfState};
use crate::upkeep::{SweepJob, SweepQueue};
use crate::watch::Hub;

#[derive(Clone)]
pub(super) struct Applier {
    pub machine: Machine,
    pub clock: Arc<dyn Clock>,
    pub hub: Arc<Hub>,
    pub waits: Arc<Waits>,
    pub applied: Arc<AppliedWaits>,
    pub sweeps: SweepQueue,
    pub supervisor: Supervisor,
    /// Wakes the duty that raises NOSPACE, when apply meets a full disk or quota.
    pub no_space: Arc<tokio::sync::Notify>,
    pub conf_states: Arc<ConfStates>,
    pub raft: raft::Handle,
    pub prepared_slot: Arc<PreparedSlot>,
    pub known_peers: KnownPeers,
    /// An apply that takes longer is logged.
    pub slow: Duration,
}

type Answer = (u64, Result<Reply, apply::Error>);

/// Committed entries that are being applied. Their effect is published for all of them at once, or
/// in parts if their answers become large.
#[derive(Default)]
pub(super) struct Batch {
    rest: std::vec::IntoIter<Committed>,
    answers: Vec<Answer>,
    /// Bytes of key-value pairs in `answers`.
    answer_bytes: usize,
    changes: Vec<Change>,
    sweeps: Vec<SweepJob>,
    /// The index of the last entry that was applied; 0 if none was.
    last: u64,
    /// The leader's clock for the next entry. One entry ends when the next begins, so the clock is
    /// read once an entry.
    now: Duration,
}

impl Batch {
    pub(super) fn new(entries: Vec<Committed>, now: Duration) -> Self {
        let (answers, changes) =
            (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
        Self { rest: entries.into_iter(), answers, changes, now, ..Self::default() }
    }

    /// The entries that are not applied yet.
    pub(super) fn rest(&self) -> &[Committed] {
        self.rest.as_slice()
    }

    fn is_applied(&self) -> bool {
        self.rest.as_slice().is_empty()
    }

    /// Whether the answers must be given before more entries are applied, to bound their memory.
    fn is_large(&self) -> bool {
        self.answer_bytes > limits::APPLY_ANSWER_BYTES_MAX
    }

    /// Splits off the applied part of the batch, to be published; the rest stays.
    fn take_applied(&mut self) -> Self {
        let rest = std::mem::take(&mut self.rest);
        let now = self.now;
        std::mem::replace(self, Self { rest, now, ..Self::default() })
    }
}

impl Applier {
    pub(super) fn run(self, committed: &Receiver<Vec<Committed>>) {
        while let Ok(batch) = committed.recv() {
            if !self.turn(batch) {
                return;
            }
        }
    }

    /// Applies a whole batch. False if the member cannot go on.
    pub(super) fn turn(&self, batch: Vec<Committed>) -> bool {
        let mut batch = Batch::new(batch, self.clock.now());
        self.advance(&mut batch, usize::MAX)
    }

    /// Applies at most `most` entries of a batch. Publishes the batch when all of it is applied,
    /// and a part whenever the answers are large. False if the member cannot go on.
    pub(super) fn advance(&self, batch: &mut Batch, most: usize) -> bool {
        planted::panic_if_planted("apply");
        let end = batch.rest().len().saturating_sub(most);
        loop {
            match self.apply(batch, end) {
                Ok(()) => {}
                Err(Fatal::Stopping) => return false,
                Err(fatal) => {
                    self.supervisor.fail(&format!("failed to apply a committed entry: {fatal}"));
                    return false;
                }
            }
            if batch.is_applied() || batch.is_large() {
                self.publish(batch.take_applied());
            }
            if batch.rest().len() <= end {
                return true;
            }
        }
    }

    /// Applies entries until `end` of them are left or the answers are large.
    fn apply(&self, batch: &mut Batch, end: usize) -> Result<(), Fatal> {
        while batch.rest().len() > end && !batch.is_large() {
            let Some(entry) = batch.rest.next() else { break };
            match entry {
                Committed::Normal { index, term, data } => {
                    let is_awaited = |id| self.waits.is_awaited(id);
                    let entry = data.clone();
                    let outcome = self.machine.apply(index, term, data, batch.now, &is_awaited)?;
                    batch.last = index;
                    let begun = std::mem::replace(&mut batch.now, self.clock.now());
                    self.observe(&outcome, batch.now.saturating_sub(begun), entry);
                    self.take(outcome, batch);
                }
                Committed::ConfChange { index, term, change } => {
                    batch.answers.push(self.apply_conf_change(index, term, change)?);
                    batch.last = index;
                    batch.now = self.clock.now();
                }
                Committed::Snapshot { index, conf_state, .. } => {
                    self.install(index, conf_state)?;
                    // The new state contains these changes, and the hub makes all watchers read it.
                    batch.changes.clear();
                    batch.last = index;
                }
            }
        }
        Ok(())
    }

    /// Publishes in this order: the view and the events, the applied index, the answers. A caller
    /// that has its answer then finds its write in views and watch progress.
    fn publish(&self, batch: Batch) {
        let Batch { answers, changes, sweeps, last, .. } = batch;
        let current = self.machine.mvcc.publish();
        self.hub.publish(current.revision, &changes);
        if last > 0 {
            self.applied.advance(last);
            self.raft.applied(last);
            self.prepared_slot.applied(last);
        }
        metrics::current_revision().set(current.revision);
        metrics::compact_revision().set(current.compact_revision);
        for mut sweep in sweeps {
            // Only the member that proposed a compaction has a caller that waits for its sweep.
            sweep.answers.retain(|(id, _)| self.waits.applied(*id));
            sweep.compaction.take_epoch(&self.machine.mvcc);
            self.sweeps.push(sweep);
        }
        for (id, reply) in answers {
            self.waits.answer(id, reply);
        }
    }

    /// Loads users and roles from the new store. If their revision differs, all simple tokens are
    /// dropped: one may belong to a user who was deleted or got a new password meanwhile. Clients
    /// log in again.
    fn replace_auth(&self) -> Result<(), Fatal> {
        let loaded = Auth::load(Arc::clone(&self.machine.store))?;
        let mut auth = self.machine.auth.write();
        if loaded.revision() != auth.revision() {
            self.machine.tokens.forget_all();
        }
        *auth = loaded;
        Ok(())
    }

    /// Replaces this member's state by the one that a snapshot of another member brought.
    fn install(&self, index: u64, conf_state: ConfState) -> Result<(), Fatal> {
        let prepared = self.prepared_slot.take(index).ok_or(Fatal::MissingSnapshot(index))?;
        let Prepared { store, place, loaded } = prepared;
        let Loaded { lessor, members, restore, .. } = loaded;
        let Restore { mvcc, unfinished, .. } = restore;
        let started = self.clock.now();
        metrics::snapshot_apply_in_progress().set(1);
        self.machine.mvcc.install(&mvcc, || self.machine.store.install(&store))?;
        *self.machine.lessor.lock() = lessor;
        self.known_peers.take_snapshot(&members);
        *self.machine.members.write() = members;
        self.replace_auth()?;
        self.conf_states.push(index, conf_state.clone());
        self.hub.replace(self.machine.mvcc.current().revision);
        self.raft.durable(index, place.term, conf_state);
        if let Some(mut compaction) = unfinished {
            compaction.rebind(&self.machine.mvcc);
            self.sweeps.push(SweepJob::new(compaction, None));
        }
        metrics::snapshot_apply_in_progress().set(0);
        let took = self.clock.now().saturating_sub(started);
        tracing::info!(
            index,
            revision = self.machine.mvcc.current().revision,
            took = go::duration(took),
            "installed a snapshot of another member"
        );
        Ok(())
    }

    /// Applies a configuration change. One that the members' rules refuse goes to raft as a change
    /// of nothing, so that all members keep the same configuration.
    fn apply_conf_change(
        &self,
        index: u64,
        term: u64,
        change: ConfChange,
    ) -> Result<Answer, Fatal> {
        let id = change.id;
        let wanted = conf_change::parse_change(&change)?;
        let reply = self.machine.change_members(&wanted);
        let effective = reply.is_ok().then_some(change);
        let conf_state = match self.raft.apply_conf_change(index, effective) {
            Ok(conf_state) => conf_state,
            Err(raft::Error::Stopped) => return Err(Fatal::Stopping),
            Err(error) => return Err(Fatal::ConfChange(error.to_string())),
        };
        let json = StoredConfState::from(&conf_state).to_json();
        self.conf_states.push(index, conf_state);
        self.machine.store.set_conf_state(json);
        self.machine.store.seal(index, term);
        match &reply {
            Ok(_) => self.known_peers.take_change(&wanted),
            Err(error) => tracing::warn!(%error, "a configuration change was refused"),
        }
        Ok((id, reply))
    }

    /// Counts an apply, and logs one that took too long.
    fn observe(&self, outcome: &Outcome, took: Duration, entry: Bytes) {
        let Some(operation) = outcome.operation else { return };
        // A revision that is compacted already is a success, as in etcd.
        let is_success = matches!(outcome.reply, Ok(_) | Err(apply::Error::Compacted));
        let seconds = metrics::apply_seconds(operation, is_success);
        seconds.observe(took.as_secs_f64());
        if took > self.slow {
            let request = || Entry::decode(entry).map(|entry| entry.logged()).unwrap_or_default();
            let size = |reply: &Reply| reply.response_len().map(|size| format!("size:{size}"));
            let answer = outcome.reply.as_ref();
            let answer = answer.map(|reply| move || size(reply).unwrap_or_default());
            warn_if_slow("", took, self.slow, request, answer);
        }
    }

    /// Also done at each scrape; here, so that one that was raised and cleared between two scrapes
    /// has its series.
    fn show_alarms(&self) {
        let alarms = self.machine.members.read().alarms(AlarmType::None as i32);
        metrics::set_alarms(alarms.iter().map(|it| (it.member_id, it.alarm().as_str_name())));
    }

    fn has_space_alarm(&self) -> bool {
        self.machine.members.read().has_alarm(AlarmType::Nospace)
    }

    fn take(&self, outcome: Outcome, batch: &mut Batch) {
        let Outcome { request_id, reply, changes: changed, compaction, .. } = outcome;
        count(&reply);
        if matches!(reply, Ok(Reply::Alarm(_))) {
            self.show_alarms();
        }
        batch.answer_bytes += reply.as_ref().map_or(0, Reply::pair_bytes);
        let Batch { answers, changes, sweeps, .. } = batch;
        changes.extend(changed);
        // Only an entry that met the lack of room itself asks for NOSPACE. One that was refused
        // because of the alarm must not: the duty could act on it after an operator had disarmed
        // the alarm, and raise it again.
        if matches!(reply, Err(apply::Error::NoSpace)) && !self.has_space_alarm() {
            self.no_space.notify_one();
        }
        match compaction {
            Some((compaction, true)) => {
                sweeps.push(SweepJob::new(compaction, Some((request_id, reply))));
            }
            Some((compaction, false)) => {
                sweeps.push(SweepJob::new(compaction, None));
                answers.push((request_id, reply));
            }
            None => answers.push((request_id, reply)),
        }
    }
}

/// Counts what `mvcc` does not count itself.
fn count(reply: &Result<Reply, apply::Error>) {
    match reply {
        Ok(Reply::Txn(_)) => metrics::mvcc_txn().inc(),
        Ok(Reply::LeaseGrant(granted)) => {
            metrics::lease_granted().inc();
            metrics::lease_ttl_seconds().observe(granted.ttl as f64);
        }
        Ok(Reply::LeaseRevoke(_)) => metrics::lease_revoked().inc(),
        _ => {}
    }
}
