//! Finds the watched intervals that a key lies in.
//!
//! Distinct intervals are kept in blocks, in the order of their start. Each block knows the
//! furthest end of its intervals, so that a search skips blocks that end before the key. New
//! intervals stay beside the blocks until they are many, and intervals without watchers stay in the
//! blocks until then: the hub is locked during a search, so a client that adds and removes watchers
//! must not cause a rebuild each time.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::types::KeyRange;

/// Number of intervals in one block.
const BLOCK: usize = 32;
/// The blocks are rebuilt once more than 1/16 of their intervals, and more than one block of them,
/// are new or gone.
const CHANGED_PART: usize = 16;

type Interval = (Bytes, Bound);

#[derive(Default)]
pub(super) struct Ranges {
    /// The watchers of each interval, by start and end. The end of an interval without an upper
    /// bound is `Bound::Open`, which sorts after all others.
    watchers: BTreeMap<Interval, BTreeSet<u64>>,
    blocks: Vec<Block>,
    /// Intervals that are in no block.
    new: BTreeSet<Interval>,
    /// Intervals in the blocks that have no watcher.
    gone: BTreeSet<Interval>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Before(Bytes),
    Open,
}

impl Bound {
    fn admits(&self, key: &[u8]) -> bool {
        match self {
            Self::Before(end) => key < end.as_ref(),
            Self::Open => true,
        }
    }
}

struct Block {
    first: Bytes,
    furthest: Bound,
    ranges: Vec<Interval>,
}

fn holds((start, end): &Interval, key: &[u8]) -> bool {
    start.as_ref() <= key && end.admits(key)
}

fn place(range: &KeyRange) -> Interval {
    let end = if range.is_open() { Bound::Open } else { Bound::Before(range.end.clone()) };
    (range.key.clone(), end)
}

impl Ranges {
    pub(super) fn insert(&mut self, range: KeyRange, watcher: u64) {
        let place = place(&range);
        let watchers = self.watchers.entry(place.clone()).or_default();
        if watchers.is_empty() && !self.gone.remove(&place) {
            self.new.insert(place);
        }
        watchers.insert(watcher);
    }

    pub(super) fn remove(&mut self, range: &KeyRange, watcher: u64) {
        let place = place(range);
        let Some(watchers) = self.watchers.get_mut(&place) else { return };
        watchers.remove(&watcher);
        if watchers.is_empty() {
            self.watchers.remove(&place);
            if !self.new.remove(&place) {
                self.gone.insert(place);
            }
        }
    }

    /// Calls `f` for each watcher whose interval holds `key`.
    pub(super) fn visit(&mut self, key: &[u8], mut f: impl FnMut(u64)) {
        let changed_max = (self.blocks.len() * BLOCK / CHANGED_PART).max(BLOCK);
        if self.new.len() + self.gone.len() > changed_max {
            self.rebuild();
        }
        let blocks = self.blocks.iter().take_while(|block| block.first.as_ref() <= key);
        let blocks = blocks.filter(|block| block.furthest.admits(key));
        let places = blocks.flat_map(|block| &block.ranges).chain(&self.new);
        for place in places.filter(|place| holds(place, key)) {
            if let Some(watchers) = self.watchers.get(place) {
                watchers.iter().for_each(|watcher| f(*watcher));
            }
        }
    }

    fn rebuild(&mut self) {
        let places: Vec<&Interval> = self.watchers.keys().collect();
        let block = |places: &[&Interval]| {
            let furthest = places.iter().map(|(_, end)| end).max()?.clone();
            let ranges = places.iter().map(|place| (*place).clone()).collect();
            Some(Block { first: places.first()?.0.clone(), furthest, ranges })
        };
        self.blocks = places.chunks(BLOCK).filter_map(block).collect();
        self.new.clear();
        self.gone.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::split_mix;

    #[test]
    fn a_search_finds_exactly_the_intervals_around_the_key() {
        let mut state = 7;
        let mut next = |below: u64| {
            state = split_mix(state);
            state % below
        };
        let mut ranges = Ranges::default();
        let mut all = Vec::new();
        for watcher in 0..500 {
            let (a, b) = (next(1000), next(1000));
            let (start, end) = (a.min(b), a.max(b));
            let end = if end.is_multiple_of(50) { "\0".into() } else { format!("{end:04}") };
            let range = KeyRange::new(format!("{start:04}").into(), end.into());
            ranges.insert(range.clone(), watcher);
            all.push((range, watcher));
        }
        for _ in 0..100 {
            let (range, watcher) = all.swap_remove(usize::try_from(next(400)).unwrap() % all.len());
            ranges.remove(&range, watcher);
        }
        for key in (0..1000).step_by(7) {
            // Some change between the searches.
            let (range, watcher) = all.swap_remove(usize::try_from(next(200)).unwrap());
            ranges.remove(&range, watcher);
            if key % 2 == 0 {
                ranges.insert(range.clone(), watcher + 1000);
                all.push((range, watcher + 1000));
            }
            let key = format!("{key:04}");
            let mut found = Vec::new();
            ranges.visit(key.as_bytes(), |watcher| found.push(watcher));
            found.sort_unstable();
            let holds = |(range, _): &&(KeyRange, u64)| range.contains(key.as_bytes());
            let mut expected: Vec<u64> = all.iter().filter(holds).map(|(_, w)| *w).collect();
            expected.sort_unstable();
            assert_eq!(found, expected, "{key}");
        }
    }
}
