//! The bodies of answers on client ports, whose bytes count for their connections.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::Full;
use tonic::{Code, Status};

use super::io::OpenCall;
use super::outbox::{Account, AnswerSize, Begun, Held, Room};
use super::socket::Cut;
use crate::rpc::Parts;
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
    /// After the body, whose memory it counts.
    _held: Option<Held>,
    account: Arc<Account>,
    room: Room,
    /// Messages since the last pause.
    passed: u32,
    /// Whether the next piece is charged already. The first one is charged when the answer is made,
    /// since it is there from then on and may wait for long before it is sent.
    is_counted: bool,
    /// Cuts the connection if the answer breaks off; over HTTP/1.0 only, where its end would
    /// otherwise look like that of a whole answer.
    cut: Option<Cut>,
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
        mut body: AnswerBody,
        kind: AnswerSize,
        open: Option<OpenCall>,
        begun: Begun,
        account: Arc<Account>,
    ) -> Self {
        let _held = body.pieces().map(|pieces| {
            pieces.count_first(|first| account.charge(kind, first));
            account.hold(pieces.held_bytes())
        });
        let is_counted = matches!(body, AnswerBody::Grpc(rpc::Body::Pieces(_)));
        let (room, cut) = (Room::default(), None);
        let (_open, _begun) = (open, begun);
        Self { body, kind, _open, _begun, _held, account, room, passed: 0, is_counted, cut }
    }

    /// The same answer, which cuts its connection if it breaks off.
    pub(super) fn cutting(self, cut: Option<Cut>) -> Self {
        Self { cut, ..self }
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

    /// The message that is read while it is sent, if it is.
    fn pieces(&mut self) -> Option<&mut rpc::Pieces> {
        match self {
            Self::Grpc(rpc::Body::Pieces(pieces)) => Some(pieces),
            Self::Json(body) => body.pieces(),
            _ => None,
        }
    }

    /// Whether the answer is made while it is sent, and may be made to wait: not while it holds what
    /// others wait for.
    fn may_pause(&mut self) -> bool {
        match self.pieces() {
            Some(pieces) => !pieces.is_reading(),
            None => match self {
                Self::Json(body) => body.may_pause(),
                _ => matches!(self, Self::Grpc(rpc::Body::Stream(_))),
            },
        }
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Parts>, rpc::BoxError>>> {
        let frame = match self {
            Self::Grpc(body) => {
                ready!(Pin::new(body).poll_frame(context)).map(|frame| frame.map_err(reset))
            }
            Self::Json(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                frame.map(|frame| Ok(frame.map_err(reset)?.map_data(Parts::from)))
            }
            Self::Http(body) => {
                let frame = ready!(Pin::new(body).poll_frame(context));
                frame.map(|frame| Ok(frame?.map_data(Parts::from)))
            }
        };
        Poll::Ready(frame)
    }
}

/// The error of an answer that ends within its message, upon which h2 resets its stream. If the
/// client may try again, the reason is REFUSED_STREAM: grpc-go then repeats the call by itself, and
/// only an answer to a read ends like this.
fn reset(status: Status) -> rpc::BoxError {
    match status.code() {
        Code::Unavailable => h2::Error::from(h2::Reason::REFUSED_STREAM).into(),
        _ => status.into(),
    }
}

impl HttpBody for ChargedBody {
    type Data = Parts;
    type Error = rpc::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Parts>, Self::Error>>> {
        let Self { body, kind, account, room, passed, is_counted, cut, .. } = self.get_mut();
        if *passed == limits::ANSWERS_PER_TURN_MAX {
            *passed = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if body.may_pause() {
            ready!(account.poll_room(*kind, room, context));
        }
        let polled = body.poll(context);
        *passed = if polled.is_ready() { *passed + 1 } else { 0 };
        let frame = ready!(polled);
        if let (Some(Err(_)), Some(cut)) = (&frame, cut) {
            cut.set();
        }
        if std::mem::take(is_counted) {
            return Poll::Ready(frame);
        }
        Poll::Ready(
            frame.map(|frame| Ok(frame?.map_data(|data| account.charge_parts(*kind, data)))),
        )
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node;

    #[test]
    fn clients_repeat_what_ends_in_its_middle_unless_data_is_damaged() {
        let reason = |status| reset(status).downcast_ref::<h2::Error>()?.reason();
        let refused = Some(h2::Reason::REFUSED_STREAM);
        assert_eq!(reason(rpc::status(node::Error::TakenTooSlowly)), refused);
        assert_eq!(reason(rpc::status(node::Error::Stopped)), refused);
        assert_eq!(reason(Status::data_loss("")), None);
        assert_eq!(reason(Status::unknown("")), None);
    }
}
