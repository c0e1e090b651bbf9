//! The manual pages and the completions in the repository are what the binary prints, `mandoc`
//! finds no fault with the pages, and what they show works. `UPDATE=1 cargo test --test generated`
//! rewrites them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use member::Member;

#[path = "common/child.rs"]
mod child;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "common/member.rs"]
mod member;
#[path = "common/ports.rs"]
mod ports;

fn printed(arguments: &[&str]) -> Vec<u8> {
    let output = child::command(child::RUSD).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output.stdout
}

fn check(path: &str, printed: &[u8]) {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, printed).unwrap();
    }
    let stored = fs::read(path).unwrap_or_default();
    assert!(stored == printed, "{path} is stale: run with UPDATE=1");
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let named = entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
    named.collect()
}

#[test]
fn the_manual_pages_are_current() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("pages");
    let said = printed(&["man", "--dir", dir.to_str().unwrap()]);
    let pages = files(&dir);
    assert_eq!(String::from_utf8(said).unwrap().lines().count(), pages.len());
    for (name, text) in &pages {
        check(&format!("man/{name}"), text);
        // A page by itself is the same, under each of its names.
        let page = name.split('.').next().unwrap();
        assert!(printed(&["man", page]) == *text, "rusd man {page}");
    }
    assert!(printed(&["man"]) == pages["rusd.1"]);
    assert_eq!(
        files(Path::new("man")).keys().collect::<Vec<_>>(),
        pages.keys().collect::<Vec<_>>()
    );
    // Where `man` looks for them.
    let share = root.path().join("share/man");
    printed(&["man", "--dir", share.to_str().unwrap()]);
    assert!(share.join("man1/rusd-serve.1").exists() && share.join("man7/rusd-operate.7").exists());
}

#[test]
fn mandoc_finds_no_fault_with_the_manual_pages() {
    for name in files(Path::new("man")).keys() {
        let mut lint = child::command("mandoc");
        let lint = lint.args(["-T", "lint", "-W", "warning"]).arg(format!("man/{name}"));
        let Ok(output) = lint.output() else {
            println!("there is no mandoc here; the pages are not checked");
            return;
        };
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{said}");
    }
}

#[test]
fn the_completions_are_current() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        check(&format!("completions/rusd.{shell}"), &printed(&["completion", shell]));
    }
}

/// The command lines of a page, as they are copied from it.
fn examples(page: &str) -> Vec<String> {
    let blocks = page.split("\n.EX\n").skip(1).map(|rest| rest.split("\n.EE").next().unwrap());
    let plain = |text: &str| {
        let text = [("\\-", "-"), ("\\(aq", "'"), ("\\(ti", "~"), ("\\(ha", "^"), ("\\(ga", "`")]
            .iter()
            .fold(text.to_owned(), |text, (roff, plain)| text.replace(roff, plain));
        text.replace("\\e", "\\").replace("\\\n", " ")
    };
    blocks.flat_map(|block| plain(block).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// What an example that needs other machines, a stopped member or an end by hand has in it.
const NOT_HERE: [&str; 23] = [
    "example.org",
    "10.0.0.",
    "/var/lib",
    // It would change this machine.
    "/usr/local/bin",
    "127.0.0.1:",
    "694d9a8c2b7a2a06",
    "8211f1d0f64f3269",
    " root",
    "rusd bench",
    "rusd watch",
    "rusd elect",
    "rusd txn -i",
    "rusd serve",
    "rusd check ",
    "rusd compaction",
    "--rev 1000",
    "rusd downgrade",
    "rusd user passwd",
    "completion",
    "rusd man",
    "auth ",
    "--user",
    "$ ",
];

#[test]
fn examples_that_need_nothing_else_work_as_they_stand() {
    let member = Member::start();
    let home = tempfile::tempdir().unwrap();
    symlink(child::RUSD, home.path().join("rusd")).unwrap();
    let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap());
    let run = |line: &str| {
        let mut shell = child::command("sh");
        shell.args(["-c", line]).env("PATH", &path).env("ETCDCTL_ENDPOINTS", &member.endpoint);
        shell.current_dir(home.path()).stdin(Stdio::null()).output().unwrap()
    };
    let before = [
        "for n in 1 2 3 4 5 6 7 8; do rusd put config/a $n; done",
        "rusd put a 1",
        "rusd role add reader && rusd user add alice --new-user-password pw",
        "rusd role grant-permission --prefix reader read config/",
        "rusd user grant-role alice reader",
        "rusd snapshot save backup.db",
        "rusd cert gen --dir certs",
    ];
    // What the steps have made, or what takes away what others use, comes in an order of its own.
    let mut lines = examples(&String::from_utf8(printed(&["man"])).unwrap());
    lines.retain(|line| line.contains("rusd ") && !NOT_HERE.iter().any(|word| line.contains(word)));
    lines.retain(|line| line != "rusd lock jobs/backup" && !line.contains("rusd role add"));
    lines.sort_by_key(|line| (line.contains(" del"), line.contains("revoke")));
    assert!(lines.len() > 25, "{lines:#?}");
    for line in before.into_iter().chain(lines.iter().map(String::as_str)) {
        if line == "rusd user add alice" {
            // It asks for a password.
            continue;
        }
        let output = run(line);
        assert!(output.status.success(), "{line}: {output:?}");
    }
}
