//! Writes zeros ahead of the writer and prepares the next segment.
//!
//! The first sync of reserved blocks has to record in the file system's metadata that they are in
//! use. Where zeros were written and synced before, a sync writes nothing but the data.
//!
//! The next segment is prepared as soon as the current one is in use: when the disk becomes full,
//! the log still has a whole segment, and older ones may be removed meanwhile.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Room;
use super::disk::{Disk, File, allocate, is_full};
use crate::clock;
use crate::limits;
use crate::planted;
use crate::supervise::{Supervisor, Thread};

/// The name of the prepared segment.
pub(super) const NEXT_NAME: &str = "next.tmp";
const BLOCK_BYTES: u64 = 4096;

/// The writer's hold on the filling thread. Dropping it ends the thread.
pub(super) struct ZeroFiller {
    shared: Arc<Shared>,
    thread: Option<Thread<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes: u64,
    room: Room,
}

/// The current segment.
pub(super) struct Current<'a> {
    pub(super) path: &'a Path,
    /// Where its records end.
    pub(super) written: u64,
    /// Up to where it holds records or zeros.
    pub(super) filled: u64,
    /// Its allocated length.
    pub(super) capacity: u64,
}

#[derive(Default)]
struct State {
    path: PathBuf,
    written: u64,
    filled: u64,
    capacity: u64,
    /// From where on zeros are being written, without the lock; the writer must not write there.
    /// `u64::MAX` while the next segment is being made.
    busy: Option<u64>,
    next: Option<Prepared>,
    /// The disk had no room for the next segment; the thread tries again after `LOG_ROOM_RETRY`.
    rests: bool,
    /// Whether a log line has said that the next segment has no room.
    is_said: bool,
    /// The thread has ended or is to end. It does so after an error, too: zeros only make syncs
    /// faster, and the writer makes the next segment itself.
    ended: bool,
}

/// A segment ready for use.
pub(super) struct Prepared {
    pub(super) file: Arc<dyn File>,
    pub(super) filled: u64,
    pub(super) capacity: u64,
}

impl ZeroFiller {
    /// No zeros are written before [`Self::run`].
    pub(super) fn new(disk: Arc<dyn Disk>, dir: &Path, segment_bytes: u64, room: Room) -> Self {
        let state = State { ended: true, ..State::default() };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            changed: Condvar::new(),
            disk,
            dir: dir.to_path_buf(),
            segment_bytes,
            room,
        });
        Self { shared, thread: None }
    }

    /// Starts the thread. If that fails, the log works without zeros ahead.
    pub(super) fn run(&mut self, supervisor: &Supervisor) {
        self.shared.state.lock().ended = false;
        let (shared, own) = (Arc::clone(&self.shared), supervisor.clone());
        let started = supervisor.thread("raft-log-zeros", move || {
            if own.run("raft-log-zeros", || shared.run()).is_err() {
                // After a panic the writer must not wait for the thread.
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

    /// Tells the thread which segment is the current one.
    pub(super) fn set_current(&self, current: &Current<'_>) {
        let mut state = self.shared.state.lock();
        state.path = current.path.to_path_buf();
        state.written = current.written;
        state.filled = current.filled.max(current.written).next_multiple_of(BLOCK_BYTES);
        state.capacity = current.capacity;
        state.rests = false;
        self.shared.changed.notify_all();
    }

    /// Called before the writer writes up to `end`; waits while the thread writes zeros there.
    pub(super) fn await_range(&self, end: u64) {
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

    /// Hands out the next segment, and makes it if it is not ready; an error is the disk's. The
    /// thread then does nothing until [`Self::set_current`].
    pub(super) fn take_next(&self) -> io::Result<Prepared> {
        let mut state = self.shared.state.lock();
        while state.busy.is_some() {
            self.shared.changed.wait(&mut state);
        }
        let next = match state.next.take() {
            Some(next) => next,
            None => {
                state.busy = Some(u64::MAX);
                let made = MutexGuard::unlocked(&mut state, || self.shared.make_next(0));
                state.busy = None;
                self.shared.changed.notify_all();
                made?
            }
        };
        state.path = PathBuf::new();
        // It counts as the next one until it counts as the current one: who looks in between would
        // find no room at all.
        self.shared.room.set_prepared_bytes(next.capacity);
        Ok(next)
    }

    /// Takes over a segment that an earlier process prepared.
    pub(super) fn adopt(&self, next: Prepared) {
        self.shared.room.set_prepared_bytes(next.capacity);
        self.shared.state.lock().next = Some(next);
    }

    /// Takes back the next segment, which was not used; `current` stays the current one.
    pub(super) fn give_back(&self, current: &Current<'_>, next: Prepared) {
        self.shared.room.set_prepared_bytes(next.capacity);
        self.shared.state.lock().next = Some(next);
        self.set_current(current);
    }

    /// Lets the thread try again to prepare the next segment, since the log has freed space.
    pub(super) fn retry(&self) {
        self.shared.state.lock().rests = false;
        self.shared.changed.notify_all();
    }
}

impl Drop for ZeroFiller {
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
        (state.written + limits::LOG_FILL_AHEAD_BYTES).min(state.capacity)
    }

    fn wants_zeros(&self, state: &State) -> bool {
        state.filled + limits::LOG_FILL_CHUNK_BYTES as u64 <= self.goal(state)
    }

    fn wants(&self, state: &State) -> bool {
        let is_time = self.room.is_reserve_known() || self.goal(state) == state.capacity;
        let wants_next = state.next.is_none() && !state.rests && is_time;
        let is_free = state.busy.is_none() && !state.path.as_os_str().is_empty();
        is_free && (self.wants_zeros(state) || wants_next)
    }

    fn run(&self) {
        let zeros = vec![0; limits::LOG_FILL_CHUNK_BYTES];
        let mut open: Option<(PathBuf, Arc<dyn File>)> = None;
        let begin = clock::instant() + limits::LOG_FILL_REST;
        let mut state = self.state.lock();
        while !state.ended && !self.changed.wait_until(&mut state, begin).timed_out() {}
        while !state.ended {
            // An open handle would keep the blocks of a segment that is purged, which a full disk
            // needs.
            open.take_if(|(path, _)| *path != state.path);
            if !self.wants(&state) {
                if state.next.is_some() {
                    self.changed.wait(&mut state);
                } else if self.changed.wait_for(&mut state, limits::LOG_ROOM_RETRY).timed_out() {
                    state.rests = false;
                }
                continue;
            }
            planted::panic_if_planted("raft-log-zeros");
            let outcome = if self.wants_zeros(&state) {
                self.fill(&mut state, &zeros, &mut open)
            } else {
                self.prepare(&mut state)
            };
            state.busy = None;
            self.changed.notify_all();
            match outcome {
                Ok(()) => {}
                Err(error) if is_full(&error) => {
                    state.rests = true;
                    if !std::mem::replace(&mut state.is_said, true) {
                        tracing::warn!(
                            dir = %self.dir.display(), %error,
                            "there is no room for the log's next segment; it is looked for again"
                        );
                    }
                }
                Err(error) => {
                    state.ended = true;
                    tracing::warn!(%error, "the log's space is no longer zero-filled ahead");
                }
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
                // A failed sync is reported once for each handle: with its own handle this thread
                // does not take the report from the writer.
                _ => self.disk.open(&path)?,
            };
            file.write_at(zeros, start)?;
            file.fdatasync()?;
            *open = Some((path, file));
            Ok(())
        })
    }

    fn prepare(&self, state: &mut MutexGuard<'_, State>) -> io::Result<()> {
        state.busy = Some(u64::MAX);
        let filled = limits::LOG_FILL_AHEAD_BYTES.min(self.segment_bytes);
        let prepared = MutexGuard::unlocked(state, || self.make_next(filled))?;
        state.next = Some(prepared);
        state.is_said = false;
        Ok(())
    }

    /// Makes the next segment, with zeros written up to `filled`. If the disk has no room for it,
    /// no file stays, and the disk's free bytes do not count as room until a segment could be made.
    fn make_next(&self, filled: u64) -> io::Result<Prepared> {
        let made = self.try_make_next(filled);
        self.room.set_refused(made.as_ref().is_err_and(is_full));
        made
    }

    fn try_make_next(&self, filled: u64) -> io::Result<Prepared> {
        let capacity = self.room.next_bytes();
        if capacity == 0 {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        let filled = filled.min(capacity);
        let path = self.dir.join(NEXT_NAME);
        let file = self.disk.create(&path)?;
        let allocated = allocate(&*file, capacity).map(|()| {
            // The disk no longer counts these bytes as free, so they are the log's from here on,
            // although the zeros take a while.
            self.room.note_taken(capacity);
            self.room.set_prepared_bytes(capacity);
        });
        let is_allocated = allocated.is_ok();
        match allocated.and_then(|()| write_zeros(&*file, filled)) {
            Ok(filled) => Ok(Prepared { file, filled, capacity }),
            Err(error) => {
                // A partly allocated file would keep the last free blocks.
                let _ = self.disk.remove(&path);
                if is_allocated {
                    self.room.set_prepared_bytes(0);
                    self.room.note_given_back(capacity);
                }
                Err(error)
            }
        }
    }
}

/// Writes zeros into whole chunks up to `end`, and returns where they end on disk.
fn write_zeros(file: &dyn File, end: u64) -> io::Result<u64> {
    let zeros = vec![0; limits::LOG_FILL_CHUNK_BYTES];
    let mut at = 0;
    while at + zeros.len() as u64 <= end {
        file.write_at(&zeros, at)?;
        at += zeros.len() as u64;
    }
    if at > 0 {
        file.fdatasync()?;
    }
    Ok(at)
}
