//! What a client tells while it works: log lines in the format of etcd's client, so that scripts
//! that read them keep working, and the same in plain words.

use std::time::Duration;

use serde_json::json;

use super::reach::{Unreached, listed};
use crate::go::{self, timestamp};

/// Takes what a client tells.
pub trait LogSink: Send + Sync {
    fn event(&self, event: &Event<'_>);
}

/// What happened to a client's calls.
pub enum Event<'a> {
    Attempt(FailedAttempt<'a>),
    /// A call waits for an endpoint without a deadline.
    NoEndpoint(NoEndpoint<'a>),
    /// No endpoint is there yet; for how long the client waits for one.
    Waiting(&'a [Unreached], Duration),
    /// The connection is lost, and no endpoint is there any more. The client waits without an end.
    Lost(&'a [Unreached]),
    /// An endpoint is there again.
    Back(&'a str),
}

/// One failed attempt of a call.
pub struct FailedAttempt<'a> {
    pub(super) unix_nanos: u64,
    pub(super) logger: &'a str,
    pub(super) target: &'a str,
    pub(super) peer: &'a str,
    pub(super) method: &'a str,
    pub(super) attempt: u32,
    pub(super) error: &'a str,
}

/// A call that waits for an endpoint.
pub struct NoEndpoint<'a> {
    pub(super) unix_nanos: u64,
    pub(super) logger: &'a str,
    pub(super) target: &'a str,
    pub(super) error: &'a str,
}

impl Event<'_> {
    /// The line of etcd's client, without its newline; None for what it does not log.
    pub fn json(&self) -> Option<String> {
        match self {
            Self::Attempt(attempt) => Some(attempt.line()),
            Self::NoEndpoint(waiting) => Some(waiting.line()),
            Self::Waiting(..) | Self::Lost(_) | Self::Back(_) => None,
        }
    }

    /// The same in plain words.
    pub fn words(&self) -> String {
        match self {
            Self::Attempt(it) => {
                let (method, attempt) = (it.method, it.attempt + 1);
                let error = it.error.split_once("desc = ").map_or(it.error, |(_, why)| why);
                format!("attempt {attempt} of the call {method} failed: {error}")
            }
            Self::NoEndpoint(it) => format!("no endpoint answers; waiting for one: {}", it.error),
            Self::Waiting(all, time) => {
                format!("waiting up to {} for a server: {}", go::duration(*time), listed(all))
            }
            Self::Lost(all) => {
                format!("connection lost; waiting until a server is back: {}", listed(all))
            }
            Self::Back(endpoint) => format!("connected again: {endpoint}"),
        }
    }
}

impl FailedAttempt<'_> {
    fn line(&self) -> String {
        let text = |value: &str| json!(value).to_string();
        format!(
            "{{\"level\":\"warn\",\"ts\":\"{}\",\"logger\":\"{}\",\
             \"caller\":\"v3/retry_interceptor.go:68\",\
             \"msg\":\"retrying of unary invoker failed\",\"target\":{},\"peer\":{},\
             \"method\":{},\"attempt\":{},\"error\":{}}}",
            timestamp(self.unix_nanos),
            self.logger,
            text(self.target),
            text(self.peer),
            text(self.method),
            self.attempt,
            text(self.error),
        )
    }
}

impl NoEndpoint<'_> {
    fn line(&self) -> String {
        let text = |value: &str| json!(value).to_string();
        format!(
            "{{\"level\":\"warn\",\"ts\":\"{}\",\"logger\":\"{}\",\
             \"msg\":\"no endpoint answers; waiting until one does\",\"target\":{},\"error\":{}}}",
            timestamp(self.unix_nanos),
            self.logger,
            text(self.target),
            text(self.error),
        )
    }
}
