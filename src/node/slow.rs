//! The log line about a request whose apply, or read, took too long: etcd's.

use std::fmt::Display;
use std::time::Duration;

use crate::{go, metrics};

/// Logs and counts a request that took longer than `expected`. `answer` says what is shown of the
/// response, or is the error.
pub fn warn_if_slow(
    prefix: &str,
    took: Duration,
    expected: Duration,
    request: impl FnOnce() -> String,
    answer: Result<impl FnOnce() -> String, impl Display>,
) {
    if took <= expected {
        return;
    }
    metrics::slow_apply().inc();
    let (response, error) = match answer {
        Ok(response) => (response(), None),
        Err(error) => (String::new(), Some(error)),
    };
    tracing::warn!(
        took = go::duration(took),
        "expected-duration" = go::duration(expected),
        prefix,
        request = request(),
        response,
        error = error.as_ref().map(tracing::field::display),
        "apply request took too long"
    );
}
