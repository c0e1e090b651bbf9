//! A read transaction: rows, buckets, and how much of the file is in use.

use std::borrow::Cow;
use std::ops::{Bound, Deref};

use bytes::Bytes;
use heed::{RoTxn, WithoutTls};

use super::{Env, Table, named};
use crate::limits::{RECORD_CHUNK_BYTES, RECORD_INLINE_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::metrics;
use crate::store::schema::{self, Bucket, RevKey};
use crate::store::{Error, Pair, Row, RowSize, Sizes, record};
use crate::types::Revision;

/// A read transaction that may last for minutes: it owns its environment.
pub(in crate::store) struct Pinned {
    txn: RoTxn<'static, WithoutTls>,
    _open: Open,
}

/// A transaction of the reader's own, or one that a snapshot has pinned.
pub(super) enum Txn<'e> {
    Own(RoTxn<'e, WithoutTls>, Open),
    Pinned(&'e Pinned),
}

/// Counts a transaction among those that are open.
pub(super) struct Open;

impl Open {
    fn count() -> Self {
        metrics::db_open_reads().inc();
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::db_open_reads().dec();
    }
}

impl<'e> Deref for Txn<'e> {
    type Target = RoTxn<'e, WithoutTls>;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Own(txn, _) => txn,
            Self::Pinned(pinned) => &pinned.txn,
        }
    }
}

/// A read transaction. While it lasts, LMDB cannot reuse pages that are freed, and the file grows:
/// it must be short, unless it reads from a `Pinned` one.
pub(in crate::store) struct Reader<'e> {
    pub(super) env: &'e Env,
    pub(super) txn: Txn<'e>,
}

impl Env {
    /// Begins a short read transaction.
    pub(in crate::store) fn read(&self) -> Result<Reader<'_>, Error> {
        if let Some(faults) = &self.faults {
            faults.read().map_err(Error::io(&self.file))?;
        }
        let txn = self.env.read_txn().map_err(|error| named(&self.file, error))?;
        Ok(Reader { env: self, txn: Txn::Own(txn, Open::count()) })
    }

    /// A read transaction that sees the state of the last commit until it is dropped.
    pub(in crate::store) fn pin(&self) -> Result<Pinned, Error> {
        let txn = self.env.clone().static_read_txn().map_err(|error| named(&self.file, error))?;
        Ok(Pinned { txn, _open: Open::count() })
    }

    /// A reader over the pinned transaction `txn`, which must be one of this environment.
    pub(in crate::store) fn read_pinned<'e>(&'e self, txn: &'e Pinned) -> Reader<'e> {
        Reader { env: self, txn: Txn::Pinned(txn) }
    }
}

impl Reader<'_> {
    /// The row at `rev`, whose checksum is verified; None if there is none.
    pub(in crate::store) fn row(&self, rev: Revision) -> Result<Option<Row>, Error> {
        let Some(key) = schema::rev_key(rev) else { return Ok(None) };
        let found = self.env.rev.get(&self.txn, &key).map_err(|e| named(&self.env.file, e))?;
        let Some(value) = found else { return Ok(None) };
        let (tombstone, kv) = self.decode(rev, &key, value)?;
        Ok(Some(Row { rev, tombstone, kv: kv.into_owned().into() }))
    }

    /// Rows from `from` up to the bound `to` in revision order: at most `rows_max`, and none after
    /// the one that uses up `bytes`.
    pub(in crate::store) fn rows(
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

    /// As `rows`, but each row is passed to `f` as revision, whether it is a tombstone, and record.
    /// Records that are not in chunks are not copied.
    pub(in crate::store) fn each_row<E: From<Error>>(
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

    /// The sizes of up to `rows_max` rows of [from, to], from their headers alone: checksums are
    /// not verified.
    pub(in crate::store) fn row_sizes(
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
    pub(in crate::store) fn last_rev(&self) -> Result<Option<Revision>, Error> {
        let last = self.env.rev.last(&self.txn).map_err(|error| named(&self.env.file, error))?;
        last.map(|(key, _)| self.parse_key(key).map(|(rev, _)| rev)).transpose()
    }

    pub(in crate::store) fn small(
        &self,
        bucket: Bucket,
        name: &[u8],
    ) -> Result<Option<Vec<u8>>, Error> {
        self.small_in(self.env.small(bucket), bucket.name(), name)
    }

    /// A value of the table `rusd`.
    pub(in crate::store) fn own(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.small_in(self.env.own, schema::OWN, name)
    }

    fn small_in(&self, table: Table, title: &str, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let key = schema::name_key(name);
        let found = table.get(&self.txn, &key).map_err(|error| named(&self.env.file, error))?;
        let Some(stored) = found else { return Ok(None) };
        let (_, value) = self.parse_small(title, &key, stored)?;
        Ok(Some(value.to_vec()))
    }

    /// All pairs of a small bucket, in ascending order of their names.
    pub(in crate::store) fn small_iter(&self, bucket: Bucket) -> Result<Vec<Pair>, Error> {
        let mut pairs = Vec::new();
        let found = self.env.small(bucket).iter(&self.txn);
        for item in found.map_err(|error| named(&self.env.file, error))? {
            let (key, stored) = item.map_err(|error| named(&self.env.file, error))?;
            let (name, value) = self.parse_small(bucket.name(), key, stored)?;
            pairs.push((name.to_vec(), value.to_vec()));
        }
        // The table has names that are hashed in the order of their hashes.
        pairs.sort_unstable();
        Ok(pairs)
    }

    pub(super) fn parse_small<'a>(
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
    pub(in crate::store) fn sizes(&self) -> Result<Sizes, Error> {
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

    pub(super) fn parse_key(&self, key: &[u8]) -> Result<(Revision, RevKey), Error> {
        let parsed = schema::rev_of(key).zip(RevKey::try_from(key).ok());
        parsed.ok_or_else(|| {
            let at = format!("table rev, key {}", key.escape_ascii());
            self.env.damage(at, "not the key of a revision")
        })
    }

    /// Whether the row is a tombstone, and its record, whose checksum is verified.
    pub(super) fn decode<'v>(
        &self,
        rev: Revision,
        key: &RevKey,
        value: &'v [u8],
    ) -> Result<(bool, Cow<'v, [u8]>), Error> {
        let damage = |what: String| self.env.damage(format!("revision {rev}"), what);
        // A damaged page can claim any length of a value, beyond the end of the map, too.
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
