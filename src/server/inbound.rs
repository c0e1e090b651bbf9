//! What an HTTP/2 client sends, on its way to h2: two things are changed that h2 treats more
//! harshly than grpc-go does, and DATA is counted (see `unread`).
//!
//! - An authority that h2 would refuse is replaced (see `hpack`).
//! - Consecutive DATA frames of one stream become one. h2 counts small frames that no call has read
//!   and ends the connection above some number, but a client that renews thousands of leases on one
//!   stream, or creates as many watches, sends nothing else. Merged, the frames cost their bytes
//!   and no more.
//!
//! After `limits::FRAMES_PER_TURN_MAX` frames, or fewer long ones, the connection's task yields: a
//! client that keeps its socket full would otherwise keep a thread busy for long.
//!
//! Bytes stay in the buffer that they were read into. Only the beginning of a frame that must be
//! seen whole is held back, which is at most one HEADERS frame.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

use super::hpack;
use crate::limits;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
const HEAD_BYTES: usize = 9;
/// h2's largest frame, which is the least that HTTP/2 allows. Longer frames pass unchanged, and h2
/// rejects them.
const FRAME_BYTES_MAX: usize = 16 << 10;
/// A DATA frame shorter than this counts against h2's budget for small frames.
const SMALL_FRAME_BYTES: usize = 256;
/// A flag of PING.
const ACK: u8 = 1;

#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Self> {
        let &[a, b, c, kind, flags, d, e, f, g] = bytes.first_chunk()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Some(Self { length, kind, flags, stream: [d, e, f, g] })
    }

    fn bytes(self) -> [u8; HEAD_BYTES] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream;
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    /// Whether the payload of a frame `next` may be appended to a frame with this head.
    fn takes(self, next: Self) -> bool {
        self.kind == DATA
            && self.flags == 0
            && next.kind == DATA
            && next.flags & !END_STREAM == 0
            && next.stream == self.stream
            && next.length < SMALL_FRAME_BYTES
            && self.length + next.length <= FRAME_BYTES_MAX
    }
}

/// The bytes and counts that are kept between two reads.
pub(super) struct Inbound {
    /// Bytes of the preface or of a payload that have yet to pass unchanged.
    skip: usize,
    /// Bytes that were read and may not go on yet.
    held: BytesMut,
    /// Bytes that go on before all others.
    ready: BytesMut,
    /// Whether `held` has bytes that `pass` has not looked at. If not, `held` is the beginning of a
    /// frame, and only more bytes from the client lead on.
    held_is_unseen: bool,
    pings: u32,
    arrived: Arrived,
    /// Whether the bytes to skip are payload that was counted when its frame began, and how many
    /// such bytes had not passed at the last `take_arrived`.
    skips_counted: bool,
    counted_ahead_bytes: usize,
    /// Streams that this server reset and on which the client may still send, oldest first.
    reset: VecDeque<[u8; 4]>,
    /// Frames that may still pass in this turn. A long frame counts for several.
    turn: u32,
}

/// Counts of DATA that has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrived {
    /// Frames that h2 keeps until a body gives them out, and their bytes.
    pub frames: usize,
    pub bytes: usize,
    /// Bytes that h2 throws away, such as padding. They use up its window all the same.
    pub ignored: usize,
    /// All other bytes that passed with them, those ignored included.
    pub others: usize,
}

impl Inbound {
    /// `skip` is the number of bytes before the first frame.
    pub(super) fn new(skip: usize) -> Self {
        Self {
            skip,
            held: BytesMut::new(),
            ready: BytesMut::new(),
            held_is_unseen: false,
            pings: 0,
            arrived: Arrived::default(),
            skips_counted: false,
            counted_ahead_bytes: 0,
            reset: VecDeque::new(),
            turn: limits::FRAMES_PER_TURN_MAX,
        }
    }

    /// Counts since the last call, during which `passed` bytes have gone on to h2.
    pub(super) fn take_arrived(&mut self, passed: usize) -> Arrived {
        // `arrived.bytes` includes payload of the current frame that has not passed yet.
        let ahead = if self.skips_counted { self.skip } else { 0 };
        let counted = (self.counted_ahead_bytes + self.arrived.bytes).saturating_sub(ahead);
        self.counted_ahead_bytes = ahead;
        let others = passed.saturating_sub(counted);
        Arrived { others, ..std::mem::take(&mut self.arrived) }
    }

    /// Notes that this server reset a stream: h2 throws away what still arrives on it. The DATA of
    /// a stream that is forgotten again, the oldest of too many, counts as any other.
    pub(super) fn note_reset(&mut self, stream: [u8; 4]) {
        if self.reset.len() == limits::RESETS_REMEMBERED_MAX {
            self.reset.pop_front();
        }
        self.reset.push_back(stream);
    }

    /// Counts a frame of DATA. `payload` is what of its payload was read; it begins with the length
    /// of the padding if the frame is padded.
    fn count(&mut self, head: Head, payload: &[u8]) {
        let padding = match payload.first() {
            Some(padding) if head.flags & PADDED != 0 => 1 + usize::from(*padding),
            _ => 0,
        };
        if self.reset.contains(&head.stream) {
            self.arrived.ignored += head.length;
            return;
        }
        let bytes = head.length.saturating_sub(padding);
        self.arrived.frames += usize::from(bytes > 0);
        self.arrived.bytes += bytes;
        self.arrived.ignored += head.length - bytes;
    }

    /// The number of pings that want an answer, since the last call.
    pub(super) fn take_pings(&mut self) -> u32 {
        std::mem::take(&mut self.pings)
    }

    /// Whether the frames of this turn have passed, so that the connection's task must yield.
    pub(super) fn is_turn_over(&self) -> bool {
        self.turn == 0
    }

    pub(super) fn begin_turn(&mut self) {
        self.turn = limits::FRAMES_PER_TURN_MAX;
    }

    /// Bytes that the caller puts into the buffer before what it reads next.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// Forgets the held bytes, which the caller has put into the buffer for `pass`.
    pub(super) fn take_held(&mut self) {
        self.held.clear();
    }

    /// Gives at most `most` ready bytes to `to`, and returns their number; None if none are ready.
    pub(super) fn take_ready(&mut self, most: usize, mut to: impl FnMut(&[u8])) -> Option<usize> {
        if self.ready.is_empty() && self.held_is_unseen && self.turn > 0 {
            let mut bytes = std::mem::take(&mut self.held);
            let count = self.pass(&mut bytes);
            bytes.truncate(count);
            bytes.extend_from_slice(&self.ready);
            self.ready = bytes;
        }
        let count = self.ready.len().min(most);
        if count == 0 {
            return None;
        }
        to(&self.ready[..count]);
        self.ready.advance(count);
        Some(count)
    }

    /// Adds to the held bytes, for which h2's buffer has too little room.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        self.held_is_unseen = true;
    }

    /// Makes all held bytes ready: the client sends nothing more on the connection, so the frame
    /// that they begin stays incomplete.
    pub(super) fn give_up(&mut self) {
        self.ready = std::mem::take(&mut self.held);
        self.held_is_unseen = false;
    }

    /// Takes `bytes`, which begin with those that were held, and changes them in place. Returns how
    /// many may go on; the others are held, or ready.
    pub(super) fn pass(&mut self, bytes: &mut [u8]) -> usize {
        self.held_is_unseen = false;
        let (mut from, mut to) = (0, 0);
        // Place and head of the frame before this one, if it is whole, so that this one may be
        // appended.
        let mut last: Option<(usize, Head)> = None;
        loop {
            let skip = self.skip.min(bytes.len() - from);
            self.skip -= skip;
            (from, to) = shift(bytes, from, to, skip);
            let rest = &bytes[from..];
            if rest.is_empty() {
                return to;
            }
            let Some(head) = Head::of(rest) else {
                self.held.extend_from_slice(rest);
                return to;
            };
            let whole = HEAD_BYTES + head.length;
            let is_whole = whole <= rest.len();
            match last {
                Some((start, before)) if is_whole && before.takes(head) => {
                    let merged = self.merged(before, head);
                    bytes[start..start + HEAD_BYTES].copy_from_slice(&merged.bytes());
                    (from, to) = shift(bytes, from + HEAD_BYTES, to, head.length);
                    last = Some((start, merged));
                    continue;
                }
                _ => last = is_whole.then_some((to, head)),
            }
            if self.turn == 0 {
                self.held.extend_from_slice(rest);
                self.held_is_unseen = true;
                return to;
            }
            let parts = 1 + (head.length / limits::BYTES_PER_EXTRA_FRAME) as u32;
            // A change of the windows' size makes h2 visit each open stream, so it is a turn's work.
            let is_costly = head.kind == SETTINGS && head.length > 0;
            self.turn = if is_costly { 0 } else { self.turn.saturating_sub(parts) };
            if head.kind == DATA && head.length == 0 && head.flags == 0 {
                // Dropped, since it says nothing and h2 ends a connection after a hundred of them.
                from += HEAD_BYTES;
                last = None;
                continue;
            }
            if head.kind == HEADERS && head.length <= FRAME_BYTES_MAX {
                if !is_whole {
                    self.held.extend_from_slice(rest);
                    return to;
                }
                if let Some(frame) = changed(head, &rest[HEAD_BYTES..whole]) {
                    self.ready.extend_from_slice(&frame);
                    self.held.extend_from_slice(&rest[whole..]);
                    self.held_is_unseen = true;
                    return to;
                }
            }
            self.pings += u32::from(head.kind == PING && head.flags & ACK == 0);
            if head.kind == DATA {
                self.count(head, &rest[HEAD_BYTES..]);
            }
            if is_whole {
                (from, to) = shift(bytes, from, to, whole);
            } else {
                self.skip = head.length;
                self.skips_counted = head.kind == DATA && !self.reset.contains(&head.stream);
                (from, to) = shift(bytes, from, to, HEAD_BYTES);
            }
        }
    }

    /// The head of a frame with the next one appended, whose bytes are counted here.
    fn merged(&mut self, before: Head, next: Head) -> Head {
        match self.reset.contains(&next.stream) {
            true => self.arrived.ignored += next.length,
            false => self.arrived.bytes += next.length,
        }
        Head { length: before.length + next.length, flags: next.flags, ..before }
    }
}

/// Moves `count` bytes from `from` down to `to`. Returns both places after them.
fn shift(bytes: &mut [u8], from: usize, to: usize, count: usize) -> (usize, usize) {
    if from != to {
        bytes.copy_within(from..from + count, to);
    }
    (from + count, to + count)
}

/// The frame with a changed header block; None if it may stay as it is.
fn changed(head: Head, payload: &[u8]) -> Option<Vec<u8>> {
    let mut block = payload;
    if head.flags & PADDED != 0 {
        let (padding, rest) = block.split_first()?;
        block = rest.get(..rest.len().checked_sub(usize::from(*padding))?)?;
    }
    let (priority, block) =
        block.split_at_checked(if head.flags & PRIORITY != 0 { 5 } else { 0 })?;
    let block = hpack::adapted(block)?;
    let length = priority.len() + block.len();
    let head = Head { length, flags: head.flags & !PADDED, ..head };
    (length <= FRAME_BYTES_MAX).then(|| [&head.bytes(), priority, &block].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let stream = [0, 0, 0, stream];
        [&Head { length: payload.len(), kind, flags, stream }.bytes(), payload].concat()
    }

    /// What comes out, and the pings seen, if the bytes arrive `cut` at a time, through a buffer of
    /// `room` bytes.
    fn through(bytes: &[u8], cut: usize, room: usize) -> (Vec<u8>, u32) {
        let mut inbound = Inbound::new(3);
        let (mut out, mut pings) = (Vec::new(), 0);
        let mut pieces = bytes.chunks(cut);
        loop {
            while inbound.take_ready(room, |bytes| out.extend_from_slice(bytes)).is_some() {}
            if inbound.is_turn_over() {
                inbound.begin_turn();
                continue;
            }
            let Some(piece) = pieces.next() else { break };
            if inbound.held().len() + piece.len() > room {
                inbound.hold(piece);
                continue;
            }
            let mut buffer = [inbound.held(), piece].concat();
            inbound.take_held();
            let count = inbound.pass(&mut buffer);
            out.extend_from_slice(&buffer[..count]);
            pings += inbound.take_pings();
        }
        inbound.give_up();
        while inbound.take_ready(room, |bytes| out.extend_from_slice(bytes)).is_some() {}
        (out, pings + inbound.take_pings())
    }

    #[test]
    fn an_authority_changes_however_the_bytes_are_cut() {
        let block = |value: &[u8]| [b"\x83\x41\x06", value, b"\x86"].concat();
        let padded = [&[2][..], &[0, 0, 0, 0, 9], &block(b"etcd/a"), &[0, 0]].concat();
        let input = [
            b"PRI".to_vec(),
            frame(4, 0, 0, &[0; 18]),
            frame(HEADERS, 4, 1, &block(b"etcd/a")),
            frame(DATA, 0, 1, &[7; 1000]),
            frame(PING, 0, 0, &[7; 8]),
            frame(HEADERS, 4 | PADDED | PRIORITY, 3, &padded),
            frame(PING, ACK, 0, &[7; 8]),
            frame(HEADERS, 4, 5, &block(b"etcd.a")),
            frame(PING, 0, 0, &[7; 5]),
        ];
        let output = [
            b"PRI".to_vec(),
            frame(4, 0, 0, &[0; 18]),
            frame(HEADERS, 4, 1, &block(b"etcd-a")),
            frame(DATA, 0, 1, &[7; 1000]),
            frame(PING, 0, 0, &[7; 8]),
            frame(HEADERS, 4 | PRIORITY, 3, &[&[0, 0, 0, 0, 9][..], &block(b"etcd-a")].concat()),
            frame(PING, ACK, 0, &[7; 8]),
            frame(HEADERS, 4, 5, &block(b"etcd.a")),
            frame(PING, 0, 0, &[7; 5]),
        ];
        let (input, output) = (input.concat(), output.concat());
        for cut in 1..input.len() {
            for room in [20, 64, 10_000] {
                assert_eq!(
                    through(&input, cut, room),
                    (output.clone(), 2),
                    "cut {cut}, room {room}"
                );
            }
        }
    }

    #[test]
    fn small_frames_of_one_stream_become_one() {
        let small = |stream, flags, byte| frame(DATA, flags, stream, &[byte; 20]);
        let input = [
            b"PRI".to_vec(),
            [small(1, 0, 1), small(1, 0, 2), small(1, END_STREAM, 3)].concat(),
            // Another stream, and one that has ended.
            [small(3, 0, 4), small(5, END_STREAM, 5), small(5, 0, 6)].concat(),
            frame(PING, 0, 0, &[7; 8]),
            [small(5, 0, 7), frame(DATA, PADDED, 5, &[1, 8, 8]), small(5, 0, 9)].concat(),
            frame(DATA, 0, 5, &[1; 16_370]),
            small(5, 0, 2),
        ];
        let output = [
            b"PRI".to_vec(),
            frame(DATA, END_STREAM, 1, &[[1; 20], [2; 20], [3; 20]].concat()),
            [small(3, 0, 4), small(5, END_STREAM, 5), small(5, 0, 6)].concat(),
            frame(PING, 0, 0, &[7; 8]),
            [small(5, 0, 7), frame(DATA, PADDED, 5, &[1, 8, 8]), small(5, 0, 9)].concat(),
            frame(DATA, 0, 5, &[1; 16_370]),
            small(5, 0, 2),
        ];
        let (input, output) = (input.concat(), output.concat());
        assert_eq!(through(&input, input.len(), usize::MAX), (output, 1));
        // Cut otherwise, what each stream says is the same.
        let payloads = |bytes: &[u8]| {
            let mut streams = vec![Vec::new(); 6];
            let mut rest = &bytes[3..];
            while let Some(head) = Head::of(rest) {
                let payload = &rest[HEAD_BYTES..HEAD_BYTES + head.length];
                streams[usize::from(head.stream[3])].extend_from_slice(payload);
                rest = &rest[HEAD_BYTES + head.length..];
            }
            streams
        };
        for cut in 1..200 {
            let (out, _) = through(&input, cut, usize::MAX);
            assert_eq!(payloads(&out), payloads(&input), "cut {cut}");
        }
    }

    #[test]
    fn data_that_passes_is_counted() {
        let all = |bytes: &[u8], reset: Option<u8>| {
            let mut inbound = Inbound::new(0);
            reset.into_iter().for_each(|stream| inbound.note_reset([0, 0, 0, stream]));
            let mut bytes = bytes.to_vec();
            let passed = inbound.pass(&mut bytes);
            inbound.take_arrived(passed)
        };
        let small = frame(DATA, 0, 1, &[1; 20]);
        let two = Arrived { frames: 1, bytes: 40, ignored: 0, others: 9 };
        assert_eq!(all(&[&small[..], &small].concat(), None), two, "as one frame");
        let ignored = Arrived { frames: 0, bytes: 0, ignored: 40, others: 49 };
        assert_eq!(all(&[&small[..], &small].concat(), Some(1)), ignored);
        assert_eq!(all(&[&small[..], &small].concat(), Some(3)), two);
        let padded = frame(DATA, PADDED, 1, &[&[3][..], &[1; 20]].concat());
        assert_eq!(all(&padded, None), Arrived { frames: 1, bytes: 17, ignored: 4, others: 13 });
        // A frame that has begun counts as a whole, since h2 waits for the rest.
        let begun = &frame(DATA, 0, 1, &[1; 20])[..12];
        assert_eq!(all(begun, None), Arrived { frames: 1, bytes: 20, ignored: 0, others: 9 });
        assert_eq!(all(&frame(DATA, 0, 1, &[]), None), Arrived::default());
        let ping = Arrived { others: 17, ..Arrived::default() };
        assert_eq!(all(&frame(PING, 0, 0, &[7; 8]), None), ping);
    }

    #[test]
    fn a_frame_that_comes_in_pieces_is_counted_once() {
        let bytes = frame(DATA, 0, 1, &[1; 7000]).repeat(4);
        for cut in [1, 100, 6999, 7009, 8000, bytes.len()] {
            let mut inbound = Inbound::new(0);
            let mut sum = Arrived::default();
            for piece in bytes.chunks(cut) {
                let mut buffer = [inbound.held(), piece].concat();
                inbound.take_held();
                let passed = inbound.pass(&mut buffer);
                let arrived = inbound.take_arrived(passed);
                sum.frames += arrived.frames;
                sum.bytes += arrived.bytes;
                sum.others += arrived.others;
            }
            let all = Arrived { frames: 4, bytes: 4 * 7000, ignored: 0, others: 4 * HEAD_BYTES };
            assert_eq!(sum, all, "cut {cut}");
        }
    }

    #[test]
    fn streams_that_were_reset_are_forgotten_in_the_end() {
        let mut inbound = Inbound::new(0);
        for stream in 0..200 {
            inbound.note_reset([0, 0, 0, stream]);
            assert!(inbound.reset.len() <= limits::RESETS_REMEMBERED_MAX);
        }
        assert!(inbound.reset.contains(&[0, 0, 0, 199]) && !inbound.reset.contains(&[0, 0, 0, 0]));
    }

    #[test]
    fn rubbish_passes_as_it_is() {
        let mut state = 1_u64;
        for length in [1, 100, 5000] {
            let mut noise = || {
                state = crate::clock::split_mix(state);
                state as u8
            };
            let bytes: Vec<u8> = (0..length).map(|_| noise()).collect();
            for cut in [1, 7, 1000] {
                // Frames that claim great lengths, of unknown kinds.
                let (out, _) = through(&bytes, cut, 64);
                assert!(out.len() <= bytes.len() + 64);
            }
        }
    }
}
