//! The headers of answers: who answers, in which term, as of which revision.

use super::{Node, Reply};
use crate::pb::ResponseHeader;
use crate::raft;

impl Node {
    pub(super) fn fill_reply(&self, reply: &mut Reply) {
        if let Some(header) = reply.header_mut() {
            self.fill(header);
        }
    }

    /// Completes a header with what does not depend on the request; a revision of 0 becomes the
    /// current one.
    pub fn fill(&self, header: &mut Option<ResponseHeader>) {
        let header = header.get_or_insert_default();
        header.cluster_id = self.0.cluster_id;
        header.member_id = self.0.member_id;
        header.raft_term = self.0.raft.status().term;
        if header.revision == 0 {
            header.revision = self.0.machine.mvcc.current().revision;
        }
    }

    pub fn header(&self) -> ResponseHeader {
        let mut header = None;
        self.fill(&mut header);
        header.unwrap_or_default()
    }
}

/// Adds to an answer's revision who this is, and the term as it is now.
pub(super) fn complete(
    header: &mut Option<ResponseHeader>,
    own: ResponseHeader,
    raft: &raft::Handle,
) {
    let read_at = header.as_ref().map(|header| header.revision).filter(|revision| *revision != 0);
    let revision = read_at.unwrap_or(own.revision);
    *header = Some(ResponseHeader { revision, raft_term: raft.status().term, ..own });
}
