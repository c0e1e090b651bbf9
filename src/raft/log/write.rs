//! Appending to the log. One thread at a time writes.

use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message as _;
use raft::eraftpb::{Entry, HardState};

use super::disk::{Disk, File, allocate, is_full};
use super::format::{Encoder, Metadata, SnapshotRecord, entry_bytes_max, segment_name};
use super::table::{EntryPosition, LogPosition};
use super::zero_filler::{Current, NEXT_NAME, Prepared, ZeroFiller};
use super::{Error, Options, Room, Segment, Segments, io_error};
use crate::files;
use crate::limits;
use crate::planted::{self, Bug};
use crate::supervise::Supervisor;

/// Records that are written together, in the order of these fields.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub snapshot: Option<SnapshotRecord>,
    pub entries: Vec<Entry>,
    pub hard_state: Option<HardState>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.snapshot.is_none() && self.entries.is_empty() && self.hard_state.is_none()
    }

    /// Upper bound of the bytes that its records without entries take.
    fn head_bytes_max(&self) -> u64 {
        head_bytes_max(self.snapshot.as_ref())
    }
}

/// Upper bound of the bytes that a hard state and this record take. A snapshot record grows with
/// the number of members.
fn head_bytes_max(snapshot: Option<&SnapshotRecord>) -> u64 {
    512 + snapshot.map_or(0, |record| record.encoded_len() as u64)
}

/// The end of the log.
pub struct Writer {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    options: Options,
    metadata: Metadata,
    segments: Segments,
    /// The last segment.
    sequence: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    /// Where the buffered records go.
    offset: u64,
    /// The allocated length of the last segment.
    capacity: u64,
    room: Room,
    encoder: Encoder,
    state: HardState,
    last_index: u64,
    /// The highest entry for which the log holds a snapshot's record.
    snapshot_index: u64,
    failed: bool,
    zero_filler: ZeroFiller,
}

/// Where appending continues in a log that was opened.
pub(super) struct Tail {
    pub(super) metadata: Metadata,
    pub(super) segments: Segments,
    pub(super) segment: Segment,
    pub(super) file: Arc<dyn File>,
    pub(super) offset: u64,
    pub(super) capacity: u64,
    pub(super) next: Option<Prepared>,
    pub(super) crc: u32,
    pub(super) state: HardState,
    pub(super) last_index: u64,
    pub(super) snapshot_index: u64,
}

/// Makes a log that holds `batch`. It is written under another name and renamed, so a crash leaves
/// the whole log or none.
pub fn create(
    disk: &dyn Disk,
    dir: &Path,
    metadata: Metadata,
    batch: &Batch,
    options: Options,
) -> Result<(), Error> {
    if super::exists(disk, dir)? {
        return Err(Error::Exists(dir.to_path_buf()));
    }
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(".tmp");
    let work = dir.with_file_name(name);
    for old in [&work, dir] {
        if disk.exists(old) {
            disk.remove_dir_all(old).map_err(io_error("remove", old))?;
        }
    }
    disk.create_dir(&work).map_err(io_error("create", &work))?;
    let options = options.fitted(disk, &work);
    let mut encoder = Encoder::new(0);
    encoder.crc_record();
    encoder.metadata(&metadata);
    encoder.snapshot(&SnapshotRecord::default());
    for entry in &batch.entries {
        encoder.entry(entry);
    }
    if let Some(state) = &batch.hard_state {
        encoder.state(state);
    }
    let path = work.join(segment_name(0, 0));
    let file = disk.create(&path).map_err(io_error("create", &path))?;
    allocate(&*file, options.segment_bytes).map_err(io_error("reserve space for", &path))?;
    file.write_at(&encoder.buffer, 0).map_err(io_error("write", &path))?;
    file.fdatasync().map_err(io_error("sync", &path))?;
    disk.fsync_dir(&work).map_err(io_error("sync", &work))?;
    disk.rename(&work, dir).map_err(io_error("rename", &work))?;
    let parent = files::parent(dir);
    disk.fsync_dir(parent).map_err(io_error("sync", parent))
}

impl Writer {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, tail: Tail, options: Options) -> Self {
        let room = Room::new(Arc::clone(&disk), dir, options.segment_bytes);
        let zero_filler =
            ZeroFiller::new(Arc::clone(&disk), dir, options.segment_bytes, room.clone());
        let writer = Self {
            disk,
            dir: dir.to_path_buf(),
            options,
            metadata: tail.metadata,
            segments: tail.segments,
            sequence: tail.segment.sequence,
            path: tail.segment.path,
            file: tail.file,
            offset: tail.offset,
            capacity: tail.capacity,
            room,
            encoder: Encoder::new(tail.crc),
            state: tail.state,
            last_index: tail.last_index,
            snapshot_index: tail.snapshot_index,
            failed: false,
            zero_filler,
        };
        if let Some(next) = tail.next {
            writer.zero_filler.adopt(next);
        }
        writer.announce_segment(tail.offset);
        writer
    }

    /// How much can be written although the disk is full.
    pub fn room(&self) -> Room {
        self.room.clone()
    }

    /// Tells the filling thread about the current segment, which holds data or zeros up to
    /// `filled`.
    fn announce_segment(&self, filled: u64) {
        let (path, written, capacity) = (self.path.as_path(), self.offset, self.capacity);
        self.zero_filler.set_current(&Current { path, written, filled, capacity });
        self.note_room();
    }

    fn note_room(&self) {
        let end = self.offset + self.options.slack_bytes();
        self.room.set_segment_free(self.capacity.saturating_sub(end));
    }

    /// Where the next record goes.
    fn end(&self) -> u64 {
        self.offset + self.encoder.buffer.len() as u64
    }

    /// How many of a batch's entries fit into the current segment, together with the other records
    /// of the batch; `None` if the first entry does not.
    fn fitting(&self, batch: &Batch) -> Option<usize> {
        let kept = match batch.entries.is_empty() {
            true => self.options.purge_slack_bytes(),
            false => self.options.slack_bytes(),
        };
        let limit = self.capacity.saturating_sub(kept);
        let mut end = self.end() + batch.head_bytes_max();
        let fits = |entry: &&Entry| {
            end += entry_bytes_max(entry);
            end <= limit
        };
        let count = batch.entries.iter().take_while(fits).count();
        let is_fit = if batch.entries.is_empty() { end <= limit } else { count > 0 };
        is_fit.then_some(count)
    }

    /// Makes sure that the beginning of a batch fits into allocated blocks, and returns how many
    /// entries that is; `None` if the disk has no room for the next segment. Nothing of the batch
    /// is written then, so the caller may try again.
    fn make_room(&mut self, batch: &Batch) -> Result<Option<usize>, Error> {
        let fitting = self.fitting(batch);
        if fitting.is_some() {
            return Ok(fitting);
        }
        let first = batch.entries.first().map_or(0, entry_bytes_max);
        let needed = batch.head_bytes_max() + first + self.options.slack_bytes();
        let end = self.end();
        let outcome = self.guarded(|writer| {
            // An entry that is larger than a segment gets a segment of its own, which is extended.
            if end > 4 * limits::LOG_SEGMENT_HEAD_BYTES {
                writer.try_rotate(needed + 4 * limits::LOG_SEGMENT_HEAD_BYTES)
            } else {
                let (file, path) = (Arc::clone(&writer.file), writer.path.clone());
                writer.capacity = writer.grown(&*file, writer.capacity, end + needed, &path)?;
                Ok(())
            }
        });
        match outcome {
            Ok(()) => {
                self.note_room();
                Ok(self.fitting(batch))
            }
            Err(Error::NoRoom(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Starts a thread that writes zeros ahead of the log's end, so that syncs write no metadata.
    pub fn fill_ahead(&mut self, supervisor: &Supervisor) {
        self.zero_filler.run(supervisor);
    }

    /// Puts a batch into the buffer, over as many segments as it takes; [`Self::write`] and
    /// [`Self::sync`] make it durable. What is put leaves the batch, and index, term and place of
    /// its entries are returned. For what stays in the batch the log has no room: the caller may
    /// put it again, and nothing else before it.
    ///
    /// A crash before the sync leaves what an interrupted write leaves.
    pub fn put(&mut self, batch: &mut Batch) -> Result<Vec<EntryPosition>, Error> {
        let mut places = Vec::with_capacity(batch.entries.len());
        while !batch.is_empty() {
            let Some(count) = self.make_room(batch)? else { break };
            let rest = batch.entries.split_off(count);
            let hard_state = if rest.is_empty() { batch.hard_state.take() } else { None };
            let (snapshot, entries) =
                (batch.snapshot.take(), mem::replace(&mut batch.entries, rest));
            let piece = Batch { snapshot, entries, hard_state };
            places.extend(self.guarded(|writer| Ok(writer.encode(&piece)))?);
        }
        Ok(places)
    }

    /// As [`Self::put`], but fails with [`Error::NoRoom`] if a part of the batch has no room, for a
    /// caller that cannot wait.
    pub fn append(&mut self, batch: &Batch) -> Result<Vec<EntryPosition>, Error> {
        let mut batch = batch.clone();
        let places = self.put(&mut batch)?;
        if batch.is_empty() { Ok(places) } else { Err(Error::NoRoom(self.dir.clone())) }
    }

    /// Hands the buffer to the operating system and returns the number of its bytes.
    pub fn write(&mut self) -> Result<usize, Error> {
        self.guarded(Self::try_write)
    }

    /// Makes durable what was written.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.guarded(|writer| writer.file.fdatasync().map_err(io_error("sync", &writer.path)))
    }

    /// Writes the last segment again, from a place on or, without one, all of it, and syncs it.
    ///
    /// After a sync that failed, the system shows data that never reached the disk and takes it for
    /// written, so the next sync succeeds without it. This member must not acknowledge entries on
    /// that ground.
    pub fn rewrite(&mut self, from: Option<LogPosition>) -> Result<(), Error> {
        self.guarded(|writer| writer.try_rewrite(from))
    }

    /// Removes the segments that hold nothing from `below` on. `record` names the state that stands
    /// in for them, and is durable before the first of them is removed. It is not written if the
    /// log holds one of this index or a later one, which may be that of a snapshot that replaced
    /// all entries. Returns false if the record has no room; then nothing was removed.
    pub fn purge(&mut self, below: u64, record: &SnapshotRecord) -> Result<bool, Error> {
        match self.guarded(|writer| writer.try_purge(below, record)) {
            Ok(()) => Ok(true),
            Err(Error::NoRoom(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets nothing be written after a failure or a panic, since it is not known what the disk
    /// holds then.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.failed {
            return Err(Error::Failed);
        }
        self.failed = true;
        let outcome = act(self);
        // Without room nothing was written, so the writer stays usable.
        self.failed = outcome.as_ref().is_err_and(|error| !matches!(error, Error::NoRoom(_)));
        outcome
    }

    fn encode(&mut self, batch: &Batch) -> Vec<EntryPosition> {
        if let Some(snapshot) = &batch.snapshot {
            self.snapshot(snapshot);
        }
        let mut places = Vec::with_capacity(batch.entries.len());
        for entry in &batch.entries {
            let (segment, offset) = (self.sequence as u32, self.end() as u32);
            let place = LogPosition { segment, offset, crc: self.encoder.crc };
            places.push((entry.index, entry.term, place));
            self.encoder.entry(entry);
            self.last_index = entry.index;
        }
        if let Some(state) = &batch.hard_state {
            self.encoder.state(state);
            self.state = state.clone();
        }
        places
    }

    fn snapshot(&mut self, record: &SnapshotRecord) {
        self.encoder.snapshot(record);
        self.last_index = self.last_index.max(record.index);
        self.snapshot_index = self.snapshot_index.max(record.index);
    }

    fn try_rewrite(&mut self, from: Option<LogPosition>) -> Result<(), Error> {
        let from = from.filter(|place| u64::from(place.segment) == self.sequence);
        let mut at = from.map_or(0, |place| u64::from(place.offset));
        while at < self.offset {
            let mut bytes = vec![0; (self.offset - at).min(limits::LOG_READ_BYTES) as usize];
            self.file.read_at(&mut bytes, at).map_err(io_error("read", &self.path))?;
            self.file.write_at(&bytes, at).map_err(io_error("write", &self.path))?;
            at += bytes.len() as u64;
        }
        self.file.fdatasync().map_err(io_error("sync", &self.path))
    }

    fn try_write(&mut self) -> Result<usize, Error> {
        let bytes = self.encoder.buffer.len();
        if bytes == 0 {
            return Ok(0);
        }
        let end = self.offset + bytes as u64;
        self.zero_filler.await_range(end);
        let written = self.file.write_at(&self.encoder.buffer, self.offset);
        if !planted::is(Bug::ForgivenWrite) {
            written.map_err(io_error("write", &self.path))?;
        }
        self.offset = end;
        self.note_room();
        self.encoder.buffer.clear();
        self.encoder.buffer.shrink_to(limits::LOG_BUFFER_BYTES_KEPT);
        Ok(bytes)
    }

    /// Starts the next segment, if the disk has room for one of at least `needed` bytes.
    fn try_rotate(&mut self, needed: u64) -> Result<(), Error> {
        let next = self.dir.join(NEXT_NAME);
        let mut prepared = match self.zero_filler.take_next() {
            Ok(prepared) => prepared,
            Err(error) if is_full(&error) => return Err(Error::NoRoom(self.dir.clone())),
            Err(error) => return Err(io_error("make", &next)(error)),
        };
        if needed > prepared.capacity {
            match self.grown(&*prepared.file, prepared.capacity, needed, &next) {
                Ok(capacity) => prepared.capacity = capacity,
                Err(error) => {
                    let (path, written, capacity) =
                        (self.path.as_path(), self.offset, self.capacity);
                    // How far zeros have been written is not known here. As `filled` equals the
                    // capacity, no more are written to this segment.
                    let current = Current { path, written, filled: capacity, capacity };
                    self.zero_filler.give_back(&current, prepared);
                    return Err(error);
                }
            }
        }
        self.rotate(prepared)
    }

    /// Closes the last segment and starts the next. The old one is durable before the new one gets
    /// its name, or a crash could leave a gap between them.
    fn rotate(&mut self, prepared: Prepared) -> Result<(), Error> {
        self.try_write()?;
        let next = self.dir.join(NEXT_NAME);
        let Prepared { file, filled, capacity } = prepared;
        self.file.set_len(self.offset).map_err(io_error("cut", &self.path))?;
        self.file.fdatasync().map_err(io_error("sync", &self.path))?;
        self.encoder.crc_record();
        self.encoder.metadata(&self.metadata);
        if self.state != HardState::default() {
            self.encoder.state(&self.state);
        }
        file.write_at(&self.encoder.buffer, 0).map_err(io_error("write", &next))?;
        file.fdatasync().map_err(io_error("sync", &next))?;
        let (sequence, index) = (self.sequence + 1, self.last_index + 1);
        let path = self.dir.join(segment_name(sequence, index));
        self.disk.rename(&next, &path).map_err(io_error("rename", &next))?;
        self.disk.fsync_dir(&self.dir).map_err(io_error("sync", &self.dir))?;
        self.file = file;
        self.sequence = sequence;
        self.path = path.clone();
        self.offset = self.encoder.buffer.len() as u64;
        self.capacity = capacity;
        self.encoder.buffer.clear();
        // In this order: it counts as the current one before it ceases to count as the next one, and
        // the filling thread makes no other before it hears of this one.
        self.note_room();
        self.room.set_prepared_bytes(0);
        self.announce_segment(filled);
        self.segments.0.lock().insert(sequence, Segment { sequence, index, path });
        Ok(())
    }

    /// Extends a segment of this capacity to `bytes` bytes and returns those as its new capacity.
    /// The bytes that the log leaves to the store are not taken, as for any other segment.
    fn grown(&self, file: &dyn File, capacity: u64, bytes: u64, path: &Path) -> Result<u64, Error> {
        let no_room = || Error::NoRoom(self.dir.clone());
        if !self.room.has_space(bytes.saturating_sub(capacity)) {
            return Err(no_room());
        }
        match allocate(file, bytes) {
            Ok(()) => {
                self.room.note_taken(bytes.saturating_sub(capacity));
                Ok(bytes)
            }
            Err(error) if is_full(&error) => Err(no_room()),
            Err(error) => Err(io_error("reserve space for", path)(error)),
        }
    }

    fn try_purge(&mut self, below: u64, record: &SnapshotRecord) -> Result<(), Error> {
        let old: Vec<Segment> = {
            let segments = self.segments.0.lock();
            let following = segments.values().skip(1);
            segments
                .values()
                .zip(following)
                .take_while(|(_, next)| next.index <= below)
                .map(|(segment, _)| segment.clone())
                .collect()
        };
        if old.is_empty() {
            return Ok(());
        }
        if record.index > self.snapshot_index {
            let needed = head_bytes_max(Some(record));
            if self.end() + needed > self.capacity {
                self.try_rotate(needed + 4 * limits::LOG_SEGMENT_HEAD_BYTES)?;
            }
            self.snapshot(record);
        }
        self.try_write()?;
        self.file.fdatasync().map_err(io_error("sync", &self.path))?;
        // Oldest first, so that a crash leaves no gap.
        for segment in old {
            self.segments.0.lock().remove(&segment.sequence);
            self.disk.remove(&segment.path).map_err(io_error("remove", &segment.path))?;
        }
        self.disk.fsync_dir(&self.dir).map_err(io_error("sync", &self.dir))?;
        self.zero_filler.retry();
        Ok(())
    }
}
