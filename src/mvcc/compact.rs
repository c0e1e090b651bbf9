//! Compaction: removing history below a revision, in small steps.
//!
//! Applying a compaction only moves the compact revision, so every member does it at the same
//! entry. The sweep that follows is local to each member: it waits for the reads that may still
//! look below the revision, removes doomed revisions from the index, hashes the rows that were
//! there, and deletes the doomed ones. Each step touches a bounded number of keys or rows. After a
//! crash the sweep starts over from the rows that are left. If the index came from a checkpoint
//! that was written during the sweep, it lacks rows that are still in the store: such orphans are
//! found row by row, and deleted with the others.
//!
//! Compactions that wait while an earlier one is swept become one sweep: a later compaction removes
//! all that an earlier one does. But each has its own hash, which HashKV answers and members
//! compare. So the one pass notes for each row which compaction dooms it, and computes the hashes
//! of the newest compactions side by side. They equal those that separate sweeps would give.

use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;

use super::doomed::DoomedRevisions;
use super::hash::{Hasher, KeyValueHash};
use super::index::{Index, Visit};
use super::kv::Pair;
use super::{Error, Mvcc};
use crate::limits;
use crate::store::{Bucket, Row, schema};
use crate::types::Revision;

/// Rows in one group, for which it is decided together whether the survivors are written anew.
const GROUP_ROWS: usize = 64;
/// The survivors of a group are written anew if at least this many of its rows die. With fewer, the
/// pages stay full enough, and writing all of history again at each compaction would cost more than
/// it frees.
const GROUP_DEAD_MIN: usize = GROUP_ROWS / 4;

/// The sweep of one compaction, or of several that waited together.
pub struct Sweep {
    /// Compact revision before the first of `points`, as that point's hash takes it.
    previous: i64,
    /// In ascending order; the last one dooms everything that the others do.
    points: Vec<Point>,
    phase: Phase,
    /// Value of `Mvcc::replaced` that it belongs to: after a replacement of the state, the sweep is
    /// void.
    state: u64,
    /// See [`Sweep::expect_orphans`].
    expects_orphans: bool,
}

struct Point {
    revision: i64,
    /// Whether its hash is remembered: only if no row that it covers may be missing.
    is_hash_whole: bool,
}

enum Phase {
    /// Waits until no view holds one of these epochs: such views may still read doomed rows.
    Wait(Vec<Arc<()>>),
    Index {
        start: Box<[u8]>,
        doomed: DoomedRevisions,
    },
    Hash(Box<Scan>),
    Delete {
        done: oneshot::Receiver<()>,
        deleted: usize,
        hashes: Vec<KeyValueHash>,
    },
}

/// One pass over the rows up to the last compaction, in revision order.
struct Scan {
    doomed: DoomedRevisions,
    from: Revision,
    /// Rows without a revision in the index, of those read so far.
    orphans: Vec<Revision>,
    hashers: Vec<Hasher>,
    /// The rows of the current group, and whether each dies.
    group: Vec<(Revision, bool)>,
    survivors: Vec<Revision>,
    /// Rows read since the caller rested last.
    batch: usize,
}

/// The result of one step of a sweep.
#[derive(Debug, PartialEq, Eq)]
pub enum SweepStep {
    /// Nothing could be done: readers, or the committer, are waited for.
    Waiting,
    /// Readers are gone, and the index is next.
    Begun,
    /// Some keys of the index were compacted.
    Thinned,
    /// Some rows of a batch were read.
    Part,
    /// A batch of rows was read, or as many bytes as are read at once; the caller rests for the
    /// pause between batches.
    More,
    /// The last batch of rows was read, and those that die are with the committer.
    Read,
    Done {
        deleted: usize,
        hash: KeyValueHash,
    },
}

impl Mvcc {
    /// Applies a compaction: moves the compact revision and returns the sweep, which the caller
    /// runs. Called on the apply thread.
    pub fn compact(&self, revision: i64) -> Result<Sweep, Error> {
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

    /// A sweep of the compaction at `revision`, after one at `previous`.
    pub(super) fn sweep(&self, revision: i64, previous: i64) -> Sweep {
        let points = vec![Point { revision, is_hash_whole: true }];
        let state = *self.replaced.read();
        let phase = Phase::Wait(Vec::new());
        Sweep { previous, points, phase, state, expects_orphans: false }
    }
}

impl Sweep {
    /// Revision of the newest compaction of the sweep.
    pub fn revision(&self) -> i64 {
        self.points.last().map_or(self.previous, |point| point.revision)
    }

    /// Whether its hash is remembered once it is done.
    pub fn keeps_hash(&self) -> bool {
        self.points.last().is_some_and(|point| point.is_hash_whole)
    }

    /// If only the deletion is left, makes the store commit it at once: a caller waits for this
    /// sweep, and would otherwise also wait for the commit interval.
    pub fn hurry(&self, mvcc: &Mvcc) {
        if matches!(self.phase, Phase::Delete { .. }) {
            mvcc.store.delete_now();
        }
    }

    /// Ends the answers in pieces for which the sweep has waited for `max`. Returns how many there
    /// were.
    pub fn end_pins(&self, mvcc: &Mvcc, now: Duration, max: Duration) -> usize {
        let Phase::Wait(epochs) = &self.phase else { return 0 };
        let is_waited_for =
            |epoch: &Arc<()>| epochs.iter().any(|waited| Arc::ptr_eq(waited, epoch));
        mvcc.pins.end_waited(now, max, is_waited_for)
    }

    /// Makes the sweep valid for the state that has just replaced another.
    pub fn rebind(&mut self, mvcc: &Mvcc) {
        self.state = *mvcc.replaced.read();
    }

    /// Makes the sweep look for orphans: an earlier attempt may have removed revisions from the
    /// index, and a checkpoint was written before their rows were deleted.
    pub(super) fn expect_orphans(&mut self) {
        self.expects_orphans = true;
    }

    /// Keeps the hashes of this sweep from being remembered.
    pub(super) fn forget_hash(&mut self) {
        for point in &mut self.points {
            point.is_hash_whole = false;
        }
    }

    /// Takes the epoch of the current views, to wait for them. Must be called after the compact
    /// revision was published, so that later views cannot read doomed rows.
    pub fn take_epoch(&mut self, mvcc: &Mvcc) {
        if let Phase::Wait(epochs) = &mut self.phase {
            let epoch = take(&mut *mvcc.epoch.lock());
            let mut older = mvcc.older_epochs.lock();
            older.retain(|epoch| epoch.strong_count() > 0);
            older.push(Arc::downgrade(&epoch));
            epochs.push(epoch);
        }
    }

    /// Adds a later compaction, before the first step is taken. If there are very many, the oldest
    /// lose their hashes: they would be pushed out by the newer ones anyway.
    pub fn absorb(&mut self, later: Self) {
        let Phase::Wait(epochs) = &mut self.phase else { return };
        let Phase::Wait(newer) = later.phase else { return };
        if self.state != later.state {
            // The state that this sweep belongs to was replaced.
            *self = Self { phase: Phase::Wait(newer), ..later };
            return;
        }
        epochs.extend(newer);
        epochs.retain(is_seen);
        self.points.extend(later.points);
        // One compaction more than hashes are kept: the hash of the first that is kept must leave
        // out the rows that died with the one before it.
        let excess = self.points.len().saturating_sub(limits::COMPACTION_HASHES_KEPT + 1);
        let last = self.points.drain(..excess).next_back();
        if let Some(last) = last {
            self.previous = last.revision;
            self.points[0].is_hash_whole = false;
        }
    }

    /// Does a bounded piece of work. A batch has `batch_rows`. After a local error, other than
    /// `Error::Stopped`, the same step can be tried again.
    pub fn step(&mut self, mvcc: &Mvcc, batch_rows: usize) -> Result<SweepStep, Error> {
        let state = mvcc.replaced.read();
        if *state != self.state {
            return Err(Error::Stopped);
        }
        let revision = self.revision();
        match &mut self.phase {
            Phase::Wait(epochs) => {
                epochs.retain(is_seen);
                if !epochs.is_empty() {
                    return Ok(SweepStep::Waiting);
                }
                let doomed = DoomedRevisions::new(self.points.iter().map(|point| point.revision));
                self.phase = Phase::Index { start: Box::default(), doomed };
                Ok(SweepStep::Begun)
            }
            Phase::Index { start, doomed } => {
                let keys_max = limits::INDEX_COMPACT_KEYS_MAX;
                let mut index = mvcc.index.write();
                let visit = index.compact(start, keys_max, doomed);
                drop(index);
                match visit {
                    Visit::Next(next) => *start = next,
                    Visit::Done => {
                        let doomed =
                            std::mem::replace(doomed, DoomedRevisions::new(std::iter::empty()));
                        self.phase = Phase::Hash(Box::new(self.scan(doomed)));
                    }
                }
                Ok(SweepStep::Thinned)
            }
            Phase::Hash(scan) => {
                let rows_max = limits::READ_CHUNK_ROWS.min(batch_rows - scan.batch);
                let rows = mvcc.rows(scan.from, revision, rows_max)?;
                if self.expects_orphans {
                    scan.find_orphans(&mvcc.index.read(), &rows)?;
                }
                scan.add(&rows);
                let bytes: usize = rows.iter().map(|row| row.kv.len()).sum();
                scan.batch += rows.len();
                if scan.batch >= batch_rows || bytes >= limits::READ_CHUNK_BYTES {
                    scan.batch = 0;
                    return Ok(SweepStep::More);
                }
                if rows.len() >= rows_max {
                    return Ok(SweepStep::Part);
                }
                self.phase = scan.delete(mvcc, revision);
                Ok(SweepStep::Read)
            }
            Phase::Delete { done, deleted, hashes } => match done.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => Ok(SweepStep::Waiting),
                Err(oneshot::error::TryRecvError::Closed) => Err(Error::Stopped),
                Ok(()) => {
                    for (point, hash) in self.points.iter().zip(&*hashes) {
                        if point.is_hash_whole {
                            mvcc.remember_hash(*hash);
                        }
                    }
                    mvcc.swept.store(revision, Ordering::Release);
                    let hash = hashes.last().copied().ok_or(Error::Stopped)?;
                    Ok(SweepStep::Done { deleted: *deleted, hash })
                }
            },
        }
    }

    fn scan(&self, mut doomed: DoomedRevisions) -> Scan {
        doomed.sort();
        let mut previous = self.previous;
        let hasher = |point: &Point| {
            let hasher = Hasher::new(previous, point.revision);
            previous = point.revision;
            hasher
        };
        Scan {
            doomed,
            from: Revision::default(),
            orphans: Vec::new(),
            hashers: self.points.iter().map(hasher).collect(),
            group: Vec::with_capacity(GROUP_ROWS),
            survivors: Vec::new(),
            batch: 0,
        }
    }
}

/// Whether a view still holds this epoch, of which the sweep holds one reference.
fn is_seen(epoch: &Arc<()>) -> bool {
    Arc::strong_count(epoch) > 1
}

impl Scan {
    /// Hands the dead rows to the committer, which deletes a part of them with each commit.
    fn delete(&mut self, mvcc: &Mvcc, revision: i64) -> Phase {
        self.close_group();
        let dead = self.doomed.points.iter_mut().map(|point| take(&mut point.dead));
        let dead = dead.reduce(|mut all, dead| {
            all.extend(dead);
            all
        });
        let (mut dead, survivors) = (dead.unwrap_or_default(), take(&mut self.survivors));
        dead.append(&mut self.orphans);
        let deleted = dead.len();
        let hashes = self.hashers.iter().map(|hasher| hasher.finish()).collect();
        let done = mvcc.store.delete_rows(dead, survivors, revision);
        Phase::Delete { done, deleted, hashes }
    }

    /// Notes the orphans among the next rows: those that no key of the index has and that this
    /// sweep has not doomed itself.
    fn find_orphans(&mut self, index: &Index, rows: &[Row]) -> Result<(), Error> {
        let mut found = Vec::new();
        for row in rows {
            let is_known = index.holds(Pair::parse(&row.kv)?.key, row.rev);
            if !is_known && !self.doomed.has(row.rev) {
                found.push(row.rev);
            }
        }
        self.orphans.append(&mut found);
        Ok(())
    }

    fn add(&mut self, rows: &[Row]) {
        for row in rows {
            let is_orphan = self.orphans.binary_search(&row.rev).is_ok();
            let fate = self.doomed.of(row.rev).or(is_orphan.then_some(0));
            // Separate sweeps of later compactions would not find the row any more, so their hashes
            // leave it out.
            let sees_it = fate.map_or(self.hashers.len(), |fate| fate + 1);
            for (at, hasher) in self.hashers[..sees_it].iter_mut().enumerate() {
                let is_any_kept = self.doomed.points[at].is_any_kept;
                hasher.add(row, |_| !is_any_kept || fate != Some(at));
            }
            self.group.push((row.rev, fate.is_some()));
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

#[cfg(test)]
mod tests;
