//! Every block of README and of the pages in docs, run in order.
//!
//! A page is one shell; the sections of the handbook have one each. Eight run at a time, since most of
//! their time is waiting. `DOCS=WORD` runs those whose name has the word, `UPDATE=1` writes what was
//! printed into the pages, `SHOW=1` prints all of it, and `DOCS_RUSD=PATH`
//! takes another build.

#[path = "../common/child.rs"]
mod child;
mod links;
mod output;
mod page;
mod shell;
mod tables;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use page::{Pages, Unit};
use shell::{Outcome, Shell};

/// Units that run at a time.
const WORKERS: usize = 8;

/// Programs that pages call, besides those of every system.
const TOOLS: [&str; 3] = ["bash", "curl", "flock"];

#[test]
fn every_block_of_the_pages_works_in_order() {
    let is_there = |tool: &&str| child::command(tool).arg("--version").output().is_ok();
    if let Some(missing) = TOOLS.iter().find(|tool| !is_there(tool)) {
        println!("there is no {missing} here: the pages are not run");
        return;
    }
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pages = Pages::read(package);
    let only = std::env::var("DOCS").unwrap_or_default();
    let units: Vec<&Unit> = pages.units.iter().filter(|unit| unit.scene.contains(&only)).collect();
    let next = Mutex::new(units.iter());
    let outcomes = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let Some(unit) = next.lock().unwrap().next().copied() else { return };
                    let start = Instant::now();
                    let outcome = Shell::new().run(unit);
                    println!("{:>5.1} s  {}", start.elapsed().as_secs_f64(), unit.scene);
                    outcomes.lock().unwrap().push((unit, outcome));
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap();
    if std::env::var_os("UPDATE").is_some() {
        update(package, &outcomes);
    }
    let ran: usize = outcomes.iter().map(|(_, outcome)| outcome.ran).sum();
    println!("{ran} blocks ran in {} shells, {} are not run", units.len(), pages.not_run);
    let findings = outcomes.iter().flat_map(|(_, outcome)| &outcome.findings);
    let findings: Vec<String> = pages.findings.iter().chain(findings).cloned().collect();
    assert!(findings.is_empty(), "\n{}", findings.join("\n\n"));
    assert!(ran > 0, "nothing ran");
}

/// Writes what was printed in place of what the pages show, from the last block of a page to its first.
fn update(package: &Path, outcomes: &[(&Unit, Outcome)]) {
    let mut by_page: BTreeMap<&str, BTreeMap<usize, &str>> = BTreeMap::new();
    for (unit, outcome) in outcomes {
        let of_page = by_page.entry(&unit.page).or_default();
        of_page.extend(outcome.differs.iter().map(|differs| (differs.line, differs.text.as_str())));
    }
    for (page, blocks) in by_page.into_iter().filter(|(_, blocks)| !blocks.is_empty()) {
        let text = fs::read_to_string(package.join(page)).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        for (line, seen) in blocks.into_iter().rev() {
            let end = lines[line - 1..].iter().position(|line| line.trim() == "```").unwrap();
            lines.splice(line - 1..line - 1 + end, seen.lines());
        }
        fs::write(package.join(page), lines.join("\n") + "\n").unwrap();
    }
}
