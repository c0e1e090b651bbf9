//! The input and output of the core.
//!
//! An [`Event`] comes from the raft loop, which has it from a clock, the log writer, apply, another
//! member or a proposer. An [`Effect`] goes back to the loop, which carries it out. The order of
//! effects is a promise: what precedes a message must be done before the message leaves.

use bytes::Bytes;
use raft::eraftpb::{ConfChange, ConfState, Message};

use crate::raft::log::{Batch, EntryPosition, SnapshotRecord};
use crate::raft::{Error, Leader, Refusal};

/// Data to be put into the log. If raft drops it, the ticket comes back in [`Effect::Dropped`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    pub ticket: u64,
    pub data: Bytes,
    pub via: Via,
}

/// Which leader may put a proposal into the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Via {
    /// Any leader: a follower forwards the proposal.
    #[default]
    AnyLeader,
    /// This member alone, as the leader of that term. Any other leader would know less of what
    /// clients were promised, so raft drops the proposal when the term is over.
    OwnTerm(u64),
}

/// Something that happened, for the core to take in.
#[derive(Debug)]
pub enum Event {
    /// A heartbeat interval passed.
    Tick,
    Propose(Vec<Proposal>),
    ProposeConfChange {
        ticket: u64,
        change: ConfChange,
    },
    /// A read index is wanted; the token comes back in [`Effect::ReadIndex`] or
    /// [`Effect::ReadsLate`].
    Read(u64),
    /// Another member sent this message, which is not checked yet.
    Receive(Message),
    /// All jobs up to this one are durable, and the entries of those that were not reported before
    /// stand at these places.
    Persisted {
        number: u64,
        places: Vec<EntryPosition>,
    },
    /// The state includes this entry and all before it.
    Applied(u64),
    /// Apply reached a configuration change; `change` is `None` if apply rejected it.
    ConfChange {
        index: u64,
        change: Option<ConfChange>,
    },
    /// The state on disk includes the entry `index` of `term`, and has this configuration.
    Durable {
        index: u64,
        term: u64,
        conf_state: ConfState,
    },
    TransferLeader(u64),
    /// This member, which has just started, has reached the others: the first election need not
    /// wait for its full timeout.
    PeersReached,
    Unreachable(u64),
    /// Another member sent a snapshot, which is on disk and checked.
    ReceiveSnapshot(Message),
    /// Another member offered a snapshot that is not beyond the commit here, and its data was
    /// refused. Raft answers the sender with the commit index of this member.
    IgnoreSnapshot(Message),
    /// Whether a snapshot arrived at the member that it was sent to.
    SnapshotSent {
        to: u64,
        arrived: bool,
    },
}

/// Something to be done by the raft loop, in the order in which the core gives it.
#[derive(Debug)]
pub enum Effect {
    Persist(Job),
    Send(Vec<Message>),
    Commit(Vec<Committed>),
    ReadIndex {
        tokens: Vec<u64>,
        index: u64,
    },
    /// Tokens of reads that no leader answered in time.
    ReadsLate(Vec<u64>),
    /// Tickets of proposals that did not get into the log.
    Dropped(Vec<u64>),
    /// The answer to [`Event::ConfChange`].
    ConfState {
        index: u64,
        outcome: Result<ConfState, Error>,
    },
    Leader(Leader),
    /// Log segments that hold nothing from `below` on may be removed once `record` is durable.
    Purge {
        below: u64,
        record: SnapshotRecord,
    },
    Refused(Refusal),
    /// The member has to stop. This is the only effect of its turn, and no turn follows.
    Fatal(Error),
}

/// One piece of work for the log writer: write the batch, sync if so marked, then send the
/// messages.
#[derive(Debug, Default)]
pub struct Job {
    pub number: u64,
    pub batch: Batch,
    pub sync: bool,
    pub messages: Vec<Message>,
}

/// A committed entry.
#[derive(Clone, Debug, PartialEq)]
pub enum Committed {
    /// `data` is empty in the entry with which a leader begins its term.
    Normal {
        index: u64,
        term: u64,
        data: Bytes,
    },
    ConfChange {
        index: u64,
        term: u64,
        change: ConfChange,
    },
    /// The state of a snapshot replaces the whole state so far.
    Snapshot {
        index: u64,
        term: u64,
        conf_state: ConfState,
    },
}

impl Committed {
    pub fn index(&self) -> u64 {
        match self {
            Self::Normal { index, .. }
            | Self::ConfChange { index, .. }
            | Self::Snapshot { index, .. } => *index,
        }
    }

    pub fn term(&self) -> u64 {
        match self {
            Self::Normal { term, .. }
            | Self::ConfChange { term, .. }
            | Self::Snapshot { term, .. } => *term,
        }
    }
}
