//! Watch: one stream of requests in, one of responses out, for any number of watchers.
//!
//! The responses drive everything: a client that does not read gets no more served, and costs the
//! hub's bounded queue, a piece of history and one response. A response is made when it is taken, each
//! fragment by itself. Between responses the stream looks for requests, so that a busy watcher cannot
//! keep a cancel waiting.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, Stream};
use prost::Message;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tonic::Status;

use super::Server;
use super::error::{Error, status};
use super::request::Requests;
use crate::auth::Credentials;
use crate::metrics;
use crate::mvcc::{Change, ChangeKind};
use crate::node::{self, PREVIOUS_INLINE_MAX, WatchError, WatchStream};
use crate::pb::raw::{Event, WatchResponse};
use crate::pb::watch_create_request::FilterType;
use crate::pb::watch_request::RequestUnion;
use crate::pb::{EventType, ResponseHeader, WatchCreateRequest, WatchRequest};
use crate::types::KeyRange;
use crate::watch::{Item, Next, Spec};

/// Watch id of what concerns no single watcher.
const NO_WATCH_ID: i64 = -1;

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
    who: Credentials,
    stream: WatchStream,
    /// None after the client's half-close, which leaves the watchers alive.
    requests: Option<Requests<WatchRequest>>,
    wishes: HashMap<i64, Wishes>,
    /// Those of watchers whose Canceled is still queued, and events before it perhaps as well. Their
    /// ids are free, so the next watcher of one may have wishes already, or be canceled as well.
    leaving: HashMap<i64, VecDeque<Wishes>>,
    outbox: VecDeque<WatchResponse>,
    /// The events that are being sent.
    sending: Option<Sending>,
    ticks: Interval,
}

impl Server {
    pub(super) fn watch(
        self: Arc<Self>,
        who: Credentials,
        requests: Requests<WatchRequest>,
    ) -> impl Stream<Item = Result<WatchResponse, Status>> + Send + use<> {
        let interval = self.config.watch_progress_interval;
        // Up to a tenth more, so that streams that began together do not all report at once.
        let jitter = interval.mul_f64(f64::from(rand_percent(&self)) / 1000.0);
        let interval = (interval + jitter).max(Duration::from_millis(1));
        let mut ticks = tokio::time::interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        metrics::watch_streams().inc();
        let session = Session {
            stream: self.node.watch_stream(),
            server: self,
            who,
            requests: Some(requests),
            wishes: HashMap::new(),
            leaving: HashMap::new(),
            outbox: VecDeque::new(),
            sending: None,
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
            if let Some(sending) = self.sending.take() {
                return self.send_part(sending).await;
            }
            self.take_waiting_request().await?;
            if !self.outbox.is_empty() {
                // A refusal is there at once; nothing else would wake the stream for it.
                continue;
            }
            match self.stream.next() {
                Next::Item(item) => self.send(item),
                Next::CatchUp => self.stream.catch_up().await.map_err(status)?,
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
            request = request => self.received(request).await,
            () = self.stream.wait() => Ok(()),
            _ = self.ticks.tick() => {
                self.tell_progress();
                Ok(())
            }
        }
    }

    /// Serves a request that is here already, without waiting for one.
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
            Err(error) => Err(error),
        }
    }

    async fn handle(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => self.create(create).await,
            Some(RequestUnion::CancelRequest(cancel)) => {
                // An unknown id is no news, as in etcd.
                if self.stream.cancel(cancel.watch_id)
                    && let Some(wishes) = self.wishes.remove(&cancel.watch_id)
                {
                    self.leaving.entry(cancel.watch_id).or_default().push_back(wishes);
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
            prev_kv: request.prev_kv,
        };
        match self.stream.create(&self.who, spec).await {
            Ok(watch_id) => {
                self.wishes.insert(watch_id, wishes);
            }
            Err(WatchError::Refused(error)) => self.refuse(refusal(error)),
            Err(WatchError::Watch(error)) => self.refuse(error.to_string()),
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

    /// Turns an item into a response. A watch header may say revision 0, so it is not filled in.
    fn send(&mut self, item: Item) {
        let response = match item {
            Item::Created { watch_id, revision } => {
                let header = self.header(revision);
                WatchResponse { header, watch_id, created: true, ..Default::default() }
            }
            Item::Canceled { watch_id, revision } => {
                self.has_left(watch_id);
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
                let Some(wishes) = self.wishes_of(watch_id) else { return };
                if let Some(may_tell) = &mut wishes.progress {
                    *may_tell = false;
                }
                metrics::events().inc_by(changes.len() as u64);
                let (wishes, changes) = (*wishes, changes.into());
                let ready = VecDeque::new();
                self.sending = Some(Sending { watch_id, revision, wishes, changes, ready });
                return;
            }
        };
        self.outbox.push_back(response);
    }

    /// Those of the watcher whose events come next under this id: the queue keeps the order of the
    /// requests.
    fn wishes_of(&mut self, watch_id: i64) -> Option<&mut Wishes> {
        match self.leaving.get_mut(&watch_id) {
            Some(leaving) => leaving.front_mut(),
            None => self.wishes.get_mut(&watch_id),
        }
    }

    /// The Canceled of the earliest watcher of this id is sent.
    fn has_left(&mut self, watch_id: i64) {
        if let Some(leaving) = self.leaving.get_mut(&watch_id) {
            leaving.pop_front();
            if leaving.is_empty() {
                self.leaving.remove(&watch_id);
            }
        }
    }

    /// A response with the next events, in fragments those that fit.
    async fn send_part(&mut self, mut sending: Sending) -> Result<WatchResponse, Status> {
        let header = self.header(sending.revision);
        let (watch_id, fragment) = (sending.watch_id, sending.wishes.fragment);
        let mut response = WatchResponse { header, watch_id, fragment, ..Default::default() };
        let bytes_max = self.server.config.message_bytes_max();
        let mut bytes = response.encoded_len();
        while fill(&mut response, &mut bytes, &mut sending.ready, bytes_max) {
            if sending.changes.is_empty() {
                response.fragment = false;
                return Ok(response);
            }
            self.make_events(&mut sending).await?;
        }
        self.sending = Some(sending);
        Ok(response)
    }

    /// The next events of those that are being sent: in fragments a few, so that previous pairs are
    /// not all read before the first of them leaves.
    async fn make_events(&mut self, sending: &mut Sending) -> Result<(), Status> {
        let Sending { changes, wishes, ready, .. } = sending;
        let count = if wishes.fragment { PREVIOUS_INLINE_MAX } else { usize::MAX };
        let mut changes: Vec<Change> = changes.drain(..count.min(changes.len())).collect();
        if wishes.prev_kv {
            changes = self.stream.read_previous(changes).await.map_err(status)?;
        }
        ready.extend(changes.into_iter().map(|change| event(change, wishes.prev_kv)));
        Ok(())
    }

    #[expect(clippy::unnecessary_wraps, reason = "the form in which responses hold it")]
    fn header(&self, revision: i64) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision, ..self.server.node.header() })
    }
}

/// Events of a watcher on their way into responses.
struct Sending {
    watch_id: i64,
    revision: i64,
    wishes: Wishes,
    changes: VecDeque<Change>,
    /// What comes before the changes.
    ready: VecDeque<Event>,
}

/// Moves events into a response of so many bytes so far; false if the next one belongs into another
/// fragment.
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

/// Another watcher of the same piece of history may have wanted the previous pair.
fn event(change: Change, wants_previous: bool) -> Event {
    let kind = match change.kind {
        ChangeKind::Put => EventType::Put,
        ChangeKind::Delete => EventType::Delete,
    };
    let prev_kv = change.previous.filter(|_| wants_previous);
    Event { kind: kind as i32, kv: Some(change.kv), prev_kv }
}

/// Why a watcher is refused, which here is said with the code.
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
