//! The endpoints of a cluster, their connections, and the choice among them.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::{Channel, Endpoint};

use super::config::Config;
use super::endpoint::{Addresses, Dialer, HANDSHAKE_FAILED, SharedAddresses, Target};
use super::reach::{Cause, Reach, Undialled, Unreached};
use crate::limits;
use crate::tls::Connector;

/// All endpoints of a client.
pub(super) struct Nodes {
    pub(super) all: Vec<Node>,
    /// Number of choices so far; calls go round the connected nodes.
    picks: AtomicUsize,
}

/// One endpoint.
pub(super) struct Node {
    /// The error text if the endpoint is malformed: the configuration is accepted, and each dial
    /// fails with that text.
    endpoint: Result<Endpoint, String>,
    /// The endpoint as it was given.
    pub(super) name: String,
    pub(super) connector: Dialer,
    pub(super) channel: Mutex<Option<Channel>>,
    /// Why the latest dial failed; None after one that succeeded.
    failure: Mutex<Option<Cause>>,
}

impl Nodes {
    pub(super) fn new(nodes: Vec<Node>) -> Self {
        Self { all: nodes, picks: AtomicUsize::new(0) }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Forgets all connections. Those that work are opened again by the next call.
    pub(super) fn forget(&self) {
        self.all.iter().for_each(Node::forget);
    }

    /// The next connected node, or the first that connects. Waits without an end; `last` receives
    /// the error of the latest failed dial.
    pub(super) async fn pick(&self, last: &Mutex<String>) -> (&Node, Channel) {
        let connected = self.connected();
        if !connected.is_empty() {
            let turn = self.picks.fetch_add(1, Ordering::Relaxed) % connected.len();
            let (node, channel) = &connected[turn];
            return (*node, channel.clone());
        }
        let nodes = self.all.iter();
        let mut dials: FuturesUnordered<_> = nodes
            .map(|node| async move { (node, node.dial_until_connected(last).await) })
            .collect();
        match dials.next().await {
            Some(connected) => connected,
            // Unreachable: there is at least one endpoint, and `dial_until_connected` returns with
            // a channel only.
            None => std::future::pending().await,
        }
    }

    pub(super) fn connected(&self) -> Vec<(&Node, Channel)> {
        let nodes = self.all.iter();
        nodes.filter_map(|node| Some((node, node.channel.lock().clone()?))).collect()
    }

    /// Why each endpoint cannot be reached; None if one can, or was not dialled yet.
    pub(super) fn failures(&self) -> Option<Vec<Unreached>> {
        let failed = |node: &Node| {
            let cause = node.failure.lock().clone()?;
            Some(Unreached { endpoint: node.name.clone(), cause })
        };
        self.all.iter().map(failed).collect()
    }

    /// Dials every endpoint once, until one connects. Fails when each has failed.
    pub(super) async fn connect_once(&self) -> Result<(), Vec<Unreached>> {
        self.connect_another().await;
        match self.connected().is_empty() {
            true => Err(self.failures().unwrap_or_default()),
            false => Ok(()),
        }
    }

    /// Connects to one more endpoint, for a call that all connected ones refuse. Returns without
    /// one if every dial fails.
    pub(super) async fn connect_another(&self) {
        let away = self.all.iter().filter(|node| node.channel.lock().is_none());
        let mut dials: FuturesUnordered<_> =
            away.map(|node| async move { (node, node.dial().await) }).collect();
        while let Some((node, outcome)) = dials.next().await {
            if let Ok(channel) = outcome {
                *node.channel.lock() = Some(channel);
                return;
            }
        }
    }
}

impl Node {
    pub(super) fn new(
        config: &Config,
        name: &str,
        target: Target,
        tls: Option<Arc<Connector>>,
    ) -> Self {
        let interval = config.keep_alive_time.max(limits::CLIENT_KEEP_ALIVE_MIN);
        let timeout = config.keep_alive_timeout;
        let endpoint = Endpoint::from_shared(format!("http://{}", target.authority))
            .and_then(|endpoint| endpoint.user_agent(concat!("rusd/", env!("CARGO_PKG_VERSION"))))
            .map(|endpoint| {
                endpoint
                    .http2_keep_alive_interval(interval)
                    .keep_alive_timeout(timeout)
                    .initial_stream_window_size(limits::CLIENT_WINDOW_BYTES)
                    .initial_connection_window_size(limits::CLIENT_WINDOW_BYTES)
            })
            .map_err(|_| format!("dial tcp: address {}: invalid", target.authority));
        let is_strict = config.reach != Reach::UntilDeadline;
        let limit = match config.dial_timeout {
            Duration::ZERO => limits::CLIENT_DIAL_TIMEOUT,
            time if is_strict => time,
            _ => limits::CLIENT_DIAL_TIMEOUT,
        };
        let connector = Dialer {
            address: target.address,
            tls,
            addresses: SharedAddresses::default(),
            first_read: Arc::default(),
            cause: Arc::default(),
            is_strict,
            limit,
        };
        let (channel, failure) = (Mutex::new(None), Mutex::new(None));
        Self { endpoint, name: name.to_owned(), connector, channel, failure }
    }

    /// Forgets the connection; the next call that chooses this node dials again.
    pub(super) fn forget(&self) {
        *self.channel.lock() = None;
    }

    /// Both addresses of the latest connection.
    pub(super) fn addresses(&self) -> Option<Addresses> {
        self.connector.addresses.lock().clone()
    }

    /// Dials until it succeeds, with pauses. Each endpoint has a loop of its own, so that the dial
    /// to a silent server, which takes `CLIENT_DIAL_TIMEOUT`, does not delay the next dial to
    /// another that restarts.
    async fn dial_until_connected(&self, last: &Mutex<String>) -> Channel {
        loop {
            match self.dial().await {
                Ok(channel) => {
                    *self.channel.lock() = Some(channel.clone());
                    return channel;
                }
                Err(error) => *last.lock() = error.text,
            }
            sleep(limits::CLIENT_RECONNECT_WAIT).await;
            // Another call may have connected meanwhile.
            if let Some(channel) = self.channel.lock().clone() {
                return channel;
            }
        }
    }

    /// Connects, and waits for the server's first bytes. With TLS 1.3 a server refuses a client's
    /// certificate after the client's handshake has succeeded; a call sent before that shows would
    /// be lost, and if it is a write, could not be repeated.
    pub(super) async fn dial(&self) -> Result<Channel, Undialled> {
        let outcome = self.dial_once().await;
        *self.failure.lock() = outcome.as_ref().err().map(|error| error.cause.clone());
        outcome
    }

    async fn dial_once(&self) -> Result<Channel, Undialled> {
        let malformed = |text: &String| Undialled { text: text.clone(), cause: Cause::BadAddress };
        let endpoint = self.endpoint.as_ref().map_err(malformed)?;
        let end = Instant::now() + self.connector.limit;
        let (sender, heard) = oneshot::channel();
        let first_read = Arc::new(Mutex::new(Some(sender)));
        let noted = Arc::new(Mutex::new(None));
        let connector = Dialer { first_read, cause: Arc::clone(&noted), ..self.connector.clone() };
        let connected = endpoint.connect_with_connector(connector).await;
        if connected.is_err() && *noted.lock() == Some(Cause::Closed) {
            let probed = self.connector.probe(end).await;
            *noted.lock() = Some(probed.unwrap_or(Cause::Closed));
        }
        let channel = connected.map_err(|error| {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(error) = cause {
                text = error.to_string();
                cause = error.source();
            }
            let cause = noted.lock().take().unwrap_or_else(|| Cause::Other(text.clone()));
            let text = match text.starts_with(HANDSHAKE_FAILED) {
                true => format!("transport: {text}"),
                false => format!("transport: Error while dialing: {text}"),
            };
            Undialled { text, cause }
        })?;
        let Undialled { text, cause } = match timeout_at(end, heard).await {
            Ok(Ok(Ok(()))) => return Ok(channel),
            Ok(Ok(Err(why))) => why,
            Ok(Err(_)) => Undialled { text: "EOF".to_owned(), cause: Cause::Closed },
            Err(_) => {
                let cause = Cause::Silent(self.connector.limit);
                Undialled { text: "i/o timeout".to_owned(), cause }
            }
        };
        let cause = match cause {
            Cause::Closed => self.connector.probe(end).await.unwrap_or(Cause::Closed),
            cause => cause,
        };
        Err(Undialled { text: format!("error reading server preface: {text}"), cause })
    }
}
