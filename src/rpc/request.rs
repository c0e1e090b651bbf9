//! Reads the messages of requests, one or a stream of them. Errors about messages have grpc-go's
//! texts.
//!
//! A request is a sequence of messages, each behind a flag and its length. They are read here
//! rather than by tonic's server, whose error texts differ, and which buffers a large message
//! before it refuses it.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use http::HeaderMap;
use http::header::{EXPECT, HeaderName, HeaderValue};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;
use prost::Message;
use tonic::{Code, Status};

use super::answer::BoxError;
use super::encoded::PREFIX_BYTES;
use crate::go;
use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_BODY_TIMEOUT, REQUEST_BODY_TIMEOUT};
use crate::metrics;
use crate::pb::shapes::Shaped;
use crate::pb::tolerant::{self, Malformed};

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// Initial capacity for a message of which only the beginning has arrived, in bytes: a few frames
/// of HTTP/2.
const FIRST_BYTES: usize = 64 << 10;

/// The encoding that the header `grpc-encoding` names. Nothing is decompressed here, but a client
/// that names an encoding and sends its messages uncompressed is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    /// Installed in etcd, so naming it is no error; a message that uses it is.
    Gzip,
}

impl Encoding {
    /// The encoding of a request. As in grpc-go, the last of several headers counts.
    fn of(headers: &HeaderMap) -> Result<Self, Status> {
        let named = headers.get_all(GRPC_ENCODING).iter().next_back();
        match named.map_or(&b""[..], HeaderValue::as_bytes) {
            b"" | b"identity" => Ok(Self::Identity),
            b"gzip" => Ok(Self::Gzip),
            other => Err(not_installed(other)),
        }
    }

    /// Refuses a message whose flag says that it is compressed, or is unknown.
    fn check(self, flag: u8) -> Result<(), Status> {
        match (flag, self) {
            (0, _) => Ok(()),
            (1, Self::Identity) => {
                Err(Status::internal("grpc: compressed flag set with identity or empty encoding"))
            }
            (1, Self::Gzip) => Err(not_installed(b"gzip")),
            _ => Err(Status::internal(format!("grpc: received unexpected payload format {flag}"))),
        }
    }
}

/// Fails if the request names an encoding that etcd does not have.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    Encoding::of(headers).map(drop)
}

fn not_installed(encoding: &[u8]) -> Status {
    let name = go::quote(encoding);
    Status::unimplemented(format!("grpc: Decompressor is not installed for grpc-encoding {name}"))
}

/// How many messages the answer has. grpc-go's errors for an unreadable request depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cardinality {
    One,
    Stream,
}

impl Cardinality {
    /// The error for a body that ends before the message or within its prefix.
    fn no_message(self) -> Status {
        match self {
            Self::One => Status::unknown("EOF"),
            Self::Stream => Status::internal(
                "cardinality violation: received no request message from non-client-streaming RPC",
            ),
        }
    }

    /// The error for a body that ends within the message.
    fn cut(self) -> Status {
        match self {
            Self::One => Status::unknown("unexpected EOF"),
            Self::Stream => Status::internal("unexpected EOF"),
        }
    }

    fn garbled(self, error: &Malformed) -> Status {
        Status::internal(match self {
            Self::One => format!("grpc: error unmarshalling request: {error}"),
            Self::Stream => format!("grpc: failed to unmarshal the received message: {error}"),
        })
    }
}

/// Reads and decodes the one message of a request. Fails with DeadlineExceeded after
/// `REQUEST_BODY_TIMEOUT`, and with ResourceExhausted above `bytes_max`.
pub(super) async fn decode<M, B>(
    cardinality: Cardinality,
    headers: &HeaderMap,
    body: B,
    bytes_max: usize,
    decoded: impl FnOnce(Bytes) -> Result<M, Malformed>,
) -> Result<M, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let encoding = Encoding::of(headers)?;
    // Pinned here and passed by reference: `within` would otherwise hold a second copy of the
    // future in its own state.
    let reading = pin!(read(cardinality, encoding, body, bytes_max));
    let message = within(REQUEST_BODY_TIMEOUT, reading).await?;
    metrics::client_received_bytes().inc_by(message.len() as u64);
    decoded(message).map_err(|error| cardinality.garbled(&error))
}

async fn within(
    patience: Duration,
    mut reading: Pin<&mut impl Future<Output = Result<Bytes, Status>>>,
) -> Result<Bytes, Status> {
    // The message has mostly arrived with the headers; a timer is set only where it has not.
    match reading.as_mut().now_or_never() {
        Some(message) => message,
        None => tokio::time::timeout(patience, reading)
            .await
            .map_err(|_| Status::deadline_exceeded("the request's message did not arrive"))?,
    }
}

async fn read<B>(
    cardinality: Cardinality,
    encoding: Encoding,
    mut body: B,
    bytes_max: usize,
) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let mut have = Bytes::new();
    while have.len() < PREFIX_BYTES {
        let more = next(&mut body).await?.ok_or_else(|| cardinality.no_message())?;
        if have.is_empty() {
            have = more;
            continue;
        }
        let mut joined = BytesMut::from(have.as_ref());
        joined.extend_from_slice(&more);
        have = joined.freeze();
    }
    let flag = have.get_u8();
    let length = have.get_u32() as usize;
    if length > bytes_max {
        return Err(too_large(length, bytes_max));
    }
    if have.len() >= length {
        encoding.check(flag)?;
        have.truncate(length);
        return Ok(have);
    }
    // The buffer grows with the bytes that arrive: a client may announce a long message and send
    // nothing.
    let mut message = BytesMut::with_capacity(length.min(FIRST_BYTES.max(2 * have.len())));
    message.extend_from_slice(&have);
    while message.len() < length {
        let more = next(&mut body).await?.ok_or_else(|| cardinality.cut())?;
        let want = (length - message.len()).min(more.len());
        message.extend_from_slice(&more[..want]);
    }
    encoding.check(flag)?;
    Ok(message.freeze())
}

/// The next bytes of the body, never empty; None at the end of the body.
async fn next<B>(body: &mut B) -> Result<Option<Bytes>, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    loop {
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(Some(data)),
                Err(_trailers) => {}
            },
            Some(Err(error)) => return Err(broken(error.into())),
            None => return Ok(None),
        }
    }
}

/// The status for a body that failed: the one that `server` put into the body, else Canceled.
fn broken(error: BoxError) -> Status {
    match error.downcast::<Status>() {
        Ok(status) => *status,
        Err(error) => Status::cancelled(error.to_string()),
    }
}

/// Waits for the end of a body that is not used, within the bounds for HTTP. An answer before its
/// end can be lost with the connection: h2 resets the stream, and curl then often drops the answer.
/// A client that asked first whether it is wanted has not sent it, and is not told to.
pub async fn discard<B: HttpBody<Data = Bytes> + Unpin>(headers: &HeaderMap, mut body: B) {
    if headers.contains_key(EXPECT) {
        return;
    }
    let mut bytes = 0;
    let end = async {
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > HTTP_BODY_BYTES_MAX {
                break;
            }
        }
    };
    drop(tokio::time::timeout(HTTP_BODY_TIMEOUT, end).await);
}

/// The error for a message of `length` bytes.
pub fn too_large(length: usize, bytes_max: usize) -> Status {
    Status::resource_exhausted(format!(
        "grpc: received message larger than max ({length} vs. {bytes_max})"
    ))
}

/// The messages of a request stream.
pub(super) struct Requests<M> {
    body: tonic::body::Body,
    /// Bytes that have arrived and are not decoded.
    buffer: BytesMut,
    /// Flag and length of the next message, once its prefix has arrived.
    prefix: Option<(u8, usize)>,
    encoding: Encoding,
    bytes_max: usize,
    method: &'static metrics::Method,
    /// Whether the handler waits for a message.
    receives: bool,
    message: PhantomData<fn() -> M>,
}

impl<M> Drop for Requests<M> {
    /// A client that hangs up ends the wait for a message, which counts in etcd as well.
    fn drop(&mut self) {
        self.method.received.inc_by(u64::from(self.receives));
    }
}

impl<M: Message + Default + Shaped> Requests<M> {
    pub(super) fn new<B>(
        method: &'static metrics::Method,
        headers: &HeaderMap,
        body: B,
        bytes_max: usize,
    ) -> Result<Self, Status>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Ok(Self {
            body: tonic::body::Body::new(body),
            buffer: BytesMut::new(),
            prefix: None,
            encoding: Encoding::of(headers)?,
            bytes_max,
            method,
            receives: false,
            message: PhantomData,
        })
    }

    /// The next message; None once the client has closed its side, also if that cuts a prefix, as
    /// in grpc-go. Cancel-safe: bytes that were read stay in `buffer` for the next call. Counts as
    /// a message in any case, as in etcd. Gives way to other tasks from time to time, since many may
    /// have arrived.
    pub(super) async fn message(&mut self) -> Result<Option<M>, Status> {
        self.receives = true;
        tokio::task::coop::consume_budget().await;
        let message = self.next().await;
        self.method.received.inc();
        self.receives = false;
        message
    }

    async fn next(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.buffer.is_empty() {
                // Frees the buffer of a stream that waits: most streams wait most of the time.
                self.buffer = BytesMut::new();
            }
            match next(&mut self.body).await {
                Ok(Some(data)) => self.buffer.extend_from_slice(&data),
                Ok(None) if self.prefix.is_some() => return Err(Cardinality::Stream.cut()),
                Ok(None) => return Ok(None),
                // A body fails with Canceled when the client is gone; that ends the stream like a
                // half-close.
                Err(status) if status.code() == Code::Cancelled => return Ok(None),
                Err(status) => return Err(status),
            }
        }
    }

    /// Decodes the next message if all of it has arrived.
    fn take(&mut self) -> Result<Option<M>, Status> {
        let (flag, length) = match self.prefix {
            Some(prefix) => prefix,
            None if self.buffer.len() < PREFIX_BYTES => return Ok(None),
            None => {
                let prefix = (self.buffer.get_u8(), self.buffer.get_u32() as usize);
                if prefix.1 > self.bytes_max {
                    return Err(too_large(prefix.1, self.bytes_max));
                }
                *self.prefix.insert(prefix)
            }
        };
        if self.buffer.len() < length {
            return Ok(None);
        }
        self.prefix = None;
        self.encoding.check(flag)?;
        metrics::client_received_bytes().inc_by(length as u64);
        let message = tolerant::message(self.buffer.split_to(length).freeze())
            .map_err(|error| Cardinality::Stream.garbled(&error))?;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::task::{Context, Poll};

    use http_body::Frame;

    use super::*;
    use crate::pb::PutRequest;
    use crate::rpc::answer::Encode as _;
    use crate::rpc::routes;

    struct Chunks(VecDeque<Bytes>);

    impl HttpBody for Chunks {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|data| Ok(Frame::data(data))))
        }
    }

    fn chunks(bytes: &[u8], chunk: usize) -> Chunks {
        Chunks(bytes.chunks(chunk).map(Bytes::copy_from_slice).collect())
    }

    async fn decoded(bytes: &[u8], chunk: usize, max: usize) -> Result<PutRequest, Status> {
        let (headers, body) = (HeaderMap::new(), chunks(bytes, chunk));
        decode(Cardinality::One, &headers, body, max, tolerant::message).await
    }

    fn put() -> PutRequest {
        PutRequest { key: "key".into(), value: vec![7; 100].into(), ..Default::default() }
    }

    #[tokio::test]
    async fn a_message_is_read_from_chunks_of_any_size() {
        let bytes = put().encoded().unwrap().first.into_bytes();
        for chunk in [1, 2, 4, 5, 6, 50, 1000] {
            assert_eq!(decoded(&bytes, chunk, 200).await.unwrap(), put(), "{chunk}");
        }
    }

    fn requests(bytes: &[u8], chunk: usize) -> Requests<PutRequest> {
        let method = routes::any();
        Requests::new(method, &HeaderMap::new(), chunks(bytes, chunk), 200).unwrap()
    }

    #[tokio::test]
    async fn a_stream_that_never_waits_lets_other_tasks_in() {
        let bytes = put().encoded().unwrap().first.into_bytes().repeat(10_000);
        let mut requests = requests(&bytes, bytes.len());
        let other = tokio::spawn(async {});
        let mut messages = 0;
        while !other.is_finished() {
            assert!(requests.message().await.unwrap().is_some(), "the other task had no turn");
            messages += 1;
        }
        assert!(messages < 1000, "{messages}");
    }

    #[tokio::test]
    async fn messages_of_a_stream_are_read_from_chunks_of_any_size() {
        let bytes = [put(), PutRequest::default()]
            .map(|request| request.encoded().unwrap().first.into_bytes())
            .concat();
        let bytes = [&bytes[..], &put().encoded().unwrap().first.into_bytes()].concat();
        for chunk in [1, 2, 4, 5, 6, 50, 1000] {
            let mut requests = requests(&bytes, chunk);
            for expected in [put(), PutRequest::default(), put()] {
                assert_eq!(requests.message().await.unwrap().unwrap(), expected, "{chunk}");
            }
            assert_eq!(requests.message().await.unwrap(), None, "{chunk}");
        }
    }

    #[tokio::test]
    async fn the_end_of_a_stream_counts_as_a_message_as_in_etcd() {
        let kind = metrics::CallKind::BidiStream;
        let method: &'static _ = Box::leak(Box::new(metrics::Method::new("test", "Test", kind)));
        let bytes = put().encoded().unwrap().first.into_bytes();
        for (bytes, count) in [(&bytes[..], 2), (&bytes[..50], 1), (&b"\x05\0\0\0\0"[..], 1)] {
            let before = method.received.get();
            let headers = HeaderMap::new();
            let mut requests =
                Requests::<PutRequest>::new(method, &headers, chunks(bytes, 50), 200).unwrap();
            while let Ok(Some(_)) = requests.message().await {}
            assert_eq!(method.received.get() - before, count);
        }
    }

    #[tokio::test]
    async fn a_body_that_is_cut_ends_in_grpc_gos_words() {
        let bytes = put().encoded().unwrap().first.into_bytes();
        let none = "cardinality violation: received no request message from \
                    non-client-streaming RPC";
        for (length, unary, stream) in [
            (0, (Code::Unknown, "EOF"), (Code::Internal, none)),
            (3, (Code::Unknown, "EOF"), (Code::Internal, none)),
            (5, (Code::Unknown, "unexpected EOF"), (Code::Internal, "unexpected EOF")),
            (50, (Code::Unknown, "unexpected EOF"), (Code::Internal, "unexpected EOF")),
        ] {
            for (cardinality, expected) in
                [(Cardinality::One, unary), (Cardinality::Stream, stream)]
            {
                let (headers, body) = (HeaderMap::new(), chunks(&bytes[..length], 2));
                let read =
                    decode::<PutRequest, _>(cardinality, &headers, body, 200, tolerant::message);
                let status = read.await.unwrap_err();
                assert_eq!((status.code(), status.message()), expected, "{length}");
            }
            let after = [&bytes[..], &bytes[..length]].concat();
            let mut requests = requests(&after, 7);
            assert_eq!(requests.message().await.unwrap().unwrap(), put());
            match requests.message().await {
                Ok(message) => assert!(message.is_none() && length < 5, "{length}"),
                Err(status) => {
                    assert_eq!((status.code(), status.message()), stream, "{length}");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_compressed_is_refused_in_grpc_gos_words() {
        let no_encoding = "grpc: compressed flag set with identity or empty encoding";
        let gzip = "grpc: Decompressor is not installed for grpc-encoding \"gzip\"";
        let foo = "grpc: Decompressor is not installed for grpc-encoding \"foo\"";
        let flag = "grpc: received unexpected payload format 9";
        for (named, flag, expected) in [
            ("", 1, Some((Code::Internal, no_encoding))),
            ("identity", 1, Some((Code::Internal, no_encoding))),
            ("identity", 9, Some((Code::Internal, flag))),
            ("gzip", 0, None),
            ("gzip", 1, Some((Code::Unimplemented, gzip))),
            ("foo", 0, Some((Code::Unimplemented, foo))),
            ("foo", 1, Some((Code::Unimplemented, foo))),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_ENCODING, HeaderValue::from_static(named));
            let bytes = [flag, 0, 0, 0, 0];
            let decoded = tolerant::message::<PutRequest>;
            let read = decode(Cardinality::One, &headers, chunks(&bytes, 5), 200, decoded).await;
            let stream =
                Requests::<PutRequest>::new(routes::any(), &headers, chunks(&bytes, 5), 200);
            let streamed = match stream {
                Ok(mut requests) => requests.message().await.map(drop),
                Err(status) => Err(status),
            };
            for read in [read.map(drop), streamed] {
                let status = read.err();
                let found = status.as_ref().map(|status| (status.code(), status.message()));
                assert_eq!(found, expected, "{named:?}, {flag}");
            }
        }
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_is_refused_before_it_is_read() {
        let prefix = [0, 0, 0x20, 0, 1];
        let error = decoded(&prefix, 5, 2_097_152).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        let text = "grpc: received message larger than max (2097153 vs. 2097152)";
        assert_eq!(error.message(), text);
        let mut requests = requests(&[0, 0, 0, 0, 201], 5);
        let error = requests.message().await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(error.message(), "grpc: received message larger than max (201 vs. 200)");
    }

    /// A body that never yields.
    struct Never;

    impl HttpBody for Never {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn a_message_that_does_not_come_ends_the_call() {
        assert_eq!(REQUEST_BODY_TIMEOUT, Duration::from_secs(60));
        let read = read(Cardinality::One, Encoding::Identity, Never, 100);
        let mut read = pin!(read);
        let read = within(Duration::from_millis(10), read.as_mut());
        let ended = tokio::time::timeout(Duration::from_secs(60), read).await;
        let error = ended.expect("it waits on").unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn garbage_is_an_error() {
        let garbage = [0, 0, 0, 0, 3, 0xff, 0xff, 0xff];
        let error = decoded(&garbage, 100, 100).await.unwrap_err();
        assert!(error.message().starts_with("grpc: error unmarshalling request: "), "{error}");
    }
}
