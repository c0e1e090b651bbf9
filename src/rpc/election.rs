//! Election: a leader by key, with a value, kept by a lease.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use prost::Message;
use tonic::Status;

use super::Server;
use super::recipe::{self, ContenderKey, Events, as_unknown};
use crate::auth::Credentials;
use crate::mvcc::ChangeKind;
use crate::pb::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use crate::pb::{KeyValue, ResponseHeader, TxnRequest};
use crate::types::KeyRange;

const NOT_LEADER: &str = "election: not leader";
const NO_LEADER: &str = "election: no leader";
const MISSING: &str = "\"leader\" field must be provided";

fn prefix_of(name: &[u8]) -> Vec<u8> {
    [name, b"/"].concat()
}

impl Server {
    pub(super) async fn campaign(
        self: Arc<Self>,
        who: Credentials,
        request: CampaignRequest,
    ) -> Result<CampaignResponse, Status> {
        self.run(&who, request).await.map_err(as_unknown)
    }

    async fn run(
        self: Arc<Self>,
        who: &Credentials,
        request: CampaignRequest,
    ) -> Result<CampaignResponse, Status> {
        let lease = self.session(who, request.lease).await?;
        let prefix = prefix_of(&request.name);
        let key = recipe::key_of(&prefix, lease);
        let txn = TxnRequest {
            compare: vec![recipe::created_at(key.clone(), 0)],
            success: vec![recipe::put(key.clone(), request.value.clone(), lease)],
            failure: vec![recipe::get(key.clone())],
        };
        let response = self.commit(who, txn).await?;
        let header = response.header.unwrap_or_default();
        let mine = recipe::found(&response, 0);
        let rev = mine.as_ref().map_or(header.revision, |row| row.create_revision);
        let waiter = ContenderKey::new(Arc::clone(&self), who.clone(), key.clone(), rev);
        if mine.is_some_and(|row| row.value != request.value) {
            self.announce(who, &key, rev, lease, request.value).await?;
        }
        self.wait_for_older_keys(who, &prefix, rev).await?;
        waiter.keep();
        let leader = LeaderKey { name: request.name, key, rev, lease };
        Ok(CampaignResponse { header: Some(header), leader: Some(leader) })
    }

    /// Sets the value of a leader. Fails with "not leader" once its key is gone or was created
    /// anew.
    async fn announce(
        &self,
        who: &Credentials,
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
        let response = self.commit(who, txn).await?;
        if response.succeeded { Ok(response.header) } else { Err(Status::unknown(NOT_LEADER)) }
    }

    pub(super) async fn proclaim(
        self: Arc<Self>,
        who: Credentials,
        request: ProclaimRequest,
    ) -> Result<ProclaimResponse, Status> {
        let leader = request.leader.ok_or_else(|| Status::unknown(MISSING))?;
        let lease = self.session(&who, leader.lease).await.map_err(as_unknown)?;
        let announced = self.announce(&who, &leader.key, leader.rev, lease, request.value).await;
        Ok(ProclaimResponse { header: announced.map_err(as_unknown)? })
    }

    pub(super) async fn resign(
        self: Arc<Self>,
        who: Credentials,
        request: ResignRequest,
    ) -> Result<ResignResponse, Status> {
        let leader = request.leader.ok_or_else(|| Status::unknown(MISSING))?;
        let txn = TxnRequest {
            compare: vec![recipe::created_at(leader.key.clone(), leader.rev)],
            success: vec![recipe::delete(leader.key)],
            failure: Vec::new(),
        };
        let response = self.commit(&who, txn).await.map_err(as_unknown)?;
        Ok(ResignResponse { header: response.header })
    }

    pub(super) async fn election_leader(
        self: Arc<Self>,
        who: Credentials,
        request: LeaderRequest,
    ) -> Result<LeaderResponse, Status> {
        let found = self.elected(&who, &request.name).await.map_err(as_unknown)?;
        found.ok_or_else(|| Status::unknown(NO_LEADER))
    }

    async fn elected(
        &self,
        who: &Credentials,
        name: &[u8],
    ) -> Result<Option<LeaderResponse>, Status> {
        let range = self.get(who, &recipe::first_created(&prefix_of(name))).await?;
        let kv = recipe::first(&range);
        Ok(kv.map(|kv| LeaderResponse { header: range.header, kv: Some(kv) }))
    }

    /// A stream of the leader and each of its values, then those of each leader after it.
    pub(super) async fn observe(
        self: Arc<Self>,
        who: Credentials,
        request: LeaderRequest,
    ) -> Result<impl Stream<Item = Result<LeaderResponse, Status>> + Send + use<>, Status> {
        let prefix = Bytes::from(prefix_of(&request.name));
        let range = KeyRange::new(prefix.clone(), recipe::prefix_end(&prefix));
        let events = Events::new(&self.node, &who, range).await.map_err(as_unknown)?;
        let observer =
            Observer { server: self, who, name: request.name, events, leader: None, read: 0 };
        Ok(stream::unfold(Some(observer), |observer| async {
            let mut observer = observer?;
            match observer.next().await {
                Ok(response) => Some((Ok(response), Some(observer))),
                Err(error) => Some((Err(as_unknown(error)), None)),
            }
        }))
    }
}

struct Observer {
    server: Arc<Server>,
    who: Credentials,
    name: Bytes,
    events: Events,
    /// The leader's key. None before the first look, and while nobody leads.
    leader: Option<Bytes>,
    /// Revision at which the prefix was last read; what the read found includes the changes up to
    /// it.
    read: i64,
}

impl Observer {
    async fn next(&mut self) -> Result<LeaderResponse, Status> {
        if self.leader.is_none()
            && let Some(found) = self.look().await?
        {
            return Ok(found);
        }
        loop {
            let (revision, change) = self.events.next().await?;
            if change.revision.main <= self.read {
                continue;
            }
            let is_new = self.leader.is_none();
            if !is_new && self.leader.as_ref() != Some(&change.key) {
                continue;
            }
            match change.kind {
                ChangeKind::Put => {
                    let kv = KeyValue::decode(change.kv.clone())
                        .map_err(|error| Status::unknown(error.to_string()))?;
                    // Events may arrive in one batch under a later revision. The answer for a new
                    // leader carries the revision of its key, not that of the batch.
                    let revision = if is_new { kv.mod_revision } else { revision };
                    self.leader = Some(change.key.clone());
                    let header = ResponseHeader { revision, ..self.server.node.header() };
                    return Ok(LeaderResponse { header: Some(header), kv: Some(kv) });
                }
                ChangeKind::Delete if is_new => {}
                ChangeKind::Delete => {
                    self.leader = None;
                    if let Some(found) = self.look().await? {
                        return Ok(found);
                    }
                }
            }
        }
    }

    async fn look(&mut self) -> Result<Option<LeaderResponse>, Status> {
        let range =
            self.server.get(&self.who, &recipe::first_created(&prefix_of(&self.name))).await?;
        self.read = range.header.as_ref().map_or(0, |header| header.revision);
        let Some(kv) = recipe::first(&range) else { return Ok(None) };
        self.leader = Some(kv.key.clone());
        Ok(Some(LeaderResponse { header: range.header, kv: Some(kv) }))
    }
}
