//! What a log entry asks for: etcd's `InternalRaftRequest`, one command at a time.
//!
//! The generated message has a field for each of some thirty requests; a [`Command`] holds only the
//! one that is set, so decoding and moving it costs less. The bytes are etcd's.
//!
//! One list names each command once: its field in etcd's message, its request, and its response if
//! a client gets one. [`Command`], [`Reply`] and everything that treats all commands alike are made
//! from that list.

use bytes::{Bytes, BytesMut};
use prost::Message as _;

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
    PutRequest, Request, ResponseHeader, TxnRequest,
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("malformed log entry: {0}")]
    Malformed(#[from] prost::DecodeError),
    #[error("malformed log entry: {0}")]
    Request(#[from] Malformed),
    #[error("malformed log entry: a field reaches beyond its end")]
    Truncated,
    /// A newer release added this request: the member cannot apply the entry and has to stop.
    #[error("log entry holds request {0}, which this version does not know")]
    Unknown(u32),
    #[error("log entry holds no request")]
    Empty,
    #[error("log entry holds a request of API v2 for {path} that cannot be understood: {what}")]
    V2 { path: String, what: String },
}

/// The field of a transaction, which is encoded and decoded apart because it may be nested.
const TXN: u32 = 6;
/// The field of a request of API v2.
pub(super) const V2: u32 = 2;

macro_rules! commands {
    ($($field:literal $name:ident($request:ty) $(-> $response:ty)?,)*) => {
        #[derive(Clone, Debug, PartialEq)]
        pub enum Command {
            $($name($request),)*
            /// A request of API v2 from an etcd up to 3.5, about keys of the removed v2 store.
            /// Applying it changes nothing.
            V2(Request),
        }

        /// Replies, with the revision in their headers.
        #[derive(Clone, Debug)]
        pub enum Reply {
            $($($name($response),)?)*
            /// The members after a configuration change.
            Members(Vec<Member>),
            /// The reply to requests that members make themselves.
            Done,
        }

        impl Reply {
            /// The header of the response; None for replies without one.
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

        impl Reply {
            /// Encoded size of the response in bytes; None for replies without one.
            pub fn response_len(&self) -> Option<usize> {
                match self {
                    $($(Self::$name(response) => {
                        let response: &$response = response;
                        Some(response.encoded_len())
                    })?)*
                    Self::Members(_) | Self::Done => None,
                }
            }
        }

        impl Command {
            /// The command's label in metrics; None if it is not counted.
            pub fn operation(&self) -> Option<Operation> {
                match self {
                    $(Self::$name(_) => Some(Operation::$name),)*
                    Self::V2(_) => None,
                }
            }

            pub(super) fn field(&self) -> u32 {
                match self {
                    $(Self::$name(_) => $field,)*
                    Self::V2(_) => V2,
                }
            }

            /// Encoded size of the request in bytes, without the entry's header.
            pub(super) fn request_len(&self) -> usize {
                match self {
                    $(Self::$name(request) => request.encoded_len(),)*
                    Self::V2(request) => request.encoded_len(),
                }
            }

            pub(super) fn encode_request(&self, out: &mut BytesMut) -> Result<(), prost::EncodeError> {
                if let Self::Txn(txn) = self {
                    nested::encode(txn, out);
                    return Ok(());
                }
                match self {
                    $(Self::$name(request) => request.encode(out),)*
                    Self::V2(request) => request.encode(out),
                }
            }

            pub(super) fn decode_request(field: u32, bytes: Bytes) -> Result<Self, Error> {
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
    // The reply holds a simple token; a JWT is signed by the member that answers.
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
    /// Bytes of the key-value pairs in the reply, the only part that can be large.
    pub fn pair_bytes(&self) -> usize {
        match self {
            Self::Put(response) => response.prev_kv.as_ref().map_or(0, Bytes::len),
            Self::DeleteRange(response) => response.prev_kvs.iter().map(Bytes::len).sum(),
            Self::Txn(response) => response.encoded_len(),
            _ => 0,
        }
    }
}
