//! One file a command, or a family of them; every command is `async fn(Context) -> Outcome`.

mod alarm;
mod at_rest;
mod auth;
mod bench;
mod cert;
mod check;
mod check_data;
mod compaction;
mod data_dir;
mod defrag;
mod del;
mod doctor;
mod downgrade;
mod elect;
mod endpoint;
mod get;
mod growth;
mod join;
mod lease;
mod link;
mod lock;
mod make_mirror;
mod member;
mod migrate;
mod move_leader;
mod offline;
mod put;
mod rebuild;
mod role;
mod signals;
mod snapshot;
mod snapshot_status;
mod space;
mod txn;
mod user;
mod version;
mod watch;

use std::path::Path;
use std::{fs, io};

use futures_util::future::LocalBoxFuture;

use super::context::Context;
use super::exit::{Failure, Outcome};
use super::spec::Program;

/// The server parses its flags itself, as etcd does, so it takes none before its name.
const SERVE_FIRST: &str =
    "serve must be the first argument, in full and before all flags: rusd serve [flags]";

const GATEWAY_FIRST: &str =
    "gateway must be the first argument, in full and before all flags: rusd gateway start [flags]";

/// Whether `txn` or an interactive `watch` accepts the line.
pub(super) fn understands(line: &[u8]) -> bool {
    txn::understands(line) | watch::understands(line)
}

/// Whether a finished file may be renamed to this path. In the place of a device, or of a pipe that
/// somebody reads, a rename would leave a file; that of /dev/null would be missed by all.
fn replaceable(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            Err(io::Error::other("it is no file; name one that may be written anew"))
        }
        // That it is not there is as good, and other errors are told by who writes.
        _ => Ok(()),
    }
}

/// Runs the command at `path`.
pub(super) fn run(path: &[&str], context: Context) -> Outcome {
    if context.program == Program::Etcdutl {
        if path == ["version"] {
            return version::run(&context);
        }
        let unknown = || Err(Failure::error(format!("{} is not supported yet", path.join(" "))));
        return offline::run(path, &context).unwrap_or_else(unknown);
    }
    // etcdctl had `snapshot restore` up to 3.5, and scripts still call it there.
    if (context.program == Program::Rusd || path == ["snapshot", "restore"])
        && let Some(outcome) = offline::run(path, &context)
    {
        return outcome;
    }
    match path {
        ["version"] => return version::run(&context),
        ["serve"] => return Err(Failure::arguments(SERVE_FIRST)),
        ["gateway", ..] => return Err(Failure::arguments(GATEWAY_FIRST)),
        ["bench", what] => return bench::run(what, context),
        ["link"] => return link::run(&context),
        ["cert", "gen"] => return cert::make(context),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::error)?;
    let outcome = runtime.block_on(client_command(path, context));
    // Not waited for: a blocking thread may still read standard input.
    runtime.shutdown_background();
    outcome
}

/// The future of a command. Boxed, since one future of all commands would hold the code of every one of
/// them wherever the runtime polls it.
fn client_command<'a>(path: &'a [&'a str], context: Context) -> LocalBoxFuture<'a, Outcome> {
    match path {
        ["cert", "show"] => Box::pin(cert::show(context)),
        ["cert", "check"] => Box::pin(cert::check(context)),
        ["get"] => Box::pin(get::run(context)),
        ["put"] => Box::pin(put::run(context)),
        ["del"] => Box::pin(del::run(context)),
        ["txn"] => Box::pin(txn::run(context)),
        ["compaction"] => Box::pin(compaction::run(context)),
        ["watch"] => Box::pin(watch::run(context)),
        ["lease", "grant"] => Box::pin(lease::grant(context)),
        ["lease", "revoke"] => Box::pin(lease::revoke(context)),
        ["lease", "timetolive"] => Box::pin(lease::time_to_live(context)),
        ["lease", "list"] => Box::pin(lease::list(context)),
        ["lease", "keep-alive"] => Box::pin(lease::keep_alive(context)),
        ["lock"] => Box::pin(lock::run(context)),
        ["elect"] => Box::pin(elect::run(context)),
        ["alarm", "list"] => Box::pin(alarm::list(context)),
        ["alarm", "disarm"] => Box::pin(alarm::disarm(context)),
        ["endpoint", "health"] => Box::pin(endpoint::health(context)),
        ["endpoint", "status"] => Box::pin(endpoint::status(context)),
        ["endpoint", "hashkv"] => Box::pin(endpoint::hash_kv(context)),
        ["member", "list"] => Box::pin(member::list(context)),
        ["member", "add"] => Box::pin(member::add(context)),
        ["member", "remove"] => Box::pin(member::remove(context)),
        ["member", "update"] => Box::pin(member::update(context)),
        ["member", "promote"] => Box::pin(member::promote(context)),
        ["move-leader"] => Box::pin(move_leader::run(context)),
        ["defrag"] => Box::pin(defrag::run(context)),
        ["doctor"] => Box::pin(doctor::run(context)),
        ["rebuild"] => Box::pin(rebuild::run(context)),
        ["join"] => Box::pin(join::run(context)),
        ["space"] => Box::pin(space::run(context)),
        ["downgrade", action] => Box::pin(downgrade::run(context, action)),
        ["snapshot", "save"] => Box::pin(snapshot::save(context)),
        ["make-mirror"] => Box::pin(make_mirror::run(context)),
        ["auth", action] => Box::pin(auth::run(context, action)),
        ["role", action] => Box::pin(role::run(context, action)),
        ["user", action] => Box::pin(user::run(context, action)),
        ["check", "perf"] => Box::pin(check::perf(context)),
        ["check", "datascale"] => Box::pin(check::data_scale(context)),
        _ => {
            let text = format!("{} is not supported yet", path.join(" "));
            Box::pin(std::future::ready(Err(Failure::error(text))))
        }
    }
}
