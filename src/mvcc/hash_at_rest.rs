//! HashKV of rows that are in no running member, such as those of a snapshot file.

use super::hash::{Hasher, KeyValueHash, kept};
use super::restore::Restoring;
use super::{Compacted, Error};
use crate::limits;
use crate::store::Row;

/// The hash of rows at rest, such as those of a snapshot file; at revision 0, of all of them.
/// `scan` passes them on in revision order, and is called twice.
pub fn hash_rows<E: From<Error>>(
    compacted: Compacted,
    revision: i64,
    scan: impl Fn(&mut dyn FnMut(&Row) -> Result<(), Error>) -> Result<(), E>,
) -> Result<KeyValueHash, E> {
    let mut building = Restoring::default();
    scan(&mut |row| building.add(row))?;
    let index = building.into_index();
    let current = compacted.current(&index);
    if revision > 0 && revision < current.compact_revision {
        return Err(Error::Compacted.into());
    }
    if revision > current.revision {
        return Err(Error::FutureRev.into());
    }
    let revision = if revision == 0 { current.revision } else { revision };
    let keys_max = limits::INDEX_HOLD_KEYS_MAX;
    let kept = kept(revision, current.compact_revision, |start, at, keep| {
        Ok(index.visit_kept(start, at, keys_max, keep))
    })?;
    let mut hasher = Hasher::new(current.compact_revision, revision);
    scan(&mut |row| {
        hasher.add(row, |at| kept.contains(&at));
        Ok(())
    })?;
    Ok(hasher.finish())
}
