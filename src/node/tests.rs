use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::auth;
use crate::clock::{Clock, Sleep, SystemClock};
use crate::mvcc::kv::Pair;
use crate::pb::authpb::Permission;
use crate::pb::authpb::permission::Type;
use crate::pb::request_op::Request;
use crate::pb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthStatusRequest,
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest, AuthenticateRequest, CompactionRequest, DeleteRangeRequest,
    LeaseGrantRequest, PutRequest, RequestOp,
};
use crate::store::{self, Building, Faults, Store};

fn config(dir: &std::path::Path) -> Config {
    Config {
        initial_cluster: vec![("default".into(), vec!["http://localhost:2380".into()])],
        peer_urls: vec!["http://localhost:2380".into()],
        initial_election_tick_advance: false,
        client_urls: vec!["http://localhost:2379".into()],
        downgrade_check_interval: Duration::from_secs(5),
        compaction_sleep_interval: Duration::from_millis(1),
        auth: AuthConfig { bcrypt_cost: 4, ..AuthConfig::default() },
        ..Config::of(dir)
    }
}

pub(super) async fn start(dir: &std::path::Path) -> Node {
    let node = Node::start(config(dir), Arc::new(SystemClock::new())).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    node
}

pub(super) fn put(key: &str, value: &str) -> Op {
    let (key, value) =
        (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    Op::Put(PutRequest { key, value, ..Default::default() })
}

async fn get(node: &Node, key: &str) -> Option<String> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let response = node
        .range(&Credentials::default(), &RangeRequest { key, ..Default::default() })
        .await
        .unwrap();
    let value = |kv: &Bytes| String::from_utf8(Pair::parse(kv).unwrap().value.to_vec()).unwrap();
    response.kvs.first().map(value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_restart_with_and_without_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    assert_eq!(node.member_id(), 0x8e9e_05c5_2164_694d);
    assert_eq!(node.cluster_id(), 0xcdf8_1819_4e3a_8c32);
    node.propose(&Credentials::default(), put("a", "1")).await.unwrap();
    let reply = node.propose(&Credentials::default(), put("b", "2")).await.unwrap();
    let Reply::Put(reply) = reply else { panic!("{reply:?}") };
    assert_eq!(reply.header.unwrap().revision, 3);
    assert_eq!(get(&node, "a").await.as_deref(), Some("1"));
    assert_eq!(node.members()[0].name, "default");
    node.stop().await;
    assert_eq!(Arc::strong_count(&node.0), 1, "somebody else keeps the directory locked");
    drop(node);

    let node = start(dir.path()).await;
    assert_eq!(get(&node, "b").await.as_deref(), Some("2"));
    node.propose(&Credentials::default(), put("a", "3")).await.unwrap();
    assert_eq!(node.header().revision, 4);
    let (key, range_end) = (Bytes::from_static(&[0]), Bytes::from_static(&[0]));
    let all = RangeRequest { key, range_end, count_only: true, ..Default::default() };
    assert_eq!(node.range(&Credentials::default(), &all).await.unwrap().count, 2);
    node.stop().await;
    let error = node.propose(&Credentials::default(), put("a", "4")).await.unwrap_err();
    assert_eq!(error, Error::Stopped);
    drop(node);

    // Without the index checkpoint, as after a crash, the index comes from the rows.
    std::fs::remove_file(dir.path().join("member/db/gen-1/index")).unwrap();
    let node = start(dir.path()).await;
    assert_eq!(get(&node, "a").await.as_deref(), Some("3"));
    let old = RangeRequest { key: "a".into(), revision: 3, ..Default::default() };
    assert_eq!(node.range(&Credentials::default(), &old).await.unwrap().kvs.len(), 1);
    assert_eq!(node.header().revision, 4);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_expire_and_compaction_sweeps() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let grant = Op::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 0 });
    let Ok(Reply::LeaseGrant(lease)) = node.propose(&Credentials::default(), grant).await else {
        panic!()
    };
    assert_eq!((lease.id, lease.ttl), (7, 2), "raised to the minimum");
    let with_lease = PutRequest { key: "k".into(), lease: 7, ..Default::default() };
    node.propose(&Credentials::default(), Op::Put(with_lease)).await.unwrap();
    for n in 0..50 {
        node.propose(&Credentials::default(), put("x", &n.to_string())).await.unwrap();
    }
    let before = node.hash_kv(&Credentials::default(), 40).await.unwrap();
    let compaction = Op::Compaction(CompactionRequest { revision: 40, physical: true });
    node.propose(&Credentials::default(), compaction.clone()).await.unwrap();
    assert_eq!(
        node.propose(&Credentials::default(), compaction).await.unwrap_err(),
        Error::Compacted
    );
    let after = node.hash_kv(&Credentials::default(), 40).await.unwrap();
    assert_eq!((after.compact_revision, after.hash), (-1, before.hash), "the stored hash");
    let old = RangeRequest { key: "x".into(), revision: 39, ..Default::default() };
    assert_eq!(node.range(&Credentials::default(), &old).await.unwrap_err(), Error::Compacted);
    assert_eq!(node.lease_list(&Credentials::default()).await.unwrap(), [7]);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while get(&node, "k").await.is_some() {
        assert!(tokio::time::Instant::now() < deadline, "the lease does not expire");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(node.lease_list(&Credentials::default()).await.unwrap(), [0_i64; 0]);
    node.stop().await;
}

fn bearer(token: &str) -> Credentials {
    Credentials::token(Some(Bytes::copy_from_slice(token.as_bytes())))
}

async fn log_in(node: &Node, name: &str, password: &str) -> Result<Credentials, Error> {
    let request = AuthenticateRequest { name: name.into(), password: password.into() };
    node.authenticate(request).await.map(|response| bearer(&response.token))
}

/// Users root and ann, who may use the key `k`; auth is on.
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
    Err(Error::Auth(error))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simple_token_is_its_users_until_it_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let early = log_in(&node, "root", "pw").await.unwrap_err();
    assert_eq!(early, Error::Auth(auth::Error::AuthNotEnabled));
    with_users(&node).await;
    for (name, password) in [("ann", "wrong"), ("ghost", "secret"), ("", "")] {
        let error = log_in(&node, name, password).await.unwrap_err();
        assert_eq!(error, Error::Auth(auth::Error::AuthFailed), "{name}");
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
    // A right that is taken away is gone at once, and the token stays.
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
    let refused = results.iter().filter(|result| **result == Err(Error::TooManyRequests));
    assert!(refused.count() > 0);
    assert!(
        results.iter().filter(|result| result.is_ok()).count() >= limits::PASSWORDS_PENDING_MAX
    );
    node.stop().await;
}

pub(super) fn whole(store: &Store) -> Vec<u8> {
    let mut snapshot = Snapshot::new(store).unwrap();
    let mut file = Vec::new();
    while let Some(piece) = snapshot.next_piece().unwrap() {
        file.extend_from_slice(&piece);
    }
    assert_eq!(file.len() as u64, snapshot.file_bytes());
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_physical_compaction_may_take_longer_than_other_requests() {
    let dir = tempfile::tempdir().unwrap();
    // There is a rest after each piece of history, and so many rows are more than one.
    let compaction_sleep_interval = Duration::from_secs(9);
    let slow = Config { compaction_sleep_interval, ..config(dir.path()) };
    let node = Node::start(slow, Arc::new(SystemClock::new())).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    put_many(&node, limits::READ_CHUNK_ROWS).await;
    let begun = tokio::time::Instant::now();
    let compaction = Op::Compaction(CompactionRequest { revision: 2, physical: true });
    node.propose(&Credentials::default(), compaction).await.unwrap();
    assert!(begun.elapsed() > node.request_timeout());
    node.stop().await;
}

/// Puts so many keys at once.
async fn put_many(node: &Node, keys: usize) {
    let op = |n: usize| match put(&format!("key {n}"), "value") {
        Op::Put(put) => RequestOp { request: Some(Request::RequestPut(put)) },
        _ => unreachable!(),
    };
    let success = (0..keys).map(op).collect();
    let txn = Op::Txn(TxnRequest { success, ..Default::default() });
    node.propose(&Credentials::default(), txn).await.unwrap();
}

/// However many compactions wait, puts do not wait for them, and each physical one is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_do_not_wait_for_sweeps() {
    let dir = tempfile::tempdir().unwrap();
    // A sweep that outlasts the rest of the test, then one for all others.
    let compaction_sleep_interval = Duration::from_secs(5);
    let slow = Config { compaction_sleep_interval, ..config(dir.path()) };
    let node = Node::start(slow, Arc::new(SystemClock::new())).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    put_many(&node, limits::READ_CHUNK_ROWS).await;
    let nobody = Credentials::default();
    let compact = |revision: i64, physical: bool| {
        let (node, nobody) = (node.clone(), nobody.clone());
        let compaction = Op::Compaction(CompactionRequest { revision, physical });
        async move { node.propose(&nobody, compaction).await }
    };
    let mut physical = Vec::new();
    for n in 3..1300 {
        node.propose(&nobody, put("x", &n.to_string())).await.unwrap();
        if n % 100 == 0 {
            physical.push(tokio::spawn(compact(n, true)));
            // Until it is applied, the next one could come before it.
            while node.0.machine.mvcc.current().compact_revision < n {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        } else {
            compact(n, false).await.unwrap();
        }
    }
    for answer in physical {
        answer.await.unwrap().unwrap();
    }
    compact(1300, true).await.unwrap_err();
    node.propose(&nobody, put("x", "last")).await.unwrap();
    compact(1300, true).await.unwrap();
    assert!(!node.0.machine.mvcc.is_sweeping());
    assert_eq!(node.0.machine.mvcc.compaction_hashes().len(), limits::COMPACTION_HASHES_KEPT);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_holds_everything_and_a_damaged_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    for n in 0..300 {
        node.propose(&Credentials::default(), put(&format!("key {}", n % 70), &"x".repeat(n * 40)))
            .await
            .unwrap();
    }
    let grant = Op::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 1000 });
    node.propose(&Credentials::default(), grant).await.unwrap();
    let delete = crate::pb::DeleteRangeRequest { key: "key 3".into(), ..Default::default() };
    node.propose(&Credentials::default(), Op::DeleteRange(delete)).await.unwrap();
    let compaction = Op::Compaction(CompactionRequest { revision: 100, physical: true });
    node.propose(&Credentials::default(), compaction).await.unwrap();
    node.0.machine.store.flush().unwrap();
    let file = whole(&node.0.machine.store);

    let path = dir.path().join("file");
    std::fs::write(&path, &file).unwrap();
    let restore = |path: &std::path::Path| {
        let db = tempfile::tempdir().unwrap();
        let options = store::Options::new(Arc::new(SystemClock::new()));
        let file = std::fs::File::open(path).unwrap();
        let mut building = Building::first(&db.path().join("db"))?;
        Source::File(&file).fill(&mut building)?;
        let (store, _) = building.finish(options)?;
        Ok::<_, InstallError>(whole(&store))
    };
    assert!(restore(&path).unwrap() == file, "read back and written again, it is the same file");
    for cut in [0, 5000, file.len() / 2, file.len() - 1] {
        std::fs::write(&path, &file[..cut]).unwrap();
        assert!(restore(&path).is_err(), "cut at {cut}");
    }
    node.stop().await;
}

/// Callers that look at leases, callers that renew them, and entries about users take the same two
/// locks.
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
    // Threads that wait for each other would keep the test from ending.
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

/// A member that restarts far behind what is committed cannot say who it is yet, and is told so at
/// once. Its only thread must serve peers meanwhile.
#[test]
fn a_member_that_is_behind_leaves_its_thread_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let (done, ended) = std::sync::mpsc::sync_channel(1);
    let path = dir.path().to_path_buf();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let mut surroundings = Surroundings::system(Arc::new(SystemClock::new()));
        surroundings.transport = Some(Arc::new(raft::NoTransport));
        let (node, steps) = Node::start_stepped(config(&path), surroundings).unwrap();
        let turn = || {
            steps.raft().unwrap();
            while steps.log().unwrap() {}
        };
        while steps.status().role != raft::Role::Leader {
            turn();
            // The first configuration has to be applied before there can be an election.
            if steps.status().applied == 0 {
                steps.apply(usize::MAX);
            }
        }
        let behind = limits::APPLY_BACKLOG_MAX + 100;
        for number in 1..=behind {
            node.0.raft.propose(number, Bytes::from_static(b"x")).unwrap();
            if number % 1000 == 0 {
                turn();
            }
        }
        while steps.status().committed < behind {
            turn();
        }
        // Apply takes no turn, so the member is as far behind as the log is long.
        runtime.block_on(async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        });
        assert!(!*node.ready().borrow());
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(60)).expect("a task keeps the thread");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_a_paced_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let config =
        Config { compaction_sleep_interval: Duration::from_secs(3600), ..config(dir.path()) };
    let node = Node::start(config, Arc::new(SystemClock::new())).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    for number in 0..2 * limits::READ_CHUNK_ROWS {
        node.propose(&Credentials::default(), put("k", &number.to_string())).await.unwrap();
    }
    let revision = node.header().revision;
    let compaction = Op::Compaction(CompactionRequest { revision, physical: false });
    node.propose(&Credentials::default(), compaction).await.unwrap();
    // Long enough for the first batch; if it takes longer, the stop has less to prove.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopped = tokio::time::timeout(Duration::from_secs(60), node.stop()).await;
    stopped.expect("the stop waits for the pause between two batches");
}

/// A disk that has nothing left.
struct NoRoom;

impl store::Faults for NoRoom {
    fn free_bytes(&self) -> Option<u64> {
        Some(0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_transactions_delete_and_read_and_raise_no_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let mut surroundings = Surroundings::system(Arc::new(SystemClock::new()));
    surroundings.store.faults = Some(Arc::new(NoRoom));
    let node = Node::start_with(config(dir.path()), surroundings).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    let delete = DeleteRangeRequest { key: "a".into(), ..Default::default() };
    let range = RangeRequest { key: "a".into(), ..Default::default() };
    for request in [Request::RequestDeleteRange(delete), Request::RequestRange(range)] {
        let success = vec![RequestOp { request: Some(request) }];
        let op = Op::Txn(TxnRequest { success, ..Default::default() });
        node.quota_gate(&op).await.unwrap();
    }
    assert_eq!(node.alarms(), [], "what adds nothing raised the alarm");
    assert_eq!(node.quota_gate(&put("a", "1")).await, Err(Error::NoSpace));
    assert_eq!(node.alarms().len(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_middle_of_a_configuration_change_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let surroundings = Surroundings::system(Arc::new(SystemClock::new()));
    let (node, steps) = Node::start_stepped(config(dir.path()), surroundings).unwrap();
    // The founder's own entry is committed, and apply gets it once raft has stopped.
    steps.raft().unwrap();
    node.0.raft.stop();
    while steps.apply(usize::MAX).is_some() {}
    assert_eq!(node.0.supervisor.why(), None);
}

/// A disk that is full while it is told to be. Who holds the lock keeps commits waiting.
#[derive(Default)]
struct Full(Mutex<bool>);

impl Faults for Full {
    fn commit(&self) -> std::io::Result<()> {
        match *self.0.lock() {
            true => Err(rustix::io::Errno::NOSPC.into()),
            false => Ok(()),
        }
    }
}

/// Apply waits for room in the tail, and a full disk gives none. What it applied is in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_room_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let full = Arc::new(Full::default());
    let start = || {
        let mut surroundings = Surroundings::system(Arc::new(SystemClock::new()));
        surroundings.store.faults = Some(Arc::clone(&full) as Arc<dyn Faults>);
        surroundings.store.reserve_bytes = 0;
        let config = Config { max_request_bytes: usize::MAX, ..config(dir.path()) };
        Node::start_with(config, surroundings).unwrap()
    };
    let node = start();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    // One entry with more than the tail takes.
    let value = "v".repeat(1 << 20);
    let op = |n: usize| match put(&format!("key {n}"), &value) {
        Op::Put(put) => RequestOp { request: Some(Request::RequestPut(put)) },
        _ => unreachable!(),
    };
    let success = (0..=limits::TAIL_BYTES_MAX >> 20).map(op).collect();
    let txn = Op::Txn(TxnRequest { success, ..Default::default() });
    let proposer = node.clone();
    let proposed = {
        let mut is_full = full.0.lock();
        let proposed =
            tokio::spawn(async move { proposer.propose(&Credentials::default(), txn).await });
        // A disk that was found full would have refused it.
        let begun = crate::clock::instant();
        while node.0.machine.store.room().waiting <= limits::TAIL_BYTES_MAX as u64 {
            let waits = begun.elapsed() < Duration::from_secs(60) && !proposed.is_finished();
            assert!(waits, "the entry does not come to apply");
            std::thread::sleep(Duration::from_millis(10));
        }
        *is_full = true;
        proposed
    };
    // A change of the members meets a raft that has ended.
    let committed = node.0.raft.status().committed;
    let changer = node.clone();
    let changed = tokio::spawn(async move {
        changer.add_member(&Credentials::default(), vec!["http://localhost:1".into()], true).await
    });
    while node.0.raft.status().committed == committed {
        assert!(!changed.is_finished(), "the change is refused");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let stopper = node.clone();
    let mut stopping = tokio::spawn(async move { stopper.stop().await });
    let stopped = tokio::time::timeout(Duration::from_secs(60), &mut stopping).await.is_ok();
    // Else the runtime would wait for the stop as well.
    *full.0.lock() = false;
    if !stopped {
        stopping.await.unwrap();
    }
    assert!(stopped, "the stop waits for room");
    assert_eq!(node.supervisor().why(), None, "a stop is no failure");
    let _ = (proposed.await.unwrap(), changed.await.unwrap());
    drop(node);

    let node = start();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    assert_eq!(get(&node, "key 0").await.map(|value| value.len()), Some(1 << 20));
    node.stop().await;
}

/// In etcd's order: the quorum, the URLs, the number of learners.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_may_not_be_added_is_refused_for_the_first_reason() {
    let dir = tempfile::tempdir().unwrap();
    let (node, clock) = start_bent(dir.path()).await;
    let nobody = Credentials::default();
    let add = async |host: &str, is_learner: bool| {
        // The same URLs within a second are the same member.
        clock.wall_seconds.fetch_add(1, Ordering::Relaxed);
        let urls = vec![format!("http://{host}:2380")];
        node.add_member(&nobody, urls, is_learner).await.map(drop)
    };
    assert_eq!(add("learner", true).await, Ok(()));
    assert_eq!(add("learner", true).await, Err(Error::PeerUrlExist));
    assert_eq!(add("localhost", true).await, Err(Error::PeerUrlExist));
    assert_eq!(add("another", true).await, Err(Error::TooManyLearners));
    assert_eq!(add("learner", false).await, Err(Error::PeerUrlExist));
    assert_eq!(add("voter", false).await, Ok(()));
    // The new voter has not started: nothing else is looked at.
    assert_eq!(add("voter", false).await, Err(Error::MemberNotEnoughStarted));
    assert_eq!(add("voter", true).await, Err(Error::Unhealthy));
    assert_eq!(add("another", true).await, Err(Error::Unhealthy));
    node.stop().await;
}

mod reads;
pub(super) mod stalls;

type Hook = Box<dyn Fn() + Send + Sync>;

/// The system's clock, but that its wall clock can be set forward, that one length of sleep passes at
/// once when it is told so, and that it says when somebody asks for a secret.
struct Bent {
    system: SystemClock,
    wall_seconds: AtomicUsize,
    skips: Mutex<Option<Duration>>,
    skipped: AtomicUsize,
    secret: Mutex<Option<Hook>>,
}

async fn start_bent(dir: &Path) -> (Node, Arc<Bent>) {
    let clock = Bent::new();
    let node = Node::start(config(dir), Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    (node, clock)
}

impl Bent {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            system: SystemClock::new(),
            wall_seconds: AtomicUsize::new(0),
            skips: Mutex::default(),
            skipped: AtomicUsize::new(0),
            secret: Mutex::default(),
        })
    }
}

impl Clock for Bent {
    fn now(&self) -> Duration {
        self.system.now()
    }

    fn unix_nanos(&self) -> u64 {
        self.system.unix_nanos() + self.wall_seconds.load(Ordering::Relaxed) as u64 * 1_000_000_000
    }

    fn random(&self) -> u64 {
        self.system.random()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        if *self.skips.lock() == Some(duration) {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            return Box::pin(std::future::ready(()));
        }
        self.system.sleep(duration)
    }

    fn secret(&self, out: &mut [u8]) -> std::io::Result<()> {
        if let Some(hook) = &*self.secret.lock() {
            hook();
        }
        self.system.secret(out)
    }
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
    // Between the look at the password and the login's entry a role comes.
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
    assert_eq!(refusal, Error::Auth(auth::Error::OldRevision));
    assert_eq!(looks.load(Ordering::Relaxed), 10);
    *clock.secret.lock() = None;
    log_in(&node, "ann", "secret").await.unwrap();
    node.stop().await;
}

#[tokio::test]
async fn what_a_leader_knows_of_a_learner_is_looked_at_twice() {
    let pause = 2 * config(std::path::Path::new("")).heartbeat_interval;
    let clock = Bent::new();
    *clock.skips.lock() = Some(pause);
    for (answers, expected, sleeps) in
        [([true, false], true, 0), ([false, true], true, 1), ([false, false], false, 1)]
    {
        clock.skipped.store(0, Ordering::Relaxed);
        let looks = AtomicUsize::new(0);
        let look = || Ok(answers[looks.fetch_add(1, Ordering::Relaxed)]);
        let holds = membership::holds_now_or_after(pause, &*clock, look).await;
        assert_eq!(holds, Ok(expected), "{answers:?}");
        assert_eq!(clock.skipped.load(Ordering::Relaxed), sleeps, "{answers:?}");
    }
}

/// Waits for what nothing holds up.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = crate::clock::instant() + Duration::from_secs(60);
    while !is_so() {
        assert!(crate::clock::instant() < end, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A page that turns out long is as dear as any long range, and both are built to their ends.
#[test]
fn a_cancelled_long_range_keeps_its_turn_while_it_is_read() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let node = start(dir.path()).await;
        for key in ["a1", "a2", "a3"] {
            let value = "x".repeat(600_000);
            node.propose(&Credentials::default(), put(key, &value)).await.unwrap();
        }
        let range = RangeRequest {
            key: "a".into(),
            range_end: "b".into(),
            serializable: true,
            ..Default::default()
        };
        let page = RangeRequest { limit: 10, ..range.clone() };
        let free = || node.0.answers.free_turns();
        for request in [range, page] {
            // Reads wait for the only thread that they may have.
            let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
            let busy = tokio::task::spawn_blocking(move || released.recv().is_err());
            let reader = node.clone();
            let call = tokio::spawn(async move {
                reader.range(&Credentials::default(), &request).await.unwrap().kvs.len()
            });
            until("the range has a turn", || free() == limits::LONG_ANSWERS_MAX - 1).await;
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
            assert_eq!(free(), limits::LONG_ANSWERS_MAX - 1, "the work has lost its turn");
            drop(release);
            assert!(busy.await.unwrap());
            until("the turn is given back", || free() == limits::LONG_ANSWERS_MAX).await;
        }
        node.stop().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_snapshot_keeps_its_seat_while_it_is_measured() {
    use futures_util::FutureExt;

    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    // A commit that does not end holds up all who measure.
    let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
    let released = Mutex::new(released);
    let (commits, committing) = std::sync::mpsc::sync_channel(1);
    node.0.machine.store.on_commit(move |_, _| {
        let _ = commits.try_send(());
        let _ = released.lock().recv();
    });
    for n in 0..2 {
        node.propose(&Credentials::default(), put("k", &n.to_string())).await.unwrap();
        // The second comes too late for the first one's commit.
        if n == 0 {
            committing.recv_timeout(Duration::from_secs(60)).expect("nothing is committed");
        }
    }
    let root = Credentials::default();
    for number in 0..limits::SNAPSHOTS_MAX {
        let call = node.snapshot(&root).now_or_never();
        assert!(call.is_none(), "snapshot {number} is measured already");
    }
    let refused = node.snapshot(&root).now_or_never().and_then(Result::err);
    assert_eq!(refused, Some(Error::TooManyRequests));
    drop(release);
    let end = crate::clock::instant() + Duration::from_secs(60);
    while let Err(error) = node.snapshot(&root).await {
        assert!(crate::clock::instant() < end, "no seat is given back: {error}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.stop().await;
}

/// Each answer of a batch waits for the others, so large ones are given as soon as they are many.
#[test]
fn large_answers_are_given_before_their_batch_is_applied() {
    use futures_util::FutureExt;

    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let mut surroundings = Surroundings::system(Arc::new(SystemClock::new()));
    surroundings.transport = Some(Arc::new(raft::NoTransport));
    let (node, steps) = Node::start_stepped(config(dir.path()), surroundings).unwrap();
    let turn = || {
        steps.raft().unwrap();
        while steps.log().unwrap() {}
        runtime.block_on(async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        });
    };
    let apply = || {
        while steps.apply(usize::MAX).is_some() {
            node.0.machine.store.flush().unwrap();
        }
    };
    while !*node.ready().borrow() {
        turn();
        apply();
    }
    let who = Credentials::default();
    let value = "x".repeat(1_000_000);
    for n in 0..5 {
        let mut call = Box::pin(node.propose(&who, put(&format!("a{n}"), &value)));
        let end = crate::clock::instant() + Duration::from_secs(60);
        loop {
            turn();
            apply();
            if let Some(reply) = call.as_mut().now_or_never() {
                reply.unwrap();
                break;
            }
            assert!(crate::clock::instant() < end, "no answer");
        }
    }
    let range = RangeRequest { key: "a".into(), range_end: "b".into(), ..Default::default() };
    let op = |request| RequestOp { request: Some(request) };
    let small = PutRequest { key: "k".into(), ..Default::default() };
    let txn = TxnRequest {
        success: vec![op(Request::RequestPut(small)), op(Request::RequestRange(range))],
        ..Default::default()
    };
    // As many writes with long answers are under way at a time.
    const CALLS: usize = limits::LONG_ANSWERS_MAX;
    let mut calls: Vec<_> =
        (0..CALLS).map(|_| Box::pin(node.propose(&who, Op::Txn(txn.clone())))).collect();
    let before = steps.status().committed;
    let end = crate::clock::instant() + Duration::from_secs(60);
    while steps.status().committed < before + CALLS as u64 {
        // They are measured first, and take their turns then.
        assert!(calls.iter_mut().all(|call| call.as_mut().now_or_never().is_none()));
        assert!(crate::clock::instant() < end, "they are not committed");
        turn();
    }
    let mut applied = 0;
    while applied < CALLS / 2 {
        applied += steps.apply(1).map_or(0, |applied| applied.entries.len());
    }
    let answered = calls.iter_mut().filter_map(|call| call.as_mut().now_or_never()).count();
    assert!(answered >= 2, "{answered} calls are answered when half of a batch is applied");
    apply();
    node.stop_now();
}
