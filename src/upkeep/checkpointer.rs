//! The index checkpoint, written piece by piece while the member works.
//!
//! It is written on the sweeper's thread, between two steps of a sweep, because a sweep may not
//! thin the index while it is being written. A sweep that waits, or fails for ever, does not stop
//! the checkpoint. Apply waits for a piece no longer than for a reader of a few keys. The file
//! replaces the old one only after the store has made durable everything that it contains.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::clock::Clock;
use crate::go;
use crate::lease::Lessor;
use crate::limits;
use crate::mvcc::{Current, IndexPass, Mvcc, write_attachment, write_attachments_end};
use crate::store::{self, CheckpointWriter, Store};

/// How long the checkpointer sleeps between two looks at whether the committer is done.
const WAIT: Duration = Duration::from_millis(2);
/// The pause after a checkpoint is at least this many times the time that writing it took.
const REST_FACTOR: u32 = 10;

/// How often the checkpoint is written.
#[derive(Clone, Copy, Debug)]
pub struct CheckpointPace {
    /// A checkpoint is due once a start would have to read this many rows that came after the last
    /// one.
    pub rows: u64,
    /// The shortest time between two checkpoints.
    pub interval: Duration,
    /// The pause between two pieces of one checkpoint.
    pub pause: Duration,
}

impl Default for CheckpointPace {
    fn default() -> Self {
        Self {
            rows: limits::CHECKPOINT_ROWS,
            interval: limits::CHECKPOINT_INTERVAL,
            pause: limits::CHECKPOINT_PAUSE,
        }
    }
}

/// Writes the index checkpoint. Owned by the sweeper's thread.
pub struct Checkpointer {
    store: Arc<Store>,
    mvcc: Arc<Mvcc>,
    lessor: Arc<Mutex<Lessor>>,
    clock: Arc<dyn Clock>,
    pace: CheckpointPace,
    /// Rows that came after the checkpoint in force, as of `rows_pushed`.
    rows_behind: u64,
    /// The store's count of pushed rows when `rows_behind` was set.
    rows_pushed: u64,
    /// Revision of the checkpoint in force; less than any other if there is none.
    revision: i64,
    /// The time before which no other checkpoint begins.
    rest_until: Duration,
    work: Option<Work>,
}

struct Work {
    started: Duration,
    current: Current,
    rows_pushed: u64,
    file: CheckpointWriter,
    phase: Phase,
}

enum Phase {
    Index(IndexPass),
    Attachments {
        leases: std::vec::IntoIter<i64>,
        /// The lease under way, and its key that was written last.
        at: Option<(i64, Option<Bytes>)>,
    },
    /// Waits until the store has committed everything that the checkpoint contains.
    Durable {
        pushed: u64,
    },
}

impl Checkpointer {
    /// `used` is the revision of the checkpoint that this start has loaded, and the number of rows
    /// that it read besides; without a checkpoint, all rows.
    pub fn new(
        store: Arc<Store>,
        mvcc: Arc<Mvcc>,
        lessor: Arc<Mutex<Lessor>>,
        clock: Arc<dyn Clock>,
        pace: CheckpointPace,
        checkpoint_used: (i64, u64),
    ) -> Self {
        let (revision, rows_behind) = checkpoint_used;
        let rest_until = clock.now() + pace.interval;
        let rows_pushed = store.rows_pushed();
        Self {
            store,
            mvcc,
            lessor,
            clock,
            pace,
            rows_behind,
            rows_pushed,
            revision,
            rest_until,
            work: None,
        }
    }

    /// Whether the index is being written, so that no sweep may thin it. Apply may add to it.
    pub(super) fn needs_index(&self) -> bool {
        self.work.as_ref().is_some_and(|work| matches!(work.phase, Phase::Index(_)))
    }

    /// Writes a checkpoint and blocks until it is in force or failed. For a stop: nothing may be
    /// applied any more.
    pub(super) fn write_now(&mut self) {
        self.work = None;
        self.begin();
        while self.work.is_some() {
            if self.turn() == Some(WAIT) {
                std::thread::sleep(WAIT);
            }
        }
    }

    /// Does a bounded piece of work. Returns the pause after it; None if no checkpoint is due.
    pub(super) fn turn(&mut self) -> Option<Duration> {
        if self.work.is_none() && self.is_due() {
            self.begin();
        }
        let work = self.work.as_mut()?;
        match work.step(&self.store, &self.mvcc, &self.lessor) {
            Ok(Step::More) => Some(self.pace.pause),
            Ok(Step::Waiting) => Some(WAIT),
            Ok(Step::Durable(index)) => {
                self.publish(index);
                Some(Duration::ZERO)
            }
            Err(error) => {
                self.give_up(&error);
                Some(Duration::ZERO)
            }
        }
    }

    fn is_due(&mut self) -> bool {
        if self.clock.now() < self.rest_until {
            return false;
        }
        let rows_behind = self.rows_behind + self.store.rows_pushed() - self.rows_pushed;
        // A checkpoint older than the last compaction cannot be loaded, so a start would read all
        // rows.
        let is_useless = self.mvcc.current().compact_revision > self.revision;
        let other_rows = if is_useless { self.mvcc.keys() as u64 } else { 0 };
        rows_behind.max(other_rows) >= self.pace.rows
    }

    fn begin(&mut self) {
        // A start can do without a checkpoint; the last space of a full disk is needed for the log
        // and the store.
        if !self.store.room().fits(0) {
            return;
        }
        let pass = IndexPass::new(&self.mvcc);
        match self.store.begin_checkpoint() {
            Ok(file) => {
                let (current, started) = (pass.current(), self.clock.now());
                let rows_pushed = self.store.rows_pushed();
                let phase = Phase::Index(pass);
                self.work = Some(Work { started, current, rows_pushed, file, phase });
            }
            Err(error) => self.give_up(&error),
        }
    }

    fn publish(&mut self, consistent_index: u64) {
        let Some(Work { started, current, rows_pushed, file, .. }) = self.work.take() else {
            return;
        };
        let (revision, compact_revision) = (current.revision, current.compact_revision);
        if let Err(error) = file.publish(consistent_index, revision, compact_revision) {
            self.give_up(&error);
            return;
        }
        let now = self.clock.now();
        let took = now.saturating_sub(started);
        tracing::info!(revision, took = go::duration(took), "index checkpoint written");
        self.revision = revision;
        (self.rows_behind, self.rows_pushed) = (0, rows_pushed);
        self.rest_until = now + self.pace.interval.max(took * REST_FACTOR);
    }

    /// Abandons the checkpoint under way. Harmless: the next start reads the rows instead.
    fn give_up(&mut self, error: &store::Error) {
        tracing::warn!(%error, "the index checkpoint could not be written");
        self.work = None;
        self.rest_until = self.clock.now() + self.pace.interval;
    }
}

/// Makes everything that was applied durable, writes the index checkpoint and closes the store.
/// Blocks.
pub fn close_store(
    store: &Arc<Store>,
    mvcc: &Arc<Mvcc>,
    lessor: &Arc<Mutex<Lessor>>,
    clock: Arc<dyn Clock>,
) -> Result<(), store::Error> {
    store.flush()?;
    let (open, mvcc, lessor) = (Arc::clone(store), Arc::clone(mvcc), Arc::clone(lessor));
    Checkpointer::new(open, mvcc, lessor, clock, CheckpointPace::default(), (-1, 0)).write_now();
    store.close()
}

enum Step {
    More,
    Waiting,
    /// Everything is written to the file, and the store is durable up to this index.
    Durable(u64),
}

impl Work {
    fn step(
        &mut self,
        store: &Store,
        mvcc: &Mvcc,
        lessor: &Mutex<Lessor>,
    ) -> Result<Step, store::Error> {
        let mut bytes = Vec::new();
        match &mut self.phase {
            Phase::Index(pass) => {
                if !pass.step(mvcc, &mut bytes) {
                    let leases: Vec<i64> = lessor.lock().ids().collect();
                    self.phase = Phase::Attachments { leases: leases.into_iter(), at: None };
                }
            }
            Phase::Attachments { leases, at } => {
                if !write_attachments(&lessor.lock(), leases, at, &mut bytes) {
                    write_attachments_end(&mut bytes);
                    self.phase = Phase::Durable { pushed: store.seal_of_pushed() };
                }
            }
            Phase::Durable { pushed } => {
                let index = store.durable_after(*pushed);
                return Ok(index.map_or(Step::Waiting, Step::Durable));
            }
        }
        self.file.write(&bytes)?;
        Ok(Step::More)
    }
}

/// Writes the next keys of leases, a bounded number of them; false at the end.
fn write_attachments(
    lessor: &Lessor,
    leases: &mut std::vec::IntoIter<i64>,
    at: &mut Option<(i64, Option<Bytes>)>,
    out: &mut Vec<u8>,
) -> bool {
    let mut looked_at = 0;
    while looked_at < limits::INDEX_HOLD_KEYS_MAX && out.len() < limits::CHECKPOINT_STEP_BYTES {
        let Some((lease, after)) = at else {
            let Some(lease) = leases.next() else { return false };
            looked_at += 1;
            *at = Some((lease, None));
            continue;
        };
        let mut last = None;
        for key in lessor.keys_after(*lease, after.as_ref()) {
            write_attachment(key, *lease, out);
            looked_at += 1;
            last = Some(key.clone());
            let is_full = out.len() >= limits::CHECKPOINT_STEP_BYTES;
            if looked_at >= limits::INDEX_HOLD_KEYS_MAX || is_full {
                break;
            }
        }
        match last {
            Some(key) => *after = Some(key),
            None => *at = None,
        }
    }
    true
}
