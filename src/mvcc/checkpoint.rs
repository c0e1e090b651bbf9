//! The index and the leases of keys as bytes, written in small steps while further entries are
//! applied.
//!
//! The bytes describe the index as of one revision: newer changes are left out. A key's lease is
//! that at the time of the step that writes it, which is right only for keys that have not changed
//! since that revision; a key that has changed has a newer row, and a start reads newer rows after
//! the checkpoint. So a checkpoint may be used only with a store that holds every entry that was
//! applied before its last byte was written.

use std::collections::HashMap;

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};

use super::index::{self, Index, Visit};
use super::{Current, Mvcc};
use crate::limits;

/// A checkpoint that a start has read from its file.
pub struct Checkpoint {
    /// The revisions that the index was written for.
    pub current: Current,
    pub bytes: Vec<u8>,
}

/// A walk over the index for a checkpoint. No sweep may take a step until the walk ends; the
/// sweeper's thread does both.
pub struct IndexPass {
    current: Current,
    start: Box<[u8]>,
}

impl IndexPass {
    /// Begins the walk. That may be in the middle of a sweep, since a sweep on a failing disk never
    /// ends. The index then lacks some of the revisions that the sweep dooms, so the checkpoint
    /// counts as compacted by the last sweep that has ended. A start repeats the later ones, and
    /// finds the rows that the index lacks (`Sweep::expect_orphans`).
    pub fn new(mvcc: &Mvcc) -> Self {
        let current = Current { compact_revision: mvcc.swept(), ..mvcc.current() };
        Self { current, start: Box::default() }
    }

    pub fn current(&self) -> Current {
        self.current
    }

    /// Appends up to `INDEX_HOLD_KEYS_MAX` keys or `CHECKPOINT_STEP_BYTES` to `out`. Returns false
    /// once the last key is written.
    pub fn step(&mut self, mvcc: &Mvcc, out: &mut Vec<u8>) -> bool {
        let main = self.current.revision;
        let (keys_max, bytes_max) = (limits::INDEX_HOLD_KEYS_MAX, limits::CHECKPOINT_STEP_BYTES);
        let index = mvcc.index.read();
        match index::write_keys(&index, &self.start, main, keys_max, bytes_max, out) {
            Visit::Next(next) => self.start = next,
            Visit::Done => {
                index::write_end(out);
                return false;
            }
        }
        true
    }
}

/// Appends one key and its lease. These pairs follow the index.
pub fn write_attachment(key: &Bytes, lease: i64, out: &mut Vec<u8>) {
    encode_varint(lease.cast_unsigned(), out);
    encode_varint(key.len() as u64, out);
    out.extend_from_slice(key);
}

/// Ends the checkpoint.
pub fn write_attachments_end(out: &mut Vec<u8>) {
    out.push(0);
}

/// Reads index and leases; None if the bytes are malformed.
pub(super) fn read(checkpoint: &Checkpoint) -> Option<(Index, HashMap<Bytes, i64>)> {
    let mut bytes = checkpoint.bytes.as_slice();
    let index = index::read_keys(&mut bytes, checkpoint.current.revision).ok()?;
    let mut attachments = HashMap::new();
    loop {
        let lease = decode_varint(&mut bytes).ok()?.cast_signed();
        if lease == 0 {
            return bytes.is_empty().then_some((index, attachments));
        }
        let len = usize::try_from(decode_varint(&mut bytes).ok()?).ok()?;
        let (key, rest) = bytes.split_at_checked(len)?;
        attachments.insert(Bytes::copy_from_slice(key), lease);
        bytes = rest;
    }
}
