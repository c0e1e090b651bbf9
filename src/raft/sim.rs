//! Three cores over a network that loses, delays and repeats, on disks that sync when they like,
//! with members that crash. An observer who sees everything checks that there is one history, and
//! that no read is stale.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ::raft::eraftpb::{ConfState, Entry, HardState, Message, MessageType};
use bytes::Bytes;

use super::log::Table;
use super::store::Store;
use super::{Committed, Core, CoreConfig, Effect, Event, Job, Proposal, Role};
use crate::clock::split_mix;

const MEMBERS: [u64; 3] = [1, 2, 3];

struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        split_mix(self.0) % bound
    }

    fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }
}

/// The content of a member's disk, which it finds after a crash.
#[derive(Default)]
struct Durable {
    entries: Vec<Entry>,
    state: HardState,
    /// Index and term of the last entry that the state on disk includes.
    applied: (u64, u64),
}

impl Durable {
    fn write(&mut self, job: &Job) {
        for entry in &job.batch.entries {
            self.entries.retain(|known| known.index < entry.index);
            self.entries.push(entry.clone());
        }
        if let Some(state) = &job.batch.hard_state {
            self.state = state.clone();
        }
    }
}

struct Member {
    core: Option<Core>,
    durable: Durable,
    /// Jobs that were not synced yet.
    jobs: VecDeque<Job>,
    to_apply: VecDeque<Committed>,
    applied: (u64, u64),
}

struct World {
    seed: u64,
    chance: Chance,
    members: BTreeMap<u64, Member>,
    network: Vec<Message>,
    /// The one history: term and data of each index, as the first member applied it.
    history: BTreeMap<u64, (u64, Bytes)>,
    /// The last index whose write a client knows of.
    acknowledged: u64,
    /// Reads under way by token, each with the acknowledged index at its beginning.
    reads: BTreeMap<u64, u64>,
    reads_answered: u64,
    proposals: u64,
    faults: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let state = HardState { term: 1, vote: 0, commit: 1 };
        let durable = || Durable { state: state.clone(), applied: (1, 1), ..Durable::default() };
        let member = || Member {
            core: None,
            durable: durable(),
            jobs: VecDeque::new(),
            to_apply: VecDeque::new(),
            applied: (1, 1),
        };
        let mut world = Self {
            seed,
            chance: Chance(seed << 32),
            members: MEMBERS.iter().map(|id| (*id, member())).collect(),
            network: Vec::new(),
            history: BTreeMap::new(),
            acknowledged: 1,
            reads: BTreeMap::new(),
            reads_answered: 0,
            proposals: 0,
            faults: true,
        };
        for id in MEMBERS {
            world.boot(id);
        }
        world
    }

    fn boot(&mut self, id: u64) {
        let nonce = self.chance.below(u64::MAX);
        let member = self.members.get_mut(&id).unwrap();
        let mut table = Table::default();
        table.restart(1, 1);
        for entry in &member.durable.entries {
            table.append(entry.clone(), None);
        }
        let mut state = member.durable.state.clone();
        assert!(member.durable.applied.0 <= table.last_index(), "seed {}", self.seed);
        state.commit = state.commit.max(member.durable.applied.0);
        member.applied = member.durable.applied;
        let config = CoreConfig {
            id,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            pre_vote: true,
            applied: member.applied.0,
            snapshot_count: 25,
            catch_up_entries: 10,
            nonce,
        };
        let conf_state = ConfState { voters: MEMBERS.to_vec(), ..ConfState::default() };
        let store = Store::new(table, state, conf_state, None);
        member.core = Some(Core::new(config, store).unwrap());
    }

    /// The process or the machine dies. Of the jobs under way the first ones may be on disk.
    fn crash(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        let survived = self.chance.below(member.jobs.len() as u64 + 1) as usize;
        let jobs = std::mem::take(&mut member.jobs);
        for job in jobs.iter().take(survived) {
            member.durable.write(job);
        }
        // Committed entries that are not applied are lost from memory. The next start gives them to
        // apply again, once it knows that they are committed.
        member.to_apply.clear();
        member.core = None;
        self.reads.retain(|token, _| token % 3 + 1 != id);
    }

    fn give(&mut self, id: u64, event: Event) {
        let member = self.members.get_mut(&id).unwrap();
        let Some(core) = &mut member.core else { return };
        for effect in core.handle([event]) {
            match effect {
                Effect::Persist(job) => member.jobs.push_back(job),
                Effect::Send(messages) => self.network.extend(messages),
                Effect::Commit(entries) => member.to_apply.extend(entries),
                Effect::ReadIndex { tokens, index } => {
                    for token in tokens {
                        let least = self.reads.remove(&token).unwrap();
                        assert!(index >= least, "seed {}: a stale read", self.seed);
                        self.reads_answered += 1;
                    }
                }
                Effect::Refused(refusal) => panic!("seed {}: refused: {refusal}", self.seed),
                Effect::Fatal(error) => panic!("seed {}: fatal: {error}", self.seed),
                Effect::ReadsLate(tokens) => {
                    tokens.iter().for_each(|token| {
                        self.reads.remove(token);
                    });
                }
                Effect::Dropped(_)
                | Effect::Leader(_)
                | Effect::ConfState { .. }
                | Effect::Purge { .. } => {}
            }
        }
    }

    fn sync(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        let count = self.chance.below(member.jobs.len() as u64 + 1) as usize;
        let mut number = 0;
        for job in member.jobs.drain(..count) {
            member.durable.write(&job);
            number = job.number;
            self.network.extend(job.messages);
        }
        if number > 0 {
            self.give(id, Event::Persisted { number, places: Vec::new() });
        }
    }

    fn apply(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        let Some(committed) = member.to_apply.pop_front() else { return };
        assert_eq!(committed.index(), member.applied.0 + 1, "seed {}", self.seed);
        member.applied = (committed.index(), committed.term());
        if self.chance.one_in(4) {
            member.durable.applied = member.applied;
        }
        let Committed::Normal { index, term, data } = committed else { panic!("no such entry") };
        let known = self.history.entry(index).or_insert_with(|| (term, data.clone()));
        assert_eq!(*known, (term, data), "seed {}: two histories at {index}", self.seed);
        self.acknowledged = self.acknowledged.max(index);
        self.give(id, Event::Applied(index));
    }

    fn deliver(&mut self) {
        if self.network.is_empty() {
            return;
        }
        let at = self.chance.below(self.network.len() as u64) as usize;
        let message = self.network.swap_remove(at);
        if self.faults && self.chance.one_in(12) {
            return;
        }
        // Reads are never sent twice; everything else may arrive twice.
        let once = message.msg_type == MessageType::MsgReadIndex as i32;
        if self.faults && !once && self.chance.one_in(12) {
            self.network.push(message.clone());
        }
        self.give(message.to, Event::Receive(message));
    }

    fn step(&mut self) {
        let id = MEMBERS[self.chance.below(3) as usize];
        match self.chance.below(100) {
            0..6 => self.give(id, Event::Tick),
            6..50 => self.deliver(),
            50..70 => self.sync(id),
            70..88 => self.apply(id),
            88..94 => {
                self.proposals += 1;
                let data = Bytes::from(self.proposals.to_string());
                self.give(
                    id,
                    Event::Propose(vec![Proposal { ticket: 0, data, ..Proposal::default() }]),
                );
            }
            94..98 if self.members[&id].core.is_some() => {
                // `token % 3 + 1` is the member that was asked.
                let token = (self.proposals * 1000 + self.reads.len() as u64) * 3 + id - 1;
                if !self.reads.contains_key(&token) {
                    self.reads.insert(token, self.acknowledged);
                    self.give(id, Event::Read(token));
                }
            }
            98 if self.faults && self.chance.one_in(4) => self.crash(id),
            99 if self.members[&id].core.is_none() => self.boot(id),
            _ => {}
        }
    }

    /// Without faults all members soon agree, and every read is answered.
    fn heal(&mut self) {
        self.faults = false;
        for id in MEMBERS {
            if self.members[&id].core.is_none() {
                self.boot(id);
            }
        }
        for _ in 0..4000 {
            self.step();
        }
        for _ in 0..1500 {
            for _ in 0..self.network.len().min(100) {
                self.deliver();
            }
            for id in MEMBERS {
                self.sync(id);
                self.apply(id);
                if self.chance.one_in(20) {
                    self.give(id, Event::Tick);
                }
            }
        }
        let leaders = self.members.values().filter(|member| {
            member.core.as_ref().is_some_and(|core| core.status().role == Role::Leader)
        });
        assert_eq!(leaders.count(), 1, "seed {}", self.seed);
        let applied: Vec<_> = self.members.values().map(|member| member.applied).collect();
        assert!(applied.iter().all(|one| *one == applied[0]), "seed {}: {applied:?}", self.seed);
        assert!(self.reads.is_empty(), "seed {}: reads were never answered", self.seed);
    }
}

#[test]
fn members_agree_whatever_fails() {
    let (mut applied, mut reads) = (0, 0);
    for seed in 0..12 {
        let mut world = World::new(seed);
        for _ in 0..20_000 {
            world.step();
        }
        applied += world.history.len();
        reads += world.reads_answered;
        world.heal();
    }
    // The faults must leave something to judge.
    assert!(applied > 1000 && reads > 1000, "{applied} {reads}");
}
