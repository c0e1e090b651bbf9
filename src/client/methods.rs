//! Every method of etcd's API that the client calls: path, messages, and whether a call that failed
//! as unavailable may be repeated.

use std::marker::PhantomData;

/// One gRPC method.
pub struct Method<Request, Response> {
    pub path: &'static str,
    /// Whether a call that may have been executed is sent again. True for reads and, as in etcd's
    /// client, for lease grants and revocations: a repeated grant without an id may leave a second
    /// lease behind, which expires by itself.
    pub repeatable: bool,
    types: PhantomData<fn(Request) -> Response>,
}

impl<Request, Response> Method<Request, Response> {
    const fn once(path: &'static str) -> Self {
        Self { path, repeatable: false, types: PhantomData }
    }

    const fn repeatable(path: &'static str) -> Self {
        Self { path, repeatable: true, types: PhantomData }
    }
}

/// The table of methods.
pub mod rpc {
    use super::Method;
    use crate::pb::*;

    macro_rules! methods {
        ($($name:ident = $kind:ident $path:literal ($request:ty) -> $response:ty;)*) => {
            $(pub const $name: Method<$request, $response> =
                Method::$kind(concat!("/etcdserverpb.", $path));)*
        };
    }

    /// rusd's own method: what takes up the bytes of a member's store.
    pub const SPACE: Method<rusdpb::SpaceRequest, rusdpb::SpaceResponse> =
        Method::repeatable("/rusdpb.Space/Report");

    methods! {
        RANGE = repeatable "KV/Range" (RangeRequest) -> RangeResponse;
        RANGE_STREAM = once "KV/RangeStream" (RangeRequest) -> RangeStreamResponse;
        PUT = once "KV/Put" (PutRequest) -> PutResponse;
        DELETE_RANGE = once "KV/DeleteRange" (DeleteRangeRequest) -> DeleteRangeResponse;
        TXN = once "KV/Txn" (TxnRequest) -> TxnResponse;
        // Only for transactions whose operations are all reads.
        TXN_READ = repeatable "KV/Txn" (TxnRequest) -> TxnResponse;
        COMPACT = once "KV/Compact" (CompactionRequest) -> CompactionResponse;

        WATCH = once "Watch/Watch" (WatchRequest) -> WatchResponse;

        LEASE_GRANT = repeatable "Lease/LeaseGrant" (LeaseGrantRequest) -> LeaseGrantResponse;
        LEASE_REVOKE = repeatable "Lease/LeaseRevoke" (LeaseRevokeRequest) -> LeaseRevokeResponse;
        LEASE_KEEP_ALIVE = once "Lease/LeaseKeepAlive"
            (LeaseKeepAliveRequest) -> LeaseKeepAliveResponse;
        LEASE_TIME_TO_LIVE = repeatable "Lease/LeaseTimeToLive"
            (LeaseTimeToLiveRequest) -> LeaseTimeToLiveResponse;
        LEASE_LEASES = repeatable "Lease/LeaseLeases" (LeaseLeasesRequest) -> LeaseLeasesResponse;

        MEMBER_ADD = once "Cluster/MemberAdd" (MemberAddRequest) -> MemberAddResponse;
        MEMBER_REMOVE = once "Cluster/MemberRemove" (MemberRemoveRequest) -> MemberRemoveResponse;
        MEMBER_UPDATE = once "Cluster/MemberUpdate" (MemberUpdateRequest) -> MemberUpdateResponse;
        MEMBER_LIST = repeatable "Cluster/MemberList" (MemberListRequest) -> MemberListResponse;
        MEMBER_PROMOTE = once "Cluster/MemberPromote"
            (MemberPromoteRequest) -> MemberPromoteResponse;

        // One RPC, two rows: listing alarms may be repeated, raising and disarming them may not.
        ALARM_LIST = repeatable "Maintenance/Alarm" (AlarmRequest) -> AlarmResponse;
        ALARM = once "Maintenance/Alarm" (AlarmRequest) -> AlarmResponse;
        STATUS = repeatable "Maintenance/Status" (StatusRequest) -> StatusResponse;
        DEFRAGMENT = once "Maintenance/Defragment" (DefragmentRequest) -> DefragmentResponse;
        HASH_KV = repeatable "Maintenance/HashKV" (HashKvRequest) -> HashKvResponse;
        SNAPSHOT = once "Maintenance/Snapshot" (SnapshotRequest) -> SnapshotResponse;
        MOVE_LEADER = repeatable "Maintenance/MoveLeader" (MoveLeaderRequest) -> MoveLeaderResponse;
        DOWNGRADE = once "Maintenance/Downgrade" (DowngradeRequest) -> DowngradeResponse;

        AUTHENTICATE = once "Auth/Authenticate" (AuthenticateRequest) -> AuthenticateResponse;
        AUTH_ENABLE = once "Auth/AuthEnable" (AuthEnableRequest) -> AuthEnableResponse;
        AUTH_DISABLE = once "Auth/AuthDisable" (AuthDisableRequest) -> AuthDisableResponse;
        AUTH_STATUS = once "Auth/AuthStatus" (AuthStatusRequest) -> AuthStatusResponse;
        USER_ADD = once "Auth/UserAdd" (AuthUserAddRequest) -> AuthUserAddResponse;
        USER_GET = repeatable "Auth/UserGet" (AuthUserGetRequest) -> AuthUserGetResponse;
        USER_LIST = repeatable "Auth/UserList" (AuthUserListRequest) -> AuthUserListResponse;
        USER_DELETE = once "Auth/UserDelete" (AuthUserDeleteRequest) -> AuthUserDeleteResponse;
        USER_CHANGE_PASSWORD = once "Auth/UserChangePassword"
            (AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse;
        USER_GRANT_ROLE = once "Auth/UserGrantRole"
            (AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse;
        USER_REVOKE_ROLE = once "Auth/UserRevokeRole"
            (AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse;
        ROLE_ADD = once "Auth/RoleAdd" (AuthRoleAddRequest) -> AuthRoleAddResponse;
        ROLE_GET = repeatable "Auth/RoleGet" (AuthRoleGetRequest) -> AuthRoleGetResponse;
        ROLE_LIST = repeatable "Auth/RoleList" (AuthRoleListRequest) -> AuthRoleListResponse;
        ROLE_DELETE = once "Auth/RoleDelete" (AuthRoleDeleteRequest) -> AuthRoleDeleteResponse;
        ROLE_GRANT_PERMISSION = once "Auth/RoleGrantPermission"
            (AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse;
        ROLE_REVOKE_PERMISSION = once "Auth/RoleRevokePermission"
            (AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse;
    }
}
