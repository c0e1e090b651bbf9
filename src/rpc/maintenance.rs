//! Maintenance: alarms, status, hashes.

use std::sync::Arc;

use tonic::Status;

use super::Server;
use super::error::{Error, status};
use super::kv::propose;
use crate::auth::Credentials;
use crate::node::{Op, Reply};
use crate::pb::alarm_request::AlarmAction;
use crate::pb::{
    AlarmRequest, AlarmResponse, DowngradeInfo, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, ResponseHeader, StatusRequest, StatusResponse,
};

impl Server {
    /// Even a list goes through the log, as in etcd. An unknown action would end etcd's process.
    pub(super) async fn alarm(
        self: Arc<Self>,
        who: Credentials,
        request: AlarmRequest,
    ) -> Result<AlarmResponse, Status> {
        if AlarmAction::try_from(request.action).is_err() {
            return Err(Error::UnknownAlarmAction.into());
        }
        let mut response = propose!(self, &who, Alarm, request)?;
        self.node.fill(&mut response.header);
        Ok(response)
    }

    pub(super) async fn status(
        self: Arc<Self>,
        _: Credentials,
        _: StatusRequest,
    ) -> Result<StatusResponse, Status> {
        let status = self.node.status();
        Ok(StatusResponse {
            header: Some(self.node.header()),
            version: status.version,
            db_size: status.db_size,
            leader: status.leader,
            raft_index: status.raft_index,
            raft_term: status.raft_term,
            raft_applied_index: status.raft_applied_index,
            errors: status.errors,
            db_size_in_use: status.db_size_in_use,
            is_learner: status.is_learner,
            storage_version: status.storage_version,
            db_size_quota: status.db_size_quota,
            downgrade_info: Some(DowngradeInfo::default()),
        })
    }

    pub(super) async fn hash(
        self: Arc<Self>,
        _: Credentials,
        _: HashRequest,
    ) -> Result<HashResponse, Status> {
        let hash = self.node.hash().await.map_err(status)?;
        Ok(HashResponse { header: Some(self.node.header()), hash })
    }

    pub(super) async fn hash_kv(
        self: Arc<Self>,
        _: Credentials,
        request: HashKvRequest,
    ) -> Result<HashKvResponse, Status> {
        let hashed = self.node.hash_kv(request.revision).await.map_err(status)?;
        let header = ResponseHeader { revision: hashed.current_revision, ..self.node.header() };
        Ok(HashKvResponse {
            header: Some(header),
            hash: hashed.hash,
            compact_revision: hashed.compact_revision,
            hash_revision: hashed.hash_revision,
        })
    }
}
