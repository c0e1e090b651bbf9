//! Leadership: ticks, elections, and the cases in which a leader steps down.
//!
//! The `raft` crate counts ticks; this file decides whether a tick reaches it. A member whose disk
//! stalls, or that has not applied what it knows to be committed, does not stand for election, and
//! a leader whose disk stalls hands over.

use raft::StateRole;

use super::{Core, Effect, Job};
use crate::clock::split_mix;
use crate::raft::log::Batch;
use crate::raft::{Leader, step};

impl Core {
    pub fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// Whether this member is the only voter.
    pub fn is_alone(&self) -> bool {
        let raft = &self.raft.raft;
        raft.promotable() && raft.prs().is_singleton()
    }

    /// Sets the election timeout, one to two times the configured one, from this start's own random
    /// bits, so that a simulation can be repeated. Raft draws a timeout by itself whenever it
    /// resets `election_elapsed`. A tick within the same event may hide that reset from this
    /// function, so it overwrites the timeout after every event.
    pub(super) fn choose_timeout(&mut self) {
        if self.raft.raft.election_elapsed == 0 {
            self.random = self.random.wrapping_add(1);
        }
        let timeout = self.election_ticks + split_mix(self.random) % self.election_ticks;
        self.raft.raft.set_randomized_election_timeout(timeout as usize);
    }

    /// A heartbeat interval has passed.
    pub(super) fn tick(&mut self, effects: &mut Vec<Effect>) {
        self.ticks += 1;
        let late = self.reads.tick(self.read_retry_ticks, self.read_wait_ticks);
        if !late.is_empty() {
            effects.push(Effect::ReadsLate(late));
        }
        if self.outstanding.is_empty()
            && let Some(state) = self.unwritten.take()
        {
            let batch = Batch { hard_state: Some(state), ..Batch::default() };
            self.persist(Job { number: self.last_number, batch, ..Job::default() }, effects);
        }
        let oldest = self.outstanding.front().map_or(self.ticks, |(_, since)| *since);
        let stalled_ticks = self.ticks - oldest;
        let stalled = stalled_ticks > self.election_ticks;
        let leads = self.leads();
        if leads && stalled && !self.is_alone() {
            self.give_up_leadership(stalled_ticks > 2 * self.election_ticks);
        }
        let replaying = self.raft.raft.raft_log.applied < self.replay_until;
        // Before an election raft asks the store for configuration changes that are not applied.
        // The store looks them up in the log's table, which lacks the entries of this turn.
        let brings_change = step::brings_change(&self.raft);
        let may_tick = leads || !(stalled || replaying || brings_change || self.is_alone());
        // While the log writer's queue is full, no message leaves, and a leader's heartbeats would
        // only pile up in raft.
        if may_tick && self.has_room() {
            self.raft.tick();
        } else {
            // This member does not stand for election. Its count of silent ticks still grows up to
            // an election timeout, after which it may vote for another member (CheckQuorum).
            let elapsed = &mut self.raft.raft.election_elapsed;
            *elapsed = (*elapsed + 1).min(self.election_ticks as usize);
        }
    }

    /// Skips all but two ticks of the election timeout, as etcd's `adjustTicks` does, unless there
    /// is a leader already.
    pub(super) fn hasten_election(&mut self) {
        let replaying = self.raft.raft.raft_log.applied < self.replay_until;
        for _ in 2..self.election_ticks {
            let raft = &self.raft.raft;
            let brings_change = step::brings_change(&self.raft);
            if replaying
                || brings_change
                || raft.leader_id != 0
                || raft.state != StateRole::Follower
            {
                return;
            }
            self.raft.tick();
        }
    }

    /// A leader whose disk stalls holds up the cluster. It hands over to the voter with the longest
    /// matching log, and steps down at once if there is none, or if the transfer takes another
    /// election timeout (`is_overdue`).
    fn give_up_leadership(&mut self, is_overdue: bool) {
        let raft = &mut self.raft.raft;
        if is_overdue {
            let term = raft.term;
            return raft.become_follower(term, 0);
        }
        if raft.lead_transferee.is_some() {
            return;
        }
        match self.next_leader() {
            Some(next) => self.raft.transfer_leader(next),
            None => {
                let raft = &mut self.raft.raft;
                let term = raft.term;
                raft.become_follower(term, 0);
            }
        }
    }

    /// Of the other voters that were heard from lately, the one whose log matches furthest; of
    /// equals the one with the highest id.
    pub(super) fn next_leader(&self) -> Option<u64> {
        let raft = &self.raft.raft;
        let progress = raft.prs().iter().filter(|(other, progress)| {
            **other != raft.id
                && progress.recent_active
                && raft.prs().conf().voters().contains(**other)
        });
        let furthest = progress.max_by_key(|(other, progress)| (progress.matched, **other));
        furthest.map(|(other, _)| *other)
    }

    /// Lets a sole voter campaign without an election timeout, since no other member can lead. It
    /// wins within the call, and raft panics then unless its whole log is durable.
    pub(super) fn campaign_if_alone(&mut self) {
        let raft = &self.raft.raft;
        let log = &raft.raft_log;
        let ready = raft.state != StateRole::Leader
            && self.is_alone()
            && self.outstanding.is_empty()
            && log.persisted == log.last_index()
            && log.applied == log.committed;
        if ready {
            // Raft returns an error only if the message for it came from another member.
            let _ = self.raft.campaign();
        }
    }

    pub(super) fn note_leader(&mut self, effects: &mut Vec<Effect>) {
        let leader = Leader { id: self.raft.raft.leader_id, term: self.raft.raft.term };
        if leader == self.leader {
            return;
        }
        if leader.id != self.leader.id {
            self.leader_changes += u64::from(leader.id != 0);
            // The old leader will not answer the current round: its reads are asked for again.
            self.reads.give_up();
        }
        self.leader = leader;
        effects.push(Effect::Leader(leader));
    }
}
