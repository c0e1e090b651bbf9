//! How a case runs: a bystander, the hostile clients between two quiet phases, and what is judged.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, getpid};

use super::bystander::Bystander;
use super::fixture::{LOOK, Member, PATIENCE, Usage, foreign, usage};

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

/// While this lives, every processor is busy. With `Yielding`, nothing of it is taken from the member
/// or the bystander but what the system's scheduler costs: a thread that wakes on a processor where
/// another one computes may wait until the next tick although the rest of the machine is idle.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn everywhere() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            let ended = Arc::clone(&ended);
            thread::spawn(move || {
                while !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(ended)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
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
    /// Runs `hostile` between quiet phases. If figures are wanted, a phase comes before it in which
    /// the processors are as busy and nothing of it concerns the member. `hostile` gets the time at
    /// which it should end. Its result, which may hold connections, lives until the peak of memory
    /// has been read.
    pub async fn run<H, F>(self, member: &Member, hostile: H)
    where
        H: AsyncFnOnce(&Member, Instant) -> F,
    {
        let bystander = Bystander::start(member.address.clone());
        tokio::time::sleep(phase()).await;
        let quiet = bystander.take();
        let busy = Self::busy(&bystander).await;
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
            "{}:\n  quiet   {quiet}{busy}\n  hostile {loud}\n  after   {after}\n  memory  {} MiB before, \
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

    /// The line of the phase in which the processors are busy without the member.
    async fn busy(bystander: &Bystander) -> String {
        if seconds().is_none() {
            return String::new();
        }
        let (busy, yielding) = (Busy::everywhere(), Yielding::all_but(bystander.task()));
        bystander.take();
        tokio::time::sleep(phase()).await;
        let report = bystander.take();
        drop((busy, yielding));
        format!("\n  busy    {report}")
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
