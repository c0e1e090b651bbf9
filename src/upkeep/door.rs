//! The trait by which upkeep asks the member for something.

use crate::apply::Command;

/// Why the member did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    /// The proposal timed out; it may still be applied.
    #[error("{0}")]
    Unanswered(String),
    #[error("{0}")]
    Other(String),
}

pub trait Door: Clone + Send + Sync + 'static {
    /// Proposes a request as the member itself, and waits until it is applied here.
    fn propose(&self, op: Command) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Waits until this member has applied everything that was committed when the call was made.
    fn barrier(&self) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Hands leadership to another voter; does nothing if this member does not lead or is the only
    /// voter.
    fn hand_over(&self) -> impl Future<Output = Result<(), Refusal>> + Send;

    fn is_leader(&self) -> bool;

    fn has_leader(&self) -> bool;

    fn is_stopping(&self) -> bool;
}
