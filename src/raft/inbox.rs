//! What waits for the raft loop, each kind with its own bound.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use raft::eraftpb::{ConfState, Message, MessageType};

use super::core::{Event, Proposal};
use super::log::EntryPosition;
use super::{Error, Refusal};
use crate::limits;
use crate::metrics;

pub(super) type ReadReply = Box<dyn FnOnce(Result<u64, Error>) + Send>;

/// Many threads put in, the raft loop takes out.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Default)]
struct State {
    proposals: VecDeque<Proposal>,
    messages: VecDeque<Message>,
    /// Proposals that other members forwarded; `proposals_min` holds them back as it does this
    /// member's own.
    forwarded: VecDeque<Message>,
    forwarded_entries: usize,
    message_bytes: usize,
    reads: Vec<ReadReply>,
    /// Rare events, such as configuration changes, in the order of their arrival.
    events: Vec<Event>,
    persisted: u64,
    places: Vec<EntryPosition>,
    applied: u64,
    durable: Option<(u64, u64, ConfState)>,
    sleeping: bool,
    /// How many proposals are worth a turn of their own; `usize::MAX` while the log writer's queue
    /// is full.
    proposals_min: usize,
    /// Whether a report of apply is worth a turn of its own.
    wants_apply_reports: bool,
    stopped: bool,
    fatal: Option<Error>,
}

/// All that one turn of the loop takes out of the inbox.
#[derive(Default)]
pub(super) struct InboxContents {
    pub(super) events: Vec<Event>,
    pub(super) reads: Vec<ReadReply>,
    pub(super) stopped: bool,
    pub(super) fatal: Option<Error>,
}

impl State {
    /// Whether something is worth waking the loop for. A report of the store never is, and one of
    /// apply only while the core waits for it: the next turn, at the latest that of the next tick,
    /// takes them along.
    fn has_work(&self) -> bool {
        self.stopped
            || self.fatal.is_some()
            || self.persisted > 0
            || (self.wants_apply_reports && self.applied > 0)
            || !self.events.is_empty()
            || !self.reads.is_empty()
            || (self.has_room() && !self.messages.is_empty())
            || self.has_proposals()
    }

    /// Whether the log writer's queue has room for the jobs that messages cause. Without room, the
    /// messages wait here, where they are bounded: raft would collect the answers to all of them.
    fn has_room(&self) -> bool {
        self.proposals_min < usize::MAX
    }

    fn has_proposals(&self) -> bool {
        let waiting = self.proposals.len() + self.forwarded_entries;
        waiting > 0 && waiting >= self.proposals_min
    }
}

impl Inbox {
    fn put<T>(&self, put: impl FnOnce(&mut State) -> Result<T, Error>) -> Result<T, Error> {
        let mut state = self.state.lock();
        if state.stopped {
            return Err(Error::Stopped);
        }
        let outcome = put(&mut state)?;
        let wake = state.sleeping && state.has_work();
        if wake {
            state.sleeping = false;
        }
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        Ok(outcome)
    }

    pub(super) fn has_work(&self, wants_apply_reports: bool) -> bool {
        let mut state = self.state.lock();
        state.wants_apply_reports = wants_apply_reports;
        state.has_work()
    }

    /// How many proposals, reads and events wait.
    pub(super) fn waiting(&self) -> [(&'static str, usize); 3] {
        let state = self.state.lock();
        let events = ("events", state.events.len());
        [("proposals", state.proposals.len()), ("reads", state.reads.len()), events]
    }

    pub(super) fn propose(&self, proposal: Proposal) -> Result<(), Error> {
        self.put(|state| {
            if state.proposals.len() >= limits::PROPOSE_QUEUE_MAX {
                return Err(Error::Busy);
            }
            state.proposals.push_back(proposal);
            Ok(())
        })
    }

    pub(super) fn message(&self, message: Message) -> Result<(), Error> {
        self.put(|state| {
            let bytes = entry_bytes(&message);
            let waiting = state.messages.len() + state.forwarded.len();
            let is_full = waiting >= limits::RAFT_MESSAGES_MAX
                || state.message_bytes + bytes > limits::RAFT_MESSAGES_BYTES_MAX;
            if is_full && state.message_bytes > 0 {
                return Err(Error::Busy);
            }
            state.message_bytes += bytes;
            if message.msg_type == MessageType::MsgPropose as i32 {
                state.forwarded_entries += message.entries.len();
                state.forwarded.push_back(message);
            } else {
                state.messages.push_back(message);
            }
            Ok(())
        })
    }

    pub(super) fn read(&self, reply: ReadReply) -> Result<(), (Error, ReadReply)> {
        let mut reply = Some(reply);
        let outcome = self.put(|state| {
            if state.reads.len() >= limits::RAFT_READS_MAX {
                return Err(Error::Busy);
            }
            state.reads.extend(reply.take());
            Ok(())
        });
        match (outcome, reply) {
            (Err(error), Some(reply)) => Err((error, reply)),
            _ => Ok(()),
        }
    }

    pub(super) fn event(&self, event: Event) -> Result<(), Error> {
        self.put(|state| {
            if state.events.len() >= limits::RAFT_EVENTS_MAX {
                return Err(Error::Busy);
            }
            state.events.push(event);
            Ok(())
        })
    }

    /// Queues an event for which apply waits. Apply has one such event at a time, so no bound is
    /// needed. A refusal would leave the entry unapplied for ever, since apply does not ask again.
    pub(super) fn event_of_apply(&self, event: Event) -> Result<(), Error> {
        self.put(|state| {
            state.events.push(event);
            Ok(())
        })
    }

    pub(super) fn persisted(
        &self,
        number: u64,
        places: impl IntoIterator<Item = EntryPosition>,
    ) -> Result<(), Error> {
        self.put(|state| {
            state.persisted = state.persisted.max(number);
            state.places.extend(places);
            Ok(())
        })
    }

    pub(super) fn applied(&self, index: u64) {
        // After a stop the report has no use.
        let _ = self.put(|state| {
            state.applied = state.applied.max(index);
            Ok(())
        });
    }

    pub(super) fn durable(&self, index: u64, term: u64, conf_state: ConfState) {
        let _ = self.put(|state| {
            state.durable = Some((index, term, conf_state));
            Ok(())
        });
    }

    pub(super) fn fail(&self, error: Error) {
        let _ = self.put(|state| {
            state.fatal.get_or_insert(error);
            Ok(())
        });
    }

    pub(super) fn stop(&self) {
        let _ = self.put(|state| {
            state.stopped = true;
            Ok(())
        });
    }

    /// Ends the inbox and returns the reads in it, which the caller has to answer.
    pub(super) fn close(&self) -> Vec<ReadReply> {
        let mut state = self.state.lock();
        state.stopped = true;
        state.proposals.clear();
        state.messages.clear();
        state.forwarded.clear();
        state.message_bytes = 0;
        state.events.clear();
        std::mem::take(&mut state.reads)
    }

    /// Waits for work, at most for `patience`, and takes a turn's worth of it. Proposals come along
    /// if there are enough of them, or if the log writer has just become free.
    pub(super) fn take(
        &self,
        patience: Duration,
        proposals_min: usize,
        wants_apply_reports: bool,
    ) -> InboxContents {
        let mut state = self.state.lock();
        state.proposals_min = proposals_min;
        state.wants_apply_reports = wants_apply_reports;
        if !state.has_work() && !patience.is_zero() {
            state.sleeping = true;
            self.filled.wait_for(&mut state, patience);
            state.sleeping = false;
        }
        let mut taken = InboxContents {
            reads: std::mem::take(&mut state.reads),
            stopped: state.stopped,
            fatal: state.fatal.take(),
            ..InboxContents::default()
        };
        let is_free = state.persisted > 0 && proposals_min < usize::MAX;
        let proposals = is_free || state.has_proposals();
        let events = &mut taken.events;
        if state.persisted > 0 {
            let number = std::mem::take(&mut state.persisted);
            let places = std::mem::take(&mut state.places);
            events.push(Event::Persisted { number, places });
        }
        if state.applied > 0 {
            events.push(Event::Applied(std::mem::take(&mut state.applied)));
        }
        if let Some((index, term, conf_state)) = state.durable.take() {
            events.push(Event::Durable { index, term, conf_state });
        }
        events.append(&mut state.events);
        let count = if state.has_room() { limits::RAFT_EVENTS_MAX } else { 0 };
        let count = state.messages.len().min(count);
        for _ in 0..count {
            if let Some(message) = state.messages.pop_front() {
                state.message_bytes -= entry_bytes(&message);
                events.push(Event::Receive(message));
            }
        }
        if proposals {
            state.forwarded_entries = 0;
            while let Some(message) = state.forwarded.pop_front() {
                state.message_bytes -= entry_bytes(&message);
                events.push(Event::Receive(message));
            }
            events.extend(take_proposals(&mut state.proposals).map(Event::Propose));
        }
        taken
    }
}

fn entry_bytes(message: &Message) -> usize {
    message.entries.iter().map(|entry| entry.data.len()).sum::<usize>() + size_of::<Message>()
}

/// Takes as many proposals out of the queue as one turn may merge into a message.
fn take_proposals(queue: &mut VecDeque<Proposal>) -> Option<Vec<Proposal>> {
    let mut bytes = 0;
    let count = queue
        .iter()
        .take(limits::RAFT_EVENTS_MAX)
        .take_while(|proposal| {
            let fits = bytes < limits::RAFT_BATCH_BYTES_MAX;
            bytes += proposal.data.len();
            fits
        })
        .count();
    (count > 0).then(|| queue.drain(..count).collect())
}

/// Counts refusals, and logs the first, second, fourth, eighth and so on: a broken peer must not
/// flood the log.
#[derive(Default)]
pub(super) struct RefusalLog {
    count: u64,
}

impl RefusalLog {
    pub(super) fn note(&mut self, refusal: Refusal) {
        self.count += 1;
        metrics::messages_refused().inc();
        if self.count.is_power_of_two() {
            tracing::warn!(
                refused = self.count,
                "a message of another member was refused: {refusal}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use raft::eraftpb::Entry;

    use super::*;

    /// How often `put` succeeds before it is refused as busy.
    fn filled(mut put: impl FnMut() -> Result<(), Error>) -> usize {
        let mut count = 0;
        loop {
            match put() {
                Ok(()) => count += 1,
                Err(Error::Busy) => return count,
                Err(error) => panic!("{error}"),
            }
            assert!(count < 1 << 20, "no bound");
        }
    }

    fn proposal(bytes: usize) -> Proposal {
        Proposal { data: Bytes::from(vec![0; bytes]), ..Proposal::default() }
    }

    #[test]
    fn messages_wait_here_while_the_log_has_no_room() {
        let inbox = Inbox::default();
        assert!(inbox.take(Duration::ZERO, usize::MAX, false).events.is_empty());
        inbox.message(Message::default()).unwrap();
        assert!(!inbox.has_work(false), "the loop would turn for nothing");
        assert!(inbox.take(Duration::ZERO, usize::MAX, false).events.is_empty());
        let taken = inbox.take(Duration::ZERO, 1, false).events;
        assert!(matches!(&taken[..], [Event::Receive(_)]), "{taken:?}");
    }

    #[test]
    fn each_kind_of_work_waits_up_to_its_bound() {
        let inbox = Inbox::default();
        assert_eq!(filled(|| inbox.propose(proposal(1))), 16_384);
        assert_eq!(filled(|| inbox.message(Message::default())), 4096);
        assert_eq!(filled(|| inbox.event(Event::Tick)), 4096);
        let read = || inbox.read(Box::new(|_| ())).map_err(|(error, _)| error);
        assert_eq!(filled(read), 65_536);
        // Full queues do not keep out the reports of the log writer.
        assert!(inbox.persisted(1, []).is_ok());
    }

    #[test]
    fn messages_wait_up_to_their_bytes() {
        let inbox = Inbox::default();
        let entry = Entry { data: Bytes::from(vec![0; 1 << 20]), ..Entry::default() };
        let message = Message { entries: vec![entry], ..Message::default() };
        let count = filled(|| inbox.message(message.clone()));
        assert!((60..64).contains(&count), "{count}");
    }

    #[test]
    fn a_turn_takes_4096_messages_and_a_mebibyte_of_proposals() {
        let inbox = Inbox::default();
        let count = |taken: &InboxContents| {
            let proposed = |event: &Event| match event {
                Event::Propose(proposals) => proposals.len(),
                _ => 0,
            };
            taken.events.iter().map(proposed).sum::<usize>()
        };
        for (bytes, first) in [(1, 4096), (1 << 10, 1024), (3 << 20, 1)] {
            for _ in 0..5000 {
                inbox.propose(proposal(0)).unwrap();
            }
            inbox.state.lock().proposals.iter_mut().for_each(|it| *it = proposal(bytes));
            let taken = inbox.take(Duration::ZERO, 1, false);
            assert_eq!(count(&taken), first, "of {bytes} bytes");
            let mut rest = 5000 - first;
            while rest > 0 {
                rest -= count(&inbox.take(Duration::ZERO, 1, false));
            }
        }
        // Proposals that are too few for a turn wait, and messages do not.
        inbox.propose(proposal(1)).unwrap();
        inbox.message(Message::default()).unwrap();
        let taken = inbox.take(Duration::ZERO, 2, false);
        assert!(matches!(taken.events[..], [Event::Receive(_)]));
    }
}
