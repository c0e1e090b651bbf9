//! Findings as text and as JSON.

use serde_json::{Value, json};

use super::checks;
use super::facts::{Cluster, Directory, Facts, Member};
use super::finding::{Finding, STEP, Severity};
use crate::cli::size;
use crate::cli::terminal::{Page, Style};
use crate::types::is_obeyed;

/// The version of the JSON: a field may be added without a new one.
const JSON_VERSION: u32 = 1;

/// Facts with what the checks say of them.
pub(super) struct Report<'a> {
    pub facts: &'a Facts,
    /// Each with the name of its check, the worst first.
    pub findings: Vec<(&'static str, Finding)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(facts: &'a Facts) -> Self {
        Self { facts, findings: checks::judge(facts) }
    }

    pub(super) fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|(_, finding)| finding.severity).max()
    }

    /// The report in lines of at most `width` columns.
    pub(super) fn page(&self, width: usize) -> Page {
        let mut page = Page::default();
        for (_, finding) in &self.findings {
            let text = shown(finding, width);
            let word = finding.severity.word();
            let style = match finding.severity {
                Severity::Error => Style::Bad,
                Severity::Warning => Style::Warning,
                Severity::Note => Style::Bold,
            };
            page.text(style, word).text(Style::Plain, text.strip_prefix(word).unwrap_or(&text));
        }
        let mut text = String::new();
        if !self.findings.is_empty() {
            text.push('\n');
        }
        let is_healthy = self.worst().is_none_or(|worst| worst == Severity::Note);
        if let Some(cluster) = &self.facts.cluster {
            text += &wrapped(&of_cluster(cluster, is_healthy), 0, width);
        }
        if let Some(directory) = &self.facts.directory {
            let line = of_directory(directory, is_healthy);
            text += &line.map_or_else(String::new, |line| wrapped(&line, 0, width));
        }
        if !self.findings.is_empty() {
            text += &format!("{}\n", self.counts());
        }
        page.text(Style::Plain, text);
        page
    }

    fn counts(&self) -> String {
        let count = |severity: Severity| {
            let of = self.findings.iter().filter(|(_, finding)| finding.severity == severity);
            match of.count() {
                0 => None,
                1 => Some(format!("1 {}", severity.word())),
                count => Some(format!("{count} {}s", severity.word())),
            }
        };
        let all = [Severity::Error, Severity::Warning, Severity::Note];
        all.into_iter().filter_map(count).collect::<Vec<_>>().join(", ")
    }

    /// As JSON; in a bundle without what is private.
    pub(super) fn json(&self, is_for_bundle: bool) -> Value {
        let finding = |(check, finding): &(&'static str, Finding)| {
            let cause = match is_for_bundle && finding.is_private {
                true => "left out: it may name a key",
                false => finding.cause.as_str(),
            };
            json!({
                "check": check,
                "severity": finding.severity,
                "subject": finding.subject,
                "cause": cause,
                "command": finding.command,
                "section": finding.section.title(),
                "handbook": finding.section.place(),
            })
        };
        json!({
            "version": JSON_VERSION,
            "severity": self.worst().map_or("ok", Severity::word),
            "cluster": self.facts.cluster.as_ref().map(cluster_json),
            "directory": self.facts.directory.as_ref().map(directory_json),
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}

fn shown(finding: &Finding, columns: usize) -> String {
    const INDENT: usize = 9;
    let Finding { severity, subject, cause, command, section, .. } = finding;
    let word = format!("{:<INDENT$}", severity.word());
    let place = section.place();
    let mut text = wrapped(&format!("{word}{subject}: {cause}"), INDENT, columns);
    let indent = " ".repeat(INDENT);
    for (number, line) in command.split(STEP).enumerate() {
        let head = if number == 0 { "do    " } else { "      " };
        let line = format!("{indent}{head}{line}");
        // Commands are not wrapped: it must be possible to paste them.
        let width = if command.starts_with("rusd ") { usize::MAX } else { columns };
        text += &wrapped(&line, INDENT + head.len(), width);
    }
    text += &format!("{indent}read  {place}\n");
    text
}

/// Text in lines of at most `width` columns, all but the first indented. Names from the network may
/// hold anything, so no control character of the text reaches the terminal.
fn wrapped(text: &str, indent: usize, width: usize) -> String {
    let text: String =
        text.chars().map(|c| if c.is_control() || is_obeyed(c) { '\u{fffd}' } else { c }).collect();
    let width = width.max(indent + 20);
    let margin = text.chars().take_while(|c| *c == ' ').count();
    let (mut lines, mut columns) = (" ".repeat(margin), margin);
    let mut is_first = true;
    for word in text[margin..].split(' ') {
        let length = word.chars().count();
        if !is_first && columns > indent && columns + 1 + length > width {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            columns = indent;
        } else if !is_first {
            lines.push(' ');
            columns += 1;
        }
        is_first = false;
        lines.push_str(word);
        columns += length;
    }
    lines.push('\n');
    lines
}

fn of_cluster(cluster: &Cluster, is_healthy: bool) -> String {
    let is_own = |member: &&Member| member.is_listed || cluster.list_error.is_some();
    let own: Vec<&Member> = cluster.members.iter().filter(is_own).collect();
    let (count, reached) = (own.len(), own.iter().filter(|member| cluster.is_here(member)).count());
    let kind = if cluster.list_error.is_some() { "endpoint" } else { "member" };
    let mut text = format!("{count} {kind}{}", if count == 1 { "" } else { "s" });
    if let Some(id) = cluster.id() {
        text += &format!(" of cluster {id:x}");
    }
    text += &match (is_healthy, reached) {
        (true, _) => " healthy".to_owned(),
        (false, 0) => return text + ", none answers",
        (false, reached) if reached == count => String::new(),
        (false, 1) => ", 1 answers".to_owned(),
        (false, reached) => format!(", {reached} answer"),
    };
    text += &match (cluster.leader(), cluster.has_leader()) {
        (Some(leader), _) => match &leader.status {
            Some(status) => format!(": {} leads in term {}", leader.shown(), status.raft_term),
            None => format!(": {} leads", leader.shown()),
        },
        (None, true) => ": the leader is not reached from here".to_owned(),
        (None, false) => ": no leader".to_owned(),
    };
    let versions = cluster.reached().filter_map(|member| Some(&member.status.as_ref()?.version));
    if let Some(version) = versions.min() {
        text += &format!(", version {version}");
    }
    if cluster.has_leader() && cluster.list_error.is_none() {
        text += &match may_fail(cluster) {
            0 => ", none may fail".to_owned(),
            count => format!(", {count} more may fail"),
        };
    }
    text
}

/// How many of the voters that answer may fail.
fn may_fail(cluster: &Cluster) -> usize {
    cluster.voters_reached().saturating_sub(cluster.needed())
}

/// None if it was not read; a finding says why.
fn of_directory(directory: &Directory, is_healthy: bool) -> Option<String> {
    let path = directory.path.display();
    let report = directory.report.as_ref()?;
    let sound = match (is_healthy, report.is_sound()) {
        (true, _) => " healthy",
        (false, true) => ", its files sound",
        (false, false) => ", damaged",
    };
    let whose = match report.member_id {
        0 => "of a member that is not known".to_owned(),
        id => format!("member {id:x} of cluster {:x}", report.cluster_id),
    };
    Some(format!(
        "{path}: {whose}{sound}: {}, revision {}",
        size::shown(report.store_bytes),
        report.revision
    ))
}

fn cluster_json(cluster: &Cluster) -> Value {
    let leader = cluster.leader();
    json!({
        "id": cluster.id().map(|id| format!("{id:x}")),
        "leader": leader.map(|leader| format!("{:x}", leader.id)),
        "term": leader.and_then(|leader| Some(leader.status.as_ref()?.raft_term)),
        "voters": cluster.voters().count(),
        "votersReached": cluster.voters_reached(),
        "mayFail": may_fail(cluster),
        "members": cluster.members.iter().map(member_json).collect::<Vec<_>>(),
    })
}

fn member_json(member: &Member) -> Value {
    let status = member.status.as_ref();
    json!({
        "id": format!("{:x}", member.id),
        "name": member.name,
        "url": member.url,
        "clientUrls": member.client_urls,
        "peerUrls": member.peer_urls,
        "isListed": member.is_listed,
        "isLearner": member.is_learner,
        "isReached": member.is_reached(),
        "version": status.map(|status| status.version.clone()),
        "appliedIndex": status.map(|status| status.raft_applied_index),
        "dbSize": status.map(|status| status.db_size),
        "dbSizeInUse": status.map(|status| status.db_size_in_use),
        "dbSizeQuota": status.map(|status| status.db_size_quota),
        "roundTripSeconds": member.is_reached().then_some(member.round_trip.as_secs_f64()),
        "clockAheadSeconds": member.clock.map(|(ahead, _)| ahead),
        "settings": member.settings,
    })
}

fn directory_json(directory: &Directory) -> Value {
    let report = directory.report.as_ref();
    json!({
        "path": directory.path.display().to_string(),
        "isRead": report.is_some(),
        "memberId": report.map(|report| format!("{:x}", report.member_id)),
        "clusterId": report.map(|report| format!("{:x}", report.cluster_id)),
        "storeBytes": report.map(|report| report.store_bytes),
        "revision": report.map(|report| report.revision),
        "diskFreeBytes": directory.disk.map(|(free, _)| free),
        "diskBytes": directory.disk.map(|(_, total)| total),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_hide_control_characters() {
        let text = wrapped("error    m1: one two three four five", 9, 30);
        assert_eq!(text, "error    m1: one two three\n         four five\n");
        assert!(text.lines().all(|line| line.chars().count() <= 30));
        assert_eq!(wrapped("  do  one two", 6, 26), "  do  one two\n");
        assert_eq!(wrapped("   do  one two three four", 7, 20), "   do  one two three four\n");
        let text = wrapped("   do  one two three four five", 7, 27);
        assert_eq!(text, "   do  one two three four\n       five\n");
        assert_eq!(wrapped("a\u{202e}b", 9, 80), "a\u{fffd}b\n");
        assert_eq!(wrapped("a\x1b[31mb", 9, usize::MAX), "a\u{fffd}[31mb\n");
    }
}
