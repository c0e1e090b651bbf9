//! Upkeep: the work that keeps a member's store small, fresh and whole while the member serves.
//!
//! ```text
//!   applied compactions ─► sweeper ─► rows deleted, a little at a time
//!                            │ between two steps
//!                            ▼
//!                          checkpointer ─► the index on disk, for the next start
//!
//!   clock ─► compact history ──┐
//!            compare histories ├─► Door ─► a proposal of the member's own
//!   NOSPACE ─► keep space ─────┘
//!                └─► defragment, as an operator does
//!
//!   clock ─► scrub ─► damage ─► the member is fenced
//! ```
//!
//! This room works on the state and does not know the node. What it proposes, or has to know of the
//! leader, goes through a [`Door`]; [`SweepWaiters`] reaches the callers that wait for a sweep.
//! Whether a caller may ask for a piece of work is decided by the node.

mod auto_compact;
mod checkpointer;
mod corruption;
mod defrag;
mod door;
mod error;
mod hash;
mod room;
mod scrub;
mod space;
mod sweeper;
mod turns;
mod usage;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use crate::clock::Clock;
use crate::limits::SWEEP_LOOK;
use crate::members::Members;
use crate::mvcc::Mvcc;
use crate::peer::Reach;
use crate::raft;
use crate::store::{DirLock, Store};
use crate::supervise::Supervisor;

pub use auto_compact::Retention;
pub use checkpointer::{CheckpointPace, Checkpointer, close_store};
pub use defrag::defragment_at_start;
pub use door::{Door, Refusal};
pub use error::{CorruptionError, Error};
pub use hash::HashKv;
pub use room::{DiskRoom, UnderWay};
pub use scrub::say_damage;
pub use sweeper::{SweepBatches, SweepJob, SweepQueue, SweepWaiters, SweepWorker, Sweeper};
pub use turns::{Turn, Turns};
pub use usage::{Tally, Usage};

use turns::PassTurns;
use usage::Growth;

/// The operator's settings that concern the upkeep.
pub struct Settings {
    pub retention: Option<Retention>,
    /// Time between two comparisons of the members' histories by the leader; zero for none.
    pub corrupt_check_interval: Duration,
    /// Time between two comparisons of the hashes that the members' compactions computed.
    pub compact_hash_check_interval: Option<Duration>,
    /// The flag's value, for log lines: 0 stands for the default.
    pub quota_flag_bytes: i64,
    /// The quota in force; 0 or less for none.
    pub quota_bytes: i64,
    pub log_dir: PathBuf,
    /// The time after which a peer's answer is given up.
    pub request_timeout: Duration,
}

/// The state that the upkeep works on, and the member that it belongs to.
pub struct UpkeepContext {
    pub settings: Settings,
    pub member_id: u64,
    pub cluster_id: u64,
    pub clock: Arc<dyn Clock>,
    pub store: Arc<Store>,
    pub mvcc: Arc<Mvcc>,
    pub members: Arc<RwLock<Members>>,
    pub raft: raft::Handle,
    pub reach: Arc<dyn Reach>,
    pub disk_room: Arc<DiskRoom>,
    pub supervisor: Supervisor,
    /// Whether work runs on the caller's thread, since a simulated member has no threads.
    pub is_stepped: bool,
    /// Keeps the directory locked while work outlives the member.
    pub lock: Arc<DirLock>,
}

/// What keeps one member's store small and whole: it defragments, hashes and scrubs the store, and
/// raises NOSPACE. The sweeper and the checkpointer have a thread of their own.
pub struct Upkeep {
    context: UpkeepContext,
    passes: PassTurns,
    growth: Growth,
    /// Held by the caller that raises NOSPACE, so that many refused writes propose one alarm.
    raising: tokio::sync::Mutex<()>,
}

impl Upkeep {
    pub fn new(context: UpkeepContext) -> Self {
        let raising = tokio::sync::Mutex::default();
        Self { context, passes: PassTurns::default(), growth: Growth::default(), raising }
    }

    /// Runs `work` on a thread of niceness 10. It runs to its end even if its caller goes away.
    async fn on_nice_thread<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.context.supervisor.nice(name, work).await?
    }

    /// Waits while a sweep is under way, for `patience` at most. Returns false if it still is.
    async fn ends_within(&self, patience: Duration, is_under_way: impl Fn() -> bool) -> bool {
        let clock = &self.context.clock;
        let end = clock.now() + patience;
        while is_under_way() {
            if clock.now() >= end {
                return false;
            }
            clock.sleep(SWEEP_LOOK).await;
        }
        true
    }

    fn shown_id(&self) -> String {
        format!("{:x}", self.context.member_id)
    }

    #[cfg(test)]
    pub(crate) fn passes(&self) -> &PassTurns {
        &self.passes
    }
}
