//! The sources as every rule reads them, and how a rule tells what it found.

use std::fs;
use std::path::PathBuf;

#[derive(Clone)]
pub struct Source {
    /// Relative to the package, such as `src/store/env.rs`.
    pub path: String,
    pub text: String,
}

impl Source {
    /// The directory or file under `src`; none for the roots.
    pub fn room(&self) -> Option<&str> {
        let rest = self.path.strip_prefix("src/")?;
        rest.split_once('/').map(|(room, _)| room)
    }

    /// Whether all of it is for tests.
    pub fn is_test(&self) -> bool {
        let name = self.path.trim_end_matches(".rs");
        name.ends_with("tests") || name.contains("/tests/") || name.contains("/scripts/")
    }

    /// The text without comments and without the tests at its end.
    pub fn shipped(&self) -> String {
        let code = self.code();
        code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
    }

    /// The text without comments.
    pub fn code(&self) -> String {
        let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
        self.text.lines().map(|line| code(line) + "\n").collect()
    }
}

pub fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn sources(dirs: &[&str]) -> Vec<Source> {
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
pub fn check(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}\n", findings.join("\n  "));
}
