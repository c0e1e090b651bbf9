//! The log on disk: etcd's WAL format, written and read by our own code.
//!
//! ```text
//! member/wal/0000000000000000-0000000000000000.wal     closed: cut where its last record ends
//!            0000000000000001-000000000000c3a1.wal     current: 64,000,000 bytes
//!            next.tmp                                  prepared for the next rotation
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
//! Records go where a background thread has written zeros before (`ahead`), so that a sync writes
//! no metadata. The [`Table`] knows the term and place of every entry and keeps the recent ones in
//! memory; the raft loop owns it.
//!
//! What stands in the log decides what this member voted for and acknowledged, so opening it is
//! strict. Only what an interrupted write can leave behind is repaired: a last segment that ends in
//! a record with a sector of zeros, or in the middle of one. The original is kept aside as
//! `.broken` and the rest is zeroed. Everything else is damage, named by file and offset, and the
//! member refuses to start.
//!
//! Caveats: a record whose own data holds an aligned sector of zeros cannot be told from a torn
//! one, so a flipped bit in such a record at the log's end passes as torn (etcd decides the same
//! way). An entry read back by its place is checked against the checksum of the record before it
//! only if both are read together; index and term are always checked.

mod ahead;
mod at_rest;
mod disk;
mod format;
mod read;
mod table;
mod write;

pub use at_rest::ReadOnlyDisk;
pub use disk::{Disk, File, SystemDisk};
pub use format::{Metadata, SnapshotRecord};
pub use read::{Reader, Recovered, Repair, exists, identity, open};
pub use table::{Place, Table};
pub use write::{Batch, Writer, create};

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

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
}

/// What tests and the simulator set differently.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub segment_bytes: u64,
    /// Whether a running member has a thread that fills zeros ahead of the writer.
    pub fill_ahead: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { segment_bytes: limits::SEGMENT_BYTES, fill_ahead: true }
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { doing, path, source }
}

/// The segments by number; the writer adds and removes, readers look up.
#[derive(Clone, Default)]
struct Segments(Arc<Mutex<BTreeMap<u64, Segment>>>);

#[derive(Clone, Debug)]
struct Segment {
    sequence: u64,
    /// The index after the last entry written before this segment.
    index: u64,
    path: PathBuf,
}

#[cfg(test)]
mod crash;
#[cfg(test)]
mod tests;
