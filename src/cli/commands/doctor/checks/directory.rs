//! A data directory.

use super::super::facts::{Directory, Facts, RebuildStep, State};
use super::super::finding::{Finding, Section, Severity};
use super::space::full;
use crate::cli::shell::quoted;
use crate::offline;

fn shown(directory: &Directory) -> String {
    directory.path.display().to_string()
}

pub(super) fn state(facts: &Facts) -> Vec<Finding> {
    let Some(directory) = &facts.directory else { return Vec::new() };
    let path = shown(directory);
    let (severity, cause, command, section) = match &directory.state {
        State::AtRest => return Vec::new(),
        // Its files were put aside: `rebuild` says what comes next.
        State::Empty | State::Near(_) if directory.rebuild.is_some() => return Vec::new(),
        State::Missing => (
            Severity::Error,
            "there is no such directory".to_owned(),
            "look for a disk that is not mounted; if it is lost: rusd rebuild --member NAME \
             --endpoints URLS"
                .to_owned(),
            Section::LostDirectory,
        ),
        State::Empty => (
            Severity::Error,
            "no member was ever started in it".to_owned(),
            "look for a disk that is not mounted; if its data is lost: rusd rebuild --member NAME \
             --endpoints URLS"
                .to_owned(),
            Section::LostDirectory,
        ),
        State::Near(other) => (
            Severity::Error,
            format!("it is no data directory; {} is one", other.display()),
            format!("rusd doctor --data-dir {}", quoted(&other.display().to_string())),
            Section::LostDirectory,
        ),
        State::Etcds => (
            Severity::Note,
            "it is a directory of etcd, which rusd does not check".to_owned(),
            format!("rusd import --from-data-dir {} --data-dir DIR", quoted(&path)),
            Section::DirectoryOfEtcd,
        ),
        State::Locked(text) => (
            Severity::Note,
            format!("its files are not read: {text}"),
            "ask the member instead: rusd doctor --endpoints URL; or stop it".to_owned(),
            Section::DirectoryLocked,
        ),
        State::Denied(text) => (
            Severity::Error,
            text.clone(),
            "run this as the user of the server: sudo -u rusd rusd doctor ...".to_owned(),
            Section::PermissionDenied,
        ),
        State::Unusable(text) => (
            Severity::Error,
            text.clone(),
            format!("ls -la {}", quoted(&path)),
            Section::DamagedDirectory,
        ),
    };
    vec![Finding::new(severity, path, cause, command, section)]
}

pub(super) fn damage(facts: &Facts) -> Vec<Finding> {
    let Some(report) = facts.directory.as_ref().and_then(|it| it.report.as_ref()) else {
        return Vec::new();
    };
    // Every start that follows a crash makes the checkpoint anew.
    let is_usual = |found: &&offline::Finding| {
        found.severity == offline::Severity::Note && found.place == "the index checkpoint"
    };
    let found = report.findings.iter().filter(|found| !is_usual(found)).map(|found| {
        let severity = match found.severity {
            offline::Severity::Damage => Severity::Error,
            offline::Severity::Spare => Severity::Warning,
            offline::Severity::Note => Severity::Note,
        };
        let cause = format!("{}: {}", found.place, found.what);
        let (file, advice) = (found.file.display().to_string(), found.advice.clone());
        let section = Section::DamagedDirectory;
        Finding { is_private: true, ..Finding::new(severity, file, cause, advice, section) }
    });
    found.collect()
}

pub(super) fn auth(facts: &Facts) -> Vec<Finding> {
    let Some(directory) = &facts.directory else { return Vec::new() };
    let Some(users) = directory.report.as_ref().and_then(|report| report.auth) else {
        return Vec::new();
    };
    let (severity, cause, command) = match users {
        it if !it.is_on && it.count > 0 => (
            Severity::Warning,
            format!(
                "auth is off, and users are there ({}): anybody may read and write all",
                it.count
            ),
            "start the member, then: rusd auth enable",
        ),
        it if !it.is_on => return Vec::new(),
        it if !it.has_root || !it.root_has_role => (
            Severity::Error,
            "auth is on, and there is no user root with the role root: nobody can change users"
                .to_owned(),
            "log in with another user that has the role root",
        ),
        it if !it.root_has_password => (
            Severity::Warning,
            "auth is on, and root has no password: only a certificate for the name root logs it in"
                .to_owned(),
            "keep such a certificate: rusd cert gen --only client --clients root; or, with it: rusd \
             user passwd root",
        ),
        _ => return Vec::new(),
    };
    vec![Finding::new(severity, shown(directory), cause, command, Section::AuthWithoutRoot)]
}

/// Whether the directory is of the cluster that was asked, and of a member that it still has.
pub(super) fn of_cluster(facts: &Facts) -> Vec<Finding> {
    let Some(directory) = &facts.directory else { return Vec::new() };
    let (Some(report), Some(cluster)) = (&directory.report, &facts.cluster) else {
        return Vec::new();
    };
    let (Some(id), 1..) = (cluster.id(), report.member_id) else { return Vec::new() };
    let (member, of) = (report.member_id, report.cluster_id);
    let (cause, command) = if of != id {
        (
            format!(
                "it is of cluster {of:x}, and the members that were asked are of {id:x}: it is an \
                 old directory, or was first started without --initial-cluster-state existing, or \
                 with another --initial-cluster or --initial-cluster-token"
            ),
            "if its member is to be one of that cluster, move the directory away: no flag changes \
             what was written; a member that was added and never started then starts with \
             --initial-cluster-state existing, and one that has run is replaced: rusd rebuild \
             --member ID --data-dir DIR --endpoints URLS",
        )
    } else if cluster.list_error.is_none() && cluster.by_id(member).is_none_or(|it| !it.is_listed) {
        (
            format!("it is of member {member:x}, which the cluster does not have any more"),
            "it was removed for good: move the directory away, and add a new member: rusd member \
             add NAME --learner --peer-urls URL",
        )
    } else {
        return Vec::new();
    };
    let section = Section::ClusterIdMismatch;
    vec![Finding::new(Severity::Error, shown(directory), cause, command, section)]
}

pub(super) fn disk(facts: &Facts) -> Vec<Finding> {
    let Some(directory) = &facts.directory else { return Vec::new() };
    let disk = directory.disk;
    let found = disk.and_then(|(free, total)| full(shown(directory), free as f64, total as f64));
    found.into_iter().collect()
}

pub(super) fn rebuild(facts: &Facts) -> Vec<Finding> {
    let Some(directory) = &facts.directory else { return Vec::new() };
    let mut findings = Vec::new();
    if let Some(step) = &directory.rebuild {
        let path = quoted(&shown(directory));
        let again = format!("rusd rebuild --data-dir {path} --endpoints URLS");
        let (cause, command) = match step {
            RebuildStep::Replace => ("a rebuild was begun here and has not ended", again),
            RebuildStep::Start(name) => (
                "a rebuild was begun here, and waits for the start of the new member",
                format!(
                    "start the server as before: rusd serve --name {} --data-dir {path} ...; then, \
                     for its vote: {again}",
                    quoted(name)
                ),
            ),
            RebuildStep::Promote => (
                "a rebuild was begun here; the new member has started and may have no vote yet",
                format!("while it runs: {again}"),
            ),
        };
        let section = Section::DamagedDirectory;
        findings.push(Finding::new(Severity::Warning, shown(directory), cause, command, section));
    }
    for path in &directory.put_aside {
        let path = path.display().to_string();
        let cause = "an earlier rebuild has put this aside; it takes space";
        let command = format!("once the member is well: rm -r {}", quoted(&path));
        let section = Section::DamagedDirectory;
        findings.push(Finding::new(Severity::Note, path, cause, command, section));
    }
    findings
}
