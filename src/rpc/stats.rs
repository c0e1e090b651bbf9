//! The log line about a unary call that took too long, which at the level debug each call has:
//! etcd's `request stats` (`logUnaryRequestStats` in api/v3rpc/interceptor.go).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use tonic::Status;

use super::encoded::Encoded;
use super::parts::Parts;
use crate::clock;
use crate::go;
use crate::limits::TXN_DEPTH_MAX;
use crate::metrics::Method;
use crate::pb::logged::logged;
use crate::pb::raw::{self, Response};
use crate::pb::shapes::Shaped;
use crate::pb::tolerant::{self, Below};
use crate::pb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest, loggable};

/// A request as far as the line may show it: the message of those whose content is shown, else
/// nothing. A handler keeps the request until it has its answer, so this holds no memory longer.
pub(super) struct Shown {
    shape: usize,
    message: Bytes,
}

impl Shown {
    pub(super) fn new(shape: usize, message: &Bytes) -> Self {
        let is_shown =
            [RangeRequest::SHAPE, PutRequest::SHAPE, DeleteRangeRequest::SHAPE, TxnRequest::SHAPE];
        let message = if is_shown.contains(&shape) { message.clone() } else { Bytes::new() };
        Self { shape, message }
    }
}

/// The numbers of the line, and what it shows of the request.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    requests: i64,
    request_bytes: i64,
    responses: i64,
    response_bytes: i64,
    content: String,
}

/// For calls that are not about keys, and those that were refused before their handler.
const NO_COUNTS: Counts = Counts {
    requests: -1,
    request_bytes: -1,
    responses: -1,
    response_bytes: -1,
    content: String::new(),
};

/// Whether a call has a line: it took longer than `expected`, or all calls have one.
pub(super) fn is_told(took: Duration, expected: Duration) -> bool {
    took > expected || tracing::event_enabled!(tracing::Level::DEBUG)
}

/// Who made a call.
pub(super) struct Who {
    pub(super) remote: Option<SocketAddr>,
    /// None if auth is off.
    pub(super) user: Option<String>,
}

/// Logs a call. `is_handled` says whether it came as far as its handler.
pub(super) fn log(
    method: &Method,
    who: &Who,
    took: Duration,
    shown: &Shown,
    answer: Result<&Encoded, &Status>,
    is_handled: bool,
) {
    let is_debug = tracing::event_enabled!(tracing::Level::DEBUG);
    let counts = if is_handled { counts(shown, answer.ok()) } else { NO_COUNTS };
    let began = clock::wall_nanos().saturating_sub(u64::try_from(took.as_nanos()).unwrap_or(0));
    let remote = who.remote.map_or_else(|| "No remote client info.".into(), |it| it.to_string());
    let path = format!("/{}/{}", method.service, method.name);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                "start time" = go::timestamp(began),
                "time spent" = go::duration(took),
                remote,
                "rusd.user" = who.user,
                "response type" = path,
                "request count" = counts.requests,
                "request size" = counts.request_bytes,
                "response count" = counts.responses,
                "response size" = counts.response_bytes,
                "request content" = counts.content,
                "request stats"
            )
        };
    }
    if is_debug {
        line!(debug);
    } else {
        line!(warn);
    }
}

/// The time that a call took.
pub(super) fn since(start: Instant) -> Duration {
    clock::instant().saturating_duration_since(start)
}

fn counts(shown: &Shown, answer: Option<&Encoded>) -> Counts {
    let message = &shown.message;
    let response = answer.map(Encoded::message);
    let response_bytes = answer.map_or(0, |answer| answer.bytes as i64);
    let made = |requests, responses, content| Counts {
        requests,
        request_bytes: message.len() as i64,
        responses,
        response_bytes,
        content,
    };
    match shown.shape {
        shape if shape == RangeRequest::SHAPE => {
            let count = match answer.and_then(|answer| answer.range) {
                Some((_, count)) => count,
                None => decoded::<raw::RangeResponse>(response).count,
            };
            made(0, count, logged(shape, message))
        }
        shape if shape == PutRequest::SHAPE => {
            let request = tolerant::message::<PutRequest>(message.clone()).unwrap_or_default();
            made(1, 0, loggable::put(&request))
        }
        shape if shape == DeleteRangeRequest::SHAPE => {
            let count = decoded::<raw::DeleteRangeResponse>(response).deleted;
            made(0, count, logged(shape, message))
        }
        shape if shape == TxnRequest::SHAPE => {
            // As in etcd, which shows nothing of a transaction that failed.
            let Some(response) = response else {
                return Counts { request_bytes: 0, ..made(0, 0, String::new()) };
            };
            let request = tolerant::transaction(message.clone(), TXN_DEPTH_MAX, Below::Cut);
            let request = request.unwrap_or_default();
            let has_succeeded = decoded::<raw::TxnResponse>(Some(response)).succeeded;
            let ops = if has_succeeded { &request.success } else { &request.failure };
            let bytes: usize = ops.iter().map(prost::Message::encoded_len).sum();
            let counts = made(ops.len() as i64, 0, loggable::txn(&request));
            Counts { request_bytes: bytes as i64, ..counts }
        }
        _ => NO_COUNTS,
    }
}

fn decoded<M: prost::Message + Default>(message: Option<Parts>) -> M {
    message.and_then(|message| M::decode(message).ok()).unwrap_or_default()
}

/// The rows of a range's answer, for the line about a slow read.
pub(super) fn rows_of_range(answer: &Encoded) -> String {
    let rows = match answer.range {
        Some((rows, _)) => rows,
        None => decoded::<raw::RangeResponse>(Some(answer.message())).kvs.len(),
    };
    format!("range_response_count:{rows}")
}

/// As [`rows_of_range`], for a transaction that only reads.
pub(super) fn rows_of_txn(answer: &Encoded) -> String {
    let responses = decoded::<raw::TxnResponse>(Some(answer.message())).responses;
    let rows = responses.iter().filter_map(|response| match &response.response {
        Some(Response::Range(range)) => Some(format!("range_response_count:{}", range.kvs.len())),
        _ => None,
    });
    format!("responses:<{}>", rows.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::EncodedRange;
    use crate::pb::RequestOp;
    use crate::pb::request_op::Request;
    use crate::rpc::answer::Encode as _;

    fn shown<M: prost::Message + Shaped>(message: &M) -> Shown {
        Shown::new(M::SHAPE, &message.encode_to_vec().into())
    }

    #[test]
    fn a_line_has_etcds_counts_and_no_values() {
        let put = PutRequest { key: "k".into(), value: "secret".into(), ..Default::default() };
        let content = r#"key:"k" value_size:6 "#.to_owned();
        let expected = Counts {
            requests: 1,
            request_bytes: 11,
            responses: 0,
            response_bytes: 0,
            content: content.clone(),
        };
        assert_eq!(counts(&shown(&put), None), expected);
        let op = RequestOp { request: Some(Request::RequestPut(put)) };
        let txn = TxnRequest { failure: vec![op], ..Default::default() };
        let answer = raw::TxnResponse::default().encoded().unwrap();
        let expected = Counts {
            requests: 1,
            request_bytes: 13,
            responses: 0,
            response_bytes: 0,
            content: format!("compare:<> success:<> failure:<request_put:<{content}>>"),
        };
        assert_eq!(counts(&shown(&txn), Some(&answer)), expected);
        let nothing = Counts { request_bytes: 0, requests: 0, content: String::new(), ..expected };
        assert_eq!(counts(&shown(&txn), None), nothing);
        let range = RangeRequest { key: "k".into(), limit: 1, ..Default::default() };
        let response =
            raw::RangeResponse { kvs: vec![Bytes::from("row")], count: 7, ..Default::default() };
        let answer = response.encoded().unwrap();
        let found = counts(&shown(&range), Some(&answer));
        assert_eq!((found.responses, found.content.as_str()), (7, r#"key:"k" limit:1"#));
        assert_eq!(rows_of_range(&answer), "range_response_count:1");
        // Of an answer that is sent in pieces only the beginning is there.
        let answer = EncodedRange { first: vec![0; 9], bytes: 999, rows: 2, count: 7, rest: None };
        let answer = Encoded::range(answer).unwrap();
        let found = counts(&shown(&range), Some(&answer));
        assert_eq!((found.responses, found.response_bytes), (7, 999));
        assert_eq!(rows_of_range(&answer), "range_response_count:2");
        let password =
            crate::pb::AuthUserAddRequest { password: "secret".into(), ..Default::default() };
        assert_eq!(counts(&shown(&password), None), NO_COUNTS);
        assert!(shown(&password).message.is_empty());
    }
}
