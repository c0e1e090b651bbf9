//! What a request demands: the keys that it reads and writes, flattened, or a standing.
//!
//! Each function here states the whole demand of its request. What leaves the server is a read
//! (values, previous values, the outcome of a compare, keys of a lease), what changes is a write.
//! The keys on a lease are not listed here, where no request would bound them, but walked where
//! the demand is judged.

use std::collections::HashSet;

use bytes::Bytes;

use crate::pb::request_op::Request;
use crate::pb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use crate::planted::{self, Bug};
use crate::types::KeyRange;

/// One use of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    Read(KeyRange),
    Write(KeyRange),
    /// A write of each key that hangs on this lease; of none if there is no such lease.
    WriteOnLease(i64),
    /// A read of each key that hangs on any lease.
    ReadOnLeases,
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

/// The keys that hang on leases: whoever puts a key on one, or ends it, decides about those too.
///
/// Users are locked when it is asked, so leases are locked after users, everywhere.
pub trait LeaseKeys {
    /// Whether a caller has all keys on the lease, or on any if none is given, by `has`. It is
    /// asked of no further key after one that he has not.
    fn has_all(&self, lease: Option<i64>, has: &mut dyn FnMut(&Bytes) -> bool) -> bool;
}

pub fn range(request: &RangeRequest) -> Demand {
    Demand::Keys(vec![read(&request.key, &request.range_end)])
}

pub fn put(request: &PutRequest) -> Demand {
    let mut accesses = Vec::new();
    of_put(request, &mut accesses);
    Demand::Keys(accesses)
}

pub fn delete_range(request: &DeleteRangeRequest) -> Demand {
    let mut accesses = Vec::new();
    of_delete_range(request, &mut accesses);
    Demand::Keys(accesses)
}

pub fn txn(request: &TxnRequest) -> Demand {
    let mut accesses = Vec::new();
    of_txn(request, &mut accesses);
    // Thousands of puts may name one lease with thousands of keys.
    let mut leases = HashSet::new();
    accesses.retain(|access| match access {
        Access::WriteOnLease(lease) => leases.insert(*lease),
        _ => true,
    });
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

/// Ending a lease deletes its keys, and keeping it alive keeps them.
pub fn lease_write(lease: i64) -> Demand {
    Demand::RootOrKeys(vec![Access::WriteOnLease(lease)])
}

/// Showing these keys of a lease.
pub fn lease_reads(keys: &[Bytes]) -> Demand {
    let single = |key: &Bytes| Access::Read(KeyRange::single(key.clone()));
    Demand::RootOrKeys(keys.iter().map(single).collect())
}

/// Showing which leases there are.
pub fn lease_list() -> Demand {
    Demand::RootOrKeys(vec![Access::ReadOnLeases])
}

fn read(key: &Bytes, end: &Bytes) -> Access {
    Access::Read(KeyRange::new(key.clone(), end.clone()))
}

fn write(key: &Bytes, end: &Bytes) -> Access {
    Access::Write(KeyRange::new(key.clone(), end.clone()))
}

fn of_put(request: &PutRequest, accesses: &mut Vec<Access>) {
    accesses.push(write(&request.key, &Bytes::new()));
    if request.prev_kv && !planted::is(Bug::UncheckedPreviousValue) {
        accesses.push(read(&request.key, &Bytes::new()));
    }
    if request.lease != 0 && !planted::is(Bug::UncheckedLease) {
        accesses.push(Access::WriteOnLease(request.lease));
    }
}

fn of_delete_range(request: &DeleteRangeRequest, accesses: &mut Vec<Access>) {
    accesses.push(write(&request.key, &request.range_end));
    if request.prev_kv && !planted::is(Bug::UncheckedPreviousValue) {
        accesses.push(read(&request.key, &request.range_end));
    }
}

/// Both branches count: which one runs already tells what the compares read.
fn of_txn(request: &TxnRequest, accesses: &mut Vec<Access>) {
    for compare in &request.compare {
        accesses.push(read(&compare.key, &compare.range_end));
    }
    for op in request.success.iter().chain(&request.failure) {
        of_op(op, accesses);
    }
}

fn of_op(op: &RequestOp, accesses: &mut Vec<Access>) {
    match &op.request {
        None => {}
        Some(Request::RequestTxn(_)) if planted::is(Bug::UncheckedNestedTxn) => {}
        Some(Request::RequestRange(range)) => accesses.push(read(&range.key, &range.range_end)),
        Some(Request::RequestPut(put)) => of_put(put, accesses),
        Some(Request::RequestDeleteRange(delete)) => of_delete_range(delete, accesses),
        Some(Request::RequestTxn(txn)) => of_txn(txn, accesses),
    }
}
