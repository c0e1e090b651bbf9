//! The one owner of standard output and error.
//!
//! A reader that goes away (`etcdctl get … | head`) is no failure: what is left to say is dropped,
//! and the command ends with success.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;

use crate::client::LogSink;

/// Clones write to the same streams.
#[derive(Clone)]
pub(super) struct Printer {
    streams: Arc<Streams>,
}

struct Streams {
    out: Mutex<Box<dyn Write + Send>>,
    err: Mutex<Box<dyn Write + Send>>,
    /// Whether standard output's reader has gone away.
    closed: AtomicBool,
    /// Log lines below this level are dropped.
    quiet: AtomicBool,
}

impl Printer {
    pub(super) fn new() -> Self {
        Self {
            streams: Arc::new(Streams {
                out: Mutex::new(Box::new(io::stdout())),
                err: Mutex::new(Box::new(io::stderr())),
                closed: AtomicBool::new(false),
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
        if out.write_all(text.as_ref()).and_then(|()| out.flush()).is_err() {
            self.streams.closed.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn line(&self, text: impl AsRef<str>) {
        self.out(format!("{}\n", text.as_ref()));
    }

    /// Writes to standard error. There is nowhere to report that it failed.
    pub(super) fn err(&self, text: impl AsRef<[u8]>) {
        let mut err = self.streams.err.lock();
        let _ = err.write_all(text.as_ref()).and_then(|()| err.flush());
    }

    /// Whether nobody reads standard output any more.
    pub(super) fn closed(&self) -> bool {
        self.streams.closed.load(Ordering::Relaxed)
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

impl Default for Printer {
    fn default() -> Self {
        Self::new()
    }
}

impl LogSink for Printer {
    fn line(&self, line: String) {
        if !self.streams.quiet.load(Ordering::Relaxed) {
            self.err(format!("{line}\n"));
        }
    }
}
