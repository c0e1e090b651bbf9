//! The LMDB environment and its tables.
//!
//! The room's unsafe code is here and in `readers`. LMDB trusts its file, so `check` has walked it
//! before it is opened here.

#![expect(unsafe_code, reason = "opening an LMDB environment maps a file into memory")]

pub(super) mod copy;
mod read;
mod readers;
mod seek;
mod write;

use std::fs::OpenOptions;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, EnvFlags, EnvOpenOptions, FlagSetMode, MdbError, WithoutTls};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::retry_on_intr;

pub(super) use read::{Pinned, Reader};
pub(super) use write::Writer;

use super::schema::{self, Bucket};
use super::{Error, Faults};
use crate::files;
use crate::limits::{MAP_BYTES, READERS_MAX};

type Table = heed::Database<'static, Raw, Raw>;

/// Number of tables: `rev`, `blob`, `rusd` and the small buckets.
pub(super) const TABLES: usize = 3 + Bucket::ALL.len();
pub(super) const DATA_FILE: &str = "data.mdb";
const LOCK_FILE: &str = "lock.mdb";
/// Upper bound of the size of LMDB's lock file: a cache line for each reader, and the header before
/// them.
const LOCK_BYTES: u64 = READERS_MAX as u64 * 64 + 8192;

/// An open LMDB environment with its tables.
pub(super) struct Env {
    env: heed::Env<WithoutTls>,
    file: PathBuf,
    rev: Table,
    blob: Table,
    own: Table,
    small: [Table; Bucket::ALL.len()],
    pub(super) faults: Option<Arc<dyn Faults>>,
}

impl Env {
    /// Opens or creates the environment in `dir`. The directory exists, and this process holds the
    /// data directory's lock.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        Self::open_with(dir, EnvFlags::empty())
    }

    /// Creates an environment in `dir` whose commits are not durable before [`Self::sync`]: for one
    /// that does not count before it is complete.
    pub(super) fn create(dir: &Path) -> Result<Self, Error> {
        Self::open_with(dir, EnvFlags::NO_SYNC)
    }

    /// Makes all commits durable.
    pub(super) fn sync(&self) -> Result<(), Error> {
        self.env.force_sync().map_err(|error| named(&self.file, error))
    }

    fn open_with(dir: &Path, flags: EnvFlags) -> Result<Self, Error> {
        let (file, lock) = (dir.join(DATA_FILE), dir.join(LOCK_FILE));
        // LMDB would open a FIFO or a device, too, and its errors name no file.
        for path in [&file, &lock] {
            files::check(path).map_err(Error::io(path))?;
        }
        allocate(&lock)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_readers(READERS_MAX).max_dbs(TABLES as u32);
        // SAFETY: NO_SYNC, the only flag given, may leave a damaged file after a power cut; it is
        // given for files alone that nothing refers to until they are synced.
        unsafe { options.flags(flags) };
        // SAFETY: the file is changed by no one else while it is mapped: the data directory is
        // locked by this process, heed refuses to open one path twice, and LMDB itself writes
        // through the file descriptor, never through the map.
        let env = unsafe { options.open(dir) }.map_err(|error| named(&file, error))?;
        readers::take(&lock)?;
        env.clear_stale_readers().map_err(|error| named(&file, error))?;
        let mut names =
            [schema::REV, schema::BLOB, schema::OWN, "", "", "", "", "", "", "", "", ""];
        names[3..].copy_from_slice(&Bucket::ALL.map(Bucket::name));
        let tables = open_tables(&env, names).map_err(|error| named(&file, error))?;
        let [rev, blob, own, small @ ..] = tables;
        Ok(Self { env, file, rev, blob, own, small, faults: None })
    }

    /// With `syncs` false, commits reach the system and not the disk from here on. Called before
    /// other threads have the environment.
    pub(super) fn set_syncs(&mut self, syncs: bool) -> Result<(), Error> {
        if syncs {
            return Ok(());
        }
        // SAFETY: no other thread has the environment, so none sets flags or commits meanwhile. A
        // power cut can damage the file; the next start walks its pages before it is mapped.
        unsafe { self.env.set_flags(EnvFlags::NO_SYNC, FlagSetMode::Enable) }
            .map_err(|error| named(&self.file, error))
    }

    #[cfg(test)]
    pub(super) fn syncs(&self) -> bool {
        self.env.get_flags().unwrap() & EnvFlags::NO_SYNC.bits() == 0
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    fn small(&self, bucket: Bucket) -> Table {
        self.small[bucket as usize]
    }

    fn damage(&self, at: String, what: impl Into<String>) -> Error {
        Error::damage(&self.file, at, what)
    }
}

/// Allocates the blocks of LMDB's lock file, which LMDB maps for writing: on a full disk, the first
/// access to a page without a block would be a SIGBUS. Fails for want of space; a file system that
/// reserves none is borne. Must come before LMDB opens the file: closing any other descriptor of it
/// later would release LMDB's POSIX lock.
fn allocate(file: &Path) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let allocated = files::open_with(&options, file).and_then(|file| {
        // Some file systems end with EINTR when a signal is pending.
        let reserved = retry_on_intr(|| fallocate(&file, FallocateFlags::KEEP_SIZE, 0, LOCK_BYTES));
        // XFS on a full disk refuses to reserve what is there already.
        let is_there = || file.metadata().is_ok_and(|found| found.blocks() * 512 >= LOCK_BYTES);
        if reserved.is_ok() || is_there() { Ok(()) } else { Ok(reserved?) }
    });
    let Err(error) = allocated else { return Ok(()) };
    if files::is_full(&error) {
        return Err(Error::io(file)(error));
    }
    tracing::warn!(file = %file.display(), %error, "space could not be reserved");
    Ok(())
}

/// Opens or creates all tables in one transaction, so that an environment has all of them or none.
fn open_tables(
    env: &heed::Env<WithoutTls>,
    names: [&str; TABLES],
) -> Result<[Table; TABLES], heed::Error> {
    let txn = env.write_txn()?;
    let opened = env.create_databases_and_commit(txn, |opener, txn| {
        let mut tables = Vec::with_capacity(TABLES);
        for name in names {
            tables.push(opener.create_database::<Raw, Raw>(txn, Some(name))?);
        }
        let tables = <[_; TABLES]>::try_from(tables);
        let tables = tables.map_or_else(|_| CommitOrAbort::Abort(()), CommitOrAbort::Commit);
        Ok::<_, heed::Error>(tables)
    })?;
    opened.commit().ok_or(heed::Error::Mdb(MdbError::DbsFull))
}

/// Adds the file to an error of LMDB. Errors that only a damaged file can cause become
/// `Error::Damage`.
fn named(file: &Path, error: heed::Error) -> Error {
    let file = file.to_path_buf();
    match error {
        heed::Error::Io(source) => Error::Io { file, source },
        heed::Error::Mdb(
            MdbError::PageNotFound
            | MdbError::Corrupted
            | MdbError::VersionMismatch
            | MdbError::Invalid
            | MdbError::CursorFull
            | MdbError::PageFull
            | MdbError::Incompatible,
        ) => Error::Damage { file, at: "an LMDB page".to_owned(), what: error.to_string() },
        _ => Error::Lmdb { file, what: error.to_string() },
    }
}
