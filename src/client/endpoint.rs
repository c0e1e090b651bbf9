//! Endpoints as they are written, and the sockets behind them.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// Where an endpoint leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: Address,
    /// What TLS names and the `:authority` header carry.
    pub authority: String,
    pub tls: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Tcp(String),
    Unix(PathBuf),
}

impl Target {
    /// Reads `host:port`, `http(s)://host:port`, `unix(s):path` or `unix(s)://path`. A scheme
    /// decides about TLS; without one, and for `unix`, it is used when it was asked for.
    pub fn parse(endpoint: &str, tls_wanted: bool) -> Self {
        for (scheme, tls) in [("unix:", tls_wanted), ("unixs:", true)] {
            if let Some(rest) = endpoint.strip_prefix(scheme) {
                let path = PathBuf::from(rest.strip_prefix("//").unwrap_or(rest));
                let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                let authority = name.unwrap_or_else(|| "localhost".into());
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
            tls: tls_wanted,
        }
    }

    /// The address as log lines show it.
    pub fn shown(&self) -> String {
        match &self.address {
            Address::Tcp(host) => host.clone(),
            Address::Unix(path) => path.display().to_string(),
        }
    }
}

/// Both ends of the latest connection, for log lines.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub peer: String,
    pub local: String,
}

pub(super) type SharedEnds = Arc<Mutex<Option<Ends>>>;

/// Opens sockets for tonic and notes their ends.
#[derive(Clone)]
pub(super) struct Connector {
    pub address: Address,
    pub ends: SharedEnds,
}

pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl Connector {
    async fn open(self) -> io::Result<TokioIo<Box<dyn Socket>>> {
        match &self.address {
            Address::Tcp(host) => {
                // The system may know a complete name only without the dot at its end.
                let stream = TcpStream::connect(host.replace(".:", ":"))
                    .await
                    .map_err(|error| dial_error("tcp", host, &error))?;
                stream.set_nodelay(true)?;
                *self.ends.lock() = Some(Ends {
                    peer: stream.peer_addr()?.to_string(),
                    local: stream.local_addr()?.to_string(),
                });
                Ok(TokioIo::new(Box::new(stream)))
            }
            Address::Unix(path) => {
                let shown = path.display().to_string();
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|error| dial_error("unix", &shown, &error))?;
                *self.ends.lock() = Some(Ends { peer: shown, local: "@".into() });
                Ok(TokioIo::new(Box::new(stream)))
            }
        }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Socket>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().open())
    }
}

/// A failed dial in Go's words.
fn dial_error(network: &str, address: &str, error: &io::Error) -> io::Error {
    let reason = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_string(),
        io::ErrorKind::NotFound => "connect: no such file or directory".to_string(),
        io::ErrorKind::TimedOut => "i/o timeout".to_string(),
        io::ErrorKind::InvalidInput => format!("address {address}: missing port in address"),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("dial {network} {address}: {reason}"))
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
    fn a_path_behind_the_host_is_dropped() {
        let target = Target::parse("http://127.0.0.1:2379/", false);
        assert_eq!(target.address, Address::Tcp("127.0.0.1:2379".into()));
    }
}
