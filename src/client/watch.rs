//! Watches that survive the loss of a connection.
//!
//! A [`Watcher`] owns one stream and any number of watches on it. When the stream breaks for a
//! reason that may pass, it opens another and continues each watch behind the last revision that
//! was delivered, so the caller sees no gap and no event twice.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::connection::{Client, Deadline};
use super::error::{Error, is_known, rpc_text};
use super::methods::rpc;
use crate::limits;
use crate::pb::watch_request::RequestUnion;
use crate::pb::{
    Event, ResponseHeader, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
};

/// What to watch.
#[derive(Clone, Debug, Default)]
pub struct WatchSpec {
    pub key: Bytes,
    pub range_end: Bytes,
    /// First revision to deliver; zero for what happens from now on.
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
    /// Why the whole stream ended, when it did.
    pub stream_error: Option<String>,
}

/// What a batch says when it has neither events nor an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing happened up to this revision.
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

    /// Why the watch ended, in etcd's words; `None` while it lives.
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
    /// Events of a revision that was split over several responses.
    parts: Vec<Event>,
}

/// A stream of watches.
pub struct Watcher {
    client: Client,
    require_leader: bool,
    watches: Vec<Option<Watch>>,
    /// Watches whose creation the server has not confirmed, in the order of the requests.
    creating: Vec<usize>,
    /// The server's ids.
    ids: HashMap<i64, usize>,
    stream: Option<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>)>,
    /// Batches that wait for the caller.
    ready: Vec<WatchBatch>,
}

impl Watcher {
    pub fn new(client: &Client, require_leader: bool) -> Self {
        Self {
            client: client.clone(),
            require_leader,
            watches: Vec::new(),
            creating: Vec::new(),
            ids: HashMap::new(),
            stream: None,
            ready: Vec::new(),
        }
    }

    /// Adds a watch and returns its number.
    pub async fn add(&mut self, spec: WatchSpec) -> usize {
        let watch = self.watches.len();
        self.watches.push(Some(Watch { spec, parts: Vec::new() }));
        if self.stream.is_some() {
            self.create(watch).await;
        }
        watch
    }

    /// Asks the server for the revision that all watches have reached.
    pub async fn request_progress(&mut self) -> Result<(), Error> {
        if self.stream.is_none() {
            self.open().await?;
        }
        let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
        self.send(request).await;
        Ok(())
    }

    /// The next batch; `None` when no watch is left. Dropping this future loses nothing.
    pub async fn next(&mut self) -> Option<WatchBatch> {
        loop {
            if !self.ready.is_empty() {
                return Some(self.ready.remove(0));
            }
            if self.watches.iter().all(Option::is_none) {
                return None;
            }
            if self.stream.is_none()
                && let Err(error) = self.open().await
            {
                self.broken(error).await;
                continue;
            }
            let Some((_, stream)) = &mut self.stream else { continue };
            match self.client.next(stream, Deadline::NONE).await {
                Ok(Some(response)) => self.take(response),
                Ok(None) => {
                    self.broken(Error::Stream(Status::unavailable("stream closed"))).await;
                }
                Err(error) => self.broken(error).await,
            }
        }
    }

    async fn open(&mut self) -> Result<(), Error> {
        let (sender, receiver) = mpsc::channel(limits::CLIENT_STREAM_REQUESTS_MAX);
        // A server answers a stream's headers only to its first message.
        let first = self.watches.iter().position(Option::is_some);
        self.creating.clear();
        self.ids.clear();
        if let Some(request) = first.and_then(|watch| self.creation(watch)) {
            self.creating.extend(first);
            // The channel is empty: this cannot wait.
            let _ = sender.try_send(request);
        } else {
            let request = RequestUnion::ProgressRequest(WatchProgressRequest {});
            let _ = sender.try_send(WatchRequest { request_union: Some(request) });
        }
        let requests = ReceiverStream::new(receiver).boxed();
        let stream =
            self.client.stream(&rpc::WATCH, requests, self.require_leader, Deadline::NONE).await?;
        self.stream = Some((sender, stream));
        for watch in first.map_or(0, |first| first + 1)..self.watches.len() {
            self.create(watch).await;
        }
        Ok(())
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

    async fn create(&mut self, watch: usize) {
        if let Some(WatchRequest { request_union: Some(request) }) = self.creation(watch) {
            self.creating.push(watch);
            self.send(request).await;
        }
    }

    async fn send(&mut self, request: RequestUnion) {
        if let Some((sender, _)) = &self.stream {
            // A closed stream is noticed, and reopened, by whoever reads it.
            let _ = sender.send(WatchRequest { request_union: Some(request) }).await;
        }
    }

    fn take(&mut self, response: WatchResponse) {
        let header = response.header.unwrap_or_default();
        if response.created {
            self.created(&response, header);
            return;
        }
        if response.watch_id < 0 {
            // Progress that was asked for concerns every watch.
            for watch in self.ids.values() {
                let batch = WatchBatch { watch: *watch, header, ..WatchBatch::default() };
                self.ready.push(batch);
            }
            return;
        }
        let Some(&watch) = self.ids.get(&response.watch_id) else { return };
        let Some(Some(state)) = self.watches.get_mut(watch) else { return };
        if response.canceled && response.compact_revision == 0 {
            // etcd's client ends such a watch without a word.
            self.ids.remove(&response.watch_id);
            self.watches[watch] = None;
            return;
        }
        if response.fragment {
            state.parts.extend(response.events);
            return;
        }
        let mut events = std::mem::take(&mut state.parts);
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
        // A watch from now on must not miss what happens between two streams.
        if let Some(Some(state)) = self.watches.get_mut(watch)
            && state.spec.revision == 0
        {
            state.spec.revision = header.revision + 1;
        }
    }

    /// Decides whether a broken stream is opened again; if not, every watch ends.
    async fn broken(&mut self, error: Error) {
        self.stream = None;
        if error.is_transient() && !error.is("etcdserver: no leader") {
            sleep(limits::CLIENT_RETRY_WAIT).await;
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
    /// Whether the server refused who we are.
    pub fn is_refusal(&self) -> bool {
        matches!(self.code(), Some(Code::PermissionDenied | Code::Unauthenticated))
    }
}
