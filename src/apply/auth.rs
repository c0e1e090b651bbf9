//! What a command demands of its caller, and how commands about users and roles are applied.

use bytes::Bytes;

use super::{Command, Entry, Error, LeaseAccess, Machine, Reply};
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

/// The moment at which a demand is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Proposed,
    Applied,
}

/// What a command demands of its caller at a stage. The match names every command, so a new one
/// does not compile without a line here. `Applied` demands exactly what etcd's apply does
/// (`apply_auth.go`), because all members must decide alike. What etcd checks before a proposal is
/// demanded at `Proposed`, a stage that the members' own proposals skip.
pub fn demand(command: &Command, stage: Stage) -> Demand {
    let is_applied = stage == Stage::Applied;
    let before = |proposed| if is_applied { Demand::Nothing } else { proposed };
    let at_apply = |applied| if is_applied { applied } else { Demand::Nothing };
    match command {
        Command::Put(_) | Command::DeleteRange(_) | Command::Txn(_) if !is_applied => {
            Demand::Nothing
        }
        Command::Put(put) => demand::put(put),
        Command::DeleteRange(delete) => demand::delete_range(delete),
        Command::Txn(txn) => demand::txn(txn),
        Command::LeaseRevoke(revoke) if is_applied => demand::lease_write(revoke.id),
        Command::LeaseRevoke(_) | Command::LeaseGrant(_) => before(Demand::AnyUser),
        Command::Alarm(alarm) if alarm.action == AlarmAction::Get as i32 => before(Demand::AnyUser),
        Command::Compaction(_) | Command::Alarm(_) => before(Demand::Root),
        // Only members propose these, so a client that does must be root.
        Command::LeaseCheckpoint(_)
        | Command::ClusterVersionSet(_)
        | Command::ClusterMemberAttrSet(_)
        | Command::DowngradeInfoSet(_)
        | Command::V2(_) => before(Demand::Root),
        // A login was proved by its password, and whether auth is on is no secret.
        Command::Authenticate(_) | Command::AuthStatus(_) => before(Demand::Nothing),
        // Also demanded before the proposal, because hashing a password is work that not every
        // caller may cause.
        Command::UserAdd(_) | Command::UserChangePassword(_) => Demand::Root,
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

impl LeaseKeys for LeaseAccess<'_> {
    fn has_all(&self, lease: Option<i64>, has: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        self.0.lock().keys_of(lease).all(has)
    }
}

impl Machine {
    /// Fails if the entry's caller may not have the command applied, as of the auth revision of the
    /// entry.
    pub(super) fn authorize(&self, entry: &Entry) -> Result<(), Error> {
        let auth = self.auth.read();
        if !auth.is_enabled() {
            return Ok(());
        }
        let caller = Caller::of_header(&entry.header.username, entry.header.auth_revision);
        let demand = demand(&entry.command, Stage::Applied);
        Ok(auth.check(&caller, &demand, &LeaseAccess(&self.lessor))?)
    }

    /// Notes the user of an entry that changes users, roles or auth, for the log.
    pub(super) fn note_caller(&self, entry: &Entry) {
        if matches!(
            entry.command,
            Command::AuthEnable(_)
                | Command::AuthDisable(_)
                | Command::UserAdd(_)
                | Command::UserDelete(_)
                | Command::UserChangePassword(_)
                | Command::UserGrantRole(_)
                | Command::UserRevokeRole(_)
                | Command::RoleAdd(_)
                | Command::RoleDelete(_)
                | Command::RoleGrantPermission(_)
                | Command::RoleRevokePermission(_)
        ) {
            self.auth.write().act_for(&entry.header.username);
        }
    }

    /// Applies the commands that turn auth on and off, logins, and AuthStatus. `dispatch` passes no
    /// other.
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

    /// Applies the commands about users. `dispatch` passes no other.
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

    /// Applies the commands about roles. `dispatch` passes no other.
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
