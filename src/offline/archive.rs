//! A state at rest: a snapshot file, etcd's own store, or a stopped rusd member's directory.

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

/// etcd's store within a data directory. Scripts name this path, so in a rusd directory, which has
/// no such file, it stands for rusd's store.
const ETCD_FILE: &str = "member/snap/db";

/// rusd's store within a data directory.
const DB: &str = "member/db";

/// A state that can be read: `File` is a bbolt file, `Member` a member's store under its lock.
pub enum Archive {
    File(File),
    Member { frozen: Box<Frozen>, store: Box<Store>, lock: DirLock },
}

impl Archive {
    /// Opens a snapshot file, etcd's `member/snap/db`, or a rusd data directory, named by its path
    /// or by that of the `member/snap/db` that it would have in etcd. `verb` begins the error text
    /// for a file that cannot be opened.
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

    /// Opens a rusd data directory, and applies what its log holds beyond the store. `wal_dir` is
    /// needed if the member has its log elsewhere.
    pub fn open_member(data_dir: &Path, wal_dir: Option<&Path>) -> Result<Self, Error> {
        let db = data_dir.join(DB);
        if !db.is_dir() {
            return Err(Error::Missing { path: db });
        }
        let wal = wal_dir.map_or_else(|| data_dir.join("member/wal"), Path::to_path_buf);
        // `node::settle` would start a member without a log with a new one. A missing log rather
        // means that the member has a --wal-dir that this command was not given.
        if !raft::exists(&SystemDisk, &wal).map_err(StartError::from)? {
            return Err(StartError::NoLog { wal }.into());
        }
        let lock = store::lock(data_dir)?;
        if !store::is_vacant(&db)? && !store::has_other(&db)? {
            let (store, opened) = Store::open(&db, options())?;
            // An unreadable log is reported by `node::settle` below, which reads it again.
            if AtRest::read(&wal).is_ok_and(|log| log.last == opened.consistent_index) {
                return Self::member(store, lock);
            }
        }
        drop(lock);
        // The log holds entries beyond the store, perhaps acknowledged ones. To commit them, a sole
        // voter appends an entry of its own term. That changes the directory, so it is not done
        // above, where everything is applied.
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

    /// Compares the SHA-256 at the end of a snapshot file. A directory has none, in etcd as well.
    pub fn check_hash(&self) -> Result<(), Error> {
        let Self::File(file) = self else { return Err(Error::NoHash) };
        match bbolt::trailer(file)? {
            None => Err(Error::NoHash),
            Some(trailer) if trailer.is_right() => Ok(()),
            Some(bbolt::Trailer { stored, computed }) => {
                Err(Error::Hash { expected: stored, found: computed })
            }
        }
    }

    /// Whether a file consists of whole pages, as a database file does; a snapshot file has its
    /// SHA-256 behind them.
    pub fn is_whole(&self) -> bool {
        match self {
            Self::File(file) => file.metadata().is_ok_and(|found| found.len() % 512 == 0),
            Self::Member { .. } => true,
        }
    }

    /// Length of the snapshot file in bytes, without its SHA-256.
    pub fn file_bytes(&self) -> Result<u64, InstallError> {
        match self {
            Self::File(file) => Ok(bbolt::Reader::open(file)?.used_bytes()),
            Self::Member { store, .. } => Ok(Snapshot::new(store)?.file_bytes()),
        }
    }

    /// Checks all pages of a file; nothing in it can be trusted before. A store was checked when it
    /// was opened.
    pub fn check(&self) -> Result<(), bbolt::Error> {
        match self {
            Self::File(file) => bbolt::Reader::open(file)?.check(),
            Self::Member { .. } => Ok(()),
        }
    }

    /// HashKV up to a revision; 0 stands for the latest.
    pub fn hash_kv(&self, revision: i64) -> Result<KeyValueHash, InstallError> {
        self.check()?;
        transfer::hash_kv(&self.source(), revision)
    }
}

/// Options for a store that is only read: no committer, no reserve.
fn options() -> Options {
    let mut options = Options::new(Arc::new(SystemClock::new()));
    (options.committer, options.reserve_bytes) = (false, 0);
    options
}

/// The rusd data directory that `path` stands for, if it does.
fn member_of(path: &Path) -> Option<PathBuf> {
    let data_dir = match path.ends_with(ETCD_FILE) {
        true if !path.exists() => path.ancestors().nth(3)?,
        true => return None,
        false => path,
    };
    data_dir.join(DB).is_dir().then(|| data_dir.to_path_buf())
}

/// The storage version of a stopped member. etcd 3.5 stored none: a store with a term and without a
/// version is "3.5.0". None if it has neither.
pub fn storage_version(data_dir: &Path) -> Result<Option<String>, Error> {
    let path = data_dir.join(ETCD_FILE);
    if member_of(&path).is_none() {
        return Err(Error::Missing { path });
    }
    let archive = match Archive::open(&path, "open") {
        Ok(archive) => archive,
        // The version is not this release's, so the log cannot be applied; the error names the
        // version.
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

/// Gives free pages of a stopped member's store back to the disk. Its log is not touched.
pub fn defragment(data_dir: &Path) -> Result<Defragmented, Error> {
    let path = data_dir.join(ETCD_FILE);
    if member_of(&path).is_none() && !path.exists() {
        return Err(Error::Missing { path });
    }
    let db = data_dir.join(DB);
    if db.is_dir() && store::is_vacant(&db)? {
        return Err(Error::Missing { path: db.join("CURRENT") });
    }
    let _lock = store::lock(data_dir)?;
    let (store, _) = Store::open(&db, options())?;
    Ok(store.defragment(&mut |_| {})?)
}

/// Sets a stopped member's storage version, or removes it if `version` is None.
pub fn migrate(data_dir: &Path, version: Option<&str>) -> Result<(), Error> {
    let _lock = store::lock(data_dir)?;
    let (db, version) = (data_dir.join(DB), version.map(str::as_bytes));
    Ok(store::amend(&db, Bucket::Meta, schema::STORAGE_VERSION, version)?)
}
