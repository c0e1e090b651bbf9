//! What this server says it is.

pub(super) const VERSION: &str = "3.7.1";
/// What stands where etcd names its commit and its compiler.
pub(super) const GIT_SHA: &str = concat!("rusd-", env!("CARGO_PKG_VERSION"));
pub(super) const GO_VERSION: &str = "none, this is rusd";
