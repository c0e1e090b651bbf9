//! The places that log lines are written to. None of them holds up whoever logs for long.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open as open_raw};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{SendFlags, send};
use rustix::termios::{isatty, tcgetwinsize};

use crate::clock;
use crate::limits::{LOG_WRITE_LATE, LOG_WRITE_MAX, LOG_WRITE_REST, LOG_WRITE_RETRY};
use crate::server::config;
use crate::server::journal::Journal;
use crate::server::rotate::Rotated;

use super::human::Style;

/// Bytes that a pipe which is ready certainly takes at once: Linux's `PIPE_BUF`.
pub(super) const PIECE_BYTES: usize = 4096;

pub(super) enum Sink {
    Stderr(io::Stderr),
    Stdout(io::Stdout),
    File(File),
    Rotated(Rotated),
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Stderr(stderr) => stderr.as_fd(),
            Self::Stdout(stdout) => stdout.as_fd(),
            Self::File(file) => file.as_fd(),
            Self::Rotated(file) => file.as_fd(),
        }
    }
}

/// A place that lines are written to.
pub(super) struct Output {
    /// Gets each line first; the sink gets what it does not take.
    pub(super) journal: Option<Journal>,
    sink: Sink,
    /// Lines that were not written since one was.
    pub(super) lost: u64,
    /// Whether the last line ends in the middle.
    is_cut: bool,
    is_socket: bool,
    /// Whether a person reads it.
    is_terminal: bool,
    /// Until when lines wait for nothing, since one has waited for long.
    rests_until: Option<Instant>,
}

/// Another handle of a pipe or a terminal, by which a write never waits: `poll` says that a terminal
/// takes something, and it then takes less than a line. The first handle may be other processes', so
/// that its flags are not ours to change.
fn reopened(fd: BorrowedFd<'_>, kind: Option<FileType>) -> Option<File> {
    if kind != Some(FileType::Fifo) && !isatty(fd) {
        return None;
    }
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open_raw(path, flags, Mode::empty()).ok().map(File::from)
}

/// Whether the environment lets lines be coloured: see no-color.org.
fn has_colours() -> bool {
    let asks_for_none = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    !asks_for_none && !is_dumb
}

/// A line, and what it says of itself.
pub(super) struct Line<'a> {
    pub(super) level: config::Level,
    pub(super) caller: &'a str,
    pub(super) text: &'a str,
}

impl Output {
    pub(super) fn new(sink: Sink) -> Self {
        let kind = fstat(&sink).ok().map(|stat| FileType::from_raw_mode(stat.st_mode));
        let is_socket = kind == Some(FileType::Socket);
        let is_terminal = isatty(&sink);
        let sink = reopened(sink.as_fd(), kind).map_or(sink, Sink::File);
        Self {
            journal: None,
            sink,
            lost: 0,
            is_cut: false,
            is_socket,
            is_terminal,
            rests_until: None,
        }
    }

    /// How lines for people are shown here: on a terminal folded at its width, and coloured unless
    /// the environment asks for no colours.
    pub(super) fn style(&self) -> Style {
        if !self.is_terminal {
            return Style::default();
        }
        let columns = tcgetwinsize(&self.sink).ok().map(|size| usize::from(size.ws_col));
        Style { has_colours: has_colours(), columns: columns.filter(|columns| *columns > 0) }
    }

    pub(super) fn journal() -> Result<Self, String> {
        let journal = Some(Journal::of_the_system()?);
        Ok(Self { journal, ..Self::new(Sink::Stderr(io::stderr())) })
    }

    /// Writes a line. Lines are lost while nobody takes them: the first after `LOG_WRITE_MAX`, those
    /// after it at once. After a line that was taken late, the next ones wait for nothing for a
    /// while: a reader that is only slow would otherwise slow everybody. `report` makes a line from
    /// the number of lines that were lost, which comes before the next one that is written.
    pub(super) fn write(&mut self, line: &Line<'_>, report: impl FnOnce(u64) -> String) {
        if let Some(journal) = &self.journal
            && journal.send(line.level, line.caller, line.text).is_ok()
        {
            return;
        }
        let mut text = String::new();
        if self.is_cut {
            text.push('\n');
        }
        if self.lost > 0 {
            text.push_str(&report(self.lost));
        }
        text.push_str(line.text);
        if let Sink::Rotated(file) = &mut self.sink
            && !file.make_room(text.len())
        {
            self.lost += 1;
            return;
        }
        let began = clock::instant();
        let may_wait = self.lost == 0 && self.rests_until.is_none_or(|end| began >= end);
        let end = if may_wait { began + LOG_WRITE_MAX } else { began };
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let piece = &rest[..rest.len().min(PIECE_BYTES)];
            let written = match self.is_ready(end) {
                true => self.write_piece(piece),
                false => Err(Errno::AGAIN),
            };
            let now = clock::instant();
            if now.saturating_duration_since(began) > LOG_WRITE_LATE {
                self.rests_until = Some(now + LOG_WRITE_REST);
            }
            match written {
                Ok(bytes) if bytes > 0 => rest = &rest[bytes..],
                Err(Errno::AGAIN) if now < end => {
                    // A terminal says that it is ready and takes nothing.
                    std::thread::sleep(LOG_WRITE_RETRY);
                }
                // A log that cannot be written has no place where that could be reported.
                _ => {
                    self.is_cut |= rest.len() < text.len();
                    self.lost += 1;
                    return;
                }
            }
        }
        (self.lost, self.is_cut) = (0, false);
    }

    fn write_piece(&self, piece: &[u8]) -> Result<usize, Errno> {
        retry_on_intr(|| match self.is_socket {
            true => send(&self.sink, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            false => rustix::io::write(&self.sink, piece),
        })
    }

    /// Waits until the sink takes something; false if it does not until `end`.
    fn is_ready(&self, end: Instant) -> bool {
        loop {
            let left = end.saturating_duration_since(clock::instant());
            let Ok(left) = Timespec::try_from(left) else { return true };
            match poll(&mut [PollFd::new(&self.sink, PollFlags::OUT)], Some(&left)) {
                Ok(ready) => return ready > 0,
                Err(Errno::INTR) => {}
                // What cannot be waited for is written to.
                Err(_) => return true,
            }
        }
    }
}
