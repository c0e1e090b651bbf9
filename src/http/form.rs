//! HTTP/1.1 requests that Go's server refuses by their form, before it looks at the path: the host
//! that they are for, or where they end, is unclear. And paths that Go's server redirects to a
//! cleaner form.

use http::header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version};
use hyper::ext::ReasonPhrase;

use super::{Answer, Port, TEXT, typed};

/// The answer to a request that cannot be served as it is, after which the connection ends; None if
/// the request can be served.
pub fn refused_by_form<B>(port: Port, request: &Request<B>) -> Option<Answer> {
    let (headers, version) = (request.headers(), request.version());
    let bad = StatusCode::BAD_REQUEST;
    let hosts = headers.get_all(HOST).iter().count();
    if hosts > 1 {
        return Some(refusal(bad, "400 Bad Request", None));
    }
    if version >= Version::HTTP_11 && is_encoded(headers) {
        return Some(refusal(StatusCode::NOT_IMPLEMENTED, "Unsupported transfer encoding", None));
    }
    if version >= Version::HTTP_11 && hosts == 0 && request.method() != Method::CONNECT {
        let reason = "Bad Request: missing required Host header";
        return Some(refusal(bad, &format!("400 {reason}"), Some(reason)));
    }
    // Not on the peer port: members may name each other by what Go does not take for a host, such
    // as one with a user before it.
    if port != Port::Peer && !headers.get(HOST).is_none_or(is_host) {
        let reason = "Bad Request: malformed Host header";
        return Some(refusal(bad, &format!("400 {reason}"), Some(reason)));
    }
    if expects_more(headers) {
        let mut answer = Answer::default();
        *answer.status_mut() = StatusCode::EXPECTATION_FAILED;
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Some(answer);
    }
    None
}

/// Whether `Expect` names something, and not `100-continue`.
fn expects_more(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|value| {
        let mut words = value.as_bytes().split(|byte| b" \t,".contains(byte));
        !value.is_empty() && !words.any(|word| word.eq_ignore_ascii_case(b"100-continue"))
    })
}

/// Whether a request for the path is redirected to a cleaner form.
pub fn is_unclean(path: &str) -> bool {
    cleaned(path).is_some()
}

/// The path without empty steps and dots; None if it has none of them.
pub(super) fn cleaned(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return None;
    }
    let mut steps: Vec<&str> = Vec::new();
    for step in path.split('/') {
        match step {
            "" | "." => {}
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    let end = if path.ends_with('/') && !steps.is_empty() { "/" } else { "" };
    let clean = format!("/{}{end}", steps.join("/"));
    (clean != path).then_some(clean)
}

/// Whether `Transfer-Encoding` is anything but `chunked` alone.
fn is_encoded(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    match (encodings.next(), encodings.next()) {
        (None, _) => false,
        (Some(only), None) => !only.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => true,
    }
}

/// Whether the value has only bytes that occur in a host and port (RFC 3986), in any order.
fn is_host(value: &HeaderValue) -> bool {
    let may_be = |byte: &u8| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(byte);
    value.as_bytes().iter().all(may_be)
}

fn refusal(status: StatusCode, text: &str, reason: Option<&'static str>) -> Answer {
    let mut answer = typed(status, TEXT, text);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(reason) = reason {
        answer.extensions_mut().insert(ReasonPhrase::from_static(reason.as_bytes()));
    }
    answer
}
