//! Limits on how many processors long reads compute at once.
//!
//! A long read computes without a pause, and a thread that wakes on its processor gets to run only
//! some milliseconds later. A write passes five threads, and would wait at each of them. So long
//! reads leave one processor to all other work, to which the gateway's large documents belong. They
//! take turns on the others, in the order in which they asked and a slice of 2 ms at a time: a short
//! read ends early, and none waits for the end of another.
//!
//! ```text
//!   yield_turn ─► line ─► holder ── READ_SLICE over, others wait ─► end of the line
//!                        │  no turn has begun for READ_STANDSTILL_MAX
//!                        └────────► the first in line takes its turn
//! ```
//!
//! A reader whose disk hangs does not return its processor. If no turn has begun for 50 ms, the
//! oldest holder therefore loses its turn to the first in line. When it returns, its next
//! `yield_turn` puts it at the end of the line.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock;
use crate::limits::{READ_SLICE, READ_STANDSTILL_MAX};

/// How often a reader in line checks whether its read has to end, and whether turns still begin.
const LOOK: Duration = Duration::from_millis(5);
/// The number of no grant.
const NONE: u64 = 0;

/// The processors on which the long reads of one member take turns.
#[derive(Debug)]
pub struct ReadTurns(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Numbers of the current grants, oldest first.
    holders: VecDeque<u64>,
    grants: u64,
    waiting: VecDeque<Arc<Waiter>>,
    /// When a processor was granted last.
    moved: Instant,
}

#[derive(Debug)]
struct Waiter {
    thread: Thread,
    granted: AtomicU64,
}

/// The turns of one reader, which end when this is dropped.
#[derive(Debug)]
pub struct ReadTurn {
    of: Arc<ReadTurns>,
    grant: Cell<u64>,
    since: Cell<Instant>,
}

/// All processors of the machine but one, and at least one.
pub fn processors_for_long_work() -> usize {
    let all = thread::available_parallelism().map_or(1, usize::from);
    all.saturating_sub(1).max(1)
}

impl Default for ReadTurns {
    fn default() -> Self {
        Self::new(processors_for_long_work())
    }
}

impl State {
    fn grant(&mut self) -> u64 {
        self.grants += 1;
        self.holders.push_back(self.grants);
        self.moved = clock::instant();
        self.grants
    }

    /// Gives the oldest grant to the first in line, if no turn has begun for `READ_STANDSTILL_MAX`
    /// since it began to wait.
    fn revoke(&mut self, waiter: &Arc<Waiter>, since: Instant) -> Option<u64> {
        let is_first = self.waiting.front().is_some_and(|first| Arc::ptr_eq(first, waiter));
        if !is_first || self.moved.max(since).elapsed() < READ_STANDSTILL_MAX {
            return None;
        }
        self.waiting.pop_front();
        self.holders.pop_front();
        Some(self.grant())
    }
}

impl ReadTurns {
    fn new(free: usize) -> Self {
        let (holders, waiting) = Default::default();
        Self(Mutex::new(State { free, holders, grants: NONE, waiting, moved: clock::instant() }))
    }

    /// Waits for a grant. Returns `NONE` if `is_over` says first that the read has to end.
    fn take(&self, is_over: &dyn Fn() -> bool) -> u64 {
        let waiter = {
            let mut state = self.0.lock();
            if state.free > 0 {
                state.free -= 1;
                return state.grant();
            }
            let waiter =
                Arc::new(Waiter { thread: thread::current(), granted: AtomicU64::new(NONE) });
            state.waiting.push_back(Arc::clone(&waiter));
            waiter
        };
        let since = clock::instant();
        loop {
            thread::park_timeout(LOOK);
            let granted = waiter.granted.load(Ordering::Acquire);
            if granted != NONE {
                return granted;
            }
            let mut state = self.0.lock();
            if is_over() {
                state.waiting.retain(|other| !Arc::ptr_eq(other, &waiter));
                // A grant may have come since the check above; under the lock none can follow.
                return waiter.granted.load(Ordering::Acquire);
            }
            if let Some(grant) = state.revoke(&waiter, since) {
                return grant;
            }
        }
    }

    /// Gives a grant back, which goes to the first in line. A revoked grant, or `NONE`, has no
    /// effect.
    fn give(&self, grant: u64) {
        let mut state = self.0.lock();
        let Some(place) = state.holders.iter().position(|holder| *holder == grant) else { return };
        state.holders.remove(place);
        match state.waiting.pop_front() {
            Some(next) => {
                next.granted.store(state.grant(), Ordering::Release);
                next.thread.unpark();
            }
            None => state.free += 1,
        }
    }

    /// Whether no other reader waits, and this grant was not revoked.
    fn may_keep(&self, grant: u64) -> bool {
        let state = self.0.lock();
        state.waiting.is_empty() && state.holders.contains(&grant)
    }
}

impl ReadTurn {
    /// Makes a reader without a turn: its first `yield_turn` waits for one.
    pub fn new(of: &Arc<ReadTurns>) -> Self {
        let (grant, since) = (Cell::new(NONE), Cell::new(clock::instant()));
        Self { of: Arc::clone(of), grant, since }
    }

    /// Called by a long read every few milliseconds, on its thread. After `READ_SLICE`, and if
    /// other reads wait, this one goes to the end of the line and blocks until its next turn or
    /// until `is_over`.
    pub fn yield_turn(&self, is_over: &dyn Fn() -> bool) {
        let grant = self.grant.get();
        if grant != NONE && self.since.get().elapsed() < READ_SLICE {
            return;
        }
        if grant == NONE || !self.of.may_keep(grant) {
            self.of.give(grant);
            self.grant.set(self.of.take(is_over));
        }
        self.since.set(clock::instant());
    }
}

impl Drop for ReadTurn {
    fn drop(&mut self) {
        self.of.give(self.grant.get());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize};

    use super::*;

    fn entered(turns: &Arc<ReadTurns>) -> ReadTurn {
        let turn = ReadTurn::new(turns);
        turn.yield_turn(&|| false);
        assert_ne!(turn.grant.get(), NONE);
        turn
    }

    #[test]
    fn no_more_read_at_once_than_there_are_processors_for_it() {
        let turns = Arc::new(ReadTurns::new(2));
        let (most, ended) = <(AtomicUsize, AtomicUsize)>::default();
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let turn = entered(&turns);
                    for _ in 0..20 {
                        most.fetch_max(turns.0.lock().holders.len(), Ordering::SeqCst);
                        thread::sleep(READ_SLICE / 2);
                        turn.yield_turn(&|| false);
                    }
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!((most.into_inner(), ended.into_inner()), (2, 6));
        let state = turns.0.lock();
        assert_eq!((state.free, state.holders.len(), state.waiting.len()), (2, 0, 0));
    }

    #[test]
    fn a_short_read_does_not_wait_for_the_end_of_a_long_one() {
        let turns = Arc::new(ReadTurns::new(1));
        let is_served = AtomicBool::new(false);
        thread::scope(|scope| {
            let long = entered(&turns);
            scope.spawn(|| {
                drop(entered(&turns));
                is_served.store(true, Ordering::SeqCst);
            });
            let late = clock::instant() + Duration::from_secs(60);
            while !is_served.load(Ordering::SeqCst) {
                assert!(clock::instant() < late, "it waits for the long read");
                thread::sleep(Duration::from_millis(1));
                long.yield_turn(&|| false);
            }
        });
    }

    /// A reader that hangs costs one standstill, and not one for each later reader.
    #[test]
    fn a_reader_that_does_not_come_back_loses_its_processor() {
        let turns = Arc::new(ReadTurns::new(1));
        let still = entered(&turns);
        let second = entered(&turns);
        assert!(!turns.may_keep(still.grant.get()));
        drop(second);
        assert_eq!(turns.0.lock().free, 1, "the next one need not wait");
        // The reader returns, and waits in line as the others do.
        thread::sleep(READ_SLICE);
        let third = entered(&turns);
        assert_eq!(turns.0.lock().free, 0);
        still.yield_turn(&|| true);
        assert_eq!(still.grant.get(), NONE);
        drop((still, third));
        let state = turns.0.lock();
        assert_eq!((state.free, state.holders.len(), state.waiting.len()), (1, 0, 0));
    }

    #[test]
    fn who_is_not_wanted_any_more_leaves_the_line() {
        let turns = Arc::new(ReadTurns::new(1));
        let holder = entered(&turns);
        let unwanted = ReadTurn::new(&turns);
        unwanted.yield_turn(&|| true);
        assert_eq!(unwanted.grant.get(), NONE);
        assert!(turns.may_keep(holder.grant.get()), "nobody waits");
    }
}
