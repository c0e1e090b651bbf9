//! The status of raft, which every thread can read without waiting for the loop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Role, Status};

/// A status whose fields are read one by one: two of them may be of different turns of the loop.
pub(super) struct StatusCells {
    id: u64,
    leader: AtomicU64,
    term: AtomicU64,
    role: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    last_index: AtomicU64,
    proposals_dropped: AtomicU64,
    messages_refused: AtomicU64,
    leader_changes: AtomicU64,
    answers_reads_alone: AtomicBool,
}

impl StatusCells {
    pub(super) fn new(status: Status) -> Self {
        let cells = Self {
            id: status.id,
            leader: AtomicU64::default(),
            term: AtomicU64::default(),
            role: AtomicU64::default(),
            committed: AtomicU64::default(),
            applied: AtomicU64::default(),
            last_index: AtomicU64::default(),
            proposals_dropped: AtomicU64::default(),
            messages_refused: AtomicU64::default(),
            leader_changes: AtomicU64::default(),
            answers_reads_alone: AtomicBool::default(),
        };
        cells.set(status, false);
        cells
    }

    fn cells(&self) -> [&AtomicU64; 9] {
        [
            &self.leader,
            &self.term,
            &self.role,
            &self.committed,
            &self.applied,
            &self.last_index,
            &self.proposals_dropped,
            &self.messages_refused,
            &self.leader_changes,
        ]
    }

    pub(super) fn set(&self, status: Status, answers_reads_alone: bool) {
        let role = match status.role {
            Role::Follower => 0,
            Role::Candidate => 1,
            Role::Leader => 2,
        };
        let values = [
            status.leader,
            status.term,
            role,
            status.committed,
            status.applied,
            status.last_index,
            status.proposals_dropped,
            status.messages_refused,
            status.leader_changes,
        ];
        for (cell, value) in self.cells().into_iter().zip(values) {
            cell.store(value, Ordering::Release);
        }
        self.answers_reads_alone.store(answers_reads_alone, Ordering::SeqCst);
    }

    /// Ends the short cut for a sole voter's reads: the loop, which publishes the commit index, has
    /// ended.
    pub(super) fn retire(&self) {
        self.answers_reads_alone.store(false, Ordering::SeqCst);
    }

    pub(super) fn get(&self) -> Status {
        let [leader, term, role, committed, applied, last, dropped, refused, changes] =
            self.cells().map(|cell| cell.load(Ordering::Acquire));
        Status {
            id: self.id,
            leader,
            term,
            role: match role {
                0 => Role::Follower,
                1 => Role::Candidate,
                _ => Role::Leader,
            },
            committed,
            applied,
            last_index: last,
            proposals_dropped: dropped,
            messages_refused: refused,
            leader_changes: changes,
        }
    }

    /// The commit index, if this member alone decides what is committed. The flag is read before
    /// the index: an index that is read later includes all that was committed when the flag held.
    pub(super) fn committed_alone(&self) -> Option<u64> {
        self.answers_reads_alone
            .load(Ordering::SeqCst)
            .then(|| self.committed.load(Ordering::Acquire))
    }
}
