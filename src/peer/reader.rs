//! Reads a peer's streams: dials the peer and takes messages from the body of its answer.

use std::io;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use tokio::time::timeout;

use super::connection::{handshake, host};
use super::frame::{Broken, Channel, Decoder, Read};
use super::headers::{headers, is_fellow, is_rusd};
use super::owner::PeerOwner;
use crate::{clock, limits, tls};

const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{}", tls::cause(.0))]
    Io(#[from] io::Error),
    #[error("{0}")]
    Url(#[from] http::uri::InvalidUri),
    #[error("{}", tls::cause(.0))]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
    #[error("it answered {0}: {1}")]
    Status(StatusCode, String),
    #[error("it is not rusd; a cluster of rusd and etcd members is not supported yet")]
    NotRusd,
    #[error("{0}")]
    Broken(#[from] Broken),
    #[error("it was silent for too long")]
    Silent(#[from] tokio::time::error::Elapsed),
    #[error("the stream ended")]
    Ended,
    #[error("this member is stopping")]
    Stopped,
}

/// Reads one stream of a peer, again and again, until this member stops or the peer is forgotten.
pub(super) async fn read(
    owner: Weak<dyn PeerOwner>,
    from: u64,
    urls: Vec<String>,
    channel: Channel,
) {
    let mut attempts = 0_u64;
    let began = clock::instant();
    let mut has_answered = false;
    for url in urls.iter().cycle() {
        let outcome =
            read_until_lost(&owner, from, url, channel, &mut attempts, &mut has_answered).await;
        let Err(failure) = outcome;
        if matches!(failure, Failure::Stopped) {
            return;
        }
        attempts += 1;
        if let Some(peer) = owner.upgrade().and_then(|owner| owner.peer(from)) {
            *peer.failure.lock() = failure.to_string();
        }
        // Logged at powers of two: a peer that is down must not flood the log.
        if attempts.is_power_of_two() {
            let (peer, stream) = (format_args!("{from:x}"), channel.name());
            tracing::warn!(%peer, url, stream, attempts, "lost a peer's stream: {failure}");
        }
        let is_doubtful = {
            let Some(owner) = owner.upgrade() else { return };
            let is_doubtful =
                !has_answered && owner.peer(from).is_some_and(|peer| peer.is_unconfirmed);
            if is_doubtful && began.elapsed() > limits::PEER_REMEMBERED_FOR {
                return owner.forget(from);
            }
            is_doubtful
        };
        tokio::time::sleep(if is_doubtful {
            limits::PEER_REMEMBERED_RETRY
        } else {
            limits::PEER_RETRY
        })
        .await;
    }
}

/// Dials a peer at one URL and hands on the messages of its stream, until that ends or fails.
async fn read_until_lost(
    owner: &Weak<dyn PeerOwner>,
    from: u64,
    url: &str,
    channel: Channel,
    attempts: &mut u64,
    has_answered: &mut bool,
) -> Result<std::convert::Infallible, Failure> {
    let mut body = timeout(DIAL_TIMEOUT, open(owner, from, url, channel)).await??;
    let (to, patience, _held) = {
        let owner = owner.upgrade().ok_or(Failure::Stopped)?;
        let held = owner.peer(from).ok_or(Failure::Stopped)?.count_reader();
        (owner.config().id, owner.config().read_timeout, held)
    };
    let mut decoder = Decoder::new(channel, from, to);
    tracing::info!(peer = %format_args!("{from:x}"), stream = channel.name(), "reading a peer's stream");
    *attempts = 0;
    *has_answered = true;
    loop {
        let frame = timeout(patience, body.frame()).await?.ok_or(Failure::Ended)??;
        let Some(bytes) = frame.data_ref() else { continue };
        decoder.feed(bytes);
        let owner = owner.upgrade().ok_or(Failure::Stopped)?;
        loop {
            match decoder.read()? {
                Read::Message(message) => {
                    // What the full inbox refuses is lost, as it can be on the network.
                    owner.receive(from, message);
                }
                Read::Alive => {}
                Read::Partial => break,
            }
        }
    }
}

/// Asks for a stream and returns the endless body of the answer.
async fn open(
    owner: &Weak<dyn PeerOwner>,
    from: u64,
    url: &str,
    channel: Channel,
) -> Result<Incoming, Failure> {
    let uri: Uri = url.parse()?;
    let (dial, supervisor, headers, id) = {
        let owner = owner.upgrade().ok_or(Failure::Stopped)?;
        let headers = headers(owner.config(), Some(from));
        (owner.dial(), owner.supervisor(), headers, owner.config().id)
    };
    let link = dial.dial(&uri).await?;
    let mut sender = handshake(link, &supervisor).await?;
    let path = format!("/raft/stream/{}/{id:x}", channel.name());
    let mut request = Request::get(path).body(Empty::<Bytes>::new())?;
    *request.headers_mut() = headers?;
    request.headers_mut().insert(http::header::HOST, host(&uri)?);
    let response = sender.send_request(request).await?;
    let status = response.status();
    if status == StatusCode::GONE
        && let Some(owner) = owner.upgrade()
        && is_fellow(response.headers(), owner.config())
    {
        owner.removed();
    }
    if status != StatusCode::OK {
        return Err(Failure::Status(status, text(response.into_body()).await));
    }
    if !is_rusd(response.headers()) {
        return Err(Failure::NotRusd);
    }
    Ok(response.into_body())
}

/// The first bytes of a short body, for the log.
async fn text(mut body: Incoming) -> String {
    let first = body.frame().await.and_then(Result::ok);
    let bytes = first.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
    let shown = &bytes[..bytes.len().min(200)];
    String::from_utf8_lossy(shown).trim().to_owned()
}
