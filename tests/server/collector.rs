//! A collector of OpenTelemetry: the trace service of OTLP, with messages of its own, so that a
//! wrong tag on either side shows.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use prost::Message;
use tokio::net::TcpListener;

#[derive(Clone, PartialEq, Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, required, tag = "1")]
    resource: Resource,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, required, tag = "1")]
    scope: Scope,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(uint32, tag = "6")]
    pub kind: u32,
    #[prost(fixed64, tag = "7")]
    pub start: u64,
    #[prost(fixed64, tag = "8")]
    pub end: u64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<Attribute>,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Event {
    #[prost(fixed64, tag = "1")]
    pub at: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, repeated, tag = "3")]
    pub attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(uint32, tag = "3")]
    pub code: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, required, tag = "2")]
    pub value: Value,
}

#[derive(Clone, PartialEq, Message)]
pub struct Value {
    #[prost(string, optional, tag = "1")]
    pub text: Option<String>,
    #[prost(bool, optional, tag = "2")]
    pub flag: Option<bool>,
    #[prost(int64, optional, tag = "3")]
    pub number: Option<i64>,
}

/// A span, and what it came with.
#[derive(Clone)]
pub struct Seen {
    pub resource: String,
    pub scope: String,
    pub span: Span,
}

/// A server on a port of its own that lives as long as the test's runtime.
pub struct Collector {
    pub address: String,
    spans: Arc<Mutex<Vec<Seen>>>,
}

impl Collector {
    /// One that answers.
    pub async fn start() -> Self {
        Self::listen(true).await
    }

    /// One that takes calls and answers none.
    pub async fn mute() -> Self {
        Self::listen(false).await
    }

    async fn listen(answers: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let spans: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let seen = Arc::clone(&spans);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                let service =
                    service_fn(move |request| answer(request, Arc::clone(&seen), answers));
                let connection = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { address, spans }
    }

    /// All spans so far, by trace.
    pub fn traces(&self) -> BTreeMap<u128, Vec<Seen>> {
        let mut traces: BTreeMap<_, Vec<Seen>> = BTreeMap::new();
        for seen in self.spans.lock().iter() {
            let id: [u8; 16] = seen.span.trace_id[..].try_into().unwrap();
            traces.entry(u128::from_be_bytes(id)).or_default().push(seen.clone());
        }
        traces
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    answers: bool,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
    assert_eq!((request.uri().path(), request.method().as_str()), (PATH, "POST"));
    let mut body = request.into_body().collect().await.unwrap().to_bytes();
    assert_eq!((body.get_u8(), body.get_u32() as usize), (0, body.len()));
    for ResourceSpans { resource, scopes } in Export::decode(body).unwrap().resources {
        for ScopeSpans { scope, spans } in scopes {
            let resource = shown(&resource.attributes);
            seen.lock().extend(spans.into_iter().map(|span| Seen {
                resource: resource.clone(),
                scope: scope.name.clone(),
                span,
            }));
        }
    }
    if !answers {
        std::future::pending::<()>().await;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let message = Frame::data(Bytes::from_static(&[0; 5]));
    let frames = futures_util::stream::iter([Ok(message), Ok(Frame::trailers(trailers))]);
    let response = Response::builder().header("content-type", "application/grpc");
    let body = match answers {
        true => BodyExt::boxed(StreamBody::new(frames)),
        false => BodyExt::boxed(Empty::new()),
    };
    Ok(response.body(body).unwrap())
}

/// Attributes as a text, by name.
pub fn shown(attributes: &[Attribute]) -> String {
    let mut pairs: Vec<String> = attributes
        .iter()
        .map(|Attribute { key, value }| match value {
            Value { text: Some(text), .. } => format!("{key}={text:?}"),
            Value { flag: Some(flag), .. } => format!("{key}={flag}"),
            Value { number, .. } => format!("{key}={}", number.unwrap()),
        })
        .collect();
    pairs.sort();
    pairs.join(" ")
}
