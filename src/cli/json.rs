//! Go's encoding/json of etcd's messages: numbers for ids, base64 for bytes, zero fields left out.

use crate::pb::{
    AlarmMember, Event, HashKvResponse, KeyValue, Member, RangeResponse, ResponseHeader,
    StatusResponse, TxnResponse, authpb::Permission, response_op::Response,
};
use crate::pb::{DeleteRangeResponse, PutResponse, ResponseOp};

/// An object under construction.
pub(super) struct Object(String);

impl Object {
    pub(super) fn new() -> Self {
        Self(String::from("{"))
    }

    /// Adds a field whose value is JSON already.
    pub(super) fn raw(mut self, name: &str, json: impl AsRef<str>) -> Self {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push_str(&format!("\"{name}\":{}", json.as_ref()));
        self
    }

    /// Adds a number unless it is zero.
    pub(super) fn number(self, name: &str, value: impl Into<i128>) -> Self {
        match value.into() {
            0 => self,
            value => self.raw(name, value.to_string()),
        }
    }

    pub(super) fn text(self, name: &str, value: &str) -> Self {
        if value.is_empty() { self } else { self.raw(name, string(value.as_bytes())) }
    }

    pub(super) fn bytes(self, name: &str, value: &[u8]) -> Self {
        if value.is_empty() { self } else { self.raw(name, base64(value)) }
    }

    pub(super) fn bool(self, name: &str, value: bool) -> Self {
        if value { self.raw(name, "true") } else { self }
    }

    /// Adds a list unless it is empty.
    pub(super) fn list(self, name: &str, items: Vec<String>) -> Self {
        if items.is_empty() { self } else { self.raw(name, array(items)) }
    }

    pub(super) fn some(self, name: &str, json: Option<String>) -> Self {
        match json {
            Some(json) => self.raw(name, json),
            None => self,
        }
    }

    pub(super) fn end(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

pub(super) fn array(items: Vec<String>) -> String {
    format!("[{}]", items.join(","))
}

/// A JSON string as Go writes it: characters that HTML treats specially are escaped, and invalid
/// UTF-8 is replaced.
pub(super) fn string(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x08' => out.push_str("\\b"),
                '\x0c' => out.push_str("\\f"),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\x1f' => {
                    out.push_str(&format!("\\u{:04x}", c as u32));
                }
                c => out.push(c),
            }
        }
        for _ in chunk.invalid() {
            out.push_str("\\ufffd");
        }
    }
    out.push('"');
    out
}

/// Standard base64 in quotes.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::from("\"");
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = group >> (18 - 6 * place) & 63;
            let digit = if place <= chunk.len() { DIGITS[digit as usize] } else { b'=' };
            out.push(digit as char);
        }
    }
    out.push('"');
    out
}

/// Adds the fields of a header, for answers whose Go type embeds the header.
pub(super) fn with_header(object: Object, header: Option<&ResponseHeader>) -> Object {
    let Some(header) = header else { return object };
    object
        .number("cluster_id", header.cluster_id)
        .number("member_id", header.member_id)
        .number("revision", header.revision)
        .number("raft_term", header.raft_term)
}

pub(super) fn header(header: &ResponseHeader) -> String {
    with_header(Object::new(), Some(header)).end()
}

/// An object that begins with the field `header`.
pub(super) fn answer(header_of: &Option<ResponseHeader>) -> Object {
    Object::new().some("header", header_of.as_ref().map(header))
}

pub(super) fn key_value(kv: &KeyValue) -> String {
    Object::new()
        .bytes("key", &kv.key)
        .number("create_revision", kv.create_revision)
        .number("mod_revision", kv.mod_revision)
        .number("version", kv.version)
        .bytes("value", &kv.value)
        .number("lease", kv.lease)
        .end()
}

fn key_values(kvs: &[KeyValue]) -> Vec<String> {
    kvs.iter().map(key_value).collect()
}

pub(super) fn event(event: &Event) -> String {
    Object::new()
        .number("type", event.r#type)
        .some("kv", event.kv.as_ref().map(key_value))
        .some("prev_kv", event.prev_kv.as_ref().map(key_value))
        .end()
}

pub(super) fn range(response: &RangeResponse) -> String {
    answer(&response.header)
        .list("kvs", key_values(&response.kvs))
        .bool("more", response.more)
        .number("count", response.count)
        .end()
}

pub(super) fn put(response: &PutResponse) -> String {
    answer(&response.header).some("prev_kv", response.prev_kv.as_ref().map(key_value)).end()
}

pub(super) fn delete(response: &DeleteRangeResponse) -> String {
    answer(&response.header)
        .number("deleted", response.deleted)
        .list("prev_kvs", key_values(&response.prev_kvs))
        .end()
}

pub(super) fn txn(response: &TxnResponse) -> String {
    answer(&response.header)
        .bool("succeeded", response.succeeded)
        .list("responses", response.responses.iter().map(op).collect())
        .end()
}

fn op(op: &ResponseOp) -> String {
    let inner = match &op.response {
        Some(Response::ResponseRange(response)) => {
            Object::new().raw("response_range", range(response))
        }
        Some(Response::ResponsePut(response)) => Object::new().raw("response_put", put(response)),
        Some(Response::ResponseDeleteRange(response)) => {
            Object::new().raw("response_delete_range", delete(response))
        }
        Some(Response::ResponseTxn(response)) => Object::new().raw("response_txn", txn(response)),
        None => Object::new(),
    };
    Object::new().raw("Response", inner.end()).end()
}

pub(super) fn member(member: &Member) -> String {
    member_fields(Object::new().number("ID", member.id), member)
}

fn member_fields(object: Object, member: &Member) -> String {
    let urls = |urls: &[String]| urls.iter().map(|url| string(url.as_bytes())).collect();
    object
        .text("name", &member.name)
        .list("peerURLs", urls(&member.peer_ur_ls))
        .list("clientURLs", urls(&member.client_ur_ls))
        .bool("isLearner", member.is_learner)
        .end()
}

/// A member with its id in hexadecimal, for `--hex`.
pub(super) fn member_hex(member: &Member) -> String {
    member_fields(Object::new().raw("ID", format!("\"{:x}\"", member.id)), member)
}

pub(super) fn header_hex(header: &ResponseHeader) -> String {
    Object::new()
        .raw("cluster_id", format!("\"{:x}\"", header.cluster_id))
        .raw("member_id", format!("\"{:x}\"", header.member_id))
        .number("revision", header.revision)
        .number("raft_term", header.raft_term)
        .end()
}

pub(super) fn alarm(alarm: &AlarmMember) -> String {
    Object::new().number("memberID", alarm.member_id).number("alarm", alarm.alarm).end()
}

pub(super) fn permission(permission: &Permission) -> String {
    Object::new()
        .number("permType", permission.perm_type)
        .bytes("key", &permission.key)
        .bytes("range_end", &permission.range_end)
        .end()
}

pub(super) fn status(response: &StatusResponse) -> String {
    let info = response.downgrade_info.as_ref().map(|info| {
        Object::new()
            .bool("enabled", info.enabled)
            .text("targetVersion", &info.target_version)
            .end()
    });
    answer(&response.header)
        .text("version", &response.version)
        .number("dbSize", response.db_size)
        .number("leader", response.leader)
        .number("raftIndex", response.raft_index)
        .number("raftTerm", response.raft_term)
        .number("raftAppliedIndex", response.raft_applied_index)
        .list("errors", response.errors.iter().map(|text| string(text.as_bytes())).collect())
        .number("dbSizeInUse", response.db_size_in_use)
        .bool("isLearner", response.is_learner)
        .text("storageVersion", &response.storage_version)
        .number("dbSizeQuota", response.db_size_quota)
        .some("downgradeInfo", info)
        .end()
}

pub(super) fn hash_kv(response: &HashKvResponse) -> String {
    answer(&response.header)
        .number("hash", response.hash)
        .number("compact_revision", response.compact_revision)
        .number("hash_revision", response.hash_revision)
        .end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_base64() {
        for (bytes, text) in
            [("", "\"\""), ("f", "\"Zg==\""), ("fo", "\"Zm8=\""), ("foo", "\"Zm9v\"")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn strings_are_safe_within_html() {
        assert_eq!(string("<a&\u{2028}\"\n\x01".as_bytes()), r#""\u003ca\u0026\u2028\"\n\u0001""#);
        assert_eq!(string(b"a\xff"), r#""a\ufffd""#);
    }

    #[test]
    fn zero_fields_are_left_out() {
        let kv = KeyValue { key: "k".into(), version: 1, ..KeyValue::default() };
        assert_eq!(key_value(&kv), r#"{"key":"aw==","version":1}"#);
    }
}
