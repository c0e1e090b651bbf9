//! A state that one slow reader needs, and that the committer keeps for it when rows of it are to be
//! deleted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Error;
use super::env::{Env, Pinned, Reader};

/// A state that is read while the store goes on; the committer knows of it.
pub(super) struct Pin {
    pub(super) env: Arc<Env>,
    pub(super) is_pinned: AtomicBool,
    pub(super) txn: Mutex<Option<Pinned>>,
}

impl Pin {
    /// Whether deletions in this environment have to wait for it.
    pub(super) fn is_needed(&self, env: &Arc<Env>) -> bool {
        !self.is_pinned.load(Ordering::Acquire) && Arc::ptr_eq(env, &self.env)
    }

    /// Keeps all rows for its reader; `env` is the one in which some are to be deleted.
    pub(super) fn take(&self, env: &Arc<Env>) -> Result<(), Error> {
        if self.is_needed(env) {
            *self.txn.lock() = Some(self.env.pin()?);
            self.is_pinned.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Reads what the state holds.
    pub(super) fn read<T>(&self, f: impl FnOnce(&Reader<'_>) -> T) -> Result<T, Error> {
        let txn = self.txn.lock();
        if let Some(txn) = &*txn {
            return Ok(f(&self.env.read_pinned(txn)));
        }
        let reader = self.env.read()?;
        drop(txn);
        Ok(f(&reader))
    }
}
