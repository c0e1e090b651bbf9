//! WebSockets on the JSON gateway's paths: each message of the client is a document of the request,
//! and each line of the answer is a message. etcd does so for browsers, which cannot send a request
//! and its answer's beginning at the same time.
//!
//! Whoever ends a side ends the call: the client by a close frame or by hanging up, the server once
//! the answer is complete.

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
use sha1::{Digest as _, Sha1};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use crate::gateway::{self, Gateway};
use crate::limits;
use crate::rpc::BoxError;

/// What is done on the connection once its last HTTP answer is sent.
pub(super) type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What RFC 6455 adds to the client's key before it is hashed.
const ACCEPT: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const BEARER: &str = "Bearer";

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

/// The answer that accepts a request for a WebSocket, and the call that follows. None if the request
/// is not RFC 6455's.
pub(super) fn accept<B>(
    gateway: &Arc<Gateway>,
    mut request: Request<B>,
    origin: gateway::Origin,
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
        let stream = TokioIo::new(upgraded);
        let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
        call(gateway, parts, socket, origin).await;
    };
    Some((answer, Box::pin(job)))
}

async fn call<S>(
    gateway: Arc<Gateway>,
    parts: http::request::Parts,
    socket: WebSocketStream<S>,
    origin: gateway::Origin,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (mut to_client, mut from_client) = socket.split();
    let (documents, body) = mpsc::channel(1);
    let asked = async {
        while let Some(Ok(message)) = from_client.next().await {
            let mut document = match message {
                Message::Text(text) => BytesMut::from(Bytes::from(text)),
                Message::Binary(bytes) => BytesMut::from(bytes),
                Message::Close(_) => break,
                _ => continue,
            };
            document.extend_from_slice(b"\n");
            if documents.send(document.freeze()).await.is_err() {
                // The call reads no more, and its answer goes on.
                while from_client.next().await.is_some_and(|message| message.is_ok()) {}
                break;
            }
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
        let _ = to_client.close().await;
    };
    tokio::select! {
        () = asked => {}
        () = answered => {}
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
