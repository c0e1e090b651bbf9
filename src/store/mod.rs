//! The durable state: LMDB, a write-back tail in front of it, and the thread between them.
//!
//! ```text
//!   apply ── push_row, put, delete ──▶ open entry ── seal ──▶ batch ── committer ──▶ LMDB
//!                 │                                                       │
//!                 └──────────────▶ tail ◀── trims after the commit ───────┘
//!   readers ── get, scan ──▶ tail, then LMDB
//! ```
//!
//! LMDB holds the revision log (one record for each revision: the exact bytes of etcd's
//! `mvccpb.KeyValue`) and the small buckets. It has no index by key: that lives in memory, in
//! `mvcc`, and no user key is ever an LMDB key.
//!
//! The raft log makes a write durable before it is acknowledged. The store follows some
//! milliseconds later, in commits of whole log entries, each with the index and term of its last
//! entry in the same transaction and with a full sync. After a crash the log is replayed from that
//! index. So a commit may be late, but commits are in log order and no entry is split between two.
//!
//! A row is readable from the moment it is pushed: it is in the tail until the commit that holds it
//! is durable, and is trimmed only then. A reader looks into the tail first and begins its read
//! transaction after that, so there is no moment at which it finds a row in neither.
//!
//! Caveats:
//! - One thread applies. Rows come in revision order, entries in index order; anything else is a
//!   bug and stops the process.
//! - Reads of a small bucket see what is committed, not what is sealed. The rooms that need the
//!   applied state of a bucket (leases, auth, members) keep it in memory.
//! - LMDB trusts its file. Before the file is mapped, `check` walks its pages with every bound
//!   checked; after that, each record is read under its own checksum.
//! - This is the only room that names heed.

mod check;
mod checkpoint;
mod committer;
mod damage;
mod defrag;
mod dir;
mod env;
mod error;
mod examine;
mod generation;
mod options;
mod pin;
mod quiet;
mod record;
mod reserve;
pub mod schema;
mod scrub;
mod snapshot;
mod space;
mod tail;
mod visit;

#[cfg(test)]
mod tests;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

pub use checkpoint::{CheckpointBinding, CheckpointReader, CheckpointWriter, Unusable};
pub use defrag::Defragmented;
pub use dir::{DirLock, is_vacant, lay_out, lock, lock_at_rest, lock_to_import, refuse_foreign};
pub use error::Error;
pub use examine::{Examined, examine};
pub use generation::{Building, amend, has_other, settle};
pub use options::{Faults, Options};
pub use schema::Bucket;
pub use scrub::Scrubbed;
pub use snapshot::Frozen;
pub use space::Room;
pub use visit::Part;

use crate::clock::LogLimit;
use crate::files;
use crate::limits::READ_CHUNK_ROWS;
use crate::supervise::Thread;
use crate::types::Revision;
use committer::{Hooks, Queue, Shared};
use env::Env;
use reserve::Reserve;

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub rev: Revision,
    pub tombstone: bool,
    /// The encoded `mvccpb.KeyValue`, byte for byte what etcd stores; a tombstone's holds only the
    /// key.
    pub kv: Bytes,
}

/// The revision, kind and record length of a row, without the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowSize {
    pub rev: Revision,
    pub tombstone: bool,
    pub bytes: usize,
}

/// Key and value of a small bucket.
pub type Pair = (Vec<u8>, Vec<u8>);

/// The contents of a store when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The store was made by this call.
    pub created: bool,
    /// Random number drawn when the store was made, which binds its index checkpoint to it; 0 if it
    /// has none.
    pub id: u64,
    pub generation: u64,
    /// Index and term of the last log entry that is committed to LMDB; 0 for none.
    pub consistent_index: u64,
    pub term: u64,
    pub conf_state: Option<Vec<u8>>,
    /// The newest revision among the rows.
    pub last: Option<Revision>,
    pub scheduled_compact: Option<Revision>,
    pub finished_compact: Option<Revision>,
}

/// Sizes of the LMDB file as of a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Bytes of the file up to the last page that LMDB has used: etcd's `dbSize`.
    pub total: u64,
    /// Bytes of the pages that are not free: etcd's `dbSizeInUse`.
    pub in_use: u64,
}

/// The durable state of one member. Changes come from the apply thread alone; reads may come from
/// any thread.
pub struct Store {
    shared: Arc<Shared>,
    committer: Mutex<Option<Thread<()>>>,
    /// The generation in use and its directory.
    place: RwLock<(u64, PathBuf)>,
    id: AtomicU64,
}

impl Store {
    /// Opens the store in `db` (`member/db`) and starts its committer. A missing or empty directory
    /// becomes a new store. Damage that the walk of the pages finds, or a `DAMAGED` note that still
    /// holds, is an error.
    pub fn open(db: &Path, options: Options) -> Result<(Self, Opened), Error> {
        let created = dir::is_vacant(db)?;
        if created {
            create(db, options.clock.random())?;
        }
        let generation = dir::read_current(db)?;
        let generation_dir = dir::generation_dir(db, generation);
        check::check(&generation_dir.join(env::DATA_FILE))?;
        scrub::recheck_if_damaged(db)?;
        let env = Env::open(&generation_dir)?;
        let opened = read_opened(&env, created, generation)?;
        let store = Self::over(db, env, &opened, options)?;
        store.shared.reserve.take(store.shared.options.clock.now());
        store.shared.measure();
        store.start_committer(db)?;
        Ok((store, opened))
    }

    /// A store over the opened environment of one generation. Its committer is not started.
    fn over(db: &Path, mut env: Env, opened: &Opened, options: Options) -> Result<Self, Error> {
        env.faults = options.faults.clone();
        env.set_syncs(options.syncs)?;
        let sizes = env.read()?.sizes()?;
        let reserve = Reserve::new(db, options.reserve_bytes);
        let job_rows_max = options.compaction_rows_max;
        let position = (opened.consistent_index, opened.term);
        let queue = Queue { position, durable: position, ..Queue::default() };
        let shared = Arc::new(Shared {
            env: RwLock::new(Arc::new(env)),
            options,
            reserve,
            tail: RwLock::default(),
            open: Mutex::default(),
            queue: Mutex::new(queue),
            work: parking_lot::Condvar::new(),
            done: parking_lot::Condvar::new(),
            sizes: Mutex::new(sizes),
            room: reserve::MeasuredRoom::default(),
            full_said: LogLimit::new(crate::limits::FULL_DISK_LOG_INTERVAL),
            hooks: Hooks::default(),
            rows_pushed: AtomicU64::new(0),
            job_rows_max: AtomicUsize::new(job_rows_max),
            held: Mutex::default(),
            committing: Mutex::default(),
            changed: Mutex::default(),
            defrag: quiet::Defrag::default(),
            damage: damage::Damage::default(),
        });
        let generation = opened.generation;
        let place = RwLock::new((generation, dir::generation_dir(db, generation)));
        let id = AtomicU64::new(opened.id);
        Ok(Self { shared, committer: Mutex::default(), place, id })
    }

    /// Adds a row to the entry being applied; readers of the tail see it at once. Panics if the row
    /// is not newer than the last one.
    pub fn push_row(&self, row: Row) {
        let mut open = self.shared.open.lock();
        self.shared.rows_pushed.fetch_add(1, Ordering::Relaxed);
        open.rows += 1;
        open.bytes += row.kv.len();
        self.shared.tail.write().push(row);
    }

    /// Sets a key of a small bucket with the entry being applied.
    pub fn put(&self, bucket: Bucket, key: Vec<u8>, value: Vec<u8>) {
        self.shared.open.lock().set(bucket, key, Some(value));
    }

    /// Removes a key of a small bucket with the entry being applied.
    pub fn delete(&self, bucket: Bucket, key: Vec<u8>) {
        self.shared.open.lock().set(bucket, key, None);
    }

    /// Sets raft's ConfState with the entry being applied.
    pub fn set_conf_state(&self, bytes: Vec<u8>) {
        self.put(Bucket::Meta, schema::CONF_STATE.to_vec(), bytes);
    }

    /// Ends the entry being applied: all of its changes may be committed, as a whole. Blocks apply
    /// while the tail holds more than `TAIL_BYTES_MAX`, until the committer has made room or has
    /// stopped.
    pub fn seal(&self, index: u64, term: u64) {
        self.shared.seal((index, term));
    }

    /// The row at `rev`, from the tail or from LMDB; None if there is none. Its checksum is
    /// verified.
    pub fn get(&self, rev: Revision) -> Result<Option<Row>, Error> {
        if let Some(row) = self.shared.tail.read().get(rev) {
            return Ok(Some(row));
        }
        self.noted(self.shared.env().read().and_then(|reader| reader.row(rev)))
    }

    /// The rows in the order of `revs`. A missing row is an error, since the index knows only rows
    /// that exist.
    pub fn get_many(&self, revs: &[Revision]) -> Result<Vec<Row>, Error> {
        self.noted(self.read_many(revs))
    }

    fn read_many(&self, revs: &[Revision]) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::with_capacity(revs.len());
        for chunk in revs.chunks(READ_CHUNK_ROWS) {
            let found: Vec<Option<Row>> = {
                let tail = self.shared.tail.read();
                chunk.iter().map(|rev| tail.get(*rev)).collect()
            };
            let env = self.shared.env();
            let mut reader = None;
            for (rev, found) in chunk.iter().zip(found) {
                let row = match (found, &mut reader) {
                    (Some(row), _) => Some(row),
                    (None, Some(reader)) => env::Reader::row(reader, *rev)?,
                    (None, reader) => reader.insert(env.read()?).row(*rev)?,
                };
                rows.push(row.ok_or(Error::Missing(*rev))?);
            }
        }
        Ok(rows)
    }

    /// The rows of [from, to] in revision order: at most `rows_max`, and none after the one that
    /// reaches `bytes_max`. An empty answer means that there are no more.
    pub fn scan(
        &self,
        from: Revision,
        to: Revision,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Vec<Row>, Error> {
        let newest = self.shared.tail.read().range(from, to, rows_max);
        // Every row older than the first one found in the tail is in LMDB: rows are trimmed after
        // their commit, and the read transactions begin after this look at the tail.
        let end = newest.first().map_or(Bound::Included(to), |row| Bound::Excluded(row.rev));
        let mut bytes = bytes_max.max(1);
        let mut rows: Vec<Row> = Vec::new();
        let mut next = from;
        while rows.len() < rows_max && bytes > 0 {
            let wanted = (rows_max - rows.len()).min(READ_CHUNK_ROWS);
            let env = self.shared.env();
            let chunk = env.read().and_then(|reader| reader.rows(next, end, wanted, &mut bytes));
            let chunk = self.noted(chunk)?;
            let Some(last) = chunk.last() else { break };
            next = Revision::new(last.rev.main, last.rev.sub + 1);
            rows.extend(chunk);
        }
        for row in newest {
            if rows.len() >= rows_max || bytes == 0 {
                break;
            }
            bytes = bytes.saturating_sub(row.kv.len());
            rows.push(row);
        }
        Ok(rows)
    }

    /// A committed value of a small bucket.
    pub fn bucket_get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.noted(self.shared.env().read().and_then(|reader| reader.small(bucket, key)))
    }

    /// All committed pairs of a small bucket, in key order.
    pub fn bucket_iter(&self, bucket: Bucket) -> Result<Vec<Pair>, Error> {
        self.noted(self.shared.env().read().and_then(|reader| reader.small_iter(bucket)))
    }

    /// Schedules the deletion of the rows `dead` for the committer. `survivors` are rows between
    /// them that stay: they are deleted and written anew, so that no half-empty pages remain. Jobs
    /// are done in the order of scheduling, a part with each commit; the last part records
    /// `revision` as the finished compaction. The receiver resolves once that commit is durable,
    /// and is closed if the store stops before.
    pub fn delete_rows(
        &self,
        dead: Vec<Revision>,
        survivors: Vec<Revision>,
        revision: i64,
    ) -> oneshot::Receiver<()> {
        let mut rows: Vec<_> = dead.into_iter().map(|rev| (rev, false)).collect();
        rows.extend(survivors.into_iter().map(|rev| (rev, true)));
        self.shared.schedule(rows, revision)
    }

    /// Makes the next commit due at once if it can delete scheduled rows: a caller waits for them.
    pub fn delete_now(&self) {
        self.shared.delete_now();
    }

    /// Does the committer's next commit, in a store that was opened without the committer's thread.
    /// Returns false if there is nothing to commit, or no disk space for it.
    pub fn commit_turn(&self) -> Result<bool, Error> {
        self.shared.turn()
    }

    /// Waits until everything sealed is durable, and returns the durable index. Fails if the disk
    /// is full or the committer has stopped.
    pub fn flush(&self) -> Result<u64, Error> {
        if !self.shared.options.committer {
            while self.commit_turn()? {}
        }
        self.shared.flush()
    }

    /// Index and term of the last durable entry: the store needs only the log's entries after it.
    pub fn durable(&self) -> (u64, u64) {
        self.shared.queue.lock().durable
    }

    /// Calls back after each commit with the durable index and term, on the committer's thread.
    pub fn on_commit(&self, callback: impl Fn(u64, u64) + Send + Sync + 'static) {
        let callback = move |(index, term)| callback(index, term);
        self.shared.hooks.commit.lock().push(Box::new(callback));
    }

    /// Calls back on the committer's thread: with true whenever a commit finds the disk full, which
    /// is tried each second, and with false once a commit fits again.
    pub fn on_no_space(&self, callback: impl Fn(bool) + Send + Sync + 'static) {
        self.shared.hooks.no_space.lock().push(Box::new(callback));
    }

    /// Lets all further seals exceed the tail's bound. The member is stopping and apply has few
    /// entries left; on a full disk, a seal that waits for room would keep it from ending.
    pub fn stop_waiting_for_room(&self) {
        self.shared.stop_waiting_for_room();
    }

    /// A function that stops the committer and wakes all threads that wait for a commit. It does
    /// not keep the store alive and does not block.
    pub fn abort_handle(&self) -> impl FnOnce(&str) + Send + use<> {
        let shared = Arc::downgrade(&self.shared);
        move |why| {
            if let Some(shared) = shared.upgrade() {
                shared.stop(why);
            }
        }
    }

    /// Calls back when the sizes have changed other than by a commit: by an installed snapshot or a
    /// defragmentation.
    pub fn on_resize(&self, callback: impl Fn() + Send + Sync + 'static) {
        self.shared.hooks.resized.lock().push(Box::new(move |()| callback()));
    }

    /// Sizes as of the last commit.
    pub fn sizes(&self) -> Sizes {
        *self.shared.sizes.lock()
    }

    /// Bytes that the store's file system has free for this process.
    pub fn disk_free_bytes(&self) -> u64 {
        self.shared.disk_free()
    }

    /// Size of that file system; 0 if it cannot be measured.
    pub fn disk_total_bytes(&self) -> u64 {
        self.shared.disk_total()
    }

    /// The room that the store has left, as measured last.
    pub fn room(&self) -> Room {
        self.shared.room()
    }

    /// Measures the free space; other programs use the disk as well, so it changes without a
    /// commit. With `wants_reserve`, the log asks for the reserve's space. It is lent, and the
    /// answer is true, while the store's file has twice the reserve free within it, and neither a
    /// commit nor a copy of the store needs the space.
    pub fn look_for_room(&self, wants_reserve: bool) -> bool {
        let room = self.room();
        let has_enough = room.within >= 2 * room.reserve_wanted;
        let is_lent = wants_reserve && has_enough && self.shared.can_spare_reserve();
        self.shared.lend_reserve(is_lent);
        is_lent
    }

    /// Number of the generation in use.
    pub fn generation(&self) -> u64 {
        self.place.read().0
    }

    /// Number of the seal with which everything pushed up to this call, the entry being applied
    /// included, may be committed; see `durable_after`.
    pub fn seal_of_pushed(&self) -> u64 {
        let open = self.shared.open.lock();
        self.shared.queue.lock().sealed + u64::from(!open.is_empty())
    }

    /// The durable index once the seal with the number `pushed` is committed; None before.
    pub fn durable_after(&self, pushed: u64) -> Option<u64> {
        let queue = self.shared.queue.lock();
        (queue.committed >= pushed).then_some(queue.durable.0)
    }

    /// Number of rows pushed since the store was opened.
    pub fn rows_pushed(&self) -> u64 {
        self.shared.rows_pushed.load(Ordering::Relaxed)
    }

    /// Commits what is sealed and ends the committer. Reads still work afterwards.
    pub fn close(&self) -> Result<(), Error> {
        let flushed = self.flush();
        self.end("it was closed");
        flushed.map(|_| ())
    }

    fn end(&self, why: &str) {
        self.shared.stop(why);
        if let Some(committer) = self.committer.lock().take() {
            // The supervisor knows of a panic.
            let _ = committer.join();
        }
    }
}

/// Dropping does not commit: what is sealed and not committed is replayed from the raft log.
impl Drop for Store {
    fn drop(&mut self) {
        self.end("it was dropped");
    }
}

/// Makes a new store beside `db` and renames it: after a crash `db` is either a whole store or
/// missing.
fn create(db: &Path, id: u64) -> Result<(), Error> {
    let new = db.with_extension("new");
    if new.try_exists().map_err(Error::io(&new))? {
        std::fs::remove_dir_all(&new).map_err(Error::io(&new))?;
    }
    let generation_dir = dir::generation_dir(&new, 1);
    dir::create_dir(&generation_dir)?;
    let env = Env::create(&generation_dir)?;
    let mut writer = env.write()?;
    writer.put_own(schema::FORMAT, Some(&schema::FORMAT_VERSION.to_le_bytes()))?;
    writer.put_own(schema::ID, Some(&id.to_le_bytes()))?;
    writer.commit()?;
    env.sync()?;
    drop(env);
    dir::sync_dir(&generation_dir)?;
    dir::write_current(&new, 1)?;
    std::fs::rename(&new, db).map_err(Error::io(db))?;
    dir::sync_dir(files::parent(db))
}

fn read_opened(env: &Env, created: bool, generation: u64) -> Result<Opened, Error> {
    let reader = env.read()?;
    let (own, meta) =
        (|name: &[u8]| reader.own(name), |name: &[u8]| reader.small(Bucket::Meta, name));
    let opened = parse_opened(env.file(), own, meta)?;
    Ok(Opened { created, generation, last: reader.last_rev()?, ..opened })
}

/// Reads the description of a store from its tables `rusd` and `meta`, given functions that look up
/// a key.
fn parse_opened(
    file: &Path,
    own: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, Error>,
    meta: impl Fn(&[u8]) -> Result<Option<Vec<u8>>, Error>,
) -> Result<Opened, Error> {
    let format = own(schema::FORMAT)?.unwrap_or_default();
    let found = format.try_into().map_or(0, u32::from_le_bytes);
    if found != schema::FORMAT_VERSION {
        let known = schema::FORMAT_VERSION;
        return Err(Error::Format { file: file.to_path_buf(), found, known });
    }
    let bad = |name: &[u8]| {
        let at = format!("table meta, key {}", name.escape_ascii());
        Error::damage(file, at, "the value has the wrong size")
    };
    let number = |name| match meta(name)? {
        None => Ok(0),
        Some(value) => value.try_into().map(u64::from_be_bytes).map_err(|_| bad(name)),
    };
    let revision = |name| match meta(name)? {
        None => Ok(None),
        Some(value) => schema::revision_parse(&value).map(Some).ok_or_else(|| bad(name)),
    };
    let id = own(schema::ID)?.unwrap_or_default();
    Ok(Opened {
        id: id.try_into().map_or(0, u64::from_le_bytes),
        consistent_index: number(schema::CONSISTENT_INDEX)?,
        term: number(schema::TERM)?,
        conf_state: meta(schema::CONF_STATE)?,
        scheduled_compact: revision(schema::SCHEDULED_COMPACT)?,
        finished_compact: revision(schema::FINISHED_COMPACT)?,
        ..Opened::default()
    })
}
