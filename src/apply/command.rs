//! What a log entry asks for: etcd's `InternalRaftRequest`, one command at a time.
//!
//! The generated message has a field for each of some thirty requests; this form holds the one
//! that is set, and costs what that one costs. The bytes are etcd's.
//!
//! One list names each command once: its field in etcd's message, its request, and its response if
//! a client gets one. [`Command`], [`Reply`] and all that treats each kind alike come from it.

use bytes::{Buf, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{WireType, decode_key, decode_varint, encode_key, encode_varint};

use super::v2;
use crate::limits::TXN_DEPTH_MAX;
use crate::metrics::Operation;
use crate::pb::membershippb::{
    ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};
use crate::pb::nested;
use crate::pb::raw::{DeleteRangeResponse, PutResponse, TxnResponse};
use crate::pb::tolerant::{self, Below, Malformed};
use crate::pb::{
    AlarmRequest, AlarmResponse, AuthDisableRequest, AuthDisableResponse, AuthEnableRequest,
    AuthEnableResponse, AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest,
    AuthRoleDeleteResponse, AuthRoleGetRequest, AuthRoleGetResponse,
    AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse, AuthRoleListRequest,
    AuthRoleListResponse, AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse,
    AuthStatusRequest, AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse,
    AuthUserChangePasswordRequest, AuthUserChangePasswordResponse, AuthUserDeleteRequest,
    AuthUserDeleteResponse, AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest,
    AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
    AuthUserRevokeRoleRequest, AuthUserRevokeRoleResponse, AuthenticateResponse, CompactionRequest,
    CompactionResponse, DeleteRangeRequest, InternalAuthenticateRequest, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, Member,
    PutRequest, Request, RequestHeader, ResponseHeader, TxnRequest,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("malformed log entry: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("malformed log entry: {0}")]
    Request(#[from] Malformed),
    #[error("malformed log entry: a field reaches beyond its end")]
    Truncated,
    /// The entry holds a request that this version does not know.
    #[error("log entry holds request {0}, which this version does not know")]
    Unknown(u32),
    #[error("log entry holds no request")]
    Empty,
    #[error("log entry holds a request of API v2 for {path} that cannot be understood: {what}")]
    V2 { path: String, what: String },
}

const HEADER: u32 = 100;
/// Transactions may be nested.
const TXN: u32 = 6;
/// Field 1 holds the request's id in entries of old versions.
const ID: u32 = 1;
/// Field 2 holds a request of API v2.
const V2: u32 = 2;

macro_rules! commands {
    ($($field:literal $name:ident($request:ty) $(-> $response:ty)?,)*) => {
        #[derive(Clone, Debug, PartialEq)]
        pub enum Command {
            $($name($request),)*
            /// Of an etcd up to 3.5, about keys that nobody serves any more. It changes nothing.
            V2(Request),
        }

        /// Answers, with the revision in their headers.
        #[derive(Clone, Debug)]
        pub enum Reply {
            $($($name($response),)?)*
            /// The members after a change.
            Members(Vec<Member>),
            /// Of requests that members make themselves.
            Done,
        }

        impl Reply {
            /// The header, in replies that have one.
            pub fn header_mut(&mut self) -> Option<&mut Option<ResponseHeader>> {
                match self {
                    $($(Self::$name(response) => {
                        let response: &mut $response = response;
                        Some(&mut response.header)
                    })?)*
                    Self::Members(_) | Self::Done => None,
                }
            }
        }

        impl Command {
            /// How metrics name it, if they count it.
            pub fn operation(&self) -> Option<Operation> {
                match self {
                    $(Self::$name(_) => Some(Operation::$name),)*
                    Self::V2(_) => None,
                }
            }

            fn field(&self) -> u32 {
                match self {
                    $(Self::$name(_) => $field,)*
                    Self::V2(_) => V2,
                }
            }

            /// Size of the request itself.
            pub fn request_len(&self) -> usize {
                match self {
                    $(Self::$name(request) => request.encoded_len(),)*
                    Self::V2(request) => request.encoded_len(),
                }
            }

            fn encode_request(&self, out: &mut BytesMut) -> Result<(), prost::EncodeError> {
                if let Self::Txn(txn) = self {
                    nested::encode(txn, out);
                    return Ok(());
                }
                match self {
                    $(Self::$name(request) => request.encode(out),)*
                    Self::V2(request) => request.encode(out),
                }
            }

            fn decode_request(field: u32, bytes: Bytes) -> Result<Self, Error> {
                if field == TXN {
                    let txn = tolerant::transaction(bytes, TXN_DEPTH_MAX, Below::Refused)?;
                    return Ok(Self::Txn(txn));
                }
                Ok(match field {
                    $($field => Self::$name(tolerant::message(bytes)?),)*
                    _ => return Err(Error::Unknown(field)),
                })
            }
        }
    };
}

commands! {
    4 Put(PutRequest) -> PutResponse,
    5 DeleteRange(DeleteRangeRequest) -> DeleteRangeResponse,
    6 Txn(TxnRequest) -> TxnResponse,
    7 Compaction(CompactionRequest) -> CompactionResponse,
    8 LeaseGrant(LeaseGrantRequest) -> LeaseGrantResponse,
    9 LeaseRevoke(LeaseRevokeRequest) -> LeaseRevokeResponse,
    10 Alarm(AlarmRequest) -> AlarmResponse,
    11 LeaseCheckpoint(LeaseCheckpointRequest),
    1000 AuthEnable(AuthEnableRequest) -> AuthEnableResponse,
    1011 AuthDisable(AuthDisableRequest) -> AuthDisableResponse,
    // With a simple token; others are made by the member that answers.
    1012 Authenticate(InternalAuthenticateRequest) -> AuthenticateResponse,
    1013 AuthStatus(AuthStatusRequest) -> AuthStatusResponse,
    1100 UserAdd(AuthUserAddRequest) -> AuthUserAddResponse,
    1101 UserDelete(AuthUserDeleteRequest) -> AuthUserDeleteResponse,
    1102 UserGet(AuthUserGetRequest) -> AuthUserGetResponse,
    1103 UserChangePassword(AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse,
    1104 UserGrantRole(AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse,
    1105 UserRevokeRole(AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse,
    1106 UserList(AuthUserListRequest) -> AuthUserListResponse,
    1107 RoleList(AuthRoleListRequest) -> AuthRoleListResponse,
    1200 RoleAdd(AuthRoleAddRequest) -> AuthRoleAddResponse,
    1201 RoleDelete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse,
    1202 RoleGet(AuthRoleGetRequest) -> AuthRoleGetResponse,
    1203 RoleGrantPermission(AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse,
    1204 RoleRevokePermission(AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse,
    1300 ClusterVersionSet(ClusterVersionSetRequest),
    1301 ClusterMemberAttrSet(ClusterMemberAttrSetRequest),
    1302 DowngradeInfoSet(DowngradeInfoSetRequest),
}

impl Reply {
    /// Bytes of the pairs in it, which are all that can be large.
    pub fn pair_bytes(&self) -> usize {
        match self {
            Self::Put(response) => response.prev_kv.as_ref().map_or(0, Bytes::len),
            Self::DeleteRange(response) => response.prev_kvs.iter().map(Bytes::len).sum(),
            Self::Txn(response) => response.encoded_len(),
            _ => 0,
        }
    }
}

/// A command with the id under which its proposer waits for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub header: RequestHeader,
    pub command: Command,
}

impl Entry {
    /// The entry's bytes in the log, fields ascending as etcd writes them.
    pub fn encode(&self) -> Bytes {
        let (header, request) = (self.header.encoded_len(), self.command.request_len());
        // Two keys and two lengths of at most five bytes each.
        let mut out = BytesMut::with_capacity(header + request + 20);
        let field = self.command.field();
        if field > HEADER {
            self.put_header(&mut out, header);
        }
        encode_key(field, WireType::LengthDelimited, &mut out);
        encode_varint(request as u64, &mut out);
        // BytesMut grows, so encoding cannot fail.
        let _ = self.command.encode_request(&mut out);
        if field < HEADER {
            self.put_header(&mut out, header);
        }
        out.freeze()
    }

    fn put_header(&self, out: &mut BytesMut, len: usize) {
        encode_key(HEADER, WireType::LengthDelimited, out);
        encode_varint(len as u64, out);
        let _ = self.header.encode(out);
    }

    /// An entry that is no such message may be one of before there were any, as etcd reads it.
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
    use crate::pb::request_op::Request as Op;
    use crate::pb::{Compare, InternalRaftRequest, RequestOp};

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

    /// Both forms in which etcd up to 3.5 has them.
    fn v2_forms(method: &str, path: &str, val: &str) -> [Bytes; 2] {
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let (method, path, val) = (text(method), text(path), text(val));
        let request = Request { id: 77, method, path, val, ..Request::default() };
        // etcd writes fields that are not set, too.
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

    /// A transaction with so many in it, each in the other, and a put in the last.
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
        // A peer or a damaged disk may show any.
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
