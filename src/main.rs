//! Chooses the program by the name that the process was started by, then by its first argument.

#![deny(clippy::print_stderr, clippy::print_stdout, clippy::unwrap_used)]

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use rusd::cli::{self, Program};
use rusd::server::{self, StartedAs};
use rustix::process::{Resource, getrlimit, setrlimit};

fn main() -> ExitCode {
    end_at_panic();
    raise_open_files();
    server::take_strays();
    let words: Vec<OsString> = std::env::args_os().collect();
    let name = words.first().cloned().unwrap_or_default();
    let arguments: Vec<OsString> = words.iter().skip(1).cloned().collect();
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some("etcd") if arguments.first().is_some_and(is_relay) => server::relay(words),
        Some("etcd") => server::main(words, StartedAs::Etcd),
        Some("etcdctl") => cli::main(Program::Etcdctl, arguments),
        Some("etcdutl") => cli::main(Program::Etcdutl, arguments),
        _ => rusd(words, arguments),
    }
}

/// Runs under our own name.
fn rusd(words: Vec<OsString>, arguments: Vec<OsString>) -> ExitCode {
    if let Some(topic) = server::help_topic(&arguments) {
        let topic = topic.iter().map(OsString::from);
        return cli::main(Program::Rusd, std::iter::once("help".into()).chain(topic).collect());
    }
    match arguments.first() {
        Some(word) if word == "serve" => server::main(words, StartedAs::Rusd),
        Some(word) if is_relay(word) => server::relay(words),
        _ => cli::main(Program::Rusd, arguments),
    }
}

/// Whether the first argument makes etcd another program than the server.
fn is_relay(word: &OsString) -> bool {
    word == "gateway" || word == "grpc-proxy"
}

/// Ends the process at a panic in any thread, after the standard library's message and with its exit
/// code. A release build would abort, and leave a core. A server says it in its log instead.
fn end_at_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        say(info);
        std::process::exit(101);
    }));
}

/// Raises the soft limit of open files to the hard one, as Go's runtime does for etcd's programs:
/// on many systems a process has 1024 unless it asks for more. If the system refuses, the limit
/// stays.
fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}
