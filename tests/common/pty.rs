//! Commands on a terminal: a pseudo terminal of a given width, what was sent to it, and what a
//! person would see of that.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// What nothing needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A command whose standard streams are a terminal.
pub struct Screen {
    child: Child,
    keyboard: File,
    pieces: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Screen {
    pub fn start(mut command: Command, columns: u16) -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&keyboard, size).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let end = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let stdio = |end: &OwnedFd| Stdio::from(end.try_clone().unwrap());
        command.stdin(stdio(&end)).stdout(stdio(&end)).stderr(stdio(&end));
        let child = command.spawn().unwrap();
        // Reading ends once nobody has the terminal open any more.
        drop((command, end));
        let keyboard = File::from(keyboard);
        let mut output = keyboard.try_clone().unwrap();
        let (sender, pieces) = sync_channel(100_000);
        thread::spawn(move || {
            let mut piece = vec![0; 65_536];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                if sender.send(piece[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, pieces, seen: Vec::new() }
    }

    pub fn child(&self) -> &Child {
        &self.child
    }

    pub fn type_line(&mut self, text: &str) {
        writeln!(self.keyboard, "{text}").unwrap();
    }

    /// Waits until the command has written this.
    pub fn wait_for(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.seen).contains(text) {
            let Ok(piece) = self.pieces.recv_timeout(PATIENCE) else {
                panic!("no {text:?} in {:?}", String::from_utf8_lossy(&self.seen));
            };
            self.seen.extend(piece);
        }
    }

    /// All that the command wrote, once it has ended.
    pub fn end(mut self) -> (Vec<u8>, ExitStatus) {
        let patience = Instant::now() + PATIENCE;
        while let Ok(piece) = self.pieces.recv_timeout(PATIENCE) {
            self.seen.extend(piece);
            assert!(Instant::now() < patience, "no end: {}", String::from_utf8_lossy(&self.seen));
        }
        let status = self.child.wait().unwrap();
        (self.seen, status)
    }
}

/// The lines that stand on the terminal in the end, without colours.
pub fn visible(sent: &[u8]) -> Vec<String> {
    let text = String::from_utf8(sent.to_vec()).unwrap();
    let mut lines = vec![Vec::<char>::new()];
    let (mut row, mut column) = (0, 0);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\r' => column = 0,
            '\n' => {
                row += 1;
                lines.resize_with(lines.len().max(row + 1), Vec::new);
            }
            '\t' => column = (column / 8 + 1) * 8,
            '\x1b' => {
                assert_eq!(letters.next(), Some('['), "{text:?}");
                let mut number = String::new();
                let kind = loop {
                    match letters.next().unwrap() {
                        kind if kind.is_ascii_alphabetic() => break kind,
                        digit => number.push(digit),
                    }
                };
                match (kind, number.as_str()) {
                    ('K', "2") => lines[row].clear(),
                    ('K', _) => lines[row].truncate(column),
                    ('A', up) => row -= up.parse().unwrap_or(1).min(row),
                    ('m', _) => {}
                    other => panic!("{other:?} in {text:?}"),
                }
            }
            letter => {
                assert!(!letter.is_control(), "{letter:?} in {text:?}");
                let line = &mut lines[row];
                line.resize(line.len().max(column + 1), ' ');
                line[column] = letter;
                column += 1;
            }
        }
    }
    lines.into_iter().map(|line| line.into_iter().collect::<String>()).collect()
}
