//! Passwords are hashed on threads with a low priority behind a short queue: bcrypt is slow on
//! purpose, and must not slow down other requests.
//!
//! Names take turns, whether such users exist or not, so that a flood of logins as one user delays
//! another user's login by one turn. When the queue is full, the last login of the name with the
//! most of them is refused in favour of the new one. A new password goes before all logins: only
//! root sets those, and may have to during a flood.
//!
//! One thread (`bcrypt-prompt`) runs at the usual priority, for a tenth of the time, which it saves
//! up while nobody logs in: so a single login is answered soon even if all cores are busy. It
//! counts its processor time and not wall time. By wall time, waiting for a core would use up the
//! credit, and logins would become slow exactly when they need the priority.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::Error;
use crate::auth::{self, password};
use crate::clock::{self, Clock};
use crate::limits::{
    PASSWORD_CREDIT_MAX, PASSWORD_CREDIT_SHARE, PASSWORD_NICENESS, PASSWORD_THREADS_MAX,
    PASSWORDS_PENDING_MAX,
};
use crate::supervise::Supervisor;

type Job = Box<dyn FnOnce() + Send>;

pub(super) struct Passwords {
    queue: Arc<Queue>,
    names: RandomState,
    cost: u32,
    clock: Arc<dyn Clock>,
}

impl Passwords {
    /// Starts the threads, which end when the returned value is dropped.
    pub(super) fn start(
        cost: u32,
        clock: Arc<dyn Clock>,
        supervisor: &Supervisor,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let used = password::cost(cost);
        let passwords =
            Self { queue: Arc::clone(&queue), names: RandomState::new(), cost: used, clock };
        let prompt = Arc::clone(&queue);
        supervisor.thread("bcrypt-prompt", move || run_prompt(&prompt))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..(cores / 2).clamp(1, PASSWORD_THREADS_MAX) {
            let queue = Arc::clone(&queue);
            supervisor.thread("bcrypt", move || run_nice(&queue))?;
        }
        if used != cost {
            tracing::warn!(
                "given-cost" = cost,
                "default-cost" = used,
                "use default bcrypt cost instead of the invalid given cost"
            );
        }
        Ok(passwords)
    }

    /// Fails if a login as `name` would find no place in the queue, so that a refused login costs
    /// no read index.
    pub(super) fn check_room(&self, name: &str) -> Result<(), Error> {
        let state = self.queue.state.lock();
        match state.has_room(state.round_of(Some(self.names.hash_one(name)))) {
            true => Ok(()),
            false => Err(Error::TooManyRequests),
        }
    }

    /// The bcrypt hash of a new password, in the form that the log carries.
    pub(super) async fn hash(&self, password: String) -> Result<String, Error> {
        let (cost, mut salt) = (self.cost, [0; 16]);
        self.clock
            .secret(&mut salt)
            .map_err(|error| Error::Internal(format!("no randomness for a salt: {error}")))?;
        let hashed: Result<String, auth::Error> =
            self.run(None, move || password::hash(&password, cost, salt)).await?;
        Ok(hashed?)
    }

    pub(super) async fn matches(
        &self,
        name: &str,
        password: &str,
        stored: Bytes,
    ) -> Result<bool, Error> {
        let (cost, password) = (self.cost, password::significant(password).to_vec());
        self.run(Some(name), move || password::matches(&password, &stored, cost)).await
    }

    /// Takes as long as [`Self::matches`]; for a user that does not exist.
    pub(super) async fn match_nothing(&self, name: &str, password: &str) -> Result<(), Error> {
        let (cost, password) = (self.cost, password::significant(password).to_vec());
        self.run(Some(name), move || password::match_nothing(&password, cost)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        name: Option<&str>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (done, waiting) = oneshot::channel();
        // Sending fails if the caller is gone; then no answer is needed.
        let job: Job = Box::new(move || drop(done.send(job())));
        let _queued = self.queue.push(name.map(|name| self.names.hash_one(name)), job)?;
        // A job that makes room for another one is dropped, and its sender with it.
        waiting.await.map_err(|_| Error::TooManyRequests)
    }
}

impl Drop for Passwords {
    fn drop(&mut self) {
        self.queue.state.lock().is_closed = true;
        self.queue.changed.notify_all();
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

/// The key of a job: its round, then the number of its arrival.
type JobKey = (u64, u64);

/// The waiting jobs in the order in which they run. Each name has at most one job in a round,
/// except in round 0, which holds new passwords.
#[derive(Default)]
struct QueueState {
    /// The job, and the hash of the name that logs in; None for a new password.
    jobs: BTreeMap<JobKey, (Option<u64>, Job)>,
    /// The round of the job that was taken last; a name without jobs gets the next one.
    round: u64,
    arrivals: u64,
    /// Whether `bcrypt-prompt` has credit and waits for a job: then the others leave it the next
    /// one.
    prompt_waits: bool,
    is_closed: bool,
}

impl QueueState {
    /// The round of the next job of `name`: one after that of its last job. `None`, a new password,
    /// goes before all logins.
    fn round_of(&self, name: Option<u64>) -> u64 {
        if name.is_none() {
            return 0;
        }
        let of_name = self.jobs.iter().rev().find(|(_, (other, _))| *other == name);
        of_name.map_or(self.round, |((round, _), _)| *round) + 1
    }

    fn has_room(&self, round: u64) -> bool {
        let last = self.jobs.last_key_value().map_or(0, |((last, _), _)| *last);
        self.jobs.len() < PASSWORDS_PENDING_MAX || round < last
    }

    /// Inserts a job. Returns its key, and the job that was removed to make room for it, if any.
    fn push(&mut self, name: Option<u64>, job: Job) -> Result<(JobKey, Option<Job>), Error> {
        let round = self.round_of(name);
        if !self.has_room(round) {
            return Err(Error::TooManyRequests);
        }
        let is_full = self.jobs.len() >= PASSWORDS_PENDING_MAX;
        let out = if is_full { self.jobs.pop_last() } else { None };
        self.arrivals += 1;
        let key = (round, self.arrivals);
        self.jobs.insert(key, (name, job));
        Ok((key, out.map(|(_, (_, job))| job)))
    }

    fn pop(&mut self) -> Option<Job> {
        let ((round, _), (_, job)) = self.jobs.pop_first()?;
        self.round = self.round.max(round);
        Some(job)
    }
}

impl Queue {
    fn push(&self, name: Option<u64>, job: Job) -> Result<QueuedJob<'_>, Error> {
        // The job that made room is dropped after the lock is released, because the drop wakes its
        // caller.
        let (key, _out) = self.state.lock().push(name, job)?;
        self.changed.notify_all();
        Ok(QueuedJob { queue: self, key })
    }

    /// Waits for the next job; None once the queue is closed. The low-priority threads take none
    /// while `bcrypt-prompt` waits for one.
    fn next(&self, is_prompt: bool) -> Option<Job> {
        let mut state = self.state.lock();
        loop {
            if state.is_closed {
                return None;
            }
            state.prompt_waits |= is_prompt;
            if (is_prompt || !state.prompt_waits)
                && let Some(job) = state.pop()
            {
                if is_prompt {
                    state.prompt_waits = false;
                    self.changed.notify_all();
                }
                return Some(job);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Sleeps for `time`, but not after the queue is closed.
    fn rest(&self, time: Duration) {
        let end = clock::instant() + time;
        let mut state = self.state.lock();
        while !state.is_closed && !self.changed.wait_until(&mut state, end).timed_out() {}
    }
}

/// Removes the job from the queue when its caller goes away.
struct QueuedJob<'a> {
    queue: &'a Queue,
    key: JobKey,
}

impl Drop for QueuedJob<'_> {
    fn drop(&mut self) {
        let _out = self.queue.state.lock().jobs.remove(&self.key);
    }
}

fn run_nice(queue: &Queue) {
    // Linux applies PRIO_PROCESS with id 0 to the calling thread only. A failure is ignored: the
    // thread works at its old priority.
    let _ = rustix::process::setpriority_process(None, PASSWORD_NICENESS);
    while let Some(job) = queue.next(false) {
        job();
    }
}

/// The loop of `bcrypt-prompt`: runs jobs at the usual priority, and rests when its credit of
/// processor time is used up.
fn run_prompt(queue: &Queue) {
    let (mut credit, mut counted) = (PASSWORD_CREDIT_MAX, clock::instant());
    while let Some(job) = queue.next(true) {
        credit += (clock::instant() - counted) / PASSWORD_CREDIT_SHARE;
        credit = credit.min(PASSWORD_CREDIT_MAX);
        let before = clock::thread_cpu();
        job();
        counted = clock::instant();
        let took = clock::thread_cpu().saturating_sub(before);
        match credit.checked_sub(took) {
            Some(left) => credit = left,
            None => {
                queue.rest((took - credit) * PASSWORD_CREDIT_SHARE);
                (credit, counted) = (Duration::ZERO, clock::instant());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Jobs that note the name that they were pushed for.
    struct Bench {
        state: QueueState,
        done: Arc<Mutex<Vec<u64>>>,
    }

    impl Bench {
        fn new() -> Self {
            Self { state: QueueState::default(), done: Arc::default() }
        }

        /// Pushes a login. True if another job was removed for it, an error if it was refused.
        fn push(&mut self, name: u64) -> Result<bool, Error> {
            let done = Arc::clone(&self.done);
            let job: Job = Box::new(move || done.lock().push(name));
            self.state.push(Some(name), job).map(|(_, out)| out.is_some())
        }

        /// A new password.
        fn push_first(&mut self, note: u64) -> Result<bool, Error> {
            let done = Arc::clone(&self.done);
            let job: Job = Box::new(move || done.lock().push(note));
            self.state.push(None, job).map(|(_, out)| out.is_some())
        }

        fn work(&mut self, count: usize) -> Vec<u64> {
            for _ in 0..count {
                self.state.pop().unwrap()();
            }
            std::mem::take(&mut *self.done.lock())
        }
    }

    #[test]
    fn names_take_turns_and_the_one_with_most_makes_room() {
        let mut bench = Bench::new();
        for _ in 0..PASSWORDS_PENDING_MAX {
            assert_eq!(bench.push(1), Ok(false));
        }
        assert_eq!(bench.push(1), Err(Error::TooManyRequests));
        assert_eq!(bench.work(2), [1, 1]);
        assert_eq!(bench.push(2), Ok(false));
        assert_eq!(bench.push(2), Ok(false));
        assert_eq!(bench.push(3), Ok(true), "a job of the first name goes");
        assert_eq!(bench.work(5), [1, 2, 3, 1, 2]);
        let rest = bench.work(PASSWORDS_PENDING_MAX - 5);
        assert!(rest.iter().all(|name| *name == 1));
        assert!(bench.state.pop().is_none());
    }

    #[test]
    fn of_many_names_the_late_ones_are_refused() {
        let mut bench = Bench::new();
        for name in 0..PASSWORDS_PENDING_MAX as u64 {
            assert_eq!(bench.push(name), Ok(false));
        }
        assert_eq!(bench.push(1000), Err(Error::TooManyRequests));
        assert_eq!(bench.work(3), [0, 1, 2]);
        assert_eq!(bench.push(1000), Ok(false));
    }

    #[test]
    fn new_passwords_come_before_logins() {
        let mut bench = Bench::new();
        for name in 0..PASSWORDS_PENDING_MAX as u64 {
            assert_eq!(bench.push(name), Ok(false));
        }
        assert_eq!(bench.push_first(1000), Ok(true), "the last login makes room");
        assert_eq!(bench.push_first(1001), Ok(true));
        assert_eq!(bench.work(4), [1000, 1001, 0, 1]);
        assert_eq!(bench.push_first(1002), Ok(false));
        assert_eq!(bench.work(2), [1002, 2]);
        for note in 0..PASSWORDS_PENDING_MAX as u64 {
            bench.push_first(note).unwrap();
        }
        assert_eq!(bench.push_first(0), Err(Error::TooManyRequests), "bounded all the same");
    }

    #[test]
    fn who_goes_away_leaves_no_place_behind() {
        let queue = Queue::default();
        let places: Vec<_> = (0..PASSWORDS_PENDING_MAX)
            .map(|_| queue.push(Some(1), Box::new(|| ())).map_err(drop).unwrap())
            .collect();
        assert!(queue.push(Some(1), Box::new(|| ())).is_err());
        drop(places);
        assert!(queue.push(Some(1), Box::new(|| ())).is_ok());
    }

    #[test]
    fn the_prompt_thread_pays_for_its_work_and_not_for_waiting() {
        let queue = Arc::new(Queue::default());
        let (done, results) = std::sync::mpsc::sync_channel(2);
        let push = |wait: Duration| {
            let done = done.clone();
            let job = move || {
                std::thread::sleep(wait);
                done.send(()).unwrap();
            };
            std::mem::forget(queue.push(Some(1), Box::new(job)).unwrap());
        };
        let serving = Arc::clone(&queue);
        let prompt = std::thread::spawn(move || run_prompt(&serving));
        // Takes long, but next to no processor time, as on a machine whose cores are all busy.
        push(PASSWORD_CREDIT_MAX + Duration::from_secs(2));
        results.recv().unwrap();
        push(Duration::ZERO);
        let soon = Duration::from_secs(2) * PASSWORD_CREDIT_SHARE / 2;
        assert!(results.recv_timeout(soon).is_ok(), "the next login waits for credit");
        queue.state.lock().is_closed = true;
        queue.changed.notify_all();
        prompt.join().unwrap();
    }

    #[test]
    fn the_prompt_thread_takes_what_comes_and_the_others_what_it_has_no_credit_for() {
        let queue = Arc::new(Queue::default());
        let (done, results) = std::sync::mpsc::sync_channel(100);
        let push = |count: usize, work: Duration| {
            for _ in 0..count {
                let done = done.clone();
                let job = move || {
                    let end = crate::clock::thread_cpu() + work;
                    while crate::clock::thread_cpu() < end {}
                    let name = std::thread::current().name().unwrap_or_default().to_owned();
                    done.send(name).unwrap();
                };
                // The place is kept, as if the caller waited.
                std::mem::forget(queue.push(Some(1), Box::new(job)).unwrap());
            }
        };
        let spawn = |name: &str, run: fn(&Queue)| {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name(name.into()).spawn(move || run(&queue)).unwrap()
        };
        let prompt = spawn("prompt", run_prompt);
        while !queue.state.lock().prompt_waits {
            std::thread::yield_now();
        }
        let other = spawn("other", |queue| {
            while queue.next(false).is_some_and(|job| {
                job();
                true
            }) {}
        });
        for _ in 0..5 {
            push(1, Duration::ZERO);
            assert_eq!(results.recv().unwrap(), "prompt");
            while !queue.state.lock().prompt_waits {
                std::thread::yield_now();
            }
        }
        push(2, PASSWORD_CREDIT_MAX + Duration::from_millis(100));
        let mut both = [results.recv().unwrap(), results.recv().unwrap()];
        both.sort_unstable();
        assert_eq!(both, ["other", "prompt"]);
        queue.state.lock().is_closed = true;
        queue.changed.notify_all();
        prompt.join().unwrap();
        other.join().unwrap();
    }
}
