//! Keeps the rows that the reader of a snapshot needs: the committer opens a transaction for the
//! reader before it deletes any of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::Error;
use super::env::{Env, Pinned, Reader};

/// A state that is read while the store goes on. `Queue::frozen` has a weak reference, by which the
/// committer finds it.
pub(super) struct Pin {
    pub(super) env: Arc<Env>,
    pub(super) is_pinned: AtomicBool,
    pub(super) txn: Mutex<Option<Pinned>>,
}

impl Pin {
    /// Whether deletions in `env` would take rows from this reader: it reads this environment and
    /// has no transaction of its own yet.
    pub(super) fn is_needed(&self, env: &Arc<Env>) -> bool {
        !self.is_pinned.load(Ordering::Acquire) && Arc::ptr_eq(env, &self.env)
    }

    /// Called by the committer before it deletes rows in `env`: opens the transaction that keeps
    /// them visible to the reader.
    pub(super) fn take(&self, env: &Arc<Env>) -> Result<(), Error> {
        if self.is_needed(env) {
            *self.txn.lock() = Some(self.env.pin()?);
            self.is_pinned.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Calls `f` with a reader: over the pinned transaction if there is one, else over a short one
    /// of its own.
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
