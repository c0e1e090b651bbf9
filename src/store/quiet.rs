//! Mutual exclusion of defragmentation and the installation of a snapshot, which ends a running
//! one.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};

/// `running` is held during a defragmentation; `unwanted` counts the threads that want it to end.
#[derive(Default)]
pub(super) struct Defrag {
    pub(super) running: Mutex<()>,
    pub(super) unwanted: AtomicU64,
}

/// While it exists, no defragmentation runs.
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
    /// Ends a running defragmentation, waits until it has ended, and keeps others from beginning
    /// while the guard exists.
    pub(super) fn quiet(&self) -> Quiet<'_> {
        self.unwanted.fetch_add(1, Ordering::AcqRel);
        Quiet { defrag: self, _running: self.running.lock() }
    }
}
