//! What is fuzzed.

mod bbolt;
mod disk;
mod dns;
mod grpc;
mod http;
mod json;
mod log;
mod member;
mod peer;
mod planted;
mod settings;
mod state;
mod tls;
mod tokens;

use std::path::{Path, PathBuf};

use super::engine::Notes;

/// How an input is put together.
pub enum Shape {
    Bytes,
    /// A sequence of parts, and which kinds of them are protobuf.
    Parts(fn(u8) -> bool),
}

pub trait Target {
    /// Inputs that are understood.
    fn seeds(&mut self) -> Vec<Vec<u8>>;

    /// Runs an input; a panic is a failure.
    fn run(&mut self, input: &[u8], notes: &mut Notes);

    fn shape(&self) -> Shape {
        Shape::Bytes
    }

    /// What inputs are likely to hold.
    fn words(&self) -> &'static [&'static [u8]] {
        &[]
    }

    /// Makes checksums right.
    fn mend(&self, _: &mut Vec<u8>) {}

    /// What was run before the last input, if it matters; with the last one behind it, it is an input
    /// itself.
    fn before(&self) -> Vec<u8> {
        Vec::new()
    }

    fn length_max(&self) -> usize {
        8 << 10
    }

    fn memory_max(&self, length: usize) -> usize {
        (8 << 20) + 512 * length
    }
}

pub struct Entry {
    pub name: &'static str,
    pub what: &'static str,
    pub make: fn() -> Box<dyn Target>,
}

pub const TARGETS: &[Entry] = &[
    Entry {
        name: "bbolt",
        what: "etcd's snapshot file: open, check, walk, write again",
        make: || Box::new(bbolt::Bbolt),
    },
    Entry {
        name: "log",
        what: "segments of the log: recovery, reading back, appending",
        make: || Box::new(log::Log),
    },
    Entry {
        name: "dns",
        what: "answers of name servers, and resolv.conf",
        make: || Box::new(dns::Dns::new()),
    },
    Entry {
        name: "tokens",
        what: "JSON web tokens, their options and their key files",
        make: || Box::new(tokens::Tokens::new()),
    },
    Entry {
        name: "tls",
        what: "certificates, keys and revocation lists in files",
        make: || Box::new(tls::Tls::new()),
    },
    Entry {
        name: "settings",
        what: "flags, variables and files of the server, words and lines of the commands",
        make: || Box::new(settings::Settings::new()),
    },
    Entry {
        name: "grpc",
        what: "calls of clients: decoding, checks, the log, apply, answers",
        make: || Box::new(grpc::Grpc::new()),
    },
    Entry {
        name: "http",
        what: "connections to the client and the peer port",
        make: || Box::new(http::Http::new()),
    },
    Entry {
        name: "json",
        what: "documents of the JSON gateway, read, written and read again",
        make: || Box::new(json::Json),
    },
    Entry {
        name: "peer",
        what: "messages and snapshots of other members",
        make: || Box::new(peer::Peer::new()),
    },
    Entry {
        name: "state",
        what: "rows of a snapshot: restored, read, written out",
        make: || Box::new(state::State::new()),
    },
];

/// Not among them: its bugs are there to be found.
pub const PLANTED: Entry =
    Entry { name: "planted", what: "bugs", make: || Box::new(planted::Planted) };

/// A directory in memory, if the system has one.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let builder = || tempfile::Builder::new().prefix("rusd-fuzz-").to_owned();
    let dir = if memory.is_dir() { builder().tempdir_in(memory) } else { builder().tempdir() };
    dir.unwrap()
}

/// A file of these bytes.
pub fn file(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}
