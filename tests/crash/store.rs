//! The store alone, in a process that dies or finds its disk full.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rusd::clock::SystemClock;
use rusd::store::{Bucket, Options, Row, Store};
use rusd::types::Revision;

use super::rounds;
use super::shim::{self, Chance};

fn options() -> Options {
    let mut options = Options::new(Arc::new(SystemClock::new()));
    options.commit_interval = Duration::from_millis(1);
    options.reserve_bytes = 0;
    options
}

/// The row that entry `index` of the store's workload writes; some are in chunks.
fn row(index: u64) -> Row {
    let mut kv = format!("entry {index} ").into_bytes();
    let bytes = match index % 50 {
        0 => 12_000,
        1 => 3000,
        _ => 200,
    };
    kv.resize(bytes, index as u8);
    Row {
        rev: Revision::new(index as i64, 0),
        tombstone: index.is_multiple_of(7),
        kv: Bytes::from(kv),
    }
}

/// In another process, under the shim: writes entries, deletes old rows, says what is durable.
#[test]
#[ignore = "the body of the child of power_cuts_leave_the_store_at_a_commit"]
fn store_workload() {
    let Some(dir) = env::var_os("SHIM_DIR") else { return };
    let (store, opened) = Store::open(&Path::new(&dir).join("db"), options()).unwrap();
    store.on_commit(|index, _| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "durable {index}").and_then(|()| out.flush()).unwrap();
    });
    store.on_no_space(|full| println!("full {full}"));
    // What was asked for and not finished is asked for again.
    let finished = opened.finished_compact.map_or(0, |rev| rev.main as u64);
    for index in (finished + 1000..=opened.consistent_index).step_by(1000) {
        compact(&store, index);
    }
    for index in opened.consistent_index + 1.. {
        store.push_row(row(index));
        store.put(Bucket::Lease, b"newest".to_vec(), index.to_be_bytes().to_vec());
        if index % 1000 == 0 {
            compact(&store, index);
        }
        store.seal(index, 1);
        // Small commits, many of them: each is a place to be cut off at.
        thread::sleep(Duration::from_micros(100));
    }
}

/// Of the 900 rows from `index` - 999 on, only each tenth stays.
fn compact(store: &Store, index: u64) {
    let rows = (index - 999..index - 99).map(|index| Revision::new(index as i64, 0));
    let (keep, dead) = rows.partition(|rev| rev.main % 10 == 0);
    drop(store.delete_rows(dead, keep, index as i64));
}

/// Opens what is left and compares it with what the workload must have written.
fn judge(dir: &Path, durable: u64) {
    let (store, opened) = Store::open(&dir.join("db"), options()).unwrap();
    let index = opened.consistent_index;
    assert!(index >= durable, "entry {durable} was durable, the store ends at {index}");
    let newest = store.bucket_get(Bucket::Lease, b"newest").unwrap();
    assert_eq!(newest.map_or(0, |value| u64::from_be_bytes(value.try_into().unwrap())), index);
    let rows = store.scan(Revision::new(0, 0), Revision::new(i64::MAX, 0), usize::MAX, usize::MAX);
    let rows = rows.unwrap();
    assert_eq!(rows.last().map_or(0, |row| row.rev.main as u64), index);
    let finished = opened.finished_compact.map_or(0, |rev| rev.main as u64);
    let mut found = rows.into_iter().peekable();
    let newest = index;
    for index in 1..=newest {
        let old = (1..=900).contains(&(index % 1000)) && index % 10 != 0;
        let expected = row(index);
        match found.next_if(|row| row.rev == expected.rev) {
            Some(row) => {
                assert_eq!(row, expected);
                assert!(!old || index > finished, "row {index} survived its compaction");
            }
            // A compaction is asked for by the entry that ends its thousand.
            None => {
                assert!(old && index.next_multiple_of(1000) <= newest, "row {index} is missing")
            }
        }
    }
}

fn workload(library: &Path, dir: &Path, kill_at: Option<u64>) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "store::store_workload", "--ignored", "--nocapture"]);
    shim::preload(&mut command, library, dir, kill_at);
    command.stdout(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_full_disk_delays_the_store_and_loses_nothing() {
    let library = shim::build();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    std::fs::create_dir(&dir).unwrap();
    let mut child = workload(&library, &dir, None);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let full = shim::full_mark(&dir);
    for _ in 0..3 {
        lines.find(|line| line.starts_with("durable")).unwrap();
        std::fs::write(&full, b"").unwrap();
        lines.find(|line| line == "full true").unwrap();
        std::fs::remove_file(&full).unwrap();
        lines.find(|line| line == "full false").unwrap();
    }
    let line = lines.find(|line| line.starts_with("durable")).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    judge(&dir, line["durable ".len()..].parse().unwrap());
}

#[test]
fn power_cuts_leave_the_store_at_a_commit() {
    let library = shim::build();
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let mut unsynced = 0;
    rounds(|seed| {
        let mut chance = Chance::new(seed);
        if chance.below(8) == 0 && dir.exists() {
            std::fs::remove_dir_all(&dir).unwrap();
        }
        std::fs::create_dir_all(&dir).unwrap();
        let magnitude = chance.below(10);
        let kill_at = 1 + chance.below(4 << magnitude);
        let mut child = workload(&library, &dir, Some(kill_at));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let numbers = lines.filter_map(|line| line.unwrap().strip_prefix("durable ")?.parse().ok());
        let durable = numbers.last().unwrap_or(0);
        let status = child.wait().unwrap();
        assert!(!status.success(), "the workload ended by itself");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
        unsynced += shim::power_cut(&dir, &mut chance);
        judge(&dir, durable);
    });
    assert!(unsynced > 0, "no round had anything to lose");
}
