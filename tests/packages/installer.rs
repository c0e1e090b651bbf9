//! The shell installer: from a tarball, with and without links, again, and away.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use tempfile::TempDir;

use super::child::{RUSD, command};
use super::files::{files_below, package, read, text_of, tool};

/// A tarball as `docs/deploy/build.sh --tarball` makes it, and a prefix to install it into.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree/rusd-0.1.0-x");
        fs::create_dir_all(tree.join("man")).unwrap();
        fs::create_dir_all(tree.join("completions")).unwrap();
        // A script, for the binary of a debug build is large.
        fs::write(tree.join("rusd"), format!("#!/bin/sh\nexec '{RUSD}' \"$@\"\n")).unwrap();
        for name in ["man/rusd.1", "completions/rusd.bash", "completions/rusd.fish"] {
            fs::copy(package().join(name), tree.join(name)).unwrap();
        }
        let site = Self { dir };
        site.shell("chmod 755 tree/*/rusd && tar -C tree -czf rusd.tar.gz rusd-0.1.0-x");
        site.shell("sha256sum rusd.tar.gz > rusd.tar.gz.sha256");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn shell(&self, script: &str) {
        let mut shell = command("sh");
        let status = shell.args(["-e", "-c", script]).current_dir(self.dir.path()).status();
        assert!(status.unwrap().success(), "{script}");
    }

    fn install(&self, words: &[&str]) -> Output {
        let mut script = command(package().join("docs/deploy/install.sh"));
        script.args(words).current_dir(self.dir.path()).stdin(Stdio::null());
        // Whoever runs the tests may be root.
        script.args(["--as-root", "--prefix", "prefix"]);
        script.output().unwrap()
    }

    fn good(&self, words: &[&str]) -> String {
        let output = self.install(words);
        assert!(output.status.success(), "{words:?}: {}", text_of(&output));
        text_of(&output)
    }

    fn refused(&self, words: &[&str], why: &str) {
        let output = self.install(words);
        assert!(!output.status.success(), "{words:?}: {}", text_of(&output));
        assert!(text_of(&output).contains(why), "{words:?}: {}", text_of(&output));
    }

    fn installed(&self) -> Vec<String> {
        let mut names = Vec::new();
        let prefix = self.path("prefix");
        let mut directories = vec![prefix.clone()];
        while let Some(directory) = directories.pop() {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for path in entries.map(|entry| entry.unwrap().path()) {
                if path.is_dir() && !path.is_symlink() {
                    directories.push(path);
                } else {
                    names.push(path.strip_prefix(&prefix).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        names.sort();
        names
    }
}

#[test]
fn what_was_installed_works_and_goes_again() {
    let site = Site::new();
    let said = site.good(&["--from", "rusd.tar.gz", "--dry-run", "--links"]);
    assert!(said.contains("would install") && site.installed().is_empty(), "{said}");

    let said = site.good(&["--from", "rusd.tar.gz", "--links"]);
    assert!(said.contains("is not in your PATH"), "{said}");
    let all = [
        "bin/etcd",
        "bin/etcdctl",
        "bin/etcdutl",
        "bin/rusd",
        "share/bash-completion/completions/rusd",
        "share/fish/vendor_completions.d/rusd.fish",
        "share/man/man1/rusd.1",
        "share/rusd/installed",
    ];
    assert_eq!(site.installed(), all);
    assert_eq!(fs::read_link(site.path("prefix/bin/etcdctl")).unwrap(), Path::new("rusd"));
    let output = command(site.path("prefix/bin/rusd")).arg("version").output().unwrap();
    assert!(output.status.success(), "{output:?}");

    // Again without links: those of before go.
    site.good(&["--from", "rusd.tar.gz"]);
    assert!(!site.installed().iter().any(|name| name.contains("etcd")), "{:?}", site.installed());
    fs::write(site.path("prefix/bin/other"), "").unwrap();
    let said = site.good(&["--uninstall", "--dry-run"]);
    assert!(said.contains("would run: rm -f") && site.installed().len() > 2, "{said}");
    site.good(&["--uninstall"]);
    assert_eq!(site.installed(), ["bin/other"]);
    site.refused(&["--uninstall"], "nothing of this script is installed");
}

#[test]
fn nothing_is_installed_that_was_not_checked() {
    let site = Site::new();
    let wrong = "0".repeat(64);
    site.refused(
        &["--from", "rusd.tar.gz", "--sha256", &wrong],
        "was expected; nothing was installed",
    );
    site.refused(&["--from", "http://127.0.0.1:1/x.tar.gz"], "only https:// is trusted");
    site.refused(&["--from", "nowhere.tar.gz"], "cannot be read");
    site.refused(&["--from", "rusd.tar.gz", "--source", "."], "give one of");
    site.refused(&["--bad"], "unknown: --bad");
    fs::remove_file(site.path("rusd.tar.gz.sha256")).unwrap();
    site.refused(&["--from", "rusd.tar.gz"], "give --sha256");
    assert!(site.installed().is_empty());

    // Somebody else's etcd stays.
    let site = Site::new();
    fs::create_dir_all(site.path("prefix/bin")).unwrap();
    symlink("/nowhere/bin/etcd", site.path("prefix/bin/etcd")).unwrap();
    fs::write(site.path("prefix/bin/etcdctl"), "theirs").unwrap();
    site.refused(&["--from", "rusd.tar.gz", "--links"], "bin/etcd is another program");
    assert_eq!(site.installed(), ["bin/etcd", "bin/etcdctl"]);
}

#[test]
fn root_must_mean_it() {
    if !rustix::process::getuid().is_root() {
        eprintln!("this is not root");
        return;
    }
    let site = Site::new();
    let mut script = command(package().join("docs/deploy/install.sh"));
    let output = script.args(["--from", "rusd.tar.gz"]).current_dir(site.dir.path()).output();
    let output = output.unwrap();
    assert!(!output.status.success() && text_of(&output).contains("add --as-root"), "{output:?}");
}

#[test]
fn shell_scripts_are_clean() {
    let scripts: Vec<_> = files_below("docs/deploy")
        .into_iter()
        .filter(|path| fs::read_to_string(path).unwrap().starts_with("#!/bin/sh\n"))
        .collect();
    assert!(scripts.len() >= 6, "{scripts:?}");
    for script in &scripts {
        let output = command("sh").arg("-n").arg(script).output().unwrap();
        assert!(output.status.success(), "{}", text_of(&output));
    }
    let Some(mut shellcheck) = tool("shellcheck") else { return };
    let output = shellcheck.args(&scripts).output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
    let rpm = files_below("docs/deploy/rpm");
    let output = command("shellcheck").args(["-s", "sh"]).args(&rpm).output().unwrap();
    assert!(output.status.success(), "{}", text_of(&output));
}

/// The help is the head of the script itself.
#[test]
fn the_help_names_each_option() {
    let help = text_of(&Site::new().install(&["--help"]));
    for option in
        super::files::matches(r"(?m)^    (--[a-z0-9-]+)\)", &read("docs/deploy/install.sh"))
    {
        assert!(help.contains(&option), "{option} is not in the help:\n{help}");
    }
    assert!(!help.contains("set -eu"), "{help}");
}
