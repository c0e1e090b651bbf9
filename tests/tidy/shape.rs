//! What each file has to be: short, declared, finished, and a room's first one an essay.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::sources::{Source, check, package, sources};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Files that are one long table, and may be longer.
const TABLES: [&str; 1] = ["src/limits/mod.rs"];

/// Marks of work that is not done, put together here so that this file does not hold them.
const UNFINISHED: [&str; 5] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX"), concat!("HA", "CK"), "todo!"];

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
        if source.path == "tests/tidy/shape.rs" {
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
