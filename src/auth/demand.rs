//! The demand of a request: the keys that it reads and writes as a flat list, or what its caller
//! must be.
//!
//! Each function here states the whole demand of its request. What the answer shows is a read
//! (values, previous values, the outcome of a compare, keys of a lease); what the request changes
//! is a write. The keys on a lease are not listed here, because no request bounds their number:
//! they are walked where the demand is checked.

use std::collections::HashSet;

use bytes::Bytes;

use crate::pb::request_op::Request;
use crate::pb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest};
use crate::planted::{self, Bug};
use crate::types::KeyRange;

/// A read or write of keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    Read(KeyRange),
    Write(KeyRange),
    /// A write of each key on this lease; of none if there is no such lease.
    WriteOnLease(i64),
    /// A read of each key on any lease.
    ReadOnLeases,
}

/// What a caller must be, or have rights to, for its request to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Nothing: a caller without a name is served too.
    Nothing,
    /// A name; any user will do.
    AnyUser,
    /// A holder of the role root.
    Root,
    /// Rights to all of these accesses, as of the current auth revision.
    Keys(Vec<Access>),
    /// The role root, as of any auth revision, or rights to all of these accesses.
    RootOrKeys(Vec<Access>),
    /// The role root, or to be this user.
    RootOrUser(String),
    /// The role root, or this role.
    RootOrHolder(String),
}

/// The keys on leases. A put on a lease, and the end of a lease, need rights to all keys on it.
///
/// Called while users are locked: everywhere, users are locked before leases.
pub trait LeaseKeys {
    /// Whether `has` is true of all keys on the lease, or on all leases if none is given. Stops at
    /// the first key for which it is false.
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
    // Each lease once: thousands of puts may name one lease that has thousands of keys.
    let mut leases = HashSet::new();
    accesses.retain(|access| match access {
        Access::WriteOnLease(lease) => leases.insert(*lease),
        _ => true,
    });
    Demand::Keys(accesses)
}

/// A watcher reads whatever changes in its range. `range` is the one that is really watched, which
/// may differ from the request's.
pub fn watch(range: &KeyRange) -> Demand {
    let mut range = range.clone();
    if range.is_open() && planted::is(Bug::UncheckedWatchFromKey) {
        range = KeyRange::single(range.key);
    }
    Demand::Keys(vec![Access::Read(range)])
}

/// The end of a lease deletes its keys, and a renewal keeps them.
pub fn lease_write(lease: i64) -> Demand {
    Demand::RootOrKeys(vec![Access::WriteOnLease(lease)])
}

/// The answer shows these keys of a lease.
pub fn lease_reads(keys: &[Bytes]) -> Demand {
    let single = |key: &Bytes| Access::Read(KeyRange::single(key.clone()));
    Demand::RootOrKeys(keys.iter().map(single).collect())
}

/// The answer shows the ids of all leases.
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

/// Both branches count: which of them runs already tells what the compares read.
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
