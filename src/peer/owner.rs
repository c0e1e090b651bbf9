//! The functions of `Peers` that the tasks of a peer use. The tasks hold it weakly, and end when it
//! is gone.

use std::sync::Arc;

use super::dial::Dial;
use super::headers::PeersConfig;
use super::one::Peer;
use crate::raft::Message;
use crate::supervise::Supervisor;

pub(super) trait PeerOwner: Send + Sync {
    fn config(&self) -> &PeersConfig;
    fn dial(&self) -> Arc<dyn Dial>;
    fn supervisor(&self) -> Supervisor;
    /// The peer of this id, if it is known.
    fn peer(&self, id: u64) -> Option<Arc<Peer>>;
    /// Hands a message of `from` to raft. Returns false if raft could not take it.
    fn receive(&self, from: u64, message: Message) -> bool;
    /// Tells raft of a message that a peer did not get, or may not have got.
    fn unsent(&self, message: Message, may_have_come: bool);
    /// Forgets a caller that was accepted and never answered.
    fn forget(&self, id: u64);
    /// A peer says that this member was removed from the cluster.
    fn removed(&self);
}
