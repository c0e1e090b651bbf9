//! Requests of the gateway: JSON documents become the messages of a gRPC call, and headers its
//! metadata.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request};
use http_body::{Body as HttpBody, Frame};
use tonic::Status;

use super::scan::Scanner;
use super::turns::Turns;
use super::{Incomplete, read};
use crate::limits::{self, GATEWAY_PIECE_BYTES};
use crate::node;
use crate::pb::shapes::Route;
use crate::rpc::{self, BoxError};
use crate::supervise::Gone;

/// Prefix of headers whose rest is the name of a metadata value.
const METADATA: &str = "grpc-metadata-";
const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// What gRPC itself uses of HTTP's headers; the client's own are no metadata.
const RESERVED: [&str; 4] = ["content-type", "te", "user-agent", "host"];

/// Headers that become metadata without the prefix.
const PASSED_AS_THEY_ARE: [HeaderName; 3] = [
    AUTHORIZATION,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
];

/// The call that a request to the route makes, without its messages.
pub(super) fn call<B>(route: &Route, headers: &HeaderMap) -> Result<Request<Body<B>>, Status> {
    let mut call = Request::new(Body::One(None));
    *call.method_mut() = Method::POST;
    *call.uri_mut() = http::Uri::from_static(route.call);
    let metadata = call.headers_mut();
    metadata.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    for (name, value) in headers {
        if PASSED_AS_THEY_ARE.contains(name) && !is_printable(value) {
            return Err(Status::internal(format!(
                "header key \"{name}\" contains value with non-printable ASCII characters"
            )));
        }
        if *name == AUTHORIZATION {
            metadata.append(AUTHORIZATION, value.clone());
        } else if let Some(name) = name.as_str().strip_prefix(METADATA)
            && is_metadata(name, value)?
            && let Ok(name) = HeaderName::try_from(name)
        {
            metadata.append(name, value.clone());
        }
    }
    let stated = headers.get(TIMEOUT).filter(|stated| !stated.is_empty());
    let limit = stated.map(|stated| {
        timeout(stated.as_bytes()).ok_or_else(|| match std::str::from_utf8(stated.as_bytes()) {
            Ok(stated) => Status::invalid_argument(format!("invalid grpc-timeout: {stated}")),
            Err(_) => Status::internal("failed to marshal error message"),
        })
    });
    if let Some(limit) = limit.transpose()?.flatten() {
        // Less than a microsecond is over by the time that the call begins.
        let micros = limit.as_micros();
        let stated = if micros < 100_000_000 {
            format!("{micros}u")
        } else {
            format!("{}S", limit.as_secs().min(99_999_999))
        };
        if let Ok(stated) = HeaderValue::try_from(stated) {
            metadata.insert(TIMEOUT, stated);
        }
    }
    Ok(call)
}

/// Whether a POST stands for another method. grpc-gateway lets clients of forms say so.
pub(super) fn is_overridden(headers: &HeaderMap) -> bool {
    let is_form = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes() == b"application/x-www-form-urlencoded");
    let method = headers.get("x-http-method-override").map_or(&b""[..], HeaderValue::as_bytes);
    is_form && !method.is_empty() && !method.eq_ignore_ascii_case(b"POST")
}

fn is_printable(value: &HeaderValue) -> bool {
    value.as_bytes().iter().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Whether a header with this name behind the prefix becomes metadata. As in grpc-gateway, what gRPC
/// cannot carry is passed over, and faults are errors where it decodes or sends them.
fn is_metadata(name: &str, value: &HeaderValue) -> Result<bool, Status> {
    if name.is_empty() {
        return Err(Status::internal("there is an empty key in the header"));
    }
    let is_binary = name.ends_with("-bin");
    if is_binary && let Some(at) = rpc::illegal_base64(value.as_bytes()) {
        let name = canonical(&format!("{METADATA}{name}"));
        return Err(Status::invalid_argument(format!(
            "invalid binary header {name}: illegal base64 data at input byte {at}"
        )));
    }
    let may_be = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    Ok(name.bytes().all(may_be)
        && (is_binary || is_printable(value))
        && !name.starts_with("grpc-")
        && !RESERVED.contains(&name))
}

/// A header's name as Go writes it: each word begins with a capital letter.
fn canonical(name: &str) -> String {
    let mut is_first = true;
    let letters = name.chars().map(|letter| {
        let is_capital = std::mem::replace(&mut is_first, letter == '-');
        if is_capital { letter.to_ascii_uppercase() } else { letter }
    });
    letters.collect()
}

/// The time that a header `Grpc-Timeout` states: a number and a unit. Zero is none, a negative one is
/// over. None if it cannot be read.
fn timeout(stated: &[u8]) -> Option<Option<Duration>> {
    let (unit, number) = stated.split_last()?;
    let number: i64 = std::str::from_utf8(number).ok()?.parse().ok()?;
    let is_none = number == 0;
    let number = u64::try_from(number).unwrap_or(0);
    let limit = match unit {
        b'H' => Duration::from_secs(number.saturating_mul(3600)),
        b'M' => Duration::from_secs(number.saturating_mul(60)),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    };
    Some((!is_none).then_some(limit))
}

/// Bytes of JSON that a message of at most so many bytes takes: base64 makes a third more, and
/// names, numbers and spaces have as much again.
pub(super) fn document_bytes_max(message_bytes_max: usize) -> usize {
    message_bytes_max.saturating_mul(2)
}

/// The message of a body that is one document. A fault behind a whole document is as good as the
/// body's end.
pub(super) async fn one<B>(
    route: &'static Route,
    mut body: B,
    part: Box<dyn Incomplete>,
    bytes_max: usize,
    turns: &Turns,
) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let came = whole(&mut body, part, bytes_max);
    let came = tokio::time::timeout(limits::REQUEST_BODY_TIMEOUT, came).await;
    let came = came
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("the request's body did not arrive")));
    let is_at_its_end = matches!(came, Ok((_, None)));
    let message = match came {
        Ok((document, fault)) => read_one(route, document, fault, turns).await,
        Err(why) => Err(why),
    };
    if message.is_err() && !is_at_its_end {
        rpc::discard(&HeaderMap::new(), body).await;
    }
    message
}

/// Reads what came of a body. Fails with the body's fault, if there is one and the document is not
/// whole.
async fn read_one(
    route: &'static Route,
    document: Bytes,
    fault: Option<Status>,
    turns: &Turns,
) -> Result<Bytes, Status> {
    let read = move |document: &[u8]| match fault {
        Some(why) if matches!(Scanner::default().feed(document), Ok(None)) => Err(why),
        _ => framed(route, document),
    };
    turns.read(document, read).await.unwrap_or_else(|Gone| Err(rpc::status(node::Error::Stopped)))
}

/// Reads all of a body, or what comes before a fault. Fails above twice `bytes_max`, the size of a
/// message.
async fn whole<B>(
    body: &mut B,
    mut part: Box<dyn Incomplete>,
    bytes_max: usize,
) -> Result<(Bytes, Option<Status>), Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let most = document_bytes_max(bytes_max);
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    let fault = loop {
        let frame = match next(body, &*part).await {
            Ok(Some(frame)) => frame,
            Ok(None) => break None,
            Err(why) => break Some(why),
        };
        let Ok(data) = frame.into_data() else { continue };
        // A body of one frame is not copied; of another, a frame would keep all of the memory that it
        // was read into.
        if all.is_empty() && body.is_end_stream() {
            first = data;
        } else {
            all.extend_from_slice(&data);
        }
        let bytes = first.len() + all.len();
        if bytes > most {
            return Err(rpc::too_large(bytes, bytes_max));
        }
        part.set(if body.is_end_stream() { 0 } else { all.capacity() });
    };
    Ok((if all.is_empty() { first } else { all.freeze() }, fault))
}

async fn next<B>(body: &mut B, incomplete: &dyn Incomplete) -> Result<Option<Frame<Bytes>>, Status>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    poll_fn(|context| {
        if incomplete.is_given_up(context.waker()) {
            let text = "the rest of the request's body did not come while others needed the room";
            return Poll::Ready(Err(Status::resource_exhausted(text)));
        }
        let frame = ready!(Pin::new(&mut *body).poll_frame(context)).transpose();
        Poll::Ready(frame.map_err(|error| Status::invalid_argument(error.into().to_string())))
    })
    .await
}

/// The frame of gRPC for the message that a body is. No document is the empty message, and what is
/// behind it is ignored.
fn framed(route: &Route, body: &[u8]) -> Result<Bytes, Status> {
    let (message, _) = super::from_json(route.input, body).map_err(Status::invalid_argument)?;
    Ok(frame(&message))
}

/// Encodes a document, around which there may be space.
fn encoded(route: &Route, document: &[u8]) -> Result<Vec<u8>, String> {
    read::message(route.input, document.trim_ascii())
}

fn frame(message: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(message.len() + rpc::PREFIX_BYTES);
    out.put_u8(0);
    // A message is at most four times as large as its document, whose size is bounded.
    out.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    out.put_slice(message);
    out.freeze()
}

/// The messages of a call.
pub(super) enum Body<B> {
    One(Option<Bytes>),
    Many(Documents<B>),
}

/// The documents of a body, each of which becomes a message. One that cannot be read ends the
/// messages and not the call, as in etcd.
pub(super) struct Documents<B> {
    route: &'static Route,
    body: Option<B>,
    /// What has arrived and is not passed on.
    buffer: BytesMut,
    /// How much of it `scanner` has seen.
    seen: usize,
    scanner: Scanner,
    incomplete: Box<dyn Incomplete>,
    bytes_max: usize,
    turns: Turns,
    /// The document that is being read.
    reading: Option<Reading>,
}

type Reading = Pin<Box<dyn Future<Output = Result<Result<Bytes, String>, Gone>> + Send>>;

impl<B> Documents<B> {
    pub(super) fn new(
        route: &'static Route,
        body: B,
        incomplete: Box<dyn Incomplete>,
        bytes_max: usize,
        turns: Turns,
    ) -> Self {
        let (buffer, scanner) = (BytesMut::new(), Scanner::default());
        let bytes_max = document_bytes_max(bytes_max);
        let (body, reading) = (Some(body), None);
        Self { route, body, buffer, seen: 0, scanner, incomplete, bytes_max, turns, reading }
    }

    /// Looks for the end of the next document and begins to read it; None if it has not arrived. An
    /// error ends the messages.
    fn poll_begin(&mut self, context: &Context<'_>) -> Poll<Result<Option<Reading>, String>> {
        let is_last = self.body.is_none();
        let rest = &self.buffer[self.seen..];
        let piece = rest.len().min(GATEWAY_PIECE_BYTES);
        let end = match self.scanner.feed(&rest[..piece])? {
            Some(bytes) => Some(self.seen + bytes),
            None if piece < rest.len() => {
                // Gives way: a message of a WebSocket comes as a whole.
                self.seen += piece;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            None if is_last => self.scanner.finish()?.map(|()| self.buffer.len()),
            None => None,
        };
        let Some(end) = end else {
            if self.seen == 0 {
                // Most streams wait most of the time: the memory of the documents before is not
                // kept. Once for all that came together, or each would copy what is behind it.
                self.buffer = BytesMut::from(&self.buffer[..]);
            }
            self.seen = self.buffer.len();
            return Poll::Ready(Ok(None));
        };
        self.seen = 0;
        let (route, document) = (self.route, self.buffer.split_to(end).freeze());
        self.count();
        let turns = self.turns.clone();
        let read = move |document: &[u8]| Ok(frame(&encoded(route, document)?));
        Poll::Ready(Ok(Some(Box::pin(async move { turns.read(document, read).await }))))
    }

    /// The next message of those that have arrived; None if none has. An error ends the messages.
    fn poll_take(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, String>> {
        if self.reading.is_none() {
            self.reading = ready!(self.poll_begin(context))?;
        }
        let Some(reading) = &mut self.reading else { return Poll::Ready(Ok(None)) };
        let message = ready!(reading.as_mut().poll(context));
        self.reading = None;
        Poll::Ready(message.unwrap_or_else(|gone| Err(gone.to_string())).map(Some))
    }

    /// Counts the memory of what has arrived, which may be twice as large as that.
    fn count(&mut self) {
        let is_empty = self.buffer.is_empty();
        self.incomplete.set(if is_empty { 0 } else { self.buffer.capacity() });
    }
}

impl<B> HttpBody for Body<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let documents = match self.get_mut() {
            Self::One(message) => return Poll::Ready(message.take().map(|m| Ok(Frame::data(m)))),
            Self::Many(documents) => documents,
        };
        loop {
            match ready!(documents.poll_take(context)) {
                Ok(Some(message)) => return Poll::Ready(Some(Ok(Frame::data(message)))),
                Ok(None) => {}
                Err(why) => {
                    tracing::debug!(why, "a document of a stream cannot be read");
                    documents.body = None;
                    documents.buffer = BytesMut::new();
                    documents.incomplete.set(0);
                    return Poll::Ready(None);
                }
            }
            let Some(body) = &mut documents.body else { return Poll::Ready(None) };
            let is_full = documents.buffer.len() > documents.bytes_max;
            if is_full || documents.incomplete.is_given_up(context.waker()) {
                documents.body = None;
                continue;
            }
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        documents.buffer.extend_from_slice(&data);
                        documents.count();
                    }
                }
                Some(Err(_)) | None => documents.body = None,
            }
        }
    }
}
