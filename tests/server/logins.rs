//! More logins than can be worked off: who is refused is told so, and nobody else notices.
//!
//! ```text
//! RUSD_FLOOD_ROUNDS=7 RUSD_FLOOD_SECONDS=6 cargo test --release --test server logins -- --nocapture
//! ```
//!
//! measures: each round puts for a while in quiet and for a while under the flood, and prints the
//! ratio of the 99th percentiles.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusd::limits::{AUTH_NAME_BYTES_MAX, PASSWORDS_PENDING_MAX};
use rusd::pb::auth_client::AuthClient;
use rusd::pb::authpb::Permission;
use rusd::pb::authpb::permission::Type;
use rusd::pb::kv_client::KvClient;
use rusd::pb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
    AuthUserGrantRoleRequest, AuthUserRevokeRoleRequest, AuthenticateRequest, PutRequest,
    RangeRequest,
};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::fixture::{Member, PATIENCE};

/// Several times what two cores can hash.
const LOGINS_PER_SECOND: u32 = 200;
const PUTTERS: usize = 10;
const PUT_PAUSE: Duration = Duration::from_millis(10);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().unwrap())
}

async fn log_in(channel: Channel, name: &str, password: &str) -> Result<String, Status> {
    let request = AuthenticateRequest { name: name.into(), password: password.into() };
    Ok(AuthClient::new(channel).authenticate(request).await?.into_inner().token)
}

/// Users root, ann and bob, of whom ann may write the keys from `p` on; auth is on.
async fn with_users(channel: Channel) {
    let mut auth = AuthClient::new(channel);
    for (name, password) in [("root", "pw"), ("ann", "secret"), ("bob", "hidden")] {
        let (name, password) = (name.into(), password.into());
        let add = AuthUserAddRequest { name, password, ..Default::default() };
        auth.user_add(add).await.unwrap();
    }
    auth.role_add(AuthRoleAddRequest { name: "r".into() }).await.unwrap();
    let perm = Permission {
        perm_type: Type::Readwrite as i32,
        key: Bytes::from_static(b"p"),
        range_end: Bytes::from_static(b"q"),
    };
    let perm = AuthRoleGrantPermissionRequest { name: "r".into(), perm: Some(perm) };
    auth.role_grant_permission(perm).await.unwrap();
    for (user, role) in [("root", "root"), ("ann", "r")] {
        let grant = AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        auth.user_grant_role(grant).await.unwrap();
    }
    auth.auth_enable(AuthEnableRequest {}).await.unwrap();
}

/// Puts with ann's token until told to stop, and gives how long each took.
async fn put(channel: Channel, number: usize, token: String, stop: Arc<AtomicBool>) -> Vec<f64> {
    let mut kv = KvClient::new(channel);
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let (key, value) = (format!("p{number}-{}", took.len() % 100), vec![b'x'; 256]);
        let put = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        let mut request = Request::new(put);
        request.metadata_mut().insert("token", token.parse().unwrap());
        let begun = Instant::now();
        kv.put(request).await.unwrap();
        took.push(begun.elapsed().as_secs_f64() * 1e3);
        tokio::time::sleep(PUT_PAUSE).await;
    }
    took
}

/// The median and the 99th percentile of all puts, in milliseconds, while `meanwhile` runs.
async fn puts(member: &Member, token: &str, meanwhile: impl Future<Output = ()>) -> (f64, f64) {
    let stop = Arc::new(AtomicBool::new(false));
    let mut putters = JoinSet::new();
    for number in 0..PUTTERS {
        putters.spawn(put(member.channel().await, number, token.to_owned(), Arc::clone(&stop)));
    }
    meanwhile.await;
    stop.store(true, Ordering::Relaxed);
    let mut took = putters.join_all().await.concat();
    took.sort_by(f64::total_cmp);
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

type Logins = JoinSet<Result<String, Status>>;

/// Logins as bob at a steady rate, however slowly they are answered.
async fn flood(channels: &[Channel], time: Duration, logins: &mut Logins) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / LOGINS_PER_SECOND);
    let begun = Instant::now();
    for channel in channels.iter().cycle() {
        if begun.elapsed() > time {
            return;
        }
        ticks.tick().await;
        let channel = channel.clone();
        logins.spawn(async move { log_in(channel, "bob", "hidden").await });
    }
}

/// Others log in meanwhile, and learn what they would learn without a flood.
async fn others(channel: Channel) {
    log_in(channel.clone(), "ann", "secret").await.unwrap();
    for (name, password) in [("ann", "wrong"), ("ghost", "secret")] {
        let refused = log_in(channel.clone(), name, password).await.unwrap_err();
        let text = "etcdserver: authentication failed, invalid user ID or password";
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, text), "{name}");
    }
}

/// How many of the flood got in; the others were all refused in the same words.
async fn judge(logins: Logins) -> (usize, usize) {
    let results = logins.join_all().await;
    let refused = results.iter().filter_map(|result| result.as_ref().err());
    for status in refused.clone() {
        let text = "etcdserver: too many requests";
        assert_eq!((status.code(), status.message()), (Code::Unknown, text));
    }
    (results.len() - refused.clone().count(), refused.count())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_logins_is_refused_in_part_and_delays_nobody_else() {
    let (rounds, seconds) = (setting("RUSD_FLOOD_ROUNDS", 1), setting("RUSD_FLOOD_SECONDS", 2));
    let time = Duration::from_secs(seconds);
    let member = Member::start();
    let first = member.channel().await;
    with_users(first.clone()).await;
    let token = log_in(first.clone(), "ann", "secret").await.unwrap();
    let mut channels = Vec::new();
    for _ in 0..4 {
        channels.push(member.channel().await);
    }
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let (quiet_median, quiet) = puts(&member, &token, tokio::time::sleep(time)).await;
        let mut logins = JoinSet::new();
        let meanwhile = async {
            let flooded = flood(&channels, time, &mut logins);
            let ((), ()) = tokio::join!(flooded, others(first.clone()));
        };
        let (flooded_median, flooded) = puts(&member, &token, meanwhile).await;
        let (accepted, refused) = judge(logins).await;
        assert!(accepted >= PASSWORDS_PENDING_MAX - 3, "{accepted} got in");
        assert!(refused > 0, "none of {accepted} was refused");
        ratios.push(flooded / quiet);
        println!(
            "puts, ms: quiet p50 {quiet_median:.2} p99 {quiet:.2}; flooded p50 {flooded_median:.2} \
             p99 {flooded:.2}; ratio of p99 {:.2}; {accepted} logins accepted, {refused} refused",
            flooded / quiet
        );
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio of {rounds}: {:.2}", ratios[ratios.len() / 2]);
    // None of this outlives the flood.
    log_in(first, "bob", "hidden").await.unwrap();
}

/// etcd's words for what nobody should ask for.
#[tokio::test(flavor = "multi_thread")]
async fn odd_names_and_ranges_are_refused_in_etcds_words() {
    let member = Member::start();
    let channel = member.channel().await;
    let mut auth = AuthClient::new(channel.clone());
    let long = "u".repeat(AUTH_NAME_BYTES_MAX);
    let told = |result: Result<(), Status>| match result {
        Ok(()) => String::new(),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    };
    for (name, words) in [
        ("", "InvalidArgument: etcdserver: user name is empty"),
        ("a\0b", ""),
        ("a", ""),
        ("a\0b", "FailedPrecondition: etcdserver: user name already exists"),
        (&long, ""),
        (&(long.clone() + "u"), "InvalidArgument: etcdserver: request is too large"),
        (&"u".repeat(1 << 20), "InvalidArgument: etcdserver: request is too large"),
    ] {
        let (name, password) = (name.into(), "pw".into());
        let add = AuthUserAddRequest { name, password, ..Default::default() };
        assert_eq!(told(auth.user_add(add.clone()).await.map(drop)), words, "{:.9}", add.name);
        let words = words.replace("user name", "role name");
        let role = AuthRoleAddRequest { name: add.name };
        assert_eq!(told(auth.role_add(role.clone()).await.map(drop)), words, "{:.9}", role.name);
    }
    let turned = "InvalidArgument: etcdserver: invalid auth management";
    for (role, key, end, words) in [
        ("a", "b", "a", turned),
        ("a", "a", "a", turned),
        ("a", "a\0", "a", turned),
        ("a", "", "", turned),
        ("a", "", "b", turned),
        ("a", "", "\0", turned),
        ("none", "b", "a", turned),
        ("none", "a", "b", "FailedPrecondition: etcdserver: role name not found"),
        ("a", "a", "\0", ""),
        ("a", "\0", "\0", ""),
        ("a\0b", "a", "b", ""),
    ] {
        let perm =
            Permission { perm_type: Type::Read as i32, key: key.into(), range_end: end.into() };
        let grant = AuthRoleGrantPermissionRequest { name: role.into(), perm: Some(perm) };
        let result = auth.role_grant_permission(grant).await.map(drop);
        assert_eq!(told(result), words, "{role:?} {key:?} {end:?}");
    }
    let empty = AuthRoleGrantPermissionRequest { name: "a".into(), perm: None };
    let result = auth.role_grant_permission(empty).await.map(drop);
    assert_eq!(told(result), "InvalidArgument: etcdserver: permission not given");
    with_users(channel.clone()).await;
    let wrong = "InvalidArgument: etcdserver: authentication failed, invalid user ID or password";
    for (name, password, words) in [
        ("a\0b", "pw", ""),
        ("a\0b", "pw\0", wrong),
        ("a\0c", "pw", wrong),
        ("", "pw", wrong),
        ("", "", wrong),
        (&long, "pw", ""),
        (&"u".repeat(1 << 20), "pw", wrong),
        ("a", &"p".repeat(1 << 20), wrong),
    ] {
        let result = log_in(channel.clone(), name, password).await.map(drop);
        assert_eq!(told(result), words, "{name:.9}");
    }
    assert!(!member.log().contains("panicked"));
}

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("token", token.parse().unwrap());
    request
}

/// Each piece is checked, and not the first alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_is_taken_back_ends_a_range_on_its_way() {
    let member = Member::start();
    let mut kv = member.kv().await;
    for number in 0..300 {
        let (key, value) = (format!("p{number:03}"), vec![b'v'; 20_000]);
        let put = PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        kv.put(put).await.unwrap();
    }
    with_users(member.channel().await).await;
    let ann = log_in(member.channel().await, "ann", "secret").await.unwrap();
    let root = log_in(member.channel().await, "root", "pw").await.unwrap();
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", member.address));
    let slow = endpoint.unwrap().initial_stream_window_size(1000).connect().await.unwrap();
    let mut reader = KvClient::new(slow).max_decoding_message_size(usize::MAX);
    let all = RangeRequest { key: "p".into(), range_end: "q".into(), ..Default::default() };
    let mut pieces = reader.range_stream(with_token(all, &ann)).await.unwrap().into_inner();
    assert!(pieces.message().await.unwrap().is_some());
    let revoke = AuthUserRevokeRoleRequest { name: "ann".into(), role: "r".into() };
    let mut auth = AuthClient::new(member.channel().await);
    auth.user_revoke_role(with_token(revoke, &root)).await.unwrap();
    let rest = async {
        loop {
            match pieces.message().await {
                Ok(Some(_)) => {}
                ended => return ended,
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, rest).await.unwrap();
    let status = ended.expect_err("it went on to its end");
    let texts = ["etcdserver: permission denied", "etcdserver: revision of auth store is old"];
    assert!(texts.contains(&status.message()), "{status}");
}
