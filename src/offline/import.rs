//! Makes a stopped etcd member a rusd member with the same ids, and a rusd member an etcd snapshot.
//!
//! The store is filled from etcd's file. The log is copied, since its format is the same: entries
//! that etcd had logged and not applied to its file are applied when this member starts. Each of
//! them is decoded before the directory appears, so that the start meets no unknown request.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};

use super::{Archive, Error, TargetDirs, place};
use crate::clock::SystemClock;
use crate::files;
use crate::node;
use crate::raft::log::SystemDisk;
use crate::store::Options;
use crate::transfer::{self, Adopted, InstallError, Snapshot, Source};

/// An import from a stopped member's data directory of etcd 3.5 or newer.
pub struct Import<'a> {
    pub from: &'a Path,
    /// None if the log is within the data directory.
    pub from_wal: Option<&'a Path>,
    pub place: TargetDirs<'a>,
}

/// Facts about an import, for its report.
#[derive(Clone, Copy, Debug)]
pub struct Imported {
    pub member_id: u64,
    pub cluster_id: u64,
    /// Index of the last entry that etcd had applied to its file.
    pub applied: u64,
    /// Index of the last entry of the log.
    pub last: u64,
    /// Number of requests of API v2 behind `applied`. Keys of that API are not imported.
    pub ignored: u64,
    pub revision: i64,
    pub hash: u32,
}

impl Import<'_> {
    /// Imports everything or nothing. etcd's directory is only read, under a shared lock of its
    /// file.
    pub fn run(&self) -> Result<Imported, Error> {
        self.place.check()?;
        let path = self.from.join("member/snap/db");
        let file = files::open(&path).map_err(Error::io("open", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(Error::InUse { path }),
            Err(errno) => return Err(Error::io("lock", &path)(errno.into())),
        }
        let wal = self.from_wal.map_or_else(|| self.from.join("member/wal"), Path::to_path_buf);
        let found = Archive::File(file);
        let hash = found.hash_kv(0)?;
        let Archive::File(file) = &found else { return Err(Error::Missing { path }) };
        let adopted = self.place.make(|db, log| {
            copy_log(&wal, log)?;
            let mut options = Options::new(Arc::new(SystemClock::new()));
            options.reserve_bytes = 0;
            let (source, disk) = (Source::File(file), Arc::new(SystemDisk));
            Ok(transfer::adopt(&source, db, log, disk, options, node::check_entry)?)
        })?;
        let Adopted { metadata, applied, last, ignored } = adopted;
        Ok(Imported {
            member_id: metadata.node_id,
            cluster_id: metadata.cluster_id,
            applied,
            last,
            ignored,
            revision: hash.revision,
            hash: hash.hash,
        })
    }
}

/// Copies the log's segments and syncs them.
fn copy_log(from: &Path, to: &Path) -> Result<(), Error> {
    fs::create_dir(to).map_err(Error::io("mkdir", to))?;
    let private = fs::Permissions::from_mode(0o700);
    fs::set_permissions(to, private).map_err(Error::io("chmod", to))?;
    for entry in fs::read_dir(from).map_err(Error::io("open", from))? {
        let source = entry.map_err(Error::io("read", from))?.path();
        if source.extension().is_none_or(|extension| extension != "wal") {
            continue;
        }
        let target = to.join(source.file_name().unwrap_or_default());
        let copy = || -> io::Result<()> {
            let (mut from, mut to) = (files::open(&source)?, File::create_new(&target)?);
            to.set_permissions(from.metadata()?.permissions())?;
            io::copy(&mut from, &mut to)?;
            to.sync_all()
        };
        copy().map_err(Error::io("copy", &source))?;
    }
    place::sync(to)
}

/// Writes a stopped member's state as an etcd snapshot, from which `etcdutl snapshot restore` makes
/// an etcd member. The file appears once it is complete and synced. Returns its length in bytes,
/// without the SHA-256.
pub fn export(data_dir: &Path, wal_dir: Option<&Path>, to: &Path) -> Result<u64, Error> {
    if to.exists() {
        let source = io::ErrorKind::AlreadyExists.into();
        return Err(Error::Io { verb: "write", path: to.to_path_buf(), source });
    }
    let archive = Archive::open_member(data_dir, wal_dir)?;
    let Archive::Member { store, .. } = &archive else {
        return Err(Error::Missing { path: data_dir.to_path_buf() });
    };
    let part = PathBuf::from(format!("{}.part", to.display()));
    let written = write_snapshot(store, &part).and_then(|bytes| {
        fs::rename(&part, to).map_err(Error::io("rename", &part))?;
        place::sync(files::parent(to))?;
        Ok(bytes)
    });
    if written.is_err() {
        // The error is ignored: the file does not exist if its creation failed.
        let _ = fs::remove_file(&part);
    }
    written
}

fn write_snapshot(store: &crate::store::Store, part: &Path) -> Result<u64, Error> {
    let mut snapshot = Snapshot::new(store).map_err(InstallError::from)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(part).map_err(Error::io("open", part))?;
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    while let Some(piece) = snapshot.next_piece().map_err(InstallError::from)? {
        hasher.update(&piece);
        bytes += piece.len() as u64;
        file.write_all(&piece).map_err(Error::io("write", part))?;
    }
    file.write_all(&hasher.finalize()).map_err(Error::io("write", part))?;
    file.sync_all().map_err(Error::io("sync", part))?;
    Ok(bytes)
}
