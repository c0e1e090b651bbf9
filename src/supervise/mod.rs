//! The one way in which a member starts threads and tasks: a panic in any of them ends the member,
//! with the name of what panicked.
//!
//! ```text
//!   thread, nice, task, blocking, Tasks ─► run: the work, and a guard around it
//!                                              │ panic
//!   an error that nobody can mend ─► fail ─────┴─► failure(): the first reason, kept
//!                                                  hooks: raft and the store stop at once
//! ```
//!
//! Without the guard a panic is a line in the log and a thread less: a leader without its apply
//! thread keeps its lease on leadership and answers nothing, and a duty that is gone is missed by
//! nobody until the disk is full. Each member has a supervisor of its own, so that several of them
//! can live in one process, as in tests and in the simulator. A simulated member has no threads;
//! its turns go through [`Supervisor::run`] instead.
//!
//! A panic leaves whatever it interrupted half done. The member therefore writes nothing more: the
//! process ends with an error, and the next start replays the log.
//!
//! Bodies give their outcome to whoever joins or awaits them. An outcome is missing only if the
//! member is ending anyway.

mod processors;

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::limits;
use crate::planted::{self, Bug};

pub use processors::{Processor, Processors};

/// What panicked, and the panic's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} panicked: {why}")]
pub struct Panicked {
    name: String,
    why: String,
}

/// There is no outcome: the work panicked, or it was cut off as the member ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the member is ending")]
pub struct Gone;

/// A thread whose panics are the member's.
pub struct Thread<T>(std::thread::JoinHandle<Result<T, Panicked>>);

type Hook = Box<dyn FnOnce(&str) + Send>;

/// Starts what one member works with, and remembers why it cannot go on.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    failure: watch::Sender<Option<String>>,
    hooks: Mutex<Vec<Hook>>,
}

impl Default for Supervisor {
    fn default() -> Self {
        let (failure, hooks) = (watch::Sender::new(None), Mutex::default());
        Self(Arc::new(Inner { failure, hooks }))
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Supervisor").field(&*self.0.failure.borrow()).finish()
    }
}

impl<T> Thread<T> {
    /// Waits for the thread's end.
    pub fn join(self) -> Result<T, Gone> {
        self.0.join().map_err(|_| Gone)?.map_err(|_| Gone)
    }
}

impl Supervisor {
    /// Runs a piece of work on the calling thread; a panic in it ends the member.
    pub fn run<T>(&self, name: &str, work: impl FnOnce() -> T) -> Result<T, Panicked> {
        catch_unwind(AssertUnwindSafe(work)).map_err(|panic| self.panicked(name, &*panic))
    }

    /// Starts a thread. The system shows the first 15 letters of its name.
    pub fn thread<T: Send + 'static>(
        &self,
        name: &'static str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Thread<T>> {
        let supervisor = self.clone();
        let thread = std::thread::Builder::new().name(name.to_owned());
        let started = match planted::is(Bug::NoThread(name)) {
            true => Err(io::ErrorKind::WouldBlock.into()),
            false => thread.spawn(move || supervisor.run(name, body)),
        };
        let failed = |error: io::Error| {
            io::Error::new(error.kind(), format!("cannot start the thread {name}: {error}"))
        };
        Ok(Thread(started.map_err(failed)?))
    }

    /// Does something on a thread that gives way to all others. It runs to its end, also if nobody
    /// waits for it any more.
    pub async fn nice<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (done, outcome) = oneshot::channel();
        let supervisor = self.clone();
        self.thread(name, move || {
            // Where it is not allowed, the thread competes like any other.
            let _ = rustix::process::setpriority_process(None, limits::SNAPSHOT_NICENESS);
            // Guarded apart, so that whoever waits hears of a panic after the member did. Nobody
            // waits any more if the caller was cut off.
            if let Ok(outcome) = supervisor.run(name, work) {
                let _ = done.send(outcome);
            }
        })?;
        outcome.await.map_err(|_| io::Error::other(Gone))
    }

    /// Starts a task on the caller's runtime.
    pub fn task<F>(&self, name: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.task_on(&Handle::current(), name, future)
    }

    /// Starts a task on another runtime.
    pub fn task_on<F>(&self, runtime: &Handle, name: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        runtime.spawn(self.guarded(name, future)).abort_handle()
    }

    /// Does something that may block, off the threads that serve connections.
    pub async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let supervisor = self.clone();
        let done = tokio::task::spawn_blocking(move || supervisor.run(name, work));
        done.await.map_err(|_| Gone)?.map_err(|_| Gone)
    }

    /// As [`Self::blocking`], but on a thread that serves tasks: for a member that may have no
    /// other.
    pub async fn inline<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let done = tokio::spawn(self.guarded(name, async move { work() }));
        done.await.map_err(|_| Gone)?.map_err(|_| Gone)
    }

    /// Tasks whose end somebody waits for.
    pub fn tasks(&self, name: &'static str) -> Tasks {
        Tasks { supervisor: self.clone(), name, set: JoinSet::new() }
    }

    fn guarded<F>(
        &self,
        name: &'static str,
        future: F,
    ) -> impl Future<Output = Result<F::Output, Panicked>> + Send + use<F>
    where
        F: Future + Send + 'static,
    {
        let supervisor = self.clone();
        // An async block would have room for the future twice: as it came, and as it is awaited.
        AssertUnwindSafe(future)
            .catch_unwind()
            .map(move |outcome| outcome.map_err(|panic| supervisor.panicked(name, &*panic)))
    }

    fn panicked(&self, name: &str, panic: &(dyn std::any::Any + Send)) -> Panicked {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let why = text.unwrap_or("unknown").to_owned();
        let panicked = Panicked { name: name.to_owned(), why };
        if !planted::is(Bug::UnheardPanic) {
            self.fail(&panicked.to_string());
        }
        panicked
    }

    /// Ends the member for a reason that nobody can mend. The first one counts.
    pub fn fail(&self, why: &str) {
        let mut hooks = self.0.hooks.lock();
        if self.0.failure.borrow().is_some() {
            return;
        }
        // Logged first: whoever learns of the failure may end the process, and its line is to be the last.
        tracing::error!(error = why, "the member stops");
        self.0.failure.send_replace(Some(why.to_owned()));
        let hooks_to_call = std::mem::take(&mut *hooks);
        drop(hooks);
        for hook in hooks_to_call {
            hook(why);
        }
    }

    /// Calls back once if the member cannot go on, at once if it cannot already. The call must not
    /// block and comes from the thread that failed.
    pub fn on_failure(&self, hook: impl FnOnce(&str) + Send + 'static) {
        let mut hooks = self.0.hooks.lock();
        let failure = self.0.failure.borrow().clone();
        match failure {
            None => hooks.push(Box::new(hook)),
            Some(why) => {
                drop(hooks);
                hook(&why);
            }
        }
    }

    /// Why the member cannot go on, once it cannot.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.0.failure.subscribe()
    }

    /// The reason for which the member cannot go on, if there is one by now.
    pub fn why(&self) -> Option<String> {
        self.0.failure.borrow().clone()
    }
}

/// Tasks of one kind. Those that run when it is dropped are cut off. One that has ended keeps its memory
/// until [`Tasks::ended`] has told of it.
pub struct Tasks {
    supervisor: Supervisor,
    name: &'static str,
    set: JoinSet<Result<(), Panicked>>,
}

impl Tasks {
    /// Starts one more on the caller's runtime.
    pub fn start(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let guarded = self.supervisor.guarded(self.name, task);
        self.set.spawn(guarded);
    }

    /// Starts one more on another runtime.
    pub fn start_on(&mut self, task: impl Future<Output = ()> + Send + 'static, runtime: &Handle) {
        let guarded = self.supervisor.guarded(self.name, task);
        self.set.spawn_on(guarded, runtime);
    }

    /// Waits until one of them has ended; false if there are none.
    pub async fn ended(&mut self) -> bool {
        self.set.join_next().await.is_some()
    }

    /// Waits until all of them have ended.
    pub async fn all_ended(&mut self) {
        while self.ended().await {}
    }
}

#[cfg(test)]
mod tests;
