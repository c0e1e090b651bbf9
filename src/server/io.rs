//! A client's HTTP/2 connection as h2 reads and writes it: bytes are counted, what h2 would treat
//! more harshly than grpc-go is changed on its way in (see `inbound`), too many pings end the
//! connection, and reading stops while the client takes nothing.
//!
//! h2 answers pings itself and reports them to no caller. So the frame headers that pass are read
//! here, nine bytes each. They also show where an outgoing frame ends: only there can a GOAWAY be
//! put into the stream. The rule is grpc-go's: a ping sooner than the minimum after the one before
//! it, or within two hours of it while no call is open, is a strike; an answer of the server
//! forgives all strikes; the third strike ends the connection.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::inbound::Inbound;
use super::outbox::Account;
use crate::clock;
use crate::limits::{self, PING_STRIKES_MAX};

/// The connection preface, which an HTTP/2 client sends first (RFC 9113, section 3.4).
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const HEAD_BYTES: usize = 9;
/// Payload of a WINDOW_UPDATE.
const UPDATE_BYTES: usize = 4;
/// Shortest time between pings while no call is open, grpc-go's default: such a client has no
/// answer to wait for.
const IDLE_PING: Duration = Duration::from_secs(2 * 3600);

/// A GOAWAY frame for all streams: ENHANCE_YOUR_CALM, "too_many_pings".
const GOAWAY: &[u8] =
    b"\x00\x00\x16\x07\x00\x00\x00\x00\x00\x7f\xff\xff\xff\x00\x00\x00\x0btoo_many_pings";

/// Bytes read at a time where h2's buffer has no room behind the held bytes.
const SPARE_BYTES: usize = 4096;

/// Follows frame headers through a stream of bytes.
struct Frames {
    header: [u8; HEAD_BYTES + UPDATE_BYTES],
    have: usize,
    /// Bytes of the current frame's payload that have not passed.
    skip: usize,
}

impl Frames {
    fn new() -> Self {
        Self { header: [0; HEAD_BYTES + UPDATE_BYTES], have: 0, skip: 0 }
    }

    /// Calls `seen` with each frame whose header is complete in these bytes. A WINDOW_UPDATE is
    /// seen once its payload is complete; one of the wrong length is seen without it.
    fn feed(&mut self, mut bytes: &[u8], mut seen: impl FnMut(FrameHead)) {
        while !bytes.is_empty() {
            let skip = self.skip.min(bytes.len());
            self.skip -= skip;
            bytes = &bytes[skip..];
            let is_update = self.have >= HEAD_BYTES;
            let want = HEAD_BYTES + if is_update { UPDATE_BYTES } else { 0 };
            let take = (want - self.have).min(bytes.len());
            if self.skip > 0 || take == 0 {
                continue;
            }
            self.header[self.have..self.have + take].copy_from_slice(&bytes[..take]);
            self.have += take;
            bytes = &bytes[take..];
            if self.have < want {
                continue;
            }
            let [a, b, c, kind, _, d, e, f, g, update @ ..] = self.header;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if kind == WINDOW_UPDATE && length == UPDATE_BYTES && !is_update {
                continue;
            }
            let update = if is_update { u32::from_be_bytes(update) } else { 0 };
            (self.skip, self.have) = (if is_update { 0 } else { length }, 0);
            seen(FrameHead { kind, length, stream: [d, e, f, g], update });
        }
    }

    fn at_boundary(&self) -> bool {
        self.skip == 0 && self.have == 0
    }
}

/// A frame whose header has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FrameHead {
    kind: u8,
    length: usize,
    stream: [u8; 4],
    /// Bytes that a WINDOW_UPDATE permits; 0 for other frames.
    update: u32,
}

/// Counts a client's ping strikes.
struct Pings {
    /// Shortest time between pings while calls are open; None allows any.
    minimum: Option<Duration>,
    last: Option<Instant>,
    strikes: u32,
    forgiven: bool,
}

impl Pings {
    fn new(minimum: Option<Duration>) -> Self {
        Self { minimum, last: None, strikes: 0, forgiven: false }
    }

    /// Whether this ping is the strike that ends the connection. `idle`: no call is open.
    fn ping(&mut self, now: Instant, idle: bool) -> bool {
        let since = self.last.map(|last| now.duration_since(last));
        self.last = Some(now);
        if std::mem::take(&mut self.forgiven) {
            self.strikes = 0;
            return false;
        }
        let Some(minimum) = self.minimum else { return false };
        let least = if idle { IDLE_PING } else { minimum };
        if since.is_some_and(|since| since < least) {
            self.strikes += 1;
        }
        self.strikes > PING_STRIKES_MAX
    }
}

/// Calls open on one connection.
#[derive(Clone, Default)]
pub(super) struct Calls(Arc<AtomicUsize>);

impl Calls {
    pub(super) fn enter(&self) -> OpenCall {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenCall(Arc::clone(&self.0))
    }
}

/// One open call; it ends when this is dropped.
pub(super) struct OpenCall(Arc<AtomicUsize>);

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Marks the turns of a connection's task; each poll of the task begins one. Within one poll, h2
/// polls the socket again for each request that it hands over, and would read on to the next
/// frames: of a burst of calls and their cancellations, most would be cancelled before they are
/// handed over.
#[derive(Clone, Default)]
pub(super) struct PollTurns(Arc<AtomicBool>);

impl PollTurns {
    /// Wraps the connection's future so that each poll of it begins a turn.
    pub(super) async fn of<F: Future>(self, future: F) -> F::Output {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            self.0.store(true, Ordering::Relaxed);
            future.as_mut().poll(context)
        })
        .await
    }

    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// An HTTP/2 connection under these rules. `first` holds the bytes that told its protocol.
pub(super) struct ClientStream<S> {
    inner: S,
    first: Bytes,
    inbound: Inbound,
    outbound: Frames,
    pings: Pings,
    calls: Calls,
    turns: PollTurns,
    /// Set once the connection must end: the bytes of the GOAWAY that are not written yet.
    goaway_rest: Option<&'static [u8]>,
    reader: Option<Waker>,
    account: Arc<Account>,
    /// Whether the socket took no bytes at the last write.
    is_blocked: bool,
    /// Bytes read while the socket was blocked, less the bytes that it has taken since.
    read_blocked: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    pub(super) fn new(
        inner: S,
        first: Bytes,
        minimum: Option<Duration>,
        calls: Calls,
        turns: PollTurns,
        account: Arc<Account>,
    ) -> Self {
        let (inbound, outbound) = (Inbound::new(PREFACE.len()), Frames::new());
        let pings = Pings::new(minimum);
        Self {
            inner,
            first,
            inbound,
            outbound,
            pings,
            calls,
            turns,
            goaway_rest: None,
            reader: None,
            account,
            is_blocked: false,
            read_blocked: 0,
        }
    }

    /// Reads from `first`, then from the socket, without looking at the bytes. Returns their
    /// number.
    fn fill(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        let before = buffer.filled().len();
        if self.first.is_empty() {
            ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        } else {
            let count = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first[..count]);
            self.first.advance(count);
        }
        let count = buffer.filled().len() - before;
        if self.is_blocked {
            self.read_blocked += count;
        }
        Poll::Ready(Ok(count))
    }

    /// Reads bytes, passes them through `inbound`, and leaves in `buffer` what may go on to h2.
    fn receive(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turns.take() {
            self.inbound.begin_turn();
        }
        let start = buffer.filled().len();
        while buffer.remaining() > 0 {
            let room = buffer.remaining();
            if self.inbound.take_ready(room, |bytes| buffer.put_slice(bytes)).is_some() {
                break;
            }
            if self.pauses(context) {
                return Poll::Pending;
            }
            let held = self.inbound.held().len();
            if held >= room {
                let mut bytes = [0; SPARE_BYTES];
                let mut spare = ReadBuf::new(&mut bytes);
                match ready!(self.fill(context, &mut spare))? {
                    0 => self.inbound.give_up(),
                    _ => self.inbound.hold(spare.filled()),
                }
                continue;
            }
            buffer.put_slice(self.inbound.held());
            let read = self.fill(context, buffer);
            if !matches!(read, Poll::Ready(Ok(_))) {
                buffer.set_filled(start);
            }
            let count = ready!(read)?;
            self.inbound.take_held();
            if count == 0 {
                break;
            }
            let count = self.inbound.pass(&mut buffer.filled_mut()[start..]);
            buffer.set_filled(start + count);
            if count > 0 {
                break;
            }
        }
        // Counted before h2 has the bytes: a body could otherwise give them out uncounted.
        let passed = buffer.filled().len() - start;
        self.account.unread().arrived(self.inbound.take_arrived(passed));
        self.count_pings();
        Poll::Ready(Ok(()))
    }

    fn count_pings(&mut self) {
        for _ in 0..self.inbound.take_pings() {
            let idle = self.calls.0.load(Ordering::Relaxed) == 0;
            if self.pings.ping(clock::instant(), idle) && self.goaway_rest.is_none() {
                self.goaway_rest = Some(GOAWAY);
            }
        }
    }

    fn sent(&mut self, bytes: &[u8]) {
        let (forgiven, account) = (&mut self.pings.forgiven, &self.account);
        let inbound = &mut self.inbound;
        self.outbound.feed(bytes, |frame| {
            *forgiven |= matches!(frame.kind, DATA | HEADERS);
            match frame.kind {
                DATA => account.took_answer(frame.length),
                RESET => inbound.note_reset(frame.stream),
                WINDOW_UPDATE if frame.stream == [0; 4] => account.unread().permitted(frame.update),
                _ => {}
            }
        });
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        self.is_blocked = written.is_pending();
        let Poll::Ready(Ok(count)) = written else { return };
        self.account.took(*count);
        self.read_blocked = self.read_blocked.saturating_sub(*count);
        if let Some(reader) = self.reader.take() {
            self.account.set_blocked(false);
            reader.wake();
        }
    }

    /// Whether nothing may be read at present; the reader is then woken when reading may go on.
    fn pauses(&mut self, context: &Context<'_>) -> bool {
        if self.is_blocked && self.read_blocked >= limits::BLOCKED_READ_BYTES_MAX {
            self.reader = Some(context.waker().clone());
            self.account.set_blocked(true);
            return true;
        }
        if self.account.has_queue(context.waker()) || self.account.unread().pauses(context.waker())
        {
            return true;
        }
        if self.inbound.is_turn_over() {
            context.waker().wake_by_ref();
            return true;
        }
        false
    }

    /// Writes the rest of the GOAWAY. Called only where a frame may start.
    fn write_goaway(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.goaway_rest.filter(|rest| !rest.is_empty()) {
            let count = ready!(Pin::new(&mut self.inner).poll_write(context, rest))?;
            self.goaway_rest = Some(&rest[count..]);
        }
        Pin::new(&mut self.inner).poll_flush(context)
    }
}

fn calm_down() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "too many pings from the client")
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.goaway_rest.is_some() {
            if !this.outbound.at_boundary() {
                this.reader = Some(context.waker().clone());
                return Poll::Pending;
            }
            ready!(this.write_goaway(context))?;
            return Poll::Ready(Err(calm_down()));
        }
        this.receive(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.goaway_rest.is_some() && this.outbound.at_boundary() {
            ready!(this.write_goaway(context))?;
            return Poll::Ready(Err(calm_down()));
        }
        let written = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.wrote(&written);
        let count = ready!(written)?;
        this.sent(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.goaway_rest.is_some() && this.outbound.at_boundary() {
            ready!(this.write_goaway(context))?;
            return Poll::Ready(Err(calm_down()));
        }
        let written = Pin::new(&mut this.inner).poll_write_vectored(context, slices);
        this.wrote(&written);
        let count = ready!(written)?;
        let mut left = count;
        for slice in slices {
            let part = left.min(slice.len());
            this.sent(&slice[..part]);
            left -= part;
        }
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let mut bytes = (payload as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags, 0, 0, 0, 0]);
        bytes.extend(vec![6; payload]);
        bytes
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let bytes = [
            frame(4, 0, 18),
            frame(6, 0, 8),
            frame(DATA, 1, 0),
            frame(WINDOW_UPDATE, 0, 4),
            frame(6, 1, 8),
            frame(WINDOW_UPDATE, 0, 5),
        ]
        .concat();
        for cut in 1..bytes.len() {
            let mut frames = Frames::new();
            let mut seen = Vec::new();
            for part in bytes.chunks(cut) {
                frames.feed(part, |frame| seen.push((frame.kind, frame.length, frame.update)));
            }
            let expected = [
                (4, 18, 0),
                (6, 8, 0),
                (DATA, 0, 0),
                (WINDOW_UPDATE, 4, 0x06060606),
                (6, 8, 0),
                (WINDOW_UPDATE, 5, 0),
            ];
            assert_eq!(seen, expected, "cut {cut}");
            assert!(frames.at_boundary());
        }
    }

    #[test]
    fn the_third_strike_ends_and_an_answer_forgives() {
        let start = clock::instant();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pings = Pings::new(Some(Duration::from_secs(5)));
        assert!(!pings.ping(at(0), false));
        assert!(!pings.ping(at(5), false), "in time");
        assert!(!pings.ping(at(6), false) && !pings.ping(at(7), false));
        assert!(pings.ping(at(8), false));

        let mut pings = Pings::new(Some(Duration::from_secs(5)));
        for second in 0..100 {
            pings.forgiven = true;
            assert!(!pings.ping(at(second), false));
        }

        let mut pings = Pings::new(Some(Duration::from_secs(5)));
        let verdicts: Vec<bool> = (0..4).map(|n| pings.ping(at(n * 60), true)).collect();
        assert_eq!(verdicts, [false, false, false, true], "idle pings need two hours");
    }

    #[test]
    fn the_goaway_is_a_frame() {
        let length = u32::from_be_bytes([0, GOAWAY[0], GOAWAY[1], GOAWAY[2]]) as usize;
        assert_eq!(GOAWAY.len(), 9 + length);
        assert_eq!(GOAWAY[3], 7);
    }
}
