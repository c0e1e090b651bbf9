//! Single members, and in what they differ from each other.

use std::collections::BTreeMap;

use super::super::facts::{Cluster, Facts, Member};
use super::super::finding::{Finding, Section, Severity};
use crate::limits::DOCTOR_LAG_ENTRIES;

fn listed(facts: &Facts) -> impl Iterator<Item = &Member> {
    let members = facts.cluster.iter().flat_map(|cluster| &cluster.members);
    members.filter(|member| member.is_listed)
}

pub(super) fn unstarted(facts: &Facts) -> Vec<Finding> {
    let unstarted = listed(facts).filter(|member| !member.is_started());
    let found = unstarted.map(|member| {
        let cost = if member.is_learner { "" } else { "; it counts for the quorum" };
        let cause =
            format!("it was added with {} and never started{cost}", member.peer_urls.join(", "));
        let remove = facts.command(&format!("member remove {:x}", member.id));
        let command = format!(
            "start it with --initial-cluster-state existing and that peer URL, or: {remove}"
        );
        let section = Section::MemberNeverStarted;
        Finding::new(Severity::Warning, member.shown(), cause, command, section)
    });
    found.collect()
}

pub(super) fn learners(facts: &Facts) -> Vec<Finding> {
    let leader = facts.cluster.as_ref().and_then(|cluster| cluster.leader()?.status.as_ref());
    let learners = listed(facts).filter(|member| member.is_learner && member.is_started());
    let found = learners.filter_map(|member| {
        let applied = member.status.as_ref()?.raft_applied_index;
        let behind = leader?.raft_index.saturating_sub(applied);
        let promote = facts.command(&format!("member promote {:x}", member.id));
        Some(if behind <= DOCTOR_LAG_ENTRIES {
            let cause = "it is a learner that has caught up: without a vote it helps no quorum";
            let section = Section::LearnerNotPromoted;
            Finding::new(Severity::Warning, member.shown(), cause, promote, section)
        } else {
            let cause = format!("it is a learner that is still {behind} entries behind");
            let command = format!("wait; then {promote}");
            let section = Section::LearnerNotPromoted;
            Finding::new(Severity::Note, member.shown(), cause, command, section)
        })
    });
    found.collect()
}

/// The values by members, as `a (m1, m2), b (m3)`; None if all have the same.
fn differing<'a>(values: impl Iterator<Item = (&'a Member, String)>) -> Option<String> {
    let mut by_value: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (member, value) in values {
        let name = if member.name.is_empty() { &member.url } else { &member.name };
        by_value.entry(value).or_default().push(name.clone());
    }
    let show = |(value, names): (&String, &Vec<String>)| format!("{value} ({})", names.join(", "));
    (by_value.len() > 1).then(|| by_value.iter().map(show).collect::<Vec<_>>().join(", "))
}

/// The members that answer, without strays.
fn own(facts: &Facts) -> impl Iterator<Item = &Member> {
    facts.cluster.iter().flat_map(Cluster::own_reached)
}

pub(super) fn versions(facts: &Facts) -> Vec<Finding> {
    let etcds =
        differing(own(facts).filter_map(|it| Some((it, it.status.as_ref()?.version.clone()))));
    let builds = differing(own(facts).filter_map(|it| {
        let build = it.metrics.as_ref()?.labelled("rusd_build_info").next()?.0;
        Some((it, format!("rusd {build}")))
    }));
    let target = own(facts).filter_map(|it| it.status.as_ref()?.downgrade_info.as_ref());
    let target = target.filter(|it| it.enabled).map(|it| it.target_version.clone()).next();
    if let Some(target) = target {
        let cause = format!("a downgrade to {target} is under way");
        let command = facts.command("downgrade cancel, if it was not meant");
        return vec![Finding::new(
            Severity::Note,
            "cluster",
            cause,
            command,
            Section::UnequalVersions,
        )];
    }
    let Some(versions) = etcds.or(builds) else { return Vec::new() };
    let cause = format!("members have different versions: {versions}");
    let command = "finish the upgrade: restart the older members with the newer version, one by \
                   one";
    vec![Finding::new(Severity::Warning, "cluster", cause, command, Section::UnequalVersions)]
}

pub(super) fn flags(facts: &Facts) -> Vec<Finding> {
    let names: std::collections::BTreeSet<&String> =
        own(facts).flat_map(|member| member.settings.keys()).collect();
    let found = names.into_iter().filter_map(|name| {
        let values =
            own(facts).filter_map(|member| Some((member, member.settings.get(name)?.to_string())));
        let values = differing(values)?;
        let cause = format!("members have different values of --{name}: {values}");
        let command = format!("give all members the same --{name}, and restart them one by one");
        Some(Finding::new(Severity::Warning, "cluster", cause, command, Section::UnequalFlags))
    });
    found.collect()
}

pub(super) fn lag(facts: &Facts) -> Vec<Finding> {
    let leader = facts.cluster.as_ref().and_then(|cluster| cluster.leader()?.status.as_ref());
    let Some(leader) = leader else { return Vec::new() };
    let voters = own(facts).filter(|member| member.is_listed && !member.is_learner);
    let found = voters.filter(|member| !member.leads()).filter_map(|member| {
        let applied = member.status.as_ref()?.raft_applied_index;
        let behind = leader.raft_index.saturating_sub(applied);
        if behind <= DOCTOR_LAG_ENTRIES {
            return None;
        }
        let cause = format!(
            "it is {behind} entries behind the leader, which has {}: reads there are old",
            leader.raft_index
        );
        let command =
            "see its disk and its network: rusd doctor again; on its machine: iostat -x 1";
        let section = Section::MemberLags;
        Some(Finding::new(Severity::Warning, member.shown(), cause, command, section))
    });
    found.collect()
}

pub(super) fn is_damaged(member: &Member) -> bool {
    member.metric("rusd_store_damaged").is_some_and(|damaged| damaged > 0.0)
}

/// Damage that a member has found in its own store while it runs.
pub(super) fn damaged(facts: &Facts) -> Vec<Finding> {
    let found = facts.reached().filter(|member| is_damaged(member)).map(|member| {
        let cause = "it has found damage in its store, and serves nobody";
        let others = if facts.flags.contains("--endpoints") { "" } else { " --endpoints URLS" };
        let rebuild = facts.command(&format!("rebuild --data-dir DIR{others}"));
        let command = format!("stop it, then on its machine: {rebuild}");
        Finding::new(Severity::Error, member.shown(), cause, command, Section::Corrupt)
    });
    found.collect()
}
