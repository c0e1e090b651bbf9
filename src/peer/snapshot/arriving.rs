//! The body of a snapshot that is being received. It may stall, drip or be cut off.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, timeout};

use crate::limits::{self, SNAPSHOT_STALL_MAX};

/// A body, the bytes that have come of it, and the time that was spent waiting for them.
pub(in crate::peer) struct Arriving<B> {
    body: Pin<Box<B>>,
    bytes: u64,
    waited: Duration,
}

impl<B: Body<Data = Bytes>> Arriving<B> {
    pub(in crate::peer) fn new(body: B) -> Self {
        Self::waited(body, Duration::ZERO)
    }

    /// A body with time already spent waiting for it.
    pub(in crate::peer) fn waited(body: B, waited: Duration) -> Self {
        Self { body: Box::pin(body), bytes: 0, waited }
    }

    /// The next bytes; None at the end. An error if the body stalls, is cut off or comes too
    /// slowly.
    pub(in crate::peer) async fn next(&mut self) -> Result<Option<Bytes>, &'static str> {
        loop {
            // One snapshot is received at a time, so one that drips would keep out all others.
            let fair = self.waited.saturating_sub(SNAPSHOT_STALL_MAX).as_secs();
            if fair * limits::SNAPSHOT_READER_RATE_MIN > self.bytes {
                return Err("the snapshot comes too slowly");
            }
            let began = Instant::now();
            let frame = timeout(SNAPSHOT_STALL_MAX, self.body.frame()).await;
            self.waited += began.elapsed();
            match frame {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => {
                        self.bytes += bytes.len() as u64;
                        return Ok(Some(bytes));
                    }
                    Err(_) => continue,
                },
                Ok(Some(Err(_))) => return Err("the snapshot was cut off"),
                Ok(None) => return Ok(None),
                Err(_) => return Err("the snapshot stalled"),
            }
        }
    }
}
