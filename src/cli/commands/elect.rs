//! `elect`: stands in an election until a signal, or watches one.

use super::lock::lost;
use super::signals::Signals;
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::spec::Program;
use crate::client::{Client, Election, Error, Session, rpc};
use crate::pb::RangeRequest;

/// TTL of the session's lease, etcd's default.
const SESSION_TTL_SECONDS: i64 = 60;

pub(super) async fn run(mut context: Context) -> Outcome {
    if context.args.is_empty() || context.args.len() > 2 {
        return Err(Failure::arguments(
            "elect takes one election name argument and an optional proposal argument",
        ));
    }
    let client = context.client().await?;
    let listen = context.flags.bool("listen");
    match context.args.len() {
        1 if !listen => Err(Failure::arguments("no proposal argument but -l not set")),
        1 => observe(&context, &client).await,
        _ if listen => Err(Failure::arguments("proposal given but -l is set")),
        _ => campaign(&context, &client).await,
    }
}

async fn observe(context: &Context, client: &Client) -> Outcome {
    let session = Session::new(client, SESSION_TTL_SECONDS, context.late_deadline()).await?;
    let mut signals = Signals::catch()?;
    let election = Election::new(&session, context.arg(0));
    let watching = election.observe(|leader| {
        // In a format that this answer does not have, `get` fails before it prints anything, and
        // that ends the observation.
        context
            .display
            .get(&leader)
            .map_err(|failure| Error::Other(failure.message.unwrap_or_default().to_string()))?;
        if context.printer.closed() { Err(Error::Canceled) } else { Ok(()) }
    });
    tokio::select! {
        outcome = watching => match outcome {
            Err(Error::Canceled) if context.printer.closed() => Ok(()),
            Err(Error::Other(text)) if !text.starts_with("etcdserver") => Err(Failure::new(
                crate::cli::exit::Exit::BadFeature,
                text,
            )),
            _ => Err(Failure::error("elect: observer lost")),
        },
        () = signals.next() => Ok(()),
    }
}

async fn campaign(context: &Context, client: &Client) -> Outcome {
    let session = Session::new(client, SESSION_TTL_SECONDS, context.late_deadline()).await?;
    let mut election = Election::new(&session, context.arg(0));
    let mut signals = Signals::catch()?;
    let proposal = context.args[1].clone();
    let won = tokio::select! {
        outcome = election.campaign(proposal.into()) => Some(outcome),
        () = signals.next() => None,
        () = lost(context, &session) => return Err(expired(context)),
    };
    match won {
        Some(outcome) => outcome?,
        None => {
            resign(context, &mut election).await?;
            return Err(Failure::error("context canceled"));
        }
    }
    let request = RangeRequest { key: election.key().clone(), ..RangeRequest::default() };
    let leader = client.call(&rpc::RANGE, request, context.late_deadline()).await?;
    context.display.get(&leader)?;
    if context.printer.closed() {
        // Standard output is closed, so the caller cannot learn that it was elected: it resigns.
        return resign(context, &mut election).await;
    }
    tokio::select! {
        () = signals.next() => resign(context, &mut election).await,
        () = session.lost() => Err(expired(context)),
    }
}

fn expired(context: &Context) -> Failure {
    Failure::error(match context.program {
        Program::Rusd => format!(
            "the election is lost: the lease of {SESSION_TTL_SECONDS}s was not renewed in time, or \
             was revoked. Another may lead now"
        ),
        _ => "elect: session expired".to_owned(),
    })
}

/// Resigns within --command-timeout. The call needs a deadline: signals are caught, so a user could
/// not end it.
async fn resign(context: &Context, election: &mut Election<'_>) -> Outcome {
    let resigned = context.deadline().bound(election.resign()).await;
    Ok(resigned.unwrap_or(Err(Error::Deadline))?)
}
