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

mod histogram;
mod load;
mod plan;
mod report;
mod scrape;

use std::time::Duration;

use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::format::Format;
use crate::cli::record::{Records, Value};
use crate::go;
use plan::{LoadKind, Plan};
use report::Report;

pub(super) use scrape::usage;

pub(super) fn run(mut context: Context) -> Outcome {
    let plan = plan(&context)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::error)?;
    let outcome = runtime.block_on(measure(&mut context, plan));
    runtime.shutdown_background();
    outcome
}

fn plan(context: &Context) -> Result<Plan, Failure> {
    let flags = &context.flags;
    let kind = match context.arg(0) {
        b"put" => LoadKind::Put,
        b"range" => LoadKind::Range,
        b"txn" => LoadKind::Txn,
        b"watch" => LoadKind::Watch,
        b"lease" => LoadKind::Lease,
        b"" => return Err(Failure::arguments("bench needs put, range, txn, watch or lease")),
        other => {
            let text = format!("unknown benchmark {}", go::quote(other));
            return Err(Failure::arguments(text));
        }
    };
    let number = |name| u64::try_from(flags.int(name)).unwrap_or_default();
    let size = |name| usize::try_from(flags.int(name)).unwrap_or_default();
    let least_one = |name| size(name).max(1);
    Ok(Plan {
        kind,
        clients: least_one("clients"),
        connections: least_one("conns").min(least_one("clients")),
        key_bytes: least_one("key-size"),
        value_bytes: size("val-size"),
        keys: least_one("keys"),
        range_keys: least_one("range-size"),
        watchers: least_one("watchers"),
        serializable: flags.bool("serializable"),
        total: number("total"),
        duration: flags.duration("duration"),
        rate: number("rate"),
    })
}

async fn measure(context: &mut Context, plan: Plan) -> Outcome {
    let config = context.config().await?;
    if !matches!(context.display.format, Format::Simple | Format::Json)
        && !context.display.format.is_records()
    {
        let text = "bench prints as simple, json, yaml or jsonl only";
        return Err(Failure::new(Exit::BadFeature, text));
    }
    let other = context.flags.string("compare").to_string();
    if other.is_empty() {
        let title = plan.title();
        let endpoints = config.endpoints.join(",");
        let report = load::run(context, &config, &plan, &title).await?;
        return show(context, &plan, &[(endpoints, report)]);
    }
    let rounds = context.flags.int("rounds").max(1).unsigned_abs();
    let rounds_short = u32::try_from(rounds).unwrap_or(u32::MAX);
    let round = Plan {
        total: plan.total.div_ceil(rounds),
        duration: (plan.duration / rounds_short).max(Duration::from_millis(100)),
        ..plan.clone()
    };
    let mut second = config.clone();
    second.endpoints = other.split(',').map(str::to_string).collect();
    let servers = [config, second];
    let mut reports = [Vec::new(), Vec::new()];
    for turn in 0..rounds {
        let order = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            let title = format!("{} round {}/{rounds}", servers[side].endpoints[0], turn + 1);
            reports[side].push(load::run(context, &servers[side], &round, &title).await?);
        }
    }
    let medians: Vec<_> = servers
        .iter()
        .zip(&reports)
        .map(|(server, reports)| (server.endpoints.join(","), Report::median(reports)))
        .collect();
    show(context, &plan, &medians)
}

fn show(context: &Context, plan: &Plan, reports: &[(String, Report)]) -> Outcome {
    match context.display.format {
        Format::Simple => context.printer.out(report::text(plan, reports)),
        Format::Json => context.printer.line(report::json(plan, reports).to_string()),
        _ => {
            let record = Value::from(&report::json(plan, reports));
            context.display.records(&Records::One(record));
        }
    }
    Ok(())
}
