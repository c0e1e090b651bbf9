//! Requests by the API version that a client states. A client chooses this label, so the number of
//! its values is bounded: further ones are counted as `other`.

use std::sync::{LazyLock, OnceLock};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::CallKind;
use crate::limits::CLIENT_VERSIONS_MAX;

/// A version that clients stated, with its two counters.
struct Version {
    name: Box<str>,
    /// By `is_stream`. As in etcd, a series appears with its first request.
    counters: [OnceLock<IntCounter>; 2],
}

struct ClientSeries {
    family: IntCounterVec,
    unknown: Version,
    other: Version,
    seen: [OnceLock<Version>; CLIENT_VERSIONS_MAX],
}

static CLIENTS: LazyLock<ClientSeries> = LazyLock::new(|| {
    let options = Opts::new("etcd_server_client_requests_total", "Requests by client version.");
    #[expect(clippy::expect_used, reason = "name and labels are constants")]
    let family =
        IntCounterVec::new(options, &["type", "client_api_version"]).expect("metric definition");
    let (unknown, other) = (Version::new("unknown"), Version::new("other"));
    ClientSeries { family, unknown, other, seen: [const { OnceLock::new() }; CLIENT_VERSIONS_MAX] }
});

impl Version {
    fn new(name: &str) -> Self {
        Self { name: name.into(), counters: [const { OnceLock::new() }; 2] }
    }
}

pub(super) fn register(registry: &Registry) {
    drop(registry.register(Box::new(CLIENTS.family.clone())));
}

/// The counter for a request whose client states this version, or none.
pub fn client_requests(kind: CallKind, claimed: Option<&str>) -> &'static IntCounter {
    let found = claimed.map_or(&CLIENTS.unknown, lookup);
    let is_stream = kind != CallKind::Unary;
    let label = if is_stream { "stream" } else { "unary" };
    found.counters[usize::from(is_stream)]
        .get_or_init(|| CLIENTS.family.with_label_values(&[label, &found.name]))
}

fn lookup(claimed: &str) -> &'static Version {
    let fits = claimed.len() <= 64;
    for slot in &CLIENTS.seen {
        let known = match slot.get() {
            None if fits => slot.get_or_init(|| Version::new(claimed)),
            None => break,
            Some(known) => known,
        };
        if *known.name == *claimed {
            return known;
        }
    }
    &CLIENTS.other
}
