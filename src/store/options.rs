//! What a store is opened with, and what stands between it and its disk.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::limits::{COMMIT_INTERVAL, RESERVE_BYTES};
use crate::supervise::Supervisor;

#[derive(Clone)]
pub struct Options {
    pub clock: Arc<dyn Clock>,
    /// How long sealed entries wait for others to share their commit.
    pub commit_interval: Duration,
    /// Disk space held back for the day the disk is full; 0 for none.
    pub reserve_bytes: u64,
    /// Without a committer's thread, its turns are [`commit_turn`](super::Store::commit_turn).
    pub committer: bool,
    /// What a simulator lets happen to the store's files.
    pub faults: Option<Arc<dyn Faults>>,
    /// Starts the committer, and learns if the store cannot go on.
    pub supervisor: Supervisor,
}

/// Stands between the store and its disk. An error takes the place of what was to be done.
pub trait Faults: Send + Sync {
    /// Asked before each commit.
    fn commit(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// Called before a commit deletes `_rows` rows of a compaction.
    fn compaction(&self, _rows: usize) -> std::io::Result<()> {
        Ok(())
    }

    /// Asked before each transaction that reads.
    fn read(&self) -> std::io::Result<()> {
        Ok(())
    }

    /// What the disk has left; None asks the system.
    fn free_bytes(&self) -> Option<u64> {
        None
    }
}

impl Options {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            commit_interval: COMMIT_INTERVAL,
            reserve_bytes: RESERVE_BYTES,
            committer: true,
            faults: None,
            supervisor: Supervisor::default(),
        }
    }
}
