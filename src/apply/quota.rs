//! The bytes that a request may add to the store, and whether the quota has room for them.
//!
//! The estimate of a request's bytes is etcd's (`quota.go`), since it decides which request gets
//! NOSPACE.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::command::Command;
use crate::pb::request_op::Request;
use crate::pb::{PutRequest, RequestOp, TxnRequest};

/// The size of this member's store against its quota. It differs between members, so it decides
/// about replies only and never about the state.
#[derive(Debug)]
pub struct Quota {
    /// 0 or less for no quota.
    limit_bytes: i64,
    size_bytes: Arc<AtomicI64>,
}

impl Quota {
    pub fn new(limit_bytes: i64, size_bytes: Arc<AtomicI64>) -> Self {
        Self { limit_bytes, size_bytes }
    }

    pub fn has_room_for(&self, cost_bytes: i64) -> bool {
        let size_bytes = self.size_bytes.load(Ordering::Relaxed);
        self.limit_bytes <= 0 || size_bytes.saturating_add(cost_bytes) < self.limit_bytes
    }
}

const PUT_OVERHEAD_BYTES: i64 = 256;
const LEASE_BYTES: i64 = 64;

fn put_cost(put: &PutRequest) -> i64 {
    let data = i64::try_from(put.key.len() + put.value.len()).unwrap_or(i64::MAX);
    PUT_OVERHEAD_BYTES.saturating_add(data)
}

fn ops_cost(ops: &[RequestOp]) -> i64 {
    let cost = |op: &RequestOp| match &op.request {
        Some(Request::RequestPut(put)) => put_cost(put),
        Some(Request::RequestTxn(txn)) => txn_cost(txn),
        _ => 0,
    };
    ops.iter().map(cost).fold(0, i64::saturating_add)
}

fn txn_cost(txn: &TxnRequest) -> i64 {
    ops_cost(&txn.success).max(ops_cost(&txn.failure))
}

/// The bytes that a request may add, by etcd's estimate; None if it adds none.
pub fn cost(command: &Command) -> Option<i64> {
    match command {
        Command::Put(put) => Some(put_cost(put)),
        // A transaction that only reads or deletes has no cost, so that it passes on a full store.
        Command::Txn(txn) => Some(txn_cost(txn)).filter(|bytes| *bytes > 0),
        Command::LeaseGrant(_) => Some(LEASE_BYTES),
        _ => None,
    }
}
