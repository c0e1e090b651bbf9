//! Snapshots between members: `POST /raft/snapshot`, etcd's framing.
//!
//! The body is the message's length (u64, big-endian), the message, and the file, which is made
//! while it is sent. Content-Length is set, so that a receiver without room can refuse at once. A
//! header of rusd holds the message's SHA-256, and says that the file's digest follows the file.
//! The receiver answers when the state is on its disk, checked and known to raft. So the answer is
//! also the report that raft waits for.

pub(super) mod arriving;
mod receive;
mod send;

use std::io;

use bytes::Bytes;
use http::HeaderName;

use super::digest::DIGEST_BYTES;
use crate::raft::SnapshotPlace;

/// Holds the SHA-256 of the message; the file's digest follows the file.
const DIGEST: HeaderName = HeaderName::from_static("x-rusd-snapshot-digest");

/// The source and the target of snapshots, implemented by `transfer`. All functions may block.
pub trait Snapshots: Send + Sync {
    /// Begins a snapshot of the durable state of this member.
    fn open(&self) -> io::Result<Box<dyn OutgoingSnapshot>>;
    /// Begins to receive a snapshot; discards one that was received before and not installed.
    fn receive(&self, place: SnapshotPlace) -> io::Result<Box<dyn IncomingSnapshot>>;
    /// Whether the disk has room for a file of `bytes` and for the state built from it; the error
    /// says how much is missing.
    fn has_room(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
}

/// A snapshot that is made while it is read.
pub trait OutgoingSnapshot: Send {
    fn place(&self) -> &SnapshotPlace;
    /// Length of the file in bytes.
    fn bytes(&self) -> u64;
    /// The next piece; None at the end.
    fn next_piece(&mut self) -> io::Result<Option<Bytes>>;
}

/// A snapshot that is being received. If dropped before `finish`, it leaves nothing behind.
pub trait IncomingSnapshot: Send {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Compares the digest, checks the file, and makes the state ready to be installed.
    fn finish(self: Box<Self>, digest: [u8; DIGEST_BYTES]) -> io::Result<()>;
}
