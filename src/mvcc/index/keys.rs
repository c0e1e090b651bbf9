//! A sorted list of keys in few blocks of memory. What all of them begin with is stored once, and a
//! search compares numbers before it looks at a key.

use std::ops::Range;

/// Vectors grow by this many places and not to twice their size, because most leaves are between
/// half full and full.
pub(super) const GROWTH: usize = 20;
/// The least by which the block of the keys' bytes grows.
const GROWTH_BYTES: usize = 128;
/// Longest part that is stored once for all keys of a list. A key without it makes each of the others
/// longer by it, which must stay a short copy.
const PREFIX_BYTES_MAX: usize = 4096;

/// Where the rest of a key stands. Twelve bytes, since there is one for each key.
#[derive(Clone, Copy)]
#[repr(C, packed(4))]
struct Slot {
    at: u64,
    len: u32,
}

impl Slot {
    fn range(self) -> Range<usize> {
        let at = self.at as usize;
        at..at + self.len as usize
    }
}

/// Keys in ascending order, each once.
#[derive(Default)]
pub(super) struct Keys {
    /// All keys begin with it. It may be shorter than what they share.
    prefix: Vec<u8>,
    /// For each key the first eight bytes of its rest, the part after the prefix, as a number whose
    /// order is that of the bytes. Zeros stand for bytes that the rest does not have, so two rests
    /// may have the same head, and then their bytes decide.
    heads: Vec<u64>,
    slots: Vec<Slot>,
    /// The rests of the keys, in no order.
    bytes: Vec<u8>,
    /// How many of `bytes` belong to keys that were removed.
    unused: usize,
}

fn head_of(rest: &[u8]) -> u64 {
    if let Some(first) = rest.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let mut head = [0; 8];
    head[..rest.len()].copy_from_slice(rest);
    u64::from_be_bytes(head)
}

/// How many bytes both begin with.
fn shared(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Keys {
    /// The list of `keys`, which ascend, in blocks without spare room.
    pub(super) fn from_sorted<'a>(keys: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> Self {
        let first = keys.clone().next().unwrap_or_default();
        let last = keys.clone().last().unwrap_or_default();
        let prefix = &first[..shared(first, last).min(PREFIX_BYTES_MAX)];
        let bytes = keys.clone().map(|key| key.len() - prefix.len()).sum();
        let mut list = Self {
            prefix: prefix.to_vec(),
            heads: Vec::with_capacity(keys.len()),
            slots: Vec::with_capacity(keys.len()),
            bytes: Vec::with_capacity(bytes),
            unused: 0,
        };
        for key in keys {
            list.push_rest(&[], &key[prefix.len()..]);
        }
        list
    }

    /// The memory that the list has allocated.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        let of_each = size_of::<u64>() + size_of::<Slot>();
        self.heads.capacity() * of_each + self.prefix.capacity() + self.bytes.capacity()
    }

    pub(super) fn len(&self) -> usize {
        self.heads.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty()
    }

    /// Bytes of all keys, without what they share.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn rest(&self, at: usize) -> &[u8] {
        &self.bytes[self.slots[at].range()]
    }

    /// The key at a position, in two parts.
    pub(super) fn parts(&self, at: usize) -> [&[u8]; 2] {
        [&self.prefix, self.rest(at)]
    }

    /// The key at a position.
    pub(super) fn key(&self, at: usize) -> Box<[u8]> {
        self.parts(at).concat().into()
    }

    /// Replaces the contents of `out` by the key at a position.
    pub(super) fn copy_key(&self, at: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(self.rest(at));
    }

    /// Position of the key, or the position at which it would stand.
    pub(super) fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let Some(rest) = key.strip_prefix(self.prefix.as_slice()) else {
            // All keys begin with the prefix, so all of them are on one side of this key.
            return Err(if key < self.prefix.as_slice() { 0 } else { self.len() });
        };
        let head = head_of(rest);
        let first = self.heads.partition_point(|other| *other < head);
        let heads = &self.heads[first..];
        let count = match heads {
            [other, ..] if *other != head => return Err(first),
            [_, next, ..] if *next == head => heads.partition_point(|other| *other == head),
            _ => heads.len().min(1),
        };
        let alike = &self.slots[first..first + count];
        let found = alike.binary_search_by(|slot| self.bytes[slot.range()].cmp(rest));
        found.map(|at| first + at).map_err(|at| first + at)
    }

    /// Number of the keys at or before `key`.
    pub(super) fn count_to(&self, key: &[u8]) -> usize {
        self.search(key).map_or_else(|at| at, |at| at + 1)
    }

    /// Inserts a key at the position that `search` has given for it.
    pub(super) fn insert(&mut self, at: usize, key: &[u8]) {
        if self.is_empty() {
            let prefix = key[..key.len().min(PREFIX_BYTES_MAX)].to_vec();
            *self = Self { prefix, ..Self::default() };
        }
        if !key.starts_with(&self.prefix) {
            self.shorten_prefix(shared(&self.prefix, key));
        }
        let rest = &key[self.prefix.len()..];
        if self.heads.len() == self.heads.capacity() {
            self.heads.reserve_exact(GROWTH);
            self.slots.reserve_exact(GROWTH);
        }
        if rest.len() > self.bytes.capacity() - self.bytes.len() {
            let some = (self.bytes.len() / 8).max(GROWTH_BYTES);
            self.bytes.reserve_exact(rest.len().max(some));
        }
        self.heads.insert(at, head_of(rest));
        self.slots.insert(at, self.slot(rest.len()));
        self.bytes.extend_from_slice(rest);
    }

    /// The slot of a rest of `len` bytes that is appended next.
    fn slot(&self, len: usize) -> Slot {
        // A key comes in a request, whose length has 32 bits.
        Slot { at: self.bytes.len() as u64, len: u32::try_from(len).unwrap_or(u32::MAX) }
    }

    /// Appends a key after all others, as two parts of its rest.
    fn push_rest(&mut self, first: &[u8], second: &[u8]) {
        let start = self.bytes.len();
        self.slots.push(self.slot(first.len() + second.len()));
        self.bytes.extend_from_slice(first);
        self.bytes.extend_from_slice(second);
        self.heads.push(head_of(&self.bytes[start..]));
    }

    fn shorten_prefix(&mut self, len: usize) {
        let moved = self.prefix.split_off(len);
        self.prefix.shrink_to_fit();
        let bytes = self.bytes.len() + (self.len() + 1) * moved.len() + GROWTH_BYTES;
        let longer = Self {
            prefix: std::mem::take(&mut self.prefix),
            heads: Vec::with_capacity(self.len() + GROWTH),
            slots: Vec::with_capacity(self.len() + GROWTH),
            bytes: Vec::with_capacity(bytes),
            unused: 0,
        };
        let shorter = std::mem::replace(self, longer);
        for at in 0..shorter.len() {
            self.push_rest(&moved, shorter.rest(at));
        }
    }

    /// Some of the keys as a list of their own, with room for `spare` more.
    fn part(&self, range: Range<usize>, spare: usize) -> Self {
        if range.is_empty() {
            return Self::default();
        }
        let first = self.rest(range.start);
        let more = shared(first, self.rest(range.end - 1));
        let more = more.min(PREFIX_BYTES_MAX.saturating_sub(self.prefix.len()));
        let bytes: usize = range.clone().map(|at| self.rest(at).len() - more).sum();
        let mut part = Self {
            prefix: [&self.prefix, &first[..more]].concat(),
            heads: Vec::with_capacity(range.len() + spare),
            slots: Vec::with_capacity(range.len() + spare),
            bytes: Vec::with_capacity(bytes + bytes / range.len() * spare),
            unused: 0,
        };
        for at in range {
            part.push_rest(&[], &self.rest(at)[more..]);
        }
        part
    }

    /// Takes out the keys from a position on.
    pub(super) fn split_off(&mut self, at: usize) -> Self {
        let tail = self.part(at..self.len(), GROWTH);
        *self = self.part(0..at, GROWTH);
        tail
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.heads.remove(at);
        self.unused += self.slots.remove(at).range().len();
        if self.unused > self.bytes.len() / 2 {
            *self = self.part(0..self.len(), GROWTH);
        }
    }

    /// Keeps the keys at the positions for which `is_kept` is true.
    pub(super) fn retain(&mut self, is_kept: &[bool]) {
        let mut kept = is_kept.iter();
        self.heads.retain(|_| kept.next().is_none_or(|kept| *kept));
        let mut kept = is_kept.iter();
        self.slots.retain(|_| kept.next().is_none_or(|kept| *kept));
        *self = self.part(0..self.len(), 0);
    }
}
