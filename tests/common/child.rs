//! Programs that tests start, with the default action for every signal.
//!
//! A child ignores the signals that its parent ignores: under `nohup`, or in the background of a
//! script, no SIGINT would end the members and clients that tests start. A signal with a handler
//! has its default action in a child. So each ignored signal gets a handler here, which does
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

/// The signals that this process ignores, one bit each; 0 where /proc does not tell.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default()
}
