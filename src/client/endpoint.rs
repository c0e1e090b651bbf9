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

use crate::tls::Connector;

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

    /// The name that the server's certificate must have: as in etcd's client, the last part of a
    /// socket's path without what follows a colon.
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
    fn server_name(&self) -> String {
        let whole = match self {
            Self::Tcp(host) => host.clone(),
            Self::Unix(path) => path
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        };
        let name = whole.rsplit_once(':').map_or(whole.as_str(), |(name, _)| name);
        name.trim_end_matches('.').to_owned()
    }
}

/// Both ends of the latest connection, for log lines.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    pub peer: String,
    pub local: String,
    pub security: &'static str,
}

pub(super) type SharedEnds = Arc<Mutex<Option<Ends>>>;

/// Opens sockets for tonic and notes their ends.
#[derive(Clone)]
pub(super) struct Dialer {
    pub address: Address,
    pub tls: Option<Arc<Connector>>,
    pub ends: SharedEnds,
}

pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

impl Dialer {
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
                    security: self.security(),
                });
                self.secure(stream).await
            }
            Address::Unix(path) => {
                let shown = path.display().to_string();
                let stream = UnixStream::connect(path)
                    .await
                    .map_err(|error| dial_error("unix", &shown, &error))?;
                let security = self.security();
                *self.ends.lock() = Some(Ends { peer: shown, local: "@".into(), security });
                self.secure(stream).await
            }
        }
    }

    fn security(&self) -> &'static str {
        if self.tls.is_some() { "tls" } else { "insecure" }
    }

    async fn secure(&self, stream: impl Socket + 'static) -> io::Result<TokioIo<Box<dyn Socket>>> {
        let Some(tls) = &self.tls else { return Ok(TokioIo::new(Box::new(stream))) };
        let secured = tls.connect(stream, &self.address.server_name()).await.map_err(|error| {
            io::Error::new(error.kind(), format!("{HANDSHAKE_FAILED}: {}", in_gos_words(&error)))
        })?;
        Ok(TokioIo::new(Box::new(secured)))
    }
}

/// How the text of a failed handshake begins.
pub(super) const HANDSHAKE_FAILED: &str = "authentication handshake failed";

/// What Go's TLS would have said.
fn in_gos_words(error: &io::Error) -> String {
    use rustls::{CertificateError as Certificate, Error};
    let verify = |what: &str| format!("tls: failed to verify certificate: x509: {what}");
    match error.get_ref().and_then(|error| error.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(Certificate::UnknownIssuer)) => {
            verify("certificate signed by unknown authority")
        }
        Some(Error::InvalidCertificate(
            Certificate::Expired
            | Certificate::ExpiredContext { .. }
            | Certificate::NotValidYet
            | Certificate::NotValidYetContext { .. },
        )) => verify("certificate has expired or is not yet valid"),
        Some(Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        )) => verify(&format!("certificate is not valid for this name ({error})")),
        Some(Error::InvalidMessage(_)) => {
            "tls: first record does not look like a TLS handshake".to_owned()
        }
        Some(Error::AlertReceived(alert)) => format!("remote error: tls: {alert:?}"),
        _ => error.to_string(),
    }
}

impl tower::Service<Uri> for Dialer {
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
