//! The checks of a message before the `raft` crate sees it, which panics on what it does not
//! expect.

use prost::Message as _;
use raft::eraftpb::{ConfChange, ConfState, Entry, Message, MessageType};
use raft::{RawNode, StateRole};

use super::store::Store;
use crate::limits::{RAFT_NUMBER_MAX, RAFT_TERM_HIGH, RAFT_TERM_RISE_MAX};

/// Why a message was refused. Raft tolerates the loss of any message, so a refused one is counted
/// and dropped.
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
    // A follower may lag, and a member that it does not know of yet may lead. A leader knows all
    // members.
    if leads && raft.raft.prs().get(message.from).is_none() {
        return Err(Refusal::NotMember);
    }
    let is_forwarded = matches!(kind, MessageType::MsgPropose | MessageType::MsgReadIndex);
    if is_forwarded != (message.term == 0) || !may_be_term(raft, message.term) {
        return Err(Refusal::Term);
    }
    // Raft looks no further into a message of an earlier term, so it needs no further checks.
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
        // Raft panics when a leader that has applied its own removal commits an entry. Answers to
        // heartbeats still tell it which commit the others know.
        MessageType::MsgAppendResponse
            if leads && message.term == raft.raft.term && raft.raft.prs().get(id).is_none() =>
        {
            Err(Refusal::Removed)
        }
        MessageType::MsgAppend => admit_append(raft, message),
        MessageType::MsgHeartbeat => within_log(raft, message.commit),
        // A leader that has crashed may be told of entries that it has lost; as a follower it
        // ignores that.
        MessageType::MsgAppendResponse if !leads => Ok(()),
        MessageType::MsgAppendResponse => {
            within_log(raft, message.index)?;
            within_log(raft, message.reject_hint)
        }
        MessageType::MsgSnapshot => Err(Refusal::Snapshot),
        // A follower would forward the message with its term, and raft panics when it sends that.
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

/// Whether the entries of this turn, which are not in the log's table yet, include a configuration
/// change.
pub(super) fn brings_change(raft: &RawNode<Store>) -> bool {
    raft.raft.raft_log.unstable_entries().iter().any(|entry| entry.entry_type != 0)
}

/// Whether entries that are not applied are missing from the log, because a snapshot that is not
/// applied yet includes them.
pub(super) fn awaits_snapshot(raft: &RawNode<Store>) -> bool {
    raft.raft.raft_log.applied + 1 < raft.raft.raft_log.first_index()
}

/// Whether a message of this term may come. A single one must not take a member to the last terms,
/// behind which there is none for the next election.
fn may_be_term(raft: &RawNode<Store>, term: u64) -> bool {
    let own = raft.raft.term;
    term <= RAFT_NUMBER_MAX && (term <= RAFT_TERM_HIGH || term <= own + RAFT_TERM_RISE_MAX)
}

/// Checks the message of another member's snapshot.
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
    if metadata.term == 0 || metadata.term > message.term || !may_be_term(raft, message.term) {
        return Err(Refusal::Term);
    }
    // Raft ignores a snapshot that is older than the commit. One at the commit index but of another
    // term would replace the committed entry.
    let log = &raft.raft.raft_log;
    if metadata.index == log.committed && log.term(log.committed) != Ok(metadata.term) {
        return Err(Refusal::Committed);
    }
    // A second snapshot has to wait until the first is applied.
    if awaits_snapshot(raft) {
        return Err(Refusal::Snapshot);
    }
    if is_valid_for(metadata.get_conf_state(), id) { Ok(()) } else { Err(Refusal::ConfState) }
}

/// Whether a configuration is one that simple changes lead to, and that has this member in it.
pub(super) fn is_valid_for(conf_state: &ConfState, id: u64) -> bool {
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
        // Raft would replace the change by an empty entry, and its proposer would not learn of
        // that.
        if entry.entry_type == 1 && raft.raft.has_pending_conf() {
            return Err(Refusal::ConfChangePending);
        }
    }
    Ok(())
}

fn admit_append(raft: &RawNode<Store>, message: &Message) -> Result<(), Refusal> {
    let log = &raft.raft.raft_log;
    // For raft an entry that it does not have is of term 0, so it would append after a gap.
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

/// Refuses an entry that is neither normal nor a configuration change that can be decoded.
fn known_type(entry: &Entry) -> Result<(), Refusal> {
    match entry.entry_type {
        0 => Ok(()),
        1 if ConfChange::decode(entry.data.clone()).is_ok() => Ok(()),
        _ => Err(Refusal::EntryType),
    }
}
