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

mod checkpoint;
mod compact;
mod doomed;
mod hash;
pub mod index;
pub mod kv;
mod measure;
mod range;
mod restore;
mod txn;
mod wanted;
mod write;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use crate::limits;
use crate::store::{self, Row, Store};
use crate::types::Revision;

pub use checkpoint::{Checkpoint, IndexPass, write_attachment, write_attachments_end};
pub use compact::{Compaction, CompactionStep};
pub use hash::{KeyValueHash, hash_rows};
pub use measure::{answers_shortly, answers_shortly_at_once, answers_with_pairs, keys_of_range};
pub use range::{has_revision_filters, is_default_ordering};
pub use restore::{Compacted, Restore, Restoring};
pub use txn::{Leases, is_read_only, is_serializable, read_txn, read_txn_shortly};
pub use wanted::{Waiting, Wanted};
pub use write::{Change, ChangeKind, Write, deletion_event};

use index::Index;

/// Why a change or a read is refused. A variant that is not local follows from the entries, is the
/// same on every member that applies them, and becomes the reply.
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
    /// Local: the disk holds what it should not.
    #[error("malformed {0} in the store")]
    Malformed(&'static str),
    /// Local: the index names a row that the store does not hold.
    #[error("revision {0} is in the index and not in the store")]
    MissingRow(Revision),
    /// Local: the read does not end as soon as its thread needs it to.
    #[error("the read takes too long for the thread that serves it")]
    TakesLong,
    /// Local: nobody waits for the read any more.
    #[error("nobody waits for the read")]
    Unwanted,
    /// Local: another state takes the place of the one that is read.
    #[error("the state is being replaced")]
    Replaced,
    /// Local: the store closed while work was under way.
    #[error("the store has stopped")]
    Stopped,
    /// Local.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// How long the replacement of the state waits before it looks for views again.
const VIEWS_WAIT: Duration = Duration::from_millis(1);

/// What readers may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Current {
    pub revision: i64,
    /// -1 while nothing was ever compacted.
    pub compact_revision: i64,
}

pub struct Mvcc {
    store: Arc<Store>,
    index: RwLock<Index>,
    published: RwLock<Current>,
    /// Revision of the last finished transaction, published or not.
    written: AtomicI64,
    /// Compact revision of the last applied compaction, published or not.
    compacted: AtomicI64,
    hashes: Mutex<Vec<KeyValueHash>>,
    /// Compact revision of the last sweep that ended.
    swept: AtomicI64,
    /// Held by every view; a sweep replaces it and waits until the old one is held by none.
    epoch: Mutex<Arc<()>>,
    /// Epochs that sweeps have replaced.
    older_epochs: Mutex<Vec<Weak<()>>>,
    /// Counts replacements of the whole state; held for reading by each step of a sweep.
    replaced: RwLock<u64>,
    /// Whether such a replacement waits for views to end.
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
            replaced: RwLock::default(),
            is_replacing: AtomicBool::new(false),
        }
    }

    /// Takes the state of another store in the place of this one's, which `swap_stores` replaces by
    /// it meanwhile, once no view is left. Only the apply thread may ask.
    ///
    /// Long reads end and begin anew afterwards. Those that are under way are waited for while others
    /// go on: one on a thread that gives way to all others may take a while to its next look. New views
    /// wait only for those that came meanwhile, which are short or have looked.
    pub fn install(
        &self,
        new: &Self,
        swap_stores: impl FnOnce() -> Result<(), store::Error>,
    ) -> Result<(), store::Error> {
        let _replacing = Replacing::begin(&self.is_replacing);
        // Only the apply thread starts sweeps, and it is in this call: none begins to wait for readers.
        let old = std::mem::take(&mut *self.epoch.lock());
        let is_seen = || {
            let older = self.older_epochs.lock();
            // A sweep that waits holds each of the older ones once.
            Arc::strong_count(&old) > 1 || older.iter().any(|epoch| epoch.strong_count() > 1)
        };
        while is_seen() {
            std::thread::sleep(VIEWS_WAIT);
        }
        let mut replaced = self.replaced.write();
        let mut epoch = self.epoch.lock();
        let young = std::mem::take(&mut *epoch);
        while Arc::strong_count(&young) > 1 {
            std::thread::sleep(VIEWS_WAIT);
        }
        swap_stores()?;
        let index = std::mem::take(&mut *new.index.write());
        // Millions of keys take a while to free: not under the lock.
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

    /// Lets readers see what was written so far.
    pub fn publish(&self) -> Current {
        let current = self.written();
        *self.published.write() = current;
        current
    }

    /// The state after all that was applied, published or not. Only the apply thread may ask.
    pub fn written(&self) -> Current {
        Current {
            revision: self.written.load(Ordering::Acquire),
            compact_revision: self.compacted.load(Ordering::Acquire),
        }
    }

    /// A view of the published state, for readers.
    pub fn view(&self) -> View<'_> {
        // The epoch comes first: what a later compaction dooms must outlive this view.
        let epoch = Arc::clone(&self.epoch.lock());
        View { mvcc: self, current: self.current(), wanted: None, _epoch: Some(epoch) }
    }

    /// Opens the next transaction. Only the apply thread may call it.
    pub fn begin(&self) -> Write<'_> {
        Write::new(self)
    }

    /// Whether a row is the newest of its key.
    pub fn is_newest(&self, key: &[u8], rev: Revision) -> bool {
        let found = self.index.read().get(key, i64::MAX);
        found.is_some_and(|found| found.modified == rev)
    }

    /// Keys, deleted ones that are not yet compacted included.
    pub fn keys(&self) -> usize {
        self.index.read().len()
    }

    /// Keys that exist now.
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

    /// The next rows in revision order, up to and with those of `main`: a bounded number, none at
    /// the end.
    fn rows(&self, from: Revision, main: i64) -> Result<Vec<Row>, Error> {
        let to = Revision::last_of(main);
        let (rows_max, bytes_max) = (limits::READ_CHUNK_ROWS, limits::READ_CHUNK_BYTES);
        Ok(self.store.scan(from, to, rows_max, bytes_max)?)
    }
}

/// Tells long reads that another state is about to come, until it is dropped.
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

/// All keys as of one revision.
pub struct View<'a> {
    mvcc: &'a Mvcc,
    current: Current,
    /// For a read that ends when nobody waits for it.
    wanted: Option<&'a Wanted>,
    /// Holds sweeps back. A transaction's own view needs none: it reads at the current revision,
    /// and the thread that writes is the one that applies compactions.
    _epoch: Option<Arc<()>>,
}

impl View<'_> {
    pub fn current(&self) -> Current {
        self.current
    }
}
