//! An encoded message in one or several parts: long values are sent from where they are, and what is
//! between them is copied.
//!
//! A response with previous pairs, or the answer of a transaction, may hold megabytes in a few values.
//! To copy them into one piece would take the thread of a connection milliseconds, in which it serves
//! nobody else, and their memory twice.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use bytes::buf::UninitSlice;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Values of at least so many bytes are not copied. Each costs a system call more, which takes about as
/// long as copying so much.
const LONG_BYTES: usize = 32 << 10;
/// What is copied makes parts of about this size, so that none is moved while it grows.
const COPIED_BYTES: usize = 64 << 10;

/// Bytes in one or several parts.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Empty only if there is nothing behind it.
    first: Bytes,
    /// Boxed, since most answers have one part.
    rest: Option<Box<Rest>>,
}

/// The parts behind the first; there is one at least.
#[derive(Clone, Debug, Default)]
struct Rest {
    parts: VecDeque<Bytes>,
    bytes: usize,
}

impl Parts {
    /// The same bytes in one part. Several are copied.
    pub fn into_bytes(mut self) -> Bytes {
        self.copy_to_bytes(self.remaining())
    }

    /// The bytes, if they are one part.
    pub fn single(self) -> Result<Bytes, Self> {
        if self.rest.is_none() { Ok(self.first) } else { Err(self) }
    }

    /// Replaces each part by what `change` makes of it, which must have the same length.
    pub fn map(mut self, mut change: impl FnMut(Bytes) -> Bytes) -> Self {
        self.first = change(self.first);
        for part in self.rest.iter_mut().flat_map(|rest| &mut rest.parts) {
            *part = change(mem::take(part));
        }
        self
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Bytes> {
        let rest = self.rest.iter().flat_map(|rest| &rest.parts);
        [&self.first].into_iter().chain(rest).filter(|part| !part.is_empty())
    }

    /// Adds a part that is not empty.
    fn push(&mut self, part: Bytes) {
        if self.first.is_empty() {
            self.first = part;
        } else {
            let rest = self.rest.get_or_insert_default();
            rest.bytes += part.len();
            rest.parts.push_back(part);
        }
    }

    /// Drops the first part. Returns false if there is no other.
    fn drop_first(&mut self) -> bool {
        let Some(rest) = &mut self.rest else { return false };
        self.first = rest.parts.pop_front().unwrap_or_default();
        rest.bytes -= self.first.len();
        self.rest.take_if(|rest| rest.parts.is_empty());
        true
    }
}

impl From<Bytes> for Parts {
    fn from(first: Bytes) -> Self {
        Self { first, rest: None }
    }
}

impl Buf for Parts {
    fn remaining(&self) -> usize {
        self.first.len() + self.rest.as_ref().map_or(0, |rest| rest.bytes)
    }

    fn chunk(&self) -> &[u8] {
        &self.first
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        into.iter_mut().zip(self.iter()).map(|(slice, part)| *slice = IoSlice::new(part)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(left) = count.checked_sub(self.first.len())
            && self.drop_first()
        {
            count = left;
        }
        self.first.advance(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        if count == self.first.len() {
            // A long value is a part of its own.
            let first = mem::take(&mut self.first);
            self.drop_first();
            return first;
        }
        if count < self.first.len() || self.rest.is_none() {
            return self.first.copy_to_bytes(count);
        }
        assert!(count <= self.remaining(), "there are not so many bytes");
        let mut copy = BytesMut::with_capacity(count);
        copy.put(self.take(count));
        copy.freeze()
    }
}

/// Messages that are being encoded one behind the other.
#[derive(Default)]
pub(super) struct Joined {
    parts: Parts,
    /// What follows the parts.
    copied: BytesMut,
    /// Where the message ends that is expected.
    end: usize,
}

impl Joined {
    pub(super) fn len(&self) -> usize {
        self.parts.remaining() + self.copied.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells how long the next message is, so that nothing is moved while it grows.
    pub(super) fn expect(&mut self, bytes: usize) {
        self.end = self.len() + bytes;
        self.reserve();
    }

    fn reserve(&mut self) {
        let left = self.end.saturating_sub(self.len());
        self.copied.reserve(left.min(COPIED_BYTES));
    }

    pub(super) fn finish(mut self) -> Parts {
        self.cut();
        self.parts
    }

    fn cut(&mut self) {
        if self.copied.is_empty() {
            return;
        }
        // What stands between long values is short. Its part would keep the whole block.
        if self.copied.len() < self.copied.capacity() / 2 {
            self.parts.push(Bytes::copy_from_slice(&self.copied));
            self.copied.clear();
        } else {
            self.parts.push(mem::take(&mut self.copied).freeze());
        }
    }

    /// Begins another part if this many bytes more would make the present one too long.
    fn make_room(&mut self, bytes: usize) {
        if self.copied.len() + bytes > COPIED_BYTES {
            self.cut();
            self.reserve();
        }
    }
}

#[expect(unsafe_code, reason = "the trait is unsafe to implement")]
// SAFETY: what the trait asks for is forwarded to a `BytesMut`, the only memory that is written to.
unsafe impl BufMut for Joined {
    fn remaining_mut(&self) -> usize {
        self.copied.remaining_mut()
    }

    unsafe fn advance_mut(&mut self, count: usize) {
        // SAFETY: the caller has initialized so many bytes of `chunk_mut`.
        unsafe { self.copied.advance_mut(count) }
    }

    fn chunk_mut(&mut self) -> &mut UninitSlice {
        self.copied.chunk_mut()
    }

    fn put<T: Buf>(&mut self, mut from: T) {
        let bytes = from.remaining();
        if bytes >= LONG_BYTES {
            self.cut();
            self.parts.push(from.copy_to_bytes(bytes));
            self.reserve();
        } else {
            self.make_room(bytes);
            self.copied.put(from);
        }
    }

    fn put_slice(&mut self, from: &[u8]) {
        self.make_room(from.len());
        self.copied.put_slice(from);
    }

    fn put_u8(&mut self, from: u8) {
        self.make_room(1);
        self.copied.put_u8(from);
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::pb::raw::{Event, WatchResponse};

    /// A response with previous pairs of these sizes.
    fn response(sizes: &[usize]) -> WatchResponse {
        let event = |(number, size): (usize, &usize)| Event {
            kv: Some(Bytes::from(format!("pair {number}"))),
            prev_kv: Some(vec![number as u8; *size].into()),
            ..Default::default()
        };
        WatchResponse {
            watch_id: 7,
            events: sizes.iter().enumerate().map(event).collect(),
            ..Default::default()
        }
    }

    fn joined(messages: &[WatchResponse]) -> Parts {
        let mut joined = Joined::default();
        let mut bytes = 0;
        for message in messages {
            joined.expect(message.encoded_len());
            message.encode_raw(&mut joined);
            bytes += message.encoded_len();
            assert_eq!(joined.len(), bytes);
        }
        joined.finish()
    }

    #[test]
    fn parts_are_the_message_and_long_values_are_not_copied() {
        let mixed = [LONG_BYTES, 1, 0, LONG_BYTES - 1, 3 * LONG_BYTES, LONG_BYTES, LONG_BYTES - 1];
        let many = [1000; 1000];
        for sizes in [&[][..], &[0], &[LONG_BYTES - 1], &[LONG_BYTES], &mixed, &many] {
            let messages = [response(sizes), response(&[5])];
            let parts = joined(&messages);
            let whole: Vec<u8> = messages.iter().flat_map(|it| it.encode_to_vec()).collect();
            assert_eq!(parts.remaining(), whole.len());
            assert_eq!(parts.clone().into_bytes(), whole);
            let values = messages.iter().flat_map(|message| &message.events);
            let values = values.filter_map(|event| event.prev_kv.as_ref());
            for long in values.filter(|value| value.len() >= LONG_BYTES) {
                assert!(parts.iter().any(|part| part.as_ptr() == long.as_ptr()));
            }
            // What is copied is in few parts.
            assert!(
                parts.iter().count() <= 2 * sizes.len().min(10) + whole.len() / COPIED_BYTES + 1
            );
        }
    }

    #[test]
    fn parts_are_read_in_pieces_of_any_size() {
        let parts = joined(&[response(&[LONG_BYTES, 10, LONG_BYTES + 1])]);
        let whole = parts.clone().into_bytes();
        for piece in [1, 100, LONG_BYTES, LONG_BYTES + 40, whole.len()] {
            let (mut by_chunk, mut chunks) = (parts.clone(), Vec::new());
            while by_chunk.has_remaining() {
                let count = by_chunk.chunk().len().min(piece);
                assert!(count > 0);
                chunks.extend_from_slice(&by_chunk.chunk()[..count]);
                by_chunk.advance(count);
            }
            assert_eq!(chunks, whole);
            let (mut by_copy, mut copies) = (parts.clone(), Vec::new());
            while by_copy.has_remaining() {
                let count = by_copy.remaining().min(piece);
                copies.extend_from_slice(&by_copy.copy_to_bytes(count));
            }
            assert_eq!(copies, whole);
        }
        let mut slices = [IoSlice::new(&[]); 16];
        let count = parts.chunks_vectored(&mut slices);
        let shown: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(shown, whole);
        let mut skipped = parts;
        skipped.advance(whole.len());
        assert!(!skipped.has_remaining() && skipped.chunk().is_empty());
    }

    #[test]
    fn each_part_is_changed_in_its_place() {
        let parts = joined(&[response(&[LONG_BYTES, 10])]);
        let mut seen = 0;
        let changed = parts.clone().map(|part| {
            seen += 1;
            Bytes::from(part.to_vec())
        });
        assert_eq!((seen, changed.into_bytes()), (3, parts.clone().into_bytes()));
        assert!(parts.single().is_err());
        assert_eq!(Parts::from(Bytes::from("one")).single().unwrap(), "one");
    }
}
