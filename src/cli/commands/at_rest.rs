//! What the commands for a stopped member's directory have in common: how they wait for its lock,
//! and the lines that they log.

use std::time::Duration;

use crate::cli::context::Context;
use crate::cli::exit::Failure;
use crate::cli::spec::Program;
use crate::offline::Error;

/// Interval at which a directory's lock is tried again.
pub(super) const LOCK_RETRY: Duration = Duration::from_millis(100);

/// Repeats an attempt while another process has the directory locked, for as long as `--timeout`
/// says (`--command-timeout` if the program is rusd); 0 means without an end.
pub(super) fn patiently<T>(
    context: &Context,
    mut attempt: impl FnMut() -> Result<T, Error>,
) -> Result<T, Failure> {
    let flag = if context.program == Program::Etcdutl { "timeout" } else { "command-timeout" };
    let patience = context.flags.duration(flag);
    let mut waited = Duration::ZERO;
    loop {
        match attempt() {
            Err(error) if error.is_in_use() && (patience.is_zero() || waited < patience) => {
                std::thread::sleep(LOCK_RETRY);
                waited += LOCK_RETRY;
            }
            outcome => return outcome.map_err(|error| failure(context, &error)),
        }
    }
}

/// Says what to do where a running member has the directory. etcdutl says no more than the error.
pub(super) fn failure(context: &Context, error: &Error) -> Failure {
    match context.program {
        Program::Rusd if error.is_in_use() => {
            Failure::error(format!("{error}; stop the member first"))
        }
        _ => Failure::error(error),
    }
}

/// Logs a line to standard error in zap's console format, as etcdutl does.
pub(super) fn log_at(
    context: &Context,
    level: &str,
    caller: &str,
    message: &str,
    fields: &[(&str, serde_json::Value)],
) {
    let time = crate::go::timestamp(crate::clock::Clock::unix_nanos(&*context.clock));
    let seconds = time.split('.').next().unwrap_or_default();
    let fields: Vec<String> =
        fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    let mut line = format!("{seconds}Z\t{level}\t{caller}\t{message}");
    if !fields.is_empty() {
        line += &format!("\t{{{}}}", fields.join(", "));
    }
    context.printer.err(line + "\n");
}
