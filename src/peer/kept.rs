//! A connection to a peer that is kept from one request to the next.

use std::io;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use tokio::time::timeout;

use super::ask::AskError;
use super::connection::{handshake, host};
use super::dial::Dial;
use crate::limits::{PEER_ANSWER_BYTES_MAX, PEER_DIAL_TIMEOUT};
use crate::supervise::Supervisor;

/// The connection, if there is one. A request that fails leaves none behind, and so does one that
/// is given up while it waits.
#[derive(Default)]
pub(super) struct Kept(Option<SendRequest<Full<Bytes>>>);

impl Kept {
    /// Connects, unless a connection is there already; true if it is a new one. After an error
    /// nothing was sent.
    pub(super) async fn connect(
        &mut self,
        dial: &dyn Dial,
        supervisor: &Supervisor,
        url: &Uri,
    ) -> Result<bool, AskError> {
        if self.0.as_ref().is_some_and(|sender| !sender.is_closed()) {
            return Ok(false);
        }
        self.0 = None;
        let link = timeout(PEER_DIAL_TIMEOUT, dial.dial(url)).await??;
        self.0 = Some(handshake(link, supervisor).await?);
        Ok(true)
    }

    /// Sends a request and takes its answer whole; returns its status and its headers.
    pub(super) async fn send(
        &mut self,
        url: &Uri,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, HeaderMap), AskError> {
        let not_connected = || io::Error::from(io::ErrorKind::NotConnected);
        let mut sender = self.0.take().ok_or_else(not_connected)?;
        request.headers_mut().insert(http::header::HOST, host(url)?);
        let answer = sender.send_request(request).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, PEER_ANSWER_BYTES_MAX).collect().await;
        body.map_err(AskError::Body)?;
        self.0 = Some(sender);
        Ok((head.status, head.headers))
    }
}
