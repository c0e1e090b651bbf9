//! One connection to a peer, on which requests are sent: HTTP/1.1 with the Host that a server asks
//! for.

use http::{HeaderValue, Uri};
use hyper::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::dial::Link;
use crate::supervise::Supervisor;

/// Makes a link a connection, which a task of its own drives. The task ends when the sender and the
/// answers' bodies are dropped, or with an error that the request reports as well.
pub(super) async fn handshake<B>(
    link: Box<dyn Link>,
    supervisor: &Supervisor,
) -> Result<SendRequest<B>, hyper::Error>
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (sender, connection) = http1::handshake(TokioIo::new(link)).await?;
    supervisor.task("peer-connection", async { drop(connection.await) });
    Ok(sender)
}

/// The Host header of a request to this URL.
pub(super) fn host(url: &Uri) -> Result<HeaderValue, http::Error> {
    let host = url.authority().map_or("", |authority| authority.as_str());
    Ok(HeaderValue::from_str(host)?)
}
