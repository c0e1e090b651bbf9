//! `rusd doctor` on real processes: problems are planted into few clusters, many into each, and each
//! must be named; nothing may be said of what is healthy. The table of all problems, with those that
//! cost too much to plant into a process, is in `src/cli/commands/doctor/checks/tests.rs`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

#[path = "../common/child.rs"]
mod child;
mod cluster;
mod directory;
mod fixture;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/member.rs"]
mod member;
mod metrics;
#[path = "../common/ports.rs"]
mod ports;
mod secrets;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/shop.rs"]
mod shop;
mod tls;
