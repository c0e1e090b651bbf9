//! Watch: one stream of requests in, one of responses out, for any number of watchers.
//!
//! The responses drive everything. A client that does not read them is served nothing more, and
//! costs the bounded queue of its stream, one piece of history and one response. A response is made
//! when it is taken, and each fragment on its own. The stream looks for requests between responses,
//! so that a busy watcher cannot delay a cancel.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, Stream};
use prost::Message;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tonic::Status;

use super::error::{Error, status};
use super::request::Requests;
use super::{Server, spans};
use crate::auth::Credentials;
use crate::clock;
use crate::metrics;
use crate::mvcc::{Change, ChangeKind};
use crate::node::{self, PREVIOUS_INLINE_MAX, WatchError, WatchStream};
use crate::pb::raw::{Event, WatchResponse};
use crate::pb::watch_create_request::FilterType;
use crate::pb::watch_request::RequestUnion;
use crate::pb::{EventType, ResponseHeader, WatchCreateRequest, WatchRequest};
use crate::trace::Span;
use crate::types::KeyRange;
use crate::watch::{Item, Next, WatchSpec};

/// Watch id of responses that concern no single watcher; etcd's.
const NO_WATCH_ID: i64 = -1;

/// The options of a watcher that shape its responses.
#[derive(Clone, Copy, Debug, Default)]
struct WatchOptions {
    prev_kv: bool,
    fragment: bool,
    /// None without progress_notify; else whether the next tick may notify. The tick after events
    /// is skipped, since the events have told the client as much.
    progress: Option<bool>,
}

struct WatchResponses {
    server: Arc<Server>,
    who: Credentials,
    stream: WatchStream,
    /// None after the client's half-close, which leaves the watchers alive.
    requests: Option<Requests<WatchRequest>>,
    options: BTreeMap<i64, WatchOptions>,
    /// Options of watchers that were cancelled and whose Canceled item is still queued, perhaps
    /// behind events. Their ids are free already: a new watcher may have one of them, with its own
    /// entry in `options`, and may be cancelled too. So each id has a queue.
    canceling: BTreeMap<i64, VecDeque<WatchOptions>>,
    /// The spans of watchers, as far as they are recorded.
    spans: BTreeMap<i64, Span>,
    queued: VecDeque<WatchResponse>,
    /// The events that are being sent, in one response or several fragments.
    sending: Option<SendingEvents>,
    ticks: Interval,
    /// What the responses that are under way come from, until the consumer asks for more.
    under_way: Option<UnderWay>,
}

/// An item that is being turned into responses and sent, and when it was taken.
struct UnderWay {
    since: std::time::Instant,
    kind: ItemKind,
}

enum ItemKind {
    /// The answer to a request for a watcher.
    Control,
    /// A number of events; none in a notification of progress.
    Events(usize),
}

impl UnderWay {
    fn observe(&self, now: std::time::Instant) {
        let seconds = now.saturating_duration_since(self.since).as_secs_f64();
        match self.kind {
            ItemKind::Control => metrics::watch_send_control_seconds().observe(seconds),
            ItemKind::Events(count) => {
                metrics::watch_send_seconds().observe(seconds);
                if count > 0 {
                    metrics::watch_send_event_seconds().observe(seconds / count as f64);
                }
            }
        }
    }
}

impl Server {
    pub(super) fn watch(
        self: Arc<Self>,
        who: Credentials,
        requests: Requests<WatchRequest>,
    ) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + use<> {
        let interval = self.config.watch_progress_interval;
        // Up to a tenth is added, so that streams that began together do not all notify at once.
        let jitter = interval.mul_f64(f64::from(rand_percent(&self)) / 1000.0);
        let interval = (interval + jitter).max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        metrics::watch_streams().inc();
        let session = WatchResponses {
            stream: self.node.watch_stream(),
            server: self,
            who,
            requests: Some(requests),
            options: BTreeMap::new(),
            canceling: BTreeMap::new(),
            spans: BTreeMap::new(),
            queued: VecDeque::new(),
            sending: None,
            ticks,
            under_way: None,
        };
        stream::unfold(Some(session), |session| async {
            let mut session = session?;
            match session.next().await {
                Ok(response) => Some((Ok(response), Some(session))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }
}

/// A random number below 100.
fn rand_percent(server: &Server) -> u32 {
    u32::try_from(server.node.random() % 100).unwrap_or(0)
}

impl Drop for WatchResponses {
    fn drop(&mut self) {
        metrics::watch_streams().dec();
    }
}

impl WatchResponses {
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        // Read at most once for each response: one item ends when the next is taken.
        let mut now = None;
        if self.queued.is_empty()
            && self.sending.is_none()
            && let Some(under_way) = self.under_way.take()
        {
            under_way.observe(*now.insert(clock::instant()));
        }
        loop {
            if let Some(response) = self.queued.pop_front() {
                return Ok(response);
            }
            if let Some(sending) = self.sending.take() {
                return self.send_part(sending).await;
            }
            self.take_waiting_request().await?;
            if !self.queued.is_empty() {
                // `create` may have put a refusal into the queue. Nothing would wake the stream
                // for it in `wait`.
                continue;
            }
            match self.stream.next() {
                Next::Item(item) => {
                    let since = now.unwrap_or_else(clock::instant);
                    self.under_way = Some(UnderWay { since, kind: kind_of(&item) });
                    self.send(item);
                }
                Next::CatchUp => self.stream.catch_up().await.map_err(status)?,
                Next::Wait => self.wait().await?,
            }
            now = None;
        }
    }

    async fn wait(&mut self) -> Result<(), Status> {
        let request = async {
            match &mut self.requests {
                Some(requests) => requests.message().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            request = request => self.received(request).await,
            () = self.stream.wait() => Ok(()),
            _ = self.ticks.tick() => {
                self.tell_progress();
                Ok(())
            }
        }
    }

    /// Serves a request if one has arrived; does not wait for one.
    async fn take_waiting_request(&mut self) -> Result<(), Status> {
        let Some(requests) = &mut self.requests else { return Ok(()) };
        match requests.message().now_or_never() {
            Some(request) => self.received(request).await,
            None => Ok(()),
        }
    }

    async fn received(
        &mut self,
        request: Result<Option<WatchRequest>, Status>,
    ) -> Result<(), Status> {
        match request {
            Ok(Some(request)) => {
                self.handle(request).await;
                Ok(())
            }
            Ok(None) => {
                self.requests = None;
                Ok(())
            }
            Err(error) => {
                metrics::stream_failed("watch");
                Err(error)
            }
        }
    }

    async fn handle(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                // An unknown id is ignored, as in etcd.
                if self.stream.cancel(cancel.watch_id)
                    && let Some(options) = self.options.remove(&cancel.watch_id)
                {
                    self.spans.remove(&cancel.watch_id);
                    self.canceling.entry(cancel.watch_id).or_default().push_back(options);
                }
            }
            Some(RequestUnion::ProgressRequest(_)) => self.stream.request_progress(),
            None => {}
        }
    }

    async fn create(&mut self, request: WatchCreateRequest) {
        if request.start_revision < 0 {
            return self.refuse(Error::Compacted.wire().1.to_owned());
        }
        let is_filtered = |filter: FilterType| request.filters.contains(&(filter as i32));
        let options = WatchOptions {
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress: request.progress_notify.then_some(true),
        };
        let (no_put, no_delete) =
            (is_filtered(FilterType::Noput), is_filtered(FilterType::Nodelete));
        // An empty key stands for the smallest key, a zero byte, as in etcd.
        let key =
            if request.key.is_empty() { Bytes::from_static(&[0]) } else { request.key.clone() };
        let attributes = || spans::of_watcher(&key, &request.range_end, &request);
        let span = self.server.node.tracer().within(self.who.span(), "watch", attributes);
        let spec = WatchSpec {
            range: KeyRange::new(key, request.range_end),
            start_revision: request.start_revision,
            watch_id: request.watch_id,
            no_put,
            no_delete,
            prev_kv: request.prev_kv,
        };
        match self.stream.create(&self.who, spec).await {
            Ok(watch_id) => {
                self.options.insert(watch_id, options);
                if span.context().is_recorded() {
                    self.spans.insert(watch_id, span);
                }
            }
            Err(error) => {
                // As in etcd, a watcher that never was has no span.
                span.discard();
                self.refuse(match error {
                    WatchError::Refused(error) => refusal(error),
                    WatchError::Watch(error) => error.to_string(),
                });
            }
        }
    }

    fn refuse(&mut self, cancel_reason: String) {
        let header = self.header(self.stream.revision());
        self.queued.push_back(WatchResponse {
            header,
            watch_id: NO_WATCH_ID,
            created: true,
            canceled: true,
            cancel_reason,
            ..Default::default()
        });
    }

    fn tell_progress(&mut self) {
        let began = clock::instant();
        for (watch_id, options) in &mut self.options {
            if let Some(may_tell) = &mut options.progress
                && std::mem::replace(may_tell, true)
            {
                self.stream.notify_progress(*watch_id);
            }
        }
        let took = clock::instant().saturating_duration_since(began);
        metrics::watch_send_progress_seconds().observe(took.as_secs_f64());
    }

    /// Turns an item into a response, or into events to send. Headers carry the item's revision as
    /// it is: etcd sends 0 with a compacted watcher, where `Node::fill` would put the current one.
    fn send(&mut self, item: Item) {
        let response = match item {
            Item::Created { watch_id, revision } => {
                let header = self.header(revision);
                WatchResponse { header, watch_id, created: true, ..Default::default() }
            }
            Item::Canceled { watch_id, revision } => {
                self.forget_canceled(watch_id);
                let header = self.header(revision);
                WatchResponse { header, watch_id, canceled: true, ..Default::default() }
            }
            Item::Progress { watch_id, revision } => {
                WatchResponse { header: self.header(revision), watch_id, ..Default::default() }
            }
            Item::Compacted { watch_id, compact_revision } => {
                // The client may still cancel it, as in etcd, so the options stay.
                self.spans.remove(&watch_id);
                WatchResponse {
                    header: self.header(0),
                    watch_id,
                    canceled: true,
                    compact_revision,
                    ..Default::default()
                }
            }
            Item::Events { watch_id, revision, changes } => {
                let Some(options) = self.options_of(watch_id) else { return };
                if let Some(may_tell) = &mut options.progress {
                    *may_tell = false;
                }
                metrics::events().inc_by(changes.len() as u64);
                let (options, changes) = (*options, changes.into());
                let ready = VecDeque::new();
                self.sending = Some(SendingEvents { watch_id, revision, options, changes, ready });
                return;
            }
        };
        self.queued.push_back(response);
    }

    /// The options of the watcher whose events are next under this id. Items keep the order of the
    /// requests, so a cancelled watcher's events come before those of the id's next watcher.
    fn options_of(&mut self, watch_id: i64) -> Option<&mut WatchOptions> {
        match self.canceling.get_mut(&watch_id) {
            Some(canceling) => canceling.front_mut(),
            None => self.options.get_mut(&watch_id),
        }
    }

    /// Forgets the earliest cancelled watcher of this id: its Canceled item was taken from the
    /// queue.
    fn forget_canceled(&mut self, watch_id: i64) {
        if let Some(canceling) = self.canceling.get_mut(&watch_id) {
            canceling.pop_front();
            if canceling.is_empty() {
                self.canceling.remove(&watch_id);
            }
        }
    }

    /// A response with the next events: all of them, or as many as fit into a fragment.
    async fn send_part(&mut self, mut sending: SendingEvents) -> Result<WatchResponse, Status> {
        let header = self.header(sending.revision);
        let (watch_id, fragment) = (sending.watch_id, sending.options.fragment);
        let mut response = WatchResponse { header, watch_id, fragment, ..Default::default() };
        let bytes_max = self.server.config.message_bytes_max();
        let mut bytes = response.encoded_len();
        let is_last = loop {
            if !fill(&mut response, &mut bytes, &mut sending.ready, bytes_max) {
                break false;
            }
            if sending.changes.is_empty() {
                break true;
            }
            self.make_events(&mut sending).await?;
        };
        match is_last {
            true => response.fragment = false,
            false => self.sending = Some(sending),
        }
        self.stream.room(bytes).await;
        Ok(response)
    }

    /// Makes events of the next changes. With fragments it makes a few at a time, so that the first
    /// fragment leaves before all previous pairs are read.
    async fn make_events(&mut self, sending: &mut SendingEvents) -> Result<(), Status> {
        let SendingEvents { changes, options, ready, .. } = sending;
        let wants_previous = options.prev_kv;
        let mut made: Vec<Change> = match options.fragment {
            true => {
                let count = changes.len().min(PREVIOUS_INLINE_MAX);
                let next = &mut changes.make_contiguous()[..count];
                // No more than a fragment of them: they wait for the client, too.
                let bytes_max = self.server.config.message_bytes_max();
                let read = |next| self.stream.read_some_previous(next, bytes_max).map_err(status);
                let count = if wants_previous { read(next)? } else { count };
                changes.drain(..count).collect()
            }
            false => std::mem::take(changes).into(),
        };
        if wants_previous && !options.fragment {
            made = self.stream.read_previous(made).await.map_err(status)?;
        }
        ready.extend(made.into_iter().map(|change| event(change, wants_previous)));
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "the form in which responses hold it")]
    fn header(&self, revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision, ..self.server.node.header() })
    }
}

fn kind_of(item: &Item) -> ItemKind {
    match item {
        Item::Created { .. } | Item::Canceled { .. } => ItemKind::Control,
        Item::Progress { .. } | Item::Compacted { .. } => ItemKind::Events(0),
        Item::Events { changes, .. } => ItemKind::Events(changes.len()),
    }
}

/// The events of one item, on their way into responses.
struct SendingEvents {
    watch_id: i64,
    revision: i64,
    options: WatchOptions,
    changes: VecDeque<Change>,
    /// Events that are made; they come before those of `changes`.
    ready: VecDeque<Event>,
}

/// Moves events into a response that has `bytes` bytes. Returns false if a fragment is full: the
/// next event belongs into another one.
fn fill(
    response: &mut WatchResponse,
    bytes: &mut usize,
    events: &mut VecDeque<Event>,
    bytes_max: usize,
) -> bool {
    while let Some(event) = events.pop_front() {
        // Tag and length of an event take at most six bytes.
        let with_it = *bytes + event.encoded_len() + 6;
        if response.fragment && with_it >= bytes_max && !response.events.is_empty() {
            events.push_front(event);
            return false;
        }
        *bytes = with_it;
        response.events.push(event);
    }
    true
}

/// Makes an event of a change. The change may hold a previous pair that this watcher did not ask
/// for, since another watcher shares the piece of history.
fn event(change: Change, wants_previous: bool) -> Event {
    let kind = match change.kind {
        ChangeKind::Put => EventType::Put,
        ChangeKind::Delete => EventType::Delete,
    };
    let prev_kv = change.previous.filter(|_| wants_previous);
    Event { kind: kind as i32, kv: Some(change.kv), prev_kv }
}

/// The reason that a refused watcher is told. etcd formats it with the code, as Go prints a status.
fn refusal(error: node::Error) -> String {
    let status = status(error);
    format!("rpc error: code = {:?} desc = {}", status.code(), status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_responses_are_split_between_events() {
        let event = |len: usize| Event { kv: Some(vec![7; len].into()), ..Event::default() };
        let events: Vec<Event> = [100, 100, 100, 900, 10].map(event).into();
        let split = |fragment: bool, bytes_max: usize| {
            let mut left: VecDeque<Event> = events.clone().into();
            let (mut sizes, mut joined) = (Vec::new(), Vec::new());
            loop {
                let mut part = WatchResponse { watch_id: 3, fragment, ..Default::default() };
                let mut bytes = part.encoded_len();
                let is_last = fill(&mut part, &mut bytes, &mut left, bytes_max);
                assert!(bytes >= part.encoded_len());
                sizes.push(part.events.len());
                joined.extend(part.events);
                if is_last {
                    assert_eq!(joined, events);
                    return sizes;
                }
            }
        };
        assert_eq!(split(true, 300), [2, 1, 1, 1]);
        assert_eq!(split(true, 5000), [5]);
        assert_eq!(split(false, 300), [5]);
    }
}
