//! The release whose contract this is, and the cluster versions that it can run with.

use crate::types::Version;

/// The newest release whose contract this is; a cluster whose members all run it agrees on it.
pub const RELEASE: Version = Version::new(3, 7);

/// The cluster's version is newer than this release, which may not understand its entries.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid downgrade; server version is lower than determined cluster version \
     (server version {RELEASE}, cluster version {0})"
)]
pub struct NewerCluster(Version);

pub fn check_cluster_version(version: Version) -> Result<(), NewerCluster> {
    if version > RELEASE { Err(NewerCluster(version)) } else { Ok(()) }
}

/// Whether a store has a version of its own under this cluster version: since 3.6. In particular
/// false for 3.0, the version while not all members answer.
pub fn has_storage_version(version: Version) -> bool {
    version >= Version::new(3, 6)
}
