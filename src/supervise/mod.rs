//! The one way in which a member starts threads and tasks: a panic in any of them ends the member,
//! with the name of the thread or task.
//!
//! ```text
//!   thread, nice, task, blocking, Tasks ─► run: the work, and a guard around it
//!                                              │ panic
//!   an error without a remedy ─────► fail ─────┴─► failure(): the first reason, kept
//!                                                  hooks: raft and the store stop at once
//! ```
//!
//! Without the guard a panic is a line in the log and one thread less: a leader without its apply
//! thread stays the leader and answers nothing, and a missing duty goes unnoticed until the disk is
//! full. Each member has a supervisor of its own, so that several members can live in one process,
//! as in tests and in the simulator. A simulated member has no threads; its turns go through
//! [`Supervisor::run`] instead.
//!
//! A panic leaves its work half done. The member therefore writes nothing more: the process ends
//! with an error, and the next start replays the log. In a process that is one member, the panic
//! ends the process at once, before anything unwinds (`at_panic`).
//!
//! A body's outcome goes to the caller that joins or awaits it. An outcome is missing only if the
//! member is ending anyway.

mod at_panic;
mod read_turns;
pub mod slice;

use std::fmt;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::limits;
use crate::planted::{self, Bug};
use at_panic::{NAME, text, with_patience};

pub use at_panic::end_at_panic;
pub use read_turns::{ReadTurn, ReadTurns, processors_for_long_work};

/// The name of the work that panicked, and the panic's message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} panicked: {why}")]
pub struct Panicked {
    name: String,
    why: String,
}

impl Panicked {
    /// The panic's message.
    pub fn why(&self) -> &str {
        &self.why
    }
}

/// There is no outcome: the work panicked, or its runtime ended with the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the member is ending")]
pub struct Gone;

/// Ends a task when nobody waits for its outcome any more.
struct Awaited(AbortHandle);

impl Drop for Awaited {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A thread in which a panic ends the member.
pub struct Thread<T>(std::thread::JoinHandle<Result<T, Panicked>>);

type Hook = Box<dyn FnOnce(&str) + Send>;

/// Starts the threads and tasks of one member, and keeps the reason why it has to stop.
#[derive(Clone)]
pub struct Supervisor(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// The reason in `state`, shown once it has been logged.
    failure: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct State {
    reason: Option<String>,
    hooks: Vec<Hook>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), failure: watch::Sender::new(None) }))
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Supervisor").field(&self.failure_reason()).finish()
    }
}

impl<T> Thread<T> {
    /// Waits for the thread's end and returns its outcome.
    pub fn join(self) -> Result<T, Gone> {
        self.0.join().map_err(|_| Gone)?.map_err(|_| Gone)
    }
}

impl Supervisor {
    /// Runs a piece of work on the calling thread; a panic in it ends the member.
    pub fn run<T>(&self, name: &'static str, work: impl FnOnce() -> T) -> Result<T, Panicked> {
        catch_unwind(AssertUnwindSafe(|| NAME.sync_scope(name, work)))
            .map_err(|panic| self.panicked(name, &*panic))
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

    /// As [`Self::thread`], for a thread that requests wait for: it gets a processor soon after it
    /// wakes, also where others are busy.
    pub fn prompt_thread<T: Send + 'static>(
        &self,
        name: &'static str,
        body: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Thread<T>> {
        self.thread(name, || {
            slice::set(limits::PROMPT_SLICE);
            body()
        })
    }

    /// Runs work on a thread of its own with niceness 10. It runs to its end, also if the caller's
    /// future is dropped.
    pub async fn nice<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (done, outcome) = oneshot::channel();
        let supervisor = self.clone();
        self.thread(name, move || {
            // The thread that started this one may have had short slices.
            slice::set(Duration::ZERO);
            // Without permission for that the thread competes like any other.
            let _ = rustix::process::setpriority_process(None, limits::LONG_WORK_NICENESS);
            // Guarded apart from the thread, so that the member hears of a panic before the caller
            // does. The send fails if the caller's future was dropped.
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

    /// Runs a future in a task, so that it goes on also while nobody polls for its outcome. It ends
    /// early if what this returns is dropped.
    pub fn awaited<T, F>(
        &self,
        name: &'static str,
        future: F,
    ) -> impl Future<Output = Result<T, Gone>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (done, outcome) = oneshot::channel();
        let task = Awaited(self.task(name, async move {
            // Fails if the outcome came just when nobody waited for it any more.
            let _ = done.send(future.await);
        }));
        async move {
            let _task = task;
            outcome.await.map_err(|_| Gone)
        }
    }

    /// Starts a task on another runtime.
    pub fn task_on<F>(&self, runtime: &Handle, name: &'static str, future: F) -> AbortHandle
    where
        F: Future<Output = ()> + Send + 'static,
    {
        runtime.spawn(self.guarded(name, future)).abort_handle()
    }

    /// Runs work that may block, off the threads that serve connections.
    pub async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let supervisor = self.clone();
        let done = tokio::task::spawn_blocking(move || supervisor.run(name, work));
        done.await.map_err(|_| Gone)?.map_err(|_| Gone)
    }

    /// As [`Self::blocking`], but as a task: for a stepped member, which has no threads of its own.
    pub async fn inline<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let done = tokio::spawn(self.guarded(name, async move { work() }));
        done.await.map_err(|_| Gone)?.map_err(|_| Gone)
    }

    /// Makes a set of tasks whose end the caller waits for.
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
        // An async block would hold the future twice: as its argument, and while it is awaited.
        AssertUnwindSafe(NAME.scope(name, future))
            .catch_unwind()
            .map(move |outcome| outcome.map_err(|panic| supervisor.panicked(name, &*panic)))
    }

    fn panicked(&self, name: &str, panic: &(dyn std::any::Any + Send)) -> Panicked {
        let panicked = Panicked { name: name.to_owned(), why: text(panic).to_owned() };
        if !planted::is(Bug::UnheardPanic) {
            self.fail(&panicked.to_string());
        }
        panicked
    }

    /// Stops the member: keeps the first reason, logs it, shows it, and calls the hooks on this
    /// thread.
    pub fn fail(&self, why: &str) {
        let hooks = {
            let mut state = self.0.state.lock();
            if state.reason.is_some() {
                return;
            }
            state.reason = Some(why.to_owned());
            std::mem::take(&mut state.hooks)
        };
        // Logged first: a task that learns of the failure may end the process, and logs the last
        // line.
        let line = why.to_owned();
        with_patience(move || tracing::error!(error = line, "the member stops"));
        self.0.failure.send_replace(Some(why.to_owned()));
        for hook in hooks {
            hook(why);
        }
    }

    /// Calls `hook` once when the member has to stop, or at once if it has to already. The hook is
    /// called on the thread that failed, and must not block.
    pub fn on_failure(&self, hook: impl FnOnce(&str) + Send + 'static) {
        let mut state = self.0.state.lock();
        match state.reason.clone() {
            None => state.hooks.push(Box::new(hook)),
            Some(why) => {
                drop(state);
                hook(&why);
            }
        }
    }

    /// Shows the reason once the member has to stop and has logged why.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.0.failure.subscribe()
    }

    /// Why the member has to stop, if it has to.
    pub fn failure_reason(&self) -> Option<String> {
        self.0.state.lock().reason.clone()
    }
}

/// Tasks of one kind. Dropping this aborts those that still run. A task that has ended keeps its
/// memory until [`Tasks::ended`] has returned for it.
pub struct Tasks {
    supervisor: Supervisor,
    name: &'static str,
    set: JoinSet<Result<(), Panicked>>,
}

impl Tasks {
    /// Starts a task on the caller's runtime.
    pub fn start(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        let guarded = self.supervisor.guarded(self.name, task);
        self.set.spawn(guarded);
    }

    /// Starts a task on another runtime.
    pub fn start_on(&mut self, task: impl Future<Output = ()> + Send + 'static, runtime: &Handle) {
        let guarded = self.supervisor.guarded(self.name, task);
        self.set.spawn_on(guarded, runtime);
    }

    /// Waits until one of the tasks has ended; false if there are none.
    pub async fn ended(&mut self) -> bool {
        self.set.join_next().await.is_some()
    }

    /// Waits until all tasks have ended.
    pub async fn all_ended(&mut self) {
        while self.ended().await {}
    }
}

#[cfg(test)]
mod tests;
