//! Work of a row that is no stream of equal requests: filling a store, and saving a snapshot of it.

use futures_util::stream::StreamExt as _;

use super::keyspace::{connect, fill};
use super::load::account;
use super::plan::Plan;
use super::report::Report;
use super::scrape::usage_of_each;
use crate::cli::context::Context;
use crate::cli::exit::Failure;
use crate::client::{Client, Config, Deadline, Error, rpc};
use crate::clock::Clock as _;
use crate::pb::{SnapshotRequest, StatusRequest};

/// What a server uses while nothing is asked of it.
pub(super) async fn idle(config: &Config) -> Report {
    let mut report = Report::default();
    let members = usage_of_each(&config.endpoints).await;
    account(&mut report, &members, &members, 0.0);
    report
}

/// Puts all keys of a plan; a request is a key.
pub(super) async fn filled(
    context: &Context,
    config: &Config,
    plan: &Plan,
) -> Result<Report, Failure> {
    let clients = connect(context, config, plan.connections).await?;
    let work = async {
        fill(context, &clients, plan, plan.patience).await?;
        Ok(plan.keys as f64)
    };
    let mut report = measured(context, config, work).await?;
    let deadline = Deadline::after(plan.patience);
    let status = clients[0].call(&rpc::STATUS, StatusRequest {}, deadline).await?;
    report.store_bytes = Some(status.db_size as f64);
    Ok(report)
}

/// Takes a snapshot of the first endpoint; a request is a megabyte.
pub(super) async fn saved(
    context: &Context,
    config: &Config,
    plan: &Plan,
) -> Result<Report, Failure> {
    let mut config = config.clone();
    config.endpoints.truncate(1);
    let clients = connect(context, &config, 1).await?;
    let work = async { Ok(snapshot(&clients[0], plan).await? as f64 / 1e6) };
    measured(context, &config, work).await
}

/// What it costs to do work, which tells its number of requests.
async fn measured(
    context: &Context,
    config: &Config,
    work: impl Future<Output = Result<f64, Failure>>,
) -> Result<Report, Failure> {
    let before = usage_of_each(&config.endpoints).await;
    let start = context.clock.now();
    let requests = work.await?;
    let seconds = context.clock.now().saturating_sub(start).as_secs_f64();
    let after = usage_of_each(&config.endpoints).await;
    let mut report =
        Report { requests, seconds, per_second: requests / seconds, ..Report::default() };
    account(&mut report, &before, &after, requests);
    Ok(report)
}

/// The bytes of a snapshot, each piece of which must come within the plan's patience.
async fn snapshot(client: &Client, plan: &Plan) -> Result<u64, Error> {
    let requests = tokio_stream::once(SnapshotRequest {}).boxed();
    let deadline = || Deadline::after(plan.patience);
    let opening = client.stream(&rpc::SNAPSHOT, requests, false, Deadline::NONE);
    let mut stream = deadline().bound(opening).await.ok_or(Error::Deadline)??;
    let mut bytes = 0;
    while let Some(piece) = client.next(&mut stream, deadline()).await? {
        bytes += piece.blob.len() as u64;
    }
    Ok(bytes)
}
