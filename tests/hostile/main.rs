//! Clients that demand too much, with a well-behaved client beside them.
//!
//! ```text
//!   member (a process) ◄── bystander: puts, gets, a watch, a lease ── quiet phase │ hostile phase
//!                      ◄── the hostile clients of the case           ─────────────┘
//! ```
//!
//! A case fails when the bystander sees an error, an ended stream or a lost connection. It also
//! fails when the member's memory exceeds the bounds of the case, while the hostile clients are
//! there or after they have gone. Latencies are printed and not asserted, since machines differ.
//!
//! `HOSTILE_SECONDS` sets the length of each phase (2 by default). `HOSTILE_BINARY` names another
//! server, such as etcd, for figures to compare with; its memory is printed and not asserted.

mod bystander;
mod case;
#[path = "../common/child.rs"]
mod child;
mod connections;
#[path = "../common/files.rs"]
mod files;
#[allow(dead_code, reason = "cases choose what they need")]
mod fixture;
mod frames;
mod histories;
mod json;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/member.rs"]
mod member;
#[path = "../common/ports.rs"]
mod ports;
mod resets;
mod small;
mod unfinished;
mod unread;
mod waiting;
