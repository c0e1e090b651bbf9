//! bbolt, the file format of etcd's backend and of its snapshots: a writer and a reader.
//!
//! ```text
//!   page 0, 1   meta: page size, root bucket, number of pages, checksum; the newer one counts
//!   page 2..    leaves, then the branches above them, bucket by bucket; last the root bucket
//!   at the end  of a snapshot file: the SHA-256 of everything before
//! ```
//!
//! A file is a B+tree of buckets: the root bucket's leaves hold a bucket's name and either the page
//! of its root or, if it is small, that page itself. Keys are in order, elements larger than a page
//! take the pages after it as well, and everything is little-endian. There is no list of free pages:
//! etcd does without one too and finds free pages by what is reachable, and here all are.
//!
//! [`Writer`] takes sorted pairs and fills page after page, children before parents, so it holds one
//! unfinished page for each level and nothing else. It runs twice over the same pairs: the first
//! run only measures, and says where the root will be and how long the file is; the second one
//! gives bytes out, from the first to the last. So a file of any size is streamed with its length
//! known before, without a copy of it in memory or on disk.
//!
//! [`Reader`] trusts nothing. Only pages that the metas account for are read, every offset and
//! length is checked against its page, elements lie one behind the other, no key may repeat or fall,
//! a bucket that stands in its parent holds no buckets, and a tree cannot hold more pages than the
//! file has. So a walk reads each page once, and a damaged file ends in a named error and never in a
//! loop. Files of other
//! page sizes, with lists of free pages and with nested or inlined buckets are read; free pages are
//! not looked at.
//!
//! Caveats: the format has no checksums but those of the metas, so a flipped bit in a value is
//! noticed by the SHA-256 behind the file alone.

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
    /// Neither meta page is one.
    #[error("invalid database: {0}")]
    NotBbolt(&'static str),
    #[error("damaged at page {page}: {what}")]
    Damaged { page: u64, what: &'static str },
    /// Longest key in the format is 32,768 bytes; there is no empty one.
    #[error("a key of {0} bytes has no place in a bbolt file")]
    KeySize(usize),
    #[error("{0}")]
    Misuse(&'static str),
}
