//! A member without threads: whoever holds its [`Steps`] does the work of each, a turn at a time, in
//! whatever order. So a simulator runs the shipped code and decides who comes first.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::applier::Applier;
use super::boot::{StartError, Surroundings, start};
use super::sweeper::SweepWorker;
use super::{Config, Node};
use crate::raft::peer::{PeerEvents, Snapshots};
use crate::raft::{self, Committed, Entry, Message};
use crate::store::{self, Store};
use crate::supervise::Supervisor;

/// The work of a member's threads. Tasks are not among it: they run in the async runtime.
pub struct Steps {
    pub(super) turns: raft::Turns,
    pub(super) raft: raft::Handle,
    pub(super) applier: Applier,
    pub(super) committed: Receiver<Vec<Committed>>,
    pub(super) store: Arc<Store>,
    pub(super) sweeper: SweepWorker,
    pub(super) snapshots: Arc<dyn Snapshots>,
    pub(super) events: Arc<dyn PeerEvents>,
}

impl Node {
    /// As [`Node::start`], but without threads.
    pub fn start_stepped(
        config: Config,
        surroundings: Surroundings,
    ) -> Result<(Self, Steps), StartError> {
        let (node, steps) = start(config, surroundings, true)?;
        let steps = steps.ok_or_else(|| std::io::Error::other("there are no steps"))?;
        Ok((node, steps))
    }
}

impl Steps {
    /// A turn of the raft loop. An error is the end of the member.
    pub fn raft(&self) -> Result<(), raft::Error> {
        self.supervisor().run("raft", || self.turns.raft())?
    }

    pub fn raft_has_work(&self) -> bool {
        self.turns.raft_has_work()
    }

    /// Writes and syncs the log; false if there is nothing to write.
    pub fn log(&self) -> Result<bool, raft::Error> {
        self.supervisor().run("raft-log", || self.turns.log())?
    }

    pub fn log_has_work(&self) -> bool {
        self.turns.log_has_work()
    }

    /// Applies the next batch of committed entries and gives it back.
    pub fn apply(&self) -> Option<Vec<Committed>> {
        let batch = self.committed.try_recv().ok()?;
        // The supervisor knows of a panic.
        let _ = self.supervisor().run("apply", || self.applier.turn(batch.clone()));
        Some(batch)
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

    /// What else there is to tell raft and to ask it.
    pub fn handle(&self) -> &raft::Handle {
        &self.raft
    }

    pub fn transfer_leader(&self, to: u64) {
        let _ = self.raft.transfer_leader(to);
    }

    pub fn status(&self) -> raft::Status {
        self.raft.status()
    }
}
