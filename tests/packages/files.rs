//! Files of the package, and words in them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use regex::Regex;

use super::child::{RUSD, command};

pub fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    fs::read_to_string(package().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files of a directory, and of those within it.
pub fn files_below(directory: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![package().join(directory)];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The first group of each match.
pub fn matches(pattern: &str, text: &str) -> BTreeSet<String> {
    let pattern = Regex::new(pattern).unwrap();
    pattern.captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// Both outputs of `rusd` with these words, which must end with success.
pub fn rusd(words: &[&str]) -> String {
    let output = command(RUSD).args(words).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "rusd {words:?}: {output:?}");
    [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
}

/// Names of the flags that a help text lists.
pub fn flags_in(help: &str) -> BTreeSet<String> {
    matches(r"(?m)^\s+(?:-\w, )?--([a-z0-9.-]+)", help)
}

/// Flags of the server.
pub fn server_flags() -> BTreeSet<String> {
    let flags = flags_in(&rusd(&["serve", "--help"]));
    assert!(flags.len() > 100, "the help of serve is not understood: {flags:?}");
    flags
}

/// Global flags of the client commands, and those of one of them.
pub fn client_flags(command: &[&str]) -> BTreeSet<String> {
    let mut flags = flags_in(&rusd(&["options"]));
    assert!(flags.contains("endpoints"), "{flags:?}");
    flags.extend(flags_in(&rusd(&[command, &["--help"]].concat())));
    flags
}

/// The flag of a variable such as `ETCD_DATA_DIR`, without its prefix.
pub fn flag_of(variable: &str) -> String {
    variable.to_ascii_lowercase().replace('_', "-")
}

/// A tool that may be missing; says so if it is.
pub fn tool(name: &str) -> Option<Command> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).any(|directory| directory.join(name).is_file());
    if !found {
        eprintln!("{name} is not at hand; what it would say is not tested");
        return None;
    }
    Some(command(name))
}

pub fn text_of(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr];
    texts.map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

pub fn name_of(path: &Path) -> String {
    path.strip_prefix(package()).unwrap_or(path).to_str().unwrap().to_owned()
}
