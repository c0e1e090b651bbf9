//! A member in a process of its own, and the phases of a case.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusd::pb::PutRequest;
use rusd::pb::kv_client::KvClient;
use rustix::process::{Pid, getpid};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::bystander::Bystander;
use super::member::{self, Process, alone, flags, free_address, serve};

/// Longest wait of a test. Even a busy machine needs much less, so exceeding it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Interval at which the member's memory and threads are sampled.
const LOOK: Duration = Duration::from_millis(20);

/// Length of each phase, if figures are wanted.
fn seconds() -> Option<f64> {
    Some(std::env::var("HOSTILE_SECONDS").ok()?.parse().unwrap())
}

/// Length of each phase.
pub fn phase() -> Duration {
    Duration::from_secs_f64(seconds().unwrap_or(2.0))
}

/// While this lives, all threads of this process but the bystander's have the scheduling policy
/// "idle", so that the processor time of the hostile clients does not distort the figures. Only
/// root may restore the policy.
struct Yielding;

impl Yielding {
    fn all_but(busy: Pid) -> Self {
        schedule(&["--all-tasks", "--idle"], getpid());
        schedule(&["--other"], busy);
        Self
    }
}

impl Drop for Yielding {
    fn drop(&mut self) {
        schedule(&["--all-tasks", "--other"], getpid());
    }
}

/// Sets the scheduling policy of a task by `chrt`. Without that tool nothing happens.
fn schedule(how: &[&str], task: Pid) {
    let task = task.as_raw_nonzero().to_string();
    let _ = Command::new("chrt").args(how).args(["--pid", "0", &task]).status();
}

/// The binary under test if it is not rusd.
pub fn foreign() -> Option<PathBuf> {
    std::env::var_os("HOSTILE_BINARY").map(PathBuf::from)
}

/// A running member, killed when this is dropped.
pub struct Member {
    child: Process,
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

/// Memory and threads of a process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Anonymous memory, without the pages of the mapped store.
    pub anonymous_kib: u64,
    pub resident_kib: u64,
    pub threads: u64,
}

fn usage(pid: u32) -> Usage {
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

/// The highest values since `watch` was called.
struct Peak {
    anonymous_kib: Arc<AtomicU64>,
    threads: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Peak {
    fn watch(pid: u32) -> Self {
        let (anonymous_kib, threads, ended) = <(Arc<AtomicU64>, Arc<AtomicU64>, _)>::default();
        let peak = Self { anonymous_kib, threads, ended };
        let (anonymous_kib, threads) = (Arc::clone(&peak.anonymous_kib), Arc::clone(&peak.threads));
        let ended = Arc::clone(&peak.ended);
        thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let now = usage(pid);
                anonymous_kib.fetch_max(now.anonymous_kib, Ordering::Relaxed);
                threads.fetch_max(now.threads, Ordering::Relaxed);
                thread::sleep(LOOK);
            }
        });
        peak
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Hostile clients, and the memory that they may cost a member.
pub struct Case {
    pub name: &'static str,
    /// Largest growth of the member's anonymous memory while the hostile clients are there.
    pub growth_kib_max: u64,
    /// Largest part of that growth that may be left some time after they have gone.
    pub left_kib_max: u64,
}

impl Case {
    /// Runs `hostile` between quiet phases. It gets the time at which it should end. Its result,
    /// which may hold connections, lives until the peak of memory has been read.
    pub async fn run<H, F>(self, member: &Member, hostile: H)
    where
        H: AsyncFnOnce(&Member, Instant) -> F,
    {
        let bystander = Bystander::start(member.address.clone());
        tokio::time::sleep(phase()).await;
        let quiet = bystander.take();
        let before = member.usage();
        let peak = Peak::watch(member.child.id());
        let yielding = seconds().map(|_| Yielding::all_but(bystander.task()));
        let held = hostile(member, Instant::now() + phase()).await;
        drop(yielding);
        let loud = bystander.take();
        drop(held);
        let (grown, threads) =
            (peak.anonymous_kib.load(Ordering::Relaxed), peak.threads.load(Ordering::Relaxed));
        drop(peak);
        let grown = grown.saturating_sub(before.anonymous_kib);
        let left = self.settle(member, before).await;
        let after = bystander.finish();
        eprintln!(
            "{}:\n  quiet   {quiet}\n  hostile {loud}\n  after   {after}\n  memory  {} MiB before, \
             +{} at most, +{} afterwards; threads {} before, {threads} at most",
            self.name,
            before.anonymous_kib >> 10,
            grown >> 10,
            left >> 10,
            before.threads,
        );
        let log = member.log();
        assert!(!log.contains("panicked"), "{log}");
        if foreign().is_none() {
            let Self { name, growth_kib_max, left_kib_max } = self;
            assert!(grown <= growth_kib_max, "{name}: memory has grown by {grown} KiB");
            assert!(left <= left_kib_max, "{name}: {left} KiB of memory are left");
        }
    }

    /// Waits until no more of the growth is left than may be, or for a quarter of `PATIENCE`.
    /// Returns what is left, in KiB.
    async fn settle(&self, member: &Member, before: Usage) -> u64 {
        let end = Instant::now() + if foreign().is_some() { phase() } else { PATIENCE / 4 };
        loop {
            let left = member.usage().anonymous_kib.saturating_sub(before.anonymous_kib);
            if left <= self.left_kib_max || Instant::now() > end {
                return left;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
