//! Whether a copy of the store is under way, and how others make it end.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// Held by the thread that defragments; counts those that want it to end.
#[derive(Default)]
pub(super) struct Defrag {
    pub(super) running: Mutex<()>,
    pub(super) unwanted: AtomicU64,
}

/// While it lives, no copy is under way.
pub(super) struct Quiet<'a> {
    defrag: &'a Defrag,
    _running: MutexGuard<'a, ()>,
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        self.defrag.unwanted.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Defrag {
    pub(super) fn quiet(&self) -> Quiet<'_> {
        self.unwanted.fetch_add(1, Ordering::AcqRel);
        Quiet { defrag: self, _running: self.running.lock() }
    }
}
