//! `lease`: grant, revoke, timetolive, list, keep-alive.

use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::format::Format;
use crate::cli::spec::Program;
use crate::client::{Error, KeepAlive, rpc};
use crate::pb::{
    LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
};
use crate::types::SignedHex;
use crate::{go, types};

pub(super) async fn grant(mut context: Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("lease grant command needs TTL argument"));
    }
    let ttl = ttl(&context)?;
    let deadline = context.deadline();
    let client = context.client().await?;
    let response = client
        .call(&rpc::LEASE_GRANT, LeaseGrantRequest { ttl, id: 0 }, deadline)
        .await
        .map_err(|error| failed("grant", error))?;
    context.display.lease_grant(&response)
}

pub(super) async fn revoke(mut context: Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("lease revoke command needs 1 argument"));
    }
    let id = lease_id(&context)?;
    let deadline = context.deadline();
    let client = context.client().await?;
    let response = client
        .call(&rpc::LEASE_REVOKE, LeaseRevokeRequest { id }, deadline)
        .await
        .map_err(|error| failed("revoke", error))?;
    context.display.lease_revoke(id, &response)
}

pub(super) async fn time_to_live(mut context: Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("lease timetolive command needs lease ID as argument"));
    }
    let keys = context.flags.bool("keys");
    let client = context.client().await?;
    let request = LeaseTimeToLiveRequest { id: lease_id(&context)?, keys };
    let response = client
        .call(&rpc::LEASE_TIME_TO_LIVE, request, context.late_deadline())
        .await
        .map_err(bad_connection)?;
    context.display.lease_time_to_live(&response, keys)
}

pub(super) async fn list(mut context: Context) -> Outcome {
    let client = context.client().await?;
    let response = client
        .call(&rpc::LEASE_LEASES, LeaseLeasesRequest {}, context.late_deadline())
        .await
        .map_err(bad_connection)?;
    context.display.leases(&response)
}

pub(super) async fn keep_alive(mut context: Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("lease keep-alive command needs lease ID as argument"));
    }
    let id = lease_id(&context)?;
    let client = context.client().await?;
    if context.flags.bool("once") {
        let renewed = context.late_deadline().bound(KeepAlive::once(&client, id)).await;
        let response = renewed.unwrap_or(Err(Error::Deadline)).map_err(bad_connection)?;
        return context.display.lease_keep_alive(&response);
    }
    let mut renewals = KeepAlive::new(&client, id);
    while let Some(response) = renewals.next().await {
        context.display.lease_keep_alive(&response)?;
        if context.printer.closed() {
            return Ok(());
        }
    }
    if context.display.format == Format::Simple {
        context.printer.line(format!("lease {:016x} expired or revoked.", SignedHex(id)));
    }
    Ok(())
}

fn bad_connection(error: Error) -> Failure {
    Failure::of(Exit::BadConnection, &error, error.clone())
}

fn failed(action: &str, error: Error) -> Failure {
    Failure::of(Exit::Error, format!("failed to {action} lease ({error})"), error)
}

/// The TTL of a new lease in seconds. Under the name rusd it may be a time with a unit.
fn ttl(context: &Context) -> Result<i64, Failure> {
    let given = context.arg(0);
    let text = std::str::from_utf8(given).unwrap_or_default();
    go::parse_int(given, 10).or_else(|reason| {
        let kind = context.program == Program::Rusd;
        types::parse_seconds(text).filter(|_| kind).ok_or_else(|| match kind {
            true => Failure::arguments(format!(
                "the TTL is in seconds, or a time with its unit, such as 60, 90s, 5m or 7d, not {}",
                go::quote(given)
            )),
            false => Failure::arguments(format!("bad TTL ({reason})")),
        })
    })
}

fn lease_id(context: &Context) -> Result<i64, Failure> {
    go::parse_int(context.arg(0), 16).map_err(|reason| {
        Failure::arguments(format!("bad lease ID arg ({reason}), expecting ID in Hex"))
    })
}
