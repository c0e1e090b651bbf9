//! How fast a snapshot leaves, or the store is copied, while clients write.
//!
//! Time goes in short windows. Some of them are silent: nothing is sent, and how long proposals
//! take then is what they take without us. If they take noticeably longer in the others, the rate
//! halves, else it grows. Without proposals there is nobody to spare, and no bound.

use std::time::{Duration, Instant};

use crate::clock;
use crate::limits::{
    SNAPSHOT_PACE_LATENCY_MIN, SNAPSHOT_PACE_SAMPLES_MIN, SNAPSHOT_PACE_SILENCE,
    SNAPSHOT_PACE_WINDOW, SNAPSHOT_RATE_FIRST, SNAPSHOT_RATE_MAX, SNAPSHOT_RATE_MIN,
};
use crate::raft::Handle;
use crate::raft::latency::Counted;

/// For who copies much: rests, so that requests committed here hardly notice.
pub struct Pace {
    raft: Handle,
    began: Instant,
    pacer: Pacer,
}

impl Pace {
    pub fn new(raft: Handle) -> Self {
        let pacer = Pacer::new(Duration::ZERO, raft.latencies().counted());
        Self { raft, began: clock::instant(), pacer }
    }

    /// Blocks for as long as it is due after so many more bytes.
    pub fn rest(&mut self, mut bytes: u64) {
        loop {
            let counted = self.raft.latencies().counted();
            let rest = self.pacer.rest(self.began.elapsed(), std::mem::take(&mut bytes), &counted);
            if rest.is_zero() {
                return;
            }
            std::thread::sleep(rest);
        }
    }
}

struct Pacer {
    began: Duration,
    before: Counted,
    /// Windows so far, of which one in so many is silent.
    windows: u32,
    is_silent: bool,
    /// What proposals take while nothing is sent; nothing until that is known.
    quiet: Option<Duration>,
    rate: u64,
    /// Bytes sent in this window.
    sent: u64,
}

impl Pacer {
    fn new(now: Duration, counted: Counted) -> Self {
        Self {
            began: now,
            before: counted,
            windows: 0,
            is_silent: false,
            quiet: None,
            rate: SNAPSHOT_RATE_MAX,
            sent: 0,
        }
    }

    /// How long to rest after so many more bytes, or after a rest.
    fn rest(&mut self, now: Duration, bytes: u64, counted: &Counted) -> Duration {
        self.sent += bytes;
        let took = now.saturating_sub(self.began);
        if took < SNAPSHOT_PACE_WINDOW {
            if self.is_silent {
                return SNAPSHOT_PACE_WINDOW - took;
            }
            let due = Duration::from_secs_f64(self.sent as f64 / self.rate as f64);
            return due.saturating_sub(took).min(SNAPSHOT_PACE_WINDOW - took);
        }
        self.judge(counted);
        self.before = counted.clone();
        self.began = now;
        self.sent = 0;
        if self.is_silent { SNAPSHOT_PACE_WINDOW } else { Duration::ZERO }
    }

    fn judge(&mut self, counted: &Counted) {
        let (count, slow) = counted.since(&self.before);
        let was_silent = self.is_silent;
        self.windows += 1;
        self.is_silent = false;
        if count < SNAPSHOT_PACE_SAMPLES_MIN {
            self.rate = SNAPSHOT_RATE_MAX;
            return;
        }
        if was_silent {
            let slow = slow.max(SNAPSHOT_PACE_LATENCY_MIN);
            self.quiet = Some(self.quiet.map_or(slow, |quiet| (quiet * 3 + slow) / 4));
        } else if let Some(quiet) = self.quiet {
            let is_too_slow = slow > quiet * 3 / 2;
            let rate = if is_too_slow { self.rate / 2 } else { self.rate + self.rate / 4 };
            self.rate = rate.clamp(SNAPSHOT_RATE_MIN, SNAPSHOT_RATE_MAX);
        }
        if self.quiet.is_none() {
            self.rate = SNAPSHOT_RATE_FIRST;
        }
        self.is_silent = self.quiet.is_none() || self.windows.is_multiple_of(SNAPSHOT_PACE_SILENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::latency::Latencies;

    const PIECE: u64 = 256 << 10;

    /// Sends for so long while proposals take what `latency` says of the rate of a window, and
    /// returns the bytes of the second half by second.
    fn rate(seconds: u64, puts: u32, latency: impl Fn(u64) -> Duration) -> u64 {
        let latencies = Latencies::default();
        let mut now = Duration::ZERO;
        let mut pacer = Pacer::new(now, latencies.counted());
        let (mut sent, mut second_half) = (0, 0);
        let (mut window_sent, mut window_began) = (0, now);
        let end = Duration::from_secs(seconds);
        let mut bytes = 0;
        while now < end {
            let rest = pacer.rest(now, bytes, &latencies.counted());
            // A piece takes a millisecond to make.
            bytes = if rest.is_zero() { PIECE } else { 0 };
            now += if rest.is_zero() { Duration::from_millis(1) } else { rest };
            sent += bytes;
            window_sent += bytes;
            if now > end / 2 {
                second_half += bytes;
            }
            let window = now - window_began;
            if window >= SNAPSHOT_PACE_WINDOW / 4 {
                let per_second = (window_sent as f64 / window.as_secs_f64()) as u64;
                for _ in 0..puts {
                    latencies.note(latency(per_second));
                }
                (window_sent, window_began) = (0, now);
            }
        }
        assert!(sent > 0);
        second_half * 2 / seconds
    }

    #[test]
    fn with_nobody_to_spare_it_goes_at_full_speed() {
        assert!(rate(10, 0, |_| Duration::ZERO) > 200 << 20);
    }

    #[test]
    fn puts_that_do_not_suffer_let_it_go_fast() {
        assert!(rate(20, 50, |_| Duration::from_millis(3)) > 100 << 20);
    }

    #[test]
    fn it_settles_where_puts_suffer_little() {
        // 5 ms, and as much again for each 40 MiB a second.
        let suffers = |rate: u64| Duration::from_secs_f64(0.005 * (1.0 + rate as f64 / 4e7));
        let settled = rate(60, 50, suffers);
        assert!((5 << 20..60 << 20).contains(&settled), "{settled}");
    }

    #[test]
    fn it_never_stops() {
        let hopeless = |rate: u64| Duration::from_millis(if rate > 0 { 100 } else { 1 });
        let settled = rate(60, 50, hopeless);
        let slow = SNAPSHOT_RATE_MIN / 2..4 * SNAPSHOT_RATE_MIN;
        assert!(slow.contains(&settled), "{settled}");
    }
}
