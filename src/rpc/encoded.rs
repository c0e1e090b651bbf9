//! The encoded message of a unary answer, or its beginning and what is read as the client takes it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use tonic::Status;

use super::error::status;
use super::parts::Parts;
use crate::metrics;
use crate::node::{self, EncodedRange, LongAnswer};

/// Bytes before each message: a flag that says whether it is compressed, and its length in four
/// bytes, big endian.
pub const PREFIX_BYTES: usize = 5;
/// Largest message that is sent, in bytes: etcd sets grpc-go's send limit to MaxInt32.
pub(super) const SEND_BYTES_MAX: usize = i32::MAX as usize;

/// An encoded answer.
pub(super) struct Encoded {
    /// The prefix, and the message or its beginning.
    pub(super) first: Parts,
    /// Length of the whole message.
    pub(super) bytes: usize,
    /// Of a range: the number of its rows, and its count.
    pub(super) range: Option<(usize, i64)>,
    pub(super) rest: Option<LongAnswer>,
}

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The prefix of a message of this length. Fails with ResourceExhausted above `SEND_BYTES_MAX`.
pub(super) fn prefix(length: usize) -> Result<[u8; PREFIX_BYTES], Status> {
    match u32::try_from(length).map(u32::to_be_bytes) {
        Ok([a, b, c, d]) if length <= SEND_BYTES_MAX => Ok([0, a, b, c, d]),
        _ => Err(Status::resource_exhausted(format!(
            "grpc: trying to send message larger than max ({length} vs. {SEND_BYTES_MAX})"
        ))),
    }
}

/// What ends an answer: the status of the call.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(2);
    if status.add_header(&mut map).is_err() {
        // The status's text or metadata is no valid header; its code alone always is.
        map.insert(GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    map
}

impl Encoded {
    /// An answer that is there as a whole, with its prefix.
    pub(super) fn whole(first: Parts) -> Self {
        let bytes = first.remaining().saturating_sub(PREFIX_BYTES);
        Self { first, bytes, range: None, rest: None }
    }

    /// The answer to a range that left `PREFIX_BYTES` free in front of its message.
    pub(super) fn range(answer: EncodedRange) -> Result<Self, Status> {
        let EncodedRange { mut first, bytes, rows, count, rest } = answer;
        let prefix = prefix(bytes)?;
        if let Some(free) = first.first_chunk_mut() {
            *free = prefix;
        }
        Ok(Self { first: Bytes::from(first).into(), bytes, range: Some((rows, count)), rest })
    }

    /// The message without its prefix; nothing if it is not there as a whole.
    pub(super) fn message(&self) -> Parts {
        let mut message = match self.rest {
            None => self.first.clone(),
            Some(_) => Parts::default(),
        };
        message.advance(PREFIX_BYTES.min(message.remaining()));
        message
    }
}

/// A piece, and what is left after it.
type Read = Result<(Vec<u8>, Option<LongAnswer>), node::Error>;

/// A message that is read as the client takes it.
pub struct Pieces {
    first: Option<Bytes>,
    /// The next piece. It is read once it is asked for: hyper asks as soon as the client's window
    /// has room for the one before.
    next: Option<Next>,
    held_bytes: usize,
}

enum Next {
    Wanted(LongAnswer),
    Read(Pin<Box<dyn Future<Output = Read> + Send>>),
}

impl Pieces {
    pub(super) fn new(first: Bytes, rest: LongAnswer) -> Self {
        let held_bytes = rest.held_bytes();
        Self { first: Some(first), next: Some(Next::Wanted(rest)), held_bytes }
    }

    /// Replaces the first piece, which is there before it is asked for, by what `count` returns for it.
    pub fn count_first(&mut self, count: impl FnOnce(Bytes) -> Bytes) {
        self.first = self.first.take().map(count);
    }

    /// Memory that the answer holds beside its pieces, from its beginning to its end.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether a piece is being read. It has, or may be given, one of the few places for that, so it
    /// must be polled until it is there.
    pub fn is_reading(&self) -> bool {
        matches!(self.next, Some(Next::Read(_)))
    }

    /// The next piece, or None at the end. After an error the message is not complete, and its
    /// stream must be reset.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        let Some(next) = self.next.take() else { return Poll::Ready(None) };
        let mut read = match next {
            Next::Wanted(rest) => Box::pin(rest.next()) as Pin<Box<_>>,
            Next::Read(read) => read,
        };
        let Poll::Ready(read) = read.as_mut().poll(context) else {
            self.next = Some(Next::Read(read));
            return Poll::Pending;
        };
        Poll::Ready(Some(match read {
            Ok((piece, rest)) => {
                self.next = rest.map(Next::Wanted);
                Ok(piece.into())
            }
            Err(error) => {
                metrics::answers_cut().inc();
                tracing::warn!(%error, "an answer ends in its middle");
                Err(status(error))
            }
        }))
    }
}
