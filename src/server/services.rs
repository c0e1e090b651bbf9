//! What a port serves, and with which bounds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::listen::Traffic;
use super::outbox::Outbox;
use crate::gateway::Gateway;
use crate::http::{Http, Port};
use crate::peer::Peers;
use crate::rpc;
use crate::supervise::Supervisor;

/// Bounds of HTTP/2 connections that flags set.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keepalive {
    /// Shortest time between a client's pings while it has open calls.
    pub minimum: Duration,
    /// Time between the server's pings; zero sends none.
    pub interval: Duration,
    /// How long the answer to one of the server's pings may take.
    pub timeout: Duration,
    /// Calls that may be open on one connection.
    pub streams_max: u32,
}

impl Keepalive {
    /// Time between the server's pings; None if there are none. As in etcd, there are none either
    /// without a time within which they must be answered.
    pub(super) fn pings(self) -> Option<Duration> {
        Some(self.interval).filter(|interval| !interval.is_zero() && !self.timeout.is_zero())
    }
}

/// What a port serves.
#[derive(Clone)]
pub(super) struct Services {
    /// None on ports that speak HTTP only.
    pub rpc: Option<Arc<rpc::Server>>,
    /// None if JSON is not served.
    pub gateway: Option<Arc<Gateway>>,
    /// Whether the port answers HTTP requests that are not gRPC.
    pub serves_http: bool,
    pub http: Arc<Http>,
    pub outbox: Arc<Outbox>,
    /// Answers requests below `/raft` on the peer port.
    pub peers: Arc<Peers>,
    pub port: Port,
    /// Whether the common name of a client's certificate names its user.
    pub names_users: bool,
    /// Whether a certificate that is shown to the port must be for the address that it comes from.
    pub checks_addresses: bool,
    /// Whether calls have spans, which name the address that they came to.
    pub is_traced: bool,
    pub keepalive: Keepalive,
    /// How long the head of the next HTTP/1.1 request may take to arrive.
    pub header_timeout: Duration,
    /// How long a peer may take nothing of what is written to it.
    pub peer_write_timeout: Duration,
    /// Connections that all ports with these services may still accept.
    pub connections: Arc<Semaphore>,
    pub supervisor: Supervisor,
}

impl Services {
    /// The services of a port that is not for clients. It has a bound of connections of its own, so
    /// that peers and probes get through however many clients there are:
    /// `limits::DESCRIPTORS_RESERVED` keeps open files for them.
    pub(super) fn of_other(&self, port: Port, connections: usize, checks_addresses: bool) -> Self {
        let connections = Arc::new(Semaphore::new(connections));
        Self { rpc: None, port, connections, checks_addresses, ..self.clone() }
    }

    /// The services without those that this traffic excludes.
    pub(super) fn only(mut self, traffic: Traffic) -> Self {
        match traffic {
            Traffic::Both => {}
            Traffic::Grpc => self.serves_http = false,
            Traffic::Http => self.rpc = None,
        }
        self
    }
}

/// Resolves when the server stops.
pub(super) async fn stopping(stop: &mut watch::Receiver<bool>) {
    drop(stop.wait_for(|stop| *stop).await);
}
