//! Appending to the log, one thread at a time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::eraftpb::{Entry, HardState};

use super::ahead::{Ahead, NEXT_NAME};
use super::disk::{Disk, File};
use super::format::{Encoder, Metadata, SnapshotRecord, entry_bytes_max, segment_name};
use super::table::Place;
use super::{Error, Options, Segment, Segments, io_error};
use crate::limits;
use crate::supervise::Supervisor;

/// What is written together, in this order.
#[derive(Debug, Default)]
pub struct Batch {
    pub snapshot: Option<SnapshotRecord>,
    pub entries: Vec<Entry>,
    pub hard_state: Option<HardState>,
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
    encoder: Encoder,
    state: HardState,
    last_index: u64,
    /// The highest entry for which the log holds a snapshot's record.
    snapshot_index: u64,
    failed: bool,
    ahead: Ahead,
}

/// Where appending goes on.
pub(super) struct Tail {
    pub(super) metadata: Metadata,
    pub(super) segments: Segments,
    pub(super) segment: Segment,
    pub(super) file: Arc<dyn File>,
    pub(super) offset: u64,
    pub(super) crc: u32,
    pub(super) state: HardState,
    pub(super) last_index: u64,
    pub(super) snapshot_index: u64,
}

/// Makes a log that holds `batch`; it is there as a whole or not at all.
pub fn create(
    disk: &dyn Disk,
    dir: &Path,
    metadata: Metadata,
    batch: &Batch,
    options: Options,
) -> Result<(), Error> {
    if super::exists(disk, dir) {
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
    file.allocate(options.segment_bytes).map_err(io_error("reserve space for", &path))?;
    file.write_at(&encoder.buffer, 0).map_err(io_error("write", &path))?;
    file.fdatasync().map_err(io_error("sync", &path))?;
    disk.fsync_dir(&work).map_err(io_error("sync", &work))?;
    disk.rename(&work, dir).map_err(io_error("rename", &work))?;
    let parent = dir.parent().unwrap_or(dir);
    disk.fsync_dir(parent).map_err(io_error("sync", parent))
}

impl Writer {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, tail: Tail, options: Options) -> Self {
        let ahead = Ahead::new(Arc::clone(&disk), dir, options.segment_bytes);
        ahead.follow(&tail.segment.path, tail.offset, tail.offset);
        Self {
            disk,
            dir: dir.to_path_buf(),
            options,
            metadata: tail.metadata,
            segments: tail.segments,
            sequence: tail.segment.sequence,
            path: tail.segment.path,
            file: tail.file,
            offset: tail.offset,
            encoder: Encoder::new(tail.crc),
            state: tail.state,
            last_index: tail.last_index,
            snapshot_index: tail.snapshot_index,
            failed: false,
            ahead,
        }
    }

    /// Has a thread write zeros ahead of the log's end, so that syncs record no new space.
    pub fn fill_ahead(&mut self, supervisor: &Supervisor) {
        self.ahead.run(supervisor);
    }

    /// Puts a batch into the buffer; [`Self::write`] and [`Self::sync`] make it durable. The places
    /// are those of its entries.
    pub fn append(&mut self, batch: &Batch) -> Result<Vec<Place>, Error> {
        self.guarded(|writer| writer.try_append(batch))
    }

    /// Hands the buffer to the operating system and says how many bytes that were.
    pub fn write(&mut self) -> Result<usize, Error> {
        self.guarded(Self::try_write)
    }

    /// Makes durable what was written.
    pub fn sync(&mut self) -> Result<(), Error> {
        self.guarded(|writer| writer.file.fdatasync().map_err(io_error("sync", &writer.path)))
    }

    /// Writes again what the last segment holds from a place on, or all of it, and syncs it.
    ///
    /// After a sync that failed, the system shows what never reached the disk and takes it for
    /// written, so that the next sync succeeds without it. What this member sends about the log's
    /// end must not rest on that.
    pub fn rewrite(&mut self, from: Option<Place>) -> Result<(), Error> {
        self.guarded(|writer| writer.try_rewrite(from))
    }

    /// Removes the segments that hold nothing from `below` on. The record says what stands in for
    /// them; it is durable before the first of them goes. Where the log holds a later record, that
    /// one does: it may be of a snapshot that takes the place of all entries so far.
    pub fn purge(&mut self, below: u64, record: &SnapshotRecord) -> Result<(), Error> {
        self.guarded(|writer| writer.try_purge(below, record))
    }

    /// After a failure nothing may be written any more: what the disk holds is not known.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.failed {
            return Err(Error::Failed);
        }
        let outcome = act(self);
        self.failed = outcome.is_err();
        outcome
    }

    fn try_append(&mut self, batch: &Batch) -> Result<Vec<Place>, Error> {
        let size = 512 + batch.entries.iter().map(entry_bytes_max).sum::<u64>();
        let end = self.offset + self.encoder.buffer.len() as u64;
        // A batch larger than a segment gets one of its own, and lets it grow.
        if end + size > self.options.segment_bytes && end > 4 * limits::LOG_SEGMENT_HEAD_BYTES {
            self.rotate()?;
        }
        if let Some(snapshot) = &batch.snapshot {
            self.snapshot(snapshot);
        }
        let mut places = Vec::with_capacity(batch.entries.len());
        for entry in &batch.entries {
            let offset = self.offset + self.encoder.buffer.len() as u64;
            places.push(Place { segment: self.sequence as u32, offset: offset as u32 });
            self.encoder.entry(entry);
            self.last_index = entry.index;
        }
        if let Some(state) = &batch.hard_state {
            self.encoder.state(state);
            self.state = state.clone();
        }
        Ok(places)
    }

    fn snapshot(&mut self, record: &SnapshotRecord) {
        self.encoder.snapshot(record);
        self.last_index = self.last_index.max(record.index);
        self.snapshot_index = self.snapshot_index.max(record.index);
    }

    fn try_rewrite(&mut self, from: Option<Place>) -> Result<(), Error> {
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
        self.ahead.reserve(end);
        self.file
            .write_at(&self.encoder.buffer, self.offset)
            .map_err(io_error("write", &self.path))?;
        self.offset = end;
        self.encoder.buffer.clear();
        self.encoder.buffer.shrink_to(limits::LOG_BUFFER_BYTES_KEPT);
        Ok(bytes)
    }

    /// Closes the last segment and starts the next. The old one is durable before the new one can
    /// be seen, or a crash could leave a gap between them.
    fn rotate(&mut self) -> Result<(), Error> {
        self.try_write()?;
        let next = self.dir.join(NEXT_NAME);
        let (file, filled) = match self.ahead.take_next() {
            Some(prepared) => (prepared.file, prepared.filled),
            None => {
                let file = self.disk.create(&next).map_err(io_error("create", &next))?;
                file.allocate(self.options.segment_bytes)
                    .map_err(io_error("reserve space for", &next))?;
                (file, 0)
            }
        };
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
        self.encoder.buffer.clear();
        self.ahead.follow(&path, self.offset, filled);
        self.segments.0.lock().insert(sequence, Segment { sequence, index, path });
        Ok(())
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
            self.snapshot(record);
        }
        self.try_write()?;
        self.file.fdatasync().map_err(io_error("sync", &self.path))?;
        // Oldest first, so that a crash leaves no gap.
        for segment in old {
            self.segments.0.lock().remove(&segment.sequence);
            self.disk.remove(&segment.path).map_err(io_error("remove", &segment.path))?;
        }
        self.disk.fsync_dir(&self.dir).map_err(io_error("sync", &self.dir))
    }
}
