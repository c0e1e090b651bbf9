//! The index checkpoint of a member whose power goes, perhaps while it is written.

use std::env;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusd::auth::Credentials;
use rusd::clock::SystemClock;
use rusd::mvcc::{Checkpoint, Compacted, Current, Restore};
use rusd::node::{Config, Node, Op};
use rusd::pb::{
    CompactionRequest, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest,
};
use rusd::store::{Options, Store};
use rusd::upkeep::CheckpointPace;

use super::rounds;
use super::shim::{self, Chance};

fn config(dir: &Path) -> Config {
    let none = Duration::ZERO;
    Config {
        initial_cluster: vec![("default".into(), vec!["http://localhost:2380".into()])],
        peer_urls: vec!["http://localhost:2380".into()],
        initial_election_tick_advance: false,
        client_urls: vec!["http://localhost:2379".into()],
        downgrade_check_interval: Duration::from_secs(5),
        commit_interval: Duration::from_millis(1),
        compaction_sleep_interval: none,
        checkpoint_pace: CheckpointPace { rows: 20, interval: none, pause: none },
        ..Config::of(dir)
    }
}

/// In another process, under the shim: writes, compacts, and checkpoints all the time.
#[tokio::test]
#[ignore = "the body of the child of power_cuts_leave_a_checkpoint_that_is_right_or_none"]
async fn member_workload() {
    let Some(dir) = env::var_os("SHIM_DIR") else { return };
    let node = Node::start(config(Path::new(&dir)), Arc::new(SystemClock::new())).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    let mut chance = Chance::new(std::process::id().into());
    loop {
        let name = |n: u64| Bytes::from(format!("k{n:03}"));
        let n = chance.below(200);
        let key = name(n);
        let op = match chance.below(40) {
            0..5 => {
                let range_end = name(n + 5);
                Op::DeleteRange(DeleteRangeRequest { key, range_end, ..Default::default() })
            }
            5 => {
                Op::LeaseGrant(LeaseGrantRequest { id: 1 + chance.below(4).cast_signed(), ttl: 2 })
            }
            6 => {
                let revision = node.header().revision - chance.below(100).cast_signed();
                Op::Compaction(CompactionRequest { revision, physical: false })
            }
            _ => {
                let lease = if chance.below(4) == 0 { chance.below(5).cast_signed() } else { 0 };
                Op::Put(PutRequest { key, value: vec![7; 200].into(), lease, ..Default::default() })
            }
        };
        // Refused leases and compactions belong to it.
        let _ = node.propose(&Credentials::default(), op).await;
    }
}

/// Compares the index from the checkpoint with the one from the rows; true if there is one to use.
fn judge(dir: &Path) -> bool {
    let mut options = Options::new(Arc::new(SystemClock::new()));
    options.reserve_bytes = 0;
    let (store, opened) = Store::open(&dir.join("member/db"), options).unwrap();
    let store = Arc::new(store);
    let Ok(mut reader) = store.read_checkpoint(&opened) else { return false };
    let current = Current {
        revision: reader.binding.revision,
        compact_revision: reader.binding.compact_revision,
    };
    let mut bytes = Vec::new();
    // It was synced before it got its name, so a power cut cannot tear it.
    reader.read_to_end(&mut bytes).unwrap();
    let checkpoint = Checkpoint { current, bytes };
    let compacted = Compacted {
        scheduled: opened.scheduled_compact.map(|revision| revision.main),
        finished: opened.finished_compact.map(|revision| revision.main),
    };
    let with = Restore::read(Arc::clone(&store), compacted, Some(&checkpoint)).unwrap();
    let without = Restore::read(store, compacted, None).unwrap();
    assert!(with.rows <= without.rows);
    assert_eq!(with.attachments, without.attachments);
    assert_eq!(with.mvcc.current(), without.mvcc.current());
    let Current { revision: newest, compact_revision } = with.mvcc.current();
    for revision in (compact_revision.max(1)..=newest).rev().take(50) {
        let everything = Bytes::from_static(&[0]);
        let (key, range_end) = (everything.clone(), everything);
        let request = RangeRequest { key, range_end, revision, ..Default::default() };
        let pairs = |restored: &Restore| restored.mvcc.view().range(&request).unwrap().kvs;
        assert_eq!(pairs(&with), pairs(&without), "at revision {revision}");
    }
    true
}

#[test]
fn power_cuts_leave_a_checkpoint_that_is_right_or_none() {
    let library = shim::build();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let mut used = 0;
    rounds(|seed| {
        let mut chance = Chance::new(seed);
        if chance.below(6) == 0 && dir.exists() {
            std::fs::remove_dir_all(&dir).unwrap();
        }
        std::fs::create_dir_all(&dir).unwrap();
        let magnitude = chance.below(6);
        let kill_at = 100 + chance.below(200 << magnitude);
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "checkpoint::member_workload", "--ignored"]);
        shim::preload(&mut command, &library, &dir, Some(kill_at));
        let status = command.stdout(Stdio::null()).status().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        shim::power_cut(&dir, &mut chance);
        used += u32::from(dir.join("member/db").exists() && judge(&dir));
    });
    assert!(used > 0, "no round left a checkpoint");
}
