//! Endpoints in the forms that users write, and the sockets behind them.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::tls::{self, Connector};
use crate::{go, limits};

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
}

/// Reports once: Ok when the first byte has been read, else why none came.
pub(super) type FirstReadSender = oneshot::Sender<Result<(), String>>;

/// A connection that reports its first read to `sender`.
struct FirstReadStream<S> {
    inner: S,
    sender: Option<FirstReadSender>,
}

impl<S: AsyncRead + Unpin> FirstReadStream<S> {
    fn tell(&mut self, what: Result<(), String>) {
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
                Err(why) => tls::cause(why),
                Ok(()) => tls::cause(error),
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
            this.tell(match &read {
                Ok(()) if buffer.filled().len() > before => Ok(()),
                Ok(()) => Err("EOF".to_owned()),
                Err(error) => Err(tls::cause(error)),
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
                let stream = TcpStream::connect(host.replace(".:", ":"))
                    .await
                    .map_err(|error| self.address.dial_error(&error))?;
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
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|error| self.address.dial_error(&error))?;
                let security = self.security();
                *self.addresses.lock() =
                    Some(Addresses { peer: shown, local: "@".into(), security });
                self.secure(stream).await
            }
        }
    }

    fn security(&self) -> &'static str {
        if self.tls.is_some() { "tls" } else { "insecure" }
    }

    async fn secure(&self, stream: impl Socket + 'static) -> io::Result<TokioIo<Box<dyn Socket>>> {
        let sender = self.first_read.lock().take();
        let Some(tls) = &self.tls else {
            return Ok(TokioIo::new(Box::new(FirstReadStream { inner: stream, sender })));
        };
        let secured = tls.connect(stream, &self.address.server_name()).await.map_err(|error| {
            io::Error::new(error.kind(), format!("{HANDSHAKE_FAILED}: {}", tls::cause(&error)))
        })?;
        Ok(TokioIo::new(Box::new(FirstReadStream { inner: secured, sender })))
    }
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
            match timeout(limits::CLIENT_DIAL_TIMEOUT, this.clone().open()).await {
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
