//! Members, and what a command says.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::child;
use super::member::{Process, flags, free_address, get};

/// What nothing needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Checks of the machine on which the tests run.
const OF_THE_MACHINE: [&str; 3] = ["disk", "directory-disk", "memory"];

pub struct Server {
    pub name: String,
    pub client: String,
    pub peer: String,
    pub data: PathBuf,
    child: Option<Process>,
}

impl Server {
    pub fn new(root: &TempDir, name: &str) -> Self {
        let [client, peer] = [free_address(), free_address()].map(|it| format!("http://{it}"));
        let data = root.path().join(name);
        Self { name: name.to_owned(), client, peer, data, child: None }
    }

    /// Starts the process after a shell command, such as one that lowers a limit.
    pub fn start_after(&mut self, before: &str, more: &[&str]) {
        let mut command = child::command("sh");
        command.args(["-c", &format!("{before}; exec \"$@\"")]).arg("sh");
        command.arg(child::RUSD).arg("serve");
        command.args(flags(&self.name, &self.data, &self.client, &self.peer)).args(more);
        let log = self.data.with_extension("log");
        let log = File::options().create(true).append(true).open(log).unwrap();
        self.child = Some(Process::start(&mut command, log));
    }

    pub fn start(&mut self, more: &[&str]) {
        self.start_after("true", more);
    }

    pub fn kill(&mut self) {
        self.child = None;
    }

    /// Ends the process in order: all that it has is in its store then.
    pub fn stop(&mut self) {
        self.signal(signal_hook::consts::SIGTERM);
        let mut child = self.child.take().unwrap();
        let end = Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < end, "{} does not end", self.name);
            sleep(Duration::from_millis(20));
        }
    }

    pub fn signal(&self, signal: i32) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().unwrap());
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn address(&self) -> &str {
        self.client.split_once("://").unwrap().1
    }

    /// Waits until the member answers a request with this text in it.
    pub fn wait_for(&self, path: &str, text: &str) {
        let begun = Instant::now();
        while !get(self.address(), path).contains(text) {
            let log = std::fs::read_to_string(self.data.with_extension("log"));
            assert!(begun.elapsed() < PATIENCE, "{text}:\n{}", log.unwrap_or_default());
            sleep(Duration::from_millis(50));
        }
    }
}

/// Runs a command as rusd, with nothing of the caller's environment that it could read.
pub fn rusd(words: &[&str]) -> Output {
    let mut command: Command = child::command(child::RUSD);
    command.args(words).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD") {
            command.env_remove(name);
        }
    }
    command.output().unwrap()
}

/// Standard output of a command that succeeds.
pub fn good(words: &[&str]) -> String {
    let output = rusd(words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A command that succeeds after a while: members count as healthy some seconds after their start.
pub fn in_time(words: &[&str]) {
    let begun = Instant::now();
    loop {
        let output = rusd(words);
        if output.status.success() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{words:?}: {output:?}");
        sleep(Duration::from_millis(200));
    }
}

/// What the doctor has found.
pub struct Found {
    pub code: i32,
    pub json: Value,
    pub text: String,
}

impl Found {
    /// The doctor's findings as JSON, without those of this machine.
    pub fn by(words: &[&str]) -> Self {
        let output = rusd(&[&["doctor", "-w", "json"], words].concat());
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let mut json: Value =
            serde_json::from_str(&text).unwrap_or_else(|_| panic!("{words:?}: {output:?}"));
        let findings = json["findings"].as_array_mut().unwrap();
        findings.retain(|it| !OF_THE_MACHINE.contains(&it["check"].as_str().unwrap()));
        Self { code: output.status.code().unwrap(), json, text }
    }

    /// Checks and sections of the findings, as `check: section`.
    pub fn all(&self) -> BTreeSet<String> {
        let of = |one: &Value| {
            let [check, section] = ["check", "section"].map(|name| one[name].as_str().unwrap());
            format!("{check}: {section}")
        };
        self.json["findings"].as_array().unwrap().iter().map(of).collect()
    }

    /// Fails unless these are the findings, and no others.
    pub fn are(&self, expected: &[&str]) {
        let expected: BTreeSet<String> = expected.iter().map(|it| (*it).to_owned()).collect();
        assert_eq!(self.all(), expected, "{:#}", self.json);
    }

    /// The cause of a finding whose subject has a text.
    pub fn cause(&self, check: &str, subject: &str) -> String {
        let findings = self.json["findings"].as_array().unwrap();
        let found = findings.iter().find(|one| {
            one["check"] == check && one["subject"].as_str().unwrap().contains(subject)
        });
        found.unwrap_or_else(|| panic!("no {check} of {subject} in {:#}", self.json))["cause"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
