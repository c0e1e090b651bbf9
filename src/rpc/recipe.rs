//! What Lock and Election share: a key under a prefix, owned by a lease, and its turn.
//!
//! The owner of a prefix is its key with the lowest create revision. A key that waits watches the
//! newest of the keys before it and looks again when that one is gone.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tonic::Status;

use super::Server;
use super::error::{Error, status};
use super::kv::propose;
use crate::auth::Credentials;
use crate::mvcc::Change;
use crate::node::{Node, Op, Reply, WatchError, WatchStream};
use crate::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::range_request::{SortOrder, SortTarget};
use crate::pb::request_op::Request;
use crate::pb::{
    Compare, DeleteRangeRequest, KeyValue, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp,
    TxnRequest, raw,
};
use crate::types::{KeyRange, SignedHex};
use crate::watch::{self as hub, Item, Next};

/// What a lease of a caller who brought none lives, in seconds.
const SESSION_TTL_SECONDS: i64 = 60;

/// The recipes run inside etcd's own client there, so each of their errors arrives as Unknown.
pub(super) fn as_unknown(error: Status) -> Status {
    Status::unknown(error.message())
}

pub(super) fn put(key: Bytes, value: Bytes, lease: i64) -> RequestOp {
    let request = PutRequest { key, value, lease, ..Default::default() };
    RequestOp { request: Some(Request::RequestPut(request)) }
}

pub(super) fn get(key: Bytes) -> RequestOp {
    let request = RangeRequest { key, ..Default::default() };
    RequestOp { request: Some(Request::RequestRange(request)) }
}

/// The key of a lease under a prefix. Two servers must name the same one, so a negative id is a sign
/// and a magnitude, as in Go.
pub(super) fn key_of(prefix: &[u8], lease: i64) -> Bytes {
    let lease = format!("{:x}", SignedHex(lease));
    [prefix, lease.as_bytes()].concat().into()
}

/// The oldest key under the prefix.
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

/// Holds while the key was created at this revision; 0 means that it does not exist.
pub(super) fn created_at(key: Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Default::default()
    }
}

/// The first key after all keys with this prefix.
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

/// The row that an answer of a transaction found, if it was a range and found one.
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
    /// The caller's lease, or a new one.
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
    pub(super) async fn wait_turn(
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

    /// Waits until the key of this create revision is gone.
    async fn wait_delete(&self, who: &Credentials, key: Bytes, created: i64) -> Result<(), Status> {
        // The watcher is there before the look, so that no deletion falls between.
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

/// Each change of a range from now on, in order.
pub(super) struct Events {
    stream: WatchStream,
    /// Changes that were taken from the stream, each with its header's revision.
    taken: VecDeque<(i64, Change)>,
}

impl Events {
    pub(super) async fn new(
        node: &Node,
        who: &Credentials,
        range: KeyRange,
    ) -> Result<Self, Status> {
        let stream = node.watch_stream();
        let (start_revision, watch_id) = (0, 0);
        let (no_put, no_delete, prev_kv) = (false, false, false);
        let spec = hub::Spec { range, start_revision, watch_id, no_put, no_delete, prev_kv };
        match stream.create(who, spec).await {
            Ok(_) => Ok(Self { stream, taken: VecDeque::new() }),
            Err(WatchError::Refused(error)) => Err(status(error)),
            Err(WatchError::Watch(error)) => Err(Status::unknown(error.to_string())),
        }
    }

    /// The next change, and the revision of the answer that carries it.
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

/// Takes a waiter's key back when its caller goes away or its wait fails.
pub(super) struct Waiter {
    server: Arc<Server>,
    who: Credentials,
    key: Bytes,
    created: i64,
    armed: bool,
}

impl Waiter {
    pub(super) fn new(server: Arc<Server>, who: Credentials, key: Bytes, created: i64) -> Self {
        Self { server, who, key, created, armed: true }
    }

    pub(super) fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (server, key, created) = (Arc::clone(&self.server), self.key.clone(), self.created);
        let who = self.who.clone();
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        // The call is over, so that nobody is left to hear of a failure; the lease ends the key.
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
