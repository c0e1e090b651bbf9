//! Configuration changes on their way into the log: one at a time, and a leader that would be
//! removed hands over first.

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType,
    HardState, Message,
};
use raft::{Changer, Progress, ProgressTracker, StateRole};

use super::{Core, Effect};
use crate::limits;
use crate::planted::{self, Bug};
use crate::raft::Error;

impl Core {
    /// Proposes the configuration changes that wait, one at a time: raft would replace a change
    /// that is proposed while another one is not applied by an empty entry.
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

    /// Whether a change has to wait because this leader, which it would remove, hands over first;
    /// the next leader gets the change. If this leader ended before the others know that the change
    /// is committed, they might need its vote for ever. Also returns false when no voter can take
    /// over: the caller then drops the change, and its proposer tries again.
    pub(super) fn hands_over_before(&mut self, change: &ConfChange) -> bool {
        let leaves = std::mem::take(&mut self.is_leaving);
        if !self.removes_leader(change) {
            // After the transfer the change waits until the next leader is known.
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

    /// Takes in proposals of another member whose configuration change has to wait: the change
    /// queues behind this member's own, and the other entries are proposed at once. A change that
    /// cannot be read, or for which the queue has no room, is dropped: its proposer tries again.
    pub(super) fn queue_forwarded_changes(&mut self, message: Message, effects: &mut Vec<Effect>) {
        let (mut normal, mut dropped) = (Vec::new(), 0);
        for entry in message.entries {
            if entry.entry_type == 0 {
                normal.push(entry);
            } else if self.conf_changes.len() < limits::CONF_CHANGES_WAITING_MAX
                && let Ok(change) = ConfChange::decode(entry.data)
            {
                self.conf_changes.push_back((0, change));
            } else {
                dropped += 1;
            }
        }
        if dropped > 0 {
            let before = self.proposals_dropped;
            self.drop_proposals(vec![0; dropped], effects);
            // Logged each time the count has doubled, as refused messages are: a broken peer must
            // not flood the log.
            if before.checked_ilog2() != self.proposals_dropped.checked_ilog2() {
                tracing::warn!(
                    from = format!("{:x}", message.from),
                    changes = dropped,
                    waiting = self.conf_changes.len(),
                    "dropping configuration changes that another member forwarded"
                );
            }
        }
        if !normal.is_empty() {
            self.step_proposal(normal, Vec::new(), effects);
        }
    }

    /// Whether this member may end: it was not removed, or a remaining member knows that the
    /// removal is committed, which holds if another member leads, or if this leader has seen a
    /// voter acknowledge the commit.
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

    /// Whether this turn makes the commit of a configuration change known, so that the hard state
    /// has to be synced first. A removed member ends once it knows of the commit; if those that
    /// stay lost that commit in a power cut, they would need the vote of a member that is gone.
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
        // As in etcd's `applyConfChange`, a change that apply rejected passes raft as one of node
        // 0, which raft skips.
        let single = change.map(|ConfChange { change_type, node_id, .. }| ConfChangeSingle {
            change_type,
            node_id,
        });
        let changes = vec![single.unwrap_or_default()];
        let change = ConfChangeV2 { changes, ..ConfChangeV2::default() };
        // A snapshot that has replaced this part of the log brought its own configuration to raft,
        // in which the change is included. Apply has not reached the snapshot and still needs the
        // configuration as of this entry, so that one is computed beside raft.
        let is_overtaken = index <= self.restored
            && !(planted::is(Bug::ChangesSnapshot) && self.raft.snap().is_some());
        let outcome = match is_overtaken {
            true => changed(&self.applied_conf.1, &change),
            false => self.raft.apply_conf_change(&change),
        };
        if let Ok(conf_state) = &outcome {
            self.applied_conf = (index, conf_state.clone());
        }
        let id = self.raft.raft.id;
        let conf = self.raft.raft.prs().conf();
        let is_member = conf.voters().contains(id) || conf.learners().contains(&id);
        self.left_at = if is_member { None } else { self.left_at.or(Some(index)) };
        let outcome = outcome.map_err(Error::from);
        effects.push(Effect::ConfState { index, outcome });
    }
}

/// The configuration after a change, by the rules of the `raft` crate.
fn changed(conf_state: &ConfState, change: &ConfChangeV2) -> raft::Result<ConfState> {
    let single = |kind: ConfChangeType| {
        move |id: &u64| ConfChangeSingle { change_type: kind as i32, node_id: *id }
    };
    let voters = conf_state.voters.iter().map(single(ConfChangeType::AddNode));
    let learners = conf_state.learners.iter().map(single(ConfChangeType::AddLearnerNode));
    // A change of an unknown kind leaves the configuration as it is.
    let is_known =
        |single: &&ConfChangeSingle| ConfChangeType::try_from(single.change_type).is_ok();
    let last = change.changes.iter().filter(is_known).copied();
    let mut members = ProgressTracker::new(1);
    for single in voters.chain(learners).chain(last) {
        let (conf, changes) = Changer::new(&members).simple(&[single])?;
        members.apply_conf(conf, changes, 1);
    }
    Ok(members.conf().to_conf_state())
}
