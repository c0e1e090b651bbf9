//! The keys of a benchmark: that they are put beside nobody else's, how many are put at once, and their
//! deletion.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::plan::{PREFIX, Plan};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::printer::{OnSignal, Unit};
use crate::client::{Client, Config, Deadline, Error, prefix_end, rpc};
use crate::clock::split_mix;
use crate::limits::BENCH_DELETE_KEYS;
use crate::pb::request_op::Request;
use crate::pb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

/// Transactions that put keys at the same time.
const WRITERS: usize = 16;
/// Puts of one such transaction: fewer than `--max-txn-ops` allows by default.
const FILL_OPS: usize = 100;
/// Bytes of one such transaction: fewer than `--max-request-bytes` allows by default, unless one value
/// is larger.
const FILL_BYTES: usize = 1 << 20;

/// Refuses a server that holds keys of others, unless `--force` is given: the load would delay those
/// who use them and take their disk.
pub(super) async fn refuse_used(context: &Context, client: &Client) -> Outcome {
    if context.flags.bool("force") {
        return Ok(());
    }
    let patience = context.flags.duration("command-timeout");
    for (key, range_end) in
        [(vec![0], PREFIX.as_bytes().to_vec()), (prefix_end(PREFIX.as_bytes()), vec![0])]
    {
        let request = RangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            limit: 1,
            keys_only: true,
            ..RangeRequest::default()
        };
        match client.call(&rpc::RANGE, request, Deadline::after(patience)).await {
            Ok(response) if response.kvs.is_empty() => {}
            Ok(_) => {
                let endpoint = client.endpoints().join(",");
                let text = format!(
                    "{endpoint} holds keys other than the benchmark's, whose users it would slow down. \
                     --force measures all the same"
                );
                return Err(Failure::new(Exit::InvalidInput, text));
            }
            // A user with rights to the benchmark's keys alone can harm no others.
            Err(error) if error.is_refusal() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The value of all keys of a plan.
pub(super) fn value(plan: &Plan) -> Bytes {
    (0..plan.value_bytes as u64).map(|at| b'a' + (split_mix(at) % 26) as u8).collect()
}

pub(super) fn put_op(put: PutRequest) -> RequestOp {
    RequestOp { request: Some(Request::RequestPut(put)) }
}

/// Puts every key of a plan once, in their order.
pub(super) async fn fill(
    context: &Context,
    clients: &[Client],
    plan: &Plan,
    patience: Duration,
) -> Result<(), Error> {
    let ops = (FILL_BYTES / (plan.key_bytes + plan.value_bytes).max(1)).clamp(1, FILL_OPS);
    let (value, plan) = (value(plan), Arc::new(plan.clone()));
    let next = Arc::new(AtomicU64::new(0));
    let bar = context.printer.progress(plan.keys as u64, Unit::Items, "filling", OnSignal::End);
    let (shown, total) = (Arc::clone(&next), plan.keys as u64);
    let _bar = bar.moved_by(move |hand| hand.set(shown.load(Ordering::Relaxed).min(total)));
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let client = clients[writer % clients.len()].clone();
        let (plan, next, value) = (Arc::clone(&plan), Arc::clone(&next), value.clone());
        writers.spawn(async move {
            loop {
                let from = next.fetch_add(ops as u64, Ordering::Relaxed) as usize;
                if from >= plan.keys {
                    return Ok(());
                }
                let puts = (from..plan.keys.min(from + ops)).map(|index| {
                    let key = plan.key(index);
                    put_op(PutRequest { key, value: value.clone(), ..PutRequest::default() })
                });
                let request = TxnRequest { success: puts.collect(), ..TxnRequest::default() };
                client.call(&rpc::TXN, request, Deadline::after(patience)).await?;
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        // Dropping the set ends the others. A task that was aborted or panicked has no outcome.
        written.unwrap_or(Err(Error::Canceled))?;
    }
    Ok(())
}

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

/// Whether the history of a cluster may be compacted behind the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum History {
    Keep,
    /// For a server that held nobody else's keys.
    Compact,
}

/// Deletes the keys of all benchmarks, some thousands at a time.
pub(super) async fn clear(client: &Client, history: History, patience: Duration) -> Outcome {
    let mut from = Bytes::from_static(PREFIX.as_bytes());
    let end = Bytes::from(prefix_end(PREFIX.as_bytes()));
    let mut revision = 0;
    loop {
        let page = RangeRequest {
            key: from.clone(),
            range_end: end.clone(),
            limit: BENCH_DELETE_KEYS,
            keys_only: true,
            ..RangeRequest::default()
        };
        let page = client.call(&rpc::RANGE, page, Deadline::after(patience)).await?;
        let Some(last) = page.kvs.last() else { break };
        let next: Bytes = [last.key.as_ref(), &[0]].concat().into();
        let request = DeleteRangeRequest { key: from, range_end: next.clone(), prev_kv: false };
        let deleted = client.call(&rpc::DELETE_RANGE, request, Deadline::after(patience)).await?;
        revision = deleted.header.unwrap_or_default().revision;
        // Pages go forward only, so that this ends also while another benchmark puts keys.
        from = next;
        if !page.more {
            break;
        }
    }
    if history == History::Compact && revision > 0 {
        let request = CompactionRequest { revision, physical: false };
        match client.call(&rpc::COMPACT, request, Deadline::after(patience)).await {
            // A user with rights to the benchmark's keys alone may not compact; and what somebody else has
            // compacted meanwhile is gone as well.
            Err(error) if !error.is_refusal() && !error.is(COMPACTED) => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// A connection to each of `count` endpoints in turn, so that they spread evenly.
pub(super) async fn connect(
    context: &Context,
    config: &Config,
    count: usize,
) -> Result<Vec<Client>, Failure> {
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
