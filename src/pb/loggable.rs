//! Puts and transactions as etcd's log lines show them: in the older text form of protobuf, with
//! sizes in the place of values (raft_internal_stringer.go in etcd's api/etcdserverpb).

use std::fmt::Write as _;

use prost::Message as _;

use super::compare::TargetUnion;
use super::logged::logged;
use super::request_op::Request;
use super::shapes::Shaped;
use super::{Compare, PutRequest, RequestOp, TxnRequest};
use crate::limits::{LOGGED_DEPTH_MAX, LOGGED_NAME_LETTERS_MAX, LOGGED_REQUEST_BYTES_MAX};

/// A name, cut at `LOGGED_NAME_LETTERS_MAX`: a request may hold a megabyte of it.
pub fn name(name: &str) -> String {
    name.chars().take(LOGGED_NAME_LETTERS_MAX).collect()
}

/// A put, such as `key:"k" value_size:3 `; each field ends with a space.
pub fn put(request: &PutRequest) -> String {
    let mut text = Text::default();
    text.bytes("key", &request.key);
    text.number("value_size", request.value.len() as i64);
    text.number("lease", request.lease);
    text.truth("prev_kv", request.prev_kv);
    text.truth("ignore_value", request.ignore_value);
    text.truth("ignore_lease", request.ignore_lease);
    text.0
}

/// A transaction: `compare:<…> success:<…> failure:<…>`. A text that would be longer than
/// `LOGGED_REQUEST_BYTES_MAX` ends in three dots.
pub fn txn(request: &TxnRequest) -> String {
    let mut text = String::new();
    write_txn(&mut text, request, 0);
    text
}

fn write_txn(out: &mut String, request: &TxnRequest, depth: usize) {
    out.push_str("compare:<");
    list(out, &request.compare, |out, compare| out.push_str(&compare_of(compare)));
    for (name, ops) in [("success", &request.success), ("failure", &request.failure)] {
        let _ = write!(out, "> {name}:<");
        list(out, ops, |out, op| write_op(out, op, depth));
    }
    out.push('>');
}

/// Writes as many items as a line may hold, with spaces between them.
fn list<T>(out: &mut String, items: &[T], mut write: impl FnMut(&mut String, &T)) {
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(' ');
        }
        if out.len() > LOGGED_REQUEST_BYTES_MAX {
            out.push_str("...");
            return;
        }
        write(out, item);
    }
}

fn write_op(out: &mut String, op: &RequestOp, depth: usize) {
    match &op.request {
        Some(Request::RequestPut(request)) => {
            let _ = write!(out, "request_put:<{}>", put(request));
        }
        Some(Request::RequestTxn(_)) if depth >= LOGGED_DEPTH_MAX => {
            out.push_str("request_txn:<...>");
        }
        Some(Request::RequestTxn(request)) => {
            out.push_str("request_txn:<");
            write_txn(out, request, depth + 1);
            out.push('>');
        }
        _ => out.push_str(&logged(RequestOp::SHAPE, &op.encode_to_vec())),
    }
}

fn compare_of(compare: &Compare) -> String {
    let Some(TargetUnion::Value(value)) = &compare.target_union else {
        return logged(Compare::SHAPE, &compare.encode_to_vec());
    };
    let mut text = Text::default();
    text.name("result", compare.result, compare.result().as_str_name());
    text.name("target", compare.target, compare.target().as_str_name());
    text.bytes("key", &compare.key);
    text.number("value_size", value.len() as i64);
    text.bytes("range_end", &compare.range_end);
    text.0
}

/// Fields in the older text form, without those that have their default.
#[derive(Default)]
struct Text(String);

impl Text {
    fn bytes(&mut self, name: &str, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        let shown = &value[..value.len().min(LOGGED_REQUEST_BYTES_MAX)];
        let dots = if shown.len() < value.len() { "..." } else { "" };
        let _ = write!(self.0, "{name}:\"");
        for byte in shown {
            match byte {
                b'\n' => self.0.push_str("\\n"),
                b'\r' => self.0.push_str("\\r"),
                b'\t' => self.0.push_str("\\t"),
                b'"' => self.0.push_str("\\\""),
                b'\\' => self.0.push_str("\\\\"),
                0x20..0x7f => self.0.push(char::from(*byte)),
                _ => {
                    let _ = write!(self.0, "\\{byte:03o}");
                }
            }
        }
        let _ = write!(self.0, "\"{dots} ");
    }

    fn number(&mut self, name: &str, value: i64) {
        if value != 0 {
            let _ = write!(self.0, "{name}:{value} ");
        }
    }

    fn truth(&mut self, name: &str, value: bool) {
        if value {
            let _ = write!(self.0, "{name}:true ");
        }
    }

    fn name(&mut self, field: &str, number: i32, name: &str) {
        if number != 0 {
            let _ = write!(self.0, "{field}:{name} ");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::compare::{CompareResult, CompareTarget};
    use super::super::{DeleteRangeRequest, RangeRequest};
    use super::*;

    fn op(request: Request) -> RequestOp {
        RequestOp { request: Some(request) }
    }

    #[test]
    fn values_are_shown_by_their_sizes_in_etcds_form() {
        let request = PutRequest { key: "k1".into(), value: "secret".into(), ..Default::default() };
        assert_eq!(put(&request), r#"key:"k1" value_size:6 "#);
        let other = PutRequest {
            key: "\u{1}\"\n\u{e9}".into(),
            lease: -5,
            prev_kv: true,
            ..Default::default()
        };
        assert_eq!(put(&other), r#"key:"\001\"\n\303\251" lease:-5 prev_kv:true "#);
        let compares = vec![
            Compare {
                target: CompareTarget::Value.into(),
                key: "k1".into(),
                target_union: Some(TargetUnion::Value("secret".into())),
                ..Default::default()
            },
            Compare {
                result: CompareResult::Greater.into(),
                target: CompareTarget::Mod.into(),
                key: "k1".into(),
                target_union: Some(TargetUnion::ModRevision(0)),
                ..Default::default()
            },
        ];
        let range = RangeRequest { key: "k2".into(), ..Default::default() };
        let delete = DeleteRangeRequest { key: "k3".into(), ..Default::default() };
        let nested = TxnRequest {
            success: vec![op(Request::RequestPut(request.clone()))],
            ..Default::default()
        };
        let request = TxnRequest {
            compare: compares,
            success: vec![op(Request::RequestPut(request)), op(Request::RequestRange(range))],
            failure: vec![
                op(Request::RequestDeleteRange(delete)),
                op(Request::RequestTxn(Box::new(nested))),
            ],
        };
        let shown = txn(&request);
        assert_eq!(
            shown,
            "compare:<target:VALUE key:\"k1\" value_size:6  \
             result:GREATER target:MOD key:\"k1\" mod_revision:0> \
             success:<request_put:<key:\"k1\" value_size:6 > request_range:{key:\"k2\"}> \
             failure:<request_delete_range:{key:\"k3\"} request_txn:<compare:<> \
             success:<request_put:<key:\"k1\" value_size:6 >> failure:<>>>"
        );
        assert!(!shown.contains("secret"));
    }

    #[test]
    fn a_large_or_deep_transaction_is_cut() {
        let mut deep = TxnRequest::default();
        for _ in 0..50 {
            deep = TxnRequest {
                success: vec![op(Request::RequestTxn(Box::new(deep)))],
                ..Default::default()
            };
        }
        assert!(txn(&deep).contains("request_txn:<...>"));
        let put = PutRequest { key: vec![b'k'; 100].into(), ..Default::default() };
        let many = TxnRequest {
            success: vec![op(Request::RequestPut(put)); 10_000],
            ..Default::default()
        };
        assert!(txn(&many).len() < 2 * LOGGED_REQUEST_BYTES_MAX);
        let long = PutRequest { key: vec![b'k'; 100_000].into(), ..Default::default() };
        assert!(super::put(&long).len() < 2 * LOGGED_REQUEST_BYTES_MAX);
    }
}
