//! Writes a message's bytes as JSON, by the rules of Go's protojson: names as the .proto files have
//! them, fields in their order, zero values left out, 64-bit integers as strings.
//!
//! A text is made piece by piece, so that a large answer never lies in memory twice.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::encoding::decode_varint;

use crate::pb::shapes::{self, Field, Kind};

/// A message that is being written.
pub struct Writer {
    message: Bytes,
    open: Vec<Open>,
    /// What comes before the first field.
    before: &'static str,
    /// What comes behind the message.
    behind: &'static str,
    /// Whether `<`, `>` and `&` are escaped, as Go does within a stream.
    is_html_safe: bool,
    /// The shape of the outermost message, as long as more of its fields may come.
    growing: Option<usize>,
}

/// A message within the others, or the outermost.
struct Open {
    /// Its values in the order in which they are written.
    values: std::vec::IntoIter<(&'static Field, Value)>,
    /// The list that the last value belongs to.
    list: Option<&'static Field>,
    has_begun: bool,
}

#[derive(Clone, Copy, Debug)]
enum Value {
    Number(u64),
    /// Where it stands in the message.
    Bytes(usize, usize),
}

impl Writer {
    /// `message` is the encoded message of this shape.
    pub(super) fn new(shape: usize, message: Bytes) -> Self {
        let outermost = Open::new(shape, &message, 0, message.len());
        Self {
            message,
            open: vec![outermost],
            before: "{",
            behind: "",
            is_html_safe: false,
            growing: None,
        }
    }

    /// For a message of this shape whose fields come one after the other, in the order of their
    /// numbers.
    pub(super) fn growing(shape: usize) -> Self {
        Self { growing: Some(shape), ..Self::new(shape, Bytes::new()) }
    }

    /// Adds whole fields of a growing message. Those before must have been written.
    pub(super) fn grow(&mut self, fields: Bytes) {
        if let (Some(shape), [outermost]) = (self.growing, self.open.as_mut_slice()) {
            outermost.values = Open::new(shape, &fields, 0, fields.len()).values;
            self.message = fields;
        }
    }

    /// Says that a growing message is complete.
    pub(super) fn end(&mut self) {
        self.growing = None;
    }

    /// The same within a line of a stream.
    pub(super) fn of_stream(shape: usize, message: Bytes) -> Self {
        let writer = Self::new(shape, message);
        Self { before: "{\"result\":{", behind: "}\n", is_html_safe: true, ..writer }
    }

    pub(super) fn into_message(self) -> Bytes {
        self.message
    }

    /// Writes on until `out` holds `bytes` or more, or what is there of the message has been
    /// written. Returns whether more of it is to come.
    pub(super) fn write(&mut self, out: &mut String, bytes: usize) -> bool {
        out.push_str(std::mem::take(&mut self.before));
        while out.len() < bytes {
            let may_grow = self.growing.is_some() && self.open.len() == 1;
            let Some(open) = self.open.last_mut() else { return false };
            let Some((field, value)) = open.values.next() else {
                if may_grow {
                    // It would count until the next fields are taken.
                    self.message = Bytes::new();
                    return false;
                }
                out.push_str(if open.list.is_some() { "]}" } else { "}" });
                self.open.pop();
                if self.open.is_empty() {
                    out.push_str(self.behind);
                }
                continue;
            };
            let is_same_list =
                open.list.is_some_and(|list| std::ptr::eq(list, field)) && field.is_list;
            if !is_same_list {
                if open.list.take().is_some() {
                    out.push(']');
                }
                if open.has_begun {
                    out.push(',');
                }
                out.push('"');
                out.push_str(field.name);
                out.push_str("\":");
                if field.is_list {
                    out.push('[');
                    open.list = Some(field);
                }
            } else {
                out.push(',');
            }
            open.has_begun = true;
            match (field.inner, value) {
                (Some(shape), Value::Bytes(start, end)) => {
                    self.open.push(Open::new(shape, &self.message, start, end));
                    out.push('{');
                }
                _ => self.scalar(field.kind, value, out),
            }
        }
        !self.open.is_empty()
    }

    fn scalar(&self, kind: Kind, value: Value, out: &mut String) {
        match (kind, value) {
            (Kind::Bytes, Value::Bytes(start, end)) => {
                out.push('"');
                STANDARD.encode_string(&self.message[start..end], out);
                out.push('"');
            }
            (_, Value::Bytes(start, end)) => {
                let text = String::from_utf8_lossy(&self.message[start..end]);
                quote(&text, self.is_html_safe, out);
            }
            (kind, Value::Number(number)) => {
                // Writing into a string cannot fail.
                let _ = match (kind, kind.name_of(number as i32)) {
                    (_, Some(name)) => write!(out, "\"{name}\""),
                    (Kind::Bool, _) => write!(out, "{}", number != 0),
                    (Kind::Int64, _) => write!(out, "\"{}\"", number as i64),
                    (Kind::Uint64, _) => write!(out, "\"{number}\""),
                    (Kind::Uint32, _) => write!(out, "{}", number as u32),
                    _ => write!(out, "{}", number as i32),
                };
            }
        }
    }
}

impl Open {
    /// Finds the values of the message that stands there. What cannot be read ends it: the server's
    /// own answers can be read.
    fn new(shape: usize, message: &[u8], start: usize, end: usize) -> Self {
        let fields = shapes::fields(shape);
        let mut values: Vec<(usize, Value)> = Vec::new();
        let mut rest = &message[start..end];
        while let Some((number, value)) = next(&mut rest, end) {
            let Some(at) = fields.iter().position(|field| field.number == number) else { continue };
            let field = &fields[at];
            match value {
                Value::Bytes(start, end) if field.is_packable => {
                    let mut packed = &message[start..end];
                    while let Ok(number) = decode_varint(&mut packed) {
                        values.push((at, Value::Number(number)));
                    }
                }
                value if is_written(field, value) => values.push((at, value)),
                _ => {}
            }
        }
        // Stable, so that elements of a list stay in their order.
        values.sort_by_key(|(at, _)| *at);
        let values: Vec<_> = values.into_iter().map(|(at, value)| (&fields[at], value)).collect();
        Self { values: values.into_iter(), list: None, has_begun: false }
    }
}

/// Whether a value shows: zero does as a member of a list or of a oneof, and an empty message does.
fn is_written(field: &Field, value: Value) -> bool {
    let is_zero = match value {
        Value::Number(number) => number == 0,
        Value::Bytes(start, end) => start == end && field.inner.is_none(),
    };
    !is_zero || field.is_list || field.oneof.is_some()
}

/// The length of the whole fields with which `bytes` begins.
pub(super) fn whole_fields(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut whole = 0;
    while next(&mut rest, bytes.len()).is_some() {
        whole = bytes.len() - rest.len();
    }
    whole
}

/// The next field of a message that ends at `end` in its buffer.
fn next(rest: &mut &[u8], end: usize) -> Option<(u32, Value)> {
    if rest.is_empty() {
        return None;
    }
    let key = decode_varint(rest).ok()?;
    let number = u32::try_from(key >> 3).ok()?;
    let value = match key & 7 {
        0 => Value::Number(decode_varint(rest).ok()?),
        2 => {
            let length = usize::try_from(decode_varint(rest).ok()?).ok()?;
            let start = end - rest.len();
            *rest = rest.get(length..)?;
            Value::Bytes(start, start + length)
        }
        _ => return None,
    };
    Some((number, value))
}

/// A JSON string.
pub(super) fn quote(text: &str, is_html_safe: bool, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        let escape = match character {
            '"' => "\\\"",
            '\\' => "\\\\",
            '\u{8}' => "\\b",
            '\u{c}' => "\\f",
            '\n' => "\\n",
            '\r' => "\\r",
            '\t' => "\\t",
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' if is_html_safe => "",
            '\0'..' ' => "",
            _ => {
                out.push(character);
                continue;
            }
        };
        out.push_str(escape);
        if escape.is_empty() {
            // Writing into a string cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(character));
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::pb::shapes::Shaped;
    use crate::pb::{
        AuthRoleGetResponse, KeyValue, RangeResponse, ResponseHeader, ResponseOp, StatusResponse,
        TxnResponse, WatchResponse, authpb, response_op,
    };

    fn written<M: Message + Shaped>(message: &M, piece: usize) -> String {
        let mut writer = Writer::new(M::SHAPE, message.encode_to_vec().into());
        let (mut text, mut pieces) = (String::new(), Vec::new());
        while writer.write(&mut text, piece) {
            pieces.push(std::mem::take(&mut text));
        }
        pieces.concat() + &text
    }

    #[test]
    fn a_message_is_written_as_protojson_writes_it() {
        let pair =
            |key: &'static str| KeyValue { key: key.into(), version: 1, ..KeyValue::default() };
        let range = RangeResponse {
            header: Some(ResponseHeader { cluster_id: u64::MAX, ..ResponseHeader::default() }),
            kvs: vec![pair("a"), KeyValue::default(), pair("\u{ff}\u{ff}")],
            more: true,
            count: 3,
        };
        let expected = r#"{"header":{"cluster_id":"18446744073709551615"},"kvs":[{"key":"YQ==","version":"1"},{},{"key":"w7/Dvw==","version":"1"}],"more":true,"count":"3"}"#;
        // In pieces of any size.
        for piece in [1, 10, 1000] {
            assert_eq!(written(&range, piece), expected);
        }
        assert_eq!(written(&RangeResponse::default(), 10), "{}");
    }

    /// However the bytes of a message come.
    #[test]
    fn a_message_that_grows_is_written_as_the_whole_one() {
        let pair = |number: i64| KeyValue {
            key: vec![b'k'; number as usize % 7].into(),
            value: vec![b'v'; number as usize * 13 % 300].into(),
            mod_revision: number,
            ..KeyValue::default()
        };
        let header = Some(ResponseHeader { revision: 9, ..ResponseHeader::default() });
        let long =
            RangeResponse { header, kvs: (0..40).map(pair).collect(), more: true, count: 50 };
        for range in [RangeResponse::default(), RangeResponse { count: 1, ..long.clone() }, long] {
            let bytes = range.encode_to_vec();
            for (piece, part) in [(1, 1), (3, 50), (100, 7), (1 << 20, 1 << 20)] {
                let mut writer = Writer::growing(RangeResponse::SHAPE);
                let (mut text, mut rest) = (String::new(), Vec::new());
                for part in bytes.chunks(part) {
                    rest.extend_from_slice(part);
                    let whole = whole_fields(&rest);
                    writer.grow(rest.drain(..whole).collect());
                    let mut wanted = text.len() + piece;
                    while writer.write(&mut text, wanted) {
                        wanted += piece;
                    }
                }
                assert!(rest.is_empty());
                writer.end();
                assert!(!writer.write(&mut text, usize::MAX));
                assert_eq!(text, written(&range, usize::MAX));
            }
        }
    }

    #[test]
    fn zero_shows_in_lists_and_oneofs_only() {
        let op = |response| ResponseOp { response: Some(response) };
        let txn = TxnResponse {
            responses: vec![
                op(response_op::Response::ResponsePut(Default::default())),
                ResponseOp::default(),
            ],
            ..TxnResponse::default()
        };
        assert_eq!(written(&txn, 10), r#"{"responses":[{"response_put":{}},{}]}"#);
        let status = StatusResponse {
            errors: vec![String::new(), "a\"\\\n\u{1}<é".to_owned()],
            downgrade_info: Some(Default::default()),
            ..StatusResponse::default()
        };
        let expected = r#"{"errors":["","a\"\\\n\u0001<é"],"downgradeInfo":{}}"#;
        assert_eq!(written(&status, 10), expected);
        let role = AuthRoleGetResponse {
            perm: vec![
                authpb::Permission { perm_type: 2, ..Default::default() },
                authpb::Permission { perm_type: 77, ..Default::default() },
            ],
            ..Default::default()
        };
        assert_eq!(written(&role, 10), r#"{"perm":[{"permType":"READWRITE"},{"permType":77}]}"#);
    }

    #[test]
    fn a_line_of_a_stream_is_safe_in_html() {
        let watch = WatchResponse { cancel_reason: "<&>".to_owned(), ..WatchResponse::default() };
        let mut writer = Writer::of_stream(WatchResponse::SHAPE, watch.encode_to_vec().into());
        let mut text = String::new();
        assert!(!writer.write(&mut text, usize::MAX));
        assert_eq!(text, "{\"result\":{\"cancel_reason\":\"\\u003c\\u0026\\u003e\"}}\n");
    }
}
