//! Bytes of requests that have arrived and that no call has read: one budget for the member.
//!
//! A stream does not read its next request while its answers wait for the client's flow-control
//! window, and a call that waits for its turn reads nothing. What arrives meanwhile waits in h2, up
//! to the connection's window, and may be whole messages. So every DATA frame is counted from when
//! it passes to h2 until its request's body has given it out and is polled for more.
//!
//! ```text
//!   socket ─► Inbound ─► h2 keeps it ─► UnreadRequestBody ──────► rpc reads the message
//!                │ arrived                 │ took, dropped
//!                └──────► UnreadAccount ◄──┘        Unread: the sum of all connections
//!                               ▲ permitted: WINDOW_UPDATE of h2
//! ```
//!
//! While the sum is above its budget, a connection that holds more than half of an equal share is
//! not read, so that all other connections together add at most half of the budget. (Above 2048
//! connections that half stays at `limits::UNREAD_SHARE_BYTES_MIN`, and only closing bounds the
//! sum.) A client whose requests are read does not notice: its bytes are free again a moment later.
//! A paused connection still gets one read at each look, since the WINDOW_UPDATE that its answers
//! wait for may be among what is not read.
//!
//! A connection is then closed if nothing of its requests was read for some seconds and its client
//! takes no answers either, however little it holds: the sum is what counts. Those that have made
//! no progress for longest are closed first, since a healthy client may make none only because of
//! the crowd.
//!
//! A frame is a slice of the buffer that it was read into, and keeps the whole buffer in memory,
//! also what else arrived in it and is read or needs no reading. So bytes that pass beside unread
//! frames, and bytes that are read beside them, still count, up to one buffer for each unread
//! frame.
//!
//! Not all DATA that passes to h2 reaches a body: its stream may have been reset, or its request
//! has just been dropped. h2 frees such frames at once without a notice. Three rules keep them from
//! being counted for ever: frames on streams that this server reset are not counted; a connection
//! without requests has nothing unread; and the WINDOW_UPDATEs that h2 sends bound what it may
//! still hold, which is never less than what it does hold.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;

use super::inbound::Arrived;
use crate::{limits, metrics};

/// The connection's window before the first WINDOW_UPDATE (RFC 9113, section 6.9.2).
const FIRST_WINDOW_BYTES: u64 = 65_535;

/// The unread bytes of all client connections.
#[derive(Default)]
pub(super) struct Unread {
    bytes: AtomicUsize,
    connections: AtomicUsize,
}

/// The unread bytes of one connection.
pub(super) struct UnreadAccount {
    all: Arc<Unread>,
    state: Mutex<State>,
    /// Whether reading has stopped; `reader` is woken when it may go on.
    is_paused: AtomicBool,
    reader: AtomicWaker,
    /// Whether one read may pass although reading has stopped.
    may_read: AtomicBool,
}

#[derive(Default)]
struct State {
    /// DATA frames that h2 holds, and their bytes.
    frames: usize,
    bytes: usize,
    /// Other bytes that the frames held may keep in memory, since they share their read buffers.
    buffer_bytes: usize,
    /// Bytes that bodies have given out and that are not known to be read.
    handed_out_bytes: usize,
    /// Request bodies that are not dropped.
    bodies: usize,
    /// All bytes of DATA so far, and all that h2 has permitted beyond the first window.
    arrived_bytes: u64,
    permitted_bytes: u64,
    /// Bytes of this connection that the member's sum includes.
    reported_bytes: usize,
    /// All bytes that calls have read so far; wraps.
    read_bytes: usize,
    seen: LastLook,
    /// Consecutive looks at which nothing had been read, and at which no answers had been taken
    /// either.
    unread_looks: u32,
    idle_looks: u32,
}

/// The state at the last look.
#[derive(Clone, Copy, Default)]
struct LastLook {
    cost: usize,
    read_bytes: usize,
    taken_bytes: usize,
}

/// A connection without progress, ordered by looks and then by bytes. The greatest is closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stalled {
    looks: u32,
    pub bytes: usize,
}

impl State {
    fn cost(&self) -> usize {
        let frames = self.bytes + self.frames * limits::UNREAD_FRAME_BYTES;
        frames + self.buffer_bytes + self.handed_out_bytes
    }

    /// Lowers the count to `bytes`, the most that h2 can hold.
    fn cap(&mut self, bytes: usize) {
        self.bytes = self.bytes.min(bytes);
        // A frame that is counted has a byte at least.
        self.frames = self.frames.min(self.bytes);
        self.keep(0);
    }

    /// Adds `bytes` to those that the present frames may keep from being freed.
    fn keep(&mut self, bytes: usize) {
        let most = self.frames * limits::UNREAD_BUFFER_BYTES;
        self.buffer_bytes = (self.buffer_bytes + bytes).min(most);
    }
}

impl Unread {
    pub(super) fn connection(self: &Arc<Self>) -> Arc<UnreadAccount> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Arc::new(UnreadAccount {
            all: Arc::clone(self),
            state: Mutex::default(),
            is_paused: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            may_read: AtomicBool::new(false),
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::SeqCst)
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.bytes() > limits::UNREAD_BYTES_MAX
    }

    /// Bytes above which a connection is not read while the sum is above its budget: half of an
    /// equal share.
    fn share(&self) -> usize {
        let count = self.connections.load(Ordering::Relaxed).max(1);
        (limits::UNREAD_BYTES_MAX / 2 / count).max(limits::UNREAD_SHARE_BYTES_MIN)
    }
}

impl Drop for UnreadAccount {
    fn drop(&mut self) {
        self.all.connections.fetch_sub(1, Ordering::Relaxed);
        let state = self.state.get_mut();
        self.all.bytes.fetch_sub(state.reported_bytes, Ordering::SeqCst);
        metrics::unread_bytes().sub(state.reported_bytes as i64);
    }
}

impl UnreadAccount {
    /// Unread bytes of the connection, with their overhead.
    pub(super) fn bytes(&self) -> usize {
        self.state.lock().cost()
    }

    /// Applies `change`, and corrects the member's sum if the cost has moved by a step or is 0.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        change(&mut state);
        let (cost, told) = (state.cost(), state.reported_bytes);
        if cost.abs_diff(told) >= limits::UNREAD_STEP_BYTES || cost == 0 && told > 0 {
            state.reported_bytes = cost;
            metrics::unread_bytes().add(cost as i64 - told as i64);
            // Under the lock, so that the sum gets a connection's changes in order: a decrease
            // before the increase that it takes back would wrap below 0.
            if cost > told {
                self.all.bytes.fetch_add(cost - told, Ordering::SeqCst);
            } else {
                self.all.bytes.fetch_sub(told - cost, Ordering::SeqCst);
            }
        }
        drop(state);
        if self.is_paused.load(Ordering::SeqCst) && !self.is_over(cost) {
            self.go_on();
        }
    }

    /// Counts DATA before it passes to h2.
    pub(super) fn arrived(&self, arrived: Arrived) {
        if arrived == Arrived::default() {
            return;
        }
        self.change(|state| {
            state.frames += arrived.frames;
            state.bytes += arrived.bytes;
            state.arrived_bytes += (arrived.bytes + arrived.ignored) as u64;
            state.keep(arrived.others);
        });
    }

    /// Lowers the count by a WINDOW_UPDATE of `bytes` that h2 sent for the connection. h2 sends one
    /// for several frames that it has freed, not one for each.
    pub(super) fn permitted(&self, bytes: u32) {
        self.change(|state| {
            state.permitted_bytes += u64::from(bytes);
            let window = u64::from(limits::CONNECTION_WINDOW_BYTES) - FIRST_WINDOW_BYTES;
            let held = (state.arrived_bytes + window).saturating_sub(state.permitted_bytes);
            state.cap(usize::try_from(held).unwrap_or(usize::MAX));
        });
    }

    fn is_over(&self, bytes: usize) -> bool {
        self.all.is_crowded() && bytes > self.all.share()
    }

    /// Whether nothing may be read at present; `reader` is then woken when reading may go on.
    pub(super) fn pauses(&self, reader: &Waker) -> bool {
        if !self.all.is_crowded() || self.may_read.swap(false, Ordering::SeqCst) {
            return false;
        }
        self.reader.register(reader);
        self.is_paused.store(true, Ordering::SeqCst);
        // Checked again once `is_paused` is set: a thread that freed bytes before that saw no
        // paused reader and woke none.
        let pauses = self.is_over(self.bytes());
        self.is_paused.fetch_and(pauses, Ordering::SeqCst);
        pauses
    }

    fn go_on(&self) {
        if self.is_paused.swap(false, Ordering::SeqCst) {
            self.reader.wake();
        }
    }

    /// Notes whether requests were read since the last look, or at least answers were taken;
    /// `taken_bytes` are those taken so far. Returns a `Stalled` if neither was the case for
    /// `limits::UNREAD_LOOKS_MAX` looks: the connection may then be closed.
    pub(super) fn look(&self, taken_bytes: usize) -> Option<Stalled> {
        let mut state = self.state.lock();
        let (cost, before) = (state.cost(), state.seen);
        state.seen = LastLook { cost, read_bytes: state.read_bytes, taken_bytes };
        let read = state.read_bytes.wrapping_sub(before.read_bytes);
        let taken = taken_bytes.wrapping_sub(before.taken_bytes);
        // All that was there at the last look, if that is less, is progress, too.
        let is_read = cost == 0 || read >= limits::UNSENT_PROGRESS_BYTES.min(before.cost).max(1);
        state.unread_looks = if is_read { 0 } else { state.unread_looks.saturating_add(1) };
        let takes = taken >= limits::UNSENT_PROGRESS_BYTES
            && state.unread_looks < limits::UNREAD_LOOKS_TAKING_MAX;
        state.idle_looks = if is_read || takes { 0 } else { state.idle_looks.saturating_add(1) };
        let looks = state.idle_looks.min(limits::UNREAD_LOOKS_COUNTED_MAX);
        drop(state);
        // Other connections may have freed bytes since the reader was paused. If this one is still
        // over its share, `may_read` lets one read pass, so that a paused connection makes progress
        // at each look.
        self.may_read.store(self.is_over(cost), Ordering::SeqCst);
        self.go_on();
        (looks >= limits::UNREAD_LOOKS_MAX).then_some(Stalled { looks, bytes: cost })
    }
}

/// A request's body, which counts what it gives out.
pub(super) struct UnreadRequestBody<B: Body<Data = Bytes> + Unpin> {
    body: B,
    connection: Arc<UnreadAccount>,
    /// Bytes of the last frame given out. A caller that polls for the next frame has read this one,
    /// or keeps it as the beginning of a message, which `unfinished` counts.
    given: usize,
}

impl<B: Body<Data = Bytes> + Unpin> UnreadRequestBody<B> {
    pub(super) fn new(body: B, connection: Arc<UnreadAccount>) -> Self {
        connection.state.lock().bodies += 1;
        Self { body, connection, given: 0 }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for UnreadRequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Self { body, connection, given } = self.get_mut();
        let polled = Pin::new(body).poll_frame(context);
        let bytes = match &polled {
            Poll::Ready(Some(Ok(frame))) => frame.data_ref().map_or(0, Bytes::len),
            _ => 0,
        };
        let before = std::mem::replace(given, bytes);
        if before > 0 || bytes > 0 {
            connection.change(|state| {
                state.frames = state.frames.saturating_sub(usize::from(bytes > 0));
                let left = state.bytes.saturating_sub(bytes);
                state.cap(left);
                state.keep(before);
                state.handed_out_bytes = state.handed_out_bytes.saturating_sub(before) + bytes;
                state.read_bytes = state.read_bytes.wrapping_add(before);
            });
        }
        Poll::Ready(ready!(polled))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Body<Data = Bytes> + Unpin> Drop for UnreadRequestBody<B> {
    fn drop(&mut self) {
        // h2 frees what is left without saying how much, so it is taken out and counted here.
        let mut context = Context::from_waker(Waker::noop());
        while !self.body.is_end_stream() {
            let polled = Pin::new(&mut *self).poll_frame(&mut context);
            if !matches!(polled, Poll::Ready(Some(Ok(_)))) {
                break;
            }
        }
        let given = std::mem::take(&mut self.given);
        self.connection.change(|state| {
            state.bodies -= 1;
            state.keep(given);
            state.handed_out_bytes = state.handed_out_bytes.saturating_sub(given);
            state.read_bytes = state.read_bytes.wrapping_add(given);
            if state.bodies == 0 {
                state.cap(0);
                state.handed_out_bytes = 0;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::super::unfinished::tests::{Frames, Woken};
    use super::*;

    const MIB: usize = 1 << 20;
    const FRAME: usize = 16 << 10;

    fn body(connection: &Arc<UnreadAccount>) -> UnreadRequestBody<Frames> {
        UnreadRequestBody::new(Frames::default(), Arc::clone(connection))
    }

    /// Sends at most `frames` frames on a stream, until reading its connection pauses; returns how
    /// many.
    fn send(
        connection: &UnreadAccount,
        body: &mut UnreadRequestBody<Frames>,
        frames: usize,
    ) -> usize {
        let zeros = Bytes::from(vec![0; FRAME]);
        for sent in 0..frames {
            if connection.pauses(Waker::noop()) {
                return sent;
            }
            connection.arrived(Arrived { frames: 1, bytes: FRAME, ..Arrived::default() });
            body.body.0.push_back(zeros.clone());
        }
        frames
    }

    fn read(body: &mut UnreadRequestBody<Frames>) {
        while body.frame().now_or_never().is_some() {}
    }

    #[test]
    fn what_is_read_no_longer_counts() {
        let all = Arc::<Unread>::default();
        let connection = all.connection();
        let (mut first, mut second) = (body(&connection), body(&connection));
        assert_eq!(send(&connection, &mut first, 10) + send(&connection, &mut second, 5), 15);
        let each = FRAME + limits::UNREAD_FRAME_BYTES;
        assert_eq!((connection.bytes(), all.bytes()), (15 * each, 15 * each));
        // A frame counts until the next one is asked for, without h2's place.
        assert!(first.frame().now_or_never().is_some());
        assert_eq!(connection.bytes(), 14 * each + FRAME);
        // What is read may lie in the buffers of what is not.
        read(&mut first);
        let kept = 5 * limits::UNREAD_BUFFER_BYTES;
        assert_eq!((connection.bytes(), all.bytes()), (5 * each + kept, 5 * each + kept));
        drop(second);
        assert_eq!((connection.bytes(), all.bytes()), (0, 0));
        send(&connection, &mut first, 3);
        drop((first, connection));
        assert_eq!((all.bytes(), all.connections.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn what_a_small_frame_keeps_counts_with_it() {
        let all = Arc::<Unread>::default();
        let connection = all.connection();
        let (mut unread, mut busy) = (body(&connection), body(&connection));
        for _ in 0..1000 {
            connection.arrived(Arrived { frames: 1, bytes: 1, ignored: 0, others: 9 + 9 + 8000 });
            unread.body.0.push_back(Bytes::from_static(b"x"));
        }
        let each = 1 + limits::UNREAD_FRAME_BYTES;
        assert_eq!(connection.bytes(), 1000 * (each + 9 + 9 + 8000));
        send(&connection, &mut busy, 100);
        read(&mut busy);
        assert_eq!(connection.bytes(), 1000 * (each + limits::UNREAD_BUFFER_BYTES));
        read(&mut unread);
        assert_eq!((connection.bytes(), all.bytes()), (0, 0));
        connection.arrived(Arrived { others: 8000, ..Arrived::default() });
        assert_eq!(connection.bytes(), 0, "nothing keeps it");
    }

    /// As on streams that were just reset: their frames reach no body.
    #[test]
    fn what_h2_throws_away_does_not_count_for_ever() {
        let all = Arc::<Unread>::default();
        let connection = all.connection();
        connection.permitted(limits::CONNECTION_WINDOW_BYTES - FIRST_WINDOW_BYTES as u32);
        let mut there = body(&connection);
        send(&connection, &mut there, 2);
        let lost = Arrived { frames: 64, bytes: MIB, ignored: 500, others: 0 };
        let held = connection.bytes();
        for _ in 0..4 {
            connection.arrived(lost);
        }
        assert!(connection.bytes() > held + 4 * MIB);
        connection.permitted(4 * (MIB as u32 + 500));
        // Frames are known to be gone only with the last byte.
        assert_eq!(connection.bytes(), held + 4 * 64 * limits::UNREAD_FRAME_BYTES);
        read(&mut there);
        assert_eq!(connection.bytes(), 0);
        connection.arrived(lost);
        drop(there);
        assert_eq!((connection.bytes(), all.bytes()), (0, 0), "no request is there");
    }

    #[test]
    fn connections_that_hold_more_than_their_share_are_not_read_in_a_crowd() {
        let all = Arc::<Unread>::default();
        let connections: Vec<_> = (0..64).map(|_| all.connection()).collect();
        let mut bodies: Vec<_> = connections.iter().map(body).collect();
        for _ in 0..20 {
            for (connection, body) in connections.iter().zip(&mut bodies) {
                send(connection, body, 60);
            }
            let most = limits::UNREAD_BYTES_MAX * 3 / 2 + 64 * (FRAME + limits::UNREAD_FRAME_BYTES);
            assert!(all.bytes() <= most, "{} bytes", all.bytes());
        }
        assert!(all.is_crowded());
        // A client whose requests are read goes on.
        let healthy = all.connection();
        let mut requests = body(&healthy);
        for _ in 0..1000 {
            assert_eq!(send(&healthy, &mut requests, 50), 50);
            read(&mut requests);
        }
    }

    #[test]
    fn those_that_stay_unread_are_closed_and_the_others_go_on() {
        let all = Arc::<Unread>::default();
        let (idle, busy) = (all.connection(), all.connection());
        let (mut unread, mut slow) = (body(&idle), body(&busy));
        while send(&idle, &mut unread, 1) + send(&busy, &mut slow, 1) > 0 {}
        let mut closed = (false, false);
        for _ in 0..=limits::UNREAD_LOOKS_MAX {
            // Some are read, and as many come.
            for _ in 0..3 {
                assert!(slow.frame().now_or_never().is_some());
            }
            send(&busy, &mut slow, 3);
            closed = (idle.look(0).is_some(), busy.look(0).is_some());
        }
        assert_eq!(closed, (true, false));
        drop((unread, idle));
        assert!(!all.is_crowded() && busy.look(0).is_none());
        assert_eq!(send(&busy, &mut slow, 10), 10);
    }

    #[test]
    fn whoever_has_stopped_to_read_is_woken() {
        let all = Arc::<Unread>::default();
        let (connection, other) = (all.connection(), all.connection());
        let (mut first, mut second) = (body(&connection), body(&other));
        while send(&connection, &mut first, 1) + send(&other, &mut second, 1) > 0 {}
        let woken = Arc::new(Woken::default());
        let waker = futures_util::task::waker(Arc::clone(&woken));
        assert!(connection.pauses(&waker));
        read(&mut first);
        assert!(woken.0.swap(false, Ordering::Relaxed), "its requests are read");
        assert!(!connection.pauses(&waker));
        while send(&connection, &mut first, 1) > 0 || send(&other, &mut second, 1) > 0 {}
        assert!(connection.pauses(&waker));
        drop((second, other));
        connection.look(0);
        assert!(woken.0.load(Ordering::Relaxed), "others have made room");
    }

    /// The client's permission to send may be among what is not read.
    #[test]
    fn in_a_crowd_a_little_is_read_and_taking_answers_is_enough_for_a_while() {
        let all = Arc::<Unread>::default();
        let (connection, other) = (all.connection(), all.connection());
        let (mut first, mut second) = (body(&connection), body(&other));
        while send(&connection, &mut first, 1) + send(&other, &mut second, 1) > 0 {}
        let waker = Waker::noop();
        for looks in 1..limits::UNREAD_LOOKS_TAKING_MAX {
            assert!(connection.pauses(waker));
            let taken_bytes = looks as usize * limits::UNSENT_PROGRESS_BYTES;
            assert_eq!(connection.look(taken_bytes), None, "after {looks} looks");
            assert!(!connection.pauses(waker), "one read passes");
        }
        let ends = (1..=3).find_map(|_| connection.look(usize::MAX));
        assert!(ends.is_some(), "what is not read for so long never will be");
    }
}
