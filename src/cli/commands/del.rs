//! `del`: deletes a key, a prefix, or everything from a key. Ranges are deleted after a pause in
//! which the user can interrupt the command; rusd asks instead, if there is somebody to ask.

use std::time::Duration;

use super::get;
use crate::cli::argv::{Flags, Word};
use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::client::{Client, Deadline, rpc};
use crate::go;
use crate::pb::range_request::SortOrder;
use crate::pb::{DeleteRangeRequest, KeyValue, RangeRequest};

/// Pause before a range is deleted.
const RANGE_DELETE_PAUSE: Duration = Duration::from_secs(2);

pub(super) async fn run(mut context: Context) -> Outcome {
    let request = request(&context.flags, &context.args)?;
    if !confirm::asks(&context) {
        pause(&context.flags, &context.args, &context).await;
    }
    let deadline = context.deadline();
    let client = context.client().await?;
    if confirm::asks(&context) && !request.range_end.is_empty() {
        let what = announcement(&client, &request, deadline).await?;
        confirm::confirm(&context, what)?;
    }
    // Not counted: how long a person thinks.
    let deadline = context.deadline();
    let response = client.call(&rpc::DELETE_RANGE, request, deadline).await?;
    context.display.delete(&response)
}

/// What a deletion of a range will do.
async fn announcement(
    client: &Client,
    request: &DeleteRangeRequest,
    deadline: Deadline,
) -> Result<Vec<u8>, Failure> {
    let range = |sort: SortOrder| RangeRequest {
        key: request.key.clone(),
        range_end: request.range_end.clone(),
        limit: 1,
        keys_only: true,
        sort_order: sort.into(),
        ..RangeRequest::default()
    };
    let first = client.call(&rpc::RANGE, range(SortOrder::None), deadline).await?;
    let key = |kvs: &[KeyValue]| kvs.first().map(|kv| kv.key.to_vec()).unwrap_or_default();
    let count = confirm::counted(first.count, "key", "keys");
    let mut text = format!("This deletes {count}").into_bytes();
    if first.count > 0 {
        text.extend_from_slice(&[b", from ".as_slice(), &quoted(&key(&first.kvs))].concat());
    }
    if first.count > 1 {
        let last = client.call(&rpc::RANGE, range(SortOrder::Descend), deadline).await?;
        text.extend_from_slice(&[b" to ".as_slice(), &quoted(&key(&last.kvs))].concat());
    }
    if request.key.as_ref() == b"\0" && request.range_end.as_ref() == b"\0" {
        text.extend_from_slice(b": ALL keys of the cluster");
    }
    text.push(b'.');
    Ok(text)
}

fn quoted(key: &[u8]) -> Vec<u8> {
    go::quote(key).into_bytes()
}

/// The request that flags and arguments describe; `txn` uses it too.
pub(super) fn request(flags: &Flags, args: &[Word]) -> Result<DeleteRangeRequest, Failure> {
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
    Ok(DeleteRangeRequest {
        key: first.into(),
        range_end: range_end.into(),
        prev_kv: flags.bool("prev-kv"),
    })
}

/// Waits before keys between two are deleted, so that the user can interrupt the command.
pub(super) async fn pause(flags: &Flags, args: &[Word], context: &Context) {
    let [key, end] = args else { return };
    if flags.bool("range") || context.flags.bool("yes") {
        return;
    }
    context.printer.err(format!(
        "Warning: Keys between {} and {} will be deleted. Please interrupt the command within next \
         2 seconds to cancel. You can provide `--range` flag to avoid the delay.\n",
        go::quote(key),
        go::quote(end)
    ));
    tokio::time::sleep(RANGE_DELETE_PAUSE).await;
}
