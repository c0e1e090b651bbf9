//! The cluster's own data: members, alarms, version, and a downgrade under way.

use prost::Message as _;

use super::Machine;
use super::command::Reply;
use super::error::{Error, Fatal};
use super::version::{RELEASE, adopted_version, has_storage_version};
use crate::members::{self, Downgrade, member_key};
use crate::pb::alarm_request::AlarmAction;
use crate::pb::membershippb::{
    ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};
use crate::pb::{AlarmMember, AlarmRequest, AlarmResponse, AlarmType};
use crate::store::{Bucket, schema};
use crate::types::Version;

/// The version that a request sets. `Fatal` if this release may not understand the entries that
/// follow. A log that was taken over from etcd 3.8 sets 3.8, which counts as this release.
pub(super) fn cluster_version(request: &ClusterVersionSetRequest) -> Result<Version, Fatal> {
    let version = Version::parse(&request.ver);
    let version = version.ok_or_else(|| Fatal::ClusterVersion(request.ver.clone()))?;
    Ok(adopted_version(version)?)
}

impl Machine {
    /// Changes the membership if the rules allow it. The caller seals the entry, because raft's
    /// configuration has to be part of it.
    pub fn change_members(&self, change: &members::Change) -> Result<Reply, Error> {
        let mut members = self.members.write();
        members.validate(change)?;
        let key = member_key(change.id());
        match members.change(change) {
            Some(member) => self.store.put(Bucket::Members, key, member.to_json()),
            None => {
                self.store.delete(Bucket::Members, key.clone());
                self.store.put(Bucket::MembersRemoved, key, b"removed".to_vec());
            }
        }
        Ok(Reply::Members(members.list()))
    }

    pub(super) fn alarm(&self, request: AlarmRequest) -> AlarmResponse {
        let AlarmRequest { action, member_id, alarm } = request;
        let member = AlarmMember { member_id, alarm };
        let mut members = self.members.write();
        let alarms = match AlarmAction::try_from(action) {
            Ok(AlarmAction::Get) => members.alarms(alarm),
            Ok(AlarmAction::Activate) if alarm != AlarmType::None as i32 => {
                if members.raise(member) {
                    self.store.put(Bucket::Alarm, member.encode_to_vec(), Vec::new());
                }
                vec![member]
            }
            Ok(AlarmAction::Deactivate) if members.clear(member) => {
                self.store.delete(Bucket::Alarm, member.encode_to_vec());
                vec![member]
            }
            _ => Vec::new(),
        };
        AlarmResponse { header: None, alarms }
    }

    /// Sets the cluster's version, and with it the store's, if that release stores one (3.6 and
    /// later).
    pub(super) fn set_cluster_version(
        &self,
        request: &ClusterVersionSetRequest,
    ) -> Result<Reply, Fatal> {
        let version = cluster_version(request)?;
        let bytes = version.to_string().into_bytes();
        self.store.put(Bucket::Cluster, schema::CLUSTER_VERSION.to_vec(), bytes.clone());
        if has_storage_version(version) {
            self.store.put(Bucket::Meta, schema::STORAGE_VERSION.to_vec(), bytes);
        }
        let before = self.members.write().set_cluster_version(version);
        self.say_version(before, version);
        Ok(Reply::Done)
    }

    /// Logs the change in etcd's words, because operators wait for these lines.
    fn say_version(&self, before: Option<Version>, version: Version) {
        let to = version.short();
        match before {
            Some(before) => {
                tracing::info!(from = before.short(), to, "updated cluster version");
            }
            None => tracing::info!("cluster-version" = to, "set initial cluster version"),
        }
        if has_storage_version(version) && before != Some(version) {
            let to = version.to_string();
            tracing::info!("new-storage-version" = to, "updated storage version");
            if self.members.read().downgrade().target() == Some(version) {
                let release = RELEASE.to_string();
                tracing::info!(
                    "target-version" = to,
                    "server-version" = release,
                    "The server is ready to downgrade"
                );
            }
        }
    }

    pub(super) fn set_downgrade(&self, request: DowngradeInfoSetRequest) -> Reply {
        let DowngradeInfoSetRequest { enabled, ver } = request;
        let target_version = if enabled { ver } else { String::new() };
        let downgrade = Downgrade { target_version, enabled };
        self.store.put(Bucket::Cluster, schema::DOWNGRADE.to_vec(), downgrade.to_json());
        self.members.write().set_downgrade(downgrade);
        Reply::Done
    }

    pub(super) fn set_attributes(&self, request: ClusterMemberAttrSetRequest) -> Reply {
        let attributes = request.member_attributes.unwrap_or_default();
        let mut members = self.members.write();
        let id = request.member_id;
        if let Some(member) = members.set_attributes(id, &attributes.name, &attributes.client_urls)
        {
            self.store.put(Bucket::Members, member_key(id), member.to_json());
        }
        Reply::Done
    }
}
