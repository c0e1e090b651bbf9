//! Members start, or do not, for which there has to be a reason.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rusd::clock::Clock;
use rusd::node::{AuthConfig, Config, Node, Surroundings};
use rusd::supervise::Supervisor;
use rusd::trace::Tracer;
use rusd::upkeep::CheckpointPace;
use rusd::{raft, store};

use super::{Event, HEARTBEAT, World};
use crate::clock::{MILLI, SECOND, SimClock};
use crate::member::{Life, Member, WORKERS, Worker, peer_urls};
use crate::plan::Plan;
use crate::wire::{Links, Out, SimNet};

const ELECTION: u64 = 500 * MILLI;

impl World {
    pub fn boot(&mut self, number: usize) {
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
        let surroundings = surroundings(member, &self.plan, links, &clock, &out);
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
}

/// What a member is given in the place of the machine.
fn surroundings(
    member: &Member,
    plan: &Plan,
    links: Links,
    clock: &Arc<SimClock>,
    out: &Arc<Mutex<Out>>,
) -> Surroundings {
    let faults = Arc::new(member.store_faults.clone());
    let mut store = store::Options::new(Arc::clone(clock) as Arc<dyn Clock>);
    store.reserve_bytes = 0;
    store.faults = Some(faults);
    let net = Arc::new(SimNet { id: member.id, out: Arc::clone(out), links, clock: clock.clone() });
    Surroundings {
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        disk: Arc::new(member.disk.clone()),
        dial: Arc::new(rusd::peer::TcpDial::default()),
        transport: Some(Arc::clone(&net) as _),
        reach: Some(net),
        log: raft::log::Options { segment_bytes: plan.segment_bytes, fill_ahead: false },
        store,
        supervisor: Supervisor::default(),
        tracer: Tracer::default(),
    }
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
