//! Automatic compaction of history, by etcd's two rules (`--auto-compaction-mode`). The rule itself
//! is pure: given the time and the revision, it returns the revision to compact.

use std::collections::VecDeque;
use std::time::Duration;

use super::Upkeep;
use super::door::{Door, Refusal};
use crate::apply::Command;
use crate::pb::CompactionRequest;

/// How much history automatic compaction keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Keep the revisions that are younger than this.
    Periodic(Duration),
    /// Keep this many of the newest revisions.
    Revision(i64),
}

const REVISION_INTERVAL: Duration = Duration::from_secs(5 * 60);
const PERIODIC_INTERVAL_MAX: Duration = Duration::from_secs(60 * 60);
/// How many times the periodic rule samples the revision in one interval.
const SAMPLES: u32 = 10;

#[derive(Debug)]
struct AutoCompact {
    retention: Retention,
    /// Revisions at sample times, oldest first.
    samples: VecDeque<i64>,
    next_sample: Duration,
    next_run: Duration,
    /// The revision that was compacted last.
    last: i64,
}

impl AutoCompact {
    fn new(retention: Retention, now: Duration) -> Self {
        let first_run = match retention {
            Retention::Periodic(period) => now + period,
            Retention::Revision(_) => now + REVISION_INTERVAL,
        };
        Self { retention, samples: VecDeque::new(), next_sample: now, next_run: first_run, last: 0 }
    }

    /// The time between two calls of `tick`.
    fn interval(&self) -> Duration {
        match self.retention {
            Retention::Periodic(period) => {
                (period.min(PERIODIC_INTERVAL_MAX) / SAMPLES).max(Duration::from_millis(1))
            }
            Retention::Revision(_) => REVISION_INTERVAL,
        }
    }

    /// The revision to compact now, if any.
    fn tick(&mut self, now: Duration, revision: i64, is_leader: bool) -> Option<i64> {
        let target = match self.retention {
            Retention::Periodic(period) => self.periodic(period, now, revision)?,
            Retention::Revision(kept) => {
                if now < self.next_run {
                    return None;
                }
                self.next_run = now + REVISION_INTERVAL;
                revision - kept
            }
        };
        if !is_leader || target <= 0 || target == self.last {
            return None;
        }
        Some(target)
    }

    /// Notes that history is compacted up to `revision`, by this proposal or an earlier one, so
    /// that it is not proposed again.
    fn done(&mut self, revision: i64) {
        self.last = revision;
    }

    fn periodic(&mut self, period: Duration, now: Duration, revision: i64) -> Option<i64> {
        if now < self.next_sample {
            return None;
        }
        let interval = self.interval();
        self.next_sample = now + interval;
        self.samples.push_back(revision);
        let samples_max =
            usize::try_from(period.div_duration_f64(interval).round() as u64).ok()? + 1;
        while self.samples.len() > samples_max {
            self.samples.pop_front();
        }
        if now < self.next_run {
            return None;
        }
        self.next_run = now + period.min(PERIODIC_INTERVAL_MAX);
        self.samples.front().copied()
    }
}

impl Upkeep {
    /// Compacts history by the configured rule until the member stops. Only the leader proposes;
    /// every member runs the rule, so a new leader has its samples.
    pub async fn compact_history(&self, door: &impl Door) {
        let Some(retention) = self.context.settings.retention else { return };
        let mut rule = AutoCompact::new(retention, self.context.clock.now());
        loop {
            let is_leader = door.is_leader();
            let revision = self.context.mvcc.current().revision;
            if let Some(revision) = rule.tick(self.context.clock.now(), revision, is_leader) {
                tracing::info!(revision, "starting auto compaction");
                let compaction = CompactionRequest { revision, physical: false };
                match door.propose(Command::Compaction(compaction)).await {
                    Ok(_) | Err(Refusal::Compacted) => {
                        tracing::info!(revision, "completed auto compaction");
                        rule.done(revision);
                    }
                    Err(error) => tracing::warn!(revision, %error, "failed auto compaction"),
                }
            }
            self.context.clock.sleep(rule.interval()).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_revision_rule_runs_every_five_minutes() {
        let mut auto = AutoCompact::new(Retention::Revision(10), Duration::ZERO);
        let at = |minutes| Duration::from_mins(minutes);
        assert_eq!(auto.tick(at(4), 100, true), None);
        assert_eq!(auto.tick(at(5), 100, true), Some(90));
        auto.done(90);
        assert_eq!(auto.tick(at(10), 100, true), None, "nothing new");
        assert_eq!(auto.tick(at(15), 105, false), None, "only the leader");
        assert_eq!(auto.tick(at(20), 105, true), Some(95));
        assert_eq!(AutoCompact::new(Retention::Revision(10), at(0)).tick(at(5), 8, true), None);
    }

    #[test]
    fn the_periodic_rule_compacts_what_was_current_a_period_ago() {
        let hour = Duration::from_secs(60 * 60);
        let mut auto = AutoCompact::new(Retention::Periodic(2 * hour), Duration::ZERO);
        let step = auto.interval();
        assert_eq!(step, hour / 10);
        let mut runs = Vec::new();
        for sample in 0..45_i32 {
            let now = step * u32::try_from(sample).unwrap();
            if let Some(revision) = auto.tick(now, i64::from(sample) + 1, true) {
                auto.done(revision);
                runs.push((sample, revision));
            }
        }
        assert_eq!(runs, [(20, 1), (30, 11), (40, 21)]);
    }
}
