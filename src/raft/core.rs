//! The consensus core: events in, effects out.

mod changes;
mod supply;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{ConfChange, ConfState, Entry, HardState, Message, MessageType};
use raft::{RawNode, Ready, SnapshotStatus, StateRole};

use super::drain::TracingDrain;
use super::log::{Batch, Placed, SnapshotRecord};
use super::reads::Reads;
use super::store::Store;
use super::{Error, Leader, Refusal, Role, Status, step};
use crate::clock::split_mix;
use crate::limits;
use crate::planted::{self, Bug};
use supply::Supply;

/// What a core is made with.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    pub id: u64,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    pub pre_vote: bool,
    pub applied: u64,
    /// Entries that become durable between two looks at what the log may forget.
    pub snapshot_count: u64,
    pub catch_up_entries: u64,
    /// Random bits of this start: they tell its reads from those of earlier starts and choose the
    /// election timeouts.
    pub nonce: u64,
}

/// Data to be put into the log. The ticket comes back if raft drops it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    pub ticket: u64,
    pub data: Bytes,
    /// Only for the log of this member as the leader of that term; 0 is for any leader's.
    pub term: u64,
}

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// A heartbeat interval passed.
    Tick,
    Propose(Vec<Proposal>),
    ProposeConfChange {
        ticket: u64,
        change: ConfChange,
    },
    /// A read index is wanted; the token comes back with it.
    Read(u64),
    /// Another member sent this.
    Receive(Message),
    /// All jobs up to this one are durable, and the entries of those that were not reported before
    /// stand at these places.
    Persisted {
        number: u64,
        places: Vec<Placed>,
    },
    /// The state includes this entry and all before it.
    Applied(u64),
    /// Apply reached a configuration change; nothing if it was rejected.
    ConfChange {
        index: u64,
        change: Option<ConfChange>,
    },
    /// The state on disk includes this entry.
    Durable {
        index: u64,
        term: u64,
        conf_state: ConfState,
    },
    TransferLeader(u64),
    /// The others have been reached: the first election need not wait for its full timeout.
    Reached,
    Unreachable(u64),
    /// Another member sent a snapshot, which is on disk and checked.
    ReceiveSnapshot(Message),
    /// One that is older than what is here, and without its data. Raft tells the sender what is here.
    IgnoreSnapshot(Message),
    /// A snapshot that was sent has arrived, or not.
    SnapshotSent {
        to: u64,
        arrived: bool,
    },
}

/// What is to be done, in this order.
#[derive(Debug)]
pub enum Effect {
    Persist(Job),
    Send(Vec<Message>),
    Commit(Vec<Committed>),
    ReadIndex {
        tokens: Vec<u64>,
        index: u64,
    },
    /// Reads that no leader settled in time.
    ReadsLate(Vec<u64>),
    Dropped(Vec<u64>),
    /// The answer to [`Event::ConfChange`].
    ConfState {
        index: u64,
        outcome: Result<ConfState, Error>,
    },
    Leader(Leader),
    /// Segments that hold nothing from `below` on may go.
    Purge {
        below: u64,
        record: SnapshotRecord,
    },
    Refused(Refusal),
    /// The member cannot go on. Nothing else of the turn is to be done, and no turn follows.
    Fatal(Error),
}

/// What the log writer does at a time: write, sync if so marked, then send.
#[derive(Debug, Default)]
pub struct Job {
    pub number: u64,
    pub batch: Batch,
    pub sync: bool,
    pub messages: Vec<Message>,
}

/// A committed entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Committed {
    /// Data is empty where a leader took office.
    Normal {
        index: u64,
        term: u64,
        data: Bytes,
    },
    ConfChange {
        index: u64,
        term: u64,
        change: ConfChange,
    },
    /// The state up to here is that of a snapshot, whatever was applied before.
    Snapshot {
        index: u64,
        term: u64,
        conf_state: ConfState,
    },
}

impl Committed {
    pub fn index(&self) -> u64 {
        match self {
            Self::Normal { index, .. }
            | Self::ConfChange { index, .. }
            | Self::Snapshot { index, .. } => *index,
        }
    }

    pub fn term(&self) -> u64 {
        match self {
            Self::Normal { term, .. }
            | Self::ConfChange { term, .. }
            | Self::Snapshot { term, .. } => *term,
        }
    }
}

/// Messages that wait until a configuration change is applied and the log is durable: some of
/// them say that it is.
struct Held {
    /// The change's index.
    until: u64,
    /// The last job that they speak of.
    job: u64,
    messages: Vec<Message>,
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
    /// Jobs not yet durable, and when they were given out.
    outstanding: VecDeque<(u64, u64)>,
    /// The last job with a new term or vote, or with the commit of a configuration change, until it
    /// is durable.
    unsynced_state: Option<u64>,
    supply: Supply,
    /// The configuration that the log gives where apply is, and the entry that made it. Raft's own
    /// is ahead of it from the arrival of a snapshot until this is applied.
    apply_conf: (u64, ConfState),
    /// The last configuration change whose commit this leader has made durable, or is about to.
    change_synced: u64,
    /// The change that removed this member.
    left_at: Option<u64>,
    last_vote: (u64, u64),
    /// A hard state whose commit alone is new; it goes with the next job.
    unwritten: Option<HardState>,
    last_number: u64,
    reads: Reads,
    /// Reads of other members that wait for the leader's first commit.
    forwarded: VecDeque<Message>,
    /// The last append that was acknowledged since the last heartbeat: to whom, in which term, up to
    /// where.
    acknowledged: Option<(u64, u64, u64)>,
    conf_changes: VecDeque<(u64, ConfChange)>,
    /// Whether this leader hands over, since the first of those would remove it.
    is_leaving: bool,
    held: Option<Held>,
    /// Committed before this start; until it is applied again there are no elections.
    replay_until: u64,
    leader: Leader,
    /// A snapshot, until the job that writes its record is durable.
    installing: Option<(u64, SnapshotRecord)>,
    /// Index of the last snapshot that replaced the log, from the moment that raft takes it in.
    restored: u64,
    /// The durable index when the log's beginning was last forgotten.
    compacted_at: u64,
    /// The log is to forget all that it can.
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
        let logger = slog::Logger::root(TracingDrain, slog::o!());
        let raft = RawNode::new(&raft_config, store, &logger)?;
        let reads = Reads::new(config.id, config.nonce);
        let replay_until = raft.raft.raft_log.committed;
        let last_vote = (raft.raft.term, raft.raft.vote);
        let compacted_at = config.applied;
        let apply_conf = (config.applied, raft.raft.prs().conf().to_conf_state());
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
            apply_conf,
            change_synced: 0,
            left_at: None,
            last_vote,
            unwritten: None,
            last_number: 0,
            reads,
            forwarded: VecDeque::new(),
            acknowledged: None,
            conf_changes: VecDeque::new(),
            is_leaving: false,
            held: None,
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

    /// Takes in what happened and says what is to be done.
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

    /// Whether proposals may be handed in now; otherwise they wait for the log writer.
    pub fn has_room(&self) -> bool {
        self.outstanding.len() < limits::LOG_JOBS_MAX
    }

    /// How many proposals are worth a turn. While the log is being written, a few of them would
    /// only make another short batch behind it, for this member and for all others. A writer that
    /// hangs is not waited for: other members may be able to commit without it.
    pub fn proposals_min(&self) -> usize {
        match self.outstanding.front() {
            _ if !self.has_room() => usize::MAX,
            Some((_, since)) if self.ticks - since < 2 => limits::PROPOSALS_PER_BATCH_MIN,
            _ => 1,
        }
    }

    /// Whether something goes on as soon as apply does: an election, a configuration change,
    /// messages, its own supply.
    pub fn awaits_apply(&self) -> bool {
        self.raft.raft.leader_id == 0
            || self.held.is_some()
            || !self.conf_changes.is_empty()
            || self.supply.waits()
    }

    /// Whether one job is outstanding, the one given out last.
    pub fn awaits_one_job(&self) -> bool {
        self.outstanding.len() == 1
    }

    pub fn leads(&self) -> bool {
        self.raft.raft.state == StateRole::Leader
    }

    /// Whether a snapshot was taken that is not applied.
    pub fn awaits_snapshot(&self) -> bool {
        step::awaits_snapshot(&self.raft)
    }

    /// Whether what is committed here is all that is committed anywhere.
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

    /// Raft's configuration: the one that the log gives where apply is, or that of a snapshot which
    /// is not applied.
    pub fn conf_state(&self) -> ConfState {
        self.raft.raft.prs().conf().to_conf_state()
    }

    /// The last snapshot that raft has taken in; 0 if there was none.
    pub fn restored(&self) -> u64 {
        self.restored
    }

    pub fn spare_space(&mut self, is_short: bool) {
        self.is_space_short = is_short;
    }

    /// How far each member's log is known to go; on the leader.
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
            Event::Reached => self.hasten_election(),
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

    /// Election timeouts come from our own random bits, so that a simulation repeats. Raft draws
    /// one whenever it sets the elapsed time to zero, and may tick before it is seen here.
    fn choose_timeout(&mut self) {
        if self.raft.raft.election_elapsed == 0 {
            self.random = self.random.wrapping_add(1);
        }
        let timeout = self.election_ticks + split_mix(self.random) % self.election_ticks;
        self.raft.raft.set_randomized_election_timeout(timeout as usize);
    }

    fn tick(&mut self, effects: &mut Vec<Effect>) {
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
        // The store finds changes that are not applied in the log's table, where the entries of this
        // turn are not yet.
        let brings_change = step::brings_change(&self.raft);
        let may_tick = leads || !(stalled || replaying || brings_change || self.is_alone());
        // Without room in the log nothing leaves, and a leader's heartbeats would only pile up.
        if may_tick && self.has_room() {
            self.raft.tick();
        } else {
            // It does not stand for election, but once its leader has been silent for so long, its
            // vote is free for others.
            let elapsed = &mut self.raft.raft.election_elapsed;
            *elapsed = (*elapsed + 1).min(self.election_ticks as usize);
        }
    }

    /// Skips all but two ticks of the timeout, as etcd does, unless there is a leader already.
    fn hasten_election(&mut self) {
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

    /// A leader whose disk stalls holds up the cluster: it hands over to the member that is
    /// furthest, and if that takes another election timeout, it steps down.
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

    /// The other voter that is there and furthest.
    fn next_leader(&self) -> Option<u64> {
        let raft = &self.raft.raft;
        let progress = raft.prs().iter().filter(|(other, progress)| {
            **other != raft.id
                && progress.recent_active
                && raft.prs().conf().voters().contains(**other)
        });
        let furthest = progress.max_by_key(|(other, progress)| (progress.matched, **other));
        furthest.map(|(other, _)| *other)
    }

    /// Whether this member is the only voter.
    pub fn is_alone(&self) -> bool {
        let raft = &self.raft.raft;
        raft.promotable() && raft.prs().is_singleton()
    }

    fn propose(&mut self, proposals: Vec<Proposal>, effects: &mut Vec<Effect>) {
        if proposals.is_empty() {
            return;
        }
        let mut tickets = Vec::with_capacity(proposals.len());
        let mut entries = Vec::with_capacity(proposals.len());
        let raft = &self.raft.raft;
        let leads = if raft.state == StateRole::Leader { raft.term } else { 0 };
        let mut late = Vec::new();
        for Proposal { ticket, data, term } in proposals {
            if term != 0 && term != leads {
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

    fn step_proposal(&mut self, entries: Vec<Entry>, tickets: Vec<u64>, effects: &mut Vec<Effect>) {
        let mut message = Message { from: self.config.id, entries, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        if self.raft.raft.step(message).is_err() {
            self.drop_proposals(tickets, effects);
        }
    }

    fn drop_proposals(&mut self, tickets: Vec<u64>, effects: &mut Vec<Effect>) {
        self.proposals_dropped += tickets.len() as u64;
        effects.push(Effect::Dropped(tickets));
    }

    fn receive(&mut self, mut message: Message, effects: &mut Vec<Effect>) {
        let mut admitted = step::admit(&self.raft, &message);
        if message.msg_type == MessageType::MsgHeartbeat as i32 {
            self.acknowledged = None;
        }
        if admitted.is_ok() && message.get_msg_type() == MessageType::MsgPropose {
            let change = |entry: &Entry| ConfChange::decode(entry.data.clone()).ok();
            let mut changes = message.entries.iter().filter(|entry| entry.entry_type != 0);
            if changes.any(|entry| change(entry).is_some_and(|of| self.removes_leader(&of))) {
                admitted = Err(Refusal::ConfChangePending);
            }
        }
        if admitted == Err(Refusal::ConfChangePending) {
            return self.take_turns(message, effects);
        }
        let asks_leader = message.get_msg_type() == MessageType::MsgReadIndex && self.leads();
        if asks_leader && admitted.is_ok() && !self.may_answer_reads() {
            admitted = Err(Refusal::Removed);
        }
        // Nor does it settle reads that it asked about before.
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

    /// Only a planted bug comes here: a learner's acknowledgement as that of some other voter.
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

    fn step_admitted(
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

    fn persisted(&mut self, number: u64, places: Vec<Placed>, effects: &mut Vec<Effect>) {
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

    /// A leader that is no member any more leads on, so that the others learn that this is committed.
    /// But raft panics when it makes further entries durable.
    fn note_persisted(&mut self, number: u64) {
        let raft = &mut self.raft.raft;
        if raft.state == StateRole::Leader && raft.prs().get(raft.id).is_none() {
            let term = raft.term;
            raft.become_follower(term, 0);
        }
        self.raft.on_persist_ready(number);
    }

    fn release(&mut self, effects: &mut Vec<Effect>) {
        let applied = self.raft.raft.raft_log.applied;
        let unsynced = self.outstanding.front().map_or(u64::MAX, |(job, _)| *job);
        if let Some(held) = self.held.take_if(|held| held.until <= applied && held.job < unsynced) {
            effects.push(Effect::Send(held.messages));
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

    /// Of the committed entries only index and kind are needed here, as apply gets them from the
    /// log. A leader counts their bytes.
    fn take_ready(&mut self) -> Ready {
        let leads = self.leads();
        self.raft.mut_store().gives_heads = !leads;
        let ready = self.raft.ready();
        self.raft.mut_store().gives_heads = false;
        ready
    }

    /// A sole voter has nobody to wait for. It wins within the call, and raft requires that all of
    /// its log is durable then.
    fn campaign_if_alone(&mut self) {
        let raft = &self.raft.raft;
        let log = &raft.raft_log;
        let ready = raft.state != StateRole::Leader
            && self.is_alone()
            && self.outstanding.is_empty()
            && log.persisted == log.last_index()
            && log.applied == log.committed;
        if ready {
            // It fails only for messages from outside.
            let _ = self.raft.campaign();
        }
    }

    /// A leader that has applied its own removal leads on until others know of it, but it has no
    /// part in their quorum: they may have elected another and committed more. Raft would answer its
    /// reads at once if they are down to one voter.
    fn may_answer_reads(&self) -> bool {
        let raft = &self.raft.raft;
        raft.prs().conf().voters().contains(raft.id) || planted::is(Bug::RemovedLeaderReads)
    }

    /// Asks the leader, once there is one that can answer.
    fn ask_for_reads(&mut self) {
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
                // Dropped reads are asked for again.
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

    fn process(&mut self, mut ready: Ready, effects: &mut Vec<Effect>) {
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
            // Apply hangs up on a member that is removed, which has to be told before.
            self.supply.commit(last.index, commits_change.then_some(number));
        }
    }

    /// A snapshot takes the log's place. Until it is applied there are no elections: raft would look
    /// for entries that are gone.
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

    /// Messages that may leave at once, and those that wait until the log is durable.
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
            // A sole voter elects itself and already sends, before its vote is durable.
            later.extend(immediate);
        } else {
            now.extend(immediate);
        }
        // A new configuration must be known before this member answers under it.
        let leads = self.raft.raft.state == StateRole::Leader;
        let changes = committed.iter().rev().find(|entry| entry.entry_type != 0);
        if let (false, Some(change)) = (leads, changes) {
            let held =
                self.held.get_or_insert_with(|| Held { until: 0, job: 0, messages: Vec::new() });
            (held.until, held.job) = (change.index, ready.number());
            held.messages.append(&mut later);
        }
        (now, later)
    }

    /// The leader tells each commit by an append without entries, and raft acknowledges what it has
    /// acknowledged before. That says nothing, unless the first one was lost: so it is said again
    /// after each heartbeat.
    fn is_worth_sending(&mut self, message: &Message) -> bool {
        if message.msg_type != MessageType::MsgAppendResponse as i32 || message.reject {
            return true;
        }
        let this = Some((message.to, message.term, message.index));
        std::mem::replace(&mut self.acknowledged, this) != this
    }

    fn persist(&mut self, job: Job, effects: &mut Vec<Effect>) {
        self.outstanding.push_back((job.number, self.ticks));
        effects.push(Effect::Persist(job));
    }

    fn note_leader(&mut self, effects: &mut Vec<Effect>) {
        let leader = Leader { id: self.raft.raft.leader_id, term: self.raft.raft.term };
        if leader == self.leader {
            return;
        }
        if leader.id != self.leader.id {
            self.leader_changes += u64::from(leader.id != 0);
            // The old leader will not answer any more.
            self.reads.give_up();
        }
        self.leader = leader;
        effects.push(Effect::Leader(leader));
    }
}

/// Puts entries for the same member together: what a turn appends, and the commit that it brings
/// about, become one message.
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
