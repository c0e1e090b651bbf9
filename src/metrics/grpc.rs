//! The grpc_server_* families: four counters for each method, whose labels are resolved once. `rpc`
//! has the table of methods.

use std::sync::{LazyLock, OnceLock};

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, Registry,
};

use crate::go::GRPC_CODES;

/// The shape of a call, as the label `grpc_type` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallKind {
    Unary,
    ServerStream,
    BidiStream,
}

impl CallKind {
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

/// The counters of one method.
pub struct Method {
    pub service: &'static str,
    pub name: &'static str,
    pub kind: CallKind,
    pub started: IntCounter,
    pub received: IntCounter,
    pub sent: IntCounter,
    handled: [IntCounter; GRPC_CODES.len()],
    seconds: OnceLock<Histogram>,
}

impl Method {
    /// Registers the series of a method, so that they are exported as zeroes before the first call.
    pub fn new(service: &'static str, name: &'static str, kind: CallKind) -> Self {
        let labels = [kind.label(), service, name];
        let handled =
            |code| FAMILIES.handled.with_label_values(&[labels[0], labels[1], labels[2], code]);
        Self {
            service,
            name,
            kind,
            started: FAMILIES.started.with_label_values(&labels),
            received: FAMILIES.received.with_label_values(&labels),
            sent: FAMILIES.sent.with_label_values(&labels),
            handled: GRPC_CODES.map(handled),
            seconds: OnceLock::new(),
        }
    }

    /// Counts the end of a call. `seconds` is recorded with `--metrics=extensive` only.
    pub fn handled(&self, code: Code, seconds: f64) {
        self.handled[code.min(GRPC_CODES.len() - 1)].inc();
        if let Some(histogram) = self.seconds.get() {
            histogram.observe(seconds);
        }
    }
}

static FAMILIES: LazyLock<Families> = LazyLock::new(Families::new);

struct Families {
    started: IntCounterVec,
    handled: IntCounterVec,
    received: IntCounterVec,
    sent: IntCounterVec,
}

const LABELS: [&str; 3] = ["grpc_type", "grpc_service", "grpc_method"];

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    #[expect(clippy::expect_used, reason = "names and labels are constants of this file")]
    IntCounterVec::new(Opts::new(name, help), labels).expect("metric definition")
}

impl Families {
    fn new() -> Self {
        let started = counters("grpc_server_started_total", "Calls started.", &LABELS);
        let labels = [LABELS[0], LABELS[1], LABELS[2], "grpc_code"];
        let handled = counters("grpc_server_handled_total", "Calls completed.", &labels);
        let received = counters("grpc_server_msg_received_total", "Messages received.", &LABELS);
        let sent = counters("grpc_server_msg_sent_total", "Messages sent.", &LABELS);
        Self { started, handled, received, sent }
    }
}

pub(super) fn register(registry: &Registry) {
    for family in [&FAMILIES.started, &FAMILIES.handled, &FAMILIES.received, &FAMILIES.sent] {
        drop(registry.register(Box::new(family.clone())));
    }
}

/// Adds the latency histograms of `--metrics=extensive`.
pub fn enable_handling_seconds<'a>(methods: impl Iterator<Item = &'a Method>) {
    let options = HistogramOpts::new("grpc_server_handling_seconds", "Time that calls took.");
    let Ok(family) = HistogramVec::new(options, &LABELS) else { return };
    if super::REGISTRY.register(Box::new(family.clone())).is_err() {
        return;
    }
    for method in methods {
        let labels = [method.kind.label(), method.service, method.name];
        method.seconds.get_or_init(|| family.with_label_values(&labels));
    }
}
