//! Why a piece of upkeep was not done.

use std::io;

use super::door::Refusal;
use crate::{mvcc, store};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store of this member is damaged, so it serves nothing.
    #[error("corrupt cluster")]
    Corrupt,
    #[error("too many requests")]
    TooManyRequests,
    #[error("server stopped")]
    Stopped,
    #[error(transparent)]
    Mvcc(mvcc::Error),
    /// No thread could be started for the work, or the member is ending.
    #[error(transparent)]
    Thread(#[from] io::Error),
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An unexpected state, such as a record on the disk that cannot be decoded; the text names it.
    #[error("{0}")]
    Internal(String),
}

impl From<mvcc::Error> for Error {
    fn from(error: mvcc::Error) -> Self {
        match error {
            mvcc::Error::Stopped => Self::Stopped,
            mvcc::Error::Store(store::Error::Damage { .. }) => Self::Corrupt,
            other => Self::Mvcc(other),
        }
    }
}

/// Why a member does not begin to serve.
#[derive(Debug, thiserror::Error)]
pub enum CorruptionError {
    #[error("{0} failed to fetch hash ({1})")]
    Hash(String, Error),
    #[error("{0} found data inconsistency with peers")]
    Inconsistent(String),
}
