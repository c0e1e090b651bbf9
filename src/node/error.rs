use std::io;
use std::path::PathBuf;

use crate::auth::TokenError;
use crate::supervise::Gone;
use crate::transfer::{DownloadError, LoadError};
use crate::upkeep::Refusal;
use crate::{apply, auth, mvcc, raft, store, upkeep};

/// Why a request was not served, named as in etcd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The reply of apply, or what apply would reply.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    #[error("too many requests")]
    TooManyRequests,
    #[error("request is too large")]
    RequestTooLarge,
    #[error("no leader")]
    NoLeader,
    #[error("leader changed")]
    LeaderChanged,
    #[error("request timed out")]
    Timeout,
    /// An answer in pieces.
    #[error("its client takes it too slowly, and a compaction waits for its rows")]
    TakenTooSlowly,
    #[error("request timed out, possibly due to previous leader failure")]
    TimeoutDueToLeaderFail,
    #[error("request timed out, possibly due to connection lost")]
    TimeoutDueToConnectionLost,
    #[error("request timed out, waiting for the applied index took too long")]
    TimeoutWaitAppliedIndex,
    #[error("server stopped")]
    Stopped,
    /// The proposal is in no log: no leader took it.
    #[error("raft proposal dropped")]
    Dropped,
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    #[error("given member URLs are invalid")]
    MemberBadUrls,
    #[error("can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
    #[error("too many learner members in cluster")]
    TooManyLearners,
    #[error("unhealthy cluster")]
    Unhealthy,
    #[error("etcdserver: request timed out, leader transfer took too long")]
    TimeoutLeaderTransfer,
    #[error("not leader")]
    NotLeader,
    #[error("bad leader transferee")]
    BadLeaderTransferee,
    #[error("wrong downgrade target version format")]
    WrongDowngradeVersionFormat,
    #[error("invalid downgrade target version")]
    InvalidDowngradeTargetVersion,
    #[error("cluster version not found during downgrade")]
    ClusterVersionUnavailable,
    #[error("cluster has a downgrade job in progress")]
    DowngradeInProcess,
    #[error("no inflight downgrade job")]
    NoInflightDowngrade,
    /// An unexpected state, such as a record on the disk that cannot be decoded; the text names it.
    #[error("{0}")]
    Internal(String),
}

/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Raft(#[from] raft::Error),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    NotInCluster(String),
    #[error(
        "{}: the store is missing, but the log in {} is there; \
         restore the whole data directory from a backup", db.display(), wal.display()
    )]
    MissingStore { db: PathBuf, wal: PathBuf },
    #[error(
        "{}: the log is missing, but the store in {} has applied entry {applied} of it; \
         restore the whole data directory from a backup", wal.display(), db.display()
    )]
    MissingLog { db: PathBuf, wal: PathBuf, applied: u64 },
    #[error(
        "{}: there is no log, and only a store and its log together are the state of a member",
        wal.display()
    )]
    NoLog { wal: PathBuf },
    #[error("the log of the stopped member cannot be applied: {0}")]
    Unsettled(String),
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<auth::Error> for Error {
    fn from(error: auth::Error) -> Self {
        Self::Apply(error.into())
    }
}

impl From<mvcc::Error> for Error {
    fn from(error: mvcc::Error) -> Self {
        match error {
            mvcc::Error::Compacted => apply::Error::Compacted.into(),
            mvcc::Error::FutureRev => apply::Error::FutureRev.into(),
            mvcc::Error::KeyNotFound => apply::Error::KeyNotFound.into(),
            mvcc::Error::LeaseNotFound => apply::Error::LeaseNotFound.into(),
            mvcc::Error::Stopped => Self::Stopped,
            // A client that tries again gets the state as it is then.
            mvcc::Error::Expired => Self::TakenTooSlowly,
            // Every later answer of a member whose store is damaged is the same.
            mvcc::Error::Store(store::Error::Damage { .. }) => apply::Error::Corrupt.into(),
            other => Self::Internal(other.to_string()),
        }
    }
}

impl Error {
    /// The error of work on a blocking thread that ended without a result.
    fn of_thread(error: &io::Error) -> Self {
        let is_gone = error.get_ref().is_some_and(|inner| inner.is::<Gone>());
        if is_gone { Self::Stopped } else { Self::Internal(error.to_string()) }
    }
}

impl From<DownloadError> for Error {
    fn from(error: DownloadError) -> Self {
        match error {
            DownloadError::NoSeat => Self::TooManyRequests,
            DownloadError::Thread(error) => Self::of_thread(&error),
            DownloadError::Snapshot(error) => Self::Internal(error.to_string()),
        }
    }
}

impl From<upkeep::Error> for Error {
    fn from(error: upkeep::Error) -> Self {
        match error {
            upkeep::Error::Corrupt => apply::Error::Corrupt.into(),
            upkeep::Error::TooManyRequests => Self::TooManyRequests,
            upkeep::Error::Stopped => Self::Stopped,
            upkeep::Error::Mvcc(error) => error.into(),
            upkeep::Error::Thread(error) => Self::of_thread(&error),
            error @ (upkeep::Error::Refused(_) | upkeep::Error::Internal(_)) => {
                Self::Internal(error.to_string())
            }
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Apply(apply::Error::Compacted) => Self::Compacted,
            Error::Timeout
            | Error::TimeoutDueToLeaderFail
            | Error::TimeoutDueToConnectionLost
            | Error::DeadlineExceeded => Self::Unanswered(error.to_string()),
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<raft::Error> for Error {
    fn from(error: raft::Error) -> Self {
        match error {
            raft::Error::Busy => Self::TooManyRequests,
            raft::Error::Stopped => Self::Stopped,
            raft::Error::Late => Self::Timeout,
            other => Self::Internal(other.to_string()),
        }
    }
}
