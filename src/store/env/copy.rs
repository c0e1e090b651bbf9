//! Copying records into another environment as they are stored, a bounded number at a time. The
//! checksum of each is verified, so that damage is reported here and not copied.

use std::ops::Bound;

use super::read::Reader;
use super::write::{Writer, put};
use super::{Table, named};
use crate::limits::READ_CHUNK_ROWS;
use crate::store::{Bucket, Error, Row, record, schema};
use crate::types::Revision;

/// How far a copy has come: up to this key, or to the end.
pub(in crate::store) enum Copied<T> {
    UpTo(T),
    End,
}

impl Reader<'_> {
    /// Copies rows from `next` on, until `bytes` is used up or `READ_CHUNK_ROWS` rows are copied.
    /// Moves `next` behind them and takes their size off `bytes`. Returns false once the last row
    /// is copied.
    pub(in crate::store) fn copy_rows(
        &self,
        next: &mut Revision,
        bytes: &mut usize,
        to: &mut Writer<'_>,
    ) -> Result<bool, Error> {
        let first = schema::bound_key(*next);
        let range = (Bound::Included(&first[..]), Bound::Unbounded);
        let found = self.env.rev.range(&self.txn, &range);
        let found = found.map_err(|error| named(&self.env.file, error))?;
        for (count, item) in found.enumerate() {
            if count == READ_CHUNK_ROWS || *bytes == 0 {
                return Ok(true);
            }
            let (key, value) = item.map_err(|error| named(&self.env.file, error))?;
            let (rev, key) = self.parse_key(key)?;
            let damage = |what: String| self.env.damage(format!("revision {rev}"), what);
            let (header, inline) = record::decode(value).map_err(damage)?;
            if header.chunked {
                let (tombstone, kv) = self.decode(rev, &key, value)?;
                to.put_row(&Row { rev, tombstone, kv: kv.into_owned().into() })?;
            } else {
                header.verify(&key, inline).map_err(damage)?;
                put(&mut to.txn, to.env.rev, &key, value, true, &to.env.file)?;
                to.newest = Some(key);
            }
            *bytes = bytes.saturating_sub(header.record_bytes);
            *next = Revision::new(rev.main, rev.sub + 1);
        }
        Ok(false)
    }

    /// Copies pairs of a small bucket, or of the table `rusd` for None, from after the stored key
    /// `after` on. An empty `after` begins at the first one.
    pub(in crate::store) fn copy_pairs(
        &self,
        bucket: Option<Bucket>,
        after: &[u8],
        bytes: &mut usize,
        to: &mut Writer<'_>,
    ) -> Result<Copied<Vec<u8>>, Error> {
        let (title, from, into): (&str, Table, Table) = match bucket {
            Some(bucket) => (bucket.name(), self.env.small(bucket), to.env.small(bucket)),
            None => (schema::OWN, self.env.own, to.env.own),
        };
        // An empty key would be an error of LMDB.
        let first = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(after) };
        let range = (first, Bound::Unbounded);
        let found = from.range(&self.txn, &range);
        let mut last = after.to_vec();
        for (count, item) in found.map_err(|error| named(&self.env.file, error))?.enumerate() {
            if count == READ_CHUNK_ROWS || *bytes == 0 {
                return Ok(Copied::UpTo(last));
            }
            let (key, stored) = item.map_err(|error| named(&self.env.file, error))?;
            self.parse_small(title, key, stored)?;
            put(&mut to.txn, into, key, stored, true, &to.env.file)?;
            *bytes = bytes.saturating_sub(key.len() + stored.len());
            last = key.to_vec();
        }
        Ok(Copied::End)
    }
}
