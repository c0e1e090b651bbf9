//! HTTP/1.1 requests that Go's server refuses by their form, before it looks at the path: the host
//! that they are for, or where they end, is unclear. Paths that Go's server redirects to a cleaner
//! form, and paths that are another way to write those that are served.

use std::fmt::Write as _;

use http::header::{CONNECTION, EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};
use hyper::ext::ReasonPhrase;

use super::{Answer, TEXT, typed};

/// The answer to a member's request that cannot be served as it is, after which the connection
/// ends; None if the request can be served. Members may name each other by what Go does not take
/// for a host, such as one with a user before it.
pub fn refused_by_form<B>(request: &Request<B>) -> Option<Answer> {
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
    refused_expectation(headers)
}

/// The answer to a request with an expectation that nobody can fulfil.
pub fn refused_expectation(headers: &HeaderMap) -> Option<Answer> {
    if !expects_more(headers) {
        return None;
    }
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::EXPECTATION_FAILED;
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Some(answer)
}

/// Gives a request the path by which it is served, if it writes it in another way.
pub fn canonicalize<B>(request: &mut Request<B>, has_gateway: bool) {
    let path = request.uri().path();
    if !path.contains('%') && !path.starts_with("/v3beta/") && path != "/v3" {
        return;
    }
    let Some(path) = canonical(path, has_gateway) else { return };
    let mut parts = request.uri().clone().into_parts();
    let query = request.uri().query().map_or(String::new(), |query| format!("?{query}"));
    let Ok(place) = PathAndQuery::try_from(format!("{path}{query}")) else { return };
    parts.path_and_query = Some(place);
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
}

/// Go's multiplexer compares the steps of a path one by one, without their escapes, and redirects
/// by the path with its escapes. grpc-gateway takes the path apart when all escapes are gone, and
/// etcd puts the newer prefix into the place of the older one before both.
fn canonical(path: &str, has_gateway: bool) -> Option<String> {
    if path == "/v3" {
        // An empty step leads to the redirect to the gateway's root.
        return has_gateway.then(|| "/v3//".to_owned());
    }
    let mut plain = unescaped(path);
    let of_older = plain.strip_prefix(b"/v3beta/").map(|rest| [b"/v3/", rest].concat());
    let is_older = of_older.is_some();
    if let Some(path) = of_older {
        plain = path;
    }
    let path = if is_older { escaped(&plain, false) } else { path.to_owned() };
    if is_unclean(&path) {
        return is_older.then_some(path);
    }
    let mut steps = path.split('/').skip(1);
    if steps.next().is_some_and(|step| unescaped(step) == b"v3") && steps.next().is_some() {
        let served = escaped(&plain, false);
        // No call has an empty step, and the gateway redirects nobody.
        return Some(match is_unclean(&served) {
            true => format!("/v3/{}", escaped(&plain[4..], true)),
            false => served,
        });
    }
    let hides_step = |step: &str| unescaped(step).contains(&b'/');
    let served = escaped(&plain, false);
    (!path.split('/').any(hides_step) && !is_unclean(&served)).then_some(served)
}

/// The bytes that a path stands for.
fn unescaped(path: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, behind @ ..] = rest {
        match (digit(behind.first()), digit(behind.get(1))) {
            (Some(high), Some(low)) if *first == b'%' => {
                out.push((high << 4 | low) as u8);
                rest = &behind[2..];
            }
            _ => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    out
}

/// The bytes as a path; `as_step`: as one that is no call's, whatever they are.
fn escaped(bytes: &[u8], as_step: bool) -> String {
    let may_be = |byte: u8| {
        byte.is_ascii_alphanumeric()
            || b"-_~$&+,:;=@!'()*".contains(&byte)
            || !as_step && matches!(byte, b'/' | b'.')
    };
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        match may_be(*byte) {
            true => out.push(char::from(*byte)),
            false => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
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
pub fn is_host(value: &[u8]) -> bool {
    let may_be = |byte: &u8| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(byte);
    value.iter().all(may_be)
}

fn refusal(status: StatusCode, text: &str, reason: Option<&'static str>) -> Answer {
    let mut answer = typed(status, TEXT, text);
    answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    if let Some(reason) = reason {
        answer.extensions_mut().insert(ReasonPhrase::from_static(reason.as_bytes()));
    }
    answer
}
