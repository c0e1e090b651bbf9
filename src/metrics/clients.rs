//! Requests by the API version that a client states. A client chooses this label, so the number of
//! its values is bounded: further ones are counted as `other`.

use std::sync::{LazyLock, OnceLock};

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::CallKind;
use crate::limits::CLIENT_VERSIONS_MAX;

/// A version that clients stated, with its two counters.
struct Version {
    name: Box<str>,
    unary: IntCounter,
    stream: IntCounter,
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
    let unknown = version(&family, "unknown");
    let other = version(&family, "other");
    ClientSeries { family, unknown, other, seen: [const { OnceLock::new() }; CLIENT_VERSIONS_MAX] }
});

fn version(family: &IntCounterVec, name: &str) -> Version {
    Version {
        name: name.into(),
        unary: family.with_label_values(&["unary", name]),
        stream: family.with_label_values(&["stream", name]),
    }
}

pub(super) fn register(registry: &Registry) {
    drop(registry.register(Box::new(CLIENTS.family.clone())));
}

/// The counter for a request whose client states this version, or none.
pub fn client_requests(kind: CallKind, claimed: Option<&str>) -> &'static IntCounter {
    let found = claimed.map_or(&CLIENTS.unknown, lookup);
    if kind == CallKind::Unary { &found.unary } else { &found.stream }
}

fn lookup(claimed: &str) -> &'static Version {
    let fits = claimed.len() <= 64;
    for slot in &CLIENTS.seen {
        let known = match slot.get() {
            None if fits => slot.get_or_init(|| version(&CLIENTS.family, claimed)),
            None => break,
            Some(known) => known,
        };
        if *known.name == *claimed {
            return known;
        }
    }
    &CLIENTS.other
}
