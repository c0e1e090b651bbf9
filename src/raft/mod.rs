//! Consensus: the log and the raft loop. It sees bytes only.
//!
//! ```text
//!   propose, read_index, step, applied, durable          (Handle; never blocks)
//!        |
//!        v                        Job{entries, state, messages}
//!   +---------+  Event  +------+ ------------------> +------------+  one write and one
//!   |  inbox  | ------> | core |                     | log writer |  fdatasync for all
//!   +---------+         +------+ <------------------ +------------+  jobs that queued
//!        ^                |  |       Persisted              |
//!        |   Committed    |  '--- messages that need not wait, other messages ---> Transport
//!        '---- apply <----'
//! ```
//!
//! [`Core`] is a pure function of its events around the `raft` crate: no thread, no clock, no I/O
//! (but for reading old entries), so a simulator can run it. The raft loop gives it the events that
//! have queued and carries out its effects; all proposals of one turn become one message to raft.
//! The log has one writer, which the log writer's thread and the loop share.
//!
//! Messages of other members are checked by `step` before the `raft` crate sees them, as that
//! crate panics on what it does not expect. If it panics nevertheless, or if the log cannot be read
//! or written, the member stops: [`Observer::fatal`] is called once, and both threads end.
//!
//! Apply gets ranges of the committed log, as much at a time as it may hold; the rest stays in the
//! log until apply has reported what it holds. The log is compacted up to the durable index of the
//! store at most, and never beyond the index that apply has reported.
//!
//! A log entry's data is opaque here. Configuration changes are the exception: apply calls
//! [`Handle::apply_conf_change`] for each, in log order, and stores the configuration that comes
//! back together with the index.
//!
//! A [`Transport`] carries the messages: the room `peer` in a cluster, [`NoTransport`] in a cluster
//! of one. A sole voter takes two short cuts. The loop itself writes a short batch, which saves two
//! thread hops (a follower on a quick disk does so, too), and a read index is answered on the
//! caller's thread.
//!
//! Caveat: the loop itself reads entries that have left memory from disk, for apply one batch at a
//! time and for a lagging follower one message at a time.

mod at_rest;
mod core;
mod drain;
mod force;
mod handle;
mod inbox;
mod latency;
pub mod log;
mod log_writer;
mod raft_loop;
mod reads;
mod snapshot;
mod start;
mod status;
mod step;
mod stepped;
mod store;

pub use self::at_rest::{AtRest, inspect};
pub use self::core::{Committed, Core, CoreConfig, Effect, Event, Job, Proposal, Via};
pub use self::force::force_alone;
pub use self::handle::Handle;
pub use self::latency::{Latencies, LatencyCounts};
pub use self::raft_loop::Surroundings;
pub use self::snapshot::{SnapshotPlace, announce, announced};
pub use self::start::{Raft, create, exists, identity, last_snapshot, start, start_stepped};
pub use self::step::Refusal;
pub use self::stepped::RaftSteps;

use std::path::PathBuf;
use std::time::Duration;

use crate::supervise::Panicked;

pub use ::raft::eraftpb::{ConfChange, ConfChangeType, ConfState, Entry, Message, MessageType};
use bytes::Bytes;

/// How to start a member.
#[derive(Clone, Debug)]
pub struct Config {
    pub id: u64,
    pub cluster_id: u64,
    /// The log's directory.
    pub dir: PathBuf,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    pub pre_vote: bool,
    /// Index of the last entry that the state on disk includes.
    pub applied: u64,
    /// The term of that entry.
    pub applied_term: u64,
    /// The configuration as of that entry.
    pub conf_state: ConfState,
    /// How many entries below the durable index a compaction of the log keeps for slow followers.
    pub catch_up_entries: u64,
    /// How many entries become durable between two compactions of the log, unless one frees a whole
    /// segment earlier.
    pub snapshot_count: u64,
    pub log: log::Options,
}

/// The first members of a new cluster. Without any, the log starts empty: this member joins a
/// cluster, and the leader fills the log.
#[derive(Clone, Debug, Default)]
pub struct Bootstrap {
    /// The id of each member, and the context of the configuration change that adds it.
    pub members: Vec<(u64, Bytes)>,
}

/// Why raft refuses a request (`Busy`, `Stopped`, `Late`), does not start, or stops the member.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("too many requests")]
    Busy,
    #[error("the member is stopping")]
    Stopped,
    #[error("no leader said in time what is committed")]
    Late,
    #[error("{0}")]
    Log(#[from] log::Error),
    #[error("raft: {0}")]
    Raft(#[from] ::raft::Error),
    #[error(
        "the log belongs to member {found_id:x} of cluster {found_cluster:x}, not to member \
         {id:x} of cluster {cluster:x}"
    )]
    Foreign { found_id: u64, found_cluster: u64, id: u64, cluster: u64 },
    #[error("the log ends with entry {last}, but entry {applied} has been applied")]
    LogEndsBefore { last: u64, applied: u64 },
    #[error("the log begins with entry {first}, but only entry {applied} has been applied")]
    LogBeginsAfter { first: u64, applied: u64 },
    #[error("entry {index} was applied with term {applied}, but the log has it with term {logged}")]
    TermMismatch { index: u64, applied: u64, logged: u64 },
    #[error("entry {index} of the log cannot be understood: {what}")]
    Entry { index: u64, what: String },
    #[error("member {0:x} has no vote, so it cannot be made a cluster of its own")]
    NoVote(u64),
    #[error("{0}")]
    Thread(std::io::Error),
    #[error("{0}")]
    Panicked(#[from] Panicked),
    #[error("nobody applies the log any more")]
    ApplyGone,
}

/// This member's role. A pre-candidate counts as a candidate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    #[default]
    Follower,
    Candidate,
    Leader,
}

/// The state of raft on this member. The last three fields count since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub id: u64,
    /// The leader's id, 0 if none is known.
    pub leader: u64,
    pub term: u64,
    pub role: Role,
    pub committed: u64,
    pub applied: u64,
    pub last_index: u64,
    pub proposals_dropped: u64,
    pub messages_refused: u64,
    pub leader_changes: u64,
}

/// The leader as of a term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leader {
    /// 0 if none is known.
    pub id: u64,
    pub term: u64,
}

/// Hears what happens in raft. Its methods are called by the raft loop and the log writer, and must
/// not block.
pub trait Observer: Send + Sync {
    /// The member cannot go on; the process should end.
    fn fatal(&self, error: &Error);
    /// Raft dropped the proposals with these tickets: no leader is known, leadership is being
    /// transferred, or the leader is not the one that a proposal demands.
    fn dropped(&self, tickets: &[u64]) {
        let _ = tickets;
    }
    /// The log was synced; `took` is the duration of the sync alone.
    fn synced(&self, took: Duration) {
        let _ = took;
    }
    /// Called with the clock's time when the log writer begins a batch of jobs, and with `None`
    /// when it has finished, so that a disk that hangs can be noticed.
    fn log_busy_since(&self, since: Option<Duration>) {
        let _ = since;
    }
    /// Bytes were handed to the operating system, and are not synced yet.
    fn written(&self, bytes: usize, took: Duration) {
        let _ = (bytes, took);
    }
}

/// Carries messages to other members. It may drop any of them and must not block: the raft loop and
/// the log writer call it.
pub trait Transport: Send + Sync {
    fn send(&self, messages: Vec<Message>);
}

/// The transport of a cluster of one.
pub struct NoTransport;

impl Transport for NoTransport {
    fn send(&self, _: Vec<Message>) {}
}

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
