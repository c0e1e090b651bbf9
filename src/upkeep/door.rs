//! The door by which the upkeep asks something of the member that it belongs to.

use crate::apply::Command;

/// Why something that was asked of the member came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    /// The proposal may be applied although it failed.
    #[error("{0}")]
    Unanswered(String),
    #[error("{0}")]
    Other(String),
}

pub trait Door: Clone + Send + Sync + 'static {
    /// Has a request applied on every member, in this member's own name.
    fn propose(&self, op: Command) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Waits until all that was committed when it was called is applied here.
    fn barrier(&self) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Hands leadership to another voter, if this member has it and there is another.
    fn hand_over(&self) -> impl Future<Output = Result<(), Refusal>> + Send;

    fn is_leader(&self) -> bool;

    fn has_leader(&self) -> bool;

    fn is_stopping(&self) -> bool;
}
