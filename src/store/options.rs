//! Settings of a store, and the hook for injected disk faults.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::limits::{COMMIT_INTERVAL, COMMIT_OPS_MAX, COMPACTION_ROWS_MAX, RESERVE_BYTES};
use crate::supervise::Supervisor;

/// The settings with which a store is opened.
#[derive(Clone)]
pub struct Options {
    pub clock: Arc<dyn Clock>,
    /// How long sealed entries wait for others to share their commit, at most.
    pub commit_interval: Duration,
    /// Operations after which a commit does not wait for others.
    pub commit_ops_max: usize,
    /// Rows that one commit deletes for a compaction, at most.
    pub compaction_rows_max: usize,
    /// Bytes of disk space held in reserve for a full disk; 0 for none.
    pub reserve_bytes: u64,
    /// Whether a commit is durable when it ends. Without that, a power cut may leave a store that
    /// cannot be opened.
    pub syncs: bool,
    /// Whether to start the committer's thread. Without it, each call of
    /// [`commit_turn`](super::Store::commit_turn) does one commit.
    pub committer: bool,
    /// Faults that a simulator injects; None outside of tests.
    pub faults: Option<Arc<dyn Faults>>,
    /// Starts the committer's thread, and ends the member if the store cannot go on.
    pub supervisor: Supervisor,
}

/// Asked before operations on the store's file. An error that it returns takes the place of the
/// operation.
pub trait Faults: Send + Sync {
    /// Asked before each commit.
    fn commit(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Asked before a commit deletes `_rows` rows for a compaction.
    fn compaction(&self, _rows: usize) -> std::io::Result<()> {
        Ok(())
    }

    /// Asked before each read transaction.
    fn read(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Free bytes of the disk; None asks the system.
    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

impl Options {
    /// The defaults: with a reserve and a committer's thread, without faults.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            commit_interval: COMMIT_INTERVAL,
            commit_ops_max: COMMIT_OPS_MAX,
            compaction_rows_max: COMPACTION_ROWS_MAX,
            reserve_bytes: RESERVE_BYTES,
            syncs: true,
            committer: true,
            faults: None,
            supervisor: Supervisor::default(),
        }
    }
}
