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
use std::path::Path;

use super::Error;
use super::schema::{self, Bucket};
use crate::files;
use crate::limits::{DAMAGES_NAMED_MAX, LOG_RECORD_BYTES_MAX, MAP_BYTES, OPEN_CHECK_BYTES_MAX};

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
    let (file, file_bytes) = open(path)?;
    let head = Head { file: &file, path, file_bytes };
    let meta = head.newest_meta()?;
    let mut walk = Walk::new(&head, &meta);
    let tables = walk.tables(&meta)?;
    for (name, table) in &tables {
        walk.table(table, Kind::of(name), &mut |_| Ok(()))?;
    }
    walk.table(&meta.free, Kind::Free, &mut |_| Ok(()))
}

pub(super) fn open(path: &Path) -> Result<(File, u64), Error> {
    let file = match files::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::damage(path, "offset 0", "the file is missing"));
        }
        Err(source) => return Err(Error::Io { file: path.to_path_buf(), source }),
    };
    let file_bytes = file.metadata().map_err(Error::io(path))?.len();
    Ok((file, file_bytes))
}

/// What the walk of a table meets.
pub(super) enum Found<'a> {
    Table(&'a [u8], Table),
    /// An entry of another table, if the walk reads values.
    Entry {
        page: u64,
        key: &'a [u8],
        value: &'a [u8],
    },
}

type Visit<'v> = dyn FnMut(Found<'_>) -> Result<(), Error> + 'v;

/// The damage that a walk has met and gone past.
#[derive(Default)]
pub(super) struct Damages {
    pub named: Vec<Error>,
    pub unnamed: u64,
}

impl Damages {
    pub(super) fn add(&mut self, error: Error) {
        if self.named.len() < DAMAGES_NAMED_MAX {
            self.named.push(error);
        } else {
            self.unnamed += 1;
        }
    }

    fn count(&self) -> u64 {
        self.named.len() as u64 + self.unnamed
    }
}

/// What a table holds, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Page numbers that may be used again.
    Free,
    /// The tables by name.
    Main,
    /// Keys of this length, in a table that may be large.
    Large(usize),
    Small,
}

impl Kind {
    pub(super) fn of(name: &[u8]) -> Self {
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
pub(super) struct Table {
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

pub(super) struct Meta {
    page_bytes: usize,
    pub free: Table,
    main: Table,
    pub last_page: u64,
    txn: u64,
}

pub(super) struct Head<'a> {
    pub file: &'a File,
    pub path: &'a Path,
    pub file_bytes: u64,
}

impl Head<'_> {
    /// The meta page that LMDB will use. Both must be sound: LMDB writes them in turn, and a crash
    /// leaves the other one as it was.
    pub(super) fn newest_meta(&self) -> Result<Meta, Error> {
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

/// The pages of a file, read one at a time.
#[derive(Clone, Copy)]
pub(super) struct Pages<'a> {
    file: &'a File,
    path: &'a Path,
    bytes: usize,
}

pub(super) struct Walk<'a> {
    pub pages: Pages<'a>,
    last_page: u64,
    /// Whole pages in the file. It may be shorter than LMDB's last page if the end is free.
    file_pages: u64,
    /// Also the leaf pages of the large tables.
    full: bool,
    /// One bit for each page that something refers to.
    seen: Vec<u64>,
    /// Entries are shown with their values.
    reads_values: bool,
    /// None: the first damage ends the walk.
    damages: Option<Damages>,
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
    pub(super) fn new(head: &Head<'a>, meta: &Meta) -> Self {
        let file_pages = head.file_bytes / meta.page_bytes as u64;
        let full = head.file_bytes <= OPEN_CHECK_BYTES_MAX || file_pages <= meta.last_page;
        let words = (file_pages.min(meta.last_page.saturating_add(1)) / 64 + 1) as usize;
        Self {
            pages: Pages { file: head.file, path: head.path, bytes: meta.page_bytes },
            last_page: meta.last_page,
            file_pages,
            full,
            seen: vec![0; words],
            reads_values: false,
            damages: None,
        }
    }

    /// A walk that reads everything and goes past damage, as far as it can.
    pub(super) fn thorough(head: &Head<'a>, meta: &Meta) -> Self {
        let walk = Self::new(head, meta);
        Self { full: true, reads_values: true, damages: Some(Damages::default()), ..walk }
    }

    pub(super) fn into_damages(self) -> Damages {
        self.damages.unwrap_or_default()
    }

    /// The tables by name, which must be those of a store.
    pub(super) fn tables(&mut self, meta: &Meta) -> Result<Vec<(Vec<u8>, Table)>, Error> {
        let mut tables = Vec::new();
        self.table(&meta.main, Kind::Main, &mut |found| {
            if let Found::Table(name, table) = found {
                tables.push((name.to_vec(), table));
            }
            Ok(())
        })?;
        self.expect_tables(&tables)?;
        Ok(tables)
    }

    /// Ends the walk, or notes the damage and goes past it.
    pub(super) fn bear(&mut self, outcome: Result<(), Error>) -> Result<(), Error> {
        match (&mut self.damages, outcome) {
            (Some(damages), Err(error @ Error::Damage { .. })) => {
                damages.add(error);
                Ok(())
            }
            (_, outcome) => outcome,
        }
    }

    fn damages(&self) -> u64 {
        self.damages.as_ref().map_or(0, Damages::count)
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
        Err(Error::damage(self.pages.path, "the list of tables", "not the tables of a rusd store"))
    }

    pub(super) fn table(
        &mut self,
        table: &Table,
        kind: Kind,
        found: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let (mut counts, damages) = (Counts::default(), self.damages());
        if table.root == NO_PAGE {
            if table.entries != 0 || table.depth != 0 {
                return Err(self.damage(0, "a table has entries and no pages"));
            }
            return Ok(());
        }
        if table.depth == 0 || table.depth > DEPTH_MAX {
            return Err(self.damage(table.root, "a table of impossible depth"));
        }
        let bounds = Bounds::default();
        let walked = self.tree(table.root, table.depth, kind, &bounds, &mut counts, found);
        self.bear(walked)?;
        if self.damages() > damages {
            // What lies behind the damage was not counted.
            return Ok(());
        }
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
        found: &mut Visit<'_>,
    ) -> Result<(), Error> {
        self.mark(number, 1)?;
        if levels > 1 {
            counts.branch_pages += 1;
            let page = self.pages.page(number, PAGE_BRANCH)?;
            for (child, bounds) in self.children(number, &page, kind, bounds)? {
                let walked = self.tree(child, levels - 1, kind, &bounds, counts, found);
                self.bear(walked)?;
            }
            return Ok(());
        }
        counts.leaf_pages += 1;
        if self.skips(kind) {
            return Ok(());
        }
        let page = self.pages.page(number, PAGE_LEAF)?;
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
        let nodes = self.pages.nodes(number, page)?;
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
        found: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let nodes = self.pages.nodes(number, page)?;
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
            let seen = self.value(number, &node, kind, counts, found);
            self.bear(seen)?;
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
        found: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let size = node.size as usize;
        if kind == Kind::Main {
            let table = node.rest.get(..size).filter(|_| size == TABLE_BYTES);
            let table = table.and_then(Table::parse).filter(|table| table.flags == 0);
            return match table {
                Some(table) if node.flags == NODE_TABLE => found(Found::Table(node.key, table)),
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
        match kind {
            Kind::Free => self.free_list(number, value),
            _ if self.reads_values => found(Found::Entry { page: number, key: node.key, value }),
            _ => Ok(()),
        }
    }

    /// Pages that hold one large value. The value itself is read for the free list, and by a walk
    /// that shows values.
    fn overflow(
        &mut self,
        first: u64,
        size: usize,
        kind: Kind,
        counts: &mut Counts,
    ) -> Result<Vec<u8>, Error> {
        let pages = (PAGE_HEADER - 1 + size) / self.pages.bytes + 1;
        self.mark(first, pages as u64)?;
        counts.overflow_pages += pages as u64;
        let is_read = kind == Kind::Free || self.reads_values;
        // A damaged entry can claim any length.
        if self.reads_values && size as u64 > LOG_RECORD_BYTES_MAX && kind != Kind::Free {
            return Err(self.damage(first, format!("a value of {size} bytes")));
        }
        let bytes =
            self.pages.read(first, if is_read { PAGE_HEADER + size } else { PAGE_HEADER })?;
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

    fn damage(&self, page: u64, what: impl Into<String>) -> Error {
        self.pages.damage(page, what)
    }
}

impl Pages<'_> {
    fn nodes<'p>(&self, number: u64, page: &'p [u8]) -> Result<Vec<Node<'p>>, Error> {
        parse_nodes(page).ok_or_else(|| self.damage(number, "the entries reach beyond their page"))
    }

    fn page(&self, number: u64, flags: u16) -> Result<Vec<u8>, Error> {
        let page = self.read(number, self.bytes)?;
        if u64_at(&page, 0) != Some(number) || u16_at(&page, 10) != Some(flags) {
            return Err(self.damage(number, "not the page that is expected here"));
        }
        Ok(page)
    }

    fn read(&self, number: u64, size: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; size];
        let offset = number.saturating_mul(self.bytes as u64);
        self.file.read_exact_at(&mut bytes, offset).map_err(Error::io(self.path))?;
        Ok(bytes)
    }

    pub(super) fn damage(&self, page: u64, what: impl Into<String>) -> Error {
        let offset = page.saturating_mul(self.bytes as u64);
        Error::damage(self.path, format!("page {page} (offset {offset})"), what)
    }
}

/// The entries of a table in order, of which none is much larger than a page. What is not a page of
/// the tree is passed over: the walk of the table has named it.
pub(super) struct Entries<'a> {
    pages: Pages<'a>,
    /// Pages to come, each with its distance from the leaves, last one first.
    ahead: Vec<(u64, u16)>,
    leaf: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Entries<'a> {
    pub(super) fn new(pages: Pages<'a>, table: &Table) -> Self {
        let is_empty = table.root == NO_PAGE || table.depth == 0 || table.depth > DEPTH_MAX;
        let root = (!is_empty).then_some((table.root, table.depth - u16::from(!is_empty)));
        Self { pages, ahead: root.into_iter().collect(), leaf: Vec::new().into_iter() }
    }

    fn open(&mut self, number: u64, level: u16) -> Option<()> {
        let flags = if level == 0 { PAGE_LEAF } else { PAGE_BRANCH };
        let page = self.pages.page(number, flags).ok()?;
        let nodes = parse_nodes(&page)?;
        if level > 0 {
            let child = |node: &Node<'_>| u64::from(node.size) | u64::from(node.flags) << 32;
            self.ahead.extend(nodes.iter().rev().map(|node| (child(node), level - 1)));
            return Some(());
        }
        let entries = nodes.iter().filter_map(|node| Some((node.key.to_vec(), self.value(node)?)));
        self.leaf = entries.collect::<Vec<_>>().into_iter();
        Some(())
    }

    fn value(&self, node: &Node<'_>) -> Option<Vec<u8>> {
        let size = node.size as usize;
        if node.flags == 0 {
            return Some(node.rest.get(..size)?.to_vec());
        }
        let first = u64_at(node.rest, 0)?;
        if node.flags != NODE_OVERFLOW || size > self.pages.bytes {
            return None;
        }
        let bytes = self.pages.read(first, PAGE_HEADER + size).ok()?;
        let is_it = u64_at(&bytes, 0) == Some(first) && u16_at(&bytes, 10) == Some(PAGE_OVERFLOW);
        is_it.then(|| bytes[PAGE_HEADER..].to_vec())
    }
}

impl Iterator for Entries<'_> {
    type Item = (Vec<u8>, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.leaf.next() {
                return Some(entry);
            }
            let (number, level) = self.ahead.pop()?;
            let _ = self.open(number, level);
        }
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
