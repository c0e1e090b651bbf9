//! The records of many revisions, one after the other and without a copy.

use bytes::Bytes;

use super::env::Env;
use super::{Error, Store};
use crate::types::Revision;

/// What a visit reads of each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The record, whose checksum is verified.
    Record,
    /// Its length alone.
    Length,
}

impl Store {
    /// Calls `f` with the length of each row of `revs`, in their order, and with its record unless
    /// only lengths are asked for, until `f` returns false. Returns the number of rows with which
    /// `f` was called. A missing row is an error, as in [`Store::get_many`].
    ///
    /// All rows are read in one read transaction, so the caller bounds their number and bytes.
    pub fn visit(
        &self,
        revs: &[Revision],
        part: Part,
        f: impl FnMut(usize, &[u8]) -> bool,
    ) -> Result<usize, Error> {
        // The tail first, and then the transaction: a row is trimmed from the tail after its
        // commit.
        let recent = self.shared.tail.read().find(revs);
        let env = self.shared.env();
        self.noted(visit_in(&env, revs, recent, part, f))
    }
}

/// `recent` has the rows that the tail holds, by their places in `revs`.
fn visit_in(
    env: &Env,
    revs: &[Revision],
    recent: Vec<(usize, Bytes)>,
    part: Part,
    mut f: impl FnMut(usize, &[u8]) -> bool,
) -> Result<usize, Error> {
    let reader = if recent.len() < revs.len() { Some(env.read()?) } else { None };
    let mut seeker = reader.as_ref().map(|reader| reader.seeker());
    let mut recent = recent.into_iter().peekable();
    for (at, rev) in revs.iter().enumerate() {
        let of_tail = recent.next_if(|(place, _)| *place == at);
        let goes_on = match (of_tail, &mut seeker, part) {
            (Some((_, record)), _, _) => f(record.len(), &record),
            (None, None, _) => return Err(Error::Missing(*rev)),
            (None, Some(seeker), Part::Length) => {
                f(seeker.length(*rev)?.ok_or(Error::Missing(*rev))?, &[])
            }
            (None, Some(seeker), Part::Record) => {
                let record = seeker.record(*rev)?.ok_or(Error::Missing(*rev))?;
                f(record.len(), &record)
            }
        };
        if !goes_on {
            return Ok(at + 1);
        }
    }
    Ok(revs.len())
}
