//! A disk that does not take what the log writes, seen from outside of the threads that wait for it.
//!
//! A leader of others hands leadership over after an election timeout (`raft/core.rs`). What is left is
//! a member alone, which would answer reads for as long as it takes, and a follower, whose raft loop
//! may be within the write. etcd answers no linearizable read then, as its raft loop is within each
//! write, so its probes of such reads fail when their time is over; so do these. The log says so while
//! it lasts, and not only when it is over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Error, Node};
use crate::limits::{LOG_STALL_LOOK_INTERVAL, LOG_STALL_SAID_AFTER};

/// Since when the log has been at the write that it is at.
#[derive(Default)]
pub(super) struct LogWriting {
    /// By the member's clock, and at least one; 0 while nothing is written.
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
    /// How long the log has been at the write that it is at.
    pub(super) fn log_stall(&self) -> Duration {
        let since = self.0.log_writing.since();
        since.map_or(Duration::ZERO, |since| self.0.clock.now().saturating_sub(since))
    }

    /// Fails once what waits for the log would have failed, too.
    pub(super) fn log_goes_on(&self) -> Result<(), Error> {
        if self.log_stall() > self.request_timeout() { Err(Error::Timeout) } else { Ok(()) }
    }

    pub(super) async fn watch_log(&self) {
        let mut is_said = false;
        loop {
            self.0.clock.sleep(LOG_STALL_LOOK_INTERVAL).await;
            let stall = self.log_stall();
            let stalls = stall > LOG_STALL_SAID_AFTER;
            if stalls && !is_said {
                tracing::warn!(
                    "took-so-far" = ?stall,
                    "expected-duration" = ?LOG_STALL_SAID_AFTER,
                    hint = "see whether the disk of the log still answers",
                    "slow fdatasync, still under way"
                );
            }
            is_said = stalls;
        }
    }
}
