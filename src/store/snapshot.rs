//! A consistent state of the store, to be copied while the store goes on.
//!
//! The small buckets and the log position are read in one short transaction. Rows never change, so
//! those up to the newest one of that transaction can be read afterwards, a few at a time, as long
//! as none is deleted. No transaction is open in between, so commits can reuse freed pages.
//!
//! A reader may be slow, so deletions wait for it for at most `SNAPSHOT_HOLD_MAX`. Then the
//! committer opens a transaction for the reader, which sees all rows as they are, and deletes. From
//! then on no freed page can be reused, so the file grows by what is written until the reader ends,
//! as etcd's file does during a snapshot.

use std::borrow::Cow;
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::committer::Shared;
use super::env::Reader;
use super::pin::Pin;
use super::{Bucket, Error, Pair, Row, RowSize, Store};
use crate::limits::{READ_CHUNK_ROWS, SNAPSHOT_READ_BYTES};
use crate::types::Revision;

/// While it exists, no row is deleted, not even by deletions that were scheduled before.
pub(super) struct Hold {
    taken: Option<Arc<()>>,
    shared: Weak<Shared>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.taken = None;
        if let Some(shared) = self.shared.upgrade() {
            // The lock is held, so that the committer either waits already or has yet to look at
            // the holds: a notification between its look and its wait would be lost.
            let _queue = shared.queue.lock();
            shared.work.notify_one();
        }
    }
}

/// The state of the store as of one log entry.
pub struct Frozen {
    pin: Option<Arc<Pin>>,
    buckets: Vec<(Bucket, Vec<Pair>)>,
    last: Option<Revision>,
    db: PathBuf,
    shared: Weak<Shared>,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        self.pin = None;
        if let Some(shared) = self.shared.upgrade() {
            // Under the lock, as for a `Hold`.
            let _queue = shared.queue.lock();
            shared.work.notify_one();
        }
    }
}

impl Store {
    /// Waits until a running commit that deletes rows has ended. No other begins while the hold
    /// exists.
    pub(super) fn hold(&self) -> Hold {
        let shared = &self.shared;
        let mut queue = shared.queue.lock();
        let taken = Some(Arc::clone(&queue.holds));
        while queue.is_deleting && queue.stop.is_none() {
            shared.done.wait(&mut queue);
        }
        Hold { taken, shared: Arc::downgrade(shared) }
    }

    /// The state as the last commit left it. Fails if the store is damaged.
    pub fn freeze(&self) -> Result<Frozen, Error> {
        self.refuse_damaged()?;
        // Without the hold, the committer could delete rows after the state is read and before the
        // pin that protects them is in the queue.
        let hold = self.hold();
        let env = self.shared.env();
        let reader = env.read()?;
        let mut buckets = Vec::with_capacity(Bucket::ALL.len());
        for bucket in Bucket::ALL {
            buckets.push((bucket, self.noted(reader.small_iter(bucket))?));
        }
        let last = self.noted(reader.last_rev())?;
        drop(reader);
        let pin = Arc::new(Pin { env, is_pinned: AtomicBool::new(false), txn: Mutex::default() });
        let mut queue = self.shared.queue.lock();
        queue.frozen.retain(|pin| pin.strong_count() > 0);
        queue.frozen.push(Arc::downgrade(&pin));
        drop(queue);
        drop(hold);
        let shared = Arc::downgrade(&self.shared);
        Ok(Frozen { pin: Some(pin), buckets, last, db: self.directory(), shared })
    }
}

impl Frozen {
    /// All pairs of a small bucket, in key order.
    pub fn bucket(&self, bucket: Bucket) -> &[Pair] {
        let found = self.buckets.iter().find(|(found, _)| *found == bucket);
        found.map_or(&[], |(_, pairs)| pairs)
    }

    /// The value of a key of a small bucket.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Option<&[u8]> {
        let mut pairs = self.bucket(bucket).iter();
        pairs.find(|(found, _)| found == key).map(|(_, value)| value.as_slice())
    }

    /// The next rows from `from` on, at most `READ_CHUNK_ROWS` of them; an empty answer is the end.
    pub fn rows(&self, from: Revision) -> Result<Vec<Row>, Error> {
        let Some(last) = self.last else { return Ok(Vec::new()) };
        let mut bytes = SNAPSHOT_READ_BYTES;
        self.noted(
            self.read(|reader| {
                reader.rows(from, Bound::Included(last), READ_CHUNK_ROWS, &mut bytes)
            }),
        )
    }

    /// As `rows`, but each row is passed to `f` without a copy: revision, whether it is a
    /// tombstone, record.
    pub fn each_row<E: From<Error>>(
        &self,
        from: Revision,
        f: impl FnMut(Revision, bool, Cow<'_, [u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(last) = self.last else { return Ok(()) };
        let mut bytes = SNAPSHOT_READ_BYTES;
        self.read(|reader| {
            reader.each_row(from, Bound::Included(last), READ_CHUNK_ROWS, &mut bytes, f)
        })
    }

    /// As `rows`, without the records.
    pub fn row_sizes(&self, from: Revision) -> Result<Vec<RowSize>, Error> {
        let Some(last) = self.last else { return Ok(Vec::new()) };
        self.noted(self.read(|reader| reader.row_sizes(from, last, READ_CHUNK_ROWS)))
    }

    fn read<T, E: From<Error>>(&self, f: impl FnOnce(&Reader<'_>) -> Result<T, E>) -> Result<T, E> {
        match &self.pin {
            Some(pin) => pin.read(f)?,
            None => Err(Error::GivenUp("it has ended").into()),
        }
    }

    fn noted<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        match self.shared.upgrade() {
            Some(shared) => shared.note(&self.db, outcome),
            None => outcome,
        }
    }
}
