//! Keeps a lease alive: on one stream, with a renewal after each third of the TTL. A broken stream
//! is opened again until the lease is gone.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;

use super::connection::Client;
use super::deadline::Deadline;
use super::encoded::Answers;
use super::error::Error;
use super::methods::rpc;
use crate::limits;
use crate::pb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};

/// Renews one lease, as long as the caller keeps calling [`KeepAlive::next`].
pub struct KeepAlive {
    client: Client,
    id: i64,
    stream: Option<(mpsc::Sender<LeaseKeepAliveRequest>, Answers<LeaseKeepAliveResponse>)>,
    /// When the lease counts as lost because no renewal was answered.
    expiry: Instant,
    /// When the next renewal is sent.
    renewal: Instant,
}

impl KeepAlive {
    pub fn new(client: &Client, id: i64) -> Self {
        let patience = client.dial_timeout() + Duration::from_secs(1);
        let now = Instant::now();
        Self { client: client.clone(), id, stream: None, expiry: now + patience, renewal: now }
    }

    /// The next renewal; None when the lease has expired or was revoked.
    pub async fn next(&mut self) -> Option<LeaseKeepAliveResponse> {
        loop {
            let expiry = self.expiry;
            let response = tokio::select! {
                response = self.renew() => response,
                () = sleep_until(expiry) => return None,
            };
            match response {
                Ok(Some(response)) if response.ttl <= 0 => return None,
                Ok(Some(response)) => {
                    let ttl = Duration::from_secs(response.ttl.unsigned_abs());
                    let now = Instant::now();
                    self.expiry = now.checked_add(ttl).unwrap_or(now);
                    self.renewal = now + ttl / 3;
                    return Some(response);
                }
                Ok(None) | Err(_) => {
                    self.stream = None;
                    sleep(limits::CLIENT_KEEP_ALIVE_RETRY_WAIT).await;
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<Option<LeaseKeepAliveResponse>, Error> {
        sleep_until(self.renewal).await;
        let request = LeaseKeepAliveRequest { id: self.id };
        if let Some((sender, _)) = &self.stream {
            // A send to a closed stream fails; the read below then returns the stream's end.
            let _ = sender.send(request).await;
        } else {
            let (sender, receiver) = mpsc::channel(limits::CLIENT_STREAM_REQUESTS_MAX);
            let _ = sender.try_send(request);
            let requests = ReceiverStream::new(receiver).boxed();
            let stream =
                self.client.stream(&rpc::LEASE_KEEP_ALIVE, requests, true, Deadline::NONE).await?;
            self.stream = Some((sender, stream));
        }
        let Some((_, stream)) = &mut self.stream else { return Ok(None) };
        self.client.next(stream, Deadline::NONE).await
    }

    /// Renews a lease once. Transient errors are retried without an end; an unknown lease is an
    /// error.
    pub async fn once(client: &Client, id: i64) -> Result<LeaseKeepAliveResponse, Error> {
        loop {
            let requests = tokio_stream::once(LeaseKeepAliveRequest { id }).boxed();
            let outcome = async {
                let mut stream =
                    client.stream(&rpc::LEASE_KEEP_ALIVE, requests, false, Deadline::NONE).await?;
                client.next(&mut stream, Deadline::NONE).await
            };
            match outcome.await {
                Ok(Some(response)) if response.ttl > 0 => return Ok(response),
                Ok(Some(_)) => {
                    return Err(Error::Other("etcdserver: requested lease not found".into()));
                }
                Ok(None) => {}
                Err(Error::Stream(status)) => {
                    let error = Error::Status(status);
                    if !error.is_transient() {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
            sleep(limits::CLIENT_RETRY_WAIT).await;
        }
    }
}
