//! What is shipped beside the binary: units, the container's root file system, the Helm chart, the
//! installer, and rules and dashboards for monitoring. Each names flags, variables, commands or
//! metrics of the binary, and none of them may name one that is not there.
//!
//! Tools that may be missing (systemd-analyze, shellcheck, helm, promtool) are used where they are at
//! hand; a test that lacks its tool says so and passes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

#[path = "../common/child.rs"]
mod child;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/member.rs"]
mod member;
#[path = "../common/ports.rs"]
mod ports;

mod chart;
mod files;
mod installer;
mod join;
mod manifests;
mod monitoring;
mod rootfs;
mod units;
