//! Election: a leader by key, with a value, kept by a lease.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tonic::Status;

use super::Server;
use super::recipe::{self, Waiter, as_unknown};
use crate::pb::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use crate::pb::{KeyValue, ResponseHeader, TxnRequest};

const NOT_LEADER: &str = "election: not leader";
const NO_LEADER: &str = "election: no leader";
const MISSING: &str = "\"leader\" field must be provided";

fn prefix_of(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

impl Server {
    pub(super) async fn campaign(
        self: Arc<Self>,
        request: CampaignRequest,
    ) -> Result<CampaignResponse, Status> {
        self.run(request).await.map_err(as_unknown)
    }

    async fn run(self: Arc<Self>, request: CampaignRequest) -> Result<CampaignResponse, Status> {
        let lease = self.session(request.lease).await?;
        let prefix = prefix_of(&request.name);
        let key = Bytes::from([prefix.as_slice(), format!("{lease:x}").as_bytes()].concat());
        let txn = TxnRequest {
            compare: vec![recipe::created_at(key.clone(), 0)],
            success: vec![recipe::put(key.clone(), request.value.clone(), lease)],
            failure: vec![recipe::get(key.clone())],
        };
        let response = self.commit(txn).await?;
        let header = response.header.unwrap_or_default();
        let mine = recipe::found(&response, 0);
        let rev = mine.as_ref().map_or(header.revision, |row| row.create_revision);
        let waiter = Waiter::new(Arc::clone(&self), key.clone(), rev);
        if mine.is_some_and(|row| row.value != request.value) {
            self.announce(&key, rev, lease, request.value).await?;
        }
        self.wait_turn(&prefix, rev).await?;
        waiter.keep();
        let leader = LeaderKey { name: request.name, key, rev, lease };
        Ok(CampaignResponse { header: Some(header), leader: Some(leader) })
    }

    /// Sets the leader's value while it leads.
    async fn announce(
        &self,
        key: &Bytes,
        rev: i64,
        lease: i64,
        value: Bytes,
    ) -> Result<Option<ResponseHeader>, Status> {
        let txn = TxnRequest {
            compare: vec![recipe::created_at(key.clone(), rev)],
            success: vec![recipe::put(key.clone(), value, lease)],
            failure: Vec::new(),
        };
        let response = self.commit(txn).await?;
        if response.succeeded { Ok(response.header) } else { Err(Status::unknown(NOT_LEADER)) }
    }

    pub(super) async fn proclaim(
        self: Arc<Self>,
        request: ProclaimRequest,
    ) -> Result<ProclaimResponse, Status> {
        let leader = request.leader.ok_or_else(|| Status::unknown(MISSING))?;
        let lease = self.session(leader.lease).await.map_err(as_unknown)?;
        let announced = self.announce(&leader.key, leader.rev, lease, request.value).await;
        Ok(ProclaimResponse { header: announced.map_err(as_unknown)? })
    }

    pub(super) async fn resign(self: Arc<Self>, request: ResignRequest) -> Result<ResignResponse, Status> {
        let leader = request.leader.ok_or_else(|| Status::unknown(MISSING))?;
        let txn = TxnRequest {
            compare: vec![recipe::created_at(leader.key.clone(), leader.rev)],
            success: vec![recipe::delete(leader.key)],
            failure: Vec::new(),
        };
        let response = self.commit(txn).await.map_err(as_unknown)?;
        Ok(ResignResponse { header: response.header })
    }

    pub(super) async fn election_leader(
        self: Arc<Self>,
        request: LeaderRequest,
    ) -> Result<LeaderResponse, Status> {
        let found = self.elected(&request.name).await.map_err(as_unknown)?;
        found.ok_or_else(|| Status::unknown(NO_LEADER))
    }

    async fn elected(&self, name: &[u8]) -> Result<Option<LeaderResponse>, Status> {
        let range = self.get(&recipe::first_created(&prefix_of(name))).await?;
        let kv = recipe::first(&range);
        Ok(kv.map(|kv| LeaderResponse { header: range.header, kv: Some(kv) }))
    }

    /// Each leader and each of its values, from now on.
    pub(super) async fn observe(
        self: Arc<Self>,
        request: LeaderRequest,
    ) -> Result<impl Stream<Item = Result<LeaderResponse, Status>> + Send + use<>, Status> {
        let state = Some((self, request.name, 0));
        Ok(stream::unfold(state, |state| async {
            let (server, name, seen) = state?;
            match server.next_leader(&name, seen).await {
                Ok(response) => {
                    let seen = response.kv.as_ref().map_or(seen, |kv: &KeyValue| kv.mod_revision);
                    Some((Ok(response), Some((server, name, seen))))
                }
                Err(error) => Some((Err(as_unknown(error)), None)),
            }
        }))
    }

    /// The leader as soon as it is another, or says something else, than at revision `seen`.
    async fn next_leader(&self, name: &[u8], seen: i64) -> Result<LeaderResponse, Status> {
        loop {
            if let Some(found) = self.elected(name).await? {
                if found.kv.as_ref().is_some_and(|kv| kv.mod_revision != seen) {
                    return Ok(found);
                }
            }
            tokio::time::sleep(crate::limits::RECIPE_POLL).await;
        }
    }
}
