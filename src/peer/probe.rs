//! Measures the round-trip time to a peer, and whether it answers at all.

use std::sync::Weak;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::SendRequest;
use tokio::time::{sleep, timeout};

use super::ask::AskError;
use super::connection::{handshake, host};
use super::owner::PeerOwner;
use crate::clock;
use crate::limits::{PEER_ANSWER_BYTES_MAX, PEER_PROBE_INTERVAL};

type ProbeSender = SendRequest<Empty<Bytes>>;

/// Asks a peer each `PEER_PROBE_INTERVAL`, over one connection for as long as that lasts.
pub(super) async fn probe(owner: Weak<dyn PeerOwner>, to: u64, urls: Vec<String>) {
    let mut connection = None;
    let mut failures = 0_u64;
    // After a URL that did not answer, the next one is asked.
    let mut places = urls.iter().cycle();
    let Some(mut url) = places.next() else { return };
    loop {
        sleep(PEER_PROBE_INTERVAL).await;
        let asked = timeout(PEER_PROBE_INTERVAL, ask(&owner, &mut connection, to, url)).await;
        let error = match asked.unwrap_or_else(|late| Err(late.into())) {
            Ok(true) => {
                failures = 0;
                continue;
            }
            Ok(false) => return,
            Err(error) => error,
        };
        failures += 1;
        // Logged at powers of two: a peer that is down must not flood the log.
        if failures.is_power_of_two() {
            let peer = format_args!("{to:x}");
            tracing::warn!("remote-peer-id" = %peer, url, failures, %error,
                "prober detected unhealthy status");
        }
        url = places.next().unwrap_or(url);
    }
}

/// Asks once; false if this member stops or the peer was removed.
async fn ask(
    owner: &Weak<dyn PeerOwner>,
    connection: &mut Option<ProbeSender>,
    to: u64,
    url: &str,
) -> Result<bool, AskError> {
    let both = owner.upgrade().map(|owner| (owner.dial(), owner.supervisor()));
    let Some((dial, supervisor)) = both else { return Ok(false) };
    let uri: Uri = url.parse()?;
    let mut sender = match connection.take().filter(|sender| !sender.is_closed()) {
        Some(sender) => sender,
        None => {
            let link = dial.dial(&uri).await?;
            handshake(link, &supervisor).await?
        }
    };
    let mut request = Request::get("/raft/probing").body(Empty::new())?;
    request.headers_mut().insert(http::header::HOST, host(&uri)?);
    let began = clock::instant();
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), PEER_ANSWER_BYTES_MAX).collect().await;
    body.map_err(AskError::Body)?;
    if status != StatusCode::OK {
        return Err(AskError::Status(status));
    }
    *connection = Some(sender);
    let Some(peer) = owner.upgrade().and_then(|owner| owner.peer(to)) else { return Ok(false) };
    peer.series.round_trip.observe(began.elapsed().as_secs_f64());
    Ok(true)
}
