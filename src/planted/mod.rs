//! Bugs that a test plants to see that it, or the simulator, finds them.
//!
//! Each bug is a question at the place where the code is right: `planted::is(Bug::…)`. In a release
//! build the answer is a constant no, which the compiler removes. In a debug build a thread plants
//! at most one bug, for itself alone: a simulated cluster lives on one thread. A test of a member
//! with threads plants one for its whole process.

/// What the code does wrong while the bug is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The log's messages, acknowledgements among them, leave before its sync.
    AckBeforeSync,
    /// A member that takes itself for the leader answers linearizable reads without a round of
    /// heartbeats.
    StaleRead,
    /// A read does not wait until its index is applied.
    ReadBeforeApply,
    /// All rounds of a member's reads have one context.
    ReusedContext,
    /// A vote is not written to the log.
    LostVote,
    /// The store notes an applied index that is one too low, so a start applies an entry twice.
    DoubleApply,
    /// A watch from the newest revision begins after it.
    WatchGap,
    /// A member still revokes leases after another one has become the leader.
    OldLeaderRevokes,
    /// A start takes the commit index from the log, though the store has applied more.
    CommitOnly,
    /// A learner's acknowledgement counts towards the quorum as a voter's does.
    LearnerInQuorum,
    /// A transaction's compare whose row cannot be read counts as false.
    ErrorAsFalse,
    /// The log's reader keeps an entry that was replaced later.
    SkippedTruncation,
    /// The log is compacted up to the durable index, though apply has not reported that far.
    CompactsUnapplied,
    /// A configuration change that is applied in the turn in which a snapshot arrives changes the
    /// snapshot's configuration.
    ChangesSnapshot,
    /// A leader still answers reads after its removal.
    RemovedLeaderReads,
    /// Entries in the log file at a start count as durable, even if the last sync before it failed.
    BelievedTail,
    /// A panic ends a thread's work, but not the member.
    UnheardPanic,
    /// The waiter of a caller that has given up is not removed.
    AbandonedWaits,
    /// The checksums of the log's records are not checked.
    BelievedDamage,
    /// A log job that waits for disk space is overtaken by a later job that needs less.
    OvertakenJob,
    /// A failed write to the log counts as done.
    ForgivenWrite,
    /// A batch that the store had no space for is not committed later.
    ForgottenBatch,
    /// A failed commit of the store counts as done.
    ForgivenCommit,
    /// Apply is given all committed entries, however many bytes it holds already.
    SupplyWithoutBound,
    /// The operations of a nested transaction are not checked for permission.
    UncheckedNestedTxn,
    /// Permission to read is not checked for the previous value that a write returns.
    UncheckedPreviousValue,
    /// Permission to write the other keys of a lease is not checked when a put attaches a key to
    /// it.
    UncheckedLease,
    /// Permission to read one key suffices to watch all keys from that key on.
    UncheckedWatchFromKey,
    /// The thread or duty of this name panics where its next piece of work begins.
    Panic(&'static str),
    /// The system gives no thread of this name.
    NoThread(&'static str),
}

impl Bug {
    /// The bugs that the simulator has to find.
    pub const OF_CLUSTERS: [Self; 24] = [
        Self::AckBeforeSync,
        Self::StaleRead,
        Self::ReadBeforeApply,
        Self::ReusedContext,
        Self::LostVote,
        Self::DoubleApply,
        Self::WatchGap,
        Self::OldLeaderRevokes,
        Self::CommitOnly,
        Self::LearnerInQuorum,
        Self::SkippedTruncation,
        Self::ErrorAsFalse,
        Self::CompactsUnapplied,
        Self::ChangesSnapshot,
        Self::RemovedLeaderReads,
        Self::BelievedTail,
        Self::UnheardPanic,
        Self::AbandonedWaits,
        Self::BelievedDamage,
        Self::OvertakenJob,
        Self::ForgivenWrite,
        Self::ForgottenBatch,
        Self::ForgivenCommit,
        Self::SupplyWithoutBound,
    ];

    /// Ways around permissions that etcd once had, which `tests/auth` has to find.
    pub const OF_AUTH: [Self; 4] = [
        Self::UncheckedNestedTxn,
        Self::UncheckedPreviousValue,
        Self::UncheckedLease,
        Self::UncheckedWatchFromKey,
    ];
}

#[cfg(debug_assertions)]
mod switch {
    use super::Bug;
    use parking_lot::RwLock;
    use std::cell::Cell;

    static EVERYWHERE: RwLock<Option<Bug>> = RwLock::new(None);

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug for this thread, or takes it back.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Plants a bug for all threads, or takes it back.
    pub fn plant_everywhere(bug: Option<Bug>) {
        *EVERYWHERE.write() = bug;
    }

    pub(crate) fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug) || *EVERYWHERE.read() == Some(bug)
    }
}

#[cfg(debug_assertions)]
pub(crate) use switch::is;
#[cfg(debug_assertions)]
pub use switch::{plant, plant_everywhere};

#[cfg(not(debug_assertions))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}

/// Called where a thread or duty of this name begins a piece of its work; [`Bug::Panic`] panics
/// here.
pub(crate) fn panic_if_planted(name: &'static str) {
    assert!(!is(Bug::Panic(name)), "a bug was planted");
}
