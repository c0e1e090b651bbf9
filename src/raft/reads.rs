//! Rounds of ReadIndex: which reads wait, and under which context the leader was asked.
//!
//! One round is under way at a time and serves all reads that waited when it began. Reads that
//! come meanwhile wait for the next one, as the index of this one may be older than they are.
//!
//! A read that no leader settles ends after a while: its caller has lost patience by then, and what
//! waits must not grow for as long as a cluster has no leader.
//!
//! Each attempt has a context of its own. With a context used twice, an acknowledgement of the
//! first attempt would confirm the second, and a stale index could come back.

use std::collections::VecDeque;

use crate::planted::{self, Bug};

/// Member id, boot nonce and counter.
const CONTEXT_BYTES: usize = 24;
pub(super) type Context = [u8; CONTEXT_BYTES];

pub(super) struct Reads {
    id: u64,
    nonce: u64,
    counter: u64,
    waiting: VecDeque<WaitingRead>,
    ticks: u64,
    round: Option<Round>,
    /// Rounds that were not answered in time.
    unanswered: u64,
}

/// A read, and the tick since which it waits.
#[derive(Clone, Copy)]
struct WaitingRead {
    token: u64,
    since: u64,
}

struct Round {
    context: Context,
    reads: Vec<WaitingRead>,
    /// Ticks since the leader was asked.
    age: u32,
}

impl Reads {
    pub(super) fn new(id: u64, nonce: u64) -> Self {
        Self {
            id,
            nonce,
            counter: 0,
            waiting: VecDeque::new(),
            ticks: 0,
            round: None,
            unanswered: 0,
        }
    }

    pub(super) fn push(&mut self, token: u64) {
        self.waiting.push_back(WaitingRead { token, since: self.ticks });
    }

    /// Whether a round should begin.
    pub(super) fn wants_round(&self) -> bool {
        self.round.is_none() && !self.waiting.is_empty()
    }

    /// Begins a round with all waiting reads, and returns the context of the request.
    pub(super) fn begin(&mut self) -> Context {
        self.counter += u64::from(!planted::is(Bug::ReusedContext));
        let mut context = [0; CONTEXT_BYTES];
        context[..8].copy_from_slice(&self.id.to_be_bytes());
        context[8..16].copy_from_slice(&self.nonce.to_be_bytes());
        context[16..].copy_from_slice(&self.counter.to_be_bytes());
        let reads = self.waiting.drain(..).collect();
        self.round = Some(Round { context, reads, age: 0 });
        context
    }

    /// The reads that an answer settles. Answers to earlier attempts settle nothing.
    pub(super) fn answered(&mut self, context: &[u8]) -> Option<Vec<u64>> {
        let round = self.round.take_if(|round| round.context == context)?;
        Some(round.reads.into_iter().map(|read| read.token).collect())
    }

    /// How many rounds were not answered in time so far.
    pub(super) fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// Gives the round up; its reads wait again, before those that came later.
    pub(super) fn give_up(&mut self) {
        if let Some(round) = self.round.take() {
            for read in round.reads.into_iter().rev() {
                self.waiting.push_front(read);
            }
        }
    }

    /// Counts a tick, gives up a round that was not answered within `round_ticks_max` ticks, and
    /// removes and returns the tokens of reads that have waited for more than `read_ticks_max`.
    pub(super) fn tick(&mut self, round_ticks_max: u32, read_ticks_max: u64) -> Vec<u64> {
        self.ticks += 1;
        if let Some(round) = &mut self.round {
            round.age += 1;
            if round.age >= round_ticks_max {
                self.unanswered += 1;
                self.give_up();
            }
        }
        let is_late = |read: &&WaitingRead| self.ticks - read.since > read_ticks_max;
        let late = self.waiting.iter().take_while(is_late).count();
        self.waiting.drain(..late).map(|read| read.token).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attempt_has_its_own_context() {
        let mut reads = Reads::new(1, 2);
        reads.push(10);
        let first = reads.begin();
        reads.push(11);
        assert!(!reads.wants_round(), "one round at a time");
        assert!(reads.tick(2, 9).is_empty());
        assert!(reads.tick(2, 9).is_empty());
        assert!(reads.wants_round(), "not answered in time");
        assert_eq!(reads.unanswered(), 1);
        let second = reads.begin();
        assert_ne!(first, second);
        assert_eq!(reads.answered(&first), None);
        assert_eq!(reads.answered(&second), Some(vec![10, 11]));
        assert_eq!(reads.answered(&second), None);
        assert_ne!(Reads::new(1, 3).begin(), Reads::new(1, 2).begin(), "boots differ");
    }

    #[test]
    fn a_read_without_a_leader_ends() {
        let mut reads = Reads::new(1, 2);
        reads.push(10);
        for _ in 0..3 {
            assert!(reads.tick(2, 5).is_empty());
        }
        reads.push(11);
        // Reads keep their age when a round without an answer is given up.
        reads.begin();
        assert!(reads.tick(2, 5).is_empty());
        assert!(reads.tick(2, 5).is_empty());
        assert_eq!(reads.tick(2, 5), [10]);
        assert!(reads.tick(2, 5).is_empty());
        assert!(reads.tick(2, 5).is_empty());
        assert_eq!(reads.tick(2, 5), [11]);
        assert!(!reads.wants_round());
    }
}
