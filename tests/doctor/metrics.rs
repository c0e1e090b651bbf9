//! What members tell of themselves for the doctor's sake, and `space`.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::fixture::{Server, good, rusd, text};
use super::member::{free_address, get};

/// What nothing needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn value(server: &Server, series: &str) -> f64 {
    let metrics = get(server.address(), "/metrics");
    let found = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {series} in {metrics}")).trim().parse().unwrap()
}

fn start(root: &tempfile::TempDir, more: &[&str]) -> Server {
    let mut server = Server::new(root, "one");
    let initial = format!("one={}", server.peer);
    server.start(&[&["--initial-cluster", &initial], more].concat());
    server.wait_for("/health", "\"health\":\"true\"");
    server
}

#[test]
fn a_member_tells_of_its_machine() {
    let root = tempfile::tempdir().unwrap();
    let server = start(&root, &[]);
    let build = format!("rusd_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(value(&server, &build), 1.0);
    let now = || {
        let since = std::time::UNIX_EPOCH.elapsed();
        since.unwrap().as_secs_f64()
    };
    let before = now();
    let clock = value(&server, "rusd_wall_clock_seconds");
    assert!(clock >= before - 0.1 && clock <= now() + 0.1, "{clock} at {before}");
    let (free, total) =
        (value(&server, "rusd_disk_free_bytes"), value(&server, "rusd_disk_total_bytes"));
    assert!(free > 0.0 && free <= total, "{free} of {total}");
    let saved = "rusd_last_snapshot_save_timestamp_seconds";
    assert_eq!(value(&server, saved), 0.0);
    let copy = root.path().join("copy.db");
    good(&["snapshot", "save", text(&copy), "--endpoints", &server.client]);
    assert!(value(&server, saved) >= before.floor(), "{} {before}", value(&server, saved));
    for key in ["a", "b", "c", "d", "e"] {
        good(&["put", key, &"x".repeat(100_000), "--endpoints", &server.client]);
    }
    let begun = Instant::now();
    while value(&server, "rusd_space_growth_bytes") < 400_000.0
        || value(&server, "rusd_space_growth_seconds") < 1.0
    {
        assert!(begun.elapsed() < PATIENCE, "{}", get(server.address(), "/metrics"));
        sleep(Duration::from_millis(100));
    }
}

#[test]
fn space_ends_in_time_and_shows_alarms() {
    let root = tempfile::tempdir().unwrap();
    let nobody = free_address();
    let words = ["space", "--endpoints", &nobody, "--command-timeout=1s"];
    let begun = Instant::now();
    assert!(!rusd(&words).status.success());
    assert!(begun.elapsed() < PATIENCE, "it waits for a report of nobody");

    let server = start(&root, &["--quota-backend-bytes=100000"]);
    let of = ["--endpoints", server.client.as_str()];
    let refused = rusd(&[&["put", "k", &"x".repeat(100_000)], &of[..]].concat());
    assert!(!refused.status.success());
    server.wait_for("/health", "NOSPACE");
    let said = good(&[&["space"], &of[..]].concat());
    assert!(said.contains("\nalarm      NOSPACE"), "{said}");
    let next = format!("next       rusd --endpoints {} compaction --physical 1\n", server.client);
    assert!(said.contains(&next), "{said}");
    let json = good(&[&["space", "-w", "json"], &of[..]].concat());
    assert!(json.contains(r#""alarms":["NOSPACE"]"#), "{json}");
}
