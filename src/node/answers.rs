//! What the answers of this member hold in memory until their clients have taken them.
//!
//! A long range is built whole before its first byte leaves, and a client need not read it. So only a
//! few are built at a time, and none while those that wait to be sent hold more than is allowed. Who
//! sends answers says here what they hold; this room does not know how they are sent.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::limits;
use crate::metrics;

pub struct Answers {
    unsent_bytes: AtomicUsize,
    turns: Semaphore,
    room: Notify,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            unsent_bytes: AtomicUsize::new(0),
            turns: Semaphore::new(limits::LONG_ANSWERS_MAX),
            room: Notify::new(),
        }
    }
}

impl Answers {
    /// So many bytes more wait to be sent.
    pub fn add(&self, bytes: usize) {
        self.unsent_bytes.fetch_add(bytes, Ordering::SeqCst);
        metrics::unsent_bytes().add(bytes as i64);
    }

    /// So many are sent, or will never be.
    pub fn remove(&self, bytes: usize) {
        let before = self.unsent_bytes.fetch_sub(bytes, Ordering::SeqCst);
        metrics::unsent_bytes().sub(bytes as i64);
        if before > limits::UNSENT_BYTES_MAX && before - bytes <= limits::UNSENT_BYTES_MAX {
            self.room.notify_waiters();
        }
    }

    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes.load(Ordering::SeqCst)
    }

    /// Whether more waits to be sent than is allowed.
    pub fn is_crowded(&self) -> bool {
        self.unsent_bytes() > limits::UNSENT_BYTES_MAX
    }

    /// To be held while a long answer is built.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        let turn = self.turns.acquire().await.ok();
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if !self.is_crowded() {
                return turn;
            }
            room.await;
        }
    }
}
