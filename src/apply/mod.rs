//! The state machine: one path by which a log entry changes the state, on every member alike.
//!
//! ```text
//!   entry ─decode─► alarms: CORRUPT, NOSPACE ─► may the caller? ─► dispatch ─► mvcc, lease, auth,
//!                                                                        members ─► outcome
//! ```
//!
//! The same entries give the same state: nothing here asks the time, chance, the disk's size or a
//! flag. What depends on those is decided before a request is proposed. Two things are local and
//! change no state: whether the disk is full only turns the reply into an error (the write stands,
//! as in etcd), and a lease's deadline, which only the leader looks at.
//!
//! Apply knows nothing of raft, watchers or the network. Its errors are of two kinds: those that
//! are the reply, and those after which the member must stop.

mod auth;
pub mod command;
mod v2;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use prost::Message;

use crate::auth::{Auth, Tokens};
use crate::lease::{self, Lessor};
use crate::members::{self, Downgrade, Members, Refused, member_key};
use crate::metrics::Operation;
use crate::mvcc::{self, Change, Compaction, Leases, Mvcc};
use crate::pb::raw::{DeleteRangeResponse, PutResponse, TxnResponse};
use crate::pb::request_op::Request;
use crate::pb::{self, alarm_request::AlarmAction};
use crate::pb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, AuthDisableResponse, AuthEnableResponse,
    AuthRoleAddResponse, AuthRoleDeleteResponse, AuthRoleGetResponse,
    AuthRoleGrantPermissionResponse, AuthRoleListResponse, AuthRoleRevokePermissionResponse,
    AuthStatusResponse, AuthUserAddResponse, AuthUserChangePasswordResponse,
    AuthUserDeleteResponse, AuthUserGetResponse, AuthUserGrantRoleResponse, AuthUserListResponse,
    AuthUserRevokeRoleResponse, AuthenticateResponse, CompactionRequest, CompactionResponse,
    LeaseCheckpointRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, PutRequest, RequestOp, ResponseHeader, TxnRequest, leasepb,
    membershippb::{
        ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
    },
};
use crate::store::{Bucket, Store, schema};
use crate::types::Version;
pub use auth::{Stage, demand};
pub use command::{Command, Entry};

/// The reply to a request that was refused, the same on every member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("mvcc: required revision has been compacted")]
    Compacted,
    #[error("mvcc: required revision is a future revision")]
    FutureRev,
    #[error("key not found")]
    KeyNotFound,
    #[error("requested lease not found")]
    LeaseNotFound,
    #[error("lease already exists")]
    LeaseExist,
    #[error("too large lease TTL")]
    LeaseTtlTooLarge,
    #[error("mvcc: database space exceeded")]
    NoSpace,
    #[error("corrupt cluster")]
    Corrupt,
    #[error(transparent)]
    Auth(#[from] crate::auth::Error),
    #[error("member not found")]
    MemberNotFound,
    #[error("member ID already exist")]
    MemberExist,
    #[error("Peer URLs already exists")]
    PeerUrlExist,
    #[error("can only promote a learner member")]
    MemberNotLearner,
    #[error("re-configuration failed due to not enough started members")]
    MemberNotEnoughStarted,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Removed | Refused::NotFound => Self::MemberNotFound,
            Refused::Exists => Self::MemberExist,
            Refused::PeerUrlExists => Self::PeerUrlExist,
            Refused::NotLearner => Self::MemberNotLearner,
            Refused::LastVoter => Self::MemberNotEnoughStarted,
        }
    }
}

/// The newest release whose contract this is; members that run it agree on it.
pub const RELEASE: Version = Version::new(3, 7);

/// The cluster has agreed on a version whose entries this release may not understand.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid downgrade; server version is lower than determined cluster version \
     (server version {RELEASE}, cluster version {0})"
)]
pub struct NewerCluster(Version);

pub fn check_cluster_version(version: Version) -> Result<(), NewerCluster> {
    if version > RELEASE { Err(NewerCluster(version)) } else { Ok(()) }
}

/// Whether the store's version follows such a cluster version. Releases before 3.6 know of none, nor
/// does the version of a cluster whose members do not all answer yet, 3.0.
pub fn has_storage_version(version: Version) -> bool {
    version >= Version::new(3, 6)
}

/// The member cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    #[error(transparent)]
    Mvcc(mvcc::Error),
    #[error(transparent)]
    Entry(#[from] command::Error),
    #[error(transparent)]
    Member(#[from] crate::members::Malformed),
    #[error(transparent)]
    Auth(#[from] crate::auth::Malformed),
    /// Raft stops; the next start applies the entry again.
    #[error("the member is stopping")]
    Stopping,
    #[error("a configuration change cannot be made: {0}")]
    ConfChange(String),
    #[error("the cluster's version {0:?} is none")]
    ClusterVersion(String),
    #[error(transparent)]
    Newer(#[from] NewerCluster),
    #[error("the snapshot of entry {0} is not there")]
    MissingSnapshot(u64),
    #[error(transparent)]
    Store(#[from] crate::store::Error),
}

impl From<lease::Error> for Error {
    fn from(error: lease::Error) -> Self {
        match error {
            lease::Error::NotFound => Self::LeaseNotFound,
            lease::Error::Exists => Self::LeaseExist,
            lease::Error::TtlTooLarge => Self::LeaseTtlTooLarge,
        }
    }
}

/// Whether a normal entry of the log can be applied, for who looks at it before that.
pub fn check(data: Bytes) -> Result<Option<Command>, Fatal> {
    if data.is_empty() {
        return Ok(None);
    }
    let Entry { command, .. } = Entry::decode(data)?;
    if let Command::ClusterVersionSet(set) = &command {
        cluster_version(set)?;
    }
    Ok(Some(command))
}

/// The version that a request sets, if this release may go on with it.
fn cluster_version(request: &ClusterVersionSetRequest) -> Result<Version, Fatal> {
    let version = Version::parse(&request.ver);
    let version = version.ok_or_else(|| Fatal::ClusterVersion(request.ver.clone()))?;
    check_cluster_version(version)?;
    Ok(version)
}

/// Splits what mvcc says into the reply and the end.
fn split<T>(result: Result<T, mvcc::Error>) -> Result<Result<T, Error>, Fatal> {
    Ok(match result {
        Ok(reply) => Ok(reply),
        Err(mvcc::Error::Compacted) => Err(Error::Compacted),
        Err(mvcc::Error::FutureRev) => Err(Error::FutureRev),
        Err(mvcc::Error::KeyNotFound) => Err(Error::KeyNotFound),
        Err(mvcc::Error::LeaseNotFound) => Err(Error::LeaseNotFound),
        Err(other) => return Err(Fatal::Mvcc(other)),
    })
}

/// Answers, with the revision in their headers.
#[derive(Clone, Debug)]
pub enum Reply {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compaction(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    Alarm(AlarmResponse),
    AuthEnable(AuthEnableResponse),
    AuthDisable(AuthDisableResponse),
    /// With a simple token; others are made by the member that answers.
    Authenticate(AuthenticateResponse),
    AuthStatus(AuthStatusResponse),
    UserAdd(AuthUserAddResponse),
    UserDelete(AuthUserDeleteResponse),
    UserGet(AuthUserGetResponse),
    UserChangePassword(AuthUserChangePasswordResponse),
    UserGrantRole(AuthUserGrantRoleResponse),
    UserRevokeRole(AuthUserRevokeRoleResponse),
    UserList(AuthUserListResponse),
    RoleList(AuthRoleListResponse),
    RoleAdd(AuthRoleAddResponse),
    RoleDelete(AuthRoleDeleteResponse),
    RoleGet(AuthRoleGetResponse),
    RoleGrantPermission(AuthRoleGrantPermissionResponse),
    RoleRevokePermission(AuthRoleRevokePermissionResponse),
    /// The members after a change.
    Members(Vec<pb::Member>),
    /// Of requests that members make themselves.
    Done,
}

impl Reply {
    /// Bytes of the pairs in it, which are all that can be large.
    pub fn pair_bytes(&self) -> usize {
        match self {
            Self::Put(response) => response.prev_kv.as_ref().map_or(0, Bytes::len),
            Self::DeleteRange(response) => response.prev_kvs.iter().map(Bytes::len).sum(),
            Self::Txn(response) => response.encoded_len(),
            _ => 0,
        }
    }
}

/// What applying an entry gave.
pub struct Outcome {
    /// Under which the proposer waits.
    pub request_id: u64,
    /// None for an entry that asks for nothing.
    pub operation: Option<Operation>,
    pub reply: Result<Reply, Error>,
    pub changes: Vec<Change>,
    /// A compaction to sweep, and whether the reply waits for that.
    pub compaction: Option<(Compaction, bool)>,
}

/// Size of the backend against its limit, for the local answer to a full disk.
#[derive(Debug)]
pub struct Quota {
    /// 0 or less: none.
    limit_bytes: i64,
    size_bytes: Arc<AtomicI64>,
}

impl Quota {
    pub fn new(limit_bytes: i64, size_bytes: Arc<AtomicI64>) -> Self {
        Self { limit_bytes, size_bytes }
    }

    pub fn has_room_for(&self, cost_bytes: i64) -> bool {
        let size_bytes = self.size_bytes.load(Ordering::Relaxed);
        self.limit_bytes <= 0 || size_bytes.saturating_add(cost_bytes) < self.limit_bytes
    }
}

const PUT_OVERHEAD_BYTES: i64 = 256;
const LEASE_BYTES: i64 = 64;

fn put_cost(put: &PutRequest) -> i64 {
    let data = i64::try_from(put.key.len() + put.value.len()).unwrap_or(i64::MAX);
    PUT_OVERHEAD_BYTES.saturating_add(data)
}

fn ops_cost(ops: &[RequestOp]) -> i64 {
    let cost = |op: &RequestOp| match &op.request {
        Some(Request::RequestPut(put)) => put_cost(put),
        Some(Request::RequestTxn(txn)) => txn_cost(txn),
        _ => 0,
    };
    ops.iter().map(cost).fold(0, i64::saturating_add)
}

fn txn_cost(txn: &TxnRequest) -> i64 {
    ops_cost(&txn.success).max(ops_cost(&txn.failure))
}

/// Bytes that a request may add, by etcd's estimate; None if it adds none.
pub fn cost(command: &Command) -> Option<i64> {
    match command {
        Command::Put(put) => Some(put_cost(put)),
        // One that only reads or deletes has to pass on a full store as well.
        Command::Txn(txn) => Some(txn_cost(txn)).filter(|bytes| *bytes > 0),
        Command::LeaseGrant(_) => Some(LEASE_BYTES),
        _ => None,
    }
}

/// The state that requests change.
#[derive(Clone)]
pub struct Machine {
    pub store: Arc<Store>,
    pub mvcc: Arc<Mvcc>,
    pub lessor: Arc<Mutex<Lessor>>,
    pub members: Arc<RwLock<Members>>,
    pub auth: Arc<RwLock<Auth>>,
    pub tokens: Arc<Tokens>,
    pub quota: Arc<Quota>,
}

/// Lets mvcc ask about leases and attach keys to them.
struct LeaseDoor<'a>(&'a Mutex<Lessor>);

impl Leases for LeaseDoor<'_> {
    fn exists(&self, id: i64) -> bool {
        self.0.lock().exists(id)
    }

    fn set(&mut self, key: &Bytes, lease: i64) {
        self.0.lock().set(key, lease);
    }
}

impl Machine {
    /// Applies a normal entry. `now` is the leader's clock, for deadlines. `is_awaited` says whether
    /// somebody on this member waits for the answer to a request: what only the answer would show is
    /// not read otherwise.
    pub fn apply(
        &self,
        index: u64,
        term: u64,
        data: Bytes,
        now: Duration,
        is_awaited: &dyn Fn(u64) -> bool,
    ) -> Result<Outcome, Fatal> {
        let mut outcome = Outcome {
            request_id: 0,
            operation: None,
            reply: Ok(Reply::Done),
            changes: Vec::new(),
            compaction: None,
        };
        // A new leader's first entry is empty.
        if !data.is_empty() {
            let entry = Entry::decode(data)?;
            outcome.request_id = entry.header.id;
            outcome.operation = entry.command.operation();
            let allowed = self.gate(&entry.command).and_then(|()| self.authorize(&entry));
            outcome.reply = match allowed {
                Ok(()) => self.dispatch(entry.command, index, now, is_awaited, &mut outcome)?,
                Err(refusal) => Err(refusal),
            };
        }
        self.store.seal(index, term);
        Ok(outcome)
    }

    /// Changes the membership if the change is valid. The caller seals the entry, as the
    /// configuration goes with it.
    pub fn change_members(&self, change: &members::Change) -> Result<Reply, Error> {
        let mut members = self.members.write();
        members.validate(change)?;
        let key = member_key(change.id());
        match members.change(change) {
            Some(member) => self.store.put(Bucket::Members, key, member.to_json()),
            None => {
                self.store.delete(Bucket::Members, key.clone());
                self.store.put(Bucket::MembersRemoved, key, b"removed".to_vec());
            }
        }
        Ok(Reply::Members(members.list()))
    }

    /// Alarms stand in front of everything else.
    fn gate(&self, command: &Command) -> Result<(), Error> {
        let members = self.members.read();
        if members.has_alarm(AlarmType::Corrupt) {
            match command {
                Command::Put(_)
                | Command::DeleteRange(_)
                | Command::Txn(_)
                | Command::Compaction(_)
                | Command::LeaseGrant(_)
                | Command::LeaseRevoke(_) => return Err(Error::Corrupt),
                _ => {}
            }
        }
        if members.has_alarm(AlarmType::Nospace) {
            match command {
                command if cost(command).is_some() => return Err(Error::NoSpace),
                _ => {}
            }
        }
        Ok(())
    }

    fn dispatch(
        &self,
        command: Command,
        index: u64,
        now: Duration,
        is_awaited: &dyn Fn(u64) -> bool,
        outcome: &mut Outcome,
    ) -> Result<Result<Reply, Error>, Fatal> {
        // Asked before the change, answered after it: the write stands, the reply says no.
        let has_room = cost(&command).is_none_or(|cost| self.quota.has_room_for(cost));
        let reply = match command {
            Command::Put(put) => {
                let mut write = self.mvcc.begin();
                let reply = split(write.checked_put(&put, &mut LeaseDoor(&self.lessor)))?;
                outcome.changes = write.finish();
                reply.map(Reply::Put)
            }
            Command::DeleteRange(delete) => {
                let mut write = self.mvcc.begin().awaited(is_awaited(outcome.request_id));
                let reply = split(write.delete_range(&delete, &mut LeaseDoor(&self.lessor)))?;
                outcome.changes = write.finish();
                reply.map(Reply::DeleteRange)
            }
            Command::Txn(txn) => {
                let mut write = self.mvcc.begin().awaited(is_awaited(outcome.request_id));
                let reply = split(write.txn(&txn, &mut LeaseDoor(&self.lessor)))?;
                outcome.changes = write.finish();
                reply.map(Reply::Txn)
            }
            Command::Compaction(compaction) => self.compact(compaction, outcome)?,
            Command::LeaseGrant(grant) => self.lease_grant(grant, now),
            Command::LeaseRevoke(revoke) => self.lease_revoke(revoke, outcome),
            Command::LeaseCheckpoint(checkpoint) => Ok(self.lease_checkpoint(&checkpoint, now)),
            Command::Alarm(alarm) => Ok(Reply::Alarm(self.alarm(alarm))),
            Command::ClusterVersionSet(set) => Ok(self.set_cluster_version(&set)?),
            Command::ClusterMemberAttrSet(set) => Ok(self.set_attributes(set)),
            Command::DowngradeInfoSet(set) => Ok(self.set_downgrade(set)),
            Command::V2(_) => Ok(Reply::Done),
            command @ (Command::AuthEnable(_)
            | Command::AuthDisable(_)
            | Command::Authenticate(_)
            | Command::AuthStatus(_)) => self.apply_auth(command, index),
            command @ (Command::UserAdd(_)
            | Command::UserDelete(_)
            | Command::UserGet(_)
            | Command::UserChangePassword(_)
            | Command::UserGrantRole(_)
            | Command::UserRevokeRole(_)
            | Command::UserList(_)) => self.apply_user(command),
            command @ (Command::RoleList(_)
            | Command::RoleAdd(_)
            | Command::RoleDelete(_)
            | Command::RoleGet(_)
            | Command::RoleGrantPermission(_)
            | Command::RoleRevokePermission(_)) => self.apply_role(command),
        };
        Ok(match reply {
            Ok(_) if !has_room => Err(Error::NoSpace),
            reply => reply,
        })
    }

    #[expect(clippy::unnecessary_wraps, reason = "the form in which responses hold it")]
    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.mvcc.written().revision, ..Default::default() })
    }

    fn compact(
        &self,
        request: CompactionRequest,
        outcome: &mut Outcome,
    ) -> Result<Result<Reply, Error>, Fatal> {
        let compaction = match split(self.mvcc.compact(request.revision))? {
            Ok(compaction) => compaction,
            Err(refusal) => return Ok(Err(refusal)),
        };
        outcome.compaction = Some((compaction, request.physical));
        Ok(Ok(Reply::Compaction(CompactionResponse { header: self.header() })))
    }

    fn lease_grant(&self, request: LeaseGrantRequest, now: Duration) -> Result<Reply, Error> {
        let LeaseGrantRequest { id, ttl } = request;
        self.lessor.lock().grant(id, ttl, now)?;
        self.store_lease(id, ttl, 0);
        let header = self.header();
        Ok(Reply::LeaseGrant(LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    /// Deletes the keys in order, in one transaction.
    fn lease_revoke(
        &self,
        request: LeaseRevokeRequest,
        outcome: &mut Outcome,
    ) -> Result<Reply, Error> {
        if !self.lessor.lock().exists(request.id) {
            return Err(Error::LeaseNotFound);
        }
        // The store has a part of this entry before the keys lose their lease: whoever reads the
        // leases meanwhile can tell from which entry on they hold.
        self.store.delete(Bucket::Lease, request.id.to_be_bytes().to_vec());
        let keys = self.lessor.lock().revoke(request.id)?;
        let mut write = self.mvcc.begin();
        for key in &keys {
            write.delete(key, &mut LeaseDoor(&self.lessor));
        }
        outcome.changes = write.finish();
        Ok(Reply::LeaseRevoke(LeaseRevokeResponse { header: self.header() }))
    }

    /// A lease that is gone meanwhile is passed over.
    fn lease_checkpoint(&self, request: &LeaseCheckpointRequest, now: Duration) -> Reply {
        for checkpoint in &request.checkpoints {
            let remaining = checkpoint.remaining_ttl;
            let ttl = self.lessor.lock().checkpoint(checkpoint.id, remaining, now);
            if let Some(ttl) = ttl {
                self.store_lease(checkpoint.id, ttl, remaining);
            }
        }
        Reply::Done
    }

    fn store_lease(&self, id: i64, ttl: i64, remaining_ttl: i64) {
        let lease = leasepb::Lease { id, ttl, remaining_ttl };
        self.store.put(Bucket::Lease, id.to_be_bytes().to_vec(), lease.encode_to_vec());
    }

    fn alarm(&self, request: AlarmRequest) -> AlarmResponse {
        let AlarmRequest { action, member_id, alarm } = request;
        let member = AlarmMember { member_id, alarm };
        let mut members = self.members.write();
        let alarms = match AlarmAction::try_from(action) {
            Ok(AlarmAction::Get) => members.alarms(alarm),
            Ok(AlarmAction::Activate) if alarm != AlarmType::None as i32 => {
                if members.raise(member) {
                    self.store.put(Bucket::Alarm, member.encode_to_vec(), Vec::new());
                }
                vec![member]
            }
            Ok(AlarmAction::Deactivate) if members.clear(member) => {
                self.store.delete(Bucket::Alarm, member.encode_to_vec());
                vec![member]
            }
            _ => Vec::new(),
        };
        AlarmResponse { header: None, alarms }
    }

    /// The storage version follows the cluster's, once that is one that knows of it.
    fn set_cluster_version(&self, request: &ClusterVersionSetRequest) -> Result<Reply, Fatal> {
        let version = cluster_version(request)?;
        let bytes = version.to_string().into_bytes();
        self.store.put(Bucket::Cluster, schema::CLUSTER_VERSION.to_vec(), bytes.clone());
        if has_storage_version(version) {
            self.store.put(Bucket::Meta, schema::STORAGE_VERSION.to_vec(), bytes);
        }
        let before = self.members.write().set_cluster_version(version);
        self.say_version(before, version);
        Ok(Reply::Done)
    }

    /// In etcd's words: operators wait for these lines.
    fn say_version(&self, before: Option<Version>, version: Version) {
        let to = version.short();
        match before {
            Some(before) => {
                tracing::info!(from = before.short(), to, "updated cluster version");
            }
            None => tracing::info!("cluster-version" = to, "set initial cluster version"),
        }
        if has_storage_version(version) && before != Some(version) {
            let to = version.to_string();
            tracing::info!("new-storage-version" = to, "updated storage version");
            if self.members.read().downgrade().target() == Some(version) {
                let release = RELEASE.to_string();
                tracing::info!(
                    "target-version" = to,
                    "server-version" = release,
                    "The server is ready to downgrade"
                );
            }
        }
    }

    fn set_downgrade(&self, request: DowngradeInfoSetRequest) -> Reply {
        let DowngradeInfoSetRequest { enabled, ver } = request;
        let target_version = if enabled { ver } else { String::new() };
        let downgrade = Downgrade { target_version, enabled };
        self.store.put(Bucket::Cluster, schema::DOWNGRADE.to_vec(), downgrade.to_json());
        self.members.write().set_downgrade(downgrade);
        Reply::Done
    }

    fn set_attributes(&self, request: ClusterMemberAttrSetRequest) -> Reply {
        let attributes = request.member_attributes.unwrap_or_default();
        let mut members = self.members.write();
        let id = request.member_id;
        if let Some(member) = members.set_attributes(id, &attributes.name, &attributes.client_urls)
        {
            self.store.put(Bucket::Members, member_key(id), member.to_json());
        }
        Reply::Done
    }
}
