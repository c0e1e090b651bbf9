//! The world: members, the network between them, time, and what goes wrong.
//!
//! Everything that happens is an event in a queue ordered by time. A member's threads are events,
//! too: whatever gives one of them work arms it, and it takes its turn a little later, or much
//! later if the seed says so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusd::clock::Clock;
use rusd::node::{AuthConfig, CheckpointPace, Config, Node, Steps, Surroundings};
use rusd::raft::{Message, Role, Transport};
use rusd::{raft, store};

use super::client::{Ask, Client, all, pairs};
use super::clock::{Chance, SimClock};
use super::disk::SimDisk;
use super::oracle::{Oracle, fold};
use super::watcher::Watcher;

pub const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;
const HEARTBEAT: u64 = 100 * MILLI;
const ELECTION: u64 = 500 * MILLI;
const CLIENTS: u64 = 8;
const WATCHERS: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worker {
    Raft,
    Log,
    Apply,
    Commit,
    Sweep,
    Tasks,
}

const WORKERS: usize = 6;

enum Event {
    Work(usize, u64, Worker),
    Tick(usize, u64),
    Deliver(Box<Message>),
    Client(usize),
    Watch(usize),
    Fault,
    Boot(usize),
    /// A trouble of a member ends.
    Relief(usize),
    Mend,
}

struct Outbox(Arc<Mutex<Vec<Message>>>);

impl Transport for Outbox {
    fn send(&self, messages: Vec<Message>) {
        self.0.lock().extend(messages);
    }
}

/// A member that runs. Its tasks hold the node, so the runtime goes first.
pub struct Life {
    pub runtime: tokio::runtime::Runtime,
    pub node: Node,
    pub steps: Steps,
    pub clock: Arc<SimClock>,
    outbox: Arc<Mutex<Vec<Message>>>,
    /// Since when, in the world's time.
    since: u64,
    armed: [bool; WORKERS],
    applied: u64,
}

pub struct Member {
    pub id: u64,
    name: String,
    dir: PathBuf,
    disk: SimDisk,
    store_is_full: Arc<Mutex<bool>>,
    pub life: Option<Life>,
    lives: u64,
    /// Parts in a million by which its clock is fast.
    drift: i64,
    wall: u64,
    /// Until then its log writer is slow.
    slow_until: u64,
    /// Until then nothing of it runs, as if it were stopped by a signal.
    frozen_until: u64,
}

/// What a seed decides about itself.
#[derive(Clone, Debug)]
pub struct Plan {
    pub members: usize,
    pub events: u64,
    /// One fault in so many milliseconds, on average.
    fault_millis: u64,
    loss_odds: u64,
    repeat_odds: u64,
    slow_odds: u64,
    late_odds: u64,
    drift: u64,
    segment_bytes: u64,
}

impl Plan {
    fn new(chance: &mut Chance, events: u64) -> Self {
        Self {
            members: *chance.pick(&[3, 3, 3, 3, 3, 3, 5, 5, 1]),
            events,
            fault_millis: *chance.pick(&[80, 150, 300, 600, 1500]),
            loss_odds: *chance.pick(&[10, 50, 1_000_000]),
            repeat_odds: *chance.pick(&[10, 50, 1_000_000]),
            late_odds: *chance.pick(&[3, 10, 10, 50]),
            slow_odds: *chance.pick(&[20, 100, 1000]),
            drift: *chance.pick(&[0, 100, 1000]),
            segment_bytes: *chance.pick(&[8 << 10, 32 << 10, 256 << 10]),
        }
    }
}

pub struct World {
    pub plan: Plan,
    pub chance: Chance,
    pub now: u64,
    pub events: u64,
    sequence: u64,
    queue: BTreeMap<(u64, u64), Event>,
    pub members: Vec<Member>,
    /// Whether the way from one member to another is cut.
    cut: Vec<Vec<bool>>,
    clients: Vec<Client>,
    watchers: Vec<Watcher>,
    pub oracle: Oracle,
    pub trace: u64,
    pub told: Option<Vec<String>>,
    has_faults: bool,
    is_asking: bool,
    _dir: tempfile::TempDir,
}

fn scratch() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    let builder = || tempfile::Builder::new().prefix("rusd-sim-").to_owned();
    let dir = if memory.is_dir() { builder().tempdir_in(memory) } else { builder().tempdir() };
    dir.unwrap()
}

fn peer_urls(number: usize) -> Vec<String> {
    vec![format!("http://10.0.0.{number}:2380")]
}

impl World {
    pub fn new(seed: u64, events: u64, tells: bool) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::new(&mut chance, events);
        let dir = scratch();
        let members = (0..plan.members).map(|number| {
            let name = format!("m{number}");
            Member {
                id: rusd::types::member_id(&peer_urls(number), "sim", None),
                dir: dir.path().join(&name),
                name,
                disk: SimDisk::default(),
                store_is_full: Arc::default(),
                life: None,
                lives: 0,
                drift: chance.below(2 * plan.drift + 1) as i64 - plan.drift as i64,
                wall: 1_700_000_000 * SECOND + chance.below(3600) * SECOND,
                slow_until: 0,
                frozen_until: 0,
            }
        });
        let members: Vec<Member> = members.collect();
        let mut world = Self {
            cut: vec![vec![false; plan.members]; plan.members],
            clients: (0..CLIENTS).map(|number| Client::new(number + 1)).collect(),
            watchers: Vec::new(),
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
            _dir: dir,
        };
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
    }

    /// Runs the seed to its end.
    pub fn run(&mut self) {
        while self.events < self.plan.events {
            self.step();
        }
        self.heal();
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((self.now + delay, self.sequence), event);
    }

    pub fn tell(&mut self, what: impl FnOnce() -> String) {
        if let Some(told) = &mut self.told {
            told.push(format!("{:>12.6} {}", self.now as f64 / SECOND as f64, what()));
        }
    }

    fn note(&mut self, number: u64) {
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

    fn step(&mut self) {
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
        match event {
            Event::Work(member, life, worker) if self.members[member].frozen_until > self.now => {
                let delay = self.members[member].frozen_until - self.now;
                let delay = delay + self.chance.below(MILLI);
                self.at(delay, Event::Work(member, life, worker));
            }
            Event::Work(member, life, worker) => {
                if self.members[member].lives == life && self.members[member].life.is_some() {
                    self.work(member, worker);
                }
            }
            Event::Tick(member, life) => {
                if self.members[member].lives == life && self.members[member].life.is_some() {
                    let delay = self.members[member].to_world(HEARTBEAT);
                    self.at(delay, Event::Tick(member, life));
                    self.arm(member, Worker::Raft, 0);
                }
            }
            Event::Deliver(message) => self.deliver(*message),
            Event::Client(client) => self.client(client),
            Event::Watch(watcher) => self.watch(watcher),
            Event::Fault => self.fault(),
            Event::Boot(member) => self.boot(member),
            Event::Relief(member) => self.relieve(member),
            Event::Mend => {
                self.tell(|| "the network is whole".into());
                self.cut.iter_mut().flatten().for_each(|cut| *cut = false);
            }
        }
        self.after();
    }

    /// What is looked at after each event.
    fn after(&mut self) {
        for number in 0..self.members.len() {
            let Some(life) = &self.members[number].life else { continue };
            let status = life.steps.status();
            self.oracle.status(&status);
            let fatal = life.node.fatal().borrow().clone();
            if let Some(why) = fatal {
                self.end(number, &why);
            }
        }
    }

    /// A member says that it cannot go on. Only a disk can be the reason.
    fn end(&mut self, number: usize, why: &str) {
        let struck = self.members[number].disk.troubles(|troubles| troubles.struck);
        assert!(struck, "member {number} stopped: {why}");
        self.tell(|| format!("m{number} stops: {why}"));
        // What it sent until then is on its way.
        self.send(number);
        self.crash(number, true);
    }

    fn arm(&mut self, member: usize, worker: Worker, delay: u64) {
        let lives = self.members[member].lives;
        let slow_until = self.members[member].slow_until;
        let Some(life) = &mut self.members[member].life else { return };
        if std::mem::replace(&mut life.armed[worker as usize], true) {
            return;
        }
        let mut delay = delay + 10_000 + self.chance.below(300_000);
        if self.has_faults && self.chance.one_in(self.plan.slow_odds) {
            delay += self.chance.below(100 * MILLI);
        }
        if worker == Worker::Log && slow_until > self.now {
            delay += slow_until - self.now;
        }
        self.at(delay, Event::Work(member, lives, worker));
    }

    fn work(&mut self, number: usize, worker: Worker) {
        let member = &mut self.members[number];
        let (drift, now) = (member.drift, self.now);
        let Some(life) = &mut member.life else { return };
        life.armed[worker as usize] = false;
        let rings = life.clock.advance_to(local(drift, now - life.since));
        let mut died = None;
        let mut did = true;
        match worker {
            Worker::Raft => {
                did = life.steps.raft_has_work();
                if did {
                    died = life.steps.raft().err().map(|error| error.to_string());
                }
            }
            Worker::Log => {
                did = life.steps.log_has_work();
                died = life.steps.log().err().map(|error| error.to_string());
            }
            Worker::Apply => {
                did = self.apply(number);
            }
            Worker::Commit => match life.steps.commit() {
                Ok(committed) => did = committed,
                Err(error) => died = Some(error.to_string()),
            },
            Worker::Sweep => did = self.sweep(number),
            Worker::Tasks => life.runtime.block_on(async {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
            }),
        }
        if rings {
            self.arm(number, Worker::Tasks, 0);
        }
        if let Some(why) = died {
            return self.end(number, &why);
        }
        if did {
            // A task seldom does anything when it is looked at.
            self.events += u64::from(worker != Worker::Tasks);
            self.note(number as u64 * 8 + worker as u64);
            self.follow(number, worker);
        }
    }

    fn apply(&mut self, number: usize) -> bool {
        let Some(life) = &mut self.members[number].life else { return false };
        let Some(batch) = life.steps.apply() else { return false };
        for committed in &batch {
            let before = std::mem::replace(&mut life.applied, committed.index());
            assert_eq!(
                before + 1,
                committed.index(),
                "member {number} skipped or repeated entries"
            );
            self.oracle.applied(self.now, committed);
        }
        let revision = life.node.unguarded().mvcc().current().revision;
        let is_first = life.applied == self.oracle.committed();
        assert!(
            !is_first || revision == self.oracle.model.revision,
            "member {number} is at revision {revision}, not {}",
            self.oracle.model.revision
        );
        true
    }

    fn sweep(&mut self, number: usize) -> bool {
        let Some(life) = &mut self.members[number].life else { return false };
        let Some(rest) = life.steps.sweep() else { return false };
        self.arm(number, Worker::Sweep, rest.as_nanos() as u64 + MILLI);
        true
    }

    /// Who may have work after a worker's turn.
    fn follow(&mut self, number: usize, worker: Worker) {
        self.send(number);
        match worker {
            Worker::Raft => {
                self.arm(number, Worker::Log, 0);
                self.arm(number, Worker::Apply, 0);
                self.arm(number, Worker::Tasks, 0);
            }
            Worker::Apply => {
                self.arm(number, Worker::Apply, 0);
                self.arm(number, Worker::Tasks, 0);
                let delay = self.chance.below(200) * MILLI;
                self.arm(number, Worker::Commit, delay);
                self.arm(number, Worker::Sweep, 0);
            }
            Worker::Commit => {
                let delay = self.chance.below(50) * MILLI;
                self.arm(number, Worker::Commit, delay);
            }
            Worker::Sweep => self.arm(number, Worker::Commit, 20 * MILLI),
            Worker::Tasks => self.collect(),
            Worker::Log => {}
        }
        let Some(life) = &self.members[number].life else { return };
        if life.steps.raft_has_work() {
            self.arm(number, Worker::Raft, 0);
        }
    }

    /// What a member wants sent goes on its way.
    fn send(&mut self, number: usize) {
        let Some(life) = &self.members[number].life else { return };
        let messages = std::mem::take(&mut *life.outbox.lock());
        for message in messages {
            self.oracle.sent(&message);
            let kind = message.msg_type;
            self.note(message.index ^ message.term << 20 ^ (kind as u64) << 40 ^ message.to);
            let Some(to) = self.members.iter().position(|member| member.id == message.to) else {
                continue;
            };
            let faults = self.has_faults;
            if self.cut[number][to] || faults && self.chance.one_in(self.plan.loss_odds) {
                continue;
            }
            // What a stream carries once must not arrive twice: raft itself asks for that.
            let once = kind == PROPOSE || kind == READ_INDEX;
            if !once && faults && self.chance.one_in(self.plan.repeat_odds) {
                let delay = self.delay();
                self.at(delay, Event::Deliver(Box::new(message.clone())));
            }
            let delay = self.delay();
            self.at(delay, Event::Deliver(Box::new(message)));
        }
    }

    fn delay(&mut self) -> u64 {
        let usual = 100_000 + self.chance.below(MILLI);
        if !self.has_faults || !self.chance.one_in(self.plan.late_odds) {
            return usual;
        }
        let most = *self.chance.pick(&[20, 60, 60, 200, 600, 2000]);
        self.chance.below(most * MILLI)
    }

    fn deliver(&mut self, message: Message) {
        let position = |id| self.members.iter().position(|member| member.id == id);
        let (Some(from), Some(to)) = (position(message.from), position(message.to)) else { return };
        if self.cut[from][to] {
            return;
        }
        let Some(life) = &self.members[to].life else { return };
        self.events += 1;
        life.steps.receive(message);
        self.arm(to, Worker::Raft, 0);
    }

    fn boot(&mut self, number: usize) {
        if self.members[number].life.is_some() {
            return;
        }
        let random = self.chance.next();
        let count = self.members.len();
        let cluster = (0..count).map(|number| (format!("m{number}"), peer_urls(number)));
        let member = &mut self.members[number];
        let clock = Arc::new(SimClock::new(member.wall + self.now, random));
        let outbox = Arc::default();
        let is_full = Arc::clone(&member.store_is_full);
        let mut store = store::Options::new(Arc::clone(&clock) as Arc<dyn Clock>);
        store.reserve_bytes = 0;
        store.disk = Some(Arc::new(move || match *is_full.lock() {
            true => Err(std::io::Error::from_raw_os_error(28)),
            false => Ok(()),
        }));
        let surroundings = Surroundings {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            disk: Arc::new(member.disk.clone()),
            transport: Some(Arc::new(Outbox(Arc::clone(&outbox)))),
            log: raft::log::Options { segment_bytes: self.plan.segment_bytes, fill_ahead: false },
            store,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let config = config(member.name.clone(), member.dir.clone(), cluster.collect());
        let started = {
            let _guard = runtime.enter();
            Node::start_stepped(config, surroundings)
        };
        let (node, steps) = match started {
            Ok(started) => started,
            Err(error) => {
                let struck = member.disk.troubles(|troubles| troubles.struck);
                assert!(struck, "member {number} does not start: {error}");
                self.tell(|| format!("m{number} does not start: {error}"));
                self.crash(number, true);
                return;
            }
        };
        assert_eq!(node.member_id(), member.id);
        let applied = steps.status().applied;
        member.lives += 1;
        let lives = member.lives;
        let armed = [false; WORKERS];
        let since = self.now;
        member.life = Some(Life { runtime, node, steps, clock, outbox, since, armed, applied });
        self.tell(|| format!("m{number} starts, applied {applied}"));
        self.at(HEARTBEAT, Event::Tick(number, lives));
        self.arm(number, Worker::Raft, 0);
        self.arm(number, Worker::Tasks, 0);
        self.arm(number, Worker::Sweep, 0);
    }

    /// A member ends; with a power cut, unsynced bytes go with it.
    fn crash(&mut self, number: usize, power: bool) {
        self.oracle.checked.crashes += 1;
        for client in &mut self.clients {
            if client.pending.as_ref().is_some_and(|pending| pending.member == number) {
                client.pending = None;
            }
        }
        for watcher in &mut self.watchers {
            watcher.lose(number);
        }
        let member = &mut self.members[number];
        if let Some(Life { runtime, node, steps, .. }) = member.life.take() {
            drop(runtime);
            drop(steps);
            drop(node);
        }
        let struck = member.disk.troubles(|troubles| {
            troubles.fuse = None;
            std::mem::take(&mut troubles.struck)
        });
        if power || struck {
            member.disk.cut_power(&mut self.chance);
        }
        let delay = match self.chance.below(3) {
            0 => self.chance.below(50 * MILLI),
            1 => self.chance.below(SECOND),
            _ => self.chance.below(4 * SECOND),
        };
        self.at(delay, Event::Boot(number));
    }

    fn fault(&mut self) {
        if !self.has_faults {
            return;
        }
        let delay = self.chance.below(2 * self.plan.fault_millis * MILLI);
        self.at(delay, Event::Fault);
        let count = self.members.len();
        let mut number = self.chance.below(count as u64) as usize;
        if let (Some(leader), true) = (self.leader(), self.chance.one_in(3)) {
            number = leader;
        }
        let kind = self.chance.below(18);
        self.note(kind);
        self.tell(|| format!("fault {kind} at m{number}"));
        match kind {
            0 | 1 => self.crash_if_alive(number, true),
            2 => self.crash_if_alive(number, false),
            // The power goes in the middle of a write.
            3 | 4 => {
                let left = self.chance.below(6);
                self.members[number].disk.troubles(|troubles| troubles.fuse = Some(left));
            }
            5 => self.members[number].disk.troubles(|troubles| troubles.sync_fails = true),
            6 => {
                self.members[number].slow_until = self.now + self.chance.below(3 * SECOND);
            }
            7 | 8 => {
                for other in 0..count {
                    if other != number {
                        self.cut[number][other] = true;
                        self.cut[other][number] = true;
                    }
                }
                self.mend_later();
            }
            9 | 10 => {
                let other = self.chance.below(count as u64) as usize;
                self.cut[number][other] = true;
                self.mend_later();
            }
            11 => {
                for from in 0..count {
                    for to in 0..count {
                        self.cut[from][to] |= self.chance.one_in(3);
                    }
                }
                self.mend_later();
            }
            12 => {
                let to = self.members[self.chance.below(count as u64) as usize].id;
                if let Some(life) = &self.members[number].life {
                    life.steps.transfer_leader(to);
                    self.arm(number, Worker::Raft, 0);
                }
            }
            13 => {
                let wall = self.chance.below(2_000_000_000 * SECOND);
                if let Some(life) = &self.members[number].life {
                    life.clock.jump(wall);
                }
            }
            14 | 15 => self.members[number].frozen_until = self.now + self.chance.below(2 * SECOND),
            16 if self.chance.one_in(2) => {
                *self.members[number].store_is_full.lock() = true;
                let log_too = self.chance.one_in(2);
                self.members[number].disk.troubles(|troubles| troubles.is_full = log_too);
                let delay = self.chance.below(SECOND);
                self.at(delay, Event::Relief(number));
            }
            _ => self.stop(number),
        }
    }

    /// Some member that believes to lead.
    fn leader(&mut self) -> Option<usize> {
        let leads = |at: &usize| {
            let life = self.members[*at].life.as_ref();
            life.is_some_and(|life| life.steps.status().role == Role::Leader)
        };
        let leaders: Vec<usize> = (0..self.members.len()).filter(leads).collect();
        (!leaders.is_empty()).then(|| *self.chance.pick(&leaders))
    }

    fn mend_later(&mut self) {
        let delay = self.chance.below(3 * SECOND);
        self.at(delay, Event::Mend);
    }

    fn relieve(&mut self, number: usize) {
        self.members[number].disk.troubles(|troubles| troubles.is_full = false);
        *self.members[number].store_is_full.lock() = false;
        self.arm(number, Worker::Commit, 0);
    }

    fn crash_if_alive(&mut self, number: usize, power: bool) {
        if self.members[number].life.is_some() {
            self.crash(number, power);
        }
    }

    /// A member is asked to stop and does so in order.
    fn stop(&mut self, number: usize) {
        let Some(life) = &self.members[number].life else { return };
        {
            let _guard = life.runtime.enter();
            life.node.stop_now();
        }
        self.crash(number, false);
    }

    fn client(&mut self, number: usize) {
        if let Some(pending) = &self.clients[number].pending {
            // A client that loses patience hangs up.
            if self.now >= pending.patience {
                pending.task.abort();
                let member = pending.member;
                self.clients[number].pending = None;
                self.arm(member, Worker::Tasks, 0);
            }
            self.at(50 * MILLI, Event::Client(number));
            return;
        }
        if !self.is_asking {
            return;
        }
        let think = self.chance.below(30 * MILLI);
        self.at(think, Event::Client(number));
        let known = self.oracle.known;
        let ask = self.clients[number].choose(&mut self.chance, known);
        let mut member = self.chance.below(self.members.len() as u64) as usize;
        if let Ask::Renew(_) = ask {
            // Renewals are the leader's.
            let Some(leader) = self.leader() else { return };
            member = leader;
        }
        if let Ask::Revoke(revoke) = &ask {
            self.oracle.gives_up(revoke.id);
        }
        let Some(life) = &self.members[member].life else { return };
        if let Ask::Hash(revision) = ask {
            if let Ok((hash, _)) = life.node.unguarded().mvcc().hash_by_revision(revision) {
                self.oracle.hash(hash.revision, hash.compact_revision, hash.hash);
            }
            return;
        }
        let patience = match self.chance.below(3) {
            0 => self.now + self.chance.below(6 * SECOND),
            _ => self.now + 50 * MILLI + self.chance.below(400 * MILLI),
        };
        let times = (self.now, patience);
        self.clients[number].ask(ask, member, life, times, self.oracle.known);
        self.arm(member, Worker::Tasks, 0);
    }

    /// Takes the answers that came.
    fn collect(&mut self) {
        for number in 0..self.clients.len() {
            if !self.clients[number].is_answered() {
                continue;
            }
            let text = self.clients[number].take(&mut self.oracle);
            if let Some(text) = text {
                self.note(fold(text.as_bytes()));
                self.tell(|| format!("client {number}: {text}"));
            }
        }
    }

    fn watch(&mut self, number: usize) {
        let delay = MILLI + self.chance.below(60 * MILLI);
        self.at(delay, Event::Watch(number));
        let alive = |at: &usize| self.members[*at].life.is_some();
        let up: Vec<usize> = (0..self.members.len()).filter(alive).collect();
        if up.is_empty() {
            return;
        }
        let member = *self.chance.pick(&up);
        let watcher = &mut self.watchers[number];
        let on = watcher.attach(member, &mut self.chance, |at| {
            self.members[at].life.as_ref().map(|life| life.node.unguarded().hub())
        });
        if let Some(on) = on {
            let took = watcher.take(&mut self.oracle, &mut self.chance);
            if took > 0 {
                self.events += 1;
                self.note(took);
                self.tell(|| format!("watcher {number} on m{on} took {took}"));
            }
        }
    }

    /// Without faults everybody agrees soon, and everything asked is answered.
    fn heal(&mut self) {
        self.tell(|| "healing".into());
        self.has_faults = false;
        self.is_asking = false;
        for row in &mut self.cut {
            row.fill(false);
        }
        for number in 0..self.members.len() {
            self.members[number].slow_until = 0;
            self.members[number].frozen_until = 0;
            self.members[number].disk.troubles(|troubles| {
                troubles.fuse = None;
                troubles.sync_fails = false;
            });
            self.relieve(number);
        }
        let deadline = self.now + 60 * SECOND;
        let mut calm_since = None;
        loop {
            self.step();
            if !self.is_calm() {
                calm_since = None;
            } else if self.now > *calm_since.get_or_insert(self.now) + 2 * SECOND {
                break;
            }
            assert!(self.now < deadline, "no calm after a minute: {}", self.restless());
        }
        self.judge();
    }

    fn is_calm(&self) -> bool {
        let committed = self.oracle.committed();
        let mut leaders = 0;
        for member in &self.members {
            let Some(life) = &member.life else { return false };
            leaders += u64::from(life.steps.status().role == Role::Leader);
            if life.applied != committed || life.steps.status().committed != committed {
                return false;
            }
        }
        leaders == 1
            && self.clients.iter().all(|client| client.pending.is_none())
            && self.oracle.model.leases.is_empty()
    }

    fn restless(&self) -> String {
        let mut text = format!(
            "{} committed, {} leases;",
            self.oracle.committed(),
            self.oracle.model.leases.len()
        );
        for member in &self.members {
            let status = member.life.as_ref().map(|life| life.steps.status());
            text += &format!(" {}: {status:?}", member.name);
        }
        for client in self.clients.iter().filter_map(|client| client.pending.as_ref()) {
            text += &format!(" pending on m{}: {:?}", client.member, client.ask);
        }
        text
    }

    /// All members hold the same, which is what the log says, and all watchers know it.
    fn judge(&mut self) {
        let revision = self.oracle.model.revision;
        for number in 0..self.members.len() {
            let Some(life) = &self.members[number].life else { continue };
            let view = life.node.unguarded().mvcc().view();
            let response = view.range(&all(0)).unwrap();
            let found = pairs(&response);
            let range = rusd::types::KeyRange::new("k".into(), "l".into());
            drop(view);
            self.oracle.read(revision, None, &range, revision, &found);
            assert_eq!(
                life.node.unguarded().mvcc().current().revision,
                revision,
                "member {number}"
            );
            assert_eq!(life.node.unguarded().leases(), [0_i64; 0], "member {number} keeps leases");
            let (hash, _) = life.node.unguarded().mvcc().hash_by_revision(0).unwrap();
            self.oracle.hash(hash.revision, hash.compact_revision, hash.hash);
        }
        for watcher in &self.watchers {
            watcher.finish(&self.oracle, revision);
        }
        self.trace = rusd::clock::split_mix(self.trace ^ self.now);
    }
}

const PROPOSE: i32 = 2;
const READ_INDEX: i32 = 15;

/// A member's time for the world's.
fn local(drift: i64, nanos: u64) -> u64 {
    (nanos as i64 + nanos as i64 / 1_000_000 * drift) as u64
}

impl Member {
    /// The world's time at which this member's clock shows `nanos`, or a little later.
    fn to_world(&self, nanos: u64) -> u64 {
        let mut world = (nanos as i64 - nanos as i64 / 1_000_000 * self.drift) as u64;
        while local(self.drift, world) < nanos {
            world += 1 + (nanos - local(self.drift, world));
        }
        world
    }
}

fn config(name: String, data_dir: PathBuf, initial_cluster: Vec<(String, Vec<String>)>) -> Config {
    Config {
        name,
        data_dir,
        wal_dir: None,
        cluster_token: "sim".into(),
        initial_cluster,
        peer_urls: vec!["http://10.0.0.1:2380".into()],
        join: None,
        initial_election_tick_advance: false,
        force_new_cluster: false,
        strict_reconfig_check: true,
        max_learners: 1,
        client_urls: vec!["http://10.0.0.1:2379".into()],
        heartbeat_interval: Duration::from_nanos(HEARTBEAT),
        election_timeout: Duration::from_nanos(ELECTION),
        snapshot_count: 10_000,
        snapshot_catchup_entries: 5_000,
        downgrade_check_interval: Duration::from_secs(5),
        max_request_bytes: 1 << 20,
        quota_backend_bytes: 0,
        commit_interval: Duration::from_millis(20),
        retention: None,
        compaction_sleep_interval: Duration::from_millis(1),
        auth: AuthConfig { bcrypt_cost: 4, ..AuthConfig::default() },
        checkpoint_pace: CheckpointPace {
            rows: 20,
            interval: Duration::from_millis(300),
            pause: Duration::from_millis(1),
        },
    }
}
