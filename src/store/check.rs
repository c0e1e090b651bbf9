//! Walks an LMDB file before LMDB maps it.
//!
//! LMDB believes its pages: a page number beyond the file is a SIGBUS, a flipped bit in a node can
//! be an access to any address. So the file is first read here with every bound checked: both meta
//! pages, the tree of tables, each table's branch pages, and the leaf pages with their order of
//! keys and their overflow pages. The page counts must be those that LMDB has recorded.
//!
//! In a file above `OPEN_CHECK_BYTES_MAX`, the leaf pages of the two large tables are left out, so
//! that it opens quickly. Damage within them is found by the checksum of each record, and LMDB
//! itself checks a page number against the last page in use.
//!
//! `layout` knows the bytes, `file` reads pages, `walk` goes through the trees.

mod file;
mod layout;
mod walk;

use std::path::Path;

use super::Error;
pub(super) use file::{Entries, Head, open};
pub(super) use walk::{Damages, TableKind, Walk, WalkItem};

/// Checks an LMDB file. An error is damage, or a file that cannot be read.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let (file, file_bytes) = open(path)?;
    let head = Head { file: &file, path, file_bytes };
    let meta = head.newest_meta()?;
    let mut walk = Walk::new(&head, &meta);
    let tables = walk.tables(&meta)?;
    for (name, table) in &tables {
        walk.table(table, TableKind::of(name), &mut |_| Ok(()))?;
    }
    walk.table(&meta.free, TableKind::Free, &mut |_| Ok(()))
}
