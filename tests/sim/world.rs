//! The world: members, the network between them, time, and what goes wrong.
//!
//! Everything that happens is an event in a queue ordered by time. A member's threads are events,
//! too: whatever gives one of them work arms it, and it takes its turn a little later, or much
//! later if the seed says so.

mod admin;
mod boot;
mod client;
mod crowd;
mod faults;
mod heal;
mod network;
mod watcher;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusd::raft::Message;

use self::admin::{Asked, Errand};
use self::client::Client;
use self::crowd::Crowd;
use self::watcher::Watcher;
use crate::clock::{Chance, MILLI, SECOND};
use crate::member::{Member, Worker, peer_urls};
use crate::oracle::Oracle;
use crate::plan::Plan;
use crate::wire::{Given, Links, Question, Transfers, Wires};

pub const HEARTBEAT: u64 = 100 * MILLI;
const CLIENTS: u64 = 10;
/// Among them, who do nothing but keep a lease alive.
const KEEPERS: u64 = 3;
const WATCHERS: u64 = 3;

pub enum Event {
    Work(usize, u64, Worker),
    Tick(usize, u64),
    Deliver(usize, usize, Box<Message>),
    /// Of a snapshot.
    Piece(u64),
    Question(usize, usize, Box<Question>),
    Answer(Box<Given>),
    Client(usize),
    Watch(usize),
    Admin,
    /// Whoever leads is to let this one lead.
    HandOver(u64),
    /// Clients come to a member that is cut off.
    Crowd,
    Fault,
    Boot(usize),
    /// A trouble of a member ends.
    Relief(usize),
    /// A member is cut off.
    Cut(usize),
    /// A removed member goes.
    Leave(usize, u64),
    Mend,
}

pub struct World {
    pub plan: Plan,
    pub chance: Chance,
    pub now: u64,
    pub events: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub members: Vec<Member>,
    pub cluster_id: u64,
    /// Ways from one member to another that are cut.
    pub cut: BTreeSet<(usize, usize)>,
    pub links: Links,
    pub wires: Wires,
    pub transfers: Transfers,
    pub last_transfer: u64,
    pub clients: Vec<Client>,
    pub watchers: Vec<Watcher>,
    pub asked: Option<Asked>,
    pub errand: Option<Errand>,
    pub crowd: Crowd,
    /// For how long members were suspended, all together.
    pub frozen: u64,
    pub last_url: u64,
    pub oracle: Oracle,
    pub trace: u64,
    pub told: Option<Vec<String>>,
    pub has_faults: bool,
    pub is_asking: bool,
    pub dir: tempfile::TempDir,
}

fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let builder = || tempfile::Builder::new().prefix("rusd-sim-").to_owned();
    let dir = if memory.is_dir() { builder().tempdir_in(memory) } else { builder().tempdir() };
    dir.unwrap()
}

impl World {
    pub fn new(seed: u64, events: u64, tells: bool) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::new(&mut chance, events);
        let dir = scratch();
        let id = |number| rusd::types::member_id(&peer_urls(number), "sim", None);
        let members = (0..plan.members)
            .map(|number| Member::new(id(number), number, dir.path(), &mut chance, &plan));
        let members: Vec<Member> = members.collect();
        let mut ids: Vec<u64> = members.iter().map(|member| member.id).collect();
        ids.sort_unstable();
        let client = |number| Client::new(number + 1, number < KEEPERS, plan.long_odds);
        let mut world = Self {
            cluster_id: rusd::types::cluster_id(&ids),
            cut: BTreeSet::new(),
            links: Links::default(),
            wires: Wires::new(),
            transfers: Transfers::new(),
            last_transfer: 0,
            clients: (0..CLIENTS).map(client).collect(),
            watchers: Vec::new(),
            asked: None,
            errand: None,
            crowd: Crowd::default(),
            frozen: 0,
            last_url: 1,
            oracle: Oracle::new(),
            trace: 0,
            told: tells.then(Vec::new),
            has_faults: true,
            is_asking: true,
            plan,
            chance,
            now: SECOND,
            events: 0,
            sequence: 0,
            queue: BTreeMap::new(),
            members,
            dir,
        };
        let plan = format!("{:?}", world.plan);
        world.tell(|| plan);
        world.begin();
        world
    }

    fn begin(&mut self) {
        for member in 0..self.members.len() {
            let delay = self.chance.below(50 * MILLI);
            self.at(delay, Event::Boot(member));
        }
        for client in 0..self.clients.len() {
            self.at(SECOND + client as u64, Event::Client(client));
        }
        for number in 0..WATCHERS {
            self.watchers.push(Watcher::new(number, &mut self.chance));
            self.at(SECOND, Event::Watch(number as usize));
        }
        self.at(SECOND, Event::Fault);
        if self.plan.admin_millis > 0 {
            self.at(2 * SECOND, Event::Admin);
        }
    }

    /// Runs the seed to its end.
    pub fn run(&mut self) {
        while self.events < self.plan.events {
            self.step();
        }
        self.heal();
    }

    pub fn at(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), event);
    }

    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            told.push(format!("{:>12.6} {}", self.now as f64 / SECOND as f64, what()));
        }
    }

    pub fn note(&mut self, number: u64) {
        self.trace = rusd::clock::split_mix(self.trace ^ number);
    }

    /// When a member's next timer rings.
    fn next_timer(&self) -> Option<(u64, usize)> {
        let timer = |(number, member): (usize, &Member)| {
            let life = member.life.as_ref()?;
            let is_armed = life.armed[Worker::Tasks as usize];
            let at = life.clock.next_timer().filter(|_| !is_armed)?;
            Some((life.since + member.to_world(at), number))
        };
        self.members.iter().enumerate().filter_map(timer).min()
    }

    pub fn step(&mut self) {
        let next = self.queue.first_key_value().map(|((at, _), _)| *at);
        let Some(next) = next else { panic!("nothing happens any more") };
        if let Some((at, member)) = self.next_timer()
            && at <= next
        {
            self.now = self.now.max(at);
            self.arm(member, Worker::Tasks, 0);
            return;
        }
        let Some(((at, _), event)) = self.queue.pop_first() else { return };
        self.now = self.now.max(at);
        self.note(at);
        self.happen(event);
        self.after();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Work(member, life, worker) => self.turn(member, life, worker),
            Event::Tick(member, life) => {
                if self.members[member].lives == life && self.members[member].life.is_some() {
                    let delay = self.members[member].to_world(HEARTBEAT);
                    self.at(delay, Event::Tick(member, life));
                    self.arm(member, Worker::Raft, 0);
                    self.dial(member);
                    self.weigh(member);
                }
            }
            Event::Deliver(from, to, message) => self.deliver(from, to, *message),
            Event::Piece(transfer) => self.piece(transfer),
            Event::Question(from, to, question) => self.question(from, to, *question),
            Event::Answer(given) => self.answer(*given),
            Event::Client(client) => self.client(client),
            Event::Watch(watcher) => self.watch(watcher),
            Event::Admin => self.admin(),
            Event::HandOver(to) => {
                if let Some(leader) = self.leader() {
                    self.hand_over(leader, to);
                }
            }
            Event::Crowd => self.crowd(),
            Event::Fault => self.fault(),
            Event::Boot(member) => self.boot(member),
            Event::Relief(member) => self.relieve(member),
            Event::Cut(member) => self.cut_off(member),
            Event::Leave(member, life) => self.leave(member, life),
            Event::Mend => {
                self.tell(|| "the network is whole".into());
                self.cut.clear();
                self.rewire();
            }
        }
    }

    /// What is looked at after each event.
    fn after(&mut self) {
        self.welcome();
        for number in 0..self.members.len() {
            let id = self.members[number].id;
            let Some(life) = &mut self.members[number].life else { continue };
            let status = life.steps.status();
            self.oracle.status(&status, &life.before);
            life.before = status;
            let fatal = life.node.fatal().borrow().clone();
            if fatal.is_none() {
                let (conf_state, restored) = life.steps.conf_state();
                self.oracle.configuration(life.reached.max(restored), &conf_state);
                life.has_no_vote = !conf_state.voters.contains(&id);
            }
            let removed = *life.node.removed().borrow();
            if let Some(why) = fatal {
                // A panic in one thread takes a moment to reach the others.
                let has_panicked = self.members[number].trap.has_sprung();
                let rest = if has_panicked { self.chance.below(3) * 3 * MILLI } else { 0 };
                let Some(life) = &mut self.members[number].life else { continue };
                if *life.ends_at.get_or_insert(self.now + rest) <= self.now {
                    self.end(number, &why);
                }
            } else if let Some(grace) = removed
                && !std::mem::replace(&mut life.is_leaving, true)
            {
                let life = self.members[number].lives;
                self.at(grace.as_nanos() as u64, Event::Leave(number, life));
            }
        }
    }

    /// A member says that it cannot go on. Only a disk or a panic that the seed wanted can be the
    /// reason.
    pub fn end(&mut self, number: usize, why: &str) {
        let log_struck = self.members[number].disk.troubles(|troubles| troubles.struck);
        let struck = log_struck || self.members[number].store_faults.lock().struck;
        let has_panicked = self.members[number].trap.has_sprung();
        assert!(struck || has_panicked, "member {number} stopped: {why}");
        self.tell(|| format!("m{number} stops: {why}"));
        // What it sent until then is on its way.
        self.send(number);
        self.crash(number, false);
    }
}
