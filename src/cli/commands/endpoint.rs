//! `endpoint`: health, status and hashkv of each endpoint on its own.

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::alarm;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::format::Health;
use crate::client::{Config, Error, rpc};
use crate::clock::Clock as _;
use crate::go;
use crate::pb::{AlarmType, HashKvRequest, MemberListRequest, RangeRequest, StatusRequest};

pub(super) async fn health(mut context: Context) -> Outcome {
    let mut config = context.config().await?;
    let endpoints = endpoints(&context, &config).await?;
    config.logger = "client";
    config.tls.validate().map_err(|text| Failure::bytes(Exit::BadArguments, text))?;
    let mut checks: FuturesUnordered<_> =
        endpoints.into_iter().map(|endpoint| check(&context, &config, endpoint)).collect();
    let mut all = Vec::new();
    while let Some(health) = checks.next().await {
        all.push(health);
    }
    context.display.endpoint_health(&all)?;
    if all.iter().any(|health| !health.error.is_empty()) {
        return Err(Failure::error("unhealthy cluster"));
    }
    Ok(())
}

async fn check(context: &Context, config: &Config, endpoint: String) -> Health {
    let config = Config { endpoints: vec![endpoint.clone()], ..config.clone() };
    let client = match context.connect(config).await {
        Ok(client) => client,
        Err(failure) => {
            let error = failure.message.unwrap_or_default().to_string();
            return Health { endpoint, healthy: false, took: String::new(), error };
        }
    };
    let start = context.clock.now();
    let deadline = context.deadline();
    let request = RangeRequest { key: "health".into(), ..RangeRequest::default() };
    let outcome = client.call(&rpc::RANGE, request, deadline).await;
    let took = go::duration(context.clock.now().saturating_sub(start));
    let error = match outcome {
        // As in etcdctl, a denied read counts as healthy: the cluster has answered.
        Err(error) if !error.is("etcdserver: permission denied") => error.to_string(),
        _ => match client.call(&rpc::ALARM_LIST, alarm::list_request(), deadline).await {
            Ok(response) => active(response.alarms.iter().map(|alarm| alarm.alarm())),
            Err(_) => "Unable to fetch the alarm list".into(),
        },
    };
    Health { endpoint, healthy: error.is_empty(), took, error }
}

fn active(alarms: impl Iterator<Item = AlarmType>) -> String {
    let names: String = alarms
        .map(|alarm| match alarm {
            AlarmType::Nospace => "NOSPACE ",
            AlarmType::Corrupt => "CORRUPT ",
            AlarmType::None => "UNKNOWN ",
        })
        .collect();
    if names.is_empty() { names } else { format!("Active Alarm(s): {names}") }
}

pub(super) async fn status(mut context: Context) -> Outcome {
    let config = context.config().await?;
    let mut all = Vec::new();
    let mut failed = false;
    for endpoint in endpoints(&context, &config).await? {
        let client = context.connect(single(&config, &endpoint)).await?;
        match client.call(&rpc::STATUS, StatusRequest {}, context.deadline()).await {
            Ok(response) => all.push((endpoint, response)),
            Err(error) => {
                failed = true;
                context
                    .printer
                    .err(format!("Failed to get the status of endpoint {endpoint} ({error})\n"));
            }
        }
    }
    context.display.endpoint_status(&all)?;
    if failed { Err(Failure::silent(Exit::Error)) } else { Ok(()) }
}

pub(super) async fn hash_kv(mut context: Context) -> Outcome {
    let config = context.config().await?;
    let revision = context.flags.int("rev");
    let mut all = Vec::new();
    let mut failed: Option<Error> = None;
    for endpoint in endpoints(&context, &config).await? {
        let client = context.connect(single(&config, &endpoint)).await?;
        let request = HashKvRequest { revision };
        match client.call(&rpc::HASH_KV, request, context.deadline()).await {
            Ok(response) => all.push((endpoint, response)),
            Err(error) => {
                context
                    .printer
                    .err(format!("Failed to get the hash of endpoint {endpoint} ({error})\n"));
                failed = Some(error);
            }
        }
    }
    context.display.endpoint_hash(&all)?;
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// The configuration of a client for one endpoint.
pub(super) fn single(config: &Config, endpoint: &str) -> Config {
    Config { endpoints: vec![endpoint.to_string()], ..config.clone() }
}

/// The endpoints of the flag, or with `--cluster` the client URLs of all members.
pub(super) async fn endpoints(context: &Context, config: &Config) -> Result<Vec<String>, Failure> {
    if !context.flags.bool("cluster") {
        return Ok(context.flags.strings("endpoints"));
    }
    let client = context
        .connect(config.clone())
        .await
        .map_err(|failure| Failure { exit: Exit::Error, ..failure })?;
    let request = MemberListRequest { linearizable: true };
    let response = client.call(&rpc::MEMBER_LIST, request, context.deadline()).await;
    let members = response.map_err(|error| {
        Failure::error(format!("failed to fetch endpoints from etcd cluster member list: {error}"))
    })?;
    Ok(members.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}
