//! The checks that need nothing but the request: pure functions, in etcd's order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;
use tonic::Status;

use super::error::Error;
use crate::limits::TXN_DEPTH_MAX;
use crate::pb::range_request::{SortOrder, SortTarget};
use crate::pb::request_op::Request;
use crate::pb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

pub(super) fn range(request: &RangeRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(Error::InvalidSortOption) }
}

/// As in etcd, RangeStream supports ascending order by key only, and no revision filters.
pub(super) fn range_stream(request: &RangeRequest) -> Result<(), Status> {
    range(request)?;
    let by_key = request.sort_target == SortTarget::Key as i32
        && request.sort_order == SortOrder::Ascend as i32;
    if request.sort_order != SortOrder::None as i32 && !by_key {
        return Err(Status::unimplemented("RangeStream does not support custom sort orders"));
    }
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if filters != [0; 4] {
        return Err(Status::unimplemented("RangeStream does not support revision filters"));
    }
    Ok(())
}

pub(super) fn put(request: &PutRequest) -> Result<(), Error> {
    if request.key.is_empty() {
        return Err(Error::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Error::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Error::LeaseProvided);
    }
    Ok(())
}

pub(super) fn delete_range(request: &DeleteRangeRequest) -> Result<(), Error> {
    if request.key.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// Sizes and shapes of all operations come first, then the search for keys that one branch changes
/// twice: etcd's order, which decides the error of a request with several faults.
pub(super) fn txn(request: &TxnRequest, ops_max: usize) -> Result<(), Error> {
    shape(request, ops_max, TXN_DEPTH_MAX)?;
    changes_of(&request.success)?;
    changes_of(&request.failure)?;
    Ok(())
}

fn shape(request: &TxnRequest, ops_max: usize, depth_max: usize) -> Result<(), Error> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    if ops > ops_max {
        return Err(Error::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Error::EmptyKey);
    }
    // etcd counts along a path: a nested transaction may have as many operations as its parent's
    // longest list leaves of `ops_max`.
    let ops_left = ops_max - ops;
    let mut all = request.success.iter().chain(&request.failure);
    all.try_for_each(|op| shape_op(op, ops_left, depth_max))
}

fn shape_op(op: &RequestOp, ops_max: usize, depth_max: usize) -> Result<(), Error> {
    match &op.request {
        Some(Request::RequestRange(request)) => range(request),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => delete_range(request),
        Some(Request::RequestTxn(_)) if depth_max == 0 => Err(Error::TooManyOps),
        Some(Request::RequestTxn(request)) => shape(request, ops_max, depth_max - 1),
        None => Err(Error::KeyNotFound),
    }
}

/// The keys that a list of operations puts, and the intervals that it deletes, as start and end.
/// Intervals that touch are merged, so that looking a key up is one search even with tens of
/// thousands of them.
#[derive(Default)]
struct Changes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<'a> Changes<'a> {
    /// Adds the interval of a delete. One whose end is not above its start adds nothing. That
    /// includes an end of one zero byte, which means "all keys from start": etcd's check misses it,
    /// too.
    fn delete(&mut self, request: &'a DeleteRangeRequest) {
        let end = if request.range_end.is_empty() {
            [&request.key, &b"\0"[..]].concat()
        } else {
            request.range_end.to_vec()
        };
        if request.key.as_ref() < end.as_slice() {
            self.add(request.key.to_vec(), end);
        }
    }

    fn add(&mut self, mut start: Vec<u8>, mut end: Vec<u8>) {
        while let Some((first, last)) =
            self.deletes.range(..=end.clone()).next_back().map(|(s, e)| (s.clone(), e.clone()))
        {
            if last < start {
                break;
            }
            self.deletes.remove(&first);
            start = start.min(first);
            end = end.max(last);
        }
        self.deletes.insert(start, end);
    }

    fn deletes_key(&self, key: &[u8]) -> bool {
        let at_or_before = (Bound::Unbounded, Bound::Included(key));
        let found = self.deletes.range::<[u8], _>(at_or_before).next_back();
        found.is_some_and(|(_, end)| key < end.as_slice())
    }

    fn put(&mut self, key: &'a Bytes) -> Result<(), Error> {
        if self.deletes_key(key) || !self.puts.insert(key.as_ref()) {
            return Err(Error::DuplicateKey);
        }
        Ok(())
    }

    /// Adds the changes of a nested transaction. Its branches exclude each other, so each is
    /// compared with `self` only. The shorter list is always the one that is walked: otherwise a
    /// deeply nested list would be walked again at each level above it, which is quadratic in the
    /// depth.
    fn nest(&mut self, then: Self, otherwise: Self) -> Result<(), Error> {
        let puts = union(then.puts, otherwise.puts);
        let is_deleted = if self.deletes.len() < puts.len() {
            self.deletes.iter().any(|(start, end)| {
                let within = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
                puts.range::<[u8], _>(within).next().is_some()
            })
        } else {
            puts.iter().any(|key| self.deletes_key(key))
        };
        if is_deleted || !self.puts.is_disjoint(&puts) {
            return Err(Error::DuplicateKey);
        }
        self.puts = union(std::mem::take(&mut self.puts), puts);
        for mut deletes in [then.deletes, otherwise.deletes] {
            if self.deletes.len() < deletes.len() {
                std::mem::swap(&mut self.deletes, &mut deletes);
            }
            deletes.into_iter().for_each(|(start, end)| self.add(start, end));
        }
        Ok(())
    }
}

fn union<'a>(mut one: BTreeSet<&'a [u8]>, mut other: BTreeSet<&'a [u8]>) -> BTreeSet<&'a [u8]> {
    if one.len() < other.len() {
        std::mem::swap(&mut one, &mut other);
    }
    one.extend(other);
    one
}

/// The changes of a list of operations. Fails if it puts a key twice, or puts and deletes it, as
/// far as etcd notices: each put is compared with what came before it, which is first the deletes
/// of this level, then its nested transactions in their order, then its puts. So a nested
/// transaction may delete what an earlier one has put. The two branches of a nested transaction
/// may put the same key, since only one of them runs.
fn changes_of(ops: &[RequestOp]) -> Result<Changes<'_>, Error> {
    let mut changes = Changes::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(request)) = &op.request {
            changes.delete(request);
        }
    }
    for op in ops {
        if let Some(Request::RequestTxn(request)) = &op.request {
            changes.nest(changes_of(&request.success)?, changes_of(&request.failure)?)?;
        }
    }
    for op in ops {
        if let Some(Request::RequestPut(request)) = &op.request {
            changes.put(&request.key)?;
        }
    }
    Ok(changes)
}

/// Whether a transaction only reads: every operation of both branches is a range.
pub(super) fn is_read_only(request: &TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::Compare;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn put_op(key: &'static str) -> RequestOp {
        op(Request::RequestPut(PutRequest { key: key.into(), ..Default::default() }))
    }

    fn delete_op(key: &'static str, end: &'static [u8]) -> RequestOp {
        op(Request::RequestDeleteRange(DeleteRangeRequest {
            key: key.into(),
            range_end: Bytes::from_static(end),
            ..Default::default()
        }))
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(Box::new(TxnRequest { compare: Vec::new(), success, failure })))
    }

    fn check(success: Vec<RequestOp>) -> Result<(), Error> {
        txn(&TxnRequest { success, ..Default::default() }, 128)
    }

    #[test]
    fn a_range_needs_a_key_and_a_known_order() {
        let request = |order, target| RangeRequest {
            key: "a".into(),
            sort_order: order,
            sort_target: target,
            ..Default::default()
        };
        assert_eq!(
            range(&RangeRequest { sort_order: 9, ..Default::default() }),
            Err(Error::EmptyKey)
        );
        assert_eq!(range(&request(3, 0)), Err(Error::InvalidSortOption));
        assert_eq!(range(&request(0, 5)), Err(Error::InvalidSortOption));
        assert_eq!(range(&request(-1, 0)), Err(Error::InvalidSortOption));
        assert_eq!(range(&request(2, 4)), Ok(()));
        assert_eq!(
            range_stream(&request(2, 0)).unwrap_err().message(),
            "RangeStream does not support custom sort orders"
        );
        assert!(range_stream(&request(1, 0)).is_ok() && range_stream(&request(0, 3)).is_ok());
    }

    #[test]
    fn a_put_checks_key_then_value_then_lease() {
        let mut request = PutRequest {
            value: "v".into(),
            lease: 1,
            ignore_value: true,
            ignore_lease: true,
            ..Default::default()
        };
        assert_eq!(put(&request), Err(Error::EmptyKey));
        request.key = "k".into();
        assert_eq!(put(&request), Err(Error::ValueProvided));
        request.value = Bytes::new();
        assert_eq!(put(&request), Err(Error::LeaseProvided));
        request.lease = 0;
        assert_eq!(put(&request), Ok(()));
    }

    #[test]
    fn the_budget_of_operations_shrinks_with_depth() {
        let many = |n: usize| (0..n).map(|_| delete_op("a", b"")).collect::<Vec<_>>();
        assert_eq!(check(many(128)), Ok(()));
        assert_eq!(check(many(129)), Err(Error::TooManyOps));
        assert_eq!(check(vec![nested(many(127), vec![])]), Ok(()));
        assert_eq!(check(vec![nested(many(128), vec![])]), Err(Error::TooManyOps));
        let compares = TxnRequest { compare: vec![Compare::default(); 129], ..Default::default() };
        assert_eq!(txn(&compares, 128), Err(Error::TooManyOps));
        let empty_key = TxnRequest { compare: vec![Compare::default()], ..Default::default() };
        assert_eq!(txn(&empty_key, 128), Err(Error::EmptyKey));
        assert_eq!(check(vec![RequestOp::default()]), Err(Error::KeyNotFound));
    }

    #[test]
    fn a_key_may_change_once_in_a_run() {
        let duplicate = Err(Error::DuplicateKey);
        assert_eq!(check(vec![put_op("a"), put_op("b")]), Ok(()));
        assert_eq!(check(vec![put_op("a"), put_op("a")]), duplicate);
        assert_eq!(check(vec![put_op("b"), delete_op("a", b"c")]), duplicate);
        assert_eq!(check(vec![put_op("a"), delete_op("a", b"")]), duplicate);
        assert_eq!(check(vec![put_op("c"), delete_op("a", b"c")]), Ok(()));
        assert_eq!(check(vec![delete_op("a", b"c"), delete_op("b", b"d")]), Ok(()));
        assert_eq!(check(vec![put_op("b"), delete_op("a", b"\0")]), Ok(()));
    }

    #[test]
    fn nested_transactions_count_in_their_order() {
        let duplicate = Err(Error::DuplicateKey);
        let puts = || nested(vec![put_op("a")], vec![]);
        let deletes = || nested(vec![delete_op("a", b"")], vec![]);
        assert_eq!(check(vec![nested(vec![put_op("a")], vec![put_op("a")])]), Ok(()));
        assert_eq!(check(vec![puts(), put_op("a")]), duplicate);
        assert_eq!(check(vec![puts(), puts()]), duplicate);
        assert_eq!(check(vec![puts(), nested(vec![], vec![put_op("a")])]), duplicate);
        assert_eq!(check(vec![puts(), deletes()]), Ok(()));
        assert_eq!(check(vec![deletes(), puts()]), duplicate);
        assert_eq!(check(vec![deletes(), put_op("a")]), duplicate);
        assert_eq!(check(vec![nested(vec![put_op("a")], vec![]), delete_op("a", b"")]), duplicate);
    }

    #[test]
    fn nesting_has_a_bound_whatever_the_budget() {
        let deep =
            |levels: usize| (0..levels).fold(vec![put_op("a")], |ops, _| vec![nested(ops, vec![])]);
        let checked = |levels| {
            let request = TxnRequest { success: deep(levels), ..Default::default() };
            txn(&request, 100_000)
        };
        assert_eq!(checked(TXN_DEPTH_MAX), Ok(()));
        assert_eq!(checked(TXN_DEPTH_MAX + 1), Err(Error::TooManyOps));
        assert_eq!((check(deep(127)), check(deep(128))), (Ok(()), Err(Error::TooManyOps)));
    }

    #[test]
    fn what_nested_branches_change_counts_however_many_they_are() {
        let duplicate = Err(Error::DuplicateKey);
        let puts = |keys: &[&'static str]| keys.iter().map(|key| put_op(key)).collect::<Vec<_>>();
        let many = || puts(&["a", "c", "e", "g"]);
        // The deletes are compared with nested puts: once there are fewer deletes, once more.
        for (deletes, expected) in [
            (vec![delete_op("e", b"f")], &duplicate),
            (vec![delete_op("f", b"g"), delete_op("h", b"")], &Ok(())),
            (
                (0..6).map(|_| delete_op("b", b"")).chain([delete_op("g", b"")]).collect(),
                &duplicate,
            ),
        ] {
            for branches in [(many(), vec![]), (vec![], many()), (many(), many())] {
                let nested = nested(branches.0, branches.1);
                let ops = deletes.iter().cloned().chain([nested]).collect();
                assert_eq!(&check(ops), expected, "{deletes:?}");
            }
        }
        // A later nested transaction is compared with an earlier one, the larger as well as the
        // smaller.
        let first = || nested(many(), vec![delete_op("x", b"z")]);
        assert_eq!(check(vec![first(), nested(puts(&["b", "g"]), vec![])]), duplicate);
        assert_eq!(check(vec![nested(vec![], puts(&["b", "g"])), first()]), duplicate);
        assert_eq!(check(vec![first(), nested(puts(&["y"]), vec![])]), duplicate);
        assert_eq!(check(vec![nested(puts(&["y"]), vec![]), first()]), Ok(()));
        assert_eq!(check(vec![first(), nested(puts(&["b", "z"]), vec![])]), Ok(()));
    }

    #[test]
    fn deleted_intervals_merge() {
        let mut changes = Changes::default();
        for (start, end) in [("c", "d"), ("f", "g"), ("a", "b"), ("b", "c"), ("e", "z")] {
            changes.add(start.into(), end.into());
        }
        let merged: Vec<_> = changes.deletes.iter().collect();
        assert_eq!(merged, [(&b"a".to_vec(), &b"d".to_vec()), (&b"e".to_vec(), &b"z".to_vec())]);
        assert!(
            changes.deletes_key(b"a") && changes.deletes_key(b"cz") && changes.deletes_key(b"e")
        );
        assert!(
            !changes.deletes_key(b"d") && !changes.deletes_key(b"z") && !changes.deletes_key(b"")
        );
    }

    #[test]
    fn both_branches_are_checked() {
        let request = TxnRequest { failure: vec![put_op("a"), put_op("a")], ..Default::default() };
        assert_eq!(txn(&request, 128), Err(Error::DuplicateKey));
    }

    #[test]
    fn only_direct_ranges_are_read_only() {
        let range_op =
            || op(Request::RequestRange(RangeRequest { key: "a".into(), ..Default::default() }));
        let read = |success| is_read_only(&TxnRequest { success, ..Default::default() });
        assert!(read(vec![]) && read(vec![range_op()]));
        assert!(!read(vec![nested(vec![range_op()], vec![])]) && !read(vec![put_op("a")]));
    }
}
