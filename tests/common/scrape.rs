//! Reads a member's metrics.

use std::collections::BTreeMap;

use super::member::get;

/// What one scrape has shown.
#[derive(Default)]
pub struct Scrape {
    /// Families with their types.
    pub types: BTreeMap<String, String>,
    /// Series, labels included, with their values.
    pub series: BTreeMap<String, f64>,
}

impl Scrape {
    /// The metrics of the member at this host and port.
    pub fn of(address: &str) -> Self {
        let mut scrape = Self::default();
        for line in get(address, "/metrics").lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                scrape.types.insert(name.to_owned(), kind.to_owned());
            } else if !line.starts_with('#')
                && let Some((series, value)) = line.rsplit_once(' ')
                && let Ok(value) = value.parse()
            {
                scrape.series.insert(series.to_owned(), value);
            }
        }
        scrape
    }

    pub async fn of_async(address: &str) -> Self {
        let address = address.to_owned();
        tokio::task::spawn_blocking(move || Self::of(&address)).await.unwrap()
    }

    /// The series of a family, but for the buckets of a histogram.
    pub fn family(&self, name: &str) -> BTreeMap<&str, f64> {
        let is_its = |series: &str| {
            let of = series.split('{').next().unwrap();
            of == name
                || of.strip_prefix(name).is_some_and(|rest| ["_sum", "_count"].contains(&rest))
        };
        let series = self.series.iter().filter(|(series, _)| is_its(series));
        series.map(|(series, value)| (series.as_str(), *value)).collect()
    }

    /// Whether the family has another value than before, or a new series: some appear with their
    /// first cause. Where nothing was read before, a value must differ from zero.
    pub fn has_moved(&self, before: &Self, name: &str) -> bool {
        let is_first = before.series.is_empty();
        let before = before.family(name);
        let differs = |(series, value): (&str, f64)| match before.get(series) {
            Some(old) => *old != value,
            None => value != 0.0 || !is_first,
        };
        self.family(name).into_iter().any(differs)
    }
}
