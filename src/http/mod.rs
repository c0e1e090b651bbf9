//! What the client port answers over HTTP/1.1 and the metrics port over both versions (health,
//! version, metrics, variables), and what members ask each other over the peer port, except below
//! `/raft`.
//!
//! ```text
//!   host allowed? ─► CORS headers ─► OPTIONS? ─► path ─► text or JSON
//! ```
//!
//! Answers are small and whole; only the peer port reads a request's body. The probes ask the node
//! the same way as a client does, so a member that cannot read is not healthy, and one without a
//! leader is live but not ready.

mod form;
mod health;
mod peer;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CONNECTION, CONTENT_TYPE, HOST, HeaderValue, LOCATION, ORIGIN, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body_util::Full;
use tokio::sync::Semaphore;

use crate::node::Node;
use crate::{limits, metrics};

pub use form::{canonicalize, is_host, is_unclean, refused_by_form, refused_expectation};

pub type Answer = Response<Full<Bytes>>;

/// The part of the configuration that the handlers use.
#[derive(Clone, Debug)]
pub struct Config {
    /// Origins that browsers may come from; `*` is any.
    pub origins: Vec<String>,
    /// Host names that requests without TLS may be addressed to; `*`, or none, is any.
    pub hosts: Vec<String>,
    /// How long a health check waits for a read.
    pub request_timeout: Duration,
    pub command_line: Vec<String>,
}

pub struct Http {
    node: Node,
    config: Config,
    /// One permit for each scrape that is being written.
    scrapes: Semaphore,
}

/// The kinds of ports, which answer different paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    Client,
    /// Metrics and health only.
    Metrics,
    /// What members ask each other, except below `/raft`.
    Peer,
}

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const METRICS: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");

impl Http {
    pub fn new(node: Node, config: Config) -> Arc<Self> {
        Arc::new(Self { node, config, scrapes: Semaphore::new(limits::SCRAPES_MAX) })
    }

    /// Answers a request by its head. `is_secured` says whether it came over TLS.
    pub async fn answer(&self, port: Port, is_secured: bool, parts: &Parts) -> Answer {
        if parts.uri.path() == "*" && parts.method == Method::OPTIONS {
            return Answer::default();
        }
        match port {
            Port::Client => {}
            Port::Metrics | Port::Peer => return self.route(port, parts).await,
        }
        if let Some(refusal) = self.refuse(is_secured, parts) {
            return refusal;
        }
        let mut answer = if parts.method == Method::OPTIONS {
            Answer::default()
        } else {
            self.route(port, parts).await
        };
        answer.headers_mut().extend(self.origins(&parts.headers));
        answer
    }

    async fn route(&self, port: Port, parts: &Parts) -> Answer {
        let path = parts.uri.path();
        let get = parts.method == Method::GET;
        if path == "*" {
            let mut answer = Answer::default();
            *answer.status_mut() = StatusCode::BAD_REQUEST;
            if parts.version <= Version::HTTP_11 {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return answer;
        }
        if port != Port::Peer
            && parts.method != Method::CONNECT
            && let Some(clean) = form::cleaned(path)
        {
            return redirect(parts, &clean);
        }
        match path {
            "/metrics" => return self.metrics().await,
            "/version" | "/debug/vars" if port == Port::Client => {
                return match (get, path) {
                    (false, _) => not_allowed(),
                    (true, "/version") => self.version(),
                    (true, _) => self.variables(),
                };
            }
            _ => {}
        }
        if let Some(check) = health::Check::of(path) {
            return if get { self.health(check, parts).await } else { not_allowed() };
        }
        error(StatusCode::NOT_FOUND, "404 page not found")
    }

    /// Refuses a request for a host that is not this one. A page that a browser loaded from another
    /// site must not reach this server through a name that its author points here (DNS rebinding).
    /// TLS needs no such list: the browser compares the name with the certificate.
    pub fn refuse(&self, is_secured: bool, parts: &Parts) -> Option<Answer> {
        let hosts = &self.config.hosts;
        if is_secured || hosts.is_empty() || hosts.iter().any(|host| host == "*") {
            return None;
        }
        let of_uri = parts.uri.authority().map(Authority::as_str);
        let of_header = || parts.headers.get(HOST).and_then(|host| host.to_str().ok());
        let name = host_name(of_uri.or_else(of_header).unwrap_or(""));
        if hosts.iter().any(|host| host == name) {
            return None;
        }
        tracing::warn!(host = name, "rejecting HTTP request to prevent DNS rebinding attacks");
        Some(error(
            StatusCode::MISDIRECTED_REQUEST,
            &format!(
                "\netcd received your request, but the Host header was unrecognized.\n\n\
                 To fix this, choose one of the following options:\n\
                 - Enable TLS, then any HTTPS request will be allowed.\n\
                 - Add the hostname you want to use to the whitelist in settings.\n  \
                 - e.g. etcd --host-whitelist {name:?}\n\n\
                 This requirement has been added to help prevent \"DNS Rebinding\" attacks \
                 (CVE-2018-5702).\n"
            ),
        ))
    }

    /// The headers that let pages of other sites read the answer, if they may.
    pub fn origins(&self, headers: &HeaderMap) -> HeaderMap {
        let origins = &self.config.origins;
        let origin = if origins.is_empty() || origins.iter().any(|origin| origin == "*") {
            HeaderValue::from_static("*")
        } else {
            match headers.get(ORIGIN) {
                Some(origin)
                    if origins.iter().any(|known| known.as_bytes() == origin.as_bytes()) =>
                {
                    origin.clone()
                }
                _ => return HeaderMap::new(),
            }
        };
        let methods = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE");
        let allowed = HeaderValue::from_static("accept, content-type, authorization");
        [
            (ACCESS_CONTROL_ALLOW_METHODS, methods),
            (ACCESS_CONTROL_ALLOW_ORIGIN, origin),
            (ACCESS_CONTROL_ALLOW_HEADERS, allowed),
        ]
        .into_iter()
        .collect()
    }

    fn version(&self) -> Answer {
        let status = self.node.status();
        let known = |version: &str, otherwise: &str| {
            if version.is_empty() { otherwise.to_owned() } else { version.to_owned() }
        };
        let text = format!(
            r#"{{"etcdserver":"{}","etcdcluster":"{}","storage":"{}"}}"#,
            status.version,
            known(&status.cluster_version, "not_decided"),
            known(&status.storage_version, "unknown"),
        );
        typed(StatusCode::OK, JSON, &text)
    }

    /// The metrics as text. Those that only the node knows are brought up to date first.
    async fn metrics(&self) -> Answer {
        let _turn = self.scrapes.acquire().await;
        // A client that asks again and again without a pause does not go before all others.
        tokio::task::yield_now().await;
        self.node.refresh_metrics();
        typed(StatusCode::OK, METRICS, &metrics::render())
    }

    fn variables(&self) -> Answer {
        let status = self.node.status();
        let header = self.node.header();
        let state = if status.leader == header.member_id { "StateLeader" } else { "StateFollower" };
        let limit = descriptor_limit();
        let text = format!(
            "{{\n\"cmdline\": {},\n\"file_descriptor_limit\": {limit},\n\"raft.status\": \
             {{\"id\":\"{:x}\",\"term\":{},\"commit\":{},\"applied\":{},\"lead\":\"{:x}\",\
             \"raftState\":\"{state}\"}}\n}}\n",
            serde_json::to_string(&self.config.command_line).unwrap_or_default(),
            header.member_id,
            status.raft_term,
            status.raft_index,
            status.raft_applied_index,
            status.leader,
        );
        typed(StatusCode::OK, HeaderValue::from_static("application/json; charset=utf-8"), &text)
    }
}

/// The soft limit of open files, which is never above the hard one.
fn descriptor_limit() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.unwrap_or(u64::MAX)
}

/// The name in a Host header, without the port.
fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    }
}

fn typed(status: StatusCode, content_type: HeaderValue, text: &str) -> Answer {
    let mut answer = Answer::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}

/// An error as Go's `http.Error` writes it: plain text, a newline, no guessing of types.
pub fn error(status: StatusCode, text: &str) -> Answer {
    let mut answer = typed(status, TEXT, &format!("{text}\n"));
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// The answer to a call on a connection on which too many calls wait.
pub fn overloaded() -> Answer {
    error(StatusCode::SERVICE_UNAVAILABLE, "too many requests")
}

/// Redirects to the cleaned path, as Go's server does, which escapes it once more.
fn redirect(parts: &Parts, path: &str) -> Answer {
    let path = path.replace('%', "%25");
    let query = parts.uri.query().map_or(String::new(), |query| format!("?{query}"));
    let place = format!("{path}{query}");
    let escaped = place.replace('&', "&amp;").replace('"', "&#34;").replace('\'', "&#39;");
    let text = format!("<a href=\"{escaped}\">Temporary Redirect</a>.\n\n");
    let mut answer = match parts.method {
        Method::GET => typed(StatusCode::TEMPORARY_REDIRECT, HTML, &text),
        Method::HEAD => typed(StatusCode::TEMPORARY_REDIRECT, HTML, ""),
        _ => Answer::default(),
    };
    *answer.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    if let Ok(place) = HeaderValue::from_str(&place) {
        answer.headers_mut().insert(LOCATION, place);
    }
    answer
}

fn not_allowed() -> Answer {
    let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    answer
}
