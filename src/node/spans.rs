//! The spans of a member's steps. Names, attributes and events are those of etcd
//! (server/etcdserver/v3_server.go), so that what looks at etcd's traces finds them here.

use super::{Error, Node, Op};
use crate::pb::request_op::Request;
use crate::pb::{Compare, RangeRequest, RequestOp, TxnRequest};
use crate::trace::{Attributes, Context, Span, Tracer};
use crate::{apply, auth};

impl Node {
    pub fn tracer(&self) -> &Tracer {
        &self.0.tracer
    }

    /// Begins the span of a proposal; None if its kind has none, or if nothing is traced.
    pub(super) fn span_of(&self, context: &Context, op: &Op) -> Option<Span> {
        let tracer = self.tracer();
        if !tracer.is_on() {
            return None;
        }
        Some(match op {
            Op::Put(put) => tracer.within(context, "put", || vec![("key", (&*put.key).into())]),
            Op::DeleteRange(delete) => tracer.within(context, "delete_range", || {
                vec![
                    ("range_begin", (&*delete.key).into()),
                    ("range_end", (&*delete.range_end).into()),
                ]
            }),
            Op::Txn(txn) => tracer.within(context, "txn", || of_txn(txn, false)),
            Op::Compaction(compaction) => tracer.within(context, "compact", || {
                vec![
                    ("is_physical", compaction.physical.into()),
                    ("rev", compaction.revision.into()),
                ]
            }),
            Op::LeaseGrant(grant) => tracer.within(context, "lease_grant", || {
                vec![("id", grant.id.into()), ("ttl", grant.ttl.into())]
            }),
            Op::LeaseRevoke(revoke) => {
                tracer.within(context, "lease_revoke", || vec![("id", revoke.id.into())])
            }
            _ => return None,
        })
    }
}

pub(super) fn of_range(range: &RangeRequest) -> Attributes {
    vec![
        ("range_begin", (&*range.key).into()),
        ("range_end", (&*range.range_end).into()),
        ("rev", range.revision.into()),
        ("limit", range.limit.into()),
        ("count_only", range.count_only.into()),
        ("keys_only", range.keys_only.into()),
    ]
}

pub(super) fn of_txn(txn: &TxnRequest, is_read_only: bool) -> Attributes {
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX).into();
    let key = |Compare { key, .. }: &Compare| (!key.is_empty()).then(|| key.clone());
    let compared = txn.compare.iter().find_map(key).unwrap_or_default();
    let (key, kind, lease) = first_of(&txn.success);
    vec![
        ("compare_first_key", (&*compared).into()),
        ("success_first_key", key.into()),
        ("success_first_type", kind.into()),
        ("success_first_lease", lease.into()),
        ("compare_len", count(txn.compare.len())),
        ("success_len", count(txn.success.len())),
        ("failure_len", count(txn.failure.len())),
        ("read_only", is_read_only.into()),
    ]
}

/// The first key that is not empty, the kind of the first operation, and the lease of the first put;
/// -1 if there is no put.
fn first_of(ops: &[RequestOp]) -> (&[u8], &'static str, i64) {
    let requests = || ops.iter().filter_map(|op| op.request.as_ref());
    let key = requests().find_map(|request| {
        let key = match request {
            Request::RequestPut(put) => &put.key,
            Request::RequestRange(range) => &range.key,
            Request::RequestDeleteRange(delete) => &delete.key,
            Request::RequestTxn(_) => return None,
        };
        (!key.is_empty()).then_some(&**key)
    });
    let kind = requests().next().map(|request| match request {
        Request::RequestPut(_) => "put",
        Request::RequestRange(_) => "range",
        Request::RequestDeleteRange(_) => "delete_range",
        Request::RequestTxn(_) => "txn",
    });
    let lease = requests().find_map(|request| match request {
        Request::RequestPut(put) => Some(put.lease),
        _ => None,
    });
    (key.unwrap_or_default(), kind.unwrap_or_default(), lease.unwrap_or(-1))
}

/// Notes, as etcd does, an error that a proposal met on its way and not where it was applied.
pub(super) fn note_error(span: &Context, error: &Error) {
    let is_of_apply = match error {
        Error::Apply(apply::Error::Auth(auth::Error::InvalidToken)) => false,
        Error::Apply(_) => true,
        _ => false,
    };
    if is_of_apply {
        return;
    }
    span.event_with("exception", || {
        // The types are those that the errors have in Go.
        let (kind, text) = match error {
            Error::DeadlineExceeded => ("context.deadlineExceededError", error.to_string()),
            Error::Apply(_) | Error::Internal(_) => ("*errors.errorString", error.to_string()),
            _ => ("*errors.errorString", format!("etcdserver: {error}")),
        };
        vec![("exception.type", kind.into()), ("exception.message", text.as_str().into())]
    });
}
