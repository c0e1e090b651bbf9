//! The writer: sorted pairs in, pages out.

use super::Error;
use super::page::{self, BUCKET_BYTES, ELEMENT_BYTES, HEADER_BYTES, KEY_BYTES_MAX};

/// Page size of the files. bbolt reads any size; this is that of nearly all systems, and so of
/// their files.
const PAGE_BYTES: usize = 4096;
/// A bucket whose only leaf is no larger than this is inlined into its parent, as by bbolt
/// (`maxInlineBucketSize`).
const INLINE_BYTES_MAX: usize = PAGE_BYTES / 4;
/// Number of the first page after the two meta pages.
const FIRST_PAGE: u64 = 2;
/// Fewest children of a branch: bbolt never writes one with fewer (`minKeysPerPage`).
const CHILDREN_MIN: usize = 2;
/// Transaction numbers of the two meta pages, which both name the same tree. The higher one counts.
const TXIDS: [u64; 2] = [0, 1];

/// The result of the measuring run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    root: u64,
    pages: u64,
}

impl Plan {
    /// Length of the file in bytes, without a digest after it.
    pub fn file_bytes(&self) -> u64 {
        self.pages * PAGE_BYTES as u64
    }
}

/// A leaf that is being filled. In the measuring run it holds the sizes of its elements and its
/// first key only.
#[derive(Default)]
struct Leaf {
    /// Flags, key size and value size of each element.
    elements: Vec<(u32, u32, u32)>,
    data: Vec<u8>,
    data_bytes: usize,
    first_key: Vec<u8>,
}

impl Leaf {
    fn bytes(&self) -> usize {
        HEADER_BYTES + self.elements.len() * ELEMENT_BYTES + self.data_bytes
    }

    fn encode(&self, id: u64, overflow: u32, out: &mut Vec<u8>) {
        let count = self.elements.len();
        out.extend_from_slice(&page::header(id, page::LEAF, count as u16, overflow));
        let mut data_at = count * ELEMENT_BYTES;
        for (at, (flags, key_bytes, value_bytes)) in self.elements.iter().enumerate() {
            let position = (data_at - at * ELEMENT_BYTES) as u32;
            for number in [*flags, position, *key_bytes, *value_bytes] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            data_at += (key_bytes + value_bytes) as usize;
        }
        out.extend_from_slice(&self.data);
    }

    fn clear(&mut self) {
        self.elements.clear();
        self.data.clear();
        self.data_bytes = 0;
        self.first_key.clear();
    }
}

/// The children of a branch that is not written yet: first key and page number of each.
type Children = Vec<(Vec<u8>, u64)>;

/// The unfinished pages of one bucket's tree.
#[derive(Default)]
struct Tree {
    leaf: Leaf,
    last_key: Vec<u8>,
    /// Children without a branch so far, by the height of that branch above the leaves.
    levels: Vec<Children>,
}

/// Writes buckets, in ascending order of their names, with pairs in ascending order of their keys.
pub struct Writer {
    plan: Option<Plan>,
    next_page: u64,
    out: Vec<u8>,
    tree: Tree,
    bucket: Option<Vec<u8>>,
    /// Names and values of the buckets that are complete, for the root bucket.
    root: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Writer {
    /// A writer for the first run, which produces no bytes, only the plan.
    pub fn measure() -> Self {
        Self::new(None)
    }

    /// A writer for the second run, which must get the same pairs as the first.
    pub fn write(plan: Plan) -> Self {
        let mut writer = Self::new(Some(plan));
        for (id, txid) in (0..).zip(TXIDS) {
            writer.meta(id, txid, plan);
        }
        writer
    }

    fn new(plan: Option<Plan>) -> Self {
        Self {
            plan,
            next_page: FIRST_PAGE,
            out: Vec::new(),
            tree: Tree::default(),
            bucket: None,
            root: Vec::new(),
        }
    }

    fn meta(&mut self, id: u64, txid: u64, plan: Plan) {
        let start = self.out.len();
        self.out.extend_from_slice(&page::header(id, page::META, 0, 0));
        let body = self.out.len();
        for number in [page::MAGIC, page::VERSION, PAGE_BYTES as u32, 0] {
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        for number in [plan.root, 0, page::NO_FREELIST, plan.pages, txid] {
            self.out.extend_from_slice(&number.to_le_bytes());
        }
        let checksum = page::checksum(&self.out[body..]);
        self.out.extend_from_slice(&checksum.to_le_bytes());
        self.out.resize(start + PAGE_BYTES, 0);
    }

    /// Begins a bucket. The one before must have been ended.
    pub fn begin(&mut self, name: &[u8]) -> Result<(), Error> {
        let is_in_order = self.root.last().is_none_or(|(last, _)| last.as_slice() < name);
        if self.bucket.is_some() || !is_in_order {
            return Err(Error::Misuse("buckets do not come in order"));
        }
        self.bucket = Some(name.to_vec());
        Ok(())
    }

    /// Adds a pair to the bucket.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.element(0, key, value.len(), Some(value))
    }

    /// As `put`, for the measuring run, which needs only the size of the value.
    pub fn put_size(&mut self, key: &[u8], value_bytes: usize) -> Result<(), Error> {
        self.element(0, key, value_bytes, None)
    }

    /// Ends the bucket.
    pub fn end(&mut self) -> Result<(), Error> {
        let name = self.bucket.take().ok_or(Error::Misuse("no bucket was begun"))?;
        let mut value = vec![0; BUCKET_BYTES];
        if self.tree.levels.is_empty() && self.tree.leaf.bytes() <= INLINE_BYTES_MAX {
            if self.plan.is_some() {
                self.tree.leaf.encode(0, 0, &mut value);
            } else {
                value.resize(BUCKET_BYTES + self.tree.leaf.bytes(), 0);
            }
            self.tree = Tree::default();
        } else {
            value[..8].copy_from_slice(&self.end_tree().to_le_bytes());
        }
        self.root.push((name, value));
        Ok(())
    }

    /// Ends the file and returns the plan. The writing run fails if its pairs led to another plan
    /// than those of the measuring run.
    pub fn finish(&mut self) -> Result<Plan, Error> {
        if self.bucket.is_some() {
            return Err(Error::Misuse("the last bucket was not ended"));
        }
        for (name, value) in std::mem::take(&mut self.root) {
            self.element(page::IS_BUCKET, &name, value.len(), Some(&value))?;
        }
        let root = self.end_tree();
        let plan = Plan { root, pages: self.next_page };
        match self.plan {
            Some(planned) if planned != plan => {
                Err(Error::Misuse("the second run differs from the first"))
            }
            _ => Ok(plan),
        }
    }

    /// Takes the bytes that are ready. The file is all of them in order.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// Number of bytes that are ready.
    pub fn ready_bytes(&self) -> usize {
        self.out.len()
    }

    fn element(
        &mut self,
        flags: u32,
        key: &[u8],
        value_bytes: usize,
        value: Option<&[u8]>,
    ) -> Result<(), Error> {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(Error::KeySize(key.len()));
        }
        if key <= self.tree.last_key.as_slice() {
            return Err(Error::Misuse("keys do not come in order"));
        }
        let value_size =
            u32::try_from(value_bytes).map_err(|_| Error::Misuse("a value is too large"))?;
        let added = ELEMENT_BYTES + key.len() + value_bytes;
        let leaf = &self.tree.leaf;
        if !leaf.elements.is_empty() && leaf.bytes() + added > PAGE_BYTES {
            self.end_leaf();
        }
        self.tree.last_key.clear();
        self.tree.last_key.extend_from_slice(key);
        let leaf = &mut self.tree.leaf;
        if leaf.elements.is_empty() {
            leaf.first_key.extend_from_slice(key);
        }
        leaf.elements.push((flags, key.len() as u32, value_size));
        leaf.data_bytes += key.len() + value_bytes;
        if let (Some(_), Some(value)) = (self.plan, value) {
            leaf.data.extend_from_slice(key);
            leaf.data.extend_from_slice(value);
        }
        Ok(())
    }

    /// Allocates consecutive pages for `bytes`: returns the first page's number and the number of
    /// further pages.
    fn allocate(&mut self, bytes: usize) -> (u64, u32) {
        let id = self.next_page;
        let pages = bytes.div_ceil(PAGE_BYTES);
        self.next_page += pages as u64;
        (id, pages as u32 - 1)
    }

    fn pad(&mut self) {
        self.out.resize(self.out.len().next_multiple_of(PAGE_BYTES), 0);
    }

    fn end_leaf(&mut self) {
        let (id, overflow) = self.allocate(self.tree.leaf.bytes());
        if self.plan.is_some() {
            self.tree.leaf.encode(id, overflow, &mut self.out);
            self.pad();
        }
        let first_key = std::mem::take(&mut self.tree.leaf.first_key);
        self.tree.leaf.clear();
        self.add_child(0, first_key, id);
    }

    /// Adds a child to the branch that is being collected at `level`. Writes that branch once it is
    /// full and enough children remain for the one after it.
    fn add_child(&mut self, level: usize, key: Vec<u8>, id: u64) {
        if self.tree.levels.len() == level {
            self.tree.levels.push(Vec::new());
        }
        let children = &mut self.tree.levels[level];
        children.push((key, id));
        let fit = fitting(children);
        if children.len() >= fit + CHILDREN_MIN {
            self.branch(level, fit);
        }
    }

    /// Writes a branch of the first `count` children of a level.
    fn branch(&mut self, level: usize, count: usize) {
        let children: Children = self.tree.levels[level].drain(..count).collect();
        let key_bytes: usize = children.iter().map(|(key, _)| key.len()).sum();
        let (id, overflow) = self.allocate(HEADER_BYTES + count * ELEMENT_BYTES + key_bytes);
        if self.plan.is_some() {
            let header = page::header(id, page::BRANCH, count as u16, overflow);
            self.out.extend_from_slice(&header);
            let mut data_at = count * ELEMENT_BYTES;
            for (at, (key, child)) in children.iter().enumerate() {
                let position = (data_at - at * ELEMENT_BYTES) as u32;
                self.out.extend_from_slice(&position.to_le_bytes());
                self.out.extend_from_slice(&(key.len() as u32).to_le_bytes());
                self.out.extend_from_slice(&child.to_le_bytes());
                data_at += key.len();
            }
            for (key, _) in &children {
                self.out.extend_from_slice(key);
            }
            self.pad();
        }
        let first_key = children.into_iter().next().map(|(key, _)| key).unwrap_or_default();
        self.add_child(level + 1, first_key, id);
    }

    /// Writes the unfinished pages of a tree and returns its root's number. An empty tree is one
    /// empty leaf.
    fn end_tree(&mut self) -> u64 {
        if !self.tree.leaf.elements.is_empty() || self.tree.levels.is_empty() {
            self.end_leaf();
        }
        let mut level = 0;
        loop {
            let children = &self.tree.levels[level];
            let is_top = level + 1 == self.tree.levels.len();
            if let ([(_, root)], true) = (children.as_slice(), is_top) {
                let root = *root;
                self.tree = Tree::default();
                return root;
            }
            let (count, fit) = (children.len(), fitting(children));
            match count - fit {
                0 => self.branch(level, count),
                _ if fit > CHILDREN_MIN => {
                    self.branch(level, fit - 1);
                    self.branch(level, count - fit + 1);
                }
                _ => self.branch(level, count),
            }
            level += 1;
        }
    }
}

/// Number of the first children that fit into one page, but at least `CHILDREN_MIN` if there are as
/// many.
fn fitting(children: &Children) -> usize {
    let mut bytes = HEADER_BYTES;
    let fit = children.iter().take_while(|(key, _)| {
        bytes += ELEMENT_BYTES + key.len();
        bytes <= PAGE_BYTES
    });
    fit.count().max(CHILDREN_MIN).min(children.len())
}
