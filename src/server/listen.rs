//! Listeners: binding, accepting, and telling HTTP/2 from HTTP/1.1 by the first bytes.
//!
//! ```text
//!   URL ─► bind ─► accept ─► TLS? ─► first bytes ─┬─ HTTP/2 preface ─► gRPC; over TLS also HTTP
//!                                                 └─ anything else  ─► HTTP/1.1
//! ```
//!
//! URLs of one address share a port, with TLS and without, which the first byte tells apart. If URLs
//! for HTTP alone are given, the others are for gRPC alone.
//!
//! A port is bound before the data directory is opened and answers only once the member is ready;
//! connections made before wait in the kernel's queue. The number of connections is bounded by the
//! process's open files; above it they wait there too.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http_body::{Body as HttpBody, Frame};
use http_body_util::{BodyExt, Either, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::config::Sockets;
use super::executor::Requests;
use super::io::{Calls, Guarded, Open, PREFACE, Turns};
use super::outbox::{Account, Begun, Connected, Kind, Outbox, Room};
use super::tls::check_address;
use super::unfinished::Incomplete;
use super::unread::Taken;
use super::url::Url;
use crate::http::{Http, Port, malformed, overloaded};
use crate::peer::Peers;
use crate::rpc::CommonName;
use crate::supervise::{Supervisor, Tasks};
use crate::tls::{self, Accepted, Acceptor, Replay};
use crate::{limits, rpc};

/// How HTTP/2 connections are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keepalive {
    /// Shortest time between a client's pings.
    pub minimum: Duration,
    /// Between our pings; zero is never.
    pub interval: Duration,
    pub timeout: Duration,
    pub streams_max: u32,
}

impl Keepalive {
    /// Between our pings. Without a time for their answers there are none, as in etcd.
    fn pings(self) -> Option<Duration> {
        Some(self.interval).filter(|interval| !interval.is_zero() && !self.timeout.is_zero())
    }
}

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

/// What a port serves.
#[derive(Clone)]
pub(super) struct Services {
    /// None on ports that speak HTTP only.
    pub rpc: Option<Arc<rpc::Server>>,
    /// Whether it speaks HTTP.
    pub serves_http: bool,
    pub http: Arc<Http>,
    pub outbox: Arc<Outbox>,
    /// Answers on the peer port what is below `/raft`.
    pub peers: Arc<Peers>,
    pub port: Port,
    /// Whether certificates name users.
    pub names_users: bool,
    /// Whether the certificate of who connects must be for the address that it connects from.
    pub checks_addresses: bool,
    pub keepalive: Keepalive,
    /// How long the next request of HTTP/1.1 may take to come.
    pub header_timeout: Duration,
    pub connections: Arc<Semaphore>,
    pub supervisor: Supervisor,
}

impl Services {
    /// For a port that is not for clients. However many of those there are, peers and probes get
    /// through: what is kept back of the open files is theirs.
    pub(super) fn of_other(&self, port: Port, connections: usize, checks_addresses: bool) -> Self {
        let connections = Arc::new(Semaphore::new(connections));
        Self { rpc: None, port, connections, checks_addresses, ..self.clone() }
    }

    fn only(mut self, traffic: Traffic) -> Self {
        match traffic {
            Traffic::Both => {}
            Traffic::Grpc => self.serves_http = false,
            Traffic::Http => self.rpc = None,
        }
        self
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A bound port.
pub(super) struct Listener {
    socket: Socket,
    pub address: String,
    pub traffic: Traffic,
    /// Whether it takes connections without TLS.
    pub is_plain: bool,
    tls: Option<Arc<Acceptor>>,
}

/// What is known of a connection before its first request.
#[derive(Clone, Default)]
pub(super) struct Origin {
    pub is_secured: bool,
    pub user: Option<CommonName>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.socket {
            drop(std::fs::remove_file(path));
        }
    }
}

impl Listener {
    /// Whether it takes connections with TLS.
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
) -> Result<Vec<Listener>, String> {
    let bound = urls.iter().map(|url| {
        let mut listener = bind_one(url, sockets)?;
        listener.admit(url, tls);
        Ok(listener)
    });
    bound.collect()
}

/// Binds every address once, for clients of gRPC and HTTP; if some are for HTTP alone, the others are
/// not for it.
pub(super) fn bind_clients(
    urls: &[Url],
    for_http: &[Url],
    tls: Option<&Arc<Acceptor>>,
    sockets: Sockets,
) -> Result<Vec<Listener>, String> {
    let traffic = if for_http.is_empty() { Traffic::Both } else { Traffic::Grpc };
    let all = urls.iter().map(|url| (url, traffic));
    let mut listeners: Vec<(String, Listener)> = Vec::new();
    for (url, traffic) in all.chain(for_http.iter().map(|url| (url, Traffic::Http))) {
        let place = url.place();
        if let Some((_, listener)) = listeners.iter_mut().find(|(there, _)| *there == place) {
            if listener.traffic != traffic {
                return Err(format!(
                    "cannot bind both --listen-client-urls and --listen-client-http-urls on the \
                     same url {url}"
                ));
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

fn bind_one(url: &Url, sockets: Sockets) -> Result<Listener, String> {
    if url.is_unix() {
        let path = url.socket_path();
        let failed = |error: io::Error| format!("listen unix {path}: bind: {}", reason(&error));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let socket = UnixListener::bind(&path).map_err(failed)?;
        // The standard library asks for 128 that may wait.
        rustix::net::listen(&socket, limits::LISTEN_BACKLOG)
            .map_err(io::Error::from)
            .map_err(failed)?;
        let socket = Socket::Unix(socket, PathBuf::from(&path));
        return Ok(Listener {
            socket,
            address: path,
            traffic: Traffic::Both,
            is_plain: false,
            tls: None,
        });
    }
    let (host, port) = url.host_port();
    let failed = |error: io::Error| format!("listen tcp {host}:{port}: bind: {}", reason(&error));
    let address = resolve(host, port).map_err(failed)?;
    let socket = bind_tcp(address, sockets).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?.to_string();
    let socket = TcpListener::from_std(socket).map_err(failed)?;
    let socket = Socket::Tcp(socket);
    Ok(Listener { socket, address, traffic: Traffic::Both, is_plain: false, tls: None })
}

/// Every listener takes a port whose old connections the system has not forgotten, as in Go; a port
/// that another process listens on only if both say so. A wildcard stands for all addresses of both
/// families, `0.0.0.0` as well as `::`, as in Go, too.
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

/// Whether this stands for all addresses, and the system has IPv6 and lets such a socket have IPv4 as
/// well. IPv6 may be compiled in and have no address.
fn has_both_families(address: SocketAddr) -> bool {
    let tried = || {
        let socket = socket_of(AddressFamily::INET6)?;
        sockopt::set_ipv6_v6only(&socket, false)?;
        rustix::net::bind(&socket, &SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0))
    };
    address.ip().is_unspecified() && tried().is_ok()
}

/// `localhost` may be several addresses; IPv4 comes first, as in etcd.
fn resolve(host: &str, port: &str) -> io::Result<SocketAddr> {
    let port: u16 = port.parse().map_err(|_| io::Error::other("invalid port"))?;
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
    first.copied().ok_or_else(|| io::Error::other("no such host"))
}

/// The system's words without Rust's number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Ends every connection as it comes, for who would rather know at once that nobody answers yet.
pub(super) async fn turn_away(listeners: &[Listener]) -> Infallible {
    let ports = listeners.iter().map(|listener| async {
        loop {
            let accepted = match &listener.socket {
                Socket::Tcp(socket) => socket.accept().await.map(drop),
                Socket::Unix(socket, _) => socket.accept().await.map(drop),
            };
            if accepted.is_err() {
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    });
    let _: Vec<Infallible> = futures_util::future::join_all(ports).await;
    std::future::pending().await
}

/// Accepts until `stop`, then gives the connections a moment to end.
pub(super) async fn serve(listener: Listener, services: Services, mut stop: watch::Receiver<bool>) {
    let mut connections = services.supervisor.tasks("connection");
    let stopped = stop.clone();
    let services = services.only(listener.traffic);
    loop {
        let next = async {
            let permit = Arc::clone(&services.connections).acquire_owned().await.ok()?;
            Some((permit, accept(&listener.socket).await))
        };
        tokio::select! {
            next = next => match next {
                Some((permit, Ok(arrived))) => {
                    let (services, stop) = (services.clone(), stopped.clone());
                    arrived.start(Entry::new(services, stop, permit), &listener, &mut connections);
                }
                Some((_, Err(error))) => {
                    tracing::warn!(address = listener.address.as_str(), %error, "failed to accept a connection");
                    tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                }
                None => break,
            },
            // The memory of a connection that has ended, some kilobytes, is free only after that.
            true = connections.ended() => {}
            () = stopping(&mut stop) => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(limits::SHUTDOWN_GRACE, connections.all_ended()).await;
}

/// Resolves when the server stops.
async fn stopping(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}

/// A connection before it is anybody's.
enum Arrived {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

async fn accept(socket: &Socket) -> io::Result<Arrived> {
    match socket {
        Socket::Tcp(socket) => {
            let (stream, from) = socket.accept().await?;
            // A socket that refuses an option is still a connection.
            drop(stream.set_nodelay(true));
            let _ = keep_alive(&stream);
            Ok(Arrived::Tcp(stream, from))
        }
        Socket::Unix(socket, _) => Ok(Arrived::Unix(socket.accept().await?.0)),
    }
}

impl Arrived {
    fn start(self, entry: Entry, listener: &Listener, connections: &mut Tasks) {
        match self {
            Self::Tcp(stream, from) => {
                Entry { from: Some(from), ..entry }.start(stream, listener, connections);
            }
            Self::Unix(stream) => entry.start(stream, listener, connections),
        }
    }
}

/// Lets the kernel find out about clients that vanished.
fn keep_alive(socket: impl AsFd) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, limits::TCP_KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(&socket, limits::TCP_KEEPALIVE)
}

/// A connection that has come in.
struct Entry {
    /// None through a unix socket.
    from: Option<SocketAddr>,
    services: Services,
    stop: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
    _counted: Connected,
}

impl Entry {
    fn new(services: Services, stop: watch::Receiver<bool>, permit: OwnedSemaphorePermit) -> Self {
        let _counted = services.outbox.connect();
        Self { from: None, services, stop, _permit: permit, _counted }
    }

    fn start<S>(self, stream: S, listener: &Listener, connections: &mut Tasks)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match listener.tls.clone() {
            Some(tls) if listener.is_plain => connections.start(self.either(stream, tls)),
            Some(tls) => connections.start(self.secured(stream, tls)),
            None => connections.start(self.plain(stream)),
        };
    }

    async fn plain<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        connection(stream, Origin::default(), self.services, self.stop).await;
    }

    /// One that may shake hands or not: no method of HTTP begins as a record of TLS does.
    async fn either<S>(self, mut stream: S, tls: Arc<Acceptor>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut first = BytesMut::with_capacity(1024);
        let read = tokio::time::timeout(limits::PREFACE_TIMEOUT, stream.read_buf(&mut first)).await;
        let Ok(Ok(1..)) = read else { return };
        let is_text = first.first().is_some_and(|byte| *byte >= b' ');
        let stream = Replay::new(first.freeze(), stream);
        if is_text {
            self.plain(stream).await;
        } else {
            self.secured(stream, tls).await;
        }
    }

    /// One that shakes hands first.
    async fn secured<S>(mut self, stream: S, tls: Arc<Acceptor>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut asked = String::new();
        let shaken = tokio::select! {
            shaken = tls.accept(stream, &mut asked) => shaken.map_err(|error| tls::cause(&error)),
            () = stopping(&mut self.stop) => return,
        };
        let services = self.services;
        let checked = match shaken {
            Ok(Accepted { stream, common_name, certificate }) => match (certificate, self.from) {
                (Some(certificate), Some(from)) if services.checks_addresses => {
                    let checked = tokio::select! {
                        checked = check_address(&certificate, from) => checked,
                        () = stopping(&mut self.stop) => return,
                    };
                    checked.map(|()| (stream, common_name))
                }
                _ => Ok((stream, common_name)),
            },
            Err(error) => Err(error),
        };
        match checked {
            Ok((stream, name)) => {
                let name = name.filter(|_| services.names_users && services.port == Port::Client);
                let user = name.map(|name| CommonName(name.into()));
                connection(stream, Origin { is_secured: true, user }, services, self.stop).await;
            }
            Err(error) => {
                let from = self.from.map(|from| from.to_string()).unwrap_or_default();
                match services.port {
                    Port::Peer => tracing::warn!(
                        "remote-addr" = from,
                        "server-name" = asked,
                        error,
                        "rejected connection on peer endpoint"
                    ),
                    _ => tracing::warn!(
                        "remote-addr" = from,
                        "server-name" = asked,
                        error,
                        "rejected connection on client endpoint"
                    ),
                }
            }
        }
    }
}

pub(super) async fn connection<S>(
    mut stream: S,
    origin: Origin,
    services: Services,
    stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let sniffed = tokio::time::timeout(limits::PREFACE_TIMEOUT, sniff(&mut stream)).await;
    let Ok(Ok((first, http2))) = sniffed else { return };
    match (http2, &services.rpc) {
        // Without TLS, a connection of HTTP/2 is one of gRPC; peers never speak it.
        (true, None) if !origin.is_secured || services.port == Port::Peer => {}
        (false, _) if !services.serves_http => {}
        (true, _) => http2_connection(stream, first, origin, services, stop).await,
        (false, _) => {
            let stream = Replay::new(first, stream);
            http1_connection(stream, origin.is_secured, services, stop).await;
        }
    }
}

/// Reads until the bytes are, or can no longer be, the HTTP/2 preface.
async fn sniff<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<(Bytes, bool)> {
    let mut first = BytesMut::with_capacity(256);
    loop {
        if stream.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let common = first.len().min(PREFACE.len());
        if first[..common] != PREFACE[..common] {
            return Ok((first.freeze(), false));
        }
        if common == PREFACE.len() {
            return Ok((first.freeze(), true));
        }
    }
}

async fn http2_connection<S>(
    stream: S,
    first: Bytes,
    origin: Origin,
    services: Services,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Services { rpc, http, port, keepalive, serves_http, supervisor, outbox, .. } = services;
    let account = outbox.open();
    let calls = Calls::default();
    let serves_both = serves_http && origin.is_secured;
    // As in etcd, where Go's HTTP server has the connection and not grpc-go.
    let minimum = Some(keepalive.minimum).filter(|_| !serves_both);
    let (of_calls, turns) = (calls.clone(), Turns::default());
    let stream =
        Guarded::new(stream, first, minimum, of_calls, turns.clone(), Arc::clone(&account));
    let of_calls = Arc::clone(&account);
    let service = service_fn(move |request: Request<Incoming>| {
        let (http, open) = (Arc::clone(&http), calls.enter());
        let (account, queued) = (Arc::clone(&of_calls), of_calls.queue());
        let mut request = request.map(|body| Taken::new(body, Arc::clone(of_calls.unread())));
        // Over TLS, where one connection carries both, the content tells them apart.
        let rpc = rpc.clone().filter(|_| !serves_both || is_grpc(&request));
        if let Some(user) = &origin.user {
            request.extensions_mut().insert(user.clone());
        }
        async move {
            drop(queued);
            let kind = Kind::of(request.uri().path());
            let may_begin = account.enter(kind).await;
            let unfinished = account.unfinished();
            let open = (open, account.begin());
            let counted =
                |body| Counted { body, kind, _open: open, account, room: Room::default() };
            let Some(rpc) = rpc else {
                let parts = received(request).await;
                let answer = match may_begin {
                    true => http.answer(port, origin.is_secured, &parts).await,
                    false => overloaded(),
                };
                return Ok::<_, Infallible>(answer.map(|body| counted(Either::Right(body))));
            };
            let response = match may_begin {
                true => rpc.call(request.map(|body| Incomplete::new(body, unfinished))).await,
                false => rpc::too_many_requests(),
            };
            Ok(response.map(|body| counted(Either::Left(body))))
        }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(Requests(supervisor));
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(keepalive.streams_max)
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_header_list_size(limits::HEADER_BYTES_MAX)
        .header_table_size(limits::HEADER_TABLE_BYTES)
        .max_pending_accept_reset_streams(limits::RESET_STREAMS_MAX)
        .max_local_error_reset_streams(limits::ERROR_RESETS_MAX)
        .keep_alive_interval(keepalive.pings())
        .keep_alive_timeout(keepalive.timeout);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        result = turns.clone().of(connection.as_mut()) => {
            if let Err(error) = result {
                tracing::debug!(%error, "client connection ended");
            }
            return;
        }
        () = account.closing() => return,
        () = stopping(&mut stop) => connection.as_mut().graceful_shutdown(),
    }
    drop(turns.of(connection).await);
}

async fn http1_connection<S>(
    stream: S,
    is_secured: bool,
    services: Services,
    mut stop: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Services { http, peers, port, header_timeout, .. } = services;
    let service = service_fn(move |request: Request<Incoming>| {
        let (http, peers) = (Arc::clone(&http), Arc::clone(&peers));
        async move {
            if let Some(refusal) = malformed(port, &request) {
                return Ok(refusal.map(Either::Right));
            }
            let answer: Response<_> = match port {
                Port::Peer if is_raft(request.uri().path()) => {
                    peers.answer(request).await.map(Either::Left)
                }
                Port::Peer => http.answer_peer(request).await.map(Either::Right),
                _ => {
                    let parts = received(request).await;
                    http.answer(port, is_secured, &parts).await.map(Either::Right)
                }
            };
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        // A client that closes its side after its request still waits for the answer.
        .half_close(true)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(%error, "client connection ended");
            }
            return;
        }
        () = stopping(&mut stop) => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}

/// A request of HTTP once its body is there, of which nothing is needed. An answer before the body's
/// end makes h2 reset the stream, and curl then often loses the answer.
async fn received<B: HttpBody<Data = Bytes> + Unpin>(request: Request<B>) -> Parts {
    let (parts, mut body) = request.into_parts();
    let mut length = 0;
    let end = async {
        while let Some(Ok(frame)) = body.frame().await {
            length += frame.data_ref().map_or(0, Bytes::len);
            if length > limits::HTTP_BODY_BYTES_MAX {
                break;
            }
        }
    };
    drop(tokio::time::timeout(limits::HTTP_BODY_TIMEOUT, end).await);
    parts
}

fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(http::header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn is_raft(path: &str) -> bool {
    path == "/raft" || path.starts_with("/raft/")
}

/// An answer whose call counts as open, and whose bytes are its connection's, until they are sent.
struct Counted {
    body: Either<rpc::Body, Full<Bytes>>,
    kind: Kind,
    _open: (Open, Begun),
    account: Arc<Account>,
    room: Room,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { body, kind, account, room, .. } = self.get_mut();
        if matches!(body, Either::Left(rpc::Body::Stream(_))) {
            ready!(account.poll_room(*kind, room, context));
        }
        let frame = ready!(Pin::new(body).poll_frame(context));
        Poll::Ready(frame.map(|frame| Ok(frame?.map_data(|data| account.charge(*kind, data)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
