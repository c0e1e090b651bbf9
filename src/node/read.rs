//! Reads: the index that must be applied before them, the thread that does them, and their turns.
//!
//! A linearizable read waits until this member has applied everything that was committed when the
//! read came. A read that turns out short is answered on the thread that received it; a long one
//! goes to a blocking thread, after it got a turn.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::header::fill;
use super::spans::{of_range, of_txn};
use super::{Error, Node};
use crate::auth::{Credentials, Demand, demand};
use crate::clock;
use crate::limits;
use crate::metrics;
use crate::mvcc::{self, CallerGuard, Mvcc, ReadCheck};
use crate::pb::raw::{RangeResponse, TxnResponse};
use crate::pb::{RangeRequest, ResponseHeader, TxnRequest};
use crate::planted::{self, Bug};
use crate::raft;
use crate::supervise::Gone;
use crate::trace::Context;
use crate::transfer::SnapshotPieces;
use crate::upkeep::Turns;

/// The form of a range's answer.
pub(super) trait RangeForm: Send + 'static {
    type Answer: Send + 'static;

    /// A short answer, on the thread that received the call.
    fn short(self, response: RangeResponse) -> Self::Answer;

    /// Reads any other, on a blocking thread. `fill` completes its header.
    fn long(
        self,
        mvcc: &Mvcc,
        wanted: &ReadCheck,
        request: &RangeRequest,
        fill: &dyn Fn(&mut Option<ResponseHeader>),
    ) -> Result<Self::Answer, mvcc::Error>;
}

/// What a function makes of the response.
struct Made<F>(F);

impl<T: Send + 'static, F: FnOnce(RangeResponse) -> T + Send + 'static> RangeForm for Made<F> {
    type Answer = T;

    fn short(self, response: RangeResponse) -> T {
        (self.0)(response)
    }

    fn long(
        self,
        mvcc: &Mvcc,
        wanted: &ReadCheck,
        request: &RangeRequest,
        fill: &dyn Fn(&mut Option<ResponseHeader>),
    ) -> Result<T, mvcc::Error> {
        let mut response = mvcc.read(wanted, |view| view.range(request))?;
        fill(&mut response.header);
        Ok((self.0)(response))
    }
}

impl Node {
    /// Waits until this member has applied everything that was committed when the call was made.
    /// Without a leader the call waits here, as a proposal does, and not in raft: a client that
    /// hangs up then leaves nothing behind in raft's queue.
    pub async fn barrier(&self) -> Result<(), Error> {
        // A sole voter that has applied all that it committed has nothing to wait for.
        let is_applied = |index| self.0.applied.index() >= index;
        if self.0.raft.committed_alone().is_some_and(is_applied) {
            return Ok(());
        }
        let asked = pin!(async {
            self.some_leader().await;
            let (done, waiting) = oneshot::channel();
            let applied = Arc::clone(&self.0.applied);
            self.0.raft.read_index(move |index| match index {
                Ok(_) if planted::is(Bug::ReadBeforeApply) => applied.wait(0, done),
                Ok(index) => applied.wait(index, done),
                Err(error) => drop(done.send(Err(error.into()))),
            });
            waiting.await.unwrap_or(Err(Error::Stopped))
        });
        match clock::timeout(&*self.0.clock, self.request_timeout(), asked).await {
            Some(result) => result,
            None => {
                metrics::slow_read_indexes().inc();
                Err(Error::Timeout)
            }
        }
    }

    /// As [`Node::barrier`], for requests about leases: after the leader has told the committed
    /// index, apply has only a second to reach it, as in etcd.
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

    /// Reads a range. Linearizable unless the request is serializable: it then reads what is
    /// applied here.
    pub async fn range(
        &self,
        who: &Credentials,
        request: &RangeRequest,
    ) -> Result<RangeResponse, Error> {
        self.range_as(who, request, &mut None, |response| response).await
    }

    /// As [`Node::range`]. `make` runs on the thread that read: a long answer is encoded on a
    /// blocking thread, while its call still holds the turn. `began` is set once the index that the
    /// range waits for is applied and its caller may read.
    pub async fn range_as<T: Send + 'static>(
        &self,
        who: &Credentials,
        request: &RangeRequest,
        began: &mut Option<Instant>,
        make: impl FnOnce(RangeResponse) -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.range_by(who, request, began, Made(make)).await
    }

    /// Reads a range whose answer takes this form.
    pub(super) async fn range_by<F: RangeForm>(
        &self,
        who: &Credentials,
        request: &RangeRequest,
        began: &mut Option<Instant>,
        form: F,
    ) -> Result<F::Answer, Error> {
        let _span = self.0.tracer.within(who.span(), "range", || of_range(request));
        if !request.serializable {
            self.barrier().await?;
        }
        let permit = self.authorize(who, &demand::range(request)).await?;
        *began = Some(clock::instant());
        let bytes = self.0.answers.short_bytes();
        let shortly = || self.0.machine.mvcc.view().range_shortly(request, bytes);
        let answer = match is_small(request).then(shortly) {
            None | Some(Err(mvcc::Error::TakesLong)) => {
                let (request, is_count) = (request.clone(), request.count_only);
                let (ids, raft) = self.header_parts();
                let range = move |mvcc: &Mvcc, wanted: &ReadCheck| {
                    let fill = |header: &mut _| fill(header, ids, &raft, mvcc);
                    form.long(mvcc, wanted, &request, &fill)
                };
                // A count has a short answer, so it takes no turn for memory; but it may visit
                // every key.
                match is_count {
                    true => self.count_long(range).await?,
                    false => self.read_long(range).await?,
                }
            }
            Some(response) => {
                let mut response = response?;
                self.fill(&mut response.header);
                form.short(response)
            }
        };
        permit.still_holds(self)?;
        metrics::mvcc_range().inc();
        Ok(answer)
    }

    /// Whether a read would be served; for health probes, which have no credentials. Returns no
    /// data.
    pub async fn probe(&self, serializable: bool) -> Result<(), Error> {
        let request = RangeRequest { keys_only: true, limit: 1, ..Default::default() };
        let _span = self.0.tracer.within(&Context::Nothing, "range", || of_range(&request));
        self.fence()?;
        if !serializable {
            self.log_goes_on()?;
            self.barrier().await?;
        }
        self.0.machine.mvcc.view().range(&request)?;
        Ok(())
    }

    /// Begins a snapshot of the whole state, as applied on this member. Its caller must be root.
    pub async fn snapshot(&self, who: &Credentials) -> Result<SnapshotPieces, Error> {
        self.fence()?;
        self.permits(who, &Demand::Root).await?;
        Ok(self.0.downloads.begin().await?)
    }

    /// Runs a read-only transaction; `make` as in [`Node::range_as`].
    pub async fn read_txn_as<T: Send + 'static>(
        &self,
        who: &Credentials,
        request: &TxnRequest,
        make: impl FnOnce(TxnResponse) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let _span = self.0.tracer.within(who.span(), "txn", || of_txn(request, true));
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
                let request = request.clone();
                let (ids, raft) = self.header_parts();
                let read = move |mvcc: &Mvcc, wanted: &ReadCheck| {
                    let mut response = mvcc.read(wanted, |view| mvcc::read_txn(view, &request))?;
                    fill(&mut response.header, ids, &raft, mvcc);
                    Ok(make(response))
                };
                self.read_long(read).await?
            }
        };
        permit.still_holds(self)?;
        metrics::mvcc_txn().inc();
        Ok(answer)
    }

    /// The cluster's and the member's id, and raft's handle: what `fill` needs on a blocking
    /// thread.
    fn header_parts(&self) -> ((u64, u64), raft::Handle) {
        ((self.0.cluster_id, self.0.member_id), self.0.raft.clone())
    }

    /// None if the answer is long: the transaction is then read again, with a turn.
    async fn read_txn_shortly(&self, request: TxnRequest) -> Result<Option<TxnResponse>, Error> {
        let bytes = self.0.answers.short_bytes();
        let read = move |mvcc: &Mvcc, wanted: &ReadCheck| match mvcc
            .read(wanted, |view| mvcc::read_txn_shortly(view, &request, bytes))
        {
            Err(mvcc::Error::TakesLong) => Ok(None),
            response => response.map(Some),
        };
        self.read(read).await
    }

    /// Reads on a blocking thread with a turn for a long answer.
    pub(super) async fn read_long<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Mvcc, &ReadCheck) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = self.0.answers.turn(&*self.0.clock, self.request_timeout()).await?;
        self.read_in_turn(turn, self.sliced(f)).await
    }

    async fn count_long<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Mvcc, &ReadCheck) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.read_with_turn(&self.0.long_work.counts, self.sliced(f)).await
    }

    /// Makes a read compute in slices, in turn with other long reads, so that they leave a
    /// processor to everything else.
    pub(super) fn sliced<T>(
        &self,
        f: impl FnOnce(&Mvcc, &ReadCheck) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> impl FnOnce(&Mvcc, &ReadCheck) -> Result<T, mvcc::Error> + Send + 'static {
        let turns = (!self.0.is_stepped).then(|| Arc::clone(&self.0.long_work.read_turns));
        move |mvcc, wanted| {
            turns.map_or(Ok(()), |turns| wanted.take_turns(&turns))?;
            f(mvcc, wanted)
        }
    }

    /// Reads once it has one of `turns`; waits for that no longer than a request may take.
    pub(super) async fn read_with_turn<T: Send + 'static>(
        &self,
        turns: &Turns,
        f: impl FnOnce(&Mvcc, &ReadCheck) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = clock::timeout(&*self.0.clock, self.request_timeout(), turns.begin()).await;
        self.read_in_turn(turn.ok_or(Error::TooManyRequests)??, f).await
    }

    /// The turn moves into the work, which outlives a cancelled call by up to a thousand keys.
    pub(super) async fn read_in_turn<T: Send + 'static>(
        &self,
        turn: impl Send + 'static,
        f: impl FnOnce(&Mvcc, &ReadCheck) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let work = move |mvcc: &Mvcc, wanted: &ReadCheck| {
            let _turn = turn;
            f(mvcc, wanted)
        };
        self.read(work).await
    }

    /// Runs `f` on a blocking thread, so that the threads that serve connections go on. `ReadCheck`
    /// tells it when its caller is gone.
    async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Mvcc, &ReadCheck) -> Result<T, mvcc::Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.fence()?;
        let mvcc = Arc::clone(&self.0.machine.mvcc);
        let waiting = CallerGuard::default();
        let wanted = waiting.read_check();
        let (supervisor, read) = (&self.0.supervisor, move || f(&mvcc, &wanted));
        let read = match self.0.is_stepped {
            true => supervisor.inline("read", read).await,
            false => supervisor.blocking("read", read).await,
        };
        Ok(read.map_err(|Gone| Error::Stopped)??)
    }
}

/// Whether a read-only transaction may turn out short; any other takes a turn.
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

/// Whether a range touches so few keys that the thread that received it tries to answer it.
fn is_small(request: &RangeRequest) -> bool {
    mvcc::keys_of_range(request).is_some_and(|keys| keys <= limits::INLINE_RANGE_KEYS_MAX)
}
