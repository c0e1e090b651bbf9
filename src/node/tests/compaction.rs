//! Compactions and their sweeps.

use super::*;
use crate::apply;
use crate::pb::{CompactionRequest, LeaseGrantRequest};

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
        Error::Apply(apply::Error::Compacted)
    );
    let after = node.hash_kv(&Credentials::default(), 40).await.unwrap();
    assert_eq!((after.compact_revision, after.hash), (-1, before.hash), "the stored hash");
    let old = RangeRequest { key: "x".into(), revision: 39, ..Default::default() };
    assert_eq!(
        node.range(&Credentials::default(), &old).await.unwrap_err(),
        Error::Apply(apply::Error::Compacted)
    );
    assert_eq!(node.lease_list(&Credentials::default()).await.unwrap(), [7]);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while get(&node, "k").await.is_some() {
        assert!(tokio::time::Instant::now() < deadline, "the lease does not expire");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(node.lease_list(&Credentials::default()).await.unwrap(), [0_i64; 0]);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_physical_compaction_may_take_longer_than_other_requests() {
    let dir = tempfile::tempdir().unwrap();
    // The sweep rests after each piece of history, and this many rows are more than one piece.
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

/// Puts do not wait, however many compactions wait for a sweep, and each physical one is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_do_not_wait_for_sweeps() {
    let dir = tempfile::tempdir().unwrap();
    // The first sweep outlasts the test; all later compactions are merged into one sweep.
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
            // Waits until it is applied, or the next compaction could be applied first.
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

/// With a pause that no test waits for, a sweep that rests after each row does not end. The next
/// start completes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_rests_after_each_batch_and_is_interrupted_by_a_stop() {
    let dir = tempfile::tempdir().unwrap();
    let compaction_sleep_interval = Duration::from_secs(3600);
    let slow = Config { compaction_sleep_interval, compaction_batch_rows: 1, ..config(dir.path()) };
    let node = Node::start(slow, Arc::new(SystemClock::new())).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    put_many(&node, 10).await;
    let compaction = Op::Compaction(CompactionRequest { revision: 2, physical: false });
    node.propose(&Credentials::default(), compaction).await.unwrap();
    // Without a rest it takes some tenths of a second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(node.0.machine.mvcc.is_sweeping());
    node.stop().await;
    drop(node);

    let node = Node::start(config(dir.path()), Arc::new(SystemClock::new())).unwrap();
    let late = tokio::time::Instant::now() + Duration::from_secs(60);
    while node.0.machine.mvcc.is_sweeping() {
        assert!(tokio::time::Instant::now() < late, "the sweep is not resumed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.stop().await;
}
