//! Rows by their revisions, many within one read transaction.

use std::borrow::Cow;
use std::ops::Bound;

use heed::RoRange;
use heed::types::Bytes as Raw;

use super::named;
use super::read::Reader;
use crate::store::schema::{self, RevKey};
use crate::store::{Error, record};
use crate::types::Revision;

/// Rows that a cursor steps over to reach the next revision. More cost as much as a search from
/// the root of the table.
const STEPS_MAX: i64 = 8;

/// Finds the rows of one read transaction. Keys that were put one after the other have revisions
/// that follow each other, so a list of keys mostly asks for the next row: a step of a cursor
/// reaches it in a fraction of the time that a search from the root takes.
pub(in crate::store) struct Seeker<'r, 'e> {
    reader: &'r Reader<'e>,
    /// Stands on the last row that was found, if it was reached by a step.
    cursor: Option<RoRange<'r, Raw, Raw>>,
    last: Option<Revision>,
}

impl<'e> Reader<'e> {
    pub(in crate::store) fn seeker(&self) -> Seeker<'_, 'e> {
        Seeker { reader: self, cursor: None, last: None }
    }
}

impl<'r> Seeker<'r, '_> {
    /// The record at `rev`, whose checksum is verified; None if there is none.
    pub(in crate::store) fn record(
        &mut self,
        rev: Revision,
    ) -> Result<Option<Cow<'r, [u8]>>, Error> {
        let Some((key, value)) = self.value(rev)? else { return Ok(None) };
        self.reader.decode(rev, &key, value).map(|(_, record)| Some(record))
    }

    /// The length of the record at `rev`, from its header alone: the checksum is not verified.
    pub(in crate::store) fn length(&mut self, rev: Revision) -> Result<Option<usize>, Error> {
        let Some((_, value)) = self.value(rev)? else { return Ok(None) };
        let header = record::decode(value);
        let (header, _) =
            header.map_err(|what| self.reader.env.damage(format!("revision {rev}"), what))?;
        Ok(Some(header.record_bytes))
    }

    fn value(&mut self, rev: Revision) -> Result<Option<(RevKey, &'r [u8])>, Error> {
        let Some(key) = schema::rev_key(rev) else { return Ok(None) };
        let (reader, file) = (self.reader, &self.reader.env.file);
        let last = self.last.replace(rev);
        let is_near = last.is_some_and(|last| last < rev && rev.main - last.main <= STEPS_MAX);
        let cursor = self.cursor.take().filter(|_| is_near);
        if is_near {
            let from = (Bound::Included(&key[..]), Bound::Unbounded);
            let mut cursor = match cursor {
                Some(cursor) => cursor,
                None => reader.env.rev.range(&reader.txn, &from).map_err(|e| named(file, e))?,
            };
            for _ in 0..STEPS_MAX {
                match cursor.next().transpose().map_err(|error| named(file, error))? {
                    Some((found, _)) if found < &key[..] => {}
                    Some((found, value)) if found == key => {
                        self.cursor = Some(cursor);
                        return Ok(Some((key, value)));
                    }
                    _ => break,
                }
            }
        }
        let found = reader.env.rev.get(&reader.txn, &key).map_err(|error| named(file, error))?;
        Ok(found.map(|value| (key, value)))
    }
}
