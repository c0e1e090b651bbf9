//! Watches that survive the loss of a connection.
//!
//! A [`Watcher`] owns one stream and any number of watches on it. When the stream breaks for a
//! reason that may pass, it opens another and continues each watch behind the last revision that
//! was delivered, so the caller sees no gap and no event twice.
//!
//! A caller may stop waiting at any moment, in a `select!` or by a timeout. So the state of all
//! work is in the [`Watcher`] and not in a future. Requests wait in a list until the stream has
//! room for them, and responses are read meanwhile: a server need not read requests while its
//! responses are not read, and both sides would wait for each other.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::connection::Client;
use super::deadline::Deadline;
use super::encoded::Answers;
use super::error::{Error, is_known, rpc_text};
use super::methods::rpc;
use crate::limits;
use crate::pb::watch_request::RequestUnion;
use crate::pb::{
    Event, ResponseHeader, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};

/// The keys of a watch, and its options.
#[derive(Clone, Debug, Default)]
pub struct WatchSpec {
    pub key: Bytes,
    pub range_end: Bytes,
    /// First revision to deliver; zero means the present.
    pub revision: i64,
    pub prev_kv: bool,
    pub progress_notify: bool,
}

/// One delivery to one watch.
#[derive(Clone, Debug, Default)]
pub struct WatchBatch {
    /// The number that [`Watcher::add`] gave the watch.
    pub watch: usize,
    pub header: ResponseHeader,
    pub events: Vec<Event>,
    pub compact_revision: i64,
    pub canceled: bool,
    pub cancel_reason: String,
    /// The error that ended the whole stream and with it this watch.
    pub stream_error: Option<String>,
}

/// Whether a batch is a progress notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is: all events up to this revision have been delivered.
    UpTo(i64),
    No,
}

impl WatchBatch {
    pub fn progress(&self) -> Progress {
        let quiet = self.events.is_empty() && !self.canceled && self.compact_revision == 0;
        match self.header.revision {
            revision if quiet && revision != 0 => Progress::UpTo(revision),
            _ => Progress::No,
        }
    }

    /// Why the watch ended, in etcd's words; None while it goes on.
    pub fn error(&self) -> Option<String> {
        if let Some(text) = &self.stream_error {
            return Some(text.clone());
        }
        if self.compact_revision != 0 {
            return Some("etcdserver: mvcc: required revision has been compacted".into());
        }
        if !self.canceled {
            return None;
        }
        Some(match self.cancel_reason.as_str() {
            "" => "etcdserver: mvcc: required revision is a future revision".into(),
            reason if is_known(reason) => reason.into(),
            reason => rpc_text(&Status::failed_precondition(reason)),
        })
    }
}

struct Watch {
    spec: WatchSpec,
    /// Events of the fragments of a response whose last fragment has not come.
    fragments: Vec<Event>,
}

/// A request that was not handed to the stream yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Create(usize),
    Progress,
}

type Opening = BoxFuture<'static, Result<Answers<WatchResponse>, Error>>;

/// A set of watches on one stream, numbered from 0.
pub struct Watcher {
    client: Client,
    require_leader: bool,
    watches: Vec<Option<Watch>>,
    /// Watches whose creation was requested and not confirmed, in the order of the requests; the
    /// server confirms in the same order.
    creating: Vec<usize>,
    /// Numbers of the watches by the server's ids, which each stream gives anew.
    ids: HashMap<i64, usize>,
    stream: Option<(mpsc::Sender<WatchRequest>, Answers<WatchResponse>)>,
    /// The future that opens a stream, and the sender of its requests. Kept here so that a caller
    /// that stops waiting does not cancel the opening.
    opening: Option<(mpsc::Sender<WatchRequest>, Opening)>,
    pending: VecDeque<Pending>,
    /// The earliest time at which the next stream is opened.
    reopen_at: Instant,
    /// Batches that wait for the caller.
    ready: Vec<WatchBatch>,
}

impl Watcher {
    /// `require_leader`: the server ends the stream when it has no leader, and every watch ends.
    pub fn new(client: &Client, require_leader: bool) -> Self {
        Self {
            client: client.clone(),
            require_leader,
            watches: Vec::new(),
            creating: Vec::new(),
            ids: HashMap::new(),
            stream: None,
            opening: None,
            pending: VecDeque::new(),
            reopen_at: Instant::now(),
            ready: Vec::new(),
        }
    }

    /// Adds a watch and returns its number. The request is sent by the next call of
    /// [`Watcher::next`].
    pub fn add(&mut self, spec: WatchSpec) -> usize {
        let watch = self.watches.len();
        self.watches.push(Some(Watch { spec, fragments: Vec::new() }));
        self.pending.push_back(Pending::Create(watch));
        watch
    }

    /// Requests a progress notification for all watches; the next call of [`Watcher::next`] sends
    /// it. The server does not answer while there is no watch.
    pub fn request_progress(&mut self) {
        self.pending.push_back(Pending::Progress);
    }

    /// The next batch; None when every watch has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<WatchBatch> {
        loop {
            if !self.ready.is_empty() {
                return Some(self.ready.remove(0));
            }
            if self.watches.iter().all(Option::is_none) {
                return None;
            }
            if self.stream.is_none() {
                sleep_until(self.reopen_at).await;
                if let Err(error) = self.open().await {
                    self.broken(error);
                    continue;
                }
            }
            match self.exchange().await {
                Ok(Some(response)) => self.take(response),
                Ok(None) => self.broken(Error::Stream(Status::unavailable("stream closed"))),
                Err(error) => self.broken(error),
            }
        }
    }

    /// Sends pending requests until a response arrives. Cancel-safe: a request leaves the list only
    /// once the stream has room for it, and a response is returned as soon as it is read.
    async fn exchange(&mut self) -> Result<Option<WatchResponse>, Error> {
        loop {
            let Some((sender, stream)) = &mut self.stream else { return Ok(None) };
            let is_waiting = !self.pending.is_empty() && !sender.is_closed();
            let permit = tokio::select! {
                response = self.client.next(stream, Deadline::NONE) => return response,
                permit = sender.clone().reserve_owned(), if is_waiting => permit,
            };
            // A closed stream is noticed by reading it. The next stream begins by creating every
            // watch again, so no request is lost.
            let (Ok(permit), Some(pending)) = (permit, self.pending.pop_front()) else { continue };
            if let Some(request) = self.request(pending) {
                permit.send(request);
            }
        }
    }

    /// Opens a stream, or continues an opening that an earlier call began: over a slow network it
    /// can take longer than the timeouts of some callers.
    async fn open(&mut self) -> Result<(), Error> {
        if self.opening.is_none() {
            let (sender, requests) = self.begin();
            let (client, require_leader) = (self.client.clone(), self.require_leader);
            let opening = async move {
                client.stream(&rpc::WATCH, requests, require_leader, Deadline::NONE).await
            };
            self.opening = Some((sender, opening.boxed()));
        }
        let Some((sender, opening)) = &mut self.opening else { return Ok(()) };
        let stream = opening.await;
        let sender = sender.clone();
        self.opening = None;
        self.stream = Some((sender, stream?));
        Ok(())
    }

    /// The requests of a new stream. It begins by creating every watch again, each behind the last
    /// revision that was delivered.
    fn begin(&mut self) -> (mpsc::Sender<WatchRequest>, BoxStream<'static, WatchRequest>) {
        let (sender, receiver) = mpsc::channel(limits::CLIENT_STREAM_REQUESTS_MAX);
        self.creating.clear();
        self.ids.clear();
        self.pending.retain(|pending| *pending == Pending::Progress);
        for (watch, state) in self.watches.iter_mut().enumerate().rev() {
            if let Some(state) = state {
                // Drops the fragments of the old stream; the new one sends their response again
                // from the start.
                state.fragments.clear();
                self.pending.push_front(Pending::Create(watch));
            }
        }
        // A request goes out with the opening: a server sends the headers of a stream only after
        // its first message, and the opening waits for the headers.
        if let Some(first) = self.pending.pop_front()
            && let Some(request) = self.request(first)
        {
            // Cannot fail: the channel is new and empty.
            let _ = sender.try_send(request);
        }
        (sender, ReceiverStream::new(receiver).boxed())
    }

    /// The message for a pending request; None if its watch has ended.
    fn request(&mut self, pending: Pending) -> Option<WatchRequest> {
        match pending {
            Pending::Progress => {
                let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
                Some(WatchRequest { request_union: Some(request) })
            }
            Pending::Create(watch) => {
                let request = self.creation(watch)?;
                self.creating.push(watch);
                Some(request)
            }
        }
    }

    fn creation(&self, watch: usize) -> Option<WatchRequest> {
        let spec = &self.watches.get(watch)?.as_ref()?.spec;
        let request = RequestUnion::CreateRequest(WatchCreateRequest {
            key: spec.key.clone(),
            range_end: spec.range_end.clone(),
            start_revision: spec.revision,
            progress_notify: spec.progress_notify,
            prev_kv: spec.prev_kv,
            ..WatchCreateRequest::default()
        });
        Some(WatchRequest { request_union: Some(request) })
    }

    fn take(&mut self, response: WatchResponse) {
        let header = response.header.unwrap_or_default();
        if response.created {
            self.created(&response, header);
            return;
        }
        if response.watch_id < 0 {
            // A negative id marks the answer to a progress request, which holds for every watch.
            for watch in self.ids.values() {
                let batch = WatchBatch { watch: *watch, header, ..WatchBatch::default() };
                self.ready.push(batch);
            }
            return;
        }
        let Some(&watch) = self.ids.get(&response.watch_id) else { return };
        let Some(Some(state)) = self.watches.get_mut(watch) else { return };
        if response.canceled && response.compact_revision == 0 {
            // The confirmation of a cancel. Like etcd's client, it ends the watch without a batch.
            self.ids.remove(&response.watch_id);
            self.watches[watch] = None;
            return;
        }
        if response.fragment {
            state.fragments.extend(response.events);
            return;
        }
        let mut events = std::mem::take(&mut state.fragments);
        events.extend(response.events);
        if let Some(kv) = events.last().and_then(|event| event.kv.as_ref()) {
            state.spec.revision = kv.mod_revision + 1;
        } else if !response.canceled && header.revision > 0 {
            state.spec.revision = state.spec.revision.max(header.revision + 1);
        }
        let batch = WatchBatch {
            watch,
            header,
            events,
            compact_revision: response.compact_revision,
            canceled: response.canceled,
            cancel_reason: response.cancel_reason,
            stream_error: None,
        };
        if batch.canceled {
            self.ids.remove(&response.watch_id);
            self.watches[watch] = None;
        }
        self.ready.push(batch);
    }

    fn created(&mut self, response: &WatchResponse, header: ResponseHeader) {
        if self.creating.is_empty() {
            return;
        }
        let watch = self.creating.remove(0);
        if response.canceled {
            self.watches[watch] = None;
            let reason = response.cancel_reason.clone();
            self.ready.push(WatchBatch {
                watch,
                canceled: true,
                compact_revision: response.compact_revision,
                stream_error: Some(reason).filter(|reason| !reason.is_empty()),
                ..WatchBatch::default()
            });
            return;
        }
        self.ids.insert(response.watch_id, watch);
        // A watch of the present continues from here on the next stream, so that it does not miss
        // the events between two streams.
        if let Some(Some(state)) = self.watches.get_mut(watch)
            && state.spec.revision == 0
        {
            state.spec.revision = header.revision + 1;
        }
    }

    /// After a transient error the stream is opened again; after any other every watch ends with
    /// it.
    fn broken(&mut self, error: Error) {
        self.stream = None;
        if error.is_transient() && !error.is("etcdserver: no leader") {
            self.reopen_at = Instant::now() + limits::CLIENT_RETRY_WAIT;
            return;
        }
        let text = match &error {
            Error::Stream(status) if is_known(status.message()) => status.message().to_string(),
            other => other.to_string(),
        };
        for (watch, state) in self.watches.iter_mut().enumerate() {
            if state.take().is_some() {
                self.ready.push(WatchBatch {
                    watch,
                    canceled: true,
                    stream_error: Some(text.clone()),
                    ..WatchBatch::default()
                });
            }
        }
    }
}

impl Error {
    /// Whether the server refused the caller: no permission, or no valid token.
    pub fn is_refusal(&self) -> bool {
        matches!(self.code(), Some(Code::PermissionDenied | Code::Unauthenticated))
    }
}
