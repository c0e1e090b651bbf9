//! The index as bytes, so that a start need not read every row.
//!
//! Keys in order; each as varints: key length and one, key, number of closed generations, then each
//! generation (closed ones first, the open one last): version, created main and sub, number of
//! revisions, and the revisions as main's distance from the one before and sub. A zero ends the
//! keys. The store binds the bytes to the state that they describe and checks them as a whole.
//!
//! The bytes show the index as of one revision, although it changes while they are written: newer
//! changes are left out, and older revisions change only by compaction, whose sweep the caller does
//! not run meanwhile.

use prost::encoding::{decode_varint, encode_varint};
use smallvec::SmallVec;

use super::history::{Generation, History, Long, Packed};
use super::leaf::LEAF_KEYS_MAX;
use super::{Index, Visit};

/// Bytes that do not describe an index.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Appends the keys from `start` on as they were at `main`, until `keys_max` were visited or `out`
/// has `bytes_max` bytes.
pub fn write_keys(
    index: &Index,
    start: &[u8],
    main: i64,
    keys_max: usize,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Visit {
    let mut looked_at = 0;
    for (place, leaf) in index.leaves_from(start) {
        for at in place.at..leaf.len() {
            if looked_at == keys_max || out.len() >= bytes_max {
                return Visit::Next(leaf.keys.key(at));
            }
            looked_at += 1;
            leaf.histories[at]
                .with_long(|history| write_key(leaf.keys.parts(at), history, main, out));
        }
    }
    Visit::Done
}

/// Ends the keys.
pub fn write_end(out: &mut Vec<u8>) {
    out.push(0);
}

fn write_key(key: [&[u8]; 2], history: &Long, main: i64, out: &mut Vec<u8>) {
    let all = history.closed().iter().chain([&history.open]);
    let is_old = |generation: &&Generation| {
        generation.revisions.first().is_some_and(|first| { first.main } <= main)
    };
    let generations = all.clone().filter(is_old).count();
    if generations == 0 {
        return;
    }
    // At `main`, the last generation was open if it is open now or was closed after `main`.
    let last = all.clone().take(generations).last();
    let is_last_closed = generations <= history.closed().len()
        && last.is_some_and(|generation| generation.last_main() <= main);
    encode_varint((key[0].len() + key[1].len()) as u64 + 1, out);
    out.extend_from_slice(key[0]);
    out.extend_from_slice(key[1]);
    let closed = if is_last_closed { generations } else { generations - 1 };
    encode_varint(closed as u64, out);
    for generation in all.take(generations) {
        write_generation(generation, main, out);
    }
    if is_last_closed {
        write_generation(&Generation::default(), main, out);
    }
}

fn write_generation(generation: &Generation, main: i64, out: &mut Vec<u8>) {
    let old = generation.revisions.partition_point(|revision| { revision.main } <= main);
    let (old, newer) = generation.revisions.split_at(old);
    let version = generation.version - i64::try_from(newer.len()).unwrap_or(i64::MAX);
    encode_varint(version.cast_unsigned(), out);
    encode_varint(generation.created.cast_unsigned(), out);
    // The sub number of the creation, which nobody asks for.
    encode_varint(0, out);
    encode_varint(old.len() as u64, out);
    let mut previous = 0;
    for revision in old {
        encode_varint({ revision.main }.wrapping_sub(previous).cast_unsigned(), out);
        encode_varint(u64::from(revision.sub), out);
        previous = revision.main;
    }
}

/// Reads the keys of an index as of `main` up to their end, and leaves the bytes after them in
/// `bytes`.
pub fn read_keys(bytes: &mut &[u8], main: i64) -> Result<Index, Malformed> {
    let mut index = Index { newest: main, ..Index::default() };
    let mut entries: Vec<(&[u8], History)> = Vec::new();
    let mut last: Option<&[u8]> = None;
    while let Some((key, history)) = read_key(bytes)? {
        if last.is_some_and(|last| last >= key) {
            return Err(Malformed);
        }
        last = Some(key);
        if entries.len() == LEAF_KEYS_MAX {
            index.push_sorted(std::mem::take(&mut entries));
        }
        entries.push((key, history));
    }
    index.push_sorted(entries);
    Ok(index)
}

fn read_key<'a>(bytes: &mut &'a [u8]) -> Result<Option<(&'a [u8], History)>, Malformed> {
    let Some(len) = usize::try_from(number(bytes)?).map_err(|_| Malformed)?.checked_sub(1) else {
        return Ok(None);
    };
    let (key, rest) = bytes.split_at_checked(len).ok_or(Malformed)?;
    *bytes = rest;
    let closed = length(bytes)?;
    let closed = (0..closed).map(|_| read_generation(bytes)).collect::<Result<Vec<_>, _>>()?;
    if closed.iter().any(Generation::is_empty) {
        return Err(Malformed);
    }
    let open = read_generation(bytes)?;
    Ok(Some((key, History::of(closed, open))))
}

fn read_generation(bytes: &mut &[u8]) -> Result<Generation, Malformed> {
    let version = number(bytes)?.cast_signed();
    let created = number(bytes)?.cast_signed();
    sub(bytes)?;
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

/// Reads how many elements follow. Each takes at least one byte, so a number larger than the bytes
/// left is damage, for which no memory may be allocated.
fn length(bytes: &mut &[u8]) -> Result<usize, Malformed> {
    let len = usize::try_from(number(bytes)?).map_err(|_| Malformed)?;
    if len <= bytes.len() { Ok(len) } else { Err(Malformed) }
}
