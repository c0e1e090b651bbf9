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

mod account;
mod floods;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use self::floods::{Counts, Floods};
use super::malloc;
use super::unfinished::Unfinished;
use super::unread::Unread;
use crate::node::Answers;
use crate::{clock, limits, metrics};

pub(super) use self::account::{Account, Begun, Kind, Room};

/// All connections of clients.
pub(super) struct Outbox {
    answers: Arc<Answers>,
    accounts: Mutex<Vec<Weak<Account>>>,
    count: AtomicUsize,
    connections: AtomicUsize,
    calls: AtomicUsize,
    /// Whether a connection has ended that was blocked.
    has_litter: AtomicBool,
    /// Messages of requests that have arrived in part.
    unfinished: Arc<Unfinished>,
    /// Bytes of requests that have arrived and no call has read.
    unread: Arc<Unread>,
}

/// One connection of any kind, as long as it is there.
pub(super) struct Connected(Arc<Outbox>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
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
        let account = Arc::new(Account::new(Arc::clone(self)));
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
                floods = Floods::after(held, malloc::held_bytes());
                given_back = clock::instant();
            }
        }
    }

    /// Whether a flood has gone whose memory, of which the process holds so much, may be free.
    fn is_over(&self, floods: &mut Floods, held: usize) -> bool {
        let now = Counts {
            // What comes in is freed piece by piece, too.
            bytes: self.answers.unsent_bytes() + self.unfinished.bytes() + self.unread.bytes(),
            connections: self.connections.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
        };
        floods.is_over(held, now) || self.has_litter.load(Ordering::Relaxed)
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
            let idle = account.idle_looks();
            let is_crowded = unsent > limits::UNSENT_BYTES_MAX;
            let is_blocked = account.is_blocked();
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
            account.close();
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
            account.close();
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
