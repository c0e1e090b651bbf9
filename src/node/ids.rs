//! Ids of requests: unique in the cluster, so that a member finds the waiter of an entry.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Clock;

/// The member's low 16 bits, 40 bits of milliseconds since the epoch at start, and a counter of 8
/// bits that runs over into the milliseconds, which by then have passed.
pub(super) struct RequestIds {
    prefix: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new(member_id: u64, clock: &dyn Clock) -> Self {
        let millis = clock.unix_nanos() / 1_000_000;
        let suffix = (millis & ((1 << 40) - 1)) << 8;
        Self { prefix: member_id << 48, next: AtomicU64::new(suffix) }
    }

    pub(super) fn next(&self) -> u64 {
        let suffix = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        self.prefix | (suffix & ((1 << 48) - 1))
    }
}
