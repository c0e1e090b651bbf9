//! Signals: some stop the server in order, some have no effect, some print what the threads do.
//!
//! Each has the effect that it has on a program in Go, whose runtime takes all signals: those that
//! nobody asked for pass without effect; HUP, INT and TERM end the process by their default action;
//! QUIT and the signals of invalid code print what the threads do and end with exit code 2.

use std::fs;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{
    SIGALRM, SIGIO, SIGPROF, SIGPWR, SIGQUIT, SIGSTKFLT, SIGSYS, SIGTRAP, SIGUSR1, SIGUSR2,
    SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::supervise::Supervisor;

/// Signals whose default action ends a process and that mean nothing to this one.
const STRAYS: [i32; 9] =
    [SIGUSR1, SIGUSR2, SIGALRM, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO, SIGPWR];
/// Real-time signals, which end a process by default as well. Those below belong to the C library.
const REAL_TIME_STRAYS: std::ops::RangeInclusive<i32> = 35..=64;

/// Signals that print what the threads do and end the process. ABRT, BUS, FPE, ILL and SEGV are
/// left to the system and to the standard library, which checks whether a stack was full: they come
/// from a broken process, which may leave a core.
const QUESTIONS: [(i32, &str); 4] = [
    (SIGQUIT, "SIGQUIT: quit"),
    (SIGTRAP, "SIGTRAP: trace trap"),
    (SIGSTKFLT, "SIGSTKFLT: stack fault"),
    (SIGSYS, "SIGSYS: bad system call"),
];

/// Installs handlers, for the life of the process, for signals that must not end it by their
/// default action. The signals are not ignored instead, because programs that the process starts
/// would inherit that.
pub fn take_strays() {
    let nothing = Arc::new(AtomicBool::new(false));
    for number in STRAYS.into_iter().chain(REAL_TIME_STRAYS) {
        // It fails for a number that the system does not have, which cannot be sent either.
        drop(signal_hook::flag::register(number, Arc::clone(&nothing)));
    }
    let numbers = QUESTIONS.map(|(number, _)| number);
    let Ok(mut asked) = signal_hook::iterator::Signals::new(numbers) else { return };
    let answer = move || {
        if let Some(number) = asked.forever().next() {
            let name = QUESTIONS.iter().find(|(known, _)| *known == number);
            let text = format!("{}\n\n{}", name.map_or("", |(_, name)| name), thread_states());
            drop(std::io::stderr().write_all(text.as_bytes()));
            signal_hook::low_level::exit(2);
        }
    };
    // If this thread cannot be started, the signals are caught and have no effect.
    drop(Supervisor::default().thread("signals", answer));
}

/// The state of each thread of this process, one a line.
fn thread_states() -> String {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let mut ids: Vec<u32> =
        tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect();
    ids.sort_unstable();
    ids.into_iter().filter_map(thread_state).collect()
}

/// The line of one thread; None once it has ended.
fn thread_state(id: u32) -> Option<String> {
    let read = |file: &str| fs::read_to_string(format!("/proc/self/task/{id}/{file}"));
    let stat = read("stat").ok()?;
    // The name stands in brackets and may hold anything.
    let (name, rest) = (stat.split_once('(')?.1).rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let state = match *fields.first()? {
        "R" => "running",
        "S" => "sleeping",
        "D" => "waiting for a disk",
        "T" | "t" => "stopped",
        "Z" | "X" => "ended",
        other => other,
    };
    let ticks: u64 = fields.get(11..13)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    let ran = ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64;
    let place = read("wchan").unwrap_or_default();
    let place = match place.as_str() {
        "" | "0" => String::new(),
        place => format!(" in {place}"),
    };
    Some(format!("thread {id} {name}: {state}{place}, ran {ran:.2}s\n"))
}

/// Exit code of the first process of a container that is told to end before it serves, as Go's.
const EARLY_END: i32 = 2;

/// Lets the first process of a container end by a signal that comes before `Signals::catch`. Other
/// processes end by the default action, which the system does not take for this one: a member that
/// loads for long would be killed only after the container's time to stop. `catch` needs what is
/// returned.
pub(super) fn end_early_if_first() -> Arc<AtomicBool> {
    let is_early = Arc::new(AtomicBool::new(true));
    if std::process::id() == 1 {
        for number in [libc::SIGTERM, libc::SIGINT] {
            // It never fails for these signals.
            let ends = signal_hook::flag::register_conditional_shutdown(
                number,
                EARLY_END,
                Arc::clone(&is_early),
            );
            drop(ends);
        }
    }
    is_early
}

/// Ends the process the way its signal would have. The first process of a container cannot be
/// killed by a default action, so it ends with success.
pub(super) fn die_by(signal: i32) -> ExitCode {
    if std::process::id() == 1 {
        return ExitCode::SUCCESS;
    }
    drop(signal_hook::low_level::emulate_default_handler(signal));
    ExitCode::from(128_u8.saturating_add(u8::try_from(signal).unwrap_or(0)))
}

/// The signals that stop the server in order. Before `catch`, they end the process at once.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn catch(is_early: &AtomicBool) -> Result<Self, String> {
        let catch = |kind| signal(kind).map_err(|error| error.to_string());
        let (terminate, interrupt) =
            (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
        is_early.store(false, Ordering::Relaxed);
        Ok(Self { terminate, interrupt })
    }

    /// Waits for the next one and returns its number.
    pub(super) async fn next(&mut self) -> i32 {
        let (number, name) = tokio::select! {
            _ = self.terminate.recv() => (libc::SIGTERM, "terminated"),
            _ = self.interrupt.recv() => (libc::SIGINT, "interrupt"),
        };
        tracing::info!(signal = name, "received signal; shutting down");
        number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_named_with_what_they_do() {
        let (send, receive) = std::sync::mpsc::sync_channel::<()>(0);
        let waits = std::thread::Builder::new().name("a (b) c".into());
        let waits = waits.spawn(move || receive.recv()).unwrap();
        let is_said = || thread_states().lines().any(|line| line.contains(" a (b) c: sleeping"));
        for _ in 0..1000 {
            if is_said() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(is_said(), "{}", thread_states());
        drop(send);
        assert!(waits.join().unwrap().is_err());
    }
}
