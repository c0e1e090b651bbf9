//! What only some places of the code may do or name.

use std::collections::BTreeSet;

use super::sources::{Source, check, sources};

/// Crates that only some rooms may name: what they stand for is those rooms' secret.
const SECRETS: [(&str, &[&str]); 13] = [
    ("aws_lc_rs", &["auth", "cert"]),
    ("bcrypt", &["auth"]),
    ("heed", &["store"]),
    ("tokio_rustls", &["tls"]),
    ("x509_parser", &["tls", "cert"]),
    // In tls for its tests.
    ("rcgen", &["cert", "tls"]),
    ("raft", &["raft"]),
    ("tonic", &["client", "pb", "rpc", "gateway", "server", "cli"]),
    ("hyper", &["peer", "client", "rpc", "http", "server", "cli"]),
    ("clap", &["cli"]),
    ("prometheus", &["metrics"]),
    ("libc", &["store", "server", "cli"]),
    ("rand", &["clock"]),
];

/// What starts a thread or a task by another way than the supervisor, which would not learn of a
/// panic there.
const UNSUPERVISED: [&str; 9] = [
    "thread::spawn",
    "thread::Builder",
    "tokio::spawn",
    "task::spawn",
    "spawn_blocking",
    "spawn_local",
    ".spawn(",
    ".spawn_on(",
    "TokioExecutor",
];

/// Rooms that run in no member, and the one whose secret it is.
const MAY_SPAWN: [&str; 3] = ["supervise", "client", "cli"];

#[test]
fn secrets_stay_in_their_rooms() {
    let mut findings = Vec::new();
    for source in sources(&["src"]) {
        let Some(room) = source.room() else { continue };
        let code = source.code();
        for (secret, rooms) in SECRETS.iter().filter(|(_, rooms)| !rooms.contains(&room)) {
            // Rooms may have a crate's name: only a path from the root means the crate.
            let names =
                [format!("use {secret}::"), format!(" ::{secret}::"), format!("(::{secret}::")];
            if names.iter().any(|name| code.contains(name.as_str())) {
                findings.push(format!("{}: {secret} belongs to {}", source.path, rooms.join(", ")));
            }
        }
    }
    check("some crates are known to some rooms only", &findings);
}

#[test]
fn threads_and_tasks_are_supervised() {
    let mut findings = Vec::new();
    for source in sources(&["src"]) {
        let is_free = source.room().is_some_and(|room| MAY_SPAWN.contains(&room));
        if is_free || source.is_test() {
            continue;
        }
        for (number, line) in source.shipped().lines().enumerate() {
            // A scope's threads end within it, and its owner asks how.
            let is_scoped = line.contains("scope.spawn(");
            if !is_scoped && UNSUPERVISED.iter().any(|way| line.contains(way)) {
                findings.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    check("threads and tasks of a member start through `supervise`", &findings);
}

#[test]
fn no_request_goes_around_the_decision_on_rights() {
    let rim = sources(&["src/rpc", "src/http"]);
    let findings: Vec<String> = rim
        .iter()
        .filter(|source| source.code().contains("unguarded"))
        .map(|source| format!("{} uses a door that asks for no credentials", source.path))
        .collect();
    check("rpc and http use doors that take credentials", &findings);
}

#[test]
fn names_stay_bytes_on_the_command_line() {
    const LOSSY: [&str; 4] = ["from_utf8_lossy", "to_string_lossy", "env::args()", "env::var("];
    let clients = sources(&["src/cli", "src/client"]);
    let spec = clients.iter().filter(|source| source.path.starts_with("src/cli/spec"));
    let spec: String = spec.map(|source| source.text.as_str()).collect();
    // Flags that take bytes, or name a file, and are therefore not asked for their text.
    let raw: BTreeSet<&str> = ["bytes(", "path("]
        .iter()
        .flat_map(|maker| spec.split(maker).skip(1))
        .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
        .collect();
    assert!(raw.contains("prefix") && raw.contains("data-dir"), "{raw:?}");
    let mut findings = Vec::new();
    for Source { path, text } in &clients {
        for (at, line) in text.lines().enumerate() {
            let is_lossy = LOSSY.iter().any(|word| line.contains(word));
            let asked = line.split(".string(\"").skip(1).filter_map(|rest| rest.split('"').next());
            if is_lossy || asked.into_iter().any(|name| raw.contains(name)) {
                findings.push(format!("{path}:{}: {}", at + 1, line.trim()));
            }
        }
    }
    check("keys, locks and files have names of bytes; text would make others of them", &findings);
}

#[test]
fn programs_start_with_the_signals_that_they_expect() {
    let uses = |source: &&Source| source.text.contains(concat!("CARGO_BIN_EXE_", "rusd"));
    let tests = sources(&["tests"]);
    let tests = tests.iter().filter(|source| source.path != "tests/common/child.rs");
    let findings: Vec<String> = tests.filter(uses).map(|source| source.path.clone()).collect();
    check("tests start the binary by tests/common/child.rs", &findings);
}
