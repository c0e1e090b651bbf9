//! The bodies of answers on client ports, whose bytes count for their connections.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;

use super::io::OpenCall;
use super::outbox::{Account, AnswerSize, Begun, Room};
use crate::{gateway, limits, rpc};

/// The body of an answer, of any kind.
pub(super) enum AnswerBody {
    Grpc(rpc::Body),
    Json(gateway::Body),
    Http(Full<Bytes>),
}

/// An answer whose call counts as open, and whose bytes count for its connection, until they are
/// sent.
pub(super) struct ChargedBody {
    body: AnswerBody,
    kind: AnswerSize,
    /// None for HTTP/1.1, where a connection has one call at a time.
    _open: Option<OpenCall>,
    _begun: Begun,
    account: Arc<Account>,
    room: Room,
    /// Messages since the last pause.
    passed: u32,
}

/// Counts what the gateway keeps of an answer beside what it has given out.
pub(super) struct OfAccount(pub(super) Arc<Account>, pub(super) AnswerSize);

impl gateway::Unsent for OfAccount {
    fn charge(&self, message: Bytes) -> Bytes {
        self.0.charge(self.1, message)
    }
}

impl ChargedBody {
    pub(super) fn new(
        body: AnswerBody,
        kind: AnswerSize,
        open: Option<OpenCall>,
        begun: Begun,
        account: Arc<Account>,
    ) -> Self {
        Self { body, kind, _open: open, _begun: begun, account, room: Room::default(), passed: 0 }
    }
}

impl AnswerBody {
    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Grpc(body) => body.size_hint(),
            Self::Json(body) => body.size_hint(),
            Self::Http(body) => body.size_hint(),
        }
    }

    fn is_stream(&self) -> bool {
        matches!(self, Self::Grpc(rpc::Body::Stream(_)) | Self::Json(gateway::Body::Lines(_)))
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, rpc::BoxError>>> {
        let frame = match self {
            Self::Grpc(body) => ready!(Pin::new(body).poll_frame(context)).map(|frame| Ok(frame?)),
            Self::Json(body) => ready!(Pin::new(body).poll_frame(context)).map(|frame| Ok(frame?)),
            Self::Http(body) => ready!(Pin::new(body).poll_frame(context)).map(|frame| Ok(frame?)),
        };
        Poll::Ready(frame)
    }
}

impl HttpBody for ChargedBody {
    type Data = Bytes;
    type Error = rpc::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { body, kind, account, room, passed, .. } = self.get_mut();
        if body.is_stream() {
            if *passed == limits::ANSWERS_PER_TURN_MAX {
                *passed = 0;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            ready!(account.poll_room(*kind, room, context));
        }
        let polled = body.poll(context);
        *passed = if polled.is_ready() { *passed + 1 } else { 0 };
        let frame = ready!(polled);
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|data| account.charge(*kind, data)))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            AnswerBody::Grpc(body) => body.is_end_stream(),
            AnswerBody::Json(body) => body.is_end_stream(),
            AnswerBody::Http(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
