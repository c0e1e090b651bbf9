//! Cluster membership, cluster version and alarms, as the log made them.
//!
//! Members are stored as etcd stores them: JSON under the hexadecimal id. There are few, so they
//! are kept in memory, and the caller writes each change through to the store.

mod change;
mod founders;

pub use change::{Change, Refused};
pub use founders::Founders;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pb::{self, AlarmMember};
use crate::types::Version;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub id: u64,
    #[serde(
        rename = "peerURLs",
        default,
        serialize_with = "or_null",
        deserialize_with = "null_or"
    )]
    pub peer_urls: Vec<String>,
    #[serde(rename = "isLearner", default, skip_serializing_if = "std::ops::Not::not")]
    pub is_learner: bool,
    /// Empty until the member has started and published its name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(rename = "clientURLs", default, skip_serializing_if = "Vec::is_empty")]
    pub client_urls: Vec<String>,
}

/// An empty list is `null` in Go's JSON.
fn or_null<S: Serializer>(urls: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    Some(urls).filter(|urls| !urls.is_empty()).serialize(serializer)
}

fn null_or<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, thiserror::Error)]
#[error("malformed member: {0}")]
pub struct Malformed(#[from] serde_json::Error);

impl Member {
    pub fn from_json(json: &[u8]) -> Result<Self, Malformed> {
        Ok(serde_json::from_slice(json)?)
    }

    pub fn to_json(&self) -> Vec<u8> {
        // Cannot fail: strings and numbers always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub fn to_pb(&self) -> pb::Member {
        pb::Member {
            id: self.id,
            name: self.name.clone(),
            peer_ur_ls: self.peer_urls.clone(),
            client_ur_ls: self.client_urls.clone(),
            is_learner: self.is_learner,
        }
    }
}

/// A downgrade that an operator has asked for, in etcd's JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downgrade {
    #[serde(rename = "target-version", default)]
    pub target_version: String,
    #[serde(default)]
    pub enabled: bool,
}

impl Downgrade {
    pub fn from_json(json: &[u8]) -> Result<Self, Malformed> {
        Ok(serde_json::from_slice(json)?)
    }

    pub fn to_json(&self) -> Vec<u8> {
        // Cannot fail: strings and booleans always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The version that the cluster is to get, while a downgrade is under way.
    pub fn target(&self) -> Option<Version> {
        Version::parse(&self.target_version).filter(|_| self.enabled)
    }
}

/// The key of a member in its bucket.
pub fn member_key(id: u64) -> Vec<u8> {
    format!("{id:x}").into_bytes()
}

#[derive(Clone, Debug, Default)]
pub struct Members {
    members: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    cluster_version: Option<Version>,
    downgrade: Downgrade,
    /// (type, member) of each raised alarm.
    alarms: BTreeSet<(i32, u64)>,
}

impl Members {
    pub fn insert(&mut self, member: Member) {
        self.members.insert(member.id, member);
    }

    pub fn remove(&mut self, id: u64) -> bool {
        self.removed.insert(id);
        self.members.remove(&id).is_some()
    }

    pub fn mark_removed(&mut self, id: u64) {
        self.removed.insert(id);
    }

    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// The ids of removed members, which are never used again.
    pub fn removed(&self) -> impl Iterator<Item = u64> {
        self.removed.iter().copied()
    }

    pub fn get(&self, id: u64) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Sets the name and client URLs that a member has published; None if it is no member.
    pub fn set_attributes(
        &mut self,
        id: u64,
        name: &str,
        client_urls: &[String],
    ) -> Option<&Member> {
        let member = self.members.get_mut(&id)?;
        member.name = name.to_owned();
        member.client_urls = client_urls.to_vec();
        Some(member)
    }

    /// All members, by id.
    pub fn list(&self) -> Vec<pb::Member> {
        self.members.values().map(Member::to_pb).collect()
    }

    pub fn cluster_version(&self) -> Option<Version> {
        self.cluster_version
    }

    /// Sets the cluster's version and returns the one before.
    pub fn set_cluster_version(&mut self, version: Version) -> Option<Version> {
        self.cluster_version.replace(version)
    }

    pub fn downgrade(&self) -> &Downgrade {
        &self.downgrade
    }

    pub fn set_downgrade(&mut self, downgrade: Downgrade) {
        self.downgrade = downgrade;
    }

    /// The raised alarms of a type; of all types if `kind` is 0.
    pub fn alarms(&self, kind: i32) -> Vec<AlarmMember> {
        let is_asked_for = |(alarm, _): &&(i32, u64)| kind == 0 || *alarm == kind;
        let alarms = self.alarms.iter().filter(is_asked_for);
        alarms
            .map(|(alarm, member_id)| AlarmMember { member_id: *member_id, alarm: *alarm })
            .collect()
    }

    pub fn has_alarm(&self, kind: pb::AlarmType) -> bool {
        self.alarms.iter().any(|(alarm, _)| *alarm == kind as i32)
    }

    /// Raises an alarm; false if it was raised before.
    pub fn raise(&mut self, alarm: AlarmMember) -> bool {
        self.alarms.insert((alarm.alarm, alarm.member_id))
    }

    /// Clears an alarm; false if it was not raised.
    pub fn clear(&mut self, alarm: AlarmMember) -> bool {
        self.alarms.remove(&(alarm.alarm, alarm.member_id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_stored_as_etcds_json() {
        let mut member = Member {
            id: 0x8e9e_05c5_2164_694d,
            peer_urls: vec!["http://localhost:2380".into()],
            ..Member::default()
        };
        let text = |member: &Member| String::from_utf8(member.to_json()).unwrap();
        assert_eq!(
            text(&member),
            r#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"]}"#
        );
        member.name = "default".into();
        member.client_urls = vec!["http://localhost:2379".into()];
        assert_eq!(
            text(&member),
            r#"{"id":10276657743932975437,"peerURLs":["http://localhost:2380"],"name":"default","clientURLs":["http://localhost:2379"]}"#
        );
        assert_eq!(Member::from_json(&member.to_json()).unwrap(), member);
    }
}
