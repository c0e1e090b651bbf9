//! The layout of pages, shared by writer and reader.

pub(super) const MAGIC: u32 = 0xED0C_DAED;
pub(super) const VERSION: u32 = 2;
/// Page header: id u64, flags u16, count u16, overflow u32.
pub(super) const HEADER_BYTES: usize = 16;
/// Leaf: flags, pos, ksize, vsize, u32 each. Branch: pos u32, ksize u32, page u64.
pub(super) const ELEMENT_BYTES: usize = 16;
/// A bucket's value: root u64, sequence u64.
pub(super) const BUCKET_BYTES: usize = 16;
pub(super) const META_BYTES: usize = 64;
/// Bytes of a meta page that its checksum covers.
pub(super) const META_SUMMED_BYTES: usize = 56;

pub(super) const BRANCH: u16 = 0x01;
pub(super) const LEAF: u16 = 0x02;
pub(super) const META: u16 = 0x04;
/// Flag of a leaf's element whose value is a bucket.
pub(super) const IS_BUCKET: u32 = 0x01;
/// Replaces the page number of the freelist in a meta page of a file without one (bbolt's
/// `pgidNoFreelist`).
pub(super) const NO_FREELIST: u64 = u64::MAX;
pub(super) const KEY_BYTES_MAX: usize = 32_768;

/// The header of a page.
pub(super) fn header(id: u64, flags: u16, count: u16, overflow: u32) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[8..10].copy_from_slice(&flags.to_le_bytes());
    bytes[10..12].copy_from_slice(&count.to_le_bytes());
    bytes[12..].copy_from_slice(&overflow.to_le_bytes());
    bytes
}

/// FNV-1a, 64 bits.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The number at offset `at`; 0 beyond the end, which callers have excluded.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u16::from_le_bytes(*bytes))
}
