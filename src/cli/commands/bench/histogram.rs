//! Latencies, counted in buckets that are about three percent wide.

/// Buckets for each power of two.
const STEPS: usize = 32;
const BUCKETS: usize = STEPS * 60;

/// A histogram of nanoseconds.
#[derive(Clone)]
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, max: 0 }
    }

    pub(super) fn record(&mut self, nanos: u64) {
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// The latency, in nanoseconds, that the given share of all calls did not exceed.
    pub(super) fn quantile(&self, share: f64) -> u64 {
        let rank = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(bucket).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(nanos: u64) -> usize {
    let steps = STEPS as u64;
    if nanos < steps {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEPS.ilog2();
    let index = (u64::from(shift) + 1) * steps + (nanos >> shift) - steps;
    (index as usize).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let (power, step) = ((bucket / STEPS) as u32, (bucket % STEPS) as u64);
    match power {
        0 => step,
        power => ((STEPS as u64 + step + 1) << (power - 1)) - 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_lies_in_its_bucket() {
        for nanos in [0, 1, 31, 32, 33, 63, 64, 1000, 123_456_789, 1 << 40] {
            let bucket = bucket(nanos);
            assert!(nanos <= upper(bucket), "{nanos}");
            assert!(bucket == 0 || nanos > upper(bucket - 1), "{nanos}");
        }
    }

    #[test]
    fn quantiles_are_within_three_percent() {
        let mut all = Histogram::new();
        (1..=100_000).for_each(|nanos| all.record(nanos));
        for (share, exact) in [(0.5, 50_000.0), (0.99, 99_000.0), (1.0, 100_000.0)] {
            let found = all.quantile(share) as f64;
            assert!((found / exact - 1.0).abs() < 0.032, "{share}: {found}");
        }
        assert_eq!((all.max(), all.count()), (100_000, 100_000));
    }
}
