//! The one thread that writes LMDB.
//!
//! Apply fills the open entry; `seal` moves it, whole, into the waiting batch; the committer takes
//! the whole batch into one transaction, so no entry is split between two. A batch leaves memory
//! only when its commit is durable: a full disk aborts the transaction, and the batch is tried
//! again.

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
use crate::clock::{self, LogLimit};
use crate::limits::{
    COMMIT_BYTES_MAX, COMPACTION_ROWS_FULL_DISK, RESERVE_RETAKE_REST, TAIL_BYTES_MAX,
};
use crate::metrics;
use crate::planted::{self, Bug};
use crate::types::Revision;
pub(super) use queue::{Batch, Changed, Job, Position, Queue};

/// Pause before a batch for which the disk had no space is tried again.
const NO_SPACE_RETRY: Duration = Duration::from_secs(1);
/// Rows that are cloned from the tail while its lock is held once: apply needs the lock to push.
const TAIL_SLICE_ROWS: usize = 256;

type Hook<T> = Mutex<Vec<Box<dyn Fn(T) + Send + Sync>>>;

/// Functions that are called after commits and on events of the store, on the thread where these
/// happen.
#[derive(Default)]
pub(super) struct Hooks {
    pub commit: Hook<Position>,
    pub no_space: Hook<bool>,
    /// Sizes changed other than by a commit.
    pub resized: Hook<()>,
    pub damaged: Hook<String>,
}

pub(super) fn call<T: Clone>(hook: &Hook<T>, value: &T) {
    for hook in hook.lock().iter() {
        hook(value.clone());
    }
}

/// State that the store's handle, the committer's thread and readers share. Locks are taken in the
/// order `committing`, `open`, `queue`.
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
    pub room: reserve::MeasuredRoom,
    pub full_said: LogLimit,
    pub hooks: Hooks,
    pub rows_pushed: AtomicU64,
    /// Rows of a compaction that one commit deletes. Rows that lie far apart each cost a page
    /// before one becomes free, so the number falls to `COMPACTION_ROWS_FULL_DISK` after a commit
    /// has found the disk full, and doubles with each commit that fits.
    pub job_rows_max: AtomicUsize,
    /// The batch that a full disk had no space for, in a store that `turn` drives. The committer's
    /// thread keeps its own batch instead.
    pub held: Mutex<Option<TakenBatch>>,
    /// Held during each commit. Another thread that holds it sees the file as the last commit left
    /// it, and keeps further commits out.
    pub committing: Mutex<()>,
    /// Some while a defragmentation copies the store: the keys of small buckets that were committed
    /// since it copied them last.
    pub changed: Mutex<Option<Changed>>,
    pub defrag: Defrag,
    pub damage: super::damage::Damage,
}

/// Body of the committer's thread. An error or a panic stops the store and fails the member.
pub(super) fn run(shared: &Shared) {
    let supervisor = &shared.options.supervisor;
    let why = match supervisor.run("committer", || shared.work_off()) {
        Ok(Ok(())) => return,
        Ok(Err(error)) => format!("the store cannot commit: {error}"),
        Err(panicked) => panicked.to_string(),
    };
    // Wakes apply, which would otherwise wait for ever for room in the tail.
    shared.stop(&why);
    supervisor.fail(&why);
}

impl Shared {
    pub(super) fn env(&self) -> Arc<Env> {
        Arc::clone(&self.env.read())
    }

    /// Commits batch after batch until the store is stopped.
    fn work_off(&self) -> Result<(), Error> {
        while let Some(batch) = self.next_batch() {
            planted::panic_if_planted("committer");
            self.commit_until_done(batch)?;
        }
        Ok(())
    }

    /// Moves the open entry into the waiting batch, and then blocks while the tail is over its
    /// bound.
    pub(super) fn seal(&self, position: Position) {
        // Both locks are held while the entry moves from one to the other: in between, `pushed`
        // would count it in neither, and an index checkpoint that includes the entry could be bound
        // to an index before it.
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
        if idle || queue.batch.is_large(self.options.commit_ops_max) {
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
        // Sorting a million rows takes a tenth of a second, so it is done before the locks are
        // taken.
        let mut job = Job::new(rows, compaction, self.options.clock.now(), finished);
        let open = self.open.lock();
        let mut queue = self.queue.lock();
        // The entry being applied may be the compaction itself. Its rows must not be deleted by a
        // commit before the one that holds the entry.
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

    pub(super) fn stop_waiting_for_room(&self) {
        self.queue.lock().is_leaving = true;
        self.done.notify_all();
    }

    /// Ends all commits, with the first reason given, and wakes all threads that wait.
    pub(super) fn stop(&self, why: &str) {
        let mut queue = self.queue.lock();
        queue.stop.get_or_insert_with(|| why.to_owned());
        self.work.notify_all();
        self.done.notify_all();
    }

    /// Blocks until there is work that is due. None once the store is stopped.
    fn next_batch(&self) -> Option<TakenBatch> {
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
            if flush || queue.batch.is_large(self.options.commit_ops_max) || now >= due {
                break;
            }
            self.work.wait_for(&mut queue, due - now);
        }
        Some(TakenBatch::from(&mut *queue))
    }

    /// Does one commit without waiting for its time. Returns false if there is nothing to commit,
    /// or no disk space for it; entries are then kept in `held` for the next turn.
    pub(super) fn turn(&self) -> Result<bool, Error> {
        planted::panic_if_planted("committer");
        let held = self.held.lock().take();
        let taken = held.or_else(|| {
            let mut queue = self.queue.lock();
            let now = self.options.clock.now();
            let has_work = queue.has_entries() || queue.job_is_ready(now, &self.env());
            (has_work && queue.stop.is_none()).then(|| TakenBatch::from(&mut *queue))
        });
        let Some(taken) = taken else { return Ok(false) };
        let is_done = self.try_commit(&taken)?;
        let waits = !is_done && taken.position.is_some();
        if waits && !planted::is(Bug::ForgottenBatch) {
            *self.held.lock() = Some(taken);
        }
        Ok(is_done)
    }

    /// Commits. On a full disk it gives up the reserve at once, and then tries again each second
    /// until the commit fits or the store is stopped.
    fn commit_until_done(&self, taken: TakenBatch) -> Result<(), Error> {
        while !self.try_commit(&taken)? {
            let end = clock::instant() + NO_SPACE_RETRY;
            let mut queue = self.queue.lock();
            // A wake-up for new work does not shorten the pause: each attempt writes up to a whole
            // batch.
            while queue.stop.is_none() && !self.work.wait_until(&mut queue, end).timed_out() {}
            // A batch of nothing but a compaction is given up: entries sealed meanwhile must be
            // committed first, and the compaction's job stays in the queue.
            if queue.stop.is_some() || taken.position.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns false if the disk has no space, even after the reserve was given up and the
    /// compaction was made smaller or left out.
    fn try_commit(&self, taken: &TakenBatch) -> Result<bool, Error> {
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
            self.done.notify_all();
            self.room.set_short(true);
            self.cut_file();
            let now = self.options.clock.now();
            if !has_given && self.reserve.give_up(now, &error) {
                has_given = true;
            } else if job_rows > COMPACTION_ROWS_FULL_DISK {
                self.job_rows_max.store(COMPACTION_ROWS_FULL_DISK, Ordering::Relaxed);
            } else if job_rows > 0 && taken.position.is_some() {
                with_job = false;
            } else {
                // That a compaction finds no room does not mean that applied entries find none, so
                // it does not raise NOSPACE.
                if taken.position.is_some() {
                    self.set_no_space(true);
                }
                return Ok(false);
            }
        }
    }

    /// Gives back what a failed commit has added to the store's file.
    fn cut_file(&self) {
        let _committing = self.committing.lock();
        if let Err(error) = self.env().cut() {
            tracing::warn!(%error, "what a failed commit took of the disk is not given back");
        }
    }

    fn set_no_space(&self, no_space: bool) {
        self.queue.lock().no_space = no_space;
        if no_space && self.full_said.may_log(self.options.clock.now()) {
            tracing::error!("no space left on the device that holds the data directory");
        }
        self.measure();
        self.done.notify_all();
        call(&self.hooks.no_space, &no_space);
    }

    /// Commits one transaction: the batch, its log position and, with `with_job`, the next part of
    /// a compaction. `job_rows` is set to the number of rows of that part.
    fn commit(
        &self,
        taken: &TakenBatch,
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
        let placed = self.options.clock.now();
        writer.commit()?;
        if let Some(changed) = &mut *self.changed.lock() {
            changed.extend(taken.batch.small.keys().cloned());
        }
        let written = self.options.clock.now();
        let seconds = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64();
        metrics::backend_commit_spill_seconds().observe(seconds(started, placed));
        metrics::backend_commit_write_seconds().observe(seconds(placed, written));
        metrics::backend_commit_seconds().observe(seconds(started, written));
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

    /// The next part of the first job, if no hold and no snapshot keeps it back. Snapshots that
    /// have been waited for long enough get a transaction that pins the rows for them; if that
    /// fails, nothing is deleted.
    fn next_step(&self, sealed: u64, env: &Arc<Env>) -> Option<JobStep> {
        if self.queue.lock().jobs.is_empty() {
            return None;
        }
        let rows_max = self.job_rows_max.load(Ordering::Relaxed);
        // Measured without the lock, for which every applied entry waits.
        let rewrites_bytes_max = self.spare_bytes();
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
        Some(JobStep { rows, finishes, rewrites_bytes_max })
    }

    /// After a durable commit: trims the rows from the tail, moves the durable position, wakes
    /// waiting threads and calls the hooks.
    fn publish(&self, taken: &TakenBatch, step: Option<JobStep>) {
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
            self.job_rows_max
                .store((rows * 2).min(self.options.compaction_rows_max), Ordering::Relaxed);
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

/// A batch that the committer has taken from the queue, with the position and the seal that its
/// commit makes durable.
pub(super) struct TakenBatch {
    batch: Batch,
    position: Option<Position>,
    sealed: u64,
}

impl From<&mut Queue> for TakenBatch {
    fn from(queue: &mut Queue) -> Self {
        queue.due = None;
        let position = queue.has_entries().then_some(queue.position);
        let batch = std::mem::take(&mut queue.batch);
        Self { batch, position, sealed: queue.sealed }
    }
}

/// The rows of a job that one commit works off. The last part also finishes the compaction.
struct JobStep {
    rows: Vec<(Revision, bool)>,
    finishes: Option<i64>,
    /// How many bytes of surviving rows are written anew. On a full disk they stay where they are,
    /// since writing them takes pages before it frees any.
    rewrites_bytes_max: u64,
}

/// Takes the rows of the step out first, as far as the disk has room for them twice, and then puts
/// the survivors back in order. The pages between them are empty by then, so LMDB fills the
/// remaining ones to the end.
fn write_step(writer: &mut Writer<'_>, step: &JobStep) -> Result<(), Error> {
    let (mut survivors, mut bytes) = (Vec::new(), 0);
    for (rev, survives) in &step.rows {
        if !*survives {
            writer.delete_row(*rev)?;
        } else if bytes < step.rewrites_bytes_max
            && let Some((key, value)) = writer.take_row(*rev)?
        {
            bytes += (key.len() + value.len()) as u64;
            survivors.push((key, value));
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
        // The receiver may have been dropped: a sweep that ends early does not wait for its
        // deletion.
        let _ = queue.jobs.pop_front().map(|job| job.finished.send(()));
    }
}
