//! Directories: sound, damaged, lost, of a running member, of etcd.

use std::fs;
use std::os::unix::fs::FileExt as _;

use super::fixture::{Found, Server, good, rusd, text};

const NEEDLE: &str = "a value that stands in one place only";

#[test]
fn directories_are_told_apart() {
    let root = tempfile::tempdir().unwrap();
    let mut server = Server::new(&root, "one");
    let initial = format!("one={}", server.peer);
    server.start(&["--initial-cluster", &initial]);
    server.wait_for("/health", "\"health\":\"true\"");
    let endpoint = server.client.clone();
    good(&["put", "needle", NEEDLE, "--endpoints", &endpoint]);
    good(&["defrag", "--endpoints", &endpoint]);
    let dir = server.data.clone();
    let of = |more: &[&str]| Found::by(&[&["--data-dir", text(&dir)], more].concat());

    // Of a running member as much is said as its lock allows.
    let found = of(&[]);
    found.are(&["directory: Directory locked"]);
    assert_eq!(found.code, 0, "a running member is no problem");
    assert!(found.json["cluster"].is_null(), "no endpoint was given");
    of(&["--endpoints", &endpoint]).are(&["directory: Directory locked"]);
    server.stop();
    let found = of(&[]);
    found.are(&[]);
    assert_eq!(found.json["directory"]["isRead"], true);
    let output = rusd(&["doctor", "--data-dir", text(&dir)]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.lines().last().unwrap().contains(" healthy: ") || output.status.code() != Some(0));

    // One level too high or too low.
    for near in [root.path().to_path_buf(), dir.join("member"), dir.join("member/db")] {
        let found = Found::by(&["--data-dir", text(&near)]);
        found.are(&["directory: Lost directory"]);
        let said = found.json["findings"].to_string();
        assert!(said.contains(&format!("{} is one", text(&dir))), "{said}");
    }

    damage(&dir.join("member/db"));
    let found = of(&[]);
    found.are(&["directory-damage: Damaged directory"]);
    assert_eq!(found.code, 2);
    fs::rename(dir.join("member"), dir.join("member.damaged-7")).unwrap();
    of(&[]).are(&["directory: Lost directory", "directory-rebuild: Damaged directory"]);
    fs::create_dir_all(dir.join("member/snap")).unwrap();
    of(&[]).are(&["directory: Directory of etcd", "directory-rebuild: Damaged directory"]);
    fs::remove_dir_all(&dir).unwrap();
    of(&[]).are(&["directory: Lost directory"]);
    fs::write(&dir, "a file").unwrap();
    let checks = of(&[]).json["findings"].to_string();
    assert!(checks.contains("no directory") && !checks.contains("rebuild was begun"), "{checks}");
}

#[test]
fn what_names_nothing_is_refused() {
    for endpoints in ["", ",", " , "] {
        let output = rusd(&["doctor", "--endpoints", endpoints]);
        assert_eq!(output.status.code(), Some(2), "{endpoints:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("--endpoints names no server") && output.stdout.is_empty(), "{said}");
    }
}

/// Flips a bit of every copy of a value.
fn damage(store: &std::path::Path) {
    let generations = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path());
    let mut places = 0;
    for file in generations.map(|dir| dir.join("data.mdb")).filter(|file| file.exists()) {
        let bytes = fs::read(&file).unwrap();
        let opened = fs::OpenOptions::new().write(true).open(&file).unwrap();
        for (at, found) in bytes.windows(NEEDLE.len()).enumerate() {
            if found == NEEDLE.as_bytes() {
                opened.write_all_at(&[bytes[at] ^ 4], at as u64).unwrap();
                places += 1;
            }
        }
    }
    assert!(places > 0);
}
