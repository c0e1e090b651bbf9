//! Watch: one stream of requests in, one of responses out, for any number of watchers.
//!
//! The responses drive everything: a client that does not read gets no more served, and costs the
//! hub's bounded queue at most. Between responses the stream looks for requests, so that a busy
//! watcher cannot keep a cancel waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, Stream};
use prost::Message;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tonic::{Status, Streaming};

use super::error::{Error, status};
use super::{Server, receive_error};
use crate::metrics;
use crate::mvcc::{Change, ChangeKind, Mvcc};
use crate::pb::raw::{Event, WatchResponse};
use crate::pb::watch_create_request::FilterType;
use crate::pb::watch_request::RequestUnion;
use crate::pb::{EventType, ResponseHeader, WatchCreateRequest, WatchRequest};
use crate::types::KeyRange;
use crate::watch::{self, Item, Next, Spec};

/// Watch id of what concerns no single watcher.
const NO_WATCH_ID: i64 = -1;
/// Previous pairs read on the thread that serves the connection; more are read elsewhere.
const PREVIOUS_INLINE_MAX: usize = 16;

/// What a watcher wants besides its events.
#[derive(Clone, Copy, Debug, Default)]
struct Wishes {
    prev_kv: bool,
    fragment: bool,
    /// Whether to be told of progress, and if so, whether the next tick may tell it: one tick is
    /// skipped after events.
    progress: Option<bool>,
}

struct Session {
    server: Arc<Server>,
    stream: Arc<watch::Stream>,
    /// None after the client's half-close, which leaves the watchers alive.
    requests: Option<Streaming<WatchRequest>>,
    wishes: HashMap<i64, Wishes>,
    outbox: VecDeque<WatchResponse>,
    ticks: Interval,
}

impl Server {
    pub(super) fn watch(
        self: Arc<Self>,
        requests: Streaming<WatchRequest>,
    ) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + use<> {
        let interval = self.config.watch_progress_interval;
        // Up to a tenth more, so that streams that began together do not all report at once.
        let jitter = interval.mul_f64(f64::from(rand_percent(&self)) / 1000.0);
        let interval = (interval + jitter).max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        metrics::watch_streams().inc();
        let session = Session {
            stream: Arc::new(self.node.hub().stream()),
            server: self,
            requests: Some(requests),
            wishes: HashMap::new(),
            outbox: VecDeque::new(),
            ticks,
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

/// A number below 100 that differs between streams.
fn rand_percent(server: &Server) -> u32 {
    u32::try_from(server.node.random() % 100).unwrap_or(0)
}

impl Drop for Session {
    fn drop(&mut self) {
        metrics::watch_streams().dec();
    }
}

impl Session {
    async fn next(&mut self) -> Result<WatchResponse, Status> {
        loop {
            if let Some(response) = self.outbox.pop_front() {
                return Ok(response);
            }
            self.take_waiting_request()?;
            if !self.outbox.is_empty() {
                // A refusal is there at once; nothing else would wake the stream for it.
                continue;
            }
            match self.stream.next() {
                Next::Item(item) => self.send(vec![item]).await?,
                Next::CatchUp => {
                    let stream = Arc::clone(&self.stream);
                    let items = self.server.node.read(move |_| stream.catch_up()).await;
                    self.send(items.map_err(status)?).await?;
                }
                Next::Wait => self.wait().await?,
            }
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
            request = request => self.received(request),
            () = self.stream.wait() => Ok(()),
            _ = self.ticks.tick() => {
                self.tell_progress();
                Ok(())
            }
        }
    }

    /// Serves a request that is here already, without waiting for one.
    fn take_waiting_request(&mut self) -> Result<(), Status> {
        let Some(requests) = &mut self.requests else { return Ok(()) };
        match requests.message().now_or_never() {
            Some(request) => self.received(request),
            None => Ok(()),
        }
    }

    fn received(&mut self, request: Result<Option<WatchRequest>, Status>) -> Result<(), Status> {
        match request {
            Ok(Some(request)) => {
                self.handle(request);
                Ok(())
            }
            Ok(None) => {
                self.requests = None;
                Ok(())
            }
            Err(error) => Err(receive_error(error, self.server.config.message_bytes_max())),
        }
    }

    fn handle(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create),
            Some(RequestUnion::CancelRequest(cancel)) => {
                // An unknown id is no news, as in etcd. The wishes go with the Canceled: events
                // before it still need them.
                self.stream.cancel(cancel.watch_id);
            }
            Some(RequestUnion::ProgressRequest(_)) => self.stream.request_progress(),
            None => {}
        }
    }

    fn create(&mut self, request: WatchCreateRequest) {
        if request.start_revision < 0 {
            return self.refuse(Error::Compacted.wire().1.to_owned());
        }
        let is_filtered = |filter: FilterType| request.filters.contains(&(filter as i32));
        let wishes = Wishes {
            prev_kv: request.prev_kv,
            fragment: request.fragment,
            progress: request.progress_notify.then_some(true),
        };
        let (no_put, no_delete) =
            (is_filtered(FilterType::Noput), is_filtered(FilterType::Nodelete));
        // The smallest key stands for no key.
        let key = if request.key.is_empty() { Bytes::from_static(&[0]) } else { request.key };
        let spec = Spec {
            range: KeyRange::new(key, request.range_end),
            start_revision: request.start_revision,
            watch_id: request.watch_id,
            no_put,
            no_delete,
        };
        match self.stream.create(spec) {
            Ok(watch_id) => {
                self.wishes.insert(watch_id, wishes);
            }
            Err(error) => self.refuse(error.to_string()),
        }
    }

    fn refuse(&mut self, cancel_reason: String) {
        let header = self.header(self.stream.revision());
        self.outbox.push_back(WatchResponse {
            header,
            watch_id: NO_WATCH_ID,
            created: true,
            canceled: true,
            cancel_reason,
            ..Default::default()
        });
    }

    fn tell_progress(&mut self) {
        for (watch_id, wishes) in &mut self.wishes {
            if let Some(may_tell) = &mut wishes.progress
                && std::mem::replace(may_tell, true)
            {
                self.stream.notify_progress(*watch_id);
            }
        }
    }

    /// Turns items into responses. A watch header may say revision 0, so it is not filled in.
    async fn send(&mut self, items: Vec<Item>) -> Result<(), Status> {
        for item in items {
            let response = match item {
                Item::Created { watch_id, revision } => {
                    let header = self.header(revision);
                    WatchResponse { header, watch_id, created: true, ..Default::default() }
                }
                Item::Canceled { watch_id, revision } => {
                    self.wishes.remove(&watch_id);
                    let header = self.header(revision);
                    WatchResponse { header, watch_id, canceled: true, ..Default::default() }
                }
                Item::Progress { watch_id, revision } => {
                    WatchResponse { header: self.header(revision), watch_id, ..Default::default() }
                }
                Item::Compacted { watch_id, compact_revision } => WatchResponse {
                    header: self.header(0),
                    watch_id,
                    canceled: true,
                    compact_revision,
                    ..Default::default()
                },
                Item::Events { watch_id, revision, changes } => {
                    self.send_events(watch_id, revision, changes).await?;
                    continue;
                }
            };
            self.outbox.push_back(response);
        }
        Ok(())
    }

    async fn send_events(
        &mut self,
        watch_id: i64,
        revision: i64,
        changes: Vec<Change>,
    ) -> Result<(), Status> {
        let Some(wishes) = self.wishes.get_mut(&watch_id) else { return Ok(()) };
        if let Some(may_tell) = &mut wishes.progress {
            *may_tell = false;
        }
        let wishes = *wishes;
        metrics::events().inc_by(changes.len() as u64);
        let node = &self.server.node;
        let events = if !wishes.prev_kv {
            changes.into_iter().map(|change| event(change, None)).collect()
        } else if changes.len() <= PREVIOUS_INLINE_MAX {
            events_with_previous(node.mvcc(), changes).map_err(|error| status(error.into()))?
        } else {
            let events = node.read(move |mvcc| events_with_previous(mvcc, changes)).await;
            events.map_err(status)?
        };
        let header = self.header(revision);
        let response = WatchResponse { header, watch_id, events, ..Default::default() };
        if wishes.fragment {
            self.outbox.extend(fragments(response, self.server.config.message_bytes_max()));
        } else {
            self.outbox.push_back(response);
        }
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "the form in which responses hold it")]
    fn header(&self, revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision, ..self.server.node.header() })
    }
}

fn event(change: Change, prev_kv: Option<Bytes>) -> Event {
    let kind = match change.kind {
        ChangeKind::Put => EventType::Put,
        ChangeKind::Delete => EventType::Delete,
    };
    Event { kind: kind as i32, kv: Some(change.kv), prev_kv }
}

fn events_with_previous(
    mvcc: &Mvcc,
    changes: Vec<Change>,
) -> Result<Vec<Event>, crate::mvcc::Error> {
    let view = mvcc.view();
    changes
        .into_iter()
        .map(|change| {
            let previous = view.previous(&change)?;
            Ok(event(change, previous))
        })
        .collect()
}

/// Splits a response that is too large; all parts but the last say that more follow.
fn fragments(response: WatchResponse, bytes_max: usize) -> Vec<WatchResponse> {
    if response.encoded_len() < bytes_max || response.events.len() < 2 {
        return vec![response];
    }
    let empty = WatchResponse { events: Vec::new(), fragment: true, ..response.clone() };
    let base = empty.encoded_len();
    let mut parts: Vec<WatchResponse> = Vec::new();
    let mut bytes = usize::MAX;
    for event in response.events {
        // Tag and length of an event take at most six bytes.
        let len = event.encoded_len() + 6;
        if bytes.saturating_add(len) >= bytes_max {
            parts.push(empty.clone());
            bytes = base;
        }
        bytes += len;
        if let Some(part) = parts.last_mut() {
            part.events.push(event);
        }
    }
    if let Some(last) = parts.last_mut() {
        last.fragment = false;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_responses_are_split_between_events() {
        let event = |len: usize| Event { kv: Some(vec![7; len].into()), ..Event::default() };
        let events: Vec<Event> = [100, 100, 100, 900, 10].map(event).into();
        let response = WatchResponse { watch_id: 3, events: events.clone(), ..Default::default() };
        let parts = fragments(response.clone(), 300);
        let sizes: Vec<usize> = parts.iter().map(|part| part.events.len()).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
        let flags: Vec<bool> = parts.iter().map(|part| part.fragment).collect();
        assert_eq!(flags, [true, true, true, false]);
        assert!(parts.iter().all(|part| part.watch_id == 3));
        let joined: Vec<Event> = parts.into_iter().flat_map(|part| part.events).collect();
        assert_eq!(joined, events);
        assert_eq!(fragments(response, 5000).len(), 1);
    }
}
