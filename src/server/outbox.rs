//! What waits to be sent to clients, in one account for each connection.
//!
//! ```text
//!   call ─► enter ─► rpc ─► answer ─► charge ─► h2 ─► socket
//!             ▲                          │ bytes, until h2 drops them
//!             └──── waits while ◄── Account ──► node's Answers: the sum of all
//! ```
//!
//! HTTP/2 lets a client ask for as much as it likes and take nothing. Some rules bound what that
//! costs:
//!
//! - While a connection's answers hold more than its part, no further call on it is begun: calls wait,
//!   and of those some number, streams give no further message. Frames are read all the time, since
//!   the client's permission to send is among them.
//! - Reading stops while requests wait for a thread.
//! - What permission does not bound, such as HEADERS and answers to PING, waits only while the socket
//!   takes nothing. Then reading stops (see `io`).
//! - A connection that is over its part, or blocked, and takes nothing for a while is closed, and
//!   sooner if the member as a whole holds too much: the one that holds most goes first.
//!
//! An answer's bytes are counted from where they are handed over until nobody has them any more.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

use super::malloc;
use crate::node::Answers;
use crate::{clock, limits, metrics};

/// All connections of clients.
pub(super) struct Outbox {
    answers: Arc<Answers>,
    accounts: Mutex<Vec<Weak<Account>>>,
    count: AtomicUsize,
    connections: AtomicUsize,
    /// Whether a connection has ended that was blocked.
    has_litter: AtomicBool,
}

/// One connection of any kind, as long as it is there.
pub(super) struct Connected(Arc<Outbox>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection.
pub(super) struct Account {
    outbox: Arc<Outbox>,
    unsent_bytes: AtomicUsize,
    /// Bytes that the socket has taken, and those in DATA frames among them.
    taken_bytes: AtomicUsize,
    taken_answer_bytes: AtomicUsize,
    /// Whether the socket takes so little that reading had to stop.
    is_blocked: AtomicBool,
    was_blocked: AtomicBool,
    calls_waiting: AtomicUsize,
    /// Requests that no thread has begun with, and who reads once they are few.
    requests_queued: AtomicUsize,
    reader: AtomicWaker,
    room: Arc<Notify>,
    closing: Notify,
    /// Of the last looks: what was taken then, and how many found no more.
    seen_bytes: AtomicUsize,
    idle_looks: AtomicU32,
}

impl Outbox {
    pub(super) fn new(answers: Arc<Answers>) -> Arc<Self> {
        Arc::new(Self {
            answers,
            accounts: Mutex::default(),
            count: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            has_litter: AtomicBool::new(false),
        })
    }

    pub(super) fn connect(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(Arc::clone(self))
    }

    pub(super) fn open(self: &Arc<Self>) -> Arc<Account> {
        let account = Arc::new(Account {
            outbox: Arc::clone(self),
            unsent_bytes: AtomicUsize::new(0),
            taken_bytes: AtomicUsize::new(0),
            taken_answer_bytes: AtomicUsize::new(0),
            is_blocked: AtomicBool::new(false),
            was_blocked: AtomicBool::new(false),
            calls_waiting: AtomicUsize::new(0),
            requests_queued: AtomicUsize::new(0),
            reader: AtomicWaker::new(),
            room: Arc::default(),
            closing: Notify::new(),
            seen_bytes: AtomicUsize::new(0),
            idle_looks: AtomicU32::new(0),
        });
        self.count.fetch_add(1, Ordering::Relaxed);
        self.accounts.lock().push(Arc::downgrade(&account));
        account
    }

    /// What one connection may hold.
    fn part(&self) -> usize {
        if self.answers.is_crowded() {
            limits::UNSENT_BYTES_MAX / self.count.load(Ordering::Relaxed).max(1)
        } else {
            limits::CONNECTION_UNSENT_BYTES_MAX
        }
    }

    /// Looks after the connections for ever.
    pub(super) async fn look_after(self: Arc<Self>) -> Infallible {
        let (mut most_bytes, mut most_connections) = (0, 0);
        let mut given_back = clock::instant();
        loop {
            tokio::time::sleep(limits::UNSENT_LOOK_INTERVAL).await;
            self.look();
            let bytes = self.answers.unsent_bytes();
            let connections = self.connections.load(Ordering::Relaxed);
            most_bytes = bytes.max(most_bytes);
            most_connections = connections.max(most_connections);
            let is_over = most_bytes > limits::UNSENT_BYTES_KEPT && bytes < most_bytes / 4
                || most_connections > limits::CONNECTIONS_KEPT
                    && connections < most_connections / 4
                || self.has_litter.load(Ordering::Relaxed);
            // What is freed piece by piece stays with the allocator otherwise.
            if is_over && given_back.elapsed() > limits::GIVE_BACK_INTERVAL {
                self.has_litter.store(false, Ordering::Relaxed);
                (most_bytes, most_connections) = (bytes, connections);
                given_back = clock::instant();
                malloc::give_back();
            }
        }
    }

    /// Closes connections that hold too much and take nothing.
    fn look(&self) {
        let mut accounts = {
            let mut all = self.accounts.lock();
            all.retain(|account| account.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).collect::<Vec<_>>()
        };
        accounts.retain(|account| account.look());
        accounts.sort_by_key(|account| std::cmp::Reverse(account.unsent_bytes()));
        let mut unsent = self.answers.unsent_bytes();
        for account in accounts {
            let idle = account.idle_looks.load(Ordering::Relaxed);
            let is_crowded = unsent > limits::UNSENT_BYTES_MAX;
            let holds_too_much = account.is_over() || account.is_blocked.load(Ordering::Relaxed);
            let too_long = if is_crowded {
                limits::UNSENT_LOOKS_CROWDED_MAX
            } else {
                limits::UNSENT_LOOKS_MAX
            };
            if !holds_too_much || idle < too_long {
                continue;
            }
            let bytes = account.unsent_bytes();
            tracing::warn!(
                "unsent-bytes" = bytes,
                "unsent-bytes-of-all" = unsent,
                "closing a connection whose client does not take its answers"
            );
            metrics::unsent_closed().inc();
            unsent = unsent.saturating_sub(bytes);
            account.closing.notify_one();
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.outbox.count.fetch_sub(1, Ordering::Relaxed);
        if self.was_blocked.load(Ordering::Relaxed) {
            self.outbox.has_litter.store(true, Ordering::Relaxed);
        }
    }
}

impl Account {
    fn unsent_bytes(&self) -> usize {
        self.unsent_bytes.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        let unsent = self.unsent_bytes();
        // One answer may be as large as it is, if nothing else waits.
        unsent > limits::CONNECTION_UNSENT_BYTES_MIN && unsent > self.outbox.part()
    }

    /// Notes whether its client has taken anything since the last look; false if nothing waits.
    fn look(&self) -> bool {
        // A client that lets nothing of its answers through can still be sent much else.
        let is_blocked = self.is_blocked.load(Ordering::Relaxed);
        let taken = if is_blocked { &self.taken_bytes } else { &self.taken_answer_bytes };
        let taken = taken.load(Ordering::Relaxed);
        let before = self.seen_bytes.swap(taken, Ordering::Relaxed);
        let waits = self.unsent_bytes() > 0 || is_blocked;
        if !waits || taken.wrapping_sub(before) >= limits::UNSENT_PROGRESS_BYTES {
            self.idle_looks.store(0, Ordering::Relaxed);
        } else {
            self.idle_looks.fetch_add(1, Ordering::Relaxed);
        }
        // Calls may wait for the others' share.
        self.room.notify_waiters();
        waits
    }

    /// The socket has taken so many bytes.
    pub(super) fn took(&self, bytes: usize) {
        self.taken_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The socket has taken so many bytes of messages.
    pub(super) fn took_answer(&self, bytes: usize) {
        self.taken_answer_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn set_blocked(&self, is_blocked: bool) {
        self.is_blocked.store(is_blocked, Ordering::Relaxed);
        self.was_blocked.fetch_or(is_blocked, Ordering::Relaxed);
    }

    /// Counts a request until what is returned is dropped.
    pub(super) fn queue(self: &Arc<Self>) -> Queued {
        self.requests_queued.fetch_add(1, Ordering::SeqCst);
        Queued(Arc::clone(self))
    }

    /// Whether too many requests are queued to read more; then the reader is woken when they are not.
    pub(super) fn has_queue(&self, reader: &Waker) -> bool {
        let is_long = || self.requests_queued.load(Ordering::SeqCst) >= limits::REQUESTS_QUEUED_MAX;
        is_long() && {
            self.reader.register(reader);
            is_long()
        }
    }

    /// Resolves when the connection has to end.
    pub(super) async fn closing(&self) {
        self.closing.notified().await;
    }

    /// Waits until a call may begin; false if too many wait already.
    pub(super) async fn enter(&self) -> bool {
        if !self.is_over() {
            return true;
        }
        let Some(_place) = Place::take(&self.calls_waiting) else { return false };
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if !self.is_over() {
                return true;
            }
            room.await;
        }
    }

    /// Ready once a stream may give its next message.
    pub(super) fn poll_room(&self, room: &mut Room, context: &mut Context<'_>) -> Poll<()> {
        while self.is_over() {
            let waiting = room.0.get_or_insert_with(|| {
                let mut waiting = Box::pin(Arc::clone(&self.room).notified_owned());
                waiting.as_mut().enable();
                waiting
            });
            if !self.is_over() {
                break;
            }
            ready!(waiting.as_mut().poll(context));
            room.0 = None;
        }
        room.0 = None;
        Poll::Ready(())
    }

    /// Counts these bytes until nobody has them any more.
    pub(super) fn charge(self: &Arc<Self>, bytes: Bytes) -> Bytes {
        let cost = bytes.len() + limits::UNSENT_ANSWER_BYTES;
        self.unsent_bytes.fetch_add(cost, Ordering::SeqCst);
        self.outbox.answers.add(cost);
        Bytes::from_owner(Unsent { bytes, account: Arc::clone(self) })
    }

    fn discharge(&self, cost: usize) {
        let was_over = self.is_over();
        self.unsent_bytes.fetch_sub(cost, Ordering::SeqCst);
        self.outbox.answers.remove(cost);
        if was_over && !self.is_over() {
            self.room.notify_waiters();
        }
    }
}

/// A request that waits for a thread.
pub(super) struct Queued(Arc<Account>);

impl Drop for Queued {
    fn drop(&mut self) {
        let before = self.0.requests_queued.fetch_sub(1, Ordering::SeqCst);
        if before == limits::REQUESTS_QUEUED_MAX {
            self.0.reader.wake();
        }
    }
}

/// What a stream waits with.
#[derive(Default)]
pub(super) struct Room(Option<Pin<Box<OwnedNotified>>>);

/// One of the calls that may wait.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(places: &'a AtomicUsize) -> Option<Self> {
        let place = Self(places);
        (places.fetch_add(1, Ordering::Relaxed) < limits::CALLS_WAITING_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that are not sent yet.
struct Unsent {
    bytes: Bytes,
    account: Arc<Account>,
}

impl AsRef<[u8]> for Unsent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        let cost = self.bytes.len() + limits::UNSENT_ANSWER_BYTES;
        // Freed before anybody is told of the room.
        drop(std::mem::take(&mut self.bytes));
        self.account.discharge(cost);
    }
}
