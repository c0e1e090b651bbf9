//! The one table of wire errors: code and text of every error that a client may get.
//!
//! Clients compare the texts, so both columns are etcd's to the letter. Where etcd defines one code
//! and sends another (`TooManyRequests`), the table has the one that is sent.

use tonic::{Code, Status};

use crate::{apply, node};

macro_rules! errors {
    ($($name:ident $code:ident $text:literal;)*) => {
        /// An error on the wire, with its row in the table.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Error { $($name,)* }

        impl Error {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$name,)*];

            /// The texts of all rows.
            #[cfg(test)]
            pub(crate) fn texts() -> impl Iterator<Item = &'static str> {
                Self::ALL.iter().map(|error| error.wire().1)
            }

            /// The gRPC code and the text.
            pub const fn wire(self) -> (Code, &'static str) {
                match self { $(Self::$name => (Code::$code, $text),)* }
            }
        }
    };
}

errors! {
    EmptyKey InvalidArgument "etcdserver: key is not provided";
    KeyNotFound InvalidArgument "etcdserver: key not found";
    ValueProvided InvalidArgument "etcdserver: value is provided";
    LeaseProvided InvalidArgument "etcdserver: lease is provided";
    TooManyOps InvalidArgument "etcdserver: too many operations in txn request";
    DuplicateKey InvalidArgument "etcdserver: duplicate key given in txn request";
    InvalidClientApiVersion InvalidArgument "etcdserver: invalid client api version";
    InvalidSortOption InvalidArgument "etcdserver: invalid sort option";
    MemberBadUrls InvalidArgument "etcdserver: given member URLs are invalid";
    RequestTooLarge InvalidArgument "etcdserver: request is too large";
    UserEmpty InvalidArgument "etcdserver: user name is empty";
    RoleEmpty InvalidArgument "etcdserver: role name is empty";
    AuthFailed InvalidArgument "etcdserver: authentication failed, invalid user ID or password";
    PermissionNotGiven InvalidArgument "etcdserver: permission not given";
    InvalidAuthMgmt InvalidArgument "etcdserver: invalid auth management";
    AuthOldRevision InvalidArgument "etcdserver: revision of auth store is old";
    WrongDowngradeVersionFormat InvalidArgument "etcdserver: wrong downgrade target version format";
    InvalidDowngradeTargetVersion InvalidArgument "etcdserver: invalid downgrade target version";
    UnknownAlarmAction InvalidArgument "etcdserver: unknown alarm action";
    Compacted OutOfRange "etcdserver: mvcc: required revision has been compacted";
    FutureRev OutOfRange "etcdserver: mvcc: required revision is a future revision";
    LeaseTtlTooLarge OutOfRange "etcdserver: too large lease TTL";
    NoSpace ResourceExhausted "etcdserver: mvcc: database space exceeded";
    TooManyRequests Unknown "etcdserver: too many requests";
    LeaseNotFound NotFound "etcdserver: requested lease not found";
    MemberNotFound NotFound "etcdserver: member not found";
    LeaseExist FailedPrecondition "etcdserver: lease already exists";
    MemberExist FailedPrecondition "etcdserver: member ID already exist";
    PeerUrlExist FailedPrecondition "etcdserver: Peer URLs already exists";
    MemberNotEnoughStarted Unknown "etcdserver: re-configuration failed due to not enough started members";
    MemberNotLearner FailedPrecondition "etcdserver: can only promote a learner member";
    LearnerNotReady FailedPrecondition "etcdserver: can only promote a learner member which is in sync with leader";
    TooManyLearners FailedPrecondition "etcdserver: too many learner members in cluster";
    ClusterIdMismatch FailedPrecondition "etcdserver: cluster ID mismatch";
    RootUserNotExist FailedPrecondition "etcdserver: root user does not exist";
    RootRoleNotExist FailedPrecondition "etcdserver: root user does not have root role";
    UserAlreadyExist FailedPrecondition "etcdserver: user name already exists";
    UserNotFound FailedPrecondition "etcdserver: user name not found";
    RoleAlreadyExist FailedPrecondition "etcdserver: role name already exists";
    RoleNotFound FailedPrecondition "etcdserver: role name not found";
    RoleNotGranted FailedPrecondition "etcdserver: role is not granted to the user";
    PermissionNotGranted FailedPrecondition "etcdserver: permission is not granted to the role";
    AuthNotEnabled FailedPrecondition "etcdserver: authentication is not enabled";
    NotLeader FailedPrecondition "etcdserver: not leader";
    NotCapable FailedPrecondition "etcdserver: not capable";
    NotSupportedForLearner FailedPrecondition "etcdserver: rpc not supported for learner";
    BadLeaderTransferee FailedPrecondition "etcdserver: bad leader transferee";
    ClusterVersionUnavailable FailedPrecondition "etcdserver: cluster version not found during downgrade";
    DowngradeInProcess FailedPrecondition "etcdserver: cluster has a downgrade job in progress";
    NoInflightDowngrade FailedPrecondition "etcdserver: no inflight downgrade job";
    PermissionDenied PermissionDenied "etcdserver: permission denied";
    InvalidAuthToken Unauthenticated "etcdserver: invalid auth token";
    Corrupt DataLoss "etcdserver: corrupt cluster";
    WatchCanceled Cancelled "etcdserver: watch canceled";
    Canceled Cancelled "etcdserver: request canceled";
    DeadlineExceeded DeadlineExceeded "context deadline exceeded";
    NoLeader Unavailable "etcdserver: no leader";
    LeaderChanged Unavailable "etcdserver: leader changed";
    Stopped Unavailable "etcdserver: server stopped";
    Timeout Unavailable "etcdserver: request timed out";
    TimeoutDueToLeaderFail Unavailable "etcdserver: request timed out, possibly due to previous leader failure";
    TimeoutDueToConnectionLost Unavailable "etcdserver: request timed out, possibly due to connection lost";
    TimeoutWaitAppliedIndex Unavailable "etcdserver: request timed out, waiting for the applied index took too long";
    Unhealthy Unavailable "etcdserver: unhealthy cluster";
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (code, text) = error.wire();
        Self::new(code, text)
    }
}

/// The status of an error of the node, with etcd's code and text.
pub fn status(error: node::Error) -> Status {
    use node::Error as From;
    let known = match error {
        From::Apply(error) => return refusal(error),
        From::TooManyRequests => Error::TooManyRequests,
        From::RequestTooLarge => Error::RequestTooLarge,
        From::NoLeader => Error::NoLeader,
        From::LeaderChanged => Error::LeaderChanged,
        From::Timeout | From::TakenTooSlowly => Error::Timeout,
        From::TimeoutDueToLeaderFail => Error::TimeoutDueToLeaderFail,
        From::TimeoutDueToConnectionLost => Error::TimeoutDueToConnectionLost,
        From::TimeoutWaitAppliedIndex => Error::TimeoutWaitAppliedIndex,
        From::Stopped => Error::Stopped,
        From::DeadlineExceeded => Error::DeadlineExceeded,
        From::MemberBadUrls => Error::MemberBadUrls,
        From::LearnerNotReady => Error::LearnerNotReady,
        From::TooManyLearners => Error::TooManyLearners,
        From::Unhealthy => Error::Unhealthy,
        From::NotLeader => Error::NotLeader,
        From::BadLeaderTransferee => Error::BadLeaderTransferee,
        From::WrongDowngradeVersionFormat => Error::WrongDowngradeVersionFormat,
        From::InvalidDowngradeTargetVersion => Error::InvalidDowngradeTargetVersion,
        From::ClusterVersionUnavailable => Error::ClusterVersionUnavailable,
        From::DowngradeInProcess => Error::DowngradeInProcess,
        From::NoInflightDowngrade => Error::NoInflightDowngrade,
        // An error without a row in the table has code Unknown and its own text, as in etcd.
        other => return Status::unknown(other.to_string()),
    };
    known.into()
}

/// The status of a request that apply refused.
fn refusal(error: apply::Error) -> Status {
    use crate::auth::Error as Auth;
    let known = match error {
        apply::Error::Compacted => Error::Compacted,
        apply::Error::FutureRev => Error::FutureRev,
        apply::Error::KeyNotFound => Error::KeyNotFound,
        apply::Error::LeaseNotFound => Error::LeaseNotFound,
        apply::Error::LeaseExist => Error::LeaseExist,
        apply::Error::LeaseTtlTooLarge => Error::LeaseTtlTooLarge,
        apply::Error::NoSpace => Error::NoSpace,
        apply::Error::Corrupt => Error::Corrupt,
        apply::Error::MemberNotFound => Error::MemberNotFound,
        apply::Error::MemberExist => Error::MemberExist,
        apply::Error::PeerUrlExist => Error::PeerUrlExist,
        apply::Error::MemberNotLearner => Error::MemberNotLearner,
        apply::Error::MemberNotEnoughStarted => Error::MemberNotEnoughStarted,
        apply::Error::Auth(Auth::RootUserNotExist) => Error::RootUserNotExist,
        apply::Error::Auth(Auth::RootRoleNotExist) => Error::RootRoleNotExist,
        apply::Error::Auth(Auth::UserAlreadyExist) => Error::UserAlreadyExist,
        apply::Error::Auth(Auth::UserEmpty) => Error::UserEmpty,
        apply::Error::Auth(Auth::UserNotFound) => Error::UserNotFound,
        apply::Error::Auth(Auth::RoleAlreadyExist) => Error::RoleAlreadyExist,
        apply::Error::Auth(Auth::RoleNotFound) => Error::RoleNotFound,
        apply::Error::Auth(Auth::RoleEmpty) => Error::RoleEmpty,
        apply::Error::Auth(Auth::PermissionNotGiven) => Error::PermissionNotGiven,
        apply::Error::Auth(Auth::AuthFailed) => Error::AuthFailed,
        apply::Error::Auth(Auth::PermissionDenied) => Error::PermissionDenied,
        apply::Error::Auth(Auth::RoleNotGranted) => Error::RoleNotGranted,
        apply::Error::Auth(Auth::PermissionNotGranted) => Error::PermissionNotGranted,
        apply::Error::Auth(Auth::AuthNotEnabled) => Error::AuthNotEnabled,
        apply::Error::Auth(Auth::OldRevision) => Error::AuthOldRevision,
        apply::Error::Auth(Auth::InvalidToken) => Error::InvalidAuthToken,
        apply::Error::Auth(Auth::InvalidManagement) => Error::InvalidAuthMgmt,
        // An error without a row in the table has code Unknown and its own text, as in etcd.
        other => return Status::unknown(other.to_string()),
    };
    known.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_etcds_own_and_unique() {
        let mut texts: Vec<&str> = Error::ALL.iter().map(|error| error.wire().1).collect();
        assert!(
            texts.iter().all(
                |text| text.starts_with("etcdserver: ") || *text == "context deadline exceeded"
            )
        );
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Error::ALL.len());
    }

    #[test]
    fn codes_are_the_numbers_that_clients_see() {
        for (error, code) in [
            (Error::EmptyKey, 3),
            (Error::KeyNotFound, 3),
            (Error::Compacted, 11),
            (Error::LeaseTtlTooLarge, 11),
            (Error::NoSpace, 8),
            (Error::TooManyRequests, 2),
            (Error::MemberNotEnoughStarted, 2),
            (Error::LeaseNotFound, 5),
            (Error::LeaseExist, 9),
            (Error::UserNotFound, 9),
            (Error::PermissionDenied, 7),
            (Error::InvalidAuthToken, 16),
            (Error::Corrupt, 15),
            (Error::Canceled, 1),
            (Error::DeadlineExceeded, 4),
            (Error::NoLeader, 14),
            (Error::Timeout, 14),
        ] {
            assert_eq!(error.wire().0 as i32, code, "{error:?}");
        }
    }

    #[test]
    fn the_nodes_errors_keep_their_meaning() {
        assert_eq!(status(node::Error::NoLeader).message(), "etcdserver: no leader");
        let odd = status(node::Error::Internal("raft proposal dropped".into()));
        assert_eq!((odd.code(), odd.message()), (Code::Unknown, "raft proposal dropped"));
    }
}
