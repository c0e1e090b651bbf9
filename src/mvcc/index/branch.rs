//! A branch of the index: some hundred leaves that follow each other, and where each begins.

use super::history::History;
use super::keys::Keys;
use super::leaf::{Leaf, LeafSummary};

const BRANCH_LEAVES_MAX: usize = 256;

/// Leaves in order; a branch of the index has at least one.
pub(super) struct Branch {
    /// For each leaf but the first: all keys of the leaf are at or after this one, and all of the
    /// leaf before it are before it.
    bounds: Keys,
    pub(super) leaves: Vec<Leaf>,
    /// Summary of the leaf at the same position.
    pub(super) facts: Vec<LeafSummary>,
}

impl Branch {
    pub(super) fn new(leaf: Leaf, facts: LeafSummary) -> Self {
        Self { bounds: Keys::default(), leaves: vec![leaf], facts: vec![facts] }
    }

    #[cfg(test)]
    pub(super) fn bounds(&self) -> &Keys {
        &self.bounds
    }

    /// Position of the leaf that holds `key` or would hold it.
    pub(super) fn leaf_of(&self, key: &[u8]) -> usize {
        self.bounds.count_to(key)
    }

    /// Whether another leaf needs another branch.
    pub(super) fn is_full(&self) -> bool {
        self.leaves.len() >= BRANCH_LEAVES_MAX
    }

    /// Adds a leaf, which begins with the key `bound`, at a position other than the first.
    pub(super) fn insert(&mut self, at: usize, bound: &[u8], leaf: Leaf, facts: LeafSummary) {
        self.bounds.insert(at - 1, bound);
        self.leaves.insert(at, leaf);
        self.facts.insert(at, facts);
    }

    /// Removes a leaf. Returns false if it was the last one: the branch has to go then.
    pub(super) fn remove(&mut self, at: usize) -> bool {
        self.leaves.remove(at);
        self.facts.remove(at);
        if self.leaves.is_empty() {
            return false;
        }
        // Without the first leaf, the second is the one that needs no bound.
        self.bounds.remove(at.saturating_sub(1));
        true
    }

    /// Adds a key that no leaf has at the position that a search gave for it. `is_last` says
    /// whether no branch follows.
    pub(super) fn insert_key(
        &mut self,
        (leaf, at): (usize, usize),
        key: &[u8],
        history: History,
        is_last: bool,
    ) {
        let (leaf, at) = self.make_room(leaf, at, key, is_last);
        let facts = &mut self.facts[leaf];
        facts.live += u32::from(history.is_live());
        facts.has_past |= history.has_past();
        facts.newest = facts.newest.max(history.newest());
        self.leaves[leaf].insert(at, key, history);
    }

    /// Splits a leaf that is full and returns the position for the new key. A key after all others
    /// of the index gets a leaf of its own, so that keys in ascending order leave full leaves and
    /// not half-full ones. So does a key beside a single long one.
    fn make_room(&mut self, leaf: usize, at: usize, key: &[u8], is_last: bool) -> (usize, usize) {
        if !self.leaves[leaf].is_full(key.len()) {
            return (leaf, at);
        }
        let len = self.leaves[leaf].len();
        let is_append = is_last && leaf + 1 == self.leaves.len() && at == len;
        let middle = if is_append || len == 1 { at } else { len / 2 };
        let tail = self.leaves[leaf].split_off(middle);
        let facts = LeafSummary::of(&tail.histories);
        self.facts[leaf].live -= facts.live;
        let bound = if tail.is_empty() { key.into() } else { tail.keys.key(0) };
        self.insert(leaf + 1, &bound, tail, facts);
        if at > middle || middle == len { (leaf + 1, at - middle) } else { (leaf, at) }
    }

    /// Takes out the second half of the leaves, or with `is_append` the last leaf alone. Returns
    /// the key with which they begin, and the leaves.
    pub(super) fn split(&mut self, is_append: bool) -> (Box<[u8]>, Self) {
        let len = self.leaves.len();
        let at = if is_append { len - 1 } else { len / 2 };
        let bounds = self.bounds.split_off(at);
        let bound = self.bounds.key(at - 1);
        self.bounds.remove(at - 1);
        let (leaves, facts) = (self.leaves.split_off(at), self.facts.split_off(at));
        (bound, Self { bounds, leaves, facts })
    }
}
