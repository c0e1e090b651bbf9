//! The committer's queue: the batch of sealed entries, and deletions in parts.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::limits::{COMMIT_BYTES_MAX, SNAPSHOT_HOLD_MAX};
use crate::store::env::Env;
use crate::store::pin::Pin;
use crate::store::schema::Bucket;
use crate::types::Revision;

/// Changes to small buckets; None removes the key. The last change of a key counts.
pub(super) type Small = BTreeMap<(Bucket, Vec<u8>), Option<Vec<u8>>>;

/// Keys of small buckets.
pub(in crate::store) type Changed = BTreeSet<(Bucket, Vec<u8>)>;

/// Changes that are committed together: those of the open entry, or of all sealed entries that
/// wait.
#[derive(Default)]
pub(in crate::store) struct Batch {
    /// Number of rows. They are not stored here: they are the oldest rows of the tail that no
    /// earlier batch counts.
    pub rows: usize,
    pub bytes: usize,
    pub small: Small,
}

impl Batch {
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.rows == 0 && self.small.is_empty()
    }

    /// Whether the batch is committed without waiting for the commit interval.
    pub(in crate::store) fn is_large(&self, ops_max: usize) -> bool {
        self.rows + self.small.len() >= ops_max || self.bytes >= COMMIT_BYTES_MAX
    }

    pub(in crate::store) fn absorb(&mut self, entry: Self) {
        self.rows += entry.rows;
        self.bytes += entry.bytes;
        self.small.extend(entry.small);
    }

    pub(in crate::store) fn set(&mut self, bucket: Bucket, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        self.small.insert((bucket, key), value);
    }
}

/// A log position: the index and term of a sealed or committed entry.
pub(in crate::store) type Position = (u64, u64);

/// The deletion of the rows that a sweep has doomed, done in parts.
pub(in crate::store) struct Job {
    /// Rows in revision order, and whether each survives and is written anew.
    pub(super) rows: Vec<(Revision, bool)>,
    pub(super) done: usize,
    /// Revision of the compaction that is complete once the last row is deleted.
    pub(super) compaction: i64,
    /// Number of the seal that must be committed before the job's first row is deleted, or with it.
    pub(super) after_seal: u64,
    /// When it was scheduled, by the store's clock.
    pub(super) since: Duration,
    pub(super) finished: oneshot::Sender<()>,
}

impl Job {
    pub(in crate::store) fn new(
        mut dead: Vec<(Revision, bool)>,
        compaction: i64,
        since: Duration,
        finished: oneshot::Sender<()>,
    ) -> Self {
        dead.sort_unstable();
        dead.dedup_by_key(|(rev, _)| *rev);
        Self { rows: dead, done: 0, compaction, after_seal: 0, since, finished }
    }
}

/// State that apply, waiting callers and the committer share under one lock.
#[derive(Default)]
pub(in crate::store) struct Queue {
    pub batch: Batch,
    pub position: Position,
    /// Seals so far, and how many of them are durable.
    pub sealed: u64,
    pub committed: u64,
    pub durable: Position,
    /// Bytes of the waiting batch and of the batch that is being committed.
    pub bytes: usize,
    /// Number of the seal for which a flush waits: it is committed without waiting for `due`.
    pub flush_to: u64,
    pub jobs: VecDeque<Job>,
    /// Cloned by each `Hold`: while there is a second reference, no row is deleted.
    pub holds: Arc<()>,
    /// Snapshots that are being read. Deletions wait for them up to `SNAPSHOT_HOLD_MAX`; then the
    /// committer pins a transaction for each.
    pub frozen: Vec<Weak<Pin>>,
    /// Whether the running commit deletes rows.
    pub is_deleting: bool,
    pub no_space: bool,
    /// The member is stopping: the entries that apply still has may exceed the tail's bound.
    pub is_leaving: bool,
    /// Why the committer ended, or is to end.
    pub stop: Option<String>,
    /// When the waiting batch is committed at the latest, by the store's clock. None until the
    /// committer has seen it.
    pub due: Option<Duration>,
}

impl Queue {
    /// How long the first job has to wait for snapshots that are read; zero if it can begin. None
    /// if there is no job, or if it waits for a hold or a seal: the committer is woken when those
    /// end. Snapshots that read an environment that was replaced are not waited for, since nothing
    /// is deleted there.
    pub(in crate::store) fn job_wait(&self, now: Duration, env: &Arc<Env>) -> Option<Duration> {
        let is_held = Arc::strong_count(&self.holds) > 1;
        let job = self.jobs.front().filter(|job| !is_held && job.after_seal <= self.sealed)?;
        let is_read = self.frozen.iter().filter_map(Weak::upgrade).any(|pin| pin.is_needed(env));
        Some(if is_read {
            (job.since + SNAPSHOT_HOLD_MAX).saturating_sub(now)
        } else {
            Duration::ZERO
        })
    }

    pub(in crate::store) fn job_is_ready(&self, now: Duration, env: &Arc<Env>) -> bool {
        self.job_wait(now, env) == Some(Duration::ZERO)
    }

    /// Whether sealed entries are not committed yet.
    pub(in crate::store) fn has_entries(&self) -> bool {
        self.sealed > self.committed
    }
}
