//! `endpoint`: health, status and hashkv of each endpoint on its own.

use std::pin::Pin;
use std::rc::Rc;

use futures_util::StreamExt as _;
use futures_util::stream::{self, FuturesUnordered, Stream};

use super::alarm;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::explain::explain;
use crate::cli::format::Health;
use crate::cli::spec::Program;
use crate::client::{Client, Config, Error, rpc};
use crate::clock::Clock as _;
use crate::go;
use crate::pb::{AlarmType, HashKvRequest, MemberListRequest, RangeRequest, StatusRequest};

pub(super) async fn health(mut context: Context) -> Outcome {
    let mut config = context.config().await?;
    let endpoints = endpoints(&context, &config).await?;
    config.logger = "client";
    config.tls.validate().map_err(|text| Failure::bytes(Exit::BadArguments, text))?;
    let checks: FuturesUnordered<_> = endpoints
        .into_iter()
        .enumerate()
        .map(|(at, endpoint)| {
            let check = check(&context, &config, endpoint);
            async move { (at, check.await) }
        })
        .collect();
    let mut all: Vec<_> = checks.collect().await;
    // etcdctl prints them as they come.
    if context.program == Program::Rusd {
        all.sort_by_key(|(at, _)| *at);
    }
    let all: Vec<Health> = all.into_iter().map(|(_, health)| health).collect();
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
            let error = match &failure.cause {
                Some(error) => context.words(error),
                None => failure.message.unwrap_or_default().to_string(),
            };
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
        Err(error) if !error.is("etcdserver: permission denied") => context.words(&error),
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
    let mut failed = None;
    let endpoints = endpoints(&context, &config).await?;
    let deadline = || context.deadline();
    let mut answers = ask(&context, &config, endpoints, async |client| {
        client.call(&rpc::STATUS, StatusRequest {}, deadline()).await
    });
    while let Some((endpoint, answer)) = answers.next().await {
        match answer? {
            Ok(response) => all.push((endpoint, response)),
            Err(error) => {
                let text = format!("Failed to get the status of endpoint {endpoint} ({error})");
                context.tell(text, &endpoint, &error);
                failed = Some(error);
            }
        }
    }
    drop(answers);
    context.display.endpoint_status(&all)?;
    failed.map_or(Ok(()), |error| Err(told(&context, Exit::Error, all.is_empty(), &error)))
}

pub(super) async fn hash_kv(mut context: Context) -> Outcome {
    let config = context.config().await?;
    let revision = context.flags.int("rev");
    let mut all = Vec::new();
    let mut failed: Option<Error> = None;
    let endpoints = endpoints(&context, &config).await?;
    let deadline = || context.deadline();
    let mut answers = ask(&context, &config, endpoints, async |client| {
        client.call(&rpc::HASH_KV, HashKvRequest { revision }, deadline()).await
    });
    while let Some((endpoint, answer)) = answers.next().await {
        match answer? {
            Ok(response) => all.push((endpoint, response)),
            Err(error) => {
                let text = format!("Failed to get the hash of endpoint {endpoint} ({error})");
                context.tell(text, &endpoint, &error);
                failed = Some(error);
            }
        }
    }
    drop(answers);
    context.display.endpoint_hash(&all)?;
    match failed {
        Some(error) if context.program == Program::Rusd => {
            Err(told(&context, Exit::Error, all.is_empty(), &error))
        }
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// An endpoint's answer. The outer error is that of a client that cannot be made, at which etcdctl
/// ends; under the name rusd it is told like that of a call.
type Answer<R> = Result<Result<R, Error>, Failure>;

/// Asks each endpoint with a client of its own. Answers come in the order of the endpoints.
pub(super) fn ask<R>(
    context: &Context,
    config: &Config,
    endpoints: Vec<String>,
    question: impl AsyncFn(Client) -> Result<R, Error>,
) -> Pin<Box<impl Stream<Item = (String, Answer<R>)>>> {
    let question = Rc::new(question);
    let one = move |endpoint: String| {
        let config = single(config, &endpoint);
        let question = Rc::clone(&question);
        async move {
            let answer = match context.connect(config).await {
                Ok(client) => Ok(question(client).await),
                Err(Failure { cause: Some(error), .. }) if context.program == Program::Rusd => {
                    Ok(Err(*error))
                }
                Err(failure) => Err(failure),
            };
            (endpoint, answer)
        }
    };
    Box::pin(stream::iter(endpoints).map(one).buffered(context.asked_at_once()))
}

/// The failure of a command that has told each endpoint's error. Under the name rusd it is one of
/// the connection if no endpoint has answered for that reason.
pub(super) fn told(context: &Context, exit: Exit, is_all: bool, error: &Error) -> Failure {
    let is_connection = is_all && context.program == Program::Rusd;
    let exit = if is_connection { explain(error).exit } else { exit };
    Failure::silent(exit)
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
        let text = "failed to fetch endpoints from etcd cluster member list";
        Failure::of(Exit::Error, format!("{text}: {error}"), error)
    })?;
    Ok(members.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}
