//! Chance, and the clock of one member: its time runs at a rate of its own, its wall clock jumps,
//! and its timers ring when the world says so.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use rusd::clock::{Clock, Sleep, split_mix};

pub const MILLI: u64 = 1_000_000;
pub const SECOND: u64 = 1000 * MILLI;

/// A seeded stream of numbers.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(split_mix(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        split_mix(self.0)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// Lets what a member's thread does end in a panic: at one of the places where it asks for the time,
/// or works with a file. It is set for one thread's turn at a time.
#[derive(Clone, Default)]
pub struct Trap(Arc<TrapCells>);

#[derive(Default)]
struct TrapCells {
    /// So many more of these places, the last of which panics; 0 is none.
    left: AtomicU64,
    has_sprung: AtomicBool,
}

impl Trap {
    pub const WHY: &str = "the seed wants a panic";

    pub fn set(&self, left: u64) {
        self.0.left.store(left, Ordering::Relaxed);
    }

    /// Takes it back and says how many places are left.
    pub fn lift(&self) -> u64 {
        self.0.left.swap(0, Ordering::Relaxed)
    }

    pub fn has_sprung(&self) -> bool {
        self.0.has_sprung.load(Ordering::Relaxed)
    }

    pub fn reset(&self) {
        self.0.has_sprung.store(false, Ordering::Relaxed);
        self.set(0);
    }

    pub fn pass(&self) {
        let left = self.0.left.load(Ordering::Relaxed);
        self.set(left.saturating_sub(1));
        if left == 1 {
            self.spring();
        }
    }

    pub fn spring(&self) {
        self.0.has_sprung.store(true, Ordering::Relaxed);
        panic!("{}", Self::WHY);
    }
}

#[derive(Default)]
struct Timers {
    ringing: BTreeMap<(u64, u64), Waker>,
    next: u64,
}

/// A member's clock, from its start to its end.
pub struct SimClock {
    nanos: Arc<AtomicU64>,
    /// The wall clock when this one began; jumps change it.
    wall: AtomicU64,
    random: AtomicU64,
    timers: Arc<Mutex<Timers>>,
    trap: Trap,
}

impl SimClock {
    pub fn new(wall: u64, random: u64, trap: Trap) -> Self {
        Self {
            trap,
            nanos: Arc::default(),
            wall: AtomicU64::new(wall),
            random: AtomicU64::new(random),
            timers: Arc::default(),
        }
    }

    /// Moves on and wakes whose time has come; true if there was anyone.
    pub fn advance_to(&self, nanos: u64) -> bool {
        let now = self.nanos.load(Ordering::Relaxed).max(nanos);
        self.nanos.store(now, Ordering::Relaxed);
        let mut woken = false;
        loop {
            let first = {
                let mut timers = self.timers.lock();
                match timers.ringing.first_key_value() {
                    Some(((at, _), _)) if *at <= now => timers.ringing.pop_first(),
                    _ => None,
                }
            };
            let Some((_, waker)) = first else { return woken };
            woken = true;
            waker.wake();
        }
    }

    pub fn next_timer(&self) -> Option<u64> {
        self.timers.lock().ringing.first_key_value().map(|((at, _), _)| *at)
    }

    pub fn jump(&self, wall: u64) {
        self.wall.store(wall, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Duration {
        self.trap.pass();
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    fn unix_nanos(&self) -> u64 {
        self.wall.load(Ordering::Relaxed).saturating_add(self.nanos.load(Ordering::Relaxed))
    }

    fn random(&self) -> u64 {
        split_mix(self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let deadline = self.nanos.load(Ordering::Relaxed) + duration.as_nanos() as u64;
        let (nanos, timers) = (Arc::clone(&self.nanos), Arc::clone(&self.timers));
        Box::pin(Sleeping { deadline, nanos, timers, key: None })
    }
}

struct Sleeping {
    deadline: u64,
    nanos: Arc<AtomicU64>,
    timers: Arc<Mutex<Timers>>,
    key: Option<(u64, u64)>,
}

impl Future for Sleeping {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.nanos.load(Ordering::Relaxed) >= self.deadline {
            return Poll::Ready(());
        }
        let timers = Arc::clone(&self.timers);
        let mut timers = timers.lock();
        let key = self.key.unwrap_or_else(|| {
            timers.next += 1;
            (self.deadline, timers.next)
        });
        self.key = Some(key);
        timers.ringing.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timers.lock().ringing.remove(&key);
        }
    }
}
