//! The headers of answers: cluster, member, term, revision.

use super::{Node, Reply};
use crate::mvcc::Mvcc;
use crate::pb::ResponseHeader;
use crate::raft;

impl Node {
    pub(super) fn fill_reply(&self, reply: &mut Reply) {
        if let Some(header) = reply.header_mut() {
            self.fill(header);
        }
    }

    /// Completes a header with the ids, the term and, if its revision is 0, the current revision.
    pub fn fill(&self, header: &mut Option<ResponseHeader>) {
        let ids = (self.0.cluster_id, self.0.member_id);
        fill(header, ids, &self.0.raft, &self.0.machine.mvcc);
    }

    pub fn header(&self) -> ResponseHeader {
        let mut header = None;
        self.fill(&mut header);
        header.unwrap_or_default()
    }
}

/// As [`Node::fill`], for work that may outlive its call and must not hold the node, which holds
/// the directory's lock. The ids are the cluster's and the member's.
pub(super) fn fill(
    header: &mut Option<ResponseHeader>,
    (cluster_id, member_id): (u64, u64),
    raft: &raft::Handle,
    mvcc: &Mvcc,
) {
    let header = header.get_or_insert_default();
    header.cluster_id = cluster_id;
    header.member_id = member_id;
    header.raft_term = raft.status().term;
    if header.revision == 0 {
        header.revision = mvcc.current().revision;
    }
}
