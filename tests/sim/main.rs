//! The simulator: the shipped members over a network, disks and clocks that fail, by seed.
//!
//! ```text
//! cargo test --test sim                            200 seeds, and the bugs that few seeds find
//! cargo test --release --test sim -- --seeds A..B  any seeds, in the background say
//!     [--events N] [--traces] [--trace] [--bug NAME]  with a bug planted in all of them
//! cargo test --test sim -- --planted               how many seeds find each planted bug
//!     [--bug NAME]                                  or one of them
//! ```
//!
//! A seed decides everything: who fails when, which message is lost, whose thread runs next. The
//! same seed gives the same run, to the bit. The members are the shipped code without its threads
//! ([`rusd::node::Steps`]); the log lies on a disk in memory, the store in a directory in memory,
//! where a crash leaves the last commit. What is not simulated is what LMDB itself promises.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

mod clock;
mod disk;
mod member;
mod model;
mod oracle;
mod plan;
mod store_faults;
mod wire;
mod world;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clock::Trap;
use oracle::Checked;
use rusd::planted::Bug;
use world::World;

const EVENTS: u64 = 2000;
/// Seeds that failed once, and what they found. What a seed does changes with the simulator, so they
/// are a sample that is never dropped rather than the same runs for ever.
const KEPT: &[(u64, &str)] = &[
    (186, "healthy members that take each other for corrupt after a compaction at revision 0"),
    (298, "a leader that went on to commit after its removal"),
    (704, "two hashes of one history: a deletion exactly at a compaction counted as a key"),
    (864, "a sender that is not told of a snapshot's loss and waits for ever"),
    (949, "the last of two voters that never hears of the other's removal"),
    (1171, "a lease that ended early, renewed by who no longer led"),
    (1762, "a lease revoked by a proposal that outlived its leader's term"),
    (7548, "a lease revoked between two terms of one leader"),
    (9349, "two hashes of one history, with a snapshot"),
    (9938, "an apply thread that went on after its end, without what it had not published"),
];
/// So many seeds are tried until a planted bug is found.
const SEEDS_PER_BUG: u64 = 1000;
/// As many where only the bugs are planted that few seeds find.
const SEEDS_PER_PLAIN_BUG: u64 = 60;

thread_local! {
    /// The first panic since a run began, in a task or anywhere else.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn note_panics() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload().downcast_ref::<String>().cloned();
        let text = text.or_else(|| info.payload().downcast_ref::<&str>().map(ToString::to_string));
        let at = info.location().map(ToString::to_string).unwrap_or_default();
        let text = text.unwrap_or_default();
        if text == Trap::WHY {
            return;
        }
        let text = format!("{at}: {text}");
        PANIC.with_borrow_mut(|panic| panic.get_or_insert(text).len());
    }));
}

struct Run {
    trace: u64,
    events: u64,
    checked: Checked,
}

fn run(seed: u64, events: u64, tells: bool) -> Result<Run, String> {
    PANIC.with_borrow_mut(Option::take);
    let mut world = None;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(World::new(seed, events, tells));
        world.run();
    }));
    let panic = PANIC.with_borrow_mut(Option::take);
    let mut told = Vec::new();
    let mut done = None;
    if let Some(mut world) = world {
        told = world.told.take().unwrap_or_default();
        let (trace, events, checked) = (world.trace, world.events, world.oracle.checked);
        done = Some(Run { trace, events, checked });
        // A member that panicked may panic again when it goes.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(world)));
    }
    for line in told {
        println!("{line}");
    }
    match (outcome, panic, done) {
        (Ok(()), None, Some(run)) => Ok(run),
        (_, panic, done) => {
            let events = done.map_or(0, |run| run.events);
            Err(format!("after {events} events: {}", panic.unwrap_or_default()))
        }
    }
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}

/// What seeds gave that were run on all processors.
#[derive(Default)]
struct Outcomes {
    traces: BTreeMap<u64, u64>,
    failures: Vec<(u64, String)>,
}

fn run_all(seeds: std::ops::Range<u64>, events: u64, bug: Option<Bug>) -> Outcomes {
    let begun = Instant::now();
    let (next, done) = (AtomicU64::new(seeds.start), AtomicU64::new(0));
    let outcomes = Mutex::new(Outcomes::default());
    let total = Mutex::new(Checked::default());
    std::thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(|| {
                plant(bug);
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    match run(seed, events, false) {
                        Ok(run) => {
                            outcomes.lock().unwrap().traces.insert(seed, run.trace);
                            total.lock().unwrap().add(&run.checked);
                        }
                        Err(why) => {
                            println!("seed {seed} failed {why}");
                            outcomes.lock().unwrap().failures.push((seed, why));
                        }
                    }
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    if done % 500 == 0 {
                        println!("{done} seeds after {:?}", begun.elapsed());
                    }
                }
            });
        }
    });
    let total = total.into_inner().unwrap();
    println!("{} seeds in {:.1?}: {total:?}", seeds.end - seeds.start, begun.elapsed());
    outcomes.into_inner().unwrap()
}

fn main() -> ExitCode {
    note_panics();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    let events = value("--events").map_or(EVENTS, |events| events.parse().unwrap());
    let wanted = value("--bug");
    let is_wanted = |bug: &Bug| wanted.as_ref().is_none_or(|name| format!("{bug:?}") == *name);
    if let Some(name) = wanted.as_ref().filter(|_| !Bug::OF_CLUSTERS.iter().any(is_wanted)) {
        println!("{name} is not in Bug::OF_CLUSTERS");
        return ExitCode::FAILURE;
    }
    if has("--planted") {
        let bugs: Vec<Bug> = Bug::OF_CLUSTERS.into_iter().filter(is_wanted).collect();
        let failures = plant_bugs(&bugs, SEEDS_PER_BUG, events);
        return if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if let Some(seeds) = value("--seeds") {
        let (from, to) = seeds.split_once("..").unwrap_or((&seeds, ""));
        let from: u64 = from.parse().unwrap();
        let to = to.parse().unwrap_or(from + 1);
        let bug = Bug::OF_CLUSTERS.into_iter().find(|bug| wanted.is_some() && is_wanted(bug));
        if has("--trace") {
            plant(bug);
            match run(from, events, true) {
                Ok(run) => {
                    println!("{:x} after {} events: {:?}", run.trace, run.events, run.checked)
                }
                Err(why) => println!("seed {from} failed {why}"),
            }
            return ExitCode::SUCCESS;
        }
        let Outcomes { traces, failures } = run_all(from..to, events, bug);
        for (seed, trace) in traces.iter().filter(|_| has("--traces")) {
            println!("seed {seed} gives {trace:016x}");
        }
        return if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    by_default(events)
}

#[cfg(debug_assertions)]
use rusd::planted::plant;

#[cfg(not(debug_assertions))]
fn plant(_: Option<Bug>) {}

/// Plants each bug and runs seeds until one finds it.
fn plant_bugs(bugs: &[Bug], seeds_max: u64, events: u64) -> Vec<(u64, String)> {
    if cfg!(not(debug_assertions)) {
        println!("a release build has no bugs to plant");
        return Vec::new();
    }
    let found = |bug| {
        plant(Some(bug));
        let mut tried = 0..seeds_max;
        let found = tried.find_map(|seed| Some((seed, run(seed, events, false).err()?)));
        plant(None);
        match found {
            Some((seed, why)) => {
                let why: String = why.chars().take(150).collect();
                println!("{bug:?} is found by seed {seed}: {why}");
                // It is the bug that was found, not something else.
                let without = run(seed, events, false).err();
                without.map(|why| (seed, format!("fails without {bug:?} as well: {why}")))
            }
            None => {
                println!("{bug:?} is not found by {seeds_max} seeds");
                Some((0, format!("{bug:?} is not found")))
            }
        }
    };
    let next = AtomicU64::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    failures.lock().unwrap().extend(found(*bug));
                }
            });
        }
    });
    failures.into_inner().unwrap()
}

fn by_default(events: u64) -> ExitCode {
    let Outcomes { traces, mut failures } = run_all(0..200, events, None);
    for (seed, found) in KEPT {
        if let Err(why) = run(*seed, events, false) {
            println!("seed {seed}, which found {found}, failed {why}");
            failures.push((*seed, why));
        }
    }
    let plain = [Bug::ReadBeforeApply, Bug::DoubleApply, Bug::WatchGap, Bug::CommitOnly];
    failures.extend(plant_bugs(&plain, SEEDS_PER_PLAIN_BUG, events));
    // Again, and not among the same others.
    for (seed, trace) in traces.into_iter().step_by(20) {
        let again = run(seed, events, false).map(|run| run.trace).ok();
        if again != Some(trace) {
            println!("seed {seed} gives two traces: {trace:x} and {again:x?}");
            failures.push((seed, "two traces".into()));
        }
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
