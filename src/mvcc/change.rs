//! What a write changed, as watchers see it.

use bytes::Bytes;

use super::kv::Pair;
use crate::types::Revision;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Put,
    Delete,
}

/// One change as watchers see it.
#[derive(Clone, Debug)]
pub struct Change {
    pub kind: ChangeKind,
    pub key: Bytes,
    /// The encoded pair of the event: the stored pair, or a deletion's key and mod_revision.
    pub kv: Bytes,
    pub revision: Revision,
    /// Whether the key did not exist before.
    pub is_create: bool,
    /// The pair before the change, if it was read for watchers in advance.
    pub previous: Option<Bytes>,
}

/// The pair in the event of a deletion: key and mod_revision. The stored record has the key alone,
/// since the revision is that of its row.
pub fn deletion_event(key: &[u8], main: i64) -> Bytes {
    Pair { key, mod_revision: main, ..Pair::default() }.encode()
}
