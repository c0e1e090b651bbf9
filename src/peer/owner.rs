//! What the tasks that run for a peer need of the member that started them. They hold it weakly, and
//! end when it is gone.

use std::sync::Arc;

use super::dial::Dial;
use super::headers::PeersConfig;
use super::one::Peer;
use crate::raft::Message;
use crate::supervise::Supervisor;

pub(super) trait Owner: Send + Sync {
    fn config(&self) -> &PeersConfig;
    fn dial(&self) -> Arc<dyn Dial>;
    fn supervisor(&self) -> Supervisor;
    /// The peer of this id, if it is known.
    fn peer(&self, id: u64) -> Option<Arc<Peer>>;
    /// Takes a message from a stream of `from`'s.
    fn receive(&self, from: u64, message: Message);
    /// Forgets a caller that was believed and never answered.
    fn forget(&self, id: u64);
    /// A peer says that this member was removed from the cluster.
    fn removed(&self);
}
