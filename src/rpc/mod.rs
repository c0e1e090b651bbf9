//! The gRPC services: what comes over the wire, checked, and handed to the node.
//!
//! ```text
//! path ─► method ─► decode ─► admit (learner, metadata, leader, demand) ─► check ─► node ─► encode
//! ```
//!
//! One file per service. `routes` is the one table of methods, from which [`Server::call`] finds
//! the handler of a path; `call` is what all calls have in common. Messages are framed in `request`,
//! `encoded` and `answer`; only the answers of streams run through tonic's codec. `error` is the one table of
//! codes and texts, and `check` the shape of requests; both are pure. `spans` is what a trace shows
//! of a call. This room knows no store, no log and no socket: listeners belong to `server`.
//!
//! Every handler gets the credentials that its call came with and hands them to the node. A
//! method's row in the table says what it demands of its caller before that.

mod answer;
mod auth;
mod call;
mod check;
mod cluster;
mod election;
mod encoded;
mod error;
mod health;
mod kv;
mod lease;
mod lock;
mod maintenance;
mod metadata;
mod parts;
mod recipe;
mod request;
mod routes;
mod space;
mod spans;
mod stats;
mod stream;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch as latest;
use tonic::Status;

use crate::node::Node;
use crate::supervise::Supervisor;

pub use answer::{Body, BoxError, Output};
pub use auth::CommonName;
pub use encoded::{PREFIX_BYTES, Pieces};
pub use error::{Error, status};
pub use metadata::illegal_base64;
pub use parts::Parts;
pub use request::{discard, too_large};
pub use routes::{METHODS, enable_handling_seconds};
pub use spans::LocalAddress;

/// The part of the server's configuration that the services need.
#[derive(Clone, Debug)]
pub struct Config {
    /// Largest encoded proposal, in bytes. A received message may be `GRPC_OVERHEAD_BYTES` larger.
    pub request_bytes_max: usize,
    /// Largest number of operations in a transaction, as `check::txn` counts them.
    pub txn_ops_max: usize,
    pub election_timeout: Duration,
    /// A unary request that takes longer is logged.
    pub warning_duration: Duration,
    /// A range or a read-only transaction that takes longer is logged with its request.
    pub warning_apply_duration: Duration,
    /// Time between two progress notifications of a watcher.
    pub watch_progress_interval: Duration,
}

impl Config {
    /// Largest message that is received, in bytes.
    pub fn message_bytes_max(&self) -> usize {
        self.request_bytes_max.saturating_add(crate::limits::GRPC_OVERHEAD_BYTES)
    }
}

/// The reasons for which running streams end before their clients want it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct StreamEnds {
    stopped: bool,
    leaderless: bool,
}

/// All services of one member.
pub struct Server {
    node: Node,
    config: Config,
    leader: latest::Receiver<u64>,
    ends: latest::Sender<StreamEnds>,
}

/// Election timeouts without a leader after which streams with `hasleader` end.
const LEADERLESS_TIMEOUTS: u32 = 3;

impl Server {
    pub fn new(node: Node, config: Config) -> Arc<Self> {
        routes::register_metrics();
        let leader = node.leader();
        let ends = latest::channel(StreamEnds::default()).0;
        Arc::new(Self { node, config, leader, ends })
    }

    /// Looks once per election timeout whether there is a leader, and ends the streams that need
    /// one when there was none `LEADERLESS_TIMEOUTS` times in a row. Returns when the server stops.
    pub async fn watch_leader(self: Arc<Self>) {
        let mut ends = self.ends.subscribe();
        let mut leaderless = 0;
        while !ends.borrow().stopped {
            tokio::select! {
                () = tokio::time::sleep(self.config.election_timeout) => {}
                _ = ends.changed() => continue,
            }
            leaderless = if self.has_leader() { 0 } else { leaderless + 1 };
            let gone = leaderless >= LEADERLESS_TIMEOUTS;
            self.ends
                .send_if_modified(|ends| std::mem::replace(&mut ends.leaderless, gone) != gone);
        }
    }

    /// As [`Config::message_bytes_max`].
    pub fn message_bytes_max(&self) -> usize {
        self.config.message_bytes_max()
    }

    pub fn supervisor(&self) -> &Supervisor {
        self.node.supervisor()
    }

    /// Whether this member has applied that authentication is on.
    pub fn is_auth_enabled(&self) -> bool {
        self.node.is_auth_enabled()
    }

    /// Ends all streams at once with `Error::Stopped`. Unary calls go on.
    pub fn stop(&self) {
        self.ends.send_modify(|ends| ends.stopped = true);
    }

    fn has_leader(&self) -> bool {
        *self.leader.borrow() != 0
    }
}

/// The answer to a call that `server` does not begin, because too many wait for room already.
pub fn too_many_requests() -> Output {
    answer::failure(&Error::TooManyRequests.into())
}

/// The error that `server` puts in the place of the rest of a message when unfinished messages have
/// used up their memory.
pub fn message_given_up() -> BoxError {
    let text = "the rest of the request's message did not come while others needed the room";
    Status::resource_exhausted(text).into()
}
