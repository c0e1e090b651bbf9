//! The bodies of all answers, and the framing of unary ones.
//!
//! The answer to a unary call is one length-prefixed message, and trailers. Framing it here rather
//! than in tonic's server saves three boxed futures, two boxed bodies and two 8 KiB buffers a
//! request. The messages of an answer stream are framed by tonic's codec; its messages and its end
//! are counted here.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame};
use prost::Message;
use tonic::{Code, Status};

use super::spans;
use crate::metrics;
use crate::trace::Span;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Bytes before each message: a flag that says whether it is compressed, and its length in four
/// bytes, big endian.
pub const PREFIX_BYTES: usize = 5;
/// Largest message that is sent, in bytes: etcd sets grpc-go's send limit to MaxInt32.
const SEND_BYTES_MAX: usize = i32::MAX as usize;

/// The error type of request bodies: a fault of the transport, or a `Status` that `server` puts in
/// the place of a message.
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

pub type Output = Response<Body>;

/// Resolves, with the status for the client, when a stream must end although its client still
/// reads.
pub(super) type Ending = Pin<Box<dyn Future<Output = Status> + Send>>;

/// A server stream. It ends early when the server stops, when its deadline is over, or when its
/// client asked for a leader and there is none for long.
pub struct Stream {
    pub inner: tonic::body::Body,
    pub ending: Ending,
    pub method: &'static metrics::Method,
    pub start: Instant,
    span: Span,
    /// Bytes of the current message that are still to be sent; the next message begins behind them.
    skip: usize,
    /// The prefix of the next message as far as it has been sent.
    header: Vec<u8>,
    done: bool,
}

impl Stream {
    pub fn new(
        inner: tonic::body::Body,
        ending: Ending,
        method: &'static metrics::Method,
        start: Instant,
        span: Span,
    ) -> Self {
        Self { inner, ending, method, start, span, skip: 0, header: Vec::new(), done: false }
    }

    /// Counts the messages whose prefix ends within `bytes`. A data frame may end anywhere, also
    /// within a prefix, so the part of a prefix that was sent is kept in `header`.
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
                metrics::client_sent_bytes().inc_by(self.skip as u64);
            }
        }
    }

    fn finish(&mut self, code: Code, message: impl FnOnce() -> String) {
        if !self.done {
            self.done = true;
            self.method.handled(code as usize, self.start.elapsed().as_secs_f64());
            spans::end(std::mem::take(&mut self.span), code, message);
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if let Poll::Ready(status) = self.ending.as_mut().poll(context) {
            self.finish(status.code(), || status.message().to_owned());
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
                    let code =
                        status.map_or(Code::Unknown, |value| Code::from_bytes(value.as_bytes()));
                    let status = || Status::from_header_map(trailers);
                    let text = || status().map(|status| status.message().to_owned());
                    self.finish(code, || text().unwrap_or_default());
                    return Poll::Ready(self.last(frame));
                }
            }
            Some(Err(status)) => self.finish(status.code(), || status.message().to_owned()),
            None => self.finish(Code::Ok, String::new),
        }
        Poll::Ready(frame)
    }

    fn last(&self, frame: &Frame<Bytes>) -> Option<Result<Frame<Bytes>, Status>> {
        frame.trailers_ref().map(|trailers| Ok(Frame::trailers(trailers.clone())))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // Before the span of the call, as the spans within it are: those of watchers.
        self.inner = tonic::body::Body::empty();
        self.finish(Code::Cancelled, String::new);
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(2);
    if status.add_header(&mut map).is_err() {
        // The status's text or metadata is no valid header; its code alone always is.
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

/// The content type of an answer if it is not plain `application/grpc`: like grpc-go, the answer
/// repeats the subtype that the client added, such as `+proto`.
pub(super) fn echoed_content_type(headers: &HeaderMap) -> Option<HeaderValue> {
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
pub(super) fn failure(status: &Status) -> Output {
    let mut response = Response::new(Body::Empty);
    *response.headers_mut() = trailers(status);
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// A successful unary answer.
pub(super) fn success(Encoded(message): Encoded) -> Output {
    metrics::client_sent_bytes().inc_by(message.len().saturating_sub(PREFIX_BYTES) as u64);
    let mut response = Response::new(Body::Unary(Some(message)));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// The start of a stream of answers.
pub(super) fn stream(stream: Stream) -> Output {
    let mut response = Response::new(Body::Stream(Box::new(stream)));
    response.headers_mut().insert(CONTENT_TYPE, GRPC);
    response
}

/// An answer to a unary call, before or after its encoding.
pub(super) trait Encode {
    /// The bytes to send, prefix included. Fails with ResourceExhausted above `SEND_BYTES_MAX`.
    fn encoded(self) -> Result<Encoded, Status>;
}

/// An encoded answer: prefix and message.
#[derive(Debug)]
pub(super) struct Encoded(pub(super) Bytes);

impl Encoded {
    /// The message without its prefix.
    pub(super) fn message(&self) -> Bytes {
        self.0.slice(PREFIX_BYTES.min(self.0.len())..)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

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
            let found = echoed_content_type(&headers);
            assert_eq!(found.as_ref().map(|value| value.to_str().unwrap()), repeated, "{stated}");
        }
        assert_eq!(echoed_content_type(&HeaderMap::new()), None);
    }
}
