//! Proposals: a request becomes an entry of the log, and its proposer waits for what apply answers.
//!
//! What depends on a flag or on chance is decided here, before the log, because apply must be
//! deterministic. A proposal that is known to be in no log is made again. One whose fate is unknown
//! is not: it may be committed yet, and a second one would apply it twice. Its proposer gets one of
//! etcd's timeouts, which tell the likely cause.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::answers::AnswerTurn;
use super::config::minimum_ttl_seconds;
use super::spans::note_error;
use super::{Error, Node, Op, Reply};
use crate::auth::{Caller, Credentials};
use crate::clock::{self, Backoff};
use crate::metrics;
use crate::mvcc::{self, Mvcc, ReadCheck};
use crate::pb::{
    AuthRoleAddRequest, AuthUserAddRequest, RequestHeader, RequestOp, TxnRequest, request_op,
};
use crate::raft::{self, Via};
use crate::trace::{Context, Span};
use crate::{apply, limits};

impl Node {
    /// Proposes a client's request, waits until this member has applied it, and returns apply's
    /// reply.
    pub async fn propose(&self, who: &Credentials, mut op: Op) -> Result<Reply, Error> {
        self.give_id(&mut op);
        // As in etcd, the failure of a compaction is in the span of its call alone.
        let is_noted = !matches!(op, Op::Compaction(_));
        let span = self.span_of(who.span(), &op);
        let span = span.as_ref().map_or(who.span(), Span::context);
        let reply = self.propose_within(span, who, op).await;
        if let Err(error) = &reply
            && is_noted
        {
            note_error(span, error);
        }
        reply
    }

    async fn propose_within(
        &self,
        span: &Context,
        who: &Credentials,
        op: Op,
    ) -> Result<Reply, Error> {
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
        self.submit(&caller, op, Via::AnyLeader, span).await
    }

    /// A turn for a write whose answer is long, None if the answer is short. Measured on a blocking
    /// thread, since the look at the keys may take long and other calls of the connection must not
    /// wait for it.
    async fn turn_if_long(&self, request: TxnRequest) -> Result<Option<AnswerTurn>, Error> {
        let bytes = self.0.answers.short_bytes();
        let is_short = move |mvcc: &Mvcc, wanted: &ReadCheck| {
            mvcc.read(wanted, |view| mvcc::answers_shortly(view, &request, bytes))
        };
        match self.read_with_turn(&self.0.long_work.measures, is_short).await? {
            true => Ok(None),
            false => {
                let patience = self.request_timeout();
                Ok(Some(self.0.answers.turn_to_write(&*self.0.clock, patience).await?))
            }
        }
    }

    /// Proposes a request that the member itself makes, as root.
    pub(super) async fn propose_own(&self, op: Op) -> Result<Reply, Error> {
        self.propose_own_via(op, Via::AnyLeader).await
    }

    /// As `propose_own`, but the request may be bound to a term in which this member leads
    /// (`Via::OwnTerm`). The end of a lease must be: a later leader may have renewed the lease.
    pub(super) async fn propose_own_via(&self, op: Op, via: Via) -> Result<Reply, Error> {
        let caller = self.own_identity();
        let span = self.span_of(&Context::Nothing, &op);
        let span = span.as_ref().map_or(&Context::Nothing, Span::context);
        let reply = self.submit(&caller, op, via, span).await;
        if let Err(error) = &reply {
            note_error(span, error);
        }
        reply
    }

    /// Proposes a request for a caller whose rights were checked. Refuses it before the log if the
    /// backlog, its size or a full disk demands that; otherwise waits for apply's reply. Notes in
    /// `span` when raft has it and when the answer is there.
    pub(super) async fn submit(
        &self,
        caller: &Caller,
        op: Op,
        via: Via,
        span: &Context,
    ) -> Result<Reply, Error> {
        let inner = &self.0;
        let status = inner.raft.status();
        let backlog = status.committed.saturating_sub(inner.applied.index());
        // Alarms pass: a full disk may be the cause of the backlog, and the others must get its
        // NOSPACE.
        if backlog > limits::APPLY_BACKLOG_MAX && !matches!(op, Op::Alarm(_)) {
            return Err(Error::TooManyRequests);
        }
        let (operation, begun) = (op.operation(), inner.clock.now());
        let reply = self.submit_now(caller, op, via, span).await;
        if let Some(operation) = operation {
            // As in etcd, what apply refuses is a request that succeeded.
            let is_answered = matches!(reply, Ok(_) | Err(Error::Apply(_)));
            let took = inner.clock.now().saturating_sub(begun);
            metrics::request_seconds(operation, is_answered).observe(took.as_secs_f64());
        }
        reply
    }

    async fn submit_now(
        &self,
        caller: &Caller,
        op: Op,
        via: Via,
        span: &Context,
    ) -> Result<Reply, Error> {
        let inner = &self.0;
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
        let pending = metrics::pending_proposal();
        let propose = |raft: &raft::Handle| match via {
            Via::AnyLeader => raft.propose(id, data.clone()),
            Via::OwnTerm(term) => raft.propose_as_leader(id, data.clone(), term),
        };
        span.event("Send raft proposal");
        let reply = self.propose_until_taken(id, propose, via).await;
        drop(pending);
        if matches!(reply, Ok(_) | Err(Error::Apply(_))) {
            span.event("Receive raft result");
        }
        let mut reply = reply?;
        self.fill_reply(&mut reply);
        Ok(reply)
    }

    /// Proposes under `id`, as often as `attempt` does, and waits for apply's answer for
    /// `request_timeout` at most; without a limit once the entry is applied.
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
            // The entry is applied, and its answer comes later: a physical compaction waits for its
            // sweep, and only the client's deadline ends that wait, as in etcd.
            None if self.0.waits.is_applied(id) => attempts.await,
            None => {
                metrics::proposals_failed().inc();
                Err(self.timeout_kind(begun, is_proposed.load(Ordering::Relaxed)))
            }
        }
    }

    /// Proposes under `id` and waits for apply's answer. A proposal that was dropped, because there
    /// was no leader or none could be reached, is in no log, so it is made again; unless it is
    /// bound to one term, which is then over.
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

    /// The error of a request that took too long, told apart as in etcd: nothing was proposed since
    /// there was no leader; an election came in between; this member lost its connection to the
    /// leader, or as the leader to its quorum; or none of these.
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
        let is_connected = |id: u64| inner.known_peers.reach.connected_for(id) > Some(took);
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

    /// Gives a new lease an id, if its client leaves that to the member.
    fn give_id(&self, op: &mut Op) {
        if let Op::LeaseGrant(grant) = op {
            while grant.id == 0 {
                grant.id = (self.0.ids.next() & i64::MAX.cast_unsigned()).cast_signed();
            }
        }
    }

    /// Sets what depends on chance or a flag (a lease's id, the shortest TTL) before the log,
    /// because apply must give the same result on every member.
    fn prepare(&self, mut op: Op) -> Op {
        self.give_id(&mut op);
        match op {
            Op::LeaseGrant(mut grant) => {
                grant.ttl = grant.ttl.max(minimum_ttl_seconds(self.0.config.election_timeout));
                Op::LeaseGrant(grant)
            }
            op => op,
        }
    }
}

/// The reads of a write that answer with pairs, as a transaction. None if the answer holds at most
/// one pair, which needs no measuring.
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
