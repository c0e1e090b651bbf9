//! A state at rest: etcd's file, or a stopped member's directory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use crate::bbolt;
use crate::clock::SystemClock;
use crate::files;
use crate::mvcc::KeyValueHash;
use crate::node::{self, StartError};
use crate::raft::{self, AtRest, log::SystemDisk};
use crate::store::{self, Bucket, Defragmented, DirLock, Frozen, Options, Store, schema};
use crate::transfer::{self, InstallError, LoadError, Snapshot, Source};

/// Where etcd keeps its file within a data directory. Scripts name it, so for rusd's directories it
/// stands for the store that is there instead.
const ETCD_FILE: &str = "member/snap/db";

/// rusd's store within a data directory.
const DB: &str = "member/db";

pub enum Archive {
    File(File),
    Member { frozen: Box<Frozen>, store: Box<Store>, lock: DirLock },
}

impl Archive {
    /// Opens a snapshot file, etcd's `member/snap/db`, or rusd's data directory under that name or
    /// its own. `verb` begins the error about a file that cannot be opened.
    pub fn open(path: &Path, verb: &'static str) -> Result<Self, Error> {
        if let Some(data_dir) = member_of(path) {
            return Self::open_member(&data_dir, None);
        }
        let found = std::fs::metadata(path).map_err(Error::io(verb, path))?;
        if found.is_dir() {
            return Err(Error::Missing { path: path.join(ETCD_FILE) });
        }
        files::open(path).map(Self::File).map_err(Error::io(verb, path))
    }

    /// Opens a data directory, whose log may be elsewhere.
    pub fn open_member(data_dir: &Path, wal_dir: Option<&Path>) -> Result<Self, Error> {
        let db = data_dir.join(DB);
        if !db.is_dir() {
            return Err(Error::Missing { path: db });
        }
        let wal = wal_dir.map_or_else(|| data_dir.join("member/wal"), Path::to_path_buf);
        // A start would make one, for a member that has other flags.
        if !raft::exists(&SystemDisk, &wal) {
            return Err(StartError::NoLog { wal }.into());
        }
        let lock = store::lock(data_dir)?;
        if !store::is_missing(&db)? && !store::has_other(&db)? {
            let (store, opened) = Store::open(&db, options())?;
            // A log that cannot be read is the business of whoever applies it.
            if AtRest::read(&wal).is_ok_and(|log| log.last == opened.consistent_index) {
                return Self::member(store, lock);
            }
        }
        drop(lock);
        // Not all that was acknowledged is in the store. A sole voter adds an entry for that, so that
        // a directory of which everything is applied is left as it is.
        node::settle(data_dir, wal_dir)?;
        let lock = store::lock(data_dir)?;
        let (store, _) = Store::open(&db, options())?;
        Self::member(store, lock)
    }

    fn member(store: Store, lock: DirLock) -> Result<Self, Error> {
        let frozen = Box::new(store.freeze()?);
        Ok(Self::Member { frozen, store: Box::new(store), lock })
    }

    pub fn source(&self) -> Source<'_> {
        match self {
            Self::File(file) => Source::File(file),
            Self::Member { frozen, .. } => Source::Store(frozen),
        }
    }

    /// Compares the SHA-256 behind a file. Directories have none, as etcd's have none.
    pub fn check_hash(&self) -> Result<(), Error> {
        let Self::File(file) = self else { return Err(Error::NoHash) };
        match bbolt::trailer(file)? {
            None => Err(Error::NoHash),
            Some(trailer) if trailer.is_right() => Ok(()),
            Some(bbolt::Trailer { expected, found }) => Err(Error::Hash { expected, found }),
        }
    }

    /// Length of the snapshot file without the hash behind it.
    pub fn file_bytes(&self) -> Result<u64, InstallError> {
        match self {
            Self::File(file) => Ok(bbolt::Reader::open(file)?.used_bytes()),
            Self::Member { store, .. } => Ok(Snapshot::new(store)?.file_bytes()),
        }
    }

    /// Walks a file, of which nothing is believed before.
    pub fn check(&self) -> Result<(), bbolt::Error> {
        match self {
            Self::File(file) => bbolt::Reader::open(file)?.check(),
            Self::Member { .. } => Ok(()),
        }
    }

    /// HashKV at a revision, or at 0 of everything.
    pub fn hash_kv(&self, revision: i64) -> Result<KeyValueHash, InstallError> {
        self.check()?;
        transfer::hash_kv(&self.source(), revision)
    }
}

/// Of a store that nobody writes to.
fn options() -> Options {
    let mut options = Options::new(Arc::new(SystemClock::new()));
    (options.committer, options.reserve_bytes) = (false, 0);
    options
}

/// rusd's data directory that a path means.
fn member_of(path: &Path) -> Option<PathBuf> {
    let data_dir = match path.ends_with(ETCD_FILE) {
        true if !path.exists() => path.ancestors().nth(3)?,
        true => return None,
        false => path,
    };
    data_dir.join(DB).is_dir().then(|| data_dir.to_path_buf())
}

/// The storage version of a stopped member: before 3.6, which noted none, 3.5.0. None if nothing says
/// that it is so old.
pub fn storage_version(data_dir: &Path) -> Result<Option<String>, Error> {
    let path = data_dir.join(ETCD_FILE);
    if member_of(&path).is_none() {
        return Err(Error::Missing { path });
    }
    let archive = match Archive::open(&path, "open") {
        Ok(archive) => archive,
        // This release cannot apply what is in its log, and need not.
        Err(Error::Start(StartError::Load(LoadError::StorageVersion(version)))) => {
            return Ok(Some(version));
        }
        Err(error) => return Err(error),
    };
    let noted = |key| archive.source().get(Bucket::Meta, key);
    if let Some(version) = noted(schema::STORAGE_VERSION)? {
        return Ok(Some(String::from_utf8_lossy(&version).into_owned()));
    }
    let has_term = noted(schema::TERM)?.is_some_and(|term| term.iter().any(|byte| *byte != 0));
    Ok(has_term.then(|| "3.5.0".to_owned()))
}

/// Gives back the space that is free within a stopped member's store. Its log is left as it is.
pub fn defragment(data_dir: &Path) -> Result<Defragmented, Error> {
    let path = data_dir.join(ETCD_FILE);
    if member_of(&path).is_none() && !path.exists() {
        return Err(Error::Missing { path });
    }
    let db = data_dir.join(DB);
    if db.is_dir() && store::is_missing(&db)? {
        return Err(Error::Missing { path: db.join("CURRENT") });
    }
    let _lock = store::lock(data_dir)?;
    let (store, _) = Store::open(&db, options())?;
    Ok(store.defragment(&mut |_| {})?)
}

/// Sets a stopped member's storage version, or with none removes it.
pub fn migrate(data_dir: &Path, version: Option<&str>) -> Result<(), Error> {
    let _lock = store::lock(data_dir)?;
    let (db, version) = (data_dir.join(DB), version.map(str::as_bytes));
    Ok(store::amend(&db, Bucket::Meta, schema::STORAGE_VERSION, version)?)
}
