//! What Lock and Election share: keys under a prefix, each owned by a lease, that wait for each
//! other.
//!
//! The key with the lowest create revision owns the prefix. Every other key watches the newest key
//! before it, and looks again when that one is deleted.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use super::error::{Error, status};
use super::kv::propose;
use super::{Server, check, spans};
use crate::auth::Credentials;
use crate::mvcc::Change;
use crate::node::{Node, Op, Reply, WatchError, WatchStream};
use crate::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::range_request::{SortOrder, SortTarget};
use crate::pb::request_op::Request;
use crate::pb::{
    Compare, DeleteRangeRequest, KeyValue, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, WatchCreateRequest, raw,
};
use crate::trace::Span;
use crate::types::{KeyRange, SignedHex};
use crate::watch::{self as hub, Item, Next};

/// TTL of the lease that is granted to a caller without one, in seconds; etcd's.
const SESSION_TTL_SECONDS: i64 = 60;

/// An error as etcd's Lock and Election send it. They run inside a client in etcd's own process, so
/// each error arrives with code Unknown and keeps its text. Only an expired or canceled context has a
/// code of its own, which grpc-go gives it.
pub(super) fn as_unknown(error: Status) -> Status {
    match error.code() {
        Code::DeadlineExceeded | Code::Cancelled => error,
        _ => Status::unknown(error.message()),
    }
}

pub(super) fn put(key: Bytes, value: Bytes, lease: i64) -> RequestOp {
    let request = PutRequest { key, value, lease, ..Default::default() };
    RequestOp { request: Some(Request::RequestPut(request)) }
}

pub(super) fn get(key: Bytes) -> RequestOp {
    let request = RangeRequest { key, ..Default::default() };
    RequestOp { request: Some(Request::RequestRange(request)) }
}

/// The key of a lease under a prefix. All servers, etcd's included, must name the same key, so a
/// negative id is a minus sign and a magnitude in hexadecimal, as Go formats it.
pub(super) fn key_of(prefix: &[u8], lease: i64) -> Bytes {
    let lease = format!("{:x}", SignedHex(lease));
    [prefix, lease.as_bytes()].concat().into()
}

/// The request for the oldest key under the prefix.
pub(super) fn first_created(prefix: &[u8]) -> RangeRequest {
    RangeRequest {
        key: Bytes::copy_from_slice(prefix),
        range_end: prefix_end(prefix),
        sort_order: SortOrder::Ascend as i32,
        sort_target: SortTarget::Create as i32,
        limit: 1,
        ..Default::default()
    }
}

pub(super) fn range_op(request: RangeRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestRange(request)) }
}

pub(super) fn delete(key: Bytes) -> RequestOp {
    let request = DeleteRangeRequest { key, ..Default::default() };
    RequestOp { request: Some(Request::RequestDeleteRange(request)) }
}

/// The condition that the key was created at `revision`; 0 means that it does not exist.
pub(super) fn created_at(key: Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

/// The first key behind all keys with this prefix; a zero byte, for "all keys from start", if no
/// key is.
pub(super) fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end.into();
        }
    }
    Bytes::from_static(&[0])
}

/// The first row that operation `at` of a transaction found; None if it was no range or found none.
pub(super) fn found(response: &raw::TxnResponse, at: usize) -> Option<KeyValue> {
    match response.responses.get(at)?.response.as_ref()? {
        raw::Response::Range(range) => first(range),
        _ => None,
    }
}

pub(super) fn first(range: &raw::RangeResponse) -> Option<KeyValue> {
    KeyValue::decode(range.kvs.first()?.clone()).ok()
}

impl Server {
    /// The caller's lease, or a new one if `lease` is 0.
    pub(super) async fn session(&self, who: &Credentials, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let request = LeaseGrantRequest { ttl: SESSION_TTL_SECONDS, id: 0 };
        Ok(propose!(self, who, LeaseGrant, request)?.id)
    }

    pub(super) async fn commit(
        &self,
        who: &Credentials,
        request: TxnRequest,
    ) -> Result<raw::TxnResponse, Status> {
        // As a client's transaction would be: its keys come from a request, too.
        check::txn(&request, self.config.txn_ops_max)?;
        propose!(self, who, Txn, request)
    }

    pub(super) async fn get(
        &self,
        who: &Credentials,
        request: &RangeRequest,
    ) -> Result<raw::RangeResponse, Status> {
        self.node.range(who, request).await.map_err(status)
    }

    /// Waits until no key under the prefix is older than the one created at `revision`.
    pub(super) async fn wait_for_older_keys(
        &self,
        who: &Credentials,
        prefix: &[u8],
        revision: i64,
    ) -> Result<(), Status> {
        let older = RangeRequest {
            key: Bytes::copy_from_slice(prefix),
            range_end: prefix_end(prefix),
            sort_order: SortOrder::Descend as i32,
            sort_target: SortTarget::Create as i32,
            max_create_revision: revision - 1,
            limit: 1,
            ..Default::default()
        };
        loop {
            let range = self.get(who, &older).await?;
            let Some(before) = first(&range) else { return Ok(()) };
            self.wait_delete(who, before.key, before.create_revision).await?;
        }
    }

    /// Waits until the key that was created at revision `created` is deleted.
    async fn wait_delete(&self, who: &Credentials, key: Bytes, created: i64) -> Result<(), Status> {
        // The watcher begins before the read: in the other order, a deletion between the two would
        // never be seen.
        let mut events = Events::new(&self.node, who, KeyRange::single(key.clone())).await?;
        let request = RangeRequest { key, serializable: true, ..Default::default() };
        loop {
            let range = self.get(who, &request).await?;
            if first(&range).is_none_or(|row| row.create_revision != created) {
                return Ok(());
            }
            events.next().await?;
        }
    }
}

/// The changes of a range from the present on, in order.
pub(super) struct Events {
    stream: WatchStream,
    /// Changes that were taken from the stream and not returned yet, each with the revision of its
    /// batch.
    taken: VecDeque<(i64, Change)>,
    _span: Span,
}

impl Events {
    pub(super) async fn new(
        node: &Node,
        who: &Credentials,
        range: KeyRange,
    ) -> Result<Self, Status> {
        let stream = node.watch_stream();
        let watcher = WatchCreateRequest::default();
        let _span = node
            .tracer()
            .within(who.span(), "watch", || spans::of_watcher(&range.key, &range.end, &watcher));
        let (start_revision, watch_id) = (0, 0);
        let (no_put, no_delete, prev_kv) = (false, false, false);
        let spec = hub::WatchSpec { range, start_revision, watch_id, no_put, no_delete, prev_kv };
        match stream.create(who, spec).await {
            Ok(_) => Ok(Self { stream, taken: VecDeque::new(), _span }),
            Err(WatchError::Refused(error)) => Err(status(error)),
            Err(WatchError::Watch(error)) => Err(Status::unknown(error.to_string())),
        }
    }

    /// The next change, and the revision of its batch.
    pub(super) async fn next(&mut self) -> Result<(i64, Change), Status> {
        loop {
            if let Some(change) = self.taken.pop_front() {
                return Ok(change);
            }
            match self.stream.next() {
                Next::Item(item) => self.take(item)?,
                Next::Wait => self.stream.wait().await,
                Next::CatchUp => self.stream.catch_up().await.map_err(status)?,
            }
        }
    }

    fn take(&mut self, item: Item) -> Result<(), Status> {
        match item {
            Item::Events { revision, changes, .. } => {
                self.taken.extend(changes.into_iter().map(|change| (revision, change)));
                Ok(())
            }
            Item::Compacted { .. } => Err(Error::Compacted.into()),
            Item::Created { .. } | Item::Canceled { .. } | Item::Progress { .. } => Ok(()),
        }
    }
}

/// Deletes the key of a caller that waits, when the call is dropped or fails, unless `keep` was
/// called.
pub(super) struct ContenderKey {
    server: Arc<Server>,
    who: Credentials,
    key: Bytes,
    created: i64,
    armed: bool,
}

impl ContenderKey {
    pub(super) fn new(server: Arc<Server>, who: Credentials, key: Bytes, created: i64) -> Self {
        Self { server, who, key, created, armed: true }
    }

    pub(super) fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for ContenderKey {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (server, key, created) = (Arc::clone(&self.server), self.key.clone(), self.created);
        let who = self.who.clone();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // The call has ended, so a failure of this transaction has no reader; the key then lives
        // until its lease expires.
        let supervisor = server.node.supervisor().clone();
        supervisor.task_on(&runtime, "lock-waiter", async move {
            let request = TxnRequest {
                compare: vec![created_at(key.clone(), created)],
                success: vec![delete(key)],
                failure: Vec::new(),
            };
            drop(server.commit(&who, request).await);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_its_lease_as_etcd_does() {
        assert_eq!(key_of(b"L/", -5).as_ref(), b"L/-5");
        assert_eq!(key_of(b"L/", 0x694d_bf2d).as_ref(), b"L/694dbf2d");
        assert_eq!(key_of(b"\xff/", i64::MIN).as_ref(), b"\xff/-8000000000000000");
    }

    #[test]
    fn a_prefix_ends_where_its_last_byte_can_grow() {
        assert_eq!(prefix_end(b"a/").as_ref(), b"a0");
        assert_eq!(prefix_end(b"a\xff\xff").as_ref(), b"b");
        assert_eq!(prefix_end(b"\xff").as_ref(), b"\0");
        assert_eq!(prefix_end(b"").as_ref(), b"\0");
    }
}
