//! The messages of the `raft` crate, in etcd's encoding and built without protoc.
//!
//! The `raft` crate takes its messages from a crate of this name. The published one needs protoc
//! (or runs one that it ships) and writes an encoding that differs from etcd's in small ways. This
//! one is put in its place by `[patch.crates-io]`. The types and functions are those that `raft`
//! uses; the bytes are those of etcd's `raftpb`:
//!
//! - scalars are always written, zeros too; empty byte strings and absent messages are not;
//! - what only the `raft` crate knows (fields 13 to 16 of a message, 5 and 6 of an entry) is never
//!   written and never read: those numbers mean something else to etcd;
//! - enumerations are kept as the numbers they arrived as. A number unknown to `raft` is encoded
//!   again unchanged; the getters map it to a harmless value, which their comments name.

mod confchange;
mod confstate;
pub mod eraftpb;
mod legacy;

pub use crate::confchange::{
    ConfChangeI, new_conf_change_single, parse_conf_change, stringify_conf_change,
};
pub use crate::confstate::conf_state_eq;

pub mod prelude {
    pub use crate::eraftpb::{
        ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
        ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot, SnapshotMetadata,
    };
}

pub mod util {
    use crate::eraftpb::ConfState;

    impl<V, L> From<(V, L)> for ConfState
    where
        V: IntoIterator<Item = u64>,
        L: IntoIterator<Item = u64>,
    {
        fn from((voters, learners): (V, L)) -> Self {
            Self {
                voters: voters.into_iter().collect(),
                learners: learners.into_iter().collect(),
                ..Self::default()
            }
        }
    }
}
