//! The key index: every key with the revisions at which it changed, ordered by key, in memory.
//!
//! Keys are in leaves of at most `LEAF_KEYS_MAX` entries, which are kept in order in one list, with
//! each leaf's number of live keys beside it. A lookup is two binary searches. A count adds one
//! number for each leaf that has not changed since the revision that is asked for, which takes
//! microseconds where visiting the keys would take milliseconds. A compaction skips leaves in which
//! no key has a history. A full tree would save moving the list of leaves at a split, which with 10
//! million keys is still less than a microsecond an insert.
//!
//! A key's history is a list of generations: each begins with a put and, except for the last, ends
//! with a tombstone. The rules for reading, compacting and keeping are those of etcd's
//! `server/storage/mvcc/key_index.go`, to the revision.

mod bulk;
mod checkpoint;
mod history;

pub use bulk::{Bulk, Restored};
pub use checkpoint::{Malformed, read_keys, write_end, write_keys};
pub use history::KeyState;
use history::{Generation, History, Packed};

use super::doomed::DoomedRevisions;
use crate::types::Revision;

const LEAF_KEYS_MAX: usize = 256;

struct Entry {
    key: Box<[u8]>,
    history: History,
}

/// One key of a visit.
pub struct Visited<'a> {
    pub key: &'a [u8],
    pub found: KeyState,
}

/// How far a visit got.
#[derive(Debug, PartialEq, Eq)]
pub enum Visit {
    Done,
    /// The visit stopped before this key.
    Next(Box<[u8]>),
}

/// The end of a range. `Index` does not know how requests encode it.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    Open,
    Before(&'a [u8]),
}

impl End<'_> {
    fn admits(&self, key: &[u8]) -> bool {
        match self {
            End::Open => true,
            End::Before(end) => key < *end,
        }
    }
}

/// Summary of a leaf, so that its keys need not be visited.
#[derive(Clone, Copy, Debug, Default)]
struct LeafSummary {
    live: u32,
    /// False only if no key has a history that a compaction could shorten (`History::has_past`).
    has_past: bool,
    /// Upper bound of the main revisions of all changes to keys of the leaf.
    newest: i64,
}

impl LeafSummary {
    fn of(leaf: &[Entry]) -> Self {
        let live = leaf.iter().filter(|entry| entry.history.is_live()).count();
        Self {
            live: u32::try_from(live).unwrap_or(u32::MAX),
            has_past: leaf.iter().any(|entry| entry.history.has_past()),
            newest: leaf.iter().map(|entry| entry.history.newest()).max().unwrap_or(0),
        }
    }
}

/// The key index. It has no lock of its own: `Mvcc` holds one around it.
#[derive(Default)]
pub struct Index {
    leaves: Vec<Vec<Entry>>,
    /// Summary of the leaf at the same position.
    facts: Vec<LeafSummary>,
    keys: usize,
    /// Main revision of the newest change.
    newest: i64,
}

impl Index {
    /// Number of keys, including deleted ones that are not compacted yet.
    pub fn len(&self) -> usize {
        self.keys
    }

    pub fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Number of keys that exist at the newest revision.
    pub fn live(&self) -> u64 {
        self.facts.iter().map(|facts| u64::from(facts.live)).sum()
    }

    /// Main revision of the newest change.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// Adds a put of the key and returns the key's state after it. Revisions ascend from call to
    /// call.
    pub fn put(&mut self, key: &[u8], revision: Revision) -> KeyState {
        self.newest = self.newest.max(revision.main);
        let (leaf, position) = self.entry(key);
        let history = &mut self.leaves[leaf][position].history;
        let was_live = history.is_live();
        history.put(Packed::new(revision));
        let facts = &mut self.facts[leaf];
        facts.live += u32::from(!was_live);
        facts.has_past |= history.has_past();
        facts.newest = facts.newest.max(revision.main);
        let generation = &history.open;
        KeyState {
            modified: revision,
            created: generation.created.revision(),
            version: generation.version,
        }
    }

    /// Ends the key's generation with a tombstone; false if the key does not exist.
    pub fn tombstone(&mut self, key: &[u8], revision: Revision) -> bool {
        let Some((leaf, position)) = self.position(key) else {
            return false;
        };
        let done = self.leaves[leaf][position].history.tombstone(Packed::new(revision));
        if done {
            self.newest = self.newest.max(revision.main);
            let facts = &mut self.facts[leaf];
            facts.live -= 1;
            facts.has_past = true;
            facts.newest = facts.newest.max(revision.main);
        }
        done
    }

    /// The key's state at `main`; None if it does not exist then.
    pub fn get(&self, key: &[u8], main: i64) -> Option<KeyState> {
        let (leaf, position) = self.position(key)?;
        self.leaves[leaf][position].history.get(main)
    }

    /// Whether the key has a change at exactly this revision that is not compacted away.
    pub fn holds(&self, key: &[u8], revision: Revision) -> bool {
        let Some((leaf, position)) = self.position(key) else { return false };
        let history = &self.leaves[leaf][position].history;
        history.closed().iter().chain([&history.open]).any(|generation| {
            let revisions = &generation.revisions;
            revisions.binary_search_by_key(&revision, |packed| packed.revision()).is_ok()
        })
    }

    /// Calls `f` for the keys from `start` on that exist at `main`, in order, until it returns
    /// false or `keys_max` keys, including those that do not exist then, were visited.
    pub fn visit(
        &self,
        start: &[u8],
        end: End<'_>,
        main: i64,
        keys_max: usize,
        mut f: impl FnMut(Visited<'_>) -> bool,
    ) -> Visit {
        let (mut leaf, mut position) = self.lower_bound(start);
        let mut looked_at = 0;
        while let Some(entries) = self.leaves.get(leaf) {
            for entry in &entries[position..] {
                if !end.admits(&entry.key) {
                    return Visit::Done;
                }
                if looked_at == keys_max {
                    return Visit::Next(entry.key.clone());
                }
                looked_at += 1;
                if let Some(found) = entry.history.get(main)
                    && !f(Visited { key: &entry.key, found })
                {
                    return Visit::Done;
                }
            }
            leaf += 1;
            position = 0;
        }
        Visit::Done
    }

    /// Counts the keys from `start` on that exist at `main`, until `keys_max` keys were visited,
    /// but at least one leaf. A whole leaf without a change after `main` is counted by its summary.
    pub fn count(&self, start: &[u8], end: End<'_>, main: i64, keys_max: usize) -> (u64, Visit) {
        let (mut leaf, mut position) = self.lower_bound(start);
        let last_leaf = match end {
            End::Open => self.leaves.len(),
            End::Before(end) => self.leaf_of(end),
        };
        let (mut count, mut looked_at) = (0, 0);
        while let Some(entries) = self.leaves.get(leaf) {
            let facts = self.facts[leaf];
            if position == 0 && leaf < last_leaf && facts.newest <= main {
                count += u64::from(facts.live);
                leaf += 1;
                continue;
            }
            let entries = &entries[position..];
            if looked_at > 0 && looked_at + entries.len() > keys_max {
                return (count, Visit::Next(entries[0].key.clone()));
            }
            looked_at += entries.len();
            for entry in entries {
                if !end.admits(&entry.key) {
                    return (count, Visit::Done);
                }
                count += u64::from(entry.history.get(main).is_some());
            }
            leaf += 1;
            position = 0;
        }
        (count, Visit::Done)
    }

    /// Applies compactions to the keys from `start` on, until `keys_max` keys were visited, but to
    /// at least one leaf. Leaves that cannot change count as one key.
    pub(super) fn compact(
        &mut self,
        start: &[u8],
        keys_max: usize,
        doomed: &mut DoomedRevisions,
    ) -> Visit {
        let (mut leaf, mut position) = self.lower_bound(start);
        let mut looked_at = 0;
        while leaf < self.leaves.len() {
            let entries = &mut self.leaves[leaf];
            let has_news = self.facts[leaf].has_past || !doomed.keeps_any();
            let cost = if has_news { entries.len() - position } else { 1 };
            if looked_at > 0 && looked_at + cost > keys_max {
                return Visit::Next(entries[position].key.clone());
            }
            looked_at += cost;
            if has_news {
                for entry in &mut entries[position..] {
                    doomed.compact(|main, dead| entry.history.compact(main, dead).is_some());
                }
                let before = entries.len();
                entries.retain(|entry| !entry.history.is_empty());
                self.keys -= before - entries.len();
                self.facts[leaf].has_past = entries.iter().any(|entry| entry.history.has_past());
            }
            if self.leaves[leaf].is_empty() {
                self.leaves.remove(leaf);
                self.facts.remove(leaf);
            } else {
                leaf += 1;
            }
            position = 0;
        }
        Visit::Done
    }

    /// Calls `f` with the revision that HashKV keeps at `main` for each key that has one, for up to
    /// `keys_max` keys.
    pub fn visit_kept(
        &self,
        start: &[u8],
        main: i64,
        keys_max: usize,
        mut f: impl FnMut(Revision),
    ) -> Visit {
        let (mut leaf, mut position) = self.lower_bound(start);
        let mut looked_at = 0;
        while let Some(entries) = self.leaves.get(leaf) {
            for entry in &entries[position..] {
                if looked_at == keys_max {
                    return Visit::Next(entry.key.clone());
                }
                looked_at += 1;
                if let Some(revision) = entry.history.kept(main) {
                    f(revision);
                }
            }
            leaf += 1;
            position = 0;
        }
        Visit::Done
    }

    /// Position of the first entry at or after `key`.
    fn lower_bound(&self, key: &[u8]) -> (usize, usize) {
        let leaf = self.leaf_of(key);
        let Some(entries) = self.leaves.get(leaf) else {
            return (self.leaves.len(), 0);
        };
        let position = entries.partition_point(|entry| entry.key.as_ref() < key);
        if position == entries.len() { (leaf + 1, 0) } else { (leaf, position) }
    }

    /// Position of the leaf that holds `key` or would hold it.
    fn leaf_of(&self, key: &[u8]) -> usize {
        self.leaves.partition_point(|entries| entries[0].key.as_ref() <= key).saturating_sub(1)
    }

    fn position(&self, key: &[u8]) -> Option<(usize, usize)> {
        let leaf = self.leaf_of(key);
        let entries = self.leaves.get(leaf)?;
        let position = entries.binary_search_by(|entry| entry.key.as_ref().cmp(key)).ok()?;
        Some((leaf, position))
    }

    /// Position of the key's entry, which is created if it is missing.
    fn entry(&mut self, key: &[u8]) -> (usize, usize) {
        if self.leaves.is_empty() {
            self.leaves.push(Vec::new());
            self.facts.push(LeafSummary::default());
            self.leaves[0].push(Entry { key: key.into(), history: History::default() });
            self.keys += 1;
            return (0, 0);
        }
        let leaf = self.leaf_of(key);
        let found = self.leaves[leaf].binary_search_by(|entry| entry.key.as_ref().cmp(key));
        let position = match found {
            Ok(position) => return (leaf, position),
            Err(position) => position,
        };
        let (leaf, position) = self.make_room(leaf, position);
        let entry = Entry { key: key.into(), history: History::default() };
        self.leaves[leaf].insert(position, entry);
        self.keys += 1;
        (leaf, position)
    }

    /// Splits a leaf that is full and returns the position for the new entry. A key after all
    /// others gets a leaf of its own, so that keys in ascending order leave full leaves and not
    /// half-full ones.
    fn make_room(&mut self, leaf: usize, position: usize) -> (usize, usize) {
        let len = self.leaves[leaf].len();
        if len < LEAF_KEYS_MAX {
            return (leaf, position);
        }
        let is_append = position == len && leaf + 1 == self.leaves.len();
        let at = if is_append { len } else { len / 2 };
        let tail = self.leaves[leaf].split_off(at);
        let facts = LeafSummary::of(&tail);
        self.facts[leaf].live -= facts.live;
        self.leaves.insert(leaf + 1, tail);
        self.facts.insert(leaf + 1, facts);
        if position > at || is_append { (leaf + 1, position - at) } else { (leaf, position) }
    }
}

#[cfg(test)]
mod tests;
