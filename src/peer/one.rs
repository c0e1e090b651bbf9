//! One peer: the streams that it has dialed, with what is queued in them, and those of it that are
//! read here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::frame::Channel;
use crate::raft::Message;
use crate::{limits, metrics};

pub(super) struct Peer {
    pub(super) id: u64,
    pub(super) urls: Vec<String>,
    /// This peer has called, and the log here does not say that it is a member.
    pub(super) is_remembered: bool,
    /// The streams that the peer has dialed.
    pub(super) streams: Mutex<[Option<Outgoing>; 2]>,
    pub(super) readers: Mutex<Vec<AbortHandle>>,
    /// Whether a snapshot is on its way to the peer. A record of the same peer with other URLs shares
    /// the flag, so that no second snapshot leaves beside the first.
    pub(super) sends_snapshot: Arc<AtomicBool>,
    /// Counts the URLs that failed: the next snapshot begins with another.
    pub(super) snapshot_url: AtomicUsize,
    pub(super) reading: Mutex<Reading>,
    pub(super) series: metrics::PeerSeries,
}

/// How many streams of the peer are read here, and since when both are.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) streams: usize,
    pub(super) since: Option<Instant>,
}

/// The sending end of a stream, and what is queued in it.
#[derive(Clone)]
pub(super) struct Outgoing {
    queue: mpsc::Sender<Message>,
    bytes: Arc<AtomicUsize>,
}

impl Peer {
    pub(super) fn hang_up(&self) {
        for reader in self.readers.lock().drain(..) {
            reader.abort();
        }
        *self.streams.lock() = [None, None];
    }

    pub(super) fn holds_both_streams(&self) -> bool {
        let streams = self.streams.lock();
        streams.iter().flatten().filter(|stream| !stream.queue.is_closed()).count() == 2
    }

    /// A stream of the peer's is read until what this gives is dropped.
    pub(super) fn read(self: &Arc<Self>) -> Held {
        let mut reading = self.reading.lock();
        reading.streams += 1;
        if reading.streams == Channel::BOTH.len() {
            reading.since = Some(crate::clock::instant());
            self.series.active.set(1);
        }
        Held(Arc::clone(self))
    }

    /// Puts a new stream in the place of the one before it.
    pub(super) fn attach(&self, channel: Channel) -> (mpsc::Receiver<Message>, Arc<AtomicUsize>) {
        let (queue, messages) = mpsc::channel(limits::PEER_QUEUE_MAX);
        let bytes = Arc::new(AtomicUsize::new(0));
        let outgoing = Outgoing { queue, bytes: Arc::clone(&bytes) };
        self.streams.lock()[channel as usize] = Some(outgoing);
        (messages, bytes)
    }

    /// Queues a message, or gives it back.
    pub(super) fn send(&self, message: Message) -> Option<Message> {
        let size = message.encoded_len();
        let unsent = self.queue(message, size);
        match unsent {
            None => self.series.sent_bytes.inc_by(size as u64),
            Some(_) => self.series.sent_failures.inc(),
        }
        unsent
    }

    fn queue(&self, message: Message, size: usize) -> Option<Message> {
        let channel = Channel::of(&message);
        let Some(stream) = self.streams.lock()[channel as usize].clone() else {
            return Some(message);
        };
        if stream.bytes.fetch_add(size, Ordering::Relaxed) + size > limits::PEER_QUEUE_BYTES_MAX {
            stream.bytes.fetch_sub(size, Ordering::Relaxed);
            return Some(message);
        }
        let error = stream.queue.try_send(message).err()?;
        stream.bytes.fetch_sub(size, Ordering::Relaxed);
        Some(error.into_inner())
    }
}

pub(super) struct Held(Arc<Peer>);

impl Drop for Held {
    fn drop(&mut self) {
        let mut reading = self.0.reading.lock();
        if reading.streams == Channel::BOTH.len() {
            self.0.series.active.set(0);
            self.0.series.lost.inc();
        }
        reading.streams -= 1;
        reading.since = None;
    }
}
