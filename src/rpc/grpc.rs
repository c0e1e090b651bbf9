//! gRPC framing of unary calls, and the bodies of all answers.
//!
//! A unary call is one length-prefixed message in, one out, and trailers. Doing that here rather
//! than through tonic's server saves three boxed futures, two boxed bodies and two 8 KiB buffers
//! a request, and lets a too large message fail with etcd's words. Streams use tonic's codec.

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
use tonic::codec::{DecodeBuf, Decoder};
use tonic::{Code, Status};

use crate::limits::REQUEST_BODY_TIMEOUT;
use crate::metrics;
use crate::pb::tolerant::{self, Malformed, Shaped};

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
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

/// An answer without a message.
pub(super) fn failure(status: &Status) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.headers_mut() = trailers(status);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// A successful unary answer.
pub(super) fn success(message: Bytes) -> Response<Body> {
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

pub(super) fn encode<M: Message>(message: &M) -> Result<Bytes, Status> {
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

/// Reads and decodes the one message of a unary request.
pub(super) async fn decode<M, B>(
    body: B,
    bytes_max: usize,
    decoded: fn(Bytes) -> Result<M, Malformed>,
) -> Result<M, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let message = read_within(REQUEST_BODY_TIMEOUT, body, bytes_max).await?;
    decoded(message)
        .map_err(|error| Status::internal(format!("grpc: error unmarshalling request: {error}")))
}

async fn read_within<B>(patience: Duration, body: B, bytes_max: usize) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    // Mostly the message came with the headers; only one that did not is worth a timer.
    let mut reading = pin!(read(body, bytes_max));
    match reading.as_mut().now_or_never() {
        Some(message) => message,
        None => tokio::time::timeout(patience, reading)
            .await
            .map_err(|_| Status::deadline_exceeded("the request's message did not arrive"))?,
    }
}

async fn read<B>(mut body: B, bytes_max: usize) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let mut have = next(&mut body).await?;
    while have.len() < PREFIX_BYTES {
        let more = next(&mut body).await?;
        let mut joined = BytesMut::from(have.as_ref());
        joined.extend_from_slice(&more);
        have = joined.freeze();
    }
    let flag = have.get_u8();
    let length = have.get_u32() as usize;
    if flag != 0 {
        return Err(compressed(flag));
    }
    if length > bytes_max {
        return Err(too_large(length, bytes_max));
    }
    if have.len() >= length {
        have.truncate(length);
        return Ok(have);
    }
    // It grows with what comes, since a client may announce much and send nothing.
    let mut message = BytesMut::with_capacity(length.min(FIRST_BYTES.max(2 * have.len())));
    message.extend_from_slice(&have);
    while message.len() < length {
        let more = next(&mut body).await?;
        let want = (length - message.len()).min(more.len());
        message.extend_from_slice(&more[..want]);
    }
    Ok(message.freeze())
}

/// The next bytes of the body, never empty.
async fn next<B>(body: &mut B) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    loop {
        match body.frame().await {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Ok(data),
                Err(_trailers) => {}
            },
            Some(Err(error)) => return Err(broken(error.into())),
            None => return Err(Status::internal("unexpected EOF")),
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

/// Compression is not offered, so a compressed message is the client's mistake.
fn compressed(flag: u8) -> Status {
    if flag == 1 {
        Status::unimplemented("grpc: Decompressor is not installed for this grpc-encoding")
    } else {
        Status::internal(format!("grpc: received unexpected payload format {flag}"))
    }
}

fn too_large(length: usize, bytes_max: usize) -> Status {
    Status::resource_exhausted(format!(
        "grpc: received message larger than max ({length} vs. {bytes_max})"
    ))
}

/// Decodes and counts the messages of a request stream.
pub(super) struct Requests<M> {
    method: &'static metrics::Method,
    message: PhantomData<fn() -> M>,
}

impl<M> Requests<M> {
    pub(super) fn of(method: &'static metrics::Method) -> Self {
        Self { method, message: PhantomData }
    }
}

impl<M: Message + Default + Shaped> Decoder for Requests<M> {
    type Item = M;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<M>, Status> {
        let message = tolerant::message(from.copy_to_bytes(from.remaining())).map_err(|error| {
            Status::internal(format!("grpc: failed to unmarshal the received message: {error}"))
        })?;
        self.method.received.inc();
        Ok(Some(message))
    }
}

/// The words of tonic's decoder before the length of a message that is too large.
const TONIC_TOO_LARGE: &str = "decoded message length too large: found ";

/// An error of a request stream in etcd's words.
pub fn receive_error(status: Status, bytes_max: usize) -> Status {
    let length = status
        .message()
        .split_once(TONIC_TOO_LARGE)
        .and_then(|(_, rest)| rest.split(' ').next().and_then(|number| number.parse().ok()));
    match length {
        Some(length) => too_large(length, bytes_max),
        None => status,
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

    async fn decoded(bytes: &[u8], chunk: usize, max: usize) -> Result<PutRequest, Status> {
        let chunks = bytes.chunks(chunk).map(Bytes::copy_from_slice).collect();
        decode(Chunks(chunks), max, tolerant::message).await
    }

    #[tokio::test]
    async fn a_message_is_read_from_chunks_of_any_size() {
        let request =
            PutRequest { key: "key".into(), value: vec![7; 100].into(), ..Default::default() };
        let bytes = encode(&request).unwrap();
        for chunk in [1, 2, 4, 5, 6, 50, 1000] {
            assert_eq!(decoded(&bytes, chunk, 200).await.unwrap(), request, "{chunk}");
        }
        let cut = decoded(&bytes[..bytes.len() - 1], 50, 200).await.unwrap_err();
        assert_eq!((cut.code(), cut.message()), (Code::Internal, "unexpected EOF"));
        assert_eq!(decoded(&[], 1, 1).await.unwrap_err().code(), Code::Internal);
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_is_refused_before_it_is_read() {
        let prefix = [0, 0, 0x20, 0, 1];
        let error = decoded(&prefix, 5, 2_097_152).await.unwrap_err();
        assert_eq!(error.code(), Code::ResourceExhausted);
        assert_eq!(error.message(), "grpc: received message larger than max (2097153 vs. 2097152)");
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
        let read = read_within(Duration::from_millis(10), Never, 100);
        let ended = tokio::time::timeout(Duration::from_secs(60), read).await;
        let error = ended.expect("it waits on").unwrap_err();
        assert_eq!(error.code(), Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn garbage_is_an_error() {
        let garbage = [0, 0, 0, 0, 3, 0xff, 0xff, 0xff];
        let error = decoded(&garbage, 100, 100).await.unwrap_err();
        assert!(error.message().starts_with("grpc: error unmarshalling request: "), "{error}");
        assert_eq!(decoded(&[1, 0, 0, 0, 0], 5, 10).await.unwrap_err().code(), Code::Unimplemented);
        assert_eq!(decoded(&[9, 0, 0, 0, 0], 5, 10).await.unwrap_err().code(), Code::Internal);
    }

    #[test]
    fn tonics_words_for_too_large_become_etcds() {
        let tonic = Status::out_of_range(
            "Error, decoded message length too large: found 300 bytes, the limit is: 200 bytes",
        );
        let status = receive_error(tonic, 200);
        assert_eq!(status.message(), "grpc: received message larger than max (300 vs. 200)");
        assert_eq!(receive_error(Status::cancelled("x"), 200).message(), "x");
    }
}
