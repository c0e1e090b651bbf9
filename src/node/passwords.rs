//! Passwords are hashed on threads of their own, at a low priority, behind a short queue: logins
//! cost as much as they were made to cost, and must cost nobody else anything.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::Error;
use crate::auth::{self, password};
use crate::clock::Clock;
use crate::limits;

type Job = Box<dyn FnOnce() + Send>;

/// Niceness of the threads: a tenth of what a thread that serves gets, where both want to run.
const NICENESS: i32 = 10;

pub(super) struct Passwords {
    jobs: SyncSender<Job>,
    cost: u32,
    clock: Arc<dyn Clock>,
}

impl Passwords {
    /// Starts the threads. They end when this is dropped.
    pub(super) fn start(cost: u32, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel::<Job>(limits::PASSWORDS_PENDING_MAX);
        let queue = Arc::new(Mutex::new(queue));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..(cores / 2).clamp(1, limits::PASSWORD_THREADS_MAX) {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new().name("bcrypt".into()).spawn(move || work(&queue))?;
        }
        let used = password::cost(cost);
        if used != cost {
            tracing::warn!(
                "given-cost" = cost,
                "default-cost" = used,
                "use default bcrypt cost instead of the invalid given cost"
            );
        }
        Ok(Self { jobs, cost: used, clock })
    }

    /// The hash of a new password as the log carries it.
    pub(super) async fn hash(&self, password: String) -> Result<String, Error> {
        let (cost, mut salt) = (self.cost, [0; 16]);
        self.clock
            .secret(&mut salt)
            .map_err(|error| Error::Internal(format!("no randomness for a salt: {error}")))?;
        let hashed: Result<String, auth::Error> =
            self.run(move || password::hash(&password, cost, salt)).await?;
        Ok(hashed?)
    }

    pub(super) async fn matches(&self, password: String, stored: Bytes) -> Result<bool, Error> {
        self.run(move || password::matches(&password, &stored)).await
    }

    /// Takes as long as [`Self::matches`].
    pub(super) async fn waste(&self, password: String) -> Result<(), Error> {
        let cost = self.cost;
        self.run(move || password::waste(&password, cost)).await
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (done, waiting) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Whoever went away needs no answer.
            if !done.is_closed() {
                let _ = done.send(job());
            }
        });
        match self.jobs.try_send(job) {
            Ok(()) => waiting.await.map_err(|_| Error::Stopped),
            Err(TrySendError::Full(_)) => Err(Error::TooManyRequests),
            Err(TrySendError::Disconnected(_)) => Err(Error::Stopped),
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    // Without a process this is the calling thread. One that stays as it was still works.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    loop {
        let job = queue.lock().recv();
        match job {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}
