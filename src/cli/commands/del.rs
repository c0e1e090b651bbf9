//! `del`: deletes a key, a prefix, or everything from a key. Ranges are deleted after a pause in
//! which the user can interrupt the command.

use std::time::Duration;

use super::get;
use crate::cli::argv::{Flags, Word};
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::client::rpc;
use crate::go;
use crate::pb::DeleteRangeRequest;

/// Pause before a range is deleted.
const RANGE_DELETE_PAUSE: Duration = Duration::from_secs(2);

pub(super) async fn run(mut context: Context) -> Outcome {
    let request = request(&context.flags, &context.args, &context).await?;
    let deadline = context.deadline();
    let client = context.client().await?;
    let response = client.call(&rpc::DELETE_RANGE, request, deadline).await?;
    context.display.delete(&response)
}

/// The request that flags and arguments describe; `txn` uses it too.
pub(super) async fn request(
    flags: &Flags,
    args: &[Word],
    context: &Context,
) -> Result<DeleteRangeRequest, Failure> {
    let (key, rest) = match args {
        [key, rest @ ..] if rest.len() < 2 => (key, rest),
        _ => {
            return Err(Failure::arguments(
                "del command needs one argument as key and an optional argument as range_end",
            ));
        }
    };
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    if prefix && from_key {
        return Err(Failure::arguments(
            "`--prefix` and `--from-key` cannot be set at the same time, choose one",
        ));
    }
    let (first, range_end) = get::range(key, rest, prefix, from_key)?;
    if let [end] = rest
        && !flags.bool("range")
    {
        context.printer.err(format!(
            "Warning: Keys between {} and {} will be deleted. Please interrupt the command within \
             next 2 seconds to cancel. You can provide `--range` flag to avoid the delay.\n",
            go::quote(key),
            go::quote(end)
        ));
        tokio::time::sleep(RANGE_DELETE_PAUSE).await;
    }
    Ok(DeleteRangeRequest {
        key: first.into(),
        range_end: range_end.into(),
        prev_kv: flags.bool("prev-kv"),
    })
}
