//! The write transaction of a commit. LMDB has at most one at a time.

use std::fs::OpenOptions;
use std::path::Path;

use heed::{PutFlags, RwTxn};

use super::{Env, Table, named};
use crate::files;
use crate::limits::{LMDB_SHARED_PAGE_BYTES_MAX, RECORD_CHUNK_BYTES, RECORD_INLINE_BYTES_MAX};
use crate::store::schema::{self, Bucket, RevKey};
use crate::store::{Error, Row, record};
use crate::types::Revision;

/// The write transaction of one commit. Dropping it without `commit` aborts it.
pub(in crate::store) struct Writer<'e> {
    pub(super) env: &'e Env,
    pub(super) txn: RwTxn<'e>,
    /// Buffer in which the value of a row is put together.
    pub(super) value: Vec<u8>,
    /// Key of the newest row in the table; None until it is looked up.
    pub(super) newest: Option<RevKey>,
}

impl Env {
    /// Begins the transaction. It must end on the thread that began it: LMDB's writer mutex belongs
    /// to that thread.
    pub(in crate::store) fn write(&self) -> Result<Writer<'_>, Error> {
        let txn = self.env.write_txn().map_err(|error| named(&self.file, error))?;
        Ok(Writer { env: self, txn, value: Vec::new(), newest: None })
    }

    /// Cuts off what a commit that found the disk full has added to the file. LMDB leaves it there:
    /// the next pages would get it, but until then nobody else has it, and no measure of free space
    /// counts it.
    pub(in crate::store) fn cut(&self) -> Result<(), Error> {
        // No other transaction writes meanwhile.
        let txn = self.env.write_txn().map_err(|error| named(&self.file, error))?;
        let page_bytes = u64::from(self.env.unnamed_database_stat().page_size);
        let pages = (self.env.info().last_page_number as u64).saturating_add(1);
        let used = pages.saturating_mul(page_bytes);
        let cut = || {
            let file = files::open_with(OpenOptions::new().write(true), &self.file)?;
            // The last pages may never have been written, so the file may be shorter.
            if file.metadata()?.len() > used { file.set_len(used) } else { Ok(()) }
        };
        cut().map_err(Error::io(&self.file))?;
        txn.abort();
        Ok(())
    }
}

impl Writer<'_> {
    /// Commits, with a sync: afterwards the changes are durable.
    pub(in crate::store) fn commit(self) -> Result<(), Error> {
        let file = &self.env.file;
        self.txn.commit().map_err(|error| named(file, error))
    }

    /// Adds a row. If it is the newest one, as nearly always, it is appended: LMDB then fills pages
    /// to the end instead of splitting them in halves.
    pub(in crate::store) fn put_row(&mut self, row: &Row) -> Result<(), Error> {
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

    /// Removes a row and its chunks. Returns false if there was no such row: a sweep that starts
    /// over after a crash finds some rows deleted already.
    pub(in crate::store) fn delete_row(&mut self, rev: Revision) -> Result<bool, Error> {
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

    /// Removes the stored value of a row but not its chunks, and returns key and value for
    /// `restore_row`. A value that has pages of its own stays: it would not fill others.
    pub(in crate::store) fn take_row(
        &mut self,
        rev: Revision,
    ) -> Result<Option<(RevKey, Vec<u8>)>, Error> {
        self.newest = None;
        let Some(key) = schema::rev_key(rev) else { return Ok(None) };
        let file = &self.env.file;
        let found = self.env.rev.get(&self.txn, &key).map_err(|error| named(file, error))?;
        let Some(value) = found else { return Ok(None) };
        if value.len() > record::HEADER_BYTES + RECORD_INLINE_BYTES_MAX {
            let what = format!("a value of {} bytes", value.len());
            return Err(self.env.damage(format!("revision {rev}"), what));
        }
        if value.len() > LMDB_SHARED_PAGE_BYTES_MAX {
            return Ok(None);
        }
        let value = value.to_vec();
        self.env.rev.delete(&mut self.txn, &key).map_err(|error| named(file, error))?;
        Ok(Some((key, value)))
    }

    /// Puts a row back that `take_row` has removed.
    pub(in crate::store) fn restore_row(
        &mut self,
        key: &RevKey,
        value: &[u8],
    ) -> Result<(), Error> {
        self.newest = None;
        put(&mut self.txn, self.env.rev, key, value, false, &self.env.file)
    }

    /// Sets a key of a small bucket, or removes it if `value` is None.
    pub(in crate::store) fn put_small(
        &mut self,
        bucket: Bucket,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Error> {
        self.put_in(self.env.small(bucket), bucket.name(), name, value)
    }

    /// Sets a key of the table `rusd`, or removes it if `value` is None.
    pub(in crate::store) fn put_own(
        &mut self,
        name: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), Error> {
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

pub(super) fn put(
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
