//! What people do wrong when they call a client, and what `rusd` says: one line in plain words with
//! the cause and what to try, soon, and the right exit code. And that every command ends, or says
//! what it waits for.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

#[path = "../common/child.rs"]
mod child;
mod connections;
mod directories;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/member.rs"]
mod member;
mod places;
#[path = "../common/ports.rs"]
mod ports;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "../common/shop.rs"]
mod shop;
mod table;
mod words;
