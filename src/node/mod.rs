//! A member: where raft, the state machine and the watchers meet.
//!
//! ```text
//!   rpc ─propose─► id, waiter ─► raft ─► log ─► committed ─► apply thread ─► publish view
//!                                                                            ─► events to the hub
//!                                                                            ─► answer waiters
//!   rpc ─range───► read index ─► applied up to it? ─► view ─► answer
//! ```
//!
//! The order of the last three steps is the promise that the rest relies on: whoever was answered
//! finds his write in every view and in the watch progress that he asks for next.
//!
//! Threads: raft's loop and log writer, the apply thread, the store's committer, the sweeper of
//! compactions. Async code only waits here: for an answer, for an index, for a timer.
//!
//! Its doors take [`Credentials`] and decide, through `auth`, before they answer. What has no such
//! parameter shows no key and changes nothing.
//!
//! This room knows requests as messages, not as RPCs: no codes, no texts of errors, no metadata.

mod admission;
mod answers;
mod applier;
mod auth;
mod auto_compact;
mod boot;
mod checkpointer;
mod corruption;
mod defrag;
mod duties;
mod error;
mod fill;
mod ids;
mod install;
mod leases;
mod membership;
mod nice;
mod passwords;
mod reconfigure;
mod room;
mod scrub;
mod seed;
mod snapshot;
mod space;
mod stall;
mod status;
mod steps;
mod sweeper;
mod usage;
mod versions;
mod waits;
mod watching;

#[cfg(test)]
mod scripts;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};

use crate::apply::{self, Machine};
use crate::auth::{Caller, Credentials, demand};
use crate::clock::{self, Backoff, Clock};
use crate::limits;
use crate::mvcc::{self, Mvcc, Waiting, Wanted};
use crate::pb::raw::{RangeResponse, TxnResponse};
use crate::pb::request_op;
use crate::pb::{AlarmMember, AlarmType, Member, RangeRequest, ResponseHeader};
use crate::pb::{AuthRoleAddRequest, AuthUserAddRequest, RequestHeader, RequestOp, TxnRequest};
use crate::peer::Peers;
use crate::planted::{self, Bug};
use crate::raft;
use crate::store;
use crate::supervise::{Gone, Supervisor, Thread};
use crate::watch::Hub;

pub use crate::apply::{Command as Op, Reply};
pub use answers::Answers;
pub use auto_compact::Retention;
pub use boot::{StartError, Surroundings, ids_of_conf_state};
pub use checkpointer::CheckpointPace;
pub use corruption::CorruptionError;
pub use error::Error;
pub use fill::{Seen, Source};
pub use install::InstallError;
pub use membership::Join;
pub use seed::{Adopted, Seed, adopt, check_entry, hash_kv, settle};
pub use snapshot::{Piece, Pieces, Snapshot, SnapshotError};
pub use status::{HashKv, LeaseInfo, Status};
pub use steps::{Applied, Steps};
pub use usage::{Tally, Usage};
pub use versions::Downgrade;
pub use watching::{PREVIOUS_INLINE_MAX, WatchError, WatchStream};

use admission::{Admission, Turns};
use answers::Turn;
use ids::RequestIds;
use membership::Circle;
use passwords::Passwords;
use room::Rooms;
use space::Upkeep;
use stall::LogWriting;
use sweeper::Sweeper;
use waits::{AppliedWaits, Waits};

/// The version that clients are told: the etcd release whose contract this is.
pub const VERSION: &str = "3.7.1";

#[derive(Clone)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub wal_dir: Option<PathBuf>,
    /// Of the first start; a log that exists says who the member is.
    pub cluster_token: String,
    /// Name and peer URLs of each first member, this one among them.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    /// Where peers reach this member.
    pub peer_urls: Vec<String>,
    /// What the members of a running cluster say of it, for one that joins it.
    pub join: Option<Join>,
    /// Drops all other members at the start.
    pub force_new_cluster: bool,
    pub strict_reconfig_check: bool,
    pub max_learners: usize,
    pub client_urls: Vec<String>,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    /// The first election comes as soon as the others are reached.
    pub initial_election_tick_advance: bool,
    /// Whether a member asks for votes before it starts an election with a new term.
    pub pre_vote: bool,
    pub snapshot_count: u64,
    pub snapshot_catchup_entries: u64,
    /// Time between looks at whether a downgrade is complete; zero is never.
    pub downgrade_check_interval: Duration,
    /// Time between comparisons of the members' histories by the leader; zero is never.
    pub corrupt_check_interval: Duration,
    /// Time between comparisons of what the members' compactions found.
    pub compact_hash_check_interval: Option<Duration>,
    pub max_request_bytes: usize,
    /// 0 is the default, less is no quota.
    pub quota_backend_bytes: i64,
    /// Compacts, reclaims and takes NOSPACE back without being asked.
    pub keeps_space: bool,
    /// Free bytes within the store for which a start defragments it; 0 for none.
    pub defrag_at_start_bytes: u64,
    pub commit_interval: Duration,
    pub retention: Option<Retention>,
    pub compaction_sleep_interval: Duration,
    pub checkpoint_pace: CheckpointPace,
    pub auth: AuthConfig,
}

impl Config {
    /// The server's defaults for a data directory that exists.
    pub fn of(data_dir: &Path) -> Self {
        Self {
            name: "default".to_owned(),
            data_dir: data_dir.to_path_buf(),
            wal_dir: None,
            cluster_token: "etcd-cluster".to_owned(),
            initial_cluster: Vec::new(),
            peer_urls: Vec::new(),
            join: None,
            force_new_cluster: false,
            strict_reconfig_check: true,
            max_learners: 1,
            client_urls: Vec::new(),
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_millis(1000),
            initial_election_tick_advance: true,
            pre_vote: true,
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            downgrade_check_interval: Duration::ZERO,
            corrupt_check_interval: Duration::ZERO,
            compact_hash_check_interval: None,
            max_request_bytes: limits::REQUEST_BYTES_MAX,
            quota_backend_bytes: 0,
            keeps_space: false,
            defrag_at_start_bytes: 0,
            commit_interval: limits::COMMIT_INTERVAL,
            retention: None,
            compaction_sleep_interval: limits::COMPACTION_PAUSE,
            checkpoint_pace: CheckpointPace::default(),
            auth: AuthConfig::default(),
        }
    }
}

/// How logins are answered.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// `--auth-token`, as etcd reads it.
    pub token: String,
    pub token_ttl: Duration,
    pub bcrypt_cost: u32,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            token: "simple".to_owned(),
            token_ttl: limits::SIMPLE_TOKEN_TTL,
            bcrypt_cost: crate::auth::password::COST,
        }
    }
}

struct Inner {
    config: Config,
    clock: Arc<dyn Clock>,
    member_id: u64,
    cluster_id: u64,
    raft: raft::Handle,
    circle: Circle,
    raft_threads: Mutex<Option<raft::Raft>>,
    log_writing: Arc<LogWriting>,
    /// The state, which the apply thread changes and everybody else reads.
    machine: Machine,
    hub: Arc<Hub>,
    /// The term as whose leader the lessor lets leases expire; changed under the lessor's lock.
    lease_term: AtomicU64,
    /// Held from when notes of remaining times are handed out until they are proposed.
    lease_notes: tokio::sync::Mutex<()>,
    passwords: Passwords,
    ids: RequestIds,
    waits: Arc<Waits>,
    applied: Arc<AppliedWaits>,
    sweeper: Sweeper,
    rooms: Arc<Rooms>,
    upkeep: Upkeep,
    admission: Admission,
    threads: Mutex<Vec<Thread<()>>>,
    /// It has no threads: somebody else lets it take its steps.
    is_stepped: bool,
    answers: Arc<Answers>,
    ready: watch::Sender<bool>,
    leader: watch::Sender<u64>,
    /// Wakes who waits for a leader, in the order in which they came: a watch does it in another
    /// order in each run.
    has_leader: Notify,
    /// When this member last became the leader.
    elected: Mutex<Option<Duration>>,
    supervisor: Supervisor,
    stopping: watch::Sender<bool>,
    _lock: store::DirLock,
}

#[derive(Clone)]
pub struct Node(Arc<Inner>);

impl Node {
    pub fn member_id(&self) -> u64 {
        self.0.member_id
    }

    pub fn cluster_id(&self) -> u64 {
        self.0.cluster_id
    }

    /// The newest time that a request may take: etcd's 5 s and two elections.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.0.config.election_timeout
    }

    /// Has a request applied on every member and answers what this member's apply said.
    pub async fn propose(&self, who: &Credentials, op: Op) -> Result<Reply, Error> {
        let caller = self.admit(who, &op).await?;
        if matches!(&op, Op::UserAdd(AuthUserAddRequest { name, .. }) | Op::RoleAdd(AuthRoleAddRequest { name }) if name.len() > limits::AUTH_NAME_BYTES_MAX)
        {
            return Err(Error::RequestTooLarge);
        }
        let has_password = matches!(op, Op::UserAdd(_) | Op::UserChangePassword(_));
        let op = if has_password { Box::pin(self.hash_password(op)).await? } else { op };
        let bytes = self.0.answers.short_bytes();
        let _turn = match measurable(&op) {
            Some(request)
                if !mvcc::answers_shortly_at_once(&self.0.machine.mvcc, &request, bytes) =>
            {
                Box::pin(self.turn_if_long(request.into_owned())).await?
            }
            _ => None,
        };
        self.submit(&caller, op, 0).await
    }

    /// A turn for a write, if what apply has to read for its answer is not little. To find that out may
    /// take some time, and nobody's connection waits for it.
    async fn turn_if_long(&self, request: TxnRequest) -> Result<Option<Turn>, Error> {
        let bytes = self.0.answers.short_bytes();
        let is_short = move |mvcc: &Mvcc, wanted: &Wanted| {
            mvcc.read(wanted, |view| mvcc::answers_shortly(view, &request, bytes))
        };
        match self.read_after(&self.0.admission.measures, is_short).await? {
            true => Ok(None),
            false => {
                let patience = self.request_timeout();
                Ok(Some(self.0.answers.turn_to_write(&*self.0.clock, patience).await?))
            }
        }
    }

    /// The same for what the member wants itself: it speaks as root.
    pub(super) async fn propose_own(&self, op: Op) -> Result<Reply, Error> {
        let caller = self.own_identity();
        self.submit(&caller, op, 0).await
    }

    /// The same for what only the leader of a term may want: it knows what clients were promised,
    /// and a later one has promised more.
    pub(super) async fn propose_as_leader(&self, op: Op, term: u64) -> Result<Reply, Error> {
        let caller = self.own_identity();
        self.submit(&caller, op, term).await
    }

    /// A term of 0 is any leader's.
    async fn submit(&self, caller: &Caller, op: Op, term: u64) -> Result<Reply, Error> {
        let inner = &self.0;
        let status = inner.raft.status();
        let backlog = status.committed.saturating_sub(inner.applied.index());
        // A member that is far behind may be so because its disk is full, which others must hear of.
        if backlog > limits::APPLY_BACKLOG_MAX && !matches!(op, Op::Alarm(_)) {
            return Err(Error::TooManyRequests);
        }
        let op = self.prepare(op);
        let id = inner.ids.next();
        let (username, auth_revision) = caller.header();
        let header = RequestHeader { id, username: username.to_owned(), auth_revision };
        let entry = apply::Entry { header, command: op };
        let data = entry.encode();
        if data.len() > inner.config.max_request_bytes {
            return Err(Error::RequestTooLarge);
        }
        let _under_way = self.admit_bytes(&entry.command, data.len())?;
        crate::metrics::proposals_pending().inc();
        let propose = |raft: &raft::Handle| match term {
            0 => raft.propose(id, data.clone()),
            term => raft.propose_as_leader(id, data.clone(), term),
        };
        let reply = self.propose_until_taken(id, propose, term).await;
        crate::metrics::proposals_pending().dec();
        let mut reply = reply?;
        self.fill_reply(&mut reply);
        Ok(reply)
    }

    async fn propose_until_taken(
        &self,
        id: u64,
        propose: impl Fn(&raft::Handle) -> Result<(), raft::Error>,
        term: u64,
    ) -> Result<Reply, Error> {
        let begun = self.0.clock.now();
        let is_proposed = AtomicBool::new(false);
        let mut attempts = pin!(self.attempt(id, propose, &is_proposed, term));
        match clock::timeout(&*self.0.clock, self.request_timeout(), attempts.as_mut()).await {
            Some(reply) => {
                self.0.raft.note_answer(self.0.clock.now().saturating_sub(begun));
                reply
            }
            // A physical compaction has no time limit but its caller's, as in etcd.
            None if self.0.waits.is_applied(id) => attempts.await,
            None => {
                crate::metrics::proposals_failed().inc();
                Err(self.timeout_kind(begun, is_proposed.load(Ordering::Relaxed)))
            }
        }
    }

    /// Proposes under an id and waits for what apply answers. A proposal that is known to stand
    /// in no log, as there is no leader or none can be reached, is made again, unless it is for one
    /// term only.
    async fn attempt(
        &self,
        id: u64,
        propose: impl Fn(&raft::Handle) -> Result<(), raft::Error>,
        is_proposed: &AtomicBool,
        term: u64,
    ) -> Result<Reply, Error> {
        let inner = &self.0;
        let mut backoff = Backoff::new(limits::PROPOSE_RETRY, limits::PROPOSE_RETRY_MAX);
        loop {
            self.some_leader().await;
            let (reply, _forget) = inner.waits.register(id);
            propose(&inner.raft)?;
            is_proposed.store(true, Ordering::Relaxed);
            let reply = reply.await;
            is_proposed.store(false, Ordering::Relaxed);
            match reply {
                Ok(Err(Error::Dropped)) if term != 0 => return Err(Error::NotLeader),
                Ok(Err(Error::Dropped)) => backoff.rest(&*inner.clock).await,
                Ok(reply) => return reply,
                Err(_) => return Err(Error::Stopped),
            }
        }
    }

    /// Waits until a leader is known, and says who; or until the member stops, which raft tells to
    /// whoever asks it next.
    async fn some_leader(&self) -> u64 {
        loop {
            let changed = self.0.has_leader.notified();
            let leader = *self.0.leader.borrow();
            if leader != 0 || *self.0.stopping.borrow() {
                return leader;
            }
            changed.await;
        }
    }

    /// What a client is told of a request that took too long, in etcd's distinctions: it found no
    /// leader; it was made while the leader before this one failed; this member lost who it needs.
    fn timeout_kind(&self, begun: Duration, is_proposed: bool) -> Error {
        let inner = &self.0;
        if !is_proposed {
            return Error::DeadlineExceeded;
        }
        let two_elections = 2 * inner.config.election_timeout;
        let elected = *inner.elected.lock();
        if elected.is_some_and(|at| begun < at && begun + two_elections > at) {
            return Error::TimeoutDueToLeaderFail;
        }
        let took = inner.clock.now().saturating_sub(begun);
        let is_connected = |id: u64| inner.circle.reach.connected_for(id) > Some(took);
        let leader = *inner.leader.borrow();
        let has_whom_it_needs = if leader == inner.member_id {
            let members = self.members();
            let reached = members.iter().filter(|it| it.id == leader || is_connected(it.id));
            reached.count() > members.len() / 2
        } else {
            leader == 0 || is_connected(leader)
        };
        if has_whom_it_needs { Error::Timeout } else { Error::TimeoutDueToConnectionLost }
    }

    /// What depends on flags or chance is settled before the log, so that apply does not ask.
    fn prepare(&self, op: Op) -> Op {
        match op {
            Op::LeaseGrant(mut grant) => {
                while grant.id == 0 {
                    grant.id = (self.0.ids.next() & i64::MAX.cast_unsigned()).cast_signed();
                }
                grant.ttl = grant.ttl.max(minimum_ttl_seconds(self.0.config.election_timeout));
                Op::LeaseGrant(grant)
            }
            op => op,
        }
    }

    fn fill_reply(&self, reply: &mut Reply) {
        if let Some(header) = reply.header_mut() {
            self.fill(header);
        }
    }

    /// Completes a header with what does not depend on the request; a revision of 0 becomes the
    /// current one.
    pub fn fill(&self, header: &mut Option<ResponseHeader>) {
        let header = header.get_or_insert_default();
        header.cluster_id = self.0.cluster_id;
        header.member_id = self.0.member_id;
        header.raft_term = self.0.raft.status().term;
        if header.revision == 0 {
            header.revision = self.0.machine.mvcc.current().revision;
        }
    }

    pub fn header(&self) -> ResponseHeader {
        let mut header = None;
        self.fill(&mut header);
        header.unwrap_or_default()
    }

    /// Waits until all that was committed when it was called is applied here. Without a leader it
    /// waits here for one, as a proposal does, and not in raft.
    pub async fn barrier(&self) -> Result<(), Error> {
        let asked = async {
            self.some_leader().await;
            let (done, waiting) = oneshot::channel();
            let applied = Arc::clone(&self.0.applied);
            self.0.raft.read_index(move |index| match index {
                Ok(_) if planted::is(Bug::ReadBeforeApply) => applied.wait(0, done),
                Ok(index) => applied.wait(index, done),
                Err(error) => drop(done.send(Err(error.into()))),
            });
            waiting.await.unwrap_or(Err(Error::Stopped))
        };
        match clock::timeout(&*self.0.clock, self.request_timeout(), asked).await {
            Some(result) => result,
            None => {
                crate::metrics::read_indexes_failed().inc();
                Err(Error::Timeout)
            }
        }
    }

    /// The same for who asks the leader about leases: once it is known what was committed, apply
    /// has a second to get there.
    pub(super) async fn lease_barrier(&self) -> Result<(), Error> {
        let asked = async {
            self.some_leader().await;
            let (told, asked) = oneshot::channel();
            self.0.raft.read_index(move |index| drop(told.send(index)));
            Ok(asked.await.map_err(|_| Error::Stopped)??)
        };
        let index = clock::timeout(&*self.0.clock, self.request_timeout(), asked).await;
        let index = index.unwrap_or(Err(Error::Timeout))?;
        let (done, waiting) = oneshot::channel();
        self.0.applied.wait(index, done);
        match clock::timeout(&*self.0.clock, limits::LEASE_APPLY_TIMEOUT, waiting).await {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::Stopped),
            None => Err(Error::TimeoutWaitAppliedIndex),
        }
    }

    pub async fn range(
        &self,
        who: &Credentials,
        request: &RangeRequest,
    ) -> Result<RangeResponse, Error> {
        self.range_as(who, request, |response| response).await
    }

    /// What is made of a long answer is made where that was read, in the same turn.
    pub async fn range_as<T: Send + 'static>(
        &self,
        who: &Credentials,
        request: &RangeRequest,
        make: impl FnOnce(RangeResponse) -> T + Send + 'static,
    ) -> Result<T, Error> {
        if !request.serializable {
            self.barrier().await?;
        }
        let permit = self.authorize(who, &demand::range(request)).await?;
        let bytes = self.0.answers.short_bytes();
        let shortly = || self.0.machine.mvcc.view().range_shortly(request, bytes);
        let answer = match is_small(request).then(shortly) {
            None | Some(Err(mvcc::Error::TakesLong)) => {
                let (request, is_count) = (request.clone(), request.count_only);
                let (header, raft) = (self.header(), self.0.raft.clone());
                let range = move |mvcc: &Mvcc, wanted: &Wanted| {
                    let mut response = mvcc.read(wanted, |view| view.range(&request))?;
                    complete(&mut response.header, header, &raft);
                    Ok(make(response))
                };
                // There is little to a count, but it may look at every key.
                match is_count {
                    true => self.count_long(range).await?,
                    false => self.read_long(range).await?,
                }
            }
            Some(response) => {
                let mut response = response?;
                self.fill(&mut response.header);
                make(response)
            }
        };
        permit.still_holds(self)?;
        crate::metrics::mvcc_range().inc();
        Ok(answer)
    }

    /// Whether a read would be served, for probes, which nobody logs in for. It shows nothing.
    pub async fn probe(&self, serializable: bool) -> Result<(), Error> {
        self.fence()?;
        if !serializable {
            self.log_goes_on()?;
            self.barrier().await?;
        }
        let request = RangeRequest { keys_only: true, limit: 1, ..Default::default() };
        self.0.machine.mvcc.view().range(&request)?;
        Ok(())
    }

    /// Runs a read-only transaction. What is made of a long answer is made where that was read.
    pub async fn read_txn_as<T: Send + 'static>(
        &self,
        who: &Credentials,
        request: &TxnRequest,
        make: impl FnOnce(TxnResponse) -> T + Send + 'static,
    ) -> Result<T, Error> {
        if !mvcc::is_serializable(request) {
            self.barrier().await?;
        }
        let permit = self.authorize(who, &demand::txn(request)).await?;
        let shortly = match is_small_txn(request) {
            true => self.read_txn_shortly(request.clone()).await?,
            false => None,
        };
        let answer = match shortly {
            Some(mut response) => {
                self.fill(&mut response.header);
                make(response)
            }
            None => {
                let (request, header) = (request.clone(), self.header());
                let raft = self.0.raft.clone();
                let read = move |mvcc: &Mvcc, wanted: &Wanted| {
                    let mut response = mvcc.read(wanted, |view| mvcc::read_txn(view, &request))?;
                    complete(&mut response.header, header, &raft);
                    Ok(make(response))
                };
                self.read_long(read).await?
            }
        };
        permit.still_holds(self)?;
        crate::metrics::mvcc_txn().inc();
        Ok(answer)
    }

    /// None if its answer is long.
    async fn read_txn_shortly(&self, request: TxnRequest) -> Result<Option<TxnResponse>, Error> {
        let bytes = self.0.answers.short_bytes();
        let read = move |mvcc: &Mvcc, wanted: &Wanted| match mvcc
            .read(wanted, |view| mvcc::read_txn_shortly(view, &request, bytes))
        {
            Err(mvcc::Error::TakesLong) => Ok(None),
            response => response.map(Some),
        };
        self.read(read).await
    }

    /// Reads whose answers may be long take turns.
    async fn read_long<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Mvcc, &Wanted) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = self.0.answers.turn(&*self.0.clock, self.request_timeout()).await?;
        self.read_in_turn(turn, self.in_slices(f)).await
    }

    async fn count_long<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Mvcc, &Wanted) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.read_after(&self.0.admission.counts, self.in_slices(f)).await
    }

    /// Reads without an end in sight take turns at the processors, too.
    fn in_slices<T>(
        &self,
        f: impl FnOnce(&Mvcc, &Wanted) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> impl FnOnce(&Mvcc, &Wanted) -> Result<T, mvcc::Error> + Send + 'static {
        let processors = (!self.0.is_stepped).then(|| Arc::clone(&self.0.admission.processors));
        move |mvcc, wanted| {
            processors.map_or(Ok(()), |processors| wanted.take_turns_at(&processors))?;
            f(mvcc, wanted)
        }
    }

    /// Reads once it has a turn of these, for which it waits no longer than a request may take.
    async fn read_after<T: Send + 'static>(
        &self,
        turns: &Turns,
        f: impl FnOnce(&Mvcc, &Wanted) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = clock::timeout(&*self.0.clock, self.request_timeout(), turns.begin()).await;
        self.read_in_turn(turn.unwrap_or(Err(Error::TooManyRequests))?, f).await
    }

    /// The turn goes with the work, which ends some time after the call if that is cancelled.
    pub(super) async fn read_in_turn<T: Send + 'static>(
        &self,
        turn: impl Send + 'static,
        f: impl FnOnce(&Mvcc, &Wanted) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let work = move |mvcc: &Mvcc, wanted: &Wanted| {
            let _turn = turn;
            f(mvcc, wanted)
        };
        self.read(work).await
    }

    /// Reads that may take long leave the threads that serve connections.
    async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Mvcc, &Wanted) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.fence()?;
        let mvcc = Arc::clone(&self.0.machine.mvcc);
        let waiting = Waiting::default();
        let wanted = waiting.wanted();
        let (supervisor, read) = (&self.0.supervisor, move || f(&mvcc, &wanted));
        let read = match self.0.is_stepped {
            true => supervisor.inline("read", read).await,
            false => supervisor.blocking("read", read).await,
        };
        Ok(read.map_err(|Gone| Error::Stopped)??)
    }

    /// Reads of all of the store give way to everybody else.
    async fn read_all<T: Send + 'static>(
        &self,
        turns: &Turns,
        f: impl FnOnce(&Mvcc, &Wanted) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.fence()?;
        if self.0.is_stepped {
            return self.read(f).await;
        }
        let turn = turns.begin().await?;
        let mvcc = Arc::clone(&self.0.machine.mvcc);
        let waiting = Waiting::default();
        let wanted = waiting.wanted();
        let work = move || {
            let _turn = turn;
            Ok(f(&mvcc, &wanted)?)
        };
        self.nice("read-all", work).await
    }

    /// 64 random bits.
    pub fn random(&self) -> u64 {
        self.0.clock.random()
    }

    /// For what looks at a member from within its process. No RPC and no HTTP may come this way.
    pub fn unguarded(&self) -> Unguarded<'_> {
        Unguarded(&self.0)
    }

    pub fn members(&self) -> Vec<Member> {
        self.0.machine.members.read().list()
    }

    /// Those that the cluster has raised, and CORRUPT of this member while it is fenced.
    pub fn alarms(&self) -> Vec<AlarmMember> {
        let mut alarms = self.0.machine.members.read().alarms(AlarmType::None as i32);
        let corrupt = AlarmMember { member_id: self.0.member_id, alarm: AlarmType::Corrupt as i32 };
        if self.is_fenced() && !alarms.contains(&corrupt) {
            alarms.push(corrupt);
        }
        alarms
    }

    /// The leader's id; 0 while there is none.
    pub fn leader(&self) -> watch::Receiver<u64> {
        self.0.leader.subscribe()
    }

    /// Whether the member has said through the log who it is, and may serve.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.0.ready.subscribe()
    }

    /// What answers hold that are not sent yet.
    pub fn answers(&self) -> &Arc<Answers> {
        &self.0.answers
    }

    /// What answers peers' requests below `/raft`.
    pub fn peers(&self) -> &Arc<Peers> {
        &self.0.circle.peers
    }

    /// Whether this member only follows, and has no vote.
    pub fn is_learner(&self) -> bool {
        self.0.circle.is_learner.load(Ordering::Relaxed)
    }

    /// Set when this member was removed from the cluster: it has to end, after this time.
    pub fn removed(&self) -> watch::Receiver<Option<Duration>> {
        self.0.circle.removed.subscribe()
    }

    /// Waits until somebody who stays knows that this member was removed, but not for ever.
    pub async fn leave(&self) {
        for _ in 0..limits::REMOVED_LOOKS_MAX {
            let is_told = *self.0.circle.removed.borrow() == Some(Duration::ZERO);
            if is_told || self.0.raft.may_leave() {
                return;
            }
            self.0.clock.sleep(limits::REMOVED_LOOK_INTERVAL).await;
        }
    }

    /// Why the member cannot go on, once it cannot.
    pub fn fatal(&self) -> watch::Receiver<Option<String>> {
        self.0.supervisor.failure()
    }

    /// What starts this member's threads and tasks.
    pub fn supervisor(&self) -> &Supervisor {
        &self.0.supervisor
    }
}

/// The state, without the question who looks.
pub struct Unguarded<'a>(&'a Inner);

impl<'a> Unguarded<'a> {
    pub fn mvcc(&self) -> &'a Arc<Mvcc> {
        &self.0.machine.mvcc
    }

    pub fn hub(&self) -> &'a Arc<Hub> {
        &self.0.hub
    }

    pub fn leases(&self) -> Vec<i64> {
        self.0.machine.lessor.lock().list()
    }
}

/// The shortest lease: one and a half elections, so that a change of leader cannot end it.
fn minimum_ttl_seconds(election_timeout: Duration) -> i64 {
    let millis = election_timeout.as_millis() * 3 / 2;
    i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX)
}

/// Whether a transaction that only reads may turn out short; others take a turn.
fn is_small_txn(request: &TxnRequest) -> bool {
    use crate::pb::request_op::Request as Op;
    let is_small = |op: &crate::pb::RequestOp| match &op.request {
        Some(Op::RequestRange(range)) => is_small(range),
        _ => false,
    };
    // A compare with a range may go through all of it.
    request.compare.iter().all(|compare| compare.range_end.is_empty())
        && request.success.iter().chain(&request.failure).all(is_small)
}

/// Adds to an answer's revision who this is, and the term as it is now.
fn complete(header: &mut Option<ResponseHeader>, own: ResponseHeader, raft: &raft::Handle) {
    let read_at = header.as_ref().map(|header| header.revision).filter(|revision| *revision != 0);
    let revision = read_at.unwrap_or(own.revision);
    *header = Some(ResponseHeader { revision, raft_term: raft.status().term, ..own });
}

/// Whether a range touches so little that it is answered where it was received.
fn is_small(request: &RangeRequest) -> bool {
    mvcc::keys_of_range(request).is_some_and(|keys| keys <= limits::INLINE_RANGE_KEYS_MAX)
}

/// What a write reads for its answer, as a transaction; None if it answers with no pairs, or with one
/// at most.
fn measurable(op: &Op) -> Option<Cow<'_, TxnRequest>> {
    match op {
        Op::Txn(txn) if mvcc::answers_with_pairs(txn) => Some(Cow::Borrowed(txn)),
        Op::DeleteRange(delete) if delete.prev_kv => {
            let request = Some(request_op::Request::RequestDeleteRange(delete.clone()));
            let success = vec![RequestOp { request }];
            Some(Cow::Owned(TxnRequest { success, ..Default::default() }))
        }
        _ => None,
    }
}
