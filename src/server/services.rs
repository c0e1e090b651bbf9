//! What a port serves, and with which bounds.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::listen::Traffic;
use super::outbox::Outbox;
use crate::http::{Http, Port};
use crate::peer::Peers;
use crate::rpc;
use crate::supervise::Supervisor;

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
    pub(super) fn pings(self) -> Option<Duration> {
        Some(self.interval).filter(|interval| !interval.is_zero() && !self.timeout.is_zero())
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

    /// What is left of it for this traffic.
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
