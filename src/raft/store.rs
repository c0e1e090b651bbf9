//! The storage that the `raft` crate reads from: the log's table, backed by its segments.

use std::cell::RefCell;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{Error as RaftError, GetEntriesContext, RaftState, Storage, StorageError};

use super::Error;
use super::log::{Reader, Table};

/// The log in memory, and the state it was opened with.
pub struct Store {
    pub(super) table: Table,
    /// Index, term and configuration of the state on disk, which a snapshot would hold.
    pub(super) durable: Option<(u64, u64, ConfState)>,
    /// Whether raft needs only index, term and type of entries: those that have left memory are
    /// then given without their data, and nothing is read from disk.
    pub(super) omits_data: bool,
    reader: Option<RefCell<Reader>>,
    /// Why the log could not be read when raft asked for entries; the core looks here after each
    /// event.
    failure: RefCell<Option<Error>>,
    initial: RaftState,
}

impl Store {
    /// Without a reader only the entries in memory can be read, which suits a simulator.
    pub fn new(
        table: Table,
        hard_state: HardState,
        conf_state: ConfState,
        reader: Option<Reader>,
    ) -> Self {
        Self {
            table,
            durable: None,
            omits_data: false,
            reader: reader.map(RefCell::new),
            failure: RefCell::default(),
            initial: RaftState::new(hard_state, conf_state),
        }
    }

    /// Keeps the first error for which the member has to stop.
    pub(super) fn fail(&self, error: Error) {
        self.failure.borrow_mut().get_or_insert(error);
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failure.borrow().is_some()
    }

    pub(super) fn take_failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Drops the entries up to `index` from memory; they can still be read from disk.
    pub fn evict(&mut self, index: u64) {
        if self.reader.is_some() {
            self.table.evict_to(index);
        }
    }

    /// Entries without their data.
    fn without_data(&self, indexes: impl Iterator<Item = u64>) -> Vec<Entry> {
        let head = |index| {
            let entry_type = i32::from(self.table.changes(index, index + 1).next().is_some());
            let term = self.table.term(index).unwrap_or_default();
            Entry { index, term, entry_type, ..Entry::default() }
        };
        indexes.map(head).collect()
    }

    /// Closes an open segment below this one, which is about to be removed: an open file would keep
    /// its blocks.
    pub fn release(&self, below: u32) {
        if let Some(reader) = &self.reader {
            reader.borrow_mut().release(below);
        }
    }

    fn check_range(&self, low: u64, high: u64) -> raft::Result<()> {
        if low < self.table.first_index() {
            return Err(RaftError::Store(StorageError::Compacted));
        }
        if high > self.table.last_index() + 1 {
            return Err(RaftError::Store(StorageError::Unavailable));
        }
        Ok(())
    }

    /// Entries from `low` on and below `high`: as many as `bytes_max` allows, but at least one. May
    /// stop earlier, where the entries in memory begin.
    pub(super) fn read(&self, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>, Error> {
        self.check_range(low, high)?;
        let Some(recent) = self.table.recent(low) else {
            let high = high.min(self.table.recent_first());
            if !self.omits_data {
                return self.fetch(low, high, bytes_max);
            }
            let count = (bytes_max as usize / size_of::<Entry>()).max(1);
            return Ok(self.without_data((low..high).take(count)));
        };
        let mut entries = Vec::with_capacity((high - low).min(1024) as usize);
        let mut size = 0_u64;
        for entry in recent.take((high - low) as usize) {
            size = size.saturating_add(entry.data.len() as u64 + 24);
            if size > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn fetch(&self, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>, Error> {
        let unavailable = || RaftError::Store(StorageError::Unavailable);
        let reader = self.reader.as_ref().ok_or_else(unavailable)?;
        let wanted = (low..high)
            .map_while(|index| Some((index, self.table.term(index)?, self.table.place(index)?)));
        let entries = reader.borrow_mut().read(wanted, bytes_max)?;
        if entries.is_empty() { Err(unavailable().into()) } else { Ok(entries) }
    }
}

impl Storage for Store {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(self.initial.clone())
    }

    /// Raft asks without a limit only before an election, to find configuration changes that are
    /// not applied. It gets these alone, without their data and without a read from disk: all
    /// entries that are committed and not applied may not fit into memory.
    ///
    /// Raft panics at an error of the disk, so the error is kept for the core, which stops the
    /// member before any effect of this turn is carried out. Until then raft goes on as if the
    /// entries came later: none is sent to the follower that needs them, and none counts as given
    /// to apply.
    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let Some(bytes_max) = max_size.into() else {
            self.check_range(low, high)?;
            return Ok(self.without_data(self.table.changes(low, high)));
        };
        match self.read(low, high, bytes_max) {
            Ok(entries) => Ok(entries),
            Err(Error::Raft(error)) => Err(error),
            Err(error) => {
                self.fail(error);
                match context.can_async() {
                    true => Err(RaftError::Store(StorageError::LogTemporarilyUnavailable)),
                    false => Ok(Vec::new()),
                }
            }
        }
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        self.table.term(index).ok_or(RaftError::Store(if index < self.table.first_index() {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        }))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.table.first_index())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.table.last_index())
    }

    /// The state that a snapshot would hold at least: the one on disk. The snapshot's data is made
    /// when it is sent, beside raft's message, and may be newer.
    fn snapshot(&self, index_min: u64, _: u64) -> raft::Result<Snapshot> {
        let durable = self.durable.as_ref().filter(|(index, ..)| {
            *index > 0 && *index >= index_min && *index + 1 >= self.table.first_index()
        });
        let (index, term, conf_state) = durable
            .cloned()
            .ok_or(RaftError::Store(StorageError::SnapshotTemporarilyUnavailable))?;
        let conf_state = Some(conf_state);
        let metadata = Some(SnapshotMetadata { conf_state, index, term });
        Ok(Snapshot { metadata, ..Snapshot::default() })
    }
}
