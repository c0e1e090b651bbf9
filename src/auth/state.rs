//! Users and roles as the log makes them, and the decision about demands.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message;

use super::demand::{Access, Demand, LeaseKeys};
use super::ranges::Ranges;
use super::{Caller, Error, ROOT};
use crate::limits;
use crate::pb::authpb::permission::Type;
use crate::pb::authpb::{Permission, Role, User, UserAddOptions};
use crate::pb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, loggable,
};
use crate::store::{self, Bucket, Store, schema};
use crate::types::KeyRange;

/// The auth revision of a store in which users and roles never changed, etcd's.
const FIRST_REVISION: u64 = 1;

#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("{table}: malformed {what} in the store")]
    Value { table: &'static str, what: String },
}

fn malformed(bucket: Bucket, what: impl ToString) -> Malformed {
    Malformed::Value { table: bucket.name(), what: what.to_string() }
}

/// The union of what a user's roles grant.
#[derive(Debug, Default)]
struct Grants {
    is_root: bool,
    read: Ranges,
    write: Ranges,
}

/// Users, roles and whether auth is on. Changed on the apply thread, together with the store.
pub struct Auth {
    store: Arc<Store>,
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
    /// By user name.
    grants: HashMap<String, Grants>,
    /// The user whose command is applied, for the log alone.
    caller: String,
}

impl Auth {
    /// Names the user whose command is applied next, so that the log can say who changed what.
    pub fn act_for(&mut self, caller: &str) {
        caller.clone_into(&mut self.caller);
    }

    /// That user; None while auth is off.
    fn by(&self) -> Option<String> {
        (!self.caller.is_empty()).then(|| loggable::name(&self.caller).to_string())
    }

    pub fn load(store: Arc<Store>) -> Result<Self, Malformed> {
        let enabled = store.bucket_get(Bucket::Auth, schema::AUTH_ENABLED)?;
        let revision = match store.bucket_get(Bucket::Auth, schema::AUTH_REVISION)? {
            None => FIRST_REVISION,
            Some(bytes) => {
                let bytes: Result<[u8; 8], _> = bytes.as_slice().try_into();
                u64::from_be_bytes(bytes.map_err(|_| malformed(Bucket::Auth, "authRevision"))?)
            }
        };
        let mut users = BTreeMap::new();
        for (key, value) in store.bucket_iter(Bucket::AuthUsers)? {
            let name =
                String::from_utf8(key).map_err(|error| malformed(Bucket::AuthUsers, error))?;
            let user = User::decode(value.as_slice());
            users.insert(name, user.map_err(|error| malformed(Bucket::AuthUsers, error))?);
        }
        let mut roles = BTreeMap::new();
        for (key, value) in store.bucket_iter(Bucket::AuthRoles)? {
            let name =
                String::from_utf8(key).map_err(|error| malformed(Bucket::AuthRoles, error))?;
            let role = Role::decode(value.as_slice());
            roles.insert(name, role.map_err(|error| malformed(Bucket::AuthRoles, error))?);
        }
        let enabled = enabled.as_deref() == Some(&[1]);
        let names: Vec<String> = users.keys().cloned().collect();
        let (grants, caller) = (HashMap::new(), String::new());
        let mut auth = Self { store, enabled, revision, users, roles, grants, caller };
        names.iter().for_each(|name| auth.refresh(name));
        Ok(auth)
    }

    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Decides whether the caller satisfies the demand. The server's only decision about rights.
    pub fn check(
        &self,
        caller: &Caller,
        demand: &Demand,
        leases: &dyn LeaseKeys,
    ) -> Result<(), Error> {
        if !self.enabled {
            return Ok(());
        }
        match demand {
            Demand::Nothing => Ok(()),
            Demand::AnyUser if caller.0.is_none() => Err(Error::UserEmpty),
            Demand::AnyUser => Ok(()),
            Demand::Root => self.check_root(caller),
            Demand::Keys(accesses) => self.check_keys(caller, accesses, leases),
            Demand::RootOrKeys(accesses) => match self.check_root(caller) {
                Ok(()) => Ok(()),
                Err(_) => self.check_keys(caller, accesses, leases),
            },
            Demand::RootOrUser(name) => match self.check_root(caller) {
                Err(_) if caller.header().0 == name => Ok(()),
                result => result,
            },
            Demand::RootOrHolder(role) => match self.check_root(caller) {
                Err(_) if self.holds(caller.header().0, role) => Ok(()),
                result => result,
            },
        }
    }

    fn check_root(&self, caller: &Caller) -> Result<(), Error> {
        let (name, _) = caller.header();
        if name.is_empty() {
            return Err(Error::UserEmpty);
        }
        match self.grants.get(name) {
            None => Err(Error::UserNotFound),
            Some(grants) if grants.is_root => Ok(()),
            Some(_) => Err(Error::PermissionDenied),
        }
    }

    /// Checks all accesses. A demand without any key is satisfied by every caller, as in etcd.
    fn check_keys(
        &self,
        caller: &Caller,
        accesses: &[Access],
        leases: &dyn LeaseKeys,
    ) -> Result<(), Error> {
        let grants = self.grants_of(caller);
        if grants.is_ok_and(|grants| grants.is_root) {
            return Ok(());
        }
        let (read, write) = match grants {
            Ok(grants) => (Some(&grants.read), Some(&grants.write)),
            Err(_) => (None, None),
        };
        let is_granted = |access: &Access| match access {
            Access::Read(range) => read.is_some_and(|read| read.cover(range)),
            Access::Write(range) => write.is_some_and(|write| write.cover(range)),
            Access::WriteOnLease(lease) => leases
                .has_all(Some(*lease), &mut |key| write.is_some_and(|write| write.cover_key(key))),
            Access::ReadOnLeases => {
                leases.has_all(None, &mut |key| read.is_some_and(|read| read.cover_key(key)))
            }
        };
        match accesses.iter().all(is_granted) {
            true => Ok(()),
            false => Err(grants.err().unwrap_or(Error::PermissionDenied)),
        }
    }

    fn grants_of(&self, caller: &Caller) -> Result<&Grants, Error> {
        let (name, revision) = caller.header();
        if revision == 0 {
            return Err(Error::UserEmpty);
        }
        if revision < self.revision {
            return Err(Error::OldRevision);
        }
        self.grants.get(name).ok_or(Error::PermissionDenied)
    }

    fn holds(&self, name: &str, role: &str) -> bool {
        self.users.get(name).is_some_and(|user| user.roles.iter().any(|held| held == role))
    }

    /// The stored hash of a user's password, and the current auth revision.
    pub fn password_hash(&self, name: &str) -> Result<(Bytes, u64), Error> {
        if !self.enabled {
            return Err(Error::AuthNotEnabled);
        }
        let user = self.users.get(name).ok_or(Error::AuthFailed)?;
        if has_no_password(user) {
            return Err(Error::NoPasswordUser);
        }
        Ok((user.password.clone(), self.revision))
    }

    /// Whether a user whose password was compared before may be given a token now.
    pub fn authenticate(&self, name: &str) -> Result<(), Error> {
        if !self.enabled {
            return Err(Error::AuthNotEnabled);
        }
        match self.users.get(name) {
            Some(user) if !has_no_password(user) => Ok(()),
            _ => Err(Error::AuthFailed),
        }
    }

    /// Turns auth on. True if it was off; an error if there is no user root with the role root.
    pub fn enable(&mut self) -> Result<bool, Error> {
        if self.enabled {
            tracing::info!("authentication is already enabled; ignored auth enable request");
            return Ok(false);
        }
        let root = self.users.get(ROOT).ok_or(Error::RootUserNotExist)?;
        if !root.roles.iter().any(|role| role == ROOT) {
            return Err(Error::RootRoleNotExist);
        }
        self.set_enabled(true);
        tracing::info!("rusd.by" = self.by(), "enabled authentication");
        Ok(true)
    }

    /// Turns auth off. True if it was on.
    pub fn disable(&mut self) -> bool {
        if !self.enabled {
            return false;
        }
        self.set_enabled(false);
        self.commit_revision();
        tracing::info!("rusd.by" = self.by(), "disabled authentication");
        true
    }

    fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
        let value = vec![u8::from(enabled)];
        self.store.put(Bucket::Auth, schema::AUTH_ENABLED.to_vec(), value);
    }

    fn commit_revision(&mut self) {
        self.revision += 1;
        let value = self.revision.to_be_bytes().to_vec();
        self.store.put(Bucket::Auth, schema::AUTH_REVISION.to_vec(), value);
    }

    pub fn user_add(&mut self, request: AuthUserAddRequest) -> Result<(), Error> {
        let AuthUserAddRequest { name, options, hashed_password, .. } = request;
        if name.is_empty() {
            return Err(Error::UserEmpty);
        }
        if self.users.contains_key(&name) {
            return Err(Error::UserAlreadyExist);
        }
        let options = options.unwrap_or(UserAddOptions { no_password: false });
        let password = match options.no_password {
            true => Bytes::new(),
            false => stored_password(&hashed_password)?,
        };
        let user = User {
            name: name.clone().into_bytes().into(),
            password,
            roles: Vec::new(),
            options: Some(options),
        };
        tracing::info!("rusd.by" = self.by(), "user-name" = loggable::name(&name), "added a user");
        self.put_user(name, user);
        self.commit_revision();
        Ok(())
    }

    pub fn user_delete(&mut self, name: &str) -> Result<(), Error> {
        if self.enabled && name == ROOT {
            tracing::error!(
                "rusd.by" = self.by(),
                "user-name" = loggable::name(name),
                "cannot delete 'root' user"
            );
            return Err(Error::InvalidManagement);
        }
        let user = self.users.remove(name).ok_or(Error::UserNotFound)?;
        self.grants.remove(name);
        self.store.delete(Bucket::AuthUsers, name.as_bytes().to_vec());
        self.commit_revision();
        tracing::info!(
            "rusd.by" = self.by(),
            "user-name" = loggable::name(name),
            "user-roles" = ?all_shown(&user.roles),
            "deleted a user"
        );
        Ok(())
    }

    pub fn user_change_password(
        &mut self,
        request: &AuthUserChangePasswordRequest,
    ) -> Result<(), Error> {
        let user = self.users.get(&request.name).ok_or(Error::UserNotFound)?;
        let password = match has_no_password(user) {
            true => Bytes::new(),
            false => stored_password(&request.hashed_password)?,
        };
        let user = User { password, ..user.clone() };
        tracing::info!(
            "rusd.by" = self.by(),
            "user-name" = loggable::name(&request.name),
            "user-roles" = ?all_shown(&user.roles),
            "changed a password of a user"
        );
        self.put_user(request.name.clone(), user);
        self.commit_revision();
        Ok(())
    }

    pub fn user_grant_role(&mut self, name: &str, role: &str) -> Result<(), Error> {
        let user = self.users.get(name).ok_or(Error::UserNotFound)?;
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(Error::RoleNotFound);
        }
        let Err(at) = user.roles.binary_search_by(|held| held.as_str().cmp(role)) else {
            tracing::warn!(
                "rusd.by" = self.by(),
                "user-name" = loggable::name(name),
                "user-roles" = ?all_shown(&user.roles),
                "duplicate-role-name" = loggable::name(role),
                "ignored grant role request to a user"
            );
            return Ok(());
        };
        let mut user = user.clone();
        user.roles.insert(at, role.to_owned());
        tracing::info!(
            "rusd.by" = self.by(),
            "user-name" = loggable::name(name),
            "user-roles" = ?all_shown(&user.roles),
            "added-role-name" = loggable::name(role),
            "granted a role to a user"
        );
        self.put_user(name.to_owned(), user);
        self.commit_revision();
        Ok(())
    }

    pub fn user_revoke_role(&mut self, name: &str, role: &str) -> Result<(), Error> {
        if self.enabled && name == ROOT && role == ROOT {
            tracing::error!(
                "rusd.by" = self.by(),
                "user-name" = loggable::name(name),
                "role-name" = loggable::name(role),
                "'root' user cannot revoke 'root' role"
            );
            return Err(Error::InvalidManagement);
        }
        let user = self.users.get(name).ok_or(Error::UserNotFound)?;
        if !user.roles.iter().any(|held| held == role) {
            return Err(Error::RoleNotGranted);
        }
        let before = &user.roles;
        let mut user = user.clone();
        user.roles.retain(|held| held != role);
        tracing::info!(
            "rusd.by" = self.by(),
            "user-name" = loggable::name(name),
            "old-user-roles" = ?all_shown(before),
            "new-user-roles" = ?all_shown(&user.roles),
            "revoked-role-name" = loggable::name(role),
            "revoked a role from a user"
        );
        self.put_user(name.to_owned(), user);
        self.commit_revision();
        Ok(())
    }

    pub fn user_roles(&self, name: &str) -> Result<Vec<String>, Error> {
        Ok(self.users.get(name).ok_or(Error::UserNotFound)?.roles.clone())
    }

    pub fn users(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    pub fn role_add(&mut self, name: &str) -> Result<(), Error> {
        if name.is_empty() {
            return Err(Error::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(Error::RoleAlreadyExist);
        }
        let role = Role { name: name.as_bytes().to_vec().into(), key_permission: Vec::new() };
        self.put_role(name, role);
        self.commit_revision();
        tracing::info!("rusd.by" = self.by(), "role-name" = loggable::name(name), "created a role");
        Ok(())
    }

    pub fn role_delete(&mut self, name: &str) -> Result<(), Error> {
        if self.enabled && name == ROOT {
            tracing::error!(
                "rusd.by" = self.by(),
                "role-name" = loggable::name(name),
                "cannot delete 'root' role"
            );
            return Err(Error::InvalidManagement);
        }
        self.roles.remove(name).ok_or(Error::RoleNotFound)?;
        self.store.delete(Bucket::AuthRoles, name.as_bytes().to_vec());
        for holder in self.holders(name) {
            if let Some(mut user) = self.users.get(&holder).cloned() {
                user.roles.retain(|held| held != name);
                self.put_user(holder, user);
            }
        }
        self.commit_revision();
        tracing::info!("rusd.by" = self.by(), "role-name" = loggable::name(name), "deleted a role");
        Ok(())
    }

    pub fn role_grant_permission(
        &mut self,
        request: AuthRoleGrantPermissionRequest,
    ) -> Result<(), Error> {
        let perm = request.perm.ok_or(Error::PermissionNotGiven)?;
        let range = KeyRange::new(perm.key.clone(), perm.range_end.clone());
        let is_valid = range.is_single() || range.is_open() || range.key < range.end;
        if range.key.is_empty() || !is_valid {
            return Err(Error::InvalidManagement);
        }
        let mut role = self.roles.get(&request.name).ok_or(Error::RoleNotFound)?.clone();
        tracing::info!(
            // etcd calls the role a user here.
            "user-name" = loggable::name(&request.name),
            "permission-name" =
                Type::try_from(perm.perm_type).map_or("", |kind| kind.as_str_name()),
            key = bytes_shown(&perm.key),
            "range-end" = bytes_shown(&perm.range_end),
            "granted/updated a permission to a user"
        );
        // Only the first permission of a key is compared, and a new one is inserted after all of
        // its key, as in etcd: the order is part of the stored bytes.
        let perms = &mut role.key_permission;
        let at = perms.partition_point(|other| other.key < perm.key);
        match perms.get_mut(at) {
            Some(first) if first.key == perm.key && first.range_end == perm.range_end => {
                first.perm_type = perm.perm_type;
            }
            _ => {
                let at = perms.partition_point(|other| other.key <= perm.key);
                perms.insert(at, perm);
            }
        }
        self.put_role(&request.name, role);
        self.commit_revision();
        Ok(())
    }

    pub fn role_revoke_permission(
        &mut self,
        request: &AuthRoleRevokePermissionRequest,
    ) -> Result<(), Error> {
        let mut role = self.roles.get(&request.role).ok_or(Error::RoleNotFound)?.clone();
        let before = role.key_permission.len();
        role.key_permission
            .retain(|perm| perm.key != request.key || perm.range_end != request.range_end);
        if role.key_permission.len() == before {
            return Err(Error::PermissionNotGranted);
        }
        tracing::info!(
            "rusd.by" = self.by(),
            "role-name" = loggable::name(&request.role),
            key = bytes_shown(&request.key),
            "range-end" = bytes_shown(&request.range_end),
            "revoked a permission on range"
        );
        self.put_role(&request.role, role);
        self.commit_revision();
        Ok(())
    }

    pub fn role_permissions(&self, name: &str) -> Result<Vec<Permission>, Error> {
        let role = self.roles.get(name).ok_or(Error::RoleNotFound)?;
        if name == ROOT {
            let range_end = Bytes::from_static(&[0]);
            let perm_type = Type::Readwrite as i32;
            return Ok(vec![Permission { perm_type, key: Bytes::new(), range_end }]);
        }
        Ok(role.key_permission.clone())
    }

    pub fn roles(&self) -> Vec<String> {
        self.roles.keys().cloned().collect()
    }

    fn put_user(&mut self, name: String, user: User) {
        let key = name.clone().into_bytes();
        self.store.put(Bucket::AuthUsers, key, user.encode_to_vec());
        self.users.insert(name.clone(), user);
        self.refresh(&name);
    }

    fn put_role(&mut self, name: &str, role: Role) {
        self.store.put(Bucket::AuthRoles, name.as_bytes().to_vec(), role.encode_to_vec());
        self.roles.insert(name.to_owned(), role);
        for holder in self.holders(name) {
            self.refresh(&holder);
        }
    }

    fn holders(&self, role: &str) -> Vec<String> {
        self.users.keys().filter(|name| self.holds(name, role)).cloned().collect()
    }

    /// Recomputes what a user's roles grant.
    fn refresh(&mut self, name: &str) {
        let Some(user) = self.users.get(name) else { return };
        let is_root = user.roles.iter().any(|role| role == ROOT);
        let roles = user.roles.iter().filter_map(|role| self.roles.get(role));
        let perms: Vec<&Permission> = roles.flat_map(|role| &role.key_permission).collect();
        let of = |kind: Type| {
            let wanted = [kind as i32, Type::Readwrite as i32];
            let perms = perms.iter().filter(|perm| wanted.contains(&perm.perm_type));
            Ranges::new(perms.map(|perm| KeyRange::new(perm.key.clone(), perm.range_end.clone())))
        };
        let grants = Grants { is_root, read: of(Type::Read), write: of(Type::Write) };
        self.grants.insert(name.to_owned(), grants);
    }
}

fn all_shown(names: &[String]) -> Vec<String> {
    names.iter().take(limits::LOGGED_NAMES_MAX).map(|name| loggable::name(name)).collect()
}

fn bytes_shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(limits::LOGGED_NAME_LETTERS_MAX)].escape_ascii().to_string()
}

fn has_no_password(user: &User) -> bool {
    user.options.is_some_and(|options| options.no_password)
}

/// The hash that a request carries. etcd before 3.5 put the password itself into the log, and each
/// member hashed it at apply with its own salt. From such an entry comes a hash that no password
/// matches.
fn stored_password(hashed: &str) -> Result<Bytes, Error> {
    STANDARD.decode(hashed).map(Bytes::from).map_err(|_| Error::NoPasswordUser)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_the_clear_fits_nobody() {
        let hashed = STANDARD.encode("$2a$04$hash");
        assert_eq!(stored_password(&hashed).unwrap(), "$2a$04$hash");
        // Not base64, as most passwords are not.
        for clear in ["secret!", "pass word", "a"] {
            assert!(stored_password(clear).is_err(), "{clear}");
        }
    }
}
