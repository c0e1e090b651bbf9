//! A whole member as its clients see it, and the helpers that its tests share.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::auth::Credentials;
use crate::clock::{Clock, Sleep, SystemClock};
use crate::mvcc::kv::Pair;
use crate::pb::request_op::Request;
use crate::pb::{PutRequest, RangeRequest, RequestOp, TxnRequest};

mod answers;
mod compaction;
mod full;
mod logins;
mod membership;
mod reads;
mod snapshots;
mod space;
mod stalls;
mod starts;

fn config(dir: &Path) -> Config {
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

pub(super) async fn start(dir: &Path) -> Node {
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

async fn put_many(node: &Node, keys: usize) {
    put_all(node, keys, "value").await;
}

/// Puts `keys` keys in one transaction.
async fn put_all(node: &Node, keys: usize, value: &str) {
    let op = |n: usize| match put(&format!("key {n}"), value) {
        Op::Put(put) => RequestOp { request: Some(Request::RequestPut(put)) },
        _ => unreachable!(),
    };
    let success = (0..keys).map(op).collect();
    let txn = Op::Txn(TxnRequest { success, ..Default::default() });
    node.propose(&Credentials::default(), txn).await.unwrap();
}

type Hook = Box<dyn Fn() + Send + Sync>;

/// The system's clock with four hooks: both clocks can be set forward, sleeps of one length can
/// be skipped, and a test can be called when a secret is drawn.
struct Bent {
    system: SystemClock,
    wall_seconds: AtomicUsize,
    seconds: AtomicUsize,
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
            seconds: AtomicUsize::new(0),
            skips: Mutex::default(),
            skipped: AtomicUsize::new(0),
            secret: Mutex::default(),
        })
    }
}

impl Clock for Bent {
    fn now(&self) -> Duration {
        self.system.now() + Duration::from_secs(self.seconds.load(Ordering::Relaxed) as u64)
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

/// Waits until `is_so`; fails after a minute, which no busy machine reaches.
pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = crate::clock::instant() + Duration::from_secs(60);
    while !is_so() {
        assert!(crate::clock::instant() < end, "not within a minute: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
