//! Messages of requests of which a part has come, and the rest has not: one budget for each connection
//! and one for the member.
//!
//! A part is in memory before anybody has logged in, and its client may send the rest whenever it
//! likes. So the parts are counted as they come, message by message. Above a budget, those whose last
//! bytes came longest ago are given up, and their calls end: a client that sends on is never among the
//! oldest for long. A message that comes in one frame, as most do, is not seen here.
//!
//! ```text
//!   frames ─► Incomplete (a request's body) ─► rpc reads the message
//!                │ bytes of a message without its end        ▲ an error in the place of more
//!                └──► Unfinished: by connection, by age ─────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use crate::{limits, metrics, rpc};

/// Flag and length before each message of gRPC.
const PREFIX_BYTES: usize = 5;

/// The parts that are there of all connections.
pub(super) struct Unfinished {
    state: Mutex<State>,
    /// Budgets of a connection and of all together.
    connection_bytes_max: usize,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    /// Counts changes: what changed last is the youngest.
    now: u64,
    bytes: usize,
    by_age: BTreeMap<u64, Part>,
    connections: BTreeMap<u64, Held>,
    next_connection: u64,
}

/// What one connection holds.
#[derive(Default)]
struct Held {
    bytes: usize,
    ages: BTreeSet<u64>,
}

struct Part {
    connection: u64,
    bytes: usize,
    call: Arc<Call>,
}

/// Tells a call that its message was given up.
#[derive(Default)]
struct Call {
    is_given_up: AtomicBool,
    reader: AtomicWaker,
}

/// Whose parts are counted together.
#[derive(Clone)]
pub(super) struct Connection {
    all: Arc<Unfinished>,
    number: u64,
}

impl Unfinished {
    /// For messages of at most so many bytes: a few of them fit, whatever a flag says.
    pub(super) fn new(message_bytes_max: usize) -> Arc<Self> {
        let few = message_bytes_max.saturating_mul(limits::UNFINISHED_MESSAGES_MIN);
        Arc::new(Self {
            state: Mutex::default(),
            connection_bytes_max: limits::CONNECTION_UNFINISHED_BYTES_MAX.max(few),
            bytes_max: limits::UNFINISHED_BYTES_MAX.max(few.saturating_mul(2)),
        })
    }

    /// The oldest part of those that are over their budget, but never the youngest of all: one message
    /// may be larger than a budget.
    fn oldest_over(&self, state: &State, connection: u64) -> Option<u64> {
        let held = state.connections.get(&connection)?;
        let of_connection = || held.ages.first().copied();
        let of_all = || state.by_age.first_key_value().map(|(age, _)| *age);
        let oldest = if held.bytes > self.connection_bytes_max {
            of_connection()
        } else if state.bytes > self.bytes_max {
            of_all()
        } else {
            None
        };
        oldest.filter(|age| *age != state.now)
    }

    pub(super) fn connection(self: &Arc<Self>) -> Connection {
        let mut state = self.state.lock();
        state.next_connection += 1;
        Connection { all: Arc::clone(self), number: state.next_connection }
    }

    pub(super) fn bytes(&self) -> usize {
        self.state.lock().bytes
    }
}

impl State {
    fn remove(&mut self, age: u64) -> Option<Arc<Call>> {
        let Part { connection, bytes, call } = self.by_age.remove(&age)?;
        self.bytes -= bytes;
        metrics::unfinished_bytes().sub(bytes as i64);
        if let Some(held) = self.connections.get_mut(&connection) {
            held.bytes -= bytes;
            held.ages.remove(&age);
            if held.ages.is_empty() {
                self.connections.remove(&connection);
            }
        }
        Some(call)
    }

    fn add(&mut self, connection: u64, bytes: usize, call: &Arc<Call>) -> u64 {
        self.now += 1;
        let age = self.now;
        self.bytes += bytes;
        metrics::unfinished_bytes().add(bytes as i64);
        let held = self.connections.entry(connection).or_default();
        held.bytes += bytes;
        held.ages.insert(age);
        self.by_age.insert(age, Part { connection, bytes, call: Arc::clone(call) });
        age
    }
}

/// A part that is counted until it is dropped.
struct Counted {
    connection: Connection,
    /// Made with the first part: most messages come whole.
    call: Option<Arc<Call>>,
    /// 0 while nothing is counted.
    age: u64,
}

impl Counted {
    fn new(connection: Connection) -> Self {
        Self { connection, call: None, age: 0 }
    }

    /// So many bytes are there of a message whose last ones have just come.
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
        if bytes > 0 && !call.is_given_up.load(Ordering::Relaxed) {
            self.age = state.add(self.connection.number, bytes, call);
            while let Some(oldest) = all.oldest_over(&state, self.connection.number) {
                given_up.extend(state.remove(oldest));
            }
            // Before the lock is given back, so that nobody counts again what was given up.
            given_up.iter().for_each(|call| call.is_given_up.store(true, Ordering::Release));
        }
        drop(state);
        metrics::unfinished_ended().inc_by(given_up.len() as u64);
        given_up.iter().for_each(|call| call.reader.wake());
    }

    /// Whether the part was given up; if not, the reader is woken when it is.
    fn is_given_up(&self, reader: &Waker) -> bool {
        self.call.as_ref().is_some_and(|call| {
            call.reader.register(reader);
            call.is_given_up.load(Ordering::Acquire)
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// Follows messages of gRPC through a stream of bytes.
#[derive(Default)]
struct Messages {
    prefix: [u8; PREFIX_BYTES],
    have: usize,
    /// Bytes of the message that have come, and those that have not.
    came: usize,
    left: usize,
}

impl Messages {
    /// Bytes of the message without an end in these, if there is one.
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

/// The body of a request.
pub(super) struct Incomplete<B> {
    body: B,
    messages: Messages,
    counted: Counted,
}

impl<B> Incomplete<B> {
    pub(super) fn new(body: B, connection: Connection) -> Self {
        Self { body, messages: Messages::default(), counted: Counted::new(connection) }
    }
}

impl<B> Body for Incomplete<B>
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
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    const MIB: usize = 1 << 20;

    /// Frames that are there, and then nothing comes.
    struct Frames(VecDeque<Bytes>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match self.0.pop_front() {
                Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                None => Poll::Pending,
            }
        }
    }

    type Request = Incomplete<Frames>;

    /// A request of which so many bytes come, in frames, and the rest does not.
    fn request(connection: &Connection, bytes: usize) -> Request {
        let zeros = Bytes::from(vec![0; MIB]);
        let prefix = [&[0][..], &(bytes as u32 + 1).to_be_bytes()].concat();
        let mut frames = VecDeque::from([Bytes::from(prefix)]);
        frames.extend((0..bytes / MIB).map(|_| zeros.clone()));
        frames.push_back(zeros.slice(..bytes % MIB));
        Incomplete::new(Frames(frames), connection.clone())
    }

    /// Reads what there is; the error that comes in the place of more.
    fn read(request: &mut Request) -> Option<rpc::BoxError> {
        while let Some(frame) = request.frame().now_or_never() {
            if let Err(error) = frame.unwrap() {
                return Some(error);
            }
        }
        None
    }

    #[test]
    fn messages_are_followed_however_they_are_cut() {
        let message =
            |bytes: usize| [&[0][..], &(bytes as u32).to_be_bytes(), &vec![7; bytes]].concat();
        let all = [message(3), message(0), message(20)].concat();
        for cut in 1..all.len() {
            let mut messages = Messages::default();
            let (mut at, mut open) = (0, 0);
            for part in all.chunks(cut) {
                at += part.len();
                open = messages.feed(part);
                let begins = [0, 8, 13, 38].into_iter().rfind(|begin| *begin <= at).unwrap();
                assert_eq!(open, at - begins, "cut {cut} at {at}");
            }
            assert_eq!(open, 0);
        }
    }

    #[test]
    fn the_oldest_parts_of_a_connection_are_given_up() {
        let all = Unfinished::new(0);
        let (greedy, other) = (all.connection(), all.connection());
        let mut healthy = request(&other, MIB);
        assert!(read(&mut healthy).is_none());
        let mut requests: Vec<_> = (0..40).map(|_| request(&greedy, MIB)).collect();
        assert!(requests.iter_mut().all(|request| read(request).is_none()));
        let ends = |request: &mut Request| {
            let error = read(request)?;
            let status = error.downcast_ref::<tonic::Status>().expect("another error");
            assert_eq!(status.code(), tonic::Code::ResourceExhausted);
            Some(())
        };
        let ended = requests.iter_mut().map(|request| ends(request).is_some()).collect::<Vec<_>>();
        let lives = limits::CONNECTION_UNFINISHED_BYTES_MAX / (MIB + PREFIX_BYTES);
        assert!(ended[..40 - lives].iter().all(|ended| *ended), "{ended:?}");
        assert!(!ended[40 - lives..].contains(&true), "{ended:?}");
        assert!(read(&mut healthy).is_none(), "another connection has paid for it");
        drop((requests, healthy));
        assert_eq!(all.bytes(), 0);
        assert!(all.state.lock().connections.is_empty());
    }

    #[test]
    fn many_connections_have_one_budget() {
        let all = Unfinished::new(0);
        let connections: Vec<_> =
            (0..2 * limits::UNFINISHED_BYTES_MAX / MIB).map(|_| all.connection()).collect();
        let mut requests = Vec::new();
        for connection in &connections {
            let mut request = request(connection, MIB);
            assert!(read(&mut request).is_none());
            assert!(all.bytes() <= limits::UNFINISHED_BYTES_MAX);
            requests.push(request);
        }
        assert!(all.bytes() > limits::UNFINISHED_BYTES_MAX - 2 * MIB);
        assert!(read(&mut requests[0]).is_some() && read(requests.last_mut().unwrap()).is_none());
        // What goes on is younger than what waits.
        let half = requests.len() / 2 + 2;
        requests[half].body.0.push_back(Bytes::new());
        requests[half].messages.left += 2;
        requests[half].body.0.push_back(Bytes::from_static(b"x"));
        assert!(read(&mut requests[half]).is_none());
        let mut more: Vec<_> = connections[..8].iter().map(|it| request(it, MIB)).collect();
        assert!(more.iter_mut().all(|request| read(request).is_none()));
        assert!(read(&mut requests[half]).is_none(), "it has sent on");
        assert!(read(&mut requests[half + 1]).is_some());
    }

    #[test]
    fn one_message_may_be_larger_than_a_budget() {
        let all = Unfinished::new(0);
        let connection = all.connection();
        let mut small = request(&connection, 10);
        assert!(read(&mut small).is_none());
        let mut large = request(&connection, limits::UNFINISHED_BYTES_MAX + MIB);
        assert!(read(&mut large).is_none());
        assert!(read(&mut small).is_some());
    }

    #[test]
    fn whoever_waits_for_the_rest_is_woken() {
        let all = Unfinished::new(0);
        let connection = all.connection();
        let mut waiting = request(&connection, MIB);
        assert!(read(&mut waiting).is_none());
        let woken = Arc::new(Woken::default());
        let waker = futures_util::task::waker(Arc::clone(&woken));
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut waiting).poll_frame(&mut context).is_pending());
        let mut large = request(&connection, limits::CONNECTION_UNFINISHED_BYTES_MAX);
        assert!(read(&mut large).is_none());
        assert!(woken.0.load(Ordering::Relaxed));
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl futures_util::task::ArcWake for Woken {
        fn wake_by_ref(woken: &Arc<Self>) {
            woken.0.store(true, Ordering::Relaxed);
        }
    }
}
