//! Spans in OpenTelemetry's protocol (OTLP 1.x): the messages of its trace service that are used
//! here, and what is said in them.

use prost::Message;
use prost::bytes::Bytes;

use super::config::Tracing;
use crate::trace::{Attributes, Ended, Event, Kind, Value};

/// The path of the one call.
pub(super) const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// The names by which a collector tells the spans of calls from the others: those that etcd's have.
const OF_CALLS: (&str, &str) =
    ("go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc", "0.68.0");
const OF_STEPS: (&str, &str) = ("go.etcd.io/etcd", "");

const KIND_INTERNAL: i32 = 1;
const KIND_SERVER: i32 = 2;
const STATUS_ERROR: i32 = 2;
/// The flag that says that the next one is meant, and that one: the parent is elsewhere. As in etcd
/// every call has it, also one without a parent.
const KNOWS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
    #[prost(bytes = "bytes", tag = "1")]
    trace_id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    span_id: Bytes,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "bytes", tag = "4")]
    parent_span_id: Bytes,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "11")]
    events: Vec<SpanEvent>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
struct SpanEvent {
    #[prost(fixed64, tag = "1")]
    time_unix_nano: u64,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "3")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 2, 3")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
}

/// What all spans of this member have in common.
pub(super) fn resource(settings: &Tracing) -> Resource {
    let mut attributes = vec![("service.name", settings.service_name.as_str().into())];
    if !settings.instance_id.is_empty() {
        attributes.push(("service.instance.id", settings.instance_id.as_str().into()));
    }
    Resource { attributes: key_values(attributes) }
}

/// The request with these spans.
pub(super) fn request(resource: &Resource, spans: Vec<Ended>) -> ExportRequest {
    let (of_calls, of_steps): (Vec<_>, Vec<_>) =
        spans.into_iter().partition(|span| span.kind == Kind::Server);
    let scope_spans = [(OF_STEPS, of_steps), (OF_CALLS, of_calls)]
        .into_iter()
        .filter(|(_, spans)| !spans.is_empty())
        .map(|((name, version), spans)| ScopeSpans {
            scope: Some(Scope { name: name.to_owned(), version: version.to_owned() }),
            spans: spans.into_iter().map(span).collect(),
        })
        .collect();
    let resource = Some(resource.clone());
    ExportRequest { resource_spans: vec![ResourceSpans { resource, scope_spans }] }
}

fn span(span: Ended) -> Span {
    let (kind, remote) = match span.kind {
        Kind::Internal => (KIND_INTERNAL, 0),
        Kind::Server => (KIND_SERVER, IS_REMOTE),
    };
    let status = match span.error {
        Some(message) => Status { message, code: STATUS_ERROR },
        None => Status::default(),
    };
    Span {
        trace_id: Bytes::copy_from_slice(&span.trace_id),
        span_id: Bytes::copy_from_slice(&span.span_id),
        trace_state: span.trace_state.as_ref().to_owned(),
        parent_span_id: span.parent_id.map_or(Bytes::new(), |id| Bytes::copy_from_slice(&id)),
        name: span.name.into_owned(),
        kind,
        start_time_unix_nano: span.started,
        end_time_unix_nano: span.ended,
        attributes: key_values(span.attributes),
        events: span.events.into_iter().map(event).collect(),
        status: Some(status),
        flags: u32::from(span.flags) | KNOWS_IS_REMOTE | remote,
    }
}

fn event(event: Event) -> SpanEvent {
    let attributes = key_values(event.attributes);
    SpanEvent { time_unix_nano: event.at, name: event.name.to_owned(), attributes }
}

fn key_values(attributes: Attributes) -> Vec<KeyValue> {
    let pairs = attributes.into_iter().map(|(key, value)| {
        let value = match value {
            Value::Text(text) => Any::Text(text),
            Value::Bool(value) => Any::Bool(value),
            Value::Int(value) => Any::Int(value),
        };
        KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
    });
    pairs.collect()
}
