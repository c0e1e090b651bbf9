//! Who may do what: users, roles, ranges of keys, and the one place that decides.
//!
//! ```text
//!   request ─► Demand: nothing, somebody, root, a list of key accesses ─┐
//!   metadata ─► Credentials ─► Tokens ─► Caller: nobody, or a name and a revision ─► Auth::check
//! ```
//!
//! A request is first turned into what it demands, in `demand`: a flat list of reads and writes of
//! key ranges, whatever its kind and however deep its transactions nest. [`Auth::check`] decides on
//! that list and knows nothing of requests. There is no second path. What goes through the log is
//! checked where it is applied, by a match that names every command. What is read beside the log is
//! behind functions of `node` that take [`Credentials`], and check before they answer, or check
//! what they answer. An RPC without a rule needs the role root.
//!
//! Users and roles are data like any other: changed by the log alone, kept in etcd's buckets with
//! etcd's bytes, equal on every member. Each change raises the auth revision. Tokens are not: each
//! member has its own list of simple tokens, and a JWT is verified by its signature.
//!
//! This room has no threads for hashing: the functions of [`password`] are pure and slow, and their
//! caller chooses the thread.

pub mod demand;
mod jwt;
pub mod password;
mod pem;
mod ranges;
mod state;
mod tokens;

#[cfg(test)]
mod tests;

use bytes::Bytes;

use crate::trace;

pub use demand::{Access, Demand, LeaseKeys};
pub use state::{Auth, Malformed};
pub use tokens::Tokens;

/// The name of the user, and of the role, with all rights.
pub const ROOT: &str = "root";

/// Why a request of a user, or about users, is refused. Errors that have no code in etcd carry
/// etcd's text here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("auth: root user does not exist")]
    RootUserNotExist,
    #[error("auth: root user does not have root role")]
    RootRoleNotExist,
    #[error("auth: user already exists")]
    UserAlreadyExist,
    #[error("auth: user name is empty")]
    UserEmpty,
    #[error("auth: user not found")]
    UserNotFound,
    #[error("auth: role already exists")]
    RoleAlreadyExist,
    #[error("auth: role not found")]
    RoleNotFound,
    #[error("auth: role name is empty")]
    RoleEmpty,
    #[error("auth: permission not given")]
    PermissionNotGiven,
    #[error("auth: authentication failed, invalid user ID or password")]
    AuthFailed,
    #[error("auth: authentication failed, password was given for no password user")]
    NoPasswordUser,
    #[error("auth: permission denied")]
    PermissionDenied,
    #[error("auth: role is not granted to the user")]
    RoleNotGranted,
    #[error("auth: permission is not granted to the role")]
    PermissionNotGranted,
    #[error("auth: authentication is not enabled")]
    AuthNotEnabled,
    #[error("auth: revision in header is old")]
    OldRevision,
    #[error("auth: invalid auth token")]
    InvalidToken,
    #[error("auth: invalid auth management")]
    InvalidManagement,
    #[error("auth: token signing attempted with verify-only key")]
    VerifyOnly,
    #[error("key is invalid")]
    InvalidKey,
    #[error("bcrypt: password length exceeds 72 bytes")]
    PasswordTooLong,
}

/// Why `--auth-token` is refused at the start, in etcd's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("auth: invalid auth options")]
    InvalidOptions,
    #[error("auth: missing key data")]
    MissingKey,
    #[error("auth: public and private keys don't match")]
    KeyMismatch,
    #[error("{0}")]
    Key(&'static str),
}

/// What a call presents to prove its caller. Not verified yet.
///
/// Every door of `node` takes them, so the call's span goes the same way. It proves nothing.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// The metadata `token`, or if there is none `authorization`.
    token: Option<Bytes>,
    /// The common name in the client's certificate, which the connection has verified.
    common_name: Option<String>,
    span: trace::Context,
}

impl Credentials {
    pub fn token(token: Option<Bytes>) -> Self {
        Self { token, ..Self::default() }
    }

    /// Sets what the spans hang under that are made for the call.
    #[must_use]
    pub fn within(mut self, span: trace::Context) -> Self {
        self.span = span;
        self
    }

    pub fn span(&self) -> &trace::Context {
        &self.span
    }

    /// Adds the common name of the verified leaf certificate. To be given only where clients must
    /// present one (`--client-cert-auth`). A token takes precedence.
    #[must_use]
    pub fn with_common_name(mut self, common_name: Option<String>) -> Self {
        self.common_name = common_name;
        self
    }

    pub fn presented_token(&self) -> Option<&Bytes> {
        self.token.as_ref()
    }

    pub fn presented_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }
}

/// The user that a request is from, as far as that was proved, and the auth revision of the proof.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller(Option<Identity>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    name: String,
    revision: u64,
}

impl Caller {
    /// A caller without a name.
    pub const NOBODY: Self = Self(None);

    /// A user, proved as of this auth revision. A JWT may carry an old one.
    pub fn user(name: impl Into<String>, revision: u64) -> Self {
        Self(Some(Identity { name: name.into(), revision }))
    }

    /// The caller in a log entry's header; an empty header is `NOBODY`.
    pub fn of_header(name: &str, revision: u64) -> Self {
        if name.is_empty() && revision == 0 { Self::NOBODY } else { Self::user(name, revision) }
    }

    /// Name and auth revision for a log entry's header.
    pub fn header(&self) -> (&str, u64) {
        self.0.as_ref().map_or(("", 0), |identity| (&identity.name, identity.revision))
    }
}
