//! Snapshots between members: `POST /raft/snapshot`, etcd's framing.
//!
//! The body is a message's length (u64, big-endian), the message, and the file as it is made. Its
//! length is announced, so that a receiver without room refuses it at once. A header of ours holds the
//! message's SHA-256, and says that the file's digest follows it. The receiver answers when the state
//! is on disk, checked and known to raft, so the answer is also the report that raft waits for.

pub(super) mod arriving;
mod receive;
mod send;

use std::io;

use bytes::Bytes;
use http::HeaderName;

use super::digest::DIGEST_BYTES;
use crate::raft::SnapshotPlace;

/// The SHA-256 of the message. The file's digest follows the file.
const DIGEST: HeaderName = HeaderName::from_static("x-rusd-snapshot-digest");

/// The state's side. All of it may block.
pub trait Snapshots: Send + Sync {
    /// Begins a snapshot of what is durable here.
    fn open(&self) -> io::Result<Box<dyn OutgoingSnapshot>>;
    /// Begins to take one in, in place of any that was not installed.
    fn receive(&self, place: SnapshotPlace) -> io::Result<Box<dyn IncomingSnapshot>>;
    /// Whether the disk has room for a file of so many bytes and the state built from it; an error
    /// says what is missing.
    fn has_room(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
}

/// A snapshot that is made while it is read.
pub trait OutgoingSnapshot: Send {
    fn place(&self) -> &SnapshotPlace;
    /// Length of the file.
    fn bytes(&self) -> u64;
    /// The next piece; none at the end.
    fn next_piece(&mut self) -> io::Result<Option<Bytes>>;
}

/// A snapshot that is being received. Dropped, it leaves nothing.
pub trait IncomingSnapshot: Send {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Checks what came and makes it ready to be installed.
    fn finish(self: Box<Self>, digest: [u8; DIGEST_BYTES]) -> io::Result<()>;
}
