//! Logs on a small disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use raft::eraftpb::{ConfState, Entry, HardState};

use super::*;
use crate::clock::SystemClock;
use crate::raft::core::Job;
use crate::raft::log_writer::{LogWriter, Work};
use crate::raft::{NoTransport, Observer};
use crate::supervise::Supervisor;

const METADATA: Metadata = Metadata { node_id: 7, cluster_id: 8 };
const SEGMENT: u64 = 64 << 10;
const OPTIONS: Options = Options { segment_bytes: SEGMENT, fill_ahead: false };

/// A directory of the real disk whose files may have `total` bytes together. A file that is
/// extended beyond that gets the rest, and then an error.
struct SmallDisk {
    dir: PathBuf,
    total: AtomicU64,
    /// Asked at each sync whether an entry has room.
    room: parking_lot::Mutex<Option<(Room, Vec<bool>)>>,
}

struct SmallFile {
    file: fs::File,
    disk: Arc<SmallDisk>,
}

struct Handle(Arc<SmallDisk>);

impl SmallDisk {
    fn used(&self) -> u64 {
        let files = fs::read_dir(&self.dir).unwrap();
        files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
    }

    fn free(&self) -> u64 {
        self.total.load(Ordering::Relaxed).saturating_sub(self.used())
    }
}

impl File for SmallFile {
    fn size(&self) -> io::Result<u64> {
        File::size(&self.file)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        File::read_at(&self.file, buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        File::write_at(&self.file, bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        File::set_len(&self.file, len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        let size = self.size()?;
        let free = self.disk.free();
        if len <= size + free {
            return self.file.set_len(len.max(size));
        }
        self.file.set_len(size + free)?;
        Err(io::Error::from_raw_os_error(28))
    }
    fn fdatasync(&self) -> io::Result<()> {
        if let Some((room, fits)) = &mut *self.disk.room.lock() {
            fits.push(room.fits(1000));
        }
        Ok(())
    }
}

impl Handle {
    fn wrap(&self, file: fs::File) -> Arc<dyn File> {
        Arc::new(SmallFile { file, disk: Arc::clone(&self.0) })
    }
}

impl Disk for Handle {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(true);
        Ok(self.wrap(options.open(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(self.wrap(fs::OpenOptions::new().read(true).write(true).open(path)?))
    }
    super::system_names!();
    fn space(&self, _: &Path) -> io::Result<Space> {
        Ok(Space { total_bytes: u64::MAX, free_bytes: self.0.free() })
    }
}

struct Fixture {
    _temp: tempfile::TempDir,
    dir: PathBuf,
    small: Arc<SmallDisk>,
    disk: Arc<dyn Disk>,
}

impl Fixture {
    /// A log on a disk of `total` bytes.
    fn new(total: u64) -> (Self, Writer) {
        Self::of(total, OPTIONS)
    }

    fn of(total: u64, options: Options) -> (Self, Writer) {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("wal");
        let total = AtomicU64::new(total);
        create(&SystemDisk, &dir, METADATA, &Batch::default(), options).unwrap();
        let small = Arc::new(SmallDisk { dir: dir.clone(), total, room: Default::default() });
        let disk: Arc<dyn Disk> = Arc::new(Handle(Arc::clone(&small)));
        let fixture = Self { _temp: temp, dir, small, disk };
        let (writer, ..) = open(&fixture.disk, &fixture.dir, options).unwrap();
        (fixture, writer)
    }

    fn open(&self) -> (Writer, Reader, Recovered) {
        open(&self.disk, &self.dir, OPTIONS).unwrap()
    }

    fn resize(&self, total: u64) {
        self.small.total.store(total, Ordering::Relaxed);
    }

    /// The lengths of the segments, in order.
    fn segments(&self) -> Vec<u64> {
        let mut names = SystemDisk.list(&self.dir).unwrap();
        names.retain(|name| name.ends_with(".wal"));
        names.sort();
        let length = |name: &String| fs::metadata(self.dir.join(name)).unwrap().len();
        names.iter().map(length).collect()
    }
}

fn entry(index: u64, bytes: u64) -> Entry {
    Entry { index, term: 2, data: vec![7; bytes as usize].into(), ..Entry::default() }
}

fn batch(indexes: std::ops::RangeInclusive<u64>, bytes: u64) -> Batch {
    let commit = indexes.start() - 1;
    Batch {
        entries: indexes.map(|index| entry(index, bytes)).collect(),
        hard_state: Some(HardState { term: 2, vote: 7, commit }),
        ..Batch::default()
    }
}

fn write(writer: &mut Writer, batch: &Batch) -> Vec<EntryPosition> {
    let places = writer.append(batch).unwrap();
    writer.write().unwrap();
    writer.sync().unwrap();
    places
}

#[test]
fn a_batch_goes_over_as_many_segments_as_it_takes() {
    let (fixture, mut writer) = Fixture::new(1 << 30);
    write(&mut writer, &batch(1..=10, 1000));
    let large = batch(11..=250, 1000);
    let places = write(&mut writer, &large);
    let sizes = fixture.segments();
    assert!(sizes.len() >= 4, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= SEGMENT), "one is larger than the rest: {sizes:?}");
    drop(writer);
    let (_, mut reader, recovered) = fixture.open();
    assert_eq!(recovered.table.last_index(), 250);
    assert_eq!(recovered.hard_state.commit, 10);
    assert_eq!(reader.read(places.into_iter(), u64::MAX).unwrap(), large.entries);
}

#[test]
fn a_segment_is_room_also_while_it_becomes_the_current_one() {
    let (fixture, mut writer) = Fixture::new(2 * SEGMENT);
    write(&mut writer, &batch(1..=50, 1000));
    *fixture.small.room.lock() = Some((writer.room(), Vec::new()));
    write(&mut writer, &batch(51..=70, 1000));
    assert_eq!(fixture.segments().len(), 2);
    let (_, fits) = fixture.small.room.lock().take().unwrap();
    assert!(fits.len() > 2 && fits.iter().all(|fits| *fits), "{fits:?}");
}

/// While zeros are written into it, its bytes are neither free on the disk nor ready.
#[test]
fn a_segment_is_room_also_while_it_is_prepared() {
    const LARGE: u64 = 2 * limits::LOG_FILL_CHUNK_BYTES as u64;
    let options = Options { segment_bytes: LARGE, fill_ahead: true };
    let (fixture, mut writer) = Fixture::of(2 * LARGE, options);
    write(&mut writer, &batch(1..=60, LARGE / 64));
    *fixture.small.room.lock() = Some((writer.room(), Vec::new()));
    writer.fill_ahead(&Supervisor::default());
    writer.room().reserve_for_store(0);
    let begun = crate::clock::instant();
    while fixture.small.room.lock().as_ref().unwrap().1.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(60), "the next segment does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    let (_, fits) = fixture.small.room.lock().take().unwrap();
    assert!(fits.iter().all(|fits| *fits), "{fits:?}");
}

#[test]
fn what_a_batch_has_no_room_for_waits_and_goes_on_where_it_was() {
    let (fixture, mut writer) = Fixture::new(2 * SEGMENT);
    let large = batch(1..=200, 1000);
    let mut rest = large.clone();
    let mut places = writer.put(&mut rest).unwrap();
    assert!(places.len() > 90, "two segments are there: {}", places.len());
    assert_eq!(rest.entries.len() + places.len(), 200);
    assert!(rest.hard_state.is_some(), "it comes with the last entry");
    writer.write().unwrap();
    assert!(writer.put(&mut rest).unwrap().is_empty());
    fixture.resize(1 << 30);
    places.extend(writer.put(&mut rest).unwrap());
    assert!(rest.is_empty());
    writer.write().unwrap();
    drop(writer);
    let (_, mut reader, recovered) = fixture.open();
    assert_eq!(recovered.hard_state, large.hard_state.unwrap());
    assert_eq!(reader.read(places.into_iter(), u64::MAX).unwrap(), large.entries);
}

/// The process is killed when the current segment is nearly full, and the disk is filled before the
/// next start.
#[test]
fn the_next_segment_is_still_there_after_a_restart() {
    let (fixture, mut writer) = Fixture::new(2 * SEGMENT);
    writer.fill_ahead(&Supervisor::default());
    writer.room().reserve_for_store(0);
    let begun = crate::clock::instant();
    while writer.room().bytes() < SEGMENT {
        assert!(begun.elapsed() < Duration::from_secs(60), "the next segment does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    write(&mut writer, &batch(1..=55, 1000));
    drop(writer);
    fixture.resize(0);
    let (mut writer, ..) = fixture.open();
    assert!(writer.room().bytes() >= SEGMENT);
    write(&mut writer, &batch(56..=100, 1000));
    assert_eq!(fixture.segments().len(), 2);
    drop(writer);
    assert_eq!(fixture.open().2.table.last_index(), 100);
}

#[test]
fn a_large_entry_leaves_to_the_store_what_is_the_stores() {
    let (fixture, mut writer) = Fixture::new(5 * SEGMENT);
    write(&mut writer, &batch(1..=10, 1000));
    // The entry takes three segments' room. Of five segments one is in use.
    let large = batch(11..=11, 5 * SEGMENT / 2);
    writer.room().reserve_for_store(2 * SEGMENT);
    assert!(matches!(writer.append(&large), Err(Error::NoRoom(_))));
    writer.room().reserve_for_store(0);
    write(&mut writer, &large);
    assert_eq!(fixture.segments().len(), 2);
    assert_eq!(fixture.open().2.table.last_index(), 11);
}

/// The disk reports more free bytes than it gives, as with quotas and reserved blocks.
#[test]
fn what_a_full_disk_gave_in_part_is_given_back() {
    struct Boaster(Handle);
    impl Disk for Boaster {
        fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
            self.0.create(path)
        }
        fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
            self.0.open(path)
        }
        super::system_names!();
    }
    let (fixture, writer) = Fixture::new(5 * SEGMENT / 2);
    drop(writer);
    let disk: Arc<dyn Disk> = Arc::new(Boaster(Handle(Arc::clone(&fixture.small))));
    let (mut writer, ..) = open(&disk, &fixture.dir, OPTIONS).unwrap();
    write(&mut writer, &batch(1..=10, 1000));
    // The next segment can be made, but not extended.
    let large = batch(11..=11, 4 * SEGMENT);
    assert!(matches!(writer.append(&large), Err(Error::NoRoom(_))));
    assert_eq!(fixture.small.free(), SEGMENT / 2, "{:?}", fixture.segments());
    // Smaller entries are written to the end of both segments.
    let mut last = 10;
    while writer.append(&batch(last + 1..=last + 1, 1000)).is_ok() {
        writer.write().unwrap();
        last += 1;
    }
    let used = |of: &Fixture| (of.small.used(), of.segments().len(), of.segments().last().copied());
    let at_end = used(&fixture);
    assert_eq!(at_end, (fixture.segments().iter().sum(), 2, Some(SEGMENT)));
    drop(writer);
    // A start that cannot allocate a larger segment gives back what it got, too.
    let options = Options { segment_bytes: 4 * SEGMENT, ..OPTIONS };
    let (_, _, recovered) = open(&disk, &fixture.dir, options).unwrap();
    assert_eq!(recovered.table.last_index(), last);
    assert_eq!(used(&fixture), at_end);
}

/// Fills a disk of two segments, then cuts it to what is used, like a backup that was restored on a
/// full disk: the last segment ends with its last record. Returns the last index.
fn filled(fixture: &Fixture, mut writer: Writer) -> u64 {
    let mut last = 0;
    while writer.append(&batch(last + 1..=last + 1, 1000)).is_ok() {
        writer.write().unwrap();
        last += 1;
    }
    drop(writer);
    let mut names = SystemDisk.list(&fixture.dir).unwrap();
    names.sort();
    let path = fixture.dir.join(names.last().unwrap());
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    fs::write(&path, &bytes).unwrap();
    fixture.resize(fixture.small.used());
    last
}

#[test]
fn a_purge_without_room_for_its_record_says_so_and_works_later() {
    let (fixture, writer) = Fixture::new(2 * SEGMENT);
    let last = filled(&fixture, writer);
    let (mut writer, ..) = fixture.open();
    let record = SnapshotRecord { index: last, term: 2, conf_state: Some(ConfState::default()) };
    assert!(!writer.purge(last, &record).unwrap(), "it has no room for the record");
    assert_eq!(fixture.segments().len(), 2, "nothing is removed without it");
    fixture.resize(1 << 20);
    assert!(writer.purge(last, &record).unwrap());
    write(&mut writer, &batch(last + 1..=last + 1, 1000));
    drop(writer);
    let (_, _, recovered) = fixture.open();
    assert_eq!(recovered.snapshots.last(), Some(&record));
    assert!(recovered.table.first_index() > 1, "the first segment is gone");
}

struct Silent;

impl Observer for Silent {
    fn fatal(&self, error: &crate::raft::Error) {
        panic!("{error}");
    }
}

#[test]
fn the_log_writer_holds_what_has_no_room() {
    let (fixture, writer) = Fixture::new(2 * SEGMENT);
    let last = filled(&fixture, writer);
    let (writer, ..) = fixture.open();
    let clock = Arc::new(SystemClock::new());
    let mut log = LogWriter::new(writer, Arc::new(NoTransport), Arc::new(Silent), clock);
    let batch = batch(last + 1..=last + 200, 1000);
    let job = Job { number: 5, batch, sync: true, messages: Vec::new() };
    let record = SnapshotRecord { index: last, term: 2, conf_state: Some(ConfState::default()) };
    let work = vec![Work::Job(job), Work::Purge { below: last, record }];
    let done = log.carry_out(work).unwrap();
    assert_eq!((done.number, done.places.len(), done.without_room.len()), (0, 0, 2));
    // First there is room for one more segment, then for all.
    fixture.resize(3 * SEGMENT);
    let done = log.carry_out(done.without_room).unwrap();
    let written = done.places.len();
    assert!(written > 40 && done.number == 0, "a part of it: {written}");
    fixture.resize(1 << 20);
    let done = log.carry_out(done.without_room).unwrap();
    assert_eq!((done.number, done.places.len(), done.without_room.len()), (5, 200 - written, 0));
    drop(log);
    let (_, _, recovered) = fixture.open();
    assert_eq!(recovered.table.last_index(), last + 200);
    assert!(recovered.table.first_index() > 1, "the first segment is gone");
}

/// Entries that [`Room::fits`] admits are written at once, whatever their size and however full the
/// segments are, and housekeeping still has room after them.
#[test]
fn what_fits_by_its_cost_is_written() {
    let (mut admitted, mut largest) = (0, 0);
    for filled in [0, 20_000, 45_000, 60_000] {
        for free in [0, SEGMENT, 2 * SEGMENT, 4 * SEGMENT, 8 * SEGMENT] {
            for sizes in [
                &[SEGMENT / 10; 12][..],
                &[SEGMENT / 6; 8],
                &[SEGMENT * 2 / 3; 3],
                &[SEGMENT, 100, SEGMENT],
                &[SEGMENT * 5 / 4],
                &[SEGMENT * 5 / 2],
                &[SEGMENT * 7 / 2, 1000],
            ] {
                let (fixture, mut writer) = Fixture::new(1 << 30);
                writer.room().reserve_for_store(0);
                let mut last = 0;
                while last * 1000 < filled {
                    last += 1;
                    write(&mut writer, &batch(last..=last, 900));
                }
                fixture.resize(fixture.small.used() + free);
                let room = writer.room();
                if !room.fits(sizes.iter().map(|size| room.cost(*size)).sum()) {
                    continue;
                }
                admitted += 1;
                largest = largest.max(sizes[0]);
                let entries = (last + 1..).zip(sizes).map(|(index, size)| entry(index, *size));
                let batch = Batch { entries: entries.collect(), ..Batch::default() };
                let outcome = writer.append(&batch).map(drop);
                assert!(outcome.is_ok(), "{sizes:?} after {filled}, {free} free: {outcome:?}");
                writer.write().unwrap();
                let small = self::batch(last + 100..=last + 100, SEGMENT / 8);
                assert!(!room.is_critical(), "{sizes:?} after {filled}, {free} free");
                writer.append(&small).unwrap();
            }
        }
    }
    assert!(admitted > 30 && largest > 3 * SEGMENT, "{admitted} admitted, up to {largest} bytes");
}

/// Hard states may use all room but that for a purge's record, since a purge frees segments.
#[test]
fn votes_leave_room_for_a_purge() {
    let (fixture, mut writer) = Fixture::new(2 * SEGMENT);
    let mut index = 1;
    while writer.append(&batch(index..=index, 1000)).is_ok() {
        writer.write().unwrap();
        index += 1;
    }
    let (last, mut term) = (index - 1, 3);
    let vote = |term| Batch {
        hard_state: Some(HardState { term, vote: 7, commit: last }),
        ..Batch::default()
    };
    while writer.append(&vote(term)).is_ok() {
        writer.write().unwrap();
        term += 1;
        assert!(term < 10_000, "no end");
    }
    let record = SnapshotRecord { index: last, term: 2, conf_state: Some(ConfState::default()) };
    assert!(writer.purge(last, &record).unwrap(), "{:?}", fixture.segments());
    write(&mut writer, &vote(term));
    write(&mut writer, &batch(last + 1..=last + 1, 1000));
    drop(writer);
    assert_eq!(fixture.open().2.table.last_index(), last + 1);
}

/// A segment may be smaller than usual where the disk has no more: a purge can then remove the one
/// before it.
#[test]
fn a_small_segment_is_made_where_no_other_has_room() {
    const MIB: u64 = 1 << 20;
    let large = Options { segment_bytes: 16 * MIB, fill_ahead: false };
    let (fixture, mut writer) = Fixture::of(16 * MIB, large);
    writer.room().reserve_for_store(0);
    let fill = |writer: &mut Writer, from: u64| {
        let mut index = from;
        while {
            let mut one = batch(index..=index, 500_000);
            writer.put(&mut one).unwrap();
            writer.write().unwrap();
            writer.sync().unwrap();
            one.is_empty()
        } {
            index += 1;
        }
        index
    };
    let end = fill(&mut writer, 1);
    assert!(end > 30, "{end}");
    assert!(writer.room().wants_reserve(false));
    assert!(writer.room().lacks_next(), "what is kept for others has to go");
    fixture.resize(fixture.small.used() + 3 * MIB);
    assert_eq!(fill(&mut writer, end), end, "too little is taken from the disk");
    fixture.resize(fixture.small.used() + 6 * MIB + 1000);
    let next = fill(&mut writer, end);
    assert!(next >= end + 11, "{end} to {next}");
    assert_eq!(*fixture.segments().last().unwrap(), 6 * MIB);
    fixture.resize(fixture.small.used() + 40 * MIB);
    assert!(!writer.room().wants_reserve(false), "the disk has room");
    assert!(!writer.room().lacks_next());
    assert!(writer.room().wants_reserve(true), "that is what was lent");
    let record =
        SnapshotRecord { index: next - 1, term: 2, conf_state: Some(ConfState::default()) };
    assert!(writer.purge(next - 1, &record).unwrap());
    drop(writer);
    assert_eq!(open(&fixture.disk, &fixture.dir, large).unwrap().2.table.last_index(), next - 1);
}
