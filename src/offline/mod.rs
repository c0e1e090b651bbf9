//! Work on a state that no member serves: restore, import, export, check, hash.
//!
//! ```text
//!   snapshot file ──┐                       ┌─► data directory of a new member
//!                   ├─► Archive (checked) ──┼─► snapshot file
//!   data directory ─┘                       └─► HashKV, storage version
//!
//!   etcd's data directory ──► data directory of the same member, elsewhere or in its place
//! ```
//!
//! An [`Archive`] is etcd's bbolt file, or the directory of a stopped rusd member under its lock,
//! to which everything that its log commits has been applied. A file is read and never written:
//! etcd's own tools open snapshots for writing, which breaks their checksum.
//!
//! A result appears under its final name by one rename, when it is complete and synced. An attempt
//! that fails leaves nothing behind. One that is killed leaves a directory `restoring`, or
//! `importing` where etcd's directory is taken in, which the next attempt removes.

mod archive;
mod check;
mod import;
mod place;
mod rebuild;
mod restore;
mod take_in;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

pub use archive::{Archive, defragment, migrate, storage_version};
pub use check::{Check, Finding, REBUILD, Report, Severity, Users};
pub use import::{Import, Imported, export};
pub use place::TargetDirs;
pub use rebuild::{Rebuild, RebuildProgress, owner, put_aside};
pub use restore::Restore;
pub use take_in::{TakenIn, take_in};

use crate::node::StartError;
use crate::transfer::{InstallError, LoadError};
use crate::{bbolt, go, store};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{verb} {}: {}", path.display(), go::reason(source))]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error("{}: in use by another process; stop etcd first", path.display())]
    InUse { path: PathBuf },
    /// The path holds nothing that could be an archive.
    #[error("stat {}: no such file or directory", path.display())]
    Missing { path: PathBuf },
    #[error("data-dir {} not empty or could not be read", quoted(path))]
    NotEmpty { path: PathBuf },
    #[error("wal-dir {} exists", quoted(path))]
    WalExists { path: PathBuf },
    #[error("wal-dir {} must neither hold the store nor lie in it", quoted(path))]
    WalPlace { path: PathBuf },
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    NotInCluster(String),
    #[error("snapshot missing hash but --skip-hash-check=false")]
    NoHash,
    #[error("expected sha256 {}, got {}", go::numbers(.expected), go::numbers(.found))]
    Hash { expected: [u8; 32], found: [u8; 32] },
    #[error(transparent)]
    Bbolt(#[from] bbolt::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    Start(#[from] StartError),
}

impl Error {
    /// Whether another process has locked the directory, so that a later attempt may succeed.
    pub fn is_in_use(&self) -> bool {
        let found = match self {
            Self::InUse { .. } => return true,
            Self::Store(error)
            | Self::Start(StartError::Store(error) | StartError::Load(LoadError::Store(error)))
            | Self::Install(
                InstallError::Store(error) | InstallError::Load(LoadError::Store(error)),
            ) => error,
            _ => return false,
        };
        matches!(found, store::Error::Locked { .. })
    }

    pub fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { verb, path, source }
    }
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}
