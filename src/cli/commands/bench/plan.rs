//! What a run sends, and for how long.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::cli::argv::Flags;
use crate::cli::exit::{Exit, Failure};
use crate::go;
use crate::limits::{
    BENCH_CLIENTS_MAX, BENCH_CONNECTIONS_MAX, BENCH_DURATION_MAX, BENCH_KEYS_BYTES_MAX,
    BENCH_KEYS_MAX, BENCH_RATE_MAX, BENCH_REQUESTS_MAX, BENCH_TXN_OPS_MAX, BENCH_VALUE_BYTES_MAX,
    BENCH_WATCHERS_MAX,
};

/// Prefix of the keys that the benchmark writes.
pub(super) const PREFIX: &str = "/rusd-bench/";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoadKind {
    Put,
    Range,
    Txn,
    Watch,
    Lease,
    KeepAlive,
}

impl LoadKind {
    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::Put, Self::Range, Self::Txn, Self::Watch, Self::Lease, Self::KeepAlive]
            .into_iter()
            .find(|kind| kind.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Range => "range",
            Self::Txn => "txn",
            Self::Watch => "watch",
            Self::Lease => "lease",
            Self::KeepAlive => "keep-alive",
        }
    }
}

/// The kind of requests, their sizes and number, and how long the run lasts.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub kind: LoadKind,
    pub clients: usize,
    pub connections: usize,
    pub key_bytes: usize,
    pub value_bytes: usize,
    /// Number of different keys.
    pub keys: usize,
    /// Rows that a range asks for.
    pub range_keys: usize,
    /// Whether ranges come as streams.
    pub is_streamed: bool,
    /// Puts in one transaction.
    pub ops: usize,
    pub watchers: usize,
    pub serializable: bool,
    /// Requests to send; zero means that `duration` ends the run.
    pub total: u64,
    pub duration: Duration,
    /// Requests per second of all callers together; zero means no limit.
    pub rate: u64,
    /// Deadline of a single request. The run ends when nobody was answered for that long.
    pub patience: Duration,
    /// Whether the keys have been put already.
    pub is_filled: bool,
    /// Whether the server's memory is looked at while it answers.
    pub sees_memory: bool,
}

impl Default for Plan {
    /// The defaults of the flags.
    fn default() -> Self {
        Self {
            kind: LoadKind::Put,
            clients: 64,
            connections: 8,
            key_bytes: 32,
            value_bytes: 256,
            keys: 10_000,
            range_keys: 1,
            is_streamed: false,
            ops: 1,
            watchers: 100,
            serializable: false,
            total: 0,
            duration: Duration::from_secs(10),
            rate: 0,
            patience: Duration::from_secs(5),
            is_filled: false,
            sees_memory: false,
        }
    }
}

/// A whole number from a flag; `absent` if the command has no such flag. Fails outside of the range.
pub(super) fn number(
    flags: &Flags,
    name: &str,
    range: RangeInclusive<u64>,
    absent: u64,
) -> Result<u64, Failure> {
    if flags.get(name).is_none() {
        return Ok(absent);
    }
    let given = flags.int(name);
    let value = u64::try_from(given).ok().filter(|value| range.contains(value));
    value.ok_or_else(|| {
        let (least, most) = (range.start(), range.end());
        let text = format!("--{name} {given} is out of range; it takes {least} to {most}");
        Failure::new(Exit::Usage, text)
    })
}

/// As `number`, for what counts in memory.
fn count(
    flags: &Flags,
    name: &str,
    range: RangeInclusive<u64>,
    absent: usize,
) -> Result<usize, Failure> {
    let value = number(flags, name, range, absent as u64)?;
    usize::try_from(value).map_err(Failure::error)
}

/// How long to send.
pub(super) fn duration(flags: &Flags) -> Result<Duration, Failure> {
    let duration = flags.duration("duration");
    if duration.is_zero() || duration > BENCH_DURATION_MAX {
        let (given, most) = (go::duration(duration), go::duration(BENCH_DURATION_MAX));
        let text = format!("--duration {given} is out of range; it takes up to {most}");
        return Err(Failure::new(Exit::Usage, text));
    }
    Ok(duration)
}

impl Plan {
    /// The plan of a command line. Fails where a number is out of its range.
    pub(super) fn of(kind: LoadKind, flags: &Flags) -> Result<Self, Failure> {
        let usual = Self::default();
        let clients = count(flags, "clients", 1..=BENCH_CLIENTS_MAX, usual.clients)?;
        let conns = count(flags, "conns", 1..=BENCH_CONNECTIONS_MAX, usual.connections)?;
        let plan = Self {
            kind,
            clients,
            connections: conns.min(clients),
            key_bytes: count(flags, "key-size", 1..=BENCH_KEYS_BYTES_MAX, usual.key_bytes)?,
            value_bytes: count(flags, "val-size", 0..=BENCH_VALUE_BYTES_MAX, usual.value_bytes)?,
            keys: count(flags, "keys", 1..=BENCH_KEYS_MAX, usual.keys)?,
            range_keys: count(flags, "range-size", 1..=BENCH_KEYS_MAX, usual.range_keys)?,
            is_streamed: flags.bool("stream"),
            ops: count(flags, "ops", 1..=BENCH_TXN_OPS_MAX, usual.ops)?,
            watchers: count(flags, "watchers", 1..=BENCH_WATCHERS_MAX, usual.watchers)?,
            serializable: flags.bool("serializable"),
            total: number(flags, "total", 0..=BENCH_REQUESTS_MAX, 0)?,
            duration: duration(flags)?,
            rate: number(flags, "rate", 0..=BENCH_RATE_MAX, 0)?,
            patience: flags.duration("command-timeout"),
            ..usual
        };
        plan.check()?;
        Ok(plan)
    }

    /// Whether the numbers fit each other.
    fn check(&self) -> Result<(), Failure> {
        let usage = |text| Err(Failure::new(Exit::Usage, text));
        let (keys, bytes) = (self.keys, self.key_bytes);
        let least = self.key(keys - 1).len();
        if bytes < least {
            let text = format!("--key-size {bytes} is too small: {keys} keys below {PREFIX}");
            return usage(format!("{text} need {least} bytes each"));
        }
        if keys as u64 * bytes as u64 > BENCH_KEYS_BYTES_MAX {
            let text = format!("--keys {keys} of --key-size {bytes} are too much: together they");
            return usage(format!("{text} may have {BENCH_KEYS_BYTES_MAX} bytes"));
        }
        for (name, part) in [("ops", self.ops), ("range-size", self.range_keys)] {
            if part > keys {
                return usage(format!("--{name} {part} is more than --keys {keys}"));
            }
        }
        Ok(())
    }

    pub(super) fn title(&self) -> String {
        let name = self.kind.name();
        let watchers = match self.kind {
            LoadKind::Watch => format!(", {} watchers", self.watchers),
            _ => String::new(),
        };
        format!(
            "{name}: {} clients, {} connections, {} B keys, {} B values{watchers}",
            self.clients, self.connections, self.key_bytes, self.value_bytes
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "kind": self.kind.name(),
            "clients": self.clients,
            "connections": self.connections,
            "keyBytes": self.key_bytes,
            "valueBytes": self.value_bytes,
            "keys": self.keys,
            "rangeKeys": self.range_keys,
            "streamed": self.is_streamed,
            "putsPerTransaction": self.ops,
            "watchers": self.watchers,
            "serializable": self.serializable,
            "ratePerSecond": self.rate,
        })
    }

    pub(super) fn key(&self, index: usize) -> Bytes {
        // Not by a width of the format, which ends at 65,535.
        let digits = index.to_string();
        let zeros = self.key_bytes.saturating_sub(PREFIX.len() + digits.len());
        [PREFIX, &"0".repeat(zeros), &digits].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_do_not_fit_each_other_are_refused() {
        let usual = Plan::default();
        assert!(usual.check().is_ok());
        for (plan, part) in [
            (Plan { key_bytes: 15, ..usual.clone() }, "need 16 bytes each"),
            (Plan { key_bytes: 1 << 20, ..usual.clone() }, "may have 1073741824 bytes"),
            (Plan { ops: 10_001, ..usual.clone() }, "--ops 10001 is more than --keys 10000"),
            (Plan { range_keys: 20_000, ..usual }, "--range-size 20000 is more than --keys 10000"),
        ] {
            let failure = plan.check().unwrap_err();
            assert!(failure.message.unwrap_or_default().to_string().contains(part), "{part}");
        }
    }
}
