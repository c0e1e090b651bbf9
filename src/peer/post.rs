//! Messages in requests of their own, for a peer that reads no stream here: etcd's pipeline.
//!
//! A peer that cannot dial this member can be reached all the same if this member can dial it. Each
//! channel has a queue of its own, as the streams have, so that a heartbeat does not wait behind
//! entries.

use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::Full;
use prost::Message as _;
use tokio::time::timeout;

use super::ask::AskError;
use super::headers::headers;
use super::kept::Kept;
use super::one::Queued;
use super::owner::PeerOwner;
use crate::limits;
use crate::raft::Message;

/// The pause after a message that could not be posted. What comes meanwhile waits in the queue.
const RETRY: Duration = Duration::from_millis(100);

enum Outcome {
    Taken,
    /// The peer surely did not hand the message to its raft.
    Refused(AskError),
    /// The peer may have got the message, but did not say so.
    Unknown(AskError),
    /// This member stops, or has forgotten the peer.
    Stopped,
}

/// Posts what is queued, one message after the other, until this member stops or the peer is
/// forgotten.
pub(super) async fn post(
    owner: Weak<dyn PeerOwner>,
    to: u64,
    urls: Vec<String>,
    mut queue: Queued,
) {
    let mut kept = Kept::default();
    let mut failures = 0_u64;
    // After a URL that failed, the next one is tried.
    let mut places = urls.iter().cycle();
    let Some(mut url) = places.next() else { return };
    while let Some(message) = queue.next().await {
        let (error, may_have_come) = match post_one(&owner, &mut kept, url, &message).await {
            Outcome::Taken => {
                failures = 0;
                continue;
            }
            Outcome::Refused(error) => (error, false),
            Outcome::Unknown(error) => (error, true),
            Outcome::Stopped => return,
        };
        failures += 1;
        // Logged at powers of two, and seldom seen: that a peer is down is logged by its reader.
        if failures.is_power_of_two() {
            let peer = format_args!("{to:x}");
            tracing::debug!(%peer, url, failures, %error, "a message could not be posted");
        }
        kept = Kept::default();
        {
            let Some(owner) = owner.upgrade() else { return };
            owner.unsent(message, may_have_come);
            // What is queued behind it would fail as well, and would be late if it did not.
            while let Some(message) = queue.try_next() {
                owner.unsent(message, false);
            }
        }
        url = places.next().unwrap_or(url);
        tokio::time::sleep(RETRY).await;
    }
}

async fn post_one(
    owner: &Weak<dyn PeerOwner>,
    kept: &mut Kept,
    url: &str,
    message: &Message,
) -> Outcome {
    let (dial, supervisor, headers, patience) = {
        let Some(owner) = owner.upgrade() else { return Outcome::Stopped };
        let headers = headers(owner.config(), Some(message.to));
        (owner.dial(), owner.supervisor(), headers, owner.config().read_timeout)
    };
    let body = message.encode_to_vec();
    let bytes = body.len();
    if bytes > limits::PEER_POSTS_BYTES_MAX {
        return Outcome::Refused(AskError::Status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let request = || {
        let uri: Uri = url.parse()?;
        let mut request = Request::post("/raft").body(Full::new(Bytes::from(body)))?;
        request.headers_mut().extend(headers?);
        let kind = http::HeaderValue::from_static("application/protobuf");
        request.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        Ok((uri, request))
    };
    let (uri, request) = match request() {
        Ok(request) => request,
        Err(error) => return Outcome::Refused(error),
    };
    if let Err(error) = kept.connect(&*dial, &supervisor, &uri).await {
        return Outcome::Refused(error);
    }
    let sent = timeout(patience, kept.send(&uri, request)).await;
    let status = match sent.unwrap_or_else(|late| Err(late.into())) {
        Ok((status, _)) => status,
        Err(error) => return Outcome::Unknown(error),
    };
    let Some(owner) = owner.upgrade() else { return Outcome::Stopped };
    if status.is_success() {
        if let Some(peer) = owner.peer(message.to) {
            peer.series.sent_bytes.inc_by(bytes as u64);
        }
        return Outcome::Taken;
    }
    if status == StatusCode::GONE {
        owner.removed();
    }
    Outcome::Refused(AskError::Status(status))
}
