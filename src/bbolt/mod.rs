//! bbolt, the file format of etcd's backend and of its snapshots: a writer and a reader.
//!
//! ```text
//!   page 0, 1   meta: page size, root bucket, number of pages, checksum; the newer one counts
//!   page 2..    leaves, then the branches above them, bucket by bucket; last the root bucket
//!   at the end  of a snapshot file: the SHA-256 of everything before
//! ```
//!
//! A file is a B+tree of buckets: a leaf of the root bucket holds the name of a bucket and either
//! the number of its root page or, if the bucket is small, its only page itself. Keys are in order,
//! elements larger than a page take the pages after it as well, and all numbers are little-endian.
//! The writer stores no list of free pages, as etcd does not: free pages are those that are not
//! reachable, and here all are reachable.
//!
//! [`Writer`] takes sorted pairs and fills page after page, children before parents, so it holds
//! only one unfinished page for each level. It runs twice over the same pairs: the first run only
//! measures where the root page will be and how long the file is; the second one produces the
//! bytes, from the first to the last. So a file of any size is streamed with its length known
//! beforehand, without a copy of it in memory or on disk.
//!
//! [`Reader`] trusts nothing. Only pages that the meta page counts are read, every offset and
//! length is checked against its page, elements must not overlap, keys must ascend, an inlined
//! bucket must not hold buckets, and a tree must not have more pages than the file. So a walk reads
//! each page at most once, and a damaged file ends in an error with the page's number and never in
//! a loop. Files of other page sizes, with lists of free pages and with nested or inlined buckets
//! are read; free pages are not looked at.
//!
//! Caveats: the format has checksums for the meta pages only, so a flipped bit in a value is
//! noticed only by the SHA-256 at the end of a snapshot file.

mod digest;
mod page;
mod read;
mod write;

#[cfg(test)]
mod tests;

use std::io;

pub use digest::{DIGEST_BYTES, Trailer, has_trailer, trailer};
pub use read::{Bucket, Cursor, Item, ReadAt, Reader};
pub use write::{Plan, Writer};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Neither meta page is valid, or the file is shorter than they say.
    #[error("invalid database: {0}")]
    NotBbolt(&'static str),
    #[error("damaged at page {page}: {what}")]
    Damaged { page: u64, what: &'static str },
    /// A key in the format has 1 to 32,768 bytes.
    #[error("a key of {0} bytes has no place in a bbolt file")]
    KeySize(usize),
    #[error("{0}")]
    Misuse(&'static str),
}
