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
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
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
use tokio_tungstenite::tungstenite::error::ProtocolError;
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
/// The version of the protocol.
pub(super) const VERSION: HeaderValue = HeaderValue::from_static("13");
/// A client's control frame before its payload: type, length and mask.
const CONTROL_HEAD_BYTES: usize = 6;

/// Whether a request asks for a WebSocket.
pub(super) fn is_asked<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    has_word(headers, CONNECTION, "upgrade") && has_word(headers, UPGRADE, "websocket")
}

fn has_word(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|have| have.trim().eq_ignore_ascii_case(word))
}

/// The answer that accepts a request for a WebSocket, and the call that follows. `part` counts what
/// comes of a message before it is whole. The error is the status of a refusal.
pub(super) fn accept<B>(
    gateway: &Arc<Gateway>,
    mut request: Request<B>,
    origin: gateway::Origin,
    part: Box<dyn gateway::Incomplete>,
) -> Result<(Response<()>, Job), StatusCode> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(StatusCode::METHOD_NOT_ALLOWED);
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes()));
    let key = key.filter(|_| has_word(headers, SEC_WEBSOCKET_VERSION, "13"));
    let key = key.ok_or(StatusCode::BAD_REQUEST)?;
    let mut answer = Response::new(());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let hash = Sha1::new().chain_update(key.as_bytes()).chain_update(ACCEPT).finalize();
    let own = answer.headers_mut();
    own.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    own.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accepted) = HeaderValue::try_from(STANDARD.encode(hash)) {
        own.insert(SEC_WEBSOCKET_ACCEPT, accepted);
    }
    let protocols = headers.get(SEC_WEBSOCKET_PROTOCOL).map_or(&b""[..], HeaderValue::as_bytes);
    if protocols.starts_with(BEARER.as_bytes()) {
        own.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(BEARER));
    }
    let mut of_call = HeaderMap::new();
    if let Some(token) = token(headers).and_then(|token| HeaderValue::from_bytes(&token).ok()) {
        of_call.insert(AUTHORIZATION, token);
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
    Ok((answer, Box::pin(job)))
}

/// Whether a client's key is the base64 of 16 bytes.
fn is_key(key: &[u8]) -> bool {
    const LOOSE: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    LOOSE.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// The value of `Authorization` for the call. A browser can set no such header, so the token comes
/// in the cookie `token`, or else as a second protocol.
fn token(headers: &HeaderMap) -> Option<Vec<u8>> {
    let cookies = headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|cookies| cookies.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii));
    let is_value = |value: &&[u8]| {
        value.iter().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\".contains(byte))
    };
    let unquoted = |value: &'_ [u8]| -> Vec<u8> {
        let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        inner.unwrap_or(value).to_vec()
    };
    let value = cookies.filter_map(|cookie| cookie.strip_prefix(b"token="));
    let value = value.map(unquoted).find(|value| is_value(&value.as_slice()));
    if let Some(value) = value {
        return Some([BEARER.as_bytes(), b" ", &value].concat());
    }
    let names = headers.get(SEC_WEBSOCKET_PROTOCOL).filter(|names| !names.is_empty())?;
    let names = names.as_bytes();
    let mut behind = (0..names.len()).map(|at| &names[at..]);
    let token = behind.find_map(|names| names.strip_prefix(b"Bearer,"));
    Some(match token {
        Some(token) => [BEARER.as_bytes(), b" ", token.trim_ascii()].concat(),
        None => Vec::new(),
    })
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
    // Resolves with the code and the reason with which the socket is closed.
    let asked = async {
        loop {
            let message = tokio::select! {
                message = from_client.next() => message,
                () = unfinished.given_up() => return (CloseCode::Policy, "".into()),
            };
            let mut document = match message {
                Some(Ok(Message::Text(text))) => BytesMut::from(Bytes::from(text)),
                Some(Ok(Message::Binary(bytes))) => BytesMut::from(bytes),
                Some(Ok(Message::Close(_))) | None => {
                    return (CloseCode::Normal, "".into());
                }
                Some(Ok(control)) => {
                    // It may stand between the parts of a message.
                    unfinished.pass(CONTROL_HEAD_BYTES + control.len());
                    continue;
                }
                Some(Err(Error::Capacity(_))) => return (CloseCode::Size, "".into()),
                Some(Err(error)) => return (CloseCode::Protocol, reason(&error)),
            };
            unfinished.begin_anew();
            document.extend_from_slice(b"\n");
            // If the call reads no more, the document is dropped, and the answer goes on.
            let _ = documents.send(document.freeze()).await;
        }
    };
    let unsent = Arc::clone(&origin.unsent);
    let answered = async {
        let mut answer = gateway.answer(parts, Documents(body), origin).await.into_body();
        while let Some(frame) = answer.frame().await {
            let Ok(frame) = frame else { return (CloseCode::Error, "".into()) };
            let Ok(data) = frame.into_data() else { continue };
            // Counted twice, since the socket keeps a copy until all of it is sent.
            let copy = unsent.charge(data.clone());
            let line = unsent.charge(data.slice(..data.trim_ascii_end().len()));
            let Ok(line) = Utf8Bytes::try_from(line) else { break };
            let sent = to_client.send(Message::Text(line)).await;
            drop(copy);
            if sent.is_err() {
                break;
            }
        }
        (CloseCode::Normal, "".into())
    };
    let (code, reason) = tokio::select! {
        end = asked => end,
        end = answered => end,
    };
    let close = Message::Close(Some(CloseFrame { code, reason }));
    let closing = async {
        if to_client.send(close).await.is_err() {
            // The answer to the client's close frame is on its way already.
            let _ = to_client.flush().await;
        }
    };
    drop(tokio::time::timeout(limits::WEBSOCKET_CLOSE_PATIENCE, closing).await);
}

/// What is wrong with a frame, in the words of etcd's library.
fn reason(error: &Error) -> Utf8Bytes {
    let Error::Protocol(error) = error else { return Utf8Bytes::default() };
    match error {
        ProtocolError::UnmaskedFrameFromClient => "bad MASK".into(),
        ProtocolError::NonZeroReservedBits => "RSV1 set".into(),
        ProtocolError::FragmentedControlFrame => "FIN not set on control".into(),
        ProtocolError::ControlFrameTooBig => "len > 125 for control".into(),
        ProtocolError::UnexpectedContinueFrame => "continuation after FIN".into(),
        ProtocolError::ExpectedFragment(_) => "data before FIN".into(),
        ProtocolError::UnknownControlFrameType(code)
        | ProtocolError::UnknownDataFrameType(code)
        | ProtocolError::InvalidOpcode(code) => format!("bad opcode {code}").into(),
        _ => Utf8Bytes::default(),
    }
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
