//! What an HTTP/1.1 client sends, on its way to hyper: the head of each request is judged by the
//! rules of Go's server, which etcd uses.
//!
//! hyper refuses other heads than Go does and says less about why. So a head that Go refuses ends
//! here: hyper sees the end of the connection in its place, answers what came before, and the
//! refusal is written when it closes its side (see `line`). A head that Go takes and hyper would
//! not is written anew.
//!
//! ```text
//!   Head ─► body: Bytes or Chunks ─► Head …        Over: the client is not read any further
//!             └─► Waits, after a request to change the protocol ─► Head, or Through
//! ```
//!
//! Bytes stay in the buffer that they were read into. Only a head that is not complete, and what
//! comes behind a head that was changed in the same read, are copied.

mod chunks;
mod head;
mod target;
#[cfg(test)]
mod tests;

use std::task::Waker;

use bytes::{Buf, BytesMut};

use self::chunks::{Chunks, Fed};
use self::head::{Judged, Length, Searched};
use crate::{limits, metrics};

pub(super) use self::head::Refusal;

/// Where the next byte belongs.
enum State {
    Head,
    Bytes(u64),
    Chunks(Chunks),
    /// Behind a request to change the protocol, which is not answered yet.
    Waits,
    /// Not HTTP any more.
    Through,
    /// Nothing more is read.
    Over,
}

/// Why the bytes do not go on.
enum Stop {
    /// All have passed.
    End,
    /// More have to come.
    Incomplete,
    /// The first bytes are replaced by these.
    Changed(usize, Vec<u8>),
    /// The state changed to one that takes none.
    Halt,
}

/// The state of one connection, and bytes between two reads.
pub(super) struct Heads {
    state: State,
    /// Whether the first request's line decides if the connection is HTTP at all. etcd closes one
    /// without TLS, and says nothing, if it is not.
    is_sniffed: bool,
    /// Whether the request before was a POST: Go forgives old clients line ends behind its body.
    is_after_post: bool,
    /// Whether the request whose body comes asked for another protocol.
    waits_next: bool,
    /// Whether the client wants no more than the answer to the request whose body comes.
    is_last: bool,
    /// Bytes that were read and may not go on yet, and what is known of the head that they begin.
    held: BytesMut,
    searched: Searched,
    /// Bytes that go on before all others.
    ready: BytesMut,
    refusal: Option<Refusal>,
    /// Whether hyper was told that nothing more comes.
    has_ended: bool,
    fault: Option<&'static str>,
    reader: Option<Waker>,
}

/// Bytes of line ends behind a POST that are no part of the next request, as in Go.
const FORGIVEN_BYTES_MAX: usize = 4;

fn forgiven(bytes: &[u8]) -> usize {
    let first = bytes.iter().take(FORGIVEN_BYTES_MAX);
    first.take_while(|byte| b"\r\n".contains(byte)).count()
}

impl Heads {
    pub(super) fn new(is_sniffed: bool) -> Self {
        Self {
            state: State::Head,
            is_sniffed,
            is_after_post: false,
            waits_next: false,
            is_last: false,
            held: BytesMut::new(),
            searched: Searched::default(),
            ready: BytesMut::new(),
            refusal: None,
            has_ended: false,
            fault: None,
            reader: None,
        }
    }

    /// Bytes that wait for the rest of a head.
    pub(super) fn held_bytes(&self) -> usize {
        self.held.len()
    }

    /// Whether no more may be read now, since it is not known what it belongs to; `reader` is woken
    /// once it is.
    pub(super) fn is_full(&mut self, reader: &Waker) -> bool {
        let waits = matches!(self.state, State::Waits);
        if waits {
            self.reader = Some(reader.clone());
        }
        waits && self.held.len() >= limits::LINE_AHEAD_BYTES_MAX
    }

    /// Whether hyper is to see the end of the connection.
    pub(super) fn is_over(&mut self) -> bool {
        let is_over = matches!(self.state, State::Over) && self.ready.is_empty();
        self.has_ended |= is_over;
        is_over
    }

    /// The refusal that the client gets after all other answers.
    pub(super) fn take_due_refusal(&mut self) -> Option<Refusal> {
        if self.has_ended { self.refusal.take() } else { None }
    }

    /// What is wrong with the body that was read last, in Go's words.
    pub(super) fn fault(&self) -> Option<&'static str> {
        self.fault
    }

    /// Gives at most `most` ready bytes to `to`; false if none are ready.
    pub(super) fn take_ready(&mut self, most: usize, to: impl FnOnce(&[u8])) -> bool {
        let count = self.ready.len().min(most);
        if count > 0 {
            to(&self.ready[..count]);
            self.ready.advance(count);
        }
        if self.ready.is_empty() && self.ready.capacity() > 0 {
            self.ready = BytesMut::new();
        }
        count > 0
    }

    /// The request for another protocol was answered. Returns whom to wake.
    pub(super) fn answered(&mut self, is_through: bool) -> Option<Waker> {
        self.waits_next = false;
        if is_through {
            self.state = State::Through;
            self.ready.extend_from_slice(&std::mem::take(&mut self.held));
        } else if matches!(self.state, State::Waits) {
            self.state = if self.is_last { State::Over } else { State::Head };
            self.go_on();
        }
        self.reader.take()
    }

    /// The client sends nothing more.
    pub(super) fn end(&mut self) {
        // Line ends behind a POST are no request, and no part of one.
        if self.is_after_post {
            self.held.advance(forgiven(&self.held));
        }
        if matches!(self.state, State::Head) && !self.held.is_empty() {
            let judged = match self.is_sniffed {
                true => head::is_http1(&self.held),
                false => true,
            };
            self.refuse(if judged { head::BAD } else { head::SILENT });
            self.held = BytesMut::new();
        }
        self.state = State::Over;
        self.has_ended = true;
    }

    /// Takes the next bytes, and returns how many of the first may go on. The others are held, or
    /// ready.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> usize {
        if !self.held.is_empty() || !self.ready.is_empty() {
            self.held.extend_from_slice(bytes);
            self.go_on();
            return 0;
        }
        let (passed, stop) = self.walk(bytes);
        if !matches!(stop, Stop::End) {
            self.held.extend_from_slice(&bytes[passed..]);
            if self.replaces(stop) {
                self.go_on();
            }
        }
        passed
    }

    /// Moves held bytes to the ready ones as far as that is possible.
    fn go_on(&mut self) {
        loop {
            let mut held = std::mem::take(&mut self.held);
            let (passed, stop) = self.walk(&held);
            self.ready.extend_from_slice(&held[..passed]);
            held.advance(passed);
            self.held = held;
            if !self.replaces(stop) {
                return;
            }
        }
    }

    /// Replaces the first of the held bytes if that is why they do not go on; true if those behind
    /// them may go on.
    fn replaces(&mut self, stop: Stop) -> bool {
        match stop {
            Stop::Changed(count, bytes) => {
                self.ready.extend_from_slice(&bytes);
                self.held.advance(count);
                true
            }
            Stop::Halt if matches!(self.state, State::Over) => {
                self.held = BytesMut::new();
                false
            }
            Stop::End | Stop::Incomplete | Stop::Halt => false,
        }
    }

    /// Follows the bytes as long as they may go on unchanged.
    fn walk(&mut self, bytes: &[u8]) -> (usize, Stop) {
        let mut at = 0;
        loop {
            let rest = &bytes[at..];
            match &mut self.state {
                State::Waits | State::Over => return (at, Stop::Halt),
                State::Through => return (bytes.len(), Stop::End),
                _ if rest.is_empty() => return (at, Stop::End),
                State::Bytes(left) => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= count as u64;
                    at += count;
                    if *left == 0 {
                        self.after_body();
                    }
                }
                State::Chunks(chunks) => match chunks.feed(rest) {
                    Fed::More => return (bytes.len(), Stop::End),
                    Fed::Whole(count) => {
                        at += count;
                        self.after_body();
                    }
                    Fed::Faulty(count, fault) => {
                        self.fault = Some(fault);
                        self.state = State::Over;
                        return (at + count, Stop::Halt);
                    }
                },
                State::Head => match self.head(rest) {
                    (count, Stop::End) => at += count,
                    (_, stop) => return (at, stop),
                },
            }
        }
    }

    fn after_body(&mut self) {
        self.state = match (self.waits_next, self.is_last) {
            (true, _) => State::Waits,
            (false, true) => State::Over,
            (false, false) => State::Head,
        };
    }

    /// Judges the head that begins here. Returns its length with `End`, if it may pass as it is.
    fn head(&mut self, bytes: &[u8]) -> (usize, Stop) {
        if self.is_after_post {
            let ends = forgiven(bytes);
            if ends == bytes.len() && ends < FORGIVEN_BYTES_MAX {
                return (0, Stop::Incomplete);
            }
            self.is_after_post = false;
            if ends > 0 {
                return (0, Stop::Changed(ends, Vec::new()));
            }
        }
        if !self.is_sniffed
            && self.searched == Searched::default()
            && let Some((end, judged)) = head::plain(bytes)
        {
            self.take(&judged);
            return (end, Stop::End);
        }
        let end = match head::end(bytes, self.searched) {
            Ok(end) => end,
            Err(searched) => {
                // A line that is no request's is refused before the lines behind it come.
                let is_first_line = self.searched.line == 0 && searched.line > 0;
                self.searched = searched;
                let refusal = match is_first_line || self.is_sniffed {
                    true => head::refused_line(bytes, self.is_sniffed),
                    false => None,
                };
                let is_too_long = bytes.len() >= limits::HTTP1_HEAD_BYTES_MAX;
                let refusal = refusal.or(is_too_long.then_some(head::TOO_LARGE));
                return match refusal {
                    Some(refusal) => (0, self.refuse(refusal)),
                    None => (0, Stop::Incomplete),
                };
            }
        };
        self.searched = Searched::default();
        let judged = match head::judge(&bytes[..end], self.is_sniffed) {
            Ok(judged) => judged,
            Err(refusal) => return (0, self.refuse(refusal)),
        };
        self.is_sniffed = false;
        self.take(&judged);
        match judged.changed {
            Some(changed) => (0, Stop::Changed(end, changed)),
            None => (end, Stop::End),
        }
    }

    /// Goes on behind a head that passes.
    fn take(&mut self, judged: &Judged) {
        self.is_after_post = judged.is_post;
        self.is_last = judged.is_last;
        self.waits_next = judged.asks_for_protocol;
        match judged.length {
            Length::Bytes(0) => self.after_body(),
            Length::Bytes(count) => self.state = State::Bytes(count),
            Length::Chunks => self.state = State::Chunks(Chunks::default()),
        }
    }

    fn refuse(&mut self, refusal: Refusal) -> Stop {
        metrics::http_refused().inc();
        tracing::debug!(status = refusal.status(), "a request is refused by its head");
        self.refusal = Some(refusal);
        self.state = State::Over;
        Stop::Halt
    }
}
