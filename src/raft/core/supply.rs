//! The supply of apply: which committed entries apply gets, and what its reports set free.
//!
//! Apply gets ranges of the committed log, as much at a time as it may hold. Further committed
//! entries stay in the log, and are read from there when apply has reported some of those it holds:
//! a member whose apply is slower than its leader keeps no second copy of the log in memory.

use std::collections::VecDeque;

use prost::Message as _;
use raft::StateRole;
use raft::eraftpb::{ConfChange, ConfState, Entry};

use super::{Committed, Core, Effect};
use crate::limits;
use crate::planted::{self, Bug};
use crate::raft::Error;
use crate::raft::log::SnapshotRecord;

/// Which entries apply may have, was given, and has not reported as applied.
pub(super) struct Supply {
    /// Apply may have the entries up to this one.
    released: u64,
    /// Apply was given the entries up to this one.
    given: u64,
    /// Batches that were given and not reported as applied: last index and bytes of each.
    unapplied_batches: VecDeque<(u64, u64)>,
    held_bytes: u64,
    /// Log writer jobs in order, each with the last entry that apply may have once the job is
    /// durable.
    delayed: VecDeque<(u64, u64)>,
    /// A snapshot that apply gets before any further entries.
    snapshot: Option<SnapshotRecord>,
}

impl Supply {
    pub(super) fn new(applied: u64) -> Self {
        Self {
            released: applied,
            given: applied,
            unapplied_batches: VecDeque::new(),
            held_bytes: 0,
            delayed: VecDeque::new(),
            snapshot: None,
        }
    }

    /// Entries up to this one are committed; apply may have them once the job is durable, if there
    /// is one to wait for.
    pub(super) fn commit(&mut self, last: u64, waits_for: Option<u64>) {
        match waits_for.or(self.delayed.back().map(|(job, _)| *job)) {
            Some(job) => self.delayed.push_back((job, last)),
            None => self.released = last,
        }
    }

    pub(super) fn durable(&mut self, number: u64) {
        while self.delayed.front().is_some_and(|(job, _)| *job <= number) {
            self.released = self.delayed.pop_front().map_or(self.released, |(_, last)| last);
        }
    }

    /// A snapshot has replaced the log: it includes the entries that apply was not given.
    pub(super) fn overtake(&mut self) {
        self.released = self.given;
        self.delayed.clear();
    }

    /// The record of that snapshot is durable.
    pub(super) fn install(&mut self, record: SnapshotRecord) {
        self.snapshot = Some(record);
    }

    /// Whether a snapshot or entries wait until apply has room.
    pub(super) fn waits(&self) -> bool {
        self.snapshot.is_some() || self.given < self.released
    }

    fn has_room(&self) -> bool {
        let has_room = self.unapplied_batches.len() < limits::APPLY_QUEUE_BATCHES_MAX
            && self.held_bytes < limits::APPLY_HELD_BYTES_MAX;
        has_room || planted::is(Bug::SupplyWithoutBound)
    }

    fn give(&mut self, last: u64, bytes: u64) {
        self.given = last;
        self.released = self.released.max(last);
        self.unapplied_batches.push_back((last, bytes));
        self.held_bytes += bytes;
    }

    fn applied(&mut self, index: u64) {
        while let Some((last, bytes)) = self.unapplied_batches.front()
            && *last <= index
        {
            self.held_bytes -= bytes;
            self.unapplied_batches.pop_front();
        }
    }
}

impl Core {
    /// Gives apply the entries, or the snapshot, that it has room for.
    pub(super) fn supply_apply(&mut self, effects: &mut Vec<Effect>) {
        if self.supply.has_room()
            && let Some(SnapshotRecord { index, term, conf_state }) = self.supply.snapshot.take()
        {
            self.supply.give(index, 0);
            let conf_state = conf_state.unwrap_or_default();
            effects.push(Effect::Commit(vec![Committed::Snapshot { index, term, conf_state }]));
        }
        while self.supply.has_room()
            && self.supply.snapshot.is_none()
            && self.supply.given < self.supply.released
        {
            let (after, released) = (self.supply.given, self.supply.released);
            let high = released.min(after + limits::APPLY_BATCH_ENTRIES_MAX) + 1;
            let store = self.raft.store();
            let entries = store.read(after + 1, high, limits::APPLY_BATCH_BYTES_MAX);
            let given = entries.and_then(|entries| {
                let bytes =
                    entries.iter().map(|entry| (entry.data.len() + size_of::<Entry>()) as u64);
                Ok((bytes.sum(), committed(entries)?))
            });
            match given {
                Ok((bytes, batch)) => {
                    self.supply.give(batch.last().map_or(after, Committed::index), bytes);
                    effects.push(Effect::Commit(batch));
                }
                Err(error) => return self.raft.store().fail(error),
            }
        }
    }

    /// How much waits in the core, by kind.
    pub fn waiting(&self) -> [(&'static str, usize); 4] {
        [
            ("jobs that are not durable", self.outstanding.len()),
            ("batches of apply", self.supply.unapplied_batches.len()),
            ("changes of the configuration", self.conf_changes.len()),
            ("reads of other members", self.forwarded.len()),
        ]
    }

    pub(super) fn applied(&mut self, index: u64, effects: &mut Vec<Effect>) {
        self.supply.applied(index);
        if index >= self.restored && self.applied_conf.0 < self.restored {
            self.applied_conf = (self.restored, self.conf_state());
        }
        let log = &self.raft.raft.raft_log;
        if index > log.applied && index <= log.committed.min(log.persisted) {
            self.raft.advance_apply_to(index);
        }
        if self.is_alone() && self.raft.raft.prs().iter().count() == 1 {
            self.raft.mut_store().evict(index);
        }
        self.release(effects);
    }

    /// The lowest index that some member heard from lately still needs, or will need after a
    /// snapshot that is being sent to it. Only a leader knows; on any other member it is
    /// `u64::MAX`.
    fn needed_by_peers(&self) -> u64 {
        let raft = &self.raft.raft;
        if raft.state != StateRole::Leader {
            return u64::MAX;
        }
        let needed = raft.prs().iter().filter(|(_, progress)| progress.recent_active);
        let needed = needed.map(|(_, progress)| progress.matched.max(progress.pending_snapshot));
        needed.min().map_or(u64::MAX, |index| index + 1)
    }

    /// Notes that the state on disk includes entry `index`, and compacts the log, after
    /// `snapshot_count` entries or as soon as that frees a whole segment. Entries that followers
    /// may still ask for stay; a member that is further behind gets a snapshot. A segment is
    /// removed with the last entry in it.
    ///
    /// Entries that apply has not reported stay, too. The store on disk may include them already,
    /// since it commits in the middle of a batch and apply reports at its end, but before each
    /// election raft looks at the entries after the last reported one.
    pub(super) fn durable(
        &mut self,
        index: u64,
        term: u64,
        conf_state: ConfState,
        effects: &mut Vec<Effect>,
    ) {
        let has_peers = self.raft.raft.prs().iter().len() > 1;
        let needed = self.needed_by_peers();
        let is_due = index >= self.compacted_at.saturating_add(self.config.snapshot_count);
        let applied = self.raft.raft.raft_log.applied;
        let store = self.raft.mut_store();
        store.durable = Some((index, term, conf_state.clone()));
        let table = &mut store.table;
        let mut below =
            if planted::is(Bug::CompactsUnapplied) { index } else { index.min(applied) };
        // A sole member keeps no entries for others: each start would have to read them.
        if has_peers {
            let (entries, segments) = match self.is_space_short {
                true => (0, 1),
                false => (self.config.catch_up_entries, limits::LOG_SEGMENTS_FOR_PEERS),
            };
            below = below.saturating_sub(entries);
            let kept = table.first_of_last_segments(segments);
            below = below.min(needed.max(kept));
        }
        let (Some(first), Some(kept)) = (table.place(table.first_index()), table.place(below))
        else {
            return;
        };
        let frees_segments = first.segment != kept.segment;
        if below <= table.first_index() || !(is_due || frees_segments) {
            return;
        }
        self.compacted_at = index;
        table.compact(below - 1);
        if frees_segments {
            store.release(kept.segment);
            let record = SnapshotRecord { index, term, conf_state: Some(conf_state) };
            effects.push(Effect::Purge { below, record });
        }
    }
}

/// Entries of the log, as apply takes them.
fn committed(entries: Vec<Entry>) -> Result<Vec<Committed>, Error> {
    let read = |entry: Entry| {
        let Entry { index, term, data, .. } = entry;
        match entry.entry_type {
            0 => Ok(Committed::Normal { index, term, data }),
            1 => match ConfChange::decode(data) {
                Ok(change) => Ok(Committed::ConfChange { index, term, change }),
                Err(error) => Err(Error::Entry { index, what: error.to_string() }),
            },
            other => Err(Error::Entry { index, what: format!("its type is {other}") }),
        }
    };
    entries.into_iter().map(read).collect()
}
