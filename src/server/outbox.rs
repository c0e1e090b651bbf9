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
//! - Its largest answer does not count for that: a client with one connection goes on with its work while
//!   it takes a large range. Leases and watches go on beside several of them, within a small part of
//!   their own, since a lease whose renewals wait expires.
//! - Reading stops while requests wait for a thread.
//! - What permission does not bound, such as HEADERS and answers to PING, waits only while the socket
//!   takes nothing. Then reading stops (see `io`).
//! - A connection that is over its part, or blocked, and takes nothing for a while is closed, and
//!   sooner if the member as a whole holds too much: the one that holds most goes first. Those within
//!   their parts are closed only if that makes room enough.
//! - While calls wait for room, a connection has to take the more the more it holds.
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
use super::unfinished::{Connection, Unfinished};
use super::unread::{self, Still, Unread};
use crate::node::Answers;
use crate::{clock, limits, metrics};

/// All connections of clients.
pub(super) struct Outbox {
    answers: Arc<Answers>,
    accounts: Mutex<Vec<Weak<Account>>>,
    count: AtomicUsize,
    connections: AtomicUsize,
    calls: AtomicUsize,
    /// Whether a connection has ended that was blocked.
    has_litter: AtomicBool,
    /// What has come of requests, and not all.
    unfinished: Arc<Unfinished>,
    /// What has come of requests, and nobody has read.
    unread: Arc<Unread>,
}

/// One connection of any kind, as long as it is there.
pub(super) struct Connected(Arc<Outbox>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One call over HTTP/2, from its head to the end of its answer.
pub(super) struct Begun(Arc<Account>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.outbox.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What there was most of since memory was given back last.
#[derive(Default)]
struct Most(usize);

impl Most {
    /// Whether there were more than `kept`, and most of them are gone.
    fn is_over(&mut self, now: usize, kept: usize) -> bool {
        self.0 = self.0.max(now);
        self.0 > kept && now < self.0 / 4
    }
}

/// What of a flood may have left free memory behind.
#[derive(Default)]
struct Floods {
    bytes: Most,
    connections: Most,
    calls: Most,
    /// The least that the process held since memory was given back last.
    least_held_bytes: Option<usize>,
    /// More may be free than what was given back, since connections end one by one.
    is_to_go_on: bool,
}

/// One connection.
pub(super) struct Account {
    outbox: Arc<Outbox>,
    unfinished: Connection,
    unread: Arc<unread::Connection>,
    unsent_bytes: AtomicUsize,
    /// Those of leases and watches among them.
    small_bytes: AtomicUsize,
    /// Costs of the answers that are larger than `CONNECTION_UNSENT_BYTES_MIN`, and the largest.
    large: Mutex<Vec<usize>>,
    largest_bytes: AtomicUsize,
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
    closing: Arc<Notify>,
    /// Of the last looks: what was taken then, and how many found no more.
    seen_bytes: AtomicUsize,
    idle_looks: AtomicU32,
}

impl Outbox {
    pub(super) fn new(answers: Arc<Answers>, message_bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            answers,
            accounts: Mutex::default(),
            count: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            has_litter: AtomicBool::new(false),
            unfinished: Unfinished::new(message_bytes_max),
            unread: Arc::default(),
        })
    }

    pub(super) fn connect(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(Arc::clone(self))
    }

    pub(super) fn open(self: &Arc<Self>) -> Arc<Account> {
        let closing = Arc::<Notify>::default();
        let account = Arc::new(Account {
            outbox: Arc::clone(self),
            unfinished: self.unfinished.connection(Arc::clone(&closing)),
            unread: self.unread.connection(),
            unsent_bytes: AtomicUsize::new(0),
            small_bytes: AtomicUsize::new(0),
            large: Mutex::default(),
            largest_bytes: AtomicUsize::new(0),
            taken_bytes: AtomicUsize::new(0),
            taken_answer_bytes: AtomicUsize::new(0),
            is_blocked: AtomicBool::new(false),
            was_blocked: AtomicBool::new(false),
            calls_waiting: AtomicUsize::new(0),
            requests_queued: AtomicUsize::new(0),
            reader: AtomicWaker::new(),
            room: Arc::default(),
            closing,
            seen_bytes: AtomicUsize::new(0),
            idle_looks: AtomicU32::new(0),
        });
        self.count.fetch_add(1, Ordering::Relaxed);
        self.accounts.lock().push(Arc::downgrade(&account));
        account
    }

    #[cfg(test)]
    pub(super) fn answers(&self) -> &Arc<Answers> {
        &self.answers
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
        let mut floods = Floods::default();
        let mut given_back = clock::instant();
        loop {
            tokio::time::sleep(limits::UNSENT_LOOK_INTERVAL).await;
            self.look();
            let held = malloc::held_bytes();
            // What is freed piece by piece stays with the allocator otherwise.
            if self.is_over(&mut floods, held) && given_back.elapsed() > limits::GIVE_BACK_INTERVAL
            {
                self.has_litter.store(false, Ordering::Relaxed);
                malloc::give_back();
                let left = malloc::held_bytes();
                floods = Floods {
                    least_held_bytes: Some(left),
                    is_to_go_on: held.saturating_sub(left) > limits::FREE_BYTES_KEPT,
                    ..Floods::default()
                };
                given_back = clock::instant();
            }
        }
    }

    /// Whether a flood has gone whose memory, of which the process holds so much, may be free.
    fn is_over(&self, floods: &mut Floods, held: usize) -> bool {
        let least = floods.least_held_bytes.map_or(held, |least| least.min(held));
        floods.least_held_bytes = Some(least);
        let has_grown = held - least > limits::FREE_BYTES_KEPT;
        // What comes in is freed piece by piece, too.
        let bytes = self.answers.unsent_bytes() + self.unfinished.bytes() + self.unread.bytes();
        let connections = self.connections.load(Ordering::Relaxed);
        let calls = self.calls.load(Ordering::Relaxed);
        // All three, so that each is noted.
        let bytes = floods.bytes.is_over(bytes, limits::UNSENT_BYTES_KEPT);
        let connections = floods.connections.is_over(connections, limits::CONNECTIONS_KEPT);
        let calls = floods.calls.is_over(calls, limits::CALLS_KEPT);
        let has_litter = self.has_litter.load(Ordering::Relaxed);
        bytes || has_litter || floods.is_to_go_on || has_grown && (connections || calls)
    }

    /// Closes connections that hold too much and take nothing.
    fn look(&self) {
        let mut accounts = {
            let mut all = self.accounts.lock();
            all.retain(|account| account.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).collect::<Vec<_>>()
        };
        self.unfinished.look();
        self.look_at_unread(&accounts);
        let are_awaited = self.answers.has_waiting();
        accounts.retain(|account| account.look(are_awaited));
        accounts.sort_by_key(|account| std::cmp::Reverse(account.unsent_bytes()));
        let mut unsent = self.answers.unsent_bytes();
        // A client that is slow to take a little is spared unless its end would help the others.
        let idle = accounts.iter().filter(|account| account.is_idle_in_a_crowd());
        let idle_bytes = idle.map(|account| account.unsent_bytes()).sum();
        let helps = unsent.saturating_sub(idle_bytes) <= limits::UNSENT_BYTES_MAX;
        for account in accounts {
            let idle = account.idle_looks.load(Ordering::Relaxed);
            let is_crowded = unsent > limits::UNSENT_BYTES_MAX;
            let is_blocked = account.is_blocked.load(Ordering::Relaxed);
            let holds_too_much = account.has_more_than_its_part(account.unsent_bytes())
                || is_blocked
                || is_crowded && helps;
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

    /// Closes as many connections whose requests are not read as it takes. Some room is to be left, or
    /// as many would have to be closed at each look.
    fn look_at_unread(&self, accounts: &[Arc<Account>]) {
        let mut still: Vec<_> = accounts
            .iter()
            .filter_map(|account| Some((account.look_at_unread()?, account)))
            .collect();
        let all = self.unread.bytes();
        if all <= limits::UNREAD_BYTES_MAX {
            return;
        }
        still.sort_by_key(|(still, _)| std::cmp::Reverse(*still));
        let (mut left, mut closed) = (all, 0);
        for (still, account) in still {
            if left <= limits::UNREAD_BYTES_LEFT {
                break;
            }
            metrics::unread_closed().inc();
            closed += 1;
            left = left.saturating_sub(still.bytes);
            account.closing.notify_one();
        }
        // There may be thousands.
        if closed > 0 {
            tracing::warn!(
                connections = closed,
                "unread-bytes-of-all" = all,
                "unread-bytes-left" = left,
                "closing connections whose requests cannot be read, since their clients take no answers"
            );
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

    fn has_more_than_its_part(&self, bytes: usize) -> bool {
        bytes > limits::CONNECTION_UNSENT_BYTES_MIN && bytes > self.outbox.part()
    }

    /// Whether it holds too much beside its largest answer, which may be as large as it is.
    fn is_over(&self) -> bool {
        let largest = self.largest_bytes.load(Ordering::SeqCst);
        self.has_more_than_its_part(self.unsent_bytes().saturating_sub(largest))
    }

    /// Whether calls and streams of this kind have to wait.
    fn holds_back(&self, kind: Kind) -> bool {
        let has_room = || self.small_bytes.load(Ordering::SeqCst) < limits::SMALL_UNSENT_BYTES_MAX;
        self.is_over() && !(kind == Kind::Small && has_room())
    }

    fn is_idle_in_a_crowd(&self) -> bool {
        self.idle_looks.load(Ordering::Relaxed) >= limits::UNSENT_LOOKS_CROWDED_MAX
    }

    /// Notes whether its client has taken anything since the last look, or enough of it if others wait
    /// for room; false if it has nothing to take.
    fn look(&self, are_awaited: bool) -> bool {
        // A client that lets nothing of its answers through can still be sent much else.
        let is_blocked = self.is_blocked.load(Ordering::Relaxed);
        let taken = if is_blocked { &self.taken_bytes } else { &self.taken_answer_bytes };
        let taken = taken.load(Ordering::Relaxed);
        let before = self.seen_bytes.swap(taken, Ordering::Relaxed);
        let waits = self.unsent_bytes() > 0 || is_blocked;
        let part = self.unsent_bytes() / limits::UNSENT_PROGRESS_PARTS;
        let least = limits::UNSENT_PROGRESS_BYTES.max(if are_awaited { part } else { 0 });
        if !waits || taken.wrapping_sub(before) >= least {
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

    fn look_at_unread(&self) -> Option<Still> {
        self.unread.look(self.taken_answer_bytes.load(Ordering::Relaxed))
    }

    /// Where its requests are counted until they are read.
    pub(super) fn unread(&self) -> &Arc<unread::Connection> {
        &self.unread
    }

    /// Where parts of its requests are counted.
    pub(super) fn unfinished(&self) -> Connection {
        self.unfinished.clone()
    }

    /// Counts a call as long as what is returned lives.
    pub(super) fn begin(self: &Arc<Self>) -> Begun {
        self.outbox.calls.fetch_add(1, Ordering::Relaxed);
        Begun(Arc::clone(self))
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
    pub(super) async fn enter(&self, kind: Kind) -> bool {
        if !self.holds_back(kind) {
            return true;
        }
        let Some(_place) = Place::take(&self.calls_waiting) else { return false };
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if !self.holds_back(kind) {
                return true;
            }
            room.await;
        }
    }

    /// Ready once a stream may give its next message.
    pub(super) fn poll_room(
        &self,
        kind: Kind,
        room: &mut Room,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        while self.holds_back(kind) {
            let waiting = room.0.get_or_insert_with(|| {
                let mut waiting = Box::pin(Arc::clone(&self.room).notified_owned());
                waiting.as_mut().enable();
                waiting
            });
            if !self.holds_back(kind) {
                break;
            }
            ready!(waiting.as_mut().poll(context));
            room.0 = None;
        }
        room.0 = None;
        Poll::Ready(())
    }

    /// Counts these bytes until nobody has them any more.
    pub(super) fn charge(self: &Arc<Self>, kind: Kind, bytes: Bytes) -> Bytes {
        let cost = bytes.len() + limits::UNSENT_ANSWER_BYTES;
        if cost > limits::CONNECTION_UNSENT_BYTES_MIN {
            let mut large = self.large.lock();
            large.push(cost);
            self.note_largest(&large);
        }
        self.unsent_bytes.fetch_add(cost, Ordering::SeqCst);
        if kind == Kind::Small {
            self.small_bytes.fetch_add(cost, Ordering::SeqCst);
        }
        self.outbox.answers.add(cost);
        Bytes::from_owner(Unsent { bytes, kind, account: Arc::clone(self) })
    }

    fn discharge(&self, kind: Kind, cost: usize) {
        let before = [Kind::Any, Kind::Small].map(|kind| self.holds_back(kind));
        self.unsent_bytes.fetch_sub(cost, Ordering::SeqCst);
        if kind == Kind::Small {
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
        if before != [Kind::Any, Kind::Small].map(|kind| self.holds_back(kind)) {
            self.room.notify_waiters();
        }
    }

    fn note_largest(&self, large: &[usize]) {
        self.largest_bytes.store(large.iter().copied().max().unwrap_or(0), Ordering::SeqCst);
    }
}

/// What a call may be kept waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Its answer may be large.
    Any,
    /// Leases and watches: what waits is lost or late, and their answers are small.
    Small,
}

impl Kind {
    /// A lease's time to live is not among them, since its answer may name all its keys.
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/etcdserverpb.Watch/Watch"
            | "/etcdserverpb.Lease/LeaseKeepAlive"
            | "/etcdserverpb.Lease/LeaseGrant"
            | "/etcdserverpb.Lease/LeaseRevoke" => Self::Small,
            _ => Self::Any,
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
    kind: Kind,
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
        self.account.discharge(self.kind, cost);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::task::noop_waker;

    use super::super::inbound::Came;
    use super::*;

    const MIB: usize = 1 << 20;

    fn outbox() -> Arc<Outbox> {
        Outbox::new(Arc::default(), 0)
    }

    /// Pages of zeros that nobody writes take no memory.
    fn answer(account: &Arc<Account>, bytes: usize) -> Bytes {
        account.charge(Kind::Any, Bytes::from(vec![0; bytes]))
    }

    fn enters(account: &Account, kind: Kind) -> bool {
        account.enter(kind).now_or_never().is_some()
    }

    fn gives(account: &Account, kind: Kind) -> bool {
        let waker = noop_waker();
        let mut context = Context::from_waker(&waker);
        account.poll_room(kind, &mut Room::default(), &mut context).is_ready()
    }

    fn is_closed(account: &Account) -> bool {
        account.closing().now_or_never().is_some()
    }

    #[test]
    fn one_large_answer_holds_nothing_up_on_its_connection() {
        let account = outbox().open();
        let large = answer(&account, 200 * MIB);
        assert!(enters(&account, Kind::Any) && gives(&account, Kind::Any));
        // Whichever of them is the largest.
        let small = answer(&account, 50 * MIB);
        drop(large);
        let larger = answer(&account, 100 * MIB);
        assert!(enters(&account, Kind::Any) && gives(&account, Kind::Any));
        let more = answer(&account, 20 * MIB);
        assert!(!enters(&account, Kind::Any) && !gives(&account, Kind::Any));
        drop(small);
        assert!(enters(&account, Kind::Any));
        drop((larger, more));
        assert_eq!((account.unsent_bytes(), account.largest_bytes.load(Ordering::SeqCst)), (0, 0));
    }

    #[tokio::test]
    async fn leases_and_watches_go_on_within_their_own_part() {
        let account = outbox().open();
        let _large = [answer(&account, 100 * MIB), answer(&account, 100 * MIB)];
        assert!(!enters(&account, Kind::Any) && !gives(&account, Kind::Any));
        let mut renewals = Vec::new();
        while gives(&account, Kind::Small) && enters(&account, Kind::Small) {
            renewals.push(account.charge(Kind::Small, Bytes::from_static(b"renewed")));
            assert!(renewals.len() <= limits::SMALL_UNSENT_BYTES_MAX, "they have no bound");
        }
        assert!(renewals.len() > 500, "{} renewals", renewals.len());
        let mut waiting = Box::pin(account.enter(Kind::Small));
        assert!((&mut waiting).now_or_never().is_none());
        renewals.clear();
        assert!(waiting.await);
    }

    #[test]
    fn memory_is_given_back_after_a_flood_of_calls_that_has_left_some() {
        let outbox = outbox();
        let account = outbox.open();
        let mut floods = Floods::default();
        let calls: Vec<_> = (0..=limits::CALLS_KEPT).map(|_| account.begin()).collect();
        assert!(!outbox.is_over(&mut floods, 0));
        assert!(!outbox.is_over(&mut floods, MIB + limits::FREE_BYTES_KEPT), "they are there");
        drop(calls);
        assert!(outbox.is_over(&mut floods, MIB + limits::FREE_BYTES_KEPT));
        assert!(!outbox.is_over(&mut floods, MIB), "there is nothing to give");
        let mut few = Floods::default();
        drop((0..limits::CALLS_KEPT).map(|_| account.begin()).collect::<Vec<_>>());
        assert!(!outbox.is_over(&mut few, 0) && !outbox.is_over(&mut few, 100 * MIB));
    }

    #[test]
    fn many_connections_that_each_hold_a_little_are_closed_in_a_crowd() {
        let outbox = outbox();
        let part = limits::CONNECTION_UNSENT_BYTES_MIN - limits::UNSENT_ANSWER_BYTES;
        let idle: Vec<_> = (0..1100).map(|_| outbox.open()).collect();
        let _unsent: Vec<_> = idle.iter().map(|account| answer(account, part)).collect();
        for _ in 0..=limits::UNSENT_LOOKS_CROWDED_MAX {
            outbox.look();
        }
        let closed = idle.iter().filter(|account| is_closed(account)).count();
        // As many as it takes, and no more.
        assert_eq!(1100 - closed, limits::UNSENT_BYTES_MAX / limits::CONNECTION_UNSENT_BYTES_MIN);
    }

    #[test]
    fn a_little_that_is_not_taken_is_borne_where_its_end_would_not_help() {
        let outbox = outbox();
        let (large, small) = (outbox.open(), outbox.open());
        let _unsent = [answer(&large, 300 * MIB), answer(&small, 5000)];
        for _ in 0..10 {
            large.took_answer(limits::UNSENT_PROGRESS_BYTES);
            outbox.look();
        }
        assert!(!is_closed(&small), "it is not what crowds the member");
        assert!(!is_closed(&large), "it takes its answer, and nobody waits for room");
    }

    /// Each of them holds less than any share, and all together too much.
    #[tokio::test]
    async fn of_many_that_stand_still_with_little_as_many_are_closed_as_it_takes() {
        let outbox = outbox();
        let each = Came { frames: 1, bytes: 30 << 10, ..Came::default() };
        let crowd: Vec<_> = (0..5000).map(|_| outbox.open()).collect();
        crowd.iter().for_each(|account| account.unread().came(each));
        outbox.look();
        let healthy = outbox.open();
        healthy.unread().came(Came { bytes: 60 << 10, ..each });
        outbox.look();
        let closed = crowd.iter().filter(|account| is_closed(account)).count();
        let left = (5000 - closed) * (30 << 10);
        assert!(
            left <= limits::UNREAD_BYTES_LEFT && left > limits::UNREAD_BYTES_LEFT / 4 * 3,
            "{left}"
        );
        assert!(!is_closed(&healthy), "it has stood still for less time");
    }

    #[tokio::test]
    async fn a_slow_reader_is_closed_once_others_wait_for_room() {
        let outbox = outbox();
        let (slow, quick) = (outbox.open(), outbox.open());
        let _unsent = [answer(&slow, 300 * MIB), answer(&quick, 250 * MIB)];
        let looks = || {
            for _ in 0..=limits::UNSENT_LOOKS_CROWDED_MAX {
                slow.took_answer(MIB);
                quick.took_answer(5 * MIB);
                outbox.look();
            }
        };
        looks();
        assert!(!is_closed(&slow) && !is_closed(&quick));
        let _waiting = outbox.answers.wait_for_room();
        looks();
        assert!(is_closed(&slow));
        assert!(!is_closed(&quick));
    }
}
