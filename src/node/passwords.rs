//! Passwords are hashed on threads of their own, at a low priority, behind a short queue: logins
//! cost as much as they were made to cost, and must cost nobody else anything.
//!
//! Names take turns, known or not, so that a flood of logins as one user delays another user's by one
//! turn; and when the queue is full, what came last of the name that has most of it makes room. A new
//! password comes before all logins: root alone sets those, and may have to while a flood goes on.
//!
//! One thread has the usual priority, for a part of the time that it has saved up while nobody logged
//! in: a login now and then does not wait for ever on a machine whose cores are all busy. Counted is
//! the processor's time and not the clock's, or a thread that waits for a core would pay for what
//! others do with it, and logins would fall behind just where they need the priority.

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
    /// Starts the threads. They end when this is dropped.
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
        supervisor.thread("bcrypt-prompt", move || serve(&prompt))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..(cores / 2).clamp(1, PASSWORD_THREADS_MAX) {
            let queue = Arc::clone(&queue);
            supervisor.thread("bcrypt", move || work(&queue))?;
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

    /// Refuses at once what would find no place, so that it costs no more than that.
    pub(super) fn check_room(&self, name: &str) -> Result<(), Error> {
        let lines = self.queue.lines.lock();
        match lines.has_room(lines.round_of(Some(self.names.hash_one(name)))) {
            true => Ok(()),
            false => Err(Error::TooManyRequests),
        }
    }

    /// The hash of a user's new password as the log carries it.
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

    /// Takes as long as [`Self::matches`].
    pub(super) async fn waste(&self, name: &str, password: &str) -> Result<(), Error> {
        let (cost, password) = (self.cost, password::significant(password).to_vec());
        self.run(Some(name), move || password::waste(&password, cost)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        name: Option<&str>,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (done, waiting) = oneshot::channel();
        // Whoever went away needs no answer.
        let job: Job = Box::new(move || drop(done.send(job())));
        let _place = self.queue.push(name.map(|name| self.names.hash_one(name)), job)?;
        // It is dropped undone when it makes room for another.
        waiting.await.map_err(|_| Error::TooManyRequests)
    }
}

impl Drop for Passwords {
    fn drop(&mut self) {
        self.queue.lines.lock().is_closed = true;
        self.queue.changed.notify_all();
    }
}

#[derive(Default)]
struct Queue {
    lines: Mutex<Lines>,
    changed: Condvar,
}

/// The round that a job goes into, and the number of its arrival.
type Turn = (u64, u64);

/// What waits, in the order in which it is worked off: each name has one job in a round.
#[derive(Default)]
struct Lines {
    /// The hash of the name that logs in, if one does, and the job.
    jobs: BTreeMap<Turn, (Option<u64>, Job)>,
    /// Of the job that was taken last.
    round: u64,
    arrivals: u64,
    /// The thread of usual priority has nothing to do, so the next job is its.
    prompt_waits: bool,
    is_closed: bool,
}

impl Lines {
    /// The round that the next job of a name goes into. A job that is no login (`None`) goes before
    /// all logins.
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

    /// Gives back what made room, too, if something had to.
    fn push(&mut self, name: Option<u64>, job: Job) -> Result<(Turn, Option<Job>), Error> {
        let round = self.round_of(name);
        if !self.has_room(round) {
            return Err(Error::TooManyRequests);
        }
        let is_full = self.jobs.len() >= PASSWORDS_PENDING_MAX;
        let out = if is_full { self.jobs.pop_last() } else { None };
        self.arrivals += 1;
        let turn = (round, self.arrivals);
        self.jobs.insert(turn, (name, job));
        Ok((turn, out.map(|(_, (_, job))| job)))
    }

    fn pop(&mut self) -> Option<Job> {
        let ((round, _), (_, job)) = self.jobs.pop_first()?;
        self.round = self.round.max(round);
        Some(job)
    }
}

impl Queue {
    fn push(&self, name: Option<u64>, job: Job) -> Result<Place<'_>, Error> {
        // The job that makes room is dropped after the lock is free, since the drop wakes its
        // caller.
        let (turn, _out) = self.lines.lock().push(name, job)?;
        self.changed.notify_all();
        Ok(Place { queue: self, turn })
    }

    /// The next job, or none at the end. Threads of low priority leave it to the prompt one.
    fn next(&self, is_prompt: bool) -> Option<Job> {
        let mut lines = self.lines.lock();
        loop {
            if lines.is_closed {
                return None;
            }
            lines.prompt_waits |= is_prompt;
            if (is_prompt || !lines.prompt_waits)
                && let Some(job) = lines.pop()
            {
                if is_prompt {
                    lines.prompt_waits = false;
                    self.changed.notify_all();
                }
                return Some(job);
            }
            self.changed.wait(&mut lines);
        }
    }

    /// Sleeps, but not beyond the end.
    fn rest(&self, time: Duration) {
        let end = clock::instant() + time;
        let mut lines = self.lines.lock();
        while !lines.is_closed && !self.changed.wait_until(&mut lines, end).timed_out() {}
    }
}

/// Frees the place of a job whose caller has gone away.
struct Place<'a> {
    queue: &'a Queue,
    turn: Turn,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let _out = self.queue.lines.lock().jobs.remove(&self.turn);
    }
}

fn work(queue: &Queue) {
    // Without a process this is the calling thread. One that stays as it was still works.
    let _ = rustix::process::setpriority_process(None, PASSWORD_NICENESS);
    while let Some(job) = queue.next(false) {
        job();
    }
}

/// Works at the usual priority while there is credit for it.
fn serve(queue: &Queue) {
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

    /// Jobs that note whose they are.
    struct Bench {
        lines: Lines,
        done: Arc<Mutex<Vec<u64>>>,
    }

    impl Bench {
        fn new() -> Self {
            Self { lines: Lines::default(), done: Arc::default() }
        }

        /// Whether the job got a place, and whether another lost it.
        fn push(&mut self, name: u64) -> Result<bool, Error> {
            let done = Arc::clone(&self.done);
            let job: Job = Box::new(move || done.lock().push(name));
            self.lines.push(Some(name), job).map(|(_, out)| out.is_some())
        }

        /// A new password.
        fn push_first(&mut self, note: u64) -> Result<bool, Error> {
            let done = Arc::clone(&self.done);
            let job: Job = Box::new(move || done.lock().push(note));
            self.lines.push(None, job).map(|(_, out)| out.is_some())
        }

        fn work(&mut self, count: usize) -> Vec<u64> {
            for _ in 0..count {
                self.lines.pop().unwrap()();
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
        assert!(bench.lines.pop().is_none());
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
        let prompt = std::thread::spawn(move || serve(&serving));
        // As on a machine where something else has the cores all the time.
        push(PASSWORD_CREDIT_MAX + Duration::from_secs(2));
        results.recv().unwrap();
        push(Duration::ZERO);
        let soon = Duration::from_secs(2) * PASSWORD_CREDIT_SHARE / 2;
        assert!(results.recv_timeout(soon).is_ok(), "the next login waits for credit");
        queue.lines.lock().is_closed = true;
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
        let prompt = spawn("prompt", serve);
        while !queue.lines.lock().prompt_waits {
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
            while !queue.lines.lock().prompt_waits {
                std::thread::yield_now();
            }
        }
        push(2, PASSWORD_CREDIT_MAX + Duration::from_millis(100));
        let mut both = [results.recv().unwrap(), results.recv().unwrap()];
        both.sort_unstable();
        assert_eq!(both, ["other", "prompt"]);
        queue.lines.lock().is_closed = true;
        queue.changed.notify_all();
        prompt.join().unwrap();
        other.join().unwrap();
    }
}
