//! A member's metrics, as Prometheus writes them.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    /// Values by series: the family and, in braces, its labels.
    series: BTreeMap<String, f64>,
}

impl Metrics {
    /// None if the text holds no series, as that of a server that is none of etcd's.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut series = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            if let Some((name, value)) = line.rsplit_once(' ')
                && let Ok(value) = value.parse()
            {
                series.insert(name.to_owned(), value);
            }
        }
        series.contains_key("etcd_server_has_leader").then_some(Self { series })
    }

    /// The value of a series without labels.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.series.get(name).copied()
    }

    /// The values of a family with one label, by that label's value.
    pub(super) fn labelled<'a>(
        &'a self,
        family: &'a str,
    ) -> impl Iterator<Item = (&'a str, f64)> + 'a {
        let all = self.series.range(family.to_owned()..);
        let of_family = move |(series, value): (&'a String, &'a f64)| {
            let labels = series.strip_prefix(family)?;
            let label = labels.strip_prefix('{').and_then(|rest| rest.split('"').nth(1));
            Some((label, *value))
        };
        all.map_while(of_family).filter_map(|(label, value)| Some((label?, value)))
    }

    /// The upper bound of the bucket that holds a quantile of a histogram without labels, and the
    /// number of observations.
    pub(super) fn quantile(&self, family: &str, quantile: f64) -> Option<(f64, f64)> {
        let count = self.value(&format!("{family}_count"))?;
        let name = format!("{family}_bucket");
        let mut buckets: Vec<(f64, f64)> = self
            .labelled(&name)
            .filter_map(|(bound, number)| Some((bound.parse().ok()?, number)))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (bound, _) = buckets.into_iter().find(|(_, below)| *below >= count * quantile)?;
        Some((bound, count))
    }

    /// The series for a bundle. Those whose labels are chosen by clients are left out.
    pub(super) fn text(&self) -> String {
        let own = self.series.iter().filter(|(series, _)| !series.contains("client_api_version"));
        own.map(|(series, value)| format!("{series} {value}\n")).collect()
    }

    /// For tests of checks.
    #[cfg(test)]
    pub(super) fn of(pairs: &[(&str, f64)]) -> Self {
        Self { series: pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_labels_and_quantiles_are_read() {
        let text = "# HELP x y\netcd_server_has_leader 1\nh_bucket{le=\"0.1\"} 90\n\
                    h_bucket{le=\"2\"} 99\nh_bucket{le=\"+Inf\"} 100\nh_count 100\nh_sum 7\n\
                    rusd_setting{name=\"a\"} 5\nrusd_settings 9\nnonsense\n";
        let metrics = Metrics::parse(text).unwrap();
        assert_eq!(metrics.value("etcd_server_has_leader"), Some(1.0));
        assert_eq!(metrics.labelled("rusd_setting").collect::<Vec<_>>(), [("a", 5.0)]);
        assert_eq!(metrics.quantile("h", 0.5), Some((0.1, 100.0)));
        assert_eq!(metrics.quantile("h", 0.99), Some((2.0, 100.0)));
        assert_eq!(metrics.quantile("none", 0.5), None);
        assert!(Metrics::parse("<html>").is_none());
    }
}
