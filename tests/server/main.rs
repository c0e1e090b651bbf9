//! The real binary, treated badly: bytes and requests that nobody should send, clients that do not
//! read, directories that belong to others, signals.

mod bounds;
#[path = "../common/child.rs"]
mod child;
mod collector;
mod console;
#[path = "../common/files.rs"]
mod files;
mod fixture;
mod flags;
mod http1;
mod input;
mod lines;
mod logins;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/member.rs"]
mod member;
mod metrics;
#[path = "../common/names.rs"]
mod names;
mod network;
mod offline;
mod panics;
#[path = "../common/ports.rs"]
mod ports;
mod process;
mod relay;
#[path = "../common/scrape.rs"]
mod scrape;
mod slow;
mod special;
mod starts;
mod traces;
