//! Input of the core: proposals, messages of other members, and reads that ask the leader.
//!
//! A message is judged by [`step`] before the `raft` crate sees it, since that crate panics on what
//! it does not expect.

use prost::Message as _;
use raft::StateRole;
use raft::eraftpb::{ConfChange, Entry, Message, MessageType};

use super::{Core, Effect, Proposal, Via};
use crate::limits;
use crate::planted::{self, Bug};
use crate::raft::{Refusal, step};

impl Core {
    pub(super) fn propose(&mut self, proposals: Vec<Proposal>, effects: &mut Vec<Effect>) {
        if proposals.is_empty() {
            return;
        }
        let mut tickets = Vec::with_capacity(proposals.len());
        let mut entries = Vec::with_capacity(proposals.len());
        let raft = &self.raft.raft;
        let leads = (raft.state == StateRole::Leader).then_some(raft.term);
        let mut late = Vec::new();
        for Proposal { ticket, data, via } in proposals {
            if let Via::OwnTerm(term) = via
                && leads != Some(term)
            {
                late.push(ticket);
                continue;
            }
            tickets.push(ticket);
            entries.push(Entry { data, ..Entry::default() });
        }
        if !late.is_empty() {
            self.drop_proposals(late, effects);
        }
        if !entries.is_empty() {
            self.step_proposal(entries, tickets, effects);
        }
    }

    pub(super) fn step_proposal(
        &mut self,
        entries: Vec<Entry>,
        tickets: Vec<u64>,
        effects: &mut Vec<Effect>,
    ) {
        let mut message = Message { from: self.config.id, entries, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        if self.raft.raft.step(message).is_err() {
            self.drop_proposals(tickets, effects);
        }
    }

    pub(super) fn drop_proposals(&mut self, tickets: Vec<u64>, effects: &mut Vec<Effect>) {
        self.proposals_dropped += tickets.len() as u64;
        effects.push(Effect::Dropped(tickets));
    }

    pub(super) fn receive(&mut self, mut message: Message, effects: &mut Vec<Effect>) {
        let mut admitted = step::admit(&self.raft, &message);
        if message.msg_type == MessageType::MsgHeartbeat as i32 {
            self.last_acknowledgement = None;
        }
        if admitted.is_ok() && message.get_msg_type() == MessageType::MsgPropose {
            let change = |entry: &Entry| ConfChange::decode(entry.data.clone()).ok();
            let mut changes = message.entries.iter().filter(|entry| entry.entry_type != 0);
            if changes.any(|entry| change(entry).is_some_and(|of| self.removes_leader(&of))) {
                admitted = Err(Refusal::ConfChangePending);
            }
        }
        if admitted == Err(Refusal::ConfChangePending) {
            return self.queue_forwarded_changes(message, effects);
        }
        let asks_leader = message.get_msg_type() == MessageType::MsgReadIndex && self.leads();
        if asks_leader && admitted.is_ok() && !self.may_answer_reads() {
            admitted = Err(Refusal::Removed);
        }
        // Without its context the answer does not count for a round of ReadIndex that this leader
        // began before its removal.
        if message.get_msg_type() == MessageType::MsgHeartbeatResponse
            && self.leads()
            && !self.may_answer_reads()
        {
            message.context.clear();
        }
        let early = asks_leader && !self.raft.raft.commit_to_current_term();
        if early && admitted.is_ok() {
            if self.forwarded.len() < limits::FORWARDED_READS_MAX {
                self.forwarded.push_back(message);
            }
            return;
        }
        let message =
            if planted::is(Bug::LearnerInQuorum) { self.as_a_voter(message) } else { message };
        self.step_admitted(admitted, message, effects);
    }

    /// For a planted bug alone: makes a learner's acknowledgement that of another voter.
    fn as_a_voter(&self, mut message: Message) -> Message {
        let raft = &self.raft.raft;
        let acknowledges =
            message.get_msg_type() == MessageType::MsgAppendResponse && !message.reject;
        let conf = raft.prs().conf();
        if acknowledges && conf.learners().contains(&message.from) {
            let voter = conf.voters().ids().iter().filter(|id| *id != raft.id).min();
            message.from = voter.unwrap_or(message.from);
        }
        message
    }

    pub(super) fn step_admitted(
        &mut self,
        admitted: Result<(), Refusal>,
        message: Message,
        effects: &mut Vec<Effect>,
    ) {
        if let Err(refusal) = admitted {
            self.messages_refused += 1;
            effects.push(Effect::Refused(refusal));
            return;
        }
        // An error says that raft dropped the message; senders repeat or time out.
        if let Err(error) = self.raft.step(message) {
            tracing::debug!(%error, "raft dropped a message");
        }
        let snapshot = self.raft.snap().map(|snapshot| snapshot.get_metadata().index);
        self.restored = snapshot.unwrap_or(self.restored);
    }

    /// Begins a round of ReadIndex for the reads that wait, if a leader is known. A leader can
    /// answer only after the first commit of its term (Raft section 8).
    pub(super) fn ask_for_reads(&mut self) {
        let leads = self.leads();
        if leads && !self.raft.raft.commit_to_current_term() {
            return;
        }
        if leads && !self.may_answer_reads() {
            self.forwarded.clear();
            return;
        }
        if leads {
            for message in std::mem::take(&mut self.forwarded) {
                // If raft drops one, the member that sent it asks again.
                let _ = self.raft.step(message);
            }
        } else {
            self.forwarded.clear();
        }
        if self.has_room() && self.raft.raft.leader_id != 0 && self.reads.wants_round() {
            let context = self.reads.begin();
            self.raft.read_index(context.to_vec());
        }
    }

    /// False for a leader that has applied its own removal. It leads on until others know of the
    /// removal, but it is not part of their quorum: they may have elected another leader and
    /// committed more. With a single voter left, raft would answer this leader's reads without
    /// asking that voter.
    fn may_answer_reads(&self) -> bool {
        let raft = &self.raft.raft;
        raft.prs().conf().voters().contains(raft.id) || planted::is(Bug::RemovedLeaderReads)
    }
}
