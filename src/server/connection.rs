//! One connection: HTTP/2 and HTTP/1.1 told apart by the first bytes, and served.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use http_body::Body as HttpBody;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::watch;

use super::charged::{AnswerBody, ChargedBody, OfAccount};
use super::executor::Requests;
use super::io::{Calls, ClientStream, PREFACE, PollTurns};
use super::line::{ClientLine, LineBody};
use super::measured::{self, Excess, Measured};
use super::outbox::{Account, AnswerSize};
use super::services::{Keepalive, Services, stopping};
use super::socket::Cut;
use super::unfinished::CountedRequestBody;
use super::unread::UnreadRequestBody;
use super::websocket;
use super::write_limit::WriteLimit;
use crate::gateway::{self, Gateway, Line};
use crate::http::{
    Http, Port, canonicalize, error, is_unclean, overloaded, refused_by_form, refused_expectation,
};
use crate::rpc::{CommonName, LocalAddress};
use crate::supervise::Supervisor;
use crate::tls::Replay;
use crate::{limits, rpc};

/// What is known of a connection before its first request.
#[derive(Clone, Default)]
pub(super) struct Origin {
    pub is_secured: bool,
    pub user: Option<CommonName>,
    /// None for a socket of the system's own, which has no address.
    pub remote: Option<SocketAddr>,
    /// The address at which the connection was accepted, if calls are traced.
    pub local: Option<LocalAddress>,
    pub cut: Cut,
}

impl Origin {
    fn note<B>(&self, request: &mut Request<B>) {
        if let Some(local) = &self.local {
            request.extensions_mut().insert(local.clone());
        }
    }
}

/// Serves a connection until it ends.
pub(super) async fn connection<S>(
    mut stream: S,
    origin: Origin,
    services: Services,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let sniffed = tokio::time::timeout(limits::PREFACE_TIMEOUT, sniff(&mut stream)).await;
    let Ok(Ok((first, http2))) = sniffed else { return };
    match (http2, &services.rpc) {
        // Without TLS, HTTP/2 carries gRPC alone, which this port does not serve. Members speak
        // HTTP/1.1 to each other.
        (true, None) if !origin.is_secured || services.port == Port::Peer => {}
        (false, _) if !services.serves_http => {}
        (true, _) => http2_connection(stream, first, origin, services, stop).await,
        (false, _) => {
            let stream = Replay::new(first, stream);
            match services.port {
                Port::Peer => peer_connection(stream, services, stop).await,
                _ => http1_connection(stream, origin, services, stop).await,
            }
        }
    }
}

/// Reads until the bytes are, or can no longer be, the HTTP/2 preface.
async fn sniff<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(Bytes, bool)> {
    let mut first = BytesMut::with_capacity(256);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let common = first.len().min(PREFACE.len());
        if first[..common] != PREFACE[..common] {
            return Ok((first.freeze(), false));
        }
        if common == PREFACE.len() {
            return Ok((first.freeze(), true));
        }
    }
}

async fn http2_connection<S>(
    stream: S,
    first: Bytes,
    origin: Origin,
    services: Services,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let front = Front::new(&services, origin.clone());
    let Services { rpc, keepalive, serves_http, supervisor, outbox, .. } = services;
    let account = outbox.open(origin.remote);
    let calls = Calls::default();
    let serves_both = serves_http && origin.is_secured;
    // As in etcd: where one port serves both, Go's HTTP server has the connection and counts no
    // pings.
    let minimum = Some(keepalive.minimum).filter(|_| !serves_both);
    let (of_calls, turns) = (calls.clone(), PollTurns::default());
    let stream =
        ClientStream::new(stream, first, minimum, of_calls, turns.clone(), Arc::clone(&account));
    let of_calls = Arc::clone(&account);
    let service = service_fn(move |request: Request<Incoming>| {
        let (front, open) = (front.clone(), calls.enter());
        let (account, queued) = (Arc::clone(&of_calls), of_calls.queue());
        let mut request =
            request.map(|body| UnreadRequestBody::new(body, Arc::clone(of_calls.unread())));
        origin.note(&mut request);
        // Over TLS one connection carries both, and the content type tells them apart.
        let rpc = rpc.clone().filter(|_| !serves_both || is_grpc(&request));
        if let (Some(user), Some(_)) = (&origin.user, &rpc) {
            request.extensions_mut().insert(user.clone());
        }
        async move {
            drop(queued);
            let kind = AnswerSize::of(Gateway::call_of(request.uri().path()));
            let may_begin = account.enter(kind).await;
            let begun = account.begin();
            let answer = match (rpc, may_begin) {
                (Some(rpc), true) => {
                    let unfinished = account.unfinished();
                    let request = request.map(|body| CountedRequestBody::new(body, unfinished));
                    rpc.call(request, origin.remote).await.map(AnswerBody::Grpc)
                }
                (Some(_), false) => rpc::too_many_requests().map(AnswerBody::Grpc),
                // Boxed, so that a call of gRPC does not hold this future's memory.
                (None, true) => Box::pin(front.http2(request, kind, &account)).await?,
                (None, false) => {
                    let (parts, body) = request.into_parts();
                    rpc::discard(&parts.headers, body).await;
                    overloaded().map(AnswerBody::Http)
                }
            };
            let counted = |body| ChargedBody::new(body, kind, Some(open), begun, account);
            Ok::<_, h2::Error>(answer.map(counted))
        }
    });
    let builder = http2(keepalive, supervisor);
    let connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let closing = account.closing();
    until_end(connection, |connection| connection.graceful_shutdown(), turns, closing, stop).await;
}

/// HTTP/2 with the bounds of `limits` and the flags instead of h2's defaults.
fn http2(keepalive: Keepalive, supervisor: Supervisor) -> http2::Builder<Requests> {
    let mut builder = http2::Builder::new(Requests(supervisor));
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(keepalive.streams_max)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits::HEADER_BYTES_MAX)
        .header_table_size(limits::HEADER_TABLE_BYTES)
        .max_pending_accept_reset_streams(limits::RESET_STREAMS_MAX)
        .max_local_error_reset_streams(limits::ERROR_RESETS_MAX)
        .keep_alive_interval(keepalive.pings())
        .keep_alive_timeout(keepalive.timeout);
    builder
}

/// HTTP/1.1 on a port for clients.
async fn http1_connection<S>(
    stream: S,
    origin: Origin,
    services: Services,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let account = services.outbox.open(origin.remote);
    // etcd looks for HTTP/1 on such a port before it hands the connection to Go's server.
    let is_sniffed = services.port == Port::Client && !origin.is_secured;
    let line = ClientLine::new(stream, Arc::clone(&account), is_sniffed);
    let read = line.clone();
    let front = Front::new(&services, origin);
    let (of_calls, of_answers) = (Arc::clone(&account), line.clone());
    let upgraded: Arc<Mutex<Option<websocket::Job>>> = Arc::default();
    let upgrade = Arc::clone(&upgraded);
    let service = service_fn(move |mut request: Request<Incoming>| {
        front.origin.note(&mut request);
        let (front, account, line) = (front.clone(), Arc::clone(&of_calls), of_answers.clone());
        let upgrade = Arc::clone(&upgrade);
        canonicalize(&mut request, front.gateway.is_some());
        async move {
            let asking = request.headers().contains_key(UPGRADE).then(|| line.clone());
            let kind = AnswerSize::of(Gateway::call_of(request.uri().path()));
            let begun = account.begin();
            let is_old = request.version() == Version::HTTP_10;
            let cut = is_old.then(|| front.origin.cut.clone());
            let request = request.map(|body| LineBody::new(body, line.clone()));
            let answer = match refused_expectation(request.headers()) {
                Some(refusal) => refusal.map(AnswerBody::Http),
                None if websocket::is_asked(&request) => {
                    front.upgrade(request, kind, &account, &upgrade).await
                }
                None => front.answer(request, kind, &account, Some(Arc::new(line))).await,
            };
            if let Some(line) = asking {
                line.answered(answer.status() == StatusCode::SWITCHING_PROTOCOLS);
            }
            let counted = |body| ChargedBody::new(body, kind, None, begun, account).cutting(cut);
            Ok::<_, Infallible>(answer.map(counted))
        }
    });
    let connection = http1(services.header_timeout)
        .serve_connection(TokioIo::new(line), service)
        .with_upgrades();
    let (connection, closing) = (pin!(connection), account.closing());
    let (turns, stopped) = (PollTurns::default(), stop.clone());
    let has_ended =
        until_end(connection, |connection| connection.graceful_shutdown(), turns, closing, stop);
    let has_ended = has_ended.await;
    // Here, so that a WebSocket counts as the connection that it is.
    let upgraded = upgraded.lock().take();
    if let Some(call) = upgraded.filter(|_| has_ended) {
        let mut stop = stopped;
        tokio::select! {
            () = call => {}
            () = stopping(&mut stop) => {}
            () = account.closing() => {}
        }
    } else if has_ended {
        read.linger().await;
    }
}

/// HTTP/1.1 between members.
async fn peer_connection<S>(stream: S, services: Services, stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Services { http, peers, header_timeout, peer_write_timeout, .. } = services;
    let stream = WriteLimit::new(stream, peer_write_timeout);
    let service = service_fn(move |request: Request<Incoming>| {
        let (http, peers) = (Arc::clone(&http), Arc::clone(&peers));
        async move {
            if let Some(refusal) = refused_by_form(&request) {
                return Ok(refusal.map(Either::Right));
            }
            let answer: Response<_> = match is_raft(request.uri().path()) {
                true => peers.answer(request).await.map(Either::Left),
                false => http.answer_peer(request).await.map(Either::Right),
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1(header_timeout).serve_connection(TokioIo::new(stream), service);
    let (connection, turns, closing) = (pin!(connection), PollTurns::default(), pending());
    until_end(connection, |connection| connection.graceful_shutdown(), turns, closing, stop).await;
}

fn http1(header_timeout: Duration) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(limits::HTTP1_BUFFER_BYTES_MAX)
        // A client that closes its side after its request still waits for the answer.
        .half_close(true)
        .title_case_headers(true);
    builder
}

/// What answers the requests of a connection that are not gRPC.
#[derive(Clone)]
struct Front {
    http: Arc<Http>,
    gateway: Option<Arc<Gateway>>,
    port: Port,
    origin: Origin,
}

impl Front {
    fn new(services: &Services, origin: Origin) -> Self {
        let Services { http, gateway, port, .. } = services;
        let gateway = gateway.clone().filter(|_| *port == Port::Client);
        Self { http: Arc::clone(http), gateway, port: *port, origin }
    }

    /// Answers a request for a WebSocket, and leaves what follows in `upgrade`.
    async fn upgrade<B>(
        &self,
        request: Request<B>,
        kind: AnswerSize,
        account: &Arc<Account>,
        upgrade: &Mutex<Option<websocket::Job>>,
    ) -> Response<AnswerBody>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<rpc::BoxError> + Send + Sync,
    {
        let is_options = request.method() == Method::OPTIONS;
        let gateway = self.gateway_of(request.uri().path()).filter(|_| !is_options);
        let Some(gateway) = gateway else {
            return self.answer(request, kind, account, None).await;
        };
        let (parts, body) = request.into_parts();
        if let Some(refusal) = self.refuse(gateway, &parts) {
            return refusal.map(AnswerBody::Http);
        }
        let origins = self.http.origins(&parts.headers);
        let request = Request::from_parts(parts, body);
        let origin = origin(kind, account, None, self.origin.remote);
        let part = account.unfinished().incomplete();
        match websocket::accept(gateway, request, origin, part) {
            Ok((answer, call)) => {
                *upgrade.lock() = Some(call);
                answer.map(|()| AnswerBody::Http(Full::default()))
            }
            Err(status) => {
                let mut refusal = error(status, status.canonical_reason().unwrap_or(""));
                refusal.headers_mut().extend(origins);
                refusal.headers_mut().insert(SEC_WEBSOCKET_VERSION, websocket::VERSION);
                refusal.map(AnswerBody::Http)
            }
        }
    }

    /// The gateway, if the path is its.
    fn gateway_of(&self, path: &str) -> Option<&Arc<Gateway>> {
        self.gateway.as_ref().filter(|_| Gateway::serves(path) && !is_unclean(path))
    }

    fn refuse(&self, gateway: &Gateway, parts: &Parts) -> Option<Response<Full<Bytes>>> {
        let refusal = self.http.refuse(self.origin.is_secured, parts);
        let names_user = |CommonName(name): &CommonName| !name.is_empty();
        let names_user = self.origin.user.as_ref().is_some_and(names_user);
        refusal.or_else(|| {
            let why = gateway.refuses_names().filter(|_| names_user)?;
            Some(error(StatusCode::BAD_REQUEST, why))
        })
    }

    /// Answers a request of HTTP/2. The error resets the stream.
    async fn http2<B>(
        &self,
        mut request: Request<B>,
        kind: AnswerSize,
        account: &Arc<Account>,
    ) -> Result<Response<AnswerBody>, h2::Error>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<rpc::BoxError> + Send + Sync,
    {
        canonicalize(&mut request, self.gateway.is_some());
        let is_head = request.method() == Method::HEAD;
        let (parts, body) = request.into_parts();
        let excess = Excess::default();
        let body = Measured::new(&parts.headers, body, excess.clone())?;
        let answer = self.answer(Request::from_parts(parts, body), kind, account, None).await;
        if excess.is_there() {
            return Err(measured::reset());
        }
        // Over HTTP/1.1 hyper leaves the body out by itself.
        Ok(if is_head { without_body(answer) } else { answer })
    }

    async fn answer<B>(
        &self,
        request: Request<B>,
        kind: AnswerSize,
        account: &Arc<Account>,
        line: Option<Arc<dyn Line>>,
    ) -> Response<AnswerBody>
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<rpc::BoxError> + Send + Sync,
    {
        let Some(gateway) = self.gateway_of(request.uri().path()) else {
            let (parts, body) = request.into_parts();
            rpc::discard(&parts.headers, body).await;
            let answer = self.http.answer(self.port, self.origin.is_secured, &parts).await;
            return answer.map(AnswerBody::Http);
        };
        let (parts, body) = request.into_parts();
        let origins = self.http.origins(&parts.headers);
        let mut answer = match self.refuse(gateway, &parts) {
            Some(refusal) => {
                rpc::discard(&parts.headers, body).await;
                return refusal.map(AnswerBody::Http);
            }
            None if parts.method == Method::OPTIONS => {
                rpc::discard(&parts.headers, body).await;
                Response::new(AnswerBody::Http(Full::default()))
            }
            None => {
                let origin = origin(kind, account, line, self.origin.remote);
                Arc::clone(gateway).answer(parts, body, origin).await.map(AnswerBody::Json)
            }
        };
        answer.headers_mut().extend(origins);
        answer
    }
}

/// What the gateway is told of a request on a connection with this account.
fn origin(
    kind: AnswerSize,
    account: &Arc<Account>,
    line: Option<Arc<dyn Line>>,
    remote: Option<SocketAddr>,
) -> gateway::Origin {
    let unsent = Arc::new(OfAccount(Arc::clone(account), kind));
    gateway::Origin { unsent, incomplete: account.unfinished().incomplete(), line, remote }
}

/// Runs a connection until it ends or `closing` resolves. When the server stops, the connection
/// finishes the answers that have begun, and ends. True if it ended in order.
async fn until_end<C, E>(
    mut connection: Pin<&mut C>,
    ends_gracefully: fn(Pin<&mut C>),
    turns: PollTurns,
    closing: impl Future<Output = ()>,
    mut stop: watch::Receiver<bool>,
) -> bool
where
    C: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    tokio::select! {
        result = turns.clone().of(connection.as_mut()) => {
            if let Err(error) = &result {
                tracing::debug!(%error, "client connection ended");
            }
            return result.is_ok();
        }
        () = closing => return false,
        () = stopping(&mut stop) => ends_gracefully(connection.as_mut()),
    }
    turns.of(connection).await.is_ok()
}

/// The answer to a HEAD request: the head alone, with the length that the body would have.
fn without_body(answer: Response<AnswerBody>) -> Response<AnswerBody> {
    let (mut head, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    Response::from_parts(head, AnswerBody::Http(Full::default()))
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn is_raft(path: &str) -> bool {
    path == "/raft" || path.starts_with("/raft/")
}
