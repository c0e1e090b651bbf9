//! The log of a member at rest, read from its first record to its last and left as it is.

use std::path::Path;
use std::sync::Arc;

use raft::eraftpb::{ConfState, Entry, HardState};

use super::Error;
use super::log::{self, Disk, Metadata, ReadOnlyDisk, Reader, Recovered, Repair, Table};
use super::start::reconcile_with_applied;
use super::store::Store;
use crate::limits;

/// A log whose records are all sound.
pub struct AtRest {
    pub metadata: Metadata,
    pub first: u64,
    pub last: u64,
    pub commit: u64,
    /// An interrupted write at the log's end, which a start would undo.
    pub repair: Option<Repair>,
    recovered: Recovered,
    reader: Reader,
}

impl AtRest {
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk);
        let options = log::Options { segment_bytes: 0, fill_ahead: false };
        let (_, reader, recovered) = log::open(&disk, dir, options)?;
        Ok(Self {
            metadata: recovered.metadata,
            first: recovered.table.first_index(),
            last: recovered.table.last_index(),
            commit: recovered.hard_state.commit,
            repair: recovered.repair.clone(),
            recovered,
            reader,
        })
    }

    /// Checks that the log has the entry that a state has applied last, with the same term.
    pub fn check_applied(&self, applied: u64, term: u64) -> Result<(), Error> {
        reconcile_with_applied(self.metadata, applied, term, &self.recovered).map(drop)
    }

    /// Calls `each` for every entry after `applied`, in log order. The first refusal ends the walk
    /// with [`Error::Entry`].
    pub fn unapplied(
        self,
        applied: u64,
        each: impl FnMut(&Entry) -> Result<(), String>,
    ) -> Result<(), Error> {
        walk(self.recovered.table, self.reader, applied, each)
    }
}

/// Reads and checks the whole log of a member at rest, which has to have the entry `applied` with
/// the term `applied_term`, and calls `each` for every entry after that one. Returns the owner of
/// the log and its last index.
pub fn inspect(
    disk: &Arc<dyn Disk>,
    dir: &Path,
    applied: u64,
    applied_term: u64,
    each: impl FnMut(&Entry) -> Result<(), String>,
) -> Result<(Metadata, u64), Error> {
    let (_, reader, recovered) = log::open(disk, dir, log::Options::default())?;
    reconcile_with_applied(recovered.metadata, applied, applied_term, &recovered)?;
    let (metadata, last) = (recovered.metadata, recovered.table.last_index());
    walk(recovered.table, reader, applied, each)?;
    Ok((metadata, last))
}

fn walk(
    table: Table,
    reader: Reader,
    applied: u64,
    mut each: impl FnMut(&Entry) -> Result<(), String>,
) -> Result<(), Error> {
    let (mut next, last) = (table.first_index().max(applied + 1), table.last_index());
    let store = Store::new(table, HardState::default(), ConfState::default(), Some(reader));
    while next <= last {
        let entries = store.read(next, last + 1, limits::LOG_READ_BYTES)?;
        let Some(end) = entries.last().map(|entry| entry.index + 1).filter(|end| *end > next)
        else {
            return Err(Error::Entry { index: next, what: "it cannot be read".to_owned() });
        };
        for entry in &entries {
            let understood = each(entry);
            understood.map_err(|what| Error::Entry { index: entry.index, what })?;
        }
        next = end;
    }
    Ok(())
}
