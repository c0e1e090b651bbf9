//! Watchers under load: callers put values that begin with the time, and watchers read the time from the
//! events. A latency is the time from the start of a put to the arrival of its event.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;

use super::histogram::Histogram;
use super::plan::PREFIX;
use super::run::Run;
use crate::client::{Client, Error, Progress, WatchSpec, Watcher, prefix_end, rpc};
use crate::clock::{Clock as _, split_mix};
use crate::limits::BENCH_WATCH_WAIT;
use crate::pb::PutRequest;

/// Watchers stop when no event has arrived for this long after the last put.
const EVENTS_IDLE_MAX: Duration = Duration::from_secs(3);

/// Watches on one connection, which the server has made.
async fn watcher(client: Client, count: usize) -> Result<Watcher, Error> {
    let mut watcher = Watcher::new(&client, true);
    for _ in 0..count {
        watcher.add(WatchSpec {
            key: PREFIX.into(),
            range_end: prefix_end(PREFIX.as_bytes()).into(),
            ..WatchSpec::default()
        });
    }
    // A stream's requests are handled in their order, so that all watches exist once this is answered.
    // They have no start revision: one that came to exist behind the first put would miss its event.
    watcher.request_progress();
    let made = async {
        while let Some(batch) = watcher.next().await {
            match (batch.error(), batch.progress()) {
                (Some(error), _) => return Err(Error::Other(error)),
                (None, Progress::UpTo(_)) => return Ok(()),
                (None, Progress::No) => {}
            }
        }
        Err(Error::Other("the server has ended the watches".into()))
    };
    timeout(BENCH_WATCH_WAIT, made).await.unwrap_or(Err(Error::Deadline))?;
    Ok(watcher)
}

/// Makes the watches of a run. Called before its clock starts.
pub(super) async fn make(clients: &[Client], run: &Run) -> Result<Vec<Watcher>, Error> {
    let mut making = JoinSet::new();
    for (turn, client) in clients.iter().enumerate() {
        let count = (turn..run.plan.watchers).step_by(clients.len()).count();
        if count > 0 {
            making.spawn(watcher(client.clone(), count));
        }
    }
    let mut made = Vec::new();
    while let Some(watcher) = making.join_next().await {
        made.push(watcher.unwrap_or(Err(Error::Canceled))?);
    }
    Ok(made)
}

/// Puts until the plan is fulfilled and all events have arrived. None if the server stopped answering.
pub(super) async fn watch(
    clients: &[Client],
    watchers: Vec<Watcher>,
    run: &Arc<Run>,
) -> Option<Histogram> {
    let mut watching = JoinSet::new();
    for watcher in watchers {
        let run = Arc::clone(run);
        watching.spawn(async move { arrivals(watcher, &run).await });
    }
    let mut callers = JoinSet::new();
    for caller in 0..run.plan.clients {
        let (client, run) = (clients[caller % clients.len()].clone(), Arc::clone(run));
        callers.spawn(async move {
            let mut random = split_mix(caller as u64);
            while run.next_turn().await {
                random = split_mix(random);
                let stamp = format!("{:020}", run.clock.now().as_nanos());
                let value = [stamp.as_bytes(), &run.value].concat().into();
                let request = PutRequest { key: run.key(random), value, ..PutRequest::default() };
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
    for one in watching.join_all().await {
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
