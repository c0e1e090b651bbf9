//! rusd: etcd's key-value store in one binary.
//!
//! Imports point down only, and rooms of one layer never import each other, except in layer 0;
//! `tests/tidy` holds both.
//!
//! | layer | room | what it is |
//! |---|---|---|
//! | 10 | `server` | configuration, listeners, bootstrap, shutdown |
//! | 9 | `http`, `gateway` | health, version and metrics; etcd's API as JSON |
//! | 8 | `rpc`, `offline` | one file per gRPC service, the error table; backups, members at rest |
//! | 7 | `node` | raft meets apply: start, propose, read, watch, membership, auth |
//! | 6 | `transfer` | states on their way: snapshots in and out, the first state of a cluster |
//! | 5 | `upkeep` | sweeps, index checkpoint, scrub, defragmentation, space, comparisons |
//! | 4 | `peer` | raft's messages, snapshots and questions between members, over HTTP |
//! | 3 | `apply`, `watch`, `raft` | the state machine, the event hub, the log and consensus |
//! | 2 | `mvcc`, `lease`, `auth`, `members` | the state by subject |
//! | 1 | `store`, `bbolt`, `dns` | LMDB, etcd's snapshot file, SRV records |
//! | 0 | `pb`, `types`, `limits`, `clock`, `metrics`, `supervise`, `tls`, `files`, `go`, `trace`, `planted` | messages, values, bounds, time and chance, gauges, threads and tasks, secured streams, files that are regular, Go's text forms, spans, bugs for tests |
//!
//! Beside them `client` and `cert` use layer 0 only and serve `server`, and `cli` stands above all.

#![warn(unreachable_pub)]
#![deny(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used
)]

// The simulator's disk, which the library's own tests use as well, names this crate `rusd`.
#[cfg(test)]
extern crate self as rusd;

pub mod apply;
pub mod auth;
pub mod bbolt;
pub mod cert;
pub mod cli;
pub mod client;
pub mod clock;
pub mod dns;
pub mod files;
pub mod gateway;
pub mod go;
pub mod http;
pub mod lease;
pub mod limits;
pub mod members;
pub mod metrics;
pub mod mvcc;
pub mod node;
pub mod offline;
pub mod pb;
pub mod peer;
pub mod planted;
pub mod raft;
pub mod rpc;
pub mod server;
pub mod store;
pub mod supervise;
pub mod tls;
pub mod trace;
pub mod transfer;
pub mod types;
pub mod upkeep;
pub mod watch;
