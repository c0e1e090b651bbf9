//! What a run sends, and for how long.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

/// Prefix of the keys that the benchmark writes.
pub(super) const PREFIX: &str = "/rusd-bench/";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoadKind {
    Put,
    Range,
    Txn,
    Watch,
    Lease,
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
    pub watchers: usize,
    pub serializable: bool,
    /// Requests to send; zero means that `duration` ends the run.
    pub total: u64,
    pub duration: Duration,
    /// Requests per second of all callers together; zero means no limit.
    pub rate: u64,
}

impl Plan {
    pub(super) fn title(&self) -> String {
        let name = format!("{:?}", self.kind).to_lowercase();
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
            "kind": format!("{:?}", self.kind).to_lowercase(),
            "clients": self.clients,
            "connections": self.connections,
            "keyBytes": self.key_bytes,
            "valueBytes": self.value_bytes,
            "keys": self.keys,
            "rangeKeys": self.range_keys,
            "watchers": self.watchers,
            "serializable": self.serializable,
            "ratePerSecond": self.rate,
        })
    }

    pub(super) fn key(&self, index: usize) -> Bytes {
        let width = self.key_bytes.saturating_sub(PREFIX.len());
        format!("{PREFIX}{index:0width$}").into()
    }
}
