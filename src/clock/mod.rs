//! The one door for time and chance, so that a simulator can run the shipped code.
//!
//! No other room asks the operating system for the time or for randomness. Libraries do: tokio for
//! the timers of connections and of clients, aws-lc for keys and signatures.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Time and randomness as the rooms below `server` see them.
pub trait Clock: Send + Sync {
    /// Monotonic time since this clock was made; it never goes back and ignores wall clock jumps.
    fn now(&self) -> Duration;
    /// The wall clock, in nanoseconds since the Unix epoch.
    fn unix_nanos(&self) -> u64;
    /// 64 random bits.
    fn random(&self) -> u64;
    /// Ends when `duration` has passed by this clock.
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }

    /// Fills `out` with bytes that cannot be guessed: the system's entropy. A simulated clock,
    /// whose runs have to repeat, uses its random bits instead.
    fn secret(&self, out: &mut [u8]) -> std::io::Result<()> {
        for chunk in out.chunks_mut(8) {
            chunk.copy_from_slice(&self.random().to_ne_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The output of a future, or `None` if it takes longer than `duration` by this clock.
pub async fn timeout<F: Future>(
    clock: &dyn Clock,
    duration: Duration,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    // Made once the future waits: most reads need not, and a timer costs an allocation, two locks
    // and a look at the time.
    let mut sleep = None;
    poll_fn(|context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        let sleep = sleep.get_or_insert_with(|| clock.sleep(duration));
        sleep.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// The pauses between attempts. The bound of a pause doubles up to `longest`, and a pause takes
/// between half of its bound and all of it, so that callers who failed together do not return
/// together. The caller ends the attempts, by [`timeout`] or by their number.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    pub async fn rest(&mut self, clock: &dyn Clock) {
        let rest = self.draw(clock.random());
        clock.sleep(rest).await;
    }

    fn draw(&mut self, random: u64) -> Duration {
        let whole = self.next.min(self.longest);
        self.next = whole.saturating_mul(2);
        let half = whole / 2;
        let parts = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
        (half + Duration::from_nanos(random % parts)).max(Duration::from_nanos(1))
    }
}

/// Lets a message be logged at most once in each interval, however often its reason occurs.
#[derive(Debug)]
pub struct LogLimit {
    interval: Duration,
    said_at: Mutex<Option<Duration>>,
}

impl LogLimit {
    pub const fn new(interval: Duration) -> Self {
        Self { interval, said_at: Mutex::new(None) }
    }

    /// Whether the message is to be logged now; if so, it counts as logged. `now` is the clock's
    /// time.
    pub fn may_log(&self, now: Duration) -> bool {
        let mut said_at = self.said_at.lock();
        let may_log = said_at.is_none_or(|at| now.saturating_sub(at) >= self.interval);
        if may_log {
            *said_at = Some(now);
        }
        may_log
    }
}

/// The time, for the rim: to measure what is only reported, and for the deadlines of connections.
/// All that the state depends on takes a [`Clock`].
#[expect(clippy::disallowed_methods, reason = "the door itself")]
pub fn instant() -> Instant {
    Instant::now()
}

/// The processor time that the calling thread has used, without its waits. For the rim, too.
pub fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// The real clock. Randomness is a SplitMix64 stream seeded from the system's entropy.
pub struct SystemClock {
    start: Instant,
    random: AtomicU64,
}

impl SystemClock {
    pub fn new() -> Self {
        let mut seed = [0; 8];
        #[expect(clippy::disallowed_methods, reason = "the door itself")]
        let filled = rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty());
        if filled.is_err() {
            // Without entropy the time is the seed: ids only have to differ between runs.
            seed = wall_nanos().to_ne_bytes();
        }
        Self { start: instant(), random: AtomicU64::new(u64::from_ne_bytes(seed)) }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn unix_nanos(&self) -> u64 {
        wall_nanos()
    }

    fn random(&self) -> u64 {
        let state = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        split_mix(state)
    }

    fn secret(&self, out: &mut [u8]) -> std::io::Result<()> {
        let mut filled = 0;
        while filled < out.len() {
            #[expect(clippy::disallowed_methods, reason = "the door itself")]
            let got =
                rustix::rand::getrandom(&mut out[filled..], rustix::rand::GetRandomFlags::empty())?;
            filled += got;
        }
        Ok(())
    }
}

/// Nanoseconds since 1970, for the rim: for what is only shown.
#[expect(clippy::disallowed_methods, reason = "the door itself")]
pub fn wall_nanos() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The output function of SplitMix64.
pub fn split_mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rests_grow_to_their_bound_and_differ() {
        let millis = Duration::from_millis;
        let mut shortest = Backoff::new(millis(20), millis(100));
        let mut longest = shortest;
        for whole in [20, 40, 80, 100, 100] {
            assert_eq!(shortest.draw(0), millis(whole) / 2);
            let parts = (millis(whole) / 2).as_nanos() as u64 + 1;
            assert_eq!(longest.draw(parts - 1), millis(whole));
        }
        let mut none = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert!(!none.draw(7).is_zero(), "a retry always waits");
    }
}
