//! `check`: whether a cluster sustains a workload, and how much memory a number of keys takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use super::bench::usage;
use super::signals::Signals;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::printer::{OnSignal, Progress, Unit};
use crate::cli::spec::Program;
use crate::client::{Client, Deadline, Error, prefix_end, rpc};
use crate::clock::{Clock as _, SystemClock};
use crate::go;
use crate::pb::{
    CompactionRequest, DefragmentRequest, DeleteRangeRequest, PutRequest, RangeRequest,
};

/// How long `check perf` writes, as in etcdctl.
const PERF_TIME: Duration = Duration::from_secs(60);
/// Deadline of one write, and of the deletion, the compaction and the defragmentation at the end.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The bounds of a good result, as in etcdctl.
const THROUGHPUT_SHARE_MIN: f64 = 0.9;
const SLOWEST_SECONDS_MAX: f64 = 0.5;
const DEVIATION_SECONDS_MAX: f64 = 0.1;

/// The workload that `--load` names: a rate or a number of keys, and the number of clients.
fn load(context: &Context, limits: [u64; 4]) -> Result<(u64, usize), Failure> {
    let index = match context.flags.bytes("load") {
        b"s" | b"small" => 0,
        b"m" | b"medium" => 1,
        b"l" | b"large" => 2,
        b"xl" | b"xLarge" => 3,
        other => {
            let text = [b"unknown load option ", other].concat();
            return Err(Failure::bytes(Exit::BadFeature, text));
        }
    };
    Ok((limits[index], [50, 200, 500, 1000][index]))
}

/// State that all writers share.
struct Writes {
    prefix: Bytes,
    key_bytes: usize,
    value: Bytes,
    /// Number of writes; with a rate they are spread over the time.
    total: u64,
    rate: Option<u64>,
    clock: Arc<SystemClock>,
    start: Duration,
    turns: AtomicU64,
    done: AtomicU64,
}

/// Duration of each write in seconds, and the texts of errors.
#[derive(Default)]
struct Results {
    seconds: Vec<f64>,
    errors: Vec<String>,
}

impl Writes {
    async fn write(&self, client: &Client) -> Results {
        let mut results = Results::default();
        loop {
            let turn = self.turns.fetch_add(1, Ordering::Relaxed);
            if turn >= self.total {
                return results;
            }
            if let Some(rate) = self.rate {
                let due = Duration::from_secs_f64(turn as f64 / rate as f64);
                let now = self.clock.now().saturating_sub(self.start);
                if now >= PERF_TIME {
                    return results;
                }
                sleep(due.saturating_sub(now)).await;
            }
            let begin = self.clock.now();
            let outcome = client.call(&rpc::PUT, self.put(), Deadline::after(CALL_TIMEOUT)).await;
            self.done.fetch_add(1, Ordering::Relaxed);
            results.seconds.push(self.clock.now().saturating_sub(begin).as_secs_f64());
            if let Err(error) = outcome {
                results.errors.push(error.to_string());
                if error.is_silence() {
                    // The server does not answer; further writes would each take as long to fail.
                    return results;
                }
            }
        }
    }

    fn put(&self) -> PutRequest {
        let mut key = self.prefix.to_vec();
        key.extend_from_slice(format!("{:020}", self.clock.random()).as_bytes());
        key.resize(self.prefix.len() + self.key_bytes, 0);
        PutRequest { key: key.into(), value: self.value.clone(), ..PutRequest::default() }
    }
}

async fn write_all(clients: &[Client], writes: &Arc<Writes>) -> Results {
    let mut tasks = JoinSet::new();
    for client in clients {
        let (client, writes) = (client.clone(), Arc::clone(writes));
        tasks.spawn(async move { writes.write(&client).await });
    }
    let mut all = Results::default();
    for one in tasks.join_all().await {
        all.seconds.extend(one.seconds);
        all.errors.extend(one.errors);
    }
    all
}

async fn connect(context: &mut Context, count: usize) -> Result<Vec<Client>, Failure> {
    let config = context.config().await?;
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(context.connect(config.clone()).await?);
    }
    Ok(clients)
}

fn prefix(context: &Context) -> Bytes {
    Bytes::copy_from_slice(context.flags.bytes("prefix"))
}

async fn refuse_used(client: &Client, prefix: &Bytes, quote: &[u8]) -> Outcome {
    let request = RangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix).into(),
        limit: 1,
        ..RangeRequest::default()
    };
    let response = client.call(&rpc::RANGE, request, Deadline::NONE).await?;
    if response.kvs.is_empty() {
        return Ok(());
    }
    let has = format!("prefix {} has keys. Delete with ", go::quote(prefix));
    let text = [has.as_bytes(), quote, b"etcdctl del --prefix ", prefix, quote, b" first"];
    Err(Failure::bytes(Exit::InvalidInput, text.concat()))
}

fn writes(context: &Context, total: u64, rate: Option<u64>, sizes: (usize, usize)) -> Arc<Writes> {
    Arc::new(Writes {
        prefix: prefix(context),
        key_bytes: sizes.0,
        value: vec![0; sizes.1].into(),
        total,
        rate,
        clock: Arc::clone(&context.clock),
        start: context.clock.now(),
        turns: AtomicU64::new(0),
        done: AtomicU64::new(0),
    })
}

pub(super) async fn perf(mut context: Context) -> Outcome {
    let (rate, count) = load(&context, [150, 1000, 8000, 15000])?;
    let clients = connect(&mut context, count).await?;
    refuse_used(&clients[0], &prefix(&context), b"'").await?;
    let mut signals = Signals::catch()?;
    let writes = writes(&context, rate * PERF_TIME.as_secs(), Some(rate), (256, 1024));
    // rusd's bar counts milliseconds, etcdctl's seconds.
    let ticks = if context.program == Program::Rusd { 1000 } else { 1 };
    let bar = bar(&context, PERF_TIME.as_secs() * ticks, (Unit::Time, OnSignal::Ignore), {
        let writes = Arc::clone(&writes);
        move || {
            let passed = writes.clock.now().saturating_sub(writes.start);
            (passed.as_secs_f64() * ticks as f64) as u64
        }
    });
    let results = tokio::select! {
        results = write_all(&clients, &writes) => results,
        () = signals.next() => {
            drop(bar);
            clean_up(&context, &clients[0]).await;
            return Err(Failure::silent(Exit::Error));
        }
    };
    drop(bar);
    let elapsed = context.clock.now().saturating_sub(writes.start).as_secs_f64();
    show_bar(&context, PERF_TIME.as_secs());
    clean_up(&context, &clients[0]).await;
    if context.flags.bool("auto-defrag") {
        defragment(&context, &clients[0]).await?;
    }
    judge(&context, &results, results.seconds.len() as f64 / elapsed, rate as f64)
}

fn judge(context: &Context, results: &Results, per_second: f64, wanted: f64) -> Outcome {
    let mut good = errors(context, results);
    let shown = per_second as u64 + 1;
    if per_second / wanted <= THROUGHPUT_SHARE_MIN {
        context.printer.line(format!("FAIL: Throughput too low: {shown} writes/s"));
        good = false;
    } else {
        context.printer.line(format!("PASS: Throughput is {shown} writes/s"));
    }
    let slowest = results.seconds.iter().copied().fold(0.0, f64::max);
    if slowest > SLOWEST_SECONDS_MAX {
        context.printer.line(format!("Slowest request took too long: {slowest:.6}s"));
        good = false;
    } else {
        context.printer.line(format!("PASS: Slowest request took {slowest:.6}s"));
    }
    let deviation = deviation(&results.seconds);
    if deviation > DEVIATION_SECONDS_MAX {
        context.printer.line(format!("Stddev too high: {deviation:.6}s"));
        good = false;
    } else {
        context.printer.line(format!("PASS: Stddev is {deviation:.6}s"));
    }
    context.printer.line(if good { "PASS" } else { "FAIL" });
    if good { Ok(()) } else { Err(Failure::silent(Exit::Error)) }
}

/// Prints the errors. Returns true if there are none.
fn errors(context: &Context, results: &Results) -> bool {
    if results.errors.is_empty() {
        return true;
    }
    context.printer.line("FAIL: too many errors");
    let mut distinct = results.errors.clone();
    distinct.sort();
    distinct.dedup();
    for error in distinct {
        let count = results.errors.iter().filter(|other| **other == error).count();
        context.printer.line(format!("FAIL: ERROR({error}) -> {count}"));
    }
    false
}

fn deviation(seconds: &[f64]) -> f64 {
    let count = seconds.len().max(1) as f64;
    let mean = seconds.iter().sum::<f64>() / count;
    (seconds.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count).sqrt()
}

pub(super) async fn data_scale(mut context: Context) -> Outcome {
    let (total, count) = load(&context, [10_000, 100_000, 1_000_000, 3_000_000])?;
    let clients = connect(&mut context, count).await?;
    refuse_used(&clients[0], &prefix(&context), b"").await?;
    let endpoint = clients[0].endpoints()[0].clone();
    let before = memory(&context, &endpoint, "before").await?;
    context.printer.line(format!(
        "Start data scale check for work load [{total} key-value pairs, 1024 bytes per key-value, \
         {count} concurrent clients]."
    ));
    let writes = writes(&context, total, None, (512, 512));
    let bar = bar(&context, total, (Unit::Items, OnSignal::End), {
        let writes = Arc::clone(&writes);
        move || writes.done.load(Ordering::Relaxed)
    });
    let results = write_all(&clients, &writes).await;
    drop(bar);
    show_bar(&context, total);
    let after = memory(&context, &endpoint, "after").await?;
    let revision = delete(&clients[0], &prefix(&context), Deadline::NONE).await?;
    if context.flags.bool("auto-compact") {
        compact(&context, &clients[0], revision).await?;
    }
    if context.flags.bool("auto-defrag") {
        defragment(&context, &clients[0]).await?;
    }
    if !errors(&context, &results) {
        return Err(Failure::silent(Exit::Error));
    }
    let used = (after - before) / (1024.0 * 1024.0);
    context.printer.line(format!("PASS: Approximate system memory used : {used:.2} MB."));
    Ok(())
}

async fn memory(context: &Context, endpoint: &str, when: &str) -> Result<f64, Failure> {
    match usage(endpoint).await.resident_bytes {
        Some(bytes) if bytes > 0.0 => Ok(bytes),
        _ => {
            context.printer.line(format!(
                "FAIL: Could not read process_resident_memory_bytes {when} the put operations."
            ));
            Err(Failure::silent(Exit::Error))
        }
    }
}

async fn clean_up(context: &Context, client: &Client) {
    match delete(client, &prefix(context), Deadline::after(CALL_TIMEOUT)).await {
        Ok(revision) if context.flags.bool("auto-compact") => {
            if let Err(failure) = compact(context, client, revision).await {
                let text = failure.message.unwrap_or_default();
                context.printer.err(format!("Error: {text}\n"));
            }
        }
        Ok(_) => {}
        Err(error) => context
            .printer
            .line(format!("FAIL: Cleanup failed during key deletion: ERROR({error})")),
    }
}

/// Deletes the keys of the check, and returns the revision of the deletion.
async fn delete(client: &Client, prefix: &Bytes, deadline: Deadline) -> Result<i64, Error> {
    let request = DeleteRangeRequest {
        key: prefix.clone(),
        range_end: prefix_end(prefix).into(),
        prev_kv: false,
    };
    let response = client.call(&rpc::DELETE_RANGE, request, deadline).await?;
    Ok(response.header.unwrap_or_default().revision)
}

async fn compact(context: &Context, client: &Client, revision: i64) -> Outcome {
    context.printer.line(format!("Compacting with revision {revision}"));
    let request = CompactionRequest { revision, physical: true };
    client.call(&rpc::COMPACT, request, Deadline::after(CALL_TIMEOUT)).await?;
    context.printer.line(format!("Compacted with revision {revision}"));
    Ok(())
}

async fn defragment(context: &Context, client: &Client) -> Outcome {
    for endpoint in client.endpoints() {
        let quoted = go::quote(endpoint.as_bytes());
        context.printer.line(format!("Defragmenting {quoted}"));
        let deadline = Deadline::after(CALL_TIMEOUT);
        client.call(&rpc::DEFRAGMENT, DefragmentRequest {}, deadline).await?;
        context.printer.line(format!("Defragmented {quoted}"));
    }
    Ok(())
}

/// A bar that is drawn until this is dropped.
struct Drawing {
    task: Option<AbortHandle>,
    _bar: Option<Progress>,
}

impl Drop for Drawing {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Draws progress on standard error: rusd's bar, or etcdctl's, also where that is no terminal.
fn bar(
    context: &Context,
    total: u64,
    (unit, on_signal): (Unit, OnSignal),
    position: impl Fn() -> u64 + Send + 'static,
) -> Drawing {
    let printer = context.printer.clone();
    if context.program == Program::Rusd {
        let bar = printer.progress(total, unit, "writing", on_signal);
        let bar = bar.moved_by(move |hand| hand.set(position().min(total)));
        return Drawing { task: None, _bar: Some(bar) };
    }
    let task = tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(200)).await;
            printer.err(bar_text(position().min(total), total, "\r"));
        }
    });
    Drawing { task: Some(task.abort_handle()), _bar: None }
}

/// The full bar of a check that is over; rusd's is gone then.
fn show_bar(context: &Context, total: u64) {
    if context.program != Program::Rusd {
        context.printer.err(bar_text(total, total, "\n"));
    }
}

fn bar_text(position: u64, total: u64, end: &str) -> String {
    const WIDTH: u64 = 60;
    let filled = (position * WIDTH).checked_div(total).unwrap_or(WIDTH) as usize;
    let percent = position as f64 * 100.0 / total.max(1) as f64;
    let bar = format!("{}{}", "-".repeat(filled), "_".repeat(WIDTH as usize - filled));
    format!("{position} / {total} [{bar}] {percent:.2}%{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_the_populations() {
        assert_eq!(deviation(&[1.0, 3.0]), 1.0);
        assert_eq!(deviation(&[]), 0.0);
    }
}
