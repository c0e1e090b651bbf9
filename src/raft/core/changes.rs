//! Configuration changes on their way into the log: one at a time, and a leader that would be
//! removed hands over first.

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType, HardState,
    Message,
};
use raft::{Progress, StateRole};

use super::{Core, Effect};
use crate::limits;
use crate::raft::Error;

impl Core {
    /// Raft would empty a change proposed while another is not applied, so they queue here.
    pub(super) fn propose_conf_changes(&mut self, effects: &mut Vec<Effect>) {
        while !self.raft.raft.has_pending_conf() {
            let Some((ticket, change)) = self.conf_changes.pop_front() else { return };
            if self.hands_over_before(&change) {
                self.conf_changes.push_front((ticket, change));
                return;
            }
            if self.removes_leader(&change) {
                self.drop_proposals(vec![ticket], effects);
                continue;
            }
            let data = Bytes::from(change.encode_to_vec());
            let mut entry = Entry { data, ..Entry::default() };
            entry.set_entry_type(EntryType::EntryConfChange);
            self.step_proposal(vec![entry], vec![ticket], effects);
        }
    }

    /// Whether this member leads others and the change would remove it.
    pub(super) fn removes_leader(&self, change: &ConfChange) -> bool {
        let raft = &self.raft.raft;
        let is_removal = change.get_change_type() == ConfChangeType::RemoveNode;
        let leads = raft.state == StateRole::Leader && !self.is_alone();
        leads && is_removal && change.node_id == raft.id
    }

    /// A leader that removes itself hands over first, and the next leader gets the change. If it
    /// went before the others know that the change is committed, they might need its vote for ever.
    /// False too if nobody takes over.
    pub(super) fn hands_over_before(&mut self, change: &ConfChange) -> bool {
        let leaves = std::mem::take(&mut self.is_leaving);
        if !self.removes_leader(change) {
            // The next leader is not known at once.
            self.is_leaving = leaves && self.raft.raft.leader_id == 0;
            return self.is_leaving;
        }
        if self.raft.raft.lead_transferee.is_none() {
            let Some(next) = self.next_leader().filter(|_| !leaves) else { return false };
            self.raft.transfer_leader(next);
        }
        self.is_leaving = true;
        true
    }

    /// Proposals of another member with a configuration change, while one is under way: the change
    /// waits as this member's own do.
    pub(super) fn take_turns(&mut self, message: Message, effects: &mut Vec<Effect>) {
        let mut normal = Vec::new();
        for entry in message.entries {
            if entry.entry_type == 0 {
                normal.push(entry);
            } else if self.conf_changes.len() < limits::CONF_CHANGES_WAITING_MAX
                && let Ok(change) = ConfChange::decode(entry.data)
            {
                self.conf_changes.push_back((0, change));
            }
        }
        if !normal.is_empty() {
            self.step_proposal(normal, Vec::new(), effects);
        }
    }

    /// Whether somebody who stays knows that this member was removed, if it was.
    pub fn may_leave(&self) -> bool {
        let raft = &self.raft.raft;
        let Some(left_at) = self.left_at else { return true };
        let knows = |(id, progress): (&u64, &Progress)| {
            *id != raft.id
                && raft.prs().conf().voters().contains(*id)
                && progress.committed_index >= left_at
        };
        match raft.leader_id {
            0 => false,
            leader if leader == raft.id => raft.prs().iter().any(knows),
            _ => true,
        }
    }

    /// Who leaves the cluster goes once it knows that this is committed. So those who stay must not
    /// forget it: raft might need the vote of who is gone.
    pub(super) fn commits_change(
        &mut self,
        state: Option<&HardState>,
        committed: &[Entry],
    ) -> bool {
        let raft = &self.raft.raft;
        let pending = raft.pending_conf_index;
        let tells = raft.state == StateRole::Leader
            && self.change_synced < pending
            && state.is_some_and(|state| state.commit >= pending);
        if tells {
            self.change_synced = pending;
        }
        tells || committed.iter().any(|entry| entry.entry_type != 0)
    }

    pub(super) fn change_configuration(
        &mut self,
        index: u64,
        change: Option<ConfChange>,
        effects: &mut Vec<Effect>,
    ) {
        // A change that apply rejected still has to pass: as one of node 0, which is none.
        let none = || ConfChangeV2 {
            changes: vec![ConfChangeSingle::default()],
            ..ConfChangeV2::default()
        };
        let outcome = match change {
            // The snapshot that replaced this part of the log knows what came of it.
            _ if index <= self.restored => Ok(self.raft.raft.prs().conf().to_conf_state()),
            Some(change) => self.raft.apply_conf_change(&change),
            None => self.raft.apply_conf_change(&none()),
        };
        let id = self.raft.raft.id;
        let conf = self.raft.raft.prs().conf();
        let is_member = conf.voters().contains(id) || conf.learners().contains(&id);
        self.left_at = if is_member { None } else { self.left_at.or(Some(index)) };
        let outcome = outcome.map_err(Error::from);
        effects.push(Effect::ConfState { index, outcome });
    }
}
