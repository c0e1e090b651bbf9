//! One HTTP/1.1 connection to a peer, with the Host header that servers demand.

use http::{HeaderValue, Uri};
use hyper::body::Body;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::dial::Link;
use crate::supervise::Supervisor;

/// Starts HTTP on a link and drives it by a task. The task ends when the sender and the bodies of
/// the answers are dropped, or with an error, which the request returns as well.
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

/// The Host header for requests to this URL.
pub(super) fn host(url: &Uri) -> Result<HeaderValue, http::Error> {
    let host = url.authority().map_or("", |authority| authority.as_str());
    Ok(HeaderValue::from_str(host)?)
}
