//! The log on disk: etcd's WAL format, written and read by our own code.
//!
//! ```text
//! member/wal/0000000000000000-0000000000000000.wal     closed: cut where its last record ends
//!            0000000000000001-000000000000c3a1.wal     current: 64,000,000 bytes
//!            next.tmp                                  the next one, prepared in advance
//!
//! | crc | metadata | state | entry entry entry state | entry state | 0 0 0 0 ...
//! '---- head of a segment -'------- one batch -------'             '- zero-filled ahead
//! ```
//!
//! A record is framed by its length and carries a CRC-32C that rolls through the data of all
//! records since the log began, so a record that is lost, doubled or moved is noticed. A segment
//! opens with the checksum its predecessor ended with, whose log it is, and the hard state.
//!
//! One thread owns the [`Writer`]. It puts batches into a buffer, writes it at once, and syncs.
//! Records go where a background thread has written zeros before (`zero_filler`), so that a sync
//! writes no metadata. The [`Table`] knows the term and place of every entry and keeps the recent
//! ones in memory; the raft loop owns it.
//!
//! A full disk, or one without inodes, does not stop the member. Blocks are allocated before
//! anything counts on them, and the next segment is prepared soon after the current one is in use.
//! If there is none after all, that shows before a byte of a record is written: [`Writer::put`]
//! leaves what has no room in the batch, and the caller tries again. [`Room`] says how much the log
//! can still take. A batch continues in the next segment where the current one ends; only an entry
//! that is larger than a segment makes a larger one.
//!
//! The log holds the votes and the acknowledged entries of this member, so opening it is strict.
//! Only what an interrupted write can leave behind is repaired: a last segment that ends in a
//! record with a sector of zeros, or in the middle of a record. The original is kept aside as
//! `.broken` and the rest is zeroed. Everything else is damage, named by file and offset, and the
//! member refuses to start.
//!
//! An entry that is read back later is checked as strictly: its place in the table has the checksum
//! of all records before it.
//!
//! Caveat: a record whose own data holds an aligned sector of zeros cannot be told from a torn one,
//! so a flipped bit in such a record at the log's end passes as torn (etcd decides the same way).

mod at_rest;
mod disk;
mod format;
mod read;
mod recover;
mod table;
mod write;
mod zero_filler;

pub use at_rest::ReadOnlyDisk;
pub use disk::{Disk, File, Space, SystemDisk, Unsynced};
pub use format::{Metadata, SnapshotRecord};
pub use read::Reader;
pub use recover::{Recovered, Repair, identity, open, open_applied};
pub use table::{EntryPosition, LogPosition, Table};
pub use write::{Batch, Writer, create};

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use self::format::ENTRY_BYTES;
use crate::limits;

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("the log is damaged: {} at byte {offset}: {what}", file.display())]
    Damage { file: PathBuf, offset: u64, what: String },
    #[error("there is no log in {}", .0.display())]
    Missing(PathBuf),
    #[error("there is a log in {} already", .0.display())]
    Exists(PathBuf),
    #[error("an earlier write of the log failed; nothing is written after that")]
    Failed,
    /// The disk has no room for the next segment. Nothing was written, so it may be tried again.
    #[error("no space is left for the log in {}", .0.display())]
    NoRoom(PathBuf),
}

/// What tests, the simulator and commands on a member at rest set differently.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub segment_bytes: u64,
    /// Whether a running member has a thread that writes zeros ahead of the writer.
    pub fill_ahead: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: limits::SEGMENT_BYTES, fill_ahead: true }
    }
}

impl Options {
    /// On a small file system segments are smaller, so that those in use and the prepared one leave
    /// most of it to the store.
    fn fitted(self, disk: &dyn Disk, dir: &Path) -> Self {
        let Ok(space) = disk.space(dir) else { return self };
        let share = space.total_bytes / limits::LOG_SEGMENT_DISK_PARTS;
        let bytes = share.max(limits::LOG_SEGMENT_BYTES_MIN);
        Self { segment_bytes: self.segment_bytes.min(bytes), ..self }
    }

    /// The bytes that a segment keeps free for records without entries, which have to be written on
    /// a full disk: the hard state, and the record of a purge, which removes older segments.
    fn slack_bytes(self) -> u64 {
        limits::LOG_SLACK_BYTES.min(self.segment_bytes / 16)
    }

    /// The part of the slack that only a batch without entries may use.
    fn purge_slack_bytes(self) -> u64 {
        self.slack_bytes() / 4
    }
}

/// How much the log can take before it needs more of the disk. Any thread may ask.
#[derive(Clone)]
pub struct Room(Arc<RoomCells>);

struct RoomCells {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    /// The usual size of a segment, in bytes.
    segment: u64,
    /// Bytes that are left in the current segment, without its slack.
    segment_free: AtomicU64,
    /// Bytes of the prepared segment; 0 if there is none.
    prepared_bytes: AtomicU64,
    /// See [`Room::taken_bytes`].
    allocated_total: AtomicU64,
    /// See [`Room::reserve_for_store`].
    reserved_bytes: AtomicU64,
    /// The disk had no room for a segment, or no inode: then its free bytes do not count.
    is_refused: AtomicBool,
}

/// The value of `RoomCells::reserved_bytes` before the first call of [`Room::reserve_for_store`].
const UNKNOWN: u64 = u64::MAX;

impl Room {
    fn new(disk: Arc<dyn Disk>, dir: &Path, segment: u64) -> Self {
        let [segment_free, prepared_bytes, allocated_total] = [(); 3].map(|()| AtomicU64::new(0));
        let (dir, reserved_bytes) = (dir.to_path_buf(), AtomicU64::new(UNKNOWN));
        let is_refused = AtomicBool::new(false);
        Self(Arc::new(RoomCells {
            disk,
            dir,
            segment,
            segment_free,
            prepared_bytes,
            allocated_total,
            reserved_bytes,
            is_refused,
        }))
    }

    /// How many bytes of the log an entry with `bytes` bytes of data takes at most. An entry does
    /// not cross the end of a segment, so the rest there may stay unused: up to its own size for an
    /// entry larger than 1/8 of a segment. Smaller entries leave less than 1/8 unused beside 7/8
    /// that they fill, so each counts a seventh more.
    pub fn cost(&self, bytes: u64) -> u64 {
        let bytes = bytes.saturating_add(ENTRY_BYTES);
        let parts = limits::LOG_LARGE_ENTRY_PARTS;
        let is_large = bytes > self.0.segment / parts;
        bytes.saturating_add(if is_large { bytes } else { bytes / (parts - 1) })
    }

    /// Whether the log can take further entries of this cost and then still has half a segment, for
    /// what must be written while the disk is full.
    pub fn fits(&self, cost: u64) -> bool {
        self.has(cost.saturating_add(self.0.segment / 2))
    }

    /// How many bytes the log still has to take from its disk for entries of this cost: the next
    /// segment at least, and whole segments if the entries exceed what the log has.
    pub fn wanted_bytes(&self, cost: u64) -> u64 {
        // A next segment that is smaller than usual is followed by a larger one.
        let next = self.0.segment.saturating_sub(self.0.prepared_bytes.load(Ordering::SeqCst));
        let missing = cost.saturating_sub(self.bytes());
        next.max(missing.div_ceil(self.0.segment.max(1)).saturating_mul(self.0.segment))
    }

    /// Bytes of the disk that the log has taken since it was opened. A caller that measured the
    /// free bytes of the same disk earlier subtracts what the log has taken since.
    pub fn taken_bytes(&self) -> u64 {
        self.0.allocated_total.load(Ordering::SeqCst)
    }

    /// Whether the log has less room than an eighth of a segment, which housekeeping needs.
    pub fn is_critical(&self) -> bool {
        !self.has(self.0.segment / 8)
    }

    fn has(&self, bytes: u64) -> bool {
        // The free space costs a system call, so it is read only if the segments do not suffice.
        self.bytes() >= bytes || self.bytes().saturating_add(self.free_bytes()) >= bytes
    }

    fn set_refused(&self, is_refused: bool) {
        self.0.is_refused.store(is_refused, Ordering::Relaxed);
    }

    /// Whether the disk has `bytes` free beside those that the log leaves to the store. A disk
    /// whose free space cannot be read counts as having them.
    fn has_space(&self, bytes: u64) -> bool {
        self.disk_bytes().is_none_or(|free| free >= bytes)
    }

    /// Free bytes of the disk that the log can use: whole segments, or one that is smaller than
    /// usual.
    fn free_bytes(&self) -> u64 {
        if self.0.is_refused.load(Ordering::Relaxed) {
            return 0;
        }
        let Some(free) = self.disk_bytes() else { return 0 };
        if free < self.0.segment { small(free) } else { free - free % self.0.segment.max(1) }
    }

    /// Free bytes of the disk beside those that the log leaves to the store; `None` if they cannot
    /// be read.
    fn disk_bytes(&self) -> Option<u64> {
        let space = self.0.disk.space(&self.0.dir).ok()?;
        Some(space.free_bytes.saturating_sub(self.reserved_bytes()))
    }

    /// The size of a segment that is made now: the usual one, or a smaller one on a disk without
    /// room for that, since an older segment can be removed once the new one is in use. 0 if the
    /// disk has no room for the smallest one either.
    fn next_bytes(&self) -> u64 {
        let usual = self.0.segment;
        self.disk_bytes().filter(|free| *free < usual).map_or(usual, small)
    }

    /// Whether the log waits for a segment for which its disk has room with the store's reserve
    /// only. What is lent counts as free, so a loan is kept until the log has the segment: at every
    /// other look it would otherwise seem not to be needed.
    pub fn wants_reserve(&self, is_lent: bool) -> bool {
        let has_next = self.0.prepared_bytes.load(Ordering::SeqCst) > 0;
        let has_enough = has_next && self.bytes() >= self.0.segment / 2;
        let has_room = || self.disk_bytes().is_none_or(|free| free >= self.0.segment);
        !has_enough && (is_lent || !has_room())
    }

    /// Whether there is no next segment, and no room for one of the usual size: what the log keeps
    /// for others takes the room then.
    pub fn lacks_next(&self) -> bool {
        let has_next = self.0.prepared_bytes.load(Ordering::SeqCst) > 0;
        !has_next && !self.has_space(self.0.segment)
    }

    /// Bytes of records that can be written although the disk is full.
    fn bytes(&self) -> u64 {
        self.0.segment_free.load(Ordering::Relaxed) + self.0.prepared_bytes.load(Ordering::Relaxed)
    }

    /// Sets how many bytes of the disk the log leaves to the store when it prepares a segment.
    /// Before the first call no segment is prepared until the end of the current one comes near.
    pub fn reserve_for_store(&self, bytes: u64) {
        self.0.reserved_bytes.store(bytes.min(UNKNOWN - 1), Ordering::Relaxed);
    }

    fn is_reserve_known(&self) -> bool {
        self.0.reserved_bytes.load(Ordering::Relaxed) != UNKNOWN
    }

    fn reserved_bytes(&self) -> u64 {
        let reserved_bytes = self.0.reserved_bytes.load(Ordering::Relaxed);
        if reserved_bytes == UNKNOWN { 0 } else { reserved_bytes }
    }

    fn set_segment_free(&self, bytes: u64) {
        self.0.segment_free.store(bytes, Ordering::Relaxed);
    }

    /// See [`Self::taken_bytes`]. Called before the bytes count as room of the log.
    fn note_taken(&self, bytes: u64) {
        self.0.allocated_total.fetch_add(bytes, Ordering::SeqCst);
    }

    fn note_given_back(&self, bytes: u64) {
        self.0.allocated_total.fetch_sub(bytes, Ordering::SeqCst);
    }

    fn set_prepared_bytes(&self, bytes: u64) {
        self.0.prepared_bytes.store(bytes, Ordering::SeqCst);
    }
}

/// The size of a smaller segment on a disk with `free` bytes; 0 if they are too few.
fn small(free: u64) -> u64 {
    if free < limits::LOG_SEGMENT_BYTES_MIN {
        0
    } else {
        free - free % limits::LOG_SEGMENT_STEP_BYTES
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { doing, path, source }
}

/// The segments by number. The writer adds and removes them, the reader looks them up.
#[derive(Clone, Default)]
struct Segments(Arc<Mutex<BTreeMap<u64, Segment>>>);

#[derive(Clone, Debug)]
struct Segment {
    sequence: u64,
    /// The index after the last entry written before this segment.
    index: u64,
    path: PathBuf,
}

/// Whether there is a log in a directory. A directory that cannot be read is an error: who took it
/// for one without a log would make a new log in its place.
pub fn exists(disk: &dyn Disk, dir: &Path) -> Result<bool, Error> {
    match disk.list(dir) {
        Ok(names) => Ok(names.iter().any(|name| name.ends_with(".wal"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("read", dir)(error)),
    }
}

/// Names and directories of a test's disk are those of the system's; only its files differ.
#[cfg(test)]
macro_rules! system_names {
    () => {
        fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
            SystemDisk.list(dir)
        }
        fn create_dir(&self, dir: &Path) -> io::Result<()> {
            SystemDisk.create_dir(dir)
        }
        fn exists(&self, path: &Path) -> bool {
            SystemDisk.exists(path)
        }
        fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
            SystemDisk.rename(from, to)
        }
        fn remove(&self, path: &Path) -> io::Result<()> {
            SystemDisk.remove(path)
        }
        fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
            SystemDisk.remove_dir_all(dir)
        }
        fn fsync_dir(&self, dir: &Path) -> io::Result<()> {
            SystemDisk.fsync_dir(dir)
        }
    };
}
#[cfg(test)]
pub(crate) use system_names;

#[cfg(test)]
pub(super) mod crash;
#[cfg(test)]
mod full;
#[cfg(test)]
mod tests;
