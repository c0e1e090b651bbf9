//! The spans of calls, with the names and attributes of etcd's instrumentation of gRPC (otelgrpc
//! 0.68).

use std::sync::Arc;

use http::request::Parts;
use tonic::{Code, Status};

use crate::metrics::Method;
use crate::pb::{RangeRequest, WatchCreateRequest};
use crate::trace::{Attributes, Span, Tracer};

/// Extension of a request: the address at which its connection was accepted. `server` adds it where
/// calls are traced.
#[derive(Clone, Debug)]
pub struct LocalAddress {
    /// A path for a unix socket.
    pub host: Arc<str>,
    pub port: Option<u16>,
}

/// Begins the span of a call. The client's metadata may name its parent.
pub(super) fn begin(tracer: &Tracer, parts: &Parts, method: &Method) -> Span {
    let name = || format!("{}/{}", method.service, method.name);
    tracer.call(&parts.headers, name, || {
        let method = name();
        let mut attributes: Attributes =
            vec![("rpc.method", method.as_str().into()), ("rpc.system.name", "grpc".into())];
        if let Some(LocalAddress { host, port }) = parts.extensions.get() {
            attributes.push(("server.address", (**host).into()));
            attributes.extend(port.map(|port| ("server.port", i64::from(port).into())));
        }
        attributes
    })
}

/// Ends the span of a call with its status. Those for which the server is to blame are errors.
pub(super) fn end(span: Span, code: Code, message: impl FnOnce() -> String) {
    if !span.context().is_recorded() {
        return;
    }
    span.set("rpc.response.status_code", || name(code).into());
    if matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    ) {
        span.fail(&message());
    }
}

pub(super) fn end_with(span: Span, status: &Status) {
    end(span, status.code(), || status.message().to_owned());
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// The attributes of a watcher of these keys.
pub(super) fn of_watcher(key: &[u8], end: &[u8], watcher: &WatchCreateRequest) -> Attributes {
    // A lone zero byte stands for all keys from `key` on, which etcd notes as no end.
    let end = if end == [0] { &[] } else { end };
    vec![
        ("key", key.into()),
        ("range_end", end.into()),
        ("start_rev", watcher.start_revision.into()),
        ("progress_notify", watcher.progress_notify.into()),
        ("prev_kv", watcher.prev_kv.into()),
        ("fragment", watcher.fragment.into()),
    ]
}

/// The attributes of a range that is answered in chunks.
pub(super) fn of_stream(range: &RangeRequest) -> Attributes {
    vec![
        ("range_begin", (&*range.key).into()),
        ("range_end", (&*range.range_end).into()),
        ("rev", range.revision.into()),
        ("limit", range.limit.into()),
        ("count_only", range.count_only.into()),
    ]
}
