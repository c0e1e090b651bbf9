//! Successive segments: written, read back, filled with zeros ahead, and purged.

use super::failures::{Failing, FailingDisk};
use super::*;

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

    // Appending continues at the end, and later entries replace earlier ones.
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
    assert!(!exists(&SystemDisk, &dir).unwrap());
    fs::create_dir_all(temp.path().join("wal.tmp")).unwrap();
    fs::write(temp.path().join("wal.tmp/rubbish"), b"from a crash").unwrap();
    create(&SystemDisk, &dir, METADATA, &batch(1..=3, 1), SMALL).unwrap();
    assert!(exists(&SystemDisk, &dir).unwrap());
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let (.., recovered) = open(&disk, &dir, SMALL).unwrap();
    assert_eq!(recovered.table.last_index(), 3);
    let again = create(&SystemDisk, &dir, METADATA, &Batch::default(), SMALL);
    assert!(matches!(again, Err(Error::Exists(_))));
}

#[test]
fn a_directory_that_cannot_be_read_is_not_one_without_a_log() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    fs::write(&dir, b"a file").unwrap();
    let error = exists(&SystemDisk, &dir).unwrap_err().to_string();
    assert!(error.contains("cannot read") && error.contains("wal"), "{error}");
    let made = create(&SystemDisk, &dir, METADATA, &Batch::default(), SMALL);
    assert!(matches!(made, Err(Error::Io { .. })));
    assert_eq!(fs::read(&dir).unwrap(), b"a file");
}

/// A disk that notes how far zeros were written into files that the filling thread opened or made.
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
        let is_next = path.ends_with(zero_filler::NEXT_NAME);
        Ok(Arc::new(ZerosFile { file, zeros, is_next }))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let (file, zeros) = (SystemDisk.open(path)?, Arc::clone(&self.0));
        Ok(Arc::new(ZerosFile { file, zeros, is_next: false }))
    }
    super::super::system_names!();
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
    // Zeros reach a MiB at a time up to 8 MiB beyond the records, and no further.
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
    let next = dir.join(zero_filler::NEXT_NAME);
    writer.room().reserve_for_store(0);
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
fn a_segment_that_is_closed_while_it_is_read_is_read() {
    let fixture = Fixture::filled(20);
    let failing = Arc::new(Failing::default());
    let disk: Arc<dyn Disk> = Arc::new(FailingDisk(Arc::clone(&failing)));
    let (mut writer, mut reader, recovered) = open(&disk, &fixture.dir, SMALL).unwrap();
    let place = recovered.table.place(20).unwrap();
    *failing.after_size.lock() = Some(Box::new(move || {
        writer.append(&batch(21..=1000, 2)).unwrap();
        writer.write().unwrap();
    }));
    let read = reader.read([(20, 2, place)].into_iter(), u64::MAX).unwrap();
    assert_eq!(read, [entry(20, 2)]);
    assert!(fixture.segments().len() > 1);
}

/// Another thread reads the newest entries again and again, as for a follower or for apply.
#[test]
fn what_is_written_is_read_at_any_time() {
    const ENTRIES: u64 = 20_000;
    let fixture = Fixture::new();
    let (mut writer, mut reader, _) = fixture.open().unwrap();
    let newest = Mutex::new(None::<EntryPosition>);
    let is_done = AtomicBool::new(false);
    let (written, read) = std::thread::scope(|threads| {
        let reading = threads.spawn(|| {
            loop {
                let is_last = is_done.load(Ordering::Relaxed);
                let wanted = *newest.lock();
                if let Some(wanted) = wanted {
                    let read = reader.read([wanted].into_iter(), u64::MAX);
                    if !read.as_ref().is_ok_and(|entries| *entries == [entry(wanted.0, 2)]) {
                        return Err(format!("entry {}: {read:?}", wanted.0));
                    }
                }
                if is_last {
                    return Ok(());
                }
                std::thread::yield_now();
            }
        });
        let mut write = || {
            for first in (1..=ENTRIES).step_by(10) {
                let places = writer.append(&batch(first..=first + 9, 2))?;
                writer.write()?;
                *newest.lock() = places.last().copied();
            }
            Ok::<_, Error>(())
        };
        let written = write();
        is_done.store(true, Ordering::Relaxed);
        (written, reading.join().unwrap())
    });
    written.unwrap();
    read.unwrap();
    assert!(fixture.segments().len() > 50);
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
