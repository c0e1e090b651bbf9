//! `bench table`: every figure of one or two servers, measured in turn.

use serde_json::{Value, json};

use super::bulk;
use super::keyspace::{connect, fill};
use super::load;
use super::plan::Plan;
use super::report::{Report, aligned, median};
use super::rows::{Figure, Row, Sizing, Work, rows};
use super::servers::Servers;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure};
use crate::client::Config;

/// One figure of each server, and the ratio of the first one's to the second one's.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub row: &'static str,
    label: &'static str,
    pub figure: Figure,
    /// The medians over all rounds.
    values: Vec<Option<f64>>,
    /// None without a second server, and where one of them does not publish the figure.
    pub ratio: Option<Ratio>,
}

/// The ratios of all rounds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ratio {
    pub median: f64,
    least: f64,
    most: f64,
}

#[derive(Default)]
pub(super) struct Table {
    pub lines: Vec<Line>,
    /// Requests that failed.
    notes: Vec<String>,
}

/// The rows with these names, in their usual order; all of them if no name is given.
pub(super) fn select(sizing: &Sizing, names: &[String]) -> Result<Vec<Row>, Failure> {
    let all = rows(sizing);
    if let Some(unknown) = names.iter().find(|name| all.iter().all(|row| row.name != **name)) {
        let known: Vec<_> = all.iter().map(|row| row.name).collect();
        let text = format!("there is no row {unknown}; rows are {}", known.join(", "));
        return Err(Failure::new(Exit::Usage, text));
    }
    let is_wanted = |row: &Row| names.is_empty() || names.iter().any(|name| name == row.name);
    Ok(all.into_iter().filter(is_wanted).collect())
}

/// Measures the rows, each with all of its rounds before the next.
pub(super) async fn measure(
    context: &Context,
    servers: &Servers,
    rows: &[Row],
    rounds: u64,
) -> Result<Table, Failure> {
    let mut table = Table { lines: Vec::new(), notes: Vec::new() };
    for row in rows {
        let rounds = if row.is_once { 1 } else { rounds };
        let reports = measure_row(context, servers, row, rounds).await?;
        for (config, reports) in servers.all.iter().zip(&reports) {
            let errors: f64 = reports.iter().map(|report| report.errors).sum();
            let first = reports.iter().find_map(|report| report.first_error.as_deref());
            if let Some(first) = first {
                let endpoints = config.endpoints.join(",");
                let name = row.name;
                table
                    .notes
                    .push(format!("{name}, {endpoints}: {errors} errors, the first: {first}"));
            }
        }
        table.lines.extend(row.figures.iter().map(|figure| line(row, figure, &reports)));
    }
    Ok(table)
}

/// The reports of each server's rounds.
async fn measure_row(
    context: &Context,
    servers: &Servers,
    row: &Row,
    rounds: u64,
) -> Result<Vec<Vec<Report>>, Failure> {
    let mut reports = vec![Vec::new(); servers.all.len()];
    if let Work::Save(plan) | Work::Load(plan @ Plan { is_filled: true, .. }) = &row.work {
        for config in &servers.all {
            let clients = connect(context, config, plan.connections).await?;
            fill(context, &clients, plan, plan.patience).await?;
        }
    }
    for turn in 0..rounds {
        for side in servers.order(turn) {
            let config = &servers.all[side];
            let title = format!("{} {}/{rounds} {}", row.name, turn + 1, config.endpoints[0]);
            if matches!(row.work, Work::Fill(_)) {
                servers.clean(context, config).await?;
            }
            let mut report = round(context, config, row, &title).await?;
            if report.requests == 0.0 && !matches!(row.work, Work::Idle) {
                let why = report.first_error.unwrap_or_default();
                let text = format!("{}: no request has succeeded: {why}", title);
                return Err(Failure::error(text));
            }
            // Memory that an earlier round has taken is still above what was there before the row.
            let first: Option<&Report> = reports[side].first();
            if let Some(before) = first.and_then(|report| report.own_before_bytes) {
                report.own_before_bytes = Some(before);
            }
            reports[side].push(report);
        }
    }
    if !matches!(row.work, Work::Idle) {
        for config in &servers.all {
            servers.clean(context, config).await?;
        }
    }
    Ok(reports)
}

async fn round(
    context: &Context,
    config: &Config,
    row: &Row,
    title: &str,
) -> Result<Report, Failure> {
    match &row.work {
        Work::Idle => Ok(bulk::idle(config).await),
        Work::Load(plan) => load::run(context, config, plan, title).await,
        Work::Fill(plan) => bulk::filled(context, config, plan).await,
        Work::Save(plan) => bulk::saved(context, config, plan).await,
    }
}

fn line(row: &Row, figure: &Figure, reports: &[Vec<Report>]) -> Line {
    let values = |reports: &Vec<Report>| reports.iter().map(|one| figure.of(one)).collect();
    let all: Vec<Vec<Option<f64>>> = reports.iter().map(values).collect();
    let ratio = match all.as_slice() {
        [first, second] => Ratio::of(first, second),
        _ => None,
    };
    Line {
        row: row.name,
        label: row.label,
        figure: figure.clone(),
        values: all.iter().map(|values| median(values.iter().copied().flatten())).collect(),
        ratio,
    }
}

impl Ratio {
    /// The ratios of the rounds of two servers; rounds in which one has no value are left out.
    fn of(first: &[Option<f64>], second: &[Option<f64>]) -> Option<Self> {
        let pairs =
            first.iter().zip(second).filter_map(|(first, second)| Some(((*first)?, (*second)?)));
        let ratios: Vec<f64> = pairs
            .filter(|(first, second)| *first >= 0.0 && *second > 0.0)
            .map(|(first, second)| first / second)
            .collect();
        Some(Self {
            median: median(ratios.iter().copied())?,
            least: ratios.iter().copied().min_by(f64::total_cmp)?,
            most: ratios.iter().copied().max_by(f64::total_cmp)?,
        })
    }
}

impl Table {
    pub(super) fn text(&self, servers: &Servers) -> String {
        let is_pair = servers.all.len() == 2;
        let mut heads = vec!["row".to_owned(), "figure".to_owned()];
        heads.extend(servers.names());
        if is_pair {
            heads.extend(["first/second", "spread"].map(str::to_owned));
        }
        let mut all = vec![heads];
        for line in &self.lines {
            let mut cells = vec![line.row.to_owned(), line.figure.name.to_owned()];
            let shown =
                |value: &Option<f64>| value.map_or("-".into(), |it| line.figure.unit.shown(it));
            cells.extend(line.values.iter().map(shown));
            if is_pair {
                let told = |ratio: Ratio| {
                    let spread = format!("{:.2} to {:.2}", ratio.least, ratio.most);
                    [format!("{:.2}", ratio.median), spread]
                };
                cells.extend(line.ratio.map_or(["-".into(), "-".into()], told));
            }
            all.push(cells);
        }
        let mut out = aligned(&all, 2);
        self.notes.iter().for_each(|note| out.push_str(&format!("{note}\n")));
        out
    }

    pub(super) fn json(&self, servers: &Servers, sizing: &Sizing, rounds: u64) -> Value {
        let figure = |line: &Line| {
            json!({
                "row": line.row,
                "label": line.label,
                "figure": line.figure.name,
                "unit": line.figure.unit.name(),
                "guarded": line.figure.is_guarded(),
                "values": line.values,
                "ratio": line.ratio.map(|ratio| ratio.median),
                "ratioMin": line.ratio.map(|ratio| ratio.least),
                "ratioMax": line.ratio.map(|ratio| ratio.most),
            })
        };
        json!({
            "table": {
                "servers": servers.names(),
                "rounds": rounds,
                "durationSeconds": sizing.duration.as_secs_f64(),
                "scalePercent": sizing.scale,
            },
            "figures": self.lines.iter().map(figure).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_those_of_rounds() {
        let first = [Some(1.0), Some(4.0), None, Some(9.0), Some(1.0)];
        let second = [Some(2.0), Some(2.0), Some(1.0), Some(3.0), Some(0.0)];
        let ratio = Ratio::of(&first, &second).unwrap();
        assert_eq!((ratio.median, ratio.least, ratio.most), (2.0, 0.5, 3.0));
        assert_eq!(Ratio::of(&[None], &[Some(1.0)]), None);
    }
}
