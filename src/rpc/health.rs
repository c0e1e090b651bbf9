//! grpc.health.v1. The status is SERVING whenever this server answers.

use std::sync::Arc;

use futures_util::stream::{self, Stream, StreamExt};
use tonic::Status;

use super::Server;
use crate::auth::Credentials;
use crate::pb::health::ServingStatus;
use crate::pb::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status as i32 }
}

impl Server {
    pub(super) async fn health_check(
        self: Arc<Self>,
        _: Credentials,
        request: HealthCheckRequest,
    ) -> Result<HealthCheckResponse, Status> {
        if request.service.is_empty() {
            Ok(response(ServingStatus::Serving))
        } else {
            Err(Status::not_found("unknown service"))
        }
    }

    pub(super) async fn health_list(
        self: Arc<Self>,
        _: Credentials,
        _: HealthListRequest,
    ) -> Result<HealthListResponse, Status> {
        let statuses = [(String::new(), response(ServingStatus::Serving))].into();
        Ok(HealthListResponse { statuses })
    }

    /// Sends the status once, and then nothing until the client or the server ends the stream,
    /// since the status never changes.
    pub(super) async fn health_watch(
        self: Arc<Self>,
        _: Credentials,
        request: HealthCheckRequest,
    ) -> Result<impl Stream<Item = Result<HealthCheckResponse, Status>> + Send + use<>, Status>
    {
        let status = if request.service.is_empty() {
            ServingStatus::Serving
        } else {
            ServingStatus::ServiceUnknown
        };
        Ok(stream::iter([Ok(response(status))]).chain(stream::pending()))
    }
}
