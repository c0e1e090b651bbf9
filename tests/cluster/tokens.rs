//! Tokens in a cluster: each member keeps its own.

use std::time::{Duration, Instant};

use rusd::pb::auth_client::AuthClient;
use rusd::pb::kv_client::KvClient;
use rusd::pb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthUserAddRequest, AuthUserChangePasswordRequest,
    AuthUserGrantRoleRequest, AuthenticateRequest, PutRequest, RangeRequest,
};
use tokio::time::sleep;
use tonic::{Code, Request, Status};

use super::fixture::{Cluster, PATIENCE, put};

/// More than a connection whose other end does not read holds.
const BULKY_PUTS: usize = 40;
const BULKY_BYTES: usize = 1 << 20;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().unwrap());
    request
}

async fn log_in(cluster: &Cluster, at: usize, name: &str, password: &str) -> String {
    let request = AuthenticateRequest { name: name.into(), password: password.into() };
    AuthClient::new(cluster.channel(at)).authenticate(request).await.unwrap().into_inner().token
}

/// A read of this member alone.
async fn read(cluster: &Cluster, at: usize, token: &str) -> Result<(), Status> {
    let request = RangeRequest { key: "k".into(), serializable: true, ..Default::default() };
    KvClient::new(cluster.channel(at)).range(by(token, request)).await.map(drop)
}

async fn with_users(cluster: &Cluster, at: usize) {
    let mut auth = AuthClient::new(cluster.channel(at));
    auth.role_add(AuthRoleAddRequest { name: "root".into() }).await.unwrap();
    for name in ["root", "ann"] {
        let (name, password) = (name.to_owned(), "old".to_owned());
        let request = AuthUserAddRequest { name: name.clone(), password, ..Default::default() };
        auth.user_add(request).await.unwrap();
        let request = AuthUserGrantRoleRequest { user: name, role: "root".into() };
        auth.user_grant_role(request).await.unwrap();
    }
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_with_other_users_ends_the_tokens_of_before() {
    let cluster = Cluster::start_with_short_logs().await;
    let leader = cluster.leader().await;
    let away = (leader + 1) % 3;
    put(cluster.channel(leader), "k", "v").await.unwrap();
    with_users(&cluster, leader).await;
    let root = log_in(&cluster, leader, "root", "old").await;
    let ann = log_in(&cluster, leader, "ann", "old").await;
    read(&cluster, away, &ann).await.unwrap();

    cluster.signal(away, SIGSTOP);
    // What comes first still goes on its way, as far as the connection holds it.
    for at in 0..BULKY_PUTS {
        let (key, value) = (format!("bulky{at}").into(), vec![b'x'; BULKY_BYTES].into());
        let request = PutRequest { key, value, ..Default::default() };
        KvClient::new(cluster.channel(leader)).put(by(&root, request)).await.unwrap();
    }
    let change = AuthUserChangePasswordRequest {
        name: "ann".into(),
        password: "new".into(),
        ..Default::default()
    };
    let mut auth = AuthClient::new(cluster.channel(leader));
    auth.user_change_password(by(&root, change)).await.unwrap();
    let root = log_in(&cluster, leader, "root", "old").await;
    for at in 0..200 {
        let request = PutRequest { key: format!("k{at}").into(), ..Default::default() };
        KvClient::new(cluster.channel(leader)).put(by(&root, request)).await.unwrap();
    }
    // The log is cut some milliseconds after what it says is durable in the store.
    sleep(Duration::from_millis(300)).await;
    let request = PutRequest { key: "last".into(), ..Default::default() };
    KvClient::new(cluster.channel(leader)).put(by(&root, request)).await.unwrap();
    cluster.signal(away, SIGCONT);
    let begun = Instant::now();
    while !cluster.log(away).contains("installed a snapshot of another member") {
        assert!(begun.elapsed() < PATIENCE, "no snapshot:\n{}", cluster.logs());
        sleep(Duration::from_millis(20)).await;
    }
    let refused = read(&cluster, away, &ann).await.unwrap_err();
    let expected = (Code::Unauthenticated, "etcdserver: invalid auth token");
    assert_eq!((refused.code(), refused.message()), expected);
    let again = log_in(&cluster, away, "ann", "new").await;
    read(&cluster, away, &again).await.unwrap();
}
