//! The log of a member at rest, read from its first record to its last and left as it is.

use std::path::Path;
use std::sync::Arc;

use super::Error;
use super::log::{self, Disk, Metadata, ReadOnlyDisk, Recovered, Repair};
use super::runtime::check;

/// A log whose records are all sound.
pub struct AtRest {
    pub metadata: Metadata,
    pub first: u64,
    pub last: u64,
    pub commit: u64,
    /// What a start would undo: a write that was interrupted at the log's end.
    pub repair: Option<Repair>,
    recovered: Recovered,
}

impl AtRest {
    pub fn read(dir: &Path) -> Result<Self, Error> {
        let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk);
        let options = log::Options { segment_bytes: 0, fill_ahead: false };
        let (_, _, recovered) = log::open(&disk, dir, options)?;
        Ok(Self {
            metadata: recovered.metadata,
            first: recovered.table.first_index(),
            last: recovered.table.last_index(),
            commit: recovered.hard_state.commit,
            repair: recovered.repair.clone(),
            recovered,
        })
    }

    /// Whether the log goes with a state that has applied this entry, of this term.
    pub fn goes_with(&self, applied: u64, term: u64) -> Result<(), Error> {
        check(self.metadata, applied, term, &self.recovered).map(drop)
    }
}
