//! What the answers of this member hold in memory until their clients have taken them.
//!
//! A long range is built whole before its first byte leaves, and a client need not read it. So few are
//! built at a time, and how many depends on what waits to be sent already:
//!
//! ```text
//!   up to UNSENT_BYTES_MAX    LONG_ANSWERS_MAX at a time
//!   up to UNSENT_BYTES_FULL   one at a time: a slow reader of one large answer stops nobody
//!   above                     none: a call waits for room, and in the end is told so
//! ```
//!
//! The sender of the answers says here what they hold; this room does not know how they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::Error;
use crate::clock::{self, Clock};
use crate::limits;
use crate::metrics;

pub struct Answers {
    unsent_bytes: AtomicUsize,
    turns: Arc<Semaphore>,
    /// Of those that have a turn, one at a time builds its answer while there is little room.
    narrow: Arc<Semaphore>,
    /// Calls that wait for room.
    waiting: AtomicUsize,
    room: Notify,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            unsent_bytes: AtomicUsize::new(0),
            turns: Arc::new(Semaphore::new(limits::LONG_ANSWERS_MAX)),
            narrow: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
            room: Notify::new(),
        }
    }
}

/// The right to build a long answer. It belongs to the work, not to the call, which may be cancelled
/// while the work goes on.
pub(super) struct Turn {
    _turn: OwnedSemaphorePermit,
    _narrow: Option<OwnedSemaphorePermit>,
}

impl Answers {
    /// So many bytes more wait to be sent.
    pub fn add(&self, bytes: usize) {
        self.unsent_bytes.fetch_add(bytes, Ordering::SeqCst);
        metrics::unsent_bytes().add(bytes as i64);
    }

    /// So many are sent, or will never be.
    pub fn remove(&self, bytes: usize) {
        let before = self.unsent_bytes.fetch_sub(bytes, Ordering::SeqCst);
        metrics::unsent_bytes().sub(bytes as i64);
        if before > limits::UNSENT_BYTES_FULL && before - bytes <= limits::UNSENT_BYTES_FULL {
            self.room.notify_waiters();
        }
    }

    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes.load(Ordering::SeqCst)
    }

    /// Whether so much waits to be sent that every connection is held to its share.
    pub fn is_crowded(&self) -> bool {
        self.unsent_bytes() > limits::UNSENT_BYTES_MAX
    }

    fn is_full(&self) -> bool {
        self.unsent_bytes() > limits::UNSENT_BYTES_FULL
    }

    /// Whether a call waits for room.
    pub fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Bytes that an answer may have without a turn.
    pub(super) fn short_bytes(&self) -> usize {
        match self.is_crowded() {
            true => limits::CROWDED_RANGE_BYTES_MAX,
            false => limits::INLINE_RANGE_BYTES_MAX,
        }
    }

    /// To be held while a long answer is built. There has to be room within this time.
    pub(super) async fn turn(&self, clock: &dyn Clock, patience: Duration) -> Result<Turn, Error> {
        loop {
            let room = clock::timeout(clock, patience, self.some_room()).await;
            room.ok_or(Error::TooManyRequests)?;
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            let turn = turn.map_err(|_| Error::Stopped)?;
            let narrow = match self.is_crowded() {
                true => Some(Arc::clone(&self.narrow).acquire_owned().await),
                false => None,
            };
            let narrow = narrow.transpose().map_err(|_| Error::Stopped)?;
            // Others may have taken the room meanwhile. Their clients take time, and a turn is not to
            // be held for that.
            if !self.is_full() {
                return Ok(Turn { _turn: turn, _narrow: narrow });
            }
        }
    }

    async fn some_room(&self) {
        if !self.is_full() {
            return;
        }
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if !self.is_full() {
                return;
            }
            room.await;
        }
    }

    /// A call that waits for room, until it is dropped.
    #[cfg(test)]
    pub(crate) fn wait_for_room(&self) -> impl Sized {
        Waiting::new(&self.waiting)
    }

    #[cfg(test)]
    pub(super) fn free_turns(&self) -> usize {
        self.turns.available_permits()
    }
}

/// Counts a call until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::clock::SystemClock;

    const LONG: Duration = Duration::from_secs(600);

    #[tokio::test]
    async fn one_slow_reader_leaves_others_their_turns() {
        let (answers, clock) = (Answers::default(), SystemClock::new());
        let turn = || answers.turn(&clock, LONG).now_or_never();
        let taken: Vec<_> = (0..limits::LONG_ANSWERS_MAX).map(|_| turn().unwrap().ok()).collect();
        assert!(turn().is_none(), "all turns are taken");
        drop(taken);
        answers.add(limits::UNSENT_BYTES_MAX + 1);
        let one = turn().expect("one answer at a time is built").ok().unwrap();
        assert!(turn().is_none(), "two answers are built at a time");
        drop(one);
        assert!(turn().is_some());
        assert_eq!(answers.free_turns(), limits::LONG_ANSWERS_MAX);
    }

    #[tokio::test]
    async fn a_call_that_finds_no_room_is_told_so_and_keeps_no_turn() {
        let (answers, clock) = (Answers::default(), SystemClock::new());
        answers.add(limits::UNSENT_BYTES_FULL + 1);
        let short = Duration::from_millis(10);
        let refused = answers.turn(&clock, short).await.err();
        assert_eq!(refused, Some(Error::TooManyRequests));
        assert!(!answers.has_waiting());
        let mut waiting = Box::pin(answers.turn(&clock, LONG));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(answers.has_waiting());
        assert_eq!(answers.free_turns(), limits::LONG_ANSWERS_MAX);
        answers.remove(1);
        assert!(waiting.await.is_ok(), "there is room");
    }
}
