//! Killed processes, power cuts, full disks and damaged files.
//!
//! `RUSD_CRASH_ROUNDS` sets the number of rounds, `RUSD_CRASH_SEED` where they begin; each round
//! prints its seed, and a failure shows the last one.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]
#![expect(clippy::print_stderr, reason = "a failure shows the seed of its round")]

mod checkpoint;
#[path = "../common/child.rs"]
mod child;
mod damage;
mod housekeeping;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/member.rs"]
mod member;
mod oracle;
#[path = "../common/ports.rs"]
mod ports;
#[path = "../common/preload.rs"]
mod preload;
mod server;
mod shim;
mod store;

use std::env;

const ROUNDS: u64 = 10;

fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |value| value.parse().unwrap())
}

/// Runs `round` with a seed of its own each time.
fn rounds(mut round: impl FnMut(u64)) {
    let first = number("RUSD_CRASH_SEED", 1);
    for seed in first..first + number("RUSD_CRASH_ROUNDS", ROUNDS) {
        eprintln!("RUSD_CRASH_SEED={seed}");
        round(seed);
    }
}
