//! Cluster: the members.

use std::sync::Arc;

use tonic::Status;

use super::Server;
use super::error::{Error, status};
use crate::auth::Credentials;
use crate::pb::{
    MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse,
    MemberUpdateRequest, MemberUpdateResponse, ResponseHeader,
};
use crate::types;

impl Server {
    pub(super) async fn member_list(
        self: Arc<Self>,
        _: Credentials,
        request: MemberListRequest,
    ) -> Result<MemberListResponse, Status> {
        if request.linearizable {
            self.node.barrier().await.map_err(status)?;
        }
        Ok(MemberListResponse {
            header: self.header_without_revision(),
            members: self.node.members(),
        })
    }

    pub(super) async fn member_add(
        self: Arc<Self>,
        who: Credentials,
        request: MemberAddRequest,
    ) -> Result<MemberAddResponse, Status> {
        if !types::are_member_urls(&request.peer_ur_ls) {
            return Err(Error::MemberBadUrls.into());
        }
        let urls = request.peer_ur_ls.iter().map(|url| types::normalized_url(url)).collect();
        let added = self.node.add_member(&who, urls, request.is_learner).await;
        let (member, members) = added.map_err(status)?;
        Ok(MemberAddResponse {
            header: self.header_without_revision(),
            member: Some(member),
            members,
        })
    }

    pub(super) async fn member_remove(
        self: Arc<Self>,
        who: Credentials,
        request: MemberRemoveRequest,
    ) -> Result<MemberRemoveResponse, Status> {
        let members = self.node.remove_member(&who, request.id).await.map_err(status)?;
        Ok(MemberRemoveResponse { header: self.header_without_revision(), members })
    }

    /// Replaces a member's peer URLs. The node refuses malformed ones; etcd takes them, and the
    /// other members' processes then end.
    pub(super) async fn member_update(
        self: Arc<Self>,
        who: Credentials,
        request: MemberUpdateRequest,
    ) -> Result<MemberUpdateResponse, Status> {
        let updated = self.node.update_member(&who, request.id, request.peer_ur_ls).await;
        let members = updated.map_err(status)?;
        Ok(MemberUpdateResponse { header: self.header_without_revision(), members })
    }

    pub(super) async fn member_promote(
        self: Arc<Self>,
        who: Credentials,
        request: MemberPromoteRequest,
    ) -> Result<MemberPromoteResponse, Status> {
        let members = self.node.promote_member(&who, request.id).await.map_err(status)?;
        Ok(MemberPromoteResponse { header: self.header_without_revision(), members })
    }

    /// etcd's headers of this service carry no revision.
    #[expect(clippy::unnecessary_wraps, reason = "the form in which responses hold it")]
    fn header_without_revision(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: 0, ..self.node.header() })
    }
}
