//! rusd's words for a wrong command line: what is wrong, with which value, and what may be meant.

use crate::types;

/// A flag that the command does not have, as it was given with its dashes.
pub(super) fn unknown_flag<'a>(
    given: &[u8],
    names: impl IntoIterator<Item = &'a String>,
) -> Vec<u8> {
    let word = given.strip_prefix(b"--".as_slice()).unwrap_or_default();
    let near = std::str::from_utf8(word)
        .ok()
        .and_then(|word| types::nearest(word, names.into_iter().map(String::as_str)));
    let hint = near.map(|name| format!("; did you mean --{name}?")).unwrap_or_default();
    [b"unknown flag ", given, hint.as_bytes()].concat()
}

/// Added to what is wrong with a flag of `lock`: it may be meant for the command that `lock` runs.
pub(super) const BEHIND_DASHES: &str =
    "; flags of the command that lock runs go behind --, as in: rusd lock NAME -- ls -l";

/// A flag without the value that it needs.
pub(super) fn no_value(flag: String) -> Vec<u8> {
    format!("the flag {flag} needs a value").into()
}

/// A value, quoted, that a flag or variable does not take, and what it takes.
pub(super) fn wrong_value(name: &str, value: &str, takes: &str) -> Vec<u8> {
    format!("{name} takes {takes}, not {value}").into()
}

/// A command that does not exist below `parent`.
pub(super) fn unknown_command(typed: &str, parent: &str, near: Option<&str>) -> String {
    let hint = near.map(|name| format!("; did you mean '{parent} {name}'?")).unwrap_or_default();
    format!("unknown command {typed} for '{parent}'{hint}")
}

/// The first argument that `usage` wants and that is not among the `given` ones: the usage `grant
/// <ttl>` wants one, and those in brackets may be left out. Words in parentheses say that the last
/// one may come from standard input.
pub(super) fn missing_argument(usage: &str, given: usize) -> Option<&str> {
    let (usage, is_last_free) = match usage.split_once('(') {
        Some((usage, _)) => (usage, true),
        None => (usage, false),
    };
    let mut wanted = Vec::new();
    let mut rest = usage;
    while let Some(at) = rest.find(['<', '[']) {
        let close = if rest.as_bytes()[at] == b'<' { '>' } else { ']' };
        let end = rest[at..].find(close).map_or(rest.len(), |length| at + length + 1);
        if close == '>' {
            wanted.push(&rest[at..end]);
        }
        rest = &rest[end..];
    }
    if is_last_free {
        wanted.pop();
    }
    wanted.get(given).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_argument_is_named() {
        for (usage, given, missing) in [
            ("grant <ttl>", 0, Some("<ttl>")),
            ("grant <ttl>", 1, None),
            ("get [options] <key> [range_end]", 0, Some("<key>")),
            ("get [options] <key> [range_end]", 1, None),
            ("put [options] <key> <value> (<value> can also be given from stdin)", 1, None),
            (
                "put [options] <key> <value> (<value> can also be given from stdin)",
                0,
                Some("<key>"),
            ),
            ("show <file or host:port>...", 0, Some("<file or host:port>")),
            ("grant-role <user name> <role name>", 1, Some("<role name>")),
            ("rebuild --data-dir DIR --endpoints URLS", 0, None),
            ("odd <", 0, Some("<")),
        ] {
            assert_eq!(missing_argument(usage, given), missing, "{usage} {given}");
        }
    }

    #[test]
    fn what_may_be_meant_is_said() {
        let names = ["prefix".to_owned(), "rev".to_owned()];
        let said = |given: &[u8]| String::from_utf8(unknown_flag(given, &names)).unwrap();
        assert_eq!(said(b"--prefx"), "unknown flag --prefx; did you mean --prefix?");
        assert_eq!(said(b"--bogus"), "unknown flag --bogus");
        assert_eq!(said(b"-z"), "unknown flag -z");
    }
}
