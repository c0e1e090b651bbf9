//! Answers of the gateway: the messages of a gRPC call become JSON.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status};

use super::error::{Errors, JSON, http_status};
use super::turns::Turns;
use super::write::{Writer, whole_fields};
use super::{Line, Unsent};
use crate::limits::{GATEWAY_PIECE_BYTES, GATEWAY_SMALL_BYTES};
use crate::pb::shapes::Route;
use crate::rpc::{self, PREFIX_BYTES};
use crate::supervise::Gone;

const GRPC_CONTENT_TYPE: HeaderName = HeaderName::from_static("grpc-metadata-content-type");
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// The body of an answer.
pub enum Body {
    Whole(Option<Bytes>),
    /// The rest of a large document, with its length.
    Pieces(Box<Writer>, u64),
    /// A document of a message that is read as its client takes it.
    Growing(Box<Growing>),
    Lines(Box<Lines>),
}

impl Body {
    /// The message that is read while its document is sent, if it is.
    pub fn pieces(&mut self) -> Option<&mut rpc::Pieces> {
        match self {
            Self::Growing(growing) => Some(&mut growing.message),
            _ => None,
        }
    }

    /// Whether the rest is made as it is taken, and may be made later: not while a line is written
    /// or more messages of a frame are there, which count until their lines are taken.
    pub fn may_pause(&self) -> bool {
        match self {
            Self::Lines(lines) => lines.writing.is_none() && lines.messages.holds_nothing(),
            _ => false,
        }
    }

    pub(super) fn whole(text: String) -> Self {
        Self::Whole(Some(kept(text)))
    }
}

/// A text that waits for its client. What was allocated beyond it would not count.
fn kept(text: String) -> Bytes {
    text.into_boxed_str().into_boxed_bytes().into()
}

/// A document that is written while its message is read.
pub struct Growing {
    writer: Writer,
    /// What is written and not a piece yet.
    text: String,
    unsent: Arc<dyn Unsent>,
    message: Box<rpc::Pieces>,
    /// The beginning of the message's next field.
    buffer: BytesMut,
    /// Bytes of the prefix of the message that are still to come.
    prefix: usize,
    has_ended: bool,
}

/// The lines of a stream.
pub struct Lines {
    route: &'static Route,
    messages: Messages,
    /// The message that was read before the head of the answer was sent.
    first: Option<Bytes>,
    /// The line that is being written.
    writing: Option<Writing>,
    turns: Turns,
    /// Why the stream has ended, until its last line is written.
    end: Option<Status>,
    line: Option<Arc<dyn Line>>,
    errors: Errors,
    has_ended: bool,
}

/// A line, and its message, which counts until the line is taken.
type Writing = Pin<Box<dyn Future<Output = Result<(Bytes, Bytes), Gone>> + Send>>;

/// The messages of a call's answer.
pub(super) struct Messages {
    unsent: Arc<dyn Unsent>,
    /// The status of an answer without messages.
    failed: Option<Status>,
    body: rpc::Body,
    /// What is left of a frame whose first messages were taken. The whole frame counts until the last
    /// of its messages is dropped.
    rest: Bytes,
}

impl Messages {
    pub(super) fn new(answer: rpc::Output, unsent: Arc<dyn Unsent>) -> Self {
        let (head, body) = answer.into_parts();
        let failed = Status::from_header_map(&head.headers);
        Self { unsent, failed, body, rest: Bytes::new() }
    }

    /// The document of a message that is read as it is taken. Any other comes back as it was.
    fn growing(self, shape: usize) -> Result<Growing, Self> {
        match self {
            Self { unsent, failed: None, body: rpc::Body::Pieces(message), .. } => Ok(Growing {
                writer: Writer::growing(shape),
                text: String::new(),
                unsent,
                message,
                buffer: BytesMut::new(),
                prefix: PREFIX_BYTES,
                has_ended: false,
            }),
            other => Err(other),
        }
    }

    /// Whether no message is here already, which would count until it is taken.
    fn holds_nothing(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next message, or the status that the call ends with.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Status>> {
        loop {
            if let Some(status) = self.failed.take() {
                return Poll::Ready(Err(status));
            }
            if let Some(end) = message_end(&self.rest)
                && self.rest.len() >= end
            {
                let message = self.rest.slice(PREFIX_BYTES..end);
                // An empty rest of a frame would keep all of its memory.
                self.rest = match self.rest.len() == end {
                    true => Bytes::new(),
                    false => self.rest.slice(end..),
                };
                return Poll::Ready(Ok(message));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let data = data.into_bytes();
                        // Whole messages, as they come, need no copy.
                        let data = match self.rest.is_empty() {
                            true => data,
                            false => [&self.rest[..], &data].concat().into(),
                        };
                        self.rest = self.unsent.charge(data);
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
    messages: Messages,
) -> Result<Response<Body>, Status> {
    let mut messages = match messages.growing(route.output) {
        // Without its length, as etcd sends all documents of more than two kilobytes.
        Ok(growing) => return Ok(document(Body::Growing(Box::new(growing)))),
        Err(messages) => messages,
    };
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
    let mut response = document(body);
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    Ok(response)
}

fn document(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response.headers_mut().insert(GRPC_CONTENT_TYPE, GRPC);
    response
}

/// The answer to a call that gives any number of messages. Its head waits for the first one, or for
/// the end.
pub(super) async fn stream(
    route: &'static Route,
    mut messages: Messages,
    line: Option<Arc<dyn Line>>,
    errors: Errors,
    turns: Turns,
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
    let lines =
        Lines { route, messages, first, writing: None, turns, end, line, errors, has_ended: false };
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

impl Growing {
    /// The next part of the document, or None at its end. After an error it is not complete.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        loop {
            self.writer.write(&mut self.text, GATEWAY_PIECE_BYTES);
            if self.has_ended || self.text.len() >= GATEWAY_PIECE_BYTES {
                let text = std::mem::take(&mut self.text);
                return Poll::Ready((!text.is_empty()).then(|| Ok(kept(text))));
            }
            match ready!(self.message.poll(context)) {
                Some(Ok(piece)) => self.add(&piece),
                Some(Err(status)) => {
                    self.has_ended = true;
                    return Poll::Ready(Some(Err(status)));
                }
                None => {
                    self.has_ended = true;
                    self.writer.end();
                }
            }
        }
    }

    /// Takes a piece of the message, and hands its whole fields to the writer.
    fn add(&mut self, piece: &[u8]) {
        let skipped = self.prefix.min(piece.len());
        self.prefix -= skipped;
        self.buffer.extend_from_slice(&piece[skipped..]);
        let fields = self.buffer.split_to(whole_fields(&self.buffer)).freeze();
        self.writer.grow(self.unsent.charge(fields));
    }
}

fn is_hung_up(line: &Option<Arc<dyn Line>>, context: &mut Context<'_>) -> bool {
    line.as_ref().is_some_and(|line| line.poll_hung_up(context).is_ready())
}

impl Lines {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if let Some(writing) = &mut self.writing {
            let text = ready!(writing.as_mut().poll(context));
            self.writing = None;
            // There is no line only if the member is ending; so does the stream then.
            self.has_ended = text.is_err();
            return Poll::Ready(text.ok().map(|(text, _)| text));
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
                let (route, is_small) = (self.route, message.len() <= GATEWAY_SMALL_BYTES);
                let write = move || {
                    let mut text = String::new();
                    let mut writer = Writer::of_stream(route.output, message);
                    // One piece, so that it is one chunk: some clients take a chunk for a document.
                    while writer.write(&mut text, usize::MAX) {}
                    (kept(text), writer.into_message())
                };
                if is_small {
                    return Poll::Ready(Some(write().0));
                }
                self.writing = Some(Box::pin(self.turns.run(write)));
                self.poll(context)
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
    type Error = Status;

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
            Self::Growing(growing) => {
                return growing.poll(context).map(|part| Some(part?.map(Frame::data)));
            }
            Self::Lines(lines) => ready!(lines.poll(context)),
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(text) => text.is_none(),
            Self::Pieces(_, left) => *left == 0,
            // Its end shows only once it is looked for.
            Self::Growing(_) => false,
            Self::Lines(lines) => lines.has_ended,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            Self::Pieces(_, left) => SizeHint::with_exact(*left),
            Self::Growing(_) | Self::Lines(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use prost::Message as _;

    use super::*;
    use crate::pb::PutRequest;

    /// Counts the bytes that are kept.
    struct Kept(Arc<AtomicUsize>);

    struct Counted(Bytes, Arc<AtomicUsize>);

    impl AsRef<[u8]> for Counted {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.fetch_sub(self.0.len(), Ordering::SeqCst);
        }
    }

    impl Unsent for Kept {
        fn charge(&self, message: Bytes) -> Bytes {
            self.0.fetch_add(message.len(), Ordering::SeqCst);
            Bytes::from_owner(Counted(message, Arc::clone(&self.0)))
        }
    }

    #[tokio::test]
    async fn messages_of_one_frame_count_together_and_nothing_is_kept_of_them() {
        let put = |bytes: usize| PutRequest { value: vec![7; bytes].into(), ..Default::default() };
        let items = stream::iter([Ok(put(10)), Ok(put(1 << 20))]).chain(stream::pending());
        let body = rpc::Body::of_messages(items);
        let kept = Arc::new(AtomicUsize::new(0));
        let unsent = Arc::new(Kept(Arc::clone(&kept)));
        let mut messages = Messages::new(Response::new(body), unsent);
        let next = async |messages: &mut Messages| {
            poll_fn(|context| messages.poll_next(context)).await.unwrap()
        };
        assert!(messages.holds_nothing());
        let small = next(&mut messages).await;
        assert_eq!(small.len(), put(10).encoded_len());
        assert!(kept.load(Ordering::SeqCst) > 1 << 20, "what waits behind it counts");
        assert!(!messages.holds_nothing(), "it may not wait for room that it takes itself");
        let large = next(&mut messages).await;
        assert_eq!(large.len(), put(1 << 20).encoded_len());
        assert!(messages.holds_nothing());
        assert!(next(&mut messages).now_or_never().is_none());
        drop((small, large));
        assert_eq!(kept.load(Ordering::SeqCst), 0);
    }
}
