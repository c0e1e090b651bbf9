//! `lease`: grant, revoke, timetolive, list, keep-alive.

use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::format::Format;
use crate::client::{Deadline, KeepAlive, rpc};
use crate::go;
use crate::pb::{
    LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
};
use crate::types::SignedHex;

pub(super) async fn grant(mut context: Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("lease grant command needs TTL argument"));
    }
    let ttl = go::parse_int(context.arg(0), 10)
        .map_err(|reason| Failure::arguments(format!("bad TTL ({reason})")))?;
    let deadline = context.deadline();
    let client = context.client().await?;
    let response = client
        .call(&rpc::LEASE_GRANT, LeaseGrantRequest { ttl, id: 0 }, deadline)
        .await
        .map_err(|error| Failure::error(format!("failed to grant lease ({error})")))?;
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
        .map_err(|error| Failure::error(format!("failed to revoke lease ({error})")))?;
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
        .call(&rpc::LEASE_TIME_TO_LIVE, request, Deadline::NONE)
        .await
        .map_err(bad_connection)?;
    context.display.lease_time_to_live(&response, keys)
}

pub(super) async fn list(mut context: Context) -> Outcome {
    let client = context.client().await?;
    let response = client
        .call(&rpc::LEASE_LEASES, LeaseLeasesRequest {}, Deadline::NONE)
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
        let response = KeepAlive::once(&client, id).await.map_err(bad_connection)?;
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

fn bad_connection(error: impl ToString) -> Failure {
    Failure::new(Exit::BadConnection, error)
}

fn lease_id(context: &Context) -> Result<i64, Failure> {
    go::parse_int(context.arg(0), 16).map_err(|reason| {
        Failure::arguments(format!("bad lease ID arg ({reason}), expecting ID in Hex"))
    })
}
