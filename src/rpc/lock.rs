//! Lock: a mutex by key, kept by a lease.

use std::sync::Arc;

use bytes::Bytes;
use tonic::Status;

use super::Server;
use super::kv::propose;
use super::recipe::{self, ContenderKey, as_unknown};
use crate::auth::Credentials;
use crate::node::{Op, Reply};
use crate::pb::v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse};
use crate::pb::{DeleteRangeRequest, RangeRequest, TxnRequest};

impl Server {
    pub(super) async fn lock(
        self: Arc<Self>,
        who: Credentials,
        request: LockRequest,
    ) -> Result<LockResponse, Status> {
        self.acquire(&who, request).await.map_err(as_unknown)
    }

    async fn acquire(
        self: Arc<Self>,
        who: &Credentials,
        request: LockRequest,
    ) -> Result<LockResponse, Status> {
        let lease = self.session(who, request.lease).await?;
        let prefix = [request.name.as_ref(), b"/"].concat();
        let key = recipe::key_of(&prefix, lease);
        let owner = || recipe::range_op(recipe::first_created(&prefix));
        let request = TxnRequest {
            compare: vec![recipe::created_at(key.clone(), 0)],
            success: vec![recipe::put(key.clone(), Bytes::new(), lease), owner()],
            failure: vec![recipe::get(key.clone()), owner()],
        };
        let response = self.commit(who, request).await?;
        let header = response.header.unwrap_or_default();
        let mine = if response.succeeded {
            header.revision
        } else {
            recipe::found(&response, 0).map_or(0, |row| row.create_revision)
        };
        if recipe::found(&response, 1).is_none_or(|owner| owner.create_revision == mine) {
            return Ok(LockResponse { header: Some(header), key });
        }
        let waiter = ContenderKey::new(Arc::clone(&self), who.clone(), key.clone(), mine);
        self.wait_for_older_keys(who, &prefix, mine).await?;
        let still = self.get(who, &RangeRequest { key: key.clone(), ..Default::default() }).await?;
        waiter.keep();
        if still.kvs.is_empty() {
            return Err(Status::unknown("mutex: session is expired"));
        }
        Ok(LockResponse { header: still.header, key })
    }

    pub(super) async fn unlock(
        self: Arc<Self>,
        who: Credentials,
        request: UnlockRequest,
    ) -> Result<UnlockResponse, Status> {
        if request.key.is_empty() {
            return Err(as_unknown(super::Error::EmptyKey.into()));
        }
        let request = DeleteRangeRequest { key: request.key, ..Default::default() };
        let deleted = propose!(self, &who, DeleteRange, request).map_err(as_unknown)?;
        Ok(UnlockResponse { header: deleted.header })
    }
}
