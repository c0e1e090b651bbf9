//! A bound on the memory that answers hold until their clients have taken them.
//!
//! A long range is built whole before its first byte leaves, and its client may never read it. So
//! only a few are built at a time, and fewer the more bytes wait to be sent:
//!
//! ```text
//!   up to UNSENT_BYTES_MAX    LONG_ANSWERS_MAX at a time
//!   up to UNSENT_BYTES_FULL   one at a time: a slow reader of one large answer stops no other call
//!   above                     none: a call waits for room, and in the end is told so
//! ```
//!
//! A write whose answer may be long takes a turn before it is proposed, since apply cannot wait for
//! one. The length is estimated by doing the reads of the write on the state as it is, plus what
//! the write itself puts: the exact length shows only when the entry is applied. A write that
//! touches few keys is measured on the thread that received it, any other on a blocking thread, a
//! few at a time.
//!
//! A call waits for all of this no longer than a request may take.
//!
//! `server` reports the bytes that answers hold; this room does not know how they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::Error;
use crate::clock::{self, Clock};
use crate::limits;
use crate::metrics;

#[derive(Default)]
pub struct Answers {
    unsent_bytes: AtomicUsize,
    reads: Gate,
    /// Turns of writes with long answers. They have a gate of their own because a write holds its
    /// turn until it is applied, which without a leader takes long, and reads must not wait for
    /// that.
    writes: Gate,
    /// The number of calls that wait until unsent bytes fall to `UNSENT_BYTES_FULL`.
    waiting: AtomicUsize,
    room: Notify,
}

struct Gate {
    turns: Arc<Semaphore>,
    /// Held by the one call that may build its answer while unsent bytes are above
    /// `UNSENT_BYTES_MAX`. Taken after a turn.
    sole_builder: Arc<Semaphore>,
    /// One permit for each call that waits for a turn; a call without one is refused.
    places: Semaphore,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(limits::LONG_ANSWERS_MAX)),
            sole_builder: Arc::new(Semaphore::new(1)),
            places: Semaphore::new(limits::LONG_ANSWERS_WAITING_MAX),
        }
    }
}

/// The right to build a long answer. The thread that does the work holds it, not the call: a
/// cancelled call ends before its work does.
pub(super) struct AnswerTurn {
    _turn: OwnedSemaphorePermit,
    _sole_builder: Option<OwnedSemaphorePermit>,
}

impl Answers {
    /// Counts bytes of an answer that wait to be sent.
    pub fn add(&self, bytes: usize) {
        self.unsent_bytes.fetch_add(bytes, Ordering::SeqCst);
        metrics::unsent_bytes().add(bytes as i64);
    }

    /// Discounts bytes that are sent, or whose connection is gone.
    pub fn remove(&self, bytes: usize) {
        let before = self.unsent_bytes.fetch_sub(bytes, Ordering::SeqCst);
        metrics::unsent_bytes().sub(bytes as i64);
        if before > limits::UNSENT_BYTES_FULL && before - bytes <= limits::UNSENT_BYTES_FULL {
            self.room.notify_waiters();
        }
    }

    /// Bytes of answers that are built and not sent, over all connections.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes.load(Ordering::SeqCst)
    }

    /// Whether so many bytes wait to be sent that each connection is held to its share of them.
    pub fn is_crowded(&self) -> bool {
        self.unsent_bytes() > limits::UNSENT_BYTES_MAX
    }

    fn is_full(&self) -> bool {
        self.unsent_bytes() > limits::UNSENT_BYTES_FULL
    }

    /// Whether a call waits for unsent bytes to become fewer.
    pub fn has_waiting_calls(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// The size in bytes up to which an answer needs no turn.
    pub(super) fn short_bytes(&self) -> usize {
        match self.is_crowded() {
            true => limits::CROWDED_RANGE_BYTES_MAX,
            false => limits::INLINE_RANGE_BYTES_MAX,
        }
    }

    /// A turn, to be held while a long answer is built. Fails with `TooManyRequests` if it does not
    /// come within `patience`, or at once if `LONG_ANSWERS_WAITING_MAX` calls wait.
    pub(super) async fn turn(
        &self,
        clock: &dyn Clock,
        patience: Duration,
    ) -> Result<AnswerTurn, Error> {
        self.turn_of(&self.reads, clock, patience).await
    }

    /// As `turn`, for a write, which holds it from before it is proposed until it is answered.
    pub(super) async fn turn_to_write(
        &self,
        clock: &dyn Clock,
        patience: Duration,
    ) -> Result<AnswerTurn, Error> {
        self.turn_of(&self.writes, clock, patience).await
    }

    async fn turn_of(
        &self,
        gate: &Gate,
        clock: &dyn Clock,
        patience: Duration,
    ) -> Result<AnswerTurn, Error> {
        let Ok(_place) = gate.places.try_acquire() else { return Err(Error::TooManyRequests) };
        let turn = clock::timeout(clock, patience, self.some_turn(gate)).await;
        turn.unwrap_or(Err(Error::TooManyRequests))
    }

    /// Free of deadlocks: a call with a turn waits for `sole_builder` only, and the holder of
    /// that permit waits for nothing.
    async fn some_turn(&self, gate: &Gate) -> Result<AnswerTurn, Error> {
        loop {
            self.some_room().await;
            let turn = Arc::clone(&gate.turns).acquire_owned().await;
            let turn = turn.map_err(|_| Error::Stopped)?;
            let sole_builder = match self.is_crowded() {
                true => Some(Arc::clone(&gate.sole_builder).acquire_owned().await),
                false => None,
            };
            let sole_builder = sole_builder.transpose().map_err(|_| Error::Stopped)?;
            // Unsent bytes may have grown over the bound while this call waited. How long they stay
            // depends on clients, so the turn is given back before the call waits for room again.
            if !self.is_full() {
                return Ok(AnswerTurn { _turn: turn, _sole_builder: sole_builder });
            }
        }
    }

    /// Whether an answer of so many bytes may be made now: a short one always may.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        bytes <= limits::CROWDED_RANGE_BYTES_MAX || !self.is_full()
    }

    /// Waits until unsent bytes are at most `UNSENT_BYTES_FULL`.
    pub(super) async fn some_room(&self) {
        if !self.is_full() {
            return;
        }
        let _waiting = WaitCount::new(&self.waiting);
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

    /// Counts a call as waiting for room until the returned value is dropped.
    #[cfg(test)]
    pub(crate) fn wait_for_room(&self) -> impl Sized {
        WaitCount::new(&self.waiting)
    }

    #[cfg(test)]
    pub(super) fn free_turns(&self) -> usize {
        self.reads.turns.available_permits()
    }

    #[cfg(test)]
    pub(super) fn free_turns_to_write(&self) -> usize {
        self.writes.turns.available_permits()
    }
}

/// Counts a call until it is dropped.
struct WaitCount<'a>(&'a AtomicUsize);

impl<'a> WaitCount<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for WaitCount<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::clock::{Sleep, SystemClock};

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
        assert!(!answers.has_waiting_calls());
        let mut waiting = Box::pin(answers.turn(&clock, LONG));
        assert!((&mut waiting).now_or_never().is_none());
        assert!(answers.has_waiting_calls());
        assert_eq!(answers.free_turns(), limits::LONG_ANSWERS_MAX);
        answers.remove(1);
        assert!(waiting.await.is_ok(), "there is room");
    }

    #[tokio::test]
    async fn a_call_that_finds_no_turn_is_told_so() {
        let (answers, clock) = (Answers::default(), SystemClock::new());
        let turn = || answers.turn(&clock, LONG).now_or_never();
        let short = async || {
            let refused = answers.turn(&clock, Duration::from_millis(10));
            let ended = tokio::time::timeout(Duration::from_secs(60), refused).await;
            ended.expect("it waits without an end").err()
        };
        let taken: Vec<_> = (0..limits::LONG_ANSWERS_MAX).map(|_| turn().unwrap().ok()).collect();
        assert_eq!(short().await, Some(Error::TooManyRequests));
        drop(taken);
        answers.add(limits::UNSENT_BYTES_MAX + 1);
        let _sole_builder = turn().expect("one answer at a time is built").ok().unwrap();
        assert_eq!(short().await, Some(Error::TooManyRequests));
        assert_eq!(answers.free_turns(), limits::LONG_ANSWERS_MAX - 1, "it has kept its turn");
    }

    /// Time passes when the test says so.
    #[derive(Default)]
    struct Hand {
        now: Arc<AtomicUsize>,
        moved: Arc<Notify>,
    }

    impl Hand {
        fn pass(&self, seconds: usize) {
            self.now.fetch_add(seconds, Ordering::SeqCst);
            self.moved.notify_waiters();
        }
    }

    impl Clock for Hand {
        fn now(&self) -> Duration {
            Duration::from_secs(self.now.load(Ordering::SeqCst) as u64)
        }

        fn unix_nanos(&self) -> u64 {
            0
        }

        fn random(&self) -> u64 {
            1
        }

        fn sleep(&self, duration: Duration) -> Sleep {
            let end = (self.now() + duration).as_secs() as usize;
            let (now, moved) = (Arc::clone(&self.now), Arc::clone(&self.moved));
            Box::pin(async move {
                while now.load(Ordering::SeqCst) < end {
                    moved.notified().await;
                }
            })
        }
    }

    /// Each time that there is room, all turns are taken, and the other way round.
    #[tokio::test]
    async fn a_call_has_one_deadline_for_all_that_it_waits_for() {
        let (answers, clock) = (Answers::default(), Hand::default());
        answers.add(limits::UNSENT_BYTES_FULL + 1);
        let mut call = Box::pin(answers.turn(&clock, Duration::from_secs(10)));
        for round in 0..3 {
            assert!((&mut call).now_or_never().is_none(), "round {round}");
            clock.pass(3);
            let all = Arc::clone(&answers.reads.turns);
            let all = all.try_acquire_many_owned(limits::LONG_ANSWERS_MAX as u32).unwrap();
            answers.remove(1);
            assert!((&mut call).now_or_never().is_none(), "there is room, and no turn");
            answers.add(1);
            drop(all);
        }
        assert!((&mut call).now_or_never().is_none());
        clock.pass(1);
        let outcome = (&mut call).now_or_never().map(Result::err);
        assert_eq!(outcome, Some(Some(Error::TooManyRequests)), "it has waited ten seconds");
    }

    #[tokio::test]
    async fn so_many_wait_for_a_turn_and_no_more() {
        let (answers, clock) = (Answers::default(), SystemClock::new());
        let turn = || Box::pin(answers.turn(&clock, LONG));
        let taken: Vec<_> = (0..limits::LONG_ANSWERS_MAX)
            .map(|_| turn().now_or_never().unwrap().ok().unwrap())
            .collect();
        let mut waiting: Vec<_> = (0..4096).map(|_| turn()).collect();
        assert!(waiting.iter_mut().all(|call| call.now_or_never().is_none()));
        let refused = turn().now_or_never().map(Result::err);
        assert_eq!(refused, Some(Some(Error::TooManyRequests)));
        waiting.pop();
        assert!(turn().now_or_never().is_none(), "a place is left");
        drop(taken);
        assert!(waiting.remove(0).await.is_ok());
    }
}
