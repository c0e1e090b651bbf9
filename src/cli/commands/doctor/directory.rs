//! Looks at a data directory: all of one at rest, and what the lock leaves of a running member's.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::facts::{Directory, Expiring, Facts, RebuildStep, State};
use crate::cert::{self, Item};
use crate::cli::commands::check_data::in_child;
use crate::cli::commands::{data_dir, growth};
use crate::cli::exit::Failure;
use crate::cli::printer::{OnSignal, Printer, Unit};
use crate::offline::{Check, Error, Rebuild, RebuildProgress};

pub(super) fn look(
    data_dir: &Path,
    wal_dir: Option<&Path>,
    printer: &Printer,
    facts: &mut Facts,
) -> Result<(), Failure> {
    let mut directory = Directory { path: data_dir.to_path_buf(), ..Directory::default() };
    directory.state = state(data_dir, wal_dir);
    if !matches!(directory.state, State::Missing | State::Denied(_)) {
        directory.disk = disk(data_dir);
        directory.put_aside = put_aside(data_dir, wal_dir);
        directory.rebuild = rebuild_step(data_dir, wal_dir);
        facts.certificates.extend(certificates(data_dir, facts.now));
    }
    if directory.state == State::AtRest {
        let check = Check { data_dir, wal_dir };
        match check.lock() {
            Ok(lock) => {
                let bytes = growth::taken(&data_dir.join("member/db"));
                let title = data_dir.as_os_str().as_bytes();
                let bar = printer.progress(bytes, Unit::Bytes, title, OnSignal::End);
                directory.report = Some(in_child(&check, &bar)?);
                drop(bar);
                drop(lock);
            }
            Err(error) if error.is_in_use() => {
                let text = error.to_string();
                let pid = text.split_once("(pid ").and_then(|(_, rest)| rest.split_once(')'));
                let who = pid.map_or_else(String::new, |(pid, _)| format!(" {pid}"));
                directory.state = State::Locked(format!("process{who} uses them"));
            }
            Err(error) => directory.state = refused(&error),
        }
    }
    facts.directory = Some(directory);
    Ok(())
}

fn state(data_dir: &Path, wal_dir: Option<&Path>) -> State {
    let member = data_dir.join("member");
    if let Some(path) = data_dir::denied(data_dir, wal_dir) {
        return State::Denied(format!("{}: permission denied", path.display()));
    }
    match fs::metadata(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => State::Missing,
        Err(error) => State::Unusable(error.to_string()),
        Ok(found) if !found.is_dir() => State::Unusable("it is no directory".to_owned()),
        Ok(_) if member.join("snap").exists() => State::Etcds,
        Ok(_) if !member.is_dir() => data_dir::near(data_dir).map_or(State::Empty, State::Near),
        Ok(_) => State::AtRest,
    }
}

fn rebuild_step(data_dir: &Path, wal_dir: Option<&Path>) -> Option<RebuildStep> {
    if !data_dir.is_dir() {
        return None;
    }
    let Ok(plan) = Rebuild::read(data_dir) else { return Some(RebuildStep::Replace) };
    let plan = plan?;
    match plan.progress(data_dir, wal_dir) {
        RebuildProgress::Begun => Some(RebuildStep::Replace),
        RebuildProgress::PutAside => Some(RebuildStep::Start(plan.name)),
        // What `join` has noted: nothing is left to do once there is a log.
        RebuildProgress::Started => (!plan.is_voter).then_some(RebuildStep::Promote),
    }
}

fn refused(error: &Error) -> State {
    let text = error.to_string();
    match text.to_lowercase().contains("permission denied") {
        true => State::Denied(text),
        false => State::Unusable(text),
    }
}

fn disk(path: &Path) -> Option<(u64, u64)> {
    let stat = rustix::fs::statvfs(path).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some((bytes(stat.f_bavail), bytes(stat.f_blocks)))
}

/// What `rusd rebuild` has kept of a damaged member.
fn put_aside(data_dir: &Path, wal_dir: Option<&Path>) -> Vec<PathBuf> {
    let places = [Some(data_dir), wal_dir.and_then(Path::parent)];
    let entries = places.into_iter().flatten().filter_map(|place| fs::read_dir(place).ok());
    let paths = entries.flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let is_aside = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().as_bytes();
        name.windows(9).any(|part| part == b".damaged-")
    };
    paths.filter(is_aside).collect()
}

/// The certificates that `--auto-tls` has made.
fn certificates(data_dir: &Path, now: i64) -> Vec<Expiring> {
    let now = u64::try_from(now).unwrap_or_default();
    let end = |path: &Path| {
        let ends = cert::read(path, now).ok()?.into_iter().filter_map(|item| match item {
            Item::Certificate(certificate) => Some(certificate.ends),
            _ => None,
        });
        Some(Expiring { what: path.display().to_string(), ends: ends.min()? })
    };
    ["client", "peer"]
        .iter()
        .filter_map(|kind| end(&data_dir.join("fixtures").join(kind).join("cert.pem")))
        .collect()
}
