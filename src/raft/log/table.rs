//! The log in memory: term and place of every entry, which ones change the configuration, and the
//! recent entries themselves.

use std::collections::VecDeque;

use raft::eraftpb::Entry;

use crate::limits;

/// Where an entry is in the log, and the checksum that it is checked against at each read.
///
/// The table holds one for each entry of the log, twelve bytes: 6 MiB for the half of a gigabyte
/// that is kept for other members, in entries of 1 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogPosition {
    /// The segment's number.
    pub segment: u32,
    /// Offset of the frame.
    pub offset: u32,
    /// The checksum of all records before this one, with which this one's checksum is computed.
    pub crc: u32,
}

/// Index, term and place of an entry.
pub type EntryPosition = (u64, u64, LogPosition);

impl LogPosition {
    /// The place of an entry that is not written yet.
    const NONE: Self = Self { segment: u32::MAX, offset: u32::MAX, crc: u32::MAX };
}

/// All entries of the log, without gaps. The raft loop owns it.
#[derive(Debug, Default)]
pub struct Table {
    /// Index and term of the entry before the first; both 0 if the log is whole.
    before: (u64, u64),
    places: VecDeque<LogPosition>,
    /// First index and term of each run of entries with one term.
    terms: VecDeque<(u64, u64)>,
    /// Indexes of the entries that change the configuration.
    changes: VecDeque<u64>,
    /// The last entries, with those that are not on disk yet; see [`Self::evict`].
    recent: VecDeque<Entry>,
    recent_bytes: usize,
}

impl Table {
    pub fn first_index(&self) -> u64 {
        self.before.0 + 1
    }

    pub fn last_index(&self) -> u64 {
        self.before.0 + self.places.len() as u64
    }

    pub fn last_term(&self) -> u64 {
        self.terms.back().map_or(self.before.1, |(_, term)| *term)
    }

    /// The term of an entry, or of the one before the first.
    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.before.0 {
            return Some(self.before.1);
        }
        if index < self.before.0 || index > self.last_index() {
            return None;
        }
        let run = self.terms.partition_point(|(first, _)| *first <= index);
        Some(self.terms.get(run.checked_sub(1)?)?.1)
    }

    pub fn place(&self, index: u64) -> Option<LogPosition> {
        let at = index.checked_sub(self.first_index())?;
        self.places
            .get(usize::try_from(at).ok()?)
            .copied()
            .filter(|place| *place != LogPosition::NONE)
    }

    /// Index of the first entry in the last `count` segments.
    pub fn first_of_last_segments(&self, count: u32) -> u64 {
        let mut written = self.places.iter().rev().filter(|place| **place != LogPosition::NONE);
        let last = written.next().map_or(0, |place| place.segment);
        let kept = (last + 1).saturating_sub(count);
        self.first_index() + self.places.partition_point(|place| place.segment < kept) as u64
    }

    /// Whether an entry of this index can be appended without a gap, and without touching entries
    /// that are compacted.
    pub fn accepts(&self, index: u64) -> bool {
        index >= self.first_index() && index <= self.last_index() + 1
    }

    /// Appends an entry in place of all entries from its index on. An entry that [`Self::accepts`]
    /// refuses is ignored.
    pub fn append(&mut self, entry: Entry, place: Option<LogPosition>) {
        if !self.accepts(entry.index) {
            return;
        }
        self.truncate(entry.index);
        if self.terms.back().is_none_or(|(_, term)| *term != entry.term) {
            self.terms.push_back((entry.index, entry.term));
        }
        self.places.push_back(place.unwrap_or(LogPosition::NONE));
        if entry.entry_type != 0 {
            self.changes.push_back(entry.index);
        }
        self.recent_bytes += entry_bytes(&entry);
        self.recent.push_back(entry);
    }

    /// Drops the entries from `index` on.
    fn truncate(&mut self, index: u64) {
        while self.recent.back().is_some_and(|last| last.index >= index) {
            if let Some(entry) = self.recent.pop_back() {
                self.recent_bytes -= entry_bytes(&entry);
            }
        }
        while self.terms.back().is_some_and(|(first, _)| *first >= index) {
            self.terms.pop_back();
        }
        while self.changes.back().is_some_and(|change| *change >= index) {
            self.changes.pop_back();
        }
        self.places.truncate((index - self.first_index()) as usize);
    }

    /// Empties the table after a snapshot, which includes the entries up to `index` of `term`.
    pub fn restart(&mut self, index: u64, term: u64) {
        *self = Self { before: (index, term), ..Self::default() };
    }

    /// Records where entries were written, unless they have been replaced since.
    pub fn placed(&mut self, entries: impl IntoIterator<Item = EntryPosition>) {
        for (index, term, place) in entries {
            let Some(at) = index.checked_sub(self.first_index()) else { continue };
            if self.term(index) == Some(term)
                && let Some(slot) = self.places.get_mut(at as usize)
            {
                *slot = place;
            }
        }
    }

    /// Forgets the entries up to `index`, which becomes the one before the first.
    pub fn compact(&mut self, index: u64) {
        let Some(term) = self.term(index) else { return };
        if index <= self.before.0 {
            return;
        }
        self.places.drain(..(index - self.before.0) as usize);
        while self.recent.front().is_some_and(|first| first.index <= index) {
            self.evict_first();
        }
        while self.terms.get(1).is_some_and(|(first, _)| *first <= index + 1) {
            self.terms.pop_front();
        }
        while self.changes.front().is_some_and(|change| *change <= index) {
            self.changes.pop_front();
        }
        if self.places.is_empty() {
            self.terms.clear();
        }
        self.before = (index, term);
    }

    /// The entries from `low` on and below `high` that change the configuration.
    pub fn changes(&self, low: u64, high: u64) -> impl Iterator<Item = u64> {
        let from = self.changes.partition_point(|change| *change < low);
        self.changes.range(from..).copied().take_while(move |change| *change < high)
    }

    /// The recent entries from `index` on, if that one is among them.
    pub fn recent(&self, index: u64) -> Option<impl Iterator<Item = &Entry>> {
        let first = self.recent.front()?.index;
        let at = usize::try_from(index.checked_sub(first)?).ok()?;
        (at < self.recent.len()).then(|| self.recent.range(at..))
    }

    /// The first index of the recent entries.
    pub fn recent_first(&self) -> u64 {
        self.recent.front().map_or(self.last_index() + 1, |entry| entry.index)
    }

    /// Keeps the recent entries within `LOG_CACHE_BYTES_MAX`. An entry that is not on disk yet
    /// stays.
    pub fn evict(&mut self) {
        while self.recent_bytes > limits::LOG_CACHE_BYTES_MAX {
            let Some(first) = self.recent.front() else { return };
            if self.place(first.index).is_none() {
                return;
            }
            self.evict_first();
        }
    }

    /// Drops the entries up to `index` from memory. They have to be on disk.
    pub fn evict_to(&mut self, index: u64) {
        while self.recent.front().is_some_and(|first| first.index <= index) {
            self.evict_first();
        }
    }

    fn evict_first(&mut self) {
        if let Some(entry) = self.recent.pop_front() {
            self.recent_bytes -= entry_bytes(&entry);
        }
    }
}

/// The bytes that an entry takes in memory.
fn entry_bytes(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.data.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(index: u64, term: u64) -> Entry {
        Entry { index, term, ..Entry::default() }
    }

    fn terms(table: &Table) -> Vec<u64> {
        (table.first_index()..=table.last_index()).filter_map(|at| table.term(at)).collect()
    }

    #[test]
    fn later_entries_replace_earlier_ones() {
        let mut table = Table::default();
        for (index, term) in [(1, 1), (2, 1), (3, 2), (4, 2)] {
            table.append(entry(index, term), None);
        }
        assert_eq!(terms(&table), [1, 1, 2, 2]);
        table.append(entry(3, 3), None);
        assert_eq!(terms(&table), [1, 1, 3]);
        assert_eq!(table.term(4), None);
        table.placed([(3, 2, LogPosition { segment: 0, offset: 8, crc: 0 })]);
        assert_eq!(table.place(3), None, "the place of the entry that was replaced");
        assert!(!table.accepts(5));
    }

    #[test]
    fn the_changes_of_the_configuration_are_known() {
        let mut table = Table::default();
        for index in 1..=9 {
            let entry_type = i32::from(index % 3 == 0);
            table.append(Entry { entry_type, ..entry(index, 1) }, None);
        }
        let changes = |table: &Table, low, high| table.changes(low, high).collect::<Vec<_>>();
        assert_eq!(changes(&table, 1, 10), [3, 6, 9]);
        assert_eq!(changes(&table, 4, 9), [6]);
        table.append(entry(8, 2), None);
        table.compact(3);
        assert_eq!(changes(&table, 1, 9), [6]);
        table.restart(20, 3);
        assert_eq!(changes(&table, 1, 30), [0; 0]);
    }

    #[test]
    fn the_last_segments_are_found() {
        let mut table = Table::default();
        for index in 1..=10 {
            let place = LogPosition { segment: (index / 3) as u32, offset: 0, crc: 0 };
            table.append(entry(index, 1), (index < 10).then_some(place));
        }
        // Entries 1 and 2 are in segment 0, 3 to 5 in 1, 6 to 8 in 2, 9 in 3, 10 nowhere yet.
        assert_eq!([1, 2, 3, 9].map(|count| table.first_of_last_segments(count)), [9, 6, 3, 1]);
    }

    #[test]
    fn the_term_before_the_first_entry_survives_a_compaction() {
        let mut table = Table::default();
        for (index, term) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 4)] {
            table.append(entry(index, term), None);
        }
        table.compact(3);
        assert_eq!((table.first_index(), table.last_index()), (4, 5));
        assert_eq!([2, 3, 4, 5].map(|at| table.term(at)), [None, Some(2), Some(2), Some(4)]);
        table.compact(5);
        assert_eq!((table.first_index(), table.last_index(), table.last_term()), (6, 5, 4));
        table.append(entry(6, 7), None);
        assert_eq!(table.term(6), Some(7));
        assert_eq!(table.recent(6).unwrap().count(), 1);
        assert!(table.recent(5).is_none());
    }
}
