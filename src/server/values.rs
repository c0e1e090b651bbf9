//! The flags' values in their types. The texts were checked when they were given, so one that is no
//! value counts as the type's default.

use std::time::Duration;

use super::flags::{self, Given};
use super::url::Url;
use crate::go;

/// Typed access to the flags that were given.
pub(super) struct Values<'a>(pub &'a Given);

impl Values<'_> {
    pub(super) fn uint(&self, name: &str) -> u64 {
        go::parse_uint(self.0.text(name), 0).unwrap_or_default()
    }
    pub(super) fn int(&self, name: &str) -> i64 {
        go::parse_int(self.0.text(name), 0).unwrap_or_default()
    }
    /// A duration; a negative one counts as zero.
    pub(super) fn duration(&self, name: &str) -> Duration {
        let nanos = go::parse_duration(self.0.text(name)).unwrap_or_default();
        Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
    }
    pub(super) fn bool(&self, name: &str) -> bool {
        go::parse_bool(self.0.text(name)) == Ok(true)
    }
    /// A duration; None for zero, with which the server chooses.
    pub(super) fn own_duration(&self, name: &str) -> Option<Duration> {
        Some(self.duration(name)).filter(|value| !value.is_zero())
    }
    /// A count; None for zero, and for what is no count, with which the server chooses.
    pub(super) fn own_count(&self, name: &str) -> Option<usize> {
        usize::try_from(self.int(name)).ok().filter(|count| *count > 0)
    }
    pub(super) fn urls(&self, name: &str) -> Vec<Url> {
        Url::parse_list(self.0.text(name)).unwrap_or_default()
    }
    pub(super) fn words(&self, name: &str) -> Vec<String> {
        self.0
            .text(name)
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// The endpoints of a discovery service, in the order given, each once. Without the flag there
    /// are none; an empty list that was given is one empty endpoint, which `check` refuses.
    pub(super) fn discovery_endpoints(&self) -> Vec<String> {
        let mut endpoints: Vec<String> = Vec::new();
        if self.0.is_set("discovery-endpoints") {
            for endpoint in self.0.text("discovery-endpoints").split(',') {
                if !endpoints.iter().any(|known| known == endpoint) {
                    endpoints.push(endpoint.to_owned());
                }
            }
        }
        endpoints
    }

    /// The feature gates that are set, in the order given.
    pub(super) fn gates_set(&self) -> Vec<(&'static str, bool)> {
        flags::gates(self.0.text("feature-gates")).unwrap_or_default()
    }

    /// All feature gates, their stages, and whether they are open.
    pub(super) fn gates(&self) -> Vec<(&'static str, &'static str, bool)> {
        let set = self.gates_set();
        flags::GATES
            .iter()
            .map(|&(name, stage, default, _)| {
                let on =
                    set.iter().rev().find(|(gate, _)| *gate == name).map_or(default, |&(_, on)| on);
                (name, stage, on)
            })
            .collect()
    }

    pub(super) fn is_open(&self, gate: &str) -> bool {
        self.gates().iter().any(|(name, _, on)| *name == gate && *on)
    }
}
