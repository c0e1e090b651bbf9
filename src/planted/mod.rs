//! Bugs that a test plants to see that the simulator finds them.
//!
//! Each is one question at the place where the code is right: `planted::is(Bug::…)`. In a release
//! build the answer is a constant no, and nothing of it is left. Elsewhere a thread plants at most
//! one, for itself alone: a simulated cluster lives on one thread.

/// What the code does wrong if it is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The log's messages, acknowledgements among them, leave before its sync.
    AckBeforeSync,
    /// Who believes to lead answers reads without asking the others.
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
    /// Who led once goes on to revoke leases.
    OldLeaderRevokes,
    /// The log's commit is believed, though the store has applied more.
    CommitOnly,
    /// What a learner acknowledges counts as if a voter had.
    LearnerInQuorum,
    /// The log's reader keeps an entry that was replaced later.
    SkippedTruncation,
}

impl Bug {
    pub const ALL: [Self; 11] = [
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
    ];
}

#[cfg(debug_assertions)]
mod switch {
    use super::Bug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Plants a bug for this thread, or takes it back.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(crate) fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(debug_assertions)]
pub(crate) use switch::is;
#[cfg(debug_assertions)]
pub use switch::plant;

#[cfg(not(debug_assertions))]
pub(crate) const fn is(_: Bug) -> bool {
    false
}
