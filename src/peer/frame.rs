//! Messages as bytes on a stream, in etcd's framing.
//!
//! On `message`, each message is preceded by its length, a big-endian u64; the sign of life is a
//! heartbeat from 0 to 0. On `msgapp`, each begins with one byte: 0 is the sign of life; 1 are
//! entries that continue where the last message ended, so that term and index are left out; 2 is a
//! whole message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message as _;

use crate::limits;
use crate::raft::{Entry, Message, MessageType};

/// The stream that a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// `msgapp`: entries.
    Append,
    /// `message`: everything else.
    Other,
}

impl Channel {
    pub const BOTH: [Self; 2] = [Self::Append, Self::Other];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Append => "msgapp",
            Self::Other => "message",
        }
    }

    pub fn of(message: &Message) -> Self {
        if message.msg_type == MessageType::MsgAppend as i32 { Self::Append } else { Self::Other }
    }
}

const ALIVE: u8 = 0;
const ENTRIES: u8 = 1;
const WHOLE: u8 = 2;

/// The place in the log where the last message on a `msgapp` stream ended.
#[derive(Default)]
struct StreamPosition {
    term: u64,
    index: u64,
}

impl StreamPosition {
    fn after(message: &Message) -> Self {
        let index = message.entries.last().map_or(message.index, |entry| entry.index);
        Self { term: message.term, index }
    }
}

/// Encodes the messages of one stream.
pub struct Encoder {
    channel: Channel,
    place: StreamPosition,
}

impl Encoder {
    pub fn new(channel: Channel) -> Self {
        Self { channel, place: StreamPosition::default() }
    }

    /// Appends a sign of life.
    pub fn alive(&self, out: &mut BytesMut) {
        match self.channel {
            Channel::Append => out.put_u8(ALIVE),
            Channel::Other => {
                let mut heartbeat = Message::default();
                heartbeat.set_msg_type(MessageType::MsgHeartbeat);
                put(&heartbeat, out);
            }
        }
    }

    pub fn message(&mut self, message: &Message, out: &mut BytesMut) {
        if self.channel == Channel::Other {
            return put(message, out);
        }
        let continues = self.place.index == message.index
            && self.place.term == message.log_term
            && message.log_term == message.term;
        if continues {
            out.put_u8(ENTRIES);
            out.put_u64(message.entries.len() as u64);
            for entry in &message.entries {
                put(entry, out);
            }
            out.put_u64(message.commit);
        } else {
            out.put_u8(WHOLE);
            put(message, out);
        }
        self.place = StreamPosition::after(message);
    }
}

fn put(message: &impl prost::Message, out: &mut BytesMut) {
    let size = message.encoded_len();
    out.put_u64(size as u64);
    out.reserve(size);
    message.encode_raw(out);
}

/// How a stream violates the protocol.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    #[error("a message of {0} bytes")]
    Length(u64),
    #[error("a message of {0} entries")]
    Entries(u64),
    #[error("a message cannot be decoded: {0}")]
    Message(#[from] prost::DecodeError),
}

/// Decodes one stream, in pieces of any size.
pub struct Decoder {
    channel: Channel,
    place: StreamPosition,
    from: u64,
    to: u64,
    buffer: BytesMut,
    /// Start and end of the entries found in a frame that is not complete yet; the next search goes
    /// on after them, so a frame that drips in is not searched again from its beginning.
    found: Vec<(usize, usize)>,
}

/// An item read from a stream.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is returned")]
pub enum Read {
    Message(Message),
    Alive,
    /// More bytes are needed.
    Partial,
}

impl Decoder {
    /// `from` and `to` are the ids that entries of a `msgapp` stream leave out.
    pub fn new(channel: Channel, from: u64, to: u64) -> Self {
        let (place, buffer, found) = (StreamPosition::default(), BytesMut::new(), Vec::new());
        Self { channel, place, from, to, buffer, found }
    }

    pub fn feed(&mut self, bytes: &Bytes) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next item in the bytes fed so far. After an error the stream cannot be read on.
    pub fn read(&mut self) -> Result<Read, Broken> {
        match self.channel {
            Channel::Other => self.next_message(0),
            Channel::Append => match self.buffer.first() {
                None => Ok(Read::Partial),
                Some(&ALIVE) => {
                    self.buffer.advance(1);
                    Ok(Read::Alive)
                }
                Some(&ENTRIES) => self.next_entries(),
                Some(&WHOLE) => {
                    let read = self.next_message(1)?;
                    if let Read::Message(message) = &read {
                        self.place = StreamPosition::after(message);
                    }
                    Ok(read)
                }
                Some(&kind) => Err(Broken::Kind(kind)),
            },
        }
    }

    /// The message whose length is at `at` in the buffer.
    fn next_message(&mut self, at: usize) -> Result<Read, Broken> {
        let Some(end) = self.end_of(at)? else { return Ok(Read::Partial) };
        let mut bytes = self.buffer.split_to(end).freeze();
        bytes.advance(at + 8);
        let message = Message::decode(bytes)?;
        let is_alive = message.from == 0
            && message.to == 0
            && message.msg_type == MessageType::MsgHeartbeat as i32;
        Ok(if is_alive { Read::Alive } else { Read::Message(message) })
    }

    fn next_entries(&mut self) -> Result<Read, Broken> {
        let Some(count) = self.number(1) else { return Ok(Read::Partial) };
        if count > limits::PEER_MESSAGE_ENTRIES_MAX {
            return Err(Broken::Entries(count));
        }
        let mut end = self.found.last().map_or(9, |(_, end)| *end);
        while (self.found.len() as u64) < count {
            let Some(next) = self.end_of(end)? else { return Ok(Read::Partial) };
            self.found.push((end + 8, next));
            end = next;
        }
        let Some(commit) = self.number(end) else { return Ok(Read::Partial) };
        let bytes = self.buffer.split_to(end + 8).freeze();
        let entries = std::mem::take(&mut self.found)
            .into_iter()
            .map(|(start, end)| Entry::decode(bytes.slice(start..end)))
            .collect::<Result<Vec<_>, _>>()?;
        let StreamPosition { term, index } = self.place;
        let mut message = Message {
            from: self.from,
            to: self.to,
            term,
            log_term: term,
            index,
            entries,
            commit,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgAppend);
        self.place = StreamPosition::after(&message);
        Ok(Read::Message(message))
    }

    fn number(&self, at: usize) -> Option<u64> {
        let mut bytes = self.buffer.get(at..at + 8)?;
        Some(bytes.get_u64())
    }

    /// The end of the item whose length is at `at`, if it is complete. An error if the frame up to
    /// there is longer than `PEER_MESSAGE_BYTES_MAX`.
    fn end_of(&self, at: usize) -> Result<Option<usize>, Broken> {
        let Some(length) = self.number(at) else { return Ok(None) };
        if length.saturating_add(at as u64) > limits::PEER_MESSAGE_BYTES_MAX + 8 {
            return Err(Broken::Length(length));
        }
        let end = at + 8 + length as usize;
        Ok((end <= self.buffer.len()).then_some(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(index: u64, log_term: u64, entries: &[(u64, u64)]) -> Message {
        let entries = entries.iter().map(|(index, term)| Entry {
            index: *index,
            term: *term,
            data: Bytes::from(format!("{index}")),
            ..Entry::default()
        });
        let mut message = Message {
            from: 1,
            to: 2,
            term: 5,
            log_term,
            index,
            entries: entries.collect(),
            commit: index,
            ..Message::default()
        };
        message.set_msg_type(MessageType::MsgAppend);
        message
    }

    #[test]
    fn messages_survive_being_cut_anywhere() {
        let messages = [
            append(10, 4, &[(11, 4), (12, 5)]),
            append(12, 5, &[(13, 5)]),
            append(13, 5, &[]),
            append(7, 5, &[(8, 5)]),
            append(8, 5, &[(9, 5)]),
        ];
        for channel in Channel::BOTH {
            let mut encoder = Encoder::new(channel);
            let mut bytes = BytesMut::new();
            encoder.alive(&mut bytes);
            for message in &messages {
                encoder.message(message, &mut bytes);
            }
            let mut decoder = Decoder::new(channel, 1, 2);
            let (mut read, mut alive) = (Vec::new(), 0);
            for byte in bytes {
                decoder.feed(&Bytes::copy_from_slice(&[byte]));
                loop {
                    match decoder.read().unwrap() {
                        Read::Message(message) => read.push(message),
                        Read::Alive => alive += 1,
                        Read::Partial => break,
                    }
                }
            }
            assert_eq!(read, messages);
            assert_eq!(alive, 1);
        }
    }

    #[test]
    fn entries_that_continue_are_framed_as_etcd_frames_them() {
        let mut encoder = Encoder::new(Channel::Append);
        let mut bytes = BytesMut::new();
        encoder.message(&append(1, 4, &[(2, 5)]), &mut bytes);
        bytes.clear();
        encoder.message(&append(2, 5, &[(3, 5)]), &mut bytes);
        let entry = [8, 0, 16, 5, 24, 3, 34, 1, b'3'];
        let expected =
            [&[1][..], &1_u64.to_be_bytes(), &9_u64.to_be_bytes(), &entry, &2_u64.to_be_bytes()];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn absurd_lengths_are_refused_before_anything_is_allocated() {
        let mut decoder = Decoder::new(Channel::Other, 1, 2);
        decoder.feed(&Bytes::copy_from_slice(&u64::MAX.to_be_bytes()));
        assert!(decoder.read().is_err());
        let mut decoder = Decoder::new(Channel::Append, 1, 2);
        decoder.feed(&Bytes::from_static(&[1, 255, 255, 255, 255, 255, 255, 255, 255]));
        assert!(decoder.read().is_err());
        let mut decoder = Decoder::new(Channel::Append, 1, 2);
        decoder.feed(&Bytes::from_static(&[9]));
        assert!(decoder.read().is_err());
        // The second entry would not be too large by itself.
        let mut decoder = Decoder::new(Channel::Append, 1, 2);
        decoder.feed(&[&[1][..], &2_u64.to_be_bytes()].concat().into());
        decoder.feed(&[&100_u64.to_be_bytes()[..], &[0; 100]].concat().into());
        assert!(matches!(decoder.read(), Ok(Read::Partial)));
        decoder.feed(&(limits::PEER_MESSAGE_BYTES_MAX - 50).to_be_bytes().to_vec().into());
        assert!(matches!(decoder.read(), Err(Broken::Length(_))));
    }
}
