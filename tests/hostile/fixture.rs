//! A member in a process of its own, and how a case runs.

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

/// What nothing needs on a busy machine; a test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// How often the member's memory and threads are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How long each phase takes when somebody wants figures.
fn seconds() -> Option<f64> {
    Some(std::env::var("HOSTILE_SECONDS").ok()?.parse().unwrap())
}

/// How long each phase takes.
pub fn phase() -> Duration {
    Duration::from_secs_f64(seconds().unwrap_or(2.0))
}

/// The threads of this process, but for one, run only where nobody else computes while this lives: what
/// hostile clients take of the member's own processors is no part of a figure. Only root may end that.
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

/// Has the system schedule a task in this way, where it has the tool for it.
fn schedule(how: &[&str], task: Pid) {
    let task = task.as_raw_nonzero().to_string();
    let _ = Command::new("chrt").args(how).args(["--pid", "0", &task]).status();
}

/// The server under test when it is not rusd.
pub fn foreign() -> Option<PathBuf> {
    std::env::var_os("HOSTILE_BINARY").map(PathBuf::from)
}

/// A running member; dropped, it is killed.
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
    /// A new member that answers, with these flags beside the usual ones.
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

    /// What a plain GET answers; empty if nobody does.
    pub fn get(&self, path: &str) -> String {
        member::get(&self.address, path)
    }

    /// A gauge or counter without labels, from `/metrics`.
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

    /// A gRPC connection of its own.
    pub async fn channel(&self) -> Channel {
        self.endpoint().connect().await.unwrap()
    }

    /// Waits until a gauge or counter is as it should be.
    pub async fn until(&self, what: &str, name: &str, is_right: impl Fn(f64) -> bool) {
        let late = Instant::now() + PATIENCE;
        while !is_right(self.metric(name)) {
            assert!(Instant::now() < late, "{what}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whoever sends all of a large message and takes its answer is served.
    pub async fn takes_large_puts(&self) {
        let mut kv = KvClient::new(self.channel().await);
        for _ in 0..4 {
            let value = Bytes::from(vec![b'v'; 1_000_000]);
            kv.put(PutRequest { key: "large".into(), value, ..Default::default() }).await.unwrap();
        }
    }

    /// Reads are small and block little, so this thread may do them.
    pub fn usage(&self) -> Usage {
        usage(self.child.id())
    }
}

/// What the process takes of the system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Memory of its own; the mapped file does not count.
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

/// The highest values since it was made.
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

/// A case: what hostile clients do to a member, and what that may cost.
pub struct Case {
    pub name: &'static str,
    /// How much the member's own memory may grow while they are there.
    pub growth_kib_max: u64,
    /// How much of that may be left some time after they went.
    pub left_kib_max: u64,
}

impl Case {
    /// Runs `hostile` between quiet phases. It gets the time at which it should end, and may hold its
    /// connections until it is dropped: what it returns lives until memory has been looked at.
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

    /// What is left of the growth once it no longer falls.
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
