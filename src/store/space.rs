//! How much room the store still has.
//!
//! Requests that grow the state are refused as long as there is still room for every request under
//! way and for the whole reserve.

use std::sync::atomic::Ordering;

use super::committer::Shared;
use super::reserve::{available, total};
use crate::limits::STORE_BYTES_PER_BYTE;

/// The room of the store, as measured last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes free on the disk, free within the file, and held in reserve, together.
    pub bytes: u64,
    /// Bytes free within the file.
    pub within: u64,
    /// Bytes that are held in reserve, and that should be.
    pub reserve: u64,
    pub reserve_wanted: u64,
    /// Bytes that are sealed and not committed yet.
    pub waiting: u64,
    /// The last commit of entries found the disk full.
    pub is_full: bool,
}

impl Room {
    /// Whether records of `bytes` can be stored after everything that waits, with the reserve and a
    /// quarter of it to spare. Each byte is reckoned as `STORE_BYTES_PER_BYTE`.
    pub fn fits(&self, bytes: u64) -> bool {
        let coming = self.waiting.saturating_add(bytes).saturating_mul(STORE_BYTES_PER_BYTE);
        let kept = self.reserve_wanted + self.reserve_wanted / 4;
        !self.is_full && self.bytes >= kept.saturating_add(coming)
    }

    /// Whether so little is left that only compactions can be expected to fit.
    pub fn is_critical(&self) -> bool {
        self.is_full || self.bytes < self.reserve_wanted / 4
    }
}

impl Shared {
    pub(super) fn room(&self) -> Room {
        let cells = &self.room;
        Room {
            bytes: cells.free.load(Ordering::Relaxed).saturating_add(self.reserve.held()),
            within: cells.within.load(Ordering::Relaxed),
            reserve: self.reserve.held(),
            reserve_wanted: self.reserve.bytes,
            waiting: cells.waiting.load(Ordering::Relaxed),
            is_full: cells.is_full.load(Ordering::Relaxed),
        }
    }

    /// Whether the store itself does not need the reserve's space: no commit lacks room, and no
    /// running defragmentation has been lent it and would fail without it.
    pub(super) fn can_spare_reserve(&self) -> bool {
        let wants_room = self.queue.lock().no_space || self.room.is_short.load(Ordering::Relaxed);
        !wants_room && self.changed.lock().is_none()
    }

    /// Bytes of records for which the disk has room beside the reserve, and as much again for what is
    /// committed with them and for the log.
    pub(super) fn spare_bytes(&self) -> u64 {
        let is_whole = self.reserve.held() >= self.reserve.bytes;
        if is_whole { self.disk_free() / STORE_BYTES_PER_BYTE / 2 } else { 0 }
    }

    /// Lends the reserve's space to the log, or takes it back where there is room.
    pub(super) fn lend_reserve(&self, is_lent: bool) {
        let was_lent = self.room.is_lent.swap(is_lent, Ordering::Relaxed);
        if is_lent && !was_lent {
            self.reserve.release(self.options.clock.now());
        }
        self.measure();
    }

    pub(super) fn disk_free(&self) -> u64 {
        let faults = self.options.faults.as_ref();
        let free = faults.and_then(|faults| faults.free_bytes());
        free.unwrap_or_else(|| available(&self.reserve.path))
    }

    pub(super) fn disk_total(&self) -> u64 {
        total(&self.reserve.path)
    }

    /// Measures the free space and takes the reserve again, on a nearly full disk, too: other
    /// programs would otherwise use the space up.
    pub(super) fn measure(&self) {
        let sizes = *self.sizes.lock();
        let within = sizes.total.saturating_sub(sizes.in_use);
        let is_full = self.queue.lock().no_space;
        let look = || {
            let free = self.disk_free().saturating_add(within);
            self.room.free.store(free, Ordering::Relaxed);
            self.room.within.store(within, Ordering::Relaxed);
            self.room.is_full.store(is_full, Ordering::Relaxed);
        };
        look();
        let is_lent = self.room.is_lent.load(Ordering::Relaxed);
        if self.reserve.held() < self.reserve.bytes && !is_lent && self.can_spare_reserve() {
            self.reserve.take(self.options.clock.now());
            look();
        }
    }
}
