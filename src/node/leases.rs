//! Lease requests of clients. Only the leader knows when a lease ends, so other members ask it.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use http::StatusCode;
use prost::Message;

use super::{Error, LeaseInfo, Node, Op};
use crate::auth::{Credentials, Demand, demand};
use crate::clock::Backoff;
use crate::lease::Renewal;
use crate::limits;
use crate::metrics;
use crate::pb::leasepb::{LeaseInternalRequest, LeaseInternalResponse};
use crate::pb::{LeaseCheckpoint, LeaseCheckpointRequest};
use crate::pb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseTimeToLiveRequest};
use crate::peer::Answered;
use crate::raft::Role;

impl Node {
    /// Renews a lease and returns its TTL in seconds; 0 if there is no such lease. An overdue lease
    /// is waited for until it is revoked, and then gives 0.
    pub async fn lease_renew(&self, who: &Credentials, id: i64) -> Result<i64, Error> {
        let attributes = || vec![("id", id.into())];
        let _span = self.0.tracer.within(who.span(), "lease_renew", attributes);
        let permit = self.authorize(who, &Demand::AnyUser).await?;
        permit.check(self, &demand::lease_write(id))?;
        if self.is_leader() {
            match self.lease_renew_here(id).await {
                Err(Error::NotLeader) => {}
                renewed => return renewed,
            }
        }
        let request = LeaseKeepAliveRequest { id }.encode_to_vec();
        let answered = self.ask_leader("/leases", request.into()).await?;
        match answered.status {
            StatusCode::NOT_FOUND => Ok(0),
            _ => Ok(decoded::<LeaseKeepAliveResponse>(&answered)?.ttl),
        }
    }

    /// The leader's part of a renewal; members that call it for their clients have checked them.
    /// The barrier comes first, because a member that was replaced as the leader would not know
    /// which leases were revoked.
    pub async fn lease_renew_here(&self, id: i64) -> Result<i64, Error> {
        self.lease_barrier().await?;
        let renewed = self.lease_renew_until_done(id);
        let limit = self.request_timeout();
        crate::clock::timeout(&*self.0.clock, limit, renewed).await.unwrap_or(Err(Error::Timeout))
    }

    async fn lease_renew_until_done(&self, id: i64) -> Result<i64, Error> {
        let inner = &self.0;
        let mut backoff = Backoff::new(limits::LEASE_EXPIRED_LOOK, limits::LEASE_EXPIRED_LOOK_MAX);
        loop {
            let renewal = {
                let mut lessor = inner.machine.lessor.lock();
                // Raft is asked as well, because the lessor hears of the end of its term later.
                match self.leads_leases() {
                    true => lessor.renew(id, inner.clock.now()),
                    false => return Err(Error::NotLeader),
                }
            };
            match renewal {
                Renewal::Renewed { ttl_seconds } => {
                    metrics::lease_renewed().inc();
                    return Ok(ttl_seconds);
                }
                Renewal::NotLeader => return Err(Error::NotLeader),
                Renewal::NoteInTheWay => self.forget_remainder(id).await?,
                Renewal::NotFound => return Ok(0),
                Renewal::Expired => backoff.rest(&*inner.clock).await,
            }
        }
    }

    /// Whether this member leads, in the same term as the lessor's.
    fn leads_leases(&self) -> bool {
        let status = self.0.raft.status();
        status.role == Role::Leader && status.term == self.0.leading.lease_term.load(Relaxed)
    }

    /// Removes from the log's state the remaining time of a lease, so that the next leader grants
    /// the full TTL again.
    async fn forget_remainder(&self, id: i64) -> Result<(), Error> {
        let last_note = {
            // Once the lock is free, each note that was handed out is proposed or will never be.
            // The entry that is proposed below therefore stands behind them all in the log.
            let _proposed = self.0.leading.lease_notes.lock().await;
            self.0.machine.lessor.lock().last_note()
        };
        let checkpoints = vec![LeaseCheckpoint { id, remaining_ttl: 0 }];
        self.propose_own(Op::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints })).await?;
        self.0.machine.lessor.lock().confirm_taken_back(id, last_note);
        Ok(())
    }

    /// TTL and remaining time of a lease, with its keys if `keys`; None if there is no such lease.
    pub async fn lease_time_to_live(
        &self,
        who: &Credentials,
        id: i64,
        keys: bool,
    ) -> Result<Option<LeaseInfo>, Error> {
        let permit = self.authorize(who, &Demand::AnyUser).await?;
        let info = self.lease_info(id, keys).await?;
        // Rights are checked on the keys that are shown: keys may have been attached since the call
        // came.
        if let Some(info) = &info
            && keys
        {
            permit.check(self, &demand::lease_reads(&info.keys))?;
        }
        Ok(info)
    }

    /// All leases, for a caller who may read all keys on them.
    pub async fn lease_list(&self, who: &Credentials) -> Result<Vec<i64>, Error> {
        let permit = self.authorize(who, &Demand::AnyUser).await?;
        let leases = self.0.machine.lessor.lock().list();
        permit.check(self, &demand::lease_list())?;
        Ok(leases)
    }

    async fn lease_info(&self, id: i64, keys: bool) -> Result<Option<LeaseInfo>, Error> {
        if self.is_leader() {
            match self.lease_time_to_live_here(id, keys).await {
                Err(Error::NotLeader) => {}
                info => return info,
            }
        }
        // Only the leader knows the remaining time. The keys are read here: they are the same on
        // every member, and may be too many for an answer between members.
        let request = LeaseTimeToLiveRequest { id, keys: false };
        let request = LeaseInternalRequest { lease_time_to_live_request: Some(request) };
        let answered = self.ask_leader("/leases/internal", request.encode_to_vec().into()).await?;
        if answered.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = decoded::<LeaseInternalResponse>(&answered)?;
        let response = response.lease_time_to_live_response.unwrap_or_default();
        let (granted_ttl, ttl) = (response.granted_ttl, response.ttl);
        if !keys {
            return Ok(Some(LeaseInfo { granted_ttl, ttl, keys: Vec::new() }));
        }
        self.lease_barrier().await?;
        let lessor = self.0.machine.lessor.lock();
        // The lease may have ended since the leader answered.
        let keys = lessor.exists(id).then(|| lessor.keys(id));
        Ok(keys.map(|keys| LeaseInfo { granted_ttl, ttl, keys }))
    }

    /// The leader's part; members that call it for their clients check them.
    pub async fn lease_time_to_live_here(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<Option<LeaseInfo>, Error> {
        self.lease_barrier().await?;
        let lessor = self.0.machine.lessor.lock();
        if !lessor.is_leader() {
            return Err(Error::NotLeader);
        }
        Ok(lessor.info(id, keys, self.0.clock.now()).map(|info| LeaseInfo {
            granted_ttl: info.granted_seconds,
            ttl: info.remaining_seconds,
            keys: info.keys,
        }))
    }

    /// Asks the leader, again and again, until the answer is success or "not found".
    async fn ask_leader(&self, path: &str, body: Bytes) -> Result<Answered, Error> {
        let inner = &self.0;
        let asked = async {
            let mut backoff = Backoff::new(limits::ASK_LEADER_PAUSE, limits::ASK_LEADER_PAUSE_MAX);
            loop {
                let id = self.some_leader().await;
                let limit = limits::ASK_LEADER_TIMEOUT;
                let answered =
                    inner.known_peers.reach.ask(id, path, Some(body.clone()), limit).await;
                if let Some(answered) = answered
                    && matches!(answered.status, StatusCode::OK | StatusCode::NOT_FOUND)
                {
                    return answered;
                }
                backoff.rest(&*inner.clock).await;
            }
        };
        let limit = self.request_timeout();
        match crate::clock::timeout(&*inner.clock, limit, asked).await {
            Some(answered) => Ok(answered),
            None if *inner.leading.leader.borrow() == 0 => Err(Error::NoLeader),
            None => Err(Error::Timeout),
        }
    }
}

fn decoded<M: Message + Default>(answered: &Answered) -> Result<M, Error> {
    M::decode(answered.body.clone()).map_err(|error| Error::Internal(error.to_string()))
}
