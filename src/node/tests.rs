use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::clock::SystemClock;
use crate::mvcc::kv::Pair;
use crate::pb::{CompactionRequest, LeaseGrantRequest, PutRequest};
use crate::store::{self, Store};

fn config(dir: &std::path::Path) -> Config {
    Config {
        name: "default".into(),
        data_dir: dir.to_path_buf(),
        wal_dir: None,
        cluster_token: "etcd-cluster".into(),
        initial_cluster: vec![("default".into(), vec!["http://localhost:2380".into()])],
        peer_urls: vec!["http://localhost:2380".into()],
        join: None,
        strict_reconfig_check: true,
        max_learners: 1,
        client_urls: vec!["http://localhost:2379".into()],
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_millis(1000),
        snapshot_count: 10_000,
        snapshot_catchup_entries: 5_000,
        max_request_bytes: limits::REQUEST_BYTES_MAX,
        quota_backend_bytes: 0,
        commit_interval: limits::COMMIT_INTERVAL,
        retention: None,
        compaction_sleep_interval: Duration::from_millis(1),
        checkpoint_pace: CheckpointPace::default(),
    }
}

async fn start(dir: &std::path::Path) -> Node {
    let node = Node::start(config(dir), Arc::new(SystemClock::new())).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    node
}

fn put(key: &str, value: &str) -> Op {
    let (key, value) =
        (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    Op::Put(PutRequest { key, value, ..Default::default() })
}

async fn get(node: &Node, key: &str) -> Option<String> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let response = node.range(&RangeRequest { key, ..Default::default() }).await.unwrap();
    let value = |kv: &Bytes| String::from_utf8(Pair::parse(kv).unwrap().value.to_vec()).unwrap();
    response.kvs.first().map(value)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_restart_with_and_without_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    assert_eq!(node.member_id(), 0x8e9e_05c5_2164_694d);
    assert_eq!(node.cluster_id(), 0xcdf8_1819_4e3a_8c32);
    node.propose(put("a", "1")).await.unwrap();
    let reply = node.propose(put("b", "2")).await.unwrap();
    let Reply::Put(reply) = reply else { panic!("{reply:?}") };
    assert_eq!(reply.header.unwrap().revision, 3);
    assert_eq!(get(&node, "a").await.as_deref(), Some("1"));
    assert_eq!(node.members()[0].name, "default");
    node.stop().await;
    drop(node);

    let node = start(dir.path()).await;
    assert_eq!(get(&node, "b").await.as_deref(), Some("2"));
    node.propose(put("a", "3")).await.unwrap();
    assert_eq!(node.header().revision, 4);
    let (key, range_end) = (Bytes::from_static(&[0]), Bytes::from_static(&[0]));
    let all = RangeRequest { key, range_end, count_only: true, ..Default::default() };
    assert_eq!(node.range(&all).await.unwrap().count, 2);
    node.stop().await;
    let error = node.propose(put("a", "4")).await.unwrap_err();
    assert_eq!(error, Error::Stopped);
    drop(node);

    // Without the index checkpoint, as after a crash, the index comes from the rows.
    std::fs::remove_file(dir.path().join("member/db/gen-1/index")).unwrap();
    let node = start(dir.path()).await;
    assert_eq!(get(&node, "a").await.as_deref(), Some("3"));
    let old = RangeRequest { key: "a".into(), revision: 3, ..Default::default() };
    assert_eq!(node.range(&old).await.unwrap().kvs.len(), 1);
    assert_eq!(node.header().revision, 4);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_expire_and_compaction_sweeps() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let grant = Op::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 0 });
    let Ok(Reply::LeaseGrant(lease)) = node.propose(grant).await else { panic!() };
    assert_eq!((lease.id, lease.ttl), (7, 2), "raised to the minimum");
    let with_lease = PutRequest { key: "k".into(), lease: 7, ..Default::default() };
    node.propose(Op::Put(with_lease)).await.unwrap();
    for n in 0..50 {
        node.propose(put("x", &n.to_string())).await.unwrap();
    }
    let before = node.hash_kv(40).await.unwrap();
    let compaction = Op::Compaction(CompactionRequest { revision: 40, physical: true });
    node.propose(compaction.clone()).await.unwrap();
    assert_eq!(node.propose(compaction).await.unwrap_err(), Error::Compacted);
    let after = node.hash_kv(40).await.unwrap();
    assert_eq!((after.compact_revision, after.hash), (-1, before.hash), "the stored hash");
    let old = RangeRequest { key: "x".into(), revision: 39, ..Default::default() };
    assert_eq!(node.range(&old).await.unwrap_err(), Error::Compacted);
    assert_eq!(node.lease_list(), [7]);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while get(&node, "k").await.is_some() {
        assert!(tokio::time::Instant::now() < deadline, "the lease does not expire");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(node.lease_list(), [0_i64; 0]);
    node.stop().await;
}

fn whole(store: &Store) -> Vec<u8> {
    let mut snapshot = Snapshot::new(store).unwrap();
    let mut file = Vec::new();
    while let Some(piece) = snapshot.next_piece().unwrap() {
        file.extend_from_slice(&piece);
    }
    assert_eq!(file.len() as u64, snapshot.file_bytes());
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_holds_everything_and_a_damaged_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    for n in 0..300 {
        node.propose(put(&format!("key {}", n % 70), &"x".repeat(n * 40))).await.unwrap();
    }
    let grant = Op::LeaseGrant(LeaseGrantRequest { id: 7, ttl: 1000 });
    node.propose(grant).await.unwrap();
    let delete = crate::pb::DeleteRangeRequest { key: "key 3".into(), ..Default::default() };
    node.propose(Op::DeleteRange(delete)).await.unwrap();
    let compaction = Op::Compaction(CompactionRequest { revision: 100, physical: true });
    node.propose(compaction).await.unwrap();
    node.0.store.flush().unwrap();
    let file = whole(&node.0.store);

    let path = dir.path().join("file");
    std::fs::write(&path, &file).unwrap();
    let restore = |path: &std::path::Path| {
        let db = tempfile::tempdir().unwrap();
        let options = store::Options::new(Arc::new(SystemClock::new()));
        let file = std::fs::File::open(path).unwrap();
        restore_store(&file, &db.path().join("db"), options).map(|(store, _)| whole(&store))
    };
    assert!(restore(&path).unwrap() == file, "read back and written again, it is the same file");
    for cut in [0, 5000, file.len() / 2, file.len() - 1] {
        std::fs::write(&path, &file[..cut]).unwrap();
        assert!(restore(&path).is_err(), "cut at {cut}");
    }
    node.stop().await;
}
