//! A member without threads and without a network, for the targets that talk to one.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rusd::clock::{Clock, SystemClock};
use rusd::node::{AuthConfig, Config, Node, Steps, Surroundings};
use rusd::peer::{Answered, Reach, TcpDial};
use rusd::raft::{self, Message, Transport};
use rusd::supervise::Supervisor;
use rusd::trace::Tracer;
use rusd::{rpc, store};

use super::disk::Memory;
use super::scratch;

/// Rounds in which nothing happens until an answer counts as one that does not come.
const IDLE_ROUNDS: usize = 8;
const IDLE_PAUSE: Duration = Duration::from_micros(300);
const ROUNDS_MAX: usize = 2000;

const TOKEN: &str = "fuzz";

/// Nobody can be reached.
struct Nowhere;

impl Transport for Nowhere {
    fn send(&self, _: Vec<Message>) {}
}

impl Reach for Nowhere {
    fn ask<'a>(
        &'a self,
        _: u64,
        _: &'a str,
        _: Option<Bytes>,
        _: Duration,
    ) -> BoxFuture<'a, Option<Answered>> {
        Box::pin(async { None })
    }

    fn connected_for(&self, _: u64) -> Option<Duration> {
        Some(Duration::from_secs(60))
    }
}

/// The tasks hold the node, so the runtime goes first.
pub struct Member {
    pub runtime: tokio::runtime::Runtime,
    pub node: Node,
    pub steps: Steps,
    pub rpc: Arc<rpc::Server>,
    _dir: tempfile::TempDir,
}

/// The id of a member by its number; this one has the first.
pub fn id(number: usize) -> u64 {
    rusd::types::member_id(&url(number), TOKEN, None)
}

fn url(number: usize) -> Vec<String> {
    vec![format!("http://10.0.0.{number}:2380")]
}

fn config(dir: &Path, members: usize) -> Config {
    Config {
        name: "m0".to_owned(),
        cluster_token: TOKEN.to_owned(),
        initial_cluster: (0..members).map(|number| (format!("m{number}"), url(number))).collect(),
        peer_urls: url(0),
        client_urls: vec!["http://10.0.0.0:2379".to_owned()],
        max_request_bytes: 1 << 20,
        auth: AuthConfig { bcrypt_cost: 4, ..AuthConfig::default() },
        ..Config::of(dir)
    }
}

impl Member {
    /// One of a cluster of so many. Alone, it leads.
    pub fn new(members: usize) -> Self {
        let dir = scratch();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let mut options = store::Options::new(Arc::clone(&clock));
        options.reserve_bytes = 0;
        let net = Arc::new(Nowhere);
        // The parent that a call's metadata names is arbitrary, too. Nobody takes the spans.
        let (tracer, _) = Tracer::new(Arc::clone(&clock), 0);
        let surroundings = Surroundings {
            clock,
            disk: Arc::new(Memory::default()),
            dial: Arc::new(TcpDial::default()),
            transport: Some(Arc::clone(&net) as _),
            reach: Some(net),
            log: raft::log::Options { segment_bytes: 256 << 10, fill_ahead: false },
            store: options,
            supervisor: Supervisor::default(),
            tracer,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (node, steps) = {
            let _guard = runtime.enter();
            Node::start_stepped(config(dir.path(), members), surroundings).unwrap()
        };
        let rpc = rpc::Server::new(
            node.clone(),
            rpc::Config {
                warning_apply_duration: std::time::Duration::from_millis(100),
                request_bytes_max: 1 << 20,
                txn_ops_max: 128,
                election_timeout: Duration::from_secs(1),
                warning_duration: Duration::from_secs(100),
                watch_progress_interval: Duration::from_secs(600),
            },
        );
        assert_eq!(node.member_id(), id(0));
        let mut member = Self { runtime, node, steps, rpc, _dir: dir };
        // The first turn has no cause: it hands apply what is committed from the start.
        member.steps.raft().unwrap();
        for _ in 0..100 {
            member.step();
        }
        member
    }

    /// A turn of each thread's work; whether there was any.
    pub fn step(&mut self) -> bool {
        let mut worked = false;
        if self.steps.raft_has_work() {
            worked = self.steps.raft().is_ok();
        }
        if self.steps.log_has_work() {
            worked |= self.steps.log().unwrap_or(false);
        }
        worked |= self.steps.apply(usize::MAX).is_some();
        worked |= self.steps.sweep().is_some();
        self.runtime.block_on(tokio::task::yield_now());
        worked
    }

    /// Works until nothing is left, or for a while.
    pub fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..ROUNDS_MAX {
            idle = if self.step() { 0 } else { idle + 1 };
            if idle > IDLE_ROUNDS {
                break;
            }
        }
    }

    /// Whether it left its cluster, or met what it must not go on with.
    pub fn is_over(&self) -> bool {
        self.node.removed().borrow().is_some() || self.node.fatal().borrow().is_some()
    }

    /// Works until the future is done. None if it waits for something that does not come.
    pub fn wait<T>(&mut self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        let mut idle = 0;
        for _ in 0..ROUNDS_MAX {
            let polled = {
                let _guard = self.runtime.enter();
                future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
            };
            if let Poll::Ready(value) = polled {
                return Some(value);
            }
            idle = if self.step() { 0 } else { idle + 1 };
            if idle > IDLE_ROUNDS {
                break;
            }
            if idle > 0 {
                // Another thread may be at work for it.
                std::thread::sleep(IDLE_PAUSE);
            }
        }
        None
    }
}
