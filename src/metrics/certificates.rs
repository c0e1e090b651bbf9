//! Seconds until certificates end, counted anew at each scrape. A certificate is known by what it is
//! for, such as `server`; a file with several counts by the one that ends first.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts, Registry};

use crate::clock;

#[derive(Clone)]
struct CertificateCollector(IntGaugeVec);

/// The ends in seconds since 1970, by what the certificates are for.
static ENDS: Mutex<BTreeMap<&'static str, i64>> = Mutex::new(BTreeMap::new());

static CERTIFICATES: LazyLock<CertificateCollector> = LazyLock::new(|| {
    let help = "Seconds until the first certificate in a file ends; negative after that.";
    let options = Opts::new("rusd_certificate_expiry_seconds", help);
    #[expect(clippy::expect_used, reason = "name and label are constants")]
    let family = IntGaugeVec::new(options, &["certificate"]).expect("metric definition");
    CertificateCollector(family)
});

impl Collector for CertificateCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = i64::try_from(clock::wall_nanos() / 1_000_000_000);
        for (name, end) in &*ENDS.lock() {
            self.0.with_label_values(&[*name]).set(end.saturating_sub(now.unwrap_or(i64::MAX)));
        }
        self.0.collect()
    }
}

pub(super) fn register(registry: &Registry) {
    drop(registry.register(Box::new(CERTIFICATES.clone())));
}

/// Notes when a certificate ends, in seconds since 1970.
pub fn set_certificate_end(name: &'static str, end: i64) {
    ENDS.lock().insert(name, end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_counts_down_and_below_zero() {
        let now = i64::try_from(clock::wall_nanos() / 1_000_000_000).unwrap();
        set_certificate_end("test-lasts", now + 1000);
        set_certificate_end("test-ended", now - 50);
        let text = super::super::render();
        let value = |name: &str| -> i64 {
            let series = format!("rusd_certificate_expiry_seconds{{certificate=\"{name}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&series));
            line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
        };
        assert!((1..=1000).contains(&value("test-lasts")), "{}", value("test-lasts"));
        assert!(value("test-ended") <= -50);
    }
}
