//! The JSON gateway: etcd's API as JSON over HTTP, on the ports of clients.
//!
//! ```text
//!   POST /v3/… ─► Route ─► read: JSON to a message ─► rpc, as a gRPC call ─┐
//!        lines, or one document ◄─ write: a message to JSON ◄──────────────┘
//! ```
//!
//! It calls the same services as gRPC does and in the same form, so who may do what, limits,
//! deadlines, counters and log lines are the same. Paths and fields come from the .proto files, by
//! way of `pb::shapes`; nothing here knows a method or a message.
//!
//! Rules and texts are those of etcd 3.7's grpc-gateway. Its error bodies have a second name for
//! the text, which clients of etcd up to 3.5 read, unless `Config::exact_errors` is set.
//!
//! What a client sends is counted while it is incomplete (see [`Incomplete`]). A large answer is
//! written piece by piece as the client takes it, and a stream makes a line only when the one
//! before was taken.

mod answer;
mod error;
mod number;
mod read;
mod request;
mod scan;
mod turns;
mod write;

use std::collections::HashMap;
use std::future::{pending, poll_fn};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use tonic::Status;

use crate::limits;
use crate::pb::shapes::{ROUTES, Route};
use crate::rpc::{self, BoxError};

pub use answer::Body;
pub use scan::members as json_members;

use answer::Messages;
use error::Errors;
use scan::Scanner;
use turns::Turns;
use write::Writer;

/// The part of the configuration that the gateway needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Config {
    /// Whether error bodies are exactly etcd 3.7's.
    pub exact_errors: bool,
}

pub struct Gateway {
    rpc: Arc<rpc::Server>,
    errors: Errors,
    turns: Turns,
}

/// Counts the bytes of one request that has arrived in part.
pub trait Incomplete: Send + Sync {
    /// So many bytes are kept now; 0 once none are.
    fn set(&mut self, bytes: usize);
    /// Whether the request was given up since others needed the room; if not, `reader` is woken
    /// when it is.
    fn is_given_up(&self, reader: &Waker) -> bool;
}

/// Tells whether a client has hung up, while nobody reads from its connection.
pub trait Line: Send + Sync {
    /// Ready once nothing more can come from the client.
    fn poll_hung_up(&self, context: &mut Context<'_>) -> Poll<()>;
}

/// Counts the bytes that an answer keeps in memory for its client.
pub trait Unsent: Send + Sync {
    /// The same bytes, which count until they are dropped.
    fn charge(&self, message: Bytes) -> Bytes;
}

/// What the gateway is told of a request's connection.
pub struct Origin {
    pub unsent: Arc<dyn Unsent>,
    pub incomplete: Box<dyn Incomplete>,
    /// None where the transport tells by itself, as HTTP/2 does.
    pub line: Option<Arc<dyn Line>>,
    /// The client's address, for the log.
    pub remote: Option<SocketAddr>,
}

impl Gateway {
    pub fn new(rpc: Arc<rpc::Server>, config: Config) -> Arc<Self> {
        let most = request::document_bytes_max(rpc.message_bytes_max());
        let turns = Turns::new(rpc.supervisor().clone(), most);
        Arc::new(Self { rpc, errors: Errors { are_exact: config.exact_errors }, turns })
    }

    /// Bytes of the largest document that is read.
    pub fn document_bytes_max(&self) -> usize {
        request::document_bytes_max(self.rpc.message_bytes_max())
    }

    /// Whether the path is the gateway's.
    pub fn serves(path: &str) -> bool {
        path.starts_with("/v3/") || path.starts_with("/v3beta/")
    }

    /// The path of the gRPC call that a path stands for: itself if it is not the gateway's.
    pub fn call_of(path: &str) -> &str {
        route(path).map_or(path, |route| route.call)
    }

    /// Why a client is refused whose certificate has a common name; None if it is not. While
    /// authentication is on, the name would not count, and the client may think that it does.
    pub fn refuses_names(&self) -> Option<&'static str> {
        self.rpc.is_auth_enabled().then_some(
            "CommonName of client sending a request against gateway will be ignored and not used as \
             expected",
        )
    }

    /// Answers a request for one of the gateway's paths.
    pub async fn answer<B>(self: Arc<Self>, parts: Parts, body: B, origin: Origin) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<BoxError> + Send + Sync,
    {
        // Boxed, so that what follows has its code once, and not for each kind of body.
        let body = body.map_err(Into::into).boxed_unsync();
        match self.call(parts, body, origin).await {
            Ok(answer) => answer,
            Err(status) => self.errors.unary(&status).map(|text| Body::Whole(Some(text))),
        }
    }

    async fn call(
        &self,
        parts: Parts,
        body: UnsyncBoxBody<Bytes, BoxError>,
        origin: Origin,
    ) -> Result<Response<Body>, Status> {
        let (route, mut call) = match begun(&parts) {
            Ok(begun) => begun,
            Err(status) => {
                rpc::discard(&parts.headers, body).await;
                return Err(status);
            }
        };
        if let Some(local) = parts.extensions.get::<rpc::LocalAddress>() {
            call.extensions_mut().insert(local.clone());
        }
        let bytes_max = self.rpc.message_bytes_max();
        let (part, turns) = (origin.incomplete, self.turns.clone());
        *call.body_mut() = if route.takes_many {
            request::Body::Many(request::Documents::new(route, body, part, bytes_max, turns))
        } else {
            request::Body::One(Some(request::one(route, body, part, bytes_max, &turns).await?))
        };
        let answered = Arc::clone(&self.rpc).call(call, origin.remote);
        if route.gives_many {
            let messages = Messages::new(answered.await, origin.unsent);
            let turns = self.turns.clone();
            return Ok(answer::stream(route, messages, origin.line, self.errors, turns).await);
        }
        // A lock or an election may be waited for as long as its client likes, and no longer: the
        // client's place in the queue goes with the call.
        let answered = tokio::select! {
            answered = answered => answered,
            () = gone(origin.line) => {
                return Err(Status::cancelled("context canceled"));
            }
        };
        answer::unary(route, Messages::new(answered, origin.unsent)).await
    }
}

/// The route of a request, and the call that it makes, without its messages.
fn begun<B>(parts: &Parts) -> Result<(&'static Route, Request<request::Body<B>>), Status> {
    let Some(route) = route(parts.uri.path()) else {
        return Err(Status::not_found("Not Found"));
    };
    if parts.method != Method::POST || request::is_overridden(&parts.headers) {
        return Err(Status::unimplemented("Method Not Allowed"));
    }
    Ok((route, request::call(route, &parts.headers)?))
}

/// Resolves when the client hung up so long ago that a short call had its time: a client that closes
/// its side after its request may still wait for the answer.
async fn gone(line: Option<Arc<dyn Line>>) {
    let Some(line) = line else { return pending().await };
    poll_fn(|context| line.poll_hung_up(context)).await;
    tokio::time::sleep(limits::GATEWAY_GONE_PATIENCE).await;
}

/// Encodes the message of this shape that a text in JSON is. Returns where the text's first document
/// ends as well; there may be none, which is the empty message.
pub fn from_json(shape: usize, text: &[u8]) -> Result<(Vec<u8>, usize), String> {
    let mut scanner = Scanner::default();
    let end = match scanner.feed(text)? {
        Some(end) => Some(end),
        None => scanner.finish()?.map(|()| text.len()),
    };
    match end {
        Some(end) => Ok((read::message(shape, text[..end].trim_ascii())?, end)),
        None => Ok((Vec::new(), text.len())),
    }
}

/// The JSON of a message of this shape.
pub fn to_json(shape: usize, message: Bytes) -> String {
    let mut text = String::new();
    let mut writer = Writer::new(shape, message);
    while writer.write(&mut text, usize::MAX) {}
    text
}

/// The route of a path. `/v3beta/` is another name of `/v3/`.
fn route(path: &str) -> Option<&'static Route> {
    static BY_PATH: LazyLock<HashMap<&str, &Route>> = LazyLock::new(|| {
        let rest = |route: &'static Route| route.post.strip_prefix("/v3/").unwrap_or(route.post);
        ROUTES.iter().map(|route| (rest(route), route)).collect()
    });
    let rest = path.strip_prefix("/v3/").or_else(|| path.strip_prefix("/v3beta/"))?;
    BY_PATH.get(rest).copied()
}
