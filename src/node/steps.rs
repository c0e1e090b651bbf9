//! A member without threads: the owner of its [`Steps`] does the work of each thread, one turn at a
//! time and in any order. A simulator runs the shipped code so and decides what runs next.

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

/// The work of a member's threads. The member's tasks are not part of it: they run in the async
/// runtime.
pub struct Steps {
    pub(super) turns: raft::RaftSteps,
    pub(super) raft: raft::Handle,
    pub(super) applier: Applier,
    pub(super) committed: Receiver<Vec<Committed>>,
    pub(super) under_way: Mutex<UnderWay>,
    pub(super) store: Arc<Store>,
    pub(super) sweeper: SweepWorker,
    pub(super) snapshots: Arc<dyn Snapshots>,
    pub(super) events: Arc<dyn PeerEvents>,
}

/// Where the work of the apply thread is between two turns.
#[derive(Default)]
pub(super) enum UnderWay {
    #[default]
    Nothing,
    /// A batch is partly applied.
    Part(Batch),
    /// The thread has ended. What it had not published yet is lost with it, so nothing may follow.
    Ended,
}

/// The outcome of one turn of apply.
pub struct Applied {
    pub entries: Vec<Committed>,
    /// Whether these were the last entries of a batch, so that their effect is published.
    pub is_published: bool,
}

impl Steps {
    /// A turn of the raft loop. After an error the member cannot go on.
    pub fn raft(&self) -> Result<(), raft::Error> {
        self.supervisor().run("raft", || self.turns.raft())?
    }

    pub fn raft_has_work(&self) -> bool {
        self.turns.raft_has_work()
    }

    /// Raft's configuration, and the index of the last snapshot that raft has accepted, 0 for none.
    /// From that index on, the configuration may be ahead of apply.
    pub fn conf_state(&self) -> (ConfState, u64) {
        self.turns.conf_state()
    }

    /// Writes and syncs queued log jobs; false if there are none.
    pub fn log(&self) -> Result<bool, raft::Error> {
        self.supervisor().run("raft-log", || self.turns.log())?
    }

    pub fn log_has_work(&self) -> bool {
        self.turns.log_has_work()
    }

    /// Applies at most `most` committed entries of one batch; None if there are none. A commit of
    /// the store or a turn of raft may come before the rest of the batch, as it may with threads.
    /// After an error or a panic there is nothing to apply any more.
    pub fn apply(&self, most: usize) -> Option<Applied> {
        let mut under_way = self.under_way.lock();
        // It stays so unless this turn gets to its end.
        let mut batch = match std::mem::replace(&mut *under_way, UnderWay::Ended) {
            UnderWay::Ended => return None,
            UnderWay::Part(batch) => batch,
            UnderWay::Nothing => {
                let Ok(entries) = self.committed.try_recv() else {
                    *under_way = UnderWay::Nothing;
                    return None;
                };
                let begin = || Batch::new(entries, self.applier.clock.now());
                self.supervisor().run("apply", begin).ok()?
            }
        };
        let rest = batch.rest();
        let entries: Vec<Committed> = rest[..most.min(rest.len())].to_vec();
        let is_last = entries.len() == rest.len();
        // Why it cannot go on is noted: by the supervisor, or by raft's loop, which has ended.
        let advanced = self.supervisor().run("apply", || self.applier.advance(&mut batch, most));
        let goes_on = advanced.unwrap_or(false);
        match (goes_on, is_last) {
            (false, _) => {}
            (true, true) => *under_way = UnderWay::Nothing,
            (true, false) => *under_way = UnderWay::Part(batch),
        }
        Some(Applied { entries, is_published: goes_on && is_last })
    }

    /// The store's next commit to LMDB; false if there is nothing to commit, or no space for it.
    pub fn commit(&self) -> Result<bool, store::Error> {
        let committed = self.supervisor().run("committer", || self.store.commit_turn());
        committed.unwrap_or(Ok(false))
    }

    /// A piece of a sweep, and the pause after it; None if nothing is to be done.
    pub fn sweep(&mut self) -> Option<Duration> {
        let supervisor = self.applier.supervisor.clone();
        supervisor.run("sweeper", || self.sweeper.turn()).unwrap_or_default()
    }

    fn supervisor(&self) -> &Supervisor {
        &self.applier.supervisor
    }

    /// Hands a message of another member to raft.
    pub fn receive(&self, message: Message) {
        // A message that the full inbox refuses is lost, as it can be on the network: raft sends it
        // again.
        let _ = self.raft.step(message);
    }

    /// The door for snapshots from and to other members.
    pub fn snapshots(&self) -> &Arc<dyn Snapshots> {
        &self.snapshots
    }

    /// Tells the member that the transport could not send this proposal to the leader.
    pub fn unsent(&self, proposal: &Entry) {
        self.events.unsent(proposal);
    }

    /// Tells the member that a peer says that this member was removed.
    pub fn told_of_removal(&self) {
        self.events.removed();
    }

    /// Raft's handle, for messages and questions that have no method here.
    pub fn handle(&self) -> &raft::Handle {
        &self.raft
    }

    /// The number of waiting items in this member, by kind.
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
