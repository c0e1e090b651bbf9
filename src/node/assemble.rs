//! Assembles a member: makes its parts in the order in which they need each other.

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};

use super::applier::Applier;
use super::conf_states::ConfStates;
use super::duties::Duties;
use super::error::StartError;
use super::identity::Identity;
use super::ids::RequestIds;
use super::known_peers::{self, KnownPeers};
use super::leader::Leading;
use super::long_work::LongWork;
use super::passwords::Passwords;
use super::stall::LogWriting;
use super::steps::Steps;
use super::surroundings::Surroundings;
use super::waits::{AppliedWaits, Waits};
use super::{Config, Inner, Node};
use crate::apply::{Machine, Quota};
use crate::auth::Tokens;
use crate::clock::Clock;
use crate::limits;
use crate::members::Members;
use crate::metrics;
use crate::mvcc::Sweep;
use crate::peer::{PeerEvents, Peers, Reach, Snapshots};
use crate::planted::{self, Bug};
use crate::raft::{self, Bootstrap};
use crate::store::{self, Opened, Options, Store};
use crate::supervise::{Supervisor, Thread};
use crate::trace::Tracer;
use crate::transfer::{Downloads, Loaded, PeerSnapshots, PreparedSlot, load};
use crate::upkeep::{
    Checkpointer, DiskRoom, Settings, SweepBatches, SweepQueue, SweepWaiters, SweepWorker, Sweeper,
    Upkeep, UpkeepContext, say_damage,
};
use crate::watch::Hub;

/// Raft's handle and threads, the turns of a stepped member, and the loaded state.
type LogAndState = (raft::Handle, raft::Raft, Option<raft::RaftSteps>, Loaded);

/// Opens the log and loads the state at the same time. Batches that raft commits before the state
/// is loaded wait in the queue to apply.
fn open_log_and_state(
    store: &Arc<Store>,
    opened: Opened,
    raft_config: raft::Config,
    surroundings: raft::Surroundings,
    bootstrap: Option<&Bootstrap>,
    stepped: bool,
) -> Result<LogAndState, StartError> {
    if stepped {
        let (handle, raft, turns) = raft::start_stepped(raft_config, surroundings, bootstrap)?;
        return Ok((handle, raft, Some(turns), load(store, &opened, None)?));
    }
    let supervisor = surroundings.supervisor.clone();
    let loading = supervisor.thread("load", {
        let store = Arc::clone(store);
        move || load(&store, &opened, None)
    })?;
    let started = raft::start(raft_config, surroundings, bootstrap);
    let loaded = loading.join().map_err(std::io::Error::other)?;
    let (raft, raft_threads) = started?;
    Ok((raft, raft_threads, None, loaded?))
}

/// Makes a member and starts its threads and duties, or returns its steps if `stepped`. Must be
/// called within an async runtime; blocks while the log and the state are read.
#[expect(clippy::too_many_arguments, reason = "everything that a member is made of")]
pub(super) fn assemble(
    config: Config,
    surroundings: Surroundings,
    lock: store::DirLock,
    store: Arc<Store>,
    opened: Opened,
    identity: Identity,
    raft_config: raft::Config,
    stepped: bool,
) -> Result<(Node, Option<Steps>), StartError> {
    let Surroundings { clock, transport, store: options, reach, supervisor, tracer, .. } =
        &surroundings;
    let (clock, dials, supervisor) = (Arc::clone(clock), transport.is_none(), supervisor.clone());
    let (options, reach, tracer) = (options.clone(), reach.clone(), tracer.clone());
    let (applied_index, conf_state) = (raft_config.applied, raft_config.conf_state.clone());
    let (waits, log_writing, wal) = (Arc::default(), Arc::default(), raft_config.dir.clone());
    let (tokens, passwords) = logins(&config, &clock, &supervisor)?;
    let (committed, batches) = committed_queue();
    let peers = known_peers::peers(&config, &raft_config, &surroundings);
    let surroundings = surroundings.of_raft(&peers, (&waits, &log_writing), committed);
    let (raft, raft_threads, turns, loaded) = open_log_and_state(
        &store,
        opened,
        raft_config,
        surroundings,
        identity.bootstrap.as_ref(),
        stepped,
    )?;
    let raft::log::Metadata { node_id, cluster_id } = raft_threads.metadata();
    let (known_peers, events) =
        known_peers(node_id, &config, peers, reach, &loaded.members, &waits);
    dials.then(|| known_peers.peers.start(raft.clone(), Arc::clone(&events)));
    let (no_space, size_bytes) = (Arc::new(Notify::new()), Arc::new(AtomicI64::new(0)));
    let quota = Arc::new(Quota::new(config.quota_bytes(), Arc::clone(&size_bytes)));
    let (used, (machine, unfinished)) = (loaded.used, machine(store, loaded, tokens, quota));
    let (store, hub) = (Arc::clone(&machine.store), Hub::new(Arc::clone(&machine.mvcc)));
    let applied = Arc::new(AppliedWaits::new(applied_index));
    let conf_states = Arc::new(ConfStates::new(applied_index, conf_state));
    let (prepared_slot, snapshots) = take_snapshots(&known_peers, &store, options);
    let (sweeper, sweeps) = sweeps(&machine, &waits, &clock, &config, unfinished, used);
    let applier = Applier {
        machine,
        clock,
        hub,
        waits,
        applied,
        sweeps,
        supervisor,
        no_space: Arc::clone(&no_space),
        conf_states: Arc::clone(&conf_states),
        raft: raft.clone(),
        prepared_slot,
        known_peers,
        slow: config.warning_apply_duration,
    };
    let disk_room = watch_store(&store, &raft, conf_states, size_bytes, (&wal, &no_space));
    let stepped = turns.map(|turns| (turns, snapshots, events));
    let (shared, is_stepped) = (applier.clone(), stepped.is_some());
    let (sweeper, threads, steps) = work(stepped, applier, batches, sweeper)?;
    let unshared =
        UnsharedParts { config, cluster_id, lock, passwords, log_writing, raft_threads, tracer };
    let node = member(unshared, shared, disk_room, sweeper, threads, is_stepped);
    Duties::start(&node, no_space);
    Ok((node, steps))
}

/// The parts that a member does not share with the apply thread.
struct UnsharedParts {
    config: Config,
    cluster_id: u64,
    lock: store::DirLock,
    passwords: Passwords,
    log_writing: Arc<LogWriting>,
    raft_threads: raft::Raft,
    tracer: Tracer,
}

fn member(
    unshared: UnsharedParts,
    shared: Applier,
    disk_room: Arc<DiskRoom>,
    sweeper: Sweeper,
    threads: Vec<Thread<()>>,
    is_stepped: bool,
) -> Node {
    let UnsharedParts { config, cluster_id, lock, passwords, log_writing, raft_threads, tracer } =
        unshared;
    let lock = Arc::new(lock);
    let upkeep = upkeep(&config, cluster_id, &shared, &disk_room, &lock, is_stepped);
    let downloads = downloads(&shared, &lock);
    let Applier { machine, clock, hub, waits, applied, supervisor, raft, known_peers, .. } = shared;
    Node(Arc::new(Inner {
        ids: RequestIds::new(known_peers.id, &*clock),
        member_id: known_peers.id,
        cluster_id,
        config,
        clock,
        raft,
        known_peers,
        raft_threads: Mutex::new(Some(raft_threads)),
        log_writing,
        machine,
        hub,
        leading: Leading::default(),
        passwords,
        waits,
        applied,
        sweeper,
        disk_room,
        upkeep: Arc::new(upkeep),
        long_work: LongWork::default(),
        downloads,
        threads: Mutex::new(threads),
        is_stepped,
        answers: Arc::default(),
        ready: watch::Sender::new(false),
        supervisor,
        tracer,
        stopping: watch::Sender::new(false),
        _lock: lock,
    }))
}

/// Made from the applier's parts: upkeep works on the state that apply changes.
fn upkeep(
    config: &Config,
    cluster_id: u64,
    applier: &Applier,
    disk_room: &Arc<DiskRoom>,
    lock: &Arc<store::DirLock>,
    is_stepped: bool,
) -> Upkeep {
    let Machine { store, mvcc, members, .. } = applier.machine.clone();
    let settings = Settings {
        retention: config.retention,
        corrupt_check_interval: config.corrupt_check_interval,
        compact_hash_check_interval: config.compact_hash_check_interval,
        quota_flag_bytes: config.quota_backend_bytes,
        quota_bytes: config.quota_bytes(),
        log_dir: config.log_dir(),
        request_timeout: config.request_timeout(),
    };
    Upkeep::new(UpkeepContext {
        settings,
        member_id: applier.known_peers.id,
        cluster_id,
        clock: Arc::clone(&applier.clock),
        store,
        mvcc,
        members,
        raft: applier.raft.clone(),
        reach: Arc::clone(&applier.known_peers.reach),
        disk_room: Arc::clone(disk_room),
        supervisor: applier.supervisor.clone(),
        is_stepped,
        lock: Arc::clone(lock),
    })
}

/// Snapshots for clients, read from the store that apply changes.
fn downloads(applier: &Applier, lock: &Arc<store::DirLock>) -> Downloads {
    Downloads::new(
        Arc::clone(&applier.machine.store),
        Arc::clone(&applier.clock),
        applier.raft.clone(),
        applier.supervisor.clone(),
        Arc::clone(lock),
    )
}

/// The queue of committed batches between raft and apply. It is short, because raft can read a
/// batch from the log again when the queue has room.
fn committed_queue<T>() -> (SyncSender<T>, Receiver<T>) {
    let is_planted = planted::is(Bug::SupplyWithoutBound);
    sync_channel(if is_planted { 10_000 } else { limits::APPLY_QUEUE_BATCHES_MAX })
}

/// This member among its peers, and the receiver of what peers say about this member.
fn known_peers(
    node_id: u64,
    config: &Config,
    peers: Arc<Peers>,
    reach: Option<Arc<dyn Reach>>,
    members: &Members,
    waits: &Arc<Waits>,
) -> (KnownPeers, Arc<dyn PeerEvents>) {
    let known_peers = KnownPeers::new(node_id, peers, reach);
    known_peers.load(members, config.join.as_ref());
    let events = known_peers.events(waits);
    (known_peers, events)
}

/// The makers of tokens, and the threads that compare passwords.
fn logins(
    config: &Config,
    clock: &Arc<dyn Clock>,
    supervisor: &Supervisor,
) -> Result<(Arc<Tokens>, Passwords), StartError> {
    let auth = &config.auth;
    let tokens = Tokens::new(&auth.token, auth.token_ttl, Arc::clone(clock))?;
    let passwords = Passwords::start(auth.bcrypt_cost, Arc::clone(clock), supervisor)?;
    Ok((Arc::new(tokens), passwords))
}

/// Lets peers send snapshots and ask for them. A snapshot that was sent waits in `PreparedSlot`
/// until apply reaches its place in the log.
fn take_snapshots(
    known_peers: &KnownPeers,
    store: &Arc<Store>,
    options: Options,
) -> (Arc<PreparedSlot>, Arc<dyn Snapshots>) {
    let prepared_slot = Arc::new(PreparedSlot::default());
    let snapshots = PeerSnapshots {
        store: Arc::downgrade(store),
        prepared_slot: Arc::clone(&prepared_slot),
        options,
    };
    let snapshots: Arc<dyn Snapshots> = Arc::new(snapshots);
    known_peers.peers.serve_snapshots(Arc::clone(&snapshots));
    (prepared_slot, snapshots)
}

/// The state that apply changes, and the compaction whose sweep did not end before the last stop.
fn machine(
    store: Arc<Store>,
    loaded: Loaded,
    tokens: Arc<Tokens>,
    quota: Arc<Quota>,
) -> (Machine, Option<Sweep>) {
    let Loaded { lessor, members, auth, restore, .. } = loaded;
    let (mvcc, lessor) = (Arc::new(restore.mvcc), Arc::new(Mutex::new(lessor)));
    let (members, auth) = (Arc::new(RwLock::new(members)), Arc::new(RwLock::new(auth)));
    (Machine { store, mvcc, lessor, members, auth, tokens, quota }, restore.unfinished)
}

/// The sweeper, which also writes the index checkpoint, and the queue that hands it compactions.
fn sweeps(
    machine: &Machine,
    waits: &Arc<Waits>,
    clock: &Arc<dyn Clock>,
    config: &Config,
    unfinished: Option<Sweep>,
    used: (i64, u64),
) -> (SweepWorker, SweepQueue) {
    let (waiters, clock) = (Arc::clone(waits) as Arc<dyn SweepWaiters>, Arc::clone(clock));
    let Machine { store, mvcc, lessor, members, .. } = machine.clone();
    let pace = config.checkpoint_pace;
    let checkpoint =
        Checkpointer::new(store, Arc::clone(&mvcc), lessor, Arc::clone(&clock), pace, used);
    let batches = SweepBatches {
        rows: config.compaction_batch_rows,
        pause: config.compaction_sleep_interval,
    };
    SweepWorker::new((mvcc, members), waiters, clock, batches, unfinished, checkpoint)
}

/// The parts that a stepped member puts into its [`Steps`].
type Stepped = (raft::RaftSteps, Arc<dyn Snapshots>, Arc<dyn PeerEvents>);

type Work = (Sweeper, Vec<Thread<()>>, Option<Steps>);

/// Starts the apply thread and the sweeper; a stepped member gets `Steps` instead.
fn work(
    stepped: Option<Stepped>,
    applier: Applier,
    committed: Receiver<Vec<raft::Committed>>,
    sweeper: SweepWorker,
) -> Result<Work, StartError> {
    stop_at_failure(&applier);
    if let Some((turns, snapshots, events)) = stepped {
        let (raft, store) = (applier.raft.clone(), Arc::clone(&applier.machine.store));
        let under_way = Mutex::default();
        let steps =
            Steps { turns, raft, applier, committed, under_way, store, sweeper, snapshots, events };
        return Ok((Sweeper::default(), Vec::new(), Some(steps)));
    }
    let supervisor = applier.supervisor.clone();
    let sweeper = Sweeper::start(sweeper, &supervisor)?;
    // A start that fails leaves no thread behind, as each holds the store.
    let thread = supervisor
        .prompt_thread("apply", move || applier.run(&committed))
        .inspect_err(|_| sweeper.stop())?;
    Ok((sweeper, vec![thread], None))
}

/// Registers callbacks for the store's commits, changes of its size, and a full disk. They run on
/// the store's threads.
fn watch_store(
    store: &Arc<Store>,
    raft: &raft::Handle,
    conf_states: Arc<ConfStates>,
    size_bytes: Arc<AtomicI64>,
    (wal, no_space): (&Path, &Arc<Notify>),
) -> Arc<DiskRoom> {
    let disk_room = Arc::new(DiskRoom::new(store, raft, wal));
    say_damage(store);
    let measure = move |store: &Weak<Store>| {
        let Some(store) = store.upgrade() else { return };
        let sizes = store.sizes();
        let bytes = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
        size_bytes
            .store(bytes(sizes.total.saturating_sub(limits::QUOTA_FREE_BYTES)), Ordering::Relaxed);
        metrics::db_total_bytes().set(bytes(sizes.total));
        metrics::db_in_use_bytes().set(bytes(sizes.in_use));
    };
    // Weak references: the rooms hold the store, which holds these callbacks.
    let (looking, rings) = (Arc::downgrade(&disk_room), Arc::clone(no_space));
    let (raft, weak) = (raft.clone(), Arc::downgrade(store));
    measure(&weak);
    let (measure_again, resized) = (measure.clone(), Weak::clone(&weak));
    store.on_resize(move || measure_again(&resized));
    store.on_commit(move |index, term| {
        raft.durable(index, term, conf_states.at(index));
        measure(&weak);
        if looking.upgrade().is_some_and(|disk_room| disk_room.measure()) {
            rings.notify_one();
        }
    });
    let (no_space, looking) = (Arc::clone(no_space), Arc::downgrade(&disk_room));
    store.on_no_space(move |is_full| {
        if let Some(disk_room) = looking.upgrade() {
            disk_room.measure();
        }
        if is_full {
            no_space.notify_one();
        }
    });
    disk_room
}

/// When the member fails, stops raft, the waiters and the store before the process ends: the member
/// then neither leads nor commits, its clients get an answer, and the others elect a leader.
fn stop_at_failure(applier: &Applier) {
    let (raft, abort) = (applier.raft.clone(), applier.machine.store.abort_handle());
    let (waits, applied) = (Arc::clone(&applier.waits), Arc::clone(&applier.applied));
    applier.supervisor.on_failure(move |why| {
        raft.stop();
        waits.stop();
        applied.stop();
        abort(why);
    });
}
