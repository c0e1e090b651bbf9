//! Compaction: forget history below a revision, a little at a time.
//!
//! Applying a compaction only moves the compact revision, so every member does it at the same
//! entry. The sweep that follows is each member's own affair: wait for the reads that may still
//! look below, thin the index, hash the rows that were there, delete the dead ones. Each step
//! touches a bounded number of keys or rows. After a crash the sweep starts over from the rows
//! that are left.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::hash::{Hasher, KeyValueHash};
use super::index::Visit;
use super::{Error, Mvcc};
use crate::limits;
use crate::store::schema;
use crate::types::Revision;

/// A sweep in progress.
pub struct Compaction {
    revision: i64,
    previous: i64,
    /// Whether the sweep before this one ended, so that this one hashes all that it should.
    is_hash_whole: bool,
    phase: Phase,
    deleted: usize,
}

enum Phase {
    /// Readers from before the compaction may still look at what it dooms.
    Wait(Arc<()>),
    Index { start: Box<[u8]>, dead: Vec<Revision>, survivors: u64 },
    Hash { dead: Vec<Revision>, doomed: HashSet<Revision>, from: Revision, hasher: Hasher, is_any_kept: bool },
    Delete { dead: Vec<Revision>, next: usize, hash: KeyValueHash },
}

#[derive(Debug, PartialEq, Eq)]
pub enum CompactionStep {
    /// Nothing could be done yet; ask again soon.
    Waiting,
    More,
    Done { deleted: usize, hash: KeyValueHash },
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
        let scheduled = schema::compact_revision_value(revision);
        self.store.put_meta(schema::SCHEDULED_COMPACT_REVISION, scheduled);
        Ok(self.sweep(revision, written.compact_revision))
    }

    pub(super) fn sweep(&self, revision: i64, previous: i64) -> Compaction {
        let is_hash_whole = self.sweeps_open.fetch_add(1, Ordering::AcqRel) == 0;
        let phase = Phase::Wait(Arc::new(()));
        Compaction { revision, previous, is_hash_whole, phase, deleted: 0 }
    }
}

impl Compaction {
    pub fn revision(&self) -> i64 {
        self.revision
    }

    pub(super) fn forget_hash(&mut self) {
        self.is_hash_whole = false;
    }

    /// Starts to wait for readers. Must come after the compact revision was published.
    pub fn arm(&mut self, mvcc: &Mvcc) {
        if let Phase::Wait(epoch) = &mut self.phase {
            *epoch = std::mem::take(&mut *mvcc.epoch.lock());
        }
    }

    /// Does a bounded piece of work.
    pub fn step(&mut self, mvcc: &Mvcc) -> Result<CompactionStep, Error> {
        match &mut self.phase {
            Phase::Wait(epoch) => {
                if Arc::strong_count(epoch) > 1 {
                    return Ok(CompactionStep::Waiting);
                }
                let (start, dead) = (Box::default(), Vec::new());
                self.phase = Phase::Index { start, dead, survivors: 0 };
            }
            Phase::Index { start, dead, survivors } => {
                let keys_max = limits::INDEX_HOLD_KEYS_MAX;
                let mut index = mvcc.index.write();
                let visit = index.compact(start, self.revision, keys_max, dead, survivors);
                drop(index);
                match visit {
                    Visit::Next(next) => *start = next,
                    Visit::Done => {
                        let mut dead = std::mem::take(dead);
                        dead.sort_unstable();
                        let is_any_kept = *survivors > 0;
                        self.phase = self.hash_phase(dead, is_any_kept);
                    }
                }
            }
            Phase::Hash { dead, doomed, from, hasher, is_any_kept } => {
                let to = Revision::new(self.revision, i64::MAX);
                let rows_max = limits::READ_CHUNK_ROWS;
                let rows = mvcc.store.scan(*from, to, rows_max, limits::READ_CHUNK_BYTES)?;
                for row in &rows {
                    hasher.add(row, |at| !*is_any_kept || !doomed.contains(&at));
                }
                match rows.last() {
                    Some(last) => *from = Revision::new(last.rev.main, last.rev.sub + 1),
                    None => {
                        let (dead, hash) = (std::mem::take(dead), hasher.finish());
                        self.phase = Phase::Delete { dead, next: 0, hash };
                    }
                }
            }
            Phase::Delete { dead, next, hash } => {
                if *next == dead.len() {
                    let finished = schema::compact_revision_value(self.revision);
                    mvcc.store.put_meta(schema::FINISHED_COMPACT_REVISION, finished);
                    if self.is_hash_whole {
                        mvcc.remember_hash(*hash);
                    }
                    mvcc.sweeps_open.fetch_sub(1, Ordering::AcqRel);
                    return Ok(CompactionStep::Done { deleted: self.deleted, hash: *hash });
                }
                let end = dead.len().min(*next + limits::COMPACTION_ROWS_MAX);
                mvcc.store.delete_rows(&dead[*next..end])?;
                self.deleted += end - *next;
                *next = end;
            }
        }
        Ok(CompactionStep::More)
    }

    fn hash_phase(&self, dead: Vec<Revision>, is_any_kept: bool) -> Phase {
        let is_old = |revision: &&Revision| revision.main <= self.previous;
        let doomed = dead.iter().take_while(is_old).copied().collect();
        let hasher = Hasher::new(self.previous, self.revision);
        Phase::Hash { dead, doomed, from: Revision::default(), hasher, is_any_kept }
    }
}
