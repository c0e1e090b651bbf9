//! Measures the round-trip time to a peer, and whether it answers at all.

use std::sync::Weak;

use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use tokio::time::{sleep, timeout};

use super::ask::AskError;
use super::kept::Kept;
use super::owner::PeerOwner;
use crate::clock;
use crate::limits::PEER_PROBE_INTERVAL;

/// Asks a peer each `PEER_PROBE_INTERVAL`, over one connection for as long as that lasts.
pub(super) async fn probe(owner: Weak<dyn PeerOwner>, to: u64, urls: Vec<String>) {
    let mut kept = Kept::default();
    let mut failures = 0_u64;
    // After a URL that did not answer, the next one is asked.
    let mut places = urls.iter().cycle();
    let Some(mut url) = places.next() else { return };
    loop {
        sleep(PEER_PROBE_INTERVAL).await;
        let asked = timeout(PEER_PROBE_INTERVAL, ask(&owner, &mut kept, to, url)).await;
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
    kept: &mut Kept,
    to: u64,
    url: &str,
) -> Result<bool, AskError> {
    let both = owner.upgrade().map(|owner| (owner.dial(), owner.supervisor()));
    let Some((dial, supervisor)) = both else { return Ok(false) };
    let uri: Uri = url.parse()?;
    kept.connect(&*dial, &supervisor, &uri).await?;
    let request = Request::get("/raft/probing").body(Full::default())?;
    let began = clock::instant();
    let (status, _) = kept.send(&uri, request).await?;
    if status != StatusCode::OK {
        *kept = Kept::default();
        return Err(AskError::Status(status));
    }
    let Some(peer) = owner.upgrade().and_then(|owner| owner.peer(to)) else { return Ok(false) };
    peer.series.round_trip.observe(began.elapsed().as_secs_f64());
    Ok(true)
}
