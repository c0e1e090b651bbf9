use std::io;
use std::path::{Path, PathBuf};

use crate::types::Revision;

/// Errors of the store. Every variant is local: it depends on this member's disk and is never the
/// result of applying an entry. The member stops, or the caller is refused or tries again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not what rusd wrote. The place is reported, and the bytes are never served.
    #[error("{file}: damaged at {at}: {what}")]
    Damage { file: PathBuf, at: String, what: String },
    /// The index knows a row that neither the tail nor the file has.
    #[error("revision {0} is not in the store")]
    Missing(Revision),
    /// Damage was found earlier, so the store is not copied, to keep the damage from spreading.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    #[error("{file}: {source}")]
    Io { file: PathBuf, source: io::Error },
    #[error("{file}: {what}")]
    Lmdb { file: PathBuf, what: String },
    #[error("{file}: no space left on the device")]
    NoSpace { file: PathBuf },
    #[error(
        "{dir}: defragmentation needs {needed} bytes of free disk space beside the store, and \
         {free} are left; without it, what compaction frees within the file is used again"
    )]
    NoRoom { dir: PathBuf, needed: u64, free: u64 },
    #[error(
        "{dir}: defragmentation needs {needed} files beside the store, and the file system has \
         inodes for {free} more; without it, what compaction frees within the file is used again"
    )]
    NoFiles { dir: PathBuf, needed: u64, free: u64 },
    #[error("the defragmentation was given up: {0}")]
    GivenUp(&'static str),
    #[error("{file}: format {found} is not one that this rusd reads; it reads format {known}")]
    Format { file: PathBuf, found: u32, known: u32 },
    #[error("{file}: locked by another process{holder}; only one may use a data directory")]
    Locked { file: PathBuf, holder: String },
    #[error(
        "{found}: rusd will not start on etcd's data directory; bring it in with `rusd import` \
         or --import-etcd-dir, or choose another --data-dir"
    )]
    Etcd { found: PathBuf },
    #[error(
        "{dir}: is on a network file system ({kind}), which loses the locks and the order of \
         writes that the store relies on; choose a directory on a local disk"
    )]
    NetworkFileSystem { dir: PathBuf, kind: &'static str },
    /// The committer has ended: the store was closed, or an earlier error was fatal.
    #[error("the store has stopped: {0}")]
    Stopped(String),
}

impl Error {
    pub(super) fn damage(
        file: impl Into<PathBuf>,
        at: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        Self::Damage { file: file.into(), at: at.into(), what: what.into() }
    }

    /// For `map_err`: an I/O error with the file it happened on.
    pub(super) fn io(file: &Path) -> impl FnOnce(io::Error) -> Self {
        let file = file.to_path_buf();
        move |source| Self::Io { file, source }
    }
}
