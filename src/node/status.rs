//! The status that a member reports, and its gauges.

use bytes::Bytes;

use super::{Node, VERSION};
use crate::apply;
use crate::metrics;
use crate::pb::AlarmType;
use crate::types::Version;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    pub granted_ttl: i64,
    /// Remaining time in whole seconds; negative if the lease is overdue.
    pub ttl: i64,
    pub keys: Vec<Bytes>,
}

#[derive(Clone, Debug, Default)]
pub struct Status {
    pub version: String,
    pub db_size: i64,
    pub db_size_in_use: i64,
    pub db_size_quota: i64,
    pub leader: u64,
    pub raft_index: u64,
    pub raft_term: u64,
    pub raft_applied_index: u64,
    pub errors: Vec<String>,
    pub is_learner: bool,
    pub storage_version: String,
    pub cluster_version: String,
    /// The release to go back to, while a downgrade is under way.
    pub downgrade_target: Option<String>,
}

/// The name of an alarm's kind, as in etcd.
pub fn alarm_name(alarm: i32) -> &'static str {
    AlarmType::try_from(alarm).map_or("UNKNOWN", |kind| kind.as_str_name())
}

impl Node {
    pub fn status(&self) -> Status {
        let inner = &self.0;
        let raft = inner.raft.status();
        let sizes = inner.machine.store.sizes();
        let alarms = self.alarms();
        let members = inner.machine.members.read();
        let size = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let alarm_text = |alarm: &crate::pb::AlarmMember| {
            format!("memberID:{} alarm:{}", alarm.member_id, alarm_name(alarm.alarm))
        };
        let no_leader = (raft.leader == 0).then(|| "etcdserver: no leader".to_owned());
        let cluster_version = members.cluster_version();
        let text = |version: Option<Version>| version.map(|it| it.to_string()).unwrap_or_default();
        let downgrade = members.downgrade();
        Status {
            version: VERSION.to_owned(),
            db_size: size(sizes.total),
            db_size_in_use: size(sizes.in_use),
            db_size_quota: inner.config.quota_bytes(),
            leader: raft.leader,
            raft_index: raft.committed,
            raft_term: raft.term,
            raft_applied_index: inner.applied.index(),
            errors: no_leader.into_iter().chain(alarms.iter().map(alarm_text)).collect(),
            is_learner: members.get(inner.member_id).is_some_and(|member| member.is_learner),
            // The same entry sets the cluster's and the store's version, so they are equal.
            storage_version: text(cluster_version.filter(|it| apply::has_storage_version(*it))),
            cluster_version: text(cluster_version),
            downgrade_target: downgrade.enabled.then(|| downgrade.target_version.clone()),
        }
    }

    /// Updates the gauges for a scrape. Gauges that are also set when their value changes, such as
    /// the leader, are set here too, because the task that sets them may be behind.
    pub fn refresh_metrics(&self) {
        let (status, header) = (self.status(), self.header());
        metrics::has_leader().set(i64::from(status.leader != 0));
        metrics::is_leader().set(i64::from(status.leader == header.member_id));
        metrics::is_learner().set(i64::from(status.is_learner));
        metrics::quota_backend_bytes().set(status.db_size_quota);
        metrics::db_total_bytes().set(status.db_size);
        metrics::db_in_use_bytes().set(status.db_size_in_use);
        metrics::current_revision().set(header.revision);
        if let Some((version, _patch)) = status.cluster_version.rsplit_once('.') {
            metrics::set_cluster_version(version);
        }
        let alarms = self.alarms();
        metrics::set_alarms(alarms.iter().map(|it| (it.member_id, alarm_name(it.alarm))));
        let status = self.0.raft.status();
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics::proposals_committed().set(gauge(status.committed));
        metrics::proposals_applied().set(gauge(self.0.applied.index()));
        metrics::auth_revision().set(gauge(self.0.machine.auth.read().revision()));
        metrics::keys().set(gauge(self.0.machine.mvcc.live_keys()));
        let counts = self.0.hub.counts();
        metrics::watchers().set(gauge(counts.watchers as u64));
        metrics::log_stall_seconds().set(gauge(self.log_stall().as_secs()));
        metrics::slow_watchers().set(gauge(counts.lagging as u64));
        metrics::pending_events().set(gauge(counts.pending_events as u64));
        let (growth, observed) = self.0.upkeep.growth().unwrap_or_default();
        metrics::growth_bytes().set(growth);
        metrics::growth_seconds().set(gauge(observed.as_secs()));
        let store = &self.0.machine.store;
        metrics::disk_free_bytes().set(gauge(store.disk_free_bytes()));
        metrics::disk_total_bytes().set(gauge(store.disk_total_bytes()));
    }
}
