//! Lease: grants, revocations, renewals and remaining times.

use std::sync::Arc;

use futures_util::stream::{self, Stream};
use tonic::Status;

use super::Server;
use super::error::status;
use super::kv::{propose, within_quota};
use super::request::Requests;
use crate::auth::Credentials;
use crate::metrics;
use crate::node::{Op, Reply};
use crate::pb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse,
    LeaseLeasesRequest, LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus,
    LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
};

impl Server {
    pub(super) async fn lease_grant(
        self: Arc<Self>,
        who: Credentials,
        request: LeaseGrantRequest,
    ) -> Result<LeaseGrantResponse, Status> {
        let request = within_quota!(self, LeaseGrant, request);
        propose!(self, &who, LeaseGrant, request)
    }

    pub(super) async fn lease_revoke(
        self: Arc<Self>,
        who: Credentials,
        request: LeaseRevokeRequest,
    ) -> Result<LeaseRevokeResponse, Status> {
        propose!(self, &who, LeaseRevoke, request)
    }

    /// The remaining time and, if asked for, the keys. An unknown lease is an answer with TTL -1,
    /// not an error, as in etcd.
    pub(super) async fn lease_time_to_live(
        self: Arc<Self>,
        who: Credentials,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        let found =
            self.node.lease_time_to_live(&who, request.id, request.keys).await.map_err(status)?;
        let header = Some(self.node.header());
        Ok(match found {
            Some(lease) => LeaseTimeToLiveResponse {
                header,
                id: request.id,
                ttl: lease.ttl,
                granted_ttl: lease.granted_ttl,
                keys: lease.keys,
            },
            None => {
                LeaseTimeToLiveResponse { header, id: request.id, ttl: -1, ..Default::default() }
            }
        })
    }

    pub(super) async fn lease_leases(
        self: Arc<Self>,
        who: Credentials,
        _: LeaseLeasesRequest,
    ) -> Result<LeaseLeasesResponse, Status> {
        let leases = self.node.lease_list(&who).await.map_err(status)?;
        let leases = leases.into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(LeaseLeasesResponse { header: Some(self.node.header()), leases })
    }

    /// Answers each request in order; a renewal of an unknown lease is answered with TTL 0, as in
    /// etcd.
    pub(super) fn lease_keep_alive(
        self: Arc<Self>,
        who: Credentials,
        requests: Requests<LeaseKeepAliveRequest>,
    ) -> impl Stream<Item = Result<LeaseKeepAliveResponse, Status>> + Send + use<> {
        stream::unfold(Some((self, who, requests)), |state| async {
            let (server, who, mut requests) = state?;
            let request = match requests.message().await {
                Ok(request) => request?,
                Err(error) => {
                    metrics::stream_failed("lease-keepalive");
                    return Some((Err(error), None));
                }
            };
            match server.keep_alive(&who, request.id).await {
                Ok(response) => Some((Ok(response), Some((server, who, requests)))),
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn keep_alive(
        &self,
        who: &Credentials,
        id: i64,
    ) -> Result<LeaseKeepAliveResponse, Status> {
        // The header is filled before the renewal, as in etcd. Filled afterwards, it could carry
        // the revision of a revoke that came between, and a client would see its lease renewed at a
        // revision at which it does not exist.
        let header = Some(self.node.header());
        let ttl = self.node.lease_renew(who, id).await.map_err(status)?;
        Ok(LeaseKeepAliveResponse { header, id, ttl })
    }
}
