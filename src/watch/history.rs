//! What lagging watchers read of the store.

use bytes::Bytes;

use super::WatchSpec;
use crate::limits;
use crate::mvcc::{self, Change, ChangeKind, View, deletion_event, kv::Pair};
use crate::store::Row;
use crate::types::Revision;

pub(super) fn bytes_of(change: &Change) -> usize {
    let previous = change.previous.as_ref().map_or(0, Bytes::len);
    size_of::<Change>() + change.kv.len() + previous
}

/// A watcher that lags.
pub(super) struct LaggingWatcher {
    pub key: u64,
    pub id: i64,
    pub next: i64,
    pub spec: WatchSpec,
    /// Whether the piece has changes that the watcher wants.
    pub is_served: bool,
}

impl LaggingWatcher {
    pub(super) fn wants(&self, change: &Change) -> bool {
        change.revision.main >= self.next
            && self.spec.range.contains(&change.key)
            && self.spec.admits(change)
    }
}

/// The changes of whole transactions that some watchers want.
pub(super) struct History {
    pub changes: Vec<Change>,
    /// The revision up to which the changes are complete.
    pub to: i64,
    /// The revision of the view that was read last.
    pub revision: i64,
    pub bytes: usize,
}

impl History {
    /// Reads from the first watcher's next revision on. It ends after a bounded number of bytes and
    /// revisions, but not within a transaction. Previous pairs are read with the changes, up to
    /// `WATCH_HISTORY_PREVIOUS_BYTES`: those of a larger transaction are read when its response is
    /// made.
    pub(super) fn read(
        view: &View<'_>,
        behind: &mut [LaggingWatcher],
        bytes_max: usize,
    ) -> Result<Self, mvcc::Error> {
        let revision = view.current().revision;
        let mut start = Revision::new(behind.first().map_or(0, |watcher| watcher.next), 0);
        let mut history = Self { changes: Vec::new(), to: revision, revision, bytes: 0 };
        let (mut transactions, mut last, mut scanned) = (0, 0, 0);
        loop {
            view.go_on()?;
            let is_enough = transactions == limits::WATCH_CATCH_UP_REVISIONS_MAX
                || history.bytes >= bytes_max
                || scanned >= limits::READ_CHUNK_BYTES;
            // The last transaction may have further rows, which belong to this piece, too.
            let until = if is_enough { last } else { revision };
            let rows = view.rows_within(start, until, limits::WATCH_CATCH_UP_BYTES)?;
            let Some(end) = rows.last().map(|row| row.rev) else {
                return Ok(Self { to: until, ..history });
            };
            for row in &rows {
                if row.rev.main != last {
                    let is_full = transactions == limits::WATCH_CATCH_UP_REVISIONS_MAX
                        || history.bytes >= bytes_max;
                    if transactions > 0 && is_full {
                        return Ok(Self { to: last, ..history });
                    }
                    transactions += 1;
                    last = row.rev.main;
                }
                scanned += row.kv.len();
                history.add(view, behind, row)?;
            }
            start = Revision::new(end.main, end.sub + 1);
        }
    }

    /// Adds what was committed since, if that is so little that it needs no thread of its own: rows
    /// this young are in memory.
    pub(super) fn read_on(
        &mut self,
        view: &View<'_>,
        behind: &mut [LaggingWatcher],
    ) -> Result<(), mvcc::Error> {
        let current = view.current();
        let from = self.to + 1;
        let is_new = current.revision >= from && current.compact_revision <= from;
        if !is_new || self.to < self.revision {
            return Ok(());
        }
        let start = Revision::new(from, 0);
        let rows = view.rows_within(start, current.revision, limits::WATCH_CATCH_UP_BYTES)?;
        let Some(end) = rows.last().map(|row| row.rev) else { return Ok(()) };
        let after = Revision::new(end.main, end.sub + 1);
        let checks = rows.len().saturating_mul(behind.len());
        let is_little = checks <= limits::WATCH_CHECKS_INLINE_MAX;
        if !is_little || !view.rows_within(after, current.revision, 1)?.is_empty() {
            return Ok(());
        }
        for row in &rows {
            self.add(view, behind, row)?;
        }
        (self.to, self.revision) = (current.revision, current.revision);
        Ok(())
    }

    /// Adds a change if one of the watchers wants it.
    fn add(
        &mut self,
        view: &View<'_>,
        behind: &mut [LaggingWatcher],
        row: &Row,
    ) -> Result<(), mvcc::Error> {
        let mut change = change_of(row)?;
        let (mut is_wanted, mut wants_previous) = (false, false);
        for watcher in behind {
            if watcher.wants(&change) {
                (is_wanted, watcher.is_served) = (true, true);
                wants_previous |= watcher.spec.prev_kv;
            }
        }
        if wants_previous && self.bytes < limits::WATCH_HISTORY_PREVIOUS_BYTES {
            change.previous = view.previous(&change)?;
        }
        if is_wanted {
            self.bytes += bytes_of(&change);
            self.changes.push(change);
        }
        Ok(())
    }
}

fn change_of(row: &Row) -> Result<Change, mvcc::Error> {
    let pair = Pair::parse(&row.kv)?;
    let key = row.kv.slice_ref(pair.key);
    let revision = row.rev;
    Ok(if row.tombstone {
        let kv: Bytes = deletion_event(pair.key, revision.main);
        Change { kind: ChangeKind::Delete, key, kv, revision, is_create: false, previous: None }
    } else {
        let is_create = pair.create_revision == pair.mod_revision;
        let kv = row.kv.clone();
        Change { kind: ChangeKind::Put, key, kv, revision, is_create, previous: None }
    })
}
