//! The grpc_server_* families: four counters for each method, resolved once.

use std::sync::{LazyLock, OnceLock};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

/// How many messages each side of a call sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Unary,
    ServerStream,
    BidiStream,
}

impl Kind {
    fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// A gRPC status code as a number from 0 to 16.
pub type Code = usize;

const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// Every method of the wire: service, method, kind.
pub const METHODS: [(&str, &str, Kind); 53] = [
    ("etcdserverpb.KV", "Range", Kind::Unary),
    ("etcdserverpb.KV", "RangeStream", Kind::ServerStream),
    ("etcdserverpb.KV", "Put", Kind::Unary),
    ("etcdserverpb.KV", "DeleteRange", Kind::Unary),
    ("etcdserverpb.KV", "Txn", Kind::Unary),
    ("etcdserverpb.KV", "Compact", Kind::Unary),
    ("etcdserverpb.Watch", "Watch", Kind::BidiStream),
    ("etcdserverpb.Lease", "LeaseGrant", Kind::Unary),
    ("etcdserverpb.Lease", "LeaseRevoke", Kind::Unary),
    ("etcdserverpb.Lease", "LeaseKeepAlive", Kind::BidiStream),
    ("etcdserverpb.Lease", "LeaseTimeToLive", Kind::Unary),
    ("etcdserverpb.Lease", "LeaseLeases", Kind::Unary),
    ("etcdserverpb.Cluster", "MemberAdd", Kind::Unary),
    ("etcdserverpb.Cluster", "MemberRemove", Kind::Unary),
    ("etcdserverpb.Cluster", "MemberUpdate", Kind::Unary),
    ("etcdserverpb.Cluster", "MemberList", Kind::Unary),
    ("etcdserverpb.Cluster", "MemberPromote", Kind::Unary),
    ("etcdserverpb.Maintenance", "Alarm", Kind::Unary),
    ("etcdserverpb.Maintenance", "Status", Kind::Unary),
    ("etcdserverpb.Maintenance", "Defragment", Kind::Unary),
    ("etcdserverpb.Maintenance", "Hash", Kind::Unary),
    ("etcdserverpb.Maintenance", "HashKV", Kind::Unary),
    ("etcdserverpb.Maintenance", "Snapshot", Kind::ServerStream),
    ("etcdserverpb.Maintenance", "MoveLeader", Kind::Unary),
    ("etcdserverpb.Maintenance", "Downgrade", Kind::Unary),
    ("etcdserverpb.Auth", "AuthEnable", Kind::Unary),
    ("etcdserverpb.Auth", "AuthDisable", Kind::Unary),
    ("etcdserverpb.Auth", "AuthStatus", Kind::Unary),
    ("etcdserverpb.Auth", "Authenticate", Kind::Unary),
    ("etcdserverpb.Auth", "UserAdd", Kind::Unary),
    ("etcdserverpb.Auth", "UserGet", Kind::Unary),
    ("etcdserverpb.Auth", "UserList", Kind::Unary),
    ("etcdserverpb.Auth", "UserDelete", Kind::Unary),
    ("etcdserverpb.Auth", "UserChangePassword", Kind::Unary),
    ("etcdserverpb.Auth", "UserGrantRole", Kind::Unary),
    ("etcdserverpb.Auth", "UserRevokeRole", Kind::Unary),
    ("etcdserverpb.Auth", "RoleAdd", Kind::Unary),
    ("etcdserverpb.Auth", "RoleGet", Kind::Unary),
    ("etcdserverpb.Auth", "RoleList", Kind::Unary),
    ("etcdserverpb.Auth", "RoleDelete", Kind::Unary),
    ("etcdserverpb.Auth", "RoleGrantPermission", Kind::Unary),
    ("etcdserverpb.Auth", "RoleRevokePermission", Kind::Unary),
    ("v3lockpb.Lock", "Lock", Kind::Unary),
    ("v3lockpb.Lock", "Unlock", Kind::Unary),
    ("v3electionpb.Election", "Campaign", Kind::Unary),
    ("v3electionpb.Election", "Proclaim", Kind::Unary),
    ("v3electionpb.Election", "Leader", Kind::Unary),
    ("v3electionpb.Election", "Observe", Kind::ServerStream),
    ("v3electionpb.Election", "Resign", Kind::Unary),
    ("rusdpb.Space", "Report", Kind::Unary),
    ("grpc.health.v1.Health", "Check", Kind::Unary),
    ("grpc.health.v1.Health", "List", Kind::Unary),
    ("grpc.health.v1.Health", "Watch", Kind::ServerStream),
];

/// The counters of one method.
pub struct Method {
    pub service: &'static str,
    pub name: &'static str,
    pub kind: Kind,
    pub started: IntCounter,
    pub received: IntCounter,
    pub sent: IntCounter,
    handled: [IntCounter; CODES.len()],
    seconds: OnceLock<Histogram>,
}

impl Method {
    /// Counts the end of a call. `seconds` is kept only with `--metrics=extensive`.
    pub fn handled(&self, code: Code, seconds: f64) {
        self.handled[code.min(CODES.len() - 1)].inc();
        if let Some(histogram) = self.seconds.get() {
            histogram.observe(seconds);
        }
    }
}

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

struct Table {
    started: IntCounterVec,
    handled: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
    methods: Vec<Method>,
}

const LABELS: [&str; 3] = ["grpc_type", "grpc_service", "grpc_method"];

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    #[expect(clippy::expect_used, reason = "names and labels are constants of this file")]
    IntCounterVec::new(Opts::new(name, help), labels).expect("metric definition")
}

impl Table {
    fn new() -> Self {
        let started = counters("grpc_server_started_total", "Calls started.", &LABELS);
        let labels = [LABELS[0], LABELS[1], LABELS[2], "grpc_code"];
        let handled = counters("grpc_server_handled_total", "Calls completed.", &labels);
        let received = counters("grpc_server_msg_received_total", "Messages received.", &LABELS);
        let sent = counters("grpc_server_msg_sent_total", "Messages sent.", &LABELS);
        let methods = METHODS
            .iter()
            .map(|&(service, name, kind)| {
                let labels = [kind.label(), service, name];
                Method {
                    service,
                    name,
                    kind,
                    started: started.with_label_values(&labels),
                    received: received.with_label_values(&labels),
                    sent: sent.with_label_values(&labels),
                    handled: CODES.map(|code| {
                        handled.with_label_values(&[labels[0], labels[1], labels[2], code])
                    }),
                    seconds: OnceLock::new(),
                }
            })
            .collect();
        Self { started, handled, received, sent, methods }
    }
}

pub(super) fn register(registry: &Registry) {
    for family in [&TABLE.started, &TABLE.handled, &TABLE.received, &TABLE.sent] {
        drop(registry.register(Box::new(family.clone())));
    }
}

/// The counters of the method at this place of `METHODS`.
pub fn method(index: usize) -> &'static Method {
    &TABLE.methods[index]
}

/// Adds the latency histograms of `--metrics=extensive`.
pub fn enable_handling_seconds() {
    let options = HistogramOpts::new("grpc_server_handling_seconds", "Time that calls took.");
    let Ok(family) = HistogramVec::new(options, &LABELS) else { return };
    if super::families::registry().register(Box::new(family.clone())).is_err() {
        return;
    }
    for method in &TABLE.methods {
        let labels = [method.kind.label(), method.service, method.name];
        method.seconds.get_or_init(|| family.with_label_values(&labels));
    }
}
