//! The reader: nothing in a file is used before it is checked.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::Bytes;

use super::Error;
use super::page::{
    self, BUCKET_BYTES, ELEMENT_BYTES, HEADER_BYTES, KEY_BYTES_MAX, META_BYTES, META_SUMMED_BYTES,
    u16_at, u32_at, u64_at,
};
use crate::limits::{BBOLT_DEPTH_MAX, BBOLT_PAGE_BYTES_MAX};

/// Smallest and largest page size of operating systems, which is what bbolt uses.
const PAGE_BYTES_MIN: u32 = 512;
const PAGE_BYTES_MAX: u32 = 64 << 10;

/// Bytes that can be read at any offset.
pub trait ReadAt {
    fn bytes(&self) -> io::Result<u64>;
    /// Fills the buffer or fails.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(buffer, at)
    }
}

impl ReadAt for [u8] {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let found = usize::try_from(at).ok().and_then(|at| self.get(at..));
        let found = found.and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn bytes(&self) -> io::Result<u64> {
        (**self).bytes()
    }

    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        (**self).read_at(buffer, at)
    }
}

/// The contents of a meta page.
#[derive(Clone, Copy, Debug)]
struct Meta {
    page_bytes: u32,
    root: u64,
    pages: u64,
    txid: u64,
}

impl Meta {
    /// Reads and verifies the meta page at an offset.
    fn read(file: &impl ReadAt, at: u64) -> Result<Self, Error> {
        let mut bytes = [0; HEADER_BYTES + META_BYTES];
        match file.read_at(&mut bytes, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Error::NotBbolt("the file is too short"));
            }
            read => read?,
        }
        let body = &bytes[HEADER_BYTES..];
        if u16_at(&bytes, 8) & page::META == 0 || u32_at(body, 0) != page::MAGIC {
            return Err(Error::NotBbolt("it does not begin as a bbolt file"));
        }
        if u32_at(body, 4) != page::VERSION {
            return Err(Error::NotBbolt("its version is not known"));
        }
        if page::checksum(&body[..META_SUMMED_BYTES]) != u64_at(body, META_SUMMED_BYTES) {
            return Err(Error::NotBbolt("the checksum of a meta page does not match"));
        }
        let page_bytes = u32_at(body, 8);
        if !(PAGE_BYTES_MIN..=PAGE_BYTES_MAX).contains(&page_bytes) || !page_bytes.is_power_of_two()
        {
            return Err(Error::NotBbolt("its page size is out of range"));
        }
        Ok(Self {
            page_bytes,
            root: u64_at(body, 16),
            pages: u64_at(body, 40),
            txid: u64_at(body, 48),
        })
    }
}

/// A bucket found in a file.
#[derive(Clone, Debug)]
pub struct Bucket {
    root: u64,
    /// For an inlined bucket: the number of the page that holds it, and its own page.
    inline: Option<(u64, Vec<u8>)>,
    pub sequence: u64,
}

/// The content of a key.
#[derive(Debug)]
pub enum Item<'a> {
    Value(&'a [u8]),
    Bucket(Bucket),
}

/// A bbolt file, opened for reading.
pub struct Reader<R> {
    file: R,
    meta: Meta,
}

impl<R: ReadAt> Reader<R> {
    /// Reads the meta pages and chooses the newer valid one. Fails if neither is valid, or if the
    /// file is shorter than it says.
    pub fn open(file: R) -> Result<Self, Error> {
        let file_bytes = file.bytes()?;
        let first = Meta::read(&file, 0);
        // If the first meta page is damaged, the page size is unknown, and so is the offset of the
        // second.
        let second = match &first {
            Ok(meta) => Meta::read(&file, u64::from(meta.page_bytes)),
            Err(_) => find_second(&file),
        };
        let meta = match (first, second) {
            (Ok(first), Ok(second)) if second.txid > first.txid => second,
            (Ok(meta), _) | (Err(_), Ok(meta)) => meta,
            (Err(error), Err(_)) => return Err(error),
        };
        // A digest at the end is shorter than a page, so it is rounded off.
        if meta.pages > file_bytes / u64::from(meta.page_bytes) {
            return Err(Error::NotBbolt("the file is shorter than it says"));
        }
        Ok(Self { file, meta })
    }

    /// Bytes of the pages that the meta page counts. A snapshot file has no more, except for the
    /// digest.
    pub fn used_bytes(&self) -> u64 {
        self.meta.pages * u64::from(self.meta.page_bytes)
    }

    /// The root bucket, which holds the others.
    pub fn root(&self) -> Bucket {
        Bucket { root: self.meta.root, inline: None, sequence: 0 }
    }

    /// The bucket of this name in the root bucket.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket>, Error> {
        let mut cursor = self.cursor(&self.root());
        while let Some((key, item)) = cursor.next()? {
            match item {
                Item::Bucket(bucket) if key == name => return Ok(Some(bucket)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// A cursor over all pairs of a bucket, in ascending order of their keys.
    pub fn cursor(&self, bucket: &Bucket) -> Cursor<'_, R> {
        let inline = bucket.inline.clone();
        let pending = if inline.is_some() { None } else { Some(bucket.root) };
        Cursor {
            reader: self,
            path: Vec::new(),
            start: pending.map(|page| (page, None)),
            inline,
            leaf: None,
            visits_left: self.meta.pages,
            last_key: Vec::new(),
            seen: None,
        }
    }

    /// Walks the whole file. An error if a page is damaged, or is reachable in two ways.
    pub fn check(&self) -> Result<(), Error> {
        let mut seen = Visited::new();
        let mut pending = vec![self.root()];
        while let Some(bucket) = pending.pop() {
            let mut cursor = self.cursor(&bucket);
            cursor.seen = Some(std::mem::take(&mut seen));
            while let Some((_, item)) = cursor.next()? {
                if let Item::Bucket(bucket) = item {
                    pending.push(bucket);
                }
            }
            seen = cursor.seen.take().unwrap_or_default();
        }
        Ok(())
    }

    fn page(&self, id: u64, visits_left: &mut u64) -> Result<Page, Error> {
        let damaged = |what| Error::Damaged { page: id, what };
        if id < 2 || id >= self.meta.pages {
            return Err(damaged("the file has no such page"));
        }
        let page_bytes = u64::from(self.meta.page_bytes);
        let at = id * page_bytes;
        // Most pages have no overflow pages, so the first one is read alone.
        let mut bytes = vec![0; self.meta.page_bytes as usize];
        self.file.read_at(&mut bytes, at)?;
        if u64_at(&bytes, 0) != id {
            return Err(damaged("it has another page's number"));
        }
        let pages = u64::from(u32_at(&bytes, 12)) + 1;
        if pages > self.meta.pages - id {
            return Err(damaged("it reaches beyond the end of the file"));
        }
        *visits_left =
            visits_left.checked_sub(pages).ok_or_else(|| damaged("it is reached twice"))?;
        if pages > 1 {
            let all = pages * page_bytes;
            if all > BBOLT_PAGE_BYTES_MAX {
                return Err(damaged("it is larger than any that etcd writes"));
            }
            let first = bytes.len();
            bytes.resize(usize::try_from(all).unwrap_or(usize::MAX), 0);
            self.file.read_at(&mut bytes[first..], at + page_bytes)?;
        }
        Page::check(id, bytes, false)
    }
}

/// Finds the second meta page without the first. Its offset is the page size, a power of two.
fn find_second(file: &impl ReadAt) -> Result<Meta, Error> {
    let mut found = Err(Error::NotBbolt("it does not begin as a bbolt file"));
    let mut at = u64::from(PAGE_BYTES_MIN);
    while at <= u64::from(PAGE_BYTES_MAX) && found.is_err() {
        found = Meta::read(file, at).and_then(|meta| {
            let is_there = u64::from(meta.page_bytes) == at;
            is_there.then_some(meta).ok_or(Error::NotBbolt("a meta page is in the wrong place"))
        });
        at *= 2;
    }
    found
}

/// A page, with its overflow pages, whose elements all lie within it and do not overlap.
struct Page {
    id: u64,
    bytes: Bytes,
    is_leaf: bool,
    /// Whether it is the page of an inlined bucket; `id` is then the page that holds it.
    is_inline: bool,
    count: usize,
    next: usize,
}

impl Page {
    fn check(id: u64, bytes: Vec<u8>, is_inline: bool) -> Result<Self, Error> {
        let damaged = |what| Error::Damaged { page: id, what };
        let is_leaf = match u16_at(&bytes, 8) {
            page::LEAF => true,
            page::BRANCH => false,
            _ => return Err(damaged("it is neither a branch nor a leaf")),
        };
        let count = usize::from(u16_at(&bytes, 10));
        if HEADER_BYTES + count * ELEMENT_BYTES > bytes.len() {
            return Err(damaged("it has more elements than fit"));
        }
        if count == 0 && !is_leaf {
            return Err(damaged("a branch without children"));
        }
        let page = Self { id, bytes: bytes.into(), is_leaf, is_inline, count, next: 0 };
        let mut free = HEADER_BYTES + count * ELEMENT_BYTES;
        for number in 0..count {
            let (key_at, key_bytes, value_bytes) = page.extent(number);
            let end = key_at.checked_add(key_bytes).and_then(|end| end.checked_add(value_bytes));
            let Some(end) = end.filter(|end| *end <= page.bytes.len()) else {
                return Err(damaged("an element reaches beyond its page"));
            };
            // If elements could share bytes, a small file could hold far more than its size, and
            // inlined buckets nested without an end.
            if key_at < free {
                return Err(damaged("two elements share their bytes"));
            }
            free = end;
            if key_bytes > KEY_BYTES_MAX || (is_leaf && key_bytes == 0) {
                return Err(damaged("a key of impossible size"));
            }
        }
        Ok(page)
    }

    /// Offset of an element's key, and the sizes of key and value.
    fn extent(&self, number: usize) -> (usize, usize, usize) {
        let at = HEADER_BYTES + number * ELEMENT_BYTES;
        let field = |field: usize| u32_at(&self.bytes, at + 4 * field) as usize;
        if self.is_leaf {
            (at + field(1), field(2), field(3))
        } else {
            (at + field(0), field(1), 0)
        }
    }

    fn key(&self, number: usize) -> &[u8] {
        let (at, key_bytes, _) = self.extent(number);
        self.bytes.get(at..at + key_bytes).unwrap_or_default()
    }

    fn value(&self, number: usize) -> &[u8] {
        let (at, key_bytes, value_bytes) = self.extent(number);
        self.bytes.get(at + key_bytes..at + key_bytes + value_bytes).unwrap_or_default()
    }

    fn child(&self, number: usize) -> u64 {
        u64_at(&self.bytes, HEADER_BYTES + number * ELEMENT_BYTES + 8)
    }

    fn flags(&self, number: usize) -> u32 {
        u32_at(&self.bytes, HEADER_BYTES + number * ELEMENT_BYTES)
    }
}

/// A walk over one bucket.
pub struct Cursor<'a, R> {
    reader: &'a Reader<R>,
    /// The branches above the current leaf.
    path: Vec<Page>,
    /// The page to read next, and its key in its parent; the root has none.
    start: Option<(u64, Option<Vec<u8>>)>,
    inline: Option<(u64, Vec<u8>)>,
    leaf: Option<Page>,
    /// Pages that the walk may still visit. A tree with more visits than the file has pages has a
    /// cycle.
    visits_left: u64,
    last_key: Vec<u8>,
    /// Set in `Reader::check`: the pages that were reached in the whole file.
    seen: Option<Visited>,
}

/// A bit for each page, in words of 64. Only words other than 0 are kept: a sparse file may have
/// more pages than memory has bits.
type Visited = HashMap<u64, u64>;

impl<R: ReadAt> Cursor<'_, R> {
    /// The next key and what it holds; None at the end, and after an error.
    #[expect(clippy::should_implement_trait, reason = "what it returns borrows the cursor's page")]
    pub fn next(&mut self) -> Result<Option<(&[u8], Item<'_>)>, Error> {
        let found = self.advance();
        if !matches!(found, Ok(true)) {
            (self.start, self.leaf) = (None, None);
            self.path.clear();
            found?;
            return Ok(None);
        }
        let Some(leaf) = &self.leaf else { return Ok(None) };
        let number = leaf.next - 1;
        let (key, value) = (leaf.key(number), leaf.value(number));
        let item = match leaf.flags(number) {
            0 => Item::Value(value),
            page::IS_BUCKET if leaf.is_inline => {
                let what = "a bucket within one that is small enough to stand in its parent";
                return Err(Error::Damaged { page: leaf.id, what });
            }
            page::IS_BUCKET => Item::Bucket(parse_bucket(leaf.id, value)?),
            _ => return Err(Error::Damaged { page: leaf.id, what: "an element of unknown kind" }),
        };
        Ok(Some((key, item)))
    }

    /// The value of the pair that `next` returned last. It shares the memory of its page.
    pub fn value(&self) -> Bytes {
        let found = self.leaf.as_ref().filter(|leaf| leaf.next > 0);
        found.map(|leaf| leaf.bytes.slice_ref(leaf.value(leaf.next - 1))).unwrap_or_default()
    }

    /// Moves to the next element; false if there is none.
    fn advance(&mut self) -> Result<bool, Error> {
        if let Some((page, bytes)) = self.inline.take() {
            self.leaf = Some(Page::check(page, bytes, true)?);
        }
        loop {
            if let Some((id, key)) = self.start.take() {
                self.descend(id, key)?;
            }
            if let Some(leaf) = &mut self.leaf
                && leaf.next < leaf.count
            {
                let key = leaf.key(leaf.next);
                if key <= self.last_key.as_slice() {
                    return Err(Error::Damaged { page: leaf.id, what: "keys out of order" });
                }
                self.last_key.clear();
                self.last_key.extend_from_slice(key);
                leaf.next += 1;
                return Ok(true);
            }
            self.leaf = None;
            let Some(branch) = self.path.last_mut() else { return Ok(false) };
            if branch.next < branch.count {
                let key = branch.key(branch.next).to_vec();
                self.start = Some((branch.child(branch.next), Some(key)));
                branch.next += 1;
            } else {
                self.path.pop();
            }
        }
    }

    /// Reads a page. A leaf becomes the current one; a branch is added to the path.
    fn descend(&mut self, id: u64, key: Option<Vec<u8>>) -> Result<(), Error> {
        let page = self.reader.page(id, &mut self.visits_left)?;
        let damaged = |what| Error::Damaged { page: id, what };
        if let Some(seen) = &mut self.seen {
            let page_bytes = u64::from(self.reader.meta.page_bytes);
            for page in id..id + page.bytes.len() as u64 / page_bytes {
                let word = seen.entry(page / 64).or_default();
                let bit = 1 << (page % 64);
                if *word & bit != 0 {
                    return Err(damaged("it belongs to two places"));
                }
                *word |= bit;
            }
        }
        if let Some(key) = key
            && (page.count == 0 || page.key(0) < key.as_slice())
        {
            return Err(damaged("it does not hold what its parent says"));
        }
        if page.is_leaf {
            self.leaf = Some(page);
        } else if self.path.len() < BBOLT_DEPTH_MAX {
            self.path.push(page);
        } else {
            return Err(damaged("the tree is too deep"));
        }
        Ok(())
    }
}

fn parse_bucket(page: u64, value: &[u8]) -> Result<Bucket, Error> {
    let damaged = |what| Error::Damaged { page, what };
    let Some((head, inline)) = value.split_at_checked(BUCKET_BYTES) else {
        return Err(damaged("a bucket's value is cut off"));
    };
    let (root, sequence) = (u64_at(head, 0), u64_at(head, 8));
    if root != 0 {
        return Ok(Bucket { root, inline: None, sequence });
    }
    if inline.len() < HEADER_BYTES || u16_at(inline, 8) != page::LEAF {
        return Err(damaged("a bucket's own page is cut off"));
    }
    Ok(Bucket { root, inline: Some((page, inline.to_vec())), sequence })
}
