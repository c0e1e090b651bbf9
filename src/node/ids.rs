//! Ids of requests, unique in the cluster, by which the proposer finds the answer to its entry.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::Clock;

/// An id has the low 16 bits of the member's id, 40 bits of the start time in milliseconds since
/// the epoch, and a counter of 8 bits. The counter may overflow into the milliseconds: a member
/// that restarts after that begins at a later time, unless it made more than 256 ids a millisecond.
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
