//! Reads at a revision: collect in key order, filter, sort, cut to the limit; the steps are in
//! etcd's order.

use bytes::Bytes;

use super::index::{End, KeyState, Visit};
use super::kv::Pair;
use super::{Change, Error, View};
use crate::limits;
use crate::pb::raw::RangeResponse;
use crate::pb::{
    RangeRequest, ResponseHeader, range_request::SortOrder, range_request::SortTarget,
};
use crate::types::{KeyRange, Revision};

/// Rows that a short read fetches at once before it counts their bytes. It begins with one row,
/// since each may be large, and doubles.
const INLINE_FETCH_ROWS: usize = 8;
/// Rows that a long read fetches before it looks whether its caller is still there; each may be
/// large.
const FETCH_ROWS: usize = 128;

struct Item {
    found: KeyState,
    kv: Bytes,
}

/// The work that a read may do before it fails with `TakesLong`.
pub(super) struct ReadBudget {
    index_holds: usize,
    bytes: usize,
}

impl ReadBudget {
    /// Bounds only the bytes of pairs; `usize::MAX` is no bound.
    pub(super) fn with_bytes(bytes: usize) -> Self {
        Self { index_holds: usize::MAX, bytes }
    }

    /// For all reads of a transaction together.
    pub(super) fn of_txn(bytes: usize) -> Self {
        Self { index_holds: limits::INLINE_TXN_INDEX_HOLDS_MAX, bytes }
    }

    /// For a read on a thread that serves connections.
    pub(super) fn at_once(bytes: usize) -> Self {
        Self { index_holds: limits::INLINE_INDEX_HOLDS_MAX, bytes }
    }

    fn hold_index(&mut self) -> Result<(), Error> {
        self.index_holds = self.index_holds.checked_sub(1).ok_or(Error::TakesLong)?;
        Ok(())
    }

    fn is_short(&self) -> bool {
        self.bytes != usize::MAX
    }

    /// Counts `bytes` of pairs as read.
    pub(super) fn read(&mut self, bytes: usize) -> Result<(), Error> {
        if self.is_short() {
            self.bytes = self.bytes.checked_sub(bytes).ok_or(Error::TakesLong)?;
        }
        Ok(())
    }
}

/// Whether the request asks for ascending key order, in which pairs are collected anyway.
pub fn is_default_ordering(target: SortTarget, order: SortOrder) -> bool {
    order == SortOrder::None || (target == SortTarget::Key && order == SortOrder::Ascend)
}

/// Whether pairs are filtered by revision: then all must be collected before the limit applies.
pub fn has_revision_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

/// The number of pairs that must be collected; 0 for all.
fn collect_limit(request: &RangeRequest) -> usize {
    let is_cut_early = is_default_ordering(request.sort_target(), request.sort_order())
        && !has_revision_filters(request);
    match usize::try_from(request.limit) {
        // One key more than asked for shows whether there are more.
        Ok(limit) if is_cut_early && limit > 0 => limit.saturating_add(1),
        _ => 0,
    }
}

pub(super) fn end_of(range: &KeyRange) -> End<'_> {
    if range.is_open() { End::Open } else { End::Before(&range.end) }
}

impl View<'_> {
    /// Answers a range request. Sort order and target must be known values.
    pub fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Error> {
        self.answer(request, &mut ReadBudget::with_bytes(usize::MAX))
    }

    /// As [`Self::range`], for a thread that serves connections. A read that holds the index lock
    /// more than `INLINE_INDEX_HOLDS_MAX` times, or whose pairs have more than `bytes`, fails with
    /// `TakesLong`, and the caller repeats it on a blocking thread. How long a count or a page
    /// takes is known only on the way: the index may have thousands of deleted keys in between, or
    /// keys that the batch being applied has just added.
    pub fn range_shortly(
        &self,
        request: &RangeRequest,
        bytes: usize,
    ) -> Result<RangeResponse, Error> {
        self.answer(request, &mut ReadBudget::at_once(bytes))
    }

    /// Answers a range request within `budget`.
    pub(super) fn answer(
        &self,
        request: &RangeRequest,
        budget: &mut ReadBudget,
    ) -> Result<RangeResponse, Error> {
        let main = self.readable(request.revision)?;
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let header = Some(ResponseHeader { revision: self.current.revision, ..Default::default() });
        if request.count_only {
            let count = self.count(&range, main, budget)?;
            return Ok(RangeResponse { header, count, ..Default::default() });
        }
        let limit = collect_limit(request);
        let by_index = request.keys_only && request.sort_target() != SortTarget::Value;
        let (mut items, count) = self.collect(&range, main, (limit, by_index), budget)?;
        filter(&mut items, request);
        sort(&mut items, request)?;
        let mut more = false;
        if let Ok(limit) = usize::try_from(request.limit)
            && limit > 0
            && items.len() > limit
        {
            items.truncate(limit);
            more = true;
        }
        let kvs = items.into_iter().map(|item| item.kv);
        let kvs = if request.keys_only && !by_index {
            kvs.map(|kv| without_value(&kv)).collect::<Result<_, _>>()?
        } else {
            kvs.collect()
        };
        Ok(RangeResponse { header, kvs, more, count })
    }

    /// The revision at which a request for `revision` reads; 0 and less mean the current one.
    pub fn readable(&self, revision: i64) -> Result<i64, Error> {
        if revision > self.current.revision {
            return Err(Error::FutureRev);
        }
        let main = if revision <= 0 { self.current.revision } else { revision };
        if main < self.current.compact_revision {
            return Err(Error::Compacted);
        }
        Ok(main)
    }

    /// The stored pair of one key, if it exists at `main`.
    pub fn get(&self, key: &[u8], main: i64) -> Result<Option<Bytes>, Error> {
        let found = self.mvcc.index.read().get(key, main);
        found.map(|found| self.fetch(found.modified)).transpose()
    }

    /// The pair before a change; None for a creation, or if history there is compacted.
    pub fn previous(&self, change: &Change) -> Result<Option<Bytes>, Error> {
        let before = change.revision.main - 1;
        if change.is_create || before < self.current.compact_revision {
            return Ok(None);
        }
        self.get(&change.key, before)
    }

    /// Number of keys in the range that exist at `main`.
    fn count(&self, range: &KeyRange, main: i64, budget: &mut ReadBudget) -> Result<i64, Error> {
        if range.is_single() {
            return Ok(i64::from(self.mvcc.index.read().get(&range.key, main).is_some()));
        }
        self.count_from(&range.key, end_of(range), main, budget)
    }

    pub(super) fn count_from(
        &self,
        start: &[u8],
        end: End<'_>,
        main: i64,
        budget: &mut ReadBudget,
    ) -> Result<i64, Error> {
        let mut count: u64 = 0;
        let mut start: Box<[u8]> = start.into();
        loop {
            self.go_on()?;
            budget.hold_index()?;
            let index = self.mvcc.index.read();
            let (counted, visit) = index.count(&start, end, main, limits::INDEX_HOLD_KEYS_MAX);
            drop(index);
            count += counted;
            match visit {
                Visit::Done => break,
                Visit::Next(next) => start = next,
            }
        }
        Ok(i64::try_from(count).unwrap_or(i64::MAX))
    }

    /// The first `limit` pairs of the range (0: all), and the number of all keys in it. With
    /// `by_index`, pairs are built from the index alone, without value and lease.
    fn collect(
        &self,
        range: &KeyRange,
        main: i64,
        (limit, by_index): (usize, bool),
        budget: &mut ReadBudget,
    ) -> Result<(Vec<Item>, i64), Error> {
        if range.is_single() {
            let found = self.mvcc.index.read().get(&range.key, main);
            let Some(found) = found else { return Ok((Vec::new(), 0)) };
            let kv =
                if by_index { key_only(&range.key, found) } else { self.fetch(found.modified)? };
            budget.read(kv.len())?;
            return Ok((vec![Item { found, kv }], 1));
        }
        let end = end_of(range);
        let mut items: Vec<Item> = Vec::new();
        let mut start: Box<[u8]> = range.key.as_ref().into();
        let mut next_uncollected: Option<Box<[u8]>> = None;
        loop {
            let first = items.len();
            self.go_on()?;
            budget.hold_index()?;
            let index = self.mvcc.index.read();
            let visit =
                index.visit(&start, end, main, limits::INDEX_HOLD_KEYS_MAX, |mut visited| {
                    if limit > 0 && items.len() == limit {
                        next_uncollected = Some(visited.key().into());
                        return false;
                    }
                    let found = visited.found;
                    let kv = if by_index { key_only(visited.key(), found) } else { Bytes::new() };
                    items.push(Item { found, kv });
                    true
                });
            drop(index);
            if !by_index {
                self.fetch_into(&mut items[first..], budget)?;
            }
            match visit {
                Visit::Next(next) => start = next,
                Visit::Done => break,
            }
        }
        let collected = i64::try_from(items.len()).unwrap_or(i64::MAX);
        let rest = next_uncollected.map(|next| self.count_from(&next, end, main, budget));
        Ok((items, collected + rest.transpose()?.unwrap_or(0)))
    }

    /// Whether `f` holds for the newest pairs of all keys in the range; None if there are no keys.
    /// `f` is called in key order, and no key is visited after it has returned false. With
    /// `by_index`, pairs have no value and no lease.
    pub(super) fn all(
        &self,
        range: &KeyRange,
        by_index: bool,
        mut f: impl FnMut(&Pair<'_>) -> bool,
    ) -> Result<Option<bool>, Error> {
        let main = self.current.revision;
        if range.is_single() {
            let found = self.mvcc.index.read().get(&range.key, main);
            let Some(found) = found else { return Ok(None) };
            if by_index {
                return Ok(Some(f(&by_index_pair(&range.key, found))));
            }
            return Ok(Some(f(&Pair::parse(&self.fetch(found.modified)?)?)));
        }
        let (mut start, end): (Box<[u8]>, _) = (range.key.as_ref().into(), end_of(range));
        let (mut holds, mut found) = (None, Vec::new());
        // The first keys mostly decide, so few are read at first.
        let mut keys_max = INLINE_FETCH_ROWS;
        loop {
            self.go_on()?;
            let index = self.mvcc.index.read();
            let visit = index.visit(&start, end, main, keys_max, |mut visited| {
                let state = visited.found;
                if by_index {
                    let holds_here = f(&by_index_pair(visited.key(), state));
                    holds = Some(holds_here);
                    return holds_here;
                }
                found.push(state.modified);
                true
            });
            drop(index);
            for row in self.mvcc.store.get_many(&found)? {
                holds = Some(f(&Pair::parse(&row.kv)?));
                if holds == Some(false) {
                    break;
                }
            }
            found.clear();
            match visit {
                Visit::Next(next) if holds != Some(false) => start = next,
                _ => return Ok(holds),
            }
            keys_max = (2 * keys_max).min(FETCH_ROWS);
        }
    }

    fn fetch(&self, revision: Revision) -> Result<Bytes, Error> {
        let row = self.mvcc.store.get(revision)?;
        row.map(|row| row.kv).ok_or(Error::MissingRow(revision))
    }

    fn fetch_into(&self, items: &mut [Item], budget: &mut ReadBudget) -> Result<(), Error> {
        let (mut at_once, most) =
            if budget.is_short() { (1, INLINE_FETCH_ROWS) } else { (FETCH_ROWS, FETCH_ROWS) };
        let mut left = items;
        while !left.is_empty() {
            self.go_on()?;
            let (items, rest) = left.split_at_mut(at_once.min(left.len()));
            let revisions: Vec<Revision> = items.iter().map(|item| item.found.modified).collect();
            let rows = self.mvcc.store.get_many(&revisions)?;
            for (item, row) in items.iter_mut().zip(rows) {
                item.kv = row.kv;
            }
            budget.read(items.iter().map(|item| item.kv.len()).sum())?;
            left = rest;
            at_once = (2 * at_once).min(most);
        }
        Ok(())
    }
}

pub(super) fn by_index_pair(key: &[u8], found: KeyState) -> Pair<'_> {
    let KeyState { modified, created, version } = found;
    let (create_revision, mod_revision) = (created.main, modified.main);
    Pair { key, create_revision, mod_revision, version, ..Pair::default() }
}

fn key_only(key: &[u8], found: KeyState) -> Bytes {
    by_index_pair(key, found).encode()
}

fn without_value(kv: &[u8]) -> Result<Bytes, Error> {
    Ok(Pair { value: &[], ..Pair::parse(kv)? }.encode())
}

fn filter(items: &mut Vec<Item>, request: &RangeRequest) {
    if !has_revision_filters(request) {
        return;
    }
    items.retain(|item| admits(request, &item.found));
}

/// Whether the request's filters admit a key in this state.
pub(super) fn admits(request: &RangeRequest, found: &KeyState) -> bool {
    let admits = |revision: i64, min: i64, max: i64| {
        (max == 0 || revision <= max) && (min == 0 || revision >= min)
    };
    admits(found.modified.main, request.min_mod_revision, request.max_mod_revision)
        && admits(found.created.main, request.min_create_revision, request.max_create_revision)
}

/// The order in which pairs are sorted: a target other than the key has one even if the request
/// names none.
pub(super) fn key_order(request: &RangeRequest) -> SortOrder {
    match request.sort_order() {
        SortOrder::None if request.sort_target() != SortTarget::Key => SortOrder::Ascend,
        order => order,
    }
}

fn sort(items: &mut [Item], request: &RangeRequest) -> Result<(), Error> {
    let (target, order) = (request.sort_target(), key_order(request));
    if is_default_ordering(target, order) {
        return Ok(());
    }
    match target {
        SortTarget::Key => {
            // Pairs were collected in ascending key order, each key once.
            if order == SortOrder::Descend {
                items.reverse();
            }
        }
        SortTarget::Version => sort_by_key(items, order, |item| item.found.version),
        SortTarget::Create => sort_by_key(items, order, |item| item.found.created.main),
        SortTarget::Mod => sort_by_key(items, order, |item| item.found.modified.main),
        SortTarget::Value => {
            let value =
                |item: &Item| Pair::parse(&item.kv).map(|pair| item.kv.slice_ref(pair.value));
            let values = items.iter().map(value).collect::<Result<Vec<_>, _>>()?;
            let mut keyed: Vec<_> = values.into_iter().zip(items.iter_mut().map(take)).collect();
            keyed.sort_by(
                |(a, _), (b, _)| {
                    if order == SortOrder::Descend { b.cmp(a) } else { a.cmp(b) }
                },
            );
            for (slot, (_, item)) in items.iter_mut().zip(keyed) {
                *slot = item;
            }
        }
    }
    Ok(())
}

fn take(item: &mut Item) -> Item {
    Item { found: item.found, kv: std::mem::take(&mut item.kv) }
}

pub(super) fn sort_by_key<T>(items: &mut [T], order: SortOrder, key: impl Fn(&T) -> i64) {
    if order == SortOrder::Descend {
        items.sort_by_key(|item| std::cmp::Reverse(key(item)));
    } else {
        items.sort_by_key(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_that_are_equal_keep_the_order_of_their_keys() {
        for (order, expected) in [(SortOrder::Ascend, "bdacef"), (SortOrder::Descend, "cefabd")] {
            let mut pairs: Vec<(i64, char)> =
                vec![(2, 'a'), (1, 'b'), (3, 'c'), (1, 'd'), (3, 'e'), (3, 'f')];
            sort_by_key(&mut pairs, order, |(number, _)| *number);
            assert_eq!(pairs.iter().map(|(_, key)| key).collect::<String>(), expected);
        }
    }
}
