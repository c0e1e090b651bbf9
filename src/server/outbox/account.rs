//! The account of one connection: its unsent answers, and the calls that wait because of them.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::Outbox;
use crate::limits;
use crate::rpc::Parts;
use crate::server::unfinished::PartialAccount;
use crate::server::unread::{self, Stalled};

/// One connection's unsent answers, and the calls and requests that wait.
pub(in crate::server) struct Account {
    outbox: Arc<Outbox>,
    unfinished: PartialAccount,
    unread: Arc<unread::UnreadAccount>,
    unsent_bytes: AtomicUsize,
    /// The part of `unsent_bytes` that is of leases and watches.
    small_bytes: AtomicUsize,
    /// The part of `unsent_bytes` that answers hold until their ends.
    held_bytes: AtomicUsize,
    /// The part of `unsent_bytes` that will be sent: the messages themselves.
    message_bytes: AtomicUsize,
    /// Costs of the answers that are larger than `CONNECTION_UNSENT_BYTES_MIN`, and the largest of
    /// them.
    large: Mutex<Vec<usize>>,
    pub(super) largest_bytes: AtomicUsize,
    /// Bytes that the socket has taken, and those in DATA frames among them.
    taken_bytes: AtomicUsize,
    taken_answer_bytes: AtomicUsize,
    /// Whether the socket takes so little that reading has stopped.
    is_blocked: AtomicBool,
    was_blocked: AtomicBool,
    calls_waiting: AtomicUsize,
    /// Requests that no thread has begun with, and the reader to be woken once they are few.
    requests_queued: AtomicUsize,
    reader: AtomicWaker,
    /// Calls that wait for room, by `AnswerSize`.
    calls: [Waiting; 2],
    /// Streams that wait for room with their next message.
    streams: [Waiting; 2],
    closing: Arc<Notify>,
    /// The two counts of bytes taken as they were at the last look.
    seen_bytes: AtomicUsize,
    seen_answer_bytes: AtomicUsize,
    /// The messages that were unsent at the last look.
    seen_message_bytes: AtomicUsize,
    /// Consecutive looks at which too few bytes more had been taken.
    idle_looks: AtomicU32,
    /// The client's address, for the log.
    pub(super) remote: Option<SocketAddr>,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.outbox.count.fetch_sub(1, Ordering::Relaxed);
        if self.was_blocked.load(Ordering::Relaxed) {
            self.outbox.blocked_connection_ended.store(true, Ordering::Relaxed);
        }
    }
}

impl Account {
    pub(super) fn new(outbox: Arc<Outbox>, remote: Option<SocketAddr>) -> Self {
        let closing = Arc::<Notify>::default();
        Self {
            unfinished: outbox.unfinished.connection(Arc::clone(&closing)),
            unread: outbox.unread.connection(),
            unsent_bytes: AtomicUsize::new(0),
            small_bytes: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
            message_bytes: AtomicUsize::new(0),
            large: Mutex::default(),
            largest_bytes: AtomicUsize::new(0),
            taken_bytes: AtomicUsize::new(0),
            taken_answer_bytes: AtomicUsize::new(0),
            is_blocked: AtomicBool::new(false),
            was_blocked: AtomicBool::new(false),
            calls_waiting: AtomicUsize::new(0),
            requests_queued: AtomicUsize::new(0),
            reader: AtomicWaker::new(),
            calls: Default::default(),
            streams: Default::default(),
            closing,
            outbox,
            seen_bytes: AtomicUsize::new(0),
            seen_answer_bytes: AtomicUsize::new(0),
            seen_message_bytes: AtomicUsize::new(0),
            idle_looks: AtomicU32::new(0),
            remote,
        }
    }

    pub(super) fn unsent_bytes(&self) -> usize {
        self.unsent_bytes.load(Ordering::SeqCst)
    }

    pub(super) fn has_more_than_its_part(&self, bytes: usize) -> bool {
        bytes > limits::CONNECTION_UNSENT_BYTES_MIN && bytes > self.outbox.connection_bytes_max()
    }

    /// Whether these bytes of the connection are more than its part beside its largest answer,
    /// which may have any size.
    fn exceeds_beside_largest(&self, bytes: usize) -> bool {
        let largest = self.largest_bytes.load(Ordering::SeqCst);
        self.has_more_than_its_part(bytes.saturating_sub(largest))
    }

    /// Whether calls of this kind have to wait before they begin.
    fn holds_back(&self, kind: AnswerSize) -> bool {
        self.exceeds_beside_largest(self.unsent_bytes()) && !self.has_room_for(kind)
    }

    /// Whether streams of this kind have to wait with their next message. What answers hold until
    /// their ends does not make them wait: it would never become less.
    fn holds_back_stream(&self, kind: AnswerSize) -> bool {
        // In this order: what is held later must not count as unsent, or nobody would wake the stream.
        let unsent = self.unsent_bytes();
        let bytes = unsent.saturating_sub(self.held_bytes.load(Ordering::SeqCst));
        self.exceeds_beside_largest(bytes) && !self.has_room_for(kind)
    }

    fn has_room_for(&self, kind: AnswerSize) -> bool {
        let has_room = || self.small_bytes.load(Ordering::SeqCst) < limits::SMALL_UNSENT_BYTES_MAX;
        kind == AnswerSize::Small && has_room()
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.is_blocked.load(Ordering::Relaxed)
    }

    /// Consecutive looks at which the client had taken nothing more, or too little.
    pub(super) fn idle_looks(&self) -> u32 {
        self.idle_looks.load(Ordering::Relaxed)
    }

    /// Makes `closing` resolve, upon which the connection ends.
    pub(super) fn close(&self) {
        self.closing.notify_one();
    }

    pub(super) fn is_idle_in_a_crowd(&self) -> bool {
        self.idle_looks() >= limits::UNSENT_LOOKS_CROWDED_MAX
    }

    /// Notes whether the client has taken anything since the last look, or enough of what it holds
    /// if calls wait for room (`calls_wait`). Returns false if there is nothing to take.
    pub(super) fn look(&self, calls_wait: bool) -> bool {
        // Only bytes of answers are progress while the socket takes bytes: a client that never
        // sends a WINDOW_UPDATE takes none of them, but can still be sent HEADERS and answers to
        // PING.
        let is_blocked = self.is_blocked();
        let more = |taken: &AtomicUsize, seen: &AtomicUsize| {
            let taken = taken.load(Ordering::Relaxed);
            taken.wrapping_sub(seen.swap(taken, Ordering::Relaxed))
        };
        let bytes = more(&self.taken_bytes, &self.seen_bytes);
        let answer_bytes = more(&self.taken_answer_bytes, &self.seen_answer_bytes);
        let taken = if is_blocked { bytes } else { answer_bytes };
        let unsent = self.unsent_bytes();
        let waits = unsent > 0 || is_blocked;
        let part = unsent / limits::UNSENT_PROGRESS_PARTS;
        let least = limits::UNSENT_PROGRESS_BYTES.max(if calls_wait { part } else { 0 });
        // A client with small answers takes few bytes, but all of them: much of what an answer
        // counts is not sent.
        let messages = self.message_bytes.load(Ordering::SeqCst);
        let before = self.seen_message_bytes.swap(messages, Ordering::Relaxed);
        let took_all = !is_blocked && taken > 0 && taken >= before;
        if !waits || took_all || taken >= least {
            self.idle_looks.store(0, Ordering::Relaxed);
        } else {
            self.idle_looks.fetch_add(1, Ordering::Relaxed);
        }
        // The connection's part may have grown, since it depends on what the others hold.
        self.calls.iter().chain(&self.streams).for_each(Waiting::wake);
        waits
    }

    /// Counts bytes that the socket has taken.
    pub(in crate::server) fn took(&self, bytes: usize) {
        self.taken_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes in DATA frames that the socket has taken.
    pub(in crate::server) fn took_answer(&self, bytes: usize) {
        self.taken_answer_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(in crate::server) fn set_blocked(&self, is_blocked: bool) {
        self.is_blocked.store(is_blocked, Ordering::Relaxed);
        self.was_blocked.fetch_or(is_blocked, Ordering::Relaxed);
    }

    pub(super) fn look_at_unread(&self) -> Option<Stalled> {
        self.unread.look(self.taken_answer_bytes.load(Ordering::Relaxed))
    }

    /// The count of request bytes that no call has read.
    pub(in crate::server) fn unread(&self) -> &Arc<unread::UnreadAccount> {
        &self.unread
    }

    /// The count of this connection's partial messages.
    pub(in crate::server) fn unfinished(&self) -> PartialAccount {
        self.unfinished.clone()
    }

    /// Counts a call until the returned value is dropped.
    pub(in crate::server) fn begin(self: &Arc<Self>) -> Begun {
        self.outbox.calls.fetch_add(1, Ordering::Relaxed);
        Begun(Arc::clone(self))
    }

    /// Counts a request as queued until the returned value is dropped.
    pub(in crate::server) fn queue(self: &Arc<Self>) -> Queued {
        self.requests_queued.fetch_add(1, Ordering::SeqCst);
        Queued(Arc::clone(self))
    }

    /// Whether too many requests are queued to read more; if so, `reader` is woken when they are
    /// few.
    pub(in crate::server) fn has_queue(&self, reader: &Waker) -> bool {
        let is_long = || self.requests_queued.load(Ordering::SeqCst) >= limits::REQUESTS_QUEUED_MAX;
        is_long() && {
            self.reader.register(reader);
            is_long()
        }
    }

    /// Resolves when the connection has to end.
    pub(in crate::server) async fn closing(&self) {
        self.closing.notified().await;
    }

    /// Waits until a call of this kind may begin; false if `limits::CALLS_WAITING_MAX` wait
    /// already.
    pub(in crate::server) async fn enter(&self, kind: AnswerSize) -> bool {
        if !self.holds_back(kind) {
            return true;
        }
        let Some(_place) = WaitingCall::take(&self.calls_waiting) else { return false };
        loop {
            let woken = self.calls[kind as usize].enter();
            if !self.holds_back(kind) {
                return true;
            }
            woken.await;
        }
    }

    /// Ready once a stream may give its next message. `room` is the stream's own, for all its
    /// polls.
    pub(in crate::server) fn poll_room(
        &self,
        kind: AnswerSize,
        room: &mut Room,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        while self.holds_back_stream(kind) {
            let waiting = room.0.get_or_insert_with(|| self.streams[kind as usize].enter());
            if !self.holds_back_stream(kind) {
                break;
            }
            ready!(waiting.as_mut().poll(context));
            room.0 = None;
        }
        room.0 = None;
        Poll::Ready(())
    }

    /// Counts these bytes as unsent until the last reference to the returned ones is dropped.
    pub(in crate::server) fn charge(self: &Arc<Self>, kind: AnswerSize, bytes: Bytes) -> Bytes {
        let _charge = self.charge_for(kind, bytes.len());
        Bytes::from_owner(Unsent { bytes, _charge })
    }

    fn charge_for(self: &Arc<Self>, kind: AnswerSize, bytes: usize) -> Charge {
        let cost = kind.cost_of(bytes);
        self.message_bytes.fetch_add(bytes, Ordering::SeqCst);
        if cost > limits::CONNECTION_UNSENT_BYTES_MIN {
            let mut large = self.large.lock();
            large.push(cost);
            self.note_largest(&large);
        }
        self.unsent_bytes.fetch_add(cost, Ordering::SeqCst);
        if kind == AnswerSize::Small {
            self.small_bytes.fetch_add(cost, Ordering::SeqCst);
        }
        self.outbox.answers.add(cost);
        Charge { bytes, kind, account: Arc::clone(self) }
    }

    /// As [`Self::charge`], until the last of these parts is dropped.
    pub(in crate::server) fn charge_parts(
        self: &Arc<Self>,
        kind: AnswerSize,
        parts: Parts,
    ) -> Parts {
        let parts = match parts.single() {
            Ok(bytes) => return self.charge(kind, bytes).into(),
            Err(parts) => parts,
        };
        let charge = Arc::new(self.charge_for(kind, parts.remaining()));
        parts.map(|bytes| Bytes::from_owner(Unsent { bytes, _charge: Arc::clone(&charge) }))
    }

    /// Counts memory that an answer holds beside its bytes as unsent until the returned value is
    /// dropped.
    pub(in crate::server) fn hold(self: &Arc<Self>, bytes: usize) -> Held {
        self.held_bytes.fetch_add(bytes, Ordering::SeqCst);
        self.unsent_bytes.fetch_add(bytes, Ordering::SeqCst);
        self.outbox.answers.add(bytes);
        Held { bytes, account: Arc::clone(self) }
    }

    fn discharge(&self, kind: AnswerSize, bytes: usize) {
        let cost = kind.cost_of(bytes);
        self.message_bytes.fetch_sub(bytes, Ordering::SeqCst);
        self.unsent_bytes.fetch_sub(cost, Ordering::SeqCst);
        if kind == AnswerSize::Small {
            self.small_bytes.fetch_sub(cost, Ordering::SeqCst);
        }
        if cost > limits::CONNECTION_UNSENT_BYTES_MIN {
            let mut large = self.large.lock();
            if let Some(place) = large.iter().position(|other| *other == cost) {
                large.swap_remove(place);
            }
            self.note_largest(&large);
        }
        self.outbox.answers.remove(cost);
        self.tell_of_room();
    }

    /// Wakes those that need not wait any more. It is not compared with what was before: other
    /// threads charge and discharge at the same time, so none of them might see the change.
    fn tell_of_room(&self) {
        for kind in [AnswerSize::Any, AnswerSize::Small] {
            let place = kind as usize;
            self.calls[place].wake_unless(|| self.holds_back(kind));
            self.streams[place].wake_unless(|| self.holds_back_stream(kind));
        }
    }

    fn note_largest(&self, large: &[usize]) {
        self.largest_bytes.store(large.iter().copied().max().unwrap_or(0), Ordering::SeqCst);
    }
}

/// How much room a call's answers need, which decides when the call has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) enum AnswerSize {
    /// The answer may be large.
    Any,
    /// Leases and watches: their answers are small, and an answer that waits is late or useless.
    Small,
}

impl AnswerSize {
    /// `path` is the request's. `LeaseTimeToLive` is not small: it may name all keys of the lease.
    pub(in crate::server) fn of(path: &str) -> Self {
        match path {
            "/etcdserverpb.Watch/Watch"
            | "/etcdserverpb.Lease/LeaseKeepAlive"
            | "/etcdserverpb.Lease/LeaseGrant"
            | "/etcdserverpb.Lease/LeaseRevoke" => Self::Small,
            _ => Self::Any,
        }
    }

    /// What a message of so many bytes counts until it has left.
    fn cost_of(self, bytes: usize) -> usize {
        bytes
            + match self {
                Self::Any => limits::UNSENT_ANSWER_BYTES,
                Self::Small => limits::SMALL_UNSENT_ANSWER_BYTES,
            }
    }
}

/// A request that no thread has begun with.
pub(in crate::server) struct Queued(Arc<Account>);

impl Drop for Queued {
    fn drop(&mut self) {
        let before = self.0.requests_queued.fetch_sub(1, Ordering::SeqCst);
        if before == limits::REQUESTS_QUEUED_MAX {
            self.0.reader.wake();
        }
    }
}

/// Those that wait for room.
#[derive(Default)]
struct Waiting {
    /// Whether anyone has come since the last wake-up. Without it each answer that has been sent
    /// would take a lock.
    is_awaited: AtomicBool,
    room: Arc<Notify>,
}

impl Waiting {
    /// Notes that somebody waits. The caller then looks once more whether there is room, and if
    /// there is none awaits what this returns.
    fn enter(&self) -> Pin<Box<OwnedNotified>> {
        let mut woken = Box::pin(Arc::clone(&self.room).notified_owned());
        // Before the mark: who takes that off wakes all that are enabled by then.
        woken.as_mut().enable();
        self.is_awaited.store(true, Ordering::SeqCst);
        woken
    }

    fn wake_unless(&self, still_waits: impl Fn() -> bool) {
        if self.is_awaited.load(Ordering::SeqCst) && !still_waits() {
            self.wake();
        }
    }

    fn wake(&self) {
        self.is_awaited.store(false, Ordering::SeqCst);
        self.room.notify_waiters();
    }
}

/// A stream's wait for room, kept between polls.
#[derive(Default)]
pub(in crate::server) struct Room(Option<Pin<Box<OwnedNotified>>>);

/// The place of one waiting call, of which a connection has `limits::CALLS_WAITING_MAX`.
struct WaitingCall<'a>(&'a AtomicUsize);

impl<'a> WaitingCall<'a> {
    fn take(places: &'a AtomicUsize) -> Option<Self> {
        let place = Self(places);
        (places.fetch_add(1, Ordering::Relaxed) < limits::CALLS_WAITING_MAX).then_some(place)
    }
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What an answer of so many bytes counts, which is taken off the account when this is dropped.
struct Charge {
    bytes: usize,
    kind: AnswerSize,
    account: Arc<Account>,
}

/// Owner of an answer's bytes, or of a part of them.
struct Unsent<C> {
    bytes: Bytes,
    /// Dropped last: the bytes are freed before a waiting call is woken, which takes memory again.
    _charge: C,
}

impl<C> AsRef<[u8]> for Unsent<C> {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.discharge(self.kind, self.bytes);
    }
}

/// Memory that an answer holds beside its bytes.
pub(in crate::server) struct Held {
    bytes: usize,
    account: Arc<Account>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.unsent_bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        self.account.held_bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        self.account.outbox.answers.remove(self.bytes);
        self.account.tell_of_room();
    }
}

/// Counts one call over HTTP/2, from its head to the end of its answer.
pub(in crate::server) struct Begun(Arc<Account>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.outbox.calls.fetch_sub(1, Ordering::Relaxed);
    }
}
