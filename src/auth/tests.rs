use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::demand::{self, Access, Demand, LeaseKeys};
use super::{Auth, Caller, Credentials, Error, TokenError, Tokens};
use crate::clock::{Clock, SystemClock};
use crate::pb::authpb::permission::Type;
use crate::pb::authpb::{Permission, UserAddOptions};
use crate::pb::request_op::Request;
use crate::pb::{
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest,
    RequestOp, TxnRequest,
};
use crate::store::{Bucket, Options, Store};
use crate::types::KeyRange;

struct Fixture {
    auth: Auth,
    store: Arc<Store>,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let options = Options::new(Arc::new(SystemClock::new()));
    let store = Arc::new(Store::open(dir.path(), options).unwrap().0);
    Fixture { auth: Auth::load(Arc::clone(&store)).unwrap(), store, _dir: dir }
}

impl Fixture {
    fn user(&mut self, name: &str, roles: &[&str]) {
        let options = Some(UserAddOptions { no_password: true });
        let add = AuthUserAddRequest { name: name.into(), options, ..Default::default() };
        self.auth.user_add(add).unwrap();
        roles.iter().for_each(|role| self.auth.user_grant_role(name, role).unwrap());
    }

    fn grant(&mut self, role: &str, kind: Type, key: &str, end: &str) -> Result<(), Error> {
        let perm = Permission { perm_type: kind as i32, key: bytes(key), range_end: bytes(end) };
        let grant = AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) };
        self.auth.role_grant_permission(grant)
    }

    fn stored(&self, bucket: Bucket, key: &str) -> Option<Vec<u8>> {
        self.store.seal(self.store.durable().0 + 1, 1);
        self.store.flush().unwrap();
        self.store.bucket_get(bucket, key.as_bytes()).unwrap()
    }

    fn enabled(mut self) -> Self {
        self.user("root", &["root"]);
        self.auth.enable().unwrap();
        self
    }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn read(key: &str, end: &str) -> Access {
    Access::Read(KeyRange::new(bytes(key), bytes(end)))
}

fn write(key: &str, end: &str) -> Access {
    Access::Write(KeyRange::new(bytes(key), bytes(end)))
}

#[test]
fn users_and_roles_are_stored_as_etcd_stores_them() {
    let mut fixture = fixture();
    let add = AuthUserAddRequest {
        name: "u".into(),
        hashed_password: "aGFzaA==".into(),
        ..Default::default()
    };
    fixture.auth.user_add(add).unwrap();
    assert_eq!(fixture.stored(Bucket::AuthUsers, "u").unwrap(), b"\x0a\x01u\x12\x04hash\x22\x00");
    fixture.user("n", &[]);
    let no_password = b"\x0a\x01n\x22\x02\x08\x01";
    assert_eq!(fixture.stored(Bucket::AuthUsers, "n").unwrap(), no_password);
    for role in ["b", "a"] {
        fixture.auth.role_add(role).unwrap();
        fixture.auth.user_grant_role("n", role).unwrap();
    }
    let with_roles = b"\x0a\x01n\x1a\x01a\x1a\x01b\x22\x02\x08\x01";
    assert_eq!(fixture.stored(Bucket::AuthUsers, "n").unwrap(), with_roles);
    assert_eq!(fixture.stored(Bucket::AuthRoles, "a").unwrap(), b"\x0a\x01a");
    fixture.grant("a", Type::Write, "k2", "").unwrap();
    fixture.grant("a", Type::Read, "k1", "k9").unwrap();
    let perms = b"\x0a\x01a\x12\x08\x12\x02k1\x1a\x02k9\x12\x06\x08\x01\x12\x02k2";
    assert_eq!(fixture.stored(Bucket::AuthRoles, "a").unwrap(), perms);
    let revision = fixture.auth.revision();
    let stored = fixture.stored(Bucket::Auth, "authRevision").unwrap();
    assert_eq!(stored, revision.to_be_bytes());
    let fixture = fixture.enabled();
    assert_eq!(fixture.stored(Bucket::Auth, "authEnabled").unwrap(), [1]);
    let again = Auth::load(Arc::clone(&fixture.store)).unwrap();
    assert!(again.is_enabled());
    assert_eq!(again.revision(), fixture.auth.revision());
    assert_eq!(again.users(), ["n", "root", "u"]);
    assert_eq!(again.role_permissions("a"), fixture.auth.role_permissions("a"));
    assert_eq!(
        again.check(
            &Caller::user("n", again.revision()),
            &Demand::Keys(vec![read("k2", "")]),
            &OneLease
        ),
        Ok(())
    );
}

#[test]
fn a_permission_is_found_by_its_first_key_and_range_end() {
    let mut fixture = fixture();
    fixture.auth.role_add("r").unwrap();
    fixture.grant("r", Type::Read, "k", "").unwrap();
    fixture.grant("r", Type::Read, "k", "z").unwrap();
    fixture.grant("r", Type::Write, "k", "").unwrap();
    let perms = |fixture: &Fixture| -> Vec<(i32, Bytes)> {
        let perms = fixture.auth.role_permissions("r").unwrap();
        perms.into_iter().map(|perm| (perm.perm_type, perm.range_end)).collect()
    };
    assert_eq!(perms(&fixture), [(1, bytes("")), (0, bytes("z"))]);
    // As in etcd, the second permission of a key is not found again, so another one is added.
    fixture.grant("r", Type::Write, "k", "z").unwrap();
    assert_eq!(perms(&fixture), [(1, bytes("")), (0, bytes("z")), (1, bytes("z"))]);
    let revoke = AuthRoleRevokePermissionRequest {
        role: "r".into(),
        key: bytes("k"),
        range_end: bytes("z"),
    };
    fixture.auth.role_revoke_permission(&revoke).unwrap();
    assert_eq!(perms(&fixture), [(1, bytes(""))]);
    let again = fixture.auth.role_revoke_permission(&revoke);
    assert_eq!(again, Err(Error::PermissionNotGranted));
}

#[test]
fn each_effective_change_moves_the_revision_and_no_other() {
    let mut fixture = fixture();
    assert_eq!(fixture.auth.revision(), 1);
    assert_eq!(fixture.auth.enable(), Err(Error::RootUserNotExist));
    fixture.user("root", &[]);
    assert_eq!(fixture.auth.enable(), Err(Error::RootRoleNotExist));
    fixture.auth.user_grant_role("root", "root").unwrap();
    assert_eq!(fixture.auth.revision(), 3);
    fixture.auth.user_grant_role("root", "root").unwrap();
    assert_eq!(fixture.auth.enable(), Ok(true));
    assert_eq!(fixture.auth.enable(), Ok(false));
    assert_eq!(fixture.auth.revision(), 3);
    assert!(fixture.auth.disable());
    assert!(!fixture.auth.disable());
    assert_eq!(fixture.auth.revision(), 4);
}

#[test]
fn management_is_refused_in_etcds_order() {
    let mut fixture = fixture();
    let add = |name: &str| AuthUserAddRequest { name: name.into(), ..Default::default() };
    assert_eq!(fixture.auth.user_add(add("")), Err(Error::UserEmpty));
    fixture.user("u", &[]);
    assert_eq!(fixture.auth.user_add(add("u")), Err(Error::UserAlreadyExist));
    let bad = AuthUserAddRequest { hashed_password: "*".into(), ..add("w") };
    assert_eq!(fixture.auth.user_add(bad), Err(Error::NoPasswordUser));
    assert_eq!(fixture.auth.user_delete("x"), Err(Error::UserNotFound));
    let change = AuthUserChangePasswordRequest { name: "x".into(), ..Default::default() };
    assert_eq!(fixture.auth.user_change_password(&change), Err(Error::UserNotFound));
    assert_eq!(fixture.auth.user_grant_role("x", "r"), Err(Error::UserNotFound));
    assert_eq!(fixture.auth.user_grant_role("u", "r"), Err(Error::RoleNotFound));
    assert_eq!(fixture.auth.user_revoke_role("u", "r"), Err(Error::RoleNotGranted));
    assert_eq!(fixture.auth.role_add(""), Err(Error::RoleEmpty));
    fixture.auth.role_add("r").unwrap();
    assert_eq!(fixture.auth.role_add("r"), Err(Error::RoleAlreadyExist));
    assert_eq!(fixture.auth.role_delete("x"), Err(Error::RoleNotFound));
    assert_eq!(fixture.grant("x", Type::Read, "", ""), Err(Error::InvalidManagement));
    assert_eq!(fixture.grant("x", Type::Read, "k", ""), Err(Error::RoleNotFound));
    for (key, end) in [("", "z"), ("k", "k"), ("k", "a"), ("\0", "")] {
        let is_valid = key == "\0";
        assert_eq!(fixture.grant("r", Type::Read, key, end).is_ok(), is_valid, "{key:?} {end:?}");
    }
    let none = AuthRoleGrantPermissionRequest { name: "r".into(), perm: None };
    assert_eq!(fixture.auth.role_grant_permission(none), Err(Error::PermissionNotGiven));
    let mut fixture = fixture.enabled();
    assert_eq!(fixture.auth.user_delete("root"), Err(Error::InvalidManagement));
    assert_eq!(fixture.auth.user_revoke_role("root", "root"), Err(Error::InvalidManagement));
    assert_eq!(fixture.auth.role_delete("root"), Err(Error::InvalidManagement));
    fixture.auth.user_grant_role("u", "r").unwrap();
    fixture.auth.role_delete("r").unwrap();
    assert_eq!(fixture.auth.user_roles("u").unwrap(), [""; 0]);
}

#[test]
fn callers_are_judged_by_name_revision_and_roles() {
    let mut fixture = fixture();
    fixture.auth.role_add("r").unwrap();
    fixture.grant("r", Type::Readwrite, "k", "m").unwrap();
    fixture.user("u", &["r"]);
    let keys = |accesses: Vec<Access>| Demand::Keys(accesses);
    assert_eq!(
        fixture.auth.check(&Caller::NOBODY, &Demand::Root, &OneLease),
        Ok(()),
        "auth is off"
    );
    let fixture = fixture.enabled();
    let auth = &fixture.auth;
    let now = auth.revision();
    let (user, old) = (Caller::user("u", now), Caller::user("u", now - 1));
    let (ghost, unnamed) = (Caller::user("ghost", now), Caller::user("", now));
    let root = Caller::user("root", now);
    for (caller, demand, expected) in [
        (&Caller::NOBODY, Demand::Nothing, Ok(())),
        (&Caller::NOBODY, Demand::AnyUser, Err(Error::UserEmpty)),
        (&Caller::NOBODY, Demand::Root, Err(Error::UserEmpty)),
        (&Caller::NOBODY, keys(vec![read("k", "")]), Err(Error::UserEmpty)),
        (&ghost, Demand::AnyUser, Ok(())),
        (&ghost, Demand::Root, Err(Error::UserNotFound)),
        (&ghost, keys(vec![read("k", "")]), Err(Error::PermissionDenied)),
        (&unnamed, Demand::Root, Err(Error::UserEmpty)),
        (&unnamed, keys(vec![read("k", "")]), Err(Error::PermissionDenied)),
        (&old, Demand::AnyUser, Ok(())),
        (&old, keys(vec![read("k", "")]), Err(Error::OldRevision)),
        (&user, Demand::Root, Err(Error::PermissionDenied)),
        (&user, keys(vec![read("k", ""), write("ka", "l")]), Ok(())),
        (&user, keys(vec![read("k", ""), write("z", "")]), Err(Error::PermissionDenied)),
        (&user, Demand::RootOrKeys(vec![write("z", "")]), Err(Error::PermissionDenied)),
        (&user, Demand::RootOrUser("u".into()), Ok(())),
        (&user, Demand::RootOrUser("root".into()), Err(Error::PermissionDenied)),
        (&user, Demand::RootOrHolder("r".into()), Ok(())),
        (&user, Demand::RootOrHolder("s".into()), Err(Error::PermissionDenied)),
        (&root, keys(vec![write("\0", "\0")]), Ok(())),
        (&Caller::user("root", now - 1), keys(vec![write("k", "")]), Err(Error::OldRevision)),
        (&Caller::user("root", now - 1), Demand::RootOrKeys(vec![write("k", "")]), Ok(())),
    ] {
        assert_eq!(auth.check(caller, &demand, &OneLease), expected, "{caller:?} {demand:?}");
    }
}

/// Only lease 5 has a key.
struct OneLease;

impl LeaseKeys for OneLease {
    fn has_all(&self, lease: Option<i64>, has: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        lease.is_some_and(|lease| lease != 5) || has(&bytes("hung"))
    }
}

#[test]
fn who_touches_a_lease_touches_the_keys_on_it() {
    let mut fixture = fixture();
    for (role, kind, key) in
        [("w", Type::Write, "hung"), ("r", Type::Read, "hung"), ("o", Type::Readwrite, "other")]
    {
        fixture.auth.role_add(role).unwrap();
        fixture.grant(role, kind, key, "").unwrap();
        fixture.user(role, &[role]);
    }
    let fixture = fixture.enabled();
    let auth = &fixture.auth;
    let now = auth.revision();
    let (writes, reads) = (Access::WriteOnLease(5), Access::ReadOnLeases);
    let unused = Access::WriteOnLease(6);
    for (caller, access, expected) in [
        (Caller::user("w", now), &writes, Ok(())),
        (Caller::user("w", now), &reads, Err(Error::PermissionDenied)),
        (Caller::user("r", now), &writes, Err(Error::PermissionDenied)),
        (Caller::user("r", now), &reads, Ok(())),
        (Caller::user("o", now), &writes, Err(Error::PermissionDenied)),
        (Caller::user("o", now), &unused, Ok(())),
        (Caller::user("root", now), &writes, Ok(())),
        (Caller::user("w", now - 1), &writes, Err(Error::OldRevision)),
        (Caller::user("w", now - 1), &unused, Ok(())),
        (Caller::NOBODY, &writes, Err(Error::UserEmpty)),
        (Caller::NOBODY, &unused, Ok(())),
    ] {
        let demand = Demand::Keys(vec![access.clone()]);
        assert_eq!(auth.check(&caller, &demand, &OneLease), expected, "{caller:?} {access:?}");
    }
}

#[test]
fn a_transaction_demands_what_its_deepest_part_does() {
    let op = |request| RequestOp { request: Some(request) };
    let put = PutRequest { key: bytes("p"), lease: 5, prev_kv: true, ..Default::default() };
    let delete = DeleteRangeRequest { key: bytes("d"), range_end: bytes("e"), prev_kv: true };
    let inner = TxnRequest {
        compare: vec![Compare { key: bytes("c"), range_end: bytes("\0"), ..Default::default() }],
        success: vec![op(Request::RequestPut(put))],
        failure: vec![op(Request::RequestDeleteRange(delete))],
    };
    let range = RangeRequest { key: bytes("r"), ..Default::default() };
    let again = PutRequest { key: bytes("q"), lease: 5, ..Default::default() };
    let outer = TxnRequest {
        compare: Vec::new(),
        success: vec![
            op(Request::RequestRange(range)),
            RequestOp::default(),
            op(Request::RequestPut(again)),
        ],
        failure: vec![op(Request::RequestTxn(Box::new(inner)))],
    };
    assert_eq!(
        demand::txn(&outer),
        Demand::Keys(vec![
            read("r", ""),
            write("q", ""),
            Access::WriteOnLease(5),
            read("c", "\0"),
            write("p", ""),
            read("p", ""),
            write("d", "e"),
            read("d", "e"),
        ])
    );
}

/// A clock that a test moves.
#[derive(Default)]
struct TestClock(AtomicU64);

impl TestClock {
    fn pass(&self, duration: Duration) {
        let millis = u64::try_from(duration.as_millis()).unwrap();
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }

    fn unix_nanos(&self) -> u64 {
        1_700_000_000_000_000_000 + self.0.load(Ordering::Relaxed) * 1_000_000
    }

    fn random(&self) -> u64 {
        0x1234_5678_9abc_def0
    }
}

fn tokens(spec: &str) -> (Tokens, Arc<TestClock>) {
    let clock = Arc::new(TestClock::default());
    let as_clock: Arc<dyn Clock> = clock.clone();
    (Tokens::new(spec, Duration::from_secs(300), as_clock).unwrap(), clock)
}

#[test]
fn a_simple_token_lives_while_it_is_used() {
    let (tokens, clock) = tokens("simple");
    let prefix = tokens.prefix().unwrap();
    assert_eq!(prefix.len(), 16);
    assert!(prefix.bytes().all(|byte| byte.is_ascii_alphabetic()));
    let token = tokens.assign("u", &prefix, 42);
    assert_eq!(token, format!("{prefix}.42"));
    assert_eq!(tokens.index_of(&token), Some(42));
    for _ in 0..3 {
        clock.pass(Duration::from_secs(299));
        assert_eq!(tokens.resolve(&token, 7), Ok(Caller::user("u", 7)));
    }
    clock.pass(Duration::from_secs(299));
    assert_eq!(tokens.user_of(&token).as_deref(), Some("u"));
    clock.pass(Duration::from_secs(2));
    assert_eq!(tokens.user_of(&token), None, "being named in the log has prolonged its life");
    assert_eq!(tokens.resolve(&token, 7), Err(Error::InvalidToken));
    let (one, two) = (tokens.assign("u", "a", 1), tokens.assign("w", "b", 2));
    tokens.forget_user("u");
    assert_eq!(tokens.resolve(&one, 7), Err(Error::InvalidToken));
    assert_eq!(tokens.resolve(&two, 7), Ok(Caller::user("w", 7)));
    tokens.forget_all();
    assert_eq!(tokens.resolve(&two, 7), Err(Error::InvalidToken));
    for odd in ["", ".", "a", "a.b", "a.-1", "a.1.2", "a.+1", "a.99999999999999999999999"] {
        assert_eq!(tokens.index_of(odd), None, "{odd}");
        assert_eq!(tokens.resolve(odd, 1), Err(Error::InvalidToken), "{odd}");
    }
}

#[test]
fn a_full_list_of_tokens_drops_the_one_that_ends_first() {
    let (tokens, clock) = tokens("simple");
    for index in 0..crate::limits::SIMPLE_TOKENS_MAX as u64 {
        tokens.assign("u", "t", index);
        if index == 0 {
            clock.pass(Duration::from_secs(1));
        }
    }
    assert!(tokens.resolve("t.1", 1).is_ok());
    tokens.assign("u", "t", u64::MAX);
    assert_eq!(tokens.resolve("t.0", 1), Err(Error::InvalidToken));
    assert!(tokens.resolve("t.1", 1).is_ok());
}

#[test]
fn without_tokens_every_login_fails() {
    let (tokens, _) = tokens("");
    assert_eq!(tokens.finish(tokens.assign("u", "a", 1), "u", 1), Err(Error::AuthFailed));
    assert_eq!(tokens.resolve("a.1", 1), Err(Error::InvalidToken));
}

#[test]
fn options_of_tokens_are_refused_as_etcd_refuses_them() {
    let refusal = |spec: &str| {
        Tokens::new(spec, Duration::ZERO, Arc::new(TestClock::default())).err().unwrap()
    };
    for spec in [
        "complex",
        "jwt",
        "jwt,sign-method=XX256",
        "jwt,sign-method=a=b",
        "jwt,ttl=1s,ttl=1s",
        "jwt,sign-method=HS256,ttl=5",
        "jwt,sign-method=HS256,priv-key=/nonexistent",
        "simple,x",
    ] {
        assert_eq!(refusal(spec), TokenError::InvalidOptions, "{spec}");
    }
    assert_eq!(refusal("jwt,sign-method=HS256"), TokenError::MissingKey);
    assert_eq!(refusal("jwt,sign-method=ES256,ttl=1h2m3.5s"), TokenError::MissingKey);
    let none = refusal("jwt,sign-method=none");
    assert_eq!(none.to_string(), "unsupported signing method: *jwt.signingMethodNone");
}

#[test]
fn credentials_keep_what_was_presented() {
    let who = Credentials::token(Some(bytes("t"))).with_common_name(Some("n".into()));
    assert_eq!(who.presented_token(), Some(&bytes("t")));
    assert_eq!(who.presented_name(), Some("n"));
    assert_eq!(Caller::of_header("", 0), Caller::NOBODY);
    assert_ne!(Caller::of_header("", 1), Caller::NOBODY);
}
