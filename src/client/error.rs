//! The errors of calls, in the words of etcd's client.

use tonic::{Code, Status};

use super::reach::{Unreached, listed};
use crate::go;

/// Texts, without "etcdserver: ", of the errors that etcd's client knows. They print as they are;
/// every other error prints with its gRPC code.
pub(crate) const KNOWN: &[&str] = &[
    "key is not provided",
    "key not found",
    "value is provided",
    "lease is provided",
    "too many operations in txn request",
    "duplicate key given in txn request",
    "invalid sort option",
    "mvcc: required revision has been compacted",
    "mvcc: required revision is a future revision",
    "mvcc: database space exceeded",
    "requested lease not found",
    "lease already exists",
    "too large lease TTL",
    "member ID already exist",
    "Peer URLs already exists",
    "re-configuration failed due to not enough started members",
    "given member URLs are invalid",
    "member not found",
    "can only promote a learner member",
    "can only promote a learner member which is in sync with leader",
    "too many learner members in cluster",
    "cluster ID mismatch",
    "request is too large",
    "too many requests",
    "root user does not exist",
    "root user does not have root role",
    "user name already exists",
    "user name is empty",
    "user name not found",
    "role name already exists",
    "role name not found",
    "role name is empty",
    "authentication failed, invalid user ID or password",
    "permission not given",
    "permission denied",
    "role is not granted to the user",
    "permission is not granted to the role",
    "authentication is not enabled",
    "invalid auth token",
    "invalid auth management",
    "revision of auth store is old",
    "no leader",
    "not leader",
    "leader changed",
    "not capable",
    "server stopped",
    "request timed out",
    "request timed out, possibly due to previous leader failure",
    "request timed out, possibly due to connection lost",
    "request timed out, waiting for the applied index took too long",
    "unhealthy cluster",
    "corrupt cluster",
    "rpc not supported for learner",
    "bad leader transferee",
    "wrong downgrade target version format",
    "invalid downgrade target version",
    "cluster version not found during downgrade",
    "cluster has a downgrade job in progress",
    "no inflight downgrade job",
];

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A status of the server, or one that the client made for a broken connection. Known texts
    /// print without a code.
    #[error("{}", status_text(.0))]
    Status(Status),
    /// A status of a stream. It always prints with its code, since etcd's client does not translate
    /// the errors of streams.
    #[error("{}", rpc_text(.0))]
    Stream(Status),
    #[error("context deadline exceeded")]
    Deadline,
    #[error("context canceled")]
    Canceled,
    /// No endpoint can be reached; only with [`super::Reach::AtOnce`].
    #[error("{}", listed(.0))]
    Unreachable(Vec<Unreached>),
    /// A file for TLS cannot be read or does not hold what it should.
    #[error("{0}")]
    Tls(String),
    #[error("{0}")]
    Other(String),
}

impl Error {
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Status(status) | Self::Stream(status) => Some(status.code()),
            _ => None,
        }
    }

    pub fn message(&self) -> &str {
        match self {
            Self::Status(status) | Self::Stream(status) => status.message(),
            _ => "",
        }
    }

    /// Whether this is a status with exactly this text.
    pub fn is(&self, text: &str) -> bool {
        self.message() == text
    }

    /// Whether no server has answered in time.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Deadline | Self::Unreachable(_))
    }

    /// Whether a repetition, perhaps at another endpoint, could succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self.code(), Some(Code::Unavailable | Code::Internal))
    }
}

pub(super) fn is_known(message: &str) -> bool {
    message.strip_prefix("etcdserver: ").is_some_and(|rest| KNOWN.contains(&rest))
}

fn status_text(status: &Status) -> String {
    if is_known(status.message()) { status.message().to_string() } else { rpc_text(status) }
}

/// The text of a status in grpc-go.
pub(super) fn rpc_text(status: &Status) -> String {
    format!(
        "rpc error: code = {} desc = {}",
        go::GRPC_CODES[status.code() as usize],
        status.message()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_etcds_own_messages_print_without_their_code() {
        let text = |message: &str| Error::Status(Status::invalid_argument(message)).to_string();
        assert_eq!(text("etcdserver: key not found"), "etcdserver: key not found");
        assert_eq!(
            text("etcdserver: nonsense"),
            "rpc error: code = InvalidArgument desc = etcdserver: nonsense"
        );
        let stream = Error::Stream(Status::invalid_argument("etcdserver: user name is empty"));
        assert!(stream.to_string().starts_with("rpc error: code = InvalidArgument"));
    }
}
