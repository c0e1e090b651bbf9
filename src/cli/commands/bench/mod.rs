//! `bench`: measures any etcd endpoint, or compares two.
//!
//! A run is a [`Plan`]: a number of callers on a number of connections send one kind of request,
//! for a time or until a number of requests. Keys and the value are made before the clock starts,
//! and each caller has its own histogram, so that the load generator costs little more than its
//! gRPC calls. The server's metrics are read before and after a run, for its CPU time per request
//! and its memory.
//!
//! A comparison runs short rounds on two servers by turns. The server that is first in one round is
//! second in the next, and medians are shown, so that load from elsewhere affects both alike.
//!
//! ```text
//!   put, range, …  one plan, from flags ────────────┐
//!   ceiling        puts, by the threads' CPU time ──┤
//!   table          rows ─► rounds by turns ─────────┴─► load::run ─► Report
//!   check            └─► against a table that was saved
//! ```
//!
//! All keys are below one prefix. A server that holds other keys is refused, and the benchmark's own are
//! deleted in the end.

mod baseline;
mod bulk;
mod ceiling;
mod histogram;
mod keyspace;
mod load;
mod plan;
mod renewals;
mod report;
mod rows;
mod run;
mod scrape;
mod servers;
mod table;
mod watchers;

use std::time::Duration;

use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::format::Format;
use crate::cli::record::{Records, Value};
use crate::limits::{BENCH_PERCENT_MAX, BENCH_ROUNDS_MAX};
use baseline::Baseline;
use plan::{LoadKind, Plan, number};
use report::Report;
use rows::Sizing;
use servers::Servers;

pub(super) use scrape::usage;

/// Deadline of a request of a row without `--command-timeout`: answers of some hundred megabytes take
/// seconds.
const ROW_PATIENCE: Duration = Duration::from_secs(60);

/// Runs one of the benchmarks, which `what` names.
pub(super) fn run(what: &str, mut context: Context) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::error)?;
    let outcome = runtime.block_on(async {
        match (what, LoadKind::parse(what)) {
            ("table", _) => table(&mut context).await,
            ("ceiling", _) => ceiling(&mut context).await,
            ("check", _) => check(&mut context).await,
            (_, Some(kind)) => measure(&mut context, kind).await,
            (_, None) => Err(Failure::arguments(format!("there is no benchmark {what}"))),
        }
    });
    runtime.shutdown_background();
    outcome
}

fn rounds(context: &Context) -> Result<u64, Failure> {
    number(&context.flags, "rounds", 1..=BENCH_ROUNDS_MAX, 1)
}

async fn measure(context: &mut Context, kind: LoadKind) -> Outcome {
    let (plan, rounds) = (Plan::of(kind, &context.flags)?, rounds(context)?);
    let servers = Servers::of(context).await?;
    let reports = servers.cleaned_after(context, compare(context, &servers, &plan, rounds)).await?;
    let text = || report::text(&plan, &reports);
    show(context, text, &report::json(&plan, &reports));
    // What was refused each time has measured nothing.
    let has_failed = |report: &Report| report.requests == 0.0 && report.errors > 0.0;
    match reports.iter().any(|(_, report)| has_failed(report)) {
        true => Err(Failure::silent(Exit::Error)),
        false => Ok(()),
    }
}

/// The reports of a plan: that of one server, or the medians of two in turn.
async fn compare(
    context: &Context,
    servers: &Servers,
    plan: &Plan,
    rounds: u64,
) -> Result<Vec<(String, Report)>, Failure> {
    let names = servers.names();
    if let [only] = servers.all.as_slice() {
        let report = load::run(context, only, plan, &plan.title()).await?;
        return Ok(names.into_iter().zip([report]).collect());
    }
    let rounds_short = u32::try_from(rounds).unwrap_or(u32::MAX);
    let round = Plan {
        total: plan.total.div_ceil(rounds),
        duration: (plan.duration / rounds_short).max(Duration::from_millis(100)),
        ..plan.clone()
    };
    let mut reports = [Vec::new(), Vec::new()];
    for turn in 0..rounds {
        for side in servers.order(turn) {
            let config = &servers.all[side];
            let title = format!("{} round {}/{rounds}", config.endpoints[0], turn + 1);
            reports[side].push(load::run(context, config, &round, &title).await?);
        }
    }
    Ok(names.into_iter().zip(reports.iter().map(|reports| Report::median(reports))).collect())
}

/// The sizes of all rows. `scale` is that of a baseline; without one it is the flag's.
fn sizing(context: &Context, scale: Option<u64>) -> Result<Sizing, Failure> {
    let flags = &context.flags;
    let scale = match scale {
        Some(scale) => scale,
        None => number(flags, "scale", 1..=BENCH_PERCENT_MAX, 100)?,
    };
    let patience = match flags.changed("command-timeout") {
        true => flags.duration("command-timeout"),
        false => ROW_PATIENCE,
    };
    Ok(Sizing { scale, duration: plan::duration(flags)?, patience })
}

async fn table(context: &mut Context) -> Outcome {
    let (sizing, rounds) = (sizing(context, None)?, rounds(context)?);
    let names: Vec<String> =
        context.flags.strings("row").into_iter().filter(|name| !name.is_empty()).collect();
    let rows = table::select(&sizing, &names)?;
    let servers = Servers::of(context).await?;
    let work = table::measure(context, &servers, &rows, rounds);
    let table = servers.cleaned_after(context, work).await?;
    show(context, || table.text(&servers), &table.json(&servers, &sizing, rounds));
    Ok(())
}

async fn ceiling(context: &mut Context) -> Outcome {
    let plan = Plan::of(LoadKind::Put, &context.flags)?;
    let servers = Servers::of(context).await?;
    let work = ceiling::measure(context, &servers, &plan);
    let ceiling = servers.cleaned_after(context, work).await?;
    show(context, || ceiling.text(), &ceiling.json());
    Ok(())
}

async fn check(context: &mut Context) -> Outcome {
    let baseline = Baseline::read(context.path(0))?;
    let (sizing, rounds) = (sizing(context, Some(baseline.scale))?, rounds(context)?);
    let tolerance = number(&context.flags, "tolerance", 0..=BENCH_PERCENT_MAX, 0)?;
    if context.flags.string("compare").is_empty() {
        let text = "bench check needs --compare: ratios are to the server that it names";
        return Err(Failure::new(Exit::Usage, text));
    }
    let rows = table::select(&sizing, &baseline.rows())?;
    let servers = Servers::of(context).await?;
    let work = table::measure(context, &servers, &rows, rounds);
    let table = servers.cleaned_after(context, work).await?;
    let verdicts = baseline.judge(&table, tolerance);
    show(context, || verdicts.text(), &verdicts.json());
    if verdicts.are_good() { Ok(()) } else { Err(Failure::silent(Exit::Error)) }
}

fn show(context: &Context, text: impl FnOnce() -> String, json: &serde_json::Value) {
    match context.display.format {
        Format::Simple => context.printer.out(text()),
        Format::Json => context.printer.line(json.to_string()),
        _ => context.display.records(&Records::One(Value::from(json))),
    }
}
