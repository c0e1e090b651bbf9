//! FIFOs, devices and directories in the place of a member's files: nothing waits for one or reads it
//! without an end, and what is refused is refused by its name.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::fixture::{Member, PATIENCE};
use super::offline::{begin, end, text};

/// Files that a member may leave or find beside those that it has after a start.
const MORE: [&str; 7] = [
    "rebuild.json",
    "restoring",
    "member/db/CURRENT.tmp",
    "member/db/DAMAGED",
    "member/db/incoming.snap.db",
    "member/db/gen-1/index.tmp",
    "member/wal/next.tmp",
];

/// Without one of these a member serves, or makes it anew.
const SPARE: [&str; 5] = ["reserve", "index", "index.tmp", "next.tmp", "incoming.snap.db"];

type Make = fn(&Path);

const KINDS: [(&str, Make); 3] = [
    ("a FIFO", |path| {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }),
    ("a device", |path| symlink("/dev/zero", path).unwrap()),
    ("a directory", |path| fs::create_dir(path).unwrap()),
];

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// Puts something else in a file's place while it lives.
struct InPlace<'a> {
    path: &'a Path,
    kept: PathBuf,
}

impl<'a> InPlace<'a> {
    fn put(path: &'a Path, kept: PathBuf, make: Make) -> Self {
        if path.exists() {
            fs::rename(path, &kept).unwrap();
        }
        make(path);
        Self { path, kept }
    }
}

impl Drop for InPlace<'_> {
    fn drop(&mut self) {
        match fs::symlink_metadata(self.path).map(|found| found.is_dir()) {
            Ok(true) => fs::remove_dir_all(self.path).unwrap(),
            Ok(false) => fs::remove_file(self.path).unwrap(),
            Err(_) => {}
        }
        if self.kept.exists() {
            fs::rename(&self.kept, self.path).unwrap();
        }
    }
}

/// Whether a start serves on the directory, and its log.
fn start(data: &Path, log: &Path) -> (bool, String) {
    let mut member = Member::spawn(data, log);
    for _ in 0..PATIENCE.as_millis() / 20 {
        if member.child.try_wait().unwrap().is_some() {
            return (false, member.log());
        }
        if member.is_healthy() {
            return (true, member.log());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("neither serves nor ends:\n{}", member.log());
}

#[test]
fn what_is_no_regular_file_is_named_and_holds_nobody_up() {
    let mut member = Member::start();
    let data = member.data();
    // A clean stop leaves a checkpoint of the index, too.
    member.stop();
    let mut paths = Vec::new();
    files(&data, &mut paths);
    for path in MORE.map(|path| data.join(path)) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    let aside = tempfile::tempdir_in(data.parent().unwrap()).unwrap();
    let log = aside.path().join("log");
    for path in &paths {
        let name = path.file_name().unwrap().to_str().unwrap();
        for (kind, make) in KINDS {
            let case = format!("{kind} as {}", path.display());
            let put = || InPlace::put(path, aside.path().join("kept"), make);
            for words in [["check", "data", "--data-dir"].as_slice(), &["hashkv"]] {
                let _put = put();
                let words = [words, &[text(&data)]].concat();
                let (code, said) = end(begin(&words), &format!("{case}: {words:?}"));
                assert!(!said.contains("panicked"), "{case}, {words:?}: {said}");
                assert!(code == 0 || said.contains(text(path)), "{case}, {words:?}: {said}");
            }
            let _put = put();
            let (serves, log) = start(&data, &log);
            assert!(!log.contains("panicked"), "{case}: {log}");
            let fatal = log.lines().rfind(|line| line.contains("fatal"));
            assert!(serves || fatal.is_some_and(|line| line.contains(text(path))), "{case}: {log}");
            assert!(!SPARE.contains(&name) || serves || kind == "a directory", "{case}: {log}");
        }
    }
}
