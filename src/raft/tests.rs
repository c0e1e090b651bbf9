//! Shared by the tests of this room: a member whose state is a list, and a cluster of cores whose
//! messages arrive at once.

mod bounds;
mod durable_first;
mod hostile;
mod interleavings;
mod leaders;
mod on_disk;
mod refused;
mod removal;
mod snapshots;
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

/// A member whose state is the list of the values that were applied.
struct Member {
    handle: Handle,
    raft: Option<Raft>,
    committed: Receiver<Vec<Committed>>,
    recorder: Arc<Recorder>,
    /// The state, which apply would keep on disk.
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
    try_start_with(config, bootstrap, Arc::new(NoTransport), Arc::new(SystemDisk))
}

fn try_start_with(
    config: Config,
    bootstrap: Option<&Bootstrap>,
    transport: Arc<dyn Transport>,
    disk: Arc<dyn Disk>,
) -> Result<Member, Error> {
    let (applier, committed) = sync_channel(crate::limits::APPLY_QUEUE_BATCHES_MAX);
    let recorder = Arc::new(Recorder::default());
    let surroundings = Surroundings {
        clock: Arc::new(SystemClock::new()),
        disk,
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
    try_start(config(dir, (0, 0), ConfState::default()), Some(&alone())).unwrap()
}

fn alone() -> Bootstrap {
    Bootstrap { members: vec![(ID, Bytes::from_static(b"{}"))] }
}

impl Member {
    /// Applies until there are `count` values.
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

/// Makes a log of these entries of term 1 on disk and opens it. The store keeps the entries after
/// `evicted` in memory, too.
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

/// Three cores, a network without loss, and disks that sync at once or when told to.
struct Cluster {
    cores: BTreeMap<u64, Core>,
    committed: BTreeMap<u64, Vec<Committed>>,
    reads: Vec<(u64, u64)>,
    dropped: Vec<u64>,
    network: Vec<Message>,
    /// The member whose disk hangs.
    stalled: Option<u64>,
    /// Whether the message that tells a member to take over is lost.
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
        let proposals =
            vec![Proposal { ticket: number, data: value(number), ..Proposal::default() }];
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
