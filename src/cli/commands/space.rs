//! `space`: what takes up the bytes of each member's store, and when the quota will be reached.

use std::time::Duration;

use serde_json::{Value, json};

use futures_util::StreamExt as _;

use super::endpoint::{ask, endpoints, told};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::format::Format;
use crate::cli::grid::wrapped;
use crate::cli::record::{self, Records};
use crate::cli::shell::quoted;
use crate::cli::size;
use crate::client::rpc::{self, SPACE};
use crate::client::{Deadline, Error};
use crate::go;
use crate::pb::rusdpb::{SpacePrefix, SpaceRequest, SpaceResponse};
use crate::pb::{StatusRequest, StatusResponse};

/// Deadline of a report if `--command-timeout` is not given.
const PATIENCE: Duration = Duration::from_secs(600);
/// The growth of a shorter time says nothing of the quota.
const GROWTH_SECONDS_MIN: i64 = 120;

/// The narrowest column of explanations.
const WHAT_COLUMNS_MIN: usize = 12;

pub(super) async fn run(mut context: Context) -> Outcome {
    let config = context.config().await?;
    let format = context.display.format;
    if matches!(format, Format::Fields | Format::Protobuf) {
        return Err(Failure::new(Exit::BadFeature, "unsupported output format"));
    }
    let request =
        SpaceRequest { prefixes: context.flags.int("prefixes"), depth: context.flags.int("depth") };
    let (mut all, mut answered, mut failed) = (Vec::new(), 0, None);
    let endpoints = endpoints(&context, &config).await?;
    // The server reads all of history at a slow pace, so the default timeout would be too short.
    let deadline = || match context.flags.changed("command-timeout") {
        true => context.deadline(),
        false => Deadline::after(PATIENCE),
    };
    let mut answers = ask(&context, &config, endpoints, async |client| {
        // Asked first, and within the usual time: a report may take minutes, which nobody should
        // wait for where a server hangs. The member's alarms come with its status.
        let status = client.call(&rpc::STATUS, StatusRequest {}, context.deadline()).await;
        let alarms = match &status {
            Ok(status) => alarms(status),
            Err(Error::Deadline) => return Err(Error::Deadline),
            // The report fails in the same way, or is allowed more.
            Err(_) => Vec::new(),
        };
        client.call(&SPACE, request, deadline()).await.map(|space| (space, alarms))
    });
    while let Some((endpoint, answer)) = answers.next().await {
        answered += usize::from(matches!(answer, Ok(Ok(_))));
        match answer? {
            Ok((space, alarms)) if format == Format::Json || format.is_records() => {
                all.push(as_json(&endpoint, &space, &alarms));
            }
            Ok((space, alarms)) => {
                context.printer.out(as_text(&endpoint, &space, context.printer.width()));
                context.printer.out(advice(&endpoint, &space, &alarms));
                context.display.space_prefixes(&prefixes(&space));
            }
            Err(error) => {
                context.tell(String::new(), &endpoint, &error);
                failed = Some(error);
            }
        }
    }
    if format == Format::Json {
        context.printer.line(Value::from(all).to_string());
    } else if format.is_records() {
        context.display.records(&Records::Many(all.iter().map(record::Value::from).collect()));
    }
    failed.map_or(Ok(()), |error| Err(told(&context, Exit::Error, answered == 0, &error)))
}

/// The alarms that a member names in its status, such as `NOSPACE`, and of which members they are.
/// Each member names those of all.
fn alarms(status: &StatusResponse) -> Vec<(String, u64)> {
    let named = |error: &String| {
        let (id, name) = error.strip_prefix("memberID:")?.split_once(" alarm:")?;
        Some((name.to_owned(), id.parse().ok()?))
    };
    let mut alarms: Vec<_> = status.errors.iter().filter_map(named).collect();
    alarms.sort_unstable();
    alarms
}

/// The names of alarms, each once.
fn names(alarms: &[(String, u64)]) -> Vec<&str> {
    let mut names: Vec<_> = alarms.iter().map(|(name, _)| name.as_str()).collect();
    names.dedup();
    names
}

/// The alarms, and what to do next.
fn advice(endpoint: &str, space: &SpaceResponse, alarms: &[(String, u64)]) -> String {
    let mut text = String::new();
    let free = space.total_bytes.saturating_sub(space.in_use_bytes);
    let by = |words: &str| format!("rusd --endpoints {} {words}", quoted(endpoint));
    // A second compaction at the same revision would be refused.
    let compact = if space.compact_revision < space.revision {
        by(&format!("compaction --physical {}", space.revision))
    } else if space.history_bytes > 0 {
        "its history is being deleted; wait for that".into()
    } else {
        "it has no history left: delete keys, give more room, or raise the quota".into()
    };
    let is_mostly_free = free >= space.total_bytes / 2;
    let is_near = space.quota_bytes > 0
        && space.total_bytes.saturating_mul(5) >= space.quota_bytes.saturating_mul(4);
    if names(alarms).contains(&"NOSPACE") {
        text += "alarm      NOSPACE: nothing but deletes is written\n";
        let (defrag, disarm) = (by("defrag"), by("alarm disarm"));
        text += &match is_mostly_free && space.history_bytes == 0 {
            true => next(&[defrag, disarm]),
            false => next(&[compact, defrag, disarm]),
        };
    } else if is_near && is_mostly_free {
        text += &next(&["the quota is near, and much of the file is free".into(), by("defrag")]);
    } else if is_near {
        let what = "the quota is near; or raise --quota-backend-bytes".into();
        text += &next(&[what, compact, by("defrag")]);
    }
    for (_, id) in alarms.iter().filter(|(name, _)| name == "CORRUPT") {
        text +=
            &format!("alarm      CORRUPT: the data of member {id:x} differs from that of others\n");
        text += "next       stop that one; rusd check data --data-dir DIR; rusd rebuild --data-dir DIR \
                 --endpoints URLS\n";
    }
    text
}

/// What to do, a step a line.
fn next(steps: &[String]) -> String {
    let line = |(number, step): (usize, &String)| {
        let name = if number == 0 { "next" } else { "" };
        format!("{name:<11}{step}\n")
    };
    steps.iter().enumerate().map(line).collect()
}

fn size(bytes: i64) -> String {
    let text = size::shown(bytes.unsigned_abs());
    if bytes < 0 { format!("-{text}") } else { text }
}

/// Bytes that are no rows: free room in pages, branch pages, leases, users and members.
fn rest(space: &SpaceResponse) -> i64 {
    space.in_use_bytes.saturating_sub(space.live_bytes).saturating_sub(space.history_bytes).max(0)
}

/// The lines of one endpoint, none wider than `columns`.
fn as_text(endpoint: &str, space: &SpaceResponse, columns: usize) -> String {
    let free = space.total_bytes.saturating_sub(space.in_use_bytes);
    let quota = match space.quota_bytes {
        0 => "no quota".to_owned(),
        quota => {
            let part = space.total_bytes as f64 * 100.0 / quota as f64;
            format!("{part:.1}% of the quota of {}", size(quota))
        }
    };
    let history = format!("{} older versions and deletions", space.history_records);
    let revisions = format!(
        "after revision {} up to {}; compaction frees what is older than it keeps",
        space.compact_revision, space.revision
    );
    let lines = [
        ("file", size(space.total_bytes), quota),
        ("  live", size(space.live_bytes), format!("{} keys", space.keys)),
        ("  history", size(space.history_bytes), format!("{history}, {revisions}")),
        ("  tables", size(rest(space)), "pages, leases, users, members".to_owned()),
        ("  free", size(free), "used again; defrag gives it back".to_owned()),
        ("log", size(space.log_bytes), "beside the quota".to_owned()),
        ("disk", size(space.disk_free_bytes), "free".to_owned()),
        ("growth", growth(space), outlook(space)),
    ];
    let mut text = format!("{endpoint}\n");
    for (name, bytes, what) in lines {
        let margin = format!("{name:<11}{bytes:>8}  ");
        let indent = " ".repeat(margin.len());
        let what = wrapped(&what, columns.saturating_sub(margin.len()).max(WHAT_COLUMNS_MIN));
        text.push_str(&format!("{margin}{}\n", what.join(&format!("\n{indent}"))));
    }
    text
}

fn growth(space: &SpaceResponse) -> String {
    if space.growth_seconds < GROWTH_SECONDS_MIN {
        "-".to_owned()
    } else {
        size(space.growth_bytes)
    }
}

/// Seconds until the bytes in use reach the quota at their present growth. None if there is no
/// growth or no quota.
fn seconds_left(space: &SpaceResponse) -> Option<f64> {
    if space.growth_seconds < GROWTH_SECONDS_MIN
        || space.growth_bytes <= 0
        || space.quota_bytes == 0
    {
        return None;
    }
    let room = space.quota_bytes.saturating_sub(space.in_use_bytes).max(0);
    Some(room as f64 * space.growth_seconds as f64 / space.growth_bytes as f64)
}

fn outlook(space: &SpaceResponse) -> String {
    if space.growth_seconds < GROWTH_SECONDS_MIN {
        return "not known yet: ask again in two minutes".to_owned();
    }
    let within = format!("in the last {}", time(space.growth_seconds as f64));
    match seconds_left(space) {
        Some(left) => format!("{within}; at this pace the quota is reached in {}", time(left)),
        None => format!("{within}; at this pace the quota is not reached"),
    }
}

fn time(seconds: f64) -> String {
    let (number, unit) = match seconds {
        s if s < 120.0 => (s, "seconds"),
        s if s < 7200.0 => (s / 60.0, "minutes"),
        s if s < 172_800.0 => (s / 3600.0, "hours"),
        s => (s / 86_400.0, "days"),
    };
    format!("{number:.0} {unit}")
}

/// A prefix as text, quoted if it is not UTF-8.
fn text(prefix: &[u8]) -> String {
    std::str::from_utf8(prefix).map_or_else(|_| go::quote(prefix), str::to_owned)
}

/// The rows of the largest prefixes: name, keys, bytes of live rows and of history.
fn prefixes(space: &SpaceResponse) -> Vec<[String; 4]> {
    let row = |name: String, prefix: &SpacePrefix| {
        [name, prefix.keys.to_string(), size(prefix.live_bytes), size(prefix.history_bytes)]
    };
    let name = |prefix: &SpacePrefix| match prefix.prefix.is_empty() {
        true => "(none)".to_owned(),
        false => text(&prefix.prefix),
    };
    let mut rows: Vec<_> = space.prefixes.iter().map(|one| row(name(one), one)).collect();
    let others = space.others.as_ref();
    let has_some = |one: &&SpacePrefix| one.keys > 0 || one.live_bytes > 0 || one.history_bytes > 0;
    rows.extend(others.filter(has_some).map(|one| row("(others)".to_owned(), one)));
    if space.prefixes.is_empty() { Vec::new() } else { rows }
}

fn as_json(endpoint: &str, space: &SpaceResponse, alarms: &[(String, u64)]) -> Value {
    let prefix = |prefix: &SpacePrefix| {
        json!({
            "prefix": text(&prefix.prefix),
            "keys": prefix.keys,
            "liveBytes": prefix.live_bytes,
            "historyBytes": prefix.history_bytes,
        })
    };
    json!({
        "endpoint": endpoint,
        "alarms": names(alarms),
        "totalBytes": space.total_bytes,
        "inUseBytes": space.in_use_bytes,
        "quotaBytes": space.quota_bytes,
        "liveBytes": space.live_bytes,
        "keys": space.keys,
        "historyBytes": space.history_bytes,
        "historyRecords": space.history_records,
        "freeBytes": space.total_bytes.saturating_sub(space.in_use_bytes),
        "logBytes": space.log_bytes,
        "diskFreeBytes": space.disk_free_bytes,
        "revision": space.revision,
        "compactRevision": space.compact_revision,
        "growthBytes": space.growth_bytes,
        "growthSeconds": space.growth_seconds,
        "secondsToQuota": seconds_left(space),
        "prefixes": space.prefixes.iter().map(prefix).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_add_up_and_the_quota_comes_nearer() {
        let prefix =
            SpacePrefix { prefix: "/a/".into(), keys: 3, live_bytes: 2000, history_bytes: 500 };
        let space = SpaceResponse {
            total_bytes: 10_000_000,
            in_use_bytes: 6_000_000,
            quota_bytes: 20_000_000,
            live_bytes: 4_000_000,
            keys: 3,
            history_bytes: 1_000_000,
            history_records: 9,
            growth_bytes: 1_000_000,
            growth_seconds: 3600,
            prefixes: vec![prefix],
            others: Some(SpacePrefix { history_bytes: 999_500, ..SpacePrefix::default() }),
            ..SpaceResponse::default()
        };
        let mut text = as_text("e", &space, usize::MAX);
        text += &prefixes(&space).concat().join(" ");
        for part in [
            "50.0% of the quota of 20 MB",
            "  live       4.0 MB  3 keys",
            "  tables     1.0 MB",
            "  free       4.0 MB",
            "growth       1.0 MB  in the last 60 minutes; at this pace the quota is reached in 14 \
             hours",
            "/a/",
            "(others)",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        assert_eq!(as_json("e", &space, &[])["secondsToQuota"], 14.0 * 3600.0);
        assert_eq!(advice("e", &space, &[]), "", "there is room");
        let errors = ["memberID:16 alarm:CORRUPT", "memberID:1 alarm:NOSPACE", "no leader"];
        let errors = errors.map(str::to_owned).to_vec();
        let alarms = alarms(&StatusResponse { errors, ..StatusResponse::default() });
        assert!(advice("e", &space, &alarms).contains("CORRUPT: the data of member 10 differs"));
        assert_eq!(as_json("e", &space, &alarms)["alarms"], json!(["CORRUPT", "NOSPACE"]));
        let full = SpaceResponse { revision: 77, ..space };
        let next = "next       rusd --endpoints e compaction --physical 77\n           rusd --endpoints e defrag\n";
        assert!(advice("e", &full, &alarms).contains(next), "{}", advice("e", &full, &alarms));
        let compacted = SpaceResponse { compact_revision: 77, history_bytes: 0, ..full.clone() };
        let what = advice("e", &compacted, &alarms);
        assert!(what.contains("next       it has no history left: delete keys"), "{what}");
        let free = SpaceResponse { in_use_bytes: 1_000_000, ..compacted };
        let next =
            "next       rusd --endpoints e defrag\n           rusd --endpoints e alarm disarm\n";
        assert!(advice("e", &free, &alarms).contains(next), "{}", advice("e", &free, &alarms));
        let near = SpaceResponse { total_bytes: 19_000_000, in_use_bytes: 1_000_000, ..full };
        assert!(
            advice("e", &near, &[]).contains("is free\n           rusd --endpoints e defrag\n")
        );
    }
}
