//! What a request demands: the keys that it reads and writes, flattened, or a standing.
//!
//! Each function here states the whole demand of its request. What leaves the server is a read
//! (values, previous values, the outcome of a compare, keys of a lease), what changes is a write.

use bytes::Bytes;

use crate::pb::request_op::Request;
use crate::pb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use crate::planted::{self, Bug};
use crate::types::KeyRange;

/// One use of a range of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    Read(KeyRange),
    Write(KeyRange),
}

/// What a caller must be for a request to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Anybody, even without a name.
    Nothing,
    /// Somebody; it does not matter who.
    Somebody,
    /// A holder of the role root.
    Root,
    /// Each of these, as of the current auth revision.
    Keys(Vec<Access>),
    /// A holder of the role root as of any revision, or each of these.
    RootOrKeys(Vec<Access>),
    /// A holder of the role root, or the user himself.
    RootOrUser(String),
    /// A holder of the role root, or of this one.
    RootOrHolder(String),
}

/// The keys that hang on a lease: whoever puts a key on it, or ends it, decides about those too.
pub trait LeaseKeys {
    /// Nothing for a lease that does not exist.
    fn keys(&self, lease: i64) -> Vec<Bytes>;
}

pub fn range(request: &RangeRequest) -> Demand {
    Demand::Keys(vec![read(&request.key, &request.range_end)])
}

pub fn put(request: &PutRequest, leases: &dyn LeaseKeys) -> Demand {
    let mut accesses = Vec::new();
    of_put(request, leases, &mut accesses);
    Demand::Keys(accesses)
}

pub fn delete_range(request: &DeleteRangeRequest) -> Demand {
    let mut accesses = Vec::new();
    of_delete_range(request, &mut accesses);
    Demand::Keys(accesses)
}

pub fn txn(request: &TxnRequest, leases: &dyn LeaseKeys) -> Demand {
    let mut accesses = Vec::new();
    of_txn(request, leases, &mut accesses);
    Demand::Keys(accesses)
}

/// Watching is reading whatever comes. The range is the one that is watched, not what was asked.
pub fn watch(range: &KeyRange) -> Demand {
    let mut range = range.clone();
    if range.is_open() && planted::is(Bug::UncheckedWatchFromKey) {
        range = KeyRange::single(range.key);
    }
    Demand::Keys(vec![Access::Read(range)])
}

/// Ending a lease deletes its keys.
pub fn lease_revoke(lease: i64, leases: &dyn LeaseKeys) -> Demand {
    lease_writes(leases.keys(lease))
}

/// Keeping a lease alive keeps its keys.
pub fn lease_writes(keys: Vec<Bytes>) -> Demand {
    Demand::RootOrKeys(keys.into_iter().map(|key| Access::Write(KeyRange::single(key))).collect())
}

/// Showing the keys of leases, or which leases there are.
pub fn lease_reads(keys: Vec<Bytes>) -> Demand {
    Demand::RootOrKeys(keys.into_iter().map(|key| Access::Read(KeyRange::single(key))).collect())
}

fn read(key: &Bytes, end: &Bytes) -> Access {
    Access::Read(KeyRange::new(key.clone(), end.clone()))
}

fn write(key: &Bytes, end: &Bytes) -> Access {
    Access::Write(KeyRange::new(key.clone(), end.clone()))
}

fn of_put(request: &PutRequest, leases: &dyn LeaseKeys, accesses: &mut Vec<Access>) {
    accesses.push(write(&request.key, &Bytes::new()));
    if request.prev_kv && !planted::is(Bug::UncheckedPreviousValue) {
        accesses.push(read(&request.key, &Bytes::new()));
    }
    if request.lease != 0 && !planted::is(Bug::UncheckedLease) {
        let keys = leases.keys(request.lease);
        accesses.extend(keys.into_iter().map(|key| Access::Write(KeyRange::single(key))));
    }
}

fn of_delete_range(request: &DeleteRangeRequest, accesses: &mut Vec<Access>) {
    accesses.push(write(&request.key, &request.range_end));
    if request.prev_kv && !planted::is(Bug::UncheckedPreviousValue) {
        accesses.push(read(&request.key, &request.range_end));
    }
}

/// Both branches count: which one runs already tells what the compares read.
fn of_txn(request: &TxnRequest, leases: &dyn LeaseKeys, accesses: &mut Vec<Access>) {
    for compare in &request.compare {
        accesses.push(read(&compare.key, &compare.range_end));
    }
    for op in request.success.iter().chain(&request.failure) {
        of_op(op, leases, accesses);
    }
}

fn of_op(op: &RequestOp, leases: &dyn LeaseKeys, accesses: &mut Vec<Access>) {
    match &op.request {
        None => {}
        Some(Request::RequestTxn(_)) if planted::is(Bug::UncheckedNestedTxn) => {}
        Some(Request::RequestRange(range)) => accesses.push(read(&range.key, &range.range_end)),
        Some(Request::RequestPut(put)) => of_put(put, leases, accesses),
        Some(Request::RequestDeleteRange(delete)) => of_delete_range(delete, accesses),
        Some(Request::RequestTxn(txn)) => of_txn(txn, leases, accesses),
    }
}
