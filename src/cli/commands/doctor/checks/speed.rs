//! Disks, networks and clocks against the election timeout.

use std::collections::BTreeMap;

use super::super::facts::{Facts, Member};
use super::super::finding::{Finding, Section, Severity};
use crate::limits::{
    DOCTOR_CLOCK_SKEW_SECONDS, DOCTOR_LEADER_CHANGES_MAX, DOCTOR_SYNCS_MIN, DOCTOR_TIMEOUT_PART,
};

fn millis(seconds: f64) -> String {
    format!("{:.0} ms", seconds * 1000.0)
}

pub(super) fn sync(facts: &Facts) -> Vec<Finding> {
    facts.reached().filter_map(slow_sync).collect()
}

fn slow_sync(member: &Member) -> Option<Finding> {
    let family = "etcd_disk_wal_fsync_duration_seconds";
    let (slowest, count) = member.metrics.as_ref()?.quantile(family, 0.99)?;
    let election = member.election_seconds();
    if count < DOCTOR_SYNCS_MIN || slowest < election / DOCTOR_TIMEOUT_PART {
        return None;
    }
    let severity = if slowest >= election / 2.0 { Severity::Error } else { Severity::Warning };
    let took = match slowest.is_finite() {
        true => format!("up to {}", millis(slowest)),
        false => "more than eight seconds".to_owned(),
    };
    let cause = format!(
        "99 of 100 syncs of its log since the start took {took}; a {}th of the election timeout of \
         {} is the most that is safe",
        DOCTOR_TIMEOUT_PART,
        millis(election)
    );
    let command = "give the log a disk of its own, an SSD, with --wal-dir; look for other programs \
                   that write there: iostat -x 1";
    Some(Finding::new(severity, member.shown(), cause, command, Section::SlowDisk))
}

pub(super) fn round_trip(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in facts.reached() {
        let Some(metrics) = &member.metrics else { continue };
        let family = "etcd_network_peer_round_trip_time_seconds";
        let (sums, counts) = (format!("{family}_sum"), format!("{family}_count"));
        let election = member.election_seconds();
        let counts: BTreeMap<&str, f64> = metrics.labelled(&counts).collect();
        for (to, sum) in metrics.labelled(&sums) {
            let count = counts.get(to).copied().unwrap_or(0.0);
            let mean = sum / count;
            if count < 1.0 || mean < election / DOCTOR_TIMEOUT_PART {
                continue;
            }
            let id = u64::from_str_radix(to, 16).unwrap_or_default();
            let peer = facts.cluster.as_ref().and_then(|cluster| cluster.by_id(id));
            let peer = peer.map_or_else(|| to.to_owned(), Member::shown);
            let cause = format!(
                "a message to {peer} and back takes {} on average; the election timeout is {}, and \
                 should be ten times as long",
                millis(mean),
                millis(election)
            );
            let command = format!(
                "start all members with --election-timeout {:.0} --heartbeat-interval {:.0}, or \
                 bring them nearer to each other",
                (mean * 10_000.0).ceil(),
                (mean * 1000.0).ceil()
            );
            let section = Section::SlowNetwork;
            findings.push(Finding::new(Severity::Warning, member.shown(), cause, command, section));
        }
    }
    findings
}

pub(super) fn leader_changes(facts: &Facts) -> Vec<Finding> {
    let found = facts.reached().filter_map(|member| {
        let changes = member.metric("etcd_server_leader_changes_seen_total")?;
        let up = facts.now as f64 - member.metric("process_start_time_seconds")?;
        let hours = (up / 3600.0).max(1.0);
        if changes / hours <= DOCTOR_LEADER_CHANGES_MAX {
            return None;
        }
        let cause = format!(
            "it has seen {changes:.0} changes of the leader in {hours:.0} hours: leaders lose touch"
        );
        let command = "see what is slow, the disks or the network; or start all members with a \
                       longer --election-timeout";
        let section = Section::SlowNetwork;
        Some(Finding::new(Severity::Warning, member.shown(), cause, command, section))
    });
    // All members see the same changes.
    found.take(1).collect()
}

pub(super) fn clocks(facts: &Facts) -> Vec<Finding> {
    let clocks = facts.reached().filter_map(|member| Some((member, member.clock?)));
    let clocks: Vec<(&Member, (f64, f64))> = clocks.collect();
    let mut sorted: Vec<f64> = clocks.iter().map(|(_, (ahead, _))| *ahead).collect();
    sorted.sort_by(f64::total_cmp);
    // The clock of most members, or this machine's if there are two of different minds.
    let usual = match sorted.len() {
        0 => return Vec::new(),
        2 => sorted.iter().copied().min_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(0.0),
        count => sorted[count / 2],
    };
    let mut findings = Vec::new();
    for (member, (ahead, exact)) in &clocks {
        let skew = ahead - usual;
        if skew.abs() - exact < DOCTOR_CLOCK_SKEW_SECONDS {
            continue;
        }
        let side = if skew > 0.0 { "ahead of" } else { "behind" };
        let cause = format!("its clock is {:.1} s {side} that of the others", skew.abs());
        findings.push(skewed(Severity::Warning, member.shown(), cause));
    }
    let exact = clocks.iter().map(|(_, (_, exact))| *exact).fold(0.0, f64::max);
    if usual.abs() - exact >= DOCTOR_CLOCK_SKEW_SECONDS {
        let side = if usual > 0.0 { "behind" } else { "ahead of" };
        let cause = format!("this machine's clock is {:.1} s {side} the members'", usual.abs());
        findings.push(skewed(Severity::Note, "this machine".to_owned(), cause));
    }
    findings
}

fn skewed(severity: Severity, subject: String, cause: String) -> Finding {
    let command = "timedatectl timesync-status, or: chronyc tracking";
    Finding::new(severity, subject, cause, command, Section::ClockSkew)
}
