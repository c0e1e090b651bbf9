//! Commands about leases, and the answers to mvcc's questions about the leases of keys.

use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message as _;

use super::command::Reply;
use super::error::Error;
use super::{Machine, Outcome};
use crate::lease::Lessor;
use crate::mvcc::Leases;
use crate::pb::{
    LeaseCheckpointRequest, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest,
    LeaseRevokeResponse, leasepb,
};
use crate::store::Bucket;

/// Lets mvcc ask about leases and attach keys to them.
pub(super) struct LeaseAccess<'a>(pub(super) &'a Mutex<Lessor>);

impl Leases for LeaseAccess<'_> {
    fn exists(&self, id: i64) -> bool {
        self.0.lock().exists(id)
    }

    fn set(&mut self, key: &Bytes, lease: i64) {
        self.0.lock().set(key, lease);
    }
}

impl Machine {
    pub(super) fn lease_grant(
        &self,
        request: LeaseGrantRequest,
        now: Duration,
    ) -> Result<Reply, Error> {
        let LeaseGrantRequest { id, ttl } = request;
        self.lessor.lock().grant(id, ttl, now)?;
        self.store_lease(id, ttl, 0);
        let header = self.header();
        Ok(Reply::LeaseGrant(LeaseGrantResponse { header, id, ttl, error: String::new() }))
    }

    /// Deletes the lease and then its keys, in key order, in one revision.
    pub(super) fn lease_revoke(
        &self,
        request: LeaseRevokeRequest,
        outcome: &mut Outcome,
    ) -> Result<Reply, Error> {
        if !self.lessor.lock().exists(request.id) {
            return Err(Error::LeaseNotFound);
        }
        // Pushed before the keys lose their lease, so that `Store::seal_of_pushed` counts this
        // entry. A checkpoint that reads the leases between the two then waits until the entry is
        // durable.
        self.store.delete(Bucket::Lease, request.id.to_be_bytes().to_vec());
        let keys = self.lessor.lock().revoke(request.id)?;
        let mut write = self.mvcc.begin();
        for key in &keys {
            write.delete(key, &mut LeaseAccess(&self.lessor));
        }
        outcome.changes = write.finish();
        Ok(Reply::LeaseRevoke(LeaseRevokeResponse { header: self.header() }))
    }

    /// Stores the remaining times of leases. A lease that is gone since the proposal is skipped.
    pub(super) fn lease_checkpoint(
        &self,
        request: &LeaseCheckpointRequest,
        now: Duration,
    ) -> Reply {
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
}
