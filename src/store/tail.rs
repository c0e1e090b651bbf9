//! Rows that are applied and not yet committed, in revision order.

use std::collections::VecDeque;

use super::Row;
use crate::types::Revision;

#[derive(Default)]
pub(super) struct Tail {
    rows: VecDeque<Row>,
}

impl Tail {
    /// Rows come in the order of history; a row out of order is a bug of apply, and storing it
    /// would hide a revision from the binary search below.
    pub(super) fn push(&mut self, row: Row) {
        let last = self.rows.back().map(|row| row.rev);
        assert!(last < Some(row.rev), "row {} pushed after {last:?}", row.rev);
        self.rows.push_back(row);
    }

    pub(super) fn get(&self, rev: Revision) -> Option<Row> {
        let at = self.rows.binary_search_by_key(&rev, |row| row.rev).ok()?;
        self.rows.get(at).cloned()
    }

    /// At most `rows_max` rows of [from, to].
    pub(super) fn range(&self, from: Revision, to: Revision, rows_max: usize) -> Vec<Row> {
        let start = self.rows.partition_point(|row| row.rev < from);
        let rows = self.rows.range(start..);
        rows.take_while(|row| row.rev <= to).take(rows_max).cloned().collect()
    }

    /// `count` rows from the `start`th on: the committer's way through its batch. `start` is at most the number of rows.
    pub(super) fn slice(&self, start: usize, count: usize) -> Vec<Row> {
        self.rows.range(start..).take(count).cloned().collect()
    }

    /// Takes the oldest rows off. They are returned, so that the caller frees them without a lock.
    pub(super) fn trim(&mut self, count: usize) -> VecDeque<Row> {
        let kept = self.rows.split_off(count.min(self.rows.len()));
        std::mem::replace(&mut self.rows, kept)
    }
}
