//! Opening the log: all of it is read and checked, and an interrupted write at its end is undone.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState};

use super::disk::{Disk, File, allocate, is_full};
use super::format::{
    Bad, Decoded, FRAME_BYTES, Metadata, Record, RecordKind, SECTOR_BYTES, SnapshotRecord, decode,
    framed_bytes, parse_segment_name,
};
use super::read::{Reader, message};
use super::table::{LogPosition, Table};
use super::write::{Tail, Writer};
use super::zero_filler::{NEXT_NAME, Prepared};
use super::{Error, Options, Segment, Segments, io_error};
use crate::files;
use crate::limits;
use crate::planted::{self, Bug};

/// The content of the log when it was opened.
#[derive(Debug)]
pub struct Recovered {
    pub metadata: Metadata,
    pub hard_state: HardState,
    pub table: Table,
    /// All snapshot records, in the order in which they were written.
    pub snapshots: Vec<SnapshotRecord>,
    pub repair: Option<Repair>,
}

/// An interrupted write that was found at the log's end and undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    pub file: PathBuf,
    /// The rest of the file was zeroed from here on.
    pub offset: u64,
    pub what: String,
    /// The file as it was.
    pub kept: PathBuf,
}

/// The member and the cluster that the log belongs to, from the head of its first segment.
pub fn identity(disk: &dyn Disk, dir: &Path) -> Result<Metadata, Error> {
    let segments = list_segments(disk, dir)?;
    let segment = segments.first().ok_or_else(|| Error::Missing(dir.to_path_buf()))?;
    let path = &segment.path;
    let file = disk.open(path).map_err(io_error("open", path))?;
    let size = file.size().map_err(io_error("measure", path))?;
    let mut head = vec![0; size.min(limits::LOG_SEGMENT_HEAD_BYTES) as usize];
    file.read_at(&mut head, 0).map_err(io_error("read", path))?;
    let head = Bytes::from(head);
    let (mut offset, mut crc) = (0, 0);
    while let Decoded::Record(record) = decode(&head, offset, Some(crc), head.len() as u64) {
        if record.kind == RecordKind::Metadata {
            return message(&record.data).map_err(|what| Error::Damage {
                file: path.clone(),
                offset,
                what,
            });
        }
        (offset, crc) = (record.end, record.crc);
    }
    let what = "the head does not say whose log it is".into();
    Err(Error::Damage { file: path.clone(), offset, what })
}

/// Reads the whole log, checks it, repairs an interrupted write at its end, and makes it ready for
/// appending.
pub fn open(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: Options,
) -> Result<(Writer, Reader, Recovered), Error> {
    open_applied(disk, dir, options, 0)
}

/// As [`open`], for a state that has the entries up to `applied`: these do not stay in memory.
pub fn open_applied(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    options: Options,
    applied: u64,
) -> Result<(Writer, Reader, Recovered), Error> {
    let found = list_segments(disk.as_ref(), dir)?;
    let is_purged = found.first().is_some_and(|segment| segment.sequence > 0);
    let mut scan = Scan { is_purged, applied, ..Scan::default() };
    let mut last = None;
    let count = found.len();
    for (number, segment) in found.iter().enumerate() {
        let is_last = number + 1 == count;
        last = Some(scan.segment(disk.as_ref(), segment, is_last)?);
    }
    let (Some((file, offset)), Some(segment), Some(metadata)) =
        (last, found.last().cloned(), scan.metadata)
    else {
        return Err(Error::Missing(dir.to_path_buf()));
    };
    scan.check(&segment, offset)?;
    let options = options.fitted(disk.as_ref(), dir);
    let capacity = allocate_last(file.as_ref(), &segment.path, offset, options.segment_bytes)?;
    // A process that was killed may have left records that it never synced. From here on they
    // count.
    file.fdatasync().map_err(io_error("sync", &segment.path))?;
    disk.fsync_dir(dir).map_err(io_error("sync", dir))?;
    let next = adopt_next(disk.as_ref(), dir, options.segment_bytes)?;
    let segments = Segments::default();
    segments.0.lock().extend(found.into_iter().map(|segment| (segment.sequence, segment)));
    let reader = Reader { disk: Arc::clone(disk), segments: segments.clone(), open: None };
    let recovered = Recovered {
        metadata,
        hard_state: scan.state.clone(),
        table: scan.table,
        snapshots: scan.snapshots,
        repair: scan.repair,
    };
    let tail = Tail {
        metadata,
        segments,
        segment,
        file,
        offset,
        capacity,
        next,
        crc: scan.crc,
        state: scan.state,
        last_index: recovered.table.last_index().max(scan.last_written),
        snapshot_index: recovered.snapshots.iter().map(|record| record.index).max().unwrap_or(0),
    };
    Ok((Writer::new(Arc::clone(disk), dir, tail, options), reader, recovered))
}

/// Allocates the last segment, whose records end at `offset`, and returns its allocated length. A
/// restored backup may have holes where nothing was written, and a rotation that a crash
/// interrupted leaves the segment short. On a full disk the log continues with the blocks that are
/// there.
fn allocate_last(file: &dyn File, path: &Path, offset: u64, bytes: u64) -> Result<u64, Error> {
    let size = file.size().map_err(io_error("measure", path))?;
    for wanted in [size.max(bytes), size] {
        match allocate(file, wanted) {
            Ok(()) => return Ok(wanted),
            Err(error) if is_full(&error) => {
                tracing::warn!(
                    file = %path.display(), bytes = wanted, %error,
                    "the log's last segment cannot have all of its space"
                );
            }
            Err(error) => return Err(io_error("reserve space for", path)(error)),
        }
    }
    Ok(offset)
}

/// The prepared segment that the last process left. Its blocks are kept: on a full disk other
/// processes would take them, and the log would have no room for a compaction, which frees space.
fn adopt_next(disk: &dyn Disk, dir: &Path, bytes: u64) -> Result<Option<Prepared>, Error> {
    let path = dir.join(NEXT_NAME);
    if !disk.exists(&path) {
        return Ok(None);
    }
    let clean = || {
        let file = disk.open(&path)?;
        let kept = file.size()?.min(bytes);
        file.set_len(kept)?;
        allocate(&*file, kept)?;
        let capacity = match allocate(&*file, bytes) {
            Ok(()) => bytes,
            // It was made small on a full disk.
            Err(error) if is_full(&error) && kept >= limits::LOG_SEGMENT_BYTES_MIN => {
                file.set_len(kept)?;
                kept
            }
            Err(error) => return Err(error),
        };
        // An interrupted rotation may have written a head here.
        file.write_at(&[0; 4 * limits::LOG_SEGMENT_HEAD_BYTES as usize], 0)?;
        file.fdatasync()?;
        io::Result::Ok((file, capacity))
    };
    match clean() {
        Ok((file, capacity)) => Ok(Some(Prepared { file, filled: 0, capacity })),
        // A fault of the disk is reported by the next write to it.
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "the log's next segment is made anew");
            disk.remove(&path).map_err(io_error("remove", &path))?;
            Ok(None)
        }
    }
}

/// The segments by number, of which none may be missing. Files that an interrupted write left
/// (`.tmp`) are removed; other files that are not segments stay.
fn list_segments(disk: &dyn Disk, dir: &Path) -> Result<Vec<Segment>, Error> {
    let mut segments = Vec::new();
    for name in disk.list(dir).map_err(io_error("list", dir))? {
        let path = dir.join(&name);
        if name.ends_with(".tmp") && name != NEXT_NAME {
            disk.remove(&path).map_err(io_error("remove", &path))?;
        } else if name.ends_with(".wal") {
            let Some((sequence, index)) = parse_segment_name(&name) else {
                let what = "the name is not that of a segment".into();
                return Err(Error::Damage { file: path, offset: 0, what });
            };
            segments.push(Segment { sequence, index, path });
        }
    }
    segments.sort_by_key(|segment| segment.sequence);
    for pair in segments.windows(2) {
        // The segments are sorted, so the difference cannot be negative.
        if pair[1].sequence - pair[0].sequence != 1 {
            let what =
                format!("segment {} before it is missing", pair[0].sequence.saturating_add(1));
            return Err(Error::Damage { file: pair[1].path.clone(), offset: 0, what });
        }
    }
    if segments.is_empty() {
        return Err(Error::Missing(dir.to_path_buf()));
    }
    Ok(segments)
}

/// The log as read so far, while the segments are read in order.
#[derive(Default)]
struct Scan {
    crc: u32,
    /// Whether a segment was read, so that the next one's checksum can be compared.
    begun: bool,
    metadata: Option<Metadata>,
    state: HardState,
    table: Table,
    snapshots: Vec<SnapshotRecord>,
    repair: Option<Repair>,
    last_written: u64,
    /// Whether the log's first segments are gone.
    is_purged: bool,
    /// Entries up to this index do not stay in memory.
    applied: u64,
    has_entries: bool,
}

impl Scan {
    /// Reads one segment, and returns its file and where its records end.
    fn segment(
        &mut self,
        disk: &dyn Disk,
        segment: &Segment,
        is_last: bool,
    ) -> Result<(Arc<dyn File>, u64), Error> {
        let path = &segment.path;
        let file = disk.open(path).map_err(io_error("open", path))?;
        let length = file.size().map_err(io_error("measure", path))?;
        if length > limits::LOG_SEGMENT_BYTES_MAX {
            let what = format!("the segment has {length} bytes");
            return Err(Error::Damage { file: path.clone(), offset: 0, what });
        }
        let mut window = Window { length, ..Window::default() };
        let mut offset = 0;
        let torn = loop {
            window.cover(file.as_ref(), offset).map_err(io_error("read", path))?;
            let crc = (!planted::is(Bug::BelievedDamage)).then_some(self.crc);
            match window.decode(offset, crc) {
                Decoded::Record(record) => {
                    let end = record.end;
                    self.record(segment, offset, record).map_err(|what| Error::Damage {
                        file: path.clone(),
                        offset,
                        what,
                    })?;
                    offset = end;
                }
                Decoded::End => {
                    let is_dirty = is_last
                        && is_dirty(file.as_ref(), offset, length)
                            .map_err(io_error("read", path))?;
                    break is_dirty.then(|| "a record's length is zero and data follows".into());
                }
                Decoded::Bad(Bad { what, torn: true }) if is_last => break Some(what),
                Decoded::Bad(Bad { what, .. }) => {
                    return Err(Error::Damage { file: path.clone(), offset, what });
                }
            }
        };
        if offset == 0 {
            let what = "the segment is empty".into();
            return Err(Error::Damage { file: path.clone(), offset, what });
        }
        if let Some(what) = torn {
            self.repair = Some(repair(disk, path, file.as_ref(), length, offset, what)?);
        }
        Ok((file, offset))
    }

    fn record(&mut self, segment: &Segment, offset: u64, record: Record) -> Result<(), String> {
        if offset == 0 && record.kind != RecordKind::Crc {
            return Err("the segment does not begin with a checksum".into());
        }
        if record.kind == RecordKind::Crc {
            if self.begun && record.crc != self.crc {
                return Err("the segment does not continue the one before it".into());
            }
            self.begun = true;
            self.crc = record.crc;
            return Ok(());
        }
        let before = std::mem::replace(&mut self.crc, record.crc);
        match record.kind {
            RecordKind::Crc => {}
            RecordKind::Metadata => {
                let metadata: Metadata = message(&record.data)?;
                if self.metadata.is_some_and(|known| known != metadata) {
                    return Err("the segment belongs to another member or cluster".into());
                }
                self.metadata = Some(metadata);
            }
            RecordKind::State => {
                let state: HardState = message(&record.data)?;
                believable(state.commit, state.term)?;
                self.state = state;
            }
            RecordKind::Snapshot => {
                let snapshot: SnapshotRecord = message(&record.data)?;
                believable(snapshot.index, snapshot.term)?;
                self.snapshot(snapshot);
            }
            RecordKind::Entry => {
                let mut entry: Entry = message(&record.data)?;
                believable(entry.index, entry.term)?;
                if entry.index > self.applied {
                    // Copied, because a slice would keep the whole piece of the segment in memory.
                    entry = message(&Bytes::copy_from_slice(&record.data))?;
                }
                let (segment, offset) = (segment.sequence as u32, offset as u32);
                let place = LogPosition { segment, offset, crc: before };
                self.entry(entry, place)?;
            }
        }
        Ok(())
    }

    /// Takes in a snapshot's record. It replaces all entries if it is beyond the last one, or if it
    /// contradicts one that is not committed.
    fn snapshot(&mut self, snapshot: SnapshotRecord) {
        self.last_written = self.last_written.max(snapshot.index);
        let logged = self.table.term(snapshot.index);
        let is_new = snapshot.index > self.state.commit;
        let contradicts = is_new && logged.is_some_and(|term| term != snapshot.term);
        if snapshot.index > self.table.last_index() || contradicts {
            self.table.restart(snapshot.index, snapshot.term);
        }
        self.snapshots.push(snapshot);
    }

    fn entry(&mut self, entry: Entry, place: LogPosition) -> Result<(), String> {
        let is_first = !std::mem::replace(&mut self.has_entries, true);
        if planted::is(Bug::SkippedTruncation) && entry.index <= self.table.last_index() {
            return Ok(());
        }
        if is_first && self.is_purged && entry.index > self.table.last_index() + 1 {
            // The log begins behind the first entry that is left, since the terms of those before
            // it are not known. A snapshot record that was read before may be of an older state.
            self.table.restart(entry.index, entry.term);
        } else if self.table.accepts(entry.index) {
            let before = self.table.term(entry.index - 1).unwrap_or(0);
            if entry.term < before {
                return Err(format!("entry {} has an older term than the one before", entry.index));
            }
            let index = entry.index;
            self.table.append(entry, Some(place));
            if index <= self.applied {
                // Followers that want it get it from its segment.
                self.table.evict_to(index);
            }
            self.table.evict();
        } else if entry.index > self.table.last_index() {
            let last = self.table.last_index();
            return Err(format!("entry {} follows entry {last}", entry.index));
        }
        self.last_written = self.table.last_index();
        Ok(())
    }

    fn check(&mut self, segment: &Segment, offset: u64) -> Result<(), Error> {
        let last = self.table.last_index();
        if self.state.commit > last {
            let what =
                format!("the log ends with entry {last}, but {} was committed", self.state.commit);
            return Err(Error::Damage { file: segment.path.clone(), offset, what });
        }
        // The entries of an interrupted batch may be there without the hard state behind them,
        // which had a newer term. No vote of that term was sent, since votes leave after their
        // sync.
        if self.table.last_term() > self.state.term {
            self.state.term = self.table.last_term();
            self.state.vote = 0;
        }
        Ok(())
    }
}

/// Refuses numbers that no cluster reaches: adding to them could overflow.
fn believable(index: u64, term: u64) -> Result<(), String> {
    if index.max(term) <= limits::RAFT_NUMBER_MAX {
        return Ok(());
    }
    Err(format!("index {index} of term {term} is out of range"))
}

/// A piece of a segment in memory. The records of a segment are read piece by piece, since the most of
/// a segment may be zeros that nobody has written.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Bytes,
    /// The length of the file.
    length: u64,
}

impl Window {
    /// Reads on unless the record at `offset` is in memory as a whole, or as far as the file goes.
    fn cover(&mut self, file: &dyn File, offset: u64) -> io::Result<()> {
        let length = self.length;
        if offset + FRAME_BYTES as u64 > self.end() {
            self.read(file, offset, limits::LOG_READ_BYTES)?;
        }
        let at = (offset - self.start) as usize;
        match framed_bytes(&self.bytes[at..]) {
            // What claims more than a record may have, or than the file has, is refused unread.
            Some(bytes)
                if bytes <= limits::LOG_RECORD_BYTES_MAX + 2 * FRAME_BYTES as u64
                    && offset + bytes > self.end()
                    && offset + bytes <= length =>
            {
                self.read(file, offset, limits::LOG_READ_BYTES.max(bytes))
            }
            _ => Ok(()),
        }
    }

    /// Reads from the sector of `offset` on: whether a record is torn shows in whole sectors.
    fn read(&mut self, file: &dyn File, offset: u64, size: u64) -> io::Result<()> {
        self.start = offset - offset % SECTOR_BYTES as u64;
        let end = offset.saturating_add(size).min(self.length);
        let mut bytes = vec![0; (end - self.start) as usize];
        file.read_at(&mut bytes, self.start)?;
        self.bytes = bytes.into();
        Ok(())
    }

    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    fn decode(&self, offset: u64, crc: Option<u32>) -> Decoded {
        let at = offset - self.start;
        let mut decoded = decode(&self.bytes, at, crc, limits::LOG_RECORD_BYTES_MAX);
        if let Decoded::Record(record) = &mut decoded {
            record.end += self.start;
        }
        decoded
    }
}

/// Whether anything but zeros follows in the last segment. What the file system calls a hole is not
/// read: most of the segment is one, and reading it would take longer than all other steps of a
/// start.
fn is_dirty(file: &dyn File, offset: u64, length: u64) -> io::Result<bool> {
    let mut at = offset;
    while at < length
        && let Some(data) = file.data_from(at)?
    {
        at = data.start.max(at);
        let end = data.end.min(length);
        while at < end {
            let mut bytes = vec![0; (end - at).min(limits::LOG_READ_BYTES) as usize];
            file.read_at(&mut bytes, at)?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            at += bytes.len() as u64;
        }
    }
    Ok(false)
}

/// Copies the segment as it is to a file with the suffix `.broken`, then zeroes it from `offset`
/// on.
fn repair(
    disk: &dyn Disk,
    path: &Path,
    file: &dyn File,
    length: u64,
    offset: u64,
    what: String,
) -> Result<Repair, Error> {
    let mut bytes = vec![0; length as usize];
    file.read_at(&mut bytes, 0).map_err(io_error("read", path))?;
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".broken");
    let kept = path.with_file_name(name);
    let copy = || {
        let copy = disk.create(&kept)?;
        copy.write_at(&bytes, 0)?;
        copy.fdatasync()
    };
    match copy() {
        Ok(()) => {}
        // The torn record was never acknowledged, so a full disk must not keep the member down for
        // a copy of it.
        Err(error) if is_full(&error) => {
            tracing::warn!(file = %kept.display(), %error, "the torn segment is not kept aside");
            let _ = disk.remove(&kept);
        }
        Err(error) => return Err(io_error("write", &kept)(error)),
    }
    let dir = files::parent(path);
    disk.fsync_dir(dir).map_err(io_error("sync", dir))?;
    // The blocks stay allocated: if the file were cut, another process could take them.
    let rest = bytes.get(offset as usize..).unwrap_or_default();
    let dirty = rest.len() - rest.iter().rev().take_while(|byte| **byte == 0).count();
    file.write_at(&vec![0; dirty], offset)
        .and_then(|()| file.fdatasync())
        .map_err(io_error("repair", path))?;
    Ok(Repair { file: path.to_path_buf(), offset, what, kept })
}
