//! The cluster as a whole: quorum, leader, alarms, ids and auth.

use super::super::facts::{Auth, Cluster, Facts, Member};
use super::super::finding::{Finding, STEP, Section, Severity};
use super::members::is_damaged;
use super::space::sizes;
use crate::cli::shell::quoted;
use crate::pb::AlarmType;

pub(super) fn quorum(facts: &Facts) -> Vec<Finding> {
    let Some(cluster) = &facts.cluster else { return Vec::new() };
    let (reached, needed) = (cluster.voters_reached(), cluster.needed());
    let voters = cluster.voters().count();
    // Members that cannot be reached from here may reach each other.
    if voters == 0 || reached == 0 || reached >= needed || cluster.has_leader() {
        return Vec::new();
    }
    let missing: Vec<String> =
        cluster.voters().filter(|voter| !cluster.is_here(voter)).map(|it| it.shown()).collect();
    let cause = format!(
        "{reached} of {voters} voters answer, and {needed} are needed: nothing can be written. \
         Missing: {}",
        missing.join(", ")
    );
    let command = "start the missing members; if their disks are lost: rusd serve \
                   --force-new-cluster on one that is left";
    vec![Finding::new(Severity::Error, "cluster", cause, command, Section::LostQuorum)]
}

pub(super) fn leader(facts: &Facts) -> Vec<Finding> {
    let Some(cluster) = &facts.cluster else { return Vec::new() };
    let here = cluster.reached().filter(|member| !cluster.is_foreign(member));
    let alone = here.filter(|member| member.has_leader() == Some(false));
    if cluster.has_leader() {
        let of = |member: &super::super::facts::Member| {
            let cause = "it knows no leader, and others do: it is cut off from them";
            let command = "see whether its peer URL can be reached from the others, and theirs \
                           from it";
            Finding::new(Severity::Error, member.shown(), cause, command, Section::NoLeader)
        };
        return alone.map(of).collect();
    }
    // Without a list of members nobody knows how many voters there are.
    let lacks_quorum = cluster.list_error.is_none() && cluster.voters_reached() < cluster.needed();
    if lacks_quorum || alone.count() == 0 {
        return Vec::new();
    }
    let cause = "no member that answers knows a leader: nothing can be written";
    let command = facts.command("doctor, again in ten seconds; then the members' logs");
    vec![Finding::new(Severity::Error, "cluster", cause, command, Section::NoLeader)]
}

pub(super) fn margin(facts: &Facts) -> Vec<Finding> {
    let Some(cluster) = &facts.cluster else { return Vec::new() };
    let (voters, reached) = (cluster.voters().count(), cluster.voters_reached());
    if voters < 3 || reached != cluster.needed() || reached == voters {
        return Vec::new();
    }
    let cause = format!(
        "{reached} of {voters} voters answer, which is just a quorum: none of them may fail"
    );
    let command = "bring the missing members back; one whose data is lost is replaced: rusd rebuild \
                   --member ID --endpoints URLS";
    vec![Finding::new(Severity::Warning, "cluster", cause, command, Section::MemberUnreachable)]
}

/// Ids of the members with this alarm.
fn alarmed(cluster: &Cluster, kind: AlarmType) -> impl Iterator<Item = u64> {
    cluster.alarms.iter().filter(move |(_, of)| *of == kind).map(|(id, _)| *id)
}

fn shown(cluster: &Cluster, ids: impl Iterator<Item = u64>) -> String {
    let name = |id| cluster.by_id(id).map_or(format!("member {id:x}"), |it| it.shown());
    ids.map(name).collect::<Vec<_>>().join(", ")
}

pub(super) fn nospace(facts: &Facts) -> Vec<Finding> {
    let Some(cluster) = &facts.cluster else { return Vec::new() };
    let whose = shown(cluster, alarmed(cluster, AlarmType::Nospace));
    if whose.is_empty() {
        return Vec::new();
    }
    let statuses = cluster.reached().filter_map(|member| member.status.as_ref()?.header.as_ref());
    let revision = statuses.map(|header| header.revision).max();
    let revision = revision.map_or("REVISION".to_owned(), |revision| revision.to_string());
    // Defragmentation cannot give back history that is still being deleted.
    let compact = facts.command(&format!("compaction --physical {revision}"));
    let is_free = |member: &Member| sizes(member).is_some_and(|sizes| sizes.is_mostly_free());
    let needs_compaction = !cluster.reached().all(is_free);
    let command: Vec<String> = needs_compaction
        .then_some(compact)
        .into_iter()
        .chain([facts.command("defrag --cluster"), facts.command("alarm disarm")])
        .collect();
    let cause = "alarm NOSPACE: the quota is reached or the disk is full; nothing but deletes is \
                 written";
    let command = command.join(STEP);
    vec![Finding::new(Severity::Error, whose, cause, command, Section::NoSpace)]
}

/// Members whose data differ. Of those that have found damage themselves, `damaged` tells.
pub(super) fn corrupt(facts: &Facts) -> Vec<Finding> {
    let Some(cluster) = &facts.cluster else { return Vec::new() };
    let of_others = |id: &u64| !cluster.by_id(*id).is_some_and(is_damaged);
    let whose = shown(cluster, alarmed(cluster, AlarmType::Corrupt).filter(of_others));
    if whose.is_empty() {
        return Vec::new();
    }
    let cause = "alarm CORRUPT: its data differs from that of the others";
    let command = "stop it, then on its machine: rusd check data --data-dir DIR, and rusd rebuild \
                   --data-dir DIR --endpoints URLS; then rusd alarm disarm";
    vec![Finding::new(Severity::Error, whose, cause, command, Section::Corrupt)]
}

pub(super) fn ids(facts: &Facts) -> Vec<Finding> {
    let Some(cluster) = &facts.cluster else { return Vec::new() };
    let Some(id) = cluster.id() else { return Vec::new() };
    let mut findings = Vec::new();
    for member in cluster.reached() {
        let Some(own) = member.cluster_id() else { continue };
        let (cause, command) = if own != id {
            let cause = format!(
                "it is of cluster {own:x}, the others of {id:x}, so it counts for nothing here: its \
                 directory is an old one, or was restored on it alone, or was first started with \
                 other members in --initial-cluster, another --initial-cluster-token, or without \
                 --initial-cluster-state existing"
            );
            (cause, out_of_another_cluster(facts, cluster, member))
        } else if !member.is_listed && cluster.list_error.is_none() {
            (
                format!("it is of cluster {id:x}, and the list of members does not have it"),
                "it was removed: stop it, and add it anew: rusd member add".to_owned(),
            )
        } else {
            continue;
        };
        findings.push(Finding::new(
            Severity::Error,
            format!("{} at {}", member.shown(), member.url),
            cause,
            command,
            Section::ClusterIdMismatch,
        ));
    }
    findings
}

/// What to do with a member of another cluster. One that stands where a member of this cluster did
/// has lost what that one had acknowledged, so only a new member can take its place.
fn out_of_another_cluster(facts: &Facts, cluster: &Cluster, member: &Member) -> String {
    let listed = || cluster.members.iter().filter(|it| it.is_listed && it.is_started());
    let is_its_place = |it: &&Member| it.id == member.id || it.client_urls.contains(&member.url);
    if let Some(replaced) = listed().find(is_its_place) {
        let urls: Vec<&str> = cluster.own_reached().map(|it| it.url.as_str()).collect();
        let urls = if urls.is_empty() { "URLS".to_owned() } else { quoted(&urls.join(",")) };
        let (id, access) = (replaced.id, &facts.access);
        return format!(
            "stop it, and move its directory away; then let a new member take its place, for which \
             DIR is empty:{STEP}rusd rebuild{access} --member {id:x} --data-dir DIR --endpoints {urls}"
        );
    }
    let add = match cluster.members.iter().any(|it| it.is_listed && !it.is_started()) {
        true => "if it is the one that was added and never started",
        false => "if it is to be a member here: add it (rusd member add)",
    };
    format!(
        "leave it out of --endpoints, if it is meant for another cluster; {add}: stop it, move its \
         directory away, and start it with --initial-cluster-state existing"
    )
}

pub(super) fn auth(facts: &Facts) -> Vec<Finding> {
    let Some(cluster) = &facts.cluster else { return Vec::new() };
    let (severity, cause, command, section) = match cluster.auth {
        Auth::Off { users } if users > 0 => (
            Severity::Warning,
            format!("auth is off, and users are there ({users}): anybody may read and write all"),
            format!(
                "see that root can log in, by a password or a client certificate; then: {}",
                facts.command("auth enable")
            ),
            Section::AuthWithoutRoot,
        ),
        Auth::On { has_root: false, .. } => (
            Severity::Error,
            "auth is on, and there is no user root".to_owned(),
            facts.command(&format!("user add root{STEP}rusd user grant-role root root")),
            Section::AuthWithoutRoot,
        ),
        Auth::On { root_has_role: false, .. } => (
            Severity::Error,
            "auth is on, and the user root does not have the role root".to_owned(),
            facts.command("user grant-role root root"),
            Section::AuthWithoutRoot,
        ),
        Auth::Hidden => (
            Severity::Note,
            "auth is on, and this is not root: alarms and users are not checked".to_owned(),
            facts.command("doctor --user root"),
            Section::LoginNeeded,
        ),
        _ => return Vec::new(),
    };
    vec![Finding::new(severity, "cluster", cause, command, section)]
}
