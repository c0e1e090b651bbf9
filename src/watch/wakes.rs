//! Wakes the consumers of streams after a delivery.
//!
//! A delivery to ten thousand streams makes as many tasks ready at once. Whoever waits for the answer
//! to a put would then wait for all of them. So a delivery wakes a few consumers itself and leaves the
//! others to a task that wakes a few at a time, and gives way in between.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::stream::Queue;
use crate::limits::WATCH_WAKES_AT_ONCE;

#[derive(Default)]
pub(super) struct Wakes {
    later: Mutex<VecDeque<Arc<Queue>>>,
    filled: Notify,
    /// Number of the last delivery.
    deliveries: AtomicU64,
    /// Whether the task has begun. Without it, all are woken at once.
    has_begun: AtomicBool,
}

/// The wakes of one delivery.
pub(super) struct Delivery<'a> {
    wakes: &'a Wakes,
    number: u64,
    /// Further consumers that may be woken at once.
    at_once: usize,
    later: Vec<Arc<Queue>>,
}

impl Wakes {
    pub(super) fn delivery(&self) -> Delivery<'_> {
        let has_begun = self.has_begun.load(Ordering::Relaxed);
        let at_once = if has_begun { WATCH_WAKES_AT_ONCE } else { usize::MAX };
        let number = self.deliveries.fetch_add(1, Ordering::Relaxed) + 1;
        Delivery { wakes: self, number, at_once, later: Vec::new() }
    }

    /// Wakes those that deliveries have left, as long as it is polled.
    pub(super) async fn work(&self) -> Infallible {
        self.has_begun.store(true, Ordering::Relaxed);
        loop {
            let few: Vec<_> = {
                let mut later = self.later.lock();
                let few = later.len().min(WATCH_WAKES_AT_ONCE);
                later.drain(..few).collect()
            };
            if few.is_empty() {
                self.filled.notified().await;
                continue;
            }
            few.iter().for_each(|queue| queue.wake_in_line());
            tokio::task::yield_now().await;
        }
    }
}

impl Delivery<'_> {
    pub(super) fn wake(&mut self, queue: &Arc<Queue>) {
        // A consumer that this delivery has woken may have looked before the event at hand came.
        if queue.woken_by.load(Ordering::Relaxed) == self.number {
            queue.wake();
        } else if self.at_once > 0 {
            self.at_once -= 1;
            queue.woken_by.store(self.number, Ordering::Relaxed);
            queue.wake();
        } else if queue.get_in_line() {
            self.later.push(Arc::clone(queue));
        }
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        if !self.later.is_empty() {
            self.wakes.later.lock().extend(self.later.drain(..));
            self.wakes.filled.notify_one();
        }
    }
}
