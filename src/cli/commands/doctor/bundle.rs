//! The bundle for support: findings, members, metrics and files' sizes in one archive, and nothing
//! that belongs to users of the store. `docs/doctor.md` lists what is in it.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};

use super::facts::{Facts, Member};
use super::report::Report;
use crate::cli::commands::replaceable;
use crate::limits::BUNDLE_HASHED_BYTES_MAX;

/// Writes the archive under a temporary name and renames it.
pub(super) fn write(path: &Path, report: &Report<'_>) -> io::Result<()> {
    replaceable(path)?;
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = write_to(&part, report).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // The error is ignored: the one that led here says more.
        let _ = fs::remove_file(&part);
    }
    written
}

fn write_to(path: &Path, report: &Report<'_>) -> io::Result<()> {
    // What an earlier run has left, or a link that somebody has put there. The error is ignored:
    // the creation fails then.
    let _ = fs::remove_file(path);
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let mut archive = Builder::new(GzEncoder::new(file, Compression::default()));
    let seconds = u64::try_from(report.facts.now).unwrap_or_default();
    for (name, text) in contents(report) {
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(seconds);
        archive.append_data(&mut header, format!("rusd-doctor/{name}"), text.as_bytes())?;
    }
    let file = archive.into_inner()?.finish()?;
    file.sync_all()
}

fn contents(report: &Report<'_>) -> Vec<(String, String)> {
    let facts = report.facts;
    let pretty = |value: &Value| format!("{value:#}\n");
    let mut files = vec![
        ("about.json".to_owned(), pretty(&about(facts))),
        ("doctor.json".to_owned(), pretty(&report.json(true))),
    ];
    if let Some(cluster) = &facts.cluster {
        let statuses: Vec<Value> = cluster.members.iter().map(status).collect();
        files.push(("status.json".to_owned(), pretty(&json!(statuses))));
        for (number, member) in cluster.members.iter().enumerate() {
            if let Some(metrics) = &member.metrics {
                // By number: a name may be one that no file can have.
                let name = format!("metrics/{}-{:x}.txt", number + 1, member.id);
                files.push((name, metrics.text()));
            }
        }
    }
    if let Some(directory) = &facts.directory {
        let mut listed = Vec::new();
        list(&directory.path, &directory.path, &mut listed);
        files.push(("files.json".to_owned(), pretty(&json!(listed))));
    }
    files
}

fn about(facts: &Facts) -> Value {
    // Empty where there is no /proc.
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "rusd": env!("CARGO_PKG_VERSION"),
        "compatibleWith": crate::cli::ETCD_VERSION,
        "unixSeconds": facts.now,
        "system": std::env::consts::OS,
        "machine": std::env::consts::ARCH,
        "kernel": kernel.trim(),
        "processors": std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
    })
}

fn status(member: &Member) -> Value {
    let Some(status) = &member.status else {
        let why = member.unreached.as_ref().map(|unreached| unreached.text.as_str());
        return json!({ "id": format!("{:x}", member.id), "unreached": why });
    };
    let header = status.header.unwrap_or_default();
    json!({
        "id": format!("{:x}", member.id),
        "clusterId": format!("{:x}", header.cluster_id),
        "revision": header.revision,
        "version": status.version,
        "storageVersion": status.storage_version,
        "dbSize": status.db_size,
        "dbSizeInUse": status.db_size_in_use,
        "dbSizeQuota": status.db_size_quota,
        "leader": format!("{:x}", status.leader),
        "raftIndex": status.raft_index,
        "raftTerm": status.raft_term,
        "raftAppliedIndex": status.raft_applied_index,
        "isLearner": status.is_learner,
        "errors": status.errors,
    })
}

/// Names, sizes and checksums of a directory's files. Files that may be keys get no checksum.
fn list(root: &Path, dir: &Path, listed: &mut Vec<Value>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        // Links are not followed: they may lead anywhere.
        let Ok(found) = fs::symlink_metadata(&path) else { continue };
        if found.is_dir() {
            list(root, &path, listed);
            continue;
        }
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let is_data = name.starts_with("member") && found.is_file();
        let hash = match is_data && found.len() <= BUNDLE_HASHED_BYTES_MAX {
            true => hash(&path).ok(),
            false => None,
        };
        listed.push(json!({ "file": name, "bytes": found.len(), "sha256": hash }));
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = crate::files::open(path)?;
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => digest.write_all(&buffer[..count])?,
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
