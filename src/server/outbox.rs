//! Answers that wait to be sent to clients, in one account for each connection.
//!
//! ```text
//!   call ─► enter ─► rpc ─► answer ─► charge ─► h2 ─► socket
//!             ▲                          │ bytes, until h2 drops them
//!             └──── waits while ◄── Account ──► node's Answers: the sum of all
//! ```
//!
//! HTTP/2 lets a client ask for as much as it likes and take nothing. These rules bound what that
//! costs:
//!
//! - While a connection's answers hold more than its part, no further call on it begins: a bounded
//!   number of calls waits, and streams give no further message. Frames are still read, since the
//!   client's WINDOW_UPDATEs are among them.
//! - The connection's largest answer does not count for that: a client with one connection goes on
//!   with its work while it takes a large range. Leases and watches go on beside several large
//!   answers, within a small part of their own, since a lease whose renewals wait expires.
//! - Reading stops while too many requests wait for a thread.
//! - What flow control does not bound, such as HEADERS and answers to PING, waits only while the
//!   socket takes nothing. Then reading stops (see `io`).
//! - A connection that is over its part, or blocked, and takes nothing for a while is closed, and
//!   sooner if the member as a whole holds too much: the one that holds most goes first.
//!   Connections within their parts are closed only if that makes enough room.
//! - While calls wait for room, a connection has to take more the more it holds.
//!
//! An answer's bytes count from when its call hands them over until the last reference to them is
//! dropped.

mod account;
mod floods;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use self::floods::{Counts, Floods};
use super::malloc;
use super::unfinished::PartialMessages;
use super::unread::Unread;
use crate::node::Answers;
use crate::supervise::Supervisor;
use crate::{clock, limits, metrics};

pub(super) use self::account::{Account, AnswerSize, Begun, Held, Room};

/// The unsent answers of all client connections, and what their clients have sent.
pub(super) struct Outbox {
    answers: Arc<Answers>,
    accounts: Mutex<Vec<Weak<Account>>>,
    count: AtomicUsize,
    connections: AtomicUsize,
    calls: AtomicUsize,
    /// Whether a connection that had been blocked has ended since memory was given back last.
    blocked_connection_ended: AtomicBool,
    /// Messages of requests that have arrived in part.
    unfinished: Arc<PartialMessages>,
    /// Bytes of requests that have arrived and no call has read.
    unread: Arc<Unread>,
}

/// Counts one connection, of any port and protocol, until it is dropped.
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
            blocked_connection_ended: AtomicBool::new(false),
            unfinished: PartialMessages::new(message_bytes_max),
            unread: Arc::default(),
        })
    }

    pub(super) fn connect(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(Arc::clone(self))
    }

    pub(super) fn open(self: &Arc<Self>, remote: Option<SocketAddr>) -> Arc<Account> {
        let account = Arc::new(Account::new(Arc::clone(self), remote));
        self.count.fetch_add(1, Ordering::Relaxed);
        self.accounts.lock().push(Arc::downgrade(&account));
        account
    }

    #[cfg(test)]
    pub(super) fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }

    /// Bytes that one connection may hold: an equal share while the member as a whole holds too
    /// much.
    fn connection_bytes_max(&self) -> usize {
        if self.answers.is_crowded() {
            limits::UNSENT_BYTES_MAX / self.count.load(Ordering::Relaxed).max(1)
        } else {
            limits::CONNECTION_UNSENT_BYTES_MAX
        }
    }

    /// Looks at the connections each `limits::UNSENT_LOOK_INTERVAL`, and gives free memory back
    /// after a flood, or within one that leaves much. Never returns.
    pub(super) async fn look_after(self: Arc<Self>, supervisor: Supervisor) -> Infallible {
        let mut floods = Floods::default();
        let mut given_back = clock::instant();
        loop {
            tokio::time::sleep(limits::UNSENT_LOOK_INTERVAL).await;
            self.look();
            let held = malloc::held_bytes();
            // glibc's allocator keeps what is freed piece by piece until it is told to give it
            // back.
            if self.may_have_free_memory(&mut floods, held)
                && given_back.elapsed() > limits::GIVE_BACK_INTERVAL
            {
                self.blocked_connection_ended.store(false, Ordering::Relaxed);
                // The member is ending if there is no outcome.
                let _ = supervisor.blocking("give-back", malloc::give_back).await;
                floods.given_back(held, malloc::held_bytes());
                given_back = clock::instant();
            }
        }
    }

    /// Whether much of the `held` bytes of the process may be free.
    fn may_have_free_memory(&self, floods: &mut Floods, held: usize) -> bool {
        let now = Counts {
            // Parts of requests are freed piece by piece, too.
            bytes: self.answers.unsent_bytes() + self.unfinished.bytes() + self.unread.bytes(),
            connections: self.connections.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
        };
        floods.leave_free_memory(held, now) || self.blocked_connection_ended.load(Ordering::Relaxed)
    }

    /// Closes connections that hold too much and whose clients take nothing.
    fn look(&self) {
        let mut accounts = {
            let mut all = self.accounts.lock();
            all.retain(|account| account.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).collect::<Vec<_>>()
        };
        self.unfinished.look();
        self.look_at_unread(&accounts);
        let calls_wait = self.answers.has_waiting_calls();
        accounts.retain(|account| account.look(calls_wait));
        accounts.sort_by_key(|account| std::cmp::Reverse(account.unsent_bytes()));
        let mut unsent = self.answers.unsent_bytes();
        // Clients within their parts are closed only if closing all idle ones makes enough room.
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
                remote = account.remote.map(tracing::field::display),
                "unsent-bytes" = bytes,
                "unsent-bytes-of-all" = unsent,
                "closing a connection whose client does not take its answers"
            );
            metrics::unsent_closed().inc();
            unsent = unsent.saturating_sub(bytes);
            account.close();
        }
    }

    /// While the unread bytes are over their budget, closes connections without progress until
    /// `limits::UNREAD_BYTES_LEFT` are left. Only down to the budget, some would have to be closed
    /// at each look.
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
        // One line for all: there may be thousands.
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
