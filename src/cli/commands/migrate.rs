//! `migrate`: changes the storage version of a stopped member, so that another release can start on
//! it.

use std::path::PathBuf;

use serde_json::json;

use super::at_rest::{log_at, patiently};
use crate::cli::confirm;
use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::go;
use crate::offline;

/// A version without its patch number.
type Minor = (i64, i64);

/// The first release that stores its storage version.
const NOTED_SINCE: Minor = (3, 6);
const OLDEST: Minor = (3, 5);
/// Releases whose changes of the storage can be made and undone. 3.8 has changed nothing.
const KNOWN: std::ops::RangeInclusive<Minor> = NOTED_SINCE..=(3, 8);

/// A version as the steps of a migration and its errors show it.
fn long((major, minor): Minor) -> String {
    format!("{major}.{minor}.0")
}

/// A version as the command's own lines show it.
fn short((major, minor): Minor) -> String {
    format!("{major}.{minor}")
}

/// Parses `--target-version`.
fn parse_target(text: &str) -> Result<Minor, Failure> {
    let Some((major, minor)) = text.split_once('.').filter(|(_, minor)| !minor.contains('.'))
    else {
        let shown = go::quote(text.as_bytes());
        return Err(Failure::arguments(format!(
            "wrong target version format, expected \"X.Y\", got {shown}"
        )));
    };
    let refused =
        |why: String| Failure::arguments(format!("failed to parse target version: {why}"));
    // etcd 3.8 takes a `v` before the numbers.
    let (text, major) =
        (text.strip_prefix('v').unwrap_or(text), major.strip_prefix('v').unwrap_or(major));
    // etcd appends ".0" and parses a semantic version. Behind `+` or `-` the ".0" belongs to the
    // suffix, so only two numbers are left.
    if let Some(end) = text.find('+').or_else(|| text.find('-')) {
        let numbers = text[..end].split('-').next().unwrap_or_default();
        return Err(refused(format!("{numbers} is not in dotted-tri format")));
    }
    let number = |text| go::parse_int(text, 10).map_err(|why| refused(why.to_string()));
    let target = (number(major)?, number(minor)?);
    if target < OLDEST {
        let text = format!("target version \"{}\" not supported. Minimal \"3.5\"", short(target));
        return Err(Failure::arguments(text));
    }
    Ok(target)
}

/// The versions to go through; the last one is the target.
fn plan(mut at: Minor, target: Minor) -> Result<Vec<Minor>, String> {
    if at.0 != target.0 {
        return Err("changing major storage version is not supported".to_owned());
    }
    let mut steps = Vec::new();
    while at != target {
        let next = (at.0, if at < target { at.1 + 1 } else { at.1 - 1 });
        let newer = at.max(next);
        if !KNOWN.contains(&newer) {
            return Err(format!("version \"{}\" is not supported", long(newer)));
        }
        steps.push(next);
        at = next;
    }
    Ok(steps)
}

/// Parses the storage version of a directory.
fn parse_found(text: &str) -> Result<Minor, String> {
    let numbers = text.strip_prefix('v').unwrap_or(text);
    let mut parts = numbers.split('.').map(|part| go::parse_int(part, 10).ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        _ => Err(format!("the storage version {text:?} is none; --force sets another one")),
    }
}

pub(super) fn run(context: &Context) -> Outcome {
    let target = parse_target(context.flags.string("target-version"))?;
    let data_dir = context.flags.path("data-dir").map(PathBuf::from).unwrap_or_default();
    let Some(found) = patiently(context, || offline::storage_version(&data_dir))? else {
        let text = "failed to detect storage version. Please make sure you are using data dir from \
                    etcd v3.5 and older";
        log_at(context, "error", "etcdutl/migrate_command.go:134", text, &[]);
        return Err(Failure::error("missing term information"));
    };
    let found = parse_found(&found);
    if found == Ok(target) {
        let fields = [("storage-version", json!(short(target)))];
        let caller = "etcdutl/migrate_command.go:138";
        log_at(context, "info", caller, "storage version up-to-date", &fields);
        return Ok(());
    }
    let steps = found.and_then(|found| {
        if found.0 != target.0 {
            let fields = [
                ("storage-version", json!(long(found))),
                ("target-storage-version", json!(long(target))),
            ];
            let text = "Changing major storage version is not supported";
            log_at(context, "error", "schema/migration.go:33", text, &fields);
        }
        plan(found, target).map_err(|why| format!("cannot create migration plan: {why}"))
    });
    let stored = (target >= NOTED_SINCE).then(|| long(target));
    let write = || patiently(context, || offline::migrate(&data_dir, stored.as_deref()));
    match steps {
        Ok(steps) => {
            write()?;
            for step in steps {
                let fields = [("new-storage-version", json!(long(step)))];
                let caller = "schema/migration.go:65";
                log_at(context, "info", caller, "updated storage version", &fields);
            }
        }
        Err(why) if context.flags.bool("force") => {
            let (dir, named) = (data_dir.display(), short(target));
            confirm::confirm(
                context,
                format!(
                    "{why}. --force sets the version of {dir} to {named} all the same; a server of \
                     that version may misread what is in it."
                ),
            )?;
            let text = "normal migrate failed, trying with force";
            log_at(
                context,
                "info",
                "etcdutl/migrate_command.go:152",
                text,
                &[("error", json!(why))],
            );
            write()?;
            if stored.is_none() {
                let text = "forcefully cleared storage version";
                log_at(context, "warn", "etcdutl/migrate_command.go:165", text, &[]);
            } else {
                let fields = [("storage-version", json!(short(target)))];
                let text = "forcefully set storage version";
                log_at(context, "warn", "etcdutl/migrate_command.go:168", text, &fields);
            }
        }
        Err(why) => return Err(Failure::error(why)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_etcd_reads_it() {
        let format = |got| format!("wrong target version format, expected \"X.Y\", got \"{got}\"");
        let parse = |why| format!("failed to parse target version: {why}");
        let cases = [
            ("abc", format("abc")),
            ("3", format("3")),
            ("3.6.0", format("3.6.0")),
            ("3.a", parse("strconv.ParseInt: parsing \"a\": invalid syntax")),
            ("3.6-rc", parse("3.6 is not in dotted-tri format")),
            ("3.+6", parse("3. is not in dotted-tri format")),
            ("3.4", "target version \"3.4\" not supported. Minimal \"3.5\"".to_owned()),
        ];
        for (text, expected) in cases {
            let Err(Failure { message, exit, .. }) = parse_target(text) else { panic!("{text}") };
            let message = message.unwrap_or_default().to_string();
            assert_eq!((message, exit.code()), (expected, 128), "{text}");
        }
        assert_eq!(parse_target("3.8").unwrap(), (3, 8));
        assert_eq!(parse_target("v3.8").unwrap(), (3, 8));
        assert_eq!(parse_target("4.0").unwrap(), (4, 0));
    }

    #[test]
    fn a_plan_leads_from_release_to_release() {
        assert_eq!(plan((3, 5), (3, 7)).unwrap(), [(3, 6), (3, 7)]);
        assert_eq!(plan((3, 7), (3, 5)).unwrap(), [(3, 6), (3, 5)]);
        assert_eq!(plan((3, 7), (3, 8)).unwrap(), [(3, 8)]);
        assert_eq!(plan((3, 8), (3, 6)).unwrap(), [(3, 7), (3, 6)]);
        assert_eq!(plan((3, 8), (3, 9)).unwrap_err(), "version \"3.9.0\" is not supported");
        assert_eq!(plan((3, 9), (3, 8)).unwrap_err(), "version \"3.9.0\" is not supported");
        assert!(plan((3, 7), (4, 0)).unwrap_err().starts_with("changing major"));
        assert_eq!(parse_found("3.8.0"), Ok((3, 8)));
        assert!(parse_found("x").is_err() && parse_found("3").is_err());
    }
}
