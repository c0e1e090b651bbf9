//! etcdutl's commands, for a stopped member's directory or a snapshot file.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::at_rest::{log_at, patiently};
use super::growth::{self, taken};
use super::{check_data, migrate, replaceable, snapshot_status};
use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::size;
use crate::cli::spec::Program;
use crate::members::Founders;
use crate::mvcc::KeyValueHash;
use crate::offline::{self, Archive, Import, Imported, Restore, TargetDirs};
use crate::server;
use crate::transfer::InstallError;

/// Runs the offline command at `path`; None if it is none.
pub(super) fn run(path: &[&str], context: &Context) -> Option<Outcome> {
    Some(match path {
        ["snapshot", "status"] => snapshot_status::run(context),
        ["snapshot", "restore"] => restore(context),
        ["defrag"] if context.flags.path("data-dir").is_some() => defragment(context),
        ["hashkv"] => hash_kv(context),
        ["migrate"] => migrate::run(context),
        ["check", "data"] => check_data::run(context),
        ["import"] => import(context),
        ["export"] => export(context),
        _ => return None,
    })
}

/// Logs as etcdutl does. A person at rusd's terminal sees a bar and a sentence instead.
fn log(context: &Context, caller: &str, message: &str, fields: &[(&str, serde_json::Value)]) {
    if context.printer.errors_on_screen() {
        return;
    }
    log_at(context, "info", caller, message, fields);
}

/// A path as a JSON string for a log line.
fn shown(path: &Path) -> serde_json::Value {
    json!(path.display().to_string())
}

fn restore(context: &Context) -> Outcome {
    if context.program == Program::Etcdctl {
        context.printer.err("Deprecated: Use `etcdutl snapshot restore` instead.\n\n");
    }
    if context.args.len() != 1 {
        return Err(Failure::arguments("snapshot restore requires exactly one argument"));
    }
    let text = |name| context.flags.string(name);
    let bump: i64 = context.flags.int("bump-revision");
    let is_marked = context.flags.bool("mark-compacted");
    let bumps = context.flags.string("bump-revision") != "0";
    // Each flag requires the other, as in etcdutl.
    if bumps != is_marked {
        return Err(Failure::arguments("--mark-compacted required if --revision-bump > 0"));
    }
    if bumps && bump <= 0 {
        return Err(Failure::error("the revision would be too large"));
    }
    // `first_cluster` may resolve the hosts of the URLs, which needs a runtime.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let cluster = runtime
        .map_err(Failure::error)?
        .block_on(server::first_cluster(
            text("name"),
            text("initial-cluster"),
            text("initial-advertise-peer-urls"),
        ))
        .map_err(Failure::error)?;
    let data_dir = context.flags.path("data-dir").map(PathBuf::from);
    let data_dir = data_dir.unwrap_or_else(|| format!("{}.etcd", text("name")).into());
    let wal_dir = context.flags.path("wal-dir").map(PathBuf::from);
    let snapshot = context.path(0);
    let restore = Restore {
        snapshot,
        place: TargetDirs { data_dir: &data_dir, wal_dir: wal_dir.as_deref() },
        name: text("name"),
        cluster: &cluster,
        token: text("initial-cluster-token"),
        skip_hash_check: context.flags.bool("skip-hash-check"),
        bump_revision: bumps.then_some(bump),
    };
    let shown_wal = wal_dir.clone().unwrap_or_else(|| data_dir.join("member/wal"));
    let fields =
        [("path", shown(snapshot)), ("wal-dir", shown(&shown_wal)), ("data-dir", shown(&data_dir))];
    restore.place.check().map_err(Failure::error)?;
    log(context, "snapshot/v3_snapshot.go:306", "restoring snapshot", &fields);
    // Waits for the lock: the source may be the directory of a member that is about to stop.
    let founders = growth::follow(context, snapshot, taken(snapshot), &data_dir, || {
        patiently(context, || restore.run())
    })?;
    restored(context, &founders, snapshot, &data_dir);
    log(context, "snapshot/v3_snapshot.go:334", "restored snapshot", &fields);
    Ok(())
}

/// Says who the members of the new cluster are: to a person in a sentence, else as etcdutl logs it.
fn restored(context: &Context, founders: &Founders, snapshot: &Path, data_dir: &Path) {
    if context.printer.errors_on_screen() {
        let (cluster, members) = (founders.cluster_id, founders.members.len());
        let members = confirm::counted(members as i64, "member", "members");
        let (from, to) = (snapshot.display(), data_dir.display());
        let text = format!("Restored {from} to {to}: the new cluster {cluster:x} has {members}");
        return context.printer.line(text);
    }
    for member in &founders.members {
        let fields = [
            ("cluster-id", json!(format!("{:x}", founders.cluster_id))),
            ("local-member-id", json!("0")),
            ("added-peer-id", json!(format!("{:x}", member.id))),
            ("added-peer-peer-urls", json!(member.peer_urls)),
            ("added-peer-is-learner", json!(false)),
        ];
        log(context, "membership/cluster.go:408", "added member", &fields);
    }
}

fn import(context: &Context) -> Outcome {
    let path = |name| context.flags.path(name);
    let (Some(from), Some(data_dir)) = (path("from-data-dir"), path("data-dir")) else {
        return Err(Failure::arguments("import requires --from-data-dir and --data-dir"));
    };
    let place = TargetDirs { data_dir, wal_dir: path("wal-dir") };
    let import = Import { from, from_wal: path("from-wal-dir"), place };
    let total = taken(&from.join("member/snap/db"));
    let Imported { member_id, cluster_id, applied, last, ignored, revision, hash } =
        growth::follow(context, from, total, data_dir, || patiently(context, || import.run()))?;
    let line = |text: String| context.printer.sentences(&text);
    let data_dir = data_dir.display();
    line(format!("Imported member {member_id:x} of cluster {cluster_id:x} into {data_dir}"));
    line(format!("etcd's file: all pages sound, revision {revision}, HashKV {hash}"));
    line(format!(
        "log: all records sound, entries up to {last}, of which the {} after {applied} are applied \
         by the first start",
        last - applied
    ));
    if ignored > 0 {
        line(format!("{ignored} of those are about keys of API v2, which are not taken over"));
    }
    Ok(())
}

fn export(context: &Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("export requires exactly one argument"));
    }
    let data_dir = context.flags.path("data-dir").unwrap_or(Path::new(""));
    let (to, wal_dir) = (context.path(0), context.flags.path("wal-dir"));
    replaceable(to).map_err(|why| Failure::error(format!("{}: {why}", to.display())))?;
    let mut part = to.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let bytes = growth::follow(context, to, taken(&data_dir.join("member/db")), &part, || {
        patiently(context, || offline::export(data_dir, wal_dir, to))
    })?;
    let archive = Archive::open(to, "open").map_err(Failure::error)?;
    archive.check_hash().map_err(Failure::error)?;
    let KeyValueHash { hash, revision, .. } = archive.hash_kv(0).map_err(Failure::error)?;
    let size = match context.printer.is_screen() {
        true => size::shown(bytes),
        false => format!("{bytes} bytes"),
    };
    context.printer.sentences(&format!(
        "Exported {} to {}\n{size}, read again: SHA-256 and all pages sound, revision {revision}, \
         HashKV {hash}",
        data_dir.display(),
        to.display()
    ));
    Ok(())
}

fn defragment(context: &Context) -> Outcome {
    let data_dir = context.flags.path("data-dir").unwrap_or(Path::new(""));
    let db = data_dir.join("member/db");
    let done = growth::follow(context, data_dir, taken(&db), &db, || {
        patiently(context, || offline::defragment(data_dir))
    });
    let done = done.map_err(|failure| {
        if context.program == Program::Rusd {
            return failure;
        }
        let Failure { exit, message, .. } = failure;
        let why = message.unwrap_or_default();
        Failure::new(
            exit,
            format!("Failed to defragment etcd data[{}] ({why})", data_dir.display()),
        )
    })?;
    if context.printer.errors_on_screen() {
        let sizes = [done.before.total, done.after.total].map(size::shown);
        let [before, after] = sizes;
        let dir = data_dir.display();
        context.printer.line(format!("Defragmented {dir}: {before} before, {after} now"));
        return Ok(());
    }
    let fields = [
        ("path", shown(data_dir)),
        ("current-db-size-bytes", json!(done.after.total)),
        ("current-db-size-bytes-before", json!(done.before.total)),
        ("current-db-size-in-use-bytes", json!(done.after.in_use)),
    ];
    log(context, "backend/backend.go:605", "finished defragmenting directory", &fields);
    Ok(())
}

fn hash_kv(context: &Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("hashkv command requires exactly one argument"));
    }
    let display = context.display_of_flags()?;
    let archive = patiently(context, || Archive::open(context.path(0), "stat"))?;
    let found = archive.hash_kv(context.flags.int("rev")).map_err(|error| match error {
        InstallError::Bbolt(crate::bbolt::Error::NotBbolt(_)) => Failure::error("invalid database"),
        error => Failure::error(error),
    })?;
    display.file_hash(&found)
}
