//! The house rules that a compiler does not check.
//!
//! The layers are read from the table at the top of `src/lib.rs`, the licences from `deny.toml`:
//! a rule stands in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

const FILE_LINES_MAX: usize = 950;
const FUNCTION_LINES_MAX: usize = 90;

/// Files that are one long table, and may be longer.
const TABLES: [&str; 1] = ["src/cli/spec.rs"];

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
    ("tonic", &["client", "pb", "rpc", "server", "cli"]),
    ("hyper", &["peer", "client", "rpc", "http", "server", "cli"]),
    ("clap", &["cli"]),
    ("prometheus", &["metrics"]),
    ("libc", &["store", "server", "cli"]),
    ("rand", &["clock"]),
];

/// Marks of work that is not done, put together here so that this file does not hold them.
const UNFINISHED: [&str; 5] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("HA", "CK"), "todo!"];

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

struct Source {
    /// Relative to the package, such as `src/store/env.rs`.
    path: String,
    text: String,
}

impl Source {
    /// The directory or file under `src`; none for the roots.
    fn room(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        rest.split_once('/').map(|(room, _)| room)
    }

    /// Whether all of it is for tests.
    fn is_test(&self) -> bool {
        let name = self.path.trim_end_matches(".rs");
        name.ends_with("tests") || name.contains("/tests/") || name.contains("/scripts/")
    }

    /// The text without comments and without the tests at its end.
    fn shipped(&self) -> String {
        let code = self.code();
        code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
    }

    /// The text without comments.
    fn code(&self) -> String {
        let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
        self.text.lines().map(|line| code(line) + "\n").collect()
    }
}

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(dirs: &[&str]) -> Vec<Source> {
    let mut pending: Vec<PathBuf> = dirs.iter().map(|dir| package().join(dir)).collect();
    let mut sources = Vec::new();
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(package()).unwrap().to_str().unwrap().to_owned();
            sources.push(Source { path, text });
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!sources.is_empty());
    sources
}

/// Fails with all findings at once.
fn check(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}\n", findings.join("\n  "));
}

/// Words in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The layer of each room, as the table in `src/lib.rs` says.
fn layers() -> BTreeMap<String, u32> {
    let map = fs::read_to_string(package().join("src/lib.rs")).unwrap();
    let mut layers = BTreeMap::new();
    for line in map.lines().filter_map(|line| line.strip_prefix("//! |")) {
        let Some((layer, rest)) = line.split_once('|') else { continue };
        let Ok(layer) = layer.trim().parse() else { continue };
        let rooms = rest.split('|').next().unwrap_or_default();
        layers.extend(quoted(rooms).map(|room| (room.to_owned(), layer)));
    }
    // "Beside them" is above layer 0 and below nothing but the command line.
    layers.extend([("client".to_owned(), 1), ("cert".to_owned(), 1), ("cli".to_owned(), 11)]);
    layers
}

/// The first names after each `crate::`, those of a group included.
fn imported(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let mut names = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        let rest = &code[at + found.len()..];
        if !rest.starts_with('{') {
            names.insert(word(rest));
            continue;
        }
        let mut depth = 0;
        let mut is_start = true;
        for (at, c) in rest.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 1 => break,
                '}' => depth -= 1,
                ',' => is_start = depth == 1,
                c if is_start && depth == 1 && c.is_ascii_alphabetic() => {
                    names.insert(word(&rest[at..]));
                    is_start = false;
                }
                _ => {}
            }
        }
    }
    names
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

#[test]
fn imports_point_down() {
    let layers = layers();
    let mut findings = Vec::new();
    for source in sources(&["src"]) {
        let Some(room) = source.room() else { continue };
        let Some(layer) = layers.get(room) else {
            findings.push(format!("{}: {room} has no layer in src/lib.rs", source.path));
            continue;
        };
        for name in imported(&source.code()).into_iter().filter(|name| name != room) {
            let is_below = match (room, layers.get(&name)) {
                (_, None) => continue,
                // Layer 0 holds what has no state of its own and may lean on its neighbours.
                (_, Some(0)) if *layer == 0 => true,
                ("cli", Some(_)) => true,
                // The server is a client of the discovery service, and makes certificates.
                (_, Some(_)) if ["client", "cert"].contains(&name.as_str()) => room == "server",
                (_, Some(below)) => below < layer,
            };
            if !is_below {
                findings.push(format!("{}: {room} must not import {name}", source.path));
            }
        }
    }
    check("imports point down, and rooms of a layer do not import each other", &findings);
}

#[test]
fn groups_of_imports_are_understood() {
    let code = "use crate::{limits, rpc::{self, Error}, http};\ncrate::store::open();\n";
    let names: Vec<String> = imported(code).into_iter().collect();
    assert_eq!(names, ["http", "limits", "rpc", "store"]);
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
fn rooms_open_with_an_essay() {
    let mut findings = Vec::new();
    for source in sources(&["src"]) {
        let is_door = source.path.ends_with("/mod.rs") && source.path.matches('/').count() == 2;
        if is_door && !source.text.starts_with("//! ") {
            findings.push(source.path);
        }
    }
    check("a room's mod.rs says first what the room is", &findings);
}

#[test]
fn files_and_functions_are_short() {
    let mut findings = Vec::new();
    for source in sources(&["src", "tests", "proto"]) {
        let lines: Vec<&str> = source.text.lines().collect();
        if lines.len() > FILE_LINES_MAX && !TABLES.contains(&source.path.as_str()) {
            findings.push(format!("{} has {} lines", source.path, lines.len()));
        }
        for (first, line) in lines.iter().enumerate() {
            let Some(name) = function(line) else { continue };
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let length = lines[first..].iter().position(|line| *line == end).map_or(0, |n| n + 1);
            if length > FUNCTION_LINES_MAX {
                findings.push(format!("{}: {name} has {length} lines", source.path));
            }
        }
    }
    check(
        &format!("files end after {FILE_LINES_MAX} lines, functions after {FUNCTION_LINES_MAX}"),
        &findings,
    );
}

/// The name of the function whose body begins on or after this line.
fn function(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    if rest.starts_with("pub(") {
        rest = rest.split_once(") ")?.1;
    }
    for word in ["pub ", "const ", "async ", "unsafe "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    let rest = rest.strip_prefix("fn ")?;
    let is_whole = line.ends_with('}') || line.ends_with(';');
    (!is_whole).then(|| rest.split(['(', '<']).next().unwrap_or_default())
}

#[test]
fn every_file_is_part_of_the_program() {
    let mut reached = BTreeSet::new();
    let mut pending = vec![PathBuf::from("src/lib.rs"), PathBuf::from("src/main.rs")];
    while let Some(path) = pending.pop() {
        let Ok(text) = fs::read_to_string(package().join(&path)) else { continue };
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let parent = path.parent().unwrap();
        let dir = match stem {
            "lib" | "main" | "mod" => parent.to_path_buf(),
            _ => parent.join(stem),
        };
        for line in text.lines().map(str::trim_start) {
            let line =
                line.split_once(") ").filter(|_| line.starts_with("pub(")).map_or(line, |p| p.1);
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let Some(name) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'))
            else {
                continue;
            };
            pending.push(dir.join(format!("{name}.rs")));
            pending.push(dir.join(name).join("mod.rs"));
        }
        reached.insert(path.to_str().unwrap().to_owned());
    }
    let dead = sources(&["src"]).into_iter().map(|source| source.path);
    let dead: Vec<String> = dead.filter(|path| !reached.contains(path)).collect();
    check("each file under src is declared as a module", &dead);
}

#[test]
fn limits_are_used() {
    let sources = sources(&["src", "tests"]);
    let is_limits = |source: &&Source| source.path == "src/limits/mod.rs";
    let limits = sources.iter().find(is_limits).unwrap();
    let names = limits.text.lines().filter_map(|line| line.strip_prefix("pub const "));
    let unused = names.filter_map(|line| line.split(':').next()).filter(|name| {
        let mut elsewhere = sources.iter().filter(|source| !is_limits(source));
        !elsewhere.any(|source| source.text.contains(name))
    });
    check("each bound bounds something", &unused.map(str::to_owned).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_unfinished() {
    let mut findings = Vec::new();
    for source in sources(&["src", "tests", "proto", "build.rs"]) {
        if source.path == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in source.text.lines().enumerate() {
            let is_word = |mark: &str| {
                line.split(|c: char| !c.is_alphanumeric() && c != '!').any(|word| word == mark)
            };
            if UNFINISHED.iter().any(|mark| is_word(mark)) {
                findings.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    check("what is not done is an issue, not a comment", &findings);
}

/// The strings of a list in `deny.toml`.
fn deny_list(name: &str) -> Vec<String> {
    let text = fs::read_to_string(package().join("deny.toml")).unwrap();
    let (_, rest) = text.split_once(&format!("\n{name} = [\n")).unwrap();
    let (list, _) = rest.split_once("\n]").unwrap();
    let strings = list.lines().flat_map(|line| line.split('"').skip(1).step_by(2));
    strings.map(str::to_owned).collect()
}

/// Whether a licence expression can be met with what is allowed.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (is_met, rest) = either(&words, allowed);
    is_met && rest.is_empty()
}

fn either<'a>(words: &'a [&'a str], allowed: &[String]) -> (bool, &'a [&'a str]) {
    let (mut is_met, mut rest) = both(words, allowed);
    while let ["OR", more @ ..] = rest {
        let (other, after) = both(more, allowed);
        (is_met, rest) = (is_met || other, after);
    }
    (is_met, rest)
}

fn both<'a>(words: &'a [&'a str], allowed: &[String]) -> (bool, &'a [&'a str]) {
    let (mut is_met, mut rest) = one(words, allowed);
    while let ["AND", more @ ..] = rest {
        let (other, after) = one(more, allowed);
        (is_met, rest) = (is_met && other, after);
    }
    (is_met, rest)
}

fn one<'a>(words: &'a [&'a str], allowed: &[String]) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inner @ ..] => {
            let (is_met, rest) = either(inner, allowed);
            (is_met && rest.first() == Some(&")"), rest.get(1..).unwrap_or_default())
        }
        // An exception only adds permissions.
        [licence, "WITH", _, rest @ ..] | [licence, rest @ ..] => {
            (allowed.iter().any(|name| name == licence), rest)
        }
        [] => (false, words),
    }
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = ["MIT".to_owned(), "Unicode-3.0".to_owned()];
    for good in ["MIT", "GPL-3.0 OR MIT", "MIT/GPL-3.0", "(MIT OR GPL-3.0) AND Unicode-3.0"] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT OR GPL-3.0", "MIT AND (GPL-3.0 OR ISC)"] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

/// What cargo knows of the packages that are built here; the build has fetched them all.
fn packages() -> Vec<serde_json::Value> {
    let run = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(package()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let rustc = run("rustc", &["-vV"]);
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let arguments = ["metadata", "--format-version=1", "--offline", "--filter-platform", host];
    let metadata = run(env!("CARGO"), &arguments);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

#[test]
fn dependencies_may_be_used() {
    let allowed = deny_list("allow");
    let banned = deny_list("deny");
    let mut findings = Vec::new();
    for package in packages() {
        let text = |field: &str| package[field].as_str().unwrap_or_default().to_owned();
        if !is_allowed(&text("license"), &allowed) {
            findings.push(format!("{}: licence {:?}", text("name"), text("license")));
        }
        if banned.contains(&text("name")) {
            findings.push(format!("{} is banned in deny.toml", text("name")));
        }
        let source = text("source");
        if !source.is_empty() && !source.starts_with("registry+https://github.com/rust-lang/") {
            findings.push(format!("{} comes from {source}", text("name")));
        }
    }
    check("dependencies have a licence from deny.toml and come from crates.io", &findings);
}

#[test]
fn excused_advisories_are_still_needed() {
    let lock = fs::read_to_string(package().join("Cargo.lock")).unwrap();
    let mut findings = Vec::new();
    let ignored = deny_list("ignore");
    for excuse in ignored.chunks(2) {
        let [id, reason] = excuse else { panic!("an advisory without a reason: {excuse:?}") };
        let subject = reason.split(':').next().unwrap_or_default();
        let (name, version) = subject.split_once(' ').unwrap_or_default();
        if !lock.contains(&format!("name = \"{name}\"\nversion = \"{version}\"\n")) {
            findings.push(format!("{id}: Cargo.lock has no {subject}"));
        }
    }
    check("an excuse names a package and version that is in use", &findings);
}

#[test]
fn dependencies_are_used() {
    let manifest = fs::read_to_string(package().join("Cargo.toml")).unwrap();
    let mut code = String::new();
    for source in sources(&["src", "tests", "build.rs"]) {
        code += &source.code();
    }
    let mut findings = Vec::new();
    for table in ["[dependencies]\n", "[build-dependencies]\n", "[dev-dependencies]\n"] {
        let Some((_, rest)) = manifest.split_once(table) else { continue };
        let rest = rest.split("\n[").next().unwrap_or_default();
        for name in rest.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name) {
            let path = name.replace('-', "_") + "::";
            // Generated code names these.
            let is_generated = ["prost", "tonic-prost"].contains(&name);
            if !is_generated && !code.contains(&path) {
                findings.push(name.to_owned());
            }
        }
    }
    check("each dependency in Cargo.toml is named in the code", &findings);
}

/// Promises that nothing proves yet, at most: a new one comes with its test.
const OPEN_PROMISES_MAX: usize = 0;

/// Words with one space between them, so that line breaks do not matter.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a file has a test of this name. Those of a harness of their own are meant as a whole.
fn has_test(proof: &str) -> bool {
    let (path, name) = proof.split_once("::").unwrap_or((proof, ""));
    let Ok(text) = fs::read_to_string(package().join(path)) else { return false };
    let own = ["tests/sim/", "tests/fuzz/", "tests/history/", "tests/clients/"];
    if name.is_empty() {
        return own.iter().any(|dir| path.starts_with(dir));
    }
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_it = |line: &str| {
        let rest = line.strip_prefix("async ").unwrap_or(line);
        rest.strip_prefix("fn ").is_some_and(|rest| rest.starts_with(&format!("{name}(")))
    };
    let is_test = |line: &str| line.starts_with("#[test]") || line.starts_with("#[tokio::test");
    lines.iter().enumerate().any(|(at, line)| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        is_it(line) && above.into_iter().any(|line| is_test(line))
    })
}

/// What must have a line: the points of docs/compat.md, and the rows of the table of threads and queues.
fn points() -> Vec<(&'static str, String)> {
    let read = |path: &str| fs::read_to_string(package().join(path)).unwrap();
    let (compat, map) = (read("docs/compat.md"), read("docs/architecture.md"));
    let mut points: Vec<(&str, String)> = Vec::new();
    let mut is_in_point = false;
    for line in compat.lines() {
        let text = line.trim_start();
        if text.starts_with("- ") {
            points.push(("docs/compat.md", String::new()));
            is_in_point = true;
        } else if text.is_empty() || text.starts_with('#') {
            is_in_point = false;
        }
        if let Some((_, point)) = points.last_mut().filter(|_| is_in_point) {
            *point = flat(&format!("{point} {text}"));
        }
    }
    let (_, table) = map.split_once("\n| thread | takes from | bound |\n").unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    points.extend(rows.map(|row| ("docs/architecture.md", flat(row))));
    assert!(points.len() > 50, "the documents are not understood");
    points
}

#[test]
fn promises_are_proven() {
    let table = fs::read_to_string(package().join("tests/data/promises.tsv")).unwrap();
    let mut documents = BTreeMap::new();
    let (mut findings, mut quotes, mut open) = (Vec::new(), Vec::new(), 0);
    for line in table.lines().filter(|line| !line.starts_with("# ")) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [document, quote, proof] = columns[..] else {
            findings.push(format!("not three columns: {line}"));
            continue;
        };
        let text = documents.entry(document).or_insert_with(|| {
            flat(&fs::read_to_string(package().join(document)).unwrap_or_default())
        });
        let quote = flat(quote);
        if !text.contains(&quote) {
            findings.push(format!("{document} does not say any more: {quote}"));
        }
        open += usize::from(proof.starts_with("open: "));
        if !proof.starts_with("open: ") && !proof.starts_with("statement: ") {
            let tests: Vec<&str> = proof.split_whitespace().collect();
            let missing = tests.iter().filter(|test| !has_test(test));
            findings.extend(missing.map(|test| format!("there is no test {test}")));
            if tests.is_empty() {
                findings.push(format!("no proof of: {quote}"));
            }
        }
        quotes.push((document, quote));
    }
    for (document, point) in points() {
        let mut about = quotes.iter().filter(|(of, _)| *of == document);
        if !about.any(|(_, quote)| point.contains(quote.as_str())) {
            let start: String = point.chars().take(100).collect();
            findings.push(format!("{document}: tests/data/promises.tsv has no line for: {start}"));
        }
    }
    if open > OPEN_PROMISES_MAX {
        findings.push(format!("{open} promises are open, and at most {OPEN_PROMISES_MAX} may be"));
    }
    check("a promise stands beside what holds it", &findings);
}
