//! What the commands for a stopped member's directory have in common: how they wait for its lock,
//! and the lines that they log.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::data_dir;
use crate::cli::context::Context;
use crate::cli::exit::Failure;
use crate::cli::spec::Program;
use crate::node::StartError;
use crate::offline::Error;
use crate::store;

const NO_HASH: &str = "the file has no SHA-256 at its end: it was cut short, or it is no file of \
                       'snapshot save'. Take another backup; --skip-hash-check is only for a file \
                       that was copied out of a data directory";
const WRONG_HASH: &str = "the file is damaged: its contents are not those of which it has the \
                          SHA-256 at its end. Take another backup";

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

/// What an error is told as: rusd says what to do, etcdutl no more than the error.
pub(super) fn failure(context: &Context, error: &Error) -> Failure {
    match context.program {
        Program::Rusd => Failure::error(plainly(error)),
        _ => Failure::error(error),
    }
}

fn plainly(error: &Error) -> String {
    match error {
        // It says itself who has the directory: an etcd.
        Error::InUse { .. } => error.to_string(),
        error if error.is_in_use() => format!("{error}; stop the member first"),
        Error::Missing { path } => data_dir::without_store(above_member(path)),
        Error::Start(StartError::NoLog { wal }) => format!(
            "there is no log in {}; if the member is started with --wal-dir, give the same here",
            wal.display()
        ),
        Error::Io { path, source, .. } => of_path(path, source, error),
        Error::Store(store::Error::Io { file, source })
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            data_dir::forbidden(file)
        }
        Error::NoHash => NO_HASH.to_owned(),
        Error::Hash { .. } => WRONG_HASH.to_owned(),
        error => error.to_string(),
    }
}

fn of_path(path: &Path, source: &io::Error, error: &Error) -> String {
    let shown = path.display();
    match source.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{shown} exists already; name another file, or move that one away")
        }
        io::ErrorKind::NotFound if path.ends_with("member/snap/db") => {
            data_dir::without_etcds_store(above_member(path))
        }
        io::ErrorKind::PermissionDenied if path.iter().any(|part| part == "member") => {
            data_dir::forbidden(path)
        }
        _ => error.to_string(),
    }
}

/// The data directory of a path in it.
fn above_member(path: &Path) -> &Path {
    let ends = ["member/snap/db", "member/db/CURRENT", "member/db"];
    let end = ends.iter().find(|end| path.ends_with(end));
    let up = end.map_or(0, |end| end.split('/').count());
    let above = path.ancestors().nth(up).unwrap_or(path);
    if above.as_os_str().is_empty() { Path::new(".") } else { above }
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
