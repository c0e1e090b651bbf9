//! Answers of the gateway: the messages of a gRPC call become JSON.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status};

use super::error::{Errors, JSON, http_status};
use super::write::Writer;
use super::{Line, Unsent};
use crate::limits::GATEWAY_PIECE_BYTES;
use crate::pb::shapes::Route;
use crate::rpc::{self, PREFIX_BYTES};

const GRPC_CONTENT_TYPE: HeaderName = HeaderName::from_static("grpc-metadata-content-type");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The body of an answer.
pub enum Body {
    Whole(Option<Bytes>),
    /// The rest of a large document, with its length.
    Pieces(Box<Writer>, u64),
    Lines(Box<Lines>),
}

impl Body {
    pub(super) fn whole(text: String) -> Self {
        Self::Whole(Some(kept(text)))
    }
}

/// A text that waits for its client. What was allocated beyond it would not count.
fn kept(text: String) -> Bytes {
    text.into_boxed_str().into_boxed_bytes().into()
}

/// The lines of a stream.
pub struct Lines {
    route: &'static Route,
    messages: Messages,
    /// The message that was read before the head of the answer was sent.
    first: Option<Bytes>,
    /// Why the stream has ended, until its last line is written.
    end: Option<Status>,
    line: Option<Arc<dyn Line>>,
    errors: Errors,
    has_ended: bool,
}

/// The messages of a call's answer.
pub(super) struct Messages {
    unsent: Arc<dyn Unsent>,
    /// The status of an answer without messages.
    failed: Option<Status>,
    body: rpc::Body,
    buffer: BytesMut,
}

impl Messages {
    pub(super) fn new(answer: rpc::Output, unsent: Arc<dyn Unsent>) -> Self {
        let (head, body) = answer.into_parts();
        let failed = Status::from_header_map(&head.headers);
        Self { unsent, failed, body, buffer: BytesMut::new() }
    }

    /// The next message, or the status that the call ends with.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        loop {
            if let Some(status) = self.failed.take() {
                return Poll::Ready(Err(status));
            }
            if let Some(end) = message_end(&self.buffer)
                && self.buffer.len() >= end
            {
                let mut message = self.buffer.split_to(end).freeze();
                message.advance(PREFIX_BYTES);
                return Poll::Ready(Ok(self.unsent.charge(message)));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(mut data) => {
                        // Most messages come whole, and need no copy.
                        if self.buffer.is_empty() && message_end(&data) == Some(data.len()) {
                            data.advance(PREFIX_BYTES);
                            return Poll::Ready(Ok(self.unsent.charge(data)));
                        }
                        self.buffer.extend_from_slice(&data);
                    }
                    Err(frame) => {
                        let trailers = frame.into_trailers().unwrap_or_default();
                        return Poll::Ready(Err(status(&trailers)));
                    }
                },
                Some(Err(status)) => return Poll::Ready(Err(status)),
                None => return Poll::Ready(Err(Status::ok(""))),
            }
        }
    }
}

/// Where the message ends whose prefix is there: a flag and a length.
fn message_end(bytes: &[u8]) -> Option<usize> {
    let &[_, a, b, c, d] = bytes.first_chunk()?;
    Some(PREFIX_BYTES + u32::from_be_bytes([a, b, c, d]) as usize)
}

fn status(trailers: &HeaderMap) -> Status {
    Status::from_header_map(trailers).unwrap_or_else(|| Status::ok(""))
}

/// The answer to a call that gives one message.
pub(super) async fn unary(
    route: &'static Route,
    mut messages: Messages,
) -> Result<Response<Body>, Status> {
    let message = poll_fn(|context| messages.poll_next(context)).await?;
    let mut writer = Writer::new(route.output, message);
    let mut text = String::new();
    let is_large = writer.write(&mut text, GATEWAY_PIECE_BYTES);
    let mut length = text.len() as u64;
    let body = if is_large {
        // The head says how long the document is, so a large one is written twice: here to count
        // it, and from the beginning as the client takes it.
        let mut has_more = true;
        while has_more {
            tokio::task::yield_now().await;
            text.clear();
            has_more = writer.write(&mut text, GATEWAY_PIECE_BYTES);
            length += text.len() as u64;
        }
        Body::Pieces(Box::new(Writer::new(route.output, writer.into_message())), length)
    } else {
        Body::whole(text)
    };
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    headers.insert(GRPC_CONTENT_TYPE, GRPC);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

/// The answer to a call that gives any number of messages. Its head waits for the first one, or for
/// the end.
pub(super) async fn stream(
    route: &'static Route,
    mut messages: Messages,
    line: Option<Arc<dyn Line>>,
    errors: Errors,
) -> Response<Body> {
    let first = poll_fn(|context| {
        // Messages first: a client that has closed its side takes what is ready.
        let first = messages.poll_next(context);
        if first.is_pending() && is_hung_up(&line, context) {
            return Poll::Ready(Err(Status::cancelled("context canceled")));
        }
        first
    });
    let first = first.await;
    let code = first.as_ref().err().map_or(Code::Ok, Status::code);
    let (first, end) = match first {
        Ok(message) => (Some(message), None),
        Err(status) => (None, Some(status)),
    };
    // As in grpc-gateway, an answer of no lines has no type.
    let (has_first, has_line) = (first.is_some(), first.is_some() || code != Code::Ok);
    let lines = Lines { route, messages, first, end, line, errors, has_ended: false };
    let mut response = Response::new(Body::Lines(Box::new(lines)));
    *response.status_mut() = http_status(code);
    if has_line {
        response.headers_mut().insert(CONTENT_TYPE, JSON);
    }
    if has_first {
        response.headers_mut().insert(GRPC_CONTENT_TYPE, GRPC);
    }
    response
}

fn is_hung_up(line: &Option<Arc<dyn Line>>, context: &mut Context<'_>) -> bool {
    line.as_ref().is_some_and(|line| line.poll_hung_up(context).is_ready())
}

impl Lines {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        let mut next = self.first.take().map(Ok);
        if next.is_none() && self.end.is_none() {
            let message = self.messages.poll_next(context);
            if message.is_pending() && is_hung_up(&self.line, context) {
                self.has_ended = true;
                return Poll::Ready(None);
            }
            next = Some(ready!(message));
        }
        match next {
            Some(Ok(message)) => {
                let mut text = String::new();
                let mut writer = Writer::of_stream(self.route.output, message);
                // One piece, so that it is one chunk: some clients take a chunk for a document.
                while writer.write(&mut text, usize::MAX) {}
                Poll::Ready(Some(kept(text)))
            }
            Some(Err(status)) => self.poll_end(&status),
            None => {
                let status = self.end.take();
                self.poll_end(&status.unwrap_or_else(|| Status::ok("")))
            }
        }
    }

    fn poll_end(&mut self, status: &Status) -> Poll<Option<Bytes>> {
        self.has_ended = true;
        let is_ok = status.code() == Code::Ok;
        Poll::Ready((!is_ok).then(|| self.errors.line(status)))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let data = match self.get_mut() {
            Self::Whole(text) => text.take(),
            Self::Pieces(writer, left) => {
                let mut text = String::with_capacity(GATEWAY_PIECE_BYTES);
                writer.write(&mut text, GATEWAY_PIECE_BYTES);
                *left = left.saturating_sub(text.len() as u64);
                (!text.is_empty()).then(|| text.into())
            }
            Self::Lines(lines) => ready!(lines.poll(context)),
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(text) => text.is_none(),
            Self::Pieces(_, left) => *left == 0,
            Self::Lines(lines) => lines.has_ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Pieces(_, left) => SizeHint::with_exact(*left),
            Self::Lines(_) => SizeHint::default(),
        }
    }
}
