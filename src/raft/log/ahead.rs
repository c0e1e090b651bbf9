//! Writes zeros ahead of the writer and prepares the next segment.
//!
//! A sync of freshly reserved space has to record that the space is now in use. Where zeros were
//! written and synced before, it writes nothing but the data.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::disk::{Disk, File};
use crate::limits;
use crate::planted;
use crate::supervise::{Supervisor, Thread};

/// The name of the prepared segment.
pub(super) const NEXT_NAME: &str = "next.tmp";
const BLOCK_BYTES: u64 = 4096;

/// The writer's hold on the filling thread. Dropping it ends the thread.
pub(super) struct Ahead {
    shared: Arc<Shared>,
    thread: Option<Thread<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
}

#[derive(Default)]
struct State {
    /// The current segment, and how far it is written.
    path: PathBuf,
    written: u64,
    /// Up to here the segment holds data or zeros.
    filled: u64,
    /// Where zeros are being written right now; the writer keeps out.
    busy: Option<u64>,
    next: Option<Prepared>,
    /// Filling is a favour: after an error it ends, and the writer does without.
    ended: bool,
}

/// A segment ready for use.
pub(super) struct Prepared {
    pub(super) file: Arc<dyn File>,
    pub(super) filled: u64,
}

impl Ahead {
    /// Nothing is filled before [`Self::run`].
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, segment_bytes: u64) -> Self {
        let state = State { ended: true, ..State::default() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            disk,
            dir: dir.to_path_buf(),
            segment_bytes,
        });
        Self { shared, thread: None }
    }

    /// Starts to fill. Without a thread the writer does without.
    pub(super) fn run(&mut self, supervisor: &Supervisor) {
        self.shared.state.lock().ended = false;
        let (shared, own) = (Arc::clone(&self.shared), supervisor.clone());
        let started = supervisor.thread("raft-log-zeros", move || {
            if own.run("raft-log-zeros", || shared.run()).is_err() {
                // The writer must not wait for it.
                let mut state = shared.state.lock();
                (state.busy, state.ended) = (None, true);
                shared.changed.notify_all();
            }
        });
        match started {
            Ok(thread) => self.thread = Some(thread),
            Err(_) => self.shared.state.lock().ended = true,
        }
    }

    /// Names the current segment, which holds data up to `written` and zeros up to `filled`.
    pub(super) fn follow(&self, path: &Path, written: u64, filled: u64) {
        let mut state = self.shared.state.lock();
        state.path = path.to_path_buf();
        state.written = written;
        state.filled = filled.max(written).next_multiple_of(BLOCK_BYTES);
        self.shared.changed.notify_all();
    }

    /// Lets the writer have the segment up to `end`.
    pub(super) fn reserve(&self, end: u64) {
        let mut state = self.shared.state.lock();
        while state.busy.is_some_and(|start| end > start) {
            self.shared.changed.wait(&mut state);
        }
        if end > state.filled {
            state.filled = end.next_multiple_of(BLOCK_BYTES);
        }
        state.written = end;
        if self.shared.wants(&state) {
            self.shared.changed.notify_all();
        }
    }

    /// Hands out the next segment, if it is ready. The thread rests until [`Self::follow`].
    pub(super) fn take_next(&self) -> Option<Prepared> {
        let mut state = self.shared.state.lock();
        while state.busy.is_some() {
            self.shared.changed.wait(&mut state);
        }
        state.path = PathBuf::new();
        state.next.take()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.state.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // The supervisor knows of a panic.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// How far zeros should reach.
    fn goal(&self, state: &State) -> u64 {
        (state.written + limits::LOG_FILL_AHEAD_BYTES).min(self.segment_bytes)
    }

    fn wants(&self, state: &State) -> bool {
        let goal = self.goal(state);
        let fill = state.filled + limits::LOG_FILL_CHUNK_BYTES as u64 <= goal;
        fill || (goal == self.segment_bytes && state.next.is_none())
    }

    fn run(&self) {
        let zeros = vec![0; limits::LOG_FILL_CHUNK_BYTES];
        let mut open: Option<(PathBuf, Arc<dyn File>)> = None;
        let mut state = self.state.lock();
        loop {
            while !state.ended && (state.path.as_os_str().is_empty() || !self.wants(&state)) {
                self.changed.wait(&mut state);
            }
            if state.ended {
                return;
            }
            planted::trip("raft-log-zeros");
            let goal = self.goal(&state);
            let outcome = if state.filled + zeros.len() as u64 <= goal {
                self.fill(&mut state, &zeros, &mut open)
            } else {
                self.prepare(&mut state, &zeros)
            };
            state.busy = None;
            self.changed.notify_all();
            if let Err(error) = outcome {
                state.ended = true;
                tracing::warn!(%error, "the log's space is no longer zero-filled ahead");
            }
        }
    }

    fn fill(
        &self,
        state: &mut MutexGuard<'_, State>,
        zeros: &[u8],
        open: &mut Option<(PathBuf, Arc<dyn File>)>,
    ) -> io::Result<()> {
        let start = state.filled;
        state.busy = Some(start);
        state.filled = start + zeros.len() as u64;
        let path = state.path.clone();
        MutexGuard::unlocked(state, || {
            let file = match open.take() {
                Some((opened, file)) if opened == path => file,
                // Its own handle: a failed sync is reported once per handle, and the writer must
                // not miss it.
                _ => self.disk.open(&path)?,
            };
            file.write_at(zeros, start)?;
            file.fdatasync()?;
            *open = Some((path, file));
            Ok(())
        })
    }

    fn prepare(&self, state: &mut MutexGuard<'_, State>, zeros: &[u8]) -> io::Result<()> {
        state.busy = Some(u64::MAX);
        let prepared = MutexGuard::unlocked(state, || {
            let file = self.disk.create(&self.dir.join(NEXT_NAME))?;
            file.allocate(self.segment_bytes)?;
            let filled = limits::LOG_FILL_AHEAD_BYTES.min(self.segment_bytes);
            let mut at = 0;
            while at + zeros.len() as u64 <= filled {
                file.write_at(zeros, at)?;
                at += zeros.len() as u64;
            }
            file.fdatasync()?;
            io::Result::Ok(Prepared { file, filled: at })
        })?;
        state.next = Some(prepared);
        Ok(())
    }
}
