//! Watched intervals, found by a key that lies in them.
//!
//! Distinct intervals in order of their start, with the furthest end of each block of them beside
//! it, so that a search skips blocks that end too early. The blocks are rebuilt at the first
//! search after a change.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::types::KeyRange;

/// Intervals in one block.
const BLOCK: usize = 32;

#[derive(Default)]
pub(super) struct Ranges {
    /// By start and end; the end of an open interval is `Bound::Open`, which is after all others.
    watchers: BTreeMap<(Bytes, Bound), Vec<u64>>,
    blocks: Vec<Block>,
    is_stale: bool,
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
    ranges: Vec<(Bytes, Bound, Vec<u64>)>,
}

fn place(range: &KeyRange) -> (Bytes, Bound) {
    let end = if range.is_open() { Bound::Open } else { Bound::Before(range.end.clone()) };
    (range.key.clone(), end)
}

impl Ranges {
    pub(super) fn insert(&mut self, range: KeyRange, watcher: u64) {
        self.watchers.entry(place(&range)).or_default().push(watcher);
        self.is_stale = true;
    }

    pub(super) fn remove(&mut self, range: &KeyRange, watcher: u64) {
        let place = place(range);
        if let Some(watchers) = self.watchers.get_mut(&place) {
            watchers.retain(|other| *other != watcher);
            if watchers.is_empty() {
                self.watchers.remove(&place);
            }
        }
        self.is_stale = true;
    }

    /// Calls `f` for each watcher whose interval holds `key`.
    pub(super) fn visit(&mut self, key: &[u8], mut f: impl FnMut(u64)) {
        if self.is_stale {
            self.rebuild();
        }
        for block in &self.blocks {
            if block.first.as_ref() > key {
                return;
            }
            if !block.furthest.admits(key) {
                continue;
            }
            for (start, end, watchers) in &block.ranges {
                if start.as_ref() <= key && end.admits(key) {
                    watchers.iter().for_each(|watcher| f(*watcher));
                }
            }
        }
    }

    fn rebuild(&mut self) {
        let ranges = self.watchers.iter();
        let ranges: Vec<_> =
            ranges.map(|((start, end), w)| (start.clone(), end.clone(), w.clone())).collect();
        let block = |ranges: &[(Bytes, Bound, Vec<u64>)]| {
            let furthest = ranges.iter().map(|(_, end, _)| end).max()?.clone();
            Some(Block { first: ranges.first()?.0.clone(), furthest, ranges: ranges.to_vec() })
        };
        self.blocks = ranges.chunks(BLOCK).filter_map(block).collect();
        self.is_stale = false;
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
