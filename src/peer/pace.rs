//! The rate at which a snapshot is sent, or the store is copied, while clients write.
//!
//! Time is divided into short windows. In some of them nothing is sent: the time that proposals
//! take then is their time without the copying. If they take more than half as long again in the
//! other windows, the rate sinks; otherwise it grows. Without proposals nobody is held up, and the
//! rate is not bounded.

use std::time::{Duration, Instant};

use crate::clock;
use crate::limits::{
    SNAPSHOT_PACE_LATENCY_MIN, SNAPSHOT_PACE_SAMPLES_MIN, SNAPSHOT_PACE_SILENCE,
    SNAPSHOT_PACE_WINDOW, SNAPSHOT_RATE_FIRST, SNAPSHOT_RATE_MAX, SNAPSHOT_RATE_MIN,
};
use crate::raft::{Handle, LatencyCounts};

/// Tells a thread that copies much data when to pause, so that proposals committed here take little
/// longer.
pub struct Pace {
    raft: Handle,
    began: Instant,
    pacer: Pacer,
}

impl Pace {
    pub fn new(raft: Handle) -> Self {
        let pacer = Pacer::new(Duration::ZERO, raft.latencies());
        Self { raft, began: clock::instant(), pacer }
    }

    /// Blocks for as long as is due after `bytes` more.
    pub fn rest(&mut self, mut bytes: u64) {
        loop {
            let counted = self.raft.latencies();
            let rest = self.pacer.rest(self.began.elapsed(), std::mem::take(&mut bytes), counted);
            if rest.is_zero() {
                return;
            }
            std::thread::sleep(rest);
        }
    }
}

/// Two times are measured: from the leader's log to the commit, which includes proposals that other
/// members forward; and for callers on this member, which includes their threads' wait for a
/// processor.
const KINDS: usize = 2;

struct Pacer {
    began: Duration,
    before: [LatencyCounts; KINDS],
    /// The number of windows so far; two silent ones follow each `SNAPSHOT_PACE_SILENCE` of them.
    windows: u32,
    silence: Silence,
    /// The time that proposals take while nothing is sent; None until it was measured.
    quiet: [Option<Duration>; KINDS],
    rate: u64,
    /// Bytes sent in the current window.
    sent: u64,
}

/// The receiver is still busy with what was sent before, so the first silent window is not
/// measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Silence {
    None,
    Settling,
    Measured,
}

impl Pacer {
    fn new(now: Duration, counted: [LatencyCounts; KINDS]) -> Self {
        Self {
            began: now,
            before: counted,
            windows: 0,
            silence: Silence::None,
            quiet: [None; KINDS],
            rate: SNAPSHOT_RATE_MAX,
            sent: 0,
        }
    }

    /// The pause that is due after `bytes` more; called again with 0 after each pause.
    fn rest(&mut self, now: Duration, bytes: u64, counted: [LatencyCounts; KINDS]) -> Duration {
        self.sent += bytes;
        let took = now.saturating_sub(self.began);
        if took < SNAPSHOT_PACE_WINDOW {
            if self.silence != Silence::None {
                return SNAPSHOT_PACE_WINDOW - took;
            }
            let due = Duration::from_secs_f64(self.sent as f64 / self.rate as f64);
            return due.saturating_sub(took).min(SNAPSHOT_PACE_WINDOW - took);
        }
        self.judge(took, &counted);
        self.before = counted;
        self.began = now;
        self.sent = 0;
        if self.silence == Silence::None { Duration::ZERO } else { SNAPSHOT_PACE_WINDOW }
    }

    fn judge(&mut self, took: Duration, counted: &[LatencyCounts; KINDS]) {
        let was = std::mem::replace(&mut self.silence, Silence::None);
        self.windows += 1;
        let slow: [Option<Duration>; KINDS] = std::array::from_fn(|kind| {
            let (count, slow) = counted[kind].since(&self.before[kind]);
            (count >= SNAPSHOT_PACE_SAMPLES_MIN).then(|| slow.max(SNAPSHOT_PACE_LATENCY_MIN))
        });
        if slow.iter().all(Option::is_none) {
            self.rate = SNAPSHOT_RATE_MAX;
            return;
        }
        let mut is_known = true;
        let mut is_too_slow = false;
        for (quiet, slow) in self.quiet.iter_mut().zip(slow) {
            match (was, &quiet, slow) {
                (Silence::Measured, None, Some(slow)) => *quiet = Some(slow),
                (Silence::Measured, Some(before), Some(slow)) => {
                    // A rise counts little: the receiver may still be writing bytes that were sent
                    // before the silence.
                    let weight = if slow < *before { 2 } else { 16 };
                    *quiet = Some((*before * (weight - 1) + slow) / weight);
                }
                (Silence::None, Some(quiet), Some(slow)) => is_too_slow |= slow > *quiet * 3 / 2,
                _ => {}
            }
            is_known &= quiet.is_some() || slow.is_none();
        }
        match was {
            Silence::Settling => self.silence = Silence::Measured,
            Silence::Measured => {}
            Silence::None if !is_known => {
                self.rate = SNAPSHOT_RATE_FIRST;
                self.silence = Silence::Settling;
            }
            Silence::None => {
                self.change_rate((self.sent as f64 / took.as_secs_f64()) as u64, is_too_slow);
                if self.windows.is_multiple_of(SNAPSHOT_PACE_SILENCE) {
                    self.silence = Silence::Settling;
                }
            }
        }
    }

    /// Sets the rate after a window in which `sent` bytes a second were sent. A rate that was not
    /// even half used does not grow, or it would take long to sink when proposals become slow.
    fn change_rate(&mut self, sent: u64, is_too_slow: bool) {
        let rate = if is_too_slow {
            self.rate.min(sent) / 10 * 7
        } else if sent >= self.rate / 2 {
            self.rate + self.rate / 4
        } else {
            self.rate
        };
        self.rate = rate.clamp(SNAPSHOT_RATE_MIN, SNAPSHOT_RATE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raft::Latencies;

    const PIECE: u64 = 256 << 10;

    /// Sends for `seconds`, while proposals take `latency(rate of the window)`. Returns the bytes a
    /// second of the second half.
    fn rate(seconds: u64, puts: u32, mut latency: impl FnMut(u64) -> Duration) -> u64 {
        let latencies = Latencies::default();
        let mut now = Duration::ZERO;
        let all = || [Latencies::default().counted(), latencies.counted()];
        let mut pacer = Pacer::new(now, all());
        let (mut sent, mut second_half) = (0, 0);
        let (mut window_sent, mut window_began) = (0, now);
        let end = Duration::from_secs(seconds);
        let mut bytes = 0;
        while now < end {
            let rest = pacer.rest(now, bytes, all());
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
        // 5 ms, and 5 ms more for each 40 MB a second.
        let suffers = |rate: u64| Duration::from_secs_f64(0.005 * (1.0 + rate as f64 / 4e7));
        let settled = rate(60, 50, suffers);
        assert!((5 << 20..60 << 20).contains(&settled), "{settled}");
    }

    #[test]
    fn what_is_still_written_in_a_silence_does_not_pass_for_quiet() {
        let mut rates = std::collections::VecDeque::from([0; 4]);
        let suffers = |rate: u64| {
            rates.pop_front();
            rates.push_back(rate);
            let busy = rates.iter().max().copied().unwrap_or_default();
            Duration::from_secs_f64(0.005 * (1.0 + busy as f64 / 4e7))
        };
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
