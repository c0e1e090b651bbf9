//! Compaction: forget history below a revision, a little at a time.
//!
//! Applying a compaction only moves the compact revision, so every member does it at the same
//! entry. The sweep that follows is each member's own affair: wait for the reads that may still
//! look below, thin the index, hash the rows that were there, delete the dead ones. Each step
//! touches a bounded number of keys or rows. After a crash the sweep starts over from the rows
//! that are left.

use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::hash::{Hasher, KeyValueHash};
use super::index::Visit;
use super::{Error, Mvcc};
use crate::limits;
use crate::store::{Bucket, Row, schema};
use crate::types::Revision;

/// Rows that are looked at together to decide whether their survivors move closer.
const GROUP_ROWS: usize = 64;
/// Survivors of a group are written anew if this many of it die: below it, the pages stay full
/// enough, and writing all of history again at each compaction would cost more than it frees.
const GROUP_DEAD_MIN: usize = GROUP_ROWS / 4;

/// A sweep in progress.
pub struct Compaction {
    revision: i64,
    previous: i64,
    /// Whether the sweep before this one ended, so that this one hashes all that it should.
    is_hash_whole: bool,
    phase: Phase,
    /// Which of the states that replaced one another it belongs to.
    state: u64,
}

enum Phase {
    /// Readers from before the compaction may still look at what it dooms.
    Wait(Arc<()>),
    Index {
        start: Box<[u8]>,
        dead: Vec<Revision>,
        survivors: u64,
    },
    Hash(Box<Scan>),
    Delete {
        done: oneshot::Receiver<()>,
        deleted: usize,
        hash: KeyValueHash,
    },
}

/// One pass over the rows up to the compaction, in revision order.
struct Scan {
    dead: Vec<Revision>,
    /// Position in `dead` of the first revision that the pass has not reached.
    next_dead: usize,
    from: Revision,
    hasher: Hasher,
    is_any_kept: bool,
    /// The rows of the current group and whether each dies.
    group: Vec<(Revision, bool)>,
    survivors: Vec<Revision>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum CompactionStep {
    /// Nothing could be done yet; ask again soon.
    Waiting,
    /// A piece of the index was thinned; go on.
    Thinned,
    /// A piece of history was read; go on after the pause between batches.
    More,
    Done {
        deleted: usize,
        hash: KeyValueHash,
    },
}

impl Mvcc {
    /// Applies a compaction. The caller then runs the sweep.
    pub fn compact(&self, revision: i64) -> Result<Compaction, Error> {
        let written = self.written();
        if revision <= written.compact_revision {
            return Err(Error::Compacted);
        }
        if revision > written.revision {
            return Err(Error::FutureRev);
        }
        self.compacted.store(revision, Ordering::Release);
        let scheduled = schema::revision_bytes(Revision::new(revision, 0)).to_vec();
        self.store.put(Bucket::Meta, schema::SCHEDULED_COMPACT.to_vec(), scheduled);
        Ok(self.sweep(revision, written.compact_revision))
    }

    pub(super) fn sweep(&self, revision: i64, previous: i64) -> Compaction {
        let is_hash_whole = self.sweeps_open.fetch_add(1, Ordering::AcqRel) == 0;
        let phase = Phase::Wait(Arc::new(()));
        let state = *self.replaced.read();
        Compaction { revision, previous, is_hash_whole, phase, state }
    }
}

impl Compaction {
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Hands the sweep over to the state that takes this one's.
    pub fn belong_to(&mut self, mvcc: &Mvcc) {
        self.state = *mvcc.replaced.read();
    }

    pub(super) fn forget_hash(&mut self) {
        self.is_hash_whole = false;
    }

    /// Starts to wait for readers. Must come after the compact revision was published.
    pub fn arm(&mut self, mvcc: &Mvcc) {
        if let Phase::Wait(epoch) = &mut self.phase {
            *epoch = take(&mut *mvcc.epoch.lock());
            let mut older = mvcc.older_epochs.lock();
            older.retain(|epoch| epoch.strong_count() > 0);
            older.push(Arc::downgrade(epoch));
        }
    }

    /// Does a bounded piece of work.
    pub fn step(&mut self, mvcc: &Mvcc) -> Result<CompactionStep, Error> {
        let state = mvcc.replaced.read();
        if *state != self.state {
            return Err(Error::Stopped);
        }
        match &mut self.phase {
            Phase::Wait(epoch) => {
                if Arc::strong_count(epoch) > 1 {
                    return Ok(CompactionStep::Waiting);
                }
                let (start, dead) = (Box::default(), Vec::new());
                self.phase = Phase::Index { start, dead, survivors: 0 };
            }
            Phase::Index { start, dead, survivors } => {
                let keys_max = limits::INDEX_COMPACT_KEYS_MAX;
                let mut index = mvcc.index.write();
                let visit = index.compact(start, self.revision, keys_max, dead, survivors);
                drop(index);
                match visit {
                    Visit::Next(next) => {
                        *start = next;
                        return Ok(CompactionStep::Thinned);
                    }
                    Visit::Done => {
                        let mut dead = take(dead);
                        dead.sort_unstable();
                        let is_any_kept = *survivors > 0;
                        self.phase = Phase::Hash(Box::new(self.scan(dead, is_any_kept)));
                    }
                }
            }
            Phase::Hash(scan) => {
                let rows = mvcc.rows(scan.from, self.revision)?;
                if rows.is_empty() {
                    self.phase = scan.delete(mvcc, self.revision);
                } else {
                    scan.add(&rows);
                }
            }
            Phase::Delete { done, deleted, hash } => match done.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => return Ok(CompactionStep::Waiting),
                Err(oneshot::error::TryRecvError::Closed) => return Err(Error::Stopped),
                Ok(()) => {
                    if self.is_hash_whole {
                        mvcc.remember_hash(*hash);
                    }
                    mvcc.sweeps_open.fetch_sub(1, Ordering::AcqRel);
                    return Ok(CompactionStep::Done { deleted: *deleted, hash: *hash });
                }
            },
        }
        Ok(CompactionStep::More)
    }

    fn scan(&self, dead: Vec<Revision>, is_any_kept: bool) -> Scan {
        Scan {
            dead,
            next_dead: 0,
            from: Revision::default(),
            hasher: Hasher::new(self.previous, self.revision),
            is_any_kept,
            group: Vec::with_capacity(GROUP_ROWS),
            survivors: Vec::new(),
        }
    }
}

impl Scan {
    /// Hands the dead rows to the committer, which deletes them a few in each of its commits.
    fn delete(&mut self, mvcc: &Mvcc, revision: i64) -> Phase {
        self.close_group();
        let (dead, survivors) = (take(&mut self.dead), take(&mut self.survivors));
        let (deleted, hash) = (dead.len(), self.hasher.finish());
        let done = mvcc.store.delete_rows(dead, survivors, revision);
        Phase::Delete { done, deleted, hash }
    }

    fn add(&mut self, rows: &[Row]) {
        for row in rows {
            while self.dead.get(self.next_dead).is_some_and(|dead| *dead < row.rev) {
                self.next_dead += 1;
            }
            let is_dead = self.dead.get(self.next_dead) == Some(&row.rev);
            self.hasher.add(row, |_| !self.is_any_kept || !is_dead);
            self.group.push((row.rev, is_dead));
            if self.group.len() == GROUP_ROWS {
                self.close_group();
            }
            self.from = Revision::new(row.rev.main, row.rev.sub + 1);
        }
    }

    fn close_group(&mut self) {
        let dead = self.group.iter().filter(|(_, is_dead)| *is_dead).count();
        let survivors = self.group.drain(..).filter(|(_, is_dead)| !*is_dead);
        if dead >= GROUP_DEAD_MIN {
            self.survivors.extend(survivors.map(|(revision, _)| revision));
        }
    }
}
