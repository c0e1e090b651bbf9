//! On how many processors at once the store is read at length.
//!
//! A long read computes as long as it is let, and the system gives a thread that wakes beside it its
//! turn some milliseconds later. A write passes five threads, and would wait at each of them. So long
//! reads leave one processor to everybody else. Those that are under way pass a processor round in the
//! order in which they asked for it, a slice at a time: a short one ends early, and none waits for the
//! end of another. One that gets none for long goes on all the same: a reader whose disk stands still
//! does not come back.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::clock;
use crate::limits::{READ_SLICE, READ_TURN_WAIT_MAX};

/// The processors of one member for which long reads take turns.
#[derive(Debug)]
pub struct Processors(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    waiting: VecDeque<Arc<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    thread: Thread,
    is_called: AtomicBool,
}

/// A processor that the calling thread may use, until this is dropped.
#[derive(Debug)]
pub struct Processor {
    of: Arc<Processors>,
    /// False for one that nobody gave.
    is_given: Cell<bool>,
    since: Cell<Instant>,
}

impl Default for Processors {
    /// All of the machine's but one.
    fn default() -> Self {
        let all = thread::available_parallelism().map_or(1, usize::from);
        Self::new(all.saturating_sub(1).max(1))
    }
}

impl Processors {
    fn new(free: usize) -> Self {
        Self(Mutex::new(State { free, waiting: VecDeque::new() }))
    }

    /// Waits for a processor.
    pub fn enter(self: &Arc<Self>) -> Processor {
        let is_given = Cell::new(self.take(READ_TURN_WAIT_MAX));
        Processor { of: Arc::clone(self), is_given, since: Cell::new(clock::instant()) }
    }

    /// Whether one was given within this time.
    fn take(&self, patience: Duration) -> bool {
        let waiter = {
            let mut state = self.0.lock();
            if state.free > 0 {
                state.free -= 1;
                return true;
            }
            let waiter =
                Arc::new(Waiter { thread: thread::current(), is_called: AtomicBool::new(false) });
            state.waiting.push_back(Arc::clone(&waiter));
            waiter
        };
        let end = clock::instant() + patience;
        while !waiter.is_called.load(Ordering::Acquire) {
            let left = end.saturating_duration_since(clock::instant());
            if left.is_zero() {
                let mut state = self.0.lock();
                state.waiting.retain(|other| !Arc::ptr_eq(other, &waiter));
                // It may have been called just now; under the lock that is certain.
                return waiter.is_called.load(Ordering::Acquire);
            }
            thread::park_timeout(left);
        }
        true
    }

    fn give(&self) {
        let mut state = self.0.lock();
        match state.waiting.pop_front() {
            Some(next) => {
                next.is_called.store(true, Ordering::Release);
                next.thread.unpark();
            }
            None => state.free += 1,
        }
    }

    fn has_waiting(&self) -> bool {
        !self.0.lock().waiting.is_empty()
    }
}

impl Processor {
    /// To be called now and then: a read that has had its slice goes to the end of the line.
    pub(super) fn pass_on(&self) {
        if self.since.get().elapsed() < READ_SLICE {
            return;
        }
        if self.is_given.get() && self.of.has_waiting() {
            self.of.give();
            self.is_given.set(self.of.take(READ_TURN_WAIT_MAX));
        }
        self.since.set(clock::instant());
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        if self.is_given.get() {
            self.of.give();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[test]
    fn no_more_read_at_once_than_there_are_processors_for_it() {
        let processors = Arc::new(Processors::new(2));
        let (running, most, ended) = <(AtomicUsize, AtomicUsize, AtomicUsize)>::default();
        thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let processor = processors.enter();
                    for _ in 0..20 {
                        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        thread::sleep(READ_SLICE / 2);
                        running.fetch_sub(1, Ordering::SeqCst);
                        processor.pass_on();
                    }
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!((most.into_inner(), ended.into_inner()), (2, 6));
        assert_eq!(processors.0.lock().free, 2, "all are given back");
    }

    #[test]
    fn a_short_read_does_not_wait_for_the_end_of_a_long_one() {
        let processors = Arc::new(Processors::new(1));
        let is_served = AtomicBool::new(false);
        thread::scope(|scope| {
            let long = processors.enter();
            scope.spawn(|| {
                drop(processors.enter());
                is_served.store(true, Ordering::SeqCst);
            });
            let late = clock::instant() + Duration::from_secs(60);
            while !is_served.load(Ordering::SeqCst) {
                assert!(clock::instant() < late, "it waits for the long read");
                thread::sleep(Duration::from_millis(1));
                long.pass_on();
            }
        });
    }

    #[test]
    fn a_reader_that_stands_still_stops_nobody_for_long() {
        let processors = Arc::new(Processors::new(1));
        let still = processors.enter();
        assert!(!processors.take(Duration::from_millis(10)), "there is none");
        assert!(!processors.has_waiting(), "it has left the line");
        drop(still);
        assert!(processors.take(Duration::ZERO));
        assert_eq!(READ_TURN_WAIT_MAX, Duration::from_secs(1));
    }
}
