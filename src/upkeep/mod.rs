//! What keeps a member's store small, fresh and whole while the member works.
//!
//! ```text
//!   applied compactions ─► sweeper ─► rows deleted, a little at a time
//!                            │ between two steps
//!                            ▼
//!                          checkpointer ─► the index on disk, for the next start
//! ```
//!
//! This room works on the state and knows no node. Callers that wait for a sweep are reached by the
//! trait [`Callers`].

mod auto_compact;
mod checkpointer;
mod sweeper;

pub use auto_compact::{AutoCompact, Retention};
pub use checkpointer::{CheckpointPace, Checkpointer, close_store};
pub use sweeper::{Callers, Sweep, SweepQueue, SweepWorker, Sweeper};
