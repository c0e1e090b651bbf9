//! Hands the `raft` crate's log lines to `tracing`, in the form of etcd's: the member's id first, ids
//! in hexadecimal, and the configuration as lists of ids.

use std::fmt::{Arguments, Write as _};

use slog::{Drain, KV, OwnedKVList, Record, Serializer};

/// The logger's name in the lines, as in etcd.
const LOGGER: &str = "raft";

/// Numbers from here on are ids: these are evenly spread over 64 bits, so that one in sixteen
/// million is smaller, and no term and no index comes that far.
const ID_MIN: u64 = 1 << 40;

/// For the member of this id.
pub(super) struct TracingDrain(pub(super) u64);

/// A message, and the pairs that do not stand in it already.
struct Text(String);

impl Serializer for Text {
    fn emit_arguments(&mut self, key: slog::Key, value: &Arguments<'_>) -> slog::Result {
        let value = match value.to_string() {
            text if text.starts_with("Configuration {") => configuration(&text),
            text => text,
        };
        let is_said = self.0.split(|c: char| !c.is_alphanumeric()).any(|word| word == value);
        if !is_said {
            let key = key.replace(' ', "-");
            write!(self.0, " {key}={value}").map_err(slog::Error::from)?;
        }
        Ok(())
    }
}

/// The ids in the crate's debug form of a configuration, or of its voters.
fn configuration(debug: &str) -> String {
    let list = |name: &str| {
        // The innermost set: `voters` is a configuration that has `voters`, too.
        let set = debug.match_indices(name).find_map(|(at, _)| {
            let inside = debug[at + name.len()..].split_once('}')?.0;
            inside.chars().all(|c| c.is_ascii_digit() || matches!(c, ',' | ' ')).then_some(inside)
        });
        let ids = set.unwrap_or_default().split(',').map(str::trim);
        ids.filter(|id| !id.is_empty()).collect::<Vec<_>>().join(" ")
    };
    let (voters, learners) = (list("voters: {"), list("learners: {"));
    match learners.is_empty() {
        true => format!("voters=({voters})"),
        false => format!("voters=({voters}) learners=({learners})"),
    }
}

/// The text with its ids in hexadecimal.
fn with_hex_ids(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, digits) = rest.split_at(start);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let (number, after) = digits.split_at(end);
        shown.push_str(before);
        match number.parse::<u64>() {
            Ok(id) if id >= ID_MIN => shown.extend([format!("{id:x}")]),
            _ => shown.push_str(number),
        }
        rest = after;
    }
    shown + rest
}

impl Drain for TracingDrain {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
        let level = record.level();
        if level.is_at_least(slog::Level::Info) {
            let mut text = Text(record.msg().to_string());
            // Only formatting could fail, and formatting into a string does not.
            let _ = record.kv().serialize(record, &mut text);
            let (id, text) = (self.0, with_hex_ids(&text.0));
            match level {
                slog::Level::Critical | slog::Level::Error => {
                    tracing::error!(logger = LOGGER, "{id:x} {text}");
                }
                slog::Level::Warning => tracing::warn!(logger = LOGGER, "{id:x} {text}"),
                _ => tracing::info!(logger = LOGGER, "{id:x} {text}"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hexadecimal_and_other_numbers_are_not() {
        let text =
            "rejected vote from 9372538179322589801 [logterm: 3, index: 123456789] at term 7";
        assert_eq!(
            with_hex_ids(text),
            "rejected vote from 8211f1d0f64f3269 [logterm: 3, index: 123456789] at term 7"
        );
        assert_eq!(with_hex_ids("term 18446744073709551616"), "term 18446744073709551616");
    }

    #[test]
    fn a_configuration_is_a_list_of_ids() {
        let debug = "Configuration { voters: Configuration { incoming: Configuration { voters: \
                     {7, 8} }, outgoing: Configuration { voters: {} } }, learners: {9}, \
                     learners_next: {}, auto_leave: false }";
        assert_eq!(configuration(debug), "voters=(7 8) learners=(9)");
        let voters = "Configuration { incoming: Configuration { voters: {} }, outgoing: \
                      Configuration { voters: {} } }";
        assert_eq!(configuration(voters), "voters=()");
    }

    #[test]
    fn what_a_message_says_is_not_said_twice() {
        let mut text = Text("became follower at term 5".into());
        text.emit_arguments("term", &format_args!("{}", 5)).unwrap();
        text.emit_arguments("last index", &format_args!("{}", 7)).unwrap();
        assert_eq!(text.0, "became follower at term 5 last-index=7");
    }
}
