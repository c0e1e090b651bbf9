//! The consensus core: events in, effects out.
//!
//! ```text
//!   Event --> take --+-- receive     proposals, messages, reads
//!                    +-- leadership  ticks, elections, handing over
//!                    +-- changes     configuration changes
//!                    '-- supply      what apply says, what the log may forget
//!             advance --> ready      what the raft crate wants done --> Effect
//! ```
//!
//! [`Core`] is one struct; its methods are spread over these files by subject.

mod changes;
mod event;
mod leadership;
mod ready;
mod receive;
mod supply;

use std::collections::VecDeque;
use std::time::Duration;

use raft::eraftpb::{ConfChange, ConfState, HardState, Message};
use raft::{RawNode, SnapshotStatus, StateRole};

use super::drain::TracingDrain;
use super::log::SnapshotRecord;
use super::reads::Reads;
use super::store::Store;
use super::{Error, Leader, Role, Status, step};
use crate::limits;
pub use event::{Committed, Effect, Event, Job, Proposal, Via};
use ready::DelayedMessages;
use supply::Supply;

/// How to make a [`Core`]; see [`Config`](super::Config) for the fields that both have.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    pub id: u64,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    pub pre_vote: bool,
    pub applied: u64,
    pub snapshot_count: u64,
    pub catch_up_entries: u64,
    /// Random bits of this start: they tell its reads from those of earlier starts and choose the
    /// election timeouts.
    pub nonce: u64,
}

/// Consensus without threads, clock or network.
pub struct Core {
    raft: RawNode<Store>,
    config: CoreConfig,
    election_ticks: u64,
    read_retry_ticks: u32,
    read_wait_ticks: u64,
    ticks: u64,
    random: u64,
    /// The numbers of the jobs that are not durable yet, each with the tick in which the log writer
    /// got it.
    outstanding: VecDeque<(u64, u64)>,
    /// The last job with a new term or vote, or with the commit of a configuration change, until it
    /// is durable.
    unsynced_state: Option<u64>,
    supply: Supply,
    /// The configuration after the last change that apply has reached, and the index of that change
    /// (or of the snapshot, or of the start). Raft's own configuration is ahead of this one from
    /// the arrival of a snapshot until the snapshot is applied.
    applied_conf: (u64, ConfState),
    /// Index of the last configuration change whose commit this leader has made durable, or is
    /// about to.
    change_synced: u64,
    /// Index of the configuration change that removed this member.
    left_at: Option<u64>,
    /// Term and vote of the last hard state that went into a job.
    last_vote: (u64, u64),
    /// A hard state whose commit alone is new; it goes with the next job.
    unwritten: Option<HardState>,
    last_number: u64,
    reads: Reads,
    /// Reads of other members that wait for the leader's first commit.
    forwarded: VecDeque<Message>,
    /// The last acknowledgement of an append since the last heartbeat: receiver, term and index.
    last_acknowledgement: Option<(u64, u64, u64)>,
    /// Configuration changes that wait for the one before them, each with its proposal's ticket.
    conf_changes: VecDeque<(u64, ConfChange)>,
    /// Whether this leader hands over, because the first of `conf_changes` would remove it.
    is_leaving: bool,
    delayed: Option<DelayedMessages>,
    /// The commit index at the start, or the index of a later snapshot. Until apply has reported
    /// it, this member does not campaign.
    replay_until: u64,
    leader: Leader,
    /// A snapshot, and the number of the job that writes its record, until that job is durable.
    installing: Option<(u64, SnapshotRecord)>,
    /// Index of the last snapshot that replaced the log, from the moment that raft takes it in.
    restored: u64,
    /// The durable index at the last compaction of the log.
    compacted_at: u64,
    /// See [`Handle::set_space_short`](super::Handle::set_space_short).
    is_space_short: bool,
    proposals_dropped: u64,
    messages_refused: u64,
    leader_changes: u64,
    /// [`Effect::Fatal`] was given.
    has_ended: bool,
}

impl Core {
    pub fn new(config: CoreConfig, store: Store) -> Result<Self, Error> {
        let tick = config.heartbeat_interval.max(Duration::from_millis(1));
        let ticks = |time: Duration| time.as_nanos().div_ceil(tick.as_nanos());
        let election_ticks = (ticks(config.election_timeout) as usize).max(2);
        let raft_config = raft::Config {
            id: config.id,
            election_tick: election_ticks,
            heartbeat_tick: 1,
            applied: config.applied,
            max_size_per_msg: limits::RAFT_MESSAGE_BYTES_MAX,
            max_inflight_msgs: limits::RAFT_INFLIGHT_MAX,
            check_quorum: true,
            pre_vote: config.pre_vote,
            max_uncommitted_size: limits::RAFT_UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: limits::APPLY_BATCH_BYTES_MAX,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(TracingDrain(config.id), slog::o!());
        let raft = RawNode::new(&raft_config, store, &logger)?;
        let reads = Reads::new(config.id, config.nonce);
        let replay_until = raft.raft.raft_log.committed;
        let last_vote = (raft.raft.term, raft.raft.vote);
        let compacted_at = config.applied;
        let applied_conf = (config.applied, raft.raft.prs().conf().to_conf_state());
        let mut core = Self {
            raft,
            election_ticks: election_ticks as u64,
            read_retry_ticks: ticks(limits::READ_INDEX_RETRY).max(1) as u32,
            read_wait_ticks: ticks(limits::READ_WAIT + 2 * config.election_timeout) as u64,
            ticks: 0,
            random: config.nonce,
            supply: Supply::new(config.applied),
            config,
            outstanding: VecDeque::new(),
            unsynced_state: None,
            applied_conf,
            change_synced: 0,
            left_at: None,
            last_vote,
            unwritten: None,
            last_number: 0,
            reads,
            forwarded: VecDeque::new(),
            last_acknowledgement: None,
            conf_changes: VecDeque::new(),
            is_leaving: false,
            delayed: None,
            replay_until,
            leader: Leader::default(),
            installing: None,
            restored: 0,
            compacted_at,
            is_space_short: false,
            proposals_dropped: 0,
            messages_refused: 0,
            leader_changes: 0,
            has_ended: false,
        };
        core.choose_timeout();
        Ok(core)
    }

    /// Takes in events and returns what is to be done, in that order. After [`Effect::Fatal`] it
    /// returns nothing.
    pub fn handle(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.has_ended {
            return effects;
        }
        for event in events {
            self.take(event, &mut effects);
            self.choose_timeout();
            if self.raft.store().has_failed() {
                break;
            }
        }
        self.advance(&mut effects);
        match self.raft.mut_store().take_failure() {
            Some(error) => {
                self.has_ended = true;
                vec![Effect::Fatal(error)]
            }
            None => effects,
        }
    }

    /// Whether the log writer's queue has room. Without room, proposals and messages wait in the
    /// inbox.
    pub fn has_room(&self) -> bool {
        self.outstanding.len() < limits::LOG_JOBS_MAX
    }

    /// How many proposals are worth a turn. While the log writer is busy, a few proposals would
    /// only make another short batch behind its current one, here and on all other members. A log
    /// writer that hangs for two ticks is not waited for, since the other members may be able to
    /// commit without it.
    pub fn proposals_min(&self) -> usize {
        match self.outstanding.front() {
            _ if !self.has_room() => usize::MAX,
            Some((_, since)) if self.ticks - since < 2 => limits::PROPOSALS_PER_BATCH_MIN,
            _ => 1,
        }
    }

    /// Whether progress of apply is worth a turn, because something waits for it: an election, held
    /// messages, a configuration change, or entries that apply had no room for.
    pub fn wants_apply_reports(&self) -> bool {
        self.raft.raft.leader_id == 0
            || self.delayed.is_some()
            || !self.conf_changes.is_empty()
            || self.supply.waits()
    }

    /// Whether exactly one job is not durable yet, which is then the last one.
    pub fn awaits_one_job(&self) -> bool {
        self.outstanding.len() == 1
    }

    /// How many rounds of reads were not answered in time so far.
    pub fn reads_unanswered(&self) -> u64 {
        self.reads.unanswered()
    }

    /// Whether raft has taken in a snapshot that is not applied.
    pub fn awaits_snapshot(&self) -> bool {
        step::awaits_snapshot(&self.raft)
    }

    /// Whether the commit index of this member is that of the cluster: it leads, is the only voter,
    /// and has committed an entry of its term.
    pub fn answers_reads_alone(&self) -> bool {
        let raft = &self.raft.raft;
        raft.state == StateRole::Leader && self.is_alone() && raft.commit_to_current_term()
    }

    pub fn status(&self) -> Status {
        let raft = &self.raft.raft;
        Status {
            id: raft.id,
            leader: raft.leader_id,
            term: raft.term,
            role: match raft.state {
                StateRole::Follower => Role::Follower,
                StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            },
            committed: raft.raft_log.committed,
            applied: raft.raft_log.applied,
            last_index: raft.raft_log.last_index(),
            proposals_dropped: self.proposals_dropped,
            messages_refused: self.messages_refused,
            leader_changes: self.leader_changes,
        }
    }

    /// Raft's configuration: that of the last applied configuration change, or of a snapshot that
    /// is not applied yet.
    pub fn conf_state(&self) -> ConfState {
        self.raft.raft.prs().conf().to_conf_state()
    }

    /// Index of the last snapshot that raft has taken in; 0 if there was none.
    pub fn restored(&self) -> u64 {
        self.restored
    }

    pub fn set_space_short(&mut self, is_short: bool) {
        self.is_space_short = is_short;
    }

    /// The id of each member, and the last index up to which its log is known to match this
    /// leader's; `None` unless this member leads.
    pub fn progress(&self) -> Option<Vec<(u64, u64)>> {
        let raft = &self.raft.raft;
        let leads = raft.state == StateRole::Leader;
        leads.then(|| raft.prs().iter().map(|(id, of)| (*id, of.matched)).collect())
    }

    fn take(&mut self, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Tick => self.tick(effects),
            Event::Propose(proposals) => self.propose(proposals, effects),
            Event::ProposeConfChange { ticket, change } => {
                if self.conf_changes.len() < limits::CONF_CHANGES_WAITING_MAX {
                    self.conf_changes.push_back((ticket, change));
                } else {
                    self.drop_proposals(vec![ticket], effects);
                }
            }
            Event::Read(token) => self.reads.push(token),
            Event::Receive(message) => self.receive(message, effects),
            Event::Persisted { number, places } => self.persisted(number, places, effects),
            Event::Applied(index) => self.applied(index, effects),
            Event::ConfChange { index, change } => {
                self.change_configuration(index, change, effects)
            }
            Event::Durable { index, term, conf_state } => {
                self.durable(index, term, conf_state, effects);
            }
            Event::TransferLeader(to) => self.raft.transfer_leader(to),
            Event::PeersReached => self.hasten_election(),
            Event::Unreachable(id) => self.raft.report_unreachable(id),
            Event::ReceiveSnapshot(message) => {
                let admitted = step::admit_snapshot(&self.raft, &message);
                self.step_admitted(admitted, message, effects);
            }
            Event::IgnoreSnapshot(message) => {
                let index = message.get_snapshot().get_metadata().index;
                if index <= self.raft.raft.raft_log.committed {
                    let admitted = step::admit_snapshot(&self.raft, &message);
                    self.step_admitted(admitted, message, effects);
                }
            }
            Event::SnapshotSent { to, arrived } => {
                let status = if arrived { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
                self.raft.report_snapshot(to, status);
            }
        }
    }

    fn advance(&mut self, effects: &mut Vec<Effect>) {
        while !self.raft.store().has_failed() {
            self.campaign_if_alone();
            self.propose_conf_changes(effects);
            self.ask_for_reads();
            self.choose_timeout();
            if !self.has_room() || !self.raft.has_ready() {
                break;
            }
            let ready = self.take_ready();
            self.process(ready, effects);
        }
        self.supply_apply(effects);
    }
}
