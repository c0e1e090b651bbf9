//! The release whose contract this is, and the cluster versions that it can run with.

use crate::types::Version;

/// The newest release whose contract this is; a cluster whose members all run it agrees on it.
pub const RELEASE: Version = Version::new(3, 7);

/// The newest release whose entries and store this one understands: etcd 3.8 has no request, no
/// table and no field that 3.7 does not have.
const UNDERSTOOD: Version = Version::new(3, 8);

/// The cluster's version is newer than this release, which may not understand its entries.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid downgrade; server version is lower than determined cluster version \
     (server version {RELEASE}, cluster version {0})"
)]
pub struct NewerCluster(Version);

/// Fails for the version of a cluster of later members: this member cannot be one of them.
pub fn check_cluster_version(version: Version) -> Result<(), NewerCluster> {
    if version > RELEASE { Err(NewerCluster(version)) } else { Ok(()) }
}

/// The version that counts here for one that etcd has written into its store or its log, which may
/// be a directory that is taken over. `RELEASE` in the place of a later one whose state this release
/// understands; that is also what it would come to by a downgrade.
pub fn adopted_version(version: Version) -> Result<Version, NewerCluster> {
    if version > UNDERSTOOD { Err(NewerCluster(version)) } else { Ok(version.min(RELEASE)) }
}

/// Whether a store has a version of its own under this cluster version: since 3.6. In particular
/// false for 3.0, the version while not all members answer.
pub fn has_storage_version(version: Version) -> bool {
    version >= Version::new(3, 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_the_next_release_counts_as_one_of_this_release() {
        for (minor, adopted) in [(0, 0), (6, 6), (7, 7), (8, 7)] {
            let found = adopted_version(Version::new(3, minor)).unwrap();
            assert_eq!(found, Version::new(3, adopted));
        }
        for version in [Version::new(3, 9), Version::new(4, 0)] {
            assert!(adopted_version(version).is_err(), "{version}");
        }
        assert!(check_cluster_version(Version::new(3, 7)).is_ok());
        assert!(check_cluster_version(Version::new(3, 8)).is_err());
    }
}
