//! The handle by which any thread uses raft: it fills the loop's queue and reads shared cells.
//!
//! ```text
//!   proposers, peers, apply ---> Handle ---> inbox ---> raft loop
//!                                  ^                       |
//!                                  '------- cells <--------'
//! ```
//!
//! The raft loop writes the cells after each turn, so reading them waits for no other thread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use raft::eraftpb::{ConfChange, ConfState, Message};
use tokio::sync::watch;

use super::core::{Event, Proposal, Via};
use super::inbox::Inbox;
use super::latency::{Latencies, LatencyCounts};
use super::log;
use super::status::StatusCells;
use super::{Error, Leader, Role, Status};
use crate::planted::{self, Bug};

/// Asks raft, from any thread; nothing here blocks but [`Handle::apply_conf_change`]. What does not
/// fit into the inbox is refused with [`Error::Busy`], and everything after a stop with
/// [`Error::Stopped`].
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) inbox: Inbox,
    pub(super) status: StatusCells,
    pub(super) leader: watch::Sender<Leader>,
    /// See [`Handle::progress`].
    pub(super) progress: Mutex<Option<Vec<(u64, u64)>>>,
    /// See [`Handle::may_leave`].
    pub(super) may_leave: AtomicBool,
    /// Received snapshots that the raft loop has not looked at.
    pub(super) snapshots_waiting: AtomicU64,
    /// Whether raft has taken in a snapshot that is not applied.
    pub(super) awaits_snapshot: AtomicBool,
    /// Where apply waits for the configuration after a change, by the index of the change.
    pub(super) conf_states: Mutex<HashMap<u64, SyncSender<Result<ConfState, Error>>>>,
    /// How long the entries that this leader appends take to be committed.
    pub(super) committing: Latencies,
    /// How long callers on this member wait for the answers to their proposals.
    pub(super) answering: Latencies,
    pub(super) log_room: log::Room,
    /// See [`Handle::set_space_short`].
    pub(super) is_space_short: AtomicBool,
    /// Runs a turn of the raft loop in a stepped member, where no thread would answer a caller that
    /// waits.
    pub(super) run_loop_turn: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Handle {
    /// Queues data for the log. Whether it is committed shows when it is applied; if raft drops it,
    /// the observer learns the ticket.
    pub fn propose(&self, ticket: u64, data: Bytes) -> Result<(), Error> {
        self.shared.inbox.propose(Proposal { ticket, data, via: Via::AnyLeader })
    }

    /// As [`Handle::propose`], but only this member may put it into the log, as the leader of
    /// `term`; otherwise it is dropped.
    pub fn propose_as_leader(&self, ticket: u64, data: Bytes, term: u64) -> Result<(), Error> {
        self.shared.inbox.propose(Proposal { ticket, data, via: Via::OwnTerm(term) })
    }

    /// Queues a configuration change.
    pub fn propose_conf_change(&self, ticket: u64, change: ConfChange) -> Result<(), Error> {
        self.shared.inbox.event(Event::ProposeConfChange { ticket, change })
    }

    /// Asks for an index such that a state which includes it shows every write acknowledged before
    /// this call. `reply` is called within this call or on the raft thread, and must not block.
    ///
    /// A sole voter that leads answers with its own commit index within the call: nothing is
    /// committed without it, and the loop publishes the commit index before apply can acknowledge
    /// an entry.
    pub fn read_index(&self, reply: impl FnOnce(Result<u64, Error>) + Send + 'static) {
        if let Some(index) = self.committed_alone() {
            return reply(Ok(index));
        }
        if planted::is(Bug::StaleRead) && self.status().role == Role::Leader {
            return reply(Ok(self.status().committed));
        }
        if let Err((error, reply)) = self.shared.inbox.read(Box::new(reply)) {
            reply(Err(error));
        }
    }

    /// The index with which [`Handle::read_index`] answers within the call; None if it asks others.
    pub fn committed_alone(&self) -> Option<u64> {
        self.shared.status.committed_alone()
    }

    /// Hands in a message of another member.
    pub fn step(&self, message: Message) -> Result<(), Error> {
        self.shared.inbox.message(message)
    }

    pub fn status(&self) -> Status {
        self.shared.status.get()
    }

    /// The id of each member, and the last index up to which its log is known to match this
    /// leader's, as of the last tick; `None` unless this member leads.
    pub fn progress(&self) -> Option<Vec<(u64, u64)>> {
        self.shared.progress.lock().clone()
    }

    /// Whether this member may end, as of the last tick: it was not removed, or a remaining member
    /// knows that the removal is committed.
    pub fn may_leave(&self) -> bool {
        self.shared.may_leave.load(Ordering::Acquire)
    }

    /// Records how long a caller waited for the answer to its proposal.
    pub fn note_answer(&self, took: Duration) {
        self.shared.answering.note(took);
    }

    /// How long proposals have taken since the start: from the leader's log to their commit, while
    /// this member led, and for callers on this member.
    pub fn latencies(&self) -> [LatencyCounts; 2] {
        [self.shared.committing.counted(), self.shared.answering.counted()]
    }

    /// Reports that the state includes the entries up to `index`.
    pub fn applied(&self, index: u64) {
        self.shared.inbox.applied(index);
    }

    /// Reports that the state on disk includes the entries up to `index`, which has this term, and
    /// the configuration there.
    pub fn durable(&self, index: u64, term: u64, conf_state: ConfState) {
        self.shared.inbox.durable(index, term, conf_state);
    }

    /// Makes a committed configuration change effective and returns the configuration from there
    /// on. `change` is `None` if apply rejected it. The apply thread calls this once for each
    /// change, in log order, and blocks until the raft loop has answered.
    pub fn apply_conf_change(
        &self,
        index: u64,
        change: Option<ConfChange>,
    ) -> Result<ConfState, Error> {
        let (reply, answer) = sync_channel(1);
        self.shared.conf_states.lock().insert(index, reply);
        let asked = self.shared.inbox.event_of_apply(Event::ConfChange { index, change });
        if let Err(error) = asked {
            self.shared.conf_states.lock().remove(&index);
            return Err(error);
        }
        if let Some(run_turn) = self.shared.run_loop_turn.get() {
            run_turn();
            // The turn has answered already, or there is no answer: no thread runs the loop.
            return answer.try_recv().unwrap_or(Err(Error::Stopped));
        }
        answer.recv().unwrap_or(Err(Error::Stopped))
    }

    /// How many bytes the log can take before it needs more of its disk.
    pub fn log_room(&self) -> &log::Room {
        &self.shared.log_room
    }

    /// Says whether space is short. While it is, the log drops all entries that the state on disk
    /// holds, but for those of its last segment that a member heard from lately still needs.
    pub fn set_space_short(&self, is_short: bool) {
        self.shared.is_space_short.store(is_short, Ordering::Relaxed);
    }

    pub fn transfer_leader(&self, to: u64) -> Result<(), Error> {
        self.shared.inbox.event(Event::TransferLeader(to))
    }

    /// Tells raft, at a start, that this member has reached the others.
    pub fn report_peers_reached(&self) -> Result<(), Error> {
        self.shared.inbox.event(Event::PeersReached)
    }

    pub fn report_unreachable(&self, id: u64) -> Result<(), Error> {
        self.shared.inbox.event(Event::Unreachable(id))
    }

    /// Hands in another member's snapshot, whose data is on disk and checked.
    pub fn step_snapshot(&self, message: Message) -> Result<(), Error> {
        let waiting = &self.shared.snapshots_waiting;
        waiting.fetch_add(1, Ordering::AcqRel);
        let queued = self.shared.inbox.event(Event::ReceiveSnapshot(message));
        if queued.is_err() {
            waiting.fetch_sub(1, Ordering::AcqRel);
        }
        queued
    }

    /// Hands in the message of a snapshot that is not beyond the commit here. Raft answers the
    /// sender with the commit index; without that answer the sender would offer the snapshot again
    /// and again.
    pub fn ignore_snapshot(&self, message: Message) -> Result<(), Error> {
        self.shared.inbox.event(Event::IgnoreSnapshot(message))
    }

    /// Whether a snapshot that was handed in is, or may be, on its way into the state. Its data
    /// must stay until then.
    pub fn awaits_snapshot(&self) -> bool {
        let waits = self.shared.snapshots_waiting.load(Ordering::Acquire) > 0;
        waits || self.shared.awaits_snapshot.load(Ordering::Acquire)
    }

    /// Says whether a snapshot reached the member that it was sent to.
    pub fn report_snapshot(&self, to: u64, arrived: bool) -> Result<(), Error> {
        self.shared.inbox.event(Event::SnapshotSent { to, arrived })
    }

    pub fn subscribe_leader(&self) -> watch::Receiver<Leader> {
        self.shared.leader.subscribe()
    }

    /// Asks the threads to end; [`Raft::stop`](super::Raft::stop) also waits for them.
    pub fn stop(&self) {
        self.shared.inbox.stop();
    }
}
