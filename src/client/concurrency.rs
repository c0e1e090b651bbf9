//! etcd's recipes: a session (a lease that is kept alive while it exists), and a lock and an
//! election that put their keys on its lease.
//!
//! Contenders put keys `name/<lease id>` and order themselves by create revision; each waits until
//! every key created before its own is gone.

use bytes::Bytes;
use tokio::sync::watch as flag;
use tokio::task::JoinHandle;

use super::connection::Client;
use super::deadline::Deadline;
use super::error::Error;
use super::keep_alive::KeepAlive;
use super::methods::rpc;
use super::prefix_end;
use super::watch::{WatchSpec, Watcher};
use crate::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::range_request::{SortOrder, SortTarget};
use crate::pb::request_op::Request;
use crate::pb::response_op::Response;
use crate::pb::{
    Compare, DeleteRangeRequest, EventType, LeaseGrantRequest, PutRequest, RangeRequest,
    RangeResponse, RequestOp, TxnRequest, TxnResponse,
};
use crate::types::SignedHex;

/// A lease and the task that keeps it alive. Dropping it ends the task, and the lease expires.
pub struct Session {
    client: Client,
    lease: i64,
    lost: flag::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Session {
    /// Grants a lease of `ttl` seconds until `deadline`, and starts the task that renews it.
    pub async fn new(client: &Client, ttl: i64, deadline: Deadline) -> Result<Self, Error> {
        let request = LeaseGrantRequest { ttl, id: 0 };
        let lease = client.call(&rpc::LEASE_GRANT, request, deadline).await?.id;
        let (sender, lost) = flag::channel(false);
        let mut keep_alive = KeepAlive::new(client, lease);
        let task = tokio::spawn(async move {
            while keep_alive.next().await.is_some() {}
            // Fails if the session was dropped, and then no caller waits for it.
            let _ = sender.send(true);
        });
        Ok(Self { client: client.clone(), lease, lost, task })
    }

    /// The prefix under which all contenders for `name` put their keys, and this session's key
    /// there.
    fn place(&self, name: &[u8]) -> (Vec<u8>, Bytes) {
        let prefix = [name, b"/"].concat();
        let lease = format!("{:x}", SignedHex(self.lease));
        let key = [prefix.as_slice(), lease.as_bytes()].concat().into();
        (prefix, key)
    }

    /// Returns when the lease is lost.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        // The sender sends before it is dropped, unless the runtime ends; an error means the loss
        // as well.
        let _ = lost.wait_for(|lost| *lost).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A lock, shared by all sessions that name it alike.
pub struct Mutex<'a> {
    session: &'a Session,
    prefix: Vec<u8>,
    key: Bytes,
    revision: i64,
    /// Whether the transaction that puts the key was sent. Until it is answered, `revision` is 0
    /// though the key may exist, and `unlock` must delete it.
    put_sent: bool,
    /// A revision at which this session held the lock.
    pub held_revision: i64,
}

impl<'a> Mutex<'a> {
    pub fn new(session: &'a Session, name: &[u8]) -> Self {
        let (prefix, key) = session.place(name);
        Self { session, prefix, key, revision: 0, put_sent: false, held_revision: 0 }
    }

    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// Waits for the lock. If this future is dropped, its key stays in the queue until
    /// [`Mutex::unlock`] deletes it or the lease ends.
    pub async fn lock(&mut self) -> Result<(), Error> {
        let owner = first_created(&self.prefix);
        let put = put_if_absent(&self.key, Bytes::new(), self.session.lease, Some(owner));
        self.put_sent = true;
        let response = self.session.client.call(&rpc::TXN, put, Deadline::NONE).await?;
        self.revision = created_at(&response);
        let owner = response.responses.get(1).and_then(|op| range_of(op.response.as_ref()?));
        let owner = owner.and_then(|range| range.kvs.first());
        if owner.is_none_or(|kv| kv.create_revision == self.revision) {
            self.held_revision = revision_of(&response);
            return Ok(());
        }
        let waited = wait_deletes(&self.session.client, &self.prefix, self.revision - 1).await;
        if let Err(error) = waited {
            self.unlock().await?;
            return Err(error);
        }
        let mine = get(&self.session.client, &self.key).await?;
        if mine.kvs.is_empty() {
            return Err(Error::Other("mutex: session is expired".into()));
        }
        self.held_revision = mine.header.map_or(0, |header| header.revision);
        Ok(())
    }

    /// Deletes this session's key, whether it holds the lock or waits for it. Fails if `lock` was
    /// not called before.
    pub async fn unlock(&mut self) -> Result<(), Error> {
        if self.revision <= 0 && !self.put_sent {
            return Err(Error::Other("mutex: lock has already been released".into()));
        }
        let request = DeleteRangeRequest { key: self.key.clone(), ..DeleteRangeRequest::default() };
        self.session.client.call(&rpc::DELETE_RANGE, request, Deadline::NONE).await?;
        (self.revision, self.put_sent) = (0, false);
        Ok(())
    }
}

/// An election, shared by all sessions that name it alike.
pub struct Election<'a> {
    session: &'a Session,
    prefix: Vec<u8>,
    key: Bytes,
    revision: i64,
    /// Whether the transaction that puts the key was sent. Until it is answered, `revision` is 0
    /// though the key may exist, and `resign` must delete it.
    put_sent: bool,
}

impl<'a> Election<'a> {
    pub fn new(session: &'a Session, name: &[u8]) -> Self {
        let (prefix, key) = session.place(name);
        Self { session, prefix, key, revision: 0, put_sent: false }
    }

    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// Waits until this session leads, with `value`.
    pub async fn campaign(&mut self, value: Bytes) -> Result<(), Error> {
        let put = put_if_absent(&self.key, value, self.session.lease, None);
        self.put_sent = true;
        let response = self.session.client.call(&rpc::TXN, put, Deadline::NONE).await?;
        self.revision = created_at(&response);
        wait_deletes(&self.session.client, &self.prefix, self.revision - 1).await
    }

    /// Deletes this session's key, whether it leads or waits.
    pub async fn resign(&mut self) -> Result<(), Error> {
        if self.revision == 0 && !self.put_sent {
            return Ok(());
        }
        let delete = DeleteRangeRequest { key: self.key.clone(), ..DeleteRangeRequest::default() };
        let compare = Some(created_is(&self.key, self.revision)).filter(|_| self.revision != 0);
        let request = TxnRequest {
            compare: compare.into_iter().collect(),
            success: vec![op(Request::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        self.session.client.call(&rpc::TXN, request, Deadline::NONE).await?;
        (self.revision, self.put_sent) = (0, false);
        Ok(())
    }

    /// Calls `each` for each leader in turn, and for each new value of a leader. Returns when a
    /// watch is cancelled or `each` fails.
    pub async fn observe(
        &self,
        mut each: impl FnMut(RangeResponse) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let client = &self.session.client;
        loop {
            let request = first_created(&self.prefix);
            let mut leader = client.call(&rpc::RANGE, request, Deadline::NONE).await?;
            if leader.kvs.is_empty() {
                let revision = leader.header.as_ref().map_or(0, |header| header.revision);
                leader = self.first_put(revision).await?;
            }
            leader.more = false;
            leader.count = 0;
            leader.kvs.truncate(1);
            let key = leader.kvs.first().map(|kv| kv.key.clone()).unwrap_or_default();
            let revision = leader.header.as_ref().map_or(0, |header| header.revision);
            each(leader)?;
            let mut watcher = Watcher::new(client, false);
            watcher.add(WatchSpec { key, revision: revision + 1, ..WatchSpec::default() });
            'leader: loop {
                let Some(batch) = watcher.next().await else { return Ok(()) };
                if batch.canceled {
                    return Ok(());
                }
                for event in batch.events {
                    if event.r#type() == EventType::Delete {
                        break 'leader;
                    }
                    let kvs = event.kv.into_iter().collect();
                    let header = Some(batch.header);
                    each(RangeResponse { header, kvs, ..RangeResponse::default() })?;
                }
            }
        }
    }

    async fn first_put(&self, revision: i64) -> Result<RangeResponse, Error> {
        let mut watcher = Watcher::new(&self.session.client, false);
        let spec = WatchSpec {
            key: self.prefix.clone().into(),
            range_end: prefix_end(&self.prefix).into(),
            revision,
            ..WatchSpec::default()
        };
        watcher.add(spec);
        while let Some(batch) = watcher.next().await {
            if let Some(text) = batch.error() {
                return Err(Error::Other(text));
            }
            for event in batch.events {
                if event.r#type() == EventType::Put
                    && let Some(kv) = event.kv
                {
                    let mut header = batch.header;
                    header.revision = kv.mod_revision;
                    let (header, kvs) = (Some(header), vec![kv]);
                    return Ok(RangeResponse { header, kvs, ..RangeResponse::default() });
                }
            }
        }
        Err(Error::Other("lost watcher".into()))
    }
}

/// Waits until all keys under `prefix` with a create revision up to `revision` are deleted.
async fn wait_deletes(client: &Client, prefix: &[u8], revision: i64) -> Result<(), Error> {
    loop {
        let request = RangeRequest {
            key: Bytes::copy_from_slice(prefix),
            range_end: prefix_end(prefix).into(),
            limit: 1,
            sort_order: SortOrder::Descend.into(),
            sort_target: SortTarget::Create.into(),
            max_create_revision: revision,
            ..RangeRequest::default()
        };
        let response = client.call(&rpc::RANGE, request, Deadline::NONE).await?;
        let Some(last) = response.kvs.into_iter().next() else { return Ok(()) };
        let revision = response.header.map_or(0, |header| header.revision);
        wait_delete(client, last.key, revision).await?;
    }
}

async fn wait_delete(client: &Client, key: Bytes, revision: i64) -> Result<(), Error> {
    let mut watcher = Watcher::new(client, false);
    watcher.add(WatchSpec { key, revision, ..WatchSpec::default() });
    while let Some(batch) = watcher.next().await {
        if batch.events.iter().any(|event| event.r#type() == EventType::Delete) {
            return Ok(());
        }
        if let Some(text) = batch.error() {
            return Err(Error::Other(text));
        }
    }
    Err(Error::Other("lost watcher waiting for delete".into()))
}

async fn get(client: &Client, key: &Bytes) -> Result<RangeResponse, Error> {
    let request = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    client.call(&rpc::RANGE, request, Deadline::NONE).await
}

fn first_created(prefix: &[u8]) -> RangeRequest {
    RangeRequest {
        key: Bytes::copy_from_slice(prefix),
        range_end: prefix_end(prefix).into(),
        limit: 1,
        sort_order: SortOrder::Ascend.into(),
        sort_target: SortTarget::Create.into(),
        ..RangeRequest::default()
    }
}

/// A transaction that puts `key` if it does not exist, and reads it otherwise. It reads `also` in
/// both cases.
fn put_if_absent(key: &Bytes, value: Bytes, lease: i64, also: Option<RangeRequest>) -> TxnRequest {
    let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
    let get = RangeRequest { key: key.clone(), ..RangeRequest::default() };
    let also: Vec<_> = also.into_iter().map(|range| op(Request::RequestRange(range))).collect();
    let with = |first| [vec![op(first)], also.clone()].concat();
    TxnRequest {
        compare: vec![created_is(key, 0)],
        success: with(Request::RequestPut(put)),
        failure: with(Request::RequestRange(get)),
    }
}

fn created_is(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        range_end: Bytes::new(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn range_of(response: &Response) -> Option<&RangeResponse> {
    match response {
        Response::ResponseRange(range) => Some(range),
        _ => None,
    }
}

fn revision_of(response: &TxnResponse) -> i64 {
    response.header.as_ref().map_or(0, |header| header.revision)
}

/// The create revision of the contender's key, from the answer to [`put_if_absent`].
fn created_at(response: &TxnResponse) -> i64 {
    if response.succeeded {
        return revision_of(response);
    }
    let first = response.responses.first().and_then(|op| range_of(op.response.as_ref()?));
    first.and_then(|range| range.kvs.first()).map_or(0, |kv| kv.create_revision)
}
