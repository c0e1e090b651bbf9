//! `defrag`: one endpoint after the other.

use super::endpoint::{endpoints, single};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::client::rpc;
use crate::clock::Clock as _;
use crate::go;
use crate::pb::DefragmentRequest;

pub(super) async fn run(mut context: Context) -> Outcome {
    let config = context.config().await?;
    let mut failed = false;
    for endpoint in endpoints(&context, &config).await? {
        let client = context.connect(single(&config, &endpoint)).await?;
        let start = context.clock.now();
        let outcome = client.call(&rpc::DEFRAGMENT, DefragmentRequest {}, context.deadline()).await;
        let took = go::duration(context.clock.now().saturating_sub(start));
        match outcome {
            Ok(_) => context
                .printer
                .line(format!("Finished defragmenting etcd member[{endpoint}]. took {took}")),
            Err(error) => {
                failed = true;
                context.printer.err(format!(
                    "Failed to defragment etcd member[{endpoint}]. took {took}. ({error})\n"
                ));
            }
        }
    }
    if failed { Err(Failure::silent(Exit::Error)) } else { Ok(()) }
}
