//! Restoring the index at a start: from its checkpoint if one fits the store, and from the rows
//! after it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::checkpoint::{self, Checkpoint};
use super::doomed::DoomedRevisions;
use super::index::{Bulk, Index, Restored, Visit};
use super::kv::Pair;
use super::{Current, Error, Mvcc, Sweep};
use crate::limits;
use crate::store::{Row, Store};
use crate::types::Revision;

/// The compactions as a start finds them in the store: the last one applied and the last one swept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compacted {
    pub scheduled: Option<i64>,
    pub finished: Option<i64>,
}

impl Compacted {
    /// The current revision. A compaction may have deleted every row, so it is at least the compact
    /// revision.
    pub(super) fn current(&self, index: &Index) -> Current {
        let compact_revision = self.finished.unwrap_or(-1).max(self.scheduled.unwrap_or(-1));
        Current { revision: index.newest().max(1).max(compact_revision), compact_revision }
    }
}

/// The restored state.
pub struct Restore {
    pub mvcc: Mvcc,
    /// The lease of each key that has one.
    pub attachments: HashMap<Bytes, i64>,
    /// The sweep that had not ended, to be run again.
    pub unfinished: Option<Sweep>,
    /// Number of rows that were read, because they were not in a checkpoint.
    pub rows: u64,
}

/// An index that is being built from rows.
#[derive(Default)]
pub struct Restoring {
    index: Index,
    /// Rows that are not in the index yet.
    bulk: Bulk,
    attachments: HashMap<Bytes, i64>,
    /// Revision of the first row that is still to be read.
    from: Revision,
    rows: u64,
    /// Whether the restore began with a checkpoint of the index.
    has_checkpoint: bool,
}

impl Restore {
    /// Restores from a checkpoint that `Store::read_checkpoint` has accepted: it was written for an
    /// earlier state of this store, and no later compaction went beyond its revision, so every row
    /// that it lacks is still in the store.
    pub fn read(
        store: Arc<Store>,
        compacted: Compacted,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Self, Error> {
        let finished = compacted.finished.unwrap_or(-1);
        let mut building: Restoring = checkpoint.and_then(Restoring::after).unwrap_or_default();
        building.read_rows(&store)?;
        // The checkpoint may hold revisions whose rows a later compaction has deleted.
        if checkpoint.is_some_and(|checkpoint| checkpoint.current.compact_revision < finished) {
            building.compact(finished);
        }
        Ok(building.finish(store, compacted))
    }
}

impl Restoring {
    /// The state of `store`, which must hold exactly the rows that were added and those of the
    /// checkpoint.
    pub fn finish(mut self, store: Arc<Store>, compacted: Compacted) -> Restore {
        let attachments = std::mem::take(&mut self.attachments);
        let has_checkpoint = self.has_checkpoint;
        let (rows, index) = (self.rows, self.into_index());
        let finished = compacted.finished.unwrap_or(-1);
        let scheduled = compacted.scheduled.unwrap_or(-1);
        let current = compacted.current(&index);
        let mvcc = Mvcc::with_index(store, index, current);
        let unfinished = (scheduled > finished).then(|| {
            // The interrupted sweep may have deleted rows that its hash would have to cover.
            let mut sweep = mvcc.sweep(scheduled, finished);
            sweep.forget_hash();
            if has_checkpoint {
                sweep.expect_orphans();
            }
            mvcc.swept.store(finished, Ordering::Release);
            sweep
        });
        Restore { mvcc, attachments, unfinished, rows }
    }

    /// The index of all rows that were added.
    pub(super) fn into_index(mut self) -> Index {
        self.bulk.move_into(&mut self.index);
        self.index
    }
}

impl Restoring {
    fn after(checkpoint: &Checkpoint) -> Option<Self> {
        let (index, attachments) = checkpoint::read(checkpoint)?;
        let from = Revision::new(checkpoint.current.revision + 1, 0);
        let has_checkpoint = true;
        Some(Self { index, bulk: Bulk::default(), attachments, from, rows: 0, has_checkpoint })
    }

    fn compact(&mut self, main: i64) {
        let mut start = Box::default();
        loop {
            // The rows of the revisions collected here are already deleted, so the list is dropped.
            let mut doomed = DoomedRevisions::new(std::iter::once(main));
            match self.index.compact(&start, limits::INDEX_HOLD_KEYS_MAX, &mut doomed) {
                Visit::Next(next) => start = next,
                Visit::Done => return,
            }
        }
    }

    fn read_rows(&mut self, store: &Store) -> Result<(), Error> {
        let to = Revision::last_of(i64::MAX);
        loop {
            let (rows_max, bytes_max) = (limits::READ_CHUNK_ROWS, limits::READ_CHUNK_BYTES);
            let rows = store.scan(self.from, to, rows_max, bytes_max)?;
            let Some(last) = rows.last() else {
                self.bulk.move_into(&mut self.index);
                return Ok(());
            };
            self.from = Revision::new(last.rev.main, last.rev.sub + 1);
            for row in &rows {
                self.add(row)?;
            }
        }
    }

    /// Adds the next row, in revision order.
    pub fn add(&mut self, row: &Row) -> Result<(), Error> {
        self.rows += 1;
        let pair = Pair::parse(&row.kv)?;
        let restored = match row.tombstone {
            true => Restored::Tombstone,
            false => Restored::Put { created: pair.create_revision, version: pair.version },
        };
        self.bulk.push(pair.key, row.rev, restored);
        if self.bulk.is_full() {
            self.bulk.move_into(&mut self.index);
        }
        if pair.lease != 0 {
            self.attachments.insert(Bytes::copy_from_slice(pair.key), pair.lease);
        } else if !self.attachments.is_empty() {
            self.attachments.remove(pair.key);
        }
        Ok(())
    }
}
