//! The only owner of standard output and standard error.
//!
//! Under the name `rusd` whatever goes to a terminal is escaped here, so that no key, value, name
//! or error of a server can command it. Pipes get the bytes as they are, and so do terminals under
//! etcd's names.
//!
//! A reader that goes away (`rusd get … | head`) is no failure: the rest of the output is dropped,
//! and the command ends with success. Under etcd's names it is ended by SIGPIPE, as etcd's tools
//! are. If output cannot be written for another reason, a success becomes a failure: a script must
//! not take an empty file on a full disk for an answer.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use signal_hook::consts::SIGPIPE;
use signal_hook::low_level::emulate_default_handler;

use super::grid::wrapped;
use super::spec::Program;
use super::terminal::{self, Colour, Page, Style, escape};
use crate::client::{Event, LogSink};
use progress::Drawn;

mod progress;

pub(super) use progress::{OnSignal, Progress, Unit};

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
    /// Whether rusd's own kindness applies: escapes, colours, bars and questions.
    is_rusd: bool,
    /// Whether standard output and standard error are terminals that get escaped text.
    is_screen: [bool; 2],
    colour: Mutex<Colour>,
    bar: Drawn,
    catches_signals: AtomicBool,
    /// Whether those lines are shown that are for who looks for a fault.
    shows_details: AtomicBool,
}

/// Indices of `is_screen`.
const OUT: usize = 0;
const ERR: usize = 1;

impl Printer {
    pub(super) fn new(program: Program) -> Self {
        let is_rusd = program == Program::Rusd;
        let is_screen = [io::stdout().is_terminal(), io::stderr().is_terminal()];
        let is_screen = is_screen.map(|is_terminal| is_terminal && is_rusd);
        Self::of(Box::new(io::stdout()), Box::new(io::stderr()), is_rusd, is_screen)
    }

    /// One that says nothing.
    pub(super) fn silent() -> Self {
        Self::of(Box::new(io::sink()), Box::new(io::sink()), true, [false; 2])
    }

    fn of(
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
        is_rusd: bool,
        is_screen: [bool; 2],
    ) -> Self {
        Self {
            streams: Arc::new(Streams {
                out: Mutex::new(out),
                err: Mutex::new(err),
                closed: AtomicBool::new(false),
                failure: Mutex::default(),
                dies_on_sigpipe: !is_rusd,
                drops_log: AtomicBool::new(false),
                is_rusd,
                is_screen,
                colour: Mutex::default(),
                bar: Drawn::default(),
                catches_signals: AtomicBool::new(false),
                shows_details: AtomicBool::new(false),
            }),
        }
    }

    /// Sets what `--color` says; fails with a text if that is none of its values.
    pub(super) fn set_colour(&self, name: &[u8]) -> Result<(), String> {
        let Some(colour) = Colour::parse(name) else {
            let (name, names) = (terminal::shown(name), Colour::NAMES.join(", "));
            return Err(format!("unknown --color {name}; it is one of {names}"));
        };
        *self.streams.colour.lock() = colour;
        Ok(())
    }

    /// Whether a person reads standard output: it is a terminal, or `--color always` makes it one.
    pub(super) fn has_reader(&self) -> bool {
        self.streams.is_screen[OUT] || self.is_coloured(OUT)
    }

    /// Whether standard output is a terminal, and the program is rusd.
    pub(super) fn is_screen(&self) -> bool {
        self.streams.is_screen[OUT]
    }

    /// Whether standard error is a terminal, and the program is rusd.
    pub(super) fn errors_on_screen(&self) -> bool {
        self.streams.is_screen[ERR]
    }

    /// The columns of standard output; `usize::MAX` if it is no terminal.
    pub(super) fn width(&self) -> usize {
        terminal::width(&io::stdout())
    }

    fn is_coloured(&self, stream: usize) -> bool {
        self.streams.is_rusd && self.streams.colour.lock().applies(self.streams.is_screen[stream])
    }

    /// Writes to standard output and flushes it. A terminal gets the text escaped.
    pub(super) fn out(&self, text: impl AsRef<[u8]>) {
        match self.streams.is_screen[OUT] {
            true => self.write(&escape(text.as_ref(), false)),
            false => self.write(text.as_ref()),
        }
    }

    /// Writes a page to standard output, with its colours if there are any.
    pub(super) fn page(&self, page: &Page) {
        self.write(&page.render(self.streams.is_screen[OUT], self.is_coloured(OUT)));
    }

    fn write(&self, bytes: &[u8]) {
        if self.closed() {
            return;
        }
        let mut out = self.streams.out.lock();
        let written = self.beside_bar(|| out.write_all(bytes).and_then(|()| out.flush()));
        if let Err(error) = written {
            self.streams.closed.store(true, Ordering::Relaxed);
            if error.kind() != io::ErrorKind::BrokenPipe {
                *self.streams.failure.lock() = Some(error);
            } else if self.streams.dies_on_sigpipe {
                die();
            }
        }
    }

    /// Writes while no bar is on the line.
    fn beside_bar<T>(&self, write: impl FnOnce() -> T) -> T {
        let bar = self.streams.bar.lock().clone();
        match bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    pub(super) fn line(&self, text: impl AsRef<str>) {
        self.out(format!("{}\n", text.as_ref()));
    }

    /// Writes lines of sentences; on a terminal they are broken between words.
    pub(super) fn sentences(&self, text: &str) {
        if !self.is_screen() {
            return self.out(format!("{text}\n"));
        }
        let columns = self.width();
        for line in text.lines() {
            wrapped(&terminal::shown(line.as_bytes()), columns).iter().for_each(|it| self.line(it));
        }
    }

    /// Writes to standard error. A failure has nowhere to be reported. A terminal gets the text
    /// escaped, and the word that it begins with in the colour of what it says.
    pub(super) fn err(&self, text: impl AsRef<[u8]>) {
        const WORDS: [(&[u8], Style); 3] =
            [(b"Error:", Style::Bad), (b"Failed", Style::Bad), (b"Warning:", Style::Warning)];
        let text = self.fitted(text.as_ref());
        let mut page = Page::default();
        let word = WORDS.iter().find(|(word, _)| text.starts_with(word));
        let (word, style) = word.copied().unwrap_or_default();
        page.text(style, word).text(Style::Plain, &text[word.len()..]);
        let bytes = page.render(self.streams.is_screen[ERR], self.is_coloured(ERR));
        let mut err = self.streams.err.lock();
        let written = self.beside_bar(|| err.write_all(&bytes).and_then(|()| err.flush()));
        if let Err(error) = written
            && error.kind() == io::ErrorKind::BrokenPipe
            && self.streams.dies_on_sigpipe
        {
            die();
        }
    }

    /// Lines for standard error; on a terminal those that are too long are broken between words.
    fn fitted<'a>(&self, text: &'a [u8]) -> Cow<'a, [u8]> {
        let columns = match self.streams.is_screen[ERR] {
            true => terminal::width(&io::stderr()),
            false => return Cow::Borrowed(text),
        };
        match str::from_utf8(text) {
            Ok(text) => Cow::Owned(fitted(text, columns).into_bytes()),
            Err(_) => Cow::Borrowed(text),
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

    /// Shows lines for who looks for a fault from this call on. etcd's tools do not hide them.
    pub(super) fn show_details(&self) {
        self.streams.shows_details.store(true, Ordering::Relaxed);
    }

    /// A line of etcdctl's log. Under the name rusd it is a detail in plain words instead.
    pub(super) fn log(&self, json: impl FnOnce() -> String, words: impl FnOnce() -> String) {
        let streams = &self.streams;
        if streams.drops_log.load(Ordering::Relaxed) {
            return;
        }
        if !streams.is_rusd {
            self.err(format!("{}\n", json()));
        } else if streams.shows_details.load(Ordering::Relaxed) {
            self.err(format!("{}\n", words()));
        }
    }

    /// A progress bar on standard error; hidden where nobody could see it. Without a total it is a
    /// spinner.
    pub(super) fn progress(
        &self,
        total: u64,
        unit: Unit,
        title: impl AsRef<[u8]>,
        on_signal: OnSignal,
    ) -> Progress {
        if !self.errors_on_screen() || terminal::is_dumb() {
            return Progress::hidden();
        }
        let drawn = Arc::clone(&self.streams.bar);
        if on_signal == OnSignal::End && !self.streams.catches_signals.swap(true, Ordering::Relaxed)
        {
            progress::clear_at_signals(Arc::clone(&drawn));
        }
        Progress::draw(drawn, total, unit, &terminal::shown(title.as_ref()))
    }
}

/// The text with its lines broken between words where they have more columns than this.
fn fitted(text: &str, columns: usize) -> String {
    let lines = text.split('\n').map(|line| wrapped(line, columns).join("\n"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Ends the process by SIGPIPE, as if Rust had not set that signal to be ignored.
fn die() {
    // The error is ignored: on a system without the signal the command goes on.
    let _ = emulate_default_handler(SIGPIPE);
}

impl LogSink for Printer {
    fn event(&self, event: &Event<'_>) {
        match event.json() {
            Some(json) => self.log(|| json, || event.words()),
            // What etcd's client does not log concerns who waits.
            None => self.err(format!("{}\n", event.words())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_broken_between_words() {
        assert_eq!(
            fitted("Error: one two three\nUsage: x\n", 14),
            "Error: one two\nthree\nUsage: x\n"
        );
        assert_eq!(fitted("", 14), "");
    }
}
