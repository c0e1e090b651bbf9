//! Watches that survive the loss of a connection.
//!
//! A [`Watcher`] owns one stream and any number of watches on it. When the stream breaks for a
//! reason that may pass, it opens another and continues each watch behind the last revision that
//! was delivered, so the caller sees no gap and no event twice.
//!
//! A caller may stop waiting at any moment, in a `select!` or by a timeout. So whatever is still to
//! be done stands in the [`Watcher`] and not in a future: requests wait in a list of their own until
//! the stream takes them, and reading goes on meanwhile, since a server whose answers nobody reads
//! need not read either.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{BoxStream, StreamExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::connection::Client;
use super::deadline::Deadline;
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

/// A request that the stream has not taken yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Create(usize),
    Progress,
}

type Opening = BoxFuture<'static, Result<Streaming<WatchResponse>, Error>>;

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
    /// A stream that is being opened, and the way to send on it.
    opening: Option<(mpsc::Sender<WatchRequest>, Opening)>,
    pending: VecDeque<Pending>,
    /// No stream is opened earlier.
    pause: Instant,
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
            opening: None,
            pending: VecDeque::new(),
            pause: Instant::now(),
            ready: Vec::new(),
        }
    }

    /// Adds a watch and returns its number. Whoever calls [`Watcher::next`] sends it to the server.
    pub fn add(&mut self, spec: WatchSpec) -> usize {
        let watch = self.watches.len();
        self.watches.push(Some(Watch { spec, parts: Vec::new() }));
        self.pending.push_back(Pending::Create(watch));
        watch
    }

    /// Asks the server for the revision that all watches have reached, with the next call of
    /// [`Watcher::next`]. There is no answer without a watch.
    pub fn request_progress(&mut self) {
        self.pending.push_back(Pending::Progress);
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
            if self.stream.is_none() {
                sleep_until(self.pause).await;
                if let Err(error) = self.open().await {
                    self.broken(error);
                    continue;
                }
            }
            match self.turn().await {
                Ok(Some(response)) => self.take(response),
                Ok(None) => self.broken(Error::Stream(Status::unavailable("stream closed"))),
                Err(error) => self.broken(error),
            }
        }
    }

    /// Sends what waits to be sent until something arrives. A future that is dropped meanwhile has
    /// taken no request out of the list and no answer off the stream.
    async fn turn(&mut self) -> Result<Option<WatchResponse>, Error> {
        loop {
            let Some((sender, stream)) = &mut self.stream else { return Ok(None) };
            let is_waiting = !self.pending.is_empty() && !sender.is_closed();
            let permit = tokio::select! {
                response = self.client.next(stream, Deadline::NONE) => return response,
                permit = sender.clone().reserve_owned(), if is_waiting => permit,
            };
            // A closed stream is noticed by reading it; the next one begins with every watch.
            let (Ok(permit), Some(pending)) = (permit, self.pending.pop_front()) else { continue };
            if let Some(request) = self.request(pending) {
                permit.send(request);
            }
        }
    }

    /// Opens a stream, or goes on opening one: over a slow line that takes longer than some callers
    /// wait at once.
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

    /// The requests of a new stream, which begin with those that create every watch again.
    fn begin(&mut self) -> (mpsc::Sender<WatchRequest>, BoxStream<'static, WatchRequest>) {
        let (sender, receiver) = mpsc::channel(limits::CLIENT_STREAM_REQUESTS_MAX);
        self.creating.clear();
        self.ids.clear();
        self.pending.retain(|pending| *pending == Pending::Progress);
        for (watch, state) in self.watches.iter_mut().enumerate().rev() {
            if let Some(state) = state {
                // The new stream repeats what the old one did not finish.
                state.parts.clear();
                self.pending.push_front(Pending::Create(watch));
            }
        }
        // A server answers a stream's headers only to its first message.
        if let Some(first) = self.pending.pop_front()
            && let Some(request) = self.request(first)
        {
            // The channel is empty: this cannot fail.
            let _ = sender.try_send(request);
        }
        (sender, ReceiverStream::new(receiver).boxed())
    }

    /// The message of a request that is sent now; none if its watch has ended.
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
    fn broken(&mut self, error: Error) {
        self.stream = None;
        if error.is_transient() && !error.is("etcdserver: no leader") {
            self.pause = Instant::now() + limits::CLIENT_RETRY_WAIT;
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
