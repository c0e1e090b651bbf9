//! Damaged files: the member names them and does not start, or does without them, and never serves
//! what they say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use rusd::pb::kv_client::KvClient;
use rusd::pb::{PutRequest, RangeRequest};
use rustix::process::{Pid, Signal, kill_process};

use super::server::{Fixture, Member};

const NEEDLE: &[u8] = b"a value that stands in one place only";

/// A member's data directory after a clean stop, to be damaged in copies.
struct Sample {
    fixture: Fixture,
    kept: PathBuf,
}

impl Sample {
    fn new() -> Self {
        let fixture = Fixture::new();
        let mut member = fixture.start(|_, _| {});
        assert!(fixture.wait_ready(&mut member).is_some(), "no start:\n{}", member.log());
        let mut kv = KvClient::new(fixture.channel());
        fixture.runtime.block_on(async {
            for number in 0..300 {
                let key = Bytes::from(format!("key {number}"));
                let value = if number == 200 { NEEDLE } else { &[b'v'; 400] };
                let value = Bytes::from_static(value);
                kv.put(PutRequest { key, value, ..Default::default() }).await.unwrap();
            }
        });
        stop(member);
        let kept = fixture.data().with_extension("kept");
        fs::rename(fixture.data(), &kept).unwrap();
        Self { fixture, kept }
    }

    /// Starts a member on a copy that `damage` was done to.
    fn start(&self, damage: impl FnOnce(&Path)) -> Member {
        let _ = fs::remove_dir_all(self.fixture.data());
        let mut copy = Command::new("cp");
        let status = copy.arg("-a").arg(&self.kept).arg(self.fixture.data()).status().unwrap();
        assert!(status.success());
        damage(&self.fixture.data());
        self.fixture.start(|_, _| {})
    }

    fn refuses(&self, file: &str, damage: impl FnOnce(&Path)) {
        let mut member = self.start(damage);
        assert!(self.fixture.wait_ready(&mut member).is_none(), "{file}: the damage is served");
        let log = member.log();
        assert!(log.contains(file), "{file} is not named:\n{log}");
        assert!(!log.contains("panicked"), "{log}");
        assert!(!member.wait().success());
    }

    /// Starts, and every pair is as it was.
    fn serves(&self, damage: impl FnOnce(&Path)) {
        let mut member = self.start(damage);
        let all = self.fixture.wait_ready(&mut member);
        let all = all.unwrap_or_else(|| panic!("no start:\n{}", member.log()));
        assert_eq!(all.count, 300);
        assert_eq!(all.kvs.iter().filter(|kv| kv.value == NEEDLE).count(), 1);
        assert_eq!(all.kvs.iter().filter(|kv| kv.value[..] == [b'v'; 400]).count(), 299);
        stop(member);
    }
}

fn stop(mut member: Member) {
    let pid = Pid::from_child(&member.child);
    kill_process(pid, Signal::TERM).unwrap();
    member.wait();
}

fn truncate(path: &Path, to: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(to).unwrap();
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 4;
    fs::write(path, bytes).unwrap();
}

/// Flips a bit wherever `needle` stands. A store that copies on write keeps older copies of a page
/// in pages that it has freed: when a commit falls between the puts, the first place is such a copy.
fn flip_each(path: &Path, needle: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let windows = bytes.windows(needle.len()).enumerate();
    let places: Vec<_> =
        windows.filter(|(_, window)| *window == needle).map(|(at, _)| at).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at] ^= 4);
    fs::write(path, bytes).unwrap();
}

fn place(path: &Path, needle: &[u8]) -> usize {
    let bytes = fs::read(path).unwrap();
    bytes.windows(needle.len()).position(|window| window == needle).unwrap()
}

fn segment(data: &Path) -> PathBuf {
    let names = fs::read_dir(data.join("member/wal")).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|end| end == "wal")).min().unwrap()
}

#[test]
fn a_damaged_store_is_named_and_not_served() {
    let sample = Sample::new();
    let current = |data: &Path| data.join("member/db/CURRENT");
    sample.refuses("CURRENT", |data| truncate(&current(data), 3));
    sample.refuses("CURRENT", |data| flip(&current(data), 4));
    sample.refuses("CURRENT", |data| fs::remove_file(current(data)).unwrap());
    sample.refuses("CURRENT", |data| fs::write(current(data), "MANIFEST-000004\n").unwrap());
    let file = |data: &Path| data.join("member/db/gen-1/data.mdb");
    sample.refuses("data.mdb", |data| truncate(&file(data), 20_000));
    sample.refuses("data.mdb", |data| truncate(&file(data), 0));
    sample.refuses("data.mdb", |data| flip(&file(data), 17));
    sample.refuses("data.mdb", |data| fs::remove_file(file(data)).unwrap());
    sample.refuses("data.mdb", |data| fs::write(file(data), [b'x'; 50_000]).unwrap());
    sample.refuses("member/db", |data| fs::remove_dir_all(data.join("member/db")).unwrap());
}

#[test]
fn a_damaged_record_is_an_error_and_not_a_value() {
    let sample = Sample::new();
    let file = |data: &Path| data.join("member/db/gen-1/data.mdb");
    let damage = |data: &Path| flip_each(&file(data), NEEDLE);
    // Without the index checkpoint all records are read at the start.
    sample.refuses("data.mdb", |data| {
        damage(data);
        fs::remove_file(data.join("member/db/gen-1/index")).unwrap();
    });
    let _member = sample.start(damage);
    let get = |key: &'static str| {
        let range = RangeRequest { key: Bytes::from_static(key.as_bytes()), ..Default::default() };
        let mut kv = KvClient::new(sample.fixture.channel());
        sample.fixture.runtime.block_on(async move {
            loop {
                match kv.range(range.clone()).await {
                    Err(status) if status.code() == tonic::Code::Unavailable => {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                    answer => return answer.map(|answer| answer.into_inner().kvs),
                }
            }
        })
    };
    assert_eq!(get("key 7").unwrap().len(), 1);
    let refused = get("key 200").unwrap_err();
    assert!(refused.message().contains("data.mdb"), "{refused}");
}

#[test]
fn a_damaged_checkpoint_is_done_without() {
    let sample = Sample::new();
    let file = |data: &Path| data.join("member/db/gen-1/index");
    sample.serves(|data| assert!(file(data).exists()));
    sample.serves(|data| truncate(&file(data), 100));
    sample.serves(|data| flip(&file(data), 500));
    sample.serves(|data| fs::remove_file(file(data)).unwrap());
    sample.serves(|data| fs::write(file(data), "something else").unwrap());
}

#[test]
fn a_damaged_log_is_named_and_not_served() {
    let sample = Sample::new();
    sample.refuses(".wal", |data| flip(&segment(data), place(&segment(data), NEEDLE)));
    sample.refuses(".wal", |data| {
        let segment = segment(data);
        truncate(&segment, place(&segment, NEEDLE) as u64);
    });
    sample.refuses(".wal", |data| truncate(&segment(data), 0));
    sample.refuses(".wal", |data| fs::write(segment(data), [b'x'; 50_000]).unwrap());
    sample.refuses("member/wal", |data| fs::remove_file(segment(data)).unwrap());
    sample.refuses("member/wal", |data| fs::remove_dir_all(data.join("member/wal")).unwrap());
}
