//! The bodies of all answers, and the framing of unary ones.
//!
//! The answer to a unary call is one length-prefixed message, and trailers. Framing it here rather
//! than in tonic's server saves three boxed futures, two boxed bodies and two 8 KiB buffers a
//! request. `stream` frames the messages of a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BufMut as _;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame};
use prost::Message;
use tonic::Status;

use super::encoded::{Encoded, GRPC_STATUS, PREFIX_BYTES, Pieces, prefix, trailers};
use super::parts::{Joined, Parts};
use super::stream::Stream;
use crate::metrics;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The error type of request bodies: a fault of the transport, or a `Status` that `server` puts in
/// the place of a message.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer.
pub enum Body {
    /// Trailers-only: everything is in the headers.
    Empty,
    Unary(Option<Parts>),
    /// The message of a unary answer that is read as the client takes it.
    Pieces(Box<Pieces>),
    /// After the message of a unary answer: its trailers.
    Trailers,
    Stream(Box<Stream>),
}

pub type Output = Response<Body>;

#[cfg(test)]
impl Body {
    /// A stream that nothing but its messages ends.
    pub fn of_messages<S, M>(messages: S) -> Self
    where
        S: futures_core::Stream<Item = Result<M, Status>> + Send + 'static,
        M: prost::Message + 'static,
    {
        let (ending, start) = (Box::pin(std::future::pending()), crate::clock::instant());
        let method = metrics::Method::new("test", "Messages", metrics::CallKind::ServerStream);
        let (method, span) = (Box::leak(Box::new(method)), crate::trace::Span::default());
        Self::Stream(Box::new(Stream::new(messages, ending, method, start, span)))
    }
}

impl HttpBody for Body {
    type Data = Parts;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Parts>, Status>>> {
        let body = self.get_mut();
        match body {
            Self::Empty => Poll::Ready(None),
            Self::Unary(message) => {
                let frame = message.take().map(|message| Ok(Frame::data(message)));
                *body = Self::Trailers;
                Poll::Ready(frame)
            }
            Self::Pieces(pieces) => match ready!(pieces.poll(context)) {
                Some(piece) => Poll::Ready(Some(piece.map(|piece| Frame::data(piece.into())))),
                None => {
                    *body = Self::Trailers;
                    Pin::new(body).poll_frame(context)
                }
            },
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
pub(super) fn success(message: Encoded) -> Output {
    metrics::client_sent_bytes().inc_by(message.bytes as u64);
    let mut response = Response::new(match message.rest {
        None => Body::Unary(Some(message.first)),
        Some(rest) => Body::Pieces(Box::new(Pieces::new(message.first.into_bytes(), rest))),
    });
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

impl Encode for Encoded {
    fn encoded(self) -> Result<Encoded, Status> {
        Ok(self)
    }
}

impl<M: Message> Encode for M {
    fn encoded(self) -> Result<Encoded, Status> {
        let length = self.encoded_len();
        let prefix = prefix(length)?;
        let mut message = Joined::default();
        message.expect(PREFIX_BYTES + length);
        message.put_slice(&prefix);
        self.encode_raw(&mut message);
        Ok(Encoded::whole(message.finish()))
    }
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
