//! Adding many rows to the index at once, at a start and when a snapshot is installed.
//!
//! One by one, each row of a large store would be a search in leaves that are in no processor
//! cache. Sorted by key, some hundred thousand rows go through the leaves in order, and each leaf
//! that gets some is written once.

use super::history::{History, Packed};
use super::leaf::Leaf;
use super::{Index, Restored};
use crate::limits::{INDEX_BULK_KEY_BYTES, INDEX_BULK_ROWS_MAX};
use crate::types::Revision;

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
        let newest = index.newest.max(newest);
        let mut old = std::mem::take(index).into_leaves().peekable();
        index.newest = newest;
        let mut left = &places[..];
        while let Some((leaf, facts)) = old.next() {
            let next = old.peek().map(|(next, _)| next.keys.key(0));
            let its = next
                .map_or(left.len(), |next| left.partition_point(|place| *self.key(*place) < *next));
            let (its, others) = left.split_at(its);
            left = others;
            if its.is_empty() {
                index.push_leaf(leaf, facts);
            } else {
                self.merge(leaf, its, index);
            }
        }
        // Rows are left only if the index had no leaf.
        if !left.is_empty() {
            self.merge(Leaf::default(), left, index);
        }
        self.rows.clear();
        self.keys.clear();
    }

    /// Appends `leaf`, with the new rows at `places` merged into it, to the index, split into
    /// leaves of the right size.
    fn merge(&self, leaf: Leaf, places: &[SortKey], index: &mut Index) {
        let (mut old_keys, mut ends) = (Vec::new(), Vec::with_capacity(leaf.len()));
        for at in 0..leaf.len() {
            leaf.keys.parts(at).iter().for_each(|part| old_keys.extend_from_slice(part));
            ends.push(old_keys.len());
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let slices = starts.zip(&ends).map(|(from, to)| &old_keys[from..*to]);
        let mut old = slices.zip(leaf.histories).peekable();
        let mut merged: Vec<(&[u8], History)> = Vec::with_capacity(ends.len() + places.len());
        for run in places.chunk_by(|a, b| self.key(*a) == self.key(*b)) {
            let key = self.key(run[0]);
            while let Some(smaller) = old.next_if(|(other, _)| *other < key) {
                merged.push(smaller);
            }
            let known = old.next_if(|(other, _)| *other == key).map(|(_, history)| history);
            let mut rows = run.iter().map(|place| &self.rows[place.row]);
            let first = |row: &PendingRow| History::restored(row.revision, row.row);
            let Some(mut history) = known.or_else(|| rows.next().map(first)) else { continue };
            for row in rows {
                history.restore(row.revision, row.row);
            }
            merged.push((key, history));
        }
        merged.extend(old);
        index.push_sorted(merged);
    }
}
