//! Start and stop: directories, state, threads, in the order that makes a cut at any point harmless.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::admission::Admission;
use super::applier::Applier;
use super::checkpointer::{CheckpointPace, Checkpointer};
use super::duties::Duties;
use super::ids::RequestIds;
use super::install::{Door, Installs};
use super::membership::{Circle, Join};
use super::passwords::Passwords;
use super::room::Rooms;
use super::space::Upkeep;
use super::stall::LogWriting;
use super::steps::Steps;
use super::sweeper::{SweepQueue, SweepWorker, Sweeper};
use super::waits::{AppliedWaits, Waits};
use super::{Config, Inner, Node, defrag, membership};
use crate::apply::{self, Machine, NewerCluster, Quota};
use crate::auth::{self, Auth, TokenError, Tokens};
use crate::clock::Clock;
use crate::lease::Lessor;
use crate::limits;
use crate::members::{Downgrade, Founders, Malformed, Member, Members};
use crate::metrics;
use crate::mvcc::{self, Checkpoint, Compacted, Compaction, Current, Mvcc, Restore, Restoring};
use crate::pb::{AlarmMember, leasepb};
use crate::peer::{Dial, PeerEvents, Peers, Reach, Snapshots, TcpDial};
use crate::planted::{self, Bug};
use crate::raft::log::{Disk, SystemDisk};
use crate::raft::{self, Bootstrap, ConfState};
use crate::store::{self, Bucket, CheckpointBinding, Opened, Options, Store, schema};
use crate::supervise::{Supervisor, Thread};
use crate::types::Version;
use crate::watch::Hub;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Mvcc(#[from] mvcc::Error),
    #[error(transparent)]
    Raft(#[from] raft::Error),
    #[error("{table}: malformed {what} in the store")]
    Malformed { table: &'static str, what: String },
    #[error(transparent)]
    Auth(#[from] auth::Malformed),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    NotInCluster(String),
    #[error(
        "{}: the store is missing, but the log in {} is there; \
         restore the whole data directory from a backup", db.display(), wal.display()
    )]
    MissingStore { db: PathBuf, wal: PathBuf },
    #[error(
        "{}: the log is missing, but the store in {} has applied entry {applied} of it; \
         restore the whole data directory from a backup", wal.display(), db.display()
    )]
    MissingLog { db: PathBuf, wal: PathBuf, applied: u64 },
    #[error(transparent)]
    Newer(#[from] NewerCluster),
    #[error("version {0:?} is not supported")]
    StorageVersion(String),
    #[error(
        "{}: there is no log, and only a store and its log together are the state of a member",
        wal.display()
    )]
    NoLog { wal: PathBuf },
    #[error("the log of the stopped member cannot be applied: {0}")]
    Unsettled(String),
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

impl From<Malformed> for StartError {
    fn from(error: Malformed) -> Self {
        Self::Malformed { table: Bucket::Members.name(), what: error.to_string() }
    }
}

/// raft's configuration in etcd's JSON: empty lists are left out, `auto_leave` never is.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct StoredConfState {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    voters: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    voters_outgoing: Vec<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    learners_next: Vec<u64>,
    #[serde(default)]
    auto_leave: bool,
}

impl From<&ConfState> for StoredConfState {
    fn from(state: &ConfState) -> Self {
        Self {
            voters: state.voters.clone(),
            learners: state.learners.clone(),
            voters_outgoing: state.voters_outgoing.clone(),
            learners_next: state.learners_next.clone(),
            auto_leave: state.auto_leave,
        }
    }
}

impl StoredConfState {
    pub(super) fn to_json(&self) -> Vec<u8> {
        // Numbers and lists always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(super) fn parse(json: &[u8]) -> Result<ConfState, StartError> {
        let stored: Self = serde_json::from_slice(json).map_err(|error| StartError::Malformed {
            table: Bucket::Meta.name(),
            what: format!("confState: {error}"),
        })?;
        Ok(ConfState {
            voters: stored.voters,
            learners: stored.learners,
            voters_outgoing: stored.voters_outgoing,
            learners_next: stored.learners_next,
            auto_leave: stored.auto_leave,
        })
    }
}

/// The ids of voters and learners in a stored configuration.
pub fn ids_of_conf_state(json: &[u8]) -> Result<Vec<u64>, StartError> {
    let state = StoredConfState::parse(json)?;
    let mut ids = state.voters;
    ids.extend(state.learners.iter().chain(&state.voters_outgoing).chain(&state.learners_next));
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// Configurations by the index from which on they hold, so that a durable index finds its own.
pub(super) struct ConfStates(Mutex<Vec<(u64, ConfState)>>);

impl ConfStates {
    fn new(index: u64, state: ConfState) -> Self {
        Self(Mutex::new(vec![(index, state)]))
    }

    pub(super) fn push(&self, index: u64, state: ConfState) {
        self.0.lock().push((index, state));
    }

    /// The configuration at `index`; older ones are forgotten.
    fn at(&self, index: u64) -> ConfState {
        let mut states = self.0.lock();
        let newer = states.iter().position(|(from, _)| *from > index).unwrap_or(states.len());
        states.drain(..newer.saturating_sub(1));
        states.first().map(|(_, state)| state.clone()).unwrap_or_default()
    }
}

/// Tells the rest of the member what raft meets.
struct Observer {
    supervisor: Supervisor,
    waits: Arc<Waits>,
    log_writing: Arc<LogWriting>,
}

impl raft::Observer for Observer {
    fn fatal(&self, error: &raft::Error) {
        self.supervisor.fail(&error.to_string());
    }

    fn dropped(&self, tickets: &[u64]) {
        tickets.iter().for_each(|ticket| self.waits.dropped(*ticket));
    }

    fn synced(&self, took: Duration) {
        metrics::wal_fsync_seconds().observe(took.as_secs_f64());
        if took >= Duration::from_secs(1) {
            tracing::warn!(took = ?took, "expected-duration" = "1s", "slow fdatasync");
        }
    }

    fn writes(&self, since: Option<Duration>) {
        self.log_writing.note(since);
    }

    fn written(&self, bytes: usize, took: Duration) {
        metrics::wal_write_seconds().observe(took.as_secs_f64());
        metrics::wal_write_bytes().add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// Who this member is and how its log begins.
struct Identity {
    member_id: u64,
    cluster_id: u64,
    bootstrap: Option<Bootstrap>,
}

impl Identity {
    /// A log that exists says it, and the flags of the first start count no more.
    fn of_the_log(disk: &dyn Disk, wal: &Path) -> Result<Self, StartError> {
        let raft::log::Metadata { node_id: member_id, cluster_id } = raft::identity(disk, wal)?;
        Ok(Self { member_id, cluster_id, bootstrap: None })
    }

    fn new(config: &Config) -> Result<Self, StartError> {
        if let Some(Join { cluster_id, member_id, .. }) = config.join {
            let bootstrap = Some(Bootstrap::default());
            return Ok(Self { member_id, cluster_id, bootstrap });
        }
        let founders = Founders::new(&config.initial_cluster, &config.cluster_token);
        let own = founders.named(&config.name);
        let own = own.ok_or_else(|| StartError::NotInCluster(config.name.clone()))?;
        let (member_id, cluster_id) = (own.id, founders.cluster_id);
        Ok(Self { member_id, cluster_id, bootstrap: Some(bootstrap(&founders)) })
    }
}

/// The log's first entries add the founders.
pub(super) fn bootstrap(founders: &Founders) -> Bootstrap {
    let members = founders.members.iter();
    let members = members.map(|member| (member.id, Bytes::from(member.to_json())));
    Bootstrap { members: members.collect() }
}

/// The state as the store holds it.
pub(super) struct Loaded {
    pub lessor: Lessor,
    pub members: Members,
    pub auth: Auth,
    pub restore: Restore,
    /// Revision of the checkpoint, and how many rows came beside it.
    pub used: (i64, u64),
}

/// What a member stands on: the system, or a simulator's idea of it.
pub struct Surroundings {
    pub clock: Arc<dyn Clock>,
    pub disk: Arc<dyn Disk>,
    /// None: the member and its peers dial each other.
    pub transport: Option<Arc<dyn raft::Transport>>,
    pub dial: Arc<dyn Dial>,
    /// Goes with the transport.
    pub reach: Option<Arc<dyn Reach>>,
    pub log: raft::log::Options,
    pub store: Options,
    /// Starts what the member works with.
    pub supervisor: Supervisor,
}

impl Surroundings {
    pub fn system(clock: Arc<dyn Clock>) -> Self {
        Self {
            disk: Arc::new(SystemDisk),
            transport: None,
            dial: Arc::new(TcpDial::default()),
            reach: None,
            log: raft::log::Options::default(),
            store: Options::new(Arc::clone(&clock)),
            supervisor: Supervisor::default(),
            clock,
        }
    }
}

impl Surroundings {
    fn of_raft(
        self,
        peers: &Arc<Peers>,
        (waits, log_writing): (&Arc<Waits>, &Arc<LogWriting>),
        applier: SyncSender<Vec<raft::Committed>>,
    ) -> raft::Surroundings {
        let Self { clock, disk, transport, supervisor, .. } = self;
        let transport = transport.unwrap_or_else(|| Arc::clone(peers) as Arc<dyn raft::Transport>);
        let (waits, log_writing) = (Arc::clone(waits), Arc::clone(log_writing));
        let observer = Arc::new(Observer { supervisor: supervisor.clone(), waits, log_writing });
        raft::Surroundings { clock, disk, transport, observer, applier, supervisor }
    }
}

/// Opens or makes the data directory, and the member's threads or the steps that stand for them.
pub(super) fn start(
    config: Config,
    mut surroundings: Surroundings,
    stepped: bool,
) -> Result<(Node, Option<Steps>), StartError> {
    let lock = store::lock(&config.data_dir)?;
    store::lay_out(&config.data_dir)?;
    let wal = config.wal_dir.clone().unwrap_or_else(|| config.data_dir.join("member/wal"));
    let db = config.data_dir.join("member/db");
    let has_log = raft::exists(&*surroundings.disk, &wal);
    if has_log && store::is_missing(&db)? {
        return Err(StartError::MissingStore { db, wal });
    }
    if has_log && store::has_other(&db)? {
        let snapshot = raft::last_snapshot(&surroundings.disk, &wal, surroundings.log)?;
        store::settle(&db, snapshot.map(|record| record.index))?;
    }
    let options = &mut surroundings.store;
    options.commit_interval = config.commit_interval;
    options.committer = !stepped;
    options.supervisor = surroundings.supervisor.clone();
    let (store, mut opened) = Store::open(&db, options.clone())?;
    opened.generation = defrag::at_start(&store, config.defrag_at_start_bytes);
    if !has_log && opened.consistent_index > 0 {
        let applied = opened.consistent_index;
        return Err(StartError::MissingLog { db, wal, applied });
    }
    let store = Arc::new(store);
    let disk = &*surroundings.disk;
    let identity =
        if has_log { Identity::of_the_log(disk, &wal)? } else { Identity::new(&config)? };
    let conf_state = opened.conf_state.as_deref().map(StoredConfState::parse).transpose()?;
    let conf_state = conf_state.unwrap_or_default();
    let raft_config = raft::Config {
        id: identity.member_id,
        cluster_id: identity.cluster_id,
        dir: wal,
        heartbeat_interval: config.heartbeat_interval,
        election_timeout: config.election_timeout,
        pre_vote: config.pre_vote,
        applied: opened.consistent_index,
        applied_term: opened.term,
        conf_state,
        catch_up_entries: config.snapshot_catchup_entries,
        snapshot_count: config.snapshot_count,
        log: surroundings.log,
    };
    if config.force_new_cluster && has_log {
        let mut members = load_members(&store)?;
        let takes = |change: &raft::ConfChange| membership::takes(&mut members, change);
        let removed = raft::force_alone(&raft_config, &surroundings.disk, takes)?;
        let removed: Vec<String> = removed.iter().map(|id| format!("{id:x}")).collect();
        tracing::warn!(
            "cluster-id" = format!("{:x}", identity.cluster_id),
            "local-member-id" = format!("{:x}", identity.member_id),
            ?removed,
            "forcing restart member"
        );
    }
    assemble(config, surroundings, lock, store, opened, identity, raft_config, stepped)
}

impl Node {
    /// Opens or makes the data directory and starts the member's threads. Must be called within an
    /// async runtime, on a thread that may block.
    pub fn start(config: Config, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        Self::start_with(config, Surroundings::system(clock))
    }

    /// As [`Node::start`], on something other than the system as it is.
    pub fn start_with(config: Config, surroundings: Surroundings) -> Result<Self, StartError> {
        start(config, surroundings, false).map(|(node, _)| node)
    }

    /// Ends the threads, makes everything applied durable, and notes the index for the next start.
    /// Requests under way are answered that the server stopped. The data directory is free once the
    /// caller's own clones are gone.
    pub async fn stop(&self) {
        let node = self.clone();
        // The supervisor knows of a panic.
        let _ = self.0.supervisor.blocking("stop", move || node.stop_now()).await;
        // The duties hold the member, and with it the directory's lock.
        self.0.stopping.closed().await;
    }

    /// As [`Node::stop`], for who may block.
    pub fn stop_now(&self) {
        let inner = &self.0;
        inner.stopping.send_replace(true);
        inner.has_leader.notify_waiters();
        let Some(raft) = inner.raft_threads.lock().take() else { return };
        // On a full disk apply would wait for ever; what is not committed is in the log.
        inner.machine.store.leave();
        raft.stop();
        inner.circle.peers.stop();
        for thread in inner.threads.lock().drain(..) {
            // The supervisor knows of a panic.
            let _ = thread.join();
        }
        inner.waits.stop();
        inner.applied.stop();
        inner.sweeper.stop();
        if inner.supervisor.why().is_some() {
            return;
        }
        let clock = Arc::clone(&inner.clock);
        if let Err(error) =
            close_store(&inner.machine.store, &inner.machine.mvcc, &inner.machine.lessor, clock)
        {
            tracing::error!(%error, "failed to close the store");
        }
    }
}

/// Makes everything durable, with the index for the next start unless a sweep is under way.
pub(super) fn close_store(
    store: &Arc<Store>,
    mvcc: &Arc<Mvcc>,
    lessor: &Arc<Mutex<Lessor>>,
    clock: Arc<dyn Clock>,
) -> Result<(), store::Error> {
    store.flush()?;
    let (open, mvcc, lessor) = (Arc::clone(store), Arc::clone(mvcc), Arc::clone(lessor));
    Checkpointer::new(open, mvcc, lessor, clock, CheckpointPace::default(), (-1, 0)).write_now();
    store.close()
}

/// The state of a store. Its index may have been built with it; else it is read.
pub(super) fn load(
    store: &Arc<Store>,
    opened: &Opened,
    index: Option<Restoring>,
) -> Result<Loaded, StartError> {
    let mut lessor = Lessor::default();
    for (_, value) in store.bucket_iter(Bucket::Lease)? {
        let lease = leasepb::Lease::decode(value.as_slice()).map_err(|error| {
            StartError::Malformed { table: Bucket::Lease.name(), what: error.to_string() }
        })?;
        lessor.restore(lease.id, lease.ttl, lease.remaining_ttl);
    }
    let members = load_members(store)?;
    check_storage_version(store)?;
    let compacted = Compacted {
        scheduled: opened.scheduled_compact.map(|revision| revision.main),
        finished: opened.finished_compact.map(|revision| revision.main),
    };
    let (restore, checkpoint) = match index {
        Some(index) => (index.finish(Arc::clone(store), compacted), None),
        None => {
            let checkpoint = read_checkpoint(store, opened);
            let read = Restore::read(Arc::clone(store), compacted, checkpoint.as_ref())?;
            (read, checkpoint)
        }
    };
    let used = (checkpoint.map_or(-1, |checkpoint| checkpoint.current.revision), restore.rows);
    let last = opened.last.map_or(1, |revision| revision.main);
    if restore.mvcc.current().revision < last {
        let what = format!("index: it ends before revision {last}, which is there");
        return Err(StartError::Malformed { table: "rev", what });
    }
    for (key, id) in &restore.attachments {
        lessor.set(key, *id);
    }
    let auth = Auth::load(Arc::clone(store))?;
    Ok(Loaded { lessor, members, auth, restore, used })
}

/// A newer release may have written what this one would misread.
fn check_storage_version(store: &Store) -> Result<(), StartError> {
    let Some(text) = store.bucket_get(Bucket::Meta, schema::STORAGE_VERSION)? else {
        return Ok(());
    };
    let text = String::from_utf8_lossy(&text);
    match Version::parse(&text) {
        Some(version) if version <= apply::RELEASE => Ok(()),
        _ => Err(StartError::StorageVersion(text.into_owned())),
    }
}

fn load_members(store: &Store) -> Result<Members, StartError> {
    let mut members = Members::default();
    for (_, json) in store.bucket_iter(Bucket::Members)? {
        members.insert(Member::from_json(&json)?);
    }
    for (key, _) in store.bucket_iter(Bucket::MembersRemoved)? {
        let id = std::str::from_utf8(&key).ok().and_then(|key| u64::from_str_radix(key, 16).ok());
        let id = id.ok_or_else(|| StartError::Malformed {
            table: Bucket::MembersRemoved.name(),
            what: format!("key {}", key.escape_ascii()),
        })?;
        members.mark_removed(id);
    }
    for (key, _) in store.bucket_iter(Bucket::Alarm)? {
        let alarm = AlarmMember::decode(key.as_slice()).map_err(|error| StartError::Malformed {
            table: Bucket::Alarm.name(),
            what: error.to_string(),
        })?;
        members.raise(alarm);
    }
    if let Some(version) = store.bucket_get(Bucket::Cluster, schema::CLUSTER_VERSION)? {
        let text = String::from_utf8_lossy(&version);
        let version = Version::parse(&text).ok_or_else(|| StartError::Malformed {
            table: Bucket::Cluster.name(),
            what: format!("clusterVersion {text:?}"),
        })?;
        apply::check_cluster_version(version)?;
        members.set_cluster_version(version);
    }
    if let Some(json) = store.bucket_get(Bucket::Cluster, schema::DOWNGRADE)? {
        members.set_downgrade(Downgrade::from_json(&json)?);
    }
    Ok(members)
}

/// The index checkpoint, if it serves this state. Without one all rows are read.
fn read_checkpoint(store: &Store, opened: &Opened) -> Option<Checkpoint> {
    let mut bytes = Vec::new();
    let read = store
        .read_checkpoint(opened)
        .map(|mut reader| reader.read_to_end(&mut bytes).map(|_| reader.binding));
    match read {
        Ok(Ok(CheckpointBinding { revision, compact_revision, .. })) => {
            Some(Checkpoint { current: Current { revision, compact_revision }, bytes })
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the index checkpoint is damaged; reading all rows instead");
            None
        }
        Err(why) => {
            if !opened.created {
                tracing::info!(%why, "the index checkpoint is not used; reading all rows instead");
            }
            None
        }
    }
}

/// Raft's door and threads, or its turns, and the state.
type Both = (raft::Handle, raft::Raft, Option<raft::Turns>, Loaded);

/// Reads log and state side by side; what raft commits meanwhile waits for apply.
fn open_both(
    store: &Arc<Store>,
    opened: Opened,
    raft_config: raft::Config,
    surroundings: raft::Surroundings,
    bootstrap: Option<&Bootstrap>,
    stepped: bool,
) -> Result<Both, StartError> {
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

#[expect(clippy::too_many_arguments, reason = "everything that a member is made of")]
fn assemble(
    config: Config,
    surroundings: Surroundings,
    lock: store::DirLock,
    store: Arc<Store>,
    opened: Opened,
    identity: Identity,
    raft_config: raft::Config,
    stepped: bool,
) -> Result<(Node, Option<Steps>), StartError> {
    let Surroundings { clock, transport, store: options, reach, supervisor, .. } = &surroundings;
    let (clock, dials, supervisor) = (Arc::clone(clock), transport.is_none(), supervisor.clone());
    let (options, reach) = (options.clone(), reach.clone());
    let (applied_index, conf_state) = (raft_config.applied, raft_config.conf_state.clone());
    let (waits, log_writing, wal) = (Arc::default(), Arc::default(), raft_config.dir.clone());
    let (tokens, passwords) = logins(&config, &clock, &supervisor)?;
    let (committed, batches) = supply();
    let peers = membership::peers(&config, &raft_config, &surroundings);
    let surroundings = surroundings.of_raft(&peers, (&waits, &log_writing), committed);
    let (raft, raft_threads, turns, loaded) =
        open_both(&store, opened, raft_config, surroundings, identity.bootstrap.as_ref(), stepped)?;
    let raft::log::Metadata { node_id, cluster_id } = raft_threads.metadata();
    let (circle, events) = circle(node_id, &config, peers, reach, &loaded.members, &waits);
    dials.then(|| circle.peers.start(raft.clone(), Arc::clone(&events)));
    let (no_space, size_bytes) = (Arc::new(Notify::new()), Arc::new(AtomicI64::new(0)));
    let quota = Arc::new(Quota::new(quota_bytes(&config), Arc::clone(&size_bytes)));
    let (used, (machine, unfinished)) = (loaded.used, machine(store, loaded, tokens, quota));
    let (store, hub) = (Arc::clone(&machine.store), Hub::new(Arc::clone(&machine.mvcc)));
    let applied = Arc::new(AppliedWaits::new(applied_index));
    let conf_states = Arc::new(ConfStates::new(applied_index, conf_state));
    let (installs, door) = take_snapshots(&circle, &store, options);
    let (sweeper, sweeps) = sweeps(&machine, &waits, &clock, &config, unfinished, used);
    let applier = Applier {
        machine: machine.clone(),
        clock: Arc::clone(&clock),
        hub: Arc::clone(&hub),
        waits: Arc::clone(&waits),
        applied: Arc::clone(&applied),
        sweeps,
        supervisor: supervisor.clone(),
        no_space: Arc::clone(&no_space),
        conf_states: Arc::clone(&conf_states),
        raft: raft.clone(),
        installs,
        circle: circle.clone(),
    };
    let rooms = watch_store(&store, &raft, conf_states, size_bytes, (&wal, &no_space));
    let stepped = turns.map(|turns| (turns, door, events));
    let (sweeper, threads, steps) = work(stepped, applier, batches, sweeper)?;
    let node = Node(Arc::new(Inner {
        ids: RequestIds::new(node_id, &*clock),
        member_id: node_id,
        cluster_id,
        config,
        clock,
        raft,
        circle,
        raft_threads: Mutex::new(Some(raft_threads)),
        log_writing,
        machine,
        hub,
        lease_term: AtomicU64::new(0),
        lease_notes: tokio::sync::Mutex::default(),
        passwords,
        waits,
        applied,
        sweeper,
        rooms,
        upkeep: Upkeep::default(),
        admission: Admission::default(),
        threads: Mutex::new(threads),
        is_stepped: steps.is_some(),
        answers: Arc::default(),
        ready: watch::Sender::new(false),
        leader: watch::Sender::new(0),
        has_leader: Notify::new(),
        elected: Mutex::default(),
        supervisor,
        stopping: watch::Sender::new(false),
        _lock: lock,
    }));
    Duties::start(&node, no_space);
    Ok((node, steps))
}

/// What raft hands to apply, of which little waits.
fn supply<T>() -> (SyncSender<T>, Receiver<T>) {
    let is_planted = planted::is(Bug::SupplyWithoutBound);
    sync_channel(if is_planted { 10_000 } else { limits::APPLY_QUEUE_BATCHES_MAX })
}

/// Who this member is among its peers, and what they tell of it.
fn circle(
    node_id: u64,
    config: &Config,
    peers: Arc<Peers>,
    reach: Option<Arc<dyn Reach>>,
    members: &Members,
    waits: &Arc<Waits>,
) -> (Circle, Arc<dyn PeerEvents>) {
    let circle = Circle::new(node_id, peers, reach);
    circle.fill(members, config.join.as_ref());
    let events = circle.events(waits);
    (circle, events)
}

/// What tells users' tokens and passwords.
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

/// Lets peers send and ask for snapshots; what they sent waits there for apply.
fn take_snapshots(
    circle: &Circle,
    store: &Arc<Store>,
    options: Options,
) -> (Arc<Installs>, Arc<dyn Snapshots>) {
    let installs = Arc::new(Installs::default());
    let door = Door { store: Arc::downgrade(store), installs: Arc::clone(&installs), options };
    let door: Arc<dyn Snapshots> = Arc::new(door);
    circle.peers.serve_snapshots(Arc::clone(&door));
    (installs, door)
}

/// The state as apply changes it, and the compaction whose deletions are not complete.
fn machine(
    store: Arc<Store>,
    loaded: Loaded,
    tokens: Arc<Tokens>,
    quota: Arc<Quota>,
) -> (Machine, Option<Compaction>) {
    let Loaded { lessor, members, auth, restore, .. } = loaded;
    let (mvcc, lessor) = (Arc::new(restore.mvcc), Arc::new(Mutex::new(lessor)));
    let (members, auth) = (Arc::new(RwLock::new(members)), Arc::new(RwLock::new(auth)));
    (Machine { store, mvcc, lessor, members, auth, tokens, quota }, restore.unfinished)
}

/// Who sweeps up after compactions and writes the index checkpoint, and where compactions go.
fn sweeps(
    machine: &Machine,
    waits: &Arc<Waits>,
    clock: &Arc<dyn Clock>,
    config: &Config,
    unfinished: Option<Compaction>,
    used: (i64, u64),
) -> (SweepWorker, SweepQueue) {
    let (waits, clock) = (Arc::clone(waits), Arc::clone(clock));
    let Machine { store, mvcc, lessor, .. } = machine.clone();
    let (pace, pause) = (config.checkpoint_pace, config.compaction_sleep_interval);
    let checkpoint =
        Checkpointer::new(store, Arc::clone(&mvcc), lessor, Arc::clone(&clock), pace, used);
    SweepWorker::new(mvcc, waits, clock, pause, unfinished, checkpoint)
}

/// What steps need that threads do not.
type Stepped = (raft::Turns, Arc<dyn Snapshots>, Arc<dyn PeerEvents>);

type Work = (Sweeper, Vec<Thread<()>>, Option<Steps>);

/// Threads that apply and sweep, or the steps that stand for them.
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
    let thread = supervisor.thread("apply", move || applier.run(&committed))?;
    Ok((Sweeper::start(sweeper, &supervisor)?, vec![thread], None))
}

pub(super) fn quota_bytes(config: &Config) -> i64 {
    match config.quota_backend_bytes {
        0 => limits::QUOTA_BYTES,
        quota => quota,
    }
}

/// Follows what the store says of its commits and of a full disk.
fn watch_store(
    store: &Arc<Store>,
    raft: &raft::Handle,
    conf_states: Arc<ConfStates>,
    size_bytes: Arc<AtomicI64>,
    (wal, no_space): (&Path, &Arc<Notify>),
) -> Arc<Rooms> {
    let rooms = Arc::new(Rooms::new(store, raft, wal));
    super::scrub::watch(store);
    let measure = move |store: &Weak<Store>| {
        let Some(store) = store.upgrade() else { return };
        let sizes = store.sizes();
        let bytes = |size: u64| i64::try_from(size).unwrap_or(i64::MAX);
        size_bytes.store(bytes(sizes.total), Ordering::Relaxed);
        metrics::db_total_bytes().set(bytes(sizes.total));
        metrics::db_in_use_bytes().set(bytes(sizes.in_use));
    };
    // The rooms hold the store, which holds these callbacks.
    let (looking, rings) = (Arc::downgrade(&rooms), Arc::clone(no_space));
    let (raft, weak) = (raft.clone(), Arc::downgrade(store));
    measure(&weak);
    let (measure_again, resized) = (measure.clone(), Weak::clone(&weak));
    store.on_resize(move || measure_again(&resized));
    store.on_commit(move |index, term| {
        raft.durable(index, term, conf_states.at(index));
        measure(&weak);
        if looking.upgrade().is_some_and(|rooms| rooms.look()) {
            rings.notify_one();
        }
    });
    let (no_space, looking) = (Arc::clone(no_space), Arc::downgrade(&rooms));
    store.on_no_space(move |is_full| {
        if let Some(rooms) = looking.upgrade() {
            rooms.look();
        }
        if is_full {
            no_space.notify_one();
        }
    });
    rooms
}

/// A member that cannot go on neither leads nor commits nor keeps anybody waiting, even before its
/// process ends: the others elect one that answers.
fn stop_at_failure(applier: &Applier) {
    let (raft, abort) = (applier.raft.clone(), applier.machine.store.aborts());
    let (waits, applied) = (Arc::clone(&applier.waits), Arc::clone(&applier.applied));
    applier.supervisor.on_failure(move |why| {
        raft.stop();
        waits.stop();
        applied.stop();
        abort(why);
    });
}

#[cfg(test)]
mod tests;
