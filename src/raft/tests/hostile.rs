//! Random messages to members in every role: whatever arrives, raft does not panic. The seed of a
//! failure is printed.

use super::*;
use crate::clock::split_mix;

/// Random numbers that repeat for a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        split_mix(self.0)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    /// A number close to one of these, or absurd.
    fn near(&mut self, values: &[u64]) -> u64 {
        match self.below(12) {
            0 => self.of(&[0, 1, u64::MAX, u64::MAX - 1, 1 << 62, 1 << 63]),
            _ => self.of(values).saturating_add(self.below(3)).saturating_sub(1),
        }
    }
}

/// A member among hostile ones. Its disk and its state machine work.
struct Victim {
    core: Core,
    dice: Dice,
    refused: u64,
    committed: u64,
}

impl Victim {
    fn give(&mut self, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            for effect in self.core.handle(std::mem::take(&mut events)) {
                match effect {
                    Effect::Persist(job) => {
                        events.push(Event::Persisted { number: job.number, places: Vec::new() });
                    }
                    Effect::Commit(entries) => {
                        for committed in &entries {
                            if let Committed::ConfChange { index, change, .. } = committed {
                                let is_taken = self.dice.below(2) == 0 && change.node_id < 6;
                                let change = is_taken.then(|| change.clone());
                                events.push(Event::ConfChange { index: *index, change });
                            }
                        }
                        let last = entries.last().unwrap().index();
                        assert!(last > self.committed, "{last} after {}", self.committed);
                        self.committed = last;
                        events.push(Event::Applied(last));
                    }
                    Effect::Refused(_) => self.refused += 1,
                    Effect::Fatal(error) => panic!("fatal: {error}"),
                    _ => {}
                }
            }
        }
    }

    fn entries(&mut self, after: u64, terms: &[u64]) -> Vec<Entry> {
        let change = ConfChange {
            change_type: self.dice.of(&[0, 1, 3, 9]),
            node_id: self.dice.below(7),
            ..ConfChange::default()
        };
        let change = Bytes::from(prost::Message::encode_to_vec(&change));
        let (is_ordered, count) = (self.dice.below(4) > 0, self.dice.of(&[0, 0, 1, 1, 2, 3]));
        let mut term = self.dice.near(terms);
        let entry = |offset| {
            let index = if is_ordered {
                after.wrapping_add(offset)
            } else {
                term = self.dice.near(terms);
                self.dice.near(&[after])
            };
            let entry_type = self.dice.of(&[0, 0, 0, 0, 1, 1, 2, 7, -1]);
            let data = match self.dice.below(3) {
                0 => value(offset),
                _ if entry_type == 1 => change.clone(),
                _ => Bytes::new(),
            };
            Entry { entry_type, term, index, data, ..Entry::default() }
        };
        (1..=count).map(entry).collect()
    }

    fn message(&mut self) -> Message {
        let Status { id, term, committed, last_index, .. } = self.core.status();
        let terms = [term, term, term, term.saturating_add(1)];
        let indexes = [committed, last_index];
        let context = self.dice.of(&[&b""[..], b"", b"CampaignTransfer", b"CampaignPreElection"]);
        let dice = &mut self.dice;
        let mut message = Message {
            msg_type: dice.below(26) as i32 - 1,
            from: dice.of(&[1, 2, 3, 2, 3, 4, 0]),
            to: if dice.below(20) == 0 { dice.below(4) } else { id },
            term: if dice.below(8) == 0 { 0 } else { dice.near(&terms) },
            log_term: dice.near(&terms),
            index: dice.near(&indexes),
            commit: dice.near(&indexes),
            reject: dice.below(3) == 0,
            reject_hint: dice.near(&indexes),
            context: Bytes::from_static(context),
            ..Message::default()
        };
        message.entries = self.entries(message.index, &terms);
        if self.dice.below(3) == 0 {
            let (index, term) = (self.dice.near(&indexes), self.dice.near(&terms));
            let metadata = message.mut_snapshot().mut_metadata();
            (metadata.index, metadata.term) = (index, term);
            let conf_state = metadata.mut_conf_state();
            for list in [&mut conf_state.voters, &mut conf_state.learners] {
                *list = (0..self.dice.below(4)).map(|_| self.dice.below(6)).collect();
            }
            if self.dice.below(4) == 0 {
                conf_state.voters_outgoing = vec![self.dice.below(4)];
            }
        }
        // Encoded and decoded, as between members.
        let bytes = prost::Message::encode_to_vec(&message);
        prost::Message::decode(bytes.as_slice()).unwrap()
    }

    fn suffer(&mut self, count: usize) {
        for _ in 0..count {
            let event = match self.dice.below(16) {
                0 => Event::Tick,
                1 => Event::Read(self.dice.roll()),
                2 => Event::Propose(vec![Proposal { data: value(1), ..Proposal::default() }]),
                3 => Event::ReceiveSnapshot(Message { msg_type: 7, ..self.message() }),
                4 => Event::Unreachable(self.dice.below(5)),
                5 => Event::SnapshotSent { to: self.dice.below(5), arrived: false },
                6 => Event::TransferLeader(self.dice.below(5)),
                _ => Event::Receive(self.message()),
            };
            self.give(event);
        }
    }
}

#[test]
fn members_in_every_role_survive_any_message() {
    for seed in 0..400 {
        println!("seed {seed}");
        let mut cluster = Cluster::new(seed);
        let leader = cluster.elect(None);
        for number in 0..5 {
            cluster.propose(leader, number);
            cluster.settle(None);
        }
        let mut dice = Dice(seed << 32);
        let id = dice.of(&[leader, leader % 3 + 1]);
        let mut core = match dice.below(6) {
            0 => core(1, &[1], seed),
            1 => core(1, &[2, 3], seed),
            2 => core(1, &[1, 2, 3], seed),
            _ => cluster.cores.remove(&id).unwrap(),
        };
        let committed = core.status().committed;
        if dice.below(2) == 0 {
            let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
            core.handle([Event::Durable { index: committed, term: 2, conf_state }]);
        }
        let mut victim = Victim { core, dice, refused: 0, committed };
        for _ in 0..victim.dice.below(30) {
            victim.give(Event::Tick);
        }
        victim.suffer(500);
        assert!(victim.refused > 100, "{}", victim.refused);
    }
}

/// A snapshot that a follower would take.
fn snapshot() -> Message {
    let mut snapshot = message(MessageType::MsgSnapshot, 3);
    let metadata = snapshot.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (9, 2);
    *metadata.mut_conf_state() =
        ConfState { voters: vec![1, 2, 3], learners: vec![4], ..ConfState::default() };
    snapshot
}

#[test]
fn snapshots_at_which_raft_panics_are_refused() {
    type Edit = fn(&mut Message);
    fn conf(message: &mut Message) -> &mut ConfState {
        message.mut_snapshot().mut_metadata().mut_conf_state()
    }
    let cases: [(&str, Edit, Refusal); 19] = [
        ("of nobody", |m| conf(m).voters.clear(), Refusal::ConfState),
        ("without us", |m| conf(m).voters = vec![2, 3], Refusal::ConfState),
        ("a learner that votes", |m| conf(m).learners = vec![1], Refusal::ConfState),
        ("a voter twice", |m| conf(m).voters = vec![1, 2, 2], Refusal::ConfState),
        ("with member 0", |m| conf(m).learners = vec![0], Refusal::ConfState),
        ("joint", |m| conf(m).voters_outgoing = vec![1], Refusal::ConfState),
        ("a learner to be", |m| conf(m).learners_next = vec![2], Refusal::ConfState),
        ("that leaves", |m| conf(m).auto_leave = true, Refusal::ConfState),
        ("none", |m| m.mut_snapshot().mut_metadata().conf_state = None, Refusal::ConfState),
        ("no snapshot", |m| m.snapshot = None, Refusal::Index),
        ("at no index", |m| m.mut_snapshot().mut_metadata().index = 0, Refusal::Index),
        ("the last index", |m| m.mut_snapshot().mut_metadata().index = u64::MAX, Refusal::Index),
        ("of no term", |m| m.mut_snapshot().mut_metadata().term = 0, Refusal::Term),
        ("of a term to come", |m| m.mut_snapshot().mut_metadata().term = 4, Refusal::Term),
        ("the last term", |m| m.term = u64::MAX, Refusal::Term),
        ("from nobody", |m| m.from = 0, Refusal::Address),
        ("from ourselves", |m| m.from = 1, Refusal::Address),
        ("to another", |m| m.to = 2, Refusal::Address),
        ("another message", |m| m.msg_type = 3, Refusal::Type),
    ];
    let follower = &mut core(1, &[1, 2, 3], 0);
    let mut give = |message: Message| {
        follower.handle([Event::ReceiveSnapshot(message)]).into_iter().find_map(|effect| {
            match effect {
                Effect::Refused(refusal) => Some(refusal),
                _ => None,
            }
        })
    };
    for (what, edit, expected) in cases {
        let mut bad = snapshot();
        edit(&mut bad);
        assert_eq!(give(bad), Some(expected), "{what}");
    }
    // The member has entry 1 of term 1, which is committed.
    let mut bad = snapshot();
    bad.mut_snapshot().mut_metadata().index = 1;
    assert_eq!(give(bad), Some(Refusal::Committed));
    assert_eq!(give(snapshot()), None);
    let mut second = snapshot();
    second.mut_snapshot().mut_metadata().index = 10;
    assert_eq!(give(second), Some(Refusal::Snapshot), "the first is not installed");
}
