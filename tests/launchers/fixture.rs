//! A host on which etcd is started, with a directory for what the launcher lays out.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::child::{RUSD, command};
use super::member::{Process, get};
use super::shop::Shop;

/// What nothing needs on a busy machine; a test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The directory of a test.
pub struct Host {
    dir: TempDir,
}

impl Host {
    /// With `bin`, in which the programs have etcd's names.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        for name in ["etcd", "etcdctl", "etcdutl", "rusd"] {
            symlink(RUSD, dir.path().join("bin").join(name)).unwrap();
        }
        Self { dir }
    }

    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file, and the directories above it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        self.path(name)
    }

    /// A program under one of etcd's names, without variables of whoever runs the test.
    pub fn program(&self, name: &str) -> Command {
        let mut program = command(self.path(&format!("bin/{name}")));
        clear(&mut program);
        program.arg0(name).current_dir(self.dir.path());
        program
    }

    /// A shell script with etcd's programs in its path.
    pub fn script(&self, text: &str) -> Command {
        let mut shell = command("sh");
        clear(&mut shell);
        let path = std::env::var("PATH").unwrap_or_default();
        shell.args(["-e", "-c", text]).current_dir(self.dir.path());
        shell.env("PATH", format!("{}:{path}", self.path("bin")));
        shell
    }

    /// Starts a server; what it says is added to `NAME.log`.
    pub fn start(&self, name: &str, command: &mut Command) -> Etcd {
        let log = self.path(&format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        Etcd { child: Process::start(command.stdin(Stdio::null()), file), log }
    }

    /// What `etcdctl` says with these words, and its exit code.
    pub fn ctl(&self, words: &[&str]) -> (i32, String) {
        let output = self.program("etcdctl").args(words).stdin(Stdio::null()).output().unwrap();
        ended(&output)
    }

    /// Standard output of an `etcdctl` that ends with success.
    pub fn good(&self, words: &[&str]) -> String {
        let output = self.program("etcdctl").args(words).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same at the server on this port, with the certificates of the shop's client.
    pub fn good_over_tls(&self, shop: &Shop, port: u16, words: &[&str]) -> String {
        let flags = flags_over_tls(shop, port);
        self.good(&[words, &flags.each_ref().map(String::as_str)].concat())
    }

    /// Repeats an `etcdctl` until it ends with success, or says that an attempt before has succeeded.
    pub fn until_good(&self, words: &[&str]) {
        let begun = Instant::now();
        loop {
            let (code, said) = self.ctl(words);
            if code == 0 {
                return;
            }
            // An attempt whose answer was lost has done what it was to do.
            let is_done = |text: &str| said.to_lowercase().contains(text);
            if is_done("member not found") || is_done("can only promote a learner") {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{words:?}: {said}");
            sleep(Duration::from_millis(200));
        }
    }
}

/// What tells `etcdctl` the server on this port and the certificates of the shop's client.
pub fn flags_over_tls(shop: &Shop, port: u16) -> [String; 5] {
    let file = |flag: &str, name: &str| format!("--{flag}={}", shop.path(name));
    [
        format!("--endpoints=https://127.0.0.1:{port}"),
        file("cacert", "ca.crt"),
        file("cert", "client.crt"),
        file("key", "client.key"),
        "--command-timeout=30s".to_owned(),
    ]
}

/// Exit code and all text of a program that has ended.
pub fn ended(output: &Output) -> (i32, String) {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8(text).unwrap())
}

fn clear(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if ["ETCD", "NOTIFY_", "WATCHDOG_"].iter().any(|start| name.starts_with(start)) {
            command.env_remove(&*name);
        }
    }
}

/// A running server; dropped, it is killed.
pub struct Etcd {
    pub child: Process,
    log: String,
}

impl Etcd {
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until something is so, as long as the server runs.
    pub fn wait_for(&mut self, what: &str, mut is_so: impl FnMut(&str) -> bool) {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let log = self.log();
            if is_so(&log) {
                return;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended; no {what}:\n{log}");
            sleep(Duration::from_millis(20));
        }
        panic!("no {what}:\n{}", self.log());
    }

    /// Waits for a probe over plain HTTP to succeed.
    pub fn wait_probe(&mut self, address: &str, path: &str) {
        self.wait_for(path, |_| probe(address, path) == 200);
    }

    /// Waits until clients are served.
    pub fn wait_serving(&mut self) {
        self.wait_for("service", |log| log.contains("ready to serve client requests"));
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end.
    pub fn wait_end(&mut self) -> ExitStatus {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            sleep(Duration::from_millis(20));
        }
        panic!("no end:\n{}", self.log());
    }

    /// Ends it as a service manager does.
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        self.wait_end();
        let log = self.log();
        assert!(log.contains("closed etcd server") && !log.contains("panic"), "{log}");
    }
}

/// The status of an answer over plain HTTP; 0 if there is none.
pub fn probe(address: &str, path: &str) -> u16 {
    let answer = get(address, path);
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}
