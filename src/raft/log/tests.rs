use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::{ConfState, Entry, HardState};

use super::format::SECTOR_BYTES;
use super::*;
use crate::supervise::Supervisor;

const METADATA: Metadata = Metadata { node_id: 7, cluster_id: 8 };
const SMALL: Options = Options { segment_bytes: 64 << 10, fill_ahead: false };

fn entry(index: u64, term: u64) -> Entry {
    let data = format!("entry {index} of term {term} ").repeat(9);
    Entry { index, term, data: Bytes::from(data), ..Entry::default() }
}

fn batch(indexes: std::ops::RangeInclusive<u64>, term: u64) -> Batch {
    let commit = indexes.start() - 1;
    Batch {
        entries: indexes.map(|index| entry(index, term)).collect(),
        hard_state: Some(HardState { term, vote: 7, commit }),
        ..Batch::default()
    }
}

struct Fixture {
    _temp: tempfile::TempDir,
    dir: PathBuf,
    disk: Arc<dyn Disk>,
}

impl Fixture {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("wal");
        let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
        create(disk.as_ref(), &dir, METADATA, &Batch::default(), SMALL).unwrap();
        Self { _temp: temp, dir, disk }
    }

    fn open(&self) -> Result<(Writer, Reader, Recovered), Error> {
        open(&self.disk, &self.dir, SMALL)
    }

    /// Writes batches of ten entries up to `last`.
    fn filled(last: u64) -> Self {
        let fixture = Self::new();
        let (mut writer, ..) = fixture.open().unwrap();
        for first in (1..=last).step_by(10) {
            writer.append(&batch(first..=(first + 9).min(last), 2)).unwrap();
            writer.write().unwrap();
        }
        writer.sync().unwrap();
        fixture
    }

    fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = fs::read_dir(&self.dir)
            .unwrap()
            .map(|item| item.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
            .collect();
        paths.sort();
        paths
    }

    fn edit(&self, segment: usize, change: impl FnOnce(&mut Vec<u8>)) {
        let path = &self.segments()[segment];
        let mut bytes = fs::read(path).unwrap();
        change(&mut bytes);
        fs::write(path, bytes).unwrap();
    }

    fn damage(&self) -> String {
        match self.open() {
            Err(error @ Error::Damage { .. }) => error.to_string(),
            Err(error) => panic!("another error: {error}"),
            Ok((.., recovered)) => panic!("opened up to {}", recovered.table.last_index()),
        }
    }
}

#[test]
fn what_was_written_is_read_back() {
    let fixture = Fixture::filled(25);
    let (mut writer, mut reader, recovered) = fixture.open().unwrap();
    assert_eq!(recovered.metadata, METADATA);
    assert_eq!(recovered.hard_state, HardState { term: 2, vote: 7, commit: 20 });
    assert_eq!(recovered.repair, None);
    let table = recovered.table;
    assert_eq!((table.first_index(), table.last_index()), (1, 25));
    let expected: Vec<_> = (1..=25).map(|index| entry(index, 2)).collect();
    assert!(table.recent(1).unwrap().eq(&expected));
    let wanted = (3..=25).map(|index| (index, 2, table.place(index).unwrap()));
    assert_eq!(reader.read(wanted, u64::MAX).unwrap(), expected[2..]);

    // Appending goes on where it ended, and later entries win.
    writer.append(&batch(21..=22, 3)).unwrap();
    writer.write().unwrap();
    drop(writer);
    let (.., recovered) = fixture.open().unwrap();
    assert_eq!(recovered.table.last_index(), 22);
    assert_eq!([20, 21].map(|at| recovered.table.term(at)), [Some(2), Some(3)]);
}

#[test]
fn a_new_log_holds_its_first_batch_or_is_not_there() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    assert!(!exists(&SystemDisk, &dir));
    fs::create_dir_all(temp.path().join("wal.tmp")).unwrap();
    fs::write(temp.path().join("wal.tmp/rubbish"), b"from a crash").unwrap();
    create(&SystemDisk, &dir, METADATA, &batch(1..=3, 1), SMALL).unwrap();
    assert!(exists(&SystemDisk, &dir));
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let (.., recovered) = open(&disk, &dir, SMALL).unwrap();
    assert_eq!(recovered.table.last_index(), 3);
    let again = create(&SystemDisk, &dir, METADATA, &Batch::default(), SMALL);
    assert!(matches!(again, Err(Error::Exists(_))));
}

/// Notes how far zeros were written into the files that the filling thread opened or made.
#[derive(Default)]
struct Zeros {
    current: AtomicU64,
    next: AtomicU64,
}

struct ZerosDisk(Arc<Zeros>);

struct ZerosFile {
    file: Arc<dyn File>,
    zeros: Arc<Zeros>,
    is_next: bool,
}

impl Disk for ZerosDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let (file, zeros) = (SystemDisk.create(path)?, Arc::clone(&self.0));
        let is_next = path.ends_with(ahead::NEXT_NAME);
        Ok(Arc::new(ZerosFile { file, zeros, is_next }))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let (file, zeros) = (SystemDisk.open(path)?, Arc::clone(&self.0));
        Ok(Arc::new(ZerosFile { file, zeros, is_next: false }))
    }
    super::system_names!();
}

impl File for ZerosFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)?;
        if bytes.iter().all(|byte| *byte == 0) {
            let reach = if self.is_next { &self.zeros.next } else { &self.zeros.current };
            reach.fetch_max(offset + bytes.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn fdatasync(&self) -> io::Result<()> {
        self.file.fdatasync()
    }
}

#[test]
fn zeros_reach_8_mib_ahead_and_into_the_next_segment() {
    const MIB: u64 = 1 << 20;
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let zeros = Arc::new(Zeros::default());
    let disk: Arc<dyn Disk> = Arc::new(ZerosDisk(Arc::clone(&zeros)));
    let options = Options { segment_bytes: 20 * MIB, fill_ahead: true };
    create(disk.as_ref(), &dir, METADATA, &Batch::default(), options).unwrap();
    let (mut writer, ..) = open(&disk, &dir, options).unwrap();
    zeros.current.store(0, Ordering::Relaxed);
    writer.fill_ahead(&Supervisor::default());
    let until = |what: &str, holds: &dyn Fn() -> bool| {
        for _ in 0..6000 {
            if holds() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("not within a minute: {what}; {:?}", zeros.current);
    };
    // A MiB at a time, up to 8 MiB beyond what is written and no further.
    let reaches = |written: u64| {
        let reach = zeros.current.load(Ordering::Relaxed);
        assert!(reach <= written + 8 * MIB + 4096, "{reach} of {written}");
        reach > written + 7 * MIB
    };
    until("zeros ahead of an empty log", &|| reaches(0));
    let (mut written, mut index) = (0, 1);
    while written < 5 * MIB {
        let data = Bytes::from(vec![7; MIB as usize]);
        let entries = vec![Entry { index, term: 1, data, ..Entry::default() }];
        writer.append(&Batch { entries, ..Batch::default() }).unwrap();
        writer.write().unwrap();
        (written, index) = (written + MIB, index + 1);
    }
    // The frames of six records are less than a block.
    until("zeros ahead of what was written", &|| {
        zeros.current.load(Ordering::Relaxed) > written + 7 * MIB
    });
    assert!(zeros.current.load(Ordering::Relaxed) <= written + 8 * MIB + 8192);
    let next = dir.join(ahead::NEXT_NAME);
    writer.room().leave(0);
    until("the next segment", &|| zeros.next.load(Ordering::Relaxed) == 8 * MIB);
    assert_eq!(fs::metadata(next).unwrap().len(), 20 * MIB);
}

#[test]
fn segments_follow_each_other() {
    let fixture = Fixture::filled(1000);
    let paths = fixture.segments();
    assert!(paths.len() > 3, "{paths:?}");
    for path in &paths[..paths.len() - 1] {
        assert!(fs::metadata(path).unwrap().len() <= SMALL.segment_bytes);
    }
    let (_, mut reader, recovered) = fixture.open().unwrap();
    assert_eq!(recovered.table.last_index(), 1000);
    let table = &recovered.table;
    let wanted = (1..=1000).map(|index| (index, 2, table.place(index).unwrap()));
    let read = reader.read(wanted, u64::MAX).unwrap();
    assert!(read.into_iter().eq((1..=1000).map(|index| entry(index, 2))));
}

#[test]
fn zeros_written_ahead_change_nothing() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let options = Options { segment_bytes: 3 << 20, fill_ahead: true };
    create(disk.as_ref(), &dir, METADATA, &Batch::default(), options).unwrap();
    let (mut writer, ..) = open(&disk, &dir, options).unwrap();
    writer.fill_ahead(&Supervisor::default());
    for first in (1..=40_000).step_by(100) {
        writer.append(&batch(first..=first + 99, 2)).unwrap();
        writer.write().unwrap();
        if first % 1000 == 1 {
            writer.sync().unwrap();
        }
    }
    drop(writer);
    let (.., recovered) = open(&disk, &dir, options).unwrap();
    assert_eq!(recovered.table.last_index(), 40_000);
    assert_eq!(recovered.repair, None);
}

#[test]
fn a_purged_log_keeps_what_is_needed() {
    let fixture = Fixture::filled(1000);
    let (mut writer, ..) = fixture.open().unwrap();
    let before = fixture.segments().len();
    let record = SnapshotRecord {
        index: 900,
        term: 2,
        conf_state: Some(ConfState { voters: vec![7], ..ConfState::default() }),
    };
    writer.purge(600, &record).unwrap();
    let after = fixture.segments().len();
    assert!(after < before && after > 1, "{before} {after}");
    writer.append(&batch(1001..=1005, 2)).unwrap();
    writer.write().unwrap();
    drop(writer);
    let (.., recovered) = fixture.open().unwrap();
    assert!(recovered.table.first_index() <= 600);
    assert!(recovered.table.first_index() > 1);
    assert_eq!(recovered.table.term(recovered.table.first_index() - 1), Some(2));
    assert_eq!(recovered.table.last_index(), 1005);
    assert_eq!(recovered.snapshots.last(), Some(&record));
}

#[test]
fn what_a_purge_leaves_may_begin_with_an_older_snapshot_record() {
    let fixture = Fixture::filled(400);
    let (mut writer, ..) = fixture.open().unwrap();
    // A segment that holds no entry yet gets the record of a purge.
    let mut last = 400;
    while fixture.segments().len() < 4 {
        last += 1;
        writer.append(&batch(last..=last, 2)).unwrap();
        writer.write().unwrap();
    }
    drop(writer);
    let offset = {
        let (.., recovered) = fixture.open().unwrap();
        recovered.table.place(last).unwrap().offset as usize
    };
    fixture.edit(3, |bytes| bytes[offset..].fill(0));
    let (mut writer, ..) = fixture.open().unwrap();
    let record = |index| SnapshotRecord {
        index,
        term: 2,
        conf_state: Some(ConfState { voters: vec![7], ..ConfState::default() }),
    };
    writer.purge(last - 200, &record(last - 3)).unwrap();
    writer.append(&batch(last..=last + 9, 2)).unwrap();
    writer.write().unwrap();
    writer.purge(last, &record(last + 5)).unwrap();
    drop(writer);
    assert_eq!(fixture.segments().len(), 1);
    let (.., recovered) = fixture.open().unwrap();
    assert_eq!((recovered.table.first_index(), recovered.table.last_index()), (last + 1, last + 9));
}

#[test]
fn a_flipped_bit_is_damage() {
    let fixture = Fixture::filled(1000);
    fixture.edit(1, |bytes| bytes[20_000] ^= 4);
    assert!(fixture.damage().contains("0000000000000001-"));

    let fixture = Fixture::filled(20);
    fixture.edit(0, |bytes| bytes[1000] ^= 4);
    let message = fixture.damage();
    assert!(message.contains("checksum"), "{message}");
    assert!(message.contains("at byte "), "{message}");
}

/// Each entry is read alone, so that no other one vouches for it.
#[test]
fn an_entry_that_is_read_back_is_checked_each_time() {
    const INDEX: u64 = 15;
    let fixture = Fixture::filled(30);
    let (mut writer, mut reader, recovered) = fixture.open().unwrap();
    let mut table = recovered.table;
    let appended = batch(31..=40, 2);
    let places = writer.append(&appended).unwrap();
    writer.write().unwrap();
    for (entry, (.., place)) in appended.entries.iter().zip(places) {
        table.append(entry.clone(), Some(place));
    }
    let mut read = |index: u64| {
        let wanted = std::iter::once((index, 2, table.place(index).unwrap()));
        reader.read(wanted, u64::MAX)
    };
    for index in 1..=40 {
        assert_eq!(read(index).unwrap(), [entry(index, 2)]);
    }
    let path = &fixture.segments()[0];
    let [from, to] = [INDEX, INDEX + 1].map(|at| table.place(at).unwrap().offset as usize);
    let whole = fs::read(path).unwrap();
    // The rest of the record is its length, which shows otherwise, and padding, which is nobody's.
    let data = entry(INDEX, 2).data;
    let at = whole[from..to].windows(data.len()).position(|bytes| bytes == data).unwrap();
    for at in [at, at + data.len() / 2, at + data.len() - 1] {
        let mut bytes = whole.clone();
        bytes[from + at] ^= 0x04;
        fs::write(path, bytes).unwrap();
        let error = read(INDEX).unwrap_err();
        assert!(matches!(error, Error::Damage { .. }), "{error}");
        assert!(error.to_string().contains(".wal at byte "), "{error}");
        assert_eq!(read(INDEX + 1).unwrap(), [entry(INDEX + 1, 2)]);
    }
}

#[test]
fn a_segment_that_is_missing_cut_or_foreign_is_damage() {
    let fixture = Fixture::filled(1000);
    fs::remove_file(&fixture.segments()[1]).unwrap();
    assert!(fixture.damage().contains("segment 1 before it is missing"));

    let fixture = Fixture::filled(1000);
    fixture.edit(1, |bytes| bytes.truncate(30_001));
    assert!(fixture.damage().contains("the file ends in a record"));

    let fixture = Fixture::filled(1000);
    fixture.edit(1, |bytes| bytes[30_000..].fill(0));
    fixture.damage();

    let fixture = Fixture::filled(20);
    let other = Metadata { node_id: 9, cluster_id: 9 };
    let dir = fixture.dir.with_file_name("other");
    create(&SystemDisk, &dir, other, &Batch::default(), SMALL).unwrap();
    let name = "0000000000000000-0000000000000000.wal";
    let stray = fixture.dir.join("0000000000000001-0000000000000015.wal");
    fs::copy(dir.join(name), &stray).unwrap();
    assert!(fixture.damage().contains("does not continue"));
    fs::rename(stray, fixture.dir.join("1.wal")).unwrap();
    assert!(fixture.damage().contains("name"));
    fs::rename(fixture.dir.join("1.wal"), fixture.dir.join("notes.txt")).unwrap();
    assert!(fixture.open().is_ok(), "what is not a segment is left alone");
}

#[test]
fn a_write_torn_at_any_sector_is_undone() {
    let whole = Fixture::filled(20);
    let full = fs::read(&whole.segments()[0]).unwrap();
    let start = {
        let (.., recovered) = whole.open().unwrap();
        u64::from(recovered.table.place(11).unwrap().offset) as usize
    };
    let end = full.len() - full.iter().rev().take_while(|byte| **byte == 0).count();
    for sector in (start / SECTOR_BYTES)..=(end / SECTOR_BYTES) {
        let from = (sector * SECTOR_BYTES).max(start);
        let to = ((sector + 1) * SECTOR_BYTES).min(full.len());
        // Everything after the sector is lost too, or the sector alone.
        for until in [full.len(), to] {
            let fixture = Fixture::new();
            let path = &fixture.segments()[0];
            let mut bytes = full.clone();
            bytes[from..until].fill(0);
            fs::write(path, &bytes).unwrap();
            let (mut writer, _, recovered) = fixture.open().unwrap();
            let last = recovered.table.last_index();
            assert!((10..=20).contains(&last), "{sector}: {last}");
            if let Some(repair) = &recovered.repair {
                assert_eq!(fs::read(&repair.kept).unwrap(), bytes, "the original is kept");
            }
            // The log is whole again.
            writer.append(&batch(last + 1..=last + 2, 5)).unwrap();
            writer.write().unwrap();
            drop(writer);
            let (.., again) = fixture.open().unwrap();
            assert_eq!((again.table.last_index(), again.repair), (last + 2, None));
        }
    }
}

#[test]
fn a_file_that_ends_in_a_record_is_torn_only_at_the_end_of_the_log() {
    let fixture = Fixture::filled(20);
    let end = {
        let (.., recovered) = fixture.open().unwrap();
        recovered.table.place(20).unwrap().offset as usize
    };
    for cut in [end + 3, end + 8, end + 100] {
        let fixture = Fixture::filled(20);
        fixture.edit(0, |bytes| bytes.truncate(cut));
        let (.., recovered) = fixture.open().unwrap();
        assert_eq!(recovered.table.last_index(), 19);
        assert!(recovered.repair.is_some());
    }
}

#[test]
fn numbers_that_leave_no_room_are_damage() {
    let too_much = limits::RAFT_NUMBER_MAX + 1;
    let snapshot = |index, term| SnapshotRecord { index, term, conf_state: None };
    let state = HardState { term: too_much, ..HardState::default() };
    for batch in [
        Batch { snapshot: Some(snapshot(u64::MAX, 2)), ..Batch::default() },
        Batch { snapshot: Some(snapshot(5, too_much)), ..Batch::default() },
        Batch { entries: vec![entry(1, too_much)], ..Batch::default() },
        Batch { hard_state: Some(state), ..Batch::default() },
    ] {
        let fixture = Fixture::new();
        let (mut writer, ..) = fixture.open().unwrap();
        writer.append(&batch).unwrap();
        writer.write().unwrap();
        assert!(fixture.damage().contains("out of range"), "{batch:?}");
    }
}

#[test]
fn a_log_that_lost_what_was_committed_is_damage() {
    let fixture = Fixture::new();
    let (mut writer, ..) = fixture.open().unwrap();
    let hard_state = Some(HardState { term: 1, vote: 7, commit: 4 });
    writer.append(&Batch { hard_state, ..batch(1..=3, 1) }).unwrap();
    writer.write().unwrap();
    drop(writer);
    assert!(fixture.damage().contains("4 was committed"));
}

/// A disk whose writes and syncs fail on demand.
struct Failing {
    write: AtomicBool,
    sync: AtomicBool,
}

struct FailingFile(Arc<dyn File>, Arc<Failing>);

impl File for FailingFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.1.write.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("the disk is full"));
        }
        self.0.write_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
    fn fdatasync(&self) -> io::Result<()> {
        if self.1.sync.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.0.fdatasync()
    }
}

struct FailingDisk(Arc<Failing>);

impl Disk for FailingDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(FailingFile(SystemDisk.create(path)?, Arc::clone(&self.0))))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(FailingFile(SystemDisk.open(path)?, Arc::clone(&self.0))))
    }
    super::system_names!();
}

#[test]
fn nothing_is_written_after_a_failure() {
    for sync in [false, true] {
        let fixture = Fixture::new();
        let switch =
            Arc::new(Failing { write: AtomicBool::new(false), sync: AtomicBool::new(false) });
        let disk: Arc<dyn Disk> = Arc::new(FailingDisk(Arc::clone(&switch)));
        let (mut writer, ..) = open(&disk, &fixture.dir, SMALL).unwrap();
        writer.append(&batch(1..=2, 1)).unwrap();
        if sync {
            switch.sync.store(true, Ordering::SeqCst);
            writer.write().unwrap();
            let error = writer.sync().unwrap_err().to_string();
            assert!(error.contains("the disk is gone"), "{error}");
        } else {
            switch.write.store(true, Ordering::SeqCst);
            let error = writer.write().unwrap_err().to_string();
            assert!(error.contains("the disk is full"), "{error}");
        }
        // The disk works again, and still nothing is written.
        assert!(matches!(writer.append(&batch(3..=3, 1)), Err(Error::Failed)));
        assert!(matches!(writer.write(), Err(Error::Failed)));
        assert!(matches!(writer.sync(), Err(Error::Failed)));
    }
}
