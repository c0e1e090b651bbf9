//! What a member holds of the network, and what goes over it: messages in the frames of a stream,
//! questions, and snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use rusd::clock::{Clock, timeout};
use rusd::peer::{
    Answered, Channel, Decoder, Encoder, IncomingSnapshot, OutgoingSnapshot, Reach, Read,
    SnapshotDigest,
};
use rusd::raft::{Message, Transport};
use tokio::sync::oneshot;

use super::clock::{Chance, SimClock};

pub const PROPOSE: i32 = 2;
pub const SNAPSHOT: i32 = 7;
pub const READ_INDEX: i32 = 15;
pub const READ_INDEX_ANSWER: i32 = 16;

/// Since when two members have held each other's streams, for who asks.
const CONNECTED: Duration = Duration::from_secs(10);

/// Pairs of members, the second of which hears the first.
pub type Links = Arc<Mutex<BTreeSet<(u64, u64)>>>;

/// What a member wants to go out.
#[derive(Default)]
pub struct Out {
    pub messages: Vec<Message>,
    pub questions: Vec<Question>,
}

/// What one member asks of another, beside raft's messages.
pub struct Question {
    pub to: u64,
    pub path: String,
    pub body: Option<Bytes>,
    pub reply: Reply,
}

/// A member's end of the network.
pub struct SimNet {
    pub id: u64,
    pub out: Arc<Mutex<Out>>,
    pub links: Links,
    pub clock: Arc<SimClock>,
}

impl Transport for SimNet {
    fn send(&self, messages: Vec<Message>) {
        self.out.lock().messages.extend(messages);
    }
}

impl Reach for SimNet {
    fn ask<'a>(
        &'a self,
        id: u64,
        path: &'a str,
        body: Option<Bytes>,
        limit: Duration,
    ) -> BoxFuture<'a, Option<Answered>> {
        let (reply, answer) = oneshot::channel();
        let question = Question { to: id, path: path.to_owned(), body, reply };
        self.out.lock().questions.push(question);
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Box::pin(async move { timeout(&*clock, limit, answer).await?.ok() })
    }

    fn connected_for(&self, id: u64) -> Option<Duration> {
        self.links.lock().contains(&(id, self.id)).then_some(CONNECTED)
    }
}

/// Both ends of a stream between two members.
pub struct Wire {
    encoder: Encoder,
    decoder: Decoder,
}

impl Wire {
    pub fn new(channel: Channel, from: u64, to: u64) -> Self {
        Self { encoder: Encoder::new(channel), decoder: Decoder::new(channel, from, to) }
    }

    /// Takes a message from one end to the other, in pieces of any size.
    pub fn carry(&mut self, message: &Message, chance: &mut Chance) -> Message {
        let mut bytes = BytesMut::new();
        if chance.one_in(10) {
            self.encoder.alive(&mut bytes);
        }
        self.encoder.message(message, &mut bytes);
        let mut bytes = bytes.freeze();
        let mut found = None;
        while !bytes.is_empty() {
            let piece = 1 + chance.below(bytes.len() as u64) as usize;
            self.decoder.feed(&bytes.split_to(piece));
            loop {
                match self.decoder.read() {
                    Ok(Read::Message(read)) => assert!(found.replace(read).is_none()),
                    Ok(Read::Alive) => {}
                    Ok(Read::Partial) => break,
                    Err(error) => panic!("the other end of a stream cannot read it: {error}"),
                }
            }
        }
        let found = found.expect("a stream ends before its message");
        // The last three are raft's own and not on the wire.
        let sent = Message { commit_term: 0, request_snapshot: 0, priority: 0, ..message.clone() };
        assert_eq!(found, sent, "a stream changed a message");
        found
    }

    /// The stream breaks within a message, or carries bytes that nobody sent. Neither is a message,
    /// or whatever comes of it is thrown away: checksums below would have found it.
    pub fn break_within(mut self, message: &Message, chance: &mut Chance) {
        let mut bytes = BytesMut::new();
        self.encoder.message(message, &mut bytes);
        if chance.one_in(2) {
            bytes.truncate(chance.below(bytes.len() as u64) as usize);
            self.decoder.feed(&bytes.freeze());
            let read = self.decoder.read();
            assert!(matches!(read, Ok(Read::Partial)), "half a message was read: {read:?}");
        } else {
            let at = chance.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << chance.below(8);
            self.decoder.feed(&bytes.freeze());
            // It must end, and not by a panic.
            while matches!(self.decoder.read(), Ok(Read::Message(_) | Read::Alive)) {}
        }
    }
}

/// Something that no member sends, made of what one did; it must be refused.
pub fn garbage(message: &Message, chance: &mut Chance) -> Message {
    let mut message = message.clone();
    let far = 1 << 40;
    let gap =
        rusd::raft::Entry { index: message.index + 3, term: message.term, ..Default::default() };
    match chance.below(9) {
        0 => message.to ^= 1,
        1 => message.from = 0,
        2 => message.from = message.to,
        3 => message.msg_type = 99,
        // What a member says to itself only.
        4 => message.msg_type = *chance.pick(&[0, 1, 10, 11, 12]),
        5 => message.msg_type = SNAPSHOT,
        // Entries after a gap, and of types that there are not.
        6 => (message.msg_type, message.entries) = (3, vec![gap]),
        7 => {
            let entry = rusd::raft::Entry { index: message.index + 1, entry_type: 9, ..gap };
            (message.msg_type, message.entries) = (3, vec![entry]);
        }
        // A heartbeat beyond the log.
        _ => (message.msg_type, message.commit) = (8, far),
    }
    message
}

/// A snapshot on its way.
pub struct Transfer {
    pub from: usize,
    pub to: usize,
    pub message: Message,
    pub outgoing: Box<dyn OutgoingSnapshot>,
    pub incoming: Option<Box<dyn IncomingSnapshot>>,
    pub digest: SnapshotDigest,
    /// Whether a bit of it changed.
    pub is_damaged: bool,
}

pub type Reply = oneshot::Sender<Answered>;

/// An answer to a question, where it was given.
pub struct Given {
    pub asker: usize,
    pub reply: Reply,
    pub answered: Answered,
}

pub type Wires = BTreeMap<(usize, usize, usize), Wire>;

pub type Transfers = BTreeMap<u64, Transfer>;
