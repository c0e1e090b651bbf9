//! The index and the keys' leases as bytes, written a little at a time while history goes on.
//!
//! The bytes say what was at one revision. The index leaves out what is newer. Of the leases only
//! those of keys that did not change since are certain; a key that did change meanwhile has a newer
//! row, and a start reads newer rows after the checkpoint. So a checkpoint serves a store that holds
//! every entry that was applied when its last byte was taken, and no other.

use std::collections::HashMap;

use bytes::Bytes;
use prost::encoding::{decode_varint, encode_varint};

use super::index::{self, Index, Visit};
use super::{Current, Mvcc};
use crate::limits;

/// A checkpoint as a start finds it.
pub struct Checkpoint {
    /// The state that the index was written for.
    pub current: Current,
    pub bytes: Vec<u8>,
}

/// A walk over the index. No sweep may take a step before it ends.
pub struct IndexPass {
    current: Current,
    start: Box<[u8]>,
}

impl IndexPass {
    /// The walk may begin in the middle of a sweep, since a sweep that the disk fails never ends. The
    /// index then lacks some of what that sweep dooms, so the checkpoint counts as compacted by the
    /// last sweep that ended. A start repeats the later ones, and finds the rows that the index lacks.
    pub fn new(mvcc: &Mvcc) -> Self {
        let current = Current { compact_revision: mvcc.swept(), ..mvcc.current() };
        Self { current, start: Box::default() }
    }

    pub fn current(&self) -> Current {
        self.current
    }

    /// Appends a bounded number of keys; false at the end.
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

/// Appends a key's lease; they follow the index.
pub fn write_attachment(key: &Bytes, lease: i64, out: &mut Vec<u8>) {
    encode_varint(lease.cast_unsigned(), out);
    encode_varint(key.len() as u64, out);
    out.extend_from_slice(key);
}

/// Ends the checkpoint.
pub fn write_attachments_end(out: &mut Vec<u8>) {
    out.push(0);
}

/// Reads index and leases back; `None` if the bytes do not describe a state.
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
