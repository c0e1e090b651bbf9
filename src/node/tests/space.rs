//! Space that runs out and comes back, by the policy and without it; defragmentation on demand.

use std::sync::atomic::{AtomicBool, AtomicU64};

use super::stalls::{Stalling, StallingDisk};
use super::*;
use crate::apply;
use crate::limits::{SPACE_REVISIONS_KEPT, SWEEP_LOOK};
use crate::pb::alarm_request::AlarmAction;
use crate::pb::{AlarmRequest, CompactionRequest};
use crate::store::Faults;
use crate::upkeep;

const QUOTA: i64 = 6 << 20;

fn config(dir: &std::path::Path, quota: i64, space_policy_is_auto: bool) -> Config {
    Config {
        initial_cluster: vec![("default".into(), vec!["http://localhost:2380".into()])],
        peer_urls: vec!["http://localhost:2380".into()],
        initial_election_tick_advance: false,
        commit_interval: Duration::from_millis(5),
        compaction_sleep_interval: Duration::ZERO,
        quota_backend_bytes: quota,
        space_policy_is_auto,
        ..Config::of(dir)
    }
}

async fn start(dir: &std::path::Path, quota: i64, space_policy_is_auto: bool) -> Node {
    let config = config(dir, quota, space_policy_is_auto);
    let node = Node::start(config, Arc::new(SystemClock::new())).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    node
}

async fn propose(node: &Node, op: Op) -> Result<(), Error> {
    node.quota_gate(&op).await?;
    node.propose(&Credentials::default(), op).await.map(drop)
}

/// Puts to the same 50 keys over and over, several at a time.
async fn put(node: &Node, from: i64, count: i64) -> Result<(), Error> {
    let puts = (from..from + count).map(|number| {
        let key = Bytes::from(format!("key {}", number % 50));
        let value = Bytes::from(format!("{number:01000}"));
        let node = node.clone();
        tokio::spawn(async move {
            let put = PutRequest { key, value, ..Default::default() };
            propose(&node, Op::Put(put)).await
        })
    });
    let mut outcome = Ok(());
    for put in puts.collect::<Vec<_>>() {
        outcome = outcome.and(put.await.unwrap());
    }
    outcome
}

async fn fill(node: &Node) {
    for batch in 0.. {
        assert!(batch < 1000, "it does not fill up");
        match put(node, batch * 50, 50).await {
            Ok(()) => {}
            Err(Error::Apply(apply::Error::NoSpace)) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn compact(node: &Node, revision: i64) {
    let compaction = CompactionRequest { revision, physical: true };
    propose(node, Op::Compaction(compaction)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_store_recovers_alone_and_keeps_the_newest_history() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), QUOTA, true).await;
    fill(&node).await;
    let filled = node.header().revision;
    let mut looks = 0;
    while node.alarms().iter().any(|alarm| alarm.alarm == AlarmType::Nospace as i32)
        || put(&node, 0, 1).await.is_err()
    {
        looks += 1;
        assert!(looks < 3000, "it does not recover: {:?}", node.status());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let current = node.0.machine.mvcc.current();
    assert!(current.compact_revision > 0, "history was compacted");
    assert!(current.compact_revision <= filled - SPACE_REVISIONS_KEPT, "{current:?}");
    assert!(node.status().db_size <= QUOTA * 7 / 8, "{:?}", node.status());
    assert!(node.status().errors.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_policy_compaction_defragmentation_and_disarm_recover_it() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), QUOTA, false).await;
    fill(&node).await;
    let hash = |node: Node| async move {
        let hash = node.hash_kv(&Credentials::default(), 0).await.unwrap();
        (hash.hash, hash.compact_revision)
    };
    compact(&node, node.header().revision).await;
    let compacted = hash(node.clone()).await;
    let before = node.status();
    node.defragment(&Credentials::default()).await.unwrap();
    let after = node.status();
    assert!(after.db_size < before.db_size / 2, "{before:?} {after:?}");
    assert!(after.db_size_in_use <= after.db_size);
    assert_eq!(hash(node.clone()).await, compacted);
    assert_eq!(
        put(&node, 0, 1).await,
        Err(Error::Apply(apply::Error::NoSpace)),
        "until it is disarmed"
    );
    let disarm = AlarmRequest {
        action: AlarmAction::Deactivate as i32,
        member_id: node.member_id(),
        alarm: AlarmType::Nospace as i32,
    };
    propose(&node, Op::Alarm(disarm)).await.unwrap();
    put(&node, 0, 50).await.unwrap();
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cycles_of_filling_and_compacting_keep_the_file_flat() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path(), 0, false).await;
    let mut sizes = Vec::new();
    for cycle in 0..20 {
        put(&node, cycle * 1000, 1000).await.unwrap();
        compact(&node, node.header().revision).await;
        sizes.push(node.status().db_size);
    }
    let early = sizes[..5].iter().max().unwrap();
    // How many pages are free when a commit needs them depends on timing; if none ever became free,
    // the file would be ten times as large.
    assert!(sizes[19] < 2 * early, "{sizes:?}");
    node.stop().await;
}

/// A clock that skips the looks for the end of a sweep while the test says so, and all sleeps of one
/// task. A sweep that can end needs time that really passes.
#[derive(Default)]
struct Hasty {
    system: SystemClock,
    ahead_millis: AtomicU64,
    skips_looks: AtomicBool,
    hasty: Mutex<Option<tokio::task::Id>>,
    /// The time that this task has skipped.
    skipped: Mutex<Duration>,
}

impl Clock for Hasty {
    fn now(&self) -> Duration {
        self.system.now() + Duration::from_millis(self.ahead_millis.load(Ordering::Relaxed))
    }

    fn unix_nanos(&self) -> u64 {
        self.system.unix_nanos()
    }

    fn random(&self) -> u64 {
        self.system.random()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        if duration == SWEEP_LOOK && self.skips_looks.load(Ordering::Relaxed) {
            self.ahead_millis.fetch_add(1000, Ordering::Relaxed);
            return Box::pin(tokio::task::yield_now());
        }
        let hasty = *self.hasty.lock();
        if hasty.is_some() && hasty == tokio::task::try_id() {
            let millis = u64::try_from(duration.as_millis()).unwrap();
            self.ahead_millis.fetch_add(millis, Ordering::Relaxed);
            *self.skipped.lock() += duration;
            return Box::pin(tokio::task::yield_now());
        }
        self.system.sleep(duration)
    }
}

/// A disk on which the sweeper's reads fail while the test says so.
struct Unswept(AtomicBool);

impl Faults for Unswept {
    fn read(&self) -> std::io::Result<()> {
        let is_sweeper = std::thread::current().name() == Some("sweeper");
        match is_sweeper && self.0.load(Ordering::Relaxed) {
            true => Err(std::io::Error::from_raw_os_error(5)),
            false => Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_that_fails_for_ever_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let unswept = Arc::new(Unswept(AtomicBool::new(true)));
    let clock = Arc::new(Hasty { skips_looks: AtomicBool::new(true), ..Hasty::default() });
    let mut surroundings = Surroundings::system(Arc::clone(&clock) as Arc<dyn Clock>);
    surroundings.store.faults = Some(Arc::clone(&unswept) as Arc<dyn Faults>);
    let node = Node::start_with(config(dir.path(), QUOTA, false), surroundings).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    fill(&node).await;
    let revision = node.header().revision;
    let half = CompactionRequest { revision: revision / 2, physical: false };
    propose(&node, Op::Compaction(half)).await.unwrap();
    // A client that compacts after it does not wait for its sweep,
    compact(&node, revision / 2 + 1).await;
    // nor the policy, which compacts no further while deletions are under way.
    let recovery =
        tokio::time::timeout(Duration::from_secs(60), node.0.upkeep.recover_space(&node));
    assert!(!recovery.await.expect("it waits for a sweep that never ends"));
    assert_eq!(node.0.machine.mvcc.current().compact_revision, revision / 2 + 1);
    unswept.0.store(false, Ordering::Relaxed);
    clock.skips_looks.store(false, Ordering::Relaxed);
    let mut looks = 0;
    while node.0.machine.mvcc.is_sweeping() {
        looks += 1;
        assert!(looks < 3000, "the disk has healed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(node.0.upkeep.recover_space(&node).await);
    assert!(node.alarms().is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compaction_that_gets_no_answer_is_waited_for_and_seldom_proposed_again() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, disk) = (Arc::new(Hasty::default()), Arc::new(Stalling::default()));
    let mut surroundings = Surroundings::system(Arc::clone(&clock) as Arc<dyn Clock>);
    surroundings.disk = Arc::new(StallingDisk(Arc::clone(&disk)));
    let node = Node::start_with(config(dir.path(), QUOTA, false), surroundings).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    fill(&node).await;
    while !node.0.upkeep.has_own_alarm() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Proposals get into no log while the disk stands still, and are not lost either; reads go on.
    disk.stand_still(true);
    let before = node.0.raft.status().last_index;
    let (recovering, own) = (node.clone(), Arc::clone(&clock));
    let recovery = tokio::spawn(async move {
        *own.hasty.lock() = tokio::task::try_id();
        recovering.0.upkeep.recover_space(&recovering).await
    });
    while *clock.skipped.lock() < Duration::from_secs(3600) && !recovery.is_finished() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    *clock.hasty.lock() = None;
    disk.stand_still(false);
    let recovery = tokio::time::timeout(Duration::from_secs(60), recovery).await;
    assert!(recovery.expect("it does not go on").unwrap());
    let proposals = node.0.raft.status().last_index - before;
    assert!(proposals < 100, "{proposals}, most of them in an hour");
    assert!(node.alarms().is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_defragmentations_wait_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let node = super::start(dir.path()).await;
    let running = node.0.upkeep.passes().defrags.begin().await.unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..17 {
        let node = node.clone();
        asked.spawn(async move { node.0.upkeep.defragment().await.map(drop) });
    }
    let refused = asked.join_next().await.unwrap().unwrap();
    assert!(matches!(refused, Err(upkeep::Error::TooManyRequests)), "{refused:?}");
    drop(running);
    while let Some(done) = asked.join_next().await {
        done.unwrap().unwrap();
    }
    node.stop().await;
}
