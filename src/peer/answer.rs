//! Answers to peers' requests below `/raft`.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use prost::Message as _;
use tokio::sync::SemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior};

use super::frame::{Channel, Encoder};
use super::headers::{
    CLUSTER_ID, MIN_CLUSTER_VERSION, MINIMUM_VERSION, PEER_URLS, PeersConfig, RAFT_TO, SERVER_FROM,
    SERVER_VERSION, headers, is_of_cluster, is_rusd,
};
use super::one::Queued;
use super::owner::PeerOwner;
use super::peers::Peers;
use crate::limits;
use crate::raft::{Message, MessageType};

/// The body of an answer: a text, or an endless stream of messages.
pub enum PeerBody {
    Text(Option<Bytes>),
    Stream(Box<MessageStream>),
}

type Answer = Response<PeerBody>;

fn refuse(status: StatusCode, text: &str) -> Answer {
    let mut answer = Response::new(PeerBody::Text(Some(format!("{text}\n").into())));
    *answer.status_mut() = status;
    answer
}

fn no_content() -> Answer {
    let mut answer = Response::new(PeerBody::Text(None));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    answer
}

/// Says in etcd's words that a member of another cluster has called. The caller learns of it from the
/// answer; this member may be the one that is wrong here, and would else say nothing.
fn log_stranger(headers: &HeaderMap, config: &PeersConfig) {
    let told = |name: HeaderName| {
        let text = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        text.get(..text.len().min(limits::STRANGER_WORD_BYTES_MAX)).unwrap_or_default().to_owned()
    };
    tracing::warn!(
        "local-member-id" = format!("{:x}", config.id),
        "local-member-cluster-id" = format!("{:x}", config.cluster_id),
        "local-member-server-version" = config.version,
        "local-member-server-minimum-cluster-version" = MINIMUM_VERSION,
        "remote-peer-server-name" = told(SERVER_FROM),
        "remote-peer-server-version" = told(SERVER_VERSION),
        "remote-peer-server-minimum-cluster-version" = told(MIN_CLUSTER_VERSION),
        "remote-peer-cluster-id" = told(CLUSTER_ID),
        "rusd.hint" = "one of the two has the data directory of another cluster; see the handbook, \
                       \"Cluster id mismatch\"",
        "request cluster ID mismatch"
    );
}

impl Peers {
    /// Answers a request whose path begins with `/raft`.
    pub async fn answer<B>(self: &Arc<Self>, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path().trim_start_matches("/raft").to_owned();
        let mut answer = match (request.method(), path.as_str()) {
            (&Method::GET, "/probing") => self.probe(),
            (&Method::POST, "") => self.receive_posted(request).await,
            (&Method::POST, "/snapshot") => {
                let (parts, body) = request.into_parts();
                match self.check(&parts.headers) {
                    Err(refusal) => *refusal,
                    Ok(()) => match self.take_snapshot(&parts.headers, body).await {
                        Ok(()) => no_content(),
                        Err((status, why)) => refuse(status, &why),
                    },
                }
            }
            (&Method::GET, path) if path.starts_with("/stream/") => {
                self.stream(path, request.headers())
            }
            (_, path) if path.is_empty() || path == "/snapshot" || path.starts_with("/stream/") => {
                refuse(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
            }
            _ => refuse(StatusCode::NOT_FOUND, "404 page not found"),
        };
        if let Ok(ours) = headers(&self.config, None) {
            answer.headers_mut().extend(ours);
        }
        answer
    }

    /// Answers a peer that measures the round-trip time.
    fn probe(&self) -> Answer {
        Response::new(PeerBody::Text(Some(Bytes::from_static(b"{\"OK\":true}\n"))))
    }

    /// Answers a peer that asks for a stream of messages.
    fn stream(self: &Arc<Self>, path: &str, headers: &HeaderMap) -> Answer {
        if let Err(refusal) = self.check(headers) {
            return *refusal;
        }
        let mut parts = path.trim_start_matches("/stream/").split('/');
        let channel = parts
            .next()
            .and_then(|name| Channel::BOTH.into_iter().find(|channel| channel.name() == name));
        let from = parts.next().and_then(|id| u64::from_str_radix(id, 16).ok());
        let (Some(channel), Some(from), None) = (channel, from, parts.next()) else {
            return refuse(StatusCode::NOT_FOUND, "invalid path");
        };
        if self.is_removed(from) {
            return refuse(StatusCode::GONE, "the member has been permanently removed");
        }
        let Some(peer) = self.peer(from) else {
            self.accept_unconfirmed(from, headers);
            return refuse(StatusCode::NOT_FOUND, "error sender not found");
        };
        let to = headers.get(RAFT_TO).and_then(|to| to.to_str().ok());
        if to != Some(format!("{:x}", self.config.id).as_str()) {
            return refuse(StatusCode::PRECONDITION_FAILED, "to field mismatch");
        }
        let queued = peer.attach(channel);
        let stream = MessageStream::new(queued, channel, self.me.clone());
        Response::new(PeerBody::Stream(Box::new(stream)))
    }

    /// Accepts a caller as a peer although the log here does not name it yet. A member that is
    /// behind does not know the members added since, and one of them may be the leader, from which
    /// alone this member can catch up. Bounded: one new caller a second, `PEERS_UNCONFIRMED_MAX` in
    /// all.
    fn accept_unconfirmed(self: &Arc<Self>, from: u64, headers: &HeaderMap) {
        let urls = headers.get(PEER_URLS).and_then(|urls| urls.to_str().ok()).unwrap_or_default();
        let urls: Vec<String> =
            urls.split(',').filter(|url| !url.is_empty()).map(str::to_owned).collect();
        if urls.is_empty() || urls.len() > limits::PEER_UNCONFIRMED_URLS_MAX {
            return;
        }
        {
            let mut known = self.known.write();
            let unconfirmed = known.peers.values().filter(|peer| peer.is_unconfirmed).count();
            let is_early = known
                .unconfirmed_at
                .is_some_and(|at| at.elapsed() < limits::PEER_UNCONFIRMED_INTERVAL);
            if is_early || unconfirmed >= limits::PEERS_UNCONFIRMED_MAX {
                return;
            }
            known.unconfirmed_at = Some(crate::clock::instant());
        }
        self.insert(from, urls, true);
    }

    /// Takes one message that a peer sends in a request of its own.
    async fn receive_posted<B>(&self, request: Request<B>) -> Answer
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Err(refusal) = self.check(request.headers()) {
            return *refusal;
        }
        let body = self.read_posted(request.into_body());
        let (body, _permit) = match tokio::time::timeout(limits::PEER_POST_TIMEOUT, body).await {
            Ok(Ok(body)) => body,
            Ok(Err(refusal)) => return *refusal,
            Err(_) => return refuse(StatusCode::BAD_REQUEST, "error reading raft message"),
        };
        let Ok(message) = Message::decode(body) else {
            return refuse(StatusCode::BAD_REQUEST, "error unmarshalling raft message");
        };
        let from = message.from;
        if self.is_removed(from) {
            return refuse(StatusCode::GONE, "the member has been permanently removed");
        }
        if self.peer(from).is_none() {
            return refuse(StatusCode::FORBIDDEN, "error sender not found");
        }
        match self.receive(from, message) {
            true => no_content(),
            // The sender tells who proposed, who may then propose it again.
            false => refuse(StatusCode::SERVICE_UNAVAILABLE, "raft cannot take the message now"),
        }
    }

    /// The body of a request with a message, and the permit for its bytes. What has come counts, and
    /// not what is announced: a caller that sends nothing takes nothing from the others.
    async fn read_posted<B>(
        &self,
        body: B,
    ) -> Result<(Bytes, Option<SemaphorePermit<'_>>), Box<Answer>>
    where
        B: Body<Data = Bytes> + Send,
    {
        let mut body = std::pin::pin!(body);
        let mut bytes = BytesMut::new();
        let mut permit: Option<SemaphorePermit<'_>> = None;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                let text = "error reading raft message";
                return Err(Box::new(refuse(StatusCode::BAD_REQUEST, text)));
            };
            let Ok(data) = frame.into_data() else { continue };
            let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let Ok(more) = self.posts.try_acquire_many(count) else {
                let text = "too many messages at once";
                return Err(Box::new(refuse(StatusCode::SERVICE_UNAVAILABLE, text)));
            };
            match &mut permit {
                Some(permit) => permit.merge(more),
                None => permit = Some(more),
            }
            bytes.extend_from_slice(&data);
        }
        Ok((bytes.freeze(), permit))
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), Box<Answer>> {
        let refused = |text| Err(Box::new(refuse(StatusCode::PRECONDITION_FAILED, text)));
        if !is_of_cluster(headers, &self.config) {
            if self.may_log_stranger() {
                log_stranger(headers, &self.config);
            }
            return refused("cluster ID mismatch");
        }
        if !is_rusd(headers) {
            return refused("a cluster of rusd and etcd members is not supported yet");
        }
        Ok(())
    }
}

/// The body of a stream: the messages queued for a peer.
pub struct MessageStream {
    messages: Queued,
    alive: Interval,
    encoder: Encoder,
    owner: Weak<dyn PeerOwner>,
}

impl Drop for MessageStream {
    /// What is still queued when the connection ends has surely not been sent. Who proposed needs to
    /// hear of each proposal, and raft once that the peer is out of reach, unless it has opened
    /// another stream in place of this one.
    fn drop(&mut self) {
        let is_replaced = self.messages.is_closed();
        self.messages.close();
        let Some(owner) = self.owner.upgrade() else { return };
        let mut last = None;
        while let Some(message) = self.messages.try_next() {
            match message.msg_type == MessageType::MsgPropose as i32 {
                true => owner.unsent(message, false),
                false => last = Some(message),
            }
        }
        if let Some(message) = last.filter(|_| !is_replaced) {
            owner.unsent(message, false);
        }
    }
}

impl MessageStream {
    pub(super) fn new(messages: Queued, channel: Channel, owner: Weak<dyn PeerOwner>) -> Self {
        // By the least timeout, whatever this member's own is: the peer's may be another one while
        // the flag is changed on one member after the other.
        let mut alive = tokio::time::interval(limits::PEER_READ_TIMEOUT / 3);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { messages, alive, encoder: Encoder::new(channel), owner }
    }

    /// The next queued messages, about `PEER_CHUNK_BYTES` of them, or a sign of life. Ends once the
    /// peer has opened another stream in place of this one.
    fn poll_bytes(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut out = BytesMut::new();
        match self.messages.poll_next(context) {
            Poll::Ready(Some(message)) => {
                self.encoder.message(&message, &mut out);
                while out.len() < limits::PEER_CHUNK_BYTES {
                    let Some(message) = self.messages.try_next() else { break };
                    self.encoder.message(&message, &mut out);
                }
            }
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                ready!(self.alive.poll_tick(context));
                self.encoder.alive(&mut out);
            }
        }
        Poll::Ready(Some(out.freeze()))
    }
}

impl Body for PeerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match self.get_mut() {
            Self::Text(text) => text.take(),
            Self::Stream(stream) => ready!(stream.poll_bytes(context)),
        };
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}
