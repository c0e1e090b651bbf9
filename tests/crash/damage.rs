//! Damaged files: the member names them and does not start, or does without them, and never serves
//! what they say.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rusd::pb::kv_client::KvClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::{
    DefragmentRequest, HashKvRequest, PutRequest, RangeRequest, RangeResponse, SnapshotRequest,
    StatusRequest,
};
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

    /// Makes a copy that `damage` was done to.
    fn copy(&self, damage: impl FnOnce(&Path)) {
        let _ = fs::remove_dir_all(self.fixture.data());
        let mut copy = Command::new("cp");
        let status = copy.arg("-a").arg(&self.kept).arg(self.fixture.data()).status().unwrap();
        assert!(status.success());
        damage(&self.fixture.data());
    }

    /// Starts a member on such a copy.
    fn start(&self, damage: impl FnOnce(&Path)) -> Member {
        self.copy(damage);
        self.fixture.start(|_, _| {})
    }

    /// What `check data` says of the copy, of which it changes nothing.
    fn check(&self) -> (bool, String) {
        let before = contents(&self.fixture.data());
        let output = crate::child::command(crate::child::RUSD)
            .args(["check", "data", "--command-timeout=1s", "--data-dir"])
            .arg(self.fixture.data())
            .output()
            .unwrap();
        assert!(before == contents(&self.fixture.data()), "the check has changed something");
        let [out, err] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        assert!(!err.contains("panicked") && !out.contains("was ended by"), "{out}{err}");
        (output.status.success(), out + &err)
    }

    /// The check names the file, and a member does not start.
    fn refuses(&self, file: &str, damage: impl FnOnce(&Path)) {
        self.copy(damage);
        let (sound, report) = self.check();
        assert!(!sound && report.contains(file), "{file} is not named:\n{report}");
        let mut member = self.fixture.start(|_, _| {});
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

/// Names, times, lengths and checksums of all files.
fn contents(dir: &Path) -> BTreeMap<PathBuf, (SystemTime, usize, u32)> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let changed = fs::metadata(&path).unwrap().modified().unwrap();
            let bytes = fs::read(&path).unwrap_or_default();
            if path.is_dir() {
                dirs.push(path.clone());
            }
            all.insert(path, (changed, bytes.len(), crc32c::crc32c(&bytes)));
        }
    }
    all
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
    let mut member = sample.start(damage);
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
    assert_eq!(refused.code(), tonic::Code::DataLoss, "{refused}");
    assert_eq!(refused.message(), "etcdserver: corrupt cluster");
    assert!(get("key 7").is_err(), "a member with a damaged store serves nothing");
    member.child.kill().unwrap();
    member.wait();
    assert!(member.log().contains("data.mdb"), "{}", member.log());
}

/// Nobody reads the damaged record; the scrub finds it.
#[test]
fn a_member_whose_store_is_damaged_while_it_runs_is_fenced() {
    let sample = Sample::new();
    let mut member = sample.start(|_| {});
    assert!(sample.fixture.wait_ready(&mut member).is_some());
    let data = sample.fixture.data();
    flip_in_place(&data.join("member/db/gen-1/data.mdb"), NEEDLE);
    let get = RangeRequest { key: Bytes::from_static(b"key 7"), ..Default::default() };
    let channel = sample.fixture.channel();
    sample.fixture.runtime.block_on(async {
        let mut kv = KvClient::new(channel.clone());
        let refused = loop {
            match kv.range(get.clone()).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(status) => break status,
            }
        };
        assert_eq!(refused.message(), "etcdserver: corrupt cluster");
        let put = PutRequest { key: Bytes::from_static(b"k"), ..Default::default() };
        assert_eq!(kv.put(put).await.unwrap_err().code(), tonic::Code::DataLoss);
        let mut maintenance = MaintenanceClient::new(channel);
        let snapshot = match maintenance.snapshot(SnapshotRequest {}).await {
            Ok(stream) => stream.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        assert_eq!(snapshot.unwrap_err().code(), tonic::Code::DataLoss);
        let hash = maintenance.hash_kv(HashKvRequest::default()).await.unwrap_err();
        assert_eq!(hash.code(), tonic::Code::DataLoss);
        assert!(maintenance.defragment(DefragmentRequest {}).await.is_err());
        let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
        assert!(status.errors.iter().any(|error| error.contains("CORRUPT")), "{status:?}");
    });
    let has_said = || member.log().contains("the store is damaged");
    let is_noted = || data.join("member/db/DAMAGED").exists();
    // Its lines come by a thread of their own, and the note after a sync.
    let gave_up = Instant::now() + Duration::from_secs(60);
    while !has_said() || !is_noted() {
        assert!(Instant::now() < gave_up, "{}", member.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    stop(member);
    // It does not come back, whatever its start would read.
    let (sound, report) = sample.check();
    assert!(!sound && report.contains("data.mdb") && report.contains("revision 202"), "{report}");
    let mut member = sample.fixture.start(|_, _| {});
    assert!(sample.fixture.wait_ready(&mut member).is_none(), "the damage is served");
    assert!(!member.wait().success());
    // What was only read wrongly does not keep a member down.
    flip_in_place(&data.join("member/db/gen-1/data.mdb"), &flipped(NEEDLE));
    let mut member = sample.fixture.start(|_, _| {});
    assert!(sample.fixture.wait_ready(&mut member).is_some(), "{}", member.log());
    assert!(!data.join("member/db/DAMAGED").exists());
    stop(member);
}

fn flipped(needle: &[u8]) -> Vec<u8> {
    let mut flipped = needle.to_vec();
    flipped[0] ^= 4;
    flipped
}

/// As `flip_each`, in a file that is mapped: it must not be cut short meanwhile.
fn flip_in_place(path: &Path, needle: &[u8]) {
    let bytes = fs::read(path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    for at in bytes.windows(needle.len()).enumerate().filter(|(_, it)| *it == needle).map(|it| it.0)
    {
        file.write_all_at(&[bytes[at] ^ 4], at as u64).unwrap();
    }
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

#[test]
fn a_sound_directory_is_found_sound_and_one_in_use_is_left_alone() {
    let sample = Sample::new();
    sample.copy(|_| {});
    let (sound, report) = sample.check();
    assert!(sound && report.contains("All is sound"), "{report}");
    assert!(report.contains(" 300 records"), "{report}");
    let mut member = sample.fixture.start(|_, _| {});
    assert!(sample.fixture.wait_ready(&mut member).is_some());
    let output = crate::child::command(crate::child::RUSD)
        .args(["check", "data", "--command-timeout=1s", "--data-dir"])
        .arg(sample.fixture.data())
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && error.contains("locked by another process"), "{error}");
    assert!(error.contains("stop the member first"), "{error}");
    stop(member);
    // After a kill the log is ahead of the store, which is no damage. Large values lie in pieces.
    let mut member = sample.fixture.start(|_, _| {});
    assert!(sample.fixture.wait_ready(&mut member).is_some());
    let mut kv = KvClient::new(sample.fixture.channel());
    for bytes in [9000, 4000, 100_000, 1_000_000] {
        let (key, value) = (Bytes::from_static(b"large"), vec![7; bytes].into());
        let put = PutRequest { key, value, ..Default::default() };
        sample.fixture.runtime.block_on(kv.put(put)).unwrap();
    }
    std::thread::sleep(Duration::from_millis(500));
    member.child.kill().unwrap();
    member.wait();
    let (sound, report) = sample.check();
    assert!(sound, "{report}");
}

/// What the member answers: all pairs, or nothing, since it has ended or is fenced.
fn served(fixture: &Fixture, member: &mut Member) -> Option<RangeResponse> {
    let mut kv = KvClient::new(fixture.channel());
    let all = Bytes::from_static(b"\0");
    let range = RangeRequest { key: all.clone(), range_end: all, ..Default::default() };
    let begun = Instant::now();
    while !member.is_dead() {
        match fixture.runtime.block_on(kv.range(range.clone())) {
            Ok(answer) => return Some(answer.into_inner()),
            Err(status) if status.code() == tonic::Code::DataLoss => return None,
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no start:\n{}", member.log());
    }
    None
}

/// Bits flipped all over each file: the member serves what was written or does not start, and
/// whatever the start finds, the check finds.
#[test]
fn bits_flipped_anywhere_are_never_served() {
    let sample = Sample::new();
    let files: [fn(&Path) -> PathBuf; 4] = [
        |data| data.join("member/db/CURRENT"),
        |data| data.join("member/db/gen-1/data.mdb"),
        |data| data.join("member/db/gen-1/index"),
        segment,
    ];
    let places: usize = std::env::var("RUSD_CRASH_ROUNDS").map_or(6, |n| n.parse().unwrap());
    for file in files {
        let path = file(&sample.kept);
        let bytes = fs::read(&path).unwrap();
        let name = path.display();
        // Behind the log's end are zeros only, and a hole is as good as any other place in it.
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for number in 0..places {
            let at = (number * end / places + number * 37) % end;
            sample.copy(|data| flip(&file(data), at));
            let (sound, report) = sample.check();
            let mut member = sample.fixture.start(|_, _| {});
            let all = served(&sample.fixture, &mut member);
            let log = member.log();
            assert!(!log.contains("panicked"), "{name} at {at}:\n{log}");
            match all {
                Some(all) => {
                    let is_right = |value: &[u8]| value == NEEDLE || value == [b'v'; 400];
                    assert!(all.kvs.iter().all(|kv| is_right(&kv.value)), "{name} at {at}");
                    assert_eq!(all.count, 300, "{name} at {at}");
                    stop(member);
                }
                None => assert!(!sound, "{name} at {at}: the start refuses:\n{log}\n{report}"),
            }
        }
    }
}
