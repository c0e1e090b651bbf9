//! Members of one cluster in this process, one of which starts when the log is purged.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use crate::auth::Credentials;
use crate::clock::{Clock, SystemClock};
use crate::node::{Config, Node, Op, Surroundings};
use crate::pb::{PutRequest, RangeRequest};
use crate::raft;
use crate::store::Faults;
use crate::transfer::SnapshotPiece;
use crate::types::KeyRange;
use crate::watch::{Item, Next, WatchSpec};

#[expect(unreachable_pub, reason = "the tests outside of the library use it as well")]
#[path = "../../tests/common/ports.rs"]
mod ports;

pub(super) struct Member {
    pub node: Node,
    server: tokio::task::JoinHandle<()>,
}

fn config(dir: &Path, at: usize, addresses: &[SocketAddr]) -> Config {
    let url = |address: &SocketAddr| vec![format!("http://{address}")];
    let named = |(at, address)| (format!("m{at}"), url(address));
    Config {
        name: format!("m{at}"),
        cluster_token: "snapshots".into(),
        initial_cluster: addresses.iter().enumerate().map(named).collect(),
        peer_urls: url(&addresses[at]),
        initial_election_tick_advance: false,
        client_urls: vec!["http://localhost:1".into()],
        snapshot_count: 10,
        snapshot_catchup_entries: 10,
        downgrade_check_interval: Duration::from_secs(5),
        compaction_sleep_interval: Duration::from_millis(1),
        ..Config::of(&dir.join(format!("m{at}")))
    }
}

pub(super) async fn start(dir: &Path, at: usize, addresses: &[SocketAddr]) -> Member {
    start_at(dir, at, addresses, addresses[at]).await
}

/// Starts a member that listens on another address than the others know.
pub(super) async fn start_at(
    dir: &Path,
    at: usize,
    addresses: &[SocketAddr],
    bind: SocketAddr,
) -> Member {
    start_on(dir, at, addresses, bind, None).await
}

/// Starts a member on a disk with faults.
async fn start_on(
    dir: &Path,
    at: usize,
    addresses: &[SocketAddr],
    bind: SocketAddr,
    faults: Option<Arc<dyn Faults>>,
) -> Member {
    let mut surroundings = Surroundings::system(Arc::new(SystemClock::new()));
    surroundings.store.faults = faults;
    surroundings.log = raft::log::Options { segment_bytes: 64 << 10, fill_ahead: false };
    surroundings.store.reserve_bytes = 0;
    let config = config(dir, at, addresses);
    let node = tokio::task::spawn_blocking(move || Node::start_with(config, surroundings));
    let node = node.await.unwrap().unwrap();
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(bind).unwrap();
    let listener = socket.listen(64).unwrap();
    let peers = Arc::clone(node.peers());
    let server = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let peers = Arc::clone(&peers);
            let answer = service_fn(move |request| {
                let peers = Arc::clone(&peers);
                async move { Ok::<_, std::convert::Infallible>(peers.answer(request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new();
            connections.spawn(connection.serve_connection(TokioIo::new(stream), answer));
        }
    });
    Member { node, server }
}

pub(super) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let clock = SystemClock::new();
    while !holds().await {
        assert!(clock.now() < Duration::from_secs(120), "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn put(node: &Node, key: &str, bytes: usize) {
    let request = PutRequest {
        key: key.to_owned().into(),
        value: vec![b'v'; bytes].into(),
        ..Default::default()
    };
    until("a put", async || {
        node.propose(&Credentials::default(), Op::Put(request.clone())).await.is_ok()
    })
    .await;
}

pub(super) async fn has(node: &Node, key: &str) -> bool {
    let request =
        RangeRequest { key: key.to_owned().into(), serializable: true, ..Default::default() };
    node.range(&Credentials::default(), &request).await.is_ok_and(|response| response.count == 1)
}

async fn assert_equal(a: &Node, b: &Node) {
    let revision = a.header().revision;
    until("the same revision", async || b.header().revision >= revision).await;
    let (a, b) = (
        a.hash_kv(&Credentials::default(), revision).await.unwrap(),
        b.hash_kv(&Credentials::default(), revision).await.unwrap(),
    );
    assert_eq!((a.hash, a.compact_revision), (b.hash, b.compact_revision));
}

pub(super) fn addresses() -> Vec<SocketAddr> {
    (0..3).map(|_| SocketAddr::from(([127, 0, 0, 1], ports::free()))).collect()
}

/// A member's state as other members get it, with its digest.
pub(super) async fn file_of(node: &Node) -> Vec<u8> {
    let mut pieces = node.snapshot(&Credentials::default()).await.unwrap();
    let mut file = Vec::new();
    while let Some(piece) = pieces.next().await {
        match piece.unwrap() {
            SnapshotPiece::Bytes(bytes) => file.extend_from_slice(&bytes),
            SnapshotPiece::Digest(digest) => file.extend_from_slice(&digest),
        }
    }
    file
}

impl Member {
    pub(super) async fn stop(self) {
        self.server.abort();
        self.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_comes_late_gets_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let addresses = addresses();
    let first = start(dir.path(), 0, &addresses).await;
    let second = start(dir.path(), 1, &addresses).await;
    for n in 0..400 {
        put(&first.node, &format!("key {}", n % 50), 1000).await;
    }
    let late = start(dir.path(), 2, &addresses).await;
    let stream = late.node.watch_stream();
    let range = KeyRange { key: Bytes::from_static(b"key 7"), end: Bytes::new() };
    let (start_revision, watch_id, no_put, no_delete, prev_kv) = (0, 0, false, false, false);
    let spec = WatchSpec { range, start_revision, watch_id, no_put, no_delete, prev_kv };
    stream.create(&Credentials::default(), spec).await.unwrap();
    until("the newest key", async || has(&late.node, "key 49").await).await;
    assert_equal(&first.node, &late.node).await;
    let current = || std::fs::read_to_string(dir.path().join("m2/member/db/CURRENT")).unwrap();
    assert!(current().starts_with("gen-2 "), "{}", current());
    // The late member proposes its client URLs once it knows a leader.
    let is_equal = async || late.node.members() == first.node.members();
    until("the same members", is_equal).await;
    let mut seen = 0;
    until("the events", async || {
        match stream.next() {
            Next::Item(Item::Events { changes, .. }) => seen += changes.len(),
            Next::CatchUp => stream.catch_up().await.unwrap(),
            _ => {}
        }
        seen == 8
    })
    .await;
    put(&second.node, "after", 10).await;
    until("what came after it", async || has(&late.node, "after").await).await;
    drop(stream);
    late.stop().await;
    put(&first.node, "meanwhile", 10).await;
    let late = start(dir.path(), 2, &addresses).await;
    until("what came meanwhile", async || has(&late.node, "meanwhile").await).await;
    assert_equal(&first.node, &late.node).await;
    for member in [first, second, late] {
        member.stop().await;
    }
}

/// A disk with this many free bytes.
struct Free(AtomicU64);

impl Faults for Free {
    fn free_bytes(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_without_room_for_a_snapshot_is_asked_seldom_until_it_has_some() {
    let dir = tempfile::tempdir().unwrap();
    let addresses = addresses();
    let first = start(dir.path(), 0, &addresses).await;
    let second = start(dir.path(), 1, &addresses).await;
    for n in 0..400 {
        put(&first.node, &format!("key {}", n % 50), 1000).await;
    }
    let free = Arc::new(Free(AtomicU64::new(10_000)));
    let faults = Some(Arc::clone(&free) as Arc<dyn Faults>);
    let late = start_on(dir.path(), 2, &addresses, addresses[2], faults).await;
    let refused = || late.node.peers().snapshots_refused().load(Ordering::Relaxed);
    until("a refusal", async || refused() > 0).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(refused() <= 2, "{} times in some seconds", refused());
    assert!(!dir.path().join("m2/member/db/incoming.snap.db").exists(), "it was begun");
    assert!(late.node.fatal().borrow().is_none());
    free.0.store(u64::MAX, Ordering::Relaxed);
    until("the newest key", async || has(&late.node, "key 49").await).await;
    for member in [first, second, late] {
        member.stop().await;
    }
}
