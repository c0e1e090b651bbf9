//! A server under test: runs operations and says what they gave.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use futures_util::stream;
use prost::Message;
use rusd::pb::kv_client::KvClient;
use rusd::pb::lease_client::LeaseClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::range_request::SortTarget;
use rusd::pb::request_op::Request;
use rusd::pb::response_op::Response;
use rusd::pb::watch_client::WatchClient;
use rusd::pb::watch_request::RequestUnion;
use rusd::pb::{
    Event, KeyValue, LeaseLeasesResponse, LeaseTimeToLiveResponse, RangeRequest, RangeResponse,
    RequestOp, ResponseHeader, ResponseOp, TxnResponse, WatchCancelRequest, WatchProgressRequest,
    WatchRequest, WatchResponse,
};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Response as Reply, Status, Streaming};

use crate::generate::Op;

/// How long a server may take to answer what it must answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// After this long without an answer, progress is asked for again: a watcher that still reads its
/// past keeps a server from answering.
const PROGRESS_RETRY: Duration = Duration::from_millis(20);
/// HTTP/2's largest window. Watch streams that are not read for a while share their connection with
/// the requests, whose answers would wait behind them.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

/// What an operation gave, without what differs between equal servers.
pub(crate) struct Outcome {
    pub(crate) bytes: Vec<u8>,
    /// The revision in the header, of an answer that is no error.
    pub(crate) revision: Option<i64>,
    shown: Box<dyn Debug + Send>,
}

impl Outcome {
    pub(crate) fn show(&self) -> String {
        const SHOWN_MAX: usize = 20_000;
        let mut text = format!("{:#?}", self.shown);
        if let Some((at, _)) = text.char_indices().nth(SHOWN_MAX) {
            text.truncate(at);
        }
        text
    }
}

fn of_message(message: impl Message + Debug + 'static, header: Option<ResponseHeader>) -> Outcome {
    let revision = header.map(|header| header.revision);
    Outcome { bytes: message.encode_to_vec(), revision, shown: Box::new(message) }
}

fn of_status(status: &Status) -> Outcome {
    let shown = (status.code(), status.message().to_owned());
    let bytes = format!("{} {}", status.code() as i32, status.message()).into_bytes();
    Outcome { bytes, revision: None, shown: Box::new(shown) }
}

/// Keeps of a header what equal servers agree on.
fn plain(header: Option<ResponseHeader>) -> Option<ResponseHeader> {
    header.map(|header| ResponseHeader { revision: header.revision, ..Default::default() })
}

/// Folds an answer whose header may stay as it is, but for the ids.
macro_rules! outcome {
    ($result:expr) => {
        match $result {
            Ok(reply) => {
                let mut message = reply.into_inner();
                message.header = plain(message.header);
                let header = message.header;
                of_message(message, header)
            }
            Err(status) => of_status(&status),
        }
    };
}

/// etcd's sort is not stable, so keys that compare equal come in any order, and which of them a
/// limit cuts off is open as well.
fn settle_ties(request: &RangeRequest, response: &mut RangeResponse) {
    type Rank = (i64, bytes::Bytes);
    let rank: fn(&KeyValue) -> Rank = match request.sort_target() {
        SortTarget::Key => return,
        SortTarget::Version => |kv| (kv.version, bytes::Bytes::new()),
        SortTarget::Create => |kv| (kv.create_revision, bytes::Bytes::new()),
        SortTarget::Mod => |kv| (kv.mod_revision, bytes::Bytes::new()),
        // With keys_only the values are gone by now, and what was equal cannot be told.
        SortTarget::Value if request.keys_only => |_| (0, bytes::Bytes::new()),
        SortTarget::Value => |kv| (0, kv.value.clone()),
    };
    let groups = response.kvs.chunk_by_mut(|a, b| rank(a) == rank(b));
    let mut last = 0;
    for group in groups {
        group.sort_by(|a, b| a.key.cmp(&b.key));
        last = group.len();
    }
    if response.more {
        response.kvs.truncate(response.kvs.len() - last);
    }
}

fn plain_ops(requests: &[&[RequestOp]; 2], response: &mut TxnResponse) {
    let requests = if response.succeeded { requests[0] } else { requests[1] };
    for (request, response) in requests.iter().zip(&mut response.responses) {
        plain_op(request, response);
    }
}

fn plain_op(request: &RequestOp, response: &mut ResponseOp) {
    match (&request.request, &mut response.response) {
        (Some(Request::RequestRange(request)), Some(Response::ResponseRange(response))) => {
            settle_ties(request, response);
        }
        (Some(Request::RequestTxn(request)), Some(Response::ResponseTxn(response))) => {
            plain_ops(&[&request.success, &request.failure], response);
        }
        _ => {}
    }
}

pub(crate) struct Subject {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
    watch: WatchClient<Channel>,
    streams: BTreeMap<u64, WatchStream>,
}

impl Subject {
    pub(crate) async fn connect(endpoint: &str) -> Self {
        let endpoint = Channel::from_shared(format!("http://{endpoint}")).unwrap();
        let endpoint = endpoint.initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let channel = endpoint.connect().await.unwrap();
        Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel.clone()),
            watch: WatchClient::new(channel).max_decoding_message_size(usize::MAX),
            streams: BTreeMap::new(),
        }
    }

    /// The revision of the store, which is 1 if nothing was ever written.
    pub(crate) async fn revision(&mut self) -> i64 {
        let request = RangeRequest { key: "k".into(), ..Default::default() };
        let response = self.kv.range(request).await.unwrap().into_inner();
        response.header.unwrap().revision
    }

    pub(crate) async fn run(&mut self, op: &Op) -> Outcome {
        timeout(PATIENCE, self.run_patiently(op)).await.unwrap_or_else(|_| Outcome {
            bytes: b"no answer".to_vec(),
            revision: None,
            shown: Box::new("no answer"),
        })
    }

    async fn run_patiently(&mut self, op: &Op) -> Outcome {
        match op.clone() {
            Op::Put(request) => outcome!(self.kv.put(request).await),
            Op::Range(request) => self.range(request).await,
            Op::RangeStream(request) => self.range_stream(request).await,
            Op::DeleteRange(request) => outcome!(self.kv.delete_range(request).await),
            Op::Txn(request) => {
                let branches = (request.success.clone(), request.failure.clone());
                let mut result = self.kv.txn(request).await;
                if let Ok(reply) = &mut result {
                    plain_ops(&[&branches.0, &branches.1], reply.get_mut());
                }
                outcome!(result)
            }
            Op::Compact(request) => outcome!(self.kv.compact(request).await),
            Op::HashKv(request) => outcome!(self.maintenance.hash_kv(request).await),
            Op::LeaseGrant(request) => outcome!(self.lease.lease_grant(request).await),
            Op::LeaseRevoke(request) => outcome!(self.lease.lease_revoke(request).await),
            Op::LeaseTimeToLive(request) => {
                let result = self.lease.lease_time_to_live(request).await;
                outcome!(result.map(plain_time_to_live))
            }
            Op::LeaseKeepAlive(request) => {
                match self.lease.lease_keep_alive(stream::iter([request])).await {
                    Ok(mut replies) => {
                        let reply = replies.get_mut().message().await;
                        outcome!(reply.map(|reply| Reply::new(reply.unwrap_or_default())))
                    }
                    Err(status) => of_status(&status),
                }
            }
            Op::LeaseLeases(request) => {
                let result = self.lease.lease_leases(request).await;
                outcome!(result.map(plain_leases))
            }
            Op::Watch { stream, creates } => {
                let mut creates = creates.into_iter().map(RequestUnion::CreateRequest);
                let first = creates.next().unwrap();
                let mut opened = match WatchStream::open(&mut self.watch, first).await {
                    Ok(opened) => opened,
                    Err(status) => return of_status(&status),
                };
                opened.read_until(|response| response.created).await;
                for create in creates {
                    opened.send(create).await;
                    opened.read_until(|response| response.created).await;
                }
                let outcome = opened.take_created();
                self.streams.insert(stream, opened);
                outcome
            }
            Op::Settle { stream, revision } => match self.streams.get_mut(&stream) {
                Some(stream) => {
                    stream.settle(revision).await;
                    stream.take()
                }
                None => of_status(&Status::not_found("no such stream")),
            },
            Op::Cancel { stream, watch_ids } => match self.streams.remove(&stream) {
                Some(mut stream) => {
                    for watch_id in watch_ids {
                        stream.cancel(watch_id).await;
                    }
                    stream.take()
                }
                None => of_status(&Status::not_found("no such stream")),
            },
        }
    }

    async fn range(&mut self, request: RangeRequest) -> Outcome {
        let mut result = self.kv.range(request.clone()).await;
        if let Ok(reply) = &mut result {
            settle_ties(&request, reply.get_mut());
        }
        outcome!(result)
    }

    async fn range_stream(&mut self, request: RangeRequest) -> Outcome {
        let mut chunks = match self.kv.range_stream(request).await {
            Ok(reply) => reply.into_inner(),
            Err(status) => return of_status(&status),
        };
        let mut whole = RangeResponse::default();
        let mut sizes = Vec::new();
        loop {
            match chunks.message().await {
                Ok(Some(chunk)) => {
                    let Some(part) = chunk.range_response else { continue };
                    sizes.push(part.kvs.len());
                    whole.header = plain(part.header).or(whole.header);
                    whole.kvs.extend(part.kvs);
                    whole.more |= part.more;
                    whole.count += part.count;
                }
                Ok(None) => break,
                Err(status) => return of_status(&status),
            }
        }
        let mut outcome = of_message(whole.clone(), whole.header);
        outcome.bytes.extend(format!("{sizes:?}").into_bytes());
        outcome.shown = Box::new((sizes, whole));
        outcome
    }
}

/// The time that is left passes, and keys come in the order of a hash map.
fn plain_time_to_live(reply: Reply<LeaseTimeToLiveResponse>) -> Reply<LeaseTimeToLiveResponse> {
    reply.map(|mut response| {
        response.ttl = response.ttl.min(0);
        response.keys.sort();
        response
    })
}

fn plain_leases(reply: Reply<LeaseLeasesResponse>) -> Reply<LeaseLeasesResponse> {
    reply.map(|mut response| {
        response.leases.sort_by_key(|lease| lease.id);
        response
    })
}

/// A watch stream with its watchers, and what it has shown and nobody has taken.
struct WatchStream {
    requests: mpsc::Sender<WatchRequest>,
    responses: Streaming<WatchResponse>,
    /// Those that still get events.
    live: Vec<i64>,
    /// Those that were told that they are too late, and keep their ids until they are canceled.
    dead: Vec<i64>,
    /// Created, canceled, and what must not happen.
    notices: Vec<String>,
    events: BTreeMap<i64, Vec<Event>>,
    /// Watchers whose last response was not the last fragment.
    in_fragment: Vec<i64>,
}

impl WatchStream {
    /// The first request goes along: etcd answers nothing, not even headers, before it has one.
    async fn open(client: &mut WatchClient<Channel>, first: RequestUnion) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(16);
        let first = WatchRequest { request_union: Some(first) };
        requests.send(first).await.unwrap();
        let responses = client.watch(ReceiverStream::new(receiver)).await?.into_inner();
        Ok(Self {
            requests,
            responses,
            live: Vec::new(),
            dead: Vec::new(),
            notices: Vec::new(),
            events: BTreeMap::new(),
            in_fragment: Vec::new(),
        })
    }

    async fn send(&mut self, union: RequestUnion) {
        let request = WatchRequest { request_union: Some(union) };
        if self.requests.send(request).await.is_err() {
            self.notices.push("the stream has ended".into());
        }
    }

    async fn read(&mut self) -> WatchResponse {
        match self.responses.message().await {
            Ok(Some(response)) => response,
            other => {
                self.notices.push(format!("{other:?}"));
                // Nothing more will come; the operation runs out of patience.
                std::future::pending().await
            }
        }
    }

    async fn read_until(&mut self, is_last: impl Fn(&WatchResponse) -> bool) {
        loop {
            let response = self.read().await;
            let is_last = is_last(&response);
            self.note(response);
            if is_last {
                return;
            }
        }
    }

    fn note(&mut self, response: WatchResponse) {
        let WatchResponse { watch_id, created, canceled, compact_revision, .. } = response;
        let revision = response.header.unwrap_or_default().revision;
        if created || canceled {
            let reason = response.cancel_reason;
            self.notices.push(format!(
                "{watch_id} created={created} canceled={canceled} @{revision} \
                 compact_revision={compact_revision} {reason:?}"
            ));
            if created && !canceled {
                self.live.push(watch_id);
            } else {
                self.live.retain(|id| *id != watch_id);
            }
            if compact_revision != 0 {
                self.dead.push(watch_id);
            }
            return;
        }
        if response.events.is_empty() {
            return;
        }
        let events = self.events.entry(watch_id).or_default();
        let was_fragment = self.in_fragment.contains(&watch_id);
        let same = |a: &Event, b: &Event| match (&a.kv, &b.kv) {
            (Some(a), Some(b)) => a.mod_revision == b.mod_revision,
            _ => false,
        };
        if let (Some(last), Some(first)) = (events.last(), response.events.first())
            && same(last, first)
            && !was_fragment
        {
            self.notices.push(format!("{watch_id} splits a revision at {last:?}"));
        }
        if response.fragment && !was_fragment {
            self.in_fragment.push(watch_id);
        } else if !response.fragment {
            self.in_fragment.retain(|id| *id != watch_id);
        }
        events.extend(response.events);
    }

    /// Reads until every watcher has shown all events up to the revision.
    async fn settle(&mut self, revision: i64) {
        loop {
            // Their remains would keep the stream from telling progress.
            while let Some(watch_id) = self.dead.pop() {
                self.request_cancel(watch_id).await;
                self.read_until_canceled(watch_id).await;
            }
            if self.live.is_empty() {
                return;
            }
            self.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
            while let Ok(response) = timeout(PROGRESS_RETRY, self.read()).await {
                let is_progress =
                    response.watch_id == -1 && !response.created && !response.canceled;
                let shown = response.header.unwrap_or_default().revision;
                self.note(response);
                if is_progress && shown >= revision && self.dead.is_empty() {
                    return;
                }
            }
        }
    }

    async fn read_until_canceled(&mut self, watch_id: i64) {
        let is_last = |response: &WatchResponse| {
            response.canceled && response.compact_revision == 0 && response.watch_id == watch_id
        };
        self.read_until(is_last).await;
    }

    async fn request_cancel(&mut self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })).await;
    }

    async fn cancel(&mut self, watch_id: i64) {
        self.request_cancel(watch_id).await;
        if self.live.contains(&watch_id) {
            self.read_until_canceled(watch_id).await;
        }
    }

    /// What was said when the watchers were created. Whether one that is too late is told so by
    /// then is open.
    fn take_created(&mut self) -> Outcome {
        let is_created = |notice: &mut String| notice.contains(" created=true ");
        let notices: Vec<String> = self.notices.extract_if(.., is_created).collect();
        let bytes = notices.join("\n").into_bytes();
        Outcome { bytes, revision: None, shown: Box::new(notices) }
    }

    fn take(&mut self) -> Outcome {
        for id in std::mem::take(&mut self.in_fragment) {
            self.notices.push(format!("{id} waits for another fragment"));
        }
        // Which of several watchers is told first that it is too late is open.
        self.notices.sort();
        let events = std::mem::take(&mut self.events);
        let notices = std::mem::take(&mut self.notices);
        let mut bytes = notices.join("\n").into_bytes();
        for (watch_id, events) in &events {
            bytes.extend(format!("\n{watch_id} {}", events.len()).into_bytes());
            for event in events {
                bytes.extend(event.encode_length_delimited_to_vec());
            }
        }
        Outcome { bytes, revision: None, shown: Box::new((notices, events)) }
    }
}
