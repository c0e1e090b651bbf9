//! Commands on directories in the states in which people find them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::fixture::{Member, PATIENCE};

/// Starts a command as rusd.
pub(super) fn begin(arguments: &[&str]) -> Child {
    let mut command = crate::child::command(crate::child::RUSD);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Its exit code and what it said; one that does not end has failed.
pub(super) fn end(mut child: Child, what: &str) -> (i32, String) {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if child.try_wait().unwrap().is_some() {
            let output = child.wait_with_output().unwrap();
            let said = [output.stdout, output.stderr].concat();
            return (output.status.code().unwrap(), String::from_utf8(said).unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    panic!("it does not end: {what}");
}

fn run(arguments: &[&str]) -> (i32, String) {
    end(begin(arguments), &arguments.join(" "))
}

pub(super) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// All commands that read a stopped member's directory; what they make goes to `out`.
fn readers<'a>(data: &'a str, out: &'a str) -> Vec<Vec<&'a str>> {
    vec![
        vec!["hashkv", data],
        vec!["snapshot", "status", data],
        vec!["migrate", "--data-dir", data, "--target-version", "3.6"],
        vec!["defrag", "--data-dir", data],
        vec!["export", "--data-dir", data, out],
        vec!["snapshot", "restore", data, "--skip-hash-check", "--data-dir", out],
        vec!["check", "data", "--data-dir", data],
    ]
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> =
        paths.flat_map(|path| [files(&path), vec![path]].concat()).collect();
    all.sort();
    all
}

#[test]
fn commands_wait_for_a_member_that_is_about_to_stop() {
    let mut member = Member::start();
    let (data, out) = (member.data(), member.data().with_extension("out"));
    let (data, patience) = (text(&data), "--command-timeout=60s");
    let others = readers(data, text(&out)).into_iter().filter(|words| words[0] != "export");
    let waiting: Vec<(String, Child)> = others
        .chain([vec!["export", "--data-dir", data, "saved.db"]])
        .map(|words| {
            let saved = format!("{data}.saved");
            let words: Vec<&str> = words
                .iter()
                .map(|word| if *word == "saved.db" { saved.as_str() } else { *word })
                .collect();
            (words.join(" "), begin(&[&words[..], &[patience]].concat()))
        })
        .collect();
    // None of them ends as long as the member is there.
    std::thread::sleep(Duration::from_secs(1));
    member.stop();
    for (what, child) in waiting {
        let (code, said) = end(child, &what);
        assert_eq!(code, 0, "{what}: {said}");
    }
}

#[test]
fn a_directory_that_holds_no_member_is_named_and_left_alone() {
    type State = (&'static str, fn(&Path));
    let states: [State; 6] = [
        ("missing", |_| ()),
        ("empty", |data| fs::create_dir(data).unwrap()),
        ("no store", |data| fs::create_dir_all(data.join("member")).unwrap()),
        ("an empty store", |data| fs::create_dir_all(data.join("member/db")).unwrap()),
        ("a file", |data| fs::write(data, "no directory").unwrap()),
        ("half-made", |data| {
            fs::create_dir_all(data.join("restoring/db/gen-1")).unwrap();
            fs::create_dir_all(data.join("proxy")).unwrap();
        }),
    ];
    for (state, make) in states {
        let root = tempfile::tempdir().unwrap();
        let (data, out) = (root.path().join("data"), root.path().join("out"));
        make(&data);
        let before = files(root.path());
        for words in readers(text(&data), text(&out)) {
            let (code, said) = run(&words);
            assert_eq!(code, 1, "{state}, {words:?}: {said}");
            assert!(
                said.contains(text(&data)) || said.contains("invalid database"),
                "{state}, {words:?}: {said}"
            );
            assert!(!said.contains("panicked"), "{state}, {words:?}: {said}");
            assert_eq!(files(root.path()), before, "{state}, {words:?}: {said}");
        }
    }
}

#[test]
fn a_pipe_is_no_snapshot() {
    let root = tempfile::tempdir().unwrap();
    let pipe = root.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for words in [["snapshot", "status"].as_slice(), &["hashkv"], &["snapshot", "restore"]] {
        let (code, said) = run(&[words, &[text(&pipe)]].concat());
        assert!(code == 1 && said.contains("not a regular file"), "{words:?}: {said}");
    }
}

#[test]
fn a_member_that_was_killed_is_read_again_and_again() {
    let mut member = Member::start();
    member.child.kill().unwrap();
    member.wait();
    let (data, out) = (member.data(), member.data().with_extension("out"));
    for round in 0..2 {
        for words in readers(text(&data), text(&out)) {
            let (code, said) = run(&words);
            assert_eq!(code, 0, "round {round}, {words:?}: {said}");
            // What is made is not made over what is there.
            if words.contains(&text(&out)) {
                let (code, said) = run(&words);
                assert_eq!(code, 1, "round {round}, {words:?}: {said}");
            }
            let _ = fs::remove_file(&out);
            let _ = fs::remove_dir_all(&out);
        }
    }
}
