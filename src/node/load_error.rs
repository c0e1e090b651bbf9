//! Why the state of a store cannot be used.

use crate::apply::NewerCluster;
use crate::members::Malformed;
use crate::store::{self, Bucket};
use crate::{auth, mvcc};

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
