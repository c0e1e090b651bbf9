//! One `Ready` of the `raft` crate becomes effects: a job for the log writer, messages that leave
//! now, messages that wait for the disk, and commits for apply.
//!
//! ```text
//!              .-- hard state, entries, snapshot ------> Persist(job) --> log writer
//!   Ready --+--+-- messages that say what is durable --> go with the job, or are held
//!           |  '-- all other messages -----------------> Send
//!           '----- committed entries ------------------> supply of apply
//! ```
//!
//! A message that acknowledges an entry or a vote leaves after the job that makes it durable. A
//! follower's message after a committed configuration change is also held until the change is
//! applied.

use raft::eraftpb::{Entry, Message, MessageType};
use raft::{Ready, StateRole};

use super::{Core, Effect, Job};
use crate::limits;
use crate::planted::{self, Bug};
use crate::raft::log::{Batch, EntryPosition, SnapshotRecord};

/// Messages that wait until a configuration change is applied, and until the entries that they
/// acknowledge are durable.
pub(super) struct DelayedMessages {
    /// The change's index.
    until: u64,
    /// The number of the last job whose entries the messages acknowledge.
    job: u64,
    messages: Vec<Message>,
}

impl Core {
    /// A follower takes the committed entries without their data: only index and kind are needed
    /// here, since the supply of apply reads the log. On a leader raft counts the bytes of
    /// committed entries, against its bound of uncommitted ones.
    pub(super) fn take_ready(&mut self) -> Ready {
        let leads = self.leads();
        self.raft.mut_store().omits_data = !leads;
        let ready = self.raft.ready();
        self.raft.mut_store().omits_data = false;
        ready
    }

    pub(super) fn process(&mut self, mut ready: Ready, effects: &mut Vec<Effect>) {
        let number = ready.number();
        self.last_number = number;
        self.note_leader(effects);
        for state in ready.take_read_states() {
            if let Some(tokens) = self.reads.answered(&state.request_ctx) {
                effects.push(Effect::ReadIndex { tokens, index: state.index });
            }
        }
        let hard_state = ready.hs().cloned();
        let vote = hard_state.as_ref().map(|state| (state.term, state.vote));
        if vote.is_some_and(|vote| vote != self.last_vote) {
            self.last_vote = vote.unwrap_or_default();
            self.unsynced_state = Some(number);
        }
        let snapshot = self.take_snapshot(&ready);
        let entries = ready.take_entries();
        let table = &mut self.raft.mut_store().table;
        for entry in &entries {
            table.append(entry.clone(), None);
        }
        let committed = ready.take_committed_entries();
        let commits_change = self.commits_change(hard_state.as_ref(), &committed);
        if commits_change {
            self.unsynced_state = Some(number);
        }
        let sync = ready.must_sync() || commits_change;
        let (mut now, mut later) = self.sort_messages(&mut ready, &committed);
        self.raft.advance_append_async(ready);
        if let Some(mut state) = hard_state {
            if planted::is(Bug::LostVote) {
                state.vote = 0;
            }
            self.unwritten = Some(state);
        }
        if !entries.is_empty() || sync || (!later.is_empty() && !self.outstanding.is_empty()) {
            let hard_state = self.unwritten.take();
            let batch = Batch { snapshot, entries, hard_state };
            self.persist(Job { number, batch, sync, messages: later }, effects);
        } else {
            now.append(&mut later);
            if self.outstanding.is_empty() {
                self.note_persisted(number);
            }
        }
        if !now.is_empty() {
            effects.push(Effect::Send(now));
        }
        if let Some(last) = committed.last() {
            // Once a removal is applied, the connections to the removed member are closed. So apply
            // gets a configuration change only when the job has synced the commit, and the messages
            // that tell it have left.
            self.supply.commit(last.index, commits_change.then_some(number));
        }
    }

    /// Takes a snapshot, which replaces the log. This member does not campaign until the snapshot
    /// is applied: raft would look for configuration changes in entries that are gone.
    fn take_snapshot(&mut self, ready: &Ready) -> Option<SnapshotRecord> {
        let metadata = ready.snapshot().metadata.as_ref().filter(|metadata| metadata.index > 0)?;
        let (index, term) = (metadata.index, metadata.term);
        let record = SnapshotRecord { index, term, conf_state: metadata.conf_state.clone() };
        self.raft.mut_store().table.restart(index, term);
        self.supply.overtake();
        self.replay_until = self.replay_until.max(index);
        self.installing = Some((ready.number(), record.clone()));
        Some(record)
    }

    /// Returns the messages that may leave at once, and those that wait until the log is durable.
    fn sort_messages(
        &mut self,
        ready: &mut Ready,
        committed: &[Entry],
    ) -> (Vec<Message>, Vec<Message>) {
        let mut later = ready.take_persisted_messages();
        later.retain(|message| self.is_worth_sending(message));
        let mut now = later
            .extract_if(.., |message| {
                matches!(
                    message.get_msg_type(),
                    MessageType::MsgPropose | MessageType::MsgReadIndex
                )
            })
            .collect::<Vec<_>>();
        let immediate = merged(ready.take_messages());
        if self.unsynced_state.is_some() {
            // Raft's messages wait until a new term or vote, or the commit of a configuration
            // change, is durable. A sole voter elects itself and sends as the leader in one step,
            // before its vote is synced.
            later.extend(immediate);
        } else {
            now.extend(immediate);
        }
        // A new configuration must be known before this member answers under it.
        let leads = self.raft.raft.state == StateRole::Leader;
        let changes = committed.iter().rev().find(|entry| entry.entry_type != 0);
        if let (false, Some(change)) = (leads, changes) {
            let delayed = self.delayed.get_or_insert_with(|| DelayedMessages {
                until: 0,
                job: 0,
                messages: Vec::new(),
            });
            (delayed.until, delayed.job) = (change.index, ready.number());
            delayed.messages.append(&mut later);
        }
        (now, later)
    }

    /// False for an acknowledgement that repeats the last one. The leader announces each commit by
    /// an append without entries, and raft answers it with the index that it has acknowledged
    /// before. The repetition helps only if the first acknowledgement was lost, so it is sent once
    /// after each heartbeat.
    fn is_worth_sending(&mut self, message: &Message) -> bool {
        if message.msg_type != MessageType::MsgAppendResponse as i32 || message.reject {
            return true;
        }
        let this = Some((message.to, message.term, message.index));
        std::mem::replace(&mut self.last_acknowledgement, this) != this
    }

    pub(super) fn persist(&mut self, job: Job, effects: &mut Vec<Effect>) {
        self.outstanding.push_back((job.number, self.ticks));
        effects.push(Effect::Persist(job));
    }

    pub(super) fn persisted(
        &mut self,
        number: u64,
        places: Vec<EntryPosition>,
        effects: &mut Vec<Effect>,
    ) {
        while self.outstanding.front().is_some_and(|(job, _)| *job <= number) {
            self.outstanding.pop_front();
        }
        if self.unsynced_state.is_some_and(|job| job <= number) {
            self.unsynced_state = None;
        }
        let table = &mut self.raft.mut_store().table;
        table.placed(places);
        table.evict();
        self.note_persisted(number);
        self.supply.durable(number);
        if let Some((_, record)) = self.installing.take_if(|(job, _)| *job <= number) {
            self.supply.install(record);
        }
        self.release(effects);
    }

    /// Tells raft that everything up to the `Ready` of this number is durable. A leader that has
    /// applied its own removal leads on, so that the others learn of the commit. It steps down
    /// before raft hears that further entries are durable: raft would panic, because it has no
    /// progress of this member any more.
    fn note_persisted(&mut self, number: u64) {
        let raft = &mut self.raft.raft;
        if raft.state == StateRole::Leader && raft.prs().get(raft.id).is_none() {
            let term = raft.term;
            raft.become_follower(term, 0);
        }
        self.raft.on_persist_ready(number);
    }

    /// Sends the held messages once their configuration change is applied and their job durable.
    pub(super) fn release(&mut self, effects: &mut Vec<Effect>) {
        let applied = self.raft.raft.raft_log.applied;
        let unsynced = self.outstanding.front().map_or(u64::MAX, |(job, _)| *job);
        if let Some(delayed) =
            self.delayed.take_if(|delayed| delayed.until <= applied && delayed.job < unsynced)
        {
            effects.push(Effect::Send(delayed.messages));
        }
    }
}

/// Merges successive appends to the same member: the entries that a turn appends, and the commit
/// that follows from them, become one message.
fn merged(messages: Vec<Message>) -> Vec<Message> {
    let mut merged: Vec<Message> = Vec::with_capacity(messages.len());
    for mut message in messages {
        let is_append = |other: &Message| other.msg_type == MessageType::MsgAppend as i32;
        let before = merged.iter_mut().rev().find(|before| before.to == message.to);
        match before {
            Some(before) if is_append(before) && is_append(&message) => {
                let (index, term) = (before.entries.last())
                    .map_or((before.index, before.log_term), |last| (last.index, last.term));
                let count = before.entries.len() + message.entries.len();
                let follows = (index, term) == (message.index, message.log_term)
                    && before.term == message.term
                    && count as u64 <= limits::PEER_MESSAGE_ENTRIES_MAX
                    && entry_bytes(before) + entry_bytes(&message)
                        <= limits::RAFT_MESSAGE_BYTES_MAX;
                if follows {
                    before.entries.append(&mut message.entries);
                    before.commit = before.commit.max(message.commit);
                } else {
                    merged.push(message);
                }
            }
            _ => merged.push(message),
        }
    }
    merged
}

fn entry_bytes(message: &Message) -> u64 {
    message.entries.iter().map(|entry| entry.data.len() as u64).sum()
}
