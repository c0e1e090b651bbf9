//! A message as a log line shows it: protobuf's text form on one line, by the table that the build
//! makes from the .proto files.
//!
//! What users store and what they prove themselves with is not for a log: bytes named `value` are
//! shown by their size, and passwords are left out.

use std::fmt::Write as _;

use bytes::Buf as _;
use prost::encoding::{WireType, decode_key, decode_varint, skip_field};

use super::shapes::{self, Field, Kind};
use crate::go;
use crate::limits::{LOGGED_DEPTH_MAX, LOGGED_REQUEST_BYTES_MAX};

/// The fields of an encoded message of this shape, such as `key:"foo" range_end:"fop"`. A text that
/// would be longer than `LOGGED_REQUEST_BYTES_MAX` ends in three dots.
pub fn logged(shape: usize, message: &[u8]) -> String {
    let mut out = String::new();
    fields(&mut out, shape, message, 0);
    out
}

/// Writes the fields; false once the text is as long as it may be.
fn fields(out: &mut String, shape: usize, mut bytes: &[u8], depth: usize) -> bool {
    let mut is_first = true;
    while bytes.has_remaining() {
        // The bytes come from an encoder, so what cannot be read is not there.
        let Ok((number, wire)) = decode_key(&mut bytes) else { return true };
        let field = shapes::field(shape, number);
        let Some(field) = field.filter(|field| field.takes(wire as u8)) else {
            if skip_field(wire, number, &mut bytes, Default::default()).is_err() {
                return true;
            }
            continue;
        };
        if out.len() > LOGGED_REQUEST_BYTES_MAX || depth > LOGGED_DEPTH_MAX {
            out.push_str("...");
            return false;
        }
        if !std::mem::take(&mut is_first) {
            out.push(' ');
        }
        let Ok(number) = decode_varint(&mut bytes) else { return true };
        if wire == WireType::Varint {
            out.push_str(field.name);
            out.push(':');
            scalar(out, field.kind, number);
            continue;
        }
        let Some((value, rest)) =
            usize::try_from(number).ok().and_then(|len| bytes.split_at_checked(len))
        else {
            return true;
        };
        bytes = rest;
        if !sized(out, field, value, depth) {
            return false;
        }
    }
    true
}

fn scalar(out: &mut String, kind: Kind, number: u64) {
    let signed = number.cast_signed();
    // Writing into a string cannot fail.
    let _ = match (kind.name_of(signed as i32), kind) {
        (Some(name), _) => write!(out, "{name}"),
        (None, Kind::Bool) => write!(out, "{}", number != 0),
        (None, Kind::Uint32 | Kind::Uint64) => write!(out, "{number}"),
        (None, _) => write!(out, "{signed}"),
    };
}

/// Writes a field whose bytes have a length before them.
fn sized(out: &mut String, field: &Field, value: &[u8], depth: usize) -> bool {
    let name = field.name;
    if field.is_packable {
        let (mut rest, mut is_first) = (value, true);
        while let Ok(number) = decode_varint(&mut rest) {
            if !std::mem::take(&mut is_first) {
                out.push(' ');
            }
            let _ = write!(out, "{name}:");
            scalar(out, field.kind, number);
            if rest.is_empty() || out.len() > LOGGED_REQUEST_BYTES_MAX {
                break;
            }
        }
        return true;
    }
    match (field.inner, field.kind) {
        (Some(inner), _) => {
            let _ = write!(out, "{name}:{{");
            let goes_on = fields(out, inner, value, depth + 1);
            out.push('}');
            return goes_on;
        }
        (None, Kind::Bytes) if name == "value" => {
            let _ = write!(out, "value_size:{}", value.len());
        }
        (None, _) if matches!(name, "password" | "hashedPassword" | "simple_token" | "token") => {
            let _ = write!(out, "{name}:<redacted>");
        }
        (None, _) => {
            let shown = &value[..value.len().min(LOGGED_REQUEST_BYTES_MAX)];
            let dots = if shown.len() < value.len() { "..." } else { "" };
            let _ = write!(out, "{name}:{}{dots}", go::quote(shown));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use crate::limits::LOGGED_REQUEST_BYTES_MAX;
    use crate::pb::request_op::Request;
    use crate::pb::shapes::Shaped;
    use crate::pb::{AuthUserAddRequest, DeleteRangeRequest, PutRequest, RequestOp, TxnRequest};

    fn logged<M: Message + Shaped>(message: &M) -> String {
        super::logged(M::SHAPE, &message.encode_to_vec())
    }

    #[test]
    fn values_have_sizes_and_passwords_are_not_shown() {
        let put = PutRequest {
            key: "k\n".into(),
            value: "secret".into(),
            lease: -5,
            prev_kv: true,
            ..Default::default()
        };
        let text = r#"key:"k\n" value_size:6 lease:-5 prev_kv:true"#;
        assert_eq!(logged(&put), text);
        let op = RequestOp { request: Some(Request::RequestPut(put)) };
        let txn = TxnRequest { success: vec![op], ..Default::default() };
        assert_eq!(logged(&txn), format!("success:{{request_put:{{{text}}}}}"));
        let user = AuthUserAddRequest {
            name: "n".into(),
            password: "p".into(),
            hashed_password: "h".into(),
            ..Default::default()
        };
        let shown = logged(&user);
        assert!(shown.starts_with(r#"name:"n" password:<redacted>"#), "{shown}");
        assert!(!shown.contains("\"p\"") && !shown.contains("\"h\""), "{shown}");
    }

    #[test]
    fn a_large_or_deep_request_is_cut() {
        let long = DeleteRangeRequest { key: vec![b'k'; 100_000].into(), ..Default::default() };
        assert!(logged(&long).len() < 2 * LOGGED_REQUEST_BYTES_MAX);
        let mut txn = TxnRequest::default();
        for _ in 0..50 {
            let op = RequestOp { request: Some(Request::RequestTxn(Box::new(txn))) };
            txn = TxnRequest { success: vec![op], ..Default::default() };
        }
        let shown = logged(&txn);
        assert!(shown.contains("...") && shown.ends_with("}}}"), "{shown}");
        let op = |number: i32| {
            let key = format!("a key with a name of its own {number}");
            let request = DeleteRangeRequest { key: key.into(), ..Default::default() };
            RequestOp { request: Some(Request::RequestDeleteRange(request)) }
        };
        let many = TxnRequest { success: (0..10_000).map(op).collect(), ..Default::default() };
        assert!(logged(&many).len() < 2 * LOGGED_REQUEST_BYTES_MAX);
    }
}
