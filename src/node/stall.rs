//! A log disk that stands still, seen from outside of the threads that wait for it.
//!
//! A leader with followers hands leadership over after an election timeout (`raft/core.rs`). Two
//! cases are left: a sole voter, which would go on answering reads, and a follower, whose raft loop
//! may itself be waiting for the write. etcd's raft loop waits for each write, so it answers no
//! linearizable read meanwhile, and a health probe fails at its timeout. Probes here fail then,
//! too. The log warns while the write is still under way, and not only after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Error, Node};
use crate::go;
use crate::limits::{LOG_STALL_LOOK_INTERVAL, LOG_STALL_WARN_AFTER};

/// The time at which the write that the log is at was begun.
#[derive(Default)]
pub(super) struct LogWriting {
    /// In nanoseconds of the member's clock, at least 1; 0 while no write is under way.
    since_nanos: AtomicU64,
}

impl LogWriting {
    pub(super) fn note(&self, since: Option<Duration>) {
        let nanos = |since: Duration| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).max(1);
        self.since_nanos.store(since.map_or(0, nanos), Ordering::Relaxed);
    }

    fn since(&self) -> Option<Duration> {
        let nanos = self.since_nanos.load(Ordering::Relaxed);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }
}

impl Node {
    /// How long the write that the log is at has been under way.
    pub(super) fn log_stall(&self) -> Duration {
        let since = self.0.log_writing.since();
        since.map_or(Duration::ZERO, |since| self.0.clock.now().saturating_sub(since))
    }

    /// Fails with `Timeout` once a linearizable read of etcd would have timed out because of the
    /// stalled write.
    pub(super) fn log_goes_on(&self) -> Result<(), Error> {
        if self.log_stall() > self.request_timeout() { Err(Error::Timeout) } else { Ok(()) }
    }

    /// Warns when a write of the log takes longer than `LOG_STALL_WARN_AFTER`, and not again before
    /// a look finds the log faster.
    pub(super) async fn watch_log(&self) {
        let mut is_said = false;
        loop {
            self.0.clock.sleep(LOG_STALL_LOOK_INTERVAL).await;
            let stall = self.log_stall();
            let stalls = stall > LOG_STALL_WARN_AFTER;
            if stalls && !is_said {
                tracing::warn!(
                    "took-so-far" = go::duration(stall),
                    "expected-duration" = go::duration(LOG_STALL_WARN_AFTER),
                    hint = "see whether the disk of the log still answers",
                    "slow fdatasync, still under way"
                );
            }
            is_said = stalls;
        }
    }
}
