//! Transactions: evaluate all compares, check the chosen path, then run it.
//!
//! Nothing is changed before the whole path is checked, so a refused transaction changes nothing.
//! Compares and checks, those of nested transactions included, see the state before the
//! transaction; the operations see each other's changes.

use bytes::Bytes;

use super::kv::Pair;
use super::range::ReadBudget;
use super::{Error, Leases, View, Write};
use crate::metrics;
use crate::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::raw::{Response, ResponseOp, TxnResponse};
use crate::pb::request_op::Request;
use crate::pb::{Compare, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest};
use crate::planted::{self, Bug};
use crate::types::KeyRange;

/// For reads, which do not use leases.
pub(super) struct NoLeases;

impl Leases for NoLeases {
    fn exists(&self, _: i64) -> bool {
        false
    }

    fn set(&mut self, _: &Bytes, _: i64) {}
}

pub(super) fn ops(request: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    request.success.iter().chain(&request.failure)
}

/// Whether both branches consist of ranges. A nested transaction makes it a write, as in etcd.
pub fn is_read_only(request: &TxnRequest) -> bool {
    ops(request).all(|op| matches!(op.request, Some(Request::RequestRange(_))))
}

/// Whether both branches consist of serializable ranges, so that no read index is needed.
pub fn is_serializable(request: &TxnRequest) -> bool {
    let is_serializable = |op: &RequestOp| match &op.request {
        Some(Request::RequestRange(range)) => range.serializable,
        _ => false,
    };
    ops(request).all(is_serializable)
}

/// Runs a read-only transaction.
pub fn read_txn(view: &View<'_>, request: &TxnRequest) -> Result<TxnResponse, Error> {
    read_within(view, request, &mut ReadBudget::with_bytes(usize::MAX))
}

/// As [`read_txn`], for a thread that serves connections: fails with `TakesLong` if the pairs have
/// more than `bytes`, or if the reads hold the index lock more than `INLINE_TXN_INDEX_HOLDS_MAX`
/// times.
pub fn read_txn_shortly(
    view: &View<'_>,
    request: &TxnRequest,
    bytes: usize,
) -> Result<TxnResponse, Error> {
    read_within(view, request, &mut ReadBudget::of_txn(bytes))
}

fn read_within(
    view: &View<'_>,
    request: &TxnRequest,
    budget: &mut ReadBudget,
) -> Result<TxnResponse, Error> {
    let path = Path::choose(view, request)?;
    path.check(view, &NoLeases)?;
    let mut responses = Vec::with_capacity(path.ops.len());
    for op in path.ops {
        let response = match &op.request {
            Some(Request::RequestRange(range)) => {
                Some(Response::Range(view.answer(range, budget)?))
            }
            _ => None,
        };
        responses.push(ResponseOp { response });
    }
    metrics::mvcc_range().inc_by(path.ops.len() as u64);
    let header = Some(ResponseHeader { revision: view.current.revision, ..Default::default() });
    Ok(TxnResponse { header, succeeded: path.succeeded, responses })
}

impl Write<'_> {
    /// Runs a transaction. An error leaves nothing changed.
    pub fn txn(
        &mut self,
        request: &TxnRequest,
        leases: &mut impl Leases,
    ) -> Result<TxnResponse, Error> {
        let view = self.view();
        let path = Path::choose(&view, request)?;
        path.check(&view, leases)?;
        self.expect(path.ops.iter().filter_map(|op| match &op.request {
            Some(Request::RequestPut(put)) => Some(put),
            _ => None,
        }));
        let mut response = self.run(&path, leases)?;
        response.header = Some(ResponseHeader { revision: self.revision(), ..Default::default() });
        Ok(response)
    }

    /// A put outside a transaction, with the checks that a transaction makes.
    pub fn checked_put(
        &mut self,
        request: &PutRequest,
        leases: &mut impl Leases,
    ) -> Result<crate::pb::raw::PutResponse, Error> {
        check_put(&self.view(), leases, request)?;
        self.put(request, leases)
    }

    fn run(&mut self, path: &Path<'_>, leases: &mut impl Leases) -> Result<TxnResponse, Error> {
        let mut responses = Vec::with_capacity(path.ops.len());
        let mut nested = path.nested.iter();
        for op in path.ops {
            let response = match &op.request {
                Some(Request::RequestRange(range)) => Some(Response::Range(self.range(range)?)),
                Some(Request::RequestPut(put)) => Some(Response::Put(self.put(put, leases)?)),
                Some(Request::RequestDeleteRange(delete)) => {
                    Some(Response::DeleteRange(self.delete_range(delete, leases)?))
                }
                Some(Request::RequestTxn(_)) => match nested.next() {
                    Some(path) => Some(Response::Txn(self.run(path, leases)?)),
                    None => None,
                },
                None => None,
            };
            responses.push(ResponseOp { response });
        }
        // The response of a nested transaction has an empty header, as etcd's has.
        let header = Some(ResponseHeader::default());
        Ok(TxnResponse { header, succeeded: path.succeeded, responses })
    }
}

/// The branch that a transaction takes, with the paths of its nested transactions, in order.
struct Path<'a> {
    succeeded: bool,
    ops: &'a [RequestOp],
    nested: Vec<Path<'a>>,
}

impl<'a> Path<'a> {
    /// Evaluates the compares. An error while a row is read fails the transaction: taken as "does
    /// not hold", it would lead this member, and no other, into the other branch.
    fn choose(view: &View<'_>, request: &'a TxnRequest) -> Result<Self, Error> {
        let mut succeeded = true;
        for compare in &request.compare {
            succeeded = match holds(view, compare) {
                Err(_) if planted::is(Bug::ErrorAsFalse) => false,
                outcome => outcome?,
            };
            if !succeeded {
                break;
            }
        }
        let ops = if succeeded { &request.success } else { &request.failure };
        let nested = ops.iter().filter_map(|op| match &op.request {
            Some(Request::RequestTxn(nested)) => Some(Self::choose(view, nested)),
            _ => None,
        });
        Ok(Self { succeeded, ops, nested: nested.collect::<Result<_, _>>()? })
    }

    fn check(&self, view: &View<'_>, leases: &impl Leases) -> Result<(), Error> {
        let mut nested = self.nested.iter();
        for op in self.ops {
            match &op.request {
                Some(Request::RequestRange(range)) => check_range(view, range)?,
                Some(Request::RequestPut(put)) => check_put(view, leases, put)?,
                Some(Request::RequestTxn(_)) => {
                    if let Some(path) = nested.next() {
                        path.check(view, leases)?;
                    }
                }
                Some(Request::RequestDeleteRange(_)) | None => {}
            }
        }
        Ok(())
    }
}

/// Unlike a range outside a transaction, one inside does not take a negative revision as the
/// current one, as in etcd.
fn check_range(view: &View<'_>, request: &RangeRequest) -> Result<(), Error> {
    match request.revision {
        0 => Ok(()),
        revision if revision > view.current.revision => Err(Error::FutureRev),
        revision if revision < view.current.compact_revision => Err(Error::Compacted),
        _ => Ok(()),
    }
}

fn check_put(view: &View<'_>, leases: &impl Leases, request: &PutRequest) -> Result<(), Error> {
    if request.lease != 0 && !leases.exists(request.lease) {
        return Err(Error::LeaseNotFound);
    }
    let needs_key = request.ignore_value || request.ignore_lease;
    let main = view.current.revision;
    if needs_key && view.mvcc.index.read().get(&request.key, main).is_none() {
        return Err(Error::KeyNotFound);
    }
    Ok(())
}

fn holds(view: &View<'_>, compare: &Compare) -> Result<bool, Error> {
    let is_by_index = !matches!(compare.target(), CompareTarget::Value | CompareTarget::Lease);
    let range = KeyRange::new(compare.key.clone(), compare.range_end.clone());
    match view.all(&range, is_by_index, |pair| pair_holds(compare, pair))? {
        Some(holds) => Ok(holds),
        None => {
            // A missing key has no value, and the wire does not tell an empty value from none, so a
            // compare of the value of a missing key never holds, as in etcd.
            let is_value = compare.target == CompareTarget::Value as i32;
            Ok(!is_value && pair_holds(compare, &Pair::default()))
        }
    }
}

fn pair_holds(compare: &Compare, pair: &Pair<'_>) -> bool {
    use std::cmp::Ordering;
    let union = compare.target_union.as_ref();
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Value) => {
            let given = match union {
                Some(TargetUnion::Value(value)) => value.as_ref(),
                _ => &[],
            };
            pair.value.cmp(given)
        }
        Ok(CompareTarget::Version) => pair.version.cmp(&match union {
            Some(TargetUnion::Version(given)) => *given,
            _ => 0,
        }),
        Ok(CompareTarget::Create) => pair.create_revision.cmp(&match union {
            Some(TargetUnion::CreateRevision(given)) => *given,
            _ => 0,
        }),
        Ok(CompareTarget::Mod) => pair.mod_revision.cmp(&match union {
            Some(TargetUnion::ModRevision(given)) => *given,
            _ => 0,
        }),
        Ok(CompareTarget::Lease) => pair.lease.cmp(&match union {
            Some(TargetUnion::Lease(given)) => *given,
            _ => 0,
        }),
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;
    use crate::clock::SystemClock;
    use crate::mvcc::Mvcc;
    use crate::pb::DeleteRangeRequest;
    use crate::store::{Faults, Options, Store};

    #[derive(Default)]
    struct BrokenReads(AtomicBool);

    impl Faults for BrokenReads {
        fn read(&self) -> io::Result<()> {
            match self.0.load(Ordering::Relaxed) {
                true => Err(io::Error::from_raw_os_error(5)),
                false => Ok(()),
            }
        }
    }

    fn put(key: &'static str, value: &'static str) -> PutRequest {
        PutRequest { key: key.into(), value: value.into(), ..Default::default() }
    }

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    /// Whether `a` has the value 1; then the key `yes` is put, else the key `no`.
    fn branching() -> TxnRequest {
        let compare = Compare {
            target: CompareTarget::Value.into(),
            key: "a".into(),
            target_union: Some(TargetUnion::Value("1".into())),
            ..Default::default()
        };
        TxnRequest {
            compare: vec![compare],
            success: vec![op(Request::RequestPut(put("yes", "1")))],
            failure: vec![op(Request::RequestPut(put("no", "1")))],
        }
    }

    #[test]
    fn the_reads_of_a_transaction_are_short_together() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(Arc::new(SystemClock::new()));
        let (store, _) = Store::open(&dir.path().join("db"), options).unwrap();
        let mvcc = Mvcc::new(Arc::new(store));
        let mut write = mvcc.begin();
        write.checked_put(&put("a", "0123456789"), &mut NoLeases).unwrap();
        write.finish();
        mvcc.publish();
        let get = RangeRequest { key: "a".into(), ..Default::default() };
        let of = |reads: usize| TxnRequest {
            success: vec![op(Request::RequestRange(get.clone())); reads],
            ..Default::default()
        };
        let is_short = |request: &TxnRequest| match read_txn_shortly(&mvcc.view(), request, 100) {
            Ok(response) => {
                assert_eq!(response.responses.len(), request.success.len());
                true
            }
            Err(Error::TakesLong) => false,
            Err(error) => panic!("{error}"),
        };
        assert!(is_short(&of(2)));
        assert!(!is_short(&of(50)));
        assert_eq!(read_txn(&mvcc.view(), &of(50)).unwrap().responses.len(), 50);
    }

    #[test]
    fn a_row_that_cannot_be_read_decides_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let reads = Arc::new(BrokenReads::default());
        let mut options = Options::new(Arc::new(SystemClock::new()));
        options.reserve_bytes = 0;
        options.faults = Some(Arc::clone(&reads) as _);
        let (store, _) = Store::open(&dir.path().join("db"), options).unwrap();
        let store = Arc::new(store);
        let mvcc = Mvcc::new(Arc::clone(&store));
        let mut write = mvcc.begin();
        write.checked_put(&put("a", "1"), &mut NoLeases).unwrap();
        write.finish();
        store.seal(1, 1);
        store.flush().unwrap();
        mvcc.publish();

        reads.0.store(true, Ordering::Relaxed);
        let nested = TxnRequest {
            success: vec![op(Request::RequestTxn(Box::new(branching())))],
            ..TxnRequest::default()
        };
        let previous = PutRequest { prev_kv: true, ..put("a", "2") };
        let delete = DeleteRangeRequest { key: "a".into(), prev_kv: true, ..Default::default() };
        let with = |request| TxnRequest { success: vec![op(request)], ..TxnRequest::default() };
        let requests = [
            branching(),
            nested,
            with(Request::RequestPut(previous)),
            with(Request::RequestDeleteRange(delete)),
        ];
        for request in &requests {
            let mut write = mvcc.begin();
            let outcome = write.txn(request, &mut NoLeases);
            assert!(matches!(outcome, Err(Error::Store(_))), "{request:?}: {outcome:?}");
            assert!(write.finish().is_empty(), "{request:?}: something was changed");
            let outcome = read_txn(&mvcc.view(), &branching());
            assert!(matches!(outcome, Err(Error::Store(_))), "{outcome:?}");
        }

        reads.0.store(false, Ordering::Relaxed);
        let mut write = mvcc.begin();
        assert!(write.txn(&branching(), &mut NoLeases).unwrap().succeeded);
        write.finish();
        store.seal(2, 1);
    }

    /// Counts reads of LMDB.
    #[derive(Default)]
    struct CountedReads(AtomicUsize);

    impl Faults for CountedReads {
        fn read(&self) -> io::Result<()> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    /// Keys `k0000` to `k2999` with the values `0` and `1` in turns, none of them in memory.
    fn many_keys(dir: &std::path::Path) -> (Mvcc, Arc<CountedReads>) {
        let reads = Arc::new(CountedReads::default());
        let mut options = Options::new(Arc::new(SystemClock::new()));
        options.faults = Some(Arc::clone(&reads) as _);
        let (store, _) = Store::open(&dir.join("db"), options).unwrap();
        let mvcc = Mvcc::new(Arc::new(store));
        let mut write = mvcc.begin();
        for n in 0..3000 {
            let (key, value) = (format!("k{n:04}").into(), (n % 2).to_string().into());
            let put = PutRequest { key, value, ..Default::default() };
            write.put(&put, &mut NoLeases).unwrap();
        }
        write.finish();
        mvcc.store.seal(1, 1);
        mvcc.store.flush().unwrap();
        mvcc.publish();
        (mvcc, reads)
    }

    fn compare(
        key: &'static str,
        end: &'static str,
        result: CompareResult,
        union: TargetUnion,
    ) -> Compare {
        let target = match union {
            TargetUnion::Value(_) => CompareTarget::Value,
            _ => CompareTarget::Version,
        };
        Compare {
            key: key.into(),
            range_end: end.into(),
            target: target.into(),
            result: result.into(),
            target_union: Some(union),
        }
    }

    #[test]
    fn a_comparison_of_many_keys_ends_with_the_first_that_decides() {
        let dir = tempfile::tempdir().unwrap();
        let (mvcc, reads) = many_keys(dir.path());
        let value = |value: &'static str| TargetUnion::Value(value.into());
        let holds = |compare: Compare| {
            let txn = TxnRequest { compare: vec![compare], ..Default::default() };
            let before = reads.0.load(Ordering::Relaxed);
            let answer = mvcc.begin().txn(&txn, &mut NoLeases).unwrap();
            (answer.succeeded, reads.0.load(Ordering::Relaxed) - before)
        };
        let (equal, less) = (CompareResult::Equal, CompareResult::Less);
        // The second key has another value.
        let (first, read) = holds(compare("k", "l", equal, value("0")));
        assert!(!first && read <= 1, "{read} reads");
        // All of them decide.
        assert!(holds(compare("k", "l", less, value("2"))).0);
        let later = holds(compare("k0000", "k2999", less, value("1")));
        assert!(!later.0 && later.1 <= 1, "{later:?}");
        // No row is needed for these, and none is there for those.
        assert_eq!(holds(compare("k", "l", equal, TargetUnion::Version(1))), (true, 0));
        assert_eq!(holds(compare("k", "l", less, TargetUnion::Version(1))), (false, 0));
        assert_eq!(holds(compare("x", "y", equal, TargetUnion::Version(0))), (true, 0));
        assert_eq!(holds(compare("x", "y", equal, value(""))), (false, 0));
        assert_eq!(holds(compare("k0001", "", equal, value("1"))), (true, 1));
        assert_eq!(holds(compare("x", "", equal, TargetUnion::Version(0))), (true, 0));
        // To the end of all keys.
        assert_eq!(holds(compare("k", "\0", equal, TargetUnion::Version(1))), (true, 0));
    }

    #[test]
    fn what_nobody_awaits_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let (mvcc, reads) = many_keys(dir.path());
        let (key, range_end) = (Bytes::from("k"), Bytes::from("l"));
        let range =
            RangeRequest { key: key.clone(), range_end: range_end.clone(), ..Default::default() };
        let previous = PutRequest { prev_kv: true, ..put("k0001", "2") };
        let delete = DeleteRangeRequest { key: "k0002".into(), range_end, prev_kv: true };
        let txn = TxnRequest {
            success: vec![
                op(Request::RequestRange(range)),
                op(Request::RequestPut(previous)),
                op(Request::RequestDeleteRange(delete)),
            ],
            ..Default::default()
        };
        let before = reads.0.load(Ordering::Relaxed);
        let mut write = mvcc.begin().with_caller(false);
        let answer = write.txn(&txn, &mut NoLeases).unwrap();
        assert_eq!(write.finish().len(), 1 + 2998);
        assert_eq!(answer.responses.len(), 3);
        assert_eq!(reads.0.load(Ordering::Relaxed), before, "rows are read for nobody");
        // The value that a put keeps is read although no call waits: it is stored and not answered.
        let keeps = PutRequest { ignore_value: true, ..put("k0001", "") };
        let txn =
            TxnRequest { success: vec![op(Request::RequestPut(keeps))], ..Default::default() };
        let mut write = mvcc.begin().with_caller(false);
        write.txn(&txn, &mut NoLeases).unwrap();
        let changes = write.finish();
        assert_eq!(Pair::parse(&changes[0].kv).unwrap().value, b"2");
    }
}
