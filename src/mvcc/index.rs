//! The key index: every key with the revisions at which it changed, ordered by key, in memory.
//!
//! ```text
//!   Index ── bounds ─► Branch ── bounds ─► Leaf: Keys      prefix, heads, places, bytes
//!                      (leaves)             └──  History   of each key
//! ```
//!
//! Keys are in leaves of some hundred, leaves in branches of some hundred. Each level finds its way
//! with the same list of keys (`keys`): it compares eight bytes of each key as one number, after what
//! all keys of the list begin with, and looks at a key itself only if these are equal. So a search
//! touches few lines of memory, however many keys there are and however long a beginning they share.
//! Keys, places and histories lie in a handful of blocks for each leaf, because a block for each key
//! would cost more than the key.
//!
//! Beside each leaf is its number of live keys. A count adds one number for each leaf that has not
//! changed since the revision that is asked for, which takes microseconds where visiting the keys
//! would take milliseconds. A compaction skips leaves in which no key has a history.
//!
//! A key's history is a list of generations: each begins with a put and, except for the last, ends
//! with a tombstone. The rules for reading, compacting and keeping are those of etcd's
//! `server/storage/mvcc/key_index.go`, to the revision.

mod branch;
mod bulk;
mod checkpoint;
mod history;
mod keys;
mod leaf;

use branch::Branch;
pub use bulk::Bulk;
pub use checkpoint::{Malformed, read_keys, write_end, write_keys};
pub use history::KeyState;
use history::{History, Packed};
use keys::Keys;
use leaf::{Leaf, LeafSummary};

use super::doomed::DoomedRevisions;
use crate::types::Revision;

/// One key of a visit.
pub struct Visited<'a> {
    pub found: KeyState,
    keys: &'a Keys,
    at: usize,
    copy: &'a mut Vec<u8>,
}

impl Visited<'_> {
    /// The key. Its parts are put together here, since most visitors want the state alone, and the
    /// index is locked meanwhile.
    pub fn key(&mut self) -> &[u8] {
        self.keys.copy_key(self.at, self.copy);
        self.copy
    }
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

/// The part of a stored row that the index needs beside key and revision.
#[derive(Clone, Copy)]
pub enum Restored {
    Put { created: i64, version: i64 },
    Tombstone,
}

/// A position in the index. Its order is that of the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    branch: usize,
    leaf: usize,
    /// Position in the leaf.
    at: usize,
}

/// The key index. It has no lock of its own: `Mvcc` holds one around it.
#[derive(Default)]
pub struct Index {
    /// For each branch but the first: all keys of the branch are at or after this one, and all of
    /// the branch before it are before it.
    bounds: Keys,
    branches: Vec<Branch>,
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
        let facts = self.branches.iter().flat_map(|branch| &branch.facts);
        facts.map(|facts| u64::from(facts.live)).sum()
    }

    /// Main revision of the newest change.
    pub fn newest(&self) -> i64 {
        self.newest
    }

    /// Adds a put of the key and returns the key's state after it. Revisions ascend from call to
    /// call.
    pub fn put(&mut self, key: &[u8], revision: Revision) -> KeyState {
        self.newest = self.newest.max(revision.main);
        let place = match self.find(key) {
            Ok(place) => place,
            Err(place) => {
                self.insert(place, key, History::new(Packed::new(revision)));
                let created = Revision::new(revision.main, 0);
                return KeyState { modified: revision, created, version: 1 };
            }
        };
        let branch = &mut self.branches[place.branch];
        let history = &mut branch.leaves[place.leaf].histories[place.at];
        let was_live = history.is_live();
        let (created, version) = history.put(Packed::new(revision));
        let facts = &mut branch.facts[place.leaf];
        facts.live += u32::from(!was_live);
        facts.has_past = true;
        facts.newest = facts.newest.max(revision.main);
        KeyState { modified: revision, created: Revision::new(created, 0), version }
    }

    /// Ends the key's generation with a tombstone; false if the key does not exist.
    pub fn tombstone(&mut self, key: &[u8], revision: Revision) -> bool {
        let Ok(place) = self.find(key) else { return false };
        let branch = &mut self.branches[place.branch];
        let history = &mut branch.leaves[place.leaf].histories[place.at];
        let done = history.tombstone(Packed::new(revision));
        if done {
            self.newest = self.newest.max(revision.main);
            let facts = &mut branch.facts[place.leaf];
            facts.live -= 1;
            facts.has_past = true;
            facts.newest = facts.newest.max(revision.main);
        }
        done
    }

    /// The key's state at `main`; None if it does not exist then.
    pub fn get(&self, key: &[u8], main: i64) -> Option<KeyState> {
        self.history(key)?.get(main)
    }

    /// Whether the key has a change at exactly this revision that is not compacted away.
    pub fn holds(&self, key: &[u8], revision: Revision) -> bool {
        self.history(key).is_some_and(|history| history.holds(revision))
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
        let (mut looked_at, mut copy) = (0, Vec::new());
        for (place, leaf) in self.leaves_from(start) {
            let to = leaf.position_of_end(end);
            for at in place.at..to {
                if looked_at == keys_max {
                    return Visit::Next(leaf.keys.key(at));
                }
                looked_at += 1;
                if let Some(found) = leaf.histories[at].get(main)
                    && !f(Visited { found, keys: &leaf.keys, at, copy: &mut copy })
                {
                    return Visit::Done;
                }
            }
            if to < leaf.len() {
                break;
            }
        }
        Visit::Done
    }

    /// Counts the keys from `start` on that exist at `main`, until `keys_max` keys were visited,
    /// but at least one leaf. A whole leaf without a change after `main` is counted by its summary.
    pub fn count(&self, start: &[u8], end: End<'_>, main: i64, keys_max: usize) -> (u64, Visit) {
        let last_leaf = match end {
            End::Open => Place { branch: self.branches.len(), ..Place::default() },
            End::Before(end) => self.leaf_of(end),
        };
        let (mut count, mut looked_at) = (0, 0);
        for (place, leaf) in self.leaves_from(start) {
            let facts = self.branches[place.branch].facts[place.leaf];
            if place.at == 0 && place < last_leaf && facts.newest <= main {
                count += u64::from(facts.live);
                continue;
            }
            let left = leaf.len() - place.at;
            if looked_at > 0 && looked_at + left > keys_max {
                return (count, Visit::Next(leaf.keys.key(place.at)));
            }
            looked_at += left;
            let to = leaf.position_of_end(end);
            let histories = leaf.histories.get(place.at..to).unwrap_or_default();
            count += histories.iter().filter(|it| it.get(main).is_some()).count() as u64;
            if to < leaf.len() {
                break;
            }
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
        let mut place = self.lower_bound(start);
        let mut looked_at = 0;
        while let Some(branch) = self.branches.get_mut(place.branch) {
            let Some(leaf) = branch.leaves.get_mut(place.leaf) else {
                place = Place { branch: place.branch + 1, ..Place::default() };
                continue;
            };
            let facts = &mut branch.facts[place.leaf];
            let has_news = facts.has_past || !doomed.keeps_any();
            let cost = if has_news { leaf.len() - place.at } else { 1 };
            if looked_at > 0 && looked_at + cost > keys_max {
                return Visit::Next(leaf.keys.key(place.at));
            }
            looked_at += cost;
            if has_news {
                self.keys -= leaf.compact(place.at, doomed);
                facts.has_past = leaf.histories.iter().any(History::has_past);
            }
            if !leaf.is_empty() {
                place.leaf += 1;
            } else if !branch.remove(place.leaf) {
                self.branches.remove(place.branch);
                self.remove_bound_of(place.branch);
                place.leaf = 0;
            }
            place.at = 0;
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
        let mut looked_at = 0;
        for (place, leaf) in self.leaves_from(start) {
            for at in place.at..leaf.len() {
                if looked_at == keys_max {
                    return Visit::Next(leaf.keys.key(at));
                }
                looked_at += 1;
                if let Some(revision) = leaf.histories[at].kept(main) {
                    f(revision);
                }
            }
        }
        Visit::Done
    }

    /// Position of the leaf that holds `key` or would hold it.
    fn leaf_of(&self, key: &[u8]) -> Place {
        let branch = self.bounds.count_to(key);
        let leaf = self.branches.get(branch).map_or(0, |branch| branch.leaf_of(key));
        Place { branch, leaf, at: 0 }
    }

    /// Position of the key, or the position at which it would stand.
    fn find(&self, key: &[u8]) -> Result<Place, Place> {
        let place = self.leaf_of(key);
        let Some(branch) = self.branches.get(place.branch) else { return Err(place) };
        let found = branch.leaves[place.leaf].keys.search(key);
        found.map(|at| Place { at, ..place }).map_err(|at| Place { at, ..place })
    }

    fn history(&self, key: &[u8]) -> Option<&History> {
        let place = self.find(key).ok()?;
        Some(&self.branches[place.branch].leaves[place.leaf].histories[place.at])
    }

    /// Position of the first key at or after `key`, or one past the last of a leaf.
    fn lower_bound(&self, key: &[u8]) -> Place {
        let mut place = self.find(key).unwrap_or_else(|place| place);
        let branch = self.branches.get(place.branch);
        if branch.is_some_and(|branch| branch.leaves[place.leaf].len() == place.at) {
            (place.leaf, place.at) = (place.leaf + 1, 0);
        }
        place
    }

    /// The leaves from the first key at or after `key` on, and where in each of them to begin.
    fn leaves_from(&self, key: &[u8]) -> impl Iterator<Item = (Place, &Leaf)> {
        let first = self.lower_bound(key);
        let branches = self.branches.iter().enumerate().skip(first.branch);
        branches.flat_map(move |(branch, leaves)| {
            let skipped = if branch == first.branch { first.leaf } else { 0 };
            leaves.leaves.iter().enumerate().skip(skipped).map(move |(leaf, keys)| {
                let is_first = (branch, leaf) == (first.branch, first.leaf);
                (Place { branch, leaf, at: if is_first { first.at } else { 0 } }, keys)
            })
        })
    }

    /// Adds a key that is not in the index at the position that `find` gave for it.
    fn insert(&mut self, place: Place, key: &[u8], history: History) {
        self.keys += 1;
        if self.branches.is_empty() {
            self.branches.push(Branch::new(Leaf::default(), LeafSummary::default()));
        }
        let is_last = place.branch + 1 == self.branches.len();
        let branch = &mut self.branches[place.branch];
        branch.insert_key((place.leaf, place.at), key, history, is_last);
        if branch.is_full() {
            let (bound, tail) = branch.split(is_last && place.leaf + 1 >= branch.leaves.len() - 1);
            self.bounds.insert(place.branch, &bound);
            self.branches.insert(place.branch + 1, tail);
        }
    }

    /// Removes the bound of a branch that was removed. Without the first branch, the second is the
    /// one that needs no bound.
    fn remove_bound_of(&mut self, branch: usize) {
        if !self.branches.is_empty() {
            self.bounds.remove(branch.saturating_sub(1));
        }
    }

    /// Appends a leaf, whose keys are after all others.
    fn push_leaf(&mut self, leaf: Leaf, facts: LeafSummary) {
        self.keys += leaf.len();
        let bound = leaf.keys.key(0);
        match self.branches.last_mut() {
            Some(branch) if !branch.is_full() => {
                branch.insert(branch.leaves.len(), &bound, leaf, facts);
            }
            Some(_) => {
                self.bounds.insert(self.bounds.len(), &bound);
                self.branches.push(Branch::new(leaf, facts));
            }
            None => self.branches.push(Branch::new(leaf, facts)),
        }
    }

    /// Appends ascending keys, which are after all others.
    fn push_sorted(&mut self, entries: Vec<(&[u8], History)>) {
        Leaf::many_from_sorted(entries, |leaf| {
            let facts = LeafSummary::of(&leaf.histories);
            self.push_leaf(leaf, facts);
        });
    }

    /// All leaves with their summaries, in order.
    fn into_leaves(self) -> impl Iterator<Item = (Leaf, LeafSummary)> {
        self.branches.into_iter().flat_map(|branch| branch.leaves.into_iter().zip(branch.facts))
    }
}

#[cfg(test)]
mod tests;
