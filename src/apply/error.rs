//! Errors of apply, of two kinds.
//!
//! An [`Error`] is the reply: it follows from the entries and is the same on every member. After a
//! [`Fatal`] this member cannot go on; it never becomes a reply.

use super::version::NewerCluster;
use crate::lease;
use crate::members::Refused;
use crate::mvcc;

/// The reply to a request that was refused, the same on every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    #[error("mvcc: required revision is a future revision")]
    FutureRev,
    #[error("key not found")]
    KeyNotFound,
    #[error("requested lease not found")]
    LeaseNotFound,
    #[error("lease already exists")]
    LeaseExist,
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("mvcc: database space exceeded")]
    NoSpace,
    #[error("corrupt cluster")]
    Corrupt,
    #[error(transparent)]
    Auth(#[from] crate::auth::Error),
    #[error("member not found")]
    MemberNotFound,
    #[error("member ID already exist")]
    MemberExist,
    #[error("Peer URLs already exists")]
    PeerUrlExist,
    #[error("can only promote a learner member")]
    MemberNotLearner,
    #[error("re-configuration failed due to not enough started members")]
    MemberNotEnoughStarted,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Removed | Refused::NotFound => Self::MemberNotFound,
            Refused::Exists => Self::MemberExist,
            Refused::PeerUrlExists => Self::PeerUrlExist,
            Refused::NotLearner => Self::MemberNotLearner,
            Refused::LastVoter => Self::MemberNotEnoughStarted,
        }
    }
}

impl From<lease::Error> for Error {
    fn from(error: lease::Error) -> Self {
        match error {
            lease::Error::NotFound => Self::LeaseNotFound,
            lease::Error::Exists => Self::LeaseExist,
            lease::Error::TtlTooLarge => Self::LeaseTtlTooLarge,
        }
    }
}

/// Why this member cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error(transparent)]
    Mvcc(mvcc::Error),
    #[error(transparent)]
    Entry(#[from] super::command::Error),
    #[error(transparent)]
    Member(#[from] crate::members::Malformed),
    #[error(transparent)]
    Auth(#[from] crate::auth::Malformed),
    /// Raft has stopped; the next start applies the entry again.
    #[error("the member is stopping")]
    Stopping,
    #[error("a configuration change cannot be made: {0}")]
    ConfChange(String),
    #[error("the cluster's version {0:?} is none")]
    ClusterVersion(String),
    #[error(transparent)]
    Newer(#[from] NewerCluster),
    #[error("the snapshot of entry {0} is not there")]
    MissingSnapshot(u64),
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

/// Splits the errors of mvcc into replies and those that stop the member.
pub(super) fn split<T>(result: Result<T, mvcc::Error>) -> Result<Result<T, Error>, Fatal> {
    Ok(match result {
        Ok(reply) => Ok(reply),
        Err(mvcc::Error::Compacted) => Err(Error::Compacted),
        Err(mvcc::Error::FutureRev) => Err(Error::FutureRev),
        Err(mvcc::Error::KeyNotFound) => Err(Error::KeyNotFound),
        Err(mvcc::Error::LeaseNotFound) => Err(Error::LeaseNotFound),
        Err(other) => return Err(Fatal::Mvcc(other)),
    })
}
