//! Listening sockets: bound by URL, before any connection is served.
//!
//! URLs of one address share a port. If some are with TLS and some without, the first byte of a
//! connection tells which it is. If URLs for HTTP alone are given, the others are for gRPC alone.
//!
//! A port is bound before the data directory is opened and answers only once the member is ready;
//! connections made before that wait in the kernel's queue.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use super::config::Sockets;
use super::url::Url;
use crate::tls::Acceptor;
use crate::{files, go, limits};

/// What clients may ask for on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Traffic {
    Both,
    Grpc,
    Http,
}

impl Traffic {
    /// As log lines call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Both => "grpc+http",
            Self::Grpc => "grpc",
            Self::Http => "http",
        }
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The name of a bound Unix socket, which goes with it.
struct SocketFile {
    path: PathBuf,
    /// Device and inode; None if they could not be read.
    identity: Option<(u64, u64)>,
}

impl SocketFile {
    fn of(path: &Path) -> Self {
        Self { path: path.to_path_buf(), identity: identity(path) }
    }
}

impl Drop for SocketFile {
    /// Another server may have taken the path meanwhile.
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some(files::identity(&found))
}

/// A bound port.
pub(super) struct Listener {
    /// Of a Unix socket; removed before the socket is closed.
    _file: Option<SocketFile>,
    socket: Socket,
    pub address: String,
    pub traffic: Traffic,
    /// Whether the port takes connections without TLS.
    pub is_plain: bool,
    pub tls: Option<Arc<Acceptor>>,
}

/// Why a port could not be listened on; shown as etcd words it.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Unbound {
    pub url: Url,
    pub kind: io::ErrorKind,
    text: String,
}

impl Listener {
    /// Whether the port takes connections with TLS.
    pub(super) fn is_secured(&self) -> bool {
        self.tls.is_some()
    }

    fn admit(&mut self, url: &Url, tls: Option<&Arc<Acceptor>>) {
        if url.is_tls() {
            self.tls = tls.cloned();
        } else {
            self.is_plain = true;
        }
    }
}

/// Binds every URL once; those with TLS get the acceptor.
pub(super) fn bind(
    urls: &[Url],
    tls: Option<&Arc<Acceptor>>,
    sockets: Sockets,
) -> Result<Vec<Listener>, Unbound> {
    let bound = urls.iter().map(|url| {
        let mut listener = bind_one(url, sockets)?;
        listener.admit(url, tls);
        Ok(listener)
    });
    bound.collect()
}

/// Binds every address once, for gRPC and HTTP. If `for_http` has URLs, those in `urls` are for
/// gRPC alone; an address in both is an error.
pub(super) fn bind_clients(
    urls: &[Url],
    for_http: &[Url],
    tls: Option<&Arc<Acceptor>>,
    sockets: Sockets,
) -> Result<Vec<Listener>, Unbound> {
    let traffic = if for_http.is_empty() { Traffic::Both } else { Traffic::Grpc };
    let all = urls.iter().map(|url| (url, traffic));
    let mut listeners: Vec<(String, Listener)> = Vec::new();
    for (url, traffic) in all.chain(for_http.iter().map(|url| (url, Traffic::Http))) {
        let place = url.place();
        if let Some((_, listener)) = listeners.iter_mut().find(|(there, _)| *there == place) {
            if listener.traffic != traffic {
                let text = format!(
                    "cannot bind both --listen-client-urls and --listen-client-http-urls on the \
                     same url {url}"
                );
                let (url, kind) = (url.clone(), io::ErrorKind::InvalidInput);
                return Err(Unbound { url, kind, text });
            }
            listener.admit(url, tls);
            continue;
        }
        let mut listener = bind_one(url, sockets)?;
        listener.traffic = traffic;
        listener.admit(url, tls);
        listeners.push((place, listener));
    }
    Ok(listeners.into_iter().map(|(_, listener)| listener).collect())
}

fn bind_one(url: &Url, sockets: Sockets) -> Result<Listener, Unbound> {
    if url.is_unix() {
        let path = url.socket_path();
        let failed = |error: io::Error| Unbound {
            url: url.clone(),
            kind: error.kind(),
            text: format!("listen unix {path}: bind: {}", go::reason(&error)),
        };
        if is_served(&path) {
            return Err(failed(rustix::io::Errno::ADDRINUSE.into()));
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let socket = UnixListener::bind(&path).map_err(failed)?;
        // Listens again with our backlog: the standard library's is 128.
        rustix::net::listen(&socket, limits::LISTEN_BACKLOG)
            .map_err(io::Error::from)
            .map_err(failed)?;
        return Ok(Listener {
            _file: Some(SocketFile::of(Path::new(&path))),
            socket: Socket::Unix(socket),
            address: path,
            traffic: Traffic::Both,
            is_plain: false,
            tls: None,
        });
    }
    let (host, port) = url.host_port();
    let failed = |error: io::Error| Unbound {
        url: url.clone(),
        kind: error.kind(),
        text: format!("listen tcp {host}:{port}: bind: {}", go::reason(&error)),
    };
    let address = resolve(host, port).map_err(failed)?;
    let socket = bind_tcp(address, sockets).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?.to_string();
    let socket = TcpListener::from_std(socket).map_err(failed)?;
    let socket = Socket::Tcp(socket);
    let traffic = Traffic::Both;
    Ok(Listener { _file: None, socket, address, traffic, is_plain: false, tls: None })
}

/// Whether a process listens on the Unix socket of this path, which is not to be taken from it.
fn is_served(path: &str) -> bool {
    let connected = || {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        rustix::net::connect(&socket, &address)
    };
    // With many connections that wait, it says that another one has to.
    matches!(connected(), Ok(()) | Err(rustix::io::Errno::AGAIN))
}

/// As in Go, every listener takes a port whose old connections are in TIME_WAIT (SO_REUSEADDR), and
/// a port that another process listens on only if both set SO_REUSEPORT. Also as in Go, an
/// unspecified address stands for all addresses of both families, `0.0.0.0` as well as `::`.
fn bind_tcp(address: SocketAddr, sockets: Sockets) -> io::Result<std::net::TcpListener> {
    let (socket, address) = match has_both_families(address) {
        true => {
            let socket = socket_of(AddressFamily::INET6)?;
            sockopt::set_ipv6_v6only(&socket, false)?;
            (socket, SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, address.port(), 0, 0).into())
        }
        false if address.is_ipv4() => (socket_of(AddressFamily::INET)?, address),
        false => (socket_of(AddressFamily::INET6)?, address),
    };
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, sockets.reuse_port)?;
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, limits::LISTEN_BACKLOG)?;
    Ok(socket.into())
}

fn socket_of(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None)
}

/// Whether the address is unspecified and one IPv6 socket can serve IPv4 as well. IPv6 may be
/// compiled in and have no address, so binding to one is tried.
fn has_both_families(address: SocketAddr) -> bool {
    let tried = || {
        let socket = socket_of(AddressFamily::INET6)?;
        sockopt::set_ipv6_v6only(&socket, false)?;
        rustix::net::bind(&socket, &SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0))
    };
    address.ip().is_unspecified() && tried().is_ok()
}

/// The address to bind. `localhost` may have several; IPv4 comes first, as in etcd.
fn resolve(host: &str, port: &str) -> io::Result<SocketAddr> {
    let port: u16 = port.parse().map_err(|_| io::Error::other("invalid port"))?;
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| io::Error::other("no such host"))
}

/// Closes each connection as it is accepted, until dropped: a member that asks this one while it
/// starts learns at once that it does not answer yet.
pub(super) async fn turn_away(listeners: &[Listener]) -> Infallible {
    let ports = listeners.iter().map(|listener| async {
        loop {
            let accepted = match &listener.socket {
                Socket::Tcp(socket) => socket.accept().await.map(drop),
                Socket::Unix(socket) => socket.accept().await.map(drop),
            };
            if accepted.is_err() {
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    });
    let _: Vec<Infallible> = futures_util::future::join_all(ports).await;
    std::future::pending().await
}

/// An accepted connection, before its first byte is read.
pub(super) enum AcceptedSocket {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Listener {
    /// The next connection.
    pub(super) async fn accept(&self) -> io::Result<AcceptedSocket> {
        match &self.socket {
            Socket::Tcp(socket) => {
                let (stream, from) = socket.accept().await?;
                // A socket that refuses an option is still a connection.
                drop(stream.set_nodelay(true));
                let _ = keep_alive(&stream);
                Ok(AcceptedSocket::Tcp(stream, from))
            }
            Socket::Unix(socket) => Ok(AcceptedSocket::Unix(socket.accept().await?.0)),
        }
    }
}

/// Lets the kernel find out about clients that vanished.
fn keep_alive(socket: impl AsFd) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, limits::TCP_KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(&socket, limits::TCP_KEEPALIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_unix_socket_is_its_servers_as_long_as_that_runs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("etcd.sock");
        let url = Url::parse(&format!("unix://{}", path.display())).unwrap();
        let bind = || bind_one(&url, Sockets::default());
        let first = bind().unwrap_or_else(|error| panic!("{error}"));
        let Err(refused) = bind() else { panic!("taken from a server that runs") };
        assert_eq!(refused.kind, io::ErrorKind::AddrInUse);
        assert!(path.exists(), "removed by the one that was refused");
        // As a server leaves it that was killed.
        std::fs::rename(&path, dir.path().join("other")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let second = bind().unwrap_or_else(|error| panic!("{error}"));
        drop(first);
        assert!(path.exists(), "removed by the one before");
        drop(second);
        assert!(!path.exists());
    }
}
