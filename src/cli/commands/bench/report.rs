//! The results of a benchmark, as text or JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::histogram::Histogram;
use super::plan::Plan;
use crate::cli::size;

/// The results of one run. Latencies are in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Report {
    pub requests: f64,
    pub errors: f64,
    pub seconds: f64,
    pub per_second: f64,
    pub quantiles: [f64; 5],
    pub cpu_micros_per_request: Option<f64>,
    pub resident_bytes: Option<f64>,
    /// `Usage::own_bytes` before the run.
    pub own_before_bytes: Option<f64>,
    /// The most of it that was seen while the server answered.
    pub peak_bytes: Option<f64>,
    pub anonymous_bytes: Option<f64>,
    /// Size of the store's file.
    pub store_bytes: Option<f64>,
    /// For each member, the CPU time of its threads in microseconds per request, by their names.
    pub threads: Vec<BTreeMap<String, f64>>,
    pub first_error: Option<String>,
}

const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
const NAMES: [&str; 5] = ["p50", "p90", "p99", "p99.9", "max"];

impl Report {
    pub(super) fn new(latencies: &Histogram, elapsed: Duration) -> Self {
        let mut quantiles = [0.0; 5];
        for (slot, (_, share)) in quantiles.iter_mut().zip(QUANTILES) {
            *slot = latencies.quantile(share) as f64;
        }
        quantiles[4] = latencies.max() as f64;
        let (requests, seconds) = (latencies.count() as f64, elapsed.as_secs_f64());
        let per_second = if seconds > 0.0 { requests / seconds } else { 0.0 };
        Self { requests, seconds, per_second, quantiles, ..Self::default() }
    }

    /// The medians over all rounds; requests, errors and seconds are sums.
    pub(super) fn median(rounds: &[Self]) -> Self {
        let of = |pick: &dyn Fn(&Self) -> Option<f64>| median(rounds.iter().filter_map(pick));
        let sum = |pick: fn(&Self) -> f64| rounds.iter().map(pick).sum();
        let mut quantiles = [0.0; 5];
        for (index, slot) in quantiles.iter_mut().enumerate() {
            *slot = of(&|round| Some(round.quantiles[index])).unwrap_or_default();
        }
        Self {
            requests: sum(|round| round.requests),
            errors: sum(|round| round.errors),
            seconds: sum(|round| round.seconds),
            per_second: of(&|round| Some(round.per_second)).unwrap_or_default(),
            quantiles,
            cpu_micros_per_request: of(&|round| round.cpu_micros_per_request),
            resident_bytes: of(&|round| round.resident_bytes),
            anonymous_bytes: of(&|round| round.anonymous_bytes),
            first_error: rounds.iter().find_map(|round| round.first_error.clone()),
            ..Self::default()
        }
    }

    fn json(&self, endpoint: &str) -> Value {
        let millis = |nanos: f64| (nanos / 1e3).round() / 1e3;
        let latency: serde_json::Map<_, _> = NAMES
            .iter()
            .zip(self.quantiles)
            .map(|(name, nanos)| (name.to_string(), json!(millis(nanos))))
            .collect();
        json!({
            "endpoint": endpoint,
            "requests": self.requests as u64,
            "errors": self.errors as u64,
            "firstError": self.first_error,
            "seconds": self.seconds,
            "requestsPerSecond": self.per_second,
            "latencyMilliseconds": latency,
            "serverCpuMicrosecondsPerRequest": self.cpu_micros_per_request,
            "serverResidentBytes": self.resident_bytes,
            "serverAnonymousBytes": self.anonymous_bytes,
        })
    }
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some((values[middle - 1] + values[middle]) / 2.0),
    }
}

/// A number that a comparison puts side by side: its name, its value, and its format.
type Row = (&'static str, fn(&Report) -> Option<f64>, fn(f64) -> String);

const ROWS: [Row; 8] = [
    ("requests/s", |report| Some(report.per_second), |value| format!("{value:.0}")),
    ("p50", |report| Some(report.quantiles[0]), latency),
    ("p90", |report| Some(report.quantiles[1]), latency),
    ("p99", |report| Some(report.quantiles[2]), latency),
    ("p99.9", |report| Some(report.quantiles[3]), latency),
    ("max", |report| Some(report.quantiles[4]), latency),
    ("server CPU/request", |report| report.cpu_micros_per_request, |value| format!("{value:.1}µs")),
    ("server memory", |report| report.resident_bytes, |value| size::shown(value as u64)),
];

fn latency(nanos: f64) -> String {
    format!("{:.3}ms", nanos / 1e6)
}

/// The numbers of one server, or of two servers with their ratios.
pub(super) fn text(plan: &Plan, reports: &[(String, Report)]) -> String {
    let mut out = format!("{}\n", plan.title());
    let mut heads = vec![String::new()];
    heads.extend(reports.iter().map(|(endpoint, _)| endpoint.clone()));
    if reports.len() == 2 {
        heads.push("first/second".into());
    }
    let mut rows = vec![heads];
    for (name, pick, shown) in ROWS {
        let values: Vec<_> = reports.iter().map(|(_, report)| pick(report)).collect();
        let mut row = vec![name.to_string()];
        row.extend(values.iter().map(|value| value.map_or("-".into(), shown)));
        if let [Some(first), Some(second)] = values[..]
            && second > 0.0
        {
            row.push(format!("{:.2}", first / second));
        }
        rows.push(row);
    }
    out.push_str(&aligned(&rows, 1));
    for (endpoint, report) in reports {
        let (requests, seconds) = (report.requests, report.seconds);
        out.push_str(&format!("{endpoint}: {requests} requests in {seconds:.1}s"));
        if report.errors > 0.0 {
            let first = report.first_error.as_deref().unwrap_or_default();
            out.push_str(&format!(", {} errors, the first: {first}", report.errors));
        }
        out.push('\n');
    }
    out
}

/// Rows in columns, of which all but the first `texts` hold numbers.
pub(super) fn aligned(rows: &[Vec<String>], texts: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let cell = |(column, (text, width)): (usize, (&String, &usize))| match column < texts {
        true => format!("{text:width$}"),
        false => format!("{text:>width$}"),
    };
    let mut out = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).enumerate().map(cell).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

/// The content of `text` as one JSON object.
pub(super) fn json(plan: &Plan, reports: &[(String, Report)]) -> Value {
    let servers: Vec<_> = reports.iter().map(|(endpoint, report)| report.json(endpoint)).collect();
    let mut value = json!({ "benchmark": plan.json(), "servers": servers });
    if let [(_, first), (_, second)] = reports {
        let ratio = |pick: fn(&Report) -> Option<f64>| match (pick(first), pick(second)) {
            (Some(first), Some(second)) if second > 0.0 => json!(first / second),
            _ => Value::Null,
        };
        value["ratios"] = json!({
            "requestsPerSecond": ratio(|report| Some(report.per_second)),
            "p50": ratio(|report| Some(report.quantiles[0])),
            "p99": ratio(|report| Some(report.quantiles[2])),
            "serverCpuPerRequest": ratio(|report| report.cpu_micros_per_request),
            "serverResidentBytes": ratio(|report| report.resident_bytes),
        });
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_takes_medians() {
        let round = |per_second| Report { per_second, ..Report::default() };
        let rounds = [round(1.0), round(100.0), round(3.0)];
        assert_eq!(Report::median(&rounds).per_second, 3.0);
        assert_eq!(median([1.0, 2.0].into_iter()), Some(1.5));
    }
}
