//! A member without threads: whoever holds its [`Steps`] does the work of each, a turn at a time, in
//! whatever order. So a simulator runs the shipped code and decides who comes first.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use parking_lot::Mutex;

use super::applier::{Applier, Batch};
use crate::peer::{PeerEvents, Snapshots};
use crate::raft::{self, Committed, ConfState, Entry, Message};
use crate::store::{self, Store};
use crate::supervise::Supervisor;
use crate::upkeep::SweepWorker;

/// The work of a member's threads. Tasks are not among it: they run in the async runtime.
pub struct Steps {
    pub(super) turns: raft::Turns,
    pub(super) raft: raft::Handle,
    pub(super) applier: Applier,
    pub(super) committed: Receiver<Vec<Committed>>,
    /// A batch of which entries are left to apply.
    pub(super) under_way: Mutex<Option<Batch>>,
    pub(super) store: Arc<Store>,
    pub(super) sweeper: SweepWorker,
    pub(super) snapshots: Arc<dyn Snapshots>,
    pub(super) events: Arc<dyn PeerEvents>,
}

/// The outcome of one turn of apply.
pub struct Applied {
    pub entries: Vec<Committed>,
    /// Whether that was the rest of a batch, so that everybody sees it now.
    pub is_published: bool,
}

impl Steps {
    /// A turn of the raft loop. An error is the end of the member.
    pub fn raft(&self) -> Result<(), raft::Error> {
        self.supervisor().run("raft", || self.turns.raft())?
    }

    pub fn raft_has_work(&self) -> bool {
        self.turns.raft_has_work()
    }

    /// Raft's configuration, and the last snapshot that raft has taken in.
    pub fn conf_state(&self) -> (ConfState, u64) {
        self.turns.conf_state()
    }

    /// Writes and syncs the log; false if there is nothing to write.
    pub fn log(&self) -> Result<bool, raft::Error> {
        self.supervisor().run("raft-log", || self.turns.log())?
    }

    pub fn log_has_work(&self) -> bool {
        self.turns.log_has_work()
    }

    /// Applies at most so many committed entries, which are of one batch; nothing if there are none.
    /// The store may commit within a batch, and raft go on, as they do beside the apply thread.
    pub fn apply(&self, most: usize) -> Option<Applied> {
        let mut under_way = self.under_way.lock();
        let mut batch = match under_way.take() {
            Some(batch) => batch,
            None => {
                let entries = self.committed.try_recv().ok()?;
                let begin = || Batch::new(entries, self.applier.clock.now());
                self.supervisor().run("apply", begin).ok()?
            }
        };
        let rest = batch.rest();
        let entries: Vec<Committed> = rest[..most.min(rest.len())].to_vec();
        let is_published = entries.len() == rest.len();
        // The supervisor knows of a panic.
        let advanced = self.supervisor().run("apply", || self.applier.advance(&mut batch, most));
        if advanced.unwrap_or(false) && !is_published {
            *under_way = Some(batch);
        }
        Some(Applied { entries, is_published })
    }

    /// The store's next commit; false if there is nothing to commit, or no space for it.
    pub fn commit(&self) -> Result<bool, store::Error> {
        let committed = self.supervisor().run("committer", || self.store.commit_turn());
        committed.unwrap_or(Ok(false))
    }

    /// A piece of a sweep, and how long to rest after it; nothing if there is none.
    pub fn sweep(&mut self) -> Option<Duration> {
        let supervisor = self.applier.supervisor.clone();
        supervisor.run("sweeper", || self.sweeper.turn()).unwrap_or_default()
    }

    fn supervisor(&self) -> &Supervisor {
        &self.applier.supervisor
    }

    /// Hands in a message of another member.
    pub fn receive(&self, message: Message) {
        // A full inbox loses it, which raft bears.
        let _ = self.raft.step(message);
    }

    /// Where snapshots of this member are read and those of others are put.
    pub fn snapshots(&self) -> &Arc<dyn Snapshots> {
        &self.snapshots
    }

    /// A proposal found no way to the leader.
    pub fn unsent(&self, proposal: &Entry) {
        self.events.unsent(proposal);
    }

    /// A peer says that this member was removed.
    pub fn told_of_removal(&self) {
        self.events.removed();
    }

    /// Raft's own door, for messages and questions that have no method here.
    pub fn handle(&self) -> &raft::Handle {
        &self.raft
    }

    /// How much there is of what waits in this member, by kind.
    pub fn waiting(&self) -> Vec<(&'static str, usize)> {
        let mut waiting = self.turns.waiting();
        waiting.push(("proposers", self.applier.waits.count()));
        waiting.push(("readers", self.applier.applied.count()));
        waiting
    }

    pub fn transfer_leader(&self, to: u64) {
        let _ = self.raft.transfer_leader(to);
    }

    pub fn status(&self) -> raft::Status {
        self.raft.status()
    }
}
