//! Rounds of ReadIndex: which reads wait, and under which context the leader was asked.
//!
//! One round is under way at a time and serves all reads that waited when it began. Reads that
//! come meanwhile wait for the next one, as the index of this one may be older than they are.
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
    waiting: VecDeque<u64>,
    round: Option<Round>,
}

struct Round {
    context: Context,
    tokens: Vec<u64>,
    /// Ticks since the leader was asked.
    age: u32,
}

impl Reads {
    pub(super) fn new(id: u64, nonce: u64) -> Self {
        Self { id, nonce, counter: 0, waiting: VecDeque::new(), round: None }
    }

    pub(super) fn push(&mut self, token: u64) {
        self.waiting.push_back(token);
    }

    /// Whether a round should begin.
    pub(super) fn wants_round(&self) -> bool {
        self.round.is_none() && !self.waiting.is_empty()
    }

    /// Begins a round with all that wait, and returns the context to ask with.
    pub(super) fn begin(&mut self) -> Context {
        self.counter += u64::from(!planted::is(Bug::ReusedContext));
        let mut context = [0; CONTEXT_BYTES];
        context[..8].copy_from_slice(&self.id.to_be_bytes());
        context[8..16].copy_from_slice(&self.nonce.to_be_bytes());
        context[16..].copy_from_slice(&self.counter.to_be_bytes());
        let tokens = self.waiting.drain(..).collect();
        self.round = Some(Round { context, tokens, age: 0 });
        context
    }

    /// The reads that an answer settles. Answers to earlier attempts settle nothing.
    pub(super) fn answered(&mut self, context: &[u8]) -> Option<Vec<u64>> {
        let round = self.round.take_if(|round| round.context == context)?;
        Some(round.tokens)
    }

    /// Gives the round up; its reads wait again, before those that came later.
    pub(super) fn give_up(&mut self) {
        if let Some(round) = self.round.take() {
            for token in round.tokens.into_iter().rev() {
                self.waiting.push_front(token);
            }
        }
    }

    /// Counts time, and gives up a round that was not answered for so many ticks.
    pub(super) fn tick(&mut self, ticks_max: u32) {
        if let Some(round) = &mut self.round {
            round.age += 1;
            if round.age >= ticks_max {
                self.give_up();
            }
        }
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
        reads.tick(2);
        reads.tick(2);
        assert!(reads.wants_round(), "not answered in time");
        let second = reads.begin();
        assert_ne!(first, second);
        assert_eq!(reads.answered(&first), None);
        assert_eq!(reads.answered(&second), Some(vec![10, 11]));
        assert_eq!(reads.answered(&second), None);
        assert_ne!(Reads::new(1, 3).begin(), Reads::new(1, 2).begin(), "boots differ");
    }
}
