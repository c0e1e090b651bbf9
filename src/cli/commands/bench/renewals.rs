//! Renewals of leases, one at a time, each on a stream of its own.

use futures_util::stream::StreamExt as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::client::{Answers, Client, Deadline, Error, rpc};
use crate::limits::CLIENT_STREAM_REQUESTS_MAX;
use crate::pb::{LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse};

/// TTL of the leases that the benchmark grants; it revokes them after the run.
pub(super) const LEASE_SECONDS: i64 = 600;

/// A lease, and the stream on which it is renewed.
pub(super) struct Renewal {
    client: Client,
    pub id: i64,
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Answers<LeaseKeepAliveResponse>,
}

impl Renewal {
    /// Grants a lease and renews it once, since a server answers to the opening of a stream only with
    /// its first message.
    pub(super) async fn open(client: &Client, deadline: Deadline) -> Result<Self, Error> {
        let request = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
        let id = client.call(&rpc::LEASE_GRANT, request, deadline).await?.id;
        let (requests, receiver) = mpsc::channel(CLIENT_STREAM_REQUESTS_MAX);
        // Cannot fail: the channel is new and empty.
        let _ = requests.try_send(LeaseKeepAliveRequest { id });
        let stream = ReceiverStream::new(receiver).boxed();
        // The stream stays open for longer than a call may take.
        let opening = client.stream(&rpc::LEASE_KEEP_ALIVE, stream, true, Deadline::NONE);
        let answers = deadline.bound(opening).await.ok_or(Error::Deadline)??;
        let mut renewal = Self { client: client.clone(), id, requests, answers };
        renewal.take(deadline).await?;
        Ok(renewal)
    }

    pub(super) async fn renew(&mut self, deadline: Deadline) -> Result<(), Error> {
        // A send to a closed stream fails; the read then returns the stream's end.
        let _ = self.requests.send(LeaseKeepAliveRequest { id: self.id }).await;
        self.take(deadline).await
    }

    async fn take(&mut self, deadline: Deadline) -> Result<(), Error> {
        match self.client.next(&mut self.answers, deadline).await? {
            Some(answer) if answer.ttl > 0 => Ok(()),
            Some(_) => Err(Error::Other("the lease has expired".into())),
            None => Err(Error::Other("the server has ended the stream of renewals".into())),
        }
    }
}
