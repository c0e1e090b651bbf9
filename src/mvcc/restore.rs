//! Start: the index from its checkpoint where one fits the store, the rest from the rows.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};

use super::index::{self, Index, Restored};
use super::kv::Pair;
use super::{Compaction, Current, Error, Mvcc};
use crate::limits;
use crate::store::{Row, Store};
use crate::types::Revision;

/// What a start needs to know of compactions: the last one applied and the last one swept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Compacted {
    pub scheduled: Option<i64>,
    pub finished: Option<i64>,
}

/// The state as it was.
pub struct Restore {
    pub mvcc: Mvcc,
    /// Which key is attached to which lease.
    pub attachments: HashMap<Bytes, i64>,
    /// The sweep that did not end.
    pub unfinished: Option<Compaction>,
}

struct Building {
    index: Index,
    attachments: HashMap<Bytes, i64>,
    /// First row that the index does not hold yet.
    from: Revision,
}

impl Restore {
    /// `checkpoint` holds the index up to some revision, as `Mvcc::checkpoint` wrote it, and the
    /// store vouches that no compaction came after it.
    pub fn read(
        store: Arc<Store>,
        compacted: Compacted,
        checkpoint: Option<&[u8]>,
    ) -> Result<Self, Error> {
        let mut building = checkpoint.and_then(read_checkpoint).unwrap_or_else(|| Building {
            index: Index::default(),
            attachments: HashMap::new(),
            from: Revision::default(),
        });
        building.read_rows(&store)?;
        let finished = compacted.finished.unwrap_or(-1);
        let scheduled = compacted.scheduled.unwrap_or(-1);
        // Rows up to a compaction may all be gone, so history can be longer than its last row.
        let revision = building.index.newest().max(1).max(finished).max(scheduled);
        let compact_revision = finished.max(scheduled);
        let current = Current { revision, compact_revision };
        let mvcc = Mvcc::with_index(store, building.index, current);
        let unfinished = (scheduled > finished).then(|| {
            // Rows may be gone that the sweep's hash would have to cover.
            let mut sweep = mvcc.sweep(scheduled, finished);
            sweep.forget_hash();
            sweep
        });
        Ok(Self { mvcc, attachments: building.attachments, unfinished })
    }
}

impl Building {
    fn read_rows(&mut self, store: &Store) -> Result<(), Error> {
        let to = Revision::last_of(i64::MAX);
        loop {
            let (rows_max, bytes_max) = (limits::READ_CHUNK_ROWS, limits::READ_CHUNK_BYTES);
            let rows = store.scan(self.from, to, rows_max, bytes_max)?;
            let Some(last) = rows.last() else { return Ok(()) };
            self.from = Revision::new(last.rev.main, last.rev.sub + 1);
            for row in &rows {
                self.add(row)?;
            }
        }
    }

    fn add(&mut self, row: &Row) -> Result<(), Error> {
        let pair = Pair::parse(&row.kv)?;
        let restored = match row.tombstone {
            true => Restored::Tombstone,
            false => Restored::Put { created: pair.create_revision, version: pair.version },
        };
        self.index.restore(pair.key, row.rev, &restored);
        if pair.lease != 0 {
            self.attachments.insert(Bytes::copy_from_slice(pair.key), pair.lease);
        } else if !self.attachments.is_empty() {
            self.attachments.remove(pair.key);
        }
        Ok(())
    }
}

impl Mvcc {
    /// Writes the index and the keys' leases for the next start. Nothing may be applied meanwhile.
    pub fn checkpoint<'a, E>(
        &self,
        attachments: impl ExactSizeIterator<Item = (&'a Bytes, i64)>,
        mut flush: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let index = self.index.read();
        let mut head = Vec::new();
        encode_varint(attachments.len() as u64, &mut head);
        for (key, lease) in attachments {
            encode_varint(lease.cast_unsigned(), &mut head);
            encode_varint(key.len() as u64, &mut head);
            head.extend_from_slice(key);
        }
        flush(&head)?;
        index::write_checkpoint(&index, |part| flush(part))
    }
}

fn read_checkpoint(mut bytes: &[u8]) -> Option<Building> {
    let count = decode_varint(&mut bytes).ok()?;
    let mut attachments = HashMap::new();
    for _ in 0..count {
        let lease = decode_varint(&mut bytes).ok()?.cast_signed();
        let len = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
        let (key, rest) = bytes.split_at_checked(len)?;
        attachments.insert(Bytes::copy_from_slice(key), lease);
        bytes = rest;
    }
    let index = index::read_checkpoint(&mut bytes).ok().filter(|_| bytes.is_empty())?;
    let from = Revision::new(index.newest() + 1, 0);
    Some(Building { index, attachments, from })
}
