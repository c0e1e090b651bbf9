//! The LMDB environment: the tables, reading them, and one write transaction.
//!
//! The room's unsafe code is here and in `readers`. LMDB trusts its file; `check` has walked the file
//! before it is opened here.

#![expect(unsafe_code, reason = "opening an LMDB environment maps a file into memory")]

pub(super) mod copy;
mod readers;

use std::borrow::Cow;
use std::fs::OpenOptions;
use std::ops::{Bound, Deref};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use heed::types::Bytes as Raw;
use heed::{CommitOrAbort, EnvOpenOptions, MdbError, PutFlags, RoTxn, RwTxn, WithoutTls};
use rustix::fs::FallocateFlags;

use super::schema::{self, Bucket, RevKey};
use super::snapshot::RowSize;
use super::{Error, Faults, Pair, Row, Sizes, record};
use crate::files;
use crate::limits::{
    MAP_BYTES, READERS_MAX, RECORD_CHUNK_BYTES, RECORD_INLINE_BYTES_MAX, REQUEST_BYTES_MAX,
};
use crate::types::Revision;

type Table = heed::Database<'static, Raw, Raw>;

/// `rev`, `blob`, `rusd` and the small buckets.
pub(super) const TABLES: usize = 3 + Bucket::ALL.len();
pub(super) const DATA_FILE: &str = "data.mdb";
const LOCK_FILE: &str = "lock.mdb";
/// A cache line for each reader, and what is in front of them.
const LOCK_BYTES: u64 = READERS_MAX as u64 * 64 + 8192;

pub(super) struct Env {
    env: heed::Env<WithoutTls>,
    file: PathBuf,
    rev: Table,
    blob: Table,
    own: Table,
    small: [Table; Bucket::ALL.len()],
    pub(super) faults: Option<Arc<dyn Faults>>,
}

impl Env {
    /// Opens or creates the environment in `dir`, which exists and is ours alone.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        let (file, lock) = (dir.join(DATA_FILE), dir.join(LOCK_FILE));
        // LMDB opens both as they are, and an error of its names neither.
        for path in [&file, &lock] {
            files::check(path).map_err(Error::io(path))?;
        }
        allocate(&lock);
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_readers(READERS_MAX).max_dbs(TABLES as u32);
        // SAFETY: the file is changed by no one else while it is mapped: the data directory is
        // locked by this process, heed refuses to open one path twice, and LMDB itself writes
        // through the file descriptor, never through the map.
        let env = unsafe { options.open(dir) }.map_err(|error| named(&file, error))?;
        readers::take(&lock)?;
        env.clear_stale_readers().map_err(|error| named(&file, error))?;
        let mut names =
            [schema::REV, schema::BLOB, schema::OWN, "", "", "", "", "", "", "", "", ""];
        names[3..].copy_from_slice(&Bucket::ALL.map(Bucket::name));
        let tables = open_tables(&env, names).map_err(|error| named(&file, error))?;
        let [rev, blob, own, small @ ..] = tables;
        Ok(Self { env, file, rev, blob, own, small, faults: None })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn read(&self) -> Result<Reader<'_>, Error> {
        if let Some(faults) = &self.faults {
            faults.read().map_err(Error::io(&self.file))?;
        }
        let txn = self.env.read_txn().map_err(|error| named(&self.file, error))?;
        Ok(Reader { env: self, txn: Txn::Own(txn) })
    }

    /// Keeps all pages as they are until it is dropped, whatever is committed.
    pub(super) fn pin(&self) -> Result<Pinned, Error> {
        self.env.clone().static_read_txn().map_err(|error| named(&self.file, error))
    }

    /// The pinned transaction is of this environment.
    pub(super) fn read_pinned<'e>(&'e self, txn: &'e Pinned) -> Reader<'e> {
        Reader { env: self, txn: Txn::Pinned(txn) }
    }

    /// The transaction must end on the thread that began it.
    pub(super) fn write(&self) -> Result<Writer<'_>, Error> {
        let txn = self.env.write_txn().map_err(|error| named(&self.file, error))?;
        Ok(Writer { env: self, txn, value: Vec::new(), newest: None })
    }

    fn small(&self, bucket: Bucket) -> Table {
        self.small[bucket as usize]
    }

    fn damage(&self, at: String, what: impl Into<String>) -> Error {
        Error::damage(&self.file, at, what)
    }
}

/// Allocates the file of LMDB's readers, which is mapped for writing: on a full disk the first use of
/// a page that has no block yet would be a SIGBUS. It comes before LMDB opens the file, whose lock the
/// closing of any other descriptor would end.
fn allocate(file: &Path) {
    let allocate = || -> std::io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = files::open_with(&options, file)?;
        Ok(rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, LOCK_BYTES)?)
    };
    if let Err(error) = allocate() {
        tracing::warn!(file = %file.display(), %error, "space could not be reserved");
    }
}

/// One transaction for all of them: an environment has every table or none.
fn open_tables(
    env: &heed::Env<WithoutTls>,
    names: [&str; TABLES],
) -> Result<[Table; TABLES], heed::Error> {
    let txn = env.write_txn()?;
    let opened = env.create_databases_and_commit(txn, |opener, txn| {
        let mut tables = Vec::with_capacity(TABLES);
        for name in names {
            tables.push(opener.create_database::<Raw, Raw>(txn, Some(name))?);
        }
        let tables = <[_; TABLES]>::try_from(tables);
        let tables = tables.map_or_else(|_| CommitOrAbort::Abort(()), CommitOrAbort::Commit);
        Ok::<_, heed::Error>(tables)
    })?;
    opened.commit().ok_or(heed::Error::Mdb(MdbError::DbsFull))
}

/// LMDB's error with the file's name; what only a damaged file can cause is called damage.
fn named(file: &Path, error: heed::Error) -> Error {
    let file = file.to_path_buf();
    match error {
        heed::Error::Io(source) => Error::Io { file, source },
        heed::Error::Mdb(
            MdbError::PageNotFound
            | MdbError::Corrupted
            | MdbError::VersionMismatch
            | MdbError::Invalid
            | MdbError::CursorFull
            | MdbError::PageFull
            | MdbError::Incompatible,
        ) => Error::Damage { file, at: "an LMDB page".to_owned(), what: error.to_string() },
        _ => Error::Lmdb { file, what: error.to_string() },
    }
}

/// A read transaction that may last.
pub(super) type Pinned = RoTxn<'static, WithoutTls>;

enum Txn<'e> {
    Own(RoTxn<'e, WithoutTls>),
    Pinned(&'e Pinned),
}

impl<'e> Deref for Txn<'e> {
    type Target = RoTxn<'e, WithoutTls>;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Own(txn) => txn,
            Self::Pinned(txn) => txn,
        }
    }
}

/// A read transaction. It pins pages that the writer could use again: keep it short.
pub(super) struct Reader<'e> {
    env: &'e Env,
    txn: Txn<'e>,
}

impl Reader<'_> {
    pub(super) fn row(&self, rev: Revision) -> Result<Option<Row>, Error> {
        let Some(key) = schema::rev_key(rev) else { return Ok(None) };
        let found = self.env.rev.get(&self.txn, &key).map_err(|e| named(&self.env.file, e))?;
        let Some(value) = found else { return Ok(None) };
        let (tombstone, kv) = self.decode(rev, &key, value)?;
        Ok(Some(Row { rev, tombstone, kv: kv.into_owned().into() }))
    }

    /// Rows of [from, to] in order, up to `rows_max` of them or until `bytes` are used up.
    pub(super) fn rows(
        &self,
        from: Revision,
        to: Bound<Revision>,
        rows_max: usize,
        bytes: &mut usize,
    ) -> Result<Vec<Row>, Error> {
        let mut rows = Vec::new();
        self.each_row(from, to, rows_max, bytes, |rev, tombstone, kv| {
            let kv = match kv {
                Cow::Borrowed(kv) => Bytes::copy_from_slice(kv),
                Cow::Owned(kv) => kv.into(),
            };
            rows.push(Row { rev, tombstone, kv });
            Ok::<_, Error>(())
        })?;
        Ok(rows)
    }

    /// As `rows`, each shown to `f` where it lies.
    pub(super) fn each_row<E: From<Error>>(
        &self,
        from: Revision,
        to: Bound<Revision>,
        rows_max: usize,
        bytes: &mut usize,
        mut f: impl FnMut(Revision, bool, Cow<'_, [u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let first = schema::bound_key(from);
        let (last, open) = match to {
            Bound::Included(rev) => (schema::bound_key(rev), false),
            Bound::Excluded(rev) => (schema::bound_key(rev), true),
            Bound::Unbounded => ([0xff; 12], false),
        };
        if last < first {
            return Ok(());
        }
        let end = if open { Bound::Excluded(&last[..]) } else { Bound::Included(&last[..]) };
        let range = (Bound::Included(&first[..]), end);
        let found = self.env.rev.range(&self.txn, &range);
        for item in found.map_err(|error| named(&self.env.file, error))?.take(rows_max) {
            if *bytes == 0 {
                break;
            }
            let (key, value) = item.map_err(|error| named(&self.env.file, error))?;
            let (rev, key) = self.parse_key(key)?;
            let (tombstone, kv) = self.decode(rev, &key, value)?;
            *bytes = bytes.saturating_sub(kv.len());
            f(rev, tombstone, kv)?;
        }
        Ok(())
    }

    /// What `rows` would return, as revision, whether a tombstone, and length of the record.
    pub(super) fn row_sizes(
        &self,
        from: Revision,
        to: Revision,
        rows_max: usize,
    ) -> Result<Vec<RowSize>, Error> {
        let (first, last) = (schema::bound_key(from), schema::bound_key(to));
        if last < first {
            return Ok(Vec::new());
        }
        let range = (Bound::Included(&first[..]), Bound::Included(&last[..]));
        let found = self.env.rev.range(&self.txn, &range);
        let found = found.map_err(|error| named(&self.env.file, error))?.take(rows_max);
        let size = |item: Result<(&[u8], &[u8]), heed::Error>| {
            let (key, value) = item.map_err(|error| named(&self.env.file, error))?;
            let (rev, _) = self.parse_key(key)?;
            let (header, _) = record::decode(value)
                .map_err(|what| self.env.damage(format!("revision {rev}"), what))?;
            Ok(RowSize { rev, tombstone: header.tombstone, bytes: header.record_bytes })
        };
        found.map(size).collect()
    }

    /// The newest revision in the file.
    pub(super) fn last_rev(&self) -> Result<Option<Revision>, Error> {
        let last = self.env.rev.last(&self.txn).map_err(|error| named(&self.env.file, error))?;
        last.map(|(key, _)| self.parse_key(key).map(|(rev, _)| rev)).transpose()
    }

    pub(super) fn small(&self, bucket: Bucket, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.small_in(self.env.small(bucket), bucket.name(), name)
    }

    pub(super) fn own(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.small_in(self.env.own, schema::OWN, name)
    }

    fn small_in(&self, table: Table, title: &str, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let key = schema::name_key(name);
        let found = table.get(&self.txn, &key).map_err(|error| named(&self.env.file, error))?;
        let Some(stored) = found else { return Ok(None) };
        let (_, value) = self.parse_small(title, &key, stored)?;
        Ok(Some(value.to_vec()))
    }

    pub(super) fn small_iter(&self, bucket: Bucket) -> Result<Vec<Pair>, Error> {
        let mut pairs = Vec::new();
        let found = self.env.small(bucket).iter(&self.txn);
        for item in found.map_err(|error| named(&self.env.file, error))? {
            let (key, stored) = item.map_err(|error| named(&self.env.file, error))?;
            let (name, value) = self.parse_small(bucket.name(), key, stored)?;
            pairs.push((name.to_vec(), value.to_vec()));
        }
        // Hashed names stand out of order in the table.
        pairs.sort_unstable();
        Ok(pairs)
    }

    fn parse_small<'a>(
        &self,
        title: &str,
        key: &'a [u8],
        stored: &'a [u8],
    ) -> Result<(&'a [u8], &'a [u8]), Error> {
        schema::small_parse(title, key, stored).map_err(|what| {
            self.env.damage(format!("table {title}, key {}", key.escape_ascii()), what)
        })
    }

    /// Bytes of the pages up to the last one used, and of those that hold something.
    pub(super) fn sizes(&self) -> Result<Sizes, Error> {
        let info = self.env.env.info();
        let mut pages = 2;
        let mut page_bytes = 0;
        let tables = [self.env.rev, self.env.blob, self.env.own];
        for table in tables.iter().chain(&self.env.small) {
            let stat = table.stat(&self.txn).map_err(|error| named(&self.env.file, error))?;
            for of_table in [stat.branch_pages, stat.leaf_pages, stat.overflow_pages] {
                // A damaged file can claim any number.
                pages = usize::saturating_add(pages, of_table);
            }
            page_bytes = u64::from(stat.page_size);
        }
        let main = self.env.env.unnamed_database_stat();
        for of_table in [main.branch_pages, main.leaf_pages, main.overflow_pages] {
            pages = pages.saturating_add(of_table);
        }
        let total = (info.last_page_number as u64).saturating_add(1).saturating_mul(page_bytes);
        Ok(Sizes { total, in_use: (pages as u64).saturating_mul(page_bytes).min(total) })
    }

    fn parse_key(&self, key: &[u8]) -> Result<(Revision, RevKey), Error> {
        let parsed = schema::rev_of(key).zip(RevKey::try_from(key).ok());
        parsed.ok_or_else(|| {
            let at = format!("table rev, key {}", key.escape_ascii());
            self.env.damage(at, "not the key of a revision")
        })
    }

    /// Whether the row is a tombstone, and its record.
    fn decode<'v>(
        &self,
        rev: Revision,
        key: &RevKey,
        value: &'v [u8],
    ) -> Result<(bool, Cow<'v, [u8]>), Error> {
        let damage = |what: String| self.env.damage(format!("revision {rev}"), what);
        // A damaged page can claim any length; only so many bytes are ever looked at.
        if value.len() > record::HEADER_BYTES + RECORD_INLINE_BYTES_MAX {
            return Err(damage(format!("a value of {} bytes", value.len())));
        }
        let (header, inline) = record::decode(value).map_err(damage)?;
        let kv = if header.chunked {
            let record = self.chunks(key, header.record_bytes)?.ok_or_else(|| {
                damage(format!("the chunks do not make up {} bytes", header.record_bytes))
            })?;
            Cow::Owned(record)
        } else {
            Cow::Borrowed(inline)
        };
        header.verify(key, &kv).map_err(damage)?;
        Ok((header.tombstone, kv))
    }

    fn chunks(&self, key: &RevKey, record_bytes: usize) -> Result<Option<Vec<u8>>, Error> {
        // A damaged header can claim any length.
        let mut record = Vec::with_capacity(record_bytes.min(REQUEST_BYTES_MAX));
        let (first, last) = (schema::blob_key(key, 0), schema::blob_key(key, u32::MAX));
        let range = (Bound::Included(&first[..]), Bound::Included(&last[..]));
        let found = self.env.blob.range(&self.txn, &range);
        let mut chunks = found.map_err(|error| named(&self.env.file, error))?;
        for number in 0.. {
            let left = record_bytes - record.len();
            if left == 0 {
                break;
            }
            match chunks.next().transpose().map_err(|error| named(&self.env.file, error))? {
                Some((at, chunk))
                    if at == schema::blob_key(key, number)
                        && chunk.len() == left.min(RECORD_CHUNK_BYTES) =>
                {
                    record.extend_from_slice(chunk);
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(record))
    }
}

/// The write transaction of one commit. Dropped, it leaves nothing behind.
pub(super) struct Writer<'e> {
    env: &'e Env,
    txn: RwTxn<'e>,
    /// Where a row's value is put together.
    value: Vec<u8>,
    /// Key of the newest row in the table, if that is known.
    newest: Option<RevKey>,
}

impl Writer<'_> {
    pub(super) fn commit(self) -> Result<(), Error> {
        let file = &self.env.file;
        self.txn.commit().map_err(|error| named(file, error))
    }

    /// Adds a row. Nearly always it is the newest one, and then pages are filled to the end.
    pub(super) fn put_row(&mut self, row: &Row) -> Result<(), Error> {
        let file = &self.env.file;
        let key = schema::rev_key(row.rev).ok_or(Error::Missing(row.rev))?;
        let append = match self.newest {
            Some(newest) => newest < key,
            None => {
                let last = self.env.rev.last(&self.txn).map_err(|error| named(file, error))?;
                last.is_none_or(|(last, _)| last < &key[..])
            }
        };
        if append {
            self.newest = Some(key);
        }
        let chunked = row.kv.len() > RECORD_INLINE_BYTES_MAX;
        self.value.clear();
        self.value.extend_from_slice(&record::encode(&key, row.tombstone, chunked, &row.kv));
        if chunked {
            for (number, chunk) in (0..).zip(row.kv.chunks(RECORD_CHUNK_BYTES)) {
                let key = schema::blob_key(&key, number);
                put(&mut self.txn, self.env.blob, &key, chunk, append, &self.env.file)?;
            }
        } else {
            self.value.extend_from_slice(&row.kv);
        }
        put(&mut self.txn, self.env.rev, &key, &self.value, append, &self.env.file)
    }

    /// Removes a row and its chunks; a row that is gone already is fine. The value is returned if
    /// it is to be put back.
    pub(super) fn delete_row(&mut self, rev: Revision) -> Result<bool, Error> {
        self.newest = None;
        let Some(key) = schema::rev_key(rev) else { return Ok(false) };
        let file = &self.env.file;
        let found = self.env.rev.get(&self.txn, &key).map_err(|error| named(file, error))?;
        let Some(value) = found else { return Ok(false) };
        let chunks = match record::decode(value) {
            Ok((header, _)) if header.chunked => header.record_bytes.div_ceil(RECORD_CHUNK_BYTES),
            _ => 0,
        };
        for number in (0..).take(chunks) {
            let key = schema::blob_key(&key, number);
            let deleted = self.env.blob.delete(&mut self.txn, &key);
            if !deleted.map_err(|error| named(file, error))? {
                break;
            }
        }
        self.env.rev.delete(&mut self.txn, &key).map_err(|error| named(file, error))
    }

    /// Takes the stored value of a row out, leaving its chunks, to put it back by `restore_row`.
    pub(super) fn take_row(&mut self, rev: Revision) -> Result<Option<(RevKey, Vec<u8>)>, Error> {
        self.newest = None;
        let Some(key) = schema::rev_key(rev) else { return Ok(None) };
        let file = &self.env.file;
        let found = self.env.rev.get(&self.txn, &key).map_err(|error| named(file, error))?;
        let Some(value) = found else { return Ok(None) };
        if value.len() > record::HEADER_BYTES + RECORD_INLINE_BYTES_MAX {
            let what = format!("a value of {} bytes", value.len());
            return Err(self.env.damage(format!("revision {rev}"), what));
        }
        let value = value.to_vec();
        self.env.rev.delete(&mut self.txn, &key).map_err(|error| named(file, error))?;
        Ok(Some((key, value)))
    }

    pub(super) fn restore_row(&mut self, key: &RevKey, value: &[u8]) -> Result<(), Error> {
        self.newest = None;
        put(&mut self.txn, self.env.rev, key, value, false, &self.env.file)
    }

    pub(super) fn put_small(
        &mut self,
        bucket: Bucket,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Error> {
        self.put_in(self.env.small(bucket), bucket.name(), name, value)
    }

    pub(super) fn put_own(&mut self, name: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        self.put_in(self.env.own, schema::OWN, name, value)
    }

    fn put_in(
        &mut self,
        table: Table,
        title: &str,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Error> {
        let key = schema::name_key(name);
        if let Some(value) = value {
            let stored = schema::small_value(title, name, value);
            return put(&mut self.txn, table, &key, &stored, false, &self.env.file);
        }
        let deleted = table.delete(&mut self.txn, &key);
        deleted.map(|_| ()).map_err(|error| named(&self.env.file, error))
    }
}

fn put(
    txn: &mut RwTxn<'_>,
    table: Table,
    key: &[u8],
    value: &[u8],
    append: bool,
    file: &Path,
) -> Result<(), Error> {
    let flags = if append { PutFlags::APPEND } else { PutFlags::empty() };
    table.put_with_flags(txn, flags, key, value).map_err(|error| named(file, error))
}
