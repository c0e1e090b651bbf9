//! The index as bytes, so that a start need not read every row.
//!
//! Keys in order; each as varints: key length, key, number of closed generations, then each
//! generation (closed ones first, the open one last): version, created main and sub, number of
//! revisions, and the revisions as main's distance from the one before and sub. The store binds
//! the bytes to the state that they describe and checks them as a whole.

use prost::encoding::{decode_varint, encode_varint};
use smallvec::SmallVec;

use super::{Entry, Generation, History, Index, LEAF_KEYS_MAX, Packed};

/// Bytes that do not describe an index.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Appends the keys of one leaf at a time, so that the caller can hand the bytes on.
pub fn write_checkpoint<E>(
    index: &Index,
    mut flush: impl FnMut(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let mut out = Vec::new();
    encode_varint(index.keys as u64, &mut out);
    encode_varint(index.newest.cast_unsigned(), &mut out);
    for entry in index.leaves.iter().flatten() {
        encode_varint(entry.key.len() as u64, &mut out);
        out.extend_from_slice(&entry.key);
        let closed = entry.history.closed();
        encode_varint(closed.len() as u64, &mut out);
        for generation in closed.iter().chain([&entry.history.open]) {
            write_generation(generation, &mut out);
        }
        if out.len() >= 1 << 16 {
            flush(&mut out)?;
            out.clear();
        }
    }
    flush(&mut out)
}

fn write_generation(generation: &Generation, out: &mut Vec<u8>) {
    encode_varint(generation.version.cast_unsigned(), out);
    encode_varint({ generation.created.main }.cast_unsigned(), out);
    encode_varint(u64::from(generation.created.sub), out);
    encode_varint(generation.revisions.len() as u64, out);
    let mut previous = 0;
    for revision in &generation.revisions {
        encode_varint({ revision.main }.wrapping_sub(previous).cast_unsigned(), out);
        encode_varint(u64::from(revision.sub), out);
        previous = revision.main;
    }
}

/// Reads what `write_checkpoint` wrote, and leaves what follows it in `bytes`.
pub fn read_checkpoint(bytes: &mut &[u8]) -> Result<Index, Malformed> {
    let keys = length(bytes)?;
    let mut index = Index { newest: number(bytes)?.cast_signed(), ..Index::default() };
    let mut leaf = Vec::with_capacity(LEAF_KEYS_MAX.min(keys));
    for _ in 0..keys {
        let entry = read_entry(bytes)?;
        if leaf.len() == LEAF_KEYS_MAX {
            index.push_leaf(std::mem::replace(&mut leaf, Vec::with_capacity(LEAF_KEYS_MAX)));
        }
        leaf.push(entry);
    }
    if !leaf.is_empty() {
        index.push_leaf(leaf);
    }
    let is_ordered = |pair: &[&Entry]| pair[0].key < pair[1].key;
    let entries: Vec<&Entry> = index.leaves.iter().flatten().collect();
    if entries.windows(2).all(is_ordered) { Ok(index) } else { Err(Malformed) }
}

impl Index {
    fn push_leaf(&mut self, leaf: Vec<Entry>) {
        let live = leaf.iter().filter(|entry| entry.history.is_live()).count();
        self.keys += leaf.len();
        self.live.push(u32::try_from(live).unwrap_or(u32::MAX));
        self.leaves.push(leaf);
    }
}

fn read_entry(bytes: &mut &[u8]) -> Result<Entry, Malformed> {
    let len = length(bytes)?;
    let (key, rest) = bytes.split_at_checked(len).ok_or(Malformed)?;
    *bytes = rest;
    let closed = length(bytes)?;
    let closed = (0..closed).map(|_| read_generation(bytes)).collect::<Result<Vec<_>, _>>()?;
    if closed.iter().any(Generation::is_empty) {
        return Err(Malformed);
    }
    let open = read_generation(bytes)?;
    let closed = (!closed.is_empty()).then(|| Box::new(closed));
    Ok(Entry { key: key.into(), history: History { closed, open } })
}

fn read_generation(bytes: &mut &[u8]) -> Result<Generation, Malformed> {
    let version = number(bytes)?.cast_signed();
    let created = Packed { main: number(bytes)?.cast_signed(), sub: sub(bytes)? };
    let count = length(bytes)?;
    let mut revisions = SmallVec::with_capacity(count);
    let mut previous: i64 = 0;
    for _ in 0..count {
        previous = previous.wrapping_add(number(bytes)?.cast_signed());
        revisions.push(Packed { main: previous, sub: sub(bytes)? });
    }
    Ok(Generation { created, version, revisions })
}

fn number(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    decode_varint(bytes).map_err(|_| Malformed)
}

fn sub(bytes: &mut &[u8]) -> Result<u32, Malformed> {
    u32::try_from(number(bytes)?).map_err(|_| Malformed)
}

/// A number of things that follow: each takes at least a byte, so more than that is damage.
fn length(bytes: &mut &[u8]) -> Result<usize, Malformed> {
    let len = usize::try_from(number(bytes)?).map_err(|_| Malformed)?;
    if len <= bytes.len() { Ok(len) } else { Err(Malformed) }
}
