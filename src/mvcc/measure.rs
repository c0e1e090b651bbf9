//! Measures how long the answer to a write would be, before the write is proposed.
//!
//! The reads of the transaction are made at the current revision. Those of both branches count,
//! since which one is taken is known only when the write is applied. Its own puts are not in the
//! store yet, so each of its ranges is assumed to answer with all of them. If a read fails, the
//! answer counts as long.

use super::range::ReadBudget;
use super::txn::ops;
use super::{Error, Mvcc, View, has_revision_filters, is_default_ordering};
use crate::limits;
use crate::pb::request_op::Request;
use crate::pb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};

/// Upper bound of the bytes of a pair beside key and value: tags, two revisions, version and lease.
const PAIR_BYTES: usize = 64;

/// Whether the answer to a transaction may hold pairs.
pub fn answers_with_pairs(request: &TxnRequest) -> bool {
    ops(request).any(|op| match &op.request {
        Some(Request::RequestRange(_)) => true,
        Some(Request::RequestPut(put)) => put.prev_kv,
        Some(Request::RequestDeleteRange(delete)) => delete.prev_kv,
        Some(Request::RequestTxn(nested)) => answers_with_pairs(nested),
        None => false,
    })
}

/// Whether the answer would have at most `bytes` of pairs, and take few holds of the index lock
/// (`INLINE_TXN_INDEX_HOLDS_MAX`). Called on a thread that may block.
pub fn answers_shortly(view: &View<'_>, request: &TxnRequest, bytes: usize) -> Result<bool, Error> {
    match read(view, request, &mut ReadBudget::of_txn(bytes)) {
        Ok(()) => Ok(true),
        // The measuring was cut short, which says nothing about the answer.
        Err(error @ (Error::Replaced | Error::Unwanted)) => Err(error),
        Err(_) => Ok(false),
    }
}

/// As `answers_shortly`, for a thread that serves connections: it reads no more than a page takes.
/// Also returns false if that does not suffice to tell.
pub fn answers_shortly_at_once(mvcc: &Mvcc, request: &TxnRequest, bytes: usize) -> bool {
    let keys = keys_at_most(request);
    let is_little = keys.is_some_and(|keys| keys <= limits::INLINE_RANGE_KEYS_MAX);
    is_little && read(&mvcc.view(), request, &mut ReadBudget::at_once(bytes)).is_ok()
}

/// Upper bound of the keys in a range's answer, if the request itself sets one. A count counts as
/// one key: it is bounded only by how often it may hold the index lock.
pub fn keys_of_range(request: &RangeRequest) -> Option<i64> {
    if request.range_end.is_empty() || request.count_only {
        return Some(1);
    }
    let is_page = request.limit > 0
        && is_default_ordering(request.sort_target(), request.sort_order())
        && !has_revision_filters(request);
    is_page.then_some(request.limit)
}

fn keys_at_most(request: &TxnRequest) -> Option<i64> {
    ops(request).try_fold(0_i64, |keys, op| {
        let more = match &op.request {
            Some(Request::RequestRange(range)) => keys_of_range(range)?,
            Some(Request::RequestPut(put)) => i64::from(put.prev_kv),
            Some(Request::RequestDeleteRange(delete)) if !delete.prev_kv => 0,
            Some(Request::RequestDeleteRange(delete)) => {
                delete.range_end.is_empty().then_some(1)?
            }
            Some(Request::RequestTxn(nested)) => keys_at_most(nested)?,
            None => 0,
        };
        Some(keys.saturating_add(more))
    })
}

fn read(view: &View<'_>, request: &TxnRequest, budget: &mut ReadBudget) -> Result<(), Error> {
    let own = OwnPuts::of(&request.success).bytes().max(OwnPuts::of(&request.failure).bytes());
    budget.read(own)?;
    read_both(view, request, budget)
}

/// Bytes that a list of operations puts, nested ones included, and the number of ranges that may
/// answer with them.
#[derive(Default)]
struct OwnPuts {
    put_bytes: usize,
    ranges: usize,
}

impl OwnPuts {
    fn of(ops: &[RequestOp]) -> Self {
        let mut own = Self::default();
        own.add(ops);
        own
    }

    fn add(&mut self, ops: &[RequestOp]) {
        for op in ops {
            match &op.request {
                Some(Request::RequestRange(range)) => self.ranges += usize::from(!range.count_only),
                Some(Request::RequestPut(PutRequest { key, value, .. })) => {
                    self.put_bytes += key.len() + value.len() + PAIR_BYTES;
                }
                Some(Request::RequestTxn(nested)) => {
                    self.add(&nested.success);
                    self.add(&nested.failure);
                }
                // A transaction cannot delete a key that it puts (etcd refuses it), so deletions
                // never answer with its puts.
                Some(Request::RequestDeleteRange(_)) | None => {}
            }
        }
    }

    fn bytes(&self) -> usize {
        self.put_bytes.saturating_mul(self.ranges)
    }
}

fn read_both(view: &View<'_>, request: &TxnRequest, budget: &mut ReadBudget) -> Result<(), Error> {
    for op in ops(request) {
        match &op.request {
            Some(Request::RequestRange(range)) => drop(view.answer(range, budget)?),
            Some(Request::RequestPut(put)) if put.prev_kv => {
                let previous = RangeRequest { key: put.key.clone(), ..Default::default() };
                view.answer(&previous, budget)?;
            }
            Some(Request::RequestDeleteRange(delete)) if delete.prev_kv => {
                let DeleteRangeRequest { key, range_end, .. } = delete.clone();
                view.answer(&RangeRequest { key, range_end, ..Default::default() }, budget)?;
            }
            Some(Request::RequestTxn(nested)) => read_both(view, nested, budget)?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::SystemClock;
    use crate::mvcc::txn::NoLeases;
    use crate::store::{Options, Store};

    /// Keys `k000` to `k999` with values of 10 bytes.
    fn thousand_keys(dir: &std::path::Path) -> Mvcc {
        let (store, _) =
            Store::open(&dir.join("db"), Options::new(Arc::new(SystemClock::new()))).unwrap();
        let mvcc = Mvcc::new(Arc::new(store));
        let mut write = mvcc.begin();
        for n in 0..1000 {
            let (key, value) = (format!("k{n:03}").into(), "0123456789".into());
            write.put(&PutRequest { key, value, ..Default::default() }, &mut NoLeases).unwrap();
        }
        write.finish();
        mvcc.publish();
        mvcc
    }

    fn put(key: &'static str, bytes: usize) -> RequestOp {
        let (key, value) = (key.into(), vec![7; bytes].into());
        op(Request::RequestPut(PutRequest { key, value, ..Default::default() }))
    }

    fn range(key: &'static str, range_end: &'static str, limit: i64) -> RequestOp {
        let (key, range_end) = (key.into(), range_end.into());
        op(Request::RequestRange(RangeRequest { key, range_end, limit, ..Default::default() }))
    }

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    fn txn(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
        TxnRequest { success, failure, ..Default::default() }
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        op(Request::RequestTxn(Box::new(txn(success, failure))))
    }

    #[test]
    fn what_a_transaction_puts_counts_for_each_of_its_ranges() {
        let dir = tempfile::tempdir().unwrap();
        let mvcc = thousand_keys(dir.path());
        let is_short = |request: &TxnRequest| {
            let shortly = answers_shortly(&mvcc.view(), request, 100_000).unwrap();
            assert_eq!(answers_shortly_at_once(&mvcc, request, 100_000), shortly);
            shortly
        };
        let ranges = |n: usize| vec![range("n", "", 0); n];
        let with = |puts: Vec<RequestOp>, ranges: Vec<RequestOp>| [puts, ranges].concat();
        assert!(is_short(&txn(with(vec![put("n", 30_000)], ranges(3)), vec![])));
        assert!(!is_short(&txn(with(vec![put("n", 30_000)], ranges(4)), vec![])));
        assert!(!is_short(&txn(vec![], with(vec![put("n", 30_000)], ranges(4)))));
        assert!(!is_short(&txn(with(vec![put("n", 20_000), put("m", 20_000)], ranges(3)), vec![])));
        // A branch does not answer with what the other one puts.
        assert!(is_short(&txn(vec![put("n", 90_000)], ranges(100))));
        // Nested operations are applied with the others, before or after them.
        let inner = nested(vec![put("n", 30_000)], vec![]);
        assert!(!is_short(&txn(with(vec![inner], ranges(4)), vec![])));
        let outer = txn(vec![put("n", 30_000), nested(vec![], ranges(4))], vec![]);
        assert!(!is_short(&outer));
        // A count answers without pairs, and this transaction asks for none.
        let count = RangeRequest { key: "n".into(), count_only: true, ..Default::default() };
        let count = op(Request::RequestRange(count));
        assert!(is_short(&txn(with(vec![put("n", 90_000)], vec![count; 100]), vec![])));
        assert!(!answers_with_pairs(&txn(vec![put("n", 1_000_000)], vec![])));
    }

    #[test]
    fn no_more_than_a_page_is_read_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let mvcc = thousand_keys(dir.path());
        let at_once = |request: &TxnRequest| {
            assert!(answers_shortly(&mvcc.view(), request, usize::MAX / 2).unwrap());
            answers_shortly_at_once(&mvcc, request, usize::MAX / 2)
        };
        let single = range("k001", "", 0);
        assert!(at_once(&txn(vec![single.clone(); 64], vec![single.clone(); 64])));
        assert!(!at_once(&txn(vec![single.clone(); 64], vec![single.clone(); 65])));
        let deep = nested(vec![nested(vec![single.clone(); 100], vec![])], vec![single; 100]);
        assert!(!at_once(&txn(vec![deep], vec![])));
        assert!(at_once(&txn(vec![range("k", "l", 100)], vec![])));
        assert!(!at_once(&txn(vec![range("k", "l", 100); 2], vec![])));
        assert!(!at_once(&txn(vec![range("k", "l", 0)], vec![])));
        let delete = |range_end: &'static str, prev_kv| {
            let (key, range_end) = ("k".into(), range_end.into());
            op(Request::RequestDeleteRange(DeleteRangeRequest { key, range_end, prev_kv }))
        };
        assert!(at_once(&txn(vec![delete("l", false), delete("", true)], vec![])));
        assert!(!at_once(&txn(vec![delete("l", true)], vec![])));
    }
}
