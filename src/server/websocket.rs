//! WebSockets on the JSON gateway's paths: each message of the client is a document of the request,
//! and each line of the answer is a message. etcd does so for browsers, which cannot send a request
//! and its answer's beginning at the same time.
//!
//! Whoever ends a side ends the call: the client by a close frame or by hanging up, the server once
//! the answer is complete.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    AUTHORIZATION, CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use sha1::{Digest as _, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use crate::gateway::{self, Gateway};
use crate::limits;
use crate::rpc::BoxError;

/// What is done on the connection once its last HTTP answer is sent.
pub(super) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What RFC 6455 adds to the client's key before it is hashed.
const ACCEPT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const BEARER: &str = "Bearer";
/// A client's control frame before its payload: type, length and mask.
const CONTROL_HEAD_BYTES: usize = 6;

/// Whether a request asks for a WebSocket.
pub(super) fn is_asked<B>(request: &Request<B>) -> bool {
    let has_word = |name, word: &str| {
        let values = request.headers().get_all(name).iter();
        values
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|have| have.trim().eq_ignore_ascii_case(word)))
    };
    has_word(CONNECTION, "upgrade") && has_word(UPGRADE, "websocket")
}

/// The answer that accepts a request for a WebSocket, and the call that follows. `part` counts what
/// comes of a message before it is whole. None if the request is not RFC 6455's.
pub(super) fn accept<B>(
    gateway: &Arc<Gateway>,
    mut request: Request<B>,
    origin: gateway::Origin,
    part: Box<dyn gateway::Incomplete>,
) -> Option<(Response<()>, Job)> {
    let headers = request.headers();
    let key = headers.get(SEC_WEBSOCKET_KEY)?.clone();
    let is_version = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    if request.method() != Method::GET || !is_version {
        return None;
    }
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let hash = Sha1::new().chain_update(key.as_bytes()).chain_update(ACCEPT).finalize();
    let accepted = HeaderValue::try_from(STANDARD.encode(hash)).ok()?;
    let own = answer.headers_mut();
    own.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    own.insert(UPGRADE, HeaderValue::from_static("websocket"));
    own.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    let mut of_call = HeaderMap::new();
    // A browser can set no other header, so the token comes as a second protocol.
    let protocols = headers.get(SEC_WEBSOCKET_PROTOCOL).and_then(|names| names.to_str().ok());
    if let Some(names) = protocols {
        let token = names.replacen(',', " ", 1).split_whitespace().collect::<Vec<_>>().join(" ");
        of_call.insert(AUTHORIZATION, HeaderValue::try_from(token).ok()?);
        if names.starts_with(BEARER) {
            own.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(BEARER));
        }
    }
    let upgrading = hyper::upgrade::on(&mut request);
    let (mut parts, _) = request.into_parts();
    (parts.method, parts.headers) = (Method::POST, of_call);
    let gateway = Arc::clone(gateway);
    let job = async move {
        let Ok(upgraded) = upgrading.await else { return };
        let bytes_max = Some(gateway.document_bytes_max());
        let config =
            WebSocketConfig::default().max_message_size(bytes_max).max_frame_size(bytes_max);
        let config = config.read_buffer_size(limits::WEBSOCKET_READ_BYTES);
        let unfinished = Unfinished::new(part);
        let stream = Counted(TokioIo::new(upgraded), unfinished.clone());
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        call(gateway, parts, socket, unfinished, origin).await;
    };
    Some((answer, Box::pin(job)))
}

async fn call<S>(
    gateway: Arc<Gateway>,
    parts: http::request::Parts,
    socket: WebSocketStream<S>,
    unfinished: Unfinished,
    origin: gateway::Origin,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut to_client, mut from_client) = socket.split();
    let (documents, body) = mpsc::channel(1);
    // Resolves with the reason for which the socket is closed.
    let asked = async {
        loop {
            let message = tokio::select! {
                message = from_client.next() => message,
                () = unfinished.given_up() => return CloseCode::Policy,
            };
            let mut document = match message {
                Some(Ok(Message::Text(text))) => BytesMut::from(Bytes::from(text)),
                Some(Ok(Message::Binary(bytes))) => BytesMut::from(bytes),
                Some(Ok(Message::Close(_))) | None => return CloseCode::Normal,
                Some(Ok(control)) => {
                    // It may stand between the parts of a message.
                    unfinished.pass(CONTROL_HEAD_BYTES + control.len());
                    continue;
                }
                Some(Err(Error::Capacity(_))) => return CloseCode::Size,
                Some(Err(_)) => return CloseCode::Protocol,
            };
            unfinished.begin_anew();
            document.extend_from_slice(b"\n");
            // If the call reads no more, the document is dropped, and the answer goes on.
            let _ = documents.send(document.freeze()).await;
        }
    };
    let answered = async {
        let mut answer = gateway.answer(parts, Documents(body), origin).await.into_body();
        while let Some(Ok(frame)) = answer.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            let line = String::from_utf8_lossy(data.trim_ascii_end()).into_owned();
            if to_client.send(Message::text(line)).await.is_err() {
                return;
            }
        }
    };
    let code = tokio::select! {
        code = asked => code,
        () = answered => CloseCode::Normal,
    };
    let close = Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::default() }));
    let closing = async {
        if to_client.send(close).await.is_err() {
            // The answer to the client's close frame is on its way already.
            let _ = to_client.flush().await;
        }
    };
    drop(tokio::time::timeout(limits::WEBSOCKET_CLOSE_PATIENCE, closing).await);
}

/// Counts what has come since the last whole message. It may be a part of the next one, which
/// nobody has a use for until it is whole.
#[derive(Clone)]
struct Unfinished(Arc<Mutex<Part>>);

struct Part {
    bytes: usize,
    counted: Box<dyn gateway::Incomplete>,
    /// When bytes came last.
    came: tokio::time::Instant,
}

impl Unfinished {
    fn new(counted: Box<dyn gateway::Incomplete>) -> Self {
        let came = tokio::time::Instant::now();
        Self(Arc::new(Mutex::new(Part { bytes: 0, counted, came })))
    }

    fn add(&self, bytes: usize) {
        let mut part = self.0.lock();
        part.bytes += bytes;
        part.came = tokio::time::Instant::now();
        let bytes = part.bytes;
        part.counted.set(bytes);
    }

    /// So many of the bytes belong to no message.
    fn pass(&self, bytes: usize) {
        let mut part = self.0.lock();
        part.bytes = part.bytes.saturating_sub(bytes);
        let bytes = part.bytes;
        part.counted.set(bytes);
    }

    fn begin_anew(&self) {
        let mut part = self.0.lock();
        part.bytes = 0;
        part.counted.set(0);
    }

    /// Resolves once the part has to go: others need the room, or nothing of it came for long.
    async fn given_up(&self) {
        let asked_to =
            poll_fn(|context| match self.0.lock().counted.is_given_up(context.waker()) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            });
        let late = async {
            loop {
                let (bytes, came) = {
                    let part = self.0.lock();
                    (part.bytes, part.came)
                };
                let end = came + limits::REQUEST_BODY_TIMEOUT;
                if bytes > 0 && tokio::time::Instant::now() >= end {
                    return;
                }
                tokio::time::sleep(limits::REQUEST_BODY_TIMEOUT / 4).await;
            }
        };
        tokio::select! {
            () = asked_to => {}
            () = late => {}
        }
    }
}

/// A connection whose read bytes are counted.
struct Counted<S>(S, Unfinished);

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self(stream, unfinished) = self.get_mut();
        let before = out.filled().len();
        let read = Pin::new(stream).poll_read(context, out);
        if out.filled().len() > before {
            unfinished.add(out.filled().len() - before);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(context)
    }
}

/// The client's messages as a body.
struct Documents(mpsc::Receiver<Bytes>);

impl HttpBody for Documents {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.0.poll_recv(context).map(|document| document.map(|bytes| Ok(Frame::data(bytes))))
    }
}
