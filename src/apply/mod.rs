//! The state machine: one path by which a log entry changes the state, on every member alike.
//!
//! ```text
//!   entry ─decode─► alarms: CORRUPT, NOSPACE ─► may the caller? ─► dispatch ─► mvcc, lease, auth,
//!                                                                        members ─► outcome
//! ```
//!
//! The same entries give the same state: nothing here asks the time, chance, the disk's size or a
//! flag. What depends on those is decided before a request is proposed. Three things are local and
//! change no state: a store at its quota only turns the reply into an error (the write stands, as
//! in etcd); a lease's deadline, which only the leader looks at; and whether a call waits for the
//! answer, since pairs that only an answer would show are not read when nobody waits for it.
//!
//! Apply knows nothing of raft, watchers or the network. Its errors are of two kinds: those that
//! are the reply, and those after which the member must stop.

mod auth;
mod cluster;
pub mod command;
mod entry;
mod error;
mod leases;
mod quota;
mod v2;
mod version;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::auth::{Auth, Tokens};
use crate::lease::Lessor;
use crate::members::Members;
use crate::metrics::Operation;
use crate::mvcc::{Change, Mvcc, Sweep};
use crate::pb::{AlarmType, CompactionRequest, CompactionResponse, ResponseHeader};
use crate::store::Store;
pub use auth::{Stage, demand};
use cluster::cluster_version;
pub use command::{Command, Reply};
pub use entry::Entry;
use error::split;
pub use error::{Error, Fatal};
use leases::LeaseAccess;
pub use quota::{Quota, cost};
pub use version::{
    NewerCluster, RELEASE, adopted_version, check_cluster_version, has_storage_version,
};

/// Decodes a normal entry, before it enters the log: one that cannot be applied would stop every
/// member. None for the empty entry of a new leader.
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

/// The outcome of an applied entry.
pub struct Outcome {
    /// The id under which the proposer waits; 0 for an empty entry.
    pub request_id: u64,
    /// The label for metrics; None for an entry without a command.
    pub operation: Option<Operation>,
    pub reply: Result<Reply, Error>,
    pub changes: Vec<Change>,
    /// A compaction to sweep, and whether the reply waits for the sweep.
    pub compaction: Option<(Sweep, bool)>,
}

/// The state that entries change, shared with the threads that read it.
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

impl Machine {
    /// Applies a normal entry and seals it. Called on the apply thread. `now` is this member's
    /// clock, for the deadlines of leases, which only a leader looks at. `is_awaited` tells whether
    /// a call on this member waits for the answer; if none does, pairs that only the answer would
    /// show are not read.
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
        // The first entry of a new leader is empty.
        if !data.is_empty() {
            let entry = Entry::decode(data)?;
            outcome.request_id = entry.header.id;
            outcome.operation = entry.command.operation();
            self.note_caller(&entry);
            let allowed = self.gate(&entry.command).and_then(|()| self.authorize(&entry));
            outcome.reply = match allowed {
                Ok(()) => self.dispatch(entry.command, index, now, is_awaited, &mut outcome)?,
                Err(refusal) => Err(refusal),
            };
        }
        self.store.seal(index, term);
        Ok(outcome)
    }

    /// Refuses commands because of CORRUPT or NOSPACE, before anything else is checked, as in etcd.
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
        // Measured before the change and answered after it, as in etcd: the write stands, but its
        // reply is `NoSpace`.
        let has_room = cost(&command).is_none_or(|cost| self.quota.has_room_for(cost));
        let reply = match command {
            Command::Put(put) => {
                let mut write = self.mvcc.begin();
                let reply = split(write.checked_put(&put, &mut LeaseAccess(&self.lessor)))?;
                outcome.changes = write.finish();
                reply.map(Reply::Put)
            }
            Command::DeleteRange(delete) => {
                let mut write = self.mvcc.begin().with_caller(is_awaited(outcome.request_id));
                let reply = split(write.delete_range(&delete, &mut LeaseAccess(&self.lessor)))?;
                outcome.changes = write.finish();
                reply.map(Reply::DeleteRange)
            }
            Command::Txn(txn) => {
                let mut write = self.mvcc.begin().with_caller(is_awaited(outcome.request_id));
                let reply = split(write.txn(&txn, &mut LeaseAccess(&self.lessor)))?;
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
}
