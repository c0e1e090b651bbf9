//! What is let through to the `raft` crate, which panics on messages it does not expect.

use prost::Message as _;
use raft::eraftpb::{ConfChange, ConfState, Entry, Message, MessageType};
use raft::{RawNode, StateRole};

use super::store::Store;
use crate::limits::RAFT_NUMBER_MAX;

/// Why a message was refused. Raft works with any message lost, so nothing else happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the type is not one that members send")]
    Type,
    #[error("it is not for this member, or from it")]
    Address,
    #[error("the sender is not a member")]
    NotMember,
    #[error("its term is missing, or must not be there")]
    Term,
    #[error("its entries are missing, or too many")]
    EntryCount,
    #[error("its entries leave a gap or their terms fall")]
    EntryOrder,
    #[error("an entry has a type that is not known")]
    EntryType,
    #[error("it contradicts what is committed")]
    Committed,
    #[error("its index is beyond the log")]
    Index,
    #[error("a snapshot did not come the way of snapshots")]
    Snapshot,
    #[error("the configuration of a snapshot is not one that this member can be in")]
    ConfState,
    #[error("a configuration change is under way")]
    ConfChangePending,
    #[error("this member does not take part in elections now")]
    Election,
    #[error("this member was removed; it commits nothing any more and answers no reads")]
    Removed,
}

/// Checks a message from another member.
pub(super) fn admit(raft: &RawNode<Store>, message: &Message) -> Result<(), Refusal> {
    let kind = MessageType::try_from(message.msg_type).map_err(|_| Refusal::Type)?;
    let id = raft.raft.id;
    if message.to != id || message.from == 0 || message.from == id {
        return Err(Refusal::Address);
    }
    let leads = raft.raft.state == StateRole::Leader;
    // A follower may be behind: a member that it does not know of may lead it. A leader knows all.
    if leads && raft.raft.prs().get(message.from).is_none() {
        return Err(Refusal::NotMember);
    }
    let is_forwarded = matches!(kind, MessageType::MsgPropose | MessageType::MsgReadIndex);
    if is_forwarded != (message.term == 0) || message.term > RAFT_NUMBER_MAX {
        return Err(Refusal::Term);
    }
    // Raft does not look further into what belongs to a term that is over.
    let is_late = !is_forwarded && message.term < raft.raft.term;
    match kind {
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => Err(Refusal::Type),
        MessageType::MsgPropose => admit_proposals(raft, message),
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            if message.entries.len() == 1 {
                Ok(())
            } else {
                Err(Refusal::EntryCount)
            }
        }
        _ if is_late => Ok(()),
        // Raft panics when a leader commits something that has removed itself. What the others know
        // of the commit comes with their answers to heartbeats.
        MessageType::MsgAppendResponse
            if leads && message.term == raft.raft.term && raft.raft.prs().get(id).is_none() =>
        {
            Err(Refusal::Removed)
        }
        MessageType::MsgAppend => admit_append(raft, message),
        MessageType::MsgHeartbeat => within_log(raft, message.commit),
        // A leader that crashed may hear of entries that it lost, and is a follower then.
        MessageType::MsgAppendResponse if !leads => Ok(()),
        MessageType::MsgAppendResponse => {
            within_log(raft, message.index)?;
            within_log(raft, message.reject_hint)
        }
        MessageType::MsgSnapshot => Err(Refusal::Snapshot),
        // A follower would pass it on with its term, at which raft panics.
        MessageType::MsgTransferLeader if !leads => Err(Refusal::Election),
        MessageType::MsgTimeoutNow
            if raft.raft.prs().is_singleton() || awaits_snapshot(raft) || brings_change(raft) =>
        {
            Err(Refusal::Election)
        }
        MessageType::MsgTransferLeader
        | MessageType::MsgTimeoutNow
        | MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse => Ok(()),
    }
}

/// Whether a change of the configuration came with the messages of this turn.
pub(super) fn brings_change(raft: &RawNode<Store>) -> bool {
    raft.raft.raft_log.unstable_entries().iter().any(|entry| entry.entry_type != 0)
}

/// Whether entries that are not applied are missing, since a snapshot stands for them.
pub(super) fn awaits_snapshot(raft: &RawNode<Store>) -> bool {
    raft.raft.raft_log.applied + 1 < raft.raft.raft_log.first_index()
}

/// Checks a snapshot from another member, whose data is there.
pub(super) fn admit_snapshot(raft: &RawNode<Store>, message: &Message) -> Result<(), Refusal> {
    if message.msg_type != MessageType::MsgSnapshot as i32 {
        return Err(Refusal::Type);
    }
    let id = raft.raft.id;
    if message.to != id || message.from == 0 || message.from == id {
        return Err(Refusal::Address);
    }
    let metadata = message.get_snapshot().get_metadata();
    if metadata.index == 0 || metadata.index > RAFT_NUMBER_MAX {
        return Err(Refusal::Index);
    }
    if metadata.term == 0 || metadata.term > message.term || message.term > RAFT_NUMBER_MAX {
        return Err(Refusal::Term);
    }
    // Raft drops what is older than the commit, but would put this in the place of the last of it.
    let log = &raft.raft.raft_log;
    if metadata.index == log.committed && log.term(log.committed) != Ok(metadata.term) {
        return Err(Refusal::Committed);
    }
    // A second one has to wait until the first is installed.
    if awaits_snapshot(raft) {
        return Err(Refusal::Snapshot);
    }
    if is_possible(metadata.get_conf_state(), id) { Ok(()) } else { Err(Refusal::ConfState) }
}

/// Whether a member can be in a configuration, which it is by simple changes only.
pub(super) fn is_possible(conf_state: &ConfState, id: u64) -> bool {
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = conf_state;
    let mut ids: Vec<u64> = voters.iter().chain(learners).copied().collect();
    let is_joint = !voters_outgoing.is_empty() || !learners_next.is_empty() || *auto_leave;
    let is_member = ids.contains(&id);
    ids.sort_unstable();
    let is_sound = ids.first() != Some(&0) && ids.windows(2).all(|pair| pair[0] != pair[1]);
    !voters.is_empty() && !is_joint && is_member && is_sound
}

fn within_log(raft: &RawNode<Store>, index: u64) -> Result<(), Refusal> {
    if index <= raft.raft.raft_log.last_index() { Ok(()) } else { Err(Refusal::Index) }
}

fn admit_proposals(raft: &RawNode<Store>, message: &Message) -> Result<(), Refusal> {
    if message.entries.is_empty() {
        return Err(Refusal::EntryCount);
    }
    for entry in &message.entries {
        known_type(entry)?;
        // Raft would replace the change by an empty entry and nobody would learn of it.
        if entry.entry_type == 1 && raft.raft.has_pending_conf() {
            return Err(Refusal::ConfChangePending);
        }
    }
    Ok(())
}

fn admit_append(raft: &RawNode<Store>, message: &Message) -> Result<(), Refusal> {
    let log = &raft.raft.raft_log;
    // Raft takes the term of an entry that it does not have for 0, and would append after a gap.
    if message.index > 0 && message.log_term == 0 {
        return Err(Refusal::EntryOrder);
    }
    let mut before = (message.index, message.log_term);
    for entry in &message.entries {
        if Some(entry.index) != before.0.checked_add(1)
            || entry.term < before.1
            || entry.term > message.term
        {
            return Err(Refusal::EntryOrder);
        }
        known_type(entry)?;
        let contradicts = || log.term(entry.index).is_ok_and(|term| term != entry.term);
        if entry.index <= log.committed && entry.index >= log.first_index() && contradicts() {
            return Err(Refusal::Committed);
        }
        before = (entry.index, entry.term);
    }
    Ok(())
}

/// Normal entries, and configuration changes that can be read.
fn known_type(entry: &Entry) -> Result<(), Refusal> {
    match entry.entry_type {
        0 => Ok(()),
        1 if ConfChange::decode(entry.data.clone()).is_ok() => Ok(()),
        _ => Err(Refusal::EntryType),
    }
}
