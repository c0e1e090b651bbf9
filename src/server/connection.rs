//! One connection: HTTP/2 and HTTP/1.1 told apart by the first bytes, and served.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::watch;

use super::executor::Requests;
use super::io::{Calls, ClientStream, OpenCall, PREFACE, PollTurns};
use super::outbox::{Account, AnswerSize, Begun, Room};
use super::services::{Keepalive, Services, stopping};
use super::unfinished::CountedRequestBody;
use super::unread::UnreadRequestBody;
use crate::http::{Port, overloaded, refused_by_form};
use crate::rpc::CommonName;
use crate::supervise::Supervisor;
use crate::tls::Replay;
use crate::{limits, rpc};

/// What is known of a connection before its first request.
#[derive(Clone, Default)]
pub(super) struct Origin {
    pub is_secured: bool,
    pub user: Option<CommonName>,
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
            http1_connection(stream, origin.is_secured, services, stop).await;
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
    let Services { rpc, http, port, keepalive, serves_http, supervisor, outbox, .. } = services;
    let account = outbox.open();
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
        let (http, open) = (Arc::clone(&http), calls.enter());
        let (account, queued) = (Arc::clone(&of_calls), of_calls.queue());
        let mut request =
            request.map(|body| UnreadRequestBody::new(body, Arc::clone(of_calls.unread())));
        // Over TLS one connection carries both, and the content type tells them apart.
        let rpc = rpc.clone().filter(|_| !serves_both || is_grpc(&request));
        if let Some(user) = &origin.user {
            request.extensions_mut().insert(user.clone());
        }
        async move {
            drop(queued);
            let kind = AnswerSize::of(request.uri().path());
            let may_begin = account.enter(kind).await;
            let unfinished = account.unfinished();
            let open = (open, account.begin());
            let counted = |body| {
                let (room, passed) = (Room::default(), 0);
                ChargedBody { body, kind, _open: open, account, room, passed }
            };
            let Some(rpc) = rpc else {
                let parts = received(request).await;
                let answer = match may_begin {
                    true => http.answer(port, origin.is_secured, &parts).await,
                    false => overloaded(),
                };
                return Ok::<_, Infallible>(answer.map(|body| counted(Either::Right(body))));
            };
            let response = match may_begin {
                true => {
                    rpc.call(request.map(|body| CountedRequestBody::new(body, unfinished))).await
                }
                false => rpc::too_many_requests(),
            };
            Ok(response.map(|body| counted(Either::Left(body))))
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

async fn http1_connection<S>(
    stream: S,
    is_secured: bool,
    services: Services,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Services { http, peers, port, header_timeout, .. } = services;
    let service = service_fn(move |request: Request<Incoming>| {
        let (http, peers) = (Arc::clone(&http), Arc::clone(&peers));
        async move {
            if let Some(refusal) = refused_by_form(port, &request) {
                return Ok(refusal.map(Either::Right));
            }
            let answer: Response<_> = match port {
                Port::Peer if is_raft(request.uri().path()) => {
                    peers.answer(request).await.map(Either::Left)
                }
                Port::Peer => http.answer_peer(request).await.map(Either::Right),
                _ => {
                    let parts = received(request).await;
                    http.answer(port, is_secured, &parts).await.map(Either::Right)
                }
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        // A client that closes its side after its request still waits for the answer.
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    let (connection, turns, closing) = (pin!(connection), PollTurns::default(), pending());
    until_end(connection, |connection| connection.graceful_shutdown(), turns, closing, stop).await;
}

/// Runs a connection until it ends or `closing` resolves. When the server stops, the connection
/// finishes the answers that have begun, and ends.
async fn until_end<C, E>(
    mut connection: Pin<&mut C>,
    ends_gracefully: fn(Pin<&mut C>),
    turns: PollTurns,
    closing: impl Future<Output = ()>,
    mut stop: watch::Receiver<bool>,
) where
    C: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    tokio::select! {
        result = turns.clone().of(connection.as_mut()) => {
            if let Err(error) = result {
                tracing::debug!(%error, "client connection ended");
            }
            return;
        }
        () = closing => return,
        () = stopping(&mut stop) => ends_gracefully(connection.as_mut()),
    }
    drop(turns.of(connection).await);
}

/// Waits for the end of an HTTP request's body, which is not used, and returns the head. An answer
/// before the body's end makes h2 reset the stream, and curl then often loses the answer.
async fn received<B: HttpBody<Data = Bytes> + Unpin>(request: Request<B>) -> Parts {
    let (parts, mut body) = request.into_parts();
    let mut length = 0;
    let end = async {
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
            if length > limits::HTTP_BODY_BYTES_MAX {
                break;
            }
        }
    };
    drop(tokio::time::timeout(limits::HTTP_BODY_TIMEOUT, end).await);
    parts
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn is_raft(path: &str) -> bool {
    path == "/raft" || path.starts_with("/raft/")
}

/// An answer whose call counts as open, and whose bytes count for its connection, until they are
/// sent.
struct ChargedBody {
    body: Either<rpc::Body, Full<Bytes>>,
    kind: AnswerSize,
    _open: (OpenCall, Begun),
    account: Arc<Account>,
    room: Room,
    /// Messages since the last pause.
    passed: u32,
}

impl HttpBody for ChargedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { body, kind, account, room, passed, .. } = self.get_mut();
        if matches!(body, Either::Left(rpc::Body::Stream(_))) {
            if *passed == limits::ANSWERS_PER_TURN_MAX {
                *passed = 0;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(account.poll_room(*kind, room, context));
        }
        let polled = Pin::new(body).poll_frame(context);
        *passed = if polled.is_ready() { *passed + 1 } else { 0 };
        let frame = ready!(polled);
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|data| account.charge(*kind, data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
