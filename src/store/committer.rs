//! The one thread that writes LMDB.
//!
//! Apply fills the open entry; `seal` moves it, whole, into the waiting batch; the committer takes
//! the whole batch into one transaction, so no entry is ever split over two. A batch leaves memory
//! only when its commit is durable: a full disk aborts the transaction and the batch stays.

mod queue;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
use tokio::sync::oneshot;

use super::env::{Env, Writer};
use super::quiet::Defrag;
use super::reserve::{self, Reserve};
use super::schema::{self, Bucket};
use super::tail::Tail;
use super::{Error, Options, Row, Sizes};
use crate::clock::{self, Seldom};
use crate::limits::{
    COMMIT_BYTES_MAX, COMPACTION_ROWS_FULL_DISK, COMPACTION_ROWS_MAX, RESERVE_RETAKE_REST,
    TAIL_BYTES_MAX,
};
use crate::metrics;
use crate::planted::{self, Bug};
use crate::types::Revision;
pub(super) use queue::{Batch, Changed, Job, Position, Queue};

/// How long a batch that found no space waits until it is tried again.
const NO_SPACE_RETRY: Duration = Duration::from_secs(1);
/// Rows copied out of the tail at a time, so that its lock is held shortly.
const TAIL_SLICE_ROWS: usize = 256;

type Hook<T> = Mutex<Vec<Box<dyn Fn(T) + Send + Sync>>>;

#[derive(Default)]
pub(super) struct Hooks {
    pub commit: Hook<Position>,
    pub no_space: Hook<bool>,
    /// Sizes changed otherwise than by a commit.
    pub resized: Hook<()>,
    pub damaged: Hook<String>,
}

pub(super) fn call<T: Clone>(hook: &Hook<T>, value: &T) {
    for hook in hook.lock().iter() {
        hook(value.clone());
    }
}

pub(super) struct Shared {
    /// Replaced when another generation is installed.
    pub env: RwLock<Arc<Env>>,
    pub options: Options,
    pub reserve: Reserve,
    pub tail: RwLock<Tail>,
    pub open: Mutex<Batch>,
    pub queue: Mutex<Queue>,
    /// The committer waits here for work.
    pub work: Condvar,
    /// Sealers and flushers wait here for the committer.
    pub done: Condvar,
    pub sizes: Mutex<Sizes>,
    pub room: reserve::Cells,
    pub full_said: Seldom,
    pub hooks: Hooks,
    pub rows_pushed: AtomicU64,
    /// Rows of a compaction that go with one commit. They can lie far from each other, and then each
    /// costs a page before one is free, so fewer are tried where so many found the disk full.
    pub job_rows_max: AtomicUsize,
    /// The batch that a full disk had no space for, in a store that `turn` drives. The committer's
    /// thread keeps its own batch instead.
    pub held: Mutex<Option<Taken>>,
    /// Held during each commit: a thread that holds it has the file as the last commit left it.
    pub committing: Mutex<()>,
    /// While somebody copies the store: keys of small buckets that were committed meanwhile.
    pub changed: Mutex<Option<Changed>>,
    pub defrag: Defrag,
    pub damage: super::damage::Damage,
}

/// The committer's thread.
pub(super) fn run(shared: &Shared) {
    let supervisor = &shared.options.supervisor;
    let why = match supervisor.run("committer", || shared.work_off()) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("the store cannot commit: {error}"),
        Err(panicked) => panicked.to_string(),
    };
    // Apply must not wait for a thread that is gone.
    shared.stop(&why);
    supervisor.fail(&why);
}

impl Shared {
    pub(super) fn env(&self) -> Arc<Env> {
        Arc::clone(&self.env.read())
    }

    /// Commits until it is told to stop.
    fn work_off(&self) -> Result<(), Error> {
        while let Some(batch) = self.next_batch() {
            planted::trip("committer");
            self.commit_until_done(batch)?;
        }
        Ok(())
    }

    pub(super) fn seal(&self, position: Position) {
        // Under both locks: a reader of `pushed` between the two steps would find the entry in
        // neither place, and would label a state that includes it with an index before it.
        let mut open = self.open.lock();
        let mut queue = self.queue.lock();
        let entry = std::mem::take(&mut *open);
        drop(open);
        let idle = !queue.has_entries();
        assert!(queue.position.0 < position.0, "entry {} sealed twice", position.0);
        queue.position = position;
        queue.sealed += 1;
        queue.bytes += entry.bytes;
        self.room.set_waiting(queue.bytes);
        queue.batch.absorb(entry);
        if idle || queue.batch.is_large() {
            self.work.notify_one();
        }
        while queue.bytes > TAIL_BYTES_MAX && queue.stop.is_none() && !queue.is_leaving {
            self.done.wait(&mut queue);
        }
    }

    pub(super) fn flush(&self) -> Result<u64, Error> {
        let mut queue = self.queue.lock();
        let target = queue.sealed;
        queue.flush_to = queue.flush_to.max(target);
        self.work.notify_one();
        while queue.committed < target {
            if let Some(why) = &queue.stop {
                return Err(Error::Stopped(why.clone()));
            }
            if queue.no_space {
                return Err(Error::NoSpace { file: self.env().file().to_path_buf() });
            }
            self.done.wait(&mut queue);
        }
        Ok(queue.durable.0)
    }

    pub(super) fn schedule(
        &self,
        rows: Vec<(Revision, bool)>,
        compaction: i64,
    ) -> oneshot::Receiver<()> {
        let (finished, receiver) = oneshot::channel();
        // A million rows take a tenth of a second to sort: nobody waits for that.
        let mut job = Job::new(rows, compaction, self.options.clock.now(), finished);
        let open = self.open.lock();
        let mut queue = self.queue.lock();
        // The entry being applied may be the compaction itself: its rows go with it, not before.
        job.after_seal = queue.sealed + u64::from(!open.is_empty());
        queue.jobs.push_back(job);
        self.work.notify_one();
        receiver
    }

    pub(super) fn delete_now(&self) {
        let now = self.options.clock.now();
        let mut queue = self.queue.lock();
        if queue.job_is_ready(now, &self.env()) {
            queue.due = Some(now);
            self.work.notify_one();
        }
    }

    pub(super) fn leave(&self) {
        self.queue.lock().is_leaving = true;
        self.done.notify_all();
    }

    pub(super) fn stop(&self, why: &str) {
        let mut queue = self.queue.lock();
        queue.stop.get_or_insert_with(|| why.to_owned());
        self.work.notify_all();
        self.done.notify_all();
    }

    /// Waits for work and until it is due. None: stop.
    fn next_batch(&self) -> Option<Taken> {
        let mut queue = self.queue.lock();
        loop {
            if queue.stop.is_some() {
                return None;
            }
            let now = self.options.clock.now();
            let wait = queue.job_wait(now, &self.env());
            if !queue.has_entries() && wait != Some(Duration::ZERO) {
                match wait {
                    Some(wait) => drop(self.work.wait_for(&mut queue, wait)),
                    None if self.reserve.is_given() => {
                        let rest = self.work.wait_for(&mut queue, RESERVE_RETAKE_REST);
                        if rest.timed_out() {
                            MutexGuard::unlocked(&mut queue, || self.measure());
                        }
                    }
                    None => self.work.wait(&mut queue),
                }
                continue;
            }
            let due = *queue.due.get_or_insert(now + self.options.commit_interval);
            let flush = queue.flush_to > queue.committed;
            if flush || queue.batch.is_large() || now >= due {
                break;
            }
            self.work.wait_for(&mut queue, due - now);
        }
        Some(Taken::from(&mut *queue))
    }

    /// Commits what there is without waiting; false if there is nothing, or no space for it.
    pub(super) fn turn(&self) -> Result<bool, Error> {
        planted::trip("committer");
        let held = self.held.lock().take();
        let taken = held.or_else(|| {
            let mut queue = self.queue.lock();
            let now = self.options.clock.now();
            let has_work = queue.has_entries() || queue.job_is_ready(now, &self.env());
            (has_work && queue.stop.is_none()).then(|| Taken::from(&mut *queue))
        });
        let Some(taken) = taken else { return Ok(false) };
        let is_done = self.try_commit(&taken)?;
        let waits = !is_done && taken.position.is_some();
        if waits && !planted::is(Bug::ForgottenBatch) {
            *self.held.lock() = Some(taken);
        }
        Ok(is_done)
    }

    /// Commits; on a full disk gives up the reserve at once and then tries again each second.
    fn commit_until_done(&self, taken: Taken) -> Result<(), Error> {
        while !self.try_commit(&taken)? {
            let end = clock::instant() + NO_SPACE_RETRY;
            let mut queue = self.queue.lock();
            // More work is no reason to write so much in vain more often.
            while queue.stop.is_none() && !self.work.wait_until(&mut queue, end).timed_out() {}
            // A compaction alone does not go before what is applied meanwhile.
            if queue.stop.is_some() || taken.position.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns false if the disk has no space, even with the reserve given up, and even for a smaller
    /// part of a compaction.
    fn try_commit(&self, taken: &Taken) -> Result<bool, Error> {
        let (mut with_job, mut has_given) = (true, false);
        loop {
            let needed = taken.batch.bytes.max(COMMIT_BYTES_MAX) as u64;
            let mut job_rows = 0;
            let error = match self.commit(taken, with_job, &mut job_rows) {
                Ok(job) => {
                    self.publish(taken, job);
                    return Ok(true);
                }
                Err(error) if reserve::is_full(&error, needed) => error,
                Err(_) if planted::is(Bug::ForgivenCommit) => {
                    self.publish(taken, None);
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            self.queue.lock().is_deleting = false;
            self.room.set_short(true);
            let now = self.options.clock.now();
            if !has_given && self.reserve.give(now, &error) {
                has_given = true;
            } else if job_rows > COMPACTION_ROWS_FULL_DISK {
                self.job_rows_max.store(COMPACTION_ROWS_FULL_DISK, Ordering::Relaxed);
            } else if job_rows > 0 && taken.position.is_some() {
                with_job = false;
            } else {
                // A compaction that has no room does not show that applied entries have none.
                if taken.position.is_some() {
                    self.set_no_space(true);
                }
                return Ok(false);
            }
        }
    }

    fn set_no_space(&self, no_space: bool) {
        self.queue.lock().no_space = no_space;
        if no_space && self.full_said.is_due(self.options.clock.now()) {
            tracing::error!("no space left on the device that holds the data directory");
        }
        self.measure();
        self.done.notify_all();
        call(&self.hooks.no_space, &no_space);
    }

    /// One transaction: the batch, its log position, and the next part of a compaction, if it is to
    /// have one; then `job_rows` are the rows of that.
    fn commit(
        &self,
        taken: &Taken,
        with_job: bool,
        job_rows: &mut usize,
    ) -> Result<Option<JobStep>, Error> {
        let started = self.options.clock.now();
        let _committing = self.committing.lock();
        let env = self.env();
        if let Some(faults) = &self.options.faults {
            faults.commit().map_err(Error::io(env.file()))?;
        }
        let mut writer = env.write()?;
        self.write_rows(&mut writer, taken.batch.rows)?;
        for ((bucket, key), value) in &taken.batch.small {
            writer.put_small(*bucket, key, value.as_deref())?;
        }
        if let Some((mut index, term)) = taken.position {
            index -= u64::from(planted::is(Bug::DoubleApply));
            let meta = Bucket::Meta;
            writer.put_small(meta, schema::CONSISTENT_INDEX, Some(&index.to_be_bytes()))?;
            writer.put_small(meta, schema::TERM, Some(&term.to_be_bytes()))?;
        }
        let step = if with_job { self.next_step(taken.sealed, &env) } else { None };
        if let Some(step) = &step {
            *job_rows = step.rows.len();
            if let Some(faults) = &self.options.faults {
                faults.compaction(step.rows.len()).map_err(Error::io(env.file()))?;
            }
            write_step(&mut writer, step)?;
        }
        writer.commit()?;
        if let Some(changed) = &mut *self.changed.lock() {
            changed.extend(taken.batch.small.keys().cloned());
        }
        let took = self.options.clock.now().saturating_sub(started);
        metrics::backend_commit_seconds().observe(took.as_secs_f64());
        Ok(step)
    }

    fn write_rows(&self, writer: &mut Writer<'_>, rows: usize) -> Result<(), Error> {
        let mut start = 0;
        while start < rows {
            let slice = self.tail.read().slice(start, TAIL_SLICE_ROWS.min(rows - start));
            for row in &slice {
                writer.put_row(row)?;
            }
            start += slice.len();
        }
        Ok(())
    }

    /// The next rows of the first job, if nothing holds it back. Slow readers keep theirs.
    fn next_step(&self, sealed: u64, env: &Arc<Env>) -> Option<JobStep> {
        let rows_max = self.job_rows_max.load(Ordering::Relaxed);
        let now = self.options.clock.now();
        let mut queue = self.queue.lock();
        if !queue.job_is_ready(now, env) {
            return None;
        }
        let job = queue.jobs.front().filter(|job| job.after_seal <= sealed)?;
        let rest = &job.rows[job.done..];
        let rows = rest[..rest.len().min(rows_max)].to_vec();
        let finishes = (rows.len() == rest.len()).then_some(job.compaction);
        for pin in queue.frozen.iter().filter_map(Weak::upgrade) {
            if let Err(error) = pin.take(env) {
                tracing::warn!(%error, "deletions wait for a snapshot");
                return None;
            }
        }
        queue.is_deleting = true;
        Some(JobStep { rows, finishes, rewrites: rows_max == COMPACTION_ROWS_MAX })
    }

    /// After a durable commit: the tail gives the rows up, then everybody is told.
    fn publish(&self, taken: &Taken, step: Option<JobStep>) {
        if let Ok(sizes) = self.env().read().and_then(|reader| reader.sizes()) {
            *self.sizes.lock() = sizes;
        }
        let trimmed: VecDeque<Row> = self.tail.write().trim(taken.batch.rows);
        drop(trimmed);
        let mut queue = self.queue.lock();
        queue.is_deleting = false;
        queue.bytes -= taken.batch.bytes;
        self.room.set_waiting(queue.bytes);
        queue.committed = taken.sealed;
        if let Some(position) = taken.position {
            queue.durable = position;
        }
        if let Some(step) = step {
            finish_step(&mut queue, &step);
            let rows = self.job_rows_max.load(Ordering::Relaxed);
            self.job_rows_max.store((rows * 2).min(COMPACTION_ROWS_MAX), Ordering::Relaxed);
        }
        self.room.set_short(false);
        let was_full = queue.no_space;
        drop(queue);
        self.done.notify_all();
        if was_full {
            self.set_no_space(false);
        }
        self.measure();
        if let Some(position) = taken.position {
            call(&self.hooks.commit, &position);
        }
    }
}

/// What the committer has in hand.
pub(super) struct Taken {
    batch: Batch,
    position: Option<Position>,
    sealed: u64,
}

impl From<&mut Queue> for Taken {
    fn from(queue: &mut Queue) -> Self {
        queue.due = None;
        let position = queue.has_entries().then_some(queue.position);
        let batch = std::mem::take(&mut queue.batch);
        Self { batch, position, sealed: queue.sealed }
    }
}

/// A part of a job, small enough for one commit. The last part finishes the compaction.
struct JobStep {
    rows: Vec<(Revision, bool)>,
    finishes: Option<i64>,
    /// Whether the rows that survive are written anew, for which a full disk has no room.
    rewrites: bool,
}

/// Deletes all of the step's rows first and then puts the survivors back in order: the pages
/// between them are empty by then, and the survivors fill them to the end.
fn write_step(writer: &mut Writer<'_>, step: &JobStep) -> Result<(), Error> {
    let mut survivors = Vec::new();
    for (rev, survives) in &step.rows {
        if !*survives {
            writer.delete_row(*rev)?;
        } else if step.rewrites {
            survivors.extend(writer.take_row(*rev)?);
        }
    }
    for (key, value) in &survivors {
        writer.restore_row(key, value)?;
    }
    let Some(revision) = step.finishes else { return Ok(()) };
    let bytes = schema::revision_bytes(Revision::new(revision, 0));
    writer.put_small(Bucket::Meta, schema::FINISHED_COMPACT, Some(&bytes))
}

fn finish_step(queue: &mut Queue, step: &JobStep) {
    if let Some(job) = queue.jobs.front_mut() {
        job.done += step.rows.len();
    }
    if step.finishes.is_some() {
        // The receiver may be gone: nobody has to wait for a compaction.
        let _ = queue.jobs.pop_front().map(|job| job.finished.send(()));
    }
}
