//! An entry of the log: a command, and the request id under which its proposer waits.
//!
//! The bytes are etcd's `InternalRaftRequest`, with ascending fields. An entry that is a bare
//! request of API v2, as etcd up to 3.5 writes some, is read as etcd reads it.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

use super::command::{Command, Error, V2};
use super::v2;
use crate::pb::loggable;
use crate::pb::logged::logged;
use crate::pb::shapes::{self, Shaped as _};
use crate::pb::{InternalRaftRequest, Request, RequestHeader};

const HEADER: u32 = 100;
/// The field that holds the request's id in entries of old versions.
const ID: u32 = 1;

/// A command, and a header with the request id under which its proposer waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub header: RequestHeader,
    pub command: Command,
}

impl Entry {
    /// The entry's bytes in the log, with ascending fields as etcd writes them.
    pub fn encode(&self) -> Bytes {
        let (header, request) = (self.header.encoded_len(), self.command.request_len());
        // 20 bytes more hold two field keys and two lengths, of at most five bytes each.
        let mut out = BytesMut::with_capacity(header + request + 20);
        let field = self.command.field();
        if field > HEADER {
            self.put_header(&mut out, header);
        }
        encode_key(field, WireType::LengthDelimited, &mut out);
        encode_varint(request as u64, &mut out);
        // Cannot fail: a BytesMut grows.
        let _ = self.command.encode_request(&mut out);
        if field < HEADER {
            self.put_header(&mut out, header);
        }
        out.freeze()
    }

    /// The entry as a log line shows it: header, name of the request, and its fields. Requests that
    /// hold values or secrets have a form of their own, as in etcd.
    pub fn logged(&self) -> String {
        let header = logged(RequestHeader::SHAPE, &self.header.encode_to_vec());
        if let Some(request) = self.redacted() {
            return format!("header:<{header}> {request}");
        }
        let mut bytes = BytesMut::new();
        // Cannot fail: a BytesMut grows.
        let _ = self.command.encode_request(&mut bytes);
        let field = shapes::field(InternalRaftRequest::SHAPE, self.command.field());
        let (name, shape) = field.map_or(("", None), |field| (field.name, field.inner));
        let request = shape.map(|shape| logged(shape, &bytes)).unwrap_or_default();
        format!("header:{{{header}}} {name}:{{{request}}}")
    }

    fn redacted(&self) -> Option<String> {
        Some(match &self.command {
            Command::Put(request) => format!("put:<{}>", loggable::put(request)),
            Command::Txn(request) => format!("txn:<{}>", loggable::txn(request)),
            Command::LeaseGrant(request) => {
                format!("lease_grant:<ttl:{}-second id:{:016x}>", request.ttl, request.id)
            }
            Command::LeaseRevoke(request) => format!("lease_revoke:<id:{:016x}>", request.id),
            // etcd shows the token, with which whoever reads the log is that user.
            Command::Authenticate(request) => {
                format!(
                    "authenticate:<name:{} simple_token:<redacted>>",
                    loggable::name(&request.name)
                )
            }
            Command::UserAdd(request) => {
                format!("auth_user_add:<name:{}>", loggable::name(&request.name))
            }
            Command::UserChangePassword(request) => {
                format!("auth_user_change_password:<name:{}>", loggable::name(&request.name))
            }
            _ => return None,
        })
    }

    fn put_header(&self, out: &mut BytesMut, len: usize) {
        encode_key(HEADER, WireType::LengthDelimited, out);
        encode_varint(len as u64, out);
        let _ = self.header.encode(out);
    }

    /// Decodes an entry. One that is no `InternalRaftRequest` is tried as a request of API v2, as
    /// in etcd.
    pub fn decode(bytes: Bytes) -> Result<Self, Error> {
        Self::decode_message(bytes.clone()).or_else(|error| {
            let request = v2::whole(bytes).ok_or(error)?;
            let header = RequestHeader { id: request.id, ..RequestHeader::default() };
            Ok(Self { header, command: v2::command(request)? })
        })
    }

    fn decode_message(mut bytes: Bytes) -> Result<Self, Error> {
        let mut header = RequestHeader::default();
        let mut command = None;
        while bytes.has_remaining() {
            let (field, wire_type) = decode_key(&mut bytes)?;
            if field == ID && wire_type == WireType::Varint {
                header.id = decode_varint(&mut bytes)?;
                continue;
            }
            if wire_type != WireType::LengthDelimited {
                return Err(Error::Unknown(field));
            }
            let len = usize::try_from(decode_varint(&mut bytes)?).map_err(|_| Error::Truncated)?;
            if len > bytes.len() {
                return Err(Error::Truncated);
            }
            let value = bytes.split_to(len);
            if field == HEADER {
                let id = header.id;
                header = RequestHeader::decode(value)?;
                if id != 0 {
                    header.id = id;
                }
            } else if field == V2 {
                let request = Request::decode(value)?;
                header.id = request.id;
                command = Some(v2::command(request)?);
            } else {
                command = Some(Command::decode_request(field, value)?);
            }
        }
        Ok(Self { header, command: command.ok_or(Error::Empty)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TXN_DEPTH_MAX;
    use crate::pb::membershippb::ClusterVersionSetRequest;
    use crate::pb::request_op::Request as Op;
    use crate::pb::{Compare, LeaseRevokeRequest, PutRequest, RequestOp, TxnRequest};

    #[test]
    fn bytes_are_those_of_the_generated_message() {
        let put = PutRequest { key: "k".into(), value: "v".into(), lease: 7, ..Default::default() };
        let header = RequestHeader { id: 9, username: "root".into(), auth_revision: 3 };
        let entry = Entry { header: header.clone(), command: Command::Put(put.clone()) };
        let message = InternalRaftRequest {
            header: Some(header.clone()),
            put: Some(put),
            ..Default::default()
        };
        assert_eq!(entry.encode(), message.encode_to_vec());
        assert_eq!(Entry::decode(entry.encode()).unwrap(), entry);
        let shown =
            r#"header:<ID:9 username:"root" auth_revision:3> put:<key:"k" value_size:1 lease:7 >"#;
        assert_eq!(entry.logged(), shown);

        let set = ClusterVersionSetRequest { ver: "3.7.0".into() };
        let command = Command::ClusterVersionSet(set.clone());
        let entry = Entry { header: header.clone(), command };
        let message = InternalRaftRequest {
            header: Some(header),
            cluster_version_set: Some(set),
            ..Default::default()
        };
        assert_eq!(entry.encode(), message.encode_to_vec());
        assert_eq!(Entry::decode(entry.encode()).unwrap(), entry);
    }

    /// Both forms in which etcd up to 3.5 writes a request of API v2.
    fn v2_forms(method: &str, path: &str, val: &str) -> [Bytes; 2] {
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let (method, path, val) = (text(method), text(path), text(val));
        let request = Request { id: 77, method, path, val, ..Request::default() };
        // etcd also writes fields that are not set.
        let mut whole = request.encode_to_vec();
        whole.extend([0x28, 0, 0x32, 0, 0x38, 0, 0x48, 0, 0x50, 0, 0x58, 0, 0x60, 0, 0x68, 0]);
        let message = InternalRaftRequest { v2: Some(request), ..Default::default() };
        [whole.into(), message.encode_to_vec().into()]
    }

    #[test]
    fn what_members_said_through_api_v2_is_converted() {
        let json = r#"{"name":"m1","clientURLs":["http://a:1","http://b:2"]}"#;
        for bytes in v2_forms("PUT", "/0/members/8e9e05c52164694d/attributes", json) {
            let Entry { header, command } = Entry::decode(bytes.clone()).unwrap();
            let Command::ClusterMemberAttrSet(set) = &command else { panic!("{command:?}") };
            let attributes = set.member_attributes.clone().unwrap();
            assert_eq!((header.id, set.member_id), (77, 0x8e9e_05c5_2164_694d));
            assert_eq!(attributes.name, "m1");
            assert_eq!(attributes.client_urls, ["http://a:1", "http://b:2"]);
        }
        for bytes in v2_forms("PUT", "/0/members/a/attributes", "{}") {
            let command = Entry::decode(bytes).unwrap().command;
            assert!(matches!(command, Command::ClusterMemberAttrSet(_)), "{command:?}");
        }
        for bytes in v2_forms("PUT", "/0/version", "3.5.0") {
            let Entry { header, command } = Entry::decode(bytes).unwrap();
            let ver = "3.5.0".to_owned();
            assert_eq!(header.id, 77);
            assert_eq!(command, Command::ClusterVersionSet(ClusterVersionSetRequest { ver }));
        }
        for bytes in v2_forms("PUT", "/0/members/1/attributes", "no JSON") {
            let text = Entry::decode(bytes).unwrap_err().to_string();
            assert!(text.contains("API v2 for /0/members/1/attributes"), "{text}");
        }
    }

    #[test]
    fn keys_of_api_v2_change_nothing() {
        let cases = [
            ("PUT", "/1/key"),
            ("PUT", "/0/members/x/attributes"),
            ("POST", "/1/dir"),
            ("DELETE", "/0/members/1/attributes"),
            ("SYNC", ""),
            ("QGET", "/1"),
        ];
        for (method, path) in cases {
            for bytes in v2_forms(method, path, "value \u{e9}") {
                let entry = Entry::decode(bytes).unwrap();
                assert!(matches!(entry.command, Command::V2(_)), "{method} {path}");
                assert_eq!(Entry::decode(entry.encode()).unwrap(), entry);
            }
        }
        let [whole, _] = v2_forms("GET", "/1/key", "");
        assert!(Entry::decode(whole).is_err(), "no etcd proposes that");
    }

    /// `depth` transactions, each inside the one before, with a put in the last.
    fn nested(depth: usize) -> Command {
        let op = |request| RequestOp { request: Some(request) };
        let put = PutRequest { key: "k".into(), ..PutRequest::default() };
        let compare = Compare { key: "k".into(), ..Compare::default() };
        let (compare, failure) = (vec![compare], vec![op(Op::RequestPut(put.clone()))]);
        let txn = TxnRequest { success: vec![op(Op::RequestPut(put))], ..TxnRequest::default() };
        let deep = (0..depth).fold(txn, |txn, _| TxnRequest {
            compare: compare.clone(),
            success: vec![op(Op::RequestTxn(Box::new(txn)))],
            failure: failure.clone(),
        });
        Command::Txn(deep)
    }

    #[test]
    fn transactions_come_back_as_deep_as_they_may_be() {
        for depth in [0, 48, 49, 50, 128, TXN_DEPTH_MAX] {
            let entry = Entry { header: RequestHeader::default(), command: nested(depth) };
            assert!(Entry::decode(entry.encode()).unwrap() == entry, "{depth}");
        }
        // A peer or a damaged disk may bring any bytes.
        let deep = Entry { header: RequestHeader::default(), command: nested(TXN_DEPTH_MAX + 1) };
        let error = Entry::decode(deep.encode()).unwrap_err().to_string();
        assert_eq!(error, "malformed log entry: transactions are nested too deep");
    }

    #[test]
    fn a_field_of_another_wire_type_is_ignored_as_in_etcd() {
        let put = PutRequest { key: "k".into(), ..Default::default() };
        let entry = Entry { header: RequestHeader::default(), command: Command::Put(put) };
        // A put whose lease is text.
        assert_eq!(
            Entry::decode(Bytes::from_static(b"\x22\x06\x0a\x01k\x1a\x01x")).unwrap(),
            entry
        );
    }

    #[test]
    fn malformed_entries_are_refused() {
        let command = Command::LeaseRevoke(LeaseRevokeRequest { id: 5 });
        let bytes = Entry { header: RequestHeader::default(), command }.encode();
        for cut in 0..bytes.len() {
            let decoded = Entry::decode(bytes.slice(..cut));
            assert!(decoded.is_err() || decoded.unwrap().header.id == 0);
        }
        let future = InternalRaftRequest {
            downgrade_version_test: Some(crate::pb::DowngradeVersionTestRequest::default()),
            ..Default::default()
        };
        let decoded = Entry::decode(future.encode_to_vec().into());
        assert!(matches!(decoded, Err(Error::Unknown(9900))));
    }
}
