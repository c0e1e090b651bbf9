//! A page's blocks, in units that run apart from each other.
//!
//! What a fence of a page means:
//!
//! ```text
//!   sh            commands that succeed, each of them
//!   sh fails      commands of which the last one fails
//!   sh terminal   a command that holds its terminal, as a server does: it gets one of its own
//!   sh no-run     not run here; tables.rs says why
//!   output        what the commands before it print
//!   log           lines that the servers of this unit have written by now
//!   others        files and formats; nobody runs them
//! ```

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::links::{self, slug};
use super::tables::{NO_RUN, SECTIONS, TERMINALS};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Run,
    Fails,
    Terminal,
    Output,
    Log,
}

pub struct Block {
    pub kind: Kind,
    /// The line of the page on which the text begins, counted from 1.
    pub line: usize,
    pub text: String,
}

/// Blocks that one shell runs in order.
pub struct Unit {
    pub page: String,
    /// The scene before the first block: a file below `scenes`, if it is there.
    pub scene: String,
    pub blocks: Vec<Block>,
}

/// What the pages have to run, and what is wrong with them.
#[derive(Default)]
pub struct Pages {
    pub units: Vec<Unit>,
    pub not_run: usize,
    pub findings: Vec<String>,
}

const LANGUAGES: [&str; 7] = ["text", "yaml", "json", "ini", "toml", "promql", "proto"];

impl Pages {
    pub fn read(package: &Path) -> Self {
        let mut names = vec!["README.md".to_owned()];
        let docs = fs::read_dir(package.join("docs")).unwrap();
        let docs = docs.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.extend(docs.filter(|name| name.ends_with(".md")).map(|name| format!("docs/{name}")));
        names.sort();
        let mut pages = Self::default();
        for name in &names {
            pages.add(name, &fs::read_to_string(package.join(name)).unwrap());
            pages.findings.extend(links::broken(package, name));
        }
        for (page, text, _) in NO_RUN {
            if !names.iter().any(|name| name == page) {
                pages.findings.push(format!("{page}: no such page, but a reason for: {text}"));
            }
        }
        pages
    }

    fn add(&mut self, page: &str, text: &str) {
        let stem = page.trim_start_matches("docs/").trim_end_matches(".md").to_lowercase();
        let unit = |scene: String| Unit { page: page.to_owned(), scene, blocks: Vec::new() };
        self.units.push(unit(stem.clone()));
        let mut lines = text.lines().enumerate();
        let reasons: Vec<&str> =
            NO_RUN.iter().filter(|row| row.0 == page).map(|row| row.1).collect();
        let mut used = BTreeSet::new();
        while let Some((at, line)) = lines.next() {
            if let Some(title) = line.strip_prefix("## ").filter(|_| SECTIONS.contains(&page)) {
                self.units.push(unit(format!("{stem}/{}", slug(title))));
            }
            let fence = line.trim_start();
            let Some(info) = fence.strip_prefix("```") else { continue };
            let indent = line.len() - fence.len();
            let cut = |line: &str| line.get(indent..).unwrap_or_default().to_owned();
            let body = lines.by_ref().map(|(_, line)| line);
            let body: Vec<String> = body.take_while(|line| line.trim() != "```").map(cut).collect();
            let block = |kind| Block { kind, line: at + 2, text: body.join("\n") + "\n" };
            let kind = match info {
                "sh" if body.len() == 1 && TERMINALS.contains(&(page, body[0].as_str())) => {
                    Kind::Terminal
                }
                "sh" => Kind::Run,
                "sh fails" => Kind::Fails,
                "sh terminal" => Kind::Terminal,
                "output" => Kind::Output,
                "log" => Kind::Log,
                "sh no-run" => {
                    let is_why = |text: &str| body.iter().any(|line| line.contains(text));
                    match reasons.iter().find(|text| is_why(text)) {
                        Some(why) => used.insert(*why),
                        None => {
                            let text = format!("{page}:{}: tables.rs has no reason", at + 1);
                            self.findings.push(text);
                            continue;
                        }
                    };
                    self.not_run += 1;
                    continue;
                }
                other if LANGUAGES.contains(&other) => continue,
                other => {
                    self.findings.push(format!("{page}:{}: unknown fence {other:?}", at + 1));
                    continue;
                }
            };
            self.units.last_mut().unwrap().blocks.push(block(kind));
        }
        let stale = |text| format!("{page}: no block that is not run has: {text}");
        let unused = reasons.into_iter().filter(|text| !used.contains(text));
        self.findings.extend(unused.map(stale));
        self.units.retain(|unit| !unit.blocks.is_empty());
    }
}
