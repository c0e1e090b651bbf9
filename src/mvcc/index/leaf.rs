//! A leaf of the index: some hundred keys that follow each other, each with its history.

use super::End;
use super::history::History;
use super::keys::{GROWTH, Keys};
use crate::mvcc::doomed::DoomedRevisions;

/// Two full leaves are what one step of a compaction goes through (`INDEX_COMPACT_KEYS_MAX`).
pub(super) const LEAF_KEYS_MAX: usize = 120;
/// A leaf of long keys has fewer of them, so that no insert has to move more than this.
const LEAF_BYTES_MAX: usize = 64 << 10;

/// Keys, and the history of each at the same position. A leaf of the index has at least one.
#[derive(Default)]
pub(super) struct Leaf {
    pub(super) keys: Keys,
    pub(super) histories: Vec<History>,
}

impl Leaf {
    /// A leaf of ascending keys, without spare room.
    fn from_sorted(entries: Vec<(&[u8], History)>) -> Self {
        let keys = Keys::from_sorted(entries.iter().map(|(key, _)| *key));
        let mut histories = Vec::with_capacity(entries.len());
        histories.extend(entries.into_iter().map(|(_, history)| history));
        Self { keys, histories }
    }

    /// Leaves of ascending keys. All get about as many keys, unless these are long.
    pub(super) fn many_from_sorted(entries: Vec<(&[u8], History)>, mut take: impl FnMut(Self)) {
        let parts = entries.len().div_ceil(LEAF_KEYS_MAX).max(1);
        let keys_max = entries.len().div_ceil(parts);
        let (mut part, mut bytes) = (Vec::with_capacity(keys_max), 0);
        for (key, history) in entries {
            let is_long = !part.is_empty() && bytes + key.len() > LEAF_BYTES_MAX;
            if is_long || part.len() == keys_max {
                let full = std::mem::replace(&mut part, Vec::with_capacity(keys_max));
                take(Self::from_sorted(full));
                bytes = 0;
            }
            bytes += key.len();
            part.push((key, history));
        }
        if !part.is_empty() {
            take(Self::from_sorted(part));
        }
    }

    /// The memory that the leaf has allocated, apart from long histories.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes() + self.histories.capacity() * size_of::<History>()
    }

    pub(super) fn len(&self) -> usize {
        self.histories.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.histories.is_empty()
    }

    /// Whether another key, of this length, needs another leaf.
    pub(super) fn is_full(&self, key_len: usize) -> bool {
        let len = self.len();
        len >= LEAF_KEYS_MAX || len > 0 && self.keys.bytes() + key_len > LEAF_BYTES_MAX
    }

    pub(super) fn insert(&mut self, at: usize, key: &[u8], history: History) {
        self.keys.insert(at, key);
        if self.histories.len() == self.histories.capacity() {
            self.histories.reserve_exact(GROWTH);
        }
        self.histories.insert(at, history);
    }

    /// Takes out the keys from a position on.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let keys = self.keys.split_off(at);
        let histories = self.histories.split_off(at);
        self.histories.shrink_to(at + GROWTH);
        Self { keys, histories }
    }

    /// Position of the first key that the end of a range leaves out.
    pub(super) fn position_of_end(&self, end: End<'_>) -> usize {
        match end {
            End::Open => self.len(),
            End::Before(end) => self.keys.search(end).unwrap_or_else(|at| at),
        }
    }

    /// Applies compactions to the keys from a position on. Returns how many keys are gone.
    pub(super) fn compact(&mut self, from: usize, doomed: &mut DoomedRevisions) -> usize {
        for history in &mut self.histories[from..] {
            doomed.compact(|main, dead| history.compact(main, dead).is_some());
        }
        let is_kept: Vec<bool> = self.histories.iter().map(|it| !it.is_empty()).collect();
        let before = self.len();
        if is_kept.contains(&false) {
            self.keys.retain(&is_kept);
            self.histories.retain(|history| !history.is_empty());
            self.histories.shrink_to_fit();
        }
        before - self.len()
    }
}

/// Summary of a leaf, so that its keys need not be visited.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LeafSummary {
    pub(super) live: u32,
    /// False only if no key has a history that a compaction could shorten (`History::has_past`).
    pub(super) has_past: bool,
    /// Upper bound of the main revisions of all changes to keys of the leaf.
    pub(super) newest: i64,
}

impl LeafSummary {
    pub(super) fn of(histories: &[History]) -> Self {
        let live = histories.iter().filter(|history| history.is_live()).count();
        Self {
            live: u32::try_from(live).unwrap_or(u32::MAX),
            has_past: histories.iter().any(History::has_past),
            newest: histories.iter().map(History::newest).max().unwrap_or(0),
        }
    }
}
