//! Upkeep for clients: who may ask for it; and the door by which upkeep asks the member.

use super::{Error, Node, Op};
use crate::auth::{Credentials, Demand};
use crate::upkeep::{CorruptionError, Door, HashKv, Refusal, Usage};

impl Door for Node {
    async fn propose(&self, op: Op) -> Result<(), Refusal> {
        Ok(self.propose_own(op).await.map(drop)?)
    }

    async fn barrier(&self) -> Result<(), Refusal> {
        Ok(Self::barrier(self).await?)
    }

    async fn hand_over(&self) -> Result<(), Refusal> {
        Ok(Self::hand_over(self).await?)
    }

    fn is_leader(&self) -> bool {
        Self::is_leader(self)
    }

    fn has_leader(&self) -> bool {
        *self.0.leading.leader.borrow() != 0
    }

    fn is_stopping(&self) -> bool {
        *self.0.stopping.borrow()
    }
}

impl Node {
    /// Fails with `Corrupt` if this member is fenced because its store is damaged.
    pub(super) fn fence(&self) -> Result<(), Error> {
        Ok(self.0.upkeep.fence()?)
    }

    /// Whether the store of this member is damaged: it then serves no client.
    pub fn is_fenced(&self) -> bool {
        self.0.upkeep.is_fenced()
    }

    /// Gives free space within the store's file back to the file system.
    pub async fn defragment(&self, who: &Credentials) -> Result<(), Error> {
        self.permits(who, &Demand::Root).await?;
        Ok(self.0.upkeep.defragment().await.map(drop)?)
    }

    /// Counts the bytes of live keys and of history, by key prefixes that end with the `depth`th
    /// slash. Returns the largest `prefixes` of them.
    pub async fn usage(
        &self,
        who: &Credentials,
        prefixes: usize,
        depth: usize,
    ) -> Result<Usage, Error> {
        self.permits(who, &Demand::Root).await?;
        Ok(self.0.upkeep.usage(prefixes, depth).await?)
    }

    /// The hash of history at `revision` (0: the current one).
    pub async fn hash_kv(&self, who: &Credentials, revision: i64) -> Result<HashKv, Error> {
        self.permits(who, &Demand::Root).await?;
        Ok(self.0.upkeep.hash_kv(revision).await?)
    }

    /// As [`Node::hash_kv`], for a peer, which asks over the peer port without credentials.
    pub async fn history_hash(&self, revision: i64) -> Result<HashKv, Error> {
        Ok(self.0.upkeep.history_hash(revision).await?)
    }

    /// The checksum over all buckets of the store, which members at the same index share.
    pub async fn hash(&self, who: &Credentials) -> Result<u32, Error> {
        self.permits(who, &Demand::Root).await?;
        Ok(self.0.upkeep.hash_all().await?)
    }

    /// Compares this member's history with that of the peers that answer; an error if one differs.
    pub async fn check_at_start(&self) -> Result<(), CorruptionError> {
        self.0.upkeep.check_at_start().await
    }
}
