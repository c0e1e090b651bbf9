//! Compactions and their sweeps.

use super::*;
use crate::apply;
use crate::pb::alarm_request::AlarmAction;
use crate::pb::raw::RangeResponse;
use crate::pb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, LeaseGrantRequest,
};

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

/// An answer whose client is slow holds a sweep up for a named time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_waits_for_an_answer_in_pieces_and_then_ends_it() {
    ends_a_slow_answer(false).await;
}

/// Without space, writes wait for what the sweep deletes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_waits_a_shorter_time_while_there_is_no_space() {
    ends_a_slow_answer(true).await;
}

/// A sweep waits for an answer that is taken, and ends one that is not, once its time has passed.
async fn ends_a_slow_answer(without_space: bool) {
    let dir = tempfile::tempdir().unwrap();
    let (node, clock) = start_bent(dir.path()).await;
    let (nobody, value) = (Credentials::default(), "v".repeat(1 << 20));
    for n in 0..6 {
        node.propose(&nobody, put(&format!("long/{n}"), &value)).await.unwrap();
    }
    let request =
        RangeRequest { key: "long/".into(), range_end: "long0".into(), ..Default::default() };
    let ask = async || {
        let answer = node.range_in_pieces(&nobody, &request, &mut None, (5, 1 << 30)).await;
        let Ok(RangeAnswer::Encoded(answer)) = answer else { panic!("it is not long") };
        (answer.first, answer.bytes, answer.rest.unwrap())
    };
    // The keys are deleted, so that the compaction dooms all rows of the answers.
    let (mut whole, bytes, rest) = ask().await;
    let mut left = Some(rest);
    let (_, _, slow) = ask().await;
    for n in 0..6 {
        let key = Bytes::from(format!("long/{n}"));
        let delete = Op::DeleteRange(DeleteRangeRequest { key, ..Default::default() });
        node.propose(&nobody, delete).await.unwrap();
    }
    let revision = node.0.machine.mvcc.current().revision;
    let compaction = Op::Compaction(CompactionRequest { revision, physical: true });
    let compaction = tokio::spawn({
        let (node, nobody) = (node.clone(), nobody.clone());
        async move { node.propose(&nobody, compaction).await }
    });
    let mvcc = &node.0.machine.mvcc;
    until("the compaction is applied", || mvcc.is_sweeping()).await;
    while let Some(rest) = left {
        let (piece, next) = rest.next().await.unwrap();
        whole.extend(piece);
        left = next;
    }
    assert_eq!(whole.len(), 5 + bytes);
    let response = <RangeResponse as prost::Message>::decode(&whole[5..]).unwrap();
    assert!(response.kvs.len() == 6 && response.kvs.iter().all(|kv| kv.ends_with(&[b'v'; 64])));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!compaction.is_finished() && mvcc.is_sweeping(), "the other answer still needs rows");
    let mut hold = limits::ANSWER_HOLD_MAX;
    if without_space {
        let (action, alarm) = (AlarmAction::Activate as i32, AlarmType::Nospace as i32);
        node.propose(&nobody, Op::Alarm(AlarmRequest { action, member_id: 1, alarm }))
            .await
            .unwrap();
        hold = limits::ANSWER_HOLD_WITHOUT_SPACE;
    }
    clock.seconds.fetch_add(hold.as_secs() as usize, Ordering::Relaxed);
    let ended = tokio::time::timeout(Duration::from_secs(60), compaction).await;
    ended.expect("the sweep waits without an end").unwrap().unwrap();
    assert_eq!(slow.next().await.err(), Some(Error::TakenTooSlowly));
    node.stop().await;
}

/// The compaction keeps no key, so its hash is that of all rows, which it is about to delete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hash_at_a_compaction_does_not_change_while_it_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let nobody = Credentials::default();
    for round in 0..5 {
        node.propose(&nobody, put("k", "v")).await.unwrap();
        let delete = DeleteRangeRequest { key: "k".into(), ..Default::default() };
        node.propose(&nobody, Op::DeleteRange(delete)).await.unwrap();
        let revision = node.0.machine.mvcc.current().revision;
        let before = node.hash_kv(&nobody, revision).await.unwrap();
        let compaction = Op::Compaction(CompactionRequest { revision, physical: false });
        node.propose(&nobody, compaction).await.unwrap();
        let after = node.hash_kv(&nobody, revision).await.unwrap();
        assert_eq!(after.hash, before.hash, "round {round}");
    }
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
