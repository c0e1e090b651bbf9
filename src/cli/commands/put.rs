//! `put`: the value comes from the command line or from standard input.

use std::io::{self, IsTerminal as _};

use crate::cli::argv::{Flags, Word};
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::client::rpc;
use crate::go;
use crate::pb::PutRequest;

pub(super) async fn run(mut context: Context) -> Outcome {
    let request = request(&context.flags, &context.args, || {
        if context.printer.errors_on_screen() && io::stdin().is_terminal() {
            context.printer.err("Type the value, and end it with Ctrl-D:\n");
        }
        context.read_stdin()
    })?;
    let deadline = context.deadline();
    let client = context.client().await?;
    let response = client.call(&rpc::PUT, request, deadline).await?;
    context.display.put(&response)
}

/// The request that flags and arguments describe. Without a value among the arguments, `rest` reads
/// it. `txn` uses this as well, with a `rest` of its own.
pub(super) fn request(
    flags: &Flags,
    args: &[Word],
    rest: impl FnOnce() -> io::Result<Word>,
) -> Result<PutRequest, Failure> {
    const USAGE: &str = "put command needs 1 argument and input from stdin or 2 arguments";
    let ignore_value = flags.bool("ignore-value");
    let (key, value) = match args {
        [] => return Err(Failure::arguments(USAGE)),
        [key] if ignore_value => (key.clone(), Vec::new()),
        [_, _, ..] if ignore_value => {
            return Err(Failure::arguments(
                "put command needs only 1 argument when 'ignore-value' is set",
            ));
        }
        [key] => match rest() {
            Ok(value) if !value.is_empty() => (key.clone(), value),
            _ => return Err(Failure::arguments(USAGE)),
        },
        [key, value, ..] => (key.clone(), value.clone()),
    };
    let lease = go::parse_int(flags.bytes("lease"), 16).map_err(|reason| {
        Failure::arguments(format!("bad lease ID ({reason}), expecting ID in Hex"))
    })?;
    Ok(PutRequest {
        key: key.into(),
        value: value.into(),
        lease,
        prev_kv: flags.bool("prev-kv"),
        ignore_value,
        ignore_lease: flags.bool("ignore-lease"),
    })
}
