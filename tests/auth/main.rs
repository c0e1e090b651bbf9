//! Random users, roles, grants and requests against a member, judged by a model that knows only
//! single keys.
//!
//! ```text
//! cargo test --test auth                                    some thousand requests
//! RUSD_AUTH_CASES=100000 RUSD_AUTH_SEED=7 cargo test --test auth -- --nocapture
//! ```
//!
//! The universe has few keys, so that the model needs no arithmetic of ranges: a user may read a
//! key if a grant of one of his roles names it. Whatever leaves the member (pairs, previous pairs,
//! events, counts, outcomes of compares, keys of leases) must be of readable keys, whatever changes
//! must be writable, and no error may hold a value. What the model allows key by key is not
//! refused either, where a request names single keys alone.

#![expect(clippy::unwrap_used, reason = "a test program")]

mod cases;
mod model;
mod requests;
mod world;

#[cfg(debug_assertions)]
use rusd::planted::{Bug, plant_everywhere};

use world::World;

/// Requests between two changes of rights.
const CASES_A_WORLD: u64 = 40;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What the first case is that goes wrong, if any does.
async fn first_fault(seed: u64, cases: u64) -> Option<(u64, String)> {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::new(dir.path(), seed).await;
    let mut fault = None;
    for case in 0..cases {
        if case % CASES_A_WORLD == 0 {
            world.change().await;
        }
        if let Err(complaint) = world.case().await {
            fault = Some((case, complaint));
            break;
        }
    }
    world.node.stop().await;
    fault
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leaves_or_changes_that_was_not_granted() {
    let (cases, seed) = (setting("RUSD_AUTH_CASES", 2500), setting("RUSD_AUTH_SEED", 1));
    if let Some((case, complaint)) = first_fault(seed, cases).await {
        panic!("seed {seed}, case {case}: {complaint}");
    }
    // It would have been seen, had there been a way around.
    #[cfg(debug_assertions)]
    for bug in Bug::OF_AUTH {
        plant_everywhere(Some(bug));
        let fault = first_fault(seed, 2500).await;
        plant_everywhere(None);
        let (case, complaint) = fault.unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?} is found by case {case}: {complaint}");
    }
}
