//! Members that are killed or cut from power while they defragment and compact, and offline
//! commands that are killed at any point.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rusd::pb::kv_client::KvClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::{CompactionRequest, DefragmentRequest};
use tokio::task::JoinHandle;

use super::oracle::Oracle;
use super::rounds;
use super::server::{Fixture, Member};
use super::shim::{self, Chance};

/// Defragments and compacts without a pause until the member is gone. Nothing is compacted that the
/// watcher has not seen.
fn keep_house(
    fixture: &Fixture,
    oracle: &Arc<Oracle>,
    compacted: &Arc<AtomicI64>,
    seed: u64,
) -> [JoinHandle<()>; 2] {
    let channel = fixture.channel();
    let mut maintenance = MaintenanceClient::new(channel.clone());
    let defragmenting = fixture
        .runtime
        .spawn(async move { while maintenance.defragment(DefragmentRequest {}).await.is_ok() {} });
    let (oracle, compacted) = (Arc::clone(oracle), Arc::clone(compacted));
    let compacting = fixture.runtime.spawn(async move {
        let mut chance = Chance::new(seed);
        let mut kv = KvClient::new(channel);
        loop {
            let revision = oracle.seen() - chance.below(50).cast_signed();
            if revision > compacted.load(Ordering::Relaxed) {
                compacted.store(revision, Ordering::Relaxed);
                let physical = chance.below(2) == 0;
                if kv.compact(CompactionRequest { revision, physical }).await.is_err() {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(chance.below(30))).await;
        }
    });
    [defragmenting, compacting]
}

/// What the start left of the generations: exactly one, and nothing half-made beside it.
fn judge_files(fixture: &Fixture) {
    let db = fixture.data().join("member/db");
    let names = fs::read_dir(db).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    let generations = names.iter().filter(|name| name.starts_with("gen-"));
    assert_eq!(generations.count(), 1, "{names:?}");
}

fn round(fixture: &mut Fixture, seed: u64, chance: &mut Chance, member: &mut Member) {
    let compacted = Arc::new(AtomicI64::new(fixture.compacted));
    let oracle = Arc::clone(&fixture.oracle);
    let tasks = keep_house(fixture, &oracle, &compacted, seed);
    fixture.load(member, seed, Duration::from_millis(50 + chance.below(600)));
    // The next round's member is none of their business.
    tasks.iter().for_each(JoinHandle::abort);
    // It may have happened, and then not again.
    fixture.compacted = fixture.compacted.max(compacted.load(Ordering::Relaxed));
}

#[test]
fn a_kill_during_defragmentation_and_compaction_loses_nothing() {
    let mut fixture = Fixture::new();
    let mut generations = 0;
    rounds(|seed| {
        let mut chance = Chance::new(seed);
        let mut member = fixture.start(|_, _| {});
        assert!(fixture.wait_ready(&mut member).is_some(), "no start:\n{}", member.log());
        round(&mut fixture, seed, &mut chance, &mut member);
        drop(member);
        let current = fs::read_to_string(fixture.data().join("member/db/CURRENT")).unwrap();
        generations += usize::from(!current.starts_with("gen-1 "));
        fixture.verify(&mut chance);
        judge_files(&fixture);
    });
    assert!(fixture.oracle.writes() > 0 && generations > 0);
}

#[test]
fn a_power_cut_during_defragmentation_and_compaction_loses_nothing() {
    let library = shim::build();
    let mut fixture = Fixture::new();
    rounds(|seed| {
        let mut chance = Chance::new(seed);
        let range = 64 << chance.below(8);
        let kill_at = (chance.below(4) > 0).then(|| 1 + chance.below(range));
        let mut member = fixture.start(|command, dir| {
            shim::preload(command, &library, dir, kill_at);
        });
        if fixture.wait_ready(&mut member).is_some() {
            round(&mut fixture, seed, &mut chance, &mut member);
        }
        drop(member);
        shim::power_cut(&fixture.data(), &mut chance);
        fixture.verify(&mut chance);
        judge_files(&fixture);
    });
    assert!(fixture.oracle.writes() > 0);
}

#[test]
fn a_full_disk_ends_a_defragmentation_with_a_clear_error() {
    let library = shim::build();
    let mut fixture = Fixture::new();
    let mut member = fixture.start(|command, dir| shim::preload(command, &library, dir, None));
    assert!(fixture.wait_ready(&mut member).is_some(), "no start:\n{}", member.log());
    let defragment = |fixture: &Fixture| {
        let mut maintenance = MaintenanceClient::new(fixture.channel());
        fixture.runtime.block_on(maintenance.defragment(DefragmentRequest {}))
    };
    fs::write(shim::full_mark(&fixture.data()), b"").unwrap();
    let refused = defragment(&fixture).unwrap_err();
    assert!(refused.message().contains("no space left on the device"), "{refused}");
    fs::remove_file(shim::full_mark(&fixture.data())).unwrap();
    defragment(&fixture).unwrap();
    fixture.load(&mut member, 1, Duration::from_millis(50));
    fixture.verify(&mut Chance::new(1));
    judge_files(&fixture);
}

fn rusd(arguments: &[&str]) -> Command {
    let mut command = crate::child::command(crate::child::RUSD);
    command.args(arguments).stdin(Stdio::null());
    command
}

fn succeed(arguments: &[&str]) -> Output {
    let done = rusd(arguments).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    done
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn hash(path: &Path) -> String {
    String::from_utf8(succeed(&["hashkv", text(path)]).stdout).unwrap()
}

/// Kills a command that makes or changes `data` somewhere on its way, and lets it be tried again
/// after that. `before` is the state that it starts from, if that is one.
fn kill_somewhere(arguments: &[&str], data: &Path, before: bool, wanted: &str) {
    let begun = Instant::now();
    succeed(arguments);
    let whole = begun.elapsed();
    assert_eq!(hash(data), wanted);
    rounds(|seed| {
        let mut chance = Chance::new(seed);
        if !before {
            fs::remove_dir_all(data).unwrap();
        }
        let mut child =
            rusd(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * u32::try_from(chance.below(1100)).unwrap() / 1000);
        let _ = child.kill();
        let _ = child.wait();
        // Whole or not there at all.
        if before || data.join("member").exists() {
            assert_eq!(hash(data), wanted);
        }
        if before || !data.join("member").exists() {
            succeed(arguments);
            assert_eq!(hash(data), wanted);
        }
        let mut left = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(
            left.all(|name| ["member", "proxy", "rusd.lock"].contains(&name.to_str().unwrap()))
        );
    });
}

/// The same with a power cut in place of the kill, which takes back or tears what was not synced. A
/// command that said it was done is believed.
fn cut_somewhere(arguments: &[&str], data: &Path, before: bool, wanted: &str) {
    let library = shim::build();
    rounds(|seed| {
        let mut chance = Chance::new(seed);
        if !before && data.exists() {
            fs::remove_dir_all(data).unwrap();
        }
        let range = 16 << chance.below(9);
        let kill_at = (chance.below(6) > 0).then(|| 1 + chance.below(range));
        let mut command = rusd(arguments);
        shim::preload(&mut command, &library, data, kill_at);
        let done = command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success();
        if data.exists() {
            shim::power_cut(data, &mut chance);
        }
        let is_there = data.join("member").exists();
        assert!(is_there || !before && !done, "it said that it was done");
        if is_there {
            assert_eq!(hash(data), wanted);
        }
        if before || !is_there {
            succeed(arguments);
            assert_eq!(hash(data), wanted);
        }
        let report = succeed(&["check", "data", "--data-dir", text(data)]).stdout;
        assert!(String::from_utf8(report).unwrap().contains("All is sound"));
    });
}

/// A stopped member with some thousand writes behind it.
fn stopped_member() -> Fixture {
    let fixture = Fixture::new();
    let mut member = fixture.start(|_, _| {});
    assert!(fixture.wait_ready(&mut member).is_some(), "no start:\n{}", member.log());
    fixture.load(&mut member, 1, Duration::from_millis(1500));
    fixture
}

#[test]
fn a_restore_that_is_cut_off_leaves_nothing_half_made() {
    let fixture = stopped_member();
    let root = tempfile::tempdir().unwrap();
    let (file, data) = (root.path().join("s.db"), root.path().join("data"));
    succeed(&["export", "--data-dir", text(&fixture.data()), text(&file)]);
    let restore = ["snapshot", "restore", text(&file), "--data-dir", text(&data)];
    kill_somewhere(&restore, &data, false, &hash(&file));
    cut_somewhere(&restore, &data, false, &hash(&file));
}

#[test]
fn an_import_that_is_cut_off_leaves_nothing_half_made() {
    let fixture = stopped_member();
    let root = tempfile::tempdir().unwrap();
    // The log has etcd's format, so this is what etcd would have left.
    let (etcd, data) = (root.path().join("etcd"), root.path().join("data"));
    let (snap, wal) = (etcd.join("member/snap"), etcd.join("member/wal"));
    fs::create_dir_all(&snap).unwrap();
    fs::create_dir_all(&wal).unwrap();
    let file = snap.join("db");
    succeed(&["export", "--data-dir", text(&fixture.data()), text(&file)]);
    for entry in fs::read_dir(fixture.data().join("member/wal")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, wal.join(path.file_name().unwrap())).unwrap();
    }
    let before = fs::read(&file).unwrap();
    let import = ["import", "--from-data-dir", text(&etcd), "--data-dir", text(&data)];
    kill_somewhere(&import, &data, false, &hash(&file));
    cut_somewhere(&import, &data, false, &hash(&file));
    // What it is made from is only read, also by a `hashkv` of the file.
    assert_eq!(fs::read(&file).unwrap(), before, "etcd's file has changed");
    assert_eq!(fs::read_dir(&snap).unwrap().count(), 1);
}

#[test]
fn an_offline_defragmentation_that_is_cut_off_leaves_the_old_or_the_new_file() {
    let fixture = stopped_member();
    let data = fixture.data();
    let wanted = hash(&data);
    kill_somewhere(&["defrag", "--data-dir", text(&data)], &data, true, &wanted);
    cut_somewhere(&["defrag", "--data-dir", text(&data)], &data, true, &wanted);
    judge_files(&fixture);
}
