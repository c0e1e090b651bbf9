//! Reading an LMDB file without LMDB: its meta pages, single pages, and the entries of a table.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::layout::{
    DEPTH_MAX, Meta, NO_PAGE, NODE_OVERFLOW, Node, PAGE_BRANCH, PAGE_HEADER, PAGE_LEAF,
    PAGE_OVERFLOW, TABLE_INTEGER_KEYS, Table, parse_meta, parse_nodes, u16_at, u64_at,
};
use crate::files;
use crate::limits::MAP_BYTES;
use crate::store::Error;

pub(in crate::store) fn open(path: &Path) -> Result<(File, u64), Error> {
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

/// A file whose meta pages are read.
pub(in crate::store) struct Head<'a> {
    pub file: &'a File,
    pub path: &'a Path,
    pub file_bytes: u64,
}

impl Head<'_> {
    /// The meta page that LMDB will use. Both must be sound: LMDB writes them in turn, and a crash
    /// leaves the other one as it was.
    pub(in crate::store) fn newest_meta(&self) -> Result<Meta, Error> {
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
        self.file.read_exact_at(&mut page, offset).map_err(|error| match error.raw_os_error() {
            Some(_) => Error::io(self.path)(error),
            None => self.damage(offset, "the file ends within a meta page"),
        })?;
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
        // The last page may lie beyond the end of the file: pages that a commit allocates and frees
        // again are not written.
        if meta.last_page >= MAP_BYTES as u64 / meta.page_bytes as u64 {
            return Err(wrong("a meta page that names more pages than there can be"));
        }
        Ok(meta)
    }

    fn damage(&self, offset: u64, what: impl Into<String>) -> Error {
        Error::damage(self.path, format!("offset {offset}"), what)
    }
}

/// The pages of a file, read one at a time.
#[derive(Clone, Copy)]
pub(in crate::store) struct Pages<'a> {
    pub(super) file: &'a File,
    pub(super) path: &'a Path,
    pub(super) bytes: usize,
}

impl Pages<'_> {
    pub(super) fn nodes<'p>(&self, number: u64, page: &'p [u8]) -> Result<Vec<Node<'p>>, Error> {
        parse_nodes(page).ok_or_else(|| self.damage(number, "the entries reach beyond their page"))
    }

    /// Reads a page and checks that it has this number and these flags.
    pub(super) fn page(&self, number: u64, flags: u16) -> Result<Vec<u8>, Error> {
        let page = self.read(number, self.bytes)?;
        if u64_at(&page, 0) != Some(number) || u16_at(&page, 10) != Some(flags) {
            return Err(self.damage(number, "not the page that is expected here"));
        }
        Ok(page)
    }

    pub(super) fn read(&self, number: u64, size: usize) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; size];
        let offset = number.saturating_mul(self.bytes as u64);
        self.file.read_exact_at(&mut bytes, offset).map_err(Error::io(self.path))?;
        Ok(bytes)
    }

    pub(in crate::store) fn damage(&self, page: u64, what: impl Into<String>) -> Error {
        let offset = page.saturating_mul(self.bytes as u64);
        Error::damage(self.path, format!("page {page} (offset {offset})"), what)
    }
}

/// The entries of a table in key order; values larger than a page are left out. Pages that are
/// damaged are skipped: the walk of the table reports them.
pub(in crate::store) struct Entries<'a> {
    pages: Pages<'a>,
    /// Pages still to visit, as a stack, each with its height above the leaves.
    ahead: Vec<(u64, u16)>,
    leaf: std::vec::IntoIter<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Entries<'a> {
    pub(in crate::store) fn new(pages: Pages<'a>, table: &Table) -> Self {
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
