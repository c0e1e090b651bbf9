//! Alarms by member. As in etcd, the series of one that was disarmed becomes 0 and stays; clients
//! choose the member's id, so the number of those that stay is bounded.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Opts, Registry};

use crate::limits::ALARM_SERIES_MAX;

struct AlarmSeries {
    family: IntGaugeVec,
    /// Member id and kind of each series.
    shown: Mutex<BTreeSet<(u64, String)>>,
}

static ALARMS: LazyLock<AlarmSeries> = LazyLock::new(AlarmSeries::new);

impl AlarmSeries {
    fn new() -> Self {
        let options = Opts::new("etcd_debugging_server_alarms", "1 for an active alarm.");
        #[expect(clippy::expect_used, reason = "name and labels are constants")]
        let family =
            IntGaugeVec::new(options, &["server_id", "alarm_type"]).expect("metric definition");
        Self { family, shown: Mutex::default() }
    }

    fn set<'a>(&self, active: impl Iterator<Item = (u64, &'a str)>) {
        let active: BTreeSet<_> = active.map(|(id, kind)| (id, kind.to_owned())).collect();
        let mut shown = self.shown.lock();
        shown.extend(active.iter().cloned());
        if shown.len() > ALARM_SERIES_MAX {
            self.family.reset();
            shown.clone_from(&active);
        }
        for alarm in &*shown {
            let (id, kind) = (format!("{:x}", alarm.0), alarm.1.as_str());
            let series = self.family.with_label_values(&[id.as_str(), kind]);
            series.set(i64::from(active.contains(alarm)));
        }
    }
}

pub(super) fn register(registry: &Registry) {
    drop(registry.register(Box::new(ALARMS.family.clone())));
}

/// Shows these alarms, by member id and etcd's name of the kind, and no others as active.
pub fn set_alarms<'a>(active: impl Iterator<Item = (u64, &'a str)>) {
    ALARMS.set(active);
}

#[cfg(test)]
mod tests {
    use prometheus::core::Collector;

    use super::*;

    #[test]
    fn a_disarmed_alarm_is_shown_as_zero_and_their_number_is_bounded() {
        let alarms = AlarmSeries::new();
        let values = || -> Vec<f64> {
            let families = alarms.family.collect();
            families[0].get_metric().iter().map(|it| it.get_gauge().get_value()).collect()
        };
        alarms.set([(7, "NOSPACE"), (8, "CORRUPT")].into_iter());
        assert_eq!(values(), [1.0, 1.0]);
        alarms.set([(8, "CORRUPT")].into_iter());
        assert_eq!(values().iter().sum::<f64>(), 1.0);
        assert_eq!(values().len(), 2);
        for id in 0..1000 {
            alarms.set([(id, "NOSPACE")].into_iter());
        }
        assert!(values().len() <= ALARM_SERIES_MAX);
        assert_eq!(values().iter().sum::<f64>(), 1.0);
    }
}
