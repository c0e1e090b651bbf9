//! The load generator: concurrent callers, and what their requests cost the server.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::histogram::Histogram;
use super::keyspace::{connect, fill};
use super::plan::{LoadKind, PREFIX, Plan};
use super::report::Report;
use super::run::Run;
use super::scrape::{Usage, sum, usage_of_each};
use super::watchers;
use crate::cli::context::Context;
use crate::cli::exit::Failure;
use crate::cli::printer::{OnSignal, Progress, Unit};
use crate::client::{Client, Config, Error, Watcher, rpc};
use crate::clock::{Clock, split_mix};
use crate::go;
use crate::limits::BENCH_MEMORY_LOOK;
use crate::pb::{LeaseRevokeRequest, RangeRequest};

/// Runs a plan against the endpoints of `config`.
pub(super) async fn run(
    context: &Context,
    config: &Config,
    plan: &Plan,
    title: &str,
) -> Result<Report, Failure> {
    let clients = connect(context, config, plan.connections).await?;
    let mut run = Run::new(plan, Arc::clone(&context.clock));
    let watchers = prepare(context, &clients, &run).await.map_err(|error| match error {
        error if error.is_silence() => no_answer(config, &run),
        error => error.into(),
    })?;
    let before = usage_of_each(&config.endpoints).await;
    run.start = run.clock.now();
    let run = Arc::new(run);
    let progress = progress(context, &run, title);
    run.answered();
    let look = Look::start(plan, config);
    let latencies = match plan.kind {
        LoadKind::Watch => watchers::watch(&clients, watchers, &run).await,
        _ => call(&clients, &run).await,
    };
    let peak = look.end();
    let Some(latencies) = latencies else {
        drop(progress);
        return Err(no_answer(config, &run));
    };
    let end = match run.last_arrival.load(Ordering::Relaxed) {
        0 => run.clock.now(),
        nanos => Duration::from_nanos(nanos),
    };
    let elapsed = end.saturating_sub(run.start);
    drop(progress);
    let after = usage_of_each(&config.endpoints).await;
    revoke(&clients, &run).await;
    let mut report = Report::new(&latencies, elapsed);
    report.errors = run.errors.load(Ordering::Relaxed) as f64;
    report.first_error = run.first_error.lock().clone();
    account(&mut report, &before, &after, run.sent.load(Ordering::Relaxed) as f64);
    report.peak_bytes =
        peak.zip(sum(&after, Usage::own_bytes)).map(|(peak, after)| peak.max(after));
    Ok(report)
}

fn no_answer(config: &Config, run: &Run) -> Failure {
    let (endpoints, time) = (config.endpoints.join(","), go::duration(run.plan.patience));
    let done = run.done.load(Ordering::Relaxed);
    Failure::error(format!("no answer from {endpoints} for {time}, after {done} requests"))
}

/// Enters what the members have used for a number of requests.
pub(super) fn account(report: &mut Report, before: &[Usage], after: &[Usage], requests: f64) {
    let micros = |first: f64, last: f64| (last - first) * 1e6 / requests;
    let cpu: fn(&Usage) -> Option<f64> = |usage| usage.cpu_seconds;
    if let (Some(first), Some(last)) = (sum(before, cpu), sum(after, cpu))
        && requests > 0.0
    {
        report.cpu_micros_per_request = Some(micros(first, last));
        let members = before.iter().zip(after);
        report.threads = members
            .map(|(before, after)| {
                let used = |(name, last): (&String, &f64)| {
                    let first = before.threads.get(name).copied().unwrap_or_default();
                    (name.clone(), micros(first, *last))
                };
                after.threads.iter().map(used).collect::<BTreeMap<_, _>>()
            })
            .collect();
    }
    report.own_before_bytes = sum(before, Usage::own_bytes);
    report.resident_bytes = sum(after, |usage| usage.resident_bytes);
    report.anonymous_bytes = sum(after, |usage| usage.anonymous_bytes);
}

/// Looks at the members' memory until it is ended.
struct Look {
    most: Arc<AtomicU64>,
    task: Option<tokio::task::AbortHandle>,
}

impl Look {
    fn start(plan: &Plan, config: &Config) -> Self {
        let most = Arc::new(AtomicU64::new(0));
        if !plan.sees_memory {
            return Self { most, task: None };
        }
        let (seen, endpoints) = (Arc::clone(&most), config.endpoints.clone());
        let task = tokio::spawn(async move {
            loop {
                let members = usage_of_each(&endpoints).await;
                if let Some(bytes) = sum(&members, Usage::own_bytes) {
                    seen.fetch_max(bytes as u64, Ordering::Relaxed);
                }
                sleep(BENCH_MEMORY_LOOK).await;
            }
        });
        Self { most, task: Some(task.abort_handle()) }
    }

    /// The most that was seen, if anything was.
    fn end(self) -> Option<f64> {
        self.task.as_ref()?.abort();
        Some(self.most.load(Ordering::Relaxed)).filter(|most| *most > 0).map(|most| most as f64)
    }
}

/// Draws a progress bar on a terminal. A run that lasts for a time shows how much of it has passed.
fn progress(context: &Context, run: &Arc<Run>, title: &str) -> Progress {
    let (total, unit) = match run.plan.total {
        0 => (millis(run.plan.duration).max(1), Unit::Time),
        total => (total, Unit::Items),
    };
    // The sizes, which follow the first comma, stand in the report.
    let title = title.split(',').next().unwrap_or_default();
    let bar = context.printer.progress(total, unit, title, OnSignal::End);
    let run = Arc::clone(run);
    bar.moved_by(move |hand| {
        let done = run.done.load(Ordering::Relaxed);
        if unit != Unit::Time {
            return hand.set(done);
        }
        let elapsed = run.clock.now().saturating_sub(run.start);
        let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
        hand.set(millis(elapsed));
        hand.say(format!("{done} done, {rate:.0}/s"));
    })
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Work before the clock starts: puts the keys that reads find, opens the connections, and what else
/// callers need, and makes the watches.
async fn prepare(context: &Context, clients: &[Client], run: &Run) -> Result<Vec<Watcher>, Error> {
    let plan = &run.plan;
    if matches!(plan.kind, LoadKind::Range | LoadKind::Txn) && !plan.is_filled {
        fill(context, clients, plan, plan.patience).await?;
    }
    // The first call of a connection pays for dialling.
    for client in clients {
        let request = RangeRequest { key: PREFIX.into(), ..RangeRequest::default() };
        client.call(&rpc::RANGE, request, run.deadline()).await?;
    }
    if plan.kind == LoadKind::KeepAlive {
        for caller in 0..plan.clients {
            let renewal = run.open_renewal(&clients[caller % clients.len()]).await?;
            run.renewals.lock().push(renewal);
        }
    }
    match plan.kind {
        LoadKind::Watch => watchers::make(clients, run).await,
        _ => Ok(Vec::new()),
    }
}

/// Runs all callers to the end of the plan. None if the server stopped answering.
async fn call(clients: &[Client], run: &Arc<Run>) -> Option<Histogram> {
    let mut callers = JoinSet::new();
    for caller in 0..run.plan.clients {
        let client = clients[caller % clients.len()].clone();
        callers.spawn(caller_loop(client, Arc::clone(run), caller as u64));
    }
    let mut all = Histogram::new();
    for one in run.join_all_or_gone(callers).await? {
        all.merge(&one);
    }
    Some(all)
}

async fn caller_loop(client: Client, run: Arc<Run>, caller: u64) -> Histogram {
    let mut latencies = Histogram::new();
    let mut random = split_mix(caller.wrapping_mul(0x9e37_79b9).wrapping_add(run.clock.random()));
    let mut renewal = run.renewals.lock().pop();
    while run.next_turn().await {
        random = split_mix(random);
        let start = run.clock.now();
        match run.request(&client, &mut renewal, random).await {
            Ok(()) => {
                run.answered();
                let took = run.clock.now().saturating_sub(start);
                latencies.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                run.done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => run.failed(&error),
        }
    }
    latencies
}

/// Revokes the leases that the run granted.
async fn revoke(clients: &[Client], run: &Arc<Run>) {
    let leases = std::mem::take(&mut *run.leases.lock());
    let share = leases.len().div_ceil(run.plan.clients).max(1);
    let mut tasks = JoinSet::new();
    for (turn, ids) in leases.chunks(share).enumerate() {
        let (client, ids) = (clients[turn % clients.len()].clone(), ids.to_vec());
        let run = Arc::clone(run);
        tasks.spawn(async move {
            for id in ids {
                // A lease whose revocation fails expires.
                let request = LeaseRevokeRequest { id };
                let revoked = client.call(&rpc::LEASE_REVOKE, request, run.deadline()).await;
                if matches!(revoked, Err(error) if error.is_silence()) {
                    break;
                }
            }
        });
    }
    tasks.join_all().await;
}
