//! Why a state cannot be loaded, sent or installed.

use std::io;

use crate::apply::NewerCluster;
use crate::files;
use crate::members::Malformed;
use crate::store::{self, Bucket};
use crate::{auth, bbolt, mvcc, raft};

/// Why the state of a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Mvcc(#[from] mvcc::Error),
    #[error("{table}: malformed {what} in the store")]
    Malformed { table: &'static str, what: String },
    #[error(transparent)]
    Auth(#[from] auth::Malformed),
    #[error(transparent)]
    Newer(#[from] NewerCluster),
    #[error("version {0:?} is not supported")]
    StorageVersion(String),
}

impl From<Malformed> for LoadError {
    fn from(error: Malformed) -> Self {
        Self::Malformed { table: Bucket::Members.name(), what: error.to_string() }
    }
}

/// Why etcd's snapshot file cannot be made of a store.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Bbolt(#[from] bbolt::Error),
}

/// Why a state cannot be installed, or become the first state of a member.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("the snapshot is refused: {0}")]
    Refused(String),
    #[error("the snapshot is damaged: {0}")]
    Bbolt(#[from] bbolt::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Mvcc(#[from] mvcc::Error),
    #[error(transparent)]
    Raft(#[from] raft::Error),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl InstallError {
    /// Whether the cause is a full disk.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Store(store::Error::NoSpace { .. }) => true,
            Self::Store(store::Error::Io { source: error, .. }) | Self::Io(error) => {
                files::is_full(error)
            }
            _ => false,
        }
    }
}

pub(super) fn refused(what: impl Into<String>) -> InstallError {
    InstallError::Refused(what.into())
}
