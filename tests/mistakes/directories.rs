//! Commands for a directory or a file at rest, and paths that are not what was meant.

use std::fs;

use super::member::Member;
use super::table::{Case, run, rusd};

/// Checks a call that fails with one line.
fn check(words: &[&str], parts: &[&str]) {
    Case { words, variables: &[], code: 1, parts }.check_line();
}

#[test]
fn what_is_no_data_directory_is_told_apart() {
    let mut member = Member::start();
    member.kill();
    let data = member.dir.path().join("data");
    let path = |name: &str| member.dir.path().join(name).display().to_string();
    let (whole, inner) = (path("data"), path("data/member"));
    fs::create_dir(path("empty")).unwrap();
    fs::create_dir_all(path("etcds/member/snap")).unwrap();
    let out = path("out.db");
    for (dir, part) in [
        (path("none"), "there is no such directory; correct --data-dir"),
        (path("empty"), "no member was started in it. If it should be one, look for a disk"),
        (inner, &format!("is no data directory; {whole} is one")),
        (path("etcds"), "is a data directory of etcd; 'rusd import --from-data-dir"),
    ] {
        for words in [
            vec!["export", &out, "--data-dir", &dir],
            vec!["defrag", "--data-dir", &dir],
            vec!["migrate", "--target-version=3.6", "--data-dir", &dir],
        ] {
            check(&words, &[&dir, part]);
        }
    }
    for dir in ["none", "empty"] {
        check(&["check", "data", "--data-dir", &path(dir)], &[&path(dir), "director"]);
    }
    let import = |from: &str| {
        let words = ["import", "--from-data-dir", from, "--data-dir", &path("new")];
        check(&words, &[from, if from == whole { "of rusd already" } else { "no member/snap/db" }]);
    };
    import(&whole);
    import(&path("empty"));

    // The log lies elsewhere, and nothing says where.
    fs::rename(data.join("member/wal"), path("log.d")).unwrap();
    check(&["export", &out, "--data-dir", &whole], &["no log in", "give the same here"]);
    let output = run(rusd(&["check", "data", "--data-dir", &whole]));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("if the member is started with --wal-dir, give the same here"), "{said}");
    let wal = format!("--wal-dir={}", path("log.d"));
    let words = ["export", &out, "--data-dir", &whole, &wal];
    assert!(run(rusd(&words)).status.success());
    check(&words, &[&out, "exists already; name another file"]);

    // A backup that was cut short, and one that was changed.
    let bytes = fs::read(&out).unwrap();
    fs::write(path("short.db"), &bytes[..bytes.len() - 40]).unwrap();
    let mut changed = bytes.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(path("changed.db"), changed).unwrap();
    for (file, part) in [("short.db", "it was cut short"), ("changed.db", "the file is damaged")] {
        let words = ["snapshot", "restore", &path(file), "--data-dir", &path("new")];
        let output = run(rusd(&words));
        let said = String::from_utf8(output.stderr).unwrap();
        let line = said.lines().last().unwrap_or_default();
        assert!(line.contains(part) && line.contains("Take another backup"), "{said}");
        assert!(!output.status.success() && !line.contains("skip-hash-check=false"), "{said}");
    }
    assert!(!member.dir.path().join("new").exists());
}
