//! The only owner of standard output and standard error.
//!
//! A reader that goes away (`rusd get … | head`) is no failure: the rest of the output is dropped,
//! and the command ends with success. Under etcd's names it is ended by SIGPIPE, as etcd's tools
//! are. If output cannot be written for another reason, a success becomes a failure: a script must
//! not take an empty file on a full disk for an answer.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use signal_hook::consts::SIGPIPE;
use signal_hook::low_level::emulate_default_handler;

use super::spec::Program;
use crate::client::LogSink;

/// Clones write to the same streams.
#[derive(Clone)]
pub(super) struct Printer {
    streams: Arc<Streams>,
}

struct Streams {
    out: Mutex<Box<dyn Write + Send>>,
    err: Mutex<Box<dyn Write + Send>>,
    /// Set after a failed write: further output is dropped.
    closed: AtomicBool,
    /// The error of that write, unless it was a closed pipe.
    failure: Mutex<Option<io::Error>>,
    /// Whether a closed pipe ends the process.
    dies_on_sigpipe: bool,
    /// Whether the client's log lines are dropped.
    drops_log: AtomicBool,
}

impl Printer {
    pub(super) fn new(program: Program) -> Self {
        Self {
            streams: Arc::new(Streams {
                out: Mutex::new(Box::new(io::stdout())),
                err: Mutex::new(Box::new(io::stderr())),
                closed: AtomicBool::new(false),
                failure: Mutex::default(),
                dies_on_sigpipe: program != Program::Rusd,
                drops_log: AtomicBool::new(false),
            }),
        }
    }

    /// Writes to standard output and flushes it.
    pub(super) fn out(&self, text: impl AsRef<[u8]>) {
        if self.closed() {
            return;
        }
        let mut out = self.streams.out.lock();
        if let Err(error) = out.write_all(text.as_ref()).and_then(|()| out.flush()) {
            self.streams.closed.store(true, Ordering::Relaxed);
            if error.kind() != io::ErrorKind::BrokenPipe {
                *self.streams.failure.lock() = Some(error);
            } else if self.streams.dies_on_sigpipe {
                die();
            }
        }
    }

    pub(super) fn line(&self, text: impl AsRef<str>) {
        self.out(format!("{}\n", text.as_ref()));
    }

    /// Writes to standard error. A failure has nowhere to be reported.
    pub(super) fn err(&self, text: impl AsRef<[u8]>) {
        let mut err = self.streams.err.lock();
        if let Err(error) = err.write_all(text.as_ref()).and_then(|()| err.flush())
            && error.kind() == io::ErrorKind::BrokenPipe
            && self.streams.dies_on_sigpipe
        {
            die();
        }
    }

    /// Whether an earlier write to standard output failed, so that nothing more can be shown.
    pub(super) fn closed(&self) -> bool {
        self.streams.closed.load(Ordering::Relaxed)
    }

    /// Takes the error that made output incomplete.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.streams.failure.lock().take()
    }

    /// Drops all log lines of the client from this call on.
    pub(super) fn silence_warnings(&self) {
        self.streams.drops_log.store(true, Ordering::Relaxed);
    }

    /// A progress bar on standard error, hidden if that is no terminal. Without a total it is a
    /// spinner.
    pub(super) fn progress(&self, total: u64, title: &str) -> ProgressBar {
        if !io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let (bar, template) = match total {
            0 => (ProgressBar::new_spinner(), "{spinner} {prefix} {msg}"),
            total => (ProgressBar::new(total), "{prefix} [{bar:40}] {msg}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(title.to_string());
        bar
    }
}

/// Ends the process by SIGPIPE, as if Rust had not set that signal to be ignored.
fn die() {
    // The error is ignored: on a system without the signal the command goes on.
    let _ = emulate_default_handler(SIGPIPE);
}

impl LogSink for Printer {
    fn line(&self, line: String) {
        if !self.streams.drops_log.load(Ordering::Relaxed) {
            self.err(format!("{line}\n"));
        }
    }
}
