//! Lines for systemd's journal, by its native protocol: one datagram a line.
//!
//! The journal may be gone or full later. The caller then writes the line elsewhere, and so it does
//! with a line that is longer than a datagram: about 200 KB.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use super::config::Level;
use crate::go;

/// What `--log-outputs` calls it.
pub(super) const OUTPUT: &str = "systemd/journal";
const SOCKET: &str = "/run/systemd/journal/socket";

pub(super) struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
    /// The program's name.
    identifier: String,
}

impl Journal {
    /// The system's journal; etcd's text if there is none.
    pub(super) fn of_the_system() -> Result<Self, String> {
        let program = std::env::args_os().next().unwrap_or_default();
        let name = Path::new(&program).file_name().unwrap_or_default();
        Self::open(Path::new(SOCKET), &name.to_string_lossy())
    }

    pub(super) fn open(path: &Path, identifier: &str) -> Result<Self, String> {
        let socket = || -> io::Result<UnixDatagram> {
            UnixDatagram::unbound()?.connect(path)?;
            // Not connected: a journal that is started again has another socket there.
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = socket().map_err(|error| {
            let (path, why) = (path.display(), go::reason(&error));
            format!("can't find journal (dial unixgram {path}: connect: {why})")
        })?;
        Ok(Self { socket, path: path.to_path_buf(), identifier: identifier.to_owned() })
    }

    /// Sends a line. It never waits; an error means that the journal does not have the line.
    pub(super) fn send(&self, level: Level, caller: &str, line: &str) -> io::Result<()> {
        let priority = match level {
            Level::Debug => "7",
            Level::Info => "6",
            Level::Warn => "4",
            Level::Error => "3",
            Level::Fatal => "2",
        };
        let package = caller.rsplit_once('/').map_or(".", |(dir, _)| dir);
        let mut datagram = Vec::with_capacity(line.len() + 128);
        for (name, value) in [
            ("PRIORITY", priority),
            ("MESSAGE", line.trim_end_matches('\n')),
            ("PACKAGE", package),
            ("SYSLOG_IDENTIFIER", &self.identifier),
        ] {
            add(&mut datagram, name, value);
        }
        self.socket.send_to(&datagram, &self.path).map(drop)
    }
}

/// Adds a field. A value of several lines has its length before it.
fn add(datagram: &mut Vec<u8>, name: &str, value: &str) {
    datagram.extend(name.as_bytes());
    if value.contains('\n') {
        datagram.push(b'\n');
        datagram.extend((value.len() as u64).to_le_bytes());
    } else {
        datagram.push(b'=');
    }
    datagram.extend(value.as_bytes());
    datagram.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_datagram_with_its_fields() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("socket");
        let why = Journal::open(&path, "etcd").err().unwrap();
        let expected = format!(
            "can't find journal (dial unixgram {}: connect: no such file or directory)",
            path.display()
        );
        assert_eq!(why, expected);
        let listener = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open(&path, "etcd").unwrap();
        journal.send(Level::Warn, "server/log.rs:1", "{\"msg\":\"x\"}\n").unwrap();
        let mut buffer = [0; 1 << 10];
        let bytes = listener.recv(&mut buffer).unwrap();
        let fields =
            "PRIORITY=4\nMESSAGE={\"msg\":\"x\"}\nPACKAGE=server\nSYSLOG_IDENTIFIER=etcd\n";
        assert_eq!(&buffer[..bytes], fields.as_bytes());
        journal.send(Level::Info, "x", "a\nb\n").unwrap();
        let bytes = listener.recv(&mut buffer).unwrap();
        let fields =
            b"PRIORITY=6\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\nPACKAGE=.\nSYSLOG_IDENTIFIER=etcd\n";
        assert_eq!(&buffer[..bytes], fields);

        // Full, gone, and there again.
        while journal.send(Level::Info, "x", "line").is_ok() {}
        drop(listener);
        assert!(journal.send(Level::Info, "x", "line").is_err());
        std::fs::remove_file(&path).unwrap();
        let _listener = UnixDatagram::bind(&path).unwrap();
        journal.send(Level::Info, "x", "line").unwrap();
        assert!(journal.send(Level::Info, "x", &"x".repeat(64 << 20)).is_err());
    }
}
