//! What a command demands of its caller, and the commands about users and roles.

use super::{Command, Entry, Error, LeaseDoor, Machine, Reply};
use crate::auth::{Caller, Demand, LeaseKeys, demand};
use crate::pb::alarm_request::AlarmAction;
use crate::pb::{
    AuthDisableResponse, AuthEnableResponse, AuthRoleAddResponse, AuthRoleDeleteResponse,
    AuthRoleGetResponse, AuthRoleGrantPermissionResponse, AuthRoleListResponse,
    AuthRoleRevokePermissionResponse, AuthStatusResponse, AuthUserAddResponse,
    AuthUserChangePasswordResponse, AuthUserDeleteResponse, AuthUserGetResponse,
    AuthUserGrantRoleResponse, AuthUserListResponse, AuthUserRevokeRoleResponse,
    AuthenticateResponse, InternalAuthenticateRequest,
};

/// What a command demands before it is proposed, and where it is applied.
#[derive(Debug, PartialEq, Eq)]
pub struct Demands {
    pub proposed: Demand,
    pub applied: Demand,
}

/// Every command stands here: without a line there is no new one. Where it is applied, a command
/// demands exactly what it does in etcd, since members must decide alike; what etcd asks earlier is
/// asked before the proposal, when the members' own proposals pass by.
pub fn demands(command: &Command, leases: &dyn LeaseKeys) -> Demands {
    let before = |proposed| Demands { proposed, applied: Demand::Nothing };
    let at_apply = |applied| Demands { proposed: Demand::Nothing, applied };
    match command {
        Command::Put(put) => at_apply(demand::put(put, leases)),
        Command::DeleteRange(delete) => at_apply(demand::delete_range(delete)),
        Command::Txn(txn) => at_apply(demand::txn(txn, leases)),
        Command::LeaseRevoke(revoke) => {
            Demands { proposed: Demand::Somebody, applied: demand::lease_revoke(revoke.id, leases) }
        }
        Command::LeaseGrant(_) => before(Demand::Somebody),
        Command::Alarm(alarm) if alarm.action == AlarmAction::Get as i32 => {
            before(Demand::Somebody)
        }
        Command::Compaction(_) | Command::Alarm(_) => before(Demand::Root),
        // Only members propose these.
        Command::LeaseCheckpoint(_)
        | Command::ClusterVersionSet(_)
        | Command::ClusterMemberAttrSet(_)
        | Command::DowngradeInfoSet(_) => before(Demand::Root),
        // The password was the proof, and whether there are users is no secret.
        Command::Authenticate(_) | Command::AuthStatus(_) => before(Demand::Nothing),
        // Hashing a password is work, so that it is not done for everybody who asks.
        Command::UserAdd(_) | Command::UserChangePassword(_) => {
            Demands { proposed: Demand::Root, applied: Demand::Root }
        }
        Command::UserGet(get) => at_apply(Demand::RootOrUser(get.name.clone())),
        Command::RoleGet(get) => at_apply(Demand::RootOrHolder(get.role.clone())),
        Command::AuthEnable(_)
        | Command::AuthDisable(_)
        | Command::UserDelete(_)
        | Command::UserGrantRole(_)
        | Command::UserRevokeRole(_)
        | Command::UserList(_)
        | Command::RoleList(_)
        | Command::RoleAdd(_)
        | Command::RoleDelete(_)
        | Command::RoleGrantPermission(_)
        | Command::RoleRevokePermission(_) => at_apply(Demand::Root),
    }
}

impl LeaseKeys for LeaseDoor<'_> {
    fn keys(&self, lease: i64) -> Vec<bytes::Bytes> {
        self.0.lock().keys(lease)
    }
}

impl Machine {
    /// Whether the entry's caller may have it applied.
    pub(super) fn authorize(&self, entry: &Entry) -> Result<(), Error> {
        if !self.auth.read().is_enabled() {
            return Ok(());
        }
        let caller = Caller::of_header(&entry.header.username, entry.header.auth_revision);
        // Leases are locked before users everywhere, so the demand comes first.
        let demand = demands(&entry.command, &LeaseDoor(&self.lessor)).applied;
        Ok(self.auth.read().check(&caller, &demand)?)
    }

    /// Turning it on and off, and logins. Dispatch sends no other command here.
    pub(super) fn apply_auth(&self, command: Command, index: u64) -> Result<Reply, Error> {
        let header = self.header();
        let mut auth = self.auth.write();
        Ok(match command {
            Command::AuthEnable(_) => {
                auth.enable()?;
                Reply::AuthEnable(AuthEnableResponse { header })
            }
            Command::AuthDisable(_) => {
                if auth.disable() {
                    self.tokens.forget_all();
                }
                Reply::AuthDisable(AuthDisableResponse { header })
            }
            Command::Authenticate(login) => {
                auth.authenticate(&login.name)?;
                let InternalAuthenticateRequest { name, simple_token, .. } = login;
                let token = self.tokens.assign(&name, &simple_token, index);
                Reply::Authenticate(AuthenticateResponse { header, token })
            }
            Command::AuthStatus(_) => Reply::AuthStatus(AuthStatusResponse {
                header,
                enabled: auth.is_enabled(),
                auth_revision: auth.revision(),
            }),
            _ => Reply::Done,
        })
    }

    /// Commands about users. Dispatch sends no other command here.
    pub(super) fn apply_user(&self, command: Command) -> Result<Reply, Error> {
        let header = self.header();
        let mut auth = self.auth.write();
        Ok(match command {
            Command::UserAdd(request) => {
                auth.user_add(request)?;
                Reply::UserAdd(AuthUserAddResponse { header })
            }
            Command::UserDelete(request) => {
                auth.user_delete(&request.name)?;
                self.tokens.forget_user(&request.name);
                Reply::UserDelete(AuthUserDeleteResponse { header })
            }
            Command::UserGet(request) => {
                let roles = auth.user_roles(&request.name)?;
                Reply::UserGet(AuthUserGetResponse { header, roles })
            }
            Command::UserChangePassword(request) => {
                auth.user_change_password(&request)?;
                self.tokens.forget_user(&request.name);
                Reply::UserChangePassword(AuthUserChangePasswordResponse { header })
            }
            Command::UserGrantRole(request) => {
                auth.user_grant_role(&request.user, &request.role)?;
                Reply::UserGrantRole(AuthUserGrantRoleResponse { header })
            }
            Command::UserRevokeRole(request) => {
                auth.user_revoke_role(&request.name, &request.role)?;
                Reply::UserRevokeRole(AuthUserRevokeRoleResponse { header })
            }
            Command::UserList(_) => {
                Reply::UserList(AuthUserListResponse { header, users: auth.users() })
            }
            _ => Reply::Done,
        })
    }

    /// Commands about roles. Dispatch sends no other command here.
    pub(super) fn apply_role(&self, command: Command) -> Result<Reply, Error> {
        let header = self.header();
        let mut auth = self.auth.write();
        Ok(match command {
            Command::RoleList(_) => {
                Reply::RoleList(AuthRoleListResponse { header, roles: auth.roles() })
            }
            Command::RoleAdd(request) => {
                auth.role_add(&request.name)?;
                Reply::RoleAdd(AuthRoleAddResponse { header })
            }
            Command::RoleDelete(request) => {
                auth.role_delete(&request.role)?;
                Reply::RoleDelete(AuthRoleDeleteResponse { header })
            }
            Command::RoleGet(request) => {
                let perm = auth.role_permissions(&request.role)?;
                Reply::RoleGet(AuthRoleGetResponse { header, perm })
            }
            Command::RoleGrantPermission(request) => {
                auth.role_grant_permission(request)?;
                Reply::RoleGrantPermission(AuthRoleGrantPermissionResponse { header })
            }
            Command::RoleRevokePermission(request) => {
                auth.role_revoke_permission(&request)?;
                Reply::RoleRevokePermission(AuthRoleRevokePermissionResponse { header })
            }
            _ => Reply::Done,
        })
    }
}
