//! The one owner of standard output and error.
//!
//! A reader that goes away (`rusd get … | head`) is no failure: what is left to say is dropped, and
//! the command ends with success. Under etcd's names it ends as etcd's tools do, by SIGPIPE. Output
//! that could not be written for any other reason makes a failure of a success: a script must not
//! take an empty file on a full disk for an answer.

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
    /// Whether nothing can be written to standard output any more.
    closed: AtomicBool,
    /// Why, unless its reader has gone away.
    failure: Mutex<Option<io::Error>>,
    /// Whether a reader that goes away ends the process.
    dies: bool,
    /// Log lines below this level are dropped.
    quiet: AtomicBool,
}

impl Printer {
    pub(super) fn new(program: Program) -> Self {
        Self {
            streams: Arc::new(Streams {
                out: Mutex::new(Box::new(io::stdout())),
                err: Mutex::new(Box::new(io::stderr())),
                closed: AtomicBool::new(false),
                failure: Mutex::default(),
                dies: program != Program::Rusd,
                quiet: AtomicBool::new(false),
            }),
        }
    }

    /// Writes to standard output at once.
    pub(super) fn out(&self, text: impl AsRef<[u8]>) {
        if self.closed() {
            return;
        }
        let mut out = self.streams.out.lock();
        if let Err(error) = out.write_all(text.as_ref()).and_then(|()| out.flush()) {
            self.streams.closed.store(true, Ordering::Relaxed);
            if error.kind() != io::ErrorKind::BrokenPipe {
                *self.streams.failure.lock() = Some(error);
            } else if self.streams.dies {
                die();
            }
        }
    }

    pub(super) fn line(&self, text: impl AsRef<str>) {
        self.out(format!("{}\n", text.as_ref()));
    }

    /// Writes to standard error. There is nowhere to report that it failed.
    pub(super) fn err(&self, text: impl AsRef<[u8]>) {
        let mut err = self.streams.err.lock();
        if let Err(error) = err.write_all(text.as_ref()).and_then(|()| err.flush())
            && error.kind() == io::ErrorKind::BrokenPipe
            && self.streams.dies
        {
            die();
        }
    }

    /// Whether nothing can be written to standard output any more.
    pub(super) fn closed(&self) -> bool {
        self.streams.closed.load(Ordering::Relaxed)
    }

    /// Why output is missing that somebody waits for.
    pub(super) fn failure(&self) -> Option<io::Error> {
        self.streams.failure.lock().take()
    }

    /// Drops warnings from now on.
    pub(super) fn silence_warnings(&self) {
        self.streams.quiet.store(true, Ordering::Relaxed);
    }

    /// A progress bar on standard error, or a hidden one where nobody looks. Without a total it
    /// only spins.
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

/// Ends the process as a write to a closed pipe ends one that knows nothing of it.
fn die() {
    // A system that has no such signal goes on.
    let _ = emulate_default_handler(SIGPIPE);
}

impl LogSink for Printer {
    fn line(&self, line: String) {
        if !self.streams.quiet.load(Ordering::Relaxed) {
            self.err(format!("{line}\n"));
        }
    }
}
