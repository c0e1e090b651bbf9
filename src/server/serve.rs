//! Connections from their arrival until their protocol is known.
//!
//! ```text
//!   accept ─► TLS? ─► first bytes ─┬─ HTTP/2 preface ─► gRPC; over TLS also HTTP
//!                                  └─ anything else  ─► HTTP/1.1
//! ```
//!
//! The number of connections is bounded by the process's open files; further ones wait in the
//! kernel's queue.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::connection::{Origin, connection};
use super::listen::{AcceptedSocket, Listener};
use super::outbox::Connected;
use super::services::{Services, stopping};
use super::socket::{Cut, Socket};
use super::stream::Stream;
use super::tls::check_address;
use crate::http::Port;
use crate::limits;
use crate::rpc::{CommonName, LocalAddress};
use crate::supervise::Tasks;
use crate::tls::{self, Accepted, Acceptor, Replay};

/// Accepts connections until `stop`, then gives them `limits::SHUTDOWN_GRACE` to end.
pub(super) async fn serve(listener: Listener, services: Services, mut stop: watch::Receiver<bool>) {
    let mut connections = services.supervisor.tasks("connection");
    let stopped = stop.clone();
    let services = services.only(listener.traffic);
    loop {
        let next = async {
            let permit = Arc::clone(&services.connections).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
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
            // The task of an ended connection is taken out at once: its memory, some kilobytes, is
            // free only then.
            true = connections.ended() => {}
            () = stopping(&mut stop) => break,
        }
    }
    drop(listener);
    let _ = tokio::time::timeout(limits::SHUTDOWN_GRACE, connections.all_ended()).await;
}

impl AcceptedSocket {
    fn start(self, entry: Entry, listener: &Listener, connections: &mut Tasks) {
        match self {
            Self::Tcp(stream, from) => {
                let local = stream.local_addr().ok().filter(|_| entry.services.is_traced);
                let local = local.map(|local| LocalAddress {
                    host: local.ip().to_canonical().to_string().into(),
                    port: Some(local.port()),
                });
                let stream = Stream::new(Socket::new(stream, entry.cut.clone()));
                let entry = Entry { from: Some(from), local, ..entry };
                entry.start(stream, listener, connections);
            }
            Self::Unix(stream) => {
                let here = || LocalAddress { host: listener.address.as_str().into(), port: None };
                let local = entry.services.is_traced.then(here);
                Entry { local, ..entry }.start(Stream::new(stream), listener, connections);
            }
        }
    }
}

/// A connection that was accepted.
struct Entry {
    /// None for a unix socket.
    from: Option<SocketAddr>,
    /// None if calls are not traced.
    local: Option<LocalAddress>,
    cut: Cut,
    services: Services,
    stop: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
    _counted: Connected,
}

impl Entry {
    fn new(services: Services, stop: watch::Receiver<bool>, permit: OwnedSemaphorePermit) -> Self {
        let _counted = services.outbox.connect();
        Self {
            from: None,
            local: None,
            cut: Cut::default(),
            services,
            stop,
            _permit: permit,
            _counted,
        }
    }

    fn start(self, stream: Stream, listener: &Listener, connections: &mut Tasks) {
        match listener.tls.clone() {
            Some(tls) if listener.is_plain => connections.start(self.either(stream, tls)),
            Some(tls) => connections.start(self.secured(stream, tls)),
            None => connections.start(self.plain(stream)),
        };
    }

    async fn plain(self, stream: Stream) {
        let Self { local, from: remote, cut, .. } = self;
        let origin = Origin { local, remote, cut, ..Origin::default() };
        connection(stream, origin, self.services, self.stop).await;
    }

    /// Serves a connection with TLS or without, as its first byte says: the type of a TLS record is
    /// below the space, and no method of HTTP begins so.
    async fn either(self, mut stream: Stream, tls: Arc<Acceptor>) {
        let mut first = BytesMut::with_capacity(1024);
        let read = tokio::time::timeout(limits::PREFACE_TIMEOUT, stream.read_buf(&mut first)).await;
        let Ok(Ok(1..)) = read else { return };
        let is_text = first.first().is_some_and(|byte| *byte >= b' ');
        let stream = Stream::new(Replay::new(first.freeze(), stream));
        if is_text {
            self.plain(stream).await;
        } else {
            self.secured(stream, tls).await;
        }
    }

    /// Serves a connection after a TLS handshake. One that is refused is logged with its cause.
    async fn secured(mut self, stream: Stream, tls: Arc<Acceptor>) {
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
                let (local, remote, cut) = (self.local, self.from, self.cut);
                let origin = Origin { is_secured: true, user, local, remote, cut };
                connection(Stream::new(stream), origin, services, self.stop).await;
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
