//! `compaction`: discards the history before a revision.

use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::client::rpc;
use crate::go;
use crate::pb::{CompactionRequest, StatusRequest};

pub(super) async fn run(mut context: Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("compaction command needs 1 argument"));
    }
    let revision = go::parse_int(context.arg(0), 10).map_err(Failure::error)?;
    let physical = context.flags.bool("physical");
    let client = context.client().await?;
    if confirm::asks(&context) {
        let status = client.call(&rpc::STATUS, StatusRequest {}, context.deadline()).await?;
        let now = status.header.unwrap_or_default().revision;
        confirm::confirm(
            &context,
            format!(
                "This discards the history before revision {revision}; the present revision is \
                 {now}. Keys keep their values. Reads at older revisions and watches from them fail \
                 afterwards."
            ),
        )?;
    }
    let deadline = if physical { context.long_deadline() } else { context.deadline() };
    client.call(&rpc::COMPACT, CompactionRequest { revision, physical }, deadline).await?;
    context.printer.line(format!("compacted revision {revision}"));
    Ok(())
}
