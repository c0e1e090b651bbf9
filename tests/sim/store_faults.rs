//! What goes wrong with the store's files.

use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rusd::store::Faults;

use super::clock::Trap;
use super::disk::{broken, is_due};

/// What goes wrong with the store's files.
#[derive(Default)]
pub struct StoreTroubles {
    pub is_full: bool,
    /// So many more commits until the disk is full.
    pub fills_in: Option<u64>,
    /// So many more commits until one fails.
    pub commit_fails_in: Option<u64>,
    /// So many more reads until one fails; then the trouble is over.
    pub read_fails_in: Option<u64>,
    /// Only reads of apply count.
    pub is_of_apply: bool,
    pub is_applying: bool,
    /// A read or commit did fail, so the member may stop.
    pub struck: bool,
    /// Whoever works with the store's files may panic.
    pub trap: Trap,
}

#[derive(Default, Clone)]
pub struct StoreFaults(Arc<Mutex<StoreTroubles>>);

impl StoreFaults {
    pub fn lock(&self) -> MutexGuard<'_, StoreTroubles> {
        self.0.lock()
    }
}

impl Faults for StoreFaults {
    fn commit(&self) -> io::Result<()> {
        let mut troubles = self.0.lock();
        troubles.trap.pass();
        if is_due(&mut troubles.commit_fails_in) {
            troubles.struck = true;
            return Err(broken());
        }
        troubles.is_full |= is_due(&mut troubles.fills_in);
        match troubles.is_full {
            true => Err(io::Error::from_raw_os_error(28)),
            false => Ok(()),
        }
    }

    fn free_bytes(&self) -> Option<u64> {
        Some(if self.0.lock().is_full { 0 } else { 1 << 40 })
    }

    fn read(&self) -> io::Result<()> {
        let mut troubles = self.0.lock();
        troubles.trap.pass();
        if troubles.is_of_apply && !troubles.is_applying {
            return Ok(());
        }
        let fails = is_due(&mut troubles.read_fails_in);
        troubles.struck |= fails;
        if fails { Err(broken()) } else { Ok(()) }
    }
}
