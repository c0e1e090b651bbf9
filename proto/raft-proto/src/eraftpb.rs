//! The messages. Names are the `raft` crate's, numbers and encoding are etcd's.

use bytes::{Buf, BufMut, Bytes};
use prost::DecodeError;
use prost::encoding::{self, DecodeContext, WireType};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum EntryType {
    EntryNormal = 0,
    EntryConfChange = 1,
    EntryConfChangeV2 = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum MessageType {
    MsgHup = 0,
    MsgBeat = 1,
    MsgPropose = 2,
    MsgAppend = 3,
    MsgAppendResponse = 4,
    MsgRequestVote = 5,
    MsgRequestVoteResponse = 6,
    MsgSnapshot = 7,
    MsgHeartbeat = 8,
    MsgHeartbeatResponse = 9,
    MsgUnreachable = 10,
    MsgSnapStatus = 11,
    MsgCheckQuorum = 12,
    MsgTransferLeader = 13,
    MsgTimeoutNow = 14,
    MsgReadIndex = 15,
    MsgReadIndexResp = 16,
    MsgRequestPreVote = 17,
    MsgRequestPreVoteResponse = 18,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ConfChangeTransition {
    Auto = 0,
    Implicit = 1,
    Explicit = 2,
}

/// The types that `raft` knows. etcd also has UpdateNode, 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ConfChangeType {
    AddNode = 0,
    RemoveNode = 1,
    AddLearnerNode = 3,
}

/// One entry of the log. `context` and `sync_log` exist for `raft` only and are never encoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    pub entry_type: i32,
    pub term: u64,
    pub index: u64,
    pub data: Bytes,
    pub context: Bytes,
    pub sync_log: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct SnapshotMetadata {
    #[prost(message, optional, tag = "1")]
    pub conf_state: Option<ConfState>,
    #[prost(uint64, required, tag = "2")]
    pub index: u64,
    #[prost(uint64, required, tag = "3")]
    pub term: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Snapshot {
    #[prost(bytes = "bytes", tag = "1")]
    pub data: Bytes,
    #[prost(message, optional, tag = "2")]
    pub metadata: Option<SnapshotMetadata>,
}

/// What members send each other. The fields from `commit_term` on exist for `raft` only and are
/// never encoded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    pub msg_type: i32,
    pub to: u64,
    pub from: u64,
    pub term: u64,
    pub log_term: u64,
    pub index: u64,
    pub entries: Vec<Entry>,
    pub commit: u64,
    pub snapshot: Option<Snapshot>,
    pub reject: bool,
    pub reject_hint: u64,
    pub context: Bytes,
    pub commit_term: u64,
    pub request_snapshot: u64,
    pub deprecated_priority: u64,
    pub priority: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HardState {
    #[prost(uint64, required, tag = "1")]
    pub term: u64,
    #[prost(uint64, required, tag = "2")]
    pub vote: u64,
    #[prost(uint64, required, tag = "3")]
    pub commit: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfState {
    #[prost(uint64, repeated, packed = "false", tag = "1")]
    pub voters: Vec<u64>,
    #[prost(uint64, repeated, packed = "false", tag = "2")]
    pub learners: Vec<u64>,
    #[prost(uint64, repeated, packed = "false", tag = "3")]
    pub voters_outgoing: Vec<u64>,
    #[prost(uint64, repeated, packed = "false", tag = "4")]
    pub learners_next: Vec<u64>,
    #[prost(bool, required, tag = "5")]
    pub auto_leave: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfChange {
    #[prost(uint64, required, tag = "1")]
    pub id: u64,
    #[prost(int32, required, tag = "2")]
    pub change_type: i32,
    #[prost(uint64, required, tag = "3")]
    pub node_id: u64,
    #[prost(bytes = "bytes", tag = "4")]
    pub context: Bytes,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct ConfChangeSingle {
    #[prost(int32, required, tag = "1")]
    pub change_type: i32,
    #[prost(uint64, required, tag = "2")]
    pub node_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct ConfChangeV2 {
    #[prost(int32, required, tag = "1")]
    pub transition: i32,
    #[prost(message, repeated, tag = "2")]
    pub changes: Vec<ConfChangeSingle>,
    #[prost(bytes = "bytes", tag = "3")]
    pub context: Bytes,
}

fn bytes_len(tag: u32, value: &Bytes) -> usize {
    if value.is_empty() { 0 } else { encoding::bytes::encoded_len(tag, value) }
}

fn encode_bytes(tag: u32, value: &Bytes, buf: &mut impl BufMut) {
    if !value.is_empty() {
        encoding::bytes::encode(tag, value, buf);
    }
}

impl prost::Message for Entry {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        encoding::int32::encode(1, &self.entry_type, buf);
        encoding::uint64::encode(2, &self.term, buf);
        encoding::uint64::encode(3, &self.index, buf);
        encode_bytes(4, &self.data, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::int32::merge(wire_type, &mut self.entry_type, buf, ctx),
            2 => encoding::uint64::merge(wire_type, &mut self.term, buf, ctx),
            3 => encoding::uint64::merge(wire_type, &mut self.index, buf, ctx),
            4 => encoding::bytes::merge(wire_type, &mut self.data, buf, ctx),
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        encoding::int32::encoded_len(1, &self.entry_type)
            + encoding::uint64::encoded_len(2, &self.term)
            + encoding::uint64::encoded_len(3, &self.index)
            + bytes_len(4, &self.data)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl prost::Message for Message {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        encoding::int32::encode(1, &self.msg_type, buf);
        encoding::uint64::encode(2, &self.to, buf);
        encoding::uint64::encode(3, &self.from, buf);
        encoding::uint64::encode(4, &self.term, buf);
        encoding::uint64::encode(5, &self.log_term, buf);
        encoding::uint64::encode(6, &self.index, buf);
        encoding::message::encode_repeated(7, &self.entries, buf);
        encoding::uint64::encode(8, &self.commit, buf);
        if let Some(snapshot) = &self.snapshot {
            encoding::message::encode(9, snapshot, buf);
        }
        encoding::bool::encode(10, &self.reject, buf);
        encoding::uint64::encode(11, &self.reject_hint, buf);
        encode_bytes(12, &self.context, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::int32::merge(wire_type, &mut self.msg_type, buf, ctx),
            2 => encoding::uint64::merge(wire_type, &mut self.to, buf, ctx),
            3 => encoding::uint64::merge(wire_type, &mut self.from, buf, ctx),
            4 => encoding::uint64::merge(wire_type, &mut self.term, buf, ctx),
            5 => encoding::uint64::merge(wire_type, &mut self.log_term, buf, ctx),
            6 => encoding::uint64::merge(wire_type, &mut self.index, buf, ctx),
            7 => encoding::message::merge_repeated(wire_type, &mut self.entries, buf, ctx),
            8 => encoding::uint64::merge(wire_type, &mut self.commit, buf, ctx),
            9 => {
                let snapshot = self.snapshot.get_or_insert_with(Snapshot::default);
                encoding::message::merge(wire_type, snapshot, buf, ctx)
            }
            10 => encoding::bool::merge(wire_type, &mut self.reject, buf, ctx),
            11 => encoding::uint64::merge(wire_type, &mut self.reject_hint, buf, ctx),
            12 => encoding::bytes::merge(wire_type, &mut self.context, buf, ctx),
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let numbers = [
            (2, self.to),
            (3, self.from),
            (4, self.term),
            (5, self.log_term),
            (6, self.index),
            (8, self.commit),
            (11, self.reject_hint),
        ];
        numbers.iter().map(|(tag, value)| encoding::uint64::encoded_len(*tag, value)).sum::<usize>()
            + encoding::int32::encoded_len(1, &self.msg_type)
            + encoding::message::encoded_len_repeated(7, &self.entries)
            + self.snapshot.as_ref().map_or(0, |value| encoding::message::encoded_len(9, value))
            + encoding::bool::encoded_len(10, &self.reject)
            + bytes_len(12, &self.context)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Entry {
    /// The type; a number unknown to `raft` counts as normal. Check such entries before `raft` sees
    /// them.
    pub fn get_entry_type(&self) -> EntryType {
        EntryType::try_from(self.entry_type).unwrap_or(EntryType::EntryNormal)
    }

    pub fn set_entry_type(&mut self, value: EntryType) {
        self.entry_type = value as i32;
    }

    pub fn get_term(&self) -> u64 {
        self.term
    }

    pub fn get_index(&self) -> u64 {
        self.index
    }

    pub fn set_index(&mut self, value: u64) {
        self.index = value;
    }

    pub fn get_data(&self) -> &[u8] {
        &self.data
    }

    pub fn take_data(&mut self) -> Bytes {
        std::mem::take(&mut self.data)
    }

    pub fn take_context(&mut self) -> Bytes {
        std::mem::take(&mut self.context)
    }
}

impl SnapshotMetadata {
    pub fn get_conf_state(&self) -> &ConfState {
        self.conf_state.as_ref().unwrap_or_else(|| protobuf::Message::default_instance())
    }

    pub fn mut_conf_state(&mut self) -> &mut ConfState {
        self.conf_state.get_or_insert_with(ConfState::default)
    }

    pub fn set_conf_state(&mut self, value: ConfState) {
        self.conf_state = Some(value);
    }

    pub fn take_conf_state(&mut self) -> ConfState {
        self.conf_state.take().unwrap_or_default()
    }

    pub fn get_index(&self) -> u64 {
        self.index
    }

    pub fn get_term(&self) -> u64 {
        self.term
    }
}

impl Snapshot {
    /// Whether there is no snapshot in it.
    pub fn is_empty(&self) -> bool {
        self.get_metadata().index == 0
    }

    pub fn get_metadata(&self) -> &SnapshotMetadata {
        self.metadata.as_ref().unwrap_or_else(|| protobuf::Message::default_instance())
    }

    pub fn mut_metadata(&mut self) -> &mut SnapshotMetadata {
        self.metadata.get_or_insert_with(SnapshotMetadata::default)
    }

    pub fn set_metadata(&mut self, value: SnapshotMetadata) {
        self.metadata = Some(value);
    }

    pub fn take_metadata(&mut self) -> SnapshotMetadata {
        self.metadata.take().unwrap_or_default()
    }

    pub fn get_data(&self) -> &[u8] {
        &self.data
    }
}

impl Message {
    /// The type; a number unknown to `raft` counts as MsgHup, which `raft` refuses from outside.
    pub fn get_msg_type(&self) -> MessageType {
        MessageType::try_from(self.msg_type).unwrap_or(MessageType::MsgHup)
    }

    pub fn set_msg_type(&mut self, value: MessageType) {
        self.msg_type = value as i32;
    }

    pub fn get_index(&self) -> u64 {
        self.index
    }

    pub fn set_index(&mut self, value: u64) {
        self.index = value;
    }

    pub fn set_commit(&mut self, value: u64) {
        self.commit = value;
    }

    pub fn set_priority(&mut self, value: i64) {
        self.priority = value;
    }

    pub fn get_entries(&self) -> &[Entry] {
        &self.entries
    }

    pub fn set_entries(&mut self, value: Vec<Entry>) {
        self.entries = value;
    }

    pub fn mut_entries(&mut self) -> &mut Vec<Entry> {
        &mut self.entries
    }

    pub fn take_entries(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    pub fn get_snapshot(&self) -> &Snapshot {
        self.snapshot.as_ref().unwrap_or_else(|| protobuf::Message::default_instance())
    }

    pub fn set_snapshot(&mut self, value: Snapshot) {
        self.snapshot = Some(value);
    }

    pub fn mut_snapshot(&mut self) -> &mut Snapshot {
        self.snapshot.get_or_insert_with(Snapshot::default)
    }

    pub fn take_snapshot(&mut self) -> Snapshot {
        self.snapshot.take().unwrap_or_default()
    }

    pub fn take_context(&mut self) -> Bytes {
        std::mem::take(&mut self.context)
    }
}

impl ConfState {
    pub fn get_voters(&self) -> &[u64] {
        &self.voters
    }

    pub fn set_voters(&mut self, value: Vec<u64>) {
        self.voters = value;
    }

    pub fn mut_voters(&mut self) -> &mut Vec<u64> {
        &mut self.voters
    }

    pub fn get_learners(&self) -> &[u64] {
        &self.learners
    }

    pub fn set_learners(&mut self, value: Vec<u64>) {
        self.learners = value;
    }

    pub fn mut_learners(&mut self) -> &mut Vec<u64> {
        &mut self.learners
    }

    pub fn get_voters_outgoing(&self) -> &[u64] {
        &self.voters_outgoing
    }

    pub fn set_voters_outgoing(&mut self, value: Vec<u64>) {
        self.voters_outgoing = value;
    }

    pub fn get_learners_next(&self) -> &[u64] {
        &self.learners_next
    }

    pub fn set_learners_next(&mut self, value: Vec<u64>) {
        self.learners_next = value;
    }
}

impl ConfChange {
    /// The type; UpdateNode and numbers unknown to etcd count as AddNode. `into_v2` is what keeps
    /// them from `raft`.
    pub fn get_change_type(&self) -> ConfChangeType {
        ConfChangeType::try_from(self.change_type).unwrap_or(ConfChangeType::AddNode)
    }

    pub fn set_change_type(&mut self, value: ConfChangeType) {
        self.change_type = value as i32;
    }

    pub fn take_context(&mut self) -> Bytes {
        std::mem::take(&mut self.context)
    }
}

impl ConfChangeSingle {
    /// The type; UpdateNode and numbers unknown to etcd count as AddNode.
    pub fn get_change_type(&self) -> ConfChangeType {
        ConfChangeType::try_from(self.change_type).unwrap_or(ConfChangeType::AddNode)
    }

    pub fn set_change_type(&mut self, value: ConfChangeType) {
        self.change_type = value as i32;
    }
}

impl ConfChangeV2 {
    /// The transition; an unknown number counts as automatic.
    pub fn get_transition(&self) -> ConfChangeTransition {
        ConfChangeTransition::try_from(self.transition).unwrap_or(ConfChangeTransition::Auto)
    }

    pub fn set_transition(&mut self, value: ConfChangeTransition) {
        self.transition = value as i32;
    }

    pub fn mut_changes(&mut self) -> &mut Vec<ConfChangeSingle> {
        &mut self.changes
    }

    pub fn set_changes(&mut self, value: Vec<ConfChangeSingle>) {
        self.changes = value;
    }

    pub fn set_context(&mut self, value: Bytes) {
        self.context = value;
    }

    pub fn take_context(&mut self) -> Bytes {
        std::mem::take(&mut self.context)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn zeros_are_written_and_empty_bytes_are_not() {
        assert_eq!(Entry::default().encode_to_vec(), [8, 0, 16, 0, 24, 0]);
        assert_eq!(HardState::default().encode_to_vec(), [8, 0, 16, 0, 24, 0]);
        let state = ConfState { voters: vec![1, 300], ..ConfState::default() };
        assert_eq!(state.encode_to_vec(), [8, 1, 8, 0xac, 2, 40, 0]);
    }

    #[test]
    fn what_only_raft_knows_stays_off_the_wire() {
        let message = Message {
            msg_type: 5,
            to: 2,
            entries: vec![Entry {
                index: 3,
                data: Bytes::from_static(b"x"),
                context: Bytes::from_static(b"y"),
                sync_log: true,
                ..Entry::default()
            }],
            commit_term: 1,
            request_snapshot: 2,
            deprecated_priority: 3,
            priority: 4,
            ..Message::default()
        };
        let bytes = message.encode_to_vec();
        assert_eq!(bytes.len(), message.encoded_len());
        let decoded = Message::decode(bytes.as_slice()).unwrap();
        assert_eq!(decoded.entries[0].data, "x");
        assert_eq!(decoded.entries[0].context, "");
        assert_eq!((decoded.commit_term, decoded.request_snapshot, decoded.priority), (0, 0, 0));
        // Field 13 is a vote to etcd and a request for a snapshot to raft.
        let with_vote = [bytes.as_slice(), &[13 << 3, 9]].concat();
        assert_eq!(Message::decode(with_vote.as_slice()).unwrap(), decoded);
    }

    #[test]
    fn numbers_unknown_to_raft_survive() {
        let change = ConfChange { change_type: 2, node_id: 5, ..ConfChange::default() };
        let bytes = change.encode_to_vec();
        assert_eq!(bytes, [8, 0, 16, 2, 24, 5]);
        assert_eq!(ConfChange::decode(bytes.as_slice()).unwrap(), change);
        let message = Message { msg_type: 23, ..Message::default() };
        assert_eq!(Message::decode(message.encode_to_vec().as_slice()).unwrap().msg_type, 23);
        assert_eq!(message.get_msg_type(), MessageType::MsgHup);
    }
}
