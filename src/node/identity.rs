//! The ids of a member, from its log or from the flags of its first start.

use std::path::Path;

use super::Config;
use super::config::Join;
use super::error::StartError;
use crate::members::Founders;
use crate::raft::log::Disk;
use crate::raft::{self, Bootstrap};
use crate::transfer::bootstrap;

/// The ids of this member and its cluster, and the first entries of a log that does not exist yet.
pub(super) struct Identity {
    pub member_id: u64,
    pub cluster_id: u64,
    pub bootstrap: Option<Bootstrap>,
}

impl Identity {
    /// A log that exists says who the member is; the flags of the first start are ignored then.
    pub(super) fn of_the_log(disk: &dyn Disk, wal: &Path) -> Result<Self, StartError> {
        let raft::log::Metadata { node_id: member_id, cluster_id } = raft::identity(disk, wal)?;
        Ok(Self { member_id, cluster_id, bootstrap: None })
    }

    /// The identity at a first start: told by the cluster that the member joins, or derived from
    /// the founders' URLs and the cluster token, as in etcd.
    pub(super) fn new(config: &Config) -> Result<Self, StartError> {
        if let Some(Join { cluster_id, member_id, .. }) = config.join {
            let bootstrap = Some(Bootstrap::default());
            return Ok(Self { member_id, cluster_id, bootstrap });
        }
        let founders = Founders::new(&config.initial_cluster, &config.cluster_token);
        let own = founders.named(&config.name);
        let own = own.ok_or_else(|| StartError::NotInCluster(config.name.clone()))?;
        let (member_id, cluster_id) = (own.id, founders.cluster_id);
        Ok(Self { member_id, cluster_id, bootstrap: Some(bootstrap(&founders)) })
    }
}
