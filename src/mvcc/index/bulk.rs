//! Adding many rows to the index at once, at a start and when a snapshot is installed.
//!
//! One by one, each row of a large store would be a search in leaves that are in no processor
//! cache. Sorted by key, some hundred thousand rows go through the leaves in order, and each leaf
//! that gets some is written once.

use smallvec::SmallVec;

use super::{Entry, Generation, History, Index, LEAF_KEYS_MAX, Packed};
use crate::limits::{INDEX_BULK_KEY_BYTES, INDEX_BULK_ROWS_MAX};
use crate::types::Revision;

/// The part of a row that the index needs beside key and revision.
#[derive(Clone, Copy)]
pub enum Restored {
    Put { created: i64, version: i64 },
    Tombstone,
}

/// Rows in revision order that are not in the index yet.
#[derive(Default)]
pub struct Bulk {
    rows: Vec<PendingRow>,
    /// The keys of the rows, one after the other.
    keys: Vec<u8>,
}

struct PendingRow {
    at: usize,
    len: usize,
    revision: Packed,
    row: Restored,
}

/// A row and the beginning of its key, by which it is sorted. `head` is the first eight bytes after
/// the prefix that all keys share, which tell most keys apart.
#[derive(Clone, Copy)]
struct SortKey {
    head: u64,
    row: usize,
}

impl Bulk {
    /// Adds a row. Rows come in revision order.
    pub fn push(&mut self, key: &[u8], revision: Revision, row: Restored) {
        self.rows.push(PendingRow {
            at: self.keys.len(),
            len: key.len(),
            revision: Packed::new(revision),
            row,
        });
        self.keys.extend_from_slice(key);
    }

    /// Whether the bulk has as many rows or bytes as one pass should take.
    pub fn is_full(&self) -> bool {
        self.rows.len() >= INDEX_BULK_ROWS_MAX || self.keys.len() >= INDEX_BULK_KEY_BYTES
    }

    fn key(&self, place: SortKey) -> &[u8] {
        let row = &self.rows[place.row];
        &self.keys[row.at..row.at + row.len]
    }

    fn sorted(&self) -> Vec<SortKey> {
        let places = (0..self.rows.len()).map(|row| SortKey { head: 0, row });
        let mut places: Vec<SortKey> = places.collect();
        let Some(first) = places.first().map(|place| self.key(*place)) else { return places };
        let shared = places.iter().fold(first.len(), |shared, place| {
            let pairs = first[..shared].iter().zip(self.key(*place));
            pairs.take_while(|(a, b)| a == b).count()
        });
        for place in &mut places {
            let mut head = [0; 8];
            let rest = &self.key(*place)[shared..];
            let len = rest.len().min(head.len());
            head[..len].copy_from_slice(&rest[..len]);
            place.head = u64::from_be_bytes(head);
        }
        places.sort_unstable_by(|a, b| {
            let by_key = || self.key(*a)[shared..].cmp(&self.key(*b)[shared..]);
            a.head.cmp(&b.head).then_with(by_key).then(a.row.cmp(&b.row))
        });
        places
    }

    /// Adds all rows to the index and empties the bulk.
    pub fn move_into(&mut self, index: &mut Index) {
        let places = self.sorted();
        let newest = self.rows.last().map_or(0, |row| row.revision.main);
        index.newest = index.newest.max(newest);
        let mut old = std::mem::take(&mut index.leaves).into_iter();
        let all_facts = std::mem::take(&mut index.facts);
        index.keys = 0;
        let mut left = &places[..];
        for facts in all_facts {
            let Some(leaf) = old.next() else { break };
            let next = old.as_slice().first().map(|leaf| leaf[0].key.as_ref());
            let its = next
                .map_or(left.len(), |next| left.partition_point(|place| self.key(*place) < next));
            let (its, others) = left.split_at(its);
            left = others;
            if its.is_empty() {
                index.keys += leaf.len();
                index.leaves.push(leaf);
                index.facts.push(facts);
            } else {
                self.merge(leaf, its, index);
            }
        }
        // Rows are left only if the index had no leaf.
        if !left.is_empty() {
            self.merge(Vec::new(), left, index);
        }
        self.rows.clear();
        self.keys.clear();
    }

    /// Appends `leaf`, with the new rows at `places` merged into it, to the index, split into
    /// leaves of the right size.
    fn merge(&self, leaf: Vec<Entry>, places: &[SortKey], index: &mut Index) {
        let mut merged = Vec::with_capacity(leaf.len() + places.len());
        let mut leaf = leaf.into_iter();
        for run in places.chunk_by(|a, b| self.key(*a) == self.key(*b)) {
            let key = self.key(run[0]);
            let smaller = leaf.as_slice().partition_point(|entry| entry.key.as_ref() < key);
            merged.extend(leaf.by_ref().take(smaller));
            let is_known = leaf.as_slice().first().is_some_and(|entry| entry.key.as_ref() == key);
            let known = if is_known { leaf.next() } else { None };
            let mut entry =
                known.unwrap_or_else(|| Entry { key: key.into(), history: History::default() });
            for place in run {
                let row = &self.rows[place.row];
                entry.history.restore(row.revision, row.row);
            }
            merged.push(entry);
        }
        merged.extend(leaf);
        let parts = merged.len().div_ceil(LEAF_KEYS_MAX).max(1);
        let part_len = merged.len().div_ceil(parts);
        let mut merged = merged.into_iter();
        while merged.len() > 0 {
            let mut part = Vec::with_capacity(part_len);
            part.extend(merged.by_ref().take(part_len));
            index.push_leaf(part);
        }
    }
}

impl History {
    /// Adds a stored row. Rows come in revision order.
    fn restore(&mut self, revision: Packed, row: Restored) {
        let was_live = self.is_live();
        let is_known = was_live || !self.closed().is_empty();
        match row {
            Restored::Put { created, version } => {
                self.put(revision);
                if !is_known {
                    // The row is the first known one of its generation. Earlier ones may be
                    // compacted away, so creation and version come from the pair.
                    self.open.created = Packed { main: created, sub: 0 };
                    self.open.version = version;
                }
            }
            Restored::Tombstone if was_live => {
                self.tombstone(revision);
            }
            Restored::Tombstone if !is_known => {
                // The puts of this generation are compacted away, and its creation is unknown; only
                // the tombstone is left.
                let revisions = SmallVec::from_elem(revision, 1);
                let generation = Generation { version: 1, revisions, ..Default::default() };
                self.closed.get_or_insert_default().push(generation);
            }
            // A second tombstone in a row cannot be: a deletion of a missing key writes no row.
            Restored::Tombstone => {}
        }
    }
}
