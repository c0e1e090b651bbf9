//! Multi-version storage: revisions, the key index, reads at a revision, transactions, compaction.
//!
//! ```text
//!   apply ──Write──► store (rows by revision, tail first)      publish
//!            └─────► index (key -> revisions)             ──► revision, compact revision
//!   read  ──View───► index, filtered to the view's revision ──► store
//! ```
//!
//! History only grows at its end, and a row never changes, so a read needs no snapshot of the
//! index or of the store: it takes the published revision and ignores what is newer. One thread
//! writes. It makes rows and index entries of the next revision first and publishes the revision
//! last, so a reader sees all of a transaction or none of it.
//!
//! This room knows keys, values and revisions. It does not know leases (it asks a [`Leases`]),
//! the log, watchers or the network, and it reads no clock.

mod change;
mod checkpoint;
mod compact;
mod doomed;
mod hash;
mod hash_at_rest;
pub mod index;
pub mod kv;
mod measure;
mod pieces;
mod pins;
mod range;
mod read_check;
mod restore;
mod txn;
mod write;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::limits;
use crate::store::{self, Row, Sizes, Store};
use crate::types::Revision;

pub use change::{Change, ChangeKind, deletion_event};
pub use checkpoint::{Checkpoint, IndexPass, write_attachment, write_attachments_end};
pub use compact::{Sweep, SweepStep};
pub use hash::KeyValueHash;
pub use hash_at_rest::hash_rows;
pub use measure::{answers_shortly, answers_shortly_at_once, answers_with_pairs, keys_of_range};
pub use pieces::{Bounds, Measured, Rest};
pub use range::{has_revision_filters, is_default_ordering};
pub use read_check::{CallerGuard, ReadCheck};
pub use restore::{Compacted, Restore, Restoring};
pub use txn::{is_read_only, is_serializable, read_txn, read_txn_shortly};
pub use write::{Leases, Write};

use index::Index;
use pins::Pins;

/// Why a change or a read is refused. A variant that is not marked as local follows from the log's
/// entries alone, so it is the same on every member that applies them, and it becomes the reply.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    #[error("mvcc: required revision is a future revision")]
    FutureRev,
    #[error("key not found")]
    KeyNotFound,
    #[error("requested lease not found")]
    LeaseNotFound,
    /// Local: a stored pair is not what this room has written.
    #[error("malformed {0} in the store")]
    Malformed(&'static str),
    /// Local: the index names a row that the store does not hold.
    #[error("revision {0} is in the index and not in the store")]
    MissingRow(Revision),
    /// Local: the read would hold up the connections that its thread serves; the caller repeats it
    /// on another thread.
    #[error("the read takes too long for the thread that serves it")]
    TakesLong,
    /// Local: the caller has gone away.
    #[error("nobody waits for the read")]
    Unwanted,
    /// Local: a snapshot of another member is replacing the state; the read begins again.
    #[error("the state is being replaced")]
    Replaced,
    /// Local: the rows of an answer are no longer kept for its client, who was too slow.
    #[error("the answer took longer than its rows are kept")]
    Expired,
    /// Local: the rows of an answer are not those that were measured.
    #[error("the rows of an answer have changed while it was sent")]
    Changed,
    /// Local: the store was closed, or the state replaced, while work was under way.
    #[error("the store has stopped")]
    Stopped,
    /// Local.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Pause between two looks of `install` whether views have ended.
const VIEWS_WAIT: Duration = Duration::from_millis(1);

/// The revisions that bound what a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    pub revision: i64,
    /// -1 if nothing was ever compacted.
    pub compact_revision: i64,
}

/// The versioned key space of one member. Changed by the apply thread and the sweeper; read by any
/// thread.
pub struct Mvcc {
    store: Arc<Store>,
    index: RwLock<Index>,
    published: RwLock<Current>,
    /// Revision of the last finished transaction, published or not.
    written: AtomicI64,
    /// Compact revision of the last applied compaction, published or not.
    compacted: AtomicI64,
    hashes: Mutex<Vec<KeyValueHash>>,
    /// Revision of the last compaction whose sweep has ended.
    swept: AtomicI64,
    /// Each view holds a clone. A sweep replaces it and waits until no view holds the old one.
    epoch: Mutex<Arc<()>>,
    /// Epochs that sweeps have replaced, and that views may still hold.
    older_epochs: Mutex<Vec<Weak<()>>>,
    /// Answers that are read in pieces, and hold epochs in between.
    pins: Arc<Pins>,
    /// Number of replacements of the whole state. Each step of a sweep holds the lock for reading,
    /// so no replacement falls into a step.
    replaced: RwLock<u64>,
    /// Whether a replacement waits for views to end; long reads look at it and end.
    is_replacing: AtomicBool,
}

impl Mvcc {
    /// An empty state, at revision 1.
    pub fn new(store: Arc<Store>) -> Self {
        Self::with_index(store, Index::default(), Current { revision: 1, compact_revision: -1 })
    }

    fn with_index(store: Arc<Store>, index: Index, current: Current) -> Self {
        Self {
            store,
            index: RwLock::new(index),
            published: RwLock::new(current),
            written: AtomicI64::new(current.revision),
            compacted: AtomicI64::new(current.compact_revision),
            hashes: Mutex::new(Vec::new()),
            swept: AtomicI64::new(current.compact_revision),
            epoch: Mutex::default(),
            older_epochs: Mutex::default(),
            pins: Arc::default(),
            replaced: RwLock::default(),
            is_replacing: AtomicBool::new(false),
        }
    }

    /// Replaces this state by `new`, once no view of the old one is left; `swap_stores` replaces
    /// the store's contents meanwhile. Called on the apply thread alone.
    ///
    /// Long reads end at their next look and begin again afterwards. A read on a thread of low
    /// priority may take a while to get there, so the views that exist at the beginning are waited
    /// for first, while new views may still begin. Only then are new ones held up, until those that
    /// began meanwhile have ended, which are short or have looked. Answers that are read in pieces end
    /// with an error: they must not go on in another state.
    pub fn install(
        &self,
        new: &Self,
        swap_stores: impl FnOnce() -> Result<(), store::Error>,
    ) -> Result<(), store::Error> {
        let _replacing = Replacing::begin(&self.is_replacing);
        // Sweeps are started by the apply thread alone, which is in this call, so no sweep takes
        // the epoch meanwhile.
        let old = std::mem::take(&mut *self.epoch.lock());
        let is_seen = || {
            let older = self.older_epochs.lock();
            // A waiting sweep holds one reference to each older epoch, so more than one means a
            // view.
            Arc::strong_count(&old) > 1 || older.iter().any(|epoch| epoch.strong_count() > 1)
        };
        while is_seen() {
            let young = Arc::clone(&self.epoch.lock());
            self.pins.end(|epoch| !Arc::ptr_eq(epoch, &young));
            drop(young);
            std::thread::sleep(VIEWS_WAIT);
        }
        let mut replaced = self.replaced.write();
        let mut epoch = self.epoch.lock();
        let young = std::mem::take(&mut *epoch);
        while Arc::strong_count(&young) > 1 {
            self.pins.end(|_| true);
            std::thread::sleep(VIEWS_WAIT);
        }
        swap_stores()?;
        let index = std::mem::take(&mut *new.index.write());
        // Freeing millions of keys takes long, so it is done after the locks are released.
        let old_index = std::mem::replace(&mut *self.index.write(), index);
        let current = new.written();
        self.written.store(current.revision, Ordering::Release);
        self.compacted.store(current.compact_revision, Ordering::Release);
        *self.published.write() = current;
        self.hashes.lock().clear();
        self.swept.store(new.swept(), Ordering::Release);
        *replaced += 1;
        drop((epoch, replaced));
        drop(old_index);
        Ok(())
    }

    fn is_replacing(&self) -> bool {
        self.is_replacing.load(Ordering::Relaxed)
    }

    pub fn current(&self) -> Current {
        *self.published.read()
    }

    /// Publishes everything that was written so far: new views see it. Called on the apply thread,
    /// before the events and the replies of the batch are given.
    pub fn publish(&self) -> Current {
        let current = self.written();
        *self.published.write() = current;
        current
    }

    /// The revisions after everything that was applied, published or not. Called on the apply
    /// thread alone.
    pub fn written(&self) -> Current {
        Current {
            revision: self.written.load(Ordering::Acquire),
            compact_revision: self.compacted.load(Ordering::Acquire),
        }
    }

    /// A view of the published state, for readers.
    pub fn view(&self) -> View<'_> {
        // The epoch is taken before the revision is read: a compaction that is published in between
        // then waits for this view with its deletions. In the other order, the view could read at a
        // revision whose rows are already being deleted.
        let epoch = Arc::clone(&self.epoch.lock());
        View { mvcc: self, current: self.current(), wanted: None, _epoch: Some(epoch) }
    }

    /// Begins the next transaction. Called on the apply thread alone.
    pub fn begin(&self) -> Write<'_> {
        Write::new(self)
    }

    /// Whether the row at `rev` is the newest of its key, and not a tombstone.
    pub fn is_newest(&self, key: &[u8], rev: Revision) -> bool {
        let found = self.index.read().get(key, i64::MAX);
        found.is_some_and(|found| found.modified == rev)
    }

    /// Number of keys in the index, including deleted ones that are not compacted yet.
    pub fn keys(&self) -> usize {
        self.index.read().len()
    }

    /// Number of keys that exist.
    pub fn live_keys(&self) -> u64 {
        self.index.read().live()
    }

    /// Whether a compaction was applied whose sweep has not ended.
    pub fn is_sweeping(&self) -> bool {
        self.swept() < self.compacted.load(Ordering::Acquire)
    }

    fn swept(&self) -> i64 {
        self.swept.load(Ordering::Acquire)
    }

    /// Sizes of the store's file.
    pub fn store_sizes(&self) -> Sizes {
        self.store.sizes()
    }

    /// The next rows in revision order from `from` on, up to and including those of `main`: at most
    /// `rows_max` and `READ_CHUNK_BYTES` of them; an empty answer is the end.
    fn rows(&self, from: Revision, main: i64, rows_max: usize) -> Result<Vec<Row>, Error> {
        let to = Revision::last_of(main);
        Ok(self.store.scan(from, to, rows_max, limits::READ_CHUNK_BYTES)?)
    }
}

/// Until it is dropped, long reads end with `Error::Replaced`.
struct Replacing<'a>(&'a AtomicBool);

impl<'a> Replacing<'a> {
    fn begin(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::Relaxed);
        Self(flag)
    }
}

impl Drop for Replacing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// All keys as of one revision. While it exists, no sweep deletes rows that it may read.
pub struct View<'a> {
    mvcc: &'a Mvcc,
    current: Current,
    /// Set for a read that ends early when its caller goes away or the state is replaced.
    wanted: Option<&'a ReadCheck>,
    /// Keeps sweeps from deleting rows. A transaction's own view has None: it reads at the current
    /// revision, and compactions are applied by the same thread.
    _epoch: Option<Arc<()>>,
}

impl View<'_> {
    pub fn current(&self) -> Current {
        self.current
    }
}
