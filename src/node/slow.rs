//! The log line about a request whose apply, or read, took too long: etcd's.

use std::fmt::Display;
use std::time::Duration;

use crate::{go, metrics};

/// Logs and counts a request that took longer than `expected`. `answer` is the size of the response
/// in bytes, if there is one, or the error.
pub fn warn_if_slow(
    prefix: &str,
    took: Duration,
    expected: Duration,
    request: impl FnOnce() -> String,
    answer: Result<Option<usize>, impl Display>,
) {
    if took <= expected {
        return;
    }
    metrics::slow_apply().inc();
    let (size, error) = match answer {
        Ok(size) => (size, None),
        Err(error) => (None, Some(error)),
    };
    tracing::warn!(
        took = go::duration(took),
        "expected-duration" = go::duration(expected),
        prefix,
        request = request(),
        response = size.map(|size| format!("size:{size}")).unwrap_or_default(),
        error = error.as_ref().map(tracing::field::display),
        "apply request took too long"
    );
}
