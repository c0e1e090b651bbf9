//! Which state goes with a snapshot's message.
//!
//! Raft's message says that a member needs a state, and names the one that was on the sender's disk
//! at that time. The state itself travels beside the message and may be newer. The sender therefore
//! writes the place of the state that it sends into the message ([`announce`]), and the receiver
//! looks at that place before it takes anything in ([`announced`]).

use raft::eraftpb::{ConfState, Message, SnapshotMetadata};

use super::{Handle, step};

/// Where a state stands in the log, and the configuration there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SnapshotPlace {
    pub index: u64,
    pub term: u64,
    pub conf_state: ConfState,
}

/// Writes into raft's message which state goes with it. That state may be newer than the one that
/// the message names, but not older.
pub fn announce(message: &mut Message, place: &SnapshotPlace) -> Result<(), &'static str> {
    if place.index < message.get_snapshot().get_metadata().index {
        return Err("the state is older than what was promised");
    }
    let SnapshotPlace { index, term, conf_state } = place.clone();
    let metadata = SnapshotMetadata { conf_state: Some(conf_state), index, term };
    message.mut_snapshot().metadata = Some(metadata);
    Ok(())
}

/// The state that a message announces, if this member can use it. The message of a snapshot that is
/// not beyond the commit here goes to raft, which answers the leader with the commit index: without
/// that answer the leader would send snapshots for ever.
pub fn announced(message: &Message, raft: &Handle) -> Result<SnapshotPlace, &'static str> {
    let metadata = message.get_snapshot().get_metadata();
    let (index, term) = (metadata.index, metadata.term);
    let status = raft.status();
    if !step::is_valid_for(metadata.get_conf_state(), status.id) {
        return Err("the snapshot's configuration is not one that this member can be in");
    }
    if index <= status.committed || message.term < status.term {
        let _ = raft.ignore_snapshot(message.clone());
        return Err("the snapshot is older than what is here");
    }
    // A second snapshot's data would replace that of the first.
    if raft.awaits_snapshot() {
        return Err("another snapshot is being installed");
    }
    Ok(SnapshotPlace { index, term, conf_state: metadata.get_conf_state().clone() })
}
