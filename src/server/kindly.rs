//! The command line as `rusd serve` takes it: sizes and times with units, and mistakes told in plain
//! words with the name that may be meant.
//!
//! What comes out is a command line in etcd's form, which is read as under etcd's name. Values in a
//! configuration file stay in etcd's form.

use std::time::Duration;

use super::flags::{self, Flag, FlagKind, Given};
use crate::{go, types};

/// Flags that count bytes.
const SIZES: [&str; 2] = ["quota-backend-bytes", "max-request-bytes"];
/// Flags that count seconds, and those that count milliseconds.
const SECONDS: [&str; 1] = ["auth-token-ttl"];
const MILLISECONDS: [&str; 2] = ["heartbeat-interval", "election-timeout"];
/// The one flag that takes hours, a time or revisions.
const RETENTION: &str = "auto-compaction-retention";

/// The arguments in etcd's form, or what is wrong with them.
pub(super) fn arguments(given: &[String]) -> Result<Vec<String>, String> {
    let mut words = given.iter();
    let mut read = Vec::with_capacity(given.len());
    while let Some(word) = words.next() {
        let body = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).unwrap_or_default();
        if body.is_empty() || body.starts_with(['-', '=']) {
            return Err(unexpected(word, read.last()));
        }
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (body, None),
        };
        let Some(flag) = flags::find(name) else {
            // Names of etcd 3.5 are read elsewhere, with their next word if they have one.
            let is_known = matches!(name, "h" | "help") || flags::old_kind(name).is_some();
            if !is_known {
                return Err(unknown(name));
            }
            read.push(word.clone());
            let takes_a_word =
                value.is_none() && flags::old_kind(name).is_some_and(|kind| !is_switch(kind));
            read.extend(words.next().filter(|_| takes_a_word).cloned());
            continue;
        };
        let value = match value {
            Some(value) => value,
            None if is_switch(flag.kind) => {
                read.push(word.clone());
                continue;
            }
            None => words.next().ok_or_else(|| format!("the flag --{name} needs a value"))?,
        };
        let value = in_etcds_form(flag, value).unwrap_or_else(|| value.to_owned());
        if let Err(why) = Given::default().set(flag, &value) {
            return Err(refusal(flag, &value, &why));
        }
        read.push(format!("--{name}={value}"));
    }
    Ok(read)
}

/// The environment with the values of the flags' variables in etcd's form.
pub(super) fn environment(given: Vec<(String, String)>) -> Vec<(String, String)> {
    let read = |(name, value): (String, String)| {
        let flag = flags::FLAGS.iter().find(|flag| flags::environment_name(flag.name) == name);
        let value = flag.and_then(|flag| in_etcds_form(flag, &value)).unwrap_or(value);
        (name, value)
    };
    given.into_iter().map(read).collect()
}

fn is_switch(kind: FlagKind) -> bool {
    matches!(kind, FlagKind::Bool | FlagKind::Nothing)
}

/// A value with a unit as a value without; None for what etcd reads itself, or nobody can.
fn in_etcds_form(flag: &Flag, value: &str) -> Option<String> {
    const MILLI_NANOS: i64 = 1_000_000;
    let is = |names: &[&str]| names.contains(&flag.name);
    if go::parse_int(value, 0).is_ok() {
        return None;
    }
    if is(&SIZES) {
        return types::parse_size(value).map(|bytes| bytes.to_string());
    }
    if is(&SECONDS) {
        return types::parse_seconds(value).map(|seconds| seconds.to_string());
    }
    let nanos = types::parse_time(value)?;
    if is(&MILLISECONDS) {
        return (nanos % MILLI_NANOS == 0).then(|| (nanos / MILLI_NANOS).to_string());
    }
    let is_time = flag.kind == FlagKind::Duration || flag.name == RETENTION;
    let time = u64::try_from(nanos).ok().map(|nanos| go::duration(Duration::from_nanos(nanos)));
    time.filter(|_| is_time)
}

fn unknown(name: &str) -> String {
    let names = flags::FLAGS.iter().filter(|flag| !flag.help.is_empty()).map(|flag| flag.name);
    let near = types::nearest(name, names);
    let hint = near.map(|near| format!("; did you mean --{near}?")).unwrap_or_default();
    format!("unknown flag --{name}{hint}")
}

/// A word where a flag should stand. Behind a flag that is on or off it was meant as its value.
fn unexpected(word: &str, before: Option<&String>) -> String {
    let quoted = go::quote(word);
    let switch = before
        .map(|before| before.trim_start_matches('-'))
        .filter(|name| flags::find(name).is_some_and(|flag| flag.kind == FlagKind::Bool));
    match switch {
        Some(name) => format!(
            "unexpected word {quoted}; a flag that is on or off takes its value after an equals \
             sign: --{name}={word}"
        ),
        None => format!("unexpected word {quoted}; a flag begins with --"),
    }
}

/// What a flag takes, as a value with or without a unit; None if its kind does not say.
pub(super) fn takes(flag: &Flag, has_units: bool) -> Option<&'static str> {
    Some(match flag.kind {
        _ if !has_units && [&SIZES[..], &SECONDS, &MILLISECONDS].concat().contains(&flag.name) => {
            "a whole number"
        }
        _ if SIZES.contains(&flag.name) => {
            "bytes, as a number or with a unit, such as 8GiB or 1500000"
        }
        _ if SECONDS.contains(&flag.name) => "seconds, or a time with its unit, such as 300 or 5m",
        _ if MILLISECONDS.contains(&flag.name) => "milliseconds, such as 100, or a time such as 1s",
        FlagKind::Bool => "true or false",
        FlagKind::Uint | FlagKind::Uint32 => "a whole number of zero or more",
        FlagKind::Int => "a whole number",
        FlagKind::Duration => "a time with its unit, such as 500ms, 90s, 5m, 2h or 7d",
        FlagKind::Urls => "URLs, separated by commas, such as http://127.0.0.1:2379",
        FlagKind::State => "new or existing",
        FlagKind::Fallback => "exit",
        FlagKind::Gates => "feature gates, such as A=true,B=false",
        _ => return None,
    })
}

fn refusal(flag: &Flag, value: &str, why: &str) -> String {
    let Some(takes) = takes(flag, true) else {
        return format!("--{} does not take {}: {why}", flag.name, go::quote(value));
    };
    let why = match flag.kind {
        FlagKind::Urls | FlagKind::Gates => format!(" ({why})"),
        _ => String::new(),
    };
    format!("--{} takes {takes}, not {}{why}", flag.name, go::quote(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn values_with_units_become_etcds() {
        for (line, read) in [
            ("--quota-backend-bytes 8GiB", "--quota-backend-bytes=8589934592"),
            ("-quota-backend-bytes=-1", "--quota-backend-bytes=-1"),
            ("--auto-compaction-retention 7d", "--auto-compaction-retention=168h0m0s"),
            ("--auto-compaction-retention 5", "--auto-compaction-retention=5"),
            ("--corrupt-check-time=1d12h", "--corrupt-check-time=36h0m0s"),
            ("--election-timeout 2s --name a", "--election-timeout=2000 --name=a"),
            ("--auth-token-ttl 5m", "--auth-token-ttl=300"),
            ("--pre-vote --name 7d", "--pre-vote --name=7d"),
            ("--experimental-corrupt-check-time 5m -h", "--experimental-corrupt-check-time 5m -h"),
        ] {
            assert_eq!(arguments(&words(line)), Ok(words(read)), "{line}");
        }
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let read = environment(vec![
            pair("ETCD_QUOTA_BACKEND_BYTES", "1GiB"),
            pair("ETCD_QUOTA_BACKEND_BYTES_", "1GiB"),
            pair("ETCD_ELECTION_TIMEOUT", "x"),
        ]);
        let values: Vec<_> = read.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["1073741824", "1GiB", "x"]);
    }

    #[test]
    fn mistakes_are_told_with_what_is_meant() {
        for (line, parts) in [
            ("--nmae a", ["unknown flag --nmae", "did you mean --name?"]),
            ("--name", ["--name", "needs a value"]),
            ("--election-timeout ten", ["milliseconds, such as 100", "not \"ten\""]),
            ("--quota-backend-bytes 8G", ["8GiB", "not \"8G\""]),
            ("--pre-vote true", ["unexpected word \"true\"", "--pre-vote=true"]),
            ("--pre-vote=x", ["true or false", "not \"x\""]),
            ("name", ["unexpected word \"name\"", "begins with --"]),
            ("--listen-client-urls 127.0.0.1:1", ["http://127.0.0.1:2379", "not \"127.0.0.1:1\""]),
            ("--cors x", ["--cors does not take \"x\"", ""]),
        ] {
            let why = arguments(&words(line)).unwrap_err();
            assert!(parts.iter().all(|part| why.contains(part)), "{line}: {why}");
        }
    }
}
