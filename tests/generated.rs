//! The manual page and the completions in the repository are what the binary prints.
//! `UPDATE=1 cargo test --test generated` rewrites them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;

#[path = "common/child.rs"]
mod child;

fn check(path: &str, arguments: &[&str]) {
    let output = child::command(child::RUSD).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, &output.stdout).unwrap();
    }
    let stored = fs::read(path).unwrap_or_default();
    assert!(stored == output.stdout, "{path} is stale: run with UPDATE=1");
}

#[test]
fn the_manual_page_is_current() {
    check("man/rusd.1", &["man"]);
}

#[test]
fn the_completions_are_current() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        check(&format!("completions/rusd.{shell}"), &["completion", shell]);
    }
}
