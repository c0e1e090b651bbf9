//! Ports for the members that a test starts.

use std::net::TcpListener;
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 10_000;
/// Systems take the ports of outgoing connections from above. A port from there could be taken by
/// one of them before the member binds it, or while the member is down.
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port that nobody listens on, and that no other call of this process returns.
pub fn free() -> u16 {
    // Processes that run side by side begin at different places.
    let offset = (process::id().wrapping_mul(97) % u32::from(COUNT)) as u16;
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (offset + next) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
