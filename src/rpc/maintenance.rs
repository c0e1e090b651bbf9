//! Maintenance: alarms, status, hashes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use tonic::Status;

use super::Server;
use super::error::{Error, status};
use super::kv::propose;
use crate::auth::Credentials;
use crate::clock;
use crate::limits::SNAPSHOT_MESSAGE_BYTES;
use crate::metrics;
use crate::node::{self, Downgrade, Op, Reply};
use crate::pb::alarm_request::AlarmAction;
use crate::pb::downgrade_request::DowngradeAction;
use crate::pb::{
    AlarmRequest, AlarmResponse, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, ResponseHeader, SnapshotRequest, SnapshotResponse,
    StatusRequest, StatusResponse,
};
use crate::transfer::{SnapshotPiece, SnapshotPieces};

impl Server {
    /// A list of alarms goes through the log as well, as in etcd. An unknown action is refused: in
    /// etcd it ends the process.
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
            downgrade_info: Some(DowngradeInfo {
                enabled: status.downgrade_target.is_some(),
                target_version: status.downgrade_target.unwrap_or_default(),
            }),
        })
    }

    pub(super) async fn move_leader(
        self: Arc<Self>,
        who: Credentials,
        request: MoveLeaderRequest,
    ) -> Result<MoveLeaderResponse, Status> {
        self.node.move_leader(&who, request.target_id).await.map_err(status)?;
        // etcd sends no header in this response.
        Ok(MoveLeaderResponse::default())
    }

    pub(super) async fn downgrade(
        self: Arc<Self>,
        who: Credentials,
        request: DowngradeRequest,
    ) -> Result<DowngradeResponse, Status> {
        let asked = match DowngradeAction::try_from(request.action) {
            Ok(DowngradeAction::Validate) => Downgrade::Validate(request.version),
            Ok(DowngradeAction::Enable) => Downgrade::Enable(request.version),
            Ok(DowngradeAction::Cancel) => Downgrade::Cancel,
            Err(_) => return Err(Status::unknown("etcdserver: unknown method")),
        };
        let version = self.node.downgrade(&who, asked).await.map_err(status)?;
        Ok(DowngradeResponse { header: Some(self.node.header()), version: version.short() })
    }

    /// Defragments the store of this member. Reads and writes go on meanwhile, unlike in etcd.
    pub(super) async fn defragment(
        self: Arc<Self>,
        who: Credentials,
        _: DefragmentRequest,
    ) -> Result<DefragmentResponse, Status> {
        tracing::info!("starting defragment");
        match self.node.defragment(&who).await {
            Ok(()) => {
                tracing::info!("finished defragment");
                // etcd sends no header in this response.
                Ok(DefragmentResponse::default())
            }
            Err(error) => {
                tracing::warn!(%error, "failed to defragment");
                Err(status(error))
            }
        }
    }

    pub(super) async fn hash(
        self: Arc<Self>,
        who: Credentials,
        _: HashRequest,
    ) -> Result<HashResponse, Status> {
        let hash = self.node.hash(&who).await.map_err(status)?;
        Ok(HashResponse { header: Some(self.node.header()), hash })
    }

    pub(super) async fn hash_kv(
        self: Arc<Self>,
        who: Credentials,
        request: HashKvRequest,
    ) -> Result<HashKvResponse, Status> {
        let hashed = self.node.hash_kv(&who, request.revision).await.map_err(status)?;
        let header = ResponseHeader { revision: hashed.current_revision, ..self.node.header() };
        Ok(HashKvResponse {
            header: Some(header),
            hash: hashed.hash,
            compact_revision: hashed.compact_revision,
            hash_revision: hashed.hash_revision,
        })
    }

    /// A stream of the snapshot file in messages of `SNAPSHOT_MESSAGE_BYTES`, with its SHA-256 in
    /// the last one.
    pub(super) async fn snapshot(
        self: Arc<Self>,
        who: Credentials,
        _: SnapshotRequest,
    ) -> Result<impl Stream<Item = Result<SnapshotResponse, Status>> + Send + use<>, Status> {
        let pieces = self.node.snapshot(&who).await.map_err(status)?;
        tracing::info!(
            "total-bytes" = pieces.file_bytes,
            "storage-version" = pieces.storage_version,
            "sending database snapshot to client"
        );
        let left = pieces.file_bytes;
        let sending = SendingSnapshot { pieces, rest: Bytes::new(), left };
        Ok(stream::unfold(Some(sending), |sending| async {
            let mut sending = sending?;
            match sending.next().await {
                Ok((response, false)) => Some((Ok(response), Some(sending))),
                Ok((response, true)) => Some((Ok(response), None)),
                Err(error) => Some((Err(status(error)), None)),
            }
        }))
    }
}

/// A snapshot that is being sent to a client.
struct SendingSnapshot {
    pieces: SnapshotPieces,
    /// The part of the current piece that is not sent yet.
    rest: Bytes,
    /// Bytes of the file that are not sent yet.
    left: u64,
}

impl SendingSnapshot {
    /// The next message, and whether it is the last.
    async fn next(&mut self) -> Result<(SnapshotResponse, bool), node::Error> {
        while self.rest.is_empty() {
            match self.pieces.next().await {
                Some(Ok(SnapshotPiece::Bytes(bytes))) => self.rest = bytes,
                Some(Ok(SnapshotPiece::Digest(digest))) => {
                    let now = clock::wall_nanos() / 1_000_000_000;
                    metrics::last_snapshot().set(i64::try_from(now).unwrap_or_default());
                    tracing::info!("successfully sent database snapshot to client");
                    return Ok((self.response(Bytes::copy_from_slice(&digest)), true));
                }
                Some(Err(error)) => return Err(node::Error::Internal(error.to_string())),
                None => {
                    let why = "the snapshot ended: its reader took too long, or the member stops";
                    return Err(node::Error::Internal(why.to_owned()));
                }
            }
        }
        let blob = self.rest.split_to(self.rest.len().min(SNAPSHOT_MESSAGE_BYTES));
        self.left -= blob.len() as u64;
        Ok((self.response(blob), false))
    }

    fn response(&self, blob: Bytes) -> SnapshotResponse {
        let version = self.pieces.storage_version.clone();
        SnapshotResponse { header: None, remaining_bytes: self.left, blob, version }
    }
}
