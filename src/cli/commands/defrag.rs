//! `defrag`: one endpoint after the other.

use super::endpoint::{endpoints, single};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::explain;
use crate::cli::printer::{OnSignal, Progress, Unit};
use crate::cli::size;
use crate::cli::spec::Program;
use crate::client::{Client, rpc};
use crate::clock::Clock as _;
use crate::go;
use crate::pb::{DefragmentRequest, StatusRequest};

/// What is shown on a terminal meanwhile: the size of the store and the time. How far a member is, it
/// does not tell.
async fn bar(context: &Context, client: &Client, endpoint: &str) -> Option<Progress> {
    if !context.printer.errors_on_screen() {
        return None;
    }
    let status = client.call(&rpc::STATUS, StatusRequest {}, context.deadline()).await.ok()?;
    let title = format!("{endpoint}, {}", size::shown(status.db_size.unsigned_abs()));
    Some(context.printer.progress(0, Unit::Time, title, OnSignal::End))
}

pub(super) async fn run(mut context: Context) -> Outcome {
    let config = context.config().await?;
    let mut failed = false;
    for endpoint in endpoints(&context, &config).await? {
        let client = context.connect(single(&config, &endpoint)).await?;
        let start = context.clock.now();
        let bar = bar(&context, &client, &endpoint).await;
        let outcome =
            client.call(&rpc::DEFRAGMENT, DefragmentRequest {}, context.long_deadline()).await;
        drop(bar);
        let took = go::duration(context.clock.now().saturating_sub(start));
        match outcome {
            Ok(_) => context
                .printer
                .line(format!("Finished defragmenting etcd member[{endpoint}]. took {took}")),
            Err(error) => {
                failed = true;
                let why = match context.program {
                    Program::Rusd => explain::explain(&error).text,
                    _ => error.to_string(),
                };
                context.printer.err(format!(
                    "Failed to defragment etcd member[{endpoint}]. took {took}. ({why})\n"
                ));
            }
        }
    }
    if failed { Err(Failure::silent(Exit::Error)) } else { Ok(()) }
}
