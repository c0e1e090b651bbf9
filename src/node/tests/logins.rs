//! Users, their tokens, and logins.

use std::sync::mpsc::RecvTimeoutError;

use super::*;
use crate::apply;
use crate::auth;
use crate::pb::authpb::Permission;
use crate::pb::authpb::permission::Type;
use crate::pb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthStatusRequest,
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest, AuthenticateRequest, LeaseGrantRequest,
};
use crate::trace::Context;

fn bearer(token: &str) -> Credentials {
    Credentials::token(Some(Bytes::copy_from_slice(token.as_bytes())))
}

async fn log_in(node: &Node, name: &str, password: &str) -> Result<Credentials, Error> {
    let request = AuthenticateRequest { name: name.into(), password: password.into() };
    node.authenticate(&Context::Nothing, request).await.map(|response| bearer(&response.token))
}

/// Adds users root and ann; ann may use the key `k`. Turns auth on.
async fn with_users(node: &Node) {
    let nobody = Credentials::default();
    let user = |name: &str, password: &str| {
        let (name, password) = (name.into(), password.into());
        Op::UserAdd(AuthUserAddRequest { name, password, ..Default::default() })
    };
    let role = AuthRoleAddRequest { name: "r".into() };
    let key = Bytes::from_static(b"k");
    let perm = Permission { perm_type: Type::Readwrite as i32, key, ..Default::default() };
    let perm = AuthRoleGrantPermissionRequest { name: "r".into(), perm: Some(perm) };
    let grant = |user: &str, role: &str| {
        Op::UserGrantRole(AuthUserGrantRoleRequest { user: user.into(), role: role.into() })
    };
    for op in [
        user("root", "pw"),
        user("ann", "secret"),
        Op::RoleAdd(role),
        Op::RoleGrantPermission(perm),
        grant("root", "root"),
        grant("ann", "r"),
        Op::AuthEnable(AuthEnableRequest {}),
    ] {
        node.propose(&nobody, op).await.unwrap();
    }
}

async fn read(node: &Node, who: &Credentials, key: &'static str) -> Result<(), Error> {
    let key = Bytes::from_static(key.as_bytes());
    node.range(who, &RangeRequest { key, ..Default::default() }).await.map(drop)
}

fn refused(error: auth::Error) -> Result<(), Error> {
    Err(Error::Apply(apply::Error::Auth(error)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simple_token_is_its_users_until_it_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let early = log_in(&node, "root", "pw").await.unwrap_err();
    assert_eq!(early, Error::Apply(apply::Error::Auth(auth::Error::AuthNotEnabled)));
    with_users(&node).await;
    for (name, password) in [("ann", "wrong"), ("ghost", "secret"), ("", "")] {
        let error = log_in(&node, name, password).await.unwrap_err();
        assert_eq!(error, Error::Apply(apply::Error::Auth(auth::Error::AuthFailed)), "{name}");
    }
    let ann = log_in(&node, "ann", "secret").await.unwrap();
    let root = log_in(&node, "root", "pw").await.unwrap();
    assert_eq!(read(&node, &ann, "k").await, Ok(()));
    assert_eq!(read(&node, &ann, "l").await, refused(auth::Error::PermissionDenied));
    assert_eq!(read(&node, &root, "l").await, Ok(()));
    let nobody = Credentials::default();
    assert_eq!(read(&node, &nobody, "k").await, refused(auth::Error::UserEmpty));
    for token in ["", "x", "abcdefghijklmnop.1", "abc.def"] {
        let error = read(&node, &bearer(token), "k").await;
        assert_eq!(error, refused(auth::Error::InvalidToken), "{token}");
    }
    // A right that is revoked is gone at once, while the token stays valid.
    let revoke = AuthUserRevokeRoleRequest { name: "ann".into(), role: "r".into() };
    node.propose(&root, Op::UserRevokeRole(revoke)).await.unwrap();
    assert_eq!(read(&node, &ann, "k").await, refused(auth::Error::PermissionDenied));
    assert_eq!(node.lease_list(&ann).await, Ok(Vec::new()));
    let change = AuthUserChangePasswordRequest {
        name: "ann".into(),
        password: "new".into(),
        hashed_password: String::new(),
    };
    node.propose(&root, Op::UserChangePassword(change)).await.unwrap();
    assert_eq!(read(&node, &ann, "k").await, refused(auth::Error::InvalidToken));
    log_in(&node, "ann", "new").await.unwrap();
    node.stop().await;
    drop(node);

    let node = start(dir.path()).await;
    assert_eq!(read(&node, &root, "l").await, refused(auth::Error::InvalidToken));
    let root = log_in(&node, "root", "pw").await.unwrap();
    assert_eq!(read(&node, &root, "l").await, Ok(()));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_jwt_outlives_a_restart_and_no_change_of_rights() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    std::fs::write(&key, "secret").unwrap();
    let token = format!("jwt,sign-method=HS256,priv-key={}", key.display());
    let auth = AuthConfig { token, ..config(dir.path()).auth };
    let config = Config { auth, ..config(&dir.path().join("data")) };
    let start = async || {
        let node = Node::start(config.clone(), Arc::new(SystemClock::new())).unwrap();
        node.ready().wait_for(|ready| *ready).await.unwrap();
        node
    };
    let node = start().await;
    with_users(&node).await;
    let (ann, root) = (log_in(&node, "ann", "secret").await, log_in(&node, "root", "pw").await);
    let (ann, root) = (ann.unwrap(), root.unwrap());
    node.stop().await;
    drop(node);

    let node = start().await;
    assert_eq!(read(&node, &ann, "k").await, Ok(()));
    assert_eq!(read(&node, &bearer("a.b.c"), "k").await, refused(auth::Error::InvalidToken));
    let add = AuthRoleAddRequest { name: "s".into() };
    node.propose(&root, Op::RoleAdd(add)).await.unwrap();
    assert_eq!(read(&node, &ann, "k").await, refused(auth::Error::OldRevision));
    let ann = log_in(&node, "ann", "secret").await.unwrap();
    assert_eq!(read(&node, &ann, "k").await, Ok(()));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_logins_than_can_be_worked_off_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let auth = AuthConfig { bcrypt_cost: 8, ..AuthConfig::default() };
    let config = Config { auth, ..config(dir.path()) };
    let node = Node::start(config, Arc::new(SystemClock::new())).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    with_users(&node).await;
    let logins = (0..3 * limits::PASSWORDS_PENDING_MAX).map(|_| log_in(&node, "ann", "secret"));
    let results = futures_util::future::join_all(logins).await;
    let refused = results.iter().filter(|result| matches!(result, Err(Error::TooManyRequests)));
    assert!(refused.count() > 0);
    assert!(
        results.iter().filter(|result| result.is_ok()).count() >= limits::PASSWORDS_PENDING_MAX
    );
    node.stop().await;
}

/// Calls that show leases, calls that renew them, and entries about users all take the locks of
/// leases and of users; in one order, or the test does not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn leases_and_users_are_asked_about_side_by_side() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let nobody = Credentials::default();
    let grant = LeaseGrantRequest { id: 7, ttl: 600 };
    node.propose(&nobody, Op::LeaseGrant(grant)).await.unwrap();
    for n in 0..2000 {
        let put = PutRequest { key: format!("{n}").into(), lease: 7, ..Default::default() };
        node.propose(&nobody, Op::Put(put)).await.unwrap();
    }
    with_users(&node).await;
    let root = log_in(&node, "root", "pw").await.unwrap();
    let ann = log_in(&node, "ann", "secret").await.unwrap();
    // Ends the process if a deadlock keeps the test from ending.
    let (done, finished) = std::sync::mpsc::sync_channel::<()>(1);
    std::thread::spawn(move || {
        if finished.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
            eprintln!("threads of the member wait for each other");
            std::process::exit(1);
        }
    });
    let mut rounds = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (node, root, ann) = (node.clone(), root.clone(), ann.clone());
        rounds.spawn(async move {
            for _ in 0..300 {
                assert_eq!(node.lease_list(&root).await.unwrap(), [7]);
                assert!(node.lease_list(&ann).await.is_err());
            }
        });
    }
    for _ in 0..2 {
        let (node, root) = (node.clone(), root.clone());
        rounds.spawn(async move {
            for _ in 0..300 {
                assert_eq!(node.lease_renew(&root, 7).await.unwrap(), 600);
            }
        });
    }
    let member = node.clone();
    rounds.spawn(async move {
        for _ in 0..300 {
            member.propose(&root, Op::AuthStatus(AuthStatusRequest {})).await.unwrap();
        }
    });
    while let Some(round) = rounds.join_next().await {
        round.unwrap();
    }
    drop(done);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_from_an_entry_that_never_comes_is_invalid_after_the_requests_timeout() {
    let dir = tempfile::tempdir().unwrap();
    let (node, clock) = start_bent(dir.path()).await;
    with_users(&node).await;
    assert_eq!(node.request_timeout(), Duration::from_secs(7));
    *clock.skips.lock() = Some(node.request_timeout());
    let forged = bearer("abcdefghijklmnop.999999");
    let read = read(&node, &forged, "k");
    let ended = tokio::time::timeout(Duration::from_secs(60), read).await.expect("it waits on");
    assert_eq!(ended, refused(auth::Error::InvalidToken));
    assert!(clock.skipped.load(Ordering::Relaxed) > 0, "after another time");
    *clock.skips.lock() = None;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_login_looks_ten_times_while_users_change() {
    let dir = tempfile::tempdir().unwrap();
    let (node, clock) = start_bent(dir.path()).await;
    with_users(&node).await;
    let root = log_in(&node, "root", "pw").await.unwrap();
    // A role is added after the password was compared and before the login is proposed.
    let looks = Arc::new(AtomicUsize::new(0));
    let changes = |most: usize| {
        let (node, root, looks) = (node.clone(), root.clone(), Arc::clone(&looks));
        let runtime = tokio::runtime::Handle::current();
        looks.store(0, Ordering::Relaxed);
        let hook = move || {
            let look = looks.fetch_add(1, Ordering::Relaxed);
            if look >= most {
                return;
            }
            let add = AuthRoleAddRequest { name: format!("role {most} {look}") };
            std::thread::scope(|scope| {
                let add = || runtime.block_on(node.propose(&root, Op::RoleAdd(add))).unwrap();
                scope.spawn(add);
            });
        };
        *clock.secret.lock() = Some(Box::new(hook));
    };
    changes(9);
    log_in(&node, "ann", "secret").await.unwrap();
    assert_eq!(looks.load(Ordering::Relaxed), 10);
    changes(1000);
    let refusal = log_in(&node, "ann", "secret").await.unwrap_err();
    assert_eq!(refusal, Error::Apply(apply::Error::Auth(auth::Error::OldRevision)));
    assert_eq!(looks.load(Ordering::Relaxed), 10);
    *clock.secret.lock() = None;
    log_in(&node, "ann", "secret").await.unwrap();
    node.stop().await;
}

/// Each piece is checked, and not the first alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_is_taken_back_ends_an_answer_in_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    with_users(&node).await;
    let root = log_in(&node, "root", "pw").await.unwrap();
    let ann = log_in(&node, "ann", "secret").await.unwrap();
    let (key, range_end) = (Bytes::from_static(b"p"), Bytes::from_static(b"q"));
    let perm =
        Permission { perm_type: Type::Read as i32, key: key.clone(), range_end: range_end.clone() };
    let perm = AuthRoleGrantPermissionRequest { name: "r".into(), perm: Some(perm) };
    node.propose(&root, Op::RoleGrantPermission(perm)).await.unwrap();
    for number in 0..6 {
        let value = "v".repeat(1 << 20);
        node.propose(&root, put(&format!("p{number}"), &value)).await.unwrap();
    }
    let request = RangeRequest { key, range_end, ..Default::default() };
    let ask = async |who: &Credentials| {
        let answer = node.range_in_pieces(who, &request, &mut None, (5, 1 << 30)).await;
        let Ok(RangeAnswer::Encoded(answer)) = answer else { panic!("it is not long") };
        answer.rest.unwrap()
    };
    let (_, rest) = ask(&ann).await.next().await.unwrap();
    let mut others = Some(ask(&root).await);
    let revoke = AuthUserRevokeRoleRequest { name: "ann".into(), role: "r".into() };
    node.propose(&root, Op::UserRevokeRole(revoke)).await.unwrap();
    let error = rest.unwrap().next().await.err();
    assert_eq!(error, refused(auth::Error::PermissionDenied).err());
    // Whoever still has the right goes on.
    while let Some(rest) = others {
        others = rest.next().await.unwrap().1;
    }
    node.stop().await;
}
