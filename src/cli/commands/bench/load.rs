//! The load generator: concurrent callers and the requests that they send.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::histogram::Histogram;
use super::plan::{LoadKind, PREFIX, Plan};
use super::report::Report;
use super::scrape::{Usage, usage_of_all};
use crate::cli::context::Context;
use crate::cli::exit::Failure;
use crate::cli::explain::explain;
use crate::cli::printer::{OnSignal, Progress, Unit};
use crate::client::{Client, Config, Deadline, Error, WatchSpec, Watcher, prefix_end, rpc};
use crate::clock::{Clock, SystemClock, split_mix};
use crate::go;
use crate::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::request_op::Request;
use crate::pb::{
    Compare, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// TTL of the leases that the benchmark grants; it revokes them after the run.
const LEASE_SECONDS: i64 = 600;
/// Watchers stop when no event has arrived for this long after the last put.
const EVENTS_IDLE_MAX: Duration = Duration::from_secs(3);

/// State that all callers of a run share.
struct Run {
    plan: Plan,
    keys: Vec<Bytes>,
    value: Bytes,
    clock: Arc<SystemClock>,
    start: Duration,
    sent: AtomicU64,
    done: AtomicU64,
    errors: AtomicU64,
    first_error: Mutex<Option<String>>,
    leases: Mutex<Vec<i64>>,
    /// Number of events that must arrive; `u64::MAX` until all puts are done.
    expected: AtomicU64,
    /// Deadline of a single request.
    patience: Duration,
    /// Time of the latest answer to any caller, in nanoseconds.
    last_answer: AtomicU64,
    /// Notified when no caller was answered for `patience`. The run then ends: the server is gone.
    server_gone: Notify,
    /// Arrival of the latest event, in nanoseconds.
    last_arrival: AtomicU64,
}

/// Runs a plan against the endpoints of `config`.
pub(super) async fn run(
    context: &Context,
    config: &Config,
    plan: &Plan,
    title: &str,
) -> Result<Report, Failure> {
    let clients = connect(context, config, plan.connections).await?;
    let value = (0..plan.value_bytes as u64).map(|at| b'a' + (split_mix(at) % 26) as u8).collect();
    let mut run = Run {
        keys: (0..plan.keys).map(|index| plan.key(index)).collect(),
        value,
        clock: Arc::clone(&context.clock),
        start: Duration::ZERO,
        sent: AtomicU64::new(0),
        done: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        first_error: Mutex::new(None),
        leases: Mutex::default(),
        expected: AtomicU64::new(u64::MAX),
        patience: context.flags.duration("command-timeout"),
        last_answer: AtomicU64::new(0),
        server_gone: Notify::new(),
        last_arrival: AtomicU64::new(0),
        plan: plan.clone(),
    };
    prepare(&clients, &run).await.map_err(|error| match error {
        error if error.is_silence() => no_answer(config, &run),
        error => error.into(),
    })?;
    let before = usage_of_all(&config.endpoints).await;
    run.start = run.clock.now();
    let run = Arc::new(run);
    let progress = progress(context, &run, title);
    run.answered();
    let latencies = match plan.kind {
        LoadKind::Watch => watch(&clients, &run).await,
        _ => call(&clients, &run).await,
    };
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
    let after = usage_of_all(&config.endpoints).await;
    revoke(&clients, &run).await;
    let mut report = Report::new(&latencies, elapsed);
    report.errors = run.errors.load(Ordering::Relaxed) as f64;
    report.first_error = run.first_error.lock().clone();
    account(&mut report, before, after, run.sent.load(Ordering::Relaxed));
    Ok(report)
}

fn no_answer(config: &Config, run: &Run) -> Failure {
    let (endpoints, time) = (config.endpoints.join(","), go::duration(run.patience));
    let done = run.done.load(Ordering::Relaxed);
    Failure::error(format!("no answer from {endpoints} for {time}, after {done} requests"))
}

/// Opens `count` connections. Each has a single endpoint, so that they spread over the endpoints
/// evenly.
async fn connect(context: &Context, config: &Config, count: usize) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::new();
    for connection in 0..count {
        let mut config = config.clone();
        let turn = connection % config.endpoints.len();
        config.endpoints.rotate_left(turn);
        config.endpoints.truncate(1);
        clients.push(context.connect(config).await?);
    }
    Ok(clients)
}

fn account(report: &mut Report, before: Usage, after: Usage, sent: u64) {
    if let (Some(first), Some(last)) = (before.cpu_seconds, after.cpu_seconds)
        && sent > 0
    {
        report.cpu_micros_per_request = Some((last - first) * 1e6 / sent as f64);
    }
    report.resident_bytes = after.resident_bytes;
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

/// Work before the clock starts: puts the keys that reads find, and opens the connections.
async fn prepare(clients: &[Client], run: &Run) -> Result<(), Error> {
    if matches!(run.plan.kind, LoadKind::Range | LoadKind::Txn) {
        fill(clients, run).await?;
    }
    // The first call of a connection pays for dialling.
    for client in clients {
        let request = RangeRequest { key: PREFIX.into(), ..RangeRequest::default() };
        client.call(&rpc::RANGE, request, run.deadline()).await?;
    }
    Ok(())
}

/// Puts every key once, so that reads return rows.
async fn fill(clients: &[Client], run: &Run) -> Result<(), Error> {
    const OPS: usize = 100;
    for (turn, keys) in run.keys.chunks(OPS).enumerate() {
        let success = keys.iter().map(|key| op(run.put(key.clone()))).collect();
        let request = TxnRequest { success, ..TxnRequest::default() };
        let client = &clients[turn % clients.len()];
        client.call(&rpc::TXN, request, run.deadline()).await?;
    }
    Ok(())
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
    while run.next_turn().await {
        random = split_mix(random);
        let start = run.clock.now();
        match run.request(&client, random).await {
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

impl Run {
    /// Waits until the next request is due. Returns false when the plan is fulfilled.
    async fn next_turn(&self) -> bool {
        let turn = self.sent.fetch_add(1, Ordering::Relaxed);
        let now = self.clock.now().saturating_sub(self.start);
        let over = match self.plan.total {
            0 => now >= self.plan.duration,
            total => turn >= total,
        };
        if over {
            self.sent.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        if let Some(pause) =
            Duration::from_secs(1).checked_mul(u32::try_from(turn).unwrap_or(u32::MAX))
            && self.plan.rate > 0
        {
            let due = pause.div_f64(self.plan.rate as f64);
            sleep(due.saturating_sub(now)).await;
        }
        true
    }

    fn failed(&self, error: &Error) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.first_error.lock().get_or_insert_with(|| explain(error).text);
        if !error.is_silence() {
            return self.answered();
        }
        let answered = Duration::from_nanos(self.last_answer.load(Ordering::Relaxed));
        if self.clock.now().saturating_sub(answered) >= self.patience {
            self.server_gone.notify_one();
        }
    }

    fn answered(&self) {
        let now = u64::try_from(self.clock.now().as_nanos()).unwrap_or(u64::MAX);
        self.last_answer.fetch_max(now, Ordering::Relaxed);
    }

    fn deadline(&self) -> Deadline {
        Deadline::after(self.patience)
    }

    /// The results of all tasks. None if the server stopped answering before they ended.
    async fn join_all_or_gone<T: 'static>(&self, mut callers: JoinSet<T>) -> Option<Vec<T>> {
        let mut all = Vec::with_capacity(callers.len());
        loop {
            tokio::select! {
                one = callers.join_next() => match one {
                    Some(Ok(one)) => all.push(one),
                    Some(Err(_)) => {}
                    None => return Some(all),
                },
                () = self.server_gone.notified() => return None,
            }
        }
    }

    fn put(&self, key: Bytes) -> PutRequest {
        PutRequest { key, value: self.value.clone(), ..PutRequest::default() }
    }

    async fn request(&self, client: &Client, random: u64) -> Result<(), Error> {
        let index = (random % self.keys.len() as u64) as usize;
        let key = self.keys[index].clone();
        match self.plan.kind {
            LoadKind::Put | LoadKind::Watch => {
                client.call(&rpc::PUT, self.put(key), self.deadline()).await?;
            }
            LoadKind::Range => {
                let range_end = match self.plan.range_keys {
                    1 => Bytes::new(),
                    _ => prefix_end(PREFIX.as_bytes()).into(),
                };
                let request = RangeRequest {
                    key,
                    range_end,
                    limit: self.plan.range_keys as i64,
                    serializable: self.plan.serializable,
                    ..RangeRequest::default()
                };
                client.call(&rpc::RANGE, request, self.deadline()).await?;
            }
            LoadKind::Txn => {
                let compare = Compare {
                    result: CompareResult::Greater.into(),
                    target: CompareTarget::Mod.into(),
                    key: key.clone(),
                    range_end: Bytes::new(),
                    target_union: Some(TargetUnion::ModRevision(0)),
                };
                let (compare, success) = (vec![compare], vec![op(self.put(key))]);
                let request = TxnRequest { compare, success, failure: Vec::new() };
                client.call(&rpc::TXN, request, self.deadline()).await?;
            }
            LoadKind::Lease => {
                let request = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
                let lease = client.call(&rpc::LEASE_GRANT, request, self.deadline()).await?;
                self.leases.lock().push(lease.id);
            }
        }
        Ok(())
    }
}

fn op(put: PutRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestPut(put)) }
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
                if matches!(revoked, Err(Error::Deadline)) {
                    break;
                }
            }
        });
    }
    tasks.join_all().await;
}

/// Callers put values that begin with the time, and watchers read the time from the events. A
/// latency is the time from the start of a put to the arrival of its event.
async fn watch(clients: &[Client], run: &Arc<Run>) -> Option<Histogram> {
    let mut watchers = JoinSet::new();
    for (turn, client) in clients.iter().enumerate() {
        let count = (turn..run.plan.watchers).step_by(clients.len()).count();
        let mut watcher = Watcher::new(client, true);
        for _ in 0..count {
            let spec = WatchSpec {
                key: PREFIX.into(),
                range_end: prefix_end(PREFIX.as_bytes()).into(),
                ..WatchSpec::default()
            };
            watcher.add(spec);
        }
        let run = Arc::clone(run);
        watchers.spawn(async move { arrivals(watcher, &run).await });
    }
    // The watches have no start revision. They must be created before the first put, or they miss
    // events that the run waits for.
    sleep(Duration::from_millis(200)).await;
    let mut callers = JoinSet::new();
    for caller in 0..run.plan.clients {
        let (client, run) = (clients[caller % clients.len()].clone(), Arc::clone(run));
        callers.spawn(async move {
            let mut random = split_mix(caller as u64);
            while run.next_turn().await {
                random = split_mix(random);
                let key = run.keys[(random % run.keys.len() as u64) as usize].clone();
                let stamp = format!("{:020}", run.clock.now().as_nanos());
                let value = [stamp.as_bytes(), &run.value].concat().into();
                let request = PutRequest { key, value, ..PutRequest::default() };
                match client.call(&rpc::PUT, request, run.deadline()).await {
                    Ok(_) => run.answered(),
                    Err(error) => run.failed(&error),
                }
            }
        });
    }
    run.join_all_or_gone(callers).await?;
    let puts = run.sent.load(Ordering::Relaxed) - run.errors.load(Ordering::Relaxed);
    run.expected.store(puts * run.plan.watchers as u64, Ordering::Relaxed);
    let mut all = Histogram::new();
    for one in watchers.join_all().await {
        all.merge(&one);
    }
    Some(all)
}

async fn arrivals(mut watcher: Watcher, run: &Run) -> Histogram {
    const TICK: Duration = Duration::from_millis(20);
    let mut latencies = Histogram::new();
    let mut quiet = Duration::ZERO;
    while quiet < EVENTS_IDLE_MAX
        && run.done.load(Ordering::Relaxed) < run.expected.load(Ordering::Relaxed)
    {
        let batch = match timeout(TICK, watcher.next()).await {
            Ok(Some(batch)) => batch,
            Ok(None) => break,
            // While puts are still running, silence only means that they are slow.
            Err(_) if run.expected.load(Ordering::Relaxed) == u64::MAX => continue,
            Err(_) => {
                quiet += TICK;
                continue;
            }
        };
        quiet = Duration::ZERO;
        let now = run.clock.now();
        for kv in batch.events.iter().filter_map(|event| event.kv.as_ref()) {
            let stamp = kv.value.get(..20).and_then(|stamp| std::str::from_utf8(stamp).ok());
            if let Some(sent) = stamp.and_then(|stamp| stamp.parse().ok()) {
                let took = now.saturating_sub(Duration::from_nanos(sent));
                latencies.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                run.done.fetch_add(1, Ordering::Relaxed);
            }
        }
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        run.last_arrival.fetch_max(now, Ordering::Relaxed);
    }
    latencies
}
