//! Cluster: the members.

use std::sync::Arc;

use tonic::Status;

use super::Server;
use super::error::status;
use crate::auth::Credentials;
use crate::pb::{MemberListRequest, MemberListResponse, ResponseHeader};

impl Server {
    pub(super) async fn member_list(
        self: Arc<Self>,
        _: Credentials,
        request: MemberListRequest,
    ) -> Result<MemberListResponse, Status> {
        if request.linearizable {
            self.node.barrier().await.map_err(status)?;
        }
        // Headers of this service carry no revision.
        let header = ResponseHeader { revision: 0, ..self.node.header() };
        Ok(MemberListResponse { header: Some(header), members: self.node.members() })
    }
}
