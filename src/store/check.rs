//! Walks an LMDB file before LMDB maps it.
//!
//! LMDB follows what its pages say: a page number beyond the file is a SIGBUS, a flipped bit in a
//! node an access anywhere. So the file is first read here with every bound checked: both meta
//! pages, the tree of tables, each table's branch pages, and the leaf pages with their order of
//! keys and their overflow pages. The page counts that LMDB keeps must come out.
//!
//! The leaf pages of the two large tables are left out in a file above `OPEN_CHECK_BYTES_MAX`,
//! which must open fast: what is wrong inside them is found by the checksum of each record, and
//! LMDB itself checks a page number against the last page it uses.
//!
//! The layout is that of LMDB's data format 1 on a little-endian machine with 64 bits.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::Error;
use super::schema::{self, Bucket};
use crate::limits::{MAP_BYTES, OPEN_CHECK_BYTES_MAX};

const MAGIC: u32 = 0xbeef_c0de;
const DATA_VERSION: u32 = 1;
const PAGE_HEADER: usize = 16;
const NODE_HEADER: usize = 8;
const TABLE_BYTES: usize = 48;
const KEY_BYTES_MAX: usize = 511;
const DEPTH_MAX: u16 = 32;
const NO_PAGE: u64 = u64::MAX;

const PAGE_BRANCH: u16 = 1;
const PAGE_LEAF: u16 = 2;
const PAGE_OVERFLOW: u16 = 4;
const PAGE_META: u16 = 8;

const NODE_OVERFLOW: u16 = 1;
const NODE_TABLE: u16 = 2;
/// The free list's keys are native integers.
const TABLE_INTEGER_KEYS: u16 = 8;

pub(super) fn check(path: &Path) -> Result<(), Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::damage(path, "offset 0", "the file is missing"));
        }
        Err(source) => return Err(Error::Io { file: path.to_path_buf(), source }),
    };
    let file_bytes = file.metadata().map_err(Error::io(path))?.len();
    let head = Head { file: &file, path, file_bytes };
    let meta = head.newest_meta()?;
    let mut walk = Walk::new(&head, &meta);
    let mut tables = Vec::new();
    walk.table(&meta.main, Kind::Main, |key, table| tables.push((key.to_vec(), table)))?;
    walk.expect_tables(&tables)?;
    for (name, table) in &tables {
        let kind = Kind::of(name);
        walk.table(table, kind, |_, _| {})?;
    }
    walk.table(&meta.free, Kind::Free, |_, _| {})
}

/// What a table holds, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Page numbers that may be used again.
    Free,
    /// The tables by name.
    Main,
    /// Keys of this length, in a table that may be large.
    Large(usize),
    Small,
}

impl Kind {
    fn of(name: &[u8]) -> Self {
        if name == schema::REV.as_bytes() {
            Self::Large(12)
        } else if name == schema::BLOB.as_bytes() {
            Self::Large(16)
        } else {
            Self::Small
        }
    }
}

/// LMDB's record of one tree.
#[derive(Clone, Copy, Default)]
struct Table {
    flags: u16,
    depth: u16,
    branch_pages: u64,
    leaf_pages: u64,
    overflow_pages: u64,
    entries: u64,
    root: u64,
}

impl Table {
    fn parse(bytes: &[u8]) -> Option<Self> {
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

struct Meta {
    page_bytes: usize,
    free: Table,
    main: Table,
    last_page: u64,
    txn: u64,
}

struct Head<'a> {
    file: &'a File,
    path: &'a Path,
    file_bytes: u64,
}

impl Head<'_> {
    /// The meta page that LMDB will use. Both must be sound: LMDB writes them in turn, and a crash
    /// leaves the other one as it was.
    fn newest_meta(&self) -> Result<Meta, Error> {
        let first = self.meta(0, 0)?;
        let second = self.meta(1, first.page_bytes as u64)?;
        if first.page_bytes != second.page_bytes {
            return Err(self.damage(first.page_bytes as u64, "the meta pages differ in page size"));
        }
        let fresh = first.txn == 0 && second.txn <= 1;
        let in_turn = first.txn.abs_diff(second.txn) == 1 && first.txn.is_multiple_of(2);
        if !fresh && !in_turn {
            let what = format!("meta pages of transactions {} and {}", first.txn, second.txn);
            return Err(self.damage(0, what));
        }
        Ok(if first.txn < second.txn { second } else { first })
    }

    fn meta(&self, number: u64, offset: u64) -> Result<Meta, Error> {
        let mut page = [0; 152];
        self.file
            .read_exact_at(&mut page, offset)
            .map_err(|_| self.damage(offset, "the file ends within a meta page"))?;
        let wrong = |what: &str| self.damage(offset, what);
        let meta = parse_meta(&page, number).map_err(|what| wrong(&what))?;
        if !meta.page_bytes.is_power_of_two() || !(512..=65536).contains(&meta.page_bytes) {
            return Err(wrong(&format!("a page size of {}", meta.page_bytes)));
        }
        if meta.free.flags != TABLE_INTEGER_KEYS || meta.main.flags != 0 {
            return Err(wrong("unknown flags in a meta page"));
        }
        if meta.last_page < 1 {
            return Err(wrong("a meta page that names no pages"));
        }
        // It may lie behind the file's end, as pages that a commit freed again are not written.
        if meta.last_page >= MAP_BYTES as u64 / meta.page_bytes as u64 {
            return Err(wrong("a meta page that names more pages than there can be"));
        }
        Ok(meta)
    }

    fn damage(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::damage(self.path, format!("offset {offset}"), what)
    }
}

fn parse_meta(page: &[u8; 152], number: u64) -> Result<Meta, String> {
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

/// Keys of a page must lie in [low, high).
#[derive(Clone, Default)]
struct Bounds {
    low: Option<Vec<u8>>,
    high: Option<Vec<u8>>,
}

impl Bounds {
    fn contain(&self, key: &[u8]) -> bool {
        self.low.as_deref().is_none_or(|low| low <= key)
            && self.high.as_deref().is_none_or(|high| key < high)
    }
}

struct Walk<'a> {
    file: &'a File,
    path: PathBuf,
    page_bytes: usize,
    last_page: u64,
    /// Whole pages in the file. It may be shorter than LMDB's last page if the end is free.
    file_pages: u64,
    /// Also the leaf pages of the large tables.
    full: bool,
    /// One bit for each page that something refers to.
    seen: Vec<u64>,
}

/// What the walk of one table counts.
#[derive(Default)]
struct Counts {
    branch_pages: u64,
    leaf_pages: u64,
    overflow_pages: u64,
    entries: u64,
}

impl<'a> Walk<'a> {
    fn new(head: &Head<'a>, meta: &Meta) -> Self {
        let file_pages = head.file_bytes / meta.page_bytes as u64;
        let full = head.file_bytes <= OPEN_CHECK_BYTES_MAX || file_pages <= meta.last_page;
        let words = (file_pages.min(meta.last_page.saturating_add(1)) / 64 + 1) as usize;
        Self {
            file: head.file,
            path: head.path.to_path_buf(),
            page_bytes: meta.page_bytes,
            last_page: meta.last_page,
            file_pages,
            full,
            seen: vec![0; words],
        }
    }

    /// A missing table would be made anew, empty; an unknown one is not ours.
    fn expect_tables(&self, tables: &[(Vec<u8>, Table)]) -> Result<(), Error> {
        let known = Bucket::ALL.map(Bucket::name);
        let known = known.into_iter().chain([schema::REV, schema::BLOB, schema::OWN]);
        let mut expected: Vec<&[u8]> = known.map(str::as_bytes).collect();
        expected.sort_unstable();
        if tables.iter().map(|(name, _)| name.as_slice()).eq(expected) {
            return Ok(());
        }
        Err(Error::damage(&self.path, "the list of tables", "not the tables of a rusd store"))
    }

    fn table(
        &mut self,
        table: &Table,
        kind: Kind,
        mut found: impl FnMut(&[u8], Table),
    ) -> Result<(), Error> {
        let mut counts = Counts::default();
        if table.root == NO_PAGE {
            if table.entries != 0 || table.depth != 0 {
                return Err(self.damage(0, "a table has entries and no pages"));
            }
            return Ok(());
        }
        if table.depth == 0 || table.depth > DEPTH_MAX {
            return Err(self.damage(table.root, "a table of impossible depth"));
        }
        self.tree(table.root, table.depth, kind, &Bounds::default(), &mut counts, &mut found)?;
        let skipped = self.skips(kind);
        let wrong = counts.branch_pages != table.branch_pages
            || counts.leaf_pages != table.leaf_pages
            || (!skipped && counts.overflow_pages != table.overflow_pages)
            || (!skipped && counts.entries != table.entries);
        if wrong {
            return Err(self.damage(table.root, "the pages below it are not as many as recorded"));
        }
        Ok(())
    }

    fn skips(&self, kind: Kind) -> bool {
        !self.full && matches!(kind, Kind::Large(_))
    }

    fn tree(
        &mut self,
        number: u64,
        levels: u16,
        kind: Kind,
        bounds: &Bounds,
        counts: &mut Counts,
        found: &mut impl FnMut(&[u8], Table),
    ) -> Result<(), Error> {
        self.mark(number, 1)?;
        if levels > 1 {
            counts.branch_pages += 1;
            let page = self.page(number, PAGE_BRANCH)?;
            for (child, bounds) in self.children(number, &page, kind, bounds)? {
                self.tree(child, levels - 1, kind, &bounds, counts, found)?;
            }
            return Ok(());
        }
        counts.leaf_pages += 1;
        if self.skips(kind) {
            return Ok(());
        }
        let page = self.page(number, PAGE_LEAF)?;
        self.leaf(number, &page, kind, bounds, counts, found)
    }

    /// The children of a branch page, each with the keys that it may hold.
    fn children(
        &self,
        number: u64,
        page: &[u8],
        kind: Kind,
        bounds: &Bounds,
    ) -> Result<Vec<(u64, Bounds)>, Error> {
        let nodes = self.nodes(number, page)?;
        if nodes.len() < 2 {
            return Err(self.damage(number, "a branch page with fewer than two children"));
        }
        let mut children: Vec<(u64, Bounds)> = Vec::with_capacity(nodes.len());
        for (place, node) in nodes.iter().enumerate() {
            let child = u64::from(node.size) | u64::from(node.flags) << 32;
            // The first key of a branch page is not written out.
            if place == 0 {
                children.push((child, bounds.clone()));
                continue;
            }
            let key = sortable(node.key, kind);
            let before = children.last_mut().map(|(_, bounds)| bounds);
            let sorted = before.as_ref().is_none_or(|b| b.low.as_ref().is_none_or(|l| *l < key));
            if node.key.is_empty() || !sorted || !bounds.contain(&key) {
                return Err(self.damage(number, "keys of a branch page are out of order"));
            }
            if let Some(before) = before {
                before.high = Some(key.clone());
            }
            children.push((child, Bounds { low: Some(key), high: bounds.high.clone() }));
        }
        Ok(children)
    }

    fn leaf(
        &mut self,
        number: u64,
        page: &[u8],
        kind: Kind,
        bounds: &Bounds,
        counts: &mut Counts,
        found: &mut impl FnMut(&[u8], Table),
    ) -> Result<(), Error> {
        let nodes = self.nodes(number, page)?;
        if nodes.is_empty() {
            return Err(self.damage(number, "an empty leaf page"));
        }
        let mut last: Option<Vec<u8>> = None;
        for node in nodes {
            let key = sortable(node.key, kind);
            if last.is_some_and(|last| last >= key) || !bounds.contain(&key) {
                return Err(self.damage(number, "keys of a leaf page are out of order"));
            }
            let fits = match kind {
                Kind::Free => node.key.len() == 8,
                Kind::Large(size) => node.key.len() == size,
                Kind::Main | Kind::Small => (1..=KEY_BYTES_MAX).contains(&node.key.len()),
            };
            if !fits {
                return Err(self.damage(number, "a key of a wrong size"));
            }
            counts.entries += 1;
            self.value(number, &node, kind, counts, found)?;
            last = Some(key);
        }
        Ok(())
    }

    fn value(
        &mut self,
        number: u64,
        node: &Node<'_>,
        kind: Kind,
        counts: &mut Counts,
        found: &mut impl FnMut(&[u8], Table),
    ) -> Result<(), Error> {
        let size = node.size as usize;
        if kind == Kind::Main {
            let table = node.rest.get(..size).filter(|_| size == TABLE_BYTES);
            let table = table.and_then(Table::parse).filter(|table| table.flags == 0);
            return match table {
                Some(table) if node.flags == NODE_TABLE => {
                    found(node.key, table);
                    Ok(())
                }
                _ => Err(self.damage(number, "an entry that is not a table")),
            };
        }
        let overflow;
        let value = match node.flags {
            0 => node.rest.get(..size),
            NODE_OVERFLOW => {
                let first = u64_at(node.rest, 0)
                    .ok_or_else(|| self.damage(number, "a value's page number is cut off"))?;
                overflow = self.overflow(first, size, kind, counts)?;
                Some(overflow.as_slice())
            }
            _ => return Err(self.damage(number, "unknown flags of an entry")),
        };
        let value = value.ok_or_else(|| self.damage(number, "a value reaches beyond its page"))?;
        if kind == Kind::Free { self.free_list(number, value) } else { Ok(()) }
    }

    /// Pages that hold one large value. The value itself is read only for the free list.
    fn overflow(
        &mut self,
        first: u64,
        size: usize,
        kind: Kind,
        counts: &mut Counts,
    ) -> Result<Vec<u8>, Error> {
        let pages = (PAGE_HEADER - 1 + size) / self.page_bytes + 1;
        self.mark(first, pages as u64)?;
        counts.overflow_pages += pages as u64;
        let read = if kind == Kind::Free { PAGE_HEADER + size } else { PAGE_HEADER };
        let bytes = self.read(first, read)?;
        let sound = u64_at(&bytes, 0) == Some(first)
            && u16_at(&bytes, 10) == Some(PAGE_OVERFLOW)
            && u32_at(&bytes, 12).map(|count| count as usize) == Some(pages);
        if !sound {
            return Err(self.damage(first, "not the first page of a large value"));
        }
        Ok(bytes[PAGE_HEADER..].to_vec())
    }

    /// A free page that something still refers to would be written over.
    fn free_list(&mut self, number: u64, value: &[u8]) -> Result<(), Error> {
        let mut ids = value.chunks_exact(8).filter_map(|id| u64_at(id, 0));
        let count = ids.next().unwrap_or(0);
        if count as usize > value.len() / 8 {
            return Err(self.damage(number, "a free list longer than its value"));
        }
        let mut last = u64::MAX;
        for id in ids.take(count as usize) {
            if id < 2 || id > self.last_page || id >= last {
                return Err(self.damage(number, "a free list that is not one"));
            }
            last = id;
            if id < self.file_pages {
                self.mark(id, 1)?;
            }
        }
        Ok(())
    }

    fn nodes<'p>(&self, number: u64, page: &'p [u8]) -> Result<Vec<Node<'p>>, Error> {
        parse_nodes(page).ok_or_else(|| self.damage(number, "the entries reach beyond their page"))
    }

    /// Notes that `count` pages from `first` on are in use.
    fn mark(&mut self, first: u64, count: u64) -> Result<(), Error> {
        let end = first.saturating_add(count);
        if first < 2 || end > self.last_page.saturating_add(1) {
            return Err(self.damage(first, "a page number that LMDB has not given out"));
        }
        if end > self.file_pages {
            let what = format!("the file ends at page {}: it was truncated", self.file_pages);
            return Err(self.damage(first, what));
        }
        for page in first..end {
            let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
            if self.seen[word] & bit != 0 {
                return Err(self.damage(page, "two references to one page"));
            }
            self.seen[word] |= bit;
        }
        Ok(())
    }

    fn page(&self, number: u64, flags: u16) -> Result<Vec<u8>, Error> {
        let page = self.read(number, self.page_bytes)?;
        if u64_at(&page, 0) != Some(number) || u16_at(&page, 10) != Some(flags) {
            return Err(self.damage(number, "not the page that is expected here"));
        }
        Ok(page)
    }

    fn read(&self, number: u64, size: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; size];
        let offset = number * self.page_bytes as u64;
        self.file.read_exact_at(&mut bytes, offset).map_err(Error::io(&self.path))?;
        Ok(bytes)
    }

    fn damage(&self, page: u64, what: impl Into<String>) -> Error {
        let offset = page.saturating_mul(self.page_bytes as u64);
        Error::damage(&self.path, format!("page {page} (offset {offset})"), what)
    }
}

struct Node<'p> {
    /// The value's size, or the low half of a child's page number.
    size: u32,
    flags: u16,
    key: &'p [u8],
    /// The page from the end of the key on.
    rest: &'p [u8],
}

fn parse_nodes(page: &[u8]) -> Option<Vec<Node<'_>>> {
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

/// A key whose byte order is the table's order.
fn sortable(key: &[u8], kind: Kind) -> Vec<u8> {
    let mut key = key.to_vec();
    if kind == Kind::Free {
        key.reverse();
    }
    key
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}
