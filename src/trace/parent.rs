//! The parent of a span, and its form in a call's metadata: W3C Trace Context.

use std::collections::BTreeSet;
use std::sync::Arc;

use http::HeaderMap;

use super::{SpanId, TraceId};
use crate::limits;

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// The flags that are defined: the trace is recorded, and its id is random.
const FLAGS: u8 = 3;
/// The most members of a `tracestate`, and the longest value of one.
const MEMBERS_MAX: usize = 32;
const VALUE_BYTES_MAX: usize = 256;

/// The place in a trace under which a span begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace_id: TraceId,
    /// None for the first span of a trace.
    pub(super) span_id: Option<SpanId>,
    pub(super) flags: u8,
    pub(super) trace_state: Arc<str>,
}

impl Default for Parent {
    fn default() -> Self {
        let (trace_id, trace_state) = (TraceId::default(), Arc::default());
        Self { trace_id, span_id: None, flags: 0, trace_state }
    }
}

/// The parent that a call's metadata names; None if there is none, or if it cannot be read. The
/// first of several values counts.
pub(super) fn of_metadata(metadata: &HeaderMap) -> Option<Parent> {
    let stated = metadata.get(TRACEPARENT)?.to_str().ok()?;
    let (version, rest) = stated.split_once('-')?;
    let [version] = bytes(version)?;
    let (trace_id, rest) = rest.split_once('-')?;
    let (span_id, rest) = rest.split_once('-')?;
    let (flags, more) = rest.split_once('-').unwrap_or((rest, ""));
    let (trace_id, span_id): (TraceId, SpanId) = (bytes(trace_id)?, bytes(span_id)?);
    let [flags] = bytes(flags)?;
    // A later version may add to the text and to the flags, the first one has no more.
    let is_known = version != u8::MAX && (version > 0 || (more.is_empty() && flags <= FLAGS));
    if !is_known || trace_id == TraceId::default() || span_id == SpanId::default() {
        return None;
    }
    let trace_state = metadata.get(TRACESTATE).and_then(|text| trace_state(text.to_str().ok()?));
    Some(Parent {
        trace_id,
        span_id: Some(span_id),
        flags: flags & FLAGS,
        trace_state: trace_state.unwrap_or_default().into(),
    })
}

/// So many bytes in lower case hexadecimal.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

/// A `tracestate` without the space around its members. None if a member is malformed or there are
/// too many, or too long ones: the trace then goes on without it.
fn trace_state(text: &str) -> Option<String> {
    if text.len() > limits::TRACE_TEXT_BYTES_MAX {
        return None;
    }
    let (mut members, mut keys) = (Vec::new(), BTreeSet::new());
    for member in text.split(',').filter(|member| !member.is_empty()) {
        let (key, value) = member.split_once('=')?;
        let key = key.trim_start_matches([' ', '\t']);
        let value = value.trim_end_matches([' ', '\t']);
        if !is_key(key) || !is_value(value) || !keys.insert(key) {
            return None;
        }
        members.push(format!("{key}={value}"));
    }
    (members.len() <= MEMBERS_MAX).then(|| members.join(","))
}

/// A name of at most 256 bytes, or a tenant's name of at most 241 and a system's of at most 14.
fn is_key(key: &str) -> bool {
    let is_name = |name: &str, bytes_max: usize, may_begin: fn(u8) -> bool| {
        let goes_on =
            |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/');
        name.as_bytes().split_first().is_some_and(|(first, rest)| {
            may_begin(*first) && rest.len() < bytes_max && rest.iter().all(goes_on)
        })
    };
    let letter: fn(u8) -> bool = |byte| byte.is_ascii_lowercase();
    match key.split_once('@') {
        None => is_name(key, 256, letter),
        Some((tenant, system)) => {
            is_name(tenant, 241, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
                && is_name(system, 14, letter)
        }
    }
}

fn is_value(value: &str) -> bool {
    let is_within = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    (1..=VALUE_BYTES_MAX).contains(&value.len()) && value.as_bytes().iter().all(is_within)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn parent(traceparent: &str, tracestate: &str) -> Option<Parent> {
        let mut metadata = HeaderMap::new();
        metadata.insert(TRACEPARENT, traceparent.parse().unwrap());
        metadata.insert(TRACESTATE, tracestate.parse().unwrap());
        of_metadata(&metadata)
    }

    #[test]
    fn a_parent_is_read_as_the_sdk_of_go_reads_it() {
        let flags = |text: &str| parent(text, "").map(|parent| parent.flags);
        for (text, expected) in [
            (format!("00-{TRACE}-{SPAN}-01"), Some(1)),
            (format!("00-{TRACE}-{SPAN}-00"), Some(0)),
            (format!("00-{TRACE}-{SPAN}-03"), Some(3)),
            (format!("00-{TRACE}-{SPAN}-04"), None),
            (format!("00-{TRACE}-{SPAN}-01-"), Some(1)),
            (format!("00-{TRACE}-{SPAN}-01-x"), None),
            (format!("01-{TRACE}-{SPAN}-01-x"), Some(1)),
            (format!("01-{TRACE}-{SPAN}-ff"), Some(3)),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00-{TRACE}-{SPAN}"), None),
            (format!("00-{TRACE}-{SPAN}-1"), None),
            (format!("00-{TRACE}0-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            (String::new(), None),
        ] {
            assert_eq!(flags(&text), expected, "{text}");
        }
        let read = parent(&format!("00-{TRACE}-{SPAN}-01"), "").unwrap();
        assert_eq!(format!("{:032x}", u128::from_be_bytes(read.trace_id)), TRACE);
        assert_eq!(read.span_id.map(u64::from_be_bytes), Some(0xb7ad_6b71_6920_3331));
    }

    #[test]
    fn a_faulty_state_does_not_cost_the_trace() {
        let state = |text: &str| {
            parent(&format!("00-{TRACE}-{SPAN}-01"), text).map(|parent| parent.trace_state)
        };
        let many = (0..33).map(|at| format!("k{at}=v")).collect::<Vec<_>>().join(",");
        let long = format!("k={}", "v".repeat(limits::TRACE_TEXT_BYTES_MAX));
        for (text, expected) in [
            ("x=y, z=1", "x=y,z=1"),
            ("x=y,,", "x=y"),
            ("0t@sys=y", "0t@sys=y"),
            ("x=a b", "x=a b"),
            ("X=y", ""),
            ("x=y,x=z", ""),
            ("x", ""),
            ("x=", ""),
            ("0x=y", ""),
            (many.as_str(), ""),
            (long.as_str(), ""),
        ] {
            assert_eq!(state(text).as_deref(), Some(expected), "{text}");
        }
    }
}
