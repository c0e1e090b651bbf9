//! The machinery of a call: who may make it, how long it may take, what is counted and logged of
//! it.
//!
//! ```text
//!   refuse ─► message ─► admit (learner, metadata, leader) ─► identify ─► handler ─► answer
//! ```
//!
//! This is the way of a unary call; a stream is admitted, and counted, before its first message.
//!
//! A unary call reads its message, and then takes room for everything else; so a client that begins
//! many calls and sends no messages costs little. A stream ends before its client wants it when the
//! server stops, when its deadline is over, or, if the client asked for a leader with the metadata
//! `hasleader`, when there was none for three election timeouts.

use std::future::Future;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName};
use http::request::Parts;
use http::{HeaderMap, Method as Verb, StatusCode};
use http_body::Body as HttpBody;
use prost::Message;
use tonic::{Code, Status};

use super::answer::{self, BoxError, Encode, Output};
use super::encoded::Encoded;
use super::error::Error;
use super::metadata::{self, Deadline};
use super::request::{self, Cardinality, Requests};
use super::stats::{self, Shown};
use super::stream::{Ending, Stream};
use super::{Server, spans};
use crate::auth::{Credentials, Demand};
use crate::clock;
use crate::metrics::{self, CallKind, Method};
use crate::pb::shapes::Shaped;
use crate::pb::tolerant::{self, Malformed};
use crate::trace::Span;

const HAS_LEADER: HeaderName = HeaderName::from_static("hasleader");
const CLIENT_VERSION: HeaderName = HeaderName::from_static("client-api-version");

/// The head of a request, and where it came from.
pub(super) struct Head {
    pub(super) parts: Parts,
    pub(super) remote: Option<SocketAddr>,
}

impl Deref for Head {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// A row of the table of methods, with the counters of its method.
pub(super) struct Route {
    pub(super) method: Method,
    /// The demand that is checked before the handler runs. `Nothing` where it depends on the
    /// request: the handler then hands the credentials to the node, which decides.
    pub(super) demand: Demand,
    /// Whether a learner serves it. Range does, since a learner serves serializable ranges; its
    /// handler refuses linearizable ones.
    pub(super) serves_learners: bool,
}

impl Server {
    pub(super) fn unary<M, R, B, F>(
        self: &Arc<Self>,
        route: &'static Route,
        head: &Head,
        body: B,
        handler: F,
    ) -> impl Future<Output = Output>
    where
        M: Message + Default + Shaped,
        R: Encode,
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
        F: AsyncFnOnce(Arc<Self>, Credentials, M) -> Result<R, Status>,
    {
        self.unary_of(tolerant::message, route, head, body, handler)
    }

    /// Runs a unary call whose message is decoded by `decoded`. Like etcd, whose interceptors run
    /// after decoding, it does not count a call whose message cannot be read.
    pub(super) async fn unary_of<M, R, B, F>(
        self: &Arc<Self>,
        decoded: fn(Bytes) -> Result<M, Malformed>,
        route: &'static Route,
        head: &Head,
        mut body: B,
        handler: F,
    ) -> Output
    where
        M: Shaped,
        R: Encode,
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
        F: AsyncFnOnce(Arc<Self>, Credentials, M) -> Result<R, Status>,
    {
        let (method, headers) = (&route.method, &head.headers);
        let span = spans::begin(self.node.tracer(), head, method);
        let bytes_max = self.config.message_bytes_max();
        let request = request::decode(Cardinality::One, headers, &mut body, bytes_max, |message| {
            let shown = Shown::new(M::SHAPE, &message);
            Ok((decoded(message)?, shown))
        })
        .await;
        // The rest of the body is discarded: bytes behind the message must not hold the
        // connection's room while the handler runs.
        drop(body);
        let (request, shown) = match request {
            Ok(request) => request,
            Err(status) => return failed(span, &status),
        };
        let mut call = Call::start(method, span);
        let mut is_handled = false;
        method.received.inc();
        let context = call.span.context().clone();
        // Boxed, so that a call that still waits for its message does not hold the memory of the
        // handler's future.
        let answer = Box::pin(async {
            self.admit(headers, route)?;
            is_handled = true;
            let who = self.identify(head, &route.demand, context).await?;
            handler(Arc::clone(self), who, request).await?.encoded()
        });
        let answer = match stated_limit(head) {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer)
                .await
                .unwrap_or_else(|_| Err(Error::DeadlineExceeded.into())),
        };
        let took = call.finish(&answer);
        let expected = self.config.warning_duration;
        if stats::is_told(took, expected) {
            let user = self.user_of(head);
            let who = stats::Who { remote: head.remote, user };
            stats::log(method, &who, took, &shown, answer.as_ref(), is_handled);
        }
        match answer {
            Ok(message) => answer::success(message),
            Err(status) => answer::failure(&status),
        }
    }

    pub(super) async fn server_stream<M, R, S, B, F>(
        self: &Arc<Self>,
        route: &'static Route,
        parts: &Parts,
        body: B,
        handler: F,
    ) -> Output
    where
        M: Message + Default + Shaped + 'static,
        R: Message + Default + 'static,
        S: futures_core::Stream<Item = Result<R, Status>> + Send + 'static,
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<BoxError>,
        F: AsyncFnOnce(Arc<Self>, Credentials, M) -> Result<S, Status>,
    {
        let (method, headers) = (&route.method, &parts.headers);
        let span = spans::begin(self.node.tracer(), parts, method);
        if let Err(status) = request::check_encoding(headers) {
            return failed(span, &status);
        }
        // As in etcd, whose interceptors see a stream before its message is read.
        let call = Call::start(method, span);
        if let Err(error) = self.admit(headers, route) {
            return call.fail(&error.into());
        }
        let bytes_max = self.config.message_bytes_max();
        let request =
            request::decode(Cardinality::Stream, headers, body, bytes_max, tolerant::message::<M>);
        let request = request.await;
        method.received.inc();
        let request = match request {
            Ok(request) => request,
            Err(status) => return call.fail(&status),
        };
        let context = call.span.context().clone();
        let stream = Box::pin(async {
            let who = self.identify(parts, &route.demand, context).await?;
            handler(Arc::clone(self), who, request).await
        });
        match stream.await {
            Ok(stream) => self.stream_body(parts, call, stream),
            Err(status) => call.fail(&status),
        }
    }

    pub(super) async fn bidi_stream<M, R, S, B, F>(
        self: &Arc<Self>,
        route: &'static Route,
        parts: &Parts,
        body: B,
        handler: F,
    ) -> Output
    where
        M: Message + Default + Shaped + 'static,
        R: Message + Default + 'static,
        S: futures_core::Stream<Item = Result<R, Status>> + Send + 'static,
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError> + Send + Sync,
        F: FnOnce(Arc<Self>, Credentials, Requests<M>) -> S,
    {
        let method = &route.method;
        let span = spans::begin(self.node.tracer(), parts, method);
        let bytes_max = self.config.message_bytes_max();
        let requests = match Requests::new(method, &parts.headers, body, bytes_max) {
            Ok(requests) => requests,
            Err(status) => return failed(span, &status),
        };
        let call = Call::start(method, span);
        let admitted = self.admit(&parts.headers, route).map_err(Status::from);
        let who = match admitted {
            Ok(()) => {
                let context = call.span.context().clone();
                self.identify(parts, &route.demand, context).await
            }
            Err(status) => Err(status),
        };
        let who = match who {
            Ok(who) => who,
            Err(status) => return call.fail(&status),
        };
        let stream = handler(Arc::clone(self), who, requests);
        self.stream_body(parts, call, stream)
    }

    fn stream_body<R, S>(&self, parts: &Parts, call: Call, stream: S) -> Output
    where
        R: Message + 'static,
        S: futures_core::Stream<Item = Result<R, Status>> + Send + 'static,
    {
        let ending = self.ending(parts);
        let (method, start, span) = call.hand_over();
        answer::stream(Stream::new(stream, ending, method, start, span))
    }

    /// Resolves when a stream with this metadata must end: the server stops, the deadline is over,
    /// or the stream needs a leader and there is none.
    fn ending(&self, parts: &Parts) -> Ending {
        let needs_leader = needs_leader(&parts.headers);
        let mut ends = self.ends.subscribe();
        let limit = stated_limit(parts);
        Box::pin(async move {
            let mut late = pin!(async {
                match limit {
                    Some(limit) => tokio::time::sleep(limit).await,
                    None => std::future::pending().await,
                }
            });
            loop {
                let now = *ends.borrow_and_update();
                if now.stopped {
                    return Error::Stopped.into();
                }
                if needs_leader && now.leaderless {
                    return Error::NoLeader.into();
                }
                let changed = tokio::select! {
                    changed = ends.changed() => changed,
                    () = &mut late => return Error::DeadlineExceeded.into(),
                };
                if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        })
    }

    /// Checks that are the same for every call: a learner refuses most methods, the client's
    /// version must be UTF-8, and `hasleader` fails while there is no leader. Counts the call by
    /// its kind and version.
    fn admit(&self, headers: &HeaderMap, route: &Route) -> Result<(), Error> {
        if self.node.is_learner() && !route.serves_learners {
            return Err(Error::NotSupportedForLearner);
        }
        let version = match headers.get(CLIENT_VERSION) {
            None => None,
            Some(value) => Some(
                std::str::from_utf8(value.as_bytes())
                    .map_err(|_| Error::InvalidClientApiVersion)?,
            ),
        };
        metrics::client_requests(route.method.kind, version).inc();
        if needs_leader(headers) && !self.has_leader() {
            return Err(Error::NoLeader);
        }
        Ok(())
    }
}

fn needs_leader(headers: &HeaderMap) -> bool {
    headers.get(HAS_LEADER).is_some_and(|value| value == "true")
}

/// Counts a unary call, or a stream until its answers begin. One whose client hangs up before that
/// is dropped, and counts as Canceled.
struct Call {
    method: &'static Method,
    start: Instant,
    span: Span,
    finished: bool,
}

impl Call {
    fn start(method: &'static Method, span: Span) -> Self {
        method.started.inc();
        Self { method, start: clock::instant(), span, finished: false }
    }

    /// Ends a stream without an answer.
    fn fail(mut self, status: &Status) -> Output {
        self.finished = true;
        self.method.handled(status.code() as usize, self.start.elapsed().as_secs_f64());
        failed(std::mem::take(&mut self.span), status)
    }

    /// Leaves it to the stream of answers to count the call's end.
    fn hand_over(mut self) -> (&'static Method, Instant, Span) {
        self.finished = true;
        (self.method, self.start, std::mem::take(&mut self.span))
    }

    /// Counts the answer, and returns how long it took.
    fn finish(&mut self, answer: &Result<Encoded, Status>) -> Duration {
        self.finished = true;
        let took = stats::since(self.start);
        let code = answer.as_ref().err().map_or(Code::Ok, Status::code);
        // As in etcd, an error counts as a message, too.
        self.method.sent.inc();
        self.method.handled(code as usize, took.as_secs_f64());
        let span = std::mem::take(&mut self.span);
        match answer {
            Ok(_) => spans::end(span, code, String::new),
            Err(status) => spans::end_with(span, status),
        }
        took
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.finished {
            self.method.sent.inc_by(u64::from(self.method.kind == CallKind::Unary));
            self.method.handled(Code::Cancelled as usize, self.start.elapsed().as_secs_f64());
            spans::end(std::mem::take(&mut self.span), Code::Cancelled, String::new);
        }
    }
}

/// The answer to a call that failed, whose span ends with it.
fn failed(span: Span, status: &Status) -> Output {
    spans::end_with(span, status);
    answer::failure(status)
}

/// The deadline of a call, which `refuse` left in the request's extensions.
fn stated_limit(parts: &Parts) -> Option<Duration> {
    parts.extensions.get().and_then(|Deadline(limit)| *limit)
}

/// Answers, with an HTTP status of its own, a request that is not gRPC or whose metadata is
/// malformed, and a call whose deadline is zero. For every other call it stores the deadline in the
/// extensions and returns None.
pub(super) fn refuse(parts: &mut Parts) -> Option<Output> {
    let content_type = parts.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
    let deadline = metadata::read(&parts.headers);
    if parts.method == Verb::POST
        && is_grpc(content_type)
        && let Ok(deadline) = deadline
    {
        if deadline == Deadline(Some(Duration::ZERO)) {
            return Some(answer::failure(&Error::DeadlineExceeded.into()));
        }
        if deadline.0.is_some() {
            parts.extensions.insert(deadline);
        }
        return None;
    }
    let fault = deadline.err().filter(|_| is_grpc(content_type));
    let (code, status) = if let Some(text) = fault {
        (StatusCode::BAD_REQUEST, Status::internal(text))
    } else if is_grpc(content_type) {
        let verb = parts.method.as_str();
        let text = format!("Received a HEADERS frame with :method {verb:?} which should be POST");
        (StatusCode::METHOD_NOT_ALLOWED, Status::internal(text))
    } else {
        let text = String::from_utf8_lossy(content_type);
        let status =
            Status::invalid_argument(format!("invalid gRPC request content-type {text:?}"));
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, status)
    };
    let mut response = answer::failure(&status);
    *response.status_mut() = code;
    Some(response)
}

fn is_grpc(content_type: &[u8]) -> bool {
    match content_type.strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
        None => false,
    }
}
