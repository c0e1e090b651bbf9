//! Proposals: a request becomes an entry of the log, and its proposer waits for what apply answers.
//!
//! What depends on flags or chance is settled before, so that apply need not ask. A proposal that is
//! known to stand in no log is made again; one whose fate is unknown is not, and its proposer is told
//! so in etcd's distinctions.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::answers::Turn;
use super::config::minimum_ttl_seconds;
use super::{Error, Node, Op, Reply};
use crate::auth::{Caller, Credentials};
use crate::clock::{self, Backoff};
use crate::mvcc::{self, Mvcc, Wanted};
use crate::pb::{
    AuthRoleAddRequest, AuthUserAddRequest, RequestHeader, RequestOp, TxnRequest, request_op,
};
use crate::raft::{self, Via};
use crate::{apply, limits};

impl Node {
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
        self.submit(&caller, op, Via::AnyLeader).await
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

    /// Proposes a request of the member itself, which speaks as root.
    pub(super) async fn propose_own(&self, op: Op) -> Result<Reply, Error> {
        let caller = self.own_identity();
        self.submit(&caller, op, Via::AnyLeader).await
    }

    /// Proposes a request of the member itself that may be one of its own term as a leader only, such as
    /// the end of a lease: a later leader may have renewed what this one would revoke.
    pub(super) async fn propose_own_via(&self, op: Op, via: Via) -> Result<Reply, Error> {
        let caller = self.own_identity();
        self.submit(&caller, op, via).await
    }

    pub(super) async fn submit(&self, caller: &Caller, op: Op, via: Via) -> Result<Reply, Error> {
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
        let propose = |raft: &raft::Handle| match via {
            Via::AnyLeader => raft.propose(id, data.clone()),
            Via::OwnTerm(term) => raft.propose_as_leader(id, data.clone(), term),
        };
        let reply = self.propose_until_taken(id, propose, via).await;
        crate::metrics::proposals_pending().dec();
        let mut reply = reply?;
        self.fill_reply(&mut reply);
        Ok(reply)
    }

    pub(super) async fn propose_until_taken(
        &self,
        id: u64,
        propose: impl Fn(&raft::Handle) -> Result<(), raft::Error>,
        via: Via,
    ) -> Result<Reply, Error> {
        let begun = self.0.clock.now();
        let is_proposed = AtomicBool::new(false);
        let mut attempts = pin!(self.attempt(id, propose, &is_proposed, via));
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
        via: Via,
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
                Ok(Err(Error::Dropped)) if via != Via::AnyLeader => return Err(Error::NotLeader),
                Ok(Err(Error::Dropped)) => backoff.rest(&*inner.clock).await,
                Ok(reply) => return reply,
                Err(_) => return Err(Error::Stopped),
            }
        }
    }

    /// The error for a request that took too long, in etcd's distinctions: there was no leader; the
    /// leader before this one failed meanwhile; this member lost its connection to the leader, or a
    /// leader lost its quorum.
    fn timeout_kind(&self, begun: Duration, is_proposed: bool) -> Error {
        let inner = &self.0;
        if !is_proposed {
            return Error::DeadlineExceeded;
        }
        let two_elections = 2 * inner.config.election_timeout;
        let elected = *inner.leading.elected.lock();
        if elected.is_some_and(|at| begun < at && begun + two_elections > at) {
            return Error::TimeoutDueToLeaderFail;
        }
        let took = inner.clock.now().saturating_sub(begun);
        let is_connected = |id: u64| inner.circle.reach.connected_for(id) > Some(took);
        let leader = *inner.leading.leader.borrow();
        let has_whom_it_needs = if leader == inner.member_id {
            let members = self.members();
            let reached = members.iter().filter(|it| it.id == leader || is_connected(it.id));
            reached.count() > members.len() / 2
        } else {
            leader == 0 || is_connected(leader)
        };
        if has_whom_it_needs { Error::Timeout } else { Error::TimeoutDueToConnectionLost }
    }

    /// Settles what depends on flags or chance (a lease's id, the shortest TTL) before the log, since
    /// apply must do the same on every member.
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
}

/// The part of a write that reads pairs for its answer, as a transaction; None if the answer has one
/// pair at most.
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
