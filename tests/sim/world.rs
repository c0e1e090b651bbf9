//! The world: members, the network between them, time, and what goes wrong.
//!
//! Everything that happens is an event in a queue ordered by time. A member's threads are events,
//! too: whatever gives one of them work arms it, and it takes its turn a little later, or much
//! later if the seed says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusd::clock::Clock;
use rusd::node::{Applied, AuthConfig, Config, Join, Node, Steps, Surroundings};
use rusd::pb::{AlarmMember, AlarmType};
use rusd::peer::Answered;
use rusd::raft::{Committed, Message};
use rusd::supervise::Supervisor;
use rusd::upkeep::CheckpointPace;
use rusd::{raft, store};

use super::admin::{Asked, Errand};
use super::client::{Ask, Client};
use super::clock::{Chance, SimClock, Trap};
use super::crowd::Crowd;
use super::disk::SimDisk;
use super::faults::StoreFaults;
use super::network::{Given, Links, Out, Question, Reply, SimNet, Transfers, Wires};
use super::oracle::{Oracle, fold};
use super::watcher::Watcher;

pub const MILLI: u64 = 1_000_000;
pub const SECOND: u64 = 1000 * MILLI;
const HEARTBEAT: u64 = 100 * MILLI;
const ELECTION: u64 = 500 * MILLI;
const CLIENTS: u64 = 10;
/// Among them, who do nothing but keep a lease alive.
const KEEPERS: u64 = 3;
const WATCHERS: u64 = 3;
/// Entries of a batch after which apply is held up for long: more than the log keeps for others at least.
const LONG_PART: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worker {
    Raft,
    Log,
    Apply,
    Commit,
    Sweep,
    Tasks,
}

const WORKERS: usize = 6;

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

/// A member that runs. Its tasks hold the node, so the runtime goes first.
pub struct Life {
    pub runtime: tokio::runtime::Runtime,
    pub node: Node,
    pub steps: Steps,
    pub clock: Arc<SimClock>,
    pub out: Arc<Mutex<Out>>,
    /// Who waits for this one's answers. Tasks that end with it do so in an order of their own, in
    /// which those who hear of it must not be woken.
    pub asked: BTreeMap<u64, (usize, Reply)>,
    pub last_asked: u64,
    pub given: Arc<Mutex<Vec<(u64, Answered)>>>,
    /// Since when, in the world's time.
    since: u64,
    armed: [bool; WORKERS],
    /// The last entry of the last batch that was applied, and of the one that is being applied.
    pub applied: u64,
    reached: u64,
    /// Entries that it may have applied or not, since its end had begun.
    unsure: VecDeque<Committed>,
    /// What its raft said last.
    before: raft::Status,
    /// After the last event, it had no vote in raft's configuration.
    pub has_no_vote: bool,
    is_leaving: bool,
    /// Other threads go on until then after one has panicked.
    pub ends_at: Option<u64>,
}

pub struct Member {
    pub id: u64,
    pub name: String,
    pub urls: Vec<String>,
    /// Of one that came later.
    pub join: Option<Join>,
    pub dir: PathBuf,
    pub disk: SimDisk,
    pub store_faults: StoreFaults,
    pub life: Option<Life>,
    pub lives: u64,
    /// It was removed and will not come back.
    pub is_gone: bool,
    pub trap: Trap,
    /// Whose turn is to end in a panic, by its name, and after how many places that may.
    pub trapped: Option<(Worker, &'static str, u64)>,
    /// A bit of its log changed while it was down.
    pub is_damaged: bool,
    /// Its data directory was deleted.
    pub is_wiped: bool,
    /// It cannot start for that, and is to be replaced.
    pub is_ruined: bool,
    /// Parts in a million by which its clock is fast.
    drift: i64,
    wall: u64,
    /// Until then its log writer hangs.
    pub slow_until: u64,
    /// Until then each write of its log takes so long at most.
    pub drag: (u64, u64),
    /// Until then its apply thread does not run.
    pub lags_until: u64,
    /// Until then nothing of it runs, as if it were stopped by a signal.
    pub frozen_until: u64,
}

impl Member {
    pub fn new(id: u64, number: usize, dir: &Path, chance: &mut Chance, plan: &Plan) -> Self {
        let name = format!("m{number}");
        let (trap, disk, store_faults) =
            (Trap::default(), SimDisk::default(), StoreFaults::default());
        disk.troubles(|troubles| troubles.trap = trap.clone());
        store_faults.lock().trap = trap.clone();
        Self {
            id,
            dir: dir.join(&name),
            name,
            urls: peer_urls(number),
            join: None,
            disk,
            store_faults,
            life: None,
            lives: 0,
            is_gone: false,
            trap,
            trapped: None,
            is_damaged: false,
            is_wiped: false,
            is_ruined: false,
            drift: chance.below(2 * plan.drift + 1) as i64 - plan.drift as i64,
            wall: 1_700_000_000 * SECOND + chance.below(3600) * SECOND,
            slow_until: 0,
            drag: (0, 0),
            lags_until: 0,
            frozen_until: 0,
        }
    }

    /// The world's time at which this member's clock shows `nanos`, or a little later.
    fn to_world(&self, nanos: u64) -> u64 {
        let mut world = (nanos as i64 - nanos as i64 / 1_000_000 * self.drift) as u64;
        while local(self.drift, world) < nanos {
            world += 1 + (nanos - local(self.drift, world));
        }
        world
    }
}

/// What a seed decides about itself.
#[derive(Clone, Debug)]
pub struct Plan {
    pub members: usize,
    pub events: u64,
    /// One fault in so many milliseconds, on average.
    pub fault_millis: u64,
    pub loss_odds: u64,
    pub repeat_odds: u64,
    pub garbage_odds: u64,
    slow_odds: u64,
    pub late_odds: u64,
    drift: u64,
    /// What the operator does, one thing in so many milliseconds; 0 is nothing.
    pub admin_millis: u64,
    long_odds: u64,
    segment_bytes: u64,
    catch_up_entries: u64,
    /// The membership changes again and again, while members are cut off.
    pub churns: bool,
    /// Members at a time.
    pub members_max: usize,
    /// How seldom apply stops within a batch.
    split_odds: u64,
    /// How often leaders compare histories; 0 is never.
    corrupt_check_millis: u64,
}

impl Plan {
    fn new(chance: &mut Chance, events: u64) -> Self {
        const NEVER: u64 = 1_000_000;
        let plan = Self {
            members: *chance.pick(&[3, 3, 3, 3, 3, 3, 5, 5, 1]),
            events,
            fault_millis: *chance.pick(&[150, 300, 600, 1500]),
            loss_odds: *chance.pick(&[10, 50, NEVER]),
            repeat_odds: *chance.pick(&[10, 50, NEVER]),
            garbage_odds: *chance.pick(&[100, NEVER]),
            late_odds: *chance.pick(&[3, 10, 10, 50]),
            slow_odds: *chance.pick(&[20, 100, 1000]),
            drift: *chance.pick(&[0, 100, 1000]),
            admin_millis: *chance.pick(&[0, 0, 200, 600, 2000]),
            long_odds: *chance.pick(&[10, 10, 2]),
            segment_bytes: *chance.pick(&[4 << 10, 8 << 10, 256 << 10]),
            catch_up_entries: *chance.pick(&[3, 20, 5000]),
            churns: false,
            members_max: 7,
            split_odds: *chance.pick(&[2, 5, 50]),
            corrupt_check_millis: *chance.pick(&[0, 300, 2000]),
        };
        if !chance.one_in(6) {
            return plan;
        }
        // Little goes wrong, so that the membership changes all the time; but logs are short, and who
        // is behind for a second gets a snapshot.
        let members_max = *chance.pick(&[3, 7]);
        let plan = Self { churns: true, members_max, admin_millis: 50, fault_millis: 800, ..plan };
        Self { events: 4 * events, catch_up_entries: 3, segment_bytes: 512, ..plan }
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

fn peer_urls(number: usize) -> Vec<String> {
    vec![format!("http://10.0.0.{number}:2380")]
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

    fn turn(&mut self, number: usize, life: u64, worker: Worker) {
        let member = &self.members[number];
        let lags = worker == Worker::Apply && member.lags_until > self.now;
        let until = if lags { member.lags_until } else { member.frozen_until };
        if until > self.now {
            let delay = until - self.now + self.chance.below(MILLI);
            self.at(delay, Event::Work(number, life, worker));
        } else if member.lives == life && member.life.is_some() {
            self.work(number, worker);
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
    fn end(&mut self, number: usize, why: &str) {
        let log_struck = self.members[number].disk.troubles(|troubles| troubles.struck);
        let struck = log_struck || self.members[number].store_faults.lock().struck;
        let has_panicked = self.members[number].trap.has_sprung();
        assert!(struck || has_panicked, "member {number} stopped: {why}");
        self.tell(|| format!("m{number} stops: {why}"));
        // What it sent until then is on its way.
        self.send(number);
        self.crash(number, false);
    }

    pub fn arm(&mut self, member: usize, worker: Worker, delay: u64) {
        let lives = self.members[member].lives;
        let (slow_until, drag) = (self.members[member].slow_until, self.members[member].drag);
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
        if worker == Worker::Log && drag.0 > self.now {
            delay += self.chance.below(drag.1);
        }
        self.at(delay, Event::Work(member, lives, worker));
    }

    pub fn work(&mut self, number: usize, worker: Worker) {
        let member = &mut self.members[number];
        let (drift, now) = (member.drift, self.now);
        // A thread that has panicked is gone.
        let is_gone = member.trapped.is_some_and(|(of, ..)| of == worker && of != Worker::Tasks);
        if member.trap.has_sprung() && is_gone {
            return;
        }
        let Some(life) = &mut member.life else { return };
        life.armed[worker as usize] = false;
        let rings = life.clock.advance_to(local(drift, now - life.since));
        let mut died = None;
        let mut did = worker != Worker::Raft || life.steps.raft_has_work();
        let trapped = member.trapped.take_if(|(of, ..)| did && *of == worker);
        let trap = member.trap.clone();
        trap.set(trapped.map_or(0, |(.., left)| left));
        match worker {
            Worker::Raft => {
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
        let left = trap.lift();
        if let Some((of, name, _)) = trapped {
            self.members[number].trapped = Some((of, name, left));
        }
        self.hear_of_panic(number);
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
        let most = match self.has_faults && self.chance.one_in(self.plan.split_odds) {
            true => {
                let most = *self.chance.pick(&[4, 4, 16]);
                1 + self.chance.below(most) as usize
            }
            false => usize::MAX,
        };
        let Member { life, store_faults, .. } = &mut self.members[number];
        let Some(life) = life else { return false };
        store_faults.lock().is_applying = true;
        let applied = life.steps.apply(most);
        store_faults.lock().is_applying = false;
        let Some(Applied { entries, is_published }) = applied else { return false };
        // Why it did not is seen next. What it showed before it ended is committed all the same.
        if life.node.fatal().borrow().is_some() {
            let shown = life.node.unguarded().mvcc().current().revision;
            life.unsure.extend(entries);
            while self.oracle.model.revision < shown
                && let Some(committed) = life.unsure.pop_front()
            {
                self.oracle.applied(self.now, &committed);
            }
            return true;
        }
        for committed in &entries {
            let index = committed.index();
            let before = std::mem::replace(&mut life.reached, index);
            let is_next = match committed {
                Committed::Snapshot { .. } => before < index,
                _ => before + 1 == index,
            };
            assert!(is_next, "member {number} applied {index} after {before}");
            self.oracle.applied(self.now, committed);
        }
        if is_published {
            life.applied = life.reached;
            self.compare(number);
        } else if self.has_faults && entries.len() > LONG_PART && self.chance.one_in(2) {
            self.hold_and_elect(number);
        } else if self.has_faults && self.chance.one_in(20) {
            // It is held up within a batch, in which the store may commit.
            self.members[number].lags_until = self.now + self.chance.below(2 * SECOND);
            if self.chance.one_in(4) {
                self.fill(number);
            }
        }
        true
    }

    /// A member's state is the one that the log leads to.
    fn compare(&self, number: usize) {
        let Some(life) = &self.members[number].life else { return };
        let revision = life.node.unguarded().mvcc().current().revision;
        let expected = self.oracle.revision_at(life.applied);
        assert!(
            expected.is_none_or(|expected| revision == expected),
            "member {number} is at revision {revision} with entry {}, not at {expected:?}",
            life.applied
        );
        if life.applied == self.oracle.committed() {
            self.oracle.membership(&life.node.members());
        }
        let is_corrupt = |alarm: &AlarmMember| alarm.alarm == AlarmType::Corrupt as i32;
        let alarm = life.node.alarms().into_iter().find(is_corrupt);
        assert!(alarm.is_none(), "healthy members found each other corrupt: {alarm:?}");
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
            Worker::Tasks => {
                self.send_answers(number);
                self.collect();
            }
            Worker::Log => {}
        }
        let Some(life) = &self.members[number].life else { return };
        if life.steps.raft_has_work() {
            self.arm(number, Worker::Raft, 0);
        }
    }

    /// A removed member comes back and is told, or its machine is taken away. As long as no voter
    /// knows of the removal, they may need its vote.
    fn is_known_as_removed(&self, number: usize) -> bool {
        let removed_at = self.oracle.removed.get(&self.members[number].id).copied();
        removed_at.is_some_and(|at| {
            self.members.iter().any(|of| {
                let is_voter = self.oracle.members.get(&of.id).is_some_and(|of| !of.is_learner);
                is_voter && of.life.as_ref().is_some_and(|life| life.applied >= at)
            })
        })
    }

    fn boot(&mut self, number: usize) {
        if self.members[number].life.is_some() || self.members[number].is_gone {
            return;
        }
        if self.is_known_as_removed(number) && (!self.has_faults || self.chance.one_in(2)) {
            self.members[number].is_gone = true;
            return;
        }
        if self.members[number].is_wiped {
            return self.boot_wiped(number);
        }
        let random = self.chance.next();
        let named = |number| (format!("m{number}"), peer_urls(number));
        let cluster = (0..self.plan.members).map(named);
        let links = Arc::clone(&self.links);
        let member = &mut self.members[number];
        let clock = Arc::new(SimClock::new(member.wall + self.now, random, member.trap.clone()));
        let out = Arc::default();
        let faults = Arc::new(member.store_faults.clone());
        let mut store = store::Options::new(Arc::clone(&clock) as Arc<dyn Clock>);
        store.reserve_bytes = 0;
        store.faults = Some(faults);
        let net =
            Arc::new(SimNet { id: member.id, out: Arc::clone(&out), links, clock: clock.clone() });
        let surroundings = Surroundings {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            disk: Arc::new(member.disk.clone()),
            dial: Arc::new(rusd::peer::TcpDial::default()),
            transport: Some(Arc::clone(&net) as _),
            reach: Some(net),
            log: raft::log::Options { segment_bytes: self.plan.segment_bytes, fill_ahead: false },
            store,
            supervisor: Supervisor::default(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let config = config(member, &self.plan, cluster.collect());
        let started = {
            let _guard = runtime.enter();
            Node::start_stepped(config, surroundings)
        };
        let (node, steps) = match started {
            Ok(started) => started,
            Err(error) => return self.refused(number, &error.to_string()),
        };
        assert_eq!(node.member_id(), member.id);
        // What changed was nothing that counts, or is gone.
        member.is_damaged = false;
        let before = steps.status();
        let applied = before.applied;
        member.lives += 1;
        let (lives, since, given) = (member.lives, self.now, Arc::default());
        let (armed, is_leaving) = ([false; WORKERS], false);
        member.life = Some(Life {
            runtime,
            node,
            steps,
            clock,
            out,
            asked: BTreeMap::new(),
            last_asked: 0,
            given,
            since,
            armed,
            applied,
            reached: applied,
            unsure: VecDeque::new(),
            before,
            has_no_vote: false,
            is_leaving,
            ends_at: None,
        });
        self.tell(|| format!("m{number} starts, applied {applied}"));
        self.rewire();
        self.compare(number);
        self.at(HEARTBEAT, Event::Tick(number, lives));
        self.arm(number, Worker::Raft, 0);
        self.arm(number, Worker::Tasks, 0);
        self.arm(number, Worker::Sweep, 0);
    }

    /// A member does not start, for which there has to be a reason.
    fn refused(&mut self, number: usize, error: &str) {
        let member = &self.members[number];
        let (log_struck, is_full) =
            member.disk.troubles(|troubles| (troubles.struck, troubles.is_full));
        let struck = log_struck || member.store_faults.lock().struck;
        let is_damaged = member.is_damaged;
        // A first start needs room for a log.
        let has_no_room = is_full && error.contains("/wal.tmp/");
        assert!(struck || is_damaged || has_no_room, "m{number} does not start: {error}");
        self.tell(|| format!("m{number} does not start: {error}"));
        if is_damaged && !struck && !has_no_room {
            self.ruin(number, error);
        }
        self.crash(number, false);
    }

    /// A member whose directory is gone does not start as long as anybody remembers it. Where nobody
    /// answers, its operator tries again: under its old id it would vote a second time.
    fn boot_wiped(&mut self, number: usize) {
        if self.is_known_as_started(number) {
            self.tell(|| format!("m{number} has already been bootstrapped"));
            self.oracle.checked.wiped += 1;
            self.members[number].is_wiped = false;
            return self.give_up(number);
        }
        let delay = 100 * MILLI + self.chance.below(SECOND);
        self.at(delay, Event::Boot(number));
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
        let think = self.clients[number].think(&mut self.chance);
        self.at(think, Event::Client(number));
        let alive = |at: &usize| self.members[*at].life.is_some();
        let alive: Vec<usize> = (0..self.members.len()).filter(alive).collect();
        if alive.is_empty() {
            return;
        }
        let member = *self.chance.pick(&alive);
        let known = self.oracle.known;
        let ask = self.clients[number].choose(&mut self.chance, known);
        if let Ask::Revoke(revoke) = &ask {
            self.oracle.gives_up(revoke.id);
        }
        let Some(life) = &self.members[member].life else { return };
        if let Ask::Hash(revision) = ask {
            if let Ok((hash, _)) = life
                .node
                .unguarded()
                .mvcc()
                .hash_by_revision(revision, &rusd::mvcc::Wanted::default())
            {
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
            let text = self.clients[number].take(self.now, &mut self.oracle);
            if let Some(text) = text {
                // An error of the disk names a file, whose directory has another name in each run.
                let text = text.replace(&self.dir.path().display().to_string(), "");
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
}

/// A member's time for the world's.
fn local(drift: i64, nanos: u64) -> u64 {
    (nanos as i64 + nanos as i64 / 1_000_000 * drift) as u64
}

fn config(member: &Member, plan: &Plan, initial_cluster: Vec<(String, Vec<String>)>) -> Config {
    let corrupt_check = Duration::from_millis(plan.corrupt_check_millis);
    Config {
        name: member.name.clone(),
        cluster_token: "sim".into(),
        initial_cluster,
        peer_urls: member.urls.clone(),
        join: member.join.clone(),
        initial_election_tick_advance: false,
        max_learners: 2,
        client_urls: vec!["http://10.0.0.1:2379".into()],
        heartbeat_interval: Duration::from_nanos(HEARTBEAT),
        election_timeout: Duration::from_nanos(ELECTION),
        snapshot_catchup_entries: plan.catch_up_entries,
        downgrade_check_interval: Duration::from_secs(5),
        corrupt_check_interval: corrupt_check,
        compact_hash_check_interval: (!corrupt_check.is_zero()).then_some(corrupt_check),
        max_request_bytes: 1 << 20,
        commit_interval: Duration::from_millis(20),
        compaction_sleep_interval: Duration::from_millis(1),
        auth: AuthConfig { bcrypt_cost: 4, ..AuthConfig::default() },
        checkpoint_pace: CheckpointPace {
            rows: 20,
            interval: Duration::from_millis(300),
            pause: Duration::from_millis(1),
        },
        ..Config::of(&member.dir)
    }
}
