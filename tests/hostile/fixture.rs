//! A member in a process of its own, and the phases of a case.

use std::fs::{self, File};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusd::pb::PutRequest;
use rusd::pb::kv_client::KvClient;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::member::{self, Process, alone, flags, free_address, serve};

/// Longest wait of a test. Even a busy machine needs much less, so exceeding it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Interval at which the member's memory and threads are sampled.
pub const LOOK: Duration = Duration::from_millis(20);

/// The binary under test if it is not rusd.
pub fn foreign() -> Option<PathBuf> {
    std::env::var_os("HOSTILE_BINARY").map(PathBuf::from)
}

/// A running member, killed when this is dropped.
pub struct Member {
    pub child: Process,
    /// Host and port for clients.
    pub address: String,
    /// Host and port for peers.
    pub peer_address: String,
    log: PathBuf,
    _root: TempDir,
}

impl Member {
    /// Starts a new member with these additional flags, and waits until it answers.
    pub fn start(more: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (data, log) = (root.path().join("data"), root.path().join("log"));
        let (address, peer_address) = (free_address(), free_address());
        let (client, peer) = (format!("http://{address}"), format!("http://{peer_address}"));
        let mut command = match foreign() {
            Some(binary) => crate::child::command(binary),
            None => serve(),
        };
        command.args(flags("one", &data, &client, &peer)).args(alone("one", &peer)).args(more);
        let child = Process::start(&mut command, File::create(&log).unwrap());
        let mut member = Self { child, address, peer_address, log, _root: root };
        member.wait_ready();
        member
    }

    fn wait_ready(&mut self) {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            assert!(self.child.try_wait().unwrap().is_none(), "no start:\n{}", self.log());
            if member::is_healthy(&self.address) {
                return;
            }
            thread::sleep(LOOK);
        }
        panic!("no start:\n{}", self.log());
    }

    /// The answer to a plain GET; empty if there is none.
    pub fn get(&self, path: &str) -> String {
        member::get(&self.address, path)
    }

    /// The value of a gauge or counter without labels, from `/metrics`.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no metric {name}:\n{text}")).parse().unwrap()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap()
    }

    /// A new gRPC connection.
    pub async fn channel(&self) -> Channel {
        self.endpoint().connect().await.unwrap()
    }

    /// Waits until `is_right` holds for a gauge or counter; fails with `what` after `PATIENCE`.
    pub async fn until(&self, what: &str, name: &str, is_right: impl Fn(f64) -> bool) {
        let late = Instant::now() + PATIENCE;
        while !is_right(self.metric(name)) {
            assert!(Instant::now() < late, "{what}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Checks that a client which sends large messages completely, and reads the answers, is
    /// served.
    pub async fn takes_large_puts(&self) {
        let mut kv = KvClient::new(self.channel().await);
        for _ in 0..4 {
            let value = Bytes::from(vec![b'v'; 1_000_000]);
            kv.put(PutRequest { key: "large".into(), value, ..Default::default() }).await.unwrap();
        }
    }

    /// Reads /proc, which blocks so briefly that a thread of the runtime may do it.
    pub fn usage(&self) -> Usage {
        usage(self.child.id())
    }
}

/// A client that was not served says why only in the member's log.
impl Drop for Member {
    fn drop(&mut self) {
        if thread::panicking() {
            let state = self.child.try_wait();
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("the member of the failed test: {state:?}\n{log}");
        }
    }
}

/// Memory and threads of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Anonymous memory, without the pages of the mapped store.
    pub anonymous_kib: u64,
    pub resident_kib: u64,
    pub threads: u64,
}

pub fn usage(pid: u32) -> Usage {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().unwrap())
    };
    Usage {
        anonymous_kib: field("RssAnon:"),
        resident_kib: field("VmRSS:"),
        threads: field("Threads:"),
    }
}
