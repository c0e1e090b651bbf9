//! Request messages that have arrived in part: one budget for each connection and one for the
//! member.
//!
//! A part is in memory before any login, and its client may leave it unfinished for ever. So the
//! bytes of each incomplete message are counted as they arrive. Above a budget, the parts that have
//! received nothing for longest are given up, and their calls fail. A client that sends a hundred
//! large requests at a time sends a piece of each in turn, so a part is given up only once it has
//! received nothing for `limits::UNFINISHED_OLD`. Far above the member's budget, the oldest part is
//! given up whatever its age. A message that arrives in one frame, as most do, is never counted
//! here.
//!
//! A part that was given up stays in memory until its call reads on and finds the error. A stream
//! does not read while its answers wait for the client's flow-control window. So given-up parts are
//! counted until they are dropped, apart from the others and with the same budgets: above one of
//! these, the connection that holds most of them is closed.
//!
//! ```text
//!   frames ─► CountedRequestBody ────────────► rpc reads the message
//!                │ bytes of a message without its end        ▲ an error in the place of more
//!                └──► PartialMessages: by connection, by age ┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::gateway::Incomplete;
use crate::{clock, limits, metrics, rpc};

/// Length of the prefix of each gRPC message: a flag and the message's length.
const PREFIX_BYTES: usize = 5;

/// The partial messages of all connections.
pub(super) struct PartialMessages {
    state: Mutex<State>,
    /// Budgets of one connection and of the member. Parts that may go on and parts that were given
    /// up count against them separately.
    connection_bytes_max: usize,
    bytes_max: usize,
    /// How long a part must have received nothing to be given up, unless the sum is far above the
    /// member's budget.
    old: Duration,
}

#[derive(Default)]
struct State {
    /// Counts the parts added. A part's age is this count when its last bytes arrived, so the
    /// greatest age is the youngest part.
    parts_added: u64,
    /// Bytes of the parts that may go on.
    bytes: usize,
    by_age: BTreeMap<u64, Part>,
    given_up: BTreeMap<u64, Part>,
    /// Bytes of the parts that were given up, except on connections that are being closed.
    given_up_bytes: usize,
    connections: BTreeMap<u64, ConnectionParts>,
    next_connection: u64,
}

/// The parts of one connection.
#[derive(Default)]
struct ConnectionParts {
    /// Bytes and ages of the parts that may go on.
    bytes: usize,
    ages: BTreeSet<u64>,
    given_up_bytes: usize,
    is_closing: bool,
    closing: Arc<Notify>,
}

struct Part {
    connection: u64,
    bytes: usize,
    /// When its last bytes arrived.
    came: Instant,
    call: Arc<Call>,
}

/// Tells a call that its message was given up.
#[derive(Default)]
struct Call {
    is_given_up: AtomicBool,
    reader: AtomicWaker,
}

/// A handle to one connection's parts.
#[derive(Clone)]
pub(super) struct PartialAccount {
    all: Arc<PartialMessages>,
    number: u64,
    /// Notified when the connection has to end.
    closing: Arc<Notify>,
}

impl PartialMessages {
    /// `message_bytes_max` is the largest message that the server accepts, which a flag sets. The
    /// budgets grow with it, so that `limits::UNFINISHED_MESSAGES_MIN` such messages fit into a
    /// connection's.
    pub(super) fn new(message_bytes_max: usize) -> Arc<Self> {
        let few = message_bytes_max.saturating_mul(limits::UNFINISHED_MESSAGES_MIN);
        Arc::new(Self {
            state: Mutex::default(),
            connection_bytes_max: limits::CONNECTION_UNFINISHED_BYTES_MAX.max(few),
            bytes_max: limits::UNFINISHED_BYTES_MAX.max(few.saturating_mul(2)),
            old: limits::UNFINISHED_OLD,
        })
    }

    /// The age of the part to give up next. Far above the member's budget that is the oldest of
    /// all; else it is the oldest of `connection`, or of all, if its budget is exceeded and the
    /// part is old. The youngest of all is never given up, since one message may be larger than a
    /// budget.
    fn next_to_give_up(&self, state: &State, connection: Option<u64>, now: Instant) -> Option<u64> {
        let is_old = |age: &u64| {
            let part = state.by_age.get(age);
            part.is_some_and(|part| now.saturating_duration_since(part.came) >= self.old)
        };
        let of_all = || state.by_age.first_key_value().map(|(age, _)| *age);
        let held = connection.and_then(|connection| state.connections.get(&connection));
        let held = held.filter(|held| held.bytes > self.connection_bytes_max);
        let most = self.bytes_max.saturating_add(self.bytes_max / limits::UNFINISHED_EXCESS_PART);
        let oldest = if state.bytes > most {
            of_all()
        } else if let Some(held) = held {
            held.ages.first().copied().filter(is_old)
        } else if state.bytes > self.bytes_max {
            of_all().filter(is_old)
        } else {
            None
        };
        oldest.filter(|age| *age != state.parts_added)
    }

    /// Gives up old parts over a budget, and closes connections. An arriving part has the same
    /// effect, but none may arrive.
    pub(super) fn look(&self) {
        let now = clock::instant();
        let mut state = self.state.lock();
        let over = |(number, held): (&u64, &ConnectionParts)| {
            (held.bytes > self.connection_bytes_max).then_some(*number)
        };
        let connections: Vec<_> = state.connections.iter().filter_map(over).collect();
        let mut given_up = Vec::new();
        for connection in connections.into_iter().map(Some).chain([None]) {
            while let Some(oldest) = self.next_to_give_up(&state, connection, now) {
                given_up.extend(state.give_up(oldest));
            }
            if let Some(connection) = connection {
                self.close(&mut state, connection);
            }
        }
        drop(state);
        tell(&given_up);
    }

    /// Closes `connection` if its given-up parts exceed its budget. While those of all exceed the
    /// member's, closes the connection that holds most of them.
    fn close(&self, state: &mut State, connection: u64) {
        let is_over = state.connections.get(&connection).is_some_and(|held| {
            !held.is_closing && held.given_up_bytes > self.connection_bytes_max
        });
        if is_over {
            state.close(connection);
        }
        while state.given_up_bytes > self.bytes_max {
            let open = state.connections.iter().filter(|(_, held)| !held.is_closing);
            let most = open.max_by_key(|(_, held)| held.given_up_bytes);
            let Some(most) = most.map(|(connection, _)| *connection) else { break };
            state.close(most);
        }
    }

    /// Registers a connection, which ends when `closing` is notified.
    pub(super) fn connection(self: &Arc<Self>, closing: Arc<Notify>) -> PartialAccount {
        let mut state = self.state.lock();
        state.next_connection += 1;
        PartialAccount { all: Arc::clone(self), number: state.next_connection, closing }
    }

    /// Bytes of all parts, those given up included.
    pub(super) fn bytes(&self) -> usize {
        let (may_go_on, given_up) = self.bytes_of_each();
        may_go_on + given_up
    }

    /// Bytes of the parts that may go on, and of those given up.
    fn bytes_of_each(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.bytes, state.given_up.values().map(|part| part.bytes).sum())
    }
}

impl State {
    fn remove(&mut self, age: u64) {
        let Self { by_age, given_up, connections, .. } = self;
        let may_go_on = by_age.remove(&age);
        let is_given_up = may_go_on.is_none();
        let Some(part) = may_go_on.or_else(|| given_up.remove(&age)) else { return };
        metrics::unfinished_bytes().sub(part.bytes as i64);
        let Some(held) = connections.get_mut(&part.connection) else { return };
        if is_given_up {
            held.given_up_bytes -= part.bytes;
            self.given_up_bytes -= if held.is_closing { 0 } else { part.bytes };
        } else {
            held.bytes -= part.bytes;
            held.ages.remove(&age);
            self.bytes -= part.bytes;
        }
        if held.ages.is_empty() && held.given_up_bytes == 0 {
            connections.remove(&part.connection);
        }
    }

    fn add(
        &mut self,
        connection: &PartialAccount,
        bytes: usize,
        call: &Arc<Call>,
        came: Instant,
    ) -> u64 {
        self.parts_added += 1;
        let age = self.parts_added;
        self.bytes += bytes;
        metrics::unfinished_bytes().add(bytes as i64);
        let held = self.connections.entry(connection.number).or_insert_with(|| ConnectionParts {
            closing: Arc::clone(&connection.closing),
            ..ConnectionParts::default()
        });
        held.bytes += bytes;
        held.ages.insert(age);
        let (connection, call) = (connection.number, Arc::clone(call));
        self.by_age.insert(age, Part { connection, bytes, came, call });
        age
    }

    /// Gives up a part, which stays counted until its call finds that out or ends. Returns the
    /// call, to be woken without the lock.
    fn give_up(&mut self, age: u64) -> Option<Arc<Call>> {
        let part = self.by_age.remove(&age)?;
        let call = Arc::clone(&part.call);
        // Set under the lock, which `CountedPart::set` holds when it adds more of this message: the
        // new part is then given up, too.
        call.is_given_up.store(true, Ordering::Release);
        self.bytes -= part.bytes;
        if let Some(held) = self.connections.get_mut(&part.connection) {
            held.bytes -= part.bytes;
            held.ages.remove(&age);
            held.given_up_bytes += part.bytes;
            self.given_up_bytes += if held.is_closing { 0 } else { part.bytes };
        }
        self.given_up.insert(age, part);
        Some(call)
    }

    fn close(&mut self, connection: u64) {
        let Some(held) = self.connections.get_mut(&connection) else { return };
        held.is_closing = true;
        self.given_up_bytes -= held.given_up_bytes;
        tracing::warn!(
            "given-up-bytes" = held.given_up_bytes,
            "closing a connection whose client takes no answers on streams with unfinished requests"
        );
        held.closing.notify_one();
    }
}

/// Wakes calls whose messages were given up.
fn tell(given_up: &[Arc<Call>]) {
    metrics::unfinished_ended().inc_by(given_up.len() as u64);
    given_up.iter().for_each(|call| call.reader.wake());
}

impl PartialAccount {
    /// Counts a request that is no message of gRPC.
    pub(super) fn incomplete(self) -> Box<dyn Incomplete> {
        Box::new(CountedPart::new(self))
    }
}

impl Incomplete for CountedPart {
    fn set(&mut self, bytes: usize) {
        Self::set(self, bytes);
    }

    fn is_given_up(&self, reader: &Waker) -> bool {
        Self::is_given_up(self, reader)
    }
}

/// The part of one call, counted until this is dropped.
struct CountedPart {
    connection: PartialAccount,
    /// Made with the first part: most messages arrive whole and need none.
    call: Option<Arc<Call>>,
    /// The part's age; 0 while nothing is counted.
    age: u64,
}

impl CountedPart {
    fn new(connection: PartialAccount) -> Self {
        Self { connection, call: None, age: 0 }
    }

    /// Sets the bytes that are there of the call's unfinished message, the last of which have just
    /// arrived. 0: no message is unfinished.
    fn set(&mut self, bytes: usize) {
        if self.age == 0 && bytes == 0 {
            return;
        }
        let call = self.call.get_or_insert_default();
        let mut given_up = Vec::new();
        let all = &self.connection.all;
        let mut state = all.state.lock();
        state.remove(self.age);
        self.age = 0;
        if bytes > 0 {
            let now = clock::instant();
            self.age = state.add(&self.connection, bytes, call, now);
            if call.is_given_up.load(Ordering::Relaxed) {
                state.give_up(self.age);
            }
            let number = self.connection.number;
            while let Some(oldest) = all.next_to_give_up(&state, Some(number), now) {
                given_up.extend(state.give_up(oldest));
            }
            all.close(&mut state, number);
        }
        drop(state);
        tell(&given_up);
    }

    /// Whether the part was given up; if not, `reader` is woken when it is.
    fn is_given_up(&self, reader: &Waker) -> bool {
        self.call.as_ref().is_some_and(|call| {
            call.reader.register(reader);
            call.is_given_up.load(Ordering::Acquire)
        })
    }
}

impl Drop for CountedPart {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Finds the ends of gRPC messages in a stream of bytes.
#[derive(Default)]
struct Messages {
    prefix: [u8; PREFIX_BYTES],
    have: usize,
    /// Bytes of the current message that have arrived, and those that have not.
    came: usize,
    left: usize,
}

impl Messages {
    /// Takes the next bytes of the stream. Returns how many bytes of an unfinished message have
    /// arrived, its prefix included; 0 if no message is unfinished.
    fn feed(&mut self, mut bytes: &[u8]) -> usize {
        while !bytes.is_empty() {
            if self.have < PREFIX_BYTES {
                let take = (PREFIX_BYTES - self.have).min(bytes.len());
                self.prefix[self.have..self.have + take].copy_from_slice(&bytes[..take]);
                self.have += take;
                bytes = &bytes[take..];
                let [_, a, b, c, d] = self.prefix;
                (self.came, self.left) = (0, u32::from_be_bytes([a, b, c, d]) as usize);
            }
            let take = self.left.min(bytes.len());
            self.left -= take;
            self.came += take;
            bytes = &bytes[take..];
            if self.have == PREFIX_BYTES && self.left == 0 {
                (self.have, self.came) = (0, 0);
            }
        }
        self.came + self.have
    }
}

/// A request's body, whose unfinished message is counted.
pub(super) struct CountedRequestBody<B> {
    body: B,
    messages: Messages,
    counted: CountedPart,
}

impl<B> CountedRequestBody<B> {
    pub(super) fn new(body: B, connection: PartialAccount) -> Self {
        Self { body, messages: Messages::default(), counted: CountedPart::new(connection) }
    }
}

impl<B> Body for CountedRequestBody<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<rpc::BoxError>,
{
    type Data = Bytes;
    type Error = rpc::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, rpc::BoxError>>> {
        let Self { body, messages, counted } = self.get_mut();
        if counted.is_given_up(context.waker()) {
            return Poll::Ready(Some(Err(rpc::message_given_up())));
        }
        let frame = ready!(Pin::new(body).poll_frame(context));
        let bytes = match &frame {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| messages.feed(data)),
            _ => 0,
        };
        counted.set(bytes);
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
pub(super) mod tests;
