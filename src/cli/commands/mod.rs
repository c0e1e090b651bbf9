//! One file a command, or a family of them; every command is `async fn(Context) -> Outcome`.

mod alarm;
mod at_rest;
mod auth;
mod bench;
mod cert;
mod check;
mod check_data;
mod compaction;
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

use super::context::Context;
use super::exit::{Failure, Outcome};
use super::spec::Program;

/// The server parses its flags itself, as etcd does, so it takes none before its name.
const SERVE_FIRST: &str = "serve must be the first argument, before all flags: rusd serve [flags]";

const GATEWAY_FIRST: &str =
    "gateway must be the first argument, before all flags: rusd gateway start [flags]";

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
        ["bench"] => return bench::run(context),
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

async fn client_command(path: &[&str], context: Context) -> Outcome {
    match path {
        ["cert", "show"] => cert::show(context).await,
        ["cert", "check"] => cert::check(context).await,
        ["get"] => get::run(context).await,
        ["put"] => put::run(context).await,
        ["del"] => del::run(context).await,
        ["txn"] => txn::run(context).await,
        ["compaction"] => compaction::run(context).await,
        ["watch"] => watch::run(context).await,
        ["lease", "grant"] => lease::grant(context).await,
        ["lease", "revoke"] => lease::revoke(context).await,
        ["lease", "timetolive"] => lease::time_to_live(context).await,
        ["lease", "list"] => lease::list(context).await,
        ["lease", "keep-alive"] => lease::keep_alive(context).await,
        ["lock"] => lock::run(context).await,
        ["elect"] => elect::run(context).await,
        ["alarm", "list"] => alarm::list(context).await,
        ["alarm", "disarm"] => alarm::disarm(context).await,
        ["endpoint", "health"] => endpoint::health(context).await,
        ["endpoint", "status"] => endpoint::status(context).await,
        ["endpoint", "hashkv"] => endpoint::hash_kv(context).await,
        ["member", "list"] => member::list(context).await,
        ["member", "add"] => member::add(context).await,
        ["member", "remove"] => member::remove(context).await,
        ["member", "update"] => member::update(context).await,
        ["member", "promote"] => member::promote(context).await,
        ["move-leader"] => move_leader::run(context).await,
        ["defrag"] => defrag::run(context).await,
        ["doctor"] => doctor::run(context).await,
        ["rebuild"] => rebuild::run(context).await,
        ["join"] => join::run(context).await,
        ["space"] => space::run(context).await,
        ["downgrade", action] => downgrade::run(context, action).await,
        ["snapshot", "save"] => snapshot::save(context).await,
        ["make-mirror"] => make_mirror::run(context).await,
        ["auth", action] => auth::run(context, action).await,
        ["role", action] => role::run(context, action).await,
        ["user", action] => user::run(context, action).await,
        ["check", "perf"] => check::perf(context).await,
        ["check", "datascale"] => check::data_scale(context).await,
        _ => Err(Failure::error(format!("{} is not supported yet", path.join(" ")))),
    }
}
