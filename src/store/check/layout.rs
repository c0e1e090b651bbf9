//! LMDB's data format 1 on a little-endian machine with 64 bits: meta pages, records of trees, and
//! the nodes of a page. Every length and offset is checked before it is used.

const MAGIC: u32 = 0xbeef_c0de;
const DATA_VERSION: u32 = 1;
pub(super) const PAGE_HEADER: usize = 16;
const NODE_HEADER: usize = 8;
pub(super) const TABLE_BYTES: usize = 48;
pub(super) const KEY_BYTES_MAX: usize = 511;
pub(super) const DEPTH_MAX: u16 = 32;
pub(super) const NO_PAGE: u64 = u64::MAX;

pub(super) const PAGE_BRANCH: u16 = 1;
pub(super) const PAGE_LEAF: u16 = 2;
pub(super) const PAGE_OVERFLOW: u16 = 4;
const PAGE_META: u16 = 8;

pub(super) const NODE_OVERFLOW: u16 = 1;
pub(super) const NODE_TABLE: u16 = 2;
/// The free list's keys are native integers.
pub(super) const TABLE_INTEGER_KEYS: u16 = 8;

/// LMDB's record of one tree.
#[derive(Clone, Copy, Default)]
pub(in crate::store) struct Table {
    pub(super) flags: u16,
    pub(super) depth: u16,
    pub(super) branch_pages: u64,
    pub(super) leaf_pages: u64,
    pub(super) overflow_pages: u64,
    pub(super) entries: u64,
    pub(super) root: u64,
}

impl Table {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            flags: u16_at(bytes, 4)?,
            depth: u16_at(bytes, 6)?,
            branch_pages: u64_at(bytes, 8)?,
            leaf_pages: u64_at(bytes, 16)?,
            overflow_pages: u64_at(bytes, 24)?,
            entries: u64_at(bytes, 32)?,
            root: u64_at(bytes, 40)?,
        })
    }
}

/// The fields of a meta page.
pub(in crate::store) struct Meta {
    pub(super) page_bytes: usize,
    pub free: Table,
    pub(super) main: Table,
    pub last_page: u64,
    pub(super) txn: u64,
}

pub(super) fn parse_meta(page: &[u8; 152], number: u64) -> Result<Meta, String> {
    let short = || "the meta page is cut off".to_owned();
    if u32_at(page, 16) != Some(MAGIC) {
        return Err("not an LMDB file".to_owned());
    }
    if u32_at(page, 20) != Some(DATA_VERSION) {
        return Err("an LMDB file of another version".to_owned());
    }
    if u64_at(page, 0) != Some(number) || u16_at(page, 10) != Some(PAGE_META) {
        return Err("not a meta page".to_owned());
    }
    if u64_at(page, 24) != Some(0) {
        return Err("a meta page with a fixed map address".to_owned());
    }
    let free = page.get(40..88).and_then(Table::parse).ok_or_else(short)?;
    let main = page.get(88..136).and_then(Table::parse).ok_or_else(short)?;
    Ok(Meta {
        page_bytes: u32_at(page, 40).ok_or_else(short)? as usize,
        free,
        main,
        last_page: u64_at(page, 136).ok_or_else(short)?,
        txn: u64_at(page, 144).ok_or_else(short)?,
    })
}

/// One entry of a branch or leaf page.
pub(super) struct Node<'p> {
    /// The value's size, or the low half of a child's page number.
    pub(super) size: u32,
    pub(super) flags: u16,
    pub(super) key: &'p [u8],
    /// The page from the end of the key on.
    pub(super) rest: &'p [u8],
}

/// The nodes of a page; None if one of them, or the list of their offsets, reaches beyond the page.
pub(super) fn parse_nodes(page: &[u8]) -> Option<Vec<Node<'_>>> {
    let lower = usize::from(u16_at(page, 12)?);
    let upper = usize::from(u16_at(page, 14)?);
    if lower < PAGE_HEADER || lower % 2 != 0 || lower > upper || upper > page.len() {
        return None;
    }
    let places = page.get(PAGE_HEADER..lower)?.chunks_exact(2);
    let node = |place: &[u8]| {
        let at = usize::from(u16_at(place, 0)?);
        if at < upper {
            return None;
        }
        let key_bytes = usize::from(u16_at(page, at + 6)?);
        let (key, rest) = page.get(at + NODE_HEADER..)?.split_at_checked(key_bytes)?;
        Some(Node { size: u32_at(page, at)?, flags: u16_at(page, at + 4)?, key, rest })
    };
    places.map(node).collect()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
