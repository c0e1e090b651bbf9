mod bounds;
mod hostile;
mod interleavings;
mod threads;
mod unreadable;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use ::raft::eraftpb::{ConfChange, Entry, HardState, MessageType};
use parking_lot::Mutex;

use super::log::{Disk, Options, SystemDisk, Table};
use super::store::Store;
use super::*;
use crate::clock::SystemClock;
use crate::supervise::Supervisor;

const ID: u64 = 0x8e9e_05c5_2164_694d;

#[derive(Default)]
struct Recorder {
    fatal: Mutex<Vec<String>>,
    dropped: Mutex<Vec<u64>>,
}

impl Observer for Recorder {
    fn fatal(&self, error: &Error) {
        self.fatal.lock().push(error.to_string());
    }
    fn dropped(&self, tickets: &[u64]) {
        self.dropped.lock().extend(tickets);
    }
}

/// A member whose state is the list of what was applied.
struct Member {
    handle: Handle,
    raft: Option<Raft>,
    committed: Receiver<Vec<Committed>>,
    recorder: Arc<Recorder>,
    /// What apply would keep on disk.
    applied: Vec<Bytes>,
    position: (u64, u64),
    conf_state: ConfState,
}

fn config(dir: &Path, position: (u64, u64), conf_state: ConfState) -> Config {
    Config {
        id: ID,
        cluster_id: 1,
        dir: dir.to_path_buf(),
        heartbeat_interval: Duration::from_millis(10),
        election_timeout: Duration::from_millis(100),
        pre_vote: true,
        applied: position.0,
        applied_term: position.1,
        conf_state,
        snapshot_count: 10_000,
        catch_up_entries: 10,
        log: Options { segment_bytes: 256 << 10, fill_ahead: true },
    }
}

fn try_start(config: Config, bootstrap: Option<&Bootstrap>) -> Result<Member, Error> {
    try_start_with(config, bootstrap, Arc::new(NoTransport))
}

fn try_start_with(
    config: Config,
    bootstrap: Option<&Bootstrap>,
    transport: Arc<dyn Transport>,
) -> Result<Member, Error> {
    let (applier, committed) = sync_channel(crate::limits::APPLY_QUEUE_BATCHES_MAX);
    let recorder = Arc::new(Recorder::default());
    let surroundings = Surroundings {
        clock: Arc::new(SystemClock::new()),
        disk: Arc::new(SystemDisk),
        transport,
        observer: Arc::clone(&recorder) as Arc<dyn Observer>,
        applier,
        supervisor: Supervisor::default(),
    };
    let position = (config.applied, config.applied_term);
    let conf_state = config.conf_state.clone();
    let (handle, raft) = start(config, surroundings, bootstrap)?;
    let applied = Vec::new();
    Ok(Member { handle, raft: Some(raft), committed, recorder, applied, position, conf_state })
}

fn bootstrapped(dir: &Path) -> Member {
    let bootstrap = Bootstrap { members: vec![(ID, Bytes::from_static(b"{}"))] };
    try_start(config(dir, (0, 0), ConfState::default()), Some(&bootstrap)).unwrap()
}

impl Member {
    /// Applies until so many values are there.
    fn apply_until(&mut self, count: usize) {
        while self.applied.len() < count {
            self.apply_once();
        }
    }

    fn apply_once(&mut self) {
        let batch = self.committed.recv_timeout(Duration::from_secs(20)).unwrap();
        for committed in batch {
            assert_eq!(committed.index(), self.position.0 + 1, "in order and without gaps");
            self.position = (committed.index(), committed.term());
            match committed {
                Committed::Normal { data, .. } if data.is_empty() => {}
                Committed::Normal { data, .. } => self.applied.push(data),
                Committed::ConfChange { index, change, .. } => {
                    self.conf_state = self.handle.apply_conf_change(index, Some(change)).unwrap();
                }
                Committed::Snapshot { .. } => panic!("nobody sends snapshots here"),
            }
        }
        self.handle.applied(self.position.0);
    }

    fn lead(&mut self) {
        while self.handle.status().role != Role::Leader {
            self.apply_once();
        }
    }

    fn read_index(&self) -> Result<u64, Error> {
        let (reply, answer) = sync_channel(1);
        self.handle.read_index(move |outcome| reply.send(outcome).unwrap());
        answer.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    fn stop(&mut self) {
        self.raft.take().unwrap().stop();
    }
}

fn value(number: u64) -> Bytes {
    Bytes::from(format!("value {number}"))
}

#[test]
fn a_sole_voter_commits_and_replays() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let mut member = bootstrapped(&dir);
    member.lead();
    assert_eq!(member.conf_state.voters, [ID]);
    let mut leader = member.handle.subscribe_leader();
    assert_eq!(leader.borrow_and_update().id, ID);
    for number in 0..1000 {
        member.handle.propose(number, value(number)).unwrap();
    }
    member.apply_until(1000);
    assert!(member.applied.iter().enumerate().all(|(at, data)| *data == value(at as u64)));
    assert!(member.read_index().unwrap() >= 1000);
    let status = member.handle.status();
    assert_eq!((status.id, status.leader), (ID, ID));
    member.stop();
    assert!(matches!(member.handle.propose(0, value(0)), Err(Error::Stopped)));
    assert!(matches!(member.read_index(), Err(Error::Stopped)));
    assert!(member.recorder.fatal.lock().is_empty());

    // Apply kept half of it; the rest is replayed, also after the log was closed in between.
    for half in [500, 600] {
        let (index, term, conf_state) = (half + 2, 2, member.conf_state.clone());
        let mut again = try_start(config(&dir, (index, term), conf_state), None).unwrap();
        again.apply_until(1000 - half as usize);
        assert_eq!(again.applied[0], value(half));
        again.lead();
        assert!(again.handle.status().term > 2);
        again.stop();
    }
}

#[test]
fn a_torn_tail_loses_nothing_that_was_applied() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let mut member = bootstrapped(&dir);
    member.lead();
    for number in 0..100 {
        member.handle.propose(number, value(number)).unwrap();
    }
    member.apply_until(100);
    member.stop();
    let name = "0000000000000000-0000000000000000.wal";
    let mut bytes = fs::read(dir.join(name)).unwrap();
    let end = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
    // A batch that was being written when the power went.
    bytes[end.next_multiple_of(8)..][..32].copy_from_slice(&[0x55; 32]);
    bytes[end.next_multiple_of(8)..][..8].copy_from_slice(&900_u64.to_le_bytes());
    fs::write(dir.join(name), &bytes).unwrap();
    let mut again = try_start(config(&dir, (0, 0), ConfState::default()), None).unwrap();
    assert!(dir.join(format!("{name}.broken")).exists());
    again.apply_until(100);
    again.stop();
}

#[test]
fn a_log_that_does_not_fit_the_state_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let mut member = bootstrapped(&dir);
    member.lead();
    member.stop();
    let voters = || ConfState { voters: vec![ID], ..ConfState::default() };
    let refused = |config| match try_start(config, None) {
        Ok(_) => panic!("it started"),
        Err(error) => error,
    };
    let error = refused(config(&dir, (50, 2), voters()));
    assert!(matches!(error, Error::LogEndsBefore { applied: 50, .. }), "{error}");
    let error = refused(config(&dir, (2, 9), voters()));
    assert!(matches!(error, Error::TermMismatch { index: 2, applied: 9, logged: 2 }), "{error}");
    let error = refused(Config { id: 5, ..config(&dir, (0, 0), voters()) });
    assert!(matches!(error, Error::Foreign { id: 5, .. }), "{error}");
    let nowhere = temp.path().join("nowhere");
    let error = refused(config(&nowhere, (0, 0), voters()));
    assert!(matches!(error, Error::Log(_)), "{error}");
}

#[test]
fn segments_below_the_durable_state_go() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let mut member = bootstrapped(&dir);
    member.lead();
    let segments = || fs::read_dir(&dir).unwrap().count();
    let mut count = 0;
    while segments() < 5 {
        for _ in 0..100 {
            member.handle.propose(0, Bytes::from(vec![7; 1000])).unwrap();
        }
        count += 100;
        member.apply_until(count);
    }
    let (index, term) = member.position;
    member.handle.durable(index, term, member.conf_state.clone());
    while segments() > 3 {
        member.handle.propose(0, value(0)).unwrap();
        count += 1;
        member.apply_until(count);
    }
    let conf_state = member.conf_state.clone();
    member.stop();
    let mut again = try_start(config(&dir, (index, term), conf_state), None).unwrap();
    again.lead();
    again.stop();
    let error = try_start(config(&dir, (2, 2), ConfState::default()), None).err().unwrap();
    assert!(matches!(error, Error::LogBeginsAfter { applied: 2, .. }), "{error}");
}

/// A core whose log is memory.
fn core(id: u64, voters: &[u64], seed: u64) -> Core {
    let mut table = Table::default();
    table.restart(1, 1);
    let conf_state = ConfState { voters: voters.to_vec(), ..ConfState::default() };
    let hard_state = HardState { term: 1, vote: 0, commit: 1 };
    let config = CoreConfig { applied: 1, ..core_config(id, seed) };
    Core::new(config, Store::new(table, hard_state, conf_state, None)).unwrap()
}

fn core_config(id: u64, seed: u64) -> CoreConfig {
    CoreConfig {
        id,
        heartbeat_interval: Duration::from_millis(100),
        election_timeout: Duration::from_secs(1),
        pre_vote: true,
        applied: 0,
        snapshot_count: 10_000,
        catch_up_entries: 10,
        nonce: seed + id,
    }
}

/// Makes a log of these entries of term 1 on disk and opens it. What it gives keeps those after `evicted`
/// in memory, too.
fn stored(
    dir: &Path,
    entries: impl Iterator<Item = Entry>,
    commit: u64,
    conf_state: ConfState,
    evicted: u64,
) -> Store {
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let options = Options { segment_bytes: 256 << 10, fill_ahead: false };
    let metadata = log::Metadata { node_id: 1, cluster_id: 2 };
    let hard_state = Some(HardState { term: 1, vote: 0, commit });
    let batch = log::Batch { snapshot: None, entries: entries.collect(), hard_state };
    log::create(&*disk, dir, metadata, &batch, options).unwrap();
    let (_, reader, recovered) = log::open(&disk, dir, options).unwrap();
    let mut store = Store::new(recovered.table, recovered.hard_state, conf_state, Some(reader));
    store.evict(evicted);
    store
}

#[test]
fn what_waits_for_a_configuration_change_also_waits_for_the_disk() {
    let mut follower = core(1, &[1, 2, 3], 7);
    let append = |index, log_term, entry: Entry, commit| {
        let entries = vec![entry];
        let mut message = Message {
            to: 1,
            from: 2,
            term: 2,
            index,
            log_term,
            entries,
            commit,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgAppend);
        Event::Receive(message)
    };
    let change = ConfChange { node_id: 4, ..ConfChange::default() };
    let data = Bytes::from(prost::Message::encode_to_vec(&change));
    let entry = Entry { entry_type: 1, term: 2, index: 2, data, ..Entry::default() };
    let job = |effects: &[Effect]| {
        effects.iter().find_map(|effect| match effect {
            Effect::Persist(job) => Some(job.number),
            _ => None,
        })
    };
    let sends = |effects: &[Effect]| {
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Send(messages) if !messages.is_empty()))
    };
    let first = job(&follower.handle([append(1, 1, entry, 1)])).unwrap();
    follower.handle([Event::Persisted { number: first, places: Vec::new() }]);
    let entry = Entry { term: 2, index: 3, data: Bytes::from_static(b"x"), ..Entry::default() };
    let effects = follower.handle([append(2, 2, entry, 2)]);
    let second = job(&effects).unwrap();
    assert!(!sends(&effects));
    let effects =
        follower.handle([Event::ConfChange { index: 2, change: Some(change) }, Event::Applied(2)]);
    assert!(!sends(&effects), "entry 3 is acknowledged before it is durable");
    let effects = follower.handle([Event::Persisted { number: second, places: Vec::new() }]);
    assert!(sends(&effects));
}

/// Three cores, a network without loss, and disks that sync at once or when told to.
struct Cluster {
    cores: BTreeMap<u64, Core>,
    committed: BTreeMap<u64, Vec<Committed>>,
    reads: Vec<(u64, u64)>,
    dropped: Vec<u64>,
    network: Vec<Message>,
    /// Its disk does nothing any more.
    stalled: Option<u64>,
    /// Nobody hears that he is to take over.
    is_transfer_lost: bool,
}

impl Cluster {
    fn new(seed: u64) -> Self {
        let ids = [1, 2, 3];
        Self {
            cores: ids.iter().map(|id| (*id, core(*id, &ids, seed))).collect(),
            committed: ids.iter().map(|id| (*id, Vec::new())).collect(),
            reads: Vec::new(),
            dropped: Vec::new(),
            network: Vec::new(),
            stalled: None,
            is_transfer_lost: false,
        }
    }

    fn give(&mut self, id: u64, event: Event) {
        let mut events = vec![event];
        while !events.is_empty() {
            let effects = self.cores.get_mut(&id).unwrap().handle(std::mem::take(&mut events));
            for effect in effects {
                match effect {
                    Effect::Persist(_) if self.stalled == Some(id) => {}
                    Effect::Persist(job) => {
                        self.network.extend(job.messages);
                        events.push(Event::Persisted { number: job.number, places: Vec::new() });
                    }
                    Effect::Send(messages) => self.network.extend(messages),
                    Effect::Commit(entries) => {
                        events.push(Event::Applied(entries.last().unwrap().index()));
                        self.committed.get_mut(&id).unwrap().extend(entries);
                    }
                    Effect::ReadIndex { tokens, index } => {
                        self.reads.extend(tokens.into_iter().map(|token| (token, index)));
                    }
                    Effect::Dropped(tickets) => self.dropped.extend(tickets),
                    Effect::Refused(refusal) => panic!("refused: {refusal}"),
                    Effect::Fatal(error) => panic!("fatal: {error}"),
                    Effect::Leader(_)
                    | Effect::ReadsLate(_)
                    | Effect::ConfState { .. }
                    | Effect::Purge { .. } => {}
                }
            }
        }
    }

    /// Delivers messages, each through its encoding, until none is left.
    fn settle(&mut self, cut_off: Option<u64>) {
        while !self.network.is_empty() {
            for message in std::mem::take(&mut self.network) {
                if cut_off.is_some_and(|id| message.to == id || message.from == id) {
                    continue;
                }
                let is_transfer = message.get_msg_type() == MessageType::MsgTimeoutNow;
                if is_transfer && self.is_transfer_lost {
                    continue;
                }
                let bytes = prost::Message::encode_to_vec(&message);
                let message: Message = prost::Message::decode(bytes.as_slice()).unwrap();
                self.give(message.to, Event::Receive(message));
            }
        }
    }

    fn tick(&mut self, cut_off: Option<u64>) {
        for id in [1, 2, 3] {
            self.give(id, Event::Tick);
            self.settle(cut_off);
        }
    }

    fn elect(&mut self, cut_off: Option<u64>) -> u64 {
        for _ in 0..200 {
            self.tick(cut_off);
            let leader = |core: &&Core| core.status().role == Role::Leader;
            let mut ids = self.cores.values().filter(leader).map(|core| core.status().id);
            if let Some(id) = ids.find(|id| Some(*id) != cut_off) {
                return id;
            }
        }
        panic!("no leader was elected");
    }

    fn propose(&mut self, id: u64, number: u64) {
        let proposals = vec![Proposal { ticket: number, data: value(number), term: 0 }];
        self.give(id, Event::Propose(proposals));
    }

    fn values(&self, id: u64) -> Vec<Bytes> {
        let data = |committed: &Committed| match committed {
            Committed::Normal { data, .. } if !data.is_empty() => Some(data.clone()),
            _ => None,
        };
        self.committed[&id].iter().filter_map(data).collect()
    }
}

/// Reads of a member that finds no leader have a bound and an end.
#[test]
fn reads_without_a_leader_are_bounded_and_end() {
    let dir = tempfile::tempdir().unwrap();
    let members = (1..=3).map(|id| (id, Bytes::from_static(b"{}"))).collect();
    let bootstrap = Bootstrap { members };
    let member =
        try_start(config(dir.path(), (0, 0), ConfState::default()), Some(&bootstrap)).unwrap();
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let count = crate::limits::RAFT_READS_MAX + 5000;
    for number in 0..count {
        let outcomes = Arc::clone(&outcomes);
        member.handle.read_index(move |outcome| outcomes.lock().push(outcome));
        if number % 1000 == 0 {
            // So that the loop takes them out of its inbox, which has a bound of its own.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let clock = SystemClock::new();
    while outcomes.lock().len() < count {
        let waited = crate::clock::Clock::now(&clock);
        assert!(waited < Duration::from_secs(60), "{} have ended", outcomes.lock().len());
        std::thread::sleep(Duration::from_millis(20));
    }
    let outcomes = outcomes.lock();
    let is = |outcome: &Result<u64, Error>, late: bool| match outcome {
        Err(Error::Late) => late,
        Err(Error::Busy) => !late,
        other => panic!("{other:?}"),
    };
    assert!(outcomes.iter().any(|outcome| is(outcome, true)));
    assert!(outcomes.iter().any(|outcome| is(outcome, false)), "as many wait as come");
}

#[test]
fn three_members_elect_commit_and_fail_over() {
    for seed in 0..20 {
        let mut cluster = Cluster::new(seed * 100);
        let first = cluster.elect(None);
        cluster.propose(first, 1);
        let follower = first % 3 + 1;
        cluster.propose(follower, 2);
        cluster.settle(None);
        cluster.give(follower, Event::Read(77));
        cluster.settle(None);
        let (token, index) = cluster.reads.pop().unwrap();
        let last = cluster.committed[&first].last().unwrap().index();
        assert_eq!((token, index), (77, last));

        // The leader is cut off; the others elect another and go on.
        let second = cluster.elect(Some(first));
        assert_ne!(first, second);
        cluster.propose(first, 3);
        cluster.give(first, Event::Read(78));
        cluster.propose(second, 4);
        cluster.settle(Some(first));
        assert!(cluster.reads.is_empty(), "a leader without a quorum answers no read");
        for _ in 0..30 {
            cluster.tick(None);
        }
        let expected = [1, 2, 4].map(value);
        for id in [1, 2, 3] {
            assert_eq!(cluster.values(id), expected, "seed {seed}, member {id}");
        }
        assert_eq!(cluster.reads.pop().map(|(token, _)| token), Some(78), "seed {seed}");
    }
}

#[test]
fn a_leader_whose_disk_stalls_gives_up() {
    for is_transfer_lost in [false, true] {
        let mut cluster = Cluster::new(3);
        let old = cluster.elect(None);
        cluster.propose(old, 1);
        cluster.settle(None);
        (cluster.stalled, cluster.is_transfer_lost) = (Some(old), is_transfer_lost);
        cluster.propose(old, 2);
        cluster.settle(None);
        for _ in 0..10 {
            cluster.tick(None);
        }
        assert_eq!(cluster.cores[&old].status().role, Role::Leader, "before an election timeout");
        for _ in 0..15 {
            cluster.tick(None);
        }
        assert_ne!(cluster.cores[&old].status().role, Role::Leader);
        let new = cluster.elect(None);
        assert_ne!(new, old, "a member that cannot write does not stand for election");
        cluster.propose(new, 3);
        cluster.settle(None);
        // The others had the entry, so it was committed without the old leader's disk.
        assert_eq!(cluster.values(new), [value(1), value(2), value(3)]);
    }
}

#[test]
fn a_simulated_election_repeats() {
    let run = |seed| {
        let mut cluster = Cluster::new(seed);
        let mut ticks = 0;
        while cluster.cores.values().all(|core| core.status().role != Role::Leader) {
            cluster.tick(None);
            ticks += 1;
        }
        (ticks, cluster.elect(None))
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed));
    }
}

#[test]
fn proposals_without_a_leader_come_back() {
    let mut cluster = Cluster::new(1);
    cluster.propose(1, 5);
    cluster.propose(1, 6);
    assert_eq!(cluster.dropped, [5, 6]);
    assert_eq!(cluster.cores[&1].status().proposals_dropped, 2);
}

#[test]
fn nothing_is_committed_or_sent_before_it_is_durable() {
    let mut core = core(1, &[1], 0);
    let effects = core.handle([Event::Tick]);
    let jobs = |effects: Vec<Effect>| -> Vec<Job> {
        effects
            .into_iter()
            .filter_map(|effect| match effect {
                Effect::Persist(job) => Some(job),
                Effect::Commit(_) => panic!("committed before it was durable"),
                _ => None,
            })
            .collect()
    };
    let elected = jobs(effects);
    assert_eq!(elected.len(), 1);
    assert!(elected[0].sync);
    assert_eq!(core.status().role, Role::Leader);
    let first =
        core.handle([Event::Propose(vec![Proposal { ticket: 0, data: value(0), term: 0 }])]);
    let first = jobs(first);
    let second =
        core.handle([Event::Propose(vec![Proposal { ticket: 1, data: value(1), term: 0 }])]);
    let second = jobs(second);
    let persisted = |job: &Job| Event::Persisted { number: job.number, places: Vec::new() };
    let indexes = |effects: Vec<Effect>| -> Vec<u64> {
        let commits = effects.into_iter().filter_map(|effect| match effect {
            Effect::Commit(entries) => Some(entries),
            _ => None,
        });
        commits.flatten().map(|committed| committed.index()).collect()
    };
    assert_eq!(indexes(core.handle([persisted(&first[0])])), [2, 3]);
    assert_eq!(indexes(core.handle([persisted(&second[0])])), [4]);
}

fn entry(index: u64, term: u64) -> Entry {
    Entry { index, term, ..Entry::default() }
}

fn message(kind: MessageType, term: u64) -> Message {
    let mut message = Message { to: 1, from: 2, term, ..Message::default() };
    message.set_msg_type(kind);
    message
}

fn refusal(core: &mut Core, message: Message) -> Option<Refusal> {
    core.handle([Event::Receive(message)]).into_iter().find_map(|effect| match effect {
        Effect::Refused(refusal) => Some(refusal),
        _ => None,
    })
}

#[test]
fn messages_at_which_raft_panics_are_refused() {
    use MessageType::*;
    let follower = &mut core(1, &[1, 2, 3], 0);
    for kind in [0, 1, 10, 11, 12, 19, 20, 21, 22, 23, 99, -1] {
        let message = Message { msg_type: kind, ..message(MsgHeartbeat, 1) };
        assert_eq!(refusal(follower, message), Some(Refusal::Type), "{kind}");
    }
    for (from, to) in [(2, 3), (1, 1), (0, 1)] {
        let message = Message { from, to, ..message(MsgHeartbeat, 1) };
        assert_eq!(refusal(follower, message), Some(Refusal::Address));
    }
    for kind in [MsgAppend, MsgHeartbeat, MsgAppendResponse, MsgRequestVote, MsgTransferLeader] {
        assert_eq!(refusal(follower, message(kind, 0)), Some(Refusal::Term), "{kind:?}");
    }
    for kind in [MsgPropose, MsgReadIndex] {
        let with_entry = Message { entries: vec![entry(0, 0)], ..message(kind, 1) };
        assert_eq!(refusal(follower, with_entry), Some(Refusal::Term), "{kind:?}");
    }
    for (kind, term) in [(MsgPropose, 0), (MsgReadIndex, 0), (MsgReadIndexResp, 1)] {
        assert_eq!(refusal(follower, message(kind, term)), Some(Refusal::EntryCount), "{kind:?}");
    }
    let append =
        |index, log_term, entries| Message { index, log_term, entries, ..message(MsgAppend, 3) };
    for bad in [
        append(1, 1, vec![entry(3, 3)]),
        append(1, 1, vec![entry(2, 3), entry(4, 3)]),
        append(1, 1, vec![entry(2, 3), entry(3, 2)]),
        append(1, 1, vec![entry(2, 4)]),
        append(9, 0, vec![entry(10, 3)]),
        append(u64::MAX, 1, vec![entry(0, 3)]),
    ] {
        assert_eq!(refusal(follower, bad), Some(Refusal::EntryOrder));
    }
    let typed = |kind| Entry { entry_type: kind, data: value(1), ..entry(2, 3) };
    for kind in [1, 2, 3, -1] {
        let bad = append(1, 1, vec![typed(kind)]);
        assert_eq!(refusal(follower, bad), Some(Refusal::EntryType), "{kind}");
    }
    let far = Message { commit: 2, ..message(MsgHeartbeat, 1) };
    assert_eq!(refusal(follower, far), Some(Refusal::Index));
    assert_eq!(refusal(follower, message(MsgSnapshot, 1)), Some(Refusal::Snapshot));
    assert_eq!(refusal(follower, message(MsgTransferLeader, 1)), Some(Refusal::Election));
    assert_eq!(follower.status().messages_refused, 38);
    assert_eq!(refusal(follower, append(1, 1, vec![entry(2, 3)])), None);
    assert_eq!(follower.status().last_index, 2);

    let sole = &mut core(1, &[1], 0);
    assert_eq!(refusal(sole, message(MsgTimeoutNow, 5)), Some(Refusal::Election));
    assert_eq!(sole.status().role, Role::Leader);
    assert_eq!(refusal(sole, message(MsgRequestVote, 5)), Some(Refusal::NotMember));
}

#[test]
fn a_leader_refuses_what_it_cannot_have_caused() {
    use MessageType::*;
    let mut cluster = Cluster::new(3);
    let leader = cluster.elect(None);
    let other = leader % 3 + 1;
    let core = cluster.cores.get_mut(&leader).unwrap();
    let term = core.status().term;
    let message = |kind| Message { to: leader, from: other, ..message(kind, term) };
    let beyond = Message { index: 1000, ..message(MsgAppendResponse) };
    assert_eq!(refusal(core, beyond), Some(Refusal::Index));
    let beyond = Message { reject: true, reject_hint: u64::MAX, ..message(MsgAppendResponse) };
    assert_eq!(refusal(core, beyond), Some(Refusal::Index));
    let stranger = Message { from: 9, ..message(MsgHeartbeatResponse) };
    assert_eq!(refusal(core, stranger), Some(Refusal::NotMember));
    let committed =
        Message { index: 1, log_term: 1, entries: vec![entry(2, 1)], ..message(MsgAppend) };
    assert_eq!(refusal(core, committed), Some(Refusal::Committed));

    // Raft would empty a second change without a word, so it waits for the first.
    let data = prost::Message::encode_to_vec(&ConfChange { node_id: 4, ..ConfChange::default() });
    let change = Entry { entry_type: 1, data: data.into(), ..Entry::default() };
    let propose = || Message { term: 0, entries: vec![change.clone()], ..message(MsgPropose) };
    assert_eq!(refusal(core, propose()), None);
    let last_index = core.status().last_index;
    assert_eq!(refusal(core, propose()), None);
    assert_eq!(core.status().last_index, last_index);
}

#[test]
fn a_damaged_segment_keeps_the_member_down() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("wal");
    let mut member = bootstrapped(&dir);
    member.lead();
    member.stop();
    let path = dir.join("0000000000000000-0000000000000000.wal");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let disk: &dyn Disk = &SystemDisk;
    assert!(exists(disk, &dir));
    let error = try_start(config(&dir, (0, 0), ConfState::default()), None).err().unwrap();
    assert!(error.to_string().contains("damaged"), "{error}");
}

#[test]
fn a_leader_that_is_to_remove_itself_hands_over_first() {
    for is_forwarded in [false, true] {
        let mut cluster = Cluster::new(5);
        let old = cluster.elect(None);
        let change = ConfChange { node_id: old, change_type: 1, ..ConfChange::default() };
        let asked = if is_forwarded { old % 3 + 1 } else { old };
        cluster.give(asked, Event::ProposeConfChange { ticket: 1, change });
        cluster.settle(None);
        let new = cluster.elect(None);
        assert_ne!(new, old);
        cluster.settle(None);
        let removed = cluster.committed[&new].iter().any(|committed| {
            matches!(committed, Committed::ConfChange { change, .. } if change.node_id == old)
        });
        assert!(removed, "the new leader gets the change");
        assert!(cluster.dropped.is_empty());
    }
}

#[test]
fn a_leader_that_is_no_member_any_more_does_not_panic() {
    let mut cluster = Cluster::new(5);
    let old = cluster.elect(None);
    let change = ConfChange { node_id: old, change_type: 1, ..ConfChange::default() };
    let index = cluster.cores[&old].status().last_index;
    cluster.stalled = Some(old);
    cluster.propose(old, 1);
    cluster.give(old, Event::ConfChange { index, change: Some(change) });
    assert_eq!(cluster.cores[&old].status().role, Role::Leader, "the others have to hear of it");
    // Raft panics if it still leads then.
    cluster.give(old, Event::Persisted { number: 1000, places: Vec::new() });
    assert_eq!(cluster.cores[&old].status().role, Role::Follower);
}

#[test]
fn a_removed_leader_leaves_when_one_that_stays_knows() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect(None);
    cluster.propose(leader, 1);
    cluster.settle(None);
    let core = &cluster.cores[&leader];
    assert!(core.may_leave(), "it is a member");
    let index = core.status().committed;
    let change = ConfChange { node_id: leader, change_type: 1, ..ConfChange::default() };
    cluster.give(leader, Event::ConfChange { index, change: Some(change) });
    for _ in 0..50 {
        cluster.tick(Some(leader));
        assert!(!cluster.cores[&leader].may_leave(), "nobody has said that he knows");
    }
    for _ in 0..50 {
        cluster.tick(None);
    }
    assert!(cluster.cores[&leader].may_leave());
}

/// Who is removed goes once he hears that this is committed, and his vote would be missed by those
/// who have forgotten it.
#[test]
fn the_commit_of_a_removal_is_durable_before_it_is_told() {
    let mut cluster = Cluster::new(5);
    let leader = cluster.elect(None);
    let change = ConfChange { node_id: leader % 3 + 1, change_type: 1, ..ConfChange::default() };
    cluster.give(leader, Event::ProposeConfChange { ticket: 1, change: change.clone() });
    let index = cluster.cores[&leader].status().last_index;
    let (mut synced, mut told) = (Vec::new(), 0);
    while let Some(message) = cluster.network.pop() {
        let to = message.to;
        let mut events = vec![Event::Receive(message)];
        while !events.is_empty() {
            let core = cluster.cores.get_mut(&to).unwrap();
            for effect in core.handle(std::mem::take(&mut events)) {
                match effect {
                    Effect::Persist(job) => {
                        let state = job.batch.hard_state.as_ref();
                        if job.sync && state.is_some_and(|state| state.commit >= index) {
                            synced.push(to);
                        }
                        cluster.network.extend(job.messages);
                        let (number, places) = (job.number, Vec::new());
                        events.push(Event::Persisted { number, places });
                    }
                    Effect::Send(messages) => {
                        for message in &messages {
                            assert!(message.commit < index || synced.contains(&to), "{message:?}");
                        }
                        cluster.network.extend(messages);
                    }
                    Effect::Commit(entries) => {
                        assert_eq!(entries.last().unwrap().index(), index);
                        told += 1;
                        let change = Some(change.clone());
                        events.extend([Event::ConfChange { index, change }, Event::Applied(index)]);
                    }
                    _ => {}
                }
            }
        }
    }
    assert_eq!((told, synced.len()), (3, 3), "everybody hears of it");
}

#[test]
fn a_snapshot_is_awaited_from_its_arrival_until_it_is_applied() {
    let temp = tempfile::tempdir().unwrap();
    let joins = Bootstrap::default();
    let member =
        try_start(config(temp.path(), (0, 0), ConfState::default()), Some(&joins)).unwrap();
    assert!(!member.handle.awaits_snapshot());
    let mut message = Message { to: ID, from: 1, term: 2, ..Message::default() };
    message.set_msg_type(MessageType::MsgSnapshot);
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (5, 2);
    metadata.mut_conf_state().voters = vec![1, ID];
    member.handle.step_snapshot(message.clone()).unwrap();
    assert!(member.handle.awaits_snapshot(), "before raft has seen it");
    let batch = member.committed.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(matches!(batch[..], [Committed::Snapshot { index: 5, .. }]));
    // A later one would take the place of the data that is about to be applied.
    message.mut_snapshot().mut_metadata().index = 9;
    assert!(announced(&message, &member.handle).is_err());
    member.handle.applied(5);
    while member.handle.awaits_snapshot() {
        std::thread::yield_now();
    }
    assert!(announced(&message, &member.handle).is_ok());
}

#[derive(Default)]
struct Sent(Mutex<Vec<Message>>);

impl Transport for Sent {
    fn send(&self, messages: Vec<Message>) {
        self.0.lock().extend(messages);
    }
}

/// A new leader does not know how far a follower is, and its log may not hold what comes next.
#[test]
fn a_leader_that_sends_an_older_snapshot_is_told_what_is_here() {
    let temp = tempfile::tempdir().unwrap();
    let sent = Arc::new(Sent::default());
    let bootstrap = Bootstrap { members: vec![(ID, Bytes::from_static(b"{}"))] };
    let config = config(temp.path(), (0, 0), ConfState::default());
    let mut member = try_start_with(config, Some(&bootstrap), sent.clone()).unwrap();
    while member.handle.status().committed < 2 {
        member.apply_once();
    }
    let status = member.handle.status();
    let mut message = Message { to: ID, from: 1, term: status.term + 1, ..Message::default() };
    message.set_msg_type(MessageType::MsgSnapshot);
    let metadata = message.mut_snapshot().mut_metadata();
    (metadata.index, metadata.term) = (1, 1);
    metadata.mut_conf_state().voters = vec![1, ID];
    assert!(announced(&message, &member.handle).is_err());
    let begun = crate::clock::instant();
    let is_answer = |message: &Message| {
        message.get_msg_type() == MessageType::MsgAppendResponse
            && (message.to, message.index, message.reject) == (1, status.committed, false)
    };
    while !sent.0.lock().iter().any(is_answer) {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", sent.0.lock());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_a_leader_alone_may_propose_goes_with_its_term() {
    let mut cluster = Cluster::new(5);
    let old = cluster.elect(None);
    let term = cluster.cores[&old].status().term;
    let propose = |ticket, term| {
        let data = value(ticket);
        Event::Propose(vec![Proposal { ticket, data, term }])
    };
    cluster.give(old, propose(1, term));
    cluster.give(old % 3 + 1, propose(2, term));
    cluster.give(old, propose(3, term - 1));
    cluster.settle(None);
    assert_eq!(cluster.dropped, [2, 3]);
    let new = cluster.elect(Some(old));
    for _ in 0..30 {
        cluster.tick(None);
    }
    cluster.dropped.clear();
    // It is not passed on to whoever leads now.
    cluster.give(old, propose(4, term));
    cluster.settle(None);
    assert_eq!(cluster.dropped, [4]);
    assert_eq!(cluster.values(new), [value(1)]);
}
