//! Programs that tests start, with the signals that they expect.
//!
//! What a process ignores, its children ignore: started under `nohup`, or in the background of a
//! script, the tests would have members and clients that no SIGINT ends. A signal with a handler
//! instead has its default action in a child, so signals that are ignored get a handler, which does
//! nothing.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::sync::{Arc, Once};

use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag;

/// The binary under test.
pub const RUSD: &str = env!("CARGO_BIN_EXE_rusd");

pub fn command(program: impl AsRef<OsStr>) -> Command {
    static HANDLED: Once = Once::new();
    HANDLED.call_once(|| {
        let ignored = ignored();
        for signal in [SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2] {
            if ignored >> (signal - 1) & 1 == 1 {
                flag::register(signal, Arc::default()).unwrap();
            }
        }
    });
    Command::new(program)
}

/// The signals that this process ignores, one bit each; none where the system does not say.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
