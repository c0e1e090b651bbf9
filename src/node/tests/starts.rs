//! Starts and stops: the state after them, and the things that they must not wait for.

use super::*;
use crate::pb::CompactionRequest;
use crate::store::Faults;

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

/// A member that restarts far behind the committed index cannot publish its name yet: its proposal
/// is refused at once. It must pause then, because its only thread serves peers as well.
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
            // The first configuration must be applied before there can be an election.
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
        // Apply has no turn here, so the member is behind by the whole log.
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
    // Long enough for the first piece of the sweep; if it takes longer, this test proves less.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let stopped = tokio::time::timeout(Duration::from_secs(60), node.stop()).await;
    stopped.expect("the stop waits for the pause between two batches");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_in_the_middle_of_a_configuration_change_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let surroundings = Surroundings::system(Arc::new(SystemClock::new()));
    let (node, steps) = Node::start_stepped(config(dir.path()), surroundings).unwrap();
    // The founder's own entry is committed; apply gets it after raft has stopped.
    steps.raft().unwrap();
    node.0.raft.stop();
    while steps.apply(usize::MAX).is_some() {}
    assert_eq!(node.0.supervisor.failure_reason(), None);
}

/// A disk that is full while the test says so. Commits wait while the test holds the lock.
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

/// On a full disk, apply waits for room in the tail in vain. What it applied is in the log.
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
    // One entry that is larger than the tail.
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
        // A disk that was known to be full would have refused the entry.
        let begun = crate::clock::instant();
        while node.0.machine.store.room().waiting <= limits::TAIL_BYTES_MAX as u64 {
            let waits = begun.elapsed() < Duration::from_secs(60) && !proposed.is_finished();
            assert!(waits, "the entry does not come to apply");
            std::thread::sleep(Duration::from_millis(10));
        }
        *is_full = true;
        proposed
    };
    // A change of the members that is applied after raft has ended.
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
    // Makes room in any case, or the runtime's end would wait for the stop as well.
    *full.0.lock() = false;
    if !stopped {
        stopping.await.unwrap();
    }
    assert!(stopped, "the stop waits for room");
    assert_eq!(node.supervisor().failure_reason(), None, "a stop is no failure");
    let _ = (proposed.await.unwrap(), changed.await.unwrap());
    drop(node);

    let node = start();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    assert_eq!(get(&node, "key 0").await.map(|value| value.len()), Some(1 << 20));
    node.stop().await;
}
