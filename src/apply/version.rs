//! The release whose contract this is, and the versions that a cluster may agree on.

use crate::types::Version;

/// The newest release whose contract this is; members that run it agree on it.
pub const RELEASE: Version = Version::new(3, 7);

/// The cluster has agreed on a version whose entries this release may not understand.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid downgrade; server version is lower than determined cluster version \
     (server version {RELEASE}, cluster version {0})"
)]
pub struct NewerCluster(Version);

pub fn check_cluster_version(version: Version) -> Result<(), NewerCluster> {
    if version > RELEASE { Err(NewerCluster(version)) } else { Ok(()) }
}

/// Whether the store's version follows such a cluster version. Releases before 3.6 know of none, nor
/// does the version of a cluster whose members do not all answer yet, 3.0.
pub fn has_storage_version(version: Version) -> bool {
    version >= Version::new(3, 6)
}
