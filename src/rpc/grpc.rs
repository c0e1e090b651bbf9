//! gRPC framing of unary calls, and the bodies of all answers.
//!
//! A unary call is one length-prefixed message in, one out, and trailers. Doing that here rather
//! than through tonic's server saves three boxed futures, two boxed bodies and two 8 KiB buffers
//! a request. Request streams are read here as well: what is wrong with a message is said in
//! grpc-go's words. Answer streams are framed by tonic's codec.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame};
use http_body_util::BodyExt;
use prost::Message;
use tonic::{Code, Status};

use super::metadata;
use crate::limits::REQUEST_BODY_TIMEOUT;
use crate::metrics;
use crate::pb::tolerant::{self, Malformed, Shaped};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// Flag and length before each message.
const PREFIX_BYTES: usize = 5;
/// Room for a message of which only the beginning has come: a few frames.
const FIRST_BYTES: usize = 64 << 10;
/// Largest answer that clients accept: grpc-go's send limit in etcd.
const SEND_BYTES_MAX: usize = i32::MAX as usize;

/// What a message body yields on its way in.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub enum Body {
    /// Trailers-only: everything is in the headers.
    Empty,
    Unary(Option<Bytes>),
    /// After the message of a unary answer: its trailers.
    Trailers,
    Stream(Box<Stream>),
}

/// A server stream, ended early when the server stops or the leader is gone for long.
pub struct Stream {
    pub inner: tonic::body::Body,
    pub ending: Pin<Box<dyn Future<Output = Status> + Send>>,
    pub method: &'static metrics::Method,
    pub start: Instant,
    /// Where the next message begins in the bytes to come.
    skip: usize,
    header: Vec<u8>,
    done: bool,
}

impl Stream {
    pub fn new(
        inner: tonic::body::Body,
        ending: Pin<Box<dyn Future<Output = Status> + Send>>,
        method: &'static metrics::Method,
        start: Instant,
    ) -> Self {
        Self { inner, ending, method, start, skip: 0, header: Vec::new(), done: false }
    }

    /// Counts the messages that start in these bytes; a prefix may be cut anywhere.
    fn count(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let skip = self.skip.min(bytes.len());
            self.skip -= skip;
            bytes = &bytes[skip..];
            let take = (PREFIX_BYTES - self.header.len()).min(bytes.len());
            self.header.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            if let [_, a, b, c, d] = self.header[..] {
                self.skip = u32::from_be_bytes([a, b, c, d]) as usize;
                self.header.clear();
                self.method.sent.inc();
            }
        }
    }

    fn finish(&mut self, code: usize) {
        if !self.done {
            self.done = true;
            self.method.handled(code, self.start.elapsed().as_secs_f64());
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Poll::Ready(status) = self.ending.as_mut().poll(context) {
            self.finish(status.code() as usize);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers(&status)))));
        }
        let frame = match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(frame) => frame,
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.count(data);
                }
                if let Some(trailers) = frame.trailers_ref() {
                    let status = trailers.get(GRPC_STATUS);
                    self.finish(
                        status.map_or(2, |value| Code::from_bytes(value.as_bytes()) as usize),
                    );
                    return Poll::Ready(self.last(frame));
                }
            }
            Some(Err(status)) => self.finish(status.code() as usize),
            None => self.finish(0),
        }
        Poll::Ready(frame)
    }

    fn last(&self, frame: &Frame<Bytes>) -> Option<Result<Frame<Bytes>, Status>> {
        frame.trailers_ref().map(|trailers| Ok(Frame::trailers(trailers.clone())))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.finish(Code::Cancelled as usize);
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(2);
    if status.add_header(&mut map).is_err() {
        // The text cannot be a header; the code alone still can.
        map.insert(GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    map
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let body = self.get_mut();
        match body {
            Self::Empty => Poll::Ready(None),
            Self::Unary(message) => {
                let frame = message.take().map(|message| Ok(Frame::data(message)));
                *body = Self::Trailers;
                Poll::Ready(frame)
            }
            Self::Trailers => {
                *body = Self::Empty;
                let mut map = HeaderMap::with_capacity(1);
                map.insert(GRPC_STATUS, HeaderValue::from_static("0"));
                Poll::Ready(Some(Ok(Frame::trailers(map))))
            }
            Self::Stream(stream) => stream.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Empty)
    }
}

/// The content type of an answer if it is not the plain one: grpc-go repeats what the client added.
pub(super) fn repeated_type(headers: &HeaderMap) -> Option<HeaderValue> {
    let stated = headers.get(CONTENT_TYPE)?;
    match stated.as_bytes().strip_prefix(GRPC.as_bytes())? {
        [b'+', _, ..] => Some(stated.clone()),
        [b';', added @ ..] if !added.is_empty() => {
            HeaderValue::from_bytes(&[GRPC.as_bytes(), b"+", added].concat()).ok()
        }
        _ => None,
    }
}

/// An answer without a message.
pub(super) fn failure(status: &Status) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.headers_mut() = trailers(status);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// A successful unary answer.
pub(super) fn success(Encoded(message): Encoded) -> Response<Body> {
    let mut response = Response::new(Body::Unary(Some(message)));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// The start of a stream of answers.
pub(super) fn stream(stream: Stream) -> Response<Body> {
    let mut response = Response::new(Body::Stream(Box::new(stream)));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// What a unary call is answered with.
pub(super) trait Encode {
    /// As it is sent, with its flag and length.
    fn encoded(self) -> Result<Encoded, Status>;
}

/// An answer in the bytes that are sent.
#[derive(Debug)]
pub(super) struct Encoded(pub(super) Bytes);

impl Encode for Encoded {
    fn encoded(self) -> Result<Encoded, Status> {
        Ok(self)
    }
}

impl<M: Message> Encode for M {
    fn encoded(self) -> Result<Encoded, Status> {
        encode(&self).map(Encoded)
    }
}

fn encode<M: Message>(message: &M) -> Result<Bytes, Status> {
    let length = message.encoded_len();
    let Some(prefix) = u32::try_from(length).ok().filter(|_| length <= SEND_BYTES_MAX) else {
        return Err(Status::resource_exhausted(format!(
            "grpc: trying to send message larger than max ({length} vs. {SEND_BYTES_MAX})"
        )));
    };
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + length);
    bytes.put_u8(0);
    bytes.put_u32(prefix);
    message.encode_raw(&mut bytes);
    Ok(bytes.freeze())
}

/// How the messages of a call may be compressed. Nothing is decompressed here; a client that names an
/// encoding and sends its messages as they are is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Identity,
    /// Known to etcd, so its name alone is no error.
    Gzip,
}

impl Encoding {
    /// As in grpc-go, the last one that is named counts.
    fn of(headers: &HeaderMap) -> Result<Self, Status> {
        let named = headers.get_all(GRPC_ENCODING).iter().next_back();
        match named.map_or(&b""[..], HeaderValue::as_bytes) {
            b"" | b"identity" => Ok(Self::Identity),
            b"gzip" => Ok(Self::Gzip),
            other => Err(not_installed(other)),
        }
    }

    /// Whether a message with this flag can be read.
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

fn not_installed(encoding: &[u8]) -> Status {
    let name = metadata::quoted(encoding);
    Status::unimplemented(format!("grpc: Decompressor is not installed for grpc-encoding {name}"))
}

/// What a call answers with, on which grpc-go's words for a message that cannot be read depend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answers {
    One,
    Stream,
}

impl Answers {
    /// The body ends before the message, or within its prefix.
    fn no_message(self) -> Status {
        match self {
            Self::One => Status::unknown("EOF"),
            Self::Stream => Status::internal(
                "cardinality violation: received no request message from non-client-streaming RPC",
            ),
        }
    }

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

/// Reads and decodes the one message of a request.
pub(super) async fn decode<M, B>(
    answers: Answers,
    headers: &HeaderMap,
    body: B,
    bytes_max: usize,
    decoded: fn(Bytes) -> Result<M, Malformed>,
) -> Result<M, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let encoding = Encoding::of(headers)?;
    // Pinned here, so that there is room for it once.
    let reading = pin!(read(answers, encoding, body, bytes_max));
    let message = within(REQUEST_BODY_TIMEOUT, reading).await?;
    decoded(message).map_err(|error| answers.garbled(&error))
}

async fn within(
    patience: Duration,
    mut reading: Pin<&mut impl Future<Output = Result<Bytes, Status>>>,
) -> Result<Bytes, Status> {
    // Mostly the message came with the headers; only one that did not is worth a timer.
    match reading.as_mut().now_or_never() {
        Some(message) => message,
        None => tokio::time::timeout(patience, reading)
            .await
            .map_err(|_| Status::deadline_exceeded("the request's message did not arrive"))?,
    }
}

async fn read<B>(
    answers: Answers,
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
        let more = next(&mut body).await?.ok_or_else(|| answers.no_message())?;
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
    // It grows with what comes, since a client may announce much and send nothing.
    let mut message = BytesMut::with_capacity(length.min(FIRST_BYTES.max(2 * have.len())));
    message.extend_from_slice(&have);
    while message.len() < length {
        let more = next(&mut body).await?.ok_or_else(|| answers.cut())?;
        let want = (length - message.len()).min(more.len());
        message.extend_from_slice(&more[..want]);
    }
    encoding.check(flag)?;
    Ok(message.freeze())
}

/// The next bytes of the body, never empty; None at its end.
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

/// Why there is no more of a body: this side may have said so itself.
fn broken(error: BoxError) -> Status {
    match error.downcast::<Status>() {
        Ok(status) => *status,
        Err(error) => Status::cancelled(error.to_string()),
    }
}

fn too_large(length: usize, bytes_max: usize) -> Status {
    Status::resource_exhausted(format!(
        "grpc: received message larger than max ({length} vs. {bytes_max})"
    ))
}

/// The messages of a request stream.
pub(super) struct Requests<M> {
    body: tonic::body::Body,
    /// What has come and is not decoded.
    buffer: BytesMut,
    /// Flag and length of the message that comes next, once they are there.
    prefix: Option<(u8, usize)>,
    encoding: Encoding,
    bytes_max: usize,
    method: &'static metrics::Method,
    message: PhantomData<fn() -> M>,
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
            message: PhantomData,
        })
    }

    /// The next message; None once the client has closed its side. As in grpc-go, a prefix that is cut
    /// by that is no message. A call that is given up loses nothing: the next one goes on.
    pub(super) async fn message(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.buffer.is_empty() {
                // A stream that waits needs no room.
                self.buffer = BytesMut::new();
            }
            match next(&mut self.body).await {
                Ok(Some(data)) => self.buffer.extend_from_slice(&data),
                Ok(None) if self.prefix.is_some() => return Err(Answers::Stream.cut()),
                Ok(None) => return Ok(None),
                // A client that is gone has nothing more to say.
                Err(status) if status.code() == Code::Cancelled => return Ok(None),
                Err(status) => return Err(status),
            }
        }
    }

    /// Takes a message that is there in full.
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
        let message = tolerant::message(self.buffer.split_to(length).freeze())
            .map_err(|error| Answers::Stream.garbled(&error))?;
        self.method.received.inc();
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use super::*;
    use crate::pb::PutRequest;

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

    #[test]
    fn an_answer_repeats_what_the_client_added_to_the_content_type() {
        for (stated, repeated) in [
            ("application/grpc", None),
            ("application/grpc+", None),
            ("application/grpc;", None),
            ("application/grpc+proto", Some("application/grpc+proto")),
            ("application/grpc;x", Some("application/grpc+x")),
            ("application/grpcx", None),
            ("text/plain", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(stated));
            let found = repeated_type(&headers);
            assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), repeated, "{stated}");
        }
        assert_eq!(repeated_type(&HeaderMap::new()), None);
    }

    fn chunks(bytes: &[u8], chunk: usize) -> Chunks {
        Chunks(bytes.chunks(chunk).map(Bytes::copy_from_slice).collect())
    }

    async fn decoded(bytes: &[u8], chunk: usize, max: usize) -> Result<PutRequest, Status> {
        let (headers, body) = (HeaderMap::new(), chunks(bytes, chunk));
        decode(Answers::One, &headers, body, max, tolerant::message).await
    }

    fn put() -> PutRequest {
        PutRequest { key: "key".into(), value: vec![7; 100].into(), ..Default::default() }
    }

    #[tokio::test]
    async fn a_message_is_read_from_chunks_of_any_size() {
        let bytes = encode(&put()).unwrap();
        for chunk in [1, 2, 4, 5, 6, 50, 1000] {
            assert_eq!(decoded(&bytes, chunk, 200).await.unwrap(), put(), "{chunk}");
        }
    }

    fn requests(bytes: &[u8], chunk: usize) -> Requests<PutRequest> {
        let method = metrics::method(0);
        Requests::new(method, &HeaderMap::new(), chunks(bytes, chunk), 200).unwrap()
    }

    #[tokio::test]
    async fn messages_of_a_stream_are_read_from_chunks_of_any_size() {
        let bytes = [encode(&put()).unwrap(), encode(&PutRequest::default()).unwrap()].concat();
        let bytes = [&bytes[..], &encode(&put()).unwrap()].concat();
        for chunk in [1, 2, 4, 5, 6, 50, 1000] {
            let mut requests = requests(&bytes, chunk);
            for expected in [put(), PutRequest::default(), put()] {
                assert_eq!(requests.message().await.unwrap().unwrap(), expected, "{chunk}");
            }
            assert_eq!(requests.message().await.unwrap(), None, "{chunk}");
        }
    }

    #[tokio::test]
    async fn a_body_that_is_cut_ends_in_grpc_gos_words() {
        let bytes = encode(&put()).unwrap();
        let none = "cardinality violation: received no request message from \
                    non-client-streaming RPC";
        for (length, unary, stream) in [
            (0, (Code::Unknown, "EOF"), (Code::Internal, none)),
            (3, (Code::Unknown, "EOF"), (Code::Internal, none)),
            (5, (Code::Unknown, "unexpected EOF"), (Code::Internal, "unexpected EOF")),
            (50, (Code::Unknown, "unexpected EOF"), (Code::Internal, "unexpected EOF")),
        ] {
            for (answers, expected) in [(Answers::One, unary), (Answers::Stream, stream)] {
                let (headers, body) = (HeaderMap::new(), chunks(&bytes[..length], 2));
                let read = decode::<PutRequest, _>(answers, &headers, body, 200, tolerant::message);
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
            let read = decode(Answers::One, &headers, chunks(&bytes, 5), 200, decoded).await;
            let stream =
                Requests::<PutRequest>::new(metrics::method(0), &headers, chunks(&bytes, 5), 200);
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

    /// A body that never comes.
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
        let read = read(Answers::One, Encoding::Identity, Never, 100);
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
