//! Ranges whose answers are sent while they are read (`mvcc/pieces.rs`).
//!
//! A call holds its turn (`answers`) only while its range is measured. After that the client sets
//! the pace: nothing is read before it has taken what was, so its answer costs a piece or two, and
//! needs no turn. Pieces are read on blocking threads, a few at a time and in slices, as all long
//! reads are.

use std::sync::Arc;
use std::time::Instant;

use super::auth::Permit;
use super::read::RangeForm;
use super::{Error, Node};
use crate::auth::{Credentials, Demand, demand};
use crate::clock;
use crate::limits;
use crate::mvcc::{self, Bounds, Mvcc, ReadCheck};
use crate::pb::raw::RangeResponse;
use crate::pb::{RangeRequest, ResponseHeader};

/// The answer to a range.
pub enum RangeAnswer {
    /// A short one.
    Short(RangeResponse),
    /// One that was encoded where it was read.
    Encoded(EncodedRange),
}

/// A message, or its beginning.
pub struct EncodedRange {
    /// Free bytes, as many as were asked for, and the beginning of the message. Empty if the
    /// message is longer than can be sent.
    pub first: Vec<u8>,
    /// Length of the whole message.
    pub bytes: usize,
    /// Number of its rows.
    pub rows: usize,
    pub count: i64,
    pub rest: Option<LongAnswer>,
}

/// The part of an answer that is read as its client takes it.
pub struct LongAnswer {
    node: Node,
    rest: mvcc::Rest,
    piece_bytes: usize,
    right: Box<Right>,
}

/// The caller's right to the rows of an answer.
struct Right {
    who: Credentials,
    demand: Demand,
    /// None before the first piece.
    permit: Option<Permit>,
}

impl Right {
    /// Fails if the caller may not read the rows now. A permit from before users or roles changed is
    /// asked for again: the caller's own right may be the same as it was.
    async fn check(&mut self, node: &Node) -> Result<(), Error> {
        if !self.permit.as_ref().is_some_and(|permit| permit.is_current(node)) {
            self.permit = Some(node.authorize(&self.who, &self.demand).await?);
        }
        Ok(())
    }
}

/// What is read on a blocking thread becomes a message, or its beginning.
struct InPieces(Bounds);

/// What was read: without a handle to the node, which the work on a blocking thread must not have,
/// since it outlives a cancelled call.
enum Begun {
    Short(RangeResponse),
    Measured(mvcc::Measured),
}

impl RangeForm for InPieces {
    type Answer = Begun;

    fn short(self, response: RangeResponse) -> Begun {
        Begun::Short(response)
    }

    fn long(
        self,
        mvcc: &Mvcc,
        wanted: &ReadCheck,
        request: &RangeRequest,
        fill: &dyn Fn(&mut Option<ResponseHeader>),
    ) -> Result<Begun, mvcc::Error> {
        let measured = mvcc.read(wanted, |view| {
            let revision = view.current().revision;
            let mut header = Some(ResponseHeader { revision, ..Default::default() });
            fill(&mut header);
            view.measure(request, &header.unwrap_or_default(), &self.0)
        })?;
        Ok(Begun::Measured(measured))
    }
}

impl Node {
    /// As [`Node::range`], for an answer that is sent while it is read. `room` bytes are left free
    /// in front of an encoded message, whose length is `bytes_max` at most.
    pub async fn range_in_pieces(
        &self,
        who: &Credentials,
        request: &RangeRequest,
        began: &mut Option<Instant>,
        (room, bytes_max): (usize, usize),
    ) -> Result<RangeAnswer, Error> {
        let whole = match self.0.answers.is_crowded() {
            true => limits::CROWDED_RANGE_BYTES_MAX,
            false => limits::ANSWER_WHOLE_BYTES_MAX,
        };
        let piece = limits::ANSWER_PIECE_BYTES_MIN;
        let bounds = Bounds { room, whole, piece, message: bytes_max };
        let measured = match self.range_by(who, request, began, InPieces(bounds)).await? {
            Begun::Short(response) => return Ok(RangeAnswer::Short(response)),
            Begun::Measured(measured) => measured,
        };
        let mvcc::Measured { first, bytes, rows, count, rest } = measured;
        let rest = rest.map(|rest| LongAnswer {
            node: self.clone(),
            rest,
            piece_bytes: piece,
            right: Box::new(Right {
                who: who.clone(),
                demand: demand::range(request),
                permit: None,
            }),
        });
        Ok(RangeAnswer::Encoded(EncodedRange { first, bytes, rows, count, rest }))
    }
}

impl LongAnswer {
    /// Memory that the answer holds beside its pieces.
    pub fn held_bytes(&self) -> usize {
        self.rest.held_bytes()
    }

    /// The next piece, and what is left after it. Fails if the caller may no longer read its rows.
    pub async fn next(mut self) -> Result<(Vec<u8>, Option<Self>), Error> {
        self.right.check(&self.node).await?;
        let place = Arc::clone(&self.node.0.long_work.pieces).acquire_owned();
        let place = clock::timeout(&*self.node.0.clock, self.node.request_timeout(), place).await;
        let place = place.ok_or(Error::Timeout)?.map_err(|_| Error::Stopped)?;
        let most = match self.node.0.answers.is_crowded() {
            true => limits::ANSWER_PIECE_BYTES_MIN,
            false => limits::ANSWER_PIECE_BYTES_MAX,
        };
        self.piece_bytes = (2 * self.piece_bytes).min(most);
        let Self { node, mut rest, piece_bytes, mut right } = self;
        let read = node.sliced(move |mvcc: &Mvcc, wanted: &ReadCheck| {
            let piece = mvcc.next_piece(&mut rest, piece_bytes, wanted)?;
            Ok((piece, rest))
        });
        let (piece, rest) = node.read_in_turn(place, read).await?;
        // Users or roles may have changed during the read.
        right.check(&node).await?;
        let is_done = rest.is_done();
        let left = Self { node, rest, piece_bytes, right };
        Ok((piece, (!is_done).then_some(left)))
    }
}
