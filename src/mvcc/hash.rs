//! HashKV: a checksum over history that all members, and etcd, compute alike.
//!
//! CRC-32C over the name of etcd's bucket, then for each row in revision order the row's key as
//! etcd stores it and the stored pair. Rows that a compaction has doomed do not count, whether or
//! not they are deleted already.

use std::collections::HashSet;

use super::index::Visit;
use super::{Error, Mvcc, ReadCheck, View};
use crate::limits;
use crate::store::{Bucket, Row, schema};
use crate::types::Revision;

/// Name of etcd's bucket that holds the rows.
const BUCKET: &[u8] = b"key";

/// Keys of the meta bucket that can differ between members that have applied the same entries.
const HASH_IGNORES: [&[u8]; 3] = [schema::CONSISTENT_INDEX, schema::TERM, schema::STORAGE_VERSION];

/// A hash of history, with the revisions that it covers: etcd's `KeyValueHash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValueHash {
    pub hash: u32,
    pub compact_revision: i64,
    pub revision: i64,
}

/// Computes the hash from rows that are added in revision order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hasher {
    crc: u32,
    compact_revision: i64,
    revision: i64,
}

impl Hasher {
    pub(super) fn new(compact_revision: i64, revision: i64) -> Self {
        Self { crc: crc32c::crc32c(BUCKET), compact_revision, revision }
    }

    /// Adds a row. `is_kept` is called only for rows at or below the compact revision.
    pub(super) fn add(&mut self, row: &Row, is_kept: impl FnOnce(Revision) -> bool) {
        let main = row.rev.main;
        if main > self.revision || (main <= self.compact_revision && !is_kept(row.rev)) {
            return;
        }
        // Older releases of etcd delete a tombstone exactly at the compact revision, newer ones
        // keep it, and neither hashes it.
        if main == self.compact_revision && row.tombstone {
            return;
        }
        let (key, len) = schema::row_key(row.rev, row.tombstone);
        self.crc = crc32c::crc32c_append(self.crc, &key[..len]);
        self.crc = crc32c::crc32c_append(self.crc, &row.kv);
    }

    pub(super) fn finish(self) -> KeyValueHash {
        let Self { crc, compact_revision, revision } = self;
        KeyValueHash { hash: crc, compact_revision, revision }
    }
}

impl Mvcc {
    /// The hash of history up to `revision` (0: the current one), and the current revision. Reads
    /// all of history unless a compaction has found the hash; called on a thread that may block.
    pub fn hash_by_revision(
        &self,
        revision: i64,
        wanted: &ReadCheck,
    ) -> Result<(KeyValueHash, i64), Error> {
        self.read(wanted, |view| {
            if let Some(stored) = self.stored_hash(revision) {
                return Ok(stored);
            }
            let current = view.current;
            if revision > 0 && revision < current.compact_revision {
                return Err(Error::Compacted);
            }
            if revision > current.revision {
                return Err(Error::FutureRev);
            }
            let revision = if revision == 0 { current.revision } else { revision };
            Ok((view.hash(revision)?, current.revision))
        })
    }

    /// The hash that the compaction at `revision` has found, if it is kept, and the current
    /// revision.
    pub fn stored_hash(&self, revision: i64) -> Option<(KeyValueHash, i64)> {
        // 0 asks for the current revision. etcd looks it up among the hashes of compactions, finds
        // that of one at revision 0 if there was any, and its members then disagree once one of
        // them has restarted and lost it.
        let hashes = self.hashes.lock();
        let stored = hashes.iter().find(|hash| revision != 0 && hash.revision == revision)?;
        Some((*stored, self.current().revision))
    }

    /// The checksum of the whole backend, bucket by bucket in the order of their names, after
    /// everything sealed is committed. Members that have applied the same entries get the same
    /// value.
    pub fn hash_all(&self, wanted: &ReadCheck) -> Result<u32, Error> {
        self.store.flush()?;
        let mut buckets =
            Bucket::ALL.map(|bucket| (bucket.name().as_bytes(), Some(bucket))).to_vec();
        buckets.push((BUCKET, None));
        buckets.sort_unstable_by_key(|(name, _)| *name);
        self.read(wanted, |view| self.hash_buckets(&buckets, view))
    }

    fn hash_buckets(
        &self,
        buckets: &[(&[u8], Option<Bucket>)],
        view: &View<'_>,
    ) -> Result<u32, Error> {
        let mut crc = 0;
        for (name, bucket) in buckets {
            view.go_on()?;
            crc = crc32c::crc32c_append(crc, name);
            let Some(bucket) = *bucket else {
                view.scan(view.current.revision, |row| {
                    let (key, len) = schema::row_key(row.rev, row.tombstone);
                    crc = crc32c::crc32c_append(crc, &key[..len]);
                    crc = crc32c::crc32c_append(crc, &row.kv);
                })?;
                continue;
            };
            for (key, value) in self.store.bucket_iter(bucket)? {
                let is_left_out = bucket == Bucket::Meta && HASH_IGNORES.contains(&key.as_slice());
                if !is_left_out {
                    crc = crc32c::crc32c_append(crc32c::crc32c_append(crc, &key), &value);
                }
            }
        }
        Ok(crc)
    }

    /// The hashes that the last compactions found, in ascending order of their revisions.
    pub fn compaction_hashes(&self) -> Vec<KeyValueHash> {
        self.hashes.lock().clone()
    }

    /// Remembers a finished compaction's hash; the newest few are kept.
    pub(super) fn remember_hash(&self, hash: KeyValueHash) {
        let mut hashes = self.hashes.lock();
        hashes.push(hash);
        hashes.sort_unstable_by_key(|hash| hash.revision);
        let excess = hashes.len().saturating_sub(limits::COMPACTION_HASHES_KEPT);
        hashes.drain(..excess);
    }
}

/// The revisions up to `compact_revision` that a compaction at `revision` would keep, which is how
/// etcd decides what the hash at `revision` covers. Tombstones at `revision` do not count as kept
/// (`keyIndex.keep`), though such a compaction would keep them.
pub(super) fn kept(
    revision: i64,
    compact_revision: i64,
    mut visit: impl FnMut(&[u8], i64, &mut dyn FnMut(Revision)) -> Result<Visit, Error>,
) -> Result<HashSet<Revision>, Error> {
    let mut walk = |at: i64| {
        let (mut kept, mut is_any_kept) = (HashSet::new(), false);
        let mut start: Box<[u8]> = Box::default();
        let mut keep = |at: Revision| {
            is_any_kept = true;
            if at.main <= compact_revision {
                kept.insert(at);
            }
        };
        while let Visit::Next(next) = visit(&start, at, &mut keep)? {
            start = next;
        }
        Ok::<_, Error>((kept, is_any_kept))
    };
    Ok(match walk(revision)? {
        (kept, true) => kept,
        // The compaction would keep nothing. etcd then hashes all rows up to the compact revision,
        // so its answer changes when the sweep of that compaction deletes rows. This is its answer
        // after the sweep, and every member gives it at any time.
        _ => walk(compact_revision)?.0,
    })
}

impl View<'_> {
    fn hash(&self, revision: i64) -> Result<KeyValueHash, Error> {
        let compact_revision = self.current.compact_revision;
        let kept = kept(revision, compact_revision, |start, at, keep| {
            self.go_on()?;
            let index = self.mvcc.index.read();
            Ok(index.visit_kept(start, at, limits::INDEX_HOLD_KEYS_MAX, keep))
        })?;
        let mut hasher = Hasher::new(compact_revision, revision);
        self.scan(revision, |row| hasher.add(row, |at| kept.contains(&at)))?;
        Ok(hasher.finish())
    }

    /// The next rows in revision order from `from` on, up to and including those of `main`: a
    /// bounded number, and none at the end.
    pub fn rows(&self, from: Revision, main: i64) -> Result<Vec<Row>, Error> {
        self.mvcc.rows(from, main, limits::READ_CHUNK_ROWS)
    }

    /// As `rows`, but no row after the one that reaches `bytes_max`.
    pub fn rows_within(
        &self,
        from: Revision,
        main: i64,
        bytes_max: usize,
    ) -> Result<Vec<Row>, Error> {
        let to = Revision::last_of(main);
        Ok(self.mvcc.store.scan(from, to, limits::READ_CHUNK_ROWS, bytes_max)?)
    }

    /// Calls `f` with all rows up to and including those of `main`, in revision order.
    fn scan(&self, main: i64, mut f: impl FnMut(&Row)) -> Result<(), Error> {
        let mut from = Revision::default();
        loop {
            self.go_on()?;
            let rows = self.rows(from, main)?;
            rows.iter().for_each(&mut f);
            match rows.last() {
                Some(last) => from = Revision::new(last.rev.main, last.rev.sub + 1),
                None => return Ok(()),
            }
        }
    }
}
