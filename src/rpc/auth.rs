//! Auth: users, roles and logins, and the credentials that each call comes with.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderName};
use http::request::Parts;
use tonic::Status;

use super::Server;
use super::error::status;
use super::kv::propose;
use crate::auth::{Credentials, Demand};
use crate::node::{Op, Reply};
use crate::pb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse,
    AuthRoleAddRequest, AuthRoleAddResponse, AuthRoleDeleteRequest, AuthRoleDeleteResponse,
    AuthRoleGetRequest, AuthRoleGetResponse, AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse, AuthRoleListRequest, AuthRoleListResponse,
    AuthRoleRevokePermissionRequest, AuthRoleRevokePermissionResponse, AuthStatusRequest,
    AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse, AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse, AuthUserDeleteRequest, AuthUserDeleteResponse,
    AuthUserGetRequest, AuthUserGetResponse, AuthUserGrantRoleRequest, AuthUserGrantRoleResponse,
    AuthUserListRequest, AuthUserListResponse, AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse, AuthenticateRequest, AuthenticateResponse,
};
use crate::trace::Context;

const TOKEN: HeaderName = HeaderName::from_static("token");
const BEARER: &[u8] = b"Bearer ";
/// Header that grpc-gateway adds to what it forwards. The certificate of such a connection is the
/// proxy's own, so its common name names no user (`AuthInfoFromTLS` in etcd's
/// server/auth/store.go).
const GATEWAY: HeaderName = HeaderName::from_static("grpcgateway-accept");

/// Extension of a request: the common name of the client certificate that was verified in the
/// connection's handshake. `server` adds it where certificates name users.
#[derive(Clone, Debug)]
pub struct CommonName(pub Arc<str>);

/// The credentials of a call: the token in the metadata `token`, or else in `authorization`, and
/// the common name of the client's certificate. Nothing is verified here.
fn credentials(parts: &Parts) -> Credentials {
    let token = parts.headers.get(TOKEN).or_else(|| parts.headers.get(AUTHORIZATION));
    let name = parts.extensions.get::<CommonName>().map(|CommonName(name)| name.to_string());
    let name = name.filter(|name| {
        let is_gateway = parts.headers.contains_key(GATEWAY);
        if is_gateway && token.is_none() {
            tracing::warn!(
                "common-name" = name,
                "ignoring common name in gRPC-gateway proxy request"
            );
        }
        !is_gateway
    });
    Credentials::token(token.map(|value| {
        let bytes = value.as_bytes();
        Bytes::copy_from_slice(bytes.strip_prefix(BEARER).unwrap_or(bytes))
    }))
    .with_common_name(name)
}

macro_rules! handlers {
    ($($handler:ident $kind:ident($request:ty) -> $response:ty;)*) => {
        $(pub(super) async fn $handler(
            self: Arc<Self>,
            who: Credentials,
            request: $request,
        ) -> Result<$response, Status> {
            propose!(self, &who, $kind, request)
        })*
    };
}

impl Server {
    /// The user that a call is from, for the log.
    pub(super) fn user_of(&self, parts: &Parts) -> Option<String> {
        self.node.user_of(&credentials(parts))
    }

    /// Reads the credentials of the call with this span, and fails unless the caller meets the
    /// demand of its method.
    pub(super) async fn identify(
        &self,
        parts: &Parts,
        demand: &Demand,
        span: Context,
    ) -> Result<Credentials, Status> {
        let who = credentials(parts).within(span);
        if *demand != Demand::Nothing {
            self.node.permits(&who, demand).await.map_err(status)?;
        }
        Ok(who)
    }

    pub(super) async fn authenticate(
        self: Arc<Self>,
        who: Credentials,
        request: AuthenticateRequest,
    ) -> Result<AuthenticateResponse, Status> {
        self.node.authenticate(who.span(), request).await.map_err(status)
    }

    handlers! {
        auth_enable AuthEnable(AuthEnableRequest) -> AuthEnableResponse;
        auth_disable AuthDisable(AuthDisableRequest) -> AuthDisableResponse;
        auth_status AuthStatus(AuthStatusRequest) -> AuthStatusResponse;
        user_add UserAdd(AuthUserAddRequest) -> AuthUserAddResponse;
        user_get UserGet(AuthUserGetRequest) -> AuthUserGetResponse;
        user_list UserList(AuthUserListRequest) -> AuthUserListResponse;
        user_delete UserDelete(AuthUserDeleteRequest) -> AuthUserDeleteResponse;
        user_change_password UserChangePassword
            (AuthUserChangePasswordRequest) -> AuthUserChangePasswordResponse;
        user_grant_role UserGrantRole
            (AuthUserGrantRoleRequest) -> AuthUserGrantRoleResponse;
        user_revoke_role UserRevokeRole
            (AuthUserRevokeRoleRequest) -> AuthUserRevokeRoleResponse;
        role_add RoleAdd(AuthRoleAddRequest) -> AuthRoleAddResponse;
        role_get RoleGet(AuthRoleGetRequest) -> AuthRoleGetResponse;
        role_list RoleList(AuthRoleListRequest) -> AuthRoleListResponse;
        role_delete RoleDelete(AuthRoleDeleteRequest) -> AuthRoleDeleteResponse;
        role_grant_permission RoleGrantPermission
            (AuthRoleGrantPermissionRequest) -> AuthRoleGrantPermissionResponse;
        role_revoke_permission RoleRevokePermission
            (AuthRoleRevokePermissionRequest) -> AuthRoleRevokePermissionResponse;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_from_either_field() {
        let of = |fields: &[(&str, &str)]| {
            let mut request = http::Request::builder();
            for (name, value) in fields {
                request = request.header(*name, *value);
            }
            credentials(&request.body(()).unwrap().into_parts().0)
        };
        let of = |fields: &[(&str, &str)]| of(fields).presented_token().cloned();
        let token = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("authorization", "Bearer a.1")]), token("a.1"));
        assert_eq!(of(&[("authorization", "b"), ("token", "Bearer a.1")]), token("a.1"));
        assert_eq!(of(&[("token", "bearer a.1")]), token("bearer a.1"));
        assert_eq!(of(&[("token", "")]), token(""));
    }

    #[test]
    fn a_gateways_certificate_is_nobodys_name() {
        let of = |field: &str| {
            let request = http::Request::builder().header(field, "x");
            let request = request.extension(CommonName("root".into()));
            credentials(&request.body(()).unwrap().into_parts().0)
        };
        assert_eq!(of("user-agent").presented_name(), Some("root"));
        assert_eq!(of("grpcgateway-accept").presented_name(), None);
    }
}
