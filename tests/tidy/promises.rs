//! Each promise of the documents stands in `tests/data/promises.tsv` beside the tests that hold it.

use std::collections::BTreeMap;
use std::fs;

use super::sources::{check, package};

/// Promises that nothing proves yet, at most: a new one comes with its test.
const OPEN_PROMISES_MAX: usize = 0;

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

/// Words with one space between them, so that line breaks do not matter.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a file has a test of this name. Those of a harness of their own are meant as a whole.
pub fn has_test(proof: &str) -> bool {
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
