//! The reading side: dials a peer and takes messages from the streams it answers with.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Weak;
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::time::timeout;

use super::answer::{self, RUSD_VERSION};
use super::frame::{Decoder, Read};
use super::{Channel, Peers, READ_TIMEOUT};
use crate::{clock, limits, tls};

/// Between attempts, etcd's.
const RETRY: Duration = Duration::from_millis(100);
const DIAL_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to a peer.
pub trait Link: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Link for T {}

/// What a dial gives sooner or later.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Link>>> + Send + 'a>>;

/// Connects to a peer's URL, with TLS or without.
pub trait Dial: Send + Sync {
    fn dial<'a>(&'a self, url: &'a Uri) -> Dialing<'a>;
}

/// Connects without TLS.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDial {
    /// The address of this machine to connect from; the system's choice without one.
    pub local: Option<IpAddr>,
}

impl TcpDial {
    async fn connect(self, authority: &str) -> io::Result<TcpStream> {
        let Some(local) = self.local else { return TcpStream::connect(authority).await };
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for to in tokio::net::lookup_host(authority).await? {
            if to.is_ipv4() != local.is_ipv4() {
                continue;
            }
            let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.bind((local, 0).into())?;
            match socket.connect(to).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

impl Dial for TcpDial {
    fn dial<'a>(&'a self, url: &'a Uri) -> Dialing<'a> {
        Box::pin(async move {
            let authority = url.authority().ok_or(io::ErrorKind::InvalidInput)?;
            match url.scheme_str() {
                Some("http") => {}
                Some("unix") => {
                    // The socket's path is everything behind the slashes, host and port or not.
                    let path = format!("{authority}{}", url.path().trim_end_matches('/'));
                    let stream = UnixStream::connect(path).await?;
                    return Ok(Box::new(stream) as Box<dyn Link>);
                }
                _ => return Err(io::Error::other("peers are reached over http and unix only")),
            }
            let stream = self.connect(authority.as_str()).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as Box<dyn Link>)
        })
    }
}

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
    Broken(#[from] super::frame::Broken),
    #[error("it was silent for too long")]
    Silent(#[from] tokio::time::error::Elapsed),
    #[error("the stream ended")]
    Ended,
    #[error("this member is stopping")]
    Stopped,
}

/// Reads one stream of a peer's for as long as there is a peer.
pub(super) async fn read(peers: Weak<Peers>, from: u64, urls: Vec<String>, channel: Channel) {
    let mut attempts = 0_u64;
    let began = clock::instant();
    let mut has_answered = false;
    for url in urls.iter().cycle() {
        let outcome = follow(&peers, from, url, channel, &mut attempts, &mut has_answered).await;
        let Err(failure) = outcome;
        if matches!(failure, Failure::Stopped) {
            return;
        }
        attempts += 1;
        // A peer that is down must not flood the log.
        if attempts.is_power_of_two() {
            let (peer, stream) = (format_args!("{from:x}"), channel.name());
            tracing::warn!(%peer, url, stream, attempts, "lost a peer's stream: {failure}");
        }
        let is_doubtful = {
            let Some(peers) = peers.upgrade() else { return };
            let is_doubtful =
                !has_answered && peers.peer(from).is_some_and(|peer| peer.is_remembered);
            if is_doubtful && began.elapsed() > limits::PEER_REMEMBERED_FOR {
                return peers.forget(from);
            }
            is_doubtful
        };
        tokio::time::sleep(if is_doubtful { limits::PEER_REMEMBERED_RETRY } else { RETRY }).await;
    }
}

async fn follow(
    peers: &Weak<Peers>,
    from: u64,
    url: &str,
    channel: Channel,
    attempts: &mut u64,
    has_answered: &mut bool,
) -> Result<std::convert::Infallible, Failure> {
    let mut body = timeout(DIAL_TIMEOUT, open(peers, from, url, channel)).await??;
    let (to, _held) = {
        let peers = peers.upgrade().ok_or(Failure::Stopped)?;
        (peers.config.id, peers.peer(from).ok_or(Failure::Stopped)?.read())
    };
    let mut decoder = Decoder::new(channel, from, to);
    tracing::info!(peer = %format_args!("{from:x}"), stream = channel.name(), "reading a peer's stream");
    *attempts = 0;
    *has_answered = true;
    loop {
        let frame = timeout(READ_TIMEOUT, body.frame()).await?.ok_or(Failure::Ended)??;
        let Some(bytes) = frame.data_ref() else { continue };
        decoder.feed(bytes);
        let peers = peers.upgrade().ok_or(Failure::Stopped)?;
        loop {
            match decoder.read()? {
                Read::Message(message) => peers.receive(from, message),
                Read::Alive => {}
                Read::Partial => break,
            }
        }
    }
}

/// Asks for a stream and returns the answer's endless body.
async fn open(
    peers: &Weak<Peers>,
    from: u64,
    url: &str,
    channel: Channel,
) -> Result<Incoming, Failure> {
    let uri: Uri = url.parse()?;
    let (dial, supervisor, headers, id) = {
        let peers = peers.upgrade().ok_or(Failure::Stopped)?;
        let headers = answer::headers(&peers.config, Some(from));
        (peers.dial.clone(), peers.supervisor.clone(), headers, peers.config.id)
    };
    let link = dial.dial(&uri).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(link)).await?;
    // It ends with the body, or with an error that the body reports as well.
    supervisor.task("peer-connection", async { drop(connection.await) });
    let path = format!("/raft/stream/{}/{id:x}", channel.name());
    let mut request = Request::get(path).body(Empty::<Bytes>::new())?;
    *request.headers_mut() = headers?;
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let host = http::HeaderValue::from_str(host).map_err(http::Error::from)?;
    request.headers_mut().insert(http::header::HOST, host);
    let response = sender.send_request(request).await?;
    let status = response.status();
    if status == StatusCode::GONE
        && let Some(events) = peers.upgrade().and_then(|peers| peers.events.get().cloned())
    {
        events.removed();
    }
    if status != StatusCode::OK {
        return Err(Failure::Status(status, text(response.into_body()).await));
    }
    if !is_rusd(response.headers()) {
        return Err(Failure::NotRusd);
    }
    Ok(response.into_body())
}

/// Whether a member says that it is rusd.
pub fn is_rusd(headers: &HeaderMap) -> bool {
    headers.contains_key(RUSD_VERSION)
}

/// The beginning of a short body.
async fn text(mut body: Incoming) -> String {
    let first = body.frame().await.and_then(Result::ok);
    let bytes = first.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
    let shown = &bytes[..bytes.len().min(200)];
    String::from_utf8_lossy(shown).trim().to_owned()
}
