//! Histograms of how long proposals take. Snapshots and defragmentation choose their pace by them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Number of counters: four for each doubling of the time, from one microsecond to 268 seconds.
const PLACES: usize = 112;

/// Counters of proposals by the time that they took. Any thread may add to them.
pub struct Latencies {
    counts: [AtomicU32; PLACES],
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: [const { AtomicU32::new(0) }; PLACES] }
    }
}

/// A copy of the counters at one moment.
#[derive(Clone)]
pub struct LatencyCounts([u32; PLACES]);

fn place(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
    let power = micros.ilog2() as usize;
    let quarter = if power >= 2 { (micros >> (power - 2)) as usize & 3 } else { 0 };
    (power * 4 + quarter).min(PLACES - 1)
}

/// The shortest time that this place counts.
fn length(place: usize) -> Duration {
    let (power, quarter) = (place / 4, place as u64 % 4);
    let micros = if power >= 2 { (4 + quarter) << (power - 2) } else { 1 << power };
    Duration::from_micros(micros)
}

impl Latencies {
    pub fn note(&self, took: Duration) {
        self.counts[place(took)].fetch_add(1, Ordering::Relaxed);
    }

    pub fn counted(&self) -> LatencyCounts {
        LatencyCounts(std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed)))
    }
}

impl LatencyCounts {
    /// The proposals since an earlier copy: their number and their 95th percentile, rounded down to
    /// the shortest time of its counter.
    pub fn since(&self, earlier: &Self) -> (u32, Duration) {
        let added = |at: usize| self.0[at].wrapping_sub(earlier.0[at]);
        let count: u32 = (0..PLACES).map(added).sum();
        let mut above = count / 20;
        let found = (0..PLACES).rev().find(|at| {
            let here = added(*at);
            let is_it = here > above;
            above = above.saturating_sub(here);
            is_it
        });
        (count, found.map_or(Duration::ZERO, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_twentieth_is_left_out() {
        let latencies = Latencies::default();
        latencies.note(Duration::from_secs(9));
        let before = latencies.counted();
        assert_eq!(latencies.counted().since(&before), (0, Duration::ZERO));
        for _ in 0..95 {
            latencies.note(Duration::from_micros(700));
        }
        for _ in 0..5 {
            latencies.note(Duration::from_millis(90));
        }
        assert_eq!(latencies.counted().since(&before), (100, Duration::from_micros(640)));
        latencies.note(Duration::from_millis(90));
        let (count, slow) = latencies.counted().since(&before);
        assert_eq!(count, 101);
        let place = Duration::from_millis(81)..=Duration::from_millis(90);
        assert!(place.contains(&slow), "{slow:?}");
    }

    #[test]
    fn from_four_microseconds_on_a_place_is_within_a_fifth_of_what_it_stands_for() {
        for micros in [4, 5, 7, 99, 1023, 12_345, 9_999_999] {
            let took = Duration::from_micros(micros);
            let shown = length(place(took));
            assert!(shown <= took && took - shown < took / 5, "{took:?} {shown:?}");
        }
        for (micros, shown) in [(0, 1), (1, 1), (2, 2), (3, 2)] {
            let place = place(Duration::from_micros(micros));
            assert_eq!(length(place), Duration::from_micros(shown));
        }
    }
}
