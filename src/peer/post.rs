//! Messages in requests of their own, for a peer that reads no stream here: etcd's pipeline.
//!
//! A peer that cannot dial this member can be reached all the same if this member can dial it. Each
//! channel has a queue of its own, as the streams have, so that a heartbeat does not wait behind
//! entries.

use std::sync::Weak;

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use prost::Message as _;
use tokio::time::timeout;

use super::ask::AskError;
use super::headers::{PeersConfig, headers, is_fellow};
use super::kept::Kept;
use super::one::Queued;
use super::owner::PeerOwner;
use crate::limits;
use crate::raft::Message;

enum Outcome {
    Taken,
    /// The peer surely did not hand the message to its raft.
    Refused(AskError),
    /// The peer's raft cannot take the message now.
    Busy,
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
            Outcome::Busy => {
                // Its connection and what is queued behind it are as good as before.
                let Some(owner) = owner.upgrade() else { return };
                owner.unsent(message, false);
                continue;
            }
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
        // What comes meanwhile waits in the queue.
        tokio::time::sleep(limits::PEER_RETRY).await;
    }
}

async fn post_one(
    owner: &Weak<dyn PeerOwner>,
    kept: &mut Kept,
    url: &str,
    message: &Message,
) -> Outcome {
    let (dial, supervisor, config) = {
        let Some(owner) = owner.upgrade() else { return Outcome::Stopped };
        (owner.dial(), owner.supervisor(), owner.config().clone())
    };
    let bytes = message.encoded_len();
    if bytes > limits::PEER_POSTS_BYTES_MAX {
        return Outcome::Refused(AskError::Status(StatusCode::PAYLOAD_TOO_LARGE));
    }
    let (uri, request) = match request_of(url, message, &config) {
        Ok(request) => request,
        Err(error) => return Outcome::Refused(error),
    };
    let connected = async {
        if kept.connect(&*dial, &supervisor, &uri).await? {
            prove(kept, &uri, message.to, &config).await?;
        }
        Ok(())
    };
    if let Err(error) =
        timeout(config.read_timeout, connected).await.unwrap_or_else(|late| Err(late.into()))
    {
        return Outcome::Refused(error);
    }
    let sent = timeout(config.read_timeout, kept.send(&uri, request)).await;
    let (status, headers) = match sent.unwrap_or_else(|late| Err(late.into())) {
        Ok(answered) => answered,
        // The connection had ended before anything of the message was written.
        Err(AskError::Http(error)) if error.is_canceled() => {
            return Outcome::Refused(AskError::Http(error));
        }
        Err(error) => return Outcome::Unknown(error),
    };
    let Some(owner) = owner.upgrade() else { return Outcome::Stopped };
    if !is_fellow(&headers, &config) {
        return Outcome::Unknown(AskError::Stranger);
    }
    if status.is_success() {
        if let Some(peer) = owner.peer(message.to) {
            peer.series.sent_bytes.inc_by(bytes as u64);
        }
        return Outcome::Taken;
    }
    if status == StatusCode::GONE {
        owner.removed();
    }
    match status {
        StatusCode::SERVICE_UNAVAILABLE => Outcome::Busy,
        _ => Outcome::Refused(AskError::Status(status)),
    }
}

/// Asks who is at the other end, since a member of etcd would believe what is posted to it.
async fn prove(kept: &mut Kept, url: &Uri, to: u64, config: &PeersConfig) -> Result<(), AskError> {
    let mut question = Request::get("/raft/probing").body(Full::default())?;
    question.headers_mut().extend(headers(config, Some(to))?);
    let (_, headers) = kept.send(url, question).await?;
    if is_fellow(&headers, config) { Ok(()) } else { Err(AskError::Stranger) }
}

fn request_of(
    url: &str,
    message: &Message,
    config: &PeersConfig,
) -> Result<(Uri, Request<Full<Bytes>>), AskError> {
    let mut request = Request::post("/raft").body(Full::new(message.encode_to_vec().into()))?;
    request.headers_mut().extend(headers(config, Some(message.to))?);
    let kind = HeaderValue::from_static("application/protobuf");
    request.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    Ok((url.parse()?, request))
}
