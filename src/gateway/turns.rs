//! Reads and writes large documents. That takes up to a tenth of a second each, so it is done apart from
//! the threads that serve connections, in the order in which it was asked for, and never on all
//! processors at once. Long reads have turns of their own.
//!
//! ```text
//!   read(document) ─► room among those that wait? ─► line ─► turn ─► blocking thread ─► caller
//!                      └► none: read where it came
//! ```
//!
//! A caller that waits for an outcome holds no turn: it may be a client's stream, which goes on only when
//! the client takes something.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::limits::{
    GATEWAY_SMALL_BYTES, GATEWAY_WAITING_BYTES_MAX, GATEWAY_WAITING_DOCUMENTS_MIN,
};
use crate::supervise::{Gone, Supervisor, processors_for_long_work};

#[derive(Clone)]
pub(super) struct Turns {
    supervisor: Supervisor,
    free: Arc<Semaphore>,
    /// For documents that wait to be read, in KiB.
    room: Arc<Semaphore>,
    room_kib: u32,
}

impl Turns {
    pub(super) fn new(supervisor: Supervisor, document_bytes_max: usize) -> Self {
        let few = document_bytes_max.saturating_mul(GATEWAY_WAITING_DOCUMENTS_MIN);
        let room_kib = kib(few.max(GATEWAY_WAITING_BYTES_MAX));
        let room = Arc::new(Semaphore::new(room_kib as usize));
        let free = Arc::new(Semaphore::new(processors_for_long_work()));
        Self { supervisor, free, room, room_kib }
    }

    /// Reads a document: at once if it is small or those that wait leave no room for it, else in its
    /// turn. So a flood of large ones delays its own connections, and no document is refused.
    pub(super) async fn read<T, F>(&self, document: Bytes, read: F) -> Result<T, Gone>
    where
        T: Send + 'static,
        F: FnOnce(&[u8]) -> T + Send + 'static,
    {
        if document.len() <= GATEWAY_SMALL_BYTES {
            return Ok(read(&document));
        }
        let kib = kib(document.len()).clamp(1, self.room_kib);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(kib) else {
            return Ok(read(&document));
        };
        let work = move || {
            let outcome = read(&document);
            drop((document, room));
            outcome
        };
        self.run(work).await
    }

    /// Runs `work` in its turn, and not at all if the future is dropped before.
    pub(super) fn run<T, F>(
        &self,
        work: F,
    ) -> impl Future<Output = Result<T, Gone>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let Self { supervisor, free, .. } = self.clone();
        let outcome = self.supervisor.awaited("document", async move {
            let turn = free.acquire_owned().await.map_err(|_| Gone)?;
            let work = move || {
                let outcome = work();
                // Given back by the work and not by the task, which a caller that goes away aborts: the
                // next work would begin beside this one.
                drop(turn);
                outcome
            };
            supervisor.blocking("document", work).await
        });
        async move { outcome.await? }
    }
}

fn kib(bytes: usize) -> u32 {
    // tokio's semaphores have fewer permits than that on a machine of 32 bits.
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(u32::MAX >> 4)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn turns() -> Turns {
        let turns = Turns::new(Supervisor::default(), 0);
        Turns { free: Arc::new(Semaphore::new(1)), ..turns }
    }

    #[tokio::test]
    async fn a_caller_that_waits_for_nothing_keeps_no_turn() {
        let turns = turns();
        let idle = turns.run(|| 1);
        assert_eq!(turns.run(|| 2).await, Ok(2));
        assert_eq!(idle.await, Ok(1));
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_done() {
        let turns = turns();
        let taken = Arc::clone(&turns.free).acquire_owned().await.unwrap();
        drop(turns.run(|| panic!("nobody waits for it")));
        drop(taken);
        assert_eq!(turns.run(|| 1).await, Ok(1));
        assert_eq!(turns.supervisor.failure_reason(), None);
    }

    #[tokio::test]
    async fn documents_beyond_those_that_may_wait_are_read_at_once() {
        let turns = turns();
        let taken = Arc::clone(&turns.free).acquire_owned().await.unwrap();
        let document = Bytes::from(vec![b'x'; 4 << 20]);
        let read = || Box::pin(turns.read(document.clone(), <[u8]>::len));
        let most = GATEWAY_WAITING_BYTES_MAX / document.len();
        let mut waiting: Vec<_> = (0..most).map(|_| read()).collect();
        for waits in &mut waiting {
            assert_eq!(waits.now_or_never(), None);
        }
        assert_eq!(read().now_or_never(), Some(Ok(document.len())));
        // One that goes away, and one that is read, leave their room to others.
        waiting.pop();
        tokio::task::yield_now().await;
        let mut next = read();
        assert_eq!((&mut next).now_or_never(), None);
        drop(taken);
        assert_eq!(next.await, Ok(document.len()));
        assert_eq!(turns.room.available_permits(), kib(GATEWAY_WAITING_BYTES_MAX) as usize);
    }
}
