//! `snapshot save`: writes one member's state into a file.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::replaceable;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::json;
use crate::cli::printer::{OnSignal, Unit};
use crate::cli::size;
use crate::cli::spec::Program;
use crate::client::{Client, Deadline, Error, rpc};
use crate::clock::Clock as _;
use crate::files;
use crate::go;
use crate::pb::SnapshotRequest;

/// A snapshot is a bbolt file, whose length is a multiple of 512 bytes, followed by a SHA-256.
const PAGE: u64 = 512;
const HASH: usize = 32;
/// Attempts to open the file that is written, which others may rename meanwhile.
const CREATE_ATTEMPTS_MAX: usize = 8;

pub(super) async fn save(mut context: Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("snapshot save expects one argument <filename>"));
    }
    let path = context.path(0).to_owned();
    if context.program == Program::Rusd {
        replaceable(&path).map_err(|why| interrupted(format!("{}: {why}", path.display())))?;
    }
    let config = context.config().await?;
    config.tls.validate().map_err(|text| Failure::bytes(Exit::BadArguments, text))?;
    let deadline = match context.flags.changed("command-timeout") {
        true => context.deadline(),
        false => Deadline::NONE,
    };
    if config.endpoints.len() != 1 {
        let endpoints = config.endpoints.join(" ");
        return Err(interrupted(format!(
            "snapshot must be requested to one selected node, not multiple [{endpoints}]"
        )));
    }
    let endpoint = config.endpoints[0].clone();
    let client = context
        .connect(config)
        .await
        .map_err(|failure| Failure { exit: Exit::Interrupted, ..failure })?;
    let mut part = path.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    // Its lock is kept until the file has its name or is removed.
    let mut saving = Saving::new(create(&part).map_err(interrupted)?);
    let outcome = fetch(&context, &client, &endpoint, &mut saving, [&path, &part], deadline).await;
    if outcome.is_err() {
        let _ = fs::remove_file(&part);
    }
    let saved = outcome?;
    context.printer.out([b"Snapshot saved at ", bytes(&path), b"\n"].concat());
    if context.printer.is_screen() {
        let size = size::shown(saved.bytes);
        let time = match saved.took.as_secs() {
            0 => format!("{} ms", saved.took.as_millis()),
            _ => format!("{:.1} s", saved.took.as_secs_f64()),
        };
        context.printer.line(format!("{size} in {time}, with the right SHA-256"));
    }
    if !saved.version.is_empty() {
        context.printer.line(format!("Server version {}", saved.version));
    }
    Ok(())
}

fn interrupted(message: impl Into<Vec<u8>>) -> Failure {
    Failure::bytes(Exit::Interrupted, message)
}

/// A call that failed, with etcdctl's words before the error.
fn lost(before: &str, error: Error) -> Failure {
    Failure::of(Exit::Interrupted, format!("{before}{error}"), error)
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

async fn fetch(
    context: &Context,
    client: &Client,
    endpoint: &str,
    saving: &mut Saving,
    [path, part]: [&Path; 2],
    deadline: Deadline,
) -> Result<Saved, Failure> {
    let start = context.clock.now();
    let shown = json::string(bytes(part));
    log(
        context,
        None,
        "snapshot/v3_snapshot.go:83",
        "created temporary db file",
        &format!(",\"path\":{shown}"),
    );
    let requests = tokio_stream::once(SnapshotRequest {}).boxed();
    let mut stream = client
        .stream(&rpc::SNAPSHOT, requests, false, deadline)
        .await
        .map_err(|it| lost("", it))?;
    let first = client.next(&mut stream, deadline).await.map_err(|it| lost("", it))?;
    let logger = Some("client");
    log(context, logger, "v3/maintenance.go:236", "opened snapshot stream; downloading", "");
    let named = format!(",\"endpoint\":{}", json::string(endpoint.as_bytes()));
    log(context, None, "snapshot/v3_snapshot.go:96", "fetching snapshot", &named);
    let total = first
        .as_ref()
        .map_or(0, |piece| (piece.blob.len() as u64).saturating_add(piece.remaining_bytes));
    let bar = context.printer.progress(total, Unit::Bytes, bytes(path), OnSignal::End);
    let mut next = first;
    let mut version = String::new();
    while let Some(piece) = next {
        if !piece.version.is_empty() {
            version = piece.version;
        }
        saving.write(&piece.blob).map_err(|error| {
            interrupted(format!("could not write snapshot: {}", go::reason(&error)))
        })?;
        bar.set(saving.bytes);
        next = client
            .next(&mut stream, deadline)
            .await
            .map_err(|error| lost("could not write snapshot: ", error))?;
    }
    drop(bar);
    log(context, logger, "v3/maintenance.go:302", "completed snapshot read; closing", "");
    saving.verify().map_err(interrupted)?;
    let fsync = |error| interrupted(format!("could not fsync snapshot: {}", go::reason(&error)));
    saving.file.sync_all().map_err(fsync)?;
    fs::rename(part, path).map_err(|error| {
        let (part, path) = (bytes(part), bytes(path));
        let call = [b"rename ", part, b" ", path];
        interrupted(cannot(&[b"rename ", part, b" to ", path], &call, &error))
    })?;
    sync_dir_of(path).map_err(fsync)?;
    let took = context.clock.now().saturating_sub(start);
    report(context, endpoint, path, saving.bytes, took, &version);
    Ok(Saved { version, bytes: saving.bytes, took })
}

/// What the user is told of a snapshot.
struct Saved {
    version: String,
    bytes: u64,
    took: Duration,
}

/// Creates an empty file that only its owner may read, and locks it: two commands that write one
/// file would make a mixture of two snapshots.
fn create(part: &Path) -> Result<File, Vec<u8>> {
    let failed = |error| cannot(&[b"open ", bytes(part)], &[b"open ", bytes(part)], &error);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    for _ in 0..CREATE_ATTEMPTS_MAX {
        let file = options.open(part).map_err(failed)?;
        // A file system without locks has to do without.
        if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            break;
        }
        // The one that had the lock may have given the file its name, or removed it.
        let opened = file.metadata().map_err(failed)?;
        match fs::metadata(part) {
            Ok(named) if files::identity(&named) == files::identity(&opened) => {
                file.set_len(0).map_err(failed)?;
                return Ok(file);
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    Err(failed(io::Error::other("another snapshot save writes it")))
}

/// An error in etcdctl's words, which name the failed call as Go does.
fn cannot(what: &[&[u8]], call: &[&[u8]], error: &io::Error) -> Vec<u8> {
    let (what, call, reason) = (what.concat(), call.concat(), go::reason(error));
    [b"could not ", what.as_slice(), b" (", &call, b": ", reason.as_bytes(), b")"].concat()
}

/// Syncs the directory of `path`, so that the file's name survives a power cut.
fn sync_dir_of(path: &Path) -> io::Result<()> {
    files::sync_dir(files::parent(path))
}

/// A snapshot file that is being written.
struct Saving {
    file: File,
    bytes: u64,
    /// Digest of all bytes but the last 32: these may be the SHA-256 itself.
    digest: Sha256,
    last: Vec<u8>,
}

impl Saving {
    fn new(file: File) -> Self {
        Self { file, bytes: 0, digest: Sha256::new(), last: Vec::new() }
    }

    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.write_all(piece)?;
        self.bytes += piece.len() as u64;
        self.last.extend_from_slice(piece);
        let body = self.last.len().saturating_sub(HASH);
        self.digest.update(&self.last[..body]);
        self.last.drain(..body);
        Ok(())
    }

    /// Checks the SHA-256 at the end. etcdctl checks the length only.
    fn verify(&self) -> Result<(), String> {
        if self.bytes % PAGE != HASH as u64 {
            return Err(format!("sha256 checksum not found [bytes: {}]", self.bytes));
        }
        let found = self.digest.clone().finalize();
        if found.as_slice() == self.last {
            return Ok(());
        }
        Err(format!("expected sha256 {}, got {}", go::numbers(&self.last), go::numbers(&found)))
    }
}

fn report(
    context: &Context,
    endpoint: &str,
    path: &Path,
    size: u64,
    took: Duration,
    version: &str,
) {
    let tail = format!(
        ",\"endpoint\":{},\"size\":\"{}\",\"took\":\"{}\",\"etcd-version\":{}",
        json::string(endpoint.as_bytes()),
        size::shown(size),
        go::duration(took),
        json::string(version.as_bytes())
    );
    log(context, None, "snapshot/v3_snapshot.go:111", "fetched snapshot", &tail);
    let tail = format!(",\"path\":{}", json::string(bytes(path)));
    log(context, None, "snapshot/v3_snapshot.go:121", "saved", &tail);
}

fn log(context: &Context, logger: Option<&str>, caller: &str, message: &str, tail: &str) {
    let time = go::timestamp(context.clock.unix_nanos());
    let logger = logger.map(|name| format!("\"logger\":\"{name}\",")).unwrap_or_default();
    let json = || {
        format!(
            "{{\"level\":\"info\",\"ts\":\"{time}\",{logger}\"caller\":\"{caller}\",\
             \"msg\":\"{message}\"{tail}}}"
        )
    };
    context.printer.log(json, || message.to_owned());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(file: &[u8], piece_bytes: usize) -> Result<(), String> {
        let mut saving = Saving::new(tempfile::tempfile().unwrap());
        file.chunks(piece_bytes).for_each(|piece| saving.write(piece).unwrap());
        saving.verify()
    }

    #[test]
    fn a_file_that_another_command_writes_is_left_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let (path, part) = (dir.path().join("x"), dir.path().join("x.part"));
        let mut first = create(&part).unwrap();
        first.write_all(b"a snapshot").unwrap();
        let refused = String::from_utf8(create(&part).unwrap_err()).unwrap();
        assert!(refused.ends_with("x.part: another snapshot save writes it)"), "{refused}");
        fs::rename(&part, &path).unwrap();
        let second = create(&part).unwrap();
        assert_eq!((second.metadata().unwrap().len(), fs::read(&path).unwrap().len()), (0, 10));
        // What a command left that was killed is written over.
        drop(second);
        fs::write(&part, "remains").unwrap();
        assert_eq!(create(&part).unwrap().metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_file_that_changed_on_the_way_is_not_kept() {
        let mut file = vec![7; 3 * PAGE as usize];
        let digest = Sha256::digest(&file);
        file.extend_from_slice(&digest);
        for piece_bytes in [1, 31, 32, 33, 700, file.len()] {
            assert_eq!(saved(&file, piece_bytes), Ok(()));
            for at in [0, 700, file.len() - HASH, file.len() - 1] {
                file[at] ^= 4;
                let why = saved(&file, piece_bytes).unwrap_err();
                assert!(why.starts_with("expected sha256 ["), "{why}");
                file[at] ^= 4;
            }
        }
        let cut = saved(&file[..file.len() - 1], 100).unwrap_err();
        assert_eq!(cut, "sha256 checksum not found [bytes: 1567]");
        assert!(saved(&[], 1).is_err());
    }
}
