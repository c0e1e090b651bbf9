//! The quota, the store's file and its disk.

use super::super::facts::{Facts, Member};
use super::super::finding::{Finding, Section, Severity};
use crate::cli::shell::quoted;
use crate::cli::size;
use crate::limits::{
    DOCTOR_DISK_FREE_PERCENT, DOCTOR_FREE_BYTES_MIN, DOCTOR_PACE_DAYS, DOCTOR_PACE_SECONDS_MIN,
    DOCTOR_QUOTA_PERCENT,
};
use crate::pb::AlarmType;

pub(super) struct Sizes {
    pub total: u64,
    pub in_use: u64,
    pub quota: u64,
}

impl Sizes {
    /// Whether at least half of the file is free.
    pub(super) fn is_mostly_free(&self) -> bool {
        self.in_use <= self.total / 2
    }
}

fn bytes(number: i64) -> u64 {
    u64::try_from(number).unwrap_or_default()
}

pub(super) fn sizes(member: &Member) -> Option<Sizes> {
    #[expect(clippy::cast_possible_truncation, reason = "sizes are whole numbers")]
    let of = |name: &str| Some(bytes(member.metric(name)? as i64));
    if let Some(status) = &member.status {
        return Some(Sizes {
            total: bytes(status.db_size),
            in_use: bytes(status.db_size_in_use),
            // etcd tells it in its status since 3.6.
            quota: match bytes(status.db_size_quota) {
                0 => of("etcd_server_quota_backend_bytes").unwrap_or_default(),
                quota => quota,
            },
        });
    }
    Some(Sizes {
        total: of("etcd_mvcc_db_total_size_in_bytes")?,
        in_use: of("etcd_mvcc_db_total_size_in_use_in_bytes")?,
        quota: of("etcd_server_quota_backend_bytes")?,
    })
}

/// Whether the alarm says more.
fn has_alarm(facts: &Facts, member: &Member) -> bool {
    let alarms = facts.cluster.iter().flat_map(|cluster| &cluster.alarms);
    alarms.into_iter().any(|alarm| *alarm == (member.id, AlarmType::Nospace))
}

fn advice(facts: &Facts, member: &Member, sizes: &Sizes) -> String {
    let endpoint = format!("--endpoints {}", quoted(&member.url));
    if sizes.is_mostly_free() {
        return facts.command(&format!("defrag {endpoint}"));
    }
    format!(
        "see what it is with {}, then compact, or raise --quota-backend-bytes",
        facts.command("space")
    )
}

pub(super) fn quota(facts: &Facts) -> Vec<Finding> {
    let found = facts.reached().filter_map(|member| {
        let sizes = sizes(member)?;
        let percent = sizes.total.saturating_mul(100).checked_div(sizes.quota)?;
        if percent < DOCTOR_QUOTA_PERCENT || has_alarm(facts, member) {
            return None;
        }
        let severity = if percent >= 95 { Severity::Error } else { Severity::Warning };
        let cause = format!(
            "its store has {}, which is {percent}% of the quota of {}; at 100% nothing but deletes \
             is written",
            size::shown(sizes.total),
            size::shown(sizes.quota)
        );
        let command = advice(facts, member, &sizes);
        Some(Finding::new(severity, member.shown(), cause, command, Section::NoSpace))
    });
    found.collect()
}

/// When the quota is reached at the pace of the last minutes. Shorter times say nothing.
pub(super) fn pace(facts: &Facts) -> Vec<Finding> {
    let found = facts.reached().filter_map(|member| {
        let sizes = sizes(member)?;
        let observed = member.metric("rusd_space_growth_seconds")?;
        let growth = member.metric("rusd_space_growth_bytes")?;
        if observed < DOCTOR_PACE_SECONDS_MIN || growth <= 0.0 || sizes.quota == 0 {
            return None;
        }
        let room = sizes.quota.saturating_sub(sizes.in_use) as f64;
        let days = room / growth * observed / 86_400.0;
        if days >= DOCTOR_PACE_DAYS || has_alarm(facts, member) {
            return None;
        }
        let left = match days * 24.0 {
            hours if hours < 2.0 => format!("{:.0} minutes", hours * 60.0),
            hours if hours < 48.0 => format!("{hours:.0} hours"),
            _ => format!("{days:.0} days"),
        };
        let cause = format!(
            "its store grew by {growth:.0} bytes in the last {:.0} minutes; at this pace the quota \
             of {} is reached in {left}",
            observed / 60.0,
            size::shown(sizes.quota)
        );
        let severity = if days < 1.0 { Severity::Warning } else { Severity::Note };
        let command = advice(facts, member, &sizes);
        Some(Finding::new(severity, member.shown(), cause, command, Section::NoSpace))
    });
    found.collect()
}

pub(super) fn fragmentation(facts: &Facts) -> Vec<Finding> {
    let found = facts.reached().filter_map(|member| {
        let sizes = sizes(member)?;
        let free = sizes.total.saturating_sub(sizes.in_use);
        if free < DOCTOR_FREE_BYTES_MIN || !sizes.is_mostly_free() {
            return None;
        }
        let cause = format!(
            "{} of the {} of its store's file are free: they count for the quota",
            size::shown(free),
            size::shown(sizes.total)
        );
        let command = facts.command(&format!("defrag --endpoints {}", quoted(&member.url)));
        let section = Section::FragmentedStore;
        Some(Finding::new(Severity::Warning, member.shown(), cause, command, section))
    });
    found.collect()
}

pub(super) fn disk(facts: &Facts) -> Vec<Finding> {
    let found = facts.reached().filter_map(|member| {
        let free = member.metric("rusd_disk_free_bytes")?;
        let total = member.metric("rusd_disk_total_bytes")?;
        full(member.shown(), free, total)
    });
    found.collect()
}

/// A finding if a disk is nearly full.
pub(super) fn full(subject: String, free: f64, total: f64) -> Option<Finding> {
    if total <= 0.0 || free * 100.0 >= total * DOCTOR_DISK_FREE_PERCENT {
        return None;
    }
    let is_worse = free * 100.0 < total || free < DOCTOR_FREE_BYTES_MIN as f64;
    let severity = if is_worse { Severity::Error } else { Severity::Warning };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes")]
    let text = |bytes: f64| size::shown(bytes as u64);
    let cause = format!("its disk has {} of {} free", text(free), text(total));
    let command = "free space on that disk: df -h DIR; du -xsh DIR/*";
    Some(Finding::new(severity, subject, cause, command, Section::FullDisk))
}
