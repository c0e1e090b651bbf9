//! `bench check`: the ratios of CPU time per request against those of a table that was saved. A ratio is
//! to a reference server in the same run, so that it holds on another machine.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::report::aligned;
use super::table::Table;
use crate::cli::exit::{Exit, Failure};
use crate::limits::{BENCH_BASELINE_BYTES_MAX, BENCH_PERCENT_MAX};

/// What `bench table -o json` has printed, as far as it is compared.
#[derive(Deserialize)]
struct Saved {
    table: SavedTable,
    figures: Vec<SavedFigure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SavedTable {
    scale_percent: u64,
}

#[derive(Deserialize)]
struct SavedFigure {
    row: String,
    figure: String,
    guarded: bool,
    ratio: Option<f64>,
}

pub(super) struct Baseline {
    /// Percent of the usual sizes: the same as those of the baseline, since ratios depend on them.
    pub scale: u64,
    guarded: Vec<Guarded>,
}

#[derive(Clone, Debug, PartialEq)]
struct Guarded {
    row: String,
    figure: String,
    ratio: f64,
}

/// A guarded ratio, and what has become of it. None if it was not measured.
struct Verdict<'a> {
    of: &'a Guarded,
    now: Option<f64>,
    is_good: bool,
}

pub(super) struct Verdicts<'a> {
    all: Vec<Verdict<'a>>,
    tolerance: u64,
}

impl Baseline {
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let refused =
            |why: String| Failure::new(Exit::InvalidInput, format!("{}: {why}", path.display()));
        let mut text = String::new();
        let file = File::open(path).map_err(|error| refused(error.to_string()))?;
        file.take(BENCH_BASELINE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| refused(error.to_string()))?;
        Self::parse(&text).map_err(refused)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let saved: Saved = serde_json::from_str(text)
            .map_err(|error| format!("not what 'rusd bench table -o json' prints: {error}"))?;
        let guarded = saved.figures.into_iter().filter(|figure| figure.guarded);
        let guarded: Vec<_> = guarded
            .filter_map(|SavedFigure { row, figure, ratio, .. }| {
                let ratio = ratio.filter(|ratio| ratio.is_finite() && *ratio > 0.0)?;
                Some(Guarded { row, figure, ratio })
            })
            .collect();
        if guarded.is_empty() {
            return Err(
                "it has no ratio of CPU time; make it with --compare, against a server that \
                        shows its CPU time"
                    .to_owned(),
            );
        }
        let scale = saved.table.scale_percent;
        if !(1..=BENCH_PERCENT_MAX).contains(&scale) {
            return Err(format!("its scale of {scale} percent is out of range"));
        }
        Ok(Self { scale, guarded })
    }

    /// The rows that it holds ratios of.
    pub(super) fn rows(&self) -> Vec<String> {
        let mut names: Vec<_> = self.guarded.iter().map(|guarded| guarded.row.clone()).collect();
        names.dedup();
        names
    }

    /// Compares a table of these rows. `tolerance` is in percent.
    pub(super) fn judge<'a>(&'a self, table: &Table, tolerance: u64) -> Verdicts<'a> {
        let now = |of: &Guarded| {
            let is_it = |row: &str, figure: &str| row == of.row && figure == of.figure;
            let line = table.lines.iter().find(|line| is_it(line.row, line.figure.name))?;
            Some(line.ratio?.median)
        };
        let most = 1.0 + tolerance as f64 / 100.0;
        let verdict = |of: &'a Guarded| {
            let now = now(of);
            Verdict { of, now, is_good: now.is_some_and(|now| now <= of.ratio * most) }
        };
        Verdicts { all: self.guarded.iter().map(verdict).collect(), tolerance }
    }
}

impl Verdicts<'_> {
    pub(super) fn are_good(&self) -> bool {
        self.all.iter().all(|verdict| verdict.is_good)
    }

    pub(super) fn text(&self) -> String {
        let heads = ["row", "figure", "baseline", "now", "change", ""].map(str::to_owned);
        let mut rows = vec![heads.to_vec()];
        for Verdict { of, now, is_good } in &self.all {
            let change = now.map(|now| format!("{:+.0} %", (now / of.ratio - 1.0) * 100.0));
            rows.push(vec![
                of.row.clone(),
                of.figure.clone(),
                format!("{:.3}", of.ratio),
                now.map_or("-".to_owned(), |now| format!("{now:.3}")),
                change.unwrap_or_else(|| "-".to_owned()),
                if *is_good { "" } else { "FAIL" }.to_owned(),
            ]);
        }
        let verdict = if self.are_good() { "PASS" } else { "FAIL" };
        let tolerance = self.tolerance;
        format!(
            "{}{verdict}: ratios may be {tolerance} % larger than the baseline's\n",
            aligned(&rows, 2)
        )
    }

    pub(super) fn json(&self) -> Value {
        let verdict = |Verdict { of, now, is_good }: &Verdict<'_>| {
            json!({
                "row": of.row,
                "figure": of.figure,
                "baseline": of.ratio,
                "now": now,
                "passed": is_good,
            })
        };
        json!({
            "passed": self.are_good(),
            "tolerancePercent": self.tolerance,
            "figures": self.all.iter().map(verdict).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        Baseline::parse(text).err().unwrap_or_default()
    }

    #[test]
    fn only_guarded_ratios_are_read() {
        let figure = |row: &str, guarded: bool, ratio: Value| json!({ "row": row, "figure": "f", "guarded": guarded, "ratio": ratio });
        let saved = |figures: Vec<Value>| {
            json!({ "table": { "scalePercent": 50 }, "figures": figures }).to_string()
        };
        let good = figure("a", true, json!(0.5));
        let others = [figure("b", false, json!(1)), figure("c", true, Value::Null)];
        let text = saved([&[good], others.as_slice()].concat());
        let baseline = Baseline::parse(&text).ok().unwrap();
        assert_eq!((baseline.scale, baseline.rows()), (50, vec!["a".to_owned()]));
        assert!(refused(&saved(others.to_vec())).contains("--compare"));
        assert!(refused("{}").contains("not what 'rusd bench table -o json' prints"));
    }

    #[test]
    fn a_ratio_that_was_not_measured_is_no_pass() {
        let guarded = Guarded { row: "a".into(), figure: "f".into(), ratio: 0.5 };
        let baseline = Baseline { scale: 100, guarded: vec![guarded] };
        let verdicts = baseline.judge(&Table::default(), 10);
        assert!(!verdicts.are_good() && verdicts.text().contains("FAIL"));
    }
}
