//! Endpoints in the forms that users write, and the sockets behind them.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::reach::{Cause, Undialled};
use crate::go;
use crate::tls::{self, ClientFiles, Connector, Fault};

/// An endpoint, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: Address,
    /// The `:authority` of requests: host and port, or the last part of a socket's path.
    pub authority: String,
    pub tls: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(String),
    Unix(PathBuf),
}

impl Target {
    /// Reads `host:port`, `http(s)://host:port`, `unix(s):path` or `unix(s)://path`. `http`,
    /// `https` and `unixs` say whether TLS is used. For `unix`, and without a scheme,
    /// `tls_by_default` says it.
    pub fn parse(endpoint: &str, tls_by_default: bool) -> Self {
        for (scheme, tls) in [("unix:", tls_by_default), ("unixs:", true)] {
            if let Some(rest) = endpoint.strip_prefix(scheme) {
                let path = PathBuf::from(rest.strip_prefix("//").unwrap_or(rest));
                let name = path.file_name().and_then(|name| name.to_str());
                let authority = name.unwrap_or("localhost").to_owned();
                return Self { address: Address::Unix(path), authority, tls };
            }
        }
        for (scheme, tls) in [("http://", false), ("https://", true)] {
            if let Some(rest) = endpoint.strip_prefix(scheme) {
                let host = rest.split(['/', '?', '#']).next().unwrap_or_default().to_string();
                return Self { address: Address::Tcp(host.clone()), authority: host, tls };
            }
        }
        Self {
            address: Address::Tcp(endpoint.to_string()),
            authority: endpoint.to_string(),
            tls: tls_by_default,
        }
    }

    /// The name that the server's certificate must have: the host, or the last part of a socket's
    /// path without a colon and what follows it, as in etcd's client.
    pub fn server_name(&self) -> String {
        self.address.server_name()
    }

    /// The address as log lines show it.
    pub fn shown(&self) -> String {
        match &self.address {
            Address::Tcp(host) => host.clone(),
            Address::Unix(path) => path.display().to_string(),
        }
    }
}

impl Address {
    /// The text of Go's error for a failed dial.
    fn dial_error(&self, error: &io::Error) -> io::Error {
        let (network, address) = match self {
            Self::Tcp(host) => ("tcp", host.clone()),
            Self::Unix(path) => ("unix", path.display().to_string()),
        };
        let reason = match error.kind() {
            io::ErrorKind::TimedOut => "i/o timeout".to_string(),
            io::ErrorKind::InvalidInput => format!("address {address}: missing port in address"),
            _ if error.raw_os_error().is_some() => format!("connect: {}", go::reason(error)),
            _ => error.to_string(),
        };
        io::Error::new(error.kind(), format!("dial {network} {address}: {reason}"))
    }

    fn server_name(&self) -> String {
        let whole = match self {
            Self::Tcp(host) => host.clone(),
            // An endpoint is a `String`, so its path is valid UTF-8 and `to_str` succeeds.
            Self::Unix(path) => {
                path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned()
            }
        };
        let name = whole.rsplit_once(':').map_or(whole.as_str(), |(name, _)| name);
        name.trim_end_matches('.').to_owned()
    }
}

/// Both addresses of the latest connection, for log lines.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    pub peer: String,
    pub local: String,
    pub security: &'static str,
}

pub(super) type SharedAddresses = Arc<Mutex<Option<Addresses>>>;

/// Opens sockets for tonic, and notes their addresses.
#[derive(Clone)]
pub(super) struct Dialer {
    pub address: Address,
    pub tls: Option<Arc<Connector>>,
    pub addresses: SharedAddresses,
    /// Taken by the next connection, which reports through it whether the server sent anything.
    pub first_read: Arc<Mutex<Option<FirstReadSender>>>,
    /// Why the next connection is not made, once that is known.
    pub cause: Arc<Mutex<Option<Cause>>>,
    /// Whether a first byte that cannot be one of HTTP/2 fails the dial. Without it the call fails,
    /// as in etcd's client.
    pub is_strict: bool,
    /// How long a dial may take.
    pub limit: Duration,
}

/// Reports once: Ok when the first byte has been read, else why none came.
pub(super) type FirstReadSender = oneshot::Sender<Result<(), Undialled>>;

/// A connection that reports its first read to `sender`.
struct FirstReadStream<S> {
    inner: S,
    sender: Option<FirstReadSender>,
    is_strict: bool,
}

/// Why a connection ended before the first byte was read.
fn unheard(error: &io::Error) -> Undialled {
    let cause = tls::fault(error).map_or_else(|| Cause::of_io(error, false), Cause::Tls);
    Undialled { text: tls::cause(error), cause }
}

/// What the first bytes of a server say if they are no HTTP/2: the alert of a server with TLS, or
/// an answer of HTTP/1, which says so of TLS in Go.
fn foreign(first: &[u8]) -> Option<Cause> {
    const ALERT: u8 = 21;
    let says = |text: &[u8]| first.windows(text.len()).any(|part| part == text);
    match first {
        [ALERT, 3, ..] => Some(Cause::SpeaksTls),
        _ if first.starts_with(b"HTTP/1") && says(b"HTTPS") => Some(Cause::SpeaksTls),
        _ if first.starts_with(b"HTTP/") => Some(Cause::NotGrpc),
        // The fourth byte of a frame is its type, and the first frame has settings.
        [_, _, _, kind, ..] if *kind != 4 => Some(Cause::NotGrpc),
        _ => None,
    }
}

impl<S: AsyncRead + Unpin> FirstReadStream<S> {
    fn tell(&mut self, what: Result<(), Undialled>) {
        if let Some(sender) = self.sender.take() {
            // The receiver may have given up waiting.
            drop(sender.send(what));
        }
    }

    /// Reports a failed write, with the reason that the server gave if there is one. A server that
    /// refuses the client's certificate sends a TLS alert and closes; the client's write may fail
    /// before the alert is read. So one read comes first. It ends soon, since the server has closed
    /// the connection.
    fn wrote<T>(
        &mut self,
        context: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &outcome
            && self.sender.is_some()
        {
            let mut byte = [0];
            let read = Pin::new(&mut self.inner).poll_read(context, &mut ReadBuf::new(&mut byte));
            let why = match &ready!(read) {
                Err(why) => unheard(why),
                Ok(()) => unheard(error),
            };
            self.tell(Err(why));
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FirstReadStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.inner).poll_read(context, buffer));
        if this.sender.is_some() {
            let first = &buffer.filled()[before..];
            let foreign = foreign(first).filter(|_| this.is_strict);
            this.tell(match (&read, foreign) {
                (Ok(()), Some(cause)) => Err(Undialled { text: cause.to_string(), cause }),
                (Ok(()), None) if !first.is_empty() => Ok(()),
                (Ok(()), None) => Err(Undialled { text: "EOF".to_owned(), cause: Cause::Closed }),
                (Err(error), _) => Err(unheard(error)),
            });
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for FirstReadStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_write(context, bytes);
        this.wrote(context, outcome)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_flush(context);
        this.wrote(context, outcome)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll_write_vectored(context, buffers);
        this.wrote(context, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl Dialer {
    async fn open(self) -> io::Result<TokioIo<Box<dyn Socket>>> {
        match &self.address {
            Address::Tcp(host) => {
                // Without the dot that ends an absolute name: the system may know the name only
                // without it, from its hosts file for instance.
                let addresses: Vec<_> = self.resolve(host.replace(".:", ":")).await?.collect();
                self.note(Cause::Unconnected(self.limit));
                let stream = TcpStream::connect(&addresses[..])
                    .await
                    .map_err(|error| self.undialled(&error))?;
                self.note(Cause::Silent(self.limit));
                stream.set_nodelay(true)?;
                *self.addresses.lock() = Some(Addresses {
                    peer: stream.peer_addr()?.to_string(),
                    local: stream.local_addr()?.to_string(),
                    security: self.security(),
                });
                self.secure(stream).await
            }
            Address::Unix(path) => {
                let shown = path.display().to_string();
                let stream =
                    UnixStream::connect(path).await.map_err(|error| self.undialled(&error))?;
                let security = self.security();
                *self.addresses.lock() =
                    Some(Addresses { peer: shown, local: "@".into(), security });
                self.secure(stream).await
            }
        }
    }

    async fn resolve(&self, host: String) -> io::Result<impl Iterator<Item = SocketAddr> + use<>> {
        self.note(Cause::NameSilent(self.limit));
        // `invalid` has no names below it (RFC 6761), and a name server may be slow to say so.
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name);
        if self.is_strict && name.ends_with(".invalid") {
            self.note(Cause::UnknownHost);
            return Err(io::ErrorKind::NotFound.into());
        }
        lookup_host(host).await.map_err(|error| {
            self.note(match error.kind() {
                io::ErrorKind::InvalidInput => Cause::BadAddress,
                _ => Cause::UnknownHost,
            });
            self.address.dial_error(&error)
        })
    }

    /// What a server speaks that closes a connection without a word: many do so when they are asked
    /// in clear and want TLS, or the other way round. Only for a strict dialer, until `end`.
    pub(super) async fn probe(&self, end: Instant) -> Option<Cause> {
        let Address::Tcp(host) = &self.address else { return None };
        if !self.is_strict {
            return None;
        }
        let probe = async {
            let stream = match TcpStream::connect(host.replace(".:", ":")).await {
                Ok(stream) => stream,
                // The server is gone by now: the connection was its last.
                Err(error) => {
                    return Some(Cause::of_io(&error, true)).filter(|it| *it == Cause::Refused);
                }
            };
            match self.tls {
                Some(_) => speaks_in_clear(stream).await.ok()?.then_some(Cause::Tls(Fault::NotTls)),
                None => {
                    let files = ClientFiles::default();
                    let name = self.address.server_name();
                    let shown = tls::show_certificates(&files, stream, &name).await.ok()?;
                    (!shown.chain.is_empty()).then_some(Cause::SpeaksTls)
                }
            }
        };
        timeout_at(end, probe).await.ok()?
    }

    fn note(&self, cause: Cause) {
        *self.cause.lock() = Some(cause);
    }

    /// The error of a connection that is not made.
    fn undialled(&self, error: &io::Error) -> io::Error {
        self.note(Cause::of_io(error, true));
        self.address.dial_error(error)
    }

    fn security(&self) -> &'static str {
        if self.tls.is_some() { "tls" } else { "insecure" }
    }

    async fn secure(&self, stream: impl Socket + 'static) -> io::Result<TokioIo<Box<dyn Socket>>> {
        let sender = self.first_read.lock().take();
        let is_strict = self.is_strict;
        let Some(tls) = &self.tls else {
            return Ok(TokioIo::new(Box::new(FirstReadStream {
                inner: stream,
                sender,
                is_strict,
            })));
        };
        let secured = tls.connect(stream, &self.address.server_name()).await.map_err(|error| {
            self.note(unheard(&error).cause);
            io::Error::new(error.kind(), format!("{HANDSHAKE_FAILED}: {}", tls::cause(&error)))
        })?;
        Ok(TokioIo::new(Box::new(FirstReadStream { inner: secured, sender, is_strict })))
    }
}

/// Whether a server answers in clear with HTTP/2's first frame, that of its settings.
async fn speaks_in_clear(mut stream: TcpStream) -> io::Result<bool> {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut head = [0; 9];
    stream.write_all(PREFACE).await?;
    stream.read_exact(&mut head).await?;
    Ok(head[3] == 4)
}

/// Beginning of the error text of a failed TLS handshake; `Node::dial` words it differently from
/// other failed dials.
pub(super) const HANDSHAKE_FAILED: &str = "authentication handshake failed";

impl tower::Service<Uri> for Dialer {
    type Response = TokioIo<Box<dyn Socket>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            match timeout(this.limit, this.clone().open()).await {
                Ok(opened) => opened,
                Err(_) => Err(this.address.dial_error(&io::ErrorKind::TimedOut.into())),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_decides_about_tls() {
        assert!(Target::parse("https://a:1", false).tls);
        assert!(!Target::parse("http://a:1", true).tls);
        assert!(Target::parse("a:1", true).tls);
        assert!(Target::parse("unixs:///run/x", false).tls);
    }

    #[test]
    fn every_spelling_of_a_socket_path_is_read() {
        for (text, path) in [
            ("unix:///run/e.sock", "/run/e.sock"),
            ("unix://e.sock:1", "e.sock:1"),
            ("unix:e.sock", "e.sock"),
        ] {
            assert_eq!(Target::parse(text, false).address, Address::Unix(path.into()));
        }
    }

    #[test]
    fn a_certificate_is_for_the_host_or_the_sockets_file() {
        for (text, name) in [
            ("https://m1.example.org.:2379", "m1.example.org"),
            ("https://[::1]:2379", "[::1]"),
            ("unixs:///run/etcd/m1:0", "m1"),
            ("unixs:localhost", "localhost"),
        ] {
            assert_eq!(Target::parse(text, false).server_name(), name);
        }
    }

    #[test]
    fn a_path_behind_the_host_is_dropped() {
        let target = Target::parse("http://127.0.0.1:2379/", false);
        assert_eq!(target.address, Address::Tcp("127.0.0.1:2379".into()));
    }
}
