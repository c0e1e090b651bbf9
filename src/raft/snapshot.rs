//! Which state goes with a snapshot's message.
//!
//! Raft's message says that a member needs a state, and names the one that the sender's log knew
//! then. The state itself travels beside the message and may be newer. The sender therefore writes
//! the place of what it sends into the message ([`announce`]), and the receiver looks at that
//! place before it takes anything in ([`announced`]).

use raft::eraftpb::{ConfState, Message, SnapshotMetadata};

use super::{Handle, step};

/// Where a state stands in the log, and the configuration there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SnapshotPlace {
    pub index: u64,
    pub term: u64,
    pub conf_state: ConfState,
}

/// Makes raft's message say which state goes with it. It may be newer than the one raft knew.
pub fn announce(message: &mut Message, place: &SnapshotPlace) -> Result<(), &'static str> {
    if place.index < message.get_snapshot().get_metadata().index {
        return Err("the state is older than what was promised");
    }
    let SnapshotPlace { index, term, conf_state } = place.clone();
    let metadata = SnapshotMetadata { conf_state: Some(conf_state), index, term };
    message.mut_snapshot().metadata = Some(metadata);
    Ok(())
}

/// The state that a message announces, if this member has use for it. Of an older one raft is told,
/// and it tells the leader what is here: a leader that does not know would send the like for ever.
pub fn announced(message: &Message, raft: &Handle) -> Result<SnapshotPlace, &'static str> {
    let metadata = message.get_snapshot().get_metadata();
    let (index, term) = (metadata.index, metadata.term);
    let status = raft.status();
    if !step::is_possible(metadata.get_conf_state(), status.id) {
        return Err("the snapshot's configuration is not one that this member can be in");
    }
    if index <= status.committed || message.term < status.term {
        let _ = raft.ignore_snapshot(message.clone());
        return Err("the snapshot is older than what is here");
    }
    // The next one would take the place of its data.
    if raft.awaits_snapshot() {
        return Err("another snapshot is being installed");
    }
    Ok(SnapshotPlace { index, term, conf_state: metadata.get_conf_state().clone() })
}
