//! Limits of the members' processes, and the age of the last backup.

use super::super::facts::{Facts, Member};
use super::super::finding::{Finding, Section, Severity};
use crate::cli::size;
use crate::limits::{
    DOCTOR_BACKUP_DAYS, DOCTOR_MEMORY_BYTES_MIN, DOCTOR_MEMORY_PERCENT, DOCTOR_OPEN_FILES_MIN,
    DOCTOR_OPEN_FILES_PERCENT,
};

pub(super) fn open_files(facts: &Facts) -> Vec<Finding> {
    let found = facts.reached().filter_map(|member| {
        let (used, most) = (member.metric("process_open_fds")?, member.metric("process_max_fds")?);
        let cause = if used * 100.0 >= most * DOCTOR_OPEN_FILES_PERCENT {
            format!("it has {used:.0} open files of {most:.0}: new clients will be refused")
        } else if most < DOCTOR_OPEN_FILES_MIN {
            format!(
                "it may open {most:.0} files only; each client takes one, and {DOCTOR_OPEN_FILES_MIN} \
                 are the least that is usual"
            )
        } else {
            return None;
        };
        let command = "raise the limit (ulimit -n, LimitNOFILE=65536 in the unit) and restart it";
        Some(Finding::new(
            Severity::Warning,
            member.shown(),
            cause,
            command,
            Section::OpenFiles,
        ))
    });
    found.collect()
}

pub(super) fn memory(facts: &Facts) -> Vec<Finding> {
    facts.reached().filter_map(short_of_memory).collect()
}

fn short_of_memory(member: &Member) -> Option<Finding> {
    let limit = member.metric("rusd_memory_limit_bytes").filter(|limit| *limit > 0.0)?;
    let used = member.metric("process_resident_memory_bytes")?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "sizes")]
    let text = |bytes: f64| size::shown(bytes as u64);
    let cause = if used * 100.0 >= limit * DOCTOR_MEMORY_PERCENT {
        format!("it uses {} of the {} that its control group allows", text(used), text(limit))
    } else if limit < DOCTOR_MEMORY_BYTES_MIN {
        format!(
            "its control group allows {}; {} are the least that is sensible",
            text(limit),
            text(DOCTOR_MEMORY_BYTES_MIN)
        )
    } else {
        return None;
    };
    let command = "raise the limit (MemoryMax= in the unit, or the container's limit)";
    Some(Finding::new(Severity::Warning, member.shown(), cause, command, Section::MemoryLimit))
}

/// Only rusd tells when a snapshot was saved, and each member only of its own time.
pub(super) fn backup(facts: &Facts) -> Vec<Finding> {
    let told = facts.reached().filter_map(|member| {
        let last = member.metric("rusd_last_snapshot_save_timestamp_seconds")?;
        Some((last, member.metric("process_start_time_seconds")?))
    });
    let told: Vec<(f64, f64)> = told.collect();
    if told.is_empty() {
        return Vec::new();
    }
    let last = told.iter().map(|(last, _)| *last).fold(0.0, f64::max);
    let started = told.iter().map(|(_, start)| *start).fold(f64::INFINITY, f64::min);
    let (since, what) = match last > 0.0 {
        true => (last, "the last snapshot was saved"),
        false => (started, "no snapshot was saved since the members started"),
    };
    let days = (facts.now as f64 - since) / 86_400.0;
    if days < DOCTOR_BACKUP_DAYS {
        return Vec::new();
    }
    let cause = match last > 0.0 {
        true => format!("{what} {days:.0} days ago"),
        false => format!("{what}, {days:.0} days ago"),
    };
    let command = facts.command("snapshot save backup.db");
    vec![Finding::new(Severity::Warning, "cluster", cause, command, Section::OldBackup)]
}
