//! Rows that are applied and not yet committed, in revision order.

use std::collections::VecDeque;

use bytes::Bytes;

use super::Row;
use crate::types::Revision;

/// The tail: rows from when they are pushed until they are committed.
#[derive(Default)]
pub(super) struct Tail {
    rows: VecDeque<Row>,
}

impl Tail {
    /// Adds the newest row. Panics on a row that is not newer than the last: it is a bug of apply,
    /// and the binary search below would not find all rows any more.
    pub(super) fn push(&mut self, row: Row) {
        let last = self.rows.back().map(|row| row.rev);
        assert!(last < Some(row.rev), "row {} pushed after {last:?}", row.rev);
        self.rows.push_back(row);
    }

    pub(super) fn get(&self, rev: Revision) -> Option<Row> {
        let at = self.rows.binary_search_by_key(&rev, |row| row.rev).ok()?;
        self.rows.get(at).cloned()
    }

    /// The records of those of `revs` that are here, with their places in `revs`.
    pub(super) fn find(&self, revs: &[Revision]) -> Vec<(usize, Bytes)> {
        let mut found = Vec::new();
        // Most rows that are read are older than all of the tail.
        let Some(oldest) = self.rows.front().map(|row| row.rev) else { return found };
        for (place, rev) in revs.iter().enumerate() {
            if *rev >= oldest
                && let Ok(at) = self.rows.binary_search_by_key(rev, |row| row.rev)
            {
                found.push((place, self.rows[at].kv.clone()));
            }
        }
        found
    }

    /// The first rows of [from, to], at most `rows_max`.
    pub(super) fn range(&self, from: Revision, to: Revision, rows_max: usize) -> Vec<Row> {
        let start = self.rows.partition_point(|row| row.rev < from);
        let rows = self.rows.range(start..);
        rows.take_while(|row| row.rev <= to).take(rows_max).cloned().collect()
    }

    /// At most `count` rows from position `start` on, which is at most the number of rows. The
    /// committer reads its batch in such slices.
    pub(super) fn slice(&self, start: usize, count: usize) -> Vec<Row> {
        self.rows.range(start..).take(count).cloned().collect()
    }

    /// Removes the oldest `count` rows. They are returned, so that the caller frees their memory
    /// after it has released the lock.
    pub(super) fn trim(&mut self, count: usize) -> VecDeque<Row> {
        let kept = self.rows.split_off(count.min(self.rows.len()));
        std::mem::replace(&mut self.rows, kept)
    }
}
