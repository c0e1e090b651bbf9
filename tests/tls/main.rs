//! TLS of the real binary: who is let in on the client port and on the peer port, which starts are
//! refused, what slow clients cost the others, and files that change under load.

mod cases;
#[path = "../common/child.rs"]
mod child;
mod commands;
#[path = "../common/files.rs"]
mod files;
mod gateway;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/member.rs"]
mod member;
#[path = "../common/names.rs"]
mod names;
#[path = "../common/ports.rs"]
mod ports;
mod rotation;
mod server;
mod shared;
#[path = "../common/shop.rs"]
mod shop;
