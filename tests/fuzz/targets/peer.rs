//! What other members send: streams of messages, single messages, snapshots. The member follows in a
//! cluster of three.

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::Full;
use prost::Message as _;
use rusd::peer::{CLUSTER_ID, Channel, Decoder, Encoder, RUSD_VERSION, Read};
use rusd::raft::{Entry, Message};
use sha2::{Digest, Sha256};
use std::sync::Arc;

use super::member::{Member, id};
use super::{Notes, Shape, Target};
use crate::mutate::{Part, join, parts};

/// Kinds of parts, in the lowest bits: bytes of either stream, then messages for them.
const OTHER_RAW: u8 = 0;
const APPEND_RAW: u8 = 1;
const OTHER: u8 = 2;
const APPEND: u8 = 3;
/// The entries of a message that continues the last one.
const ENTRIES: u8 = 4;
/// A message as a request of its own.
const PIPELINE: u8 = 5;
/// A message's length, the message, and the file that goes with it.
const SNAPSHOT: u8 = 6;
const SNAPSHOT_RAW: u8 = 7;
const KINDS: u8 = 8;
/// With this bit a message is made to come from a member, to this one.
const ADDRESSED: u8 = 0x40;
/// With this one it fits to the term and to the end of the log, too.
const TIMELY: u8 = 0x80;

const INPUTS_MAX: usize = 400;

pub struct Peer {
    member: Member,
    others: Vec<u64>,
    past: Vec<u8>,
    inputs: usize,
}

impl Peer {
    pub fn new() -> Self {
        let member = Member::new(3);
        let others = vec![id(1), id(2)];
        Self { member, others, past: Vec::new(), inputs: 0 }
    }

    /// A message with what the part's kind wants to be right made right.
    fn message(&self, part: &Part) -> Option<Message> {
        let mut message = Message::decode(part.bytes.as_slice()).ok()?;
        if part.kind & ADDRESSED != 0 {
            message.to = self.member.node.member_id();
            message.from = self.others[(message.from % 2) as usize];
        }
        if part.kind & TIMELY != 0 {
            let status = self.member.steps.status();
            message.term = status.term.saturating_add(message.term % 2).max(1);
            message.log_term = message.term.saturating_sub(message.log_term % 2);
            message.index = status.last_index.saturating_sub(message.index % 4);
            message.commit = status.last_index.saturating_sub(message.commit % 4);
            for (index, entry) in (message.index + 1..).zip(&mut message.entries) {
                entry.index = index;
                entry.term = message.term.saturating_sub(entry.term % 2).max(message.log_term);
            }
        }
        Some(message)
    }

    fn framed(&self, part: &Part) -> Option<Vec<u8>> {
        let message = self.message(part)?;
        let bytes = message.encode_to_vec();
        let with_length = |bytes: &[u8]| [&(bytes.len() as u64).to_be_bytes(), bytes].concat();
        Some(match part.kind % KINDS {
            OTHER => with_length(&bytes),
            APPEND => [vec![2], with_length(&bytes)].concat(),
            _ => {
                let mut frame = vec![1];
                frame.extend((message.entries.len() as u64).to_be_bytes());
                for entry in &message.entries {
                    frame.extend(with_length(&entry.encode_to_vec()));
                }
                frame.extend(message.commit.to_be_bytes());
                frame
            }
        })
    }

    /// Reads what came of a stream, and hands it in.
    fn feed(&mut self, decoder: &mut Decoder, bytes: Vec<u8>, notes: &mut Notes) -> bool {
        decoder.feed(&Bytes::from(bytes));
        loop {
            match decoder.read() {
                Ok(Read::Partial) => return true,
                Ok(Read::Alive) => notes.text("alive"),
                Ok(Read::Message(message)) => {
                    notes.number("message", message.msg_type as u64);
                    reads_back(&message);
                    self.member.steps.receive(message);
                    self.member.settle();
                }
                Err(broken) => {
                    notes.text(&broken.to_string());
                    return false;
                }
            }
        }
    }

    fn post(&mut self, path: &str, body: Vec<u8>, digest: &[u8], notes: &mut Notes) {
        let cluster = format!("{:x}", self.member.node.cluster_id());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let request = Request::post(path)
            .header(CLUSTER_ID, cluster)
            .header(RUSD_VERSION, "0.1.0")
            .header("x-rusd-snapshot-digest", digest)
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let peers = Arc::clone(self.member.node.peers());
        match self.member.wait(async move { peers.answer(request).await.status() }) {
            None => notes.text(&format!("{path} waits")),
            Some(status) => notes.number(path, 1 << (status.as_u16() % 61)),
        }
        self.member.settle();
    }
}

/// What is written is read as the same.
fn reads_back(message: &Message) {
    let mut bytes = BytesMut::new();
    Encoder::new(Channel::Other).message(message, &mut bytes);
    let mut decoder = Decoder::new(Channel::Other, message.from, message.to);
    for piece in bytes.chunks(1 + bytes.len() / 3) {
        decoder.feed(&Bytes::copy_from_slice(piece));
    }
    match decoder.read() {
        Ok(Read::Message(again)) => assert_eq!(again, *message),
        // A heartbeat of nobody is the sign of life.
        Ok(Read::Alive) if message.from == 0 && message.to == 0 => {}
        other => panic!("a message of ours is read as {other:?}"),
    }
}

fn append(term: u64, index: u64, entries: &[(u64, u64, &'static [u8])], commit: u64) -> Vec<u8> {
    let entries = entries.iter().map(|(index, term, data)| Entry {
        index: *index,
        term: *term,
        data: Bytes::from_static(data),
        ..Entry::default()
    });
    let message = Message {
        msg_type: 3,
        term,
        log_term: term,
        index,
        commit,
        entries: entries.collect(),
        ..Message::default()
    };
    message.encode_to_vec()
}

impl Target for Peer {
    fn seeds(&mut self) -> Vec<Vec<u8>> {
        // An empty entry, and a put as a member writes it.
        const PUT: &[u8] = b"\x18\x07\x22\x06\x0a\x01k\x12\x01v\xa2\x06\x02\x08\x07";
        let good = ADDRESSED | TIMELY;
        let of = |kind: i32| Message { msg_type: kind, ..Message::default() }.encode_to_vec();
        let appended = append(0, 0, &[(0, 0, b""), (0, 0, PUT)], 0);
        let mut seeds = vec![
            join(&[
                Part::new(APPEND | good, appended.clone()),
                Part::new(ENTRIES | good, appended),
            ]),
            join(&[
                Part::new(APPEND_RAW, [0]),
                Part::new(APPEND, append(5, 10, &[(11, 5, b"x")], 3)),
            ]),
            join(&[Part::new(OTHER_RAW, [0, 0, 0, 0, 0, 0, 0, 2, 8, 8])]),
            join(&[Part::new(PIPELINE | good, append(0, 0, &[(0, 0, PUT)], 0))]),
        ];
        for kind in 0..19 {
            seeds.push(join(&[Part::new(OTHER | good, of(kind))]));
        }
        let mut snapshot = Message { msg_type: 7, ..Message::default() };
        let metadata = snapshot.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (50, 1);
        metadata.mut_conf_state().voters = self.others.clone();
        metadata.mut_conf_state().voters.push(self.member.node.member_id());
        seeds.push(join(&[Part::new(SNAPSHOT | good, snapshot.encode_to_vec())]));
        seeds
    }

    fn shape(&self) -> Shape {
        Shape::Parts(|kind| (OTHER..=SNAPSHOT).contains(&(kind % KINDS)))
    }

    fn words(&self) -> &'static [&'static [u8]] {
        &[b"\x08\x08", b"\x22\x06\x0a\x01k\x12\x01v", b"{\"id\":1,\"peerURLs\":[\"http://a:1\"]}"]
    }

    fn before(&self) -> Vec<u8> {
        self.past.clone()
    }

    fn length_max(&self) -> usize {
        4 << 10
    }

    fn memory_max(&self, length: usize) -> usize {
        (32 << 20) + 512 * length
    }

    fn run(&mut self, input: &[u8], notes: &mut Notes) {
        if self.inputs >= INPUTS_MAX || self.member.is_over() {
            *self = Self::new();
        }
        self.inputs += 1;
        let (own, other) = (self.member.node.member_id(), self.others[0]);
        let mut append = Some(Decoder::new(Channel::Append, other, own));
        let mut rest = Some(Decoder::new(Channel::Other, other, own));
        let list = parts(input);
        for part in &list {
            let kind = part.kind % KINDS;
            match kind {
                PIPELINE => {
                    let message = self.message(part).map(|message| message.encode_to_vec());
                    self.post("/raft", message.unwrap_or_else(|| part.bytes.clone()), b"", notes);
                }
                SNAPSHOT | SNAPSHOT_RAW => {
                    let message = self.message(part).map(|message| message.encode_to_vec());
                    let message = message.unwrap_or_else(|| part.bytes.clone());
                    let digest = Sha256::digest(&message);
                    let length = (message.len() as u64).to_be_bytes();
                    // No file is as good as a damaged one here; `state` has its bytes.
                    let body = if kind == SNAPSHOT {
                        [&length[..], &message].concat()
                    } else {
                        part.bytes.clone()
                    };
                    self.post("/raft/snapshot", body, &digest, notes);
                }
                _ => {
                    let bytes = match kind {
                        OTHER_RAW | APPEND_RAW => Some(part.bytes.clone()),
                        _ => self.framed(part),
                    };
                    let is_append = matches!(kind, APPEND_RAW | APPEND | ENTRIES);
                    let stream = if is_append { &mut append } else { &mut rest };
                    let taken = stream.take();
                    if let (Some(bytes), Some(mut decoder)) = (bytes, taken) {
                        let goes_on = self.feed(&mut decoder, bytes, notes);
                        let stream = if is_append { &mut append } else { &mut rest };
                        *stream = Some(decoder).filter(|_| goes_on);
                    }
                }
            }
        }
        // The leader is believed: an entry that it sends and nobody can apply ends the member.
        if let Some(why) = self.member.node.fatal().borrow().as_ref() {
            notes.text(why);
        }
        let status = self.member.steps.status();
        notes.number("role", status.role as u64);
        notes.number("refused", status.messages_refused);
        self.past.extend(join(&list));
    }
}
