//! The walk through the trees of a file, with every bound checked on the way.

use super::file::{Head, Pages};
use super::layout::{
    DEPTH_MAX, KEY_BYTES_MAX, Meta, NO_PAGE, NODE_OVERFLOW, NODE_TABLE, Node, PAGE_BRANCH,
    PAGE_HEADER, PAGE_LEAF, PAGE_OVERFLOW, TABLE_BYTES, Table, u16_at, u32_at, u64_at,
};
use crate::limits::{DAMAGES_NAMED_MAX, LOG_RECORD_BYTES_MAX, OPEN_CHECK_BYTES_MAX};
use crate::store::Error;
use crate::store::schema::{self, Bucket};

/// An item that a walk passes to its visitor.
pub(in crate::store) enum WalkItem<'a> {
    Table(&'a [u8], Table),
    /// An entry of another table, if the walk reads values.
    Entry {
        page: u64,
        key: &'a [u8],
        value: &'a [u8],
    },
}

pub(in crate::store) type Visit<'v> = dyn FnMut(WalkItem<'_>) -> Result<(), Error> + 'v;

/// The damage that a walk has found and continued after: the first `DAMAGES_NAMED_MAX` places, and
/// the number of the others.
#[derive(Default)]
pub(in crate::store) struct Damages {
    pub named: Vec<Error>,
    pub unnamed: u64,
}

impl Damages {
    pub(in crate::store) fn add(&mut self, error: Error) {
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

/// The kinds of tables that the walk tells apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum TableKind {
    /// The free list: page numbers that may be reused.
    Free,
    /// The table of tables.
    Main,
    /// `rev` or `blob`: keys of this length, in a table that may be large.
    Large(usize),
    Small,
}

impl TableKind {
    pub(in crate::store) fn of(name: &[u8]) -> Self {
        if name == schema::REV.as_bytes() {
            Self::Large(12)
        } else if name == schema::BLOB.as_bytes() {
            Self::Large(16)
        } else {
            Self::Small
        }
    }
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

/// A walk through the trees of one file.
pub(in crate::store) struct Walk<'a> {
    pub pages: Pages<'a>,
    last_page: u64,
    /// Whole pages in the file. The file may end before LMDB's last page, if the pages at the end
    /// are free.
    file_pages: u64,
    /// Whether the leaf pages of the large tables are read, too.
    full: bool,
    /// A bit for each page, set once a reference to it was seen.
    seen: Vec<u64>,
    /// Whether the visitor gets each entry with its value.
    reads_values: bool,
    /// Damage found so far; None if the first damage is to end the walk.
    damages: Option<Damages>,
}

/// Counts of one table's walk, to be compared with LMDB's record of the table.
#[derive(Default)]
struct Counts {
    branch_pages: u64,
    leaf_pages: u64,
    overflow_pages: u64,
    entries: u64,
}

impl<'a> Walk<'a> {
    pub(in crate::store) fn new(head: &Head<'a>, meta: &Meta) -> Self {
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

    /// A walk that reads everything and continues after damage, as far as it can.
    pub(in crate::store) fn thorough(head: &Head<'a>, meta: &Meta) -> Self {
        let walk = Self::new(head, meta);
        Self { full: true, reads_values: true, damages: Some(Damages::default()), ..walk }
    }

    pub(in crate::store) fn into_damages(self) -> Damages {
        self.damages.unwrap_or_default()
    }

    /// The tables by name. They must be exactly those of a store.
    pub(in crate::store) fn tables(&mut self, meta: &Meta) -> Result<Vec<(Vec<u8>, Table)>, Error> {
        let mut tables = Vec::new();
        self.table(&meta.main, TableKind::Main, &mut |found| {
            if let WalkItem::Table(name, table) = found {
                tables.push((name.to_vec(), table));
            }
            Ok(())
        })?;
        self.expect_tables(&tables)?;
        Ok(tables)
    }

    /// In a thorough walk, notes damage and continues; otherwise passes the error on, which ends
    /// the walk.
    pub(in crate::store) fn note_or_fail(
        &mut self,
        outcome: Result<(), Error>,
    ) -> Result<(), Error> {
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

    /// Opening the environment would create a missing table, empty, and hide its loss; an unknown
    /// table means that another program has written the file.
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

    /// Walks one table, passes what it finds to `found`, and compares the page counts.
    pub(in crate::store) fn table(
        &mut self,
        table: &Table,
        kind: TableKind,
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
        self.note_or_fail(walked)?;
        if self.damages() > damages {
            // Pages below the damage were not counted.
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

    fn skips(&self, kind: TableKind) -> bool {
        !self.full && matches!(kind, TableKind::Large(_))
    }

    fn tree(
        &mut self,
        number: u64,
        levels: u16,
        kind: TableKind,
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
                self.note_or_fail(walked)?;
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
        kind: TableKind,
        bounds: &Bounds,
    ) -> Result<Vec<(u64, Bounds)>, Error> {
        let nodes = self.pages.nodes(number, page)?;
        if nodes.len() < 2 {
            return Err(self.damage(number, "a branch page with fewer than two children"));
        }
        let mut children: Vec<(u64, Bounds)> = Vec::with_capacity(nodes.len());
        for (place, node) in nodes.iter().enumerate() {
            let child = u64::from(node.size) | u64::from(node.flags) << 32;
            // LMDB does not use the first key of a branch page.
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
        kind: TableKind,
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
                TableKind::Free => node.key.len() == 8,
                TableKind::Large(size) => node.key.len() == size,
                TableKind::Main | TableKind::Small => (1..=KEY_BYTES_MAX).contains(&node.key.len()),
            };
            if !fits {
                return Err(self.damage(number, "a key of a wrong size"));
            }
            counts.entries += 1;
            let seen = self.value(number, &node, kind, counts, found);
            self.note_or_fail(seen)?;
            last = Some(key);
        }
        Ok(())
    }

    fn value(
        &mut self,
        number: u64,
        node: &Node<'_>,
        kind: TableKind,
        counts: &mut Counts,
        found: &mut Visit<'_>,
    ) -> Result<(), Error> {
        let size = node.size as usize;
        if kind == TableKind::Main {
            let table = node.rest.get(..size).filter(|_| size == TABLE_BYTES);
            let table = table.and_then(Table::parse).filter(|table| table.flags == 0);
            return match table {
                Some(table) if node.flags == NODE_TABLE => found(WalkItem::Table(node.key, table)),
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
            TableKind::Free => self.free_list(number, value),
            _ if self.reads_values => found(WalkItem::Entry { page: number, key: node.key, value }),
            _ => Ok(()),
        }
    }

    /// Checks the pages of one large value. The value itself is read for the free list, and in a
    /// walk that passes values on.
    fn overflow(
        &mut self,
        first: u64,
        size: usize,
        kind: TableKind,
        counts: &mut Counts,
    ) -> Result<Vec<u8>, Error> {
        let pages = (PAGE_HEADER - 1 + size) / self.pages.bytes + 1;
        self.mark(first, pages as u64)?;
        counts.overflow_pages += pages as u64;
        let is_read = kind == TableKind::Free || self.reads_values;
        // A damaged entry can claim any length, and that much would be allocated.
        if self.reads_values && size as u64 > LOG_RECORD_BYTES_MAX && kind != TableKind::Free {
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

    /// Checks a value of the free list. LMDB would overwrite a page that is listed as free while
    /// something refers to it.
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

    /// Marks `count` pages from `first` on as referred to. A second reference to a page is damage.
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

/// The key in a form whose byte order is the table's order: keys of the free list are little-endian
/// integers.
fn sortable(key: &[u8], kind: TableKind) -> Vec<u8> {
    let mut key = key.to_vec();
    if kind == TableKind::Free {
        key.reverse();
    }
    key
}
