//! Fuzzing: bytes that nobody promised, at every place where rusd reads some.
//!
//! ```text
//! cargo test --test fuzz                            what is kept, half a second of chance for each target,
//!                                                   and whether bugs that are planted are found
//! cargo test --release --test fuzz -- --target NAME --seconds N [--seed S]    as long as wanted
//! cargo test --test fuzz -- --list                  the targets
//! cargo test --test fuzz -- --target NAME --replay FILE
//! cargo test --release --test fuzz -- [--target NAME] --keep    what was found becomes what is kept
//! ```
//!
//! A target is a piece of rusd, given an input. An input is made from others: bits, numbers and
//! words are changed, pieces are moved, protobuf fields nested; then, half of the time, checksums
//! and signatures are made right again, since nothing behind a checksum would be met otherwise. One
//! that reaches what none before it reached joins the others. A failure is a panic in any thread,
//! an arithmetic overflow, an input that hangs, memory out of proportion, and whatever a target
//! asserts: what a reader accepts and a writer writes again is read as the same. The input is cut
//! down and written to a file, whose name is printed.
//!
//! What is reached is known best if the compiler counts it. Stable Rust does, if it is told so for
//! this target alone (build scripts are not to be counted, hence `--target`):
//!
//! ```text
//! RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3 \
//!   -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Coverflow-checks=on -Cdebug-assertions=on \
//!   -Clink-arg=-Wl,--unresolved-symbols=ignore-all" CARGO_PROFILE_RELEASE_LTO=off \
//! cargo test --release --target x86_64-unknown-linux-gnu --test fuzz -- --target bbolt --seconds 600
//! ```
//!
//! The `rusd` that this builds beside the test does not start: what is counted here is not defined
//! there. Without the flags, what a run says about itself stands in: the texts of errors without
//! their numbers, sizes in powers of two. Then overflows are noticed by debug builds only.
//!
//! The kept inputs are few: for each target at most sixty, those that together reach the most of
//! all that was ever reached. Seconds are a processor's, so that a busy machine does not shorten a
//! search. A target with a state, such as a member, starts anew now and then, and what it went
//! through since goes into the failing input.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

mod coverage;
mod engine;
mod memory;
mod mutate;
mod targets;

use std::process::ExitCode;
use std::time::Duration;

use engine::Search;
use targets::{PLANTED, TARGETS};

/// How long each target is searched by default.
const DEFAULT_MILLIS: u64 = 500;

/// Whether a search finds bugs: a panic, memory out of proportion, and in a debug build an overflow.
fn finds_what_is_planted(seed: u64) -> bool {
    let mut search = Search::new(&PLANTED, seed);
    search.silent = true;
    search.begin();
    search.search(Duration::from_millis(DEFAULT_MILLIS), false);
    let expected = 2 + usize::from(cfg!(debug_assertions));
    let found: Vec<&String> = search.failures.keys().collect();
    if found.len() < expected {
        println!("planted: FAILED: of {expected} bugs only these are found: {found:?}");
    }
    found.len() >= expected
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if has("--list") {
        TARGETS.iter().for_each(|target| println!("{}: {}", target.name, target.what));
        return ExitCode::SUCCESS;
    }
    let name = value("--target");
    let chosen =
        TARGETS.iter().filter(|target| name.as_ref().is_none_or(|name| target.name == *name));
    let chosen: Vec<_> = chosen.collect();
    if chosen.is_empty() {
        println!("there is no such target; --list says which there are");
        return ExitCode::FAILURE;
    }
    engine::watch();
    let seed = value("--seed").map_or(1, |seed| seed.parse().unwrap());
    let mut failed = name.is_none() && !has("--keep") && !finds_what_is_planted(seed);
    for entry in chosen {
        let mut search = Search::new(entry, seed);
        if let Some(path) = value("--replay") {
            let outcome = search.replay(&path);
            println!("{}: {outcome:?}", entry.name);
            failed |= outcome.is_err();
        } else if has("--keep") {
            search.keep();
        } else {
            let seconds = value("--seconds").map(|seconds| seconds.parse().unwrap());
            let limit = seconds.map_or(Duration::from_millis(DEFAULT_MILLIS), Duration::from_secs);
            search.begin();
            search.search(limit, seconds.is_some());
            if seconds.is_none() {
                println!("{}", search.summary(limit));
            }
            failed |= !search.failures.is_empty();
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
