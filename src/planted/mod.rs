//! Bugs that a test plants to see that it, or the simulator, finds them.
//!
//! Each is one question at the place where the code is right: `planted::is(Bug::…)`. In a release
//! build the answer is a constant no, and nothing of it is left. Elsewhere a thread plants at most
//! one, for itself alone: a simulated cluster lives on one thread. A test of a member with threads
//! of its own plants one in all of its process.

/// What the code does wrong if it is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The log's messages, acknowledgements among them, leave before its sync.
    AckBeforeSync,
    /// A member that believes to be the leader answers linearizable reads without a round of
    /// heartbeats.
    StaleRead,
    /// A read does not wait until its index is applied.
    ReadBeforeApply,
    /// All rounds of a member's reads have one context.
    ReusedContext,
    /// A vote is not written to the log.
    LostVote,
    /// The store says that it is an entry behind where it is.
    DoubleApply,
    /// A watch from the newest revision begins after it.
    WatchGap,
    /// A member that was the leader goes on to revoke leases after it was replaced.
    OldLeaderRevokes,
    /// The log's commit is believed, though the store has applied more.
    CommitOnly,
    /// A learner's acknowledgement counts towards the quorum as a voter's does.
    LearnerInQuorum,
    /// A row that cannot be read makes a comparison fail.
    ErrorAsFalse,
    /// The log's reader keeps an entry that was replaced later.
    SkippedTruncation,
    /// The log is cut where the store is, though apply has not reported so much.
    CompactsUnapplied,
    /// A change of the configuration that is applied in the turn in which a snapshot comes changes
    /// the snapshot's.
    ChangesSnapshot,
    /// A leader goes on to answer reads after its removal.
    RemovedLeaderReads,
    /// Entries in the log file at a start count as durable, even if the last sync before it failed.
    BelievedTail,
    /// A panic ends a thread's work, and not the member.
    UnheardPanic,
    /// A proposer that has lost patience is not forgotten.
    AbandonedWaits,
    /// Records of the log are taken as they are, whatever their checksums say.
    BelievedDamage,
    /// A log job that waits for disk space is overtaken by a later job that needs less.
    OvertakenJob,
    /// A write to the log that failed is taken for done.
    ForgivenWrite,
    /// A batch that the store had no space for is not committed later.
    ForgottenBatch,
    /// A commit of the store that failed is taken for done.
    ForgivenCommit,
    /// Apply is given all that is committed, however much it holds.
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
    /// What the simulator is to find.
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

    /// The ways around permissions that etcd had.
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

    /// The same for all threads.
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

/// Where a thread or duty of this name begins a piece of its work.
pub(crate) fn trip(name: &'static str) {
    assert!(!is(Bug::Panic(name)), "a bug was planted");
}
