//! The types of flags' values: how each is read, and what a wrong one should have been.

use std::time::Duration;

use clap::{Arg, ArgAction, ValueHint};

use crate::{go, types};

/// The type of a flag's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FlagKind {
    Bool,
    /// Any bytes.
    Bytes,
    /// UTF-8.
    String,
    Strings,
    Int,
    Uint,
    Duration,
    /// A number of bytes; under etcd's names an `Int`.
    Size,
    /// Whole seconds; under etcd's names an `Int`.
    Seconds,
}

impl FlagKind {
    /// Reads a value as pflag does. The error is pflag's reason.
    pub(super) fn read(self, given: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        Ok(match self {
            Self::Bool => vec![go::parse_bool(given)?.to_string().into()],
            Self::Bytes => vec![given.to_vec()],
            Self::String => vec![utf8(given)?.into()],
            Self::Strings => go::parse_csv(utf8(given)?)?,
            Self::Int | Self::Size | Self::Seconds => {
                vec![go::parse_int(given, 0)?.to_string().into()]
            }
            Self::Uint => vec![go::parse_uint(given, 0)?.to_string().into()],
            Self::Duration => {
                go::parse_duration(given)?;
                vec![given.to_vec()]
            }
        })
    }

    /// Reads a value as rusd does: sizes and times may have units that pflag does not know. The
    /// error says what the flag takes.
    pub(super) fn read_kindly(self, given: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let text = std::str::from_utf8(given).unwrap_or_default();
        let with_units = match self {
            Self::Size => types::parse_size(text).map(|bytes| bytes.to_string()),
            Self::Seconds => types::parse_seconds(text).map(|seconds| seconds.to_string()),
            // A time below zero would count as none.
            Self::Duration => types::parse_time(text)
                .and_then(|nanos| u64::try_from(nanos).ok())
                .map(|nanos| go::duration(Duration::from_nanos(nanos))),
            _ => return self.read(given).map_err(|_| self.takes().to_owned()),
        };
        with_units.map(|text| vec![text.into()]).ok_or_else(|| self.takes().to_owned())
    }

    /// What a value must be, as the object of "takes".
    fn takes(self) -> &'static str {
        match self {
            Self::Bool => "true or false, after an equals sign",
            Self::Bytes => "any text",
            Self::String => "text in UTF-8",
            Self::Strings => "a list, separated by commas",
            Self::Int => "a whole number",
            Self::Uint => "a whole number of zero or more",
            Self::Duration => "a time with its unit, such as 500ms, 90s, 5m, 2h or 7d",
            Self::Size => "bytes, as a number or with a unit, such as 1048576, 64MB or 8GiB",
            Self::Seconds => "seconds, or a time with its unit, such as 60, 90s, 5m or 7d",
        }
    }
}

fn utf8(given: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(given).map_err(|_| "not valid UTF-8".to_owned())
}

pub(super) fn kind_of(arg: &Arg) -> FlagKind {
    let name = arg.get_value_names().and_then(|names| names.first()).map(|name| name.as_str());
    match name {
        Some("strings") => FlagKind::Strings,
        Some("int") => FlagKind::Int,
        Some("uint") => FlagKind::Uint,
        Some("duration") => FlagKind::Duration,
        Some("bytes") => FlagKind::Size,
        Some("seconds") => FlagKind::Seconds,
        Some("string") if arg.get_value_hint() == ValueHint::Unknown => FlagKind::String,
        Some("string") => FlagKind::Bytes,
        _ => FlagKind::Bool,
    }
}

pub(super) fn default_of(arg: &Arg) -> String {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return String::new();
    }
    arg.get_default_values().first().and_then(|value| value.to_str()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rusd_takes_units_and_names_them() {
        let read = |kind: FlagKind, text: &str| {
            kind.read_kindly(text.as_bytes()).map(|all| String::from_utf8(all.concat()).unwrap())
        };
        for (kind, text, value) in [
            (FlagKind::Size, "8GiB", "8589934592"),
            (FlagKind::Size, "12", "12"),
            (FlagKind::Seconds, "2h", "7200"),
            (FlagKind::Seconds, "-1", "-1"),
            (FlagKind::Duration, "7d", "168h0m0s"),
            (FlagKind::Duration, "1500ms", "1.5s"),
            (FlagKind::Int, "0x10", "16"),
        ] {
            assert_eq!(read(kind, text).as_deref(), Ok(value), "{text}");
        }
        for (kind, text, part) in [
            (FlagKind::Size, "8G", "8GiB"),
            (FlagKind::Seconds, "1ms", "90s"),
            (FlagKind::Duration, "5", "7d"),
            (FlagKind::Duration, "-5s", "7d"),
            (FlagKind::Int, "x", "whole number"),
            (FlagKind::Uint, "-1", "zero or more"),
            (FlagKind::Bool, "yes", "true or false"),
        ] {
            let why = read(kind, text).unwrap_err();
            assert!(why.contains(part), "{text}: {why}");
        }
        assert!(FlagKind::Size.read(b"8GiB").is_err());
        assert!(FlagKind::Duration.read(b"7d").is_err());
    }
}
