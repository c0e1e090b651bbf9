//! Ports for the members that a test starts.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
/// The ports of outgoing connections lie above. A port from there could be taken by a connection
/// before the member binds it, or while the member is down.
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port without a listener, which no other call in this process returns.
pub fn free() -> u16 {
    // Test processes that run at the same time begin at different ports.
    let offset = (process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (offset + next) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
