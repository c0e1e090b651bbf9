//! Log lines in the format of etcd's client, so that scripts that read them keep working.

use serde_json::json;

use crate::go::timestamp;

/// Takes finished log lines, without their newline.
pub trait LogSink: Send + Sync {
    fn line(&self, line: String);
}

/// One failed attempt of a call.
pub(super) struct FailedAttempt<'a> {
    pub unix_nanos: u64,
    pub logger: &'a str,
    pub target: &'a str,
    pub peer: &'a str,
    pub method: &'a str,
    pub attempt: u32,
    pub error: &'a str,
}

impl FailedAttempt<'_> {
    pub(super) fn line(&self) -> String {
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

/// The line for a call that waits for an endpoint without a deadline.
pub(super) struct WaitingLine<'a> {
    pub unix_nanos: u64,
    pub logger: &'a str,
    pub target: &'a str,
    pub error: &'a str,
}

impl WaitingLine<'_> {
    pub(super) fn line(&self) -> String {
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
