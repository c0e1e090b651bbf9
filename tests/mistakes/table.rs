//! One wrong call: its words, what it must say, and its end.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::child;

/// What nothing needs on a busy machine. A call that retried until `--command-timeout`, which
/// cases set to `NEVER`, would take longer by far.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const NEVER: &str = "--command-timeout=1h";

/// A call of rusd that fails.
pub struct Case<'a> {
    pub words: &'a [&'a str],
    pub variables: &'a [(&'a str, &'a str)],
    pub code: i32,
    /// What its one line contains.
    pub parts: &'a [&'a str],
}

/// `rusd` without the variables of the machine.
pub fn rusd(words: &[&str]) -> Command {
    let mut command = child::command(child::RUSD);
    command.arg0("rusd").args(words).stdin(Stdio::null());
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("ETCD") {
            command.env_remove(variable);
        }
    }
    command
}

/// The end of a process, which must come in time.
pub fn end(mut child: Child) -> Output {
    let patience = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > patience {
            child.kill().unwrap();
            panic!("no end: {:?}", child.wait_with_output());
        }
        sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

pub fn run(mut command: Command) -> Output {
    end(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

impl Case<'_> {
    /// Makes the call, and returns its standard error.
    pub fn check(&self) -> String {
        let mut command = rusd(self.words);
        command.envs(self.variables.iter().copied());
        let output = run(command);
        let said = String::from_utf8(output.stderr).unwrap();
        let words = self.words;
        assert_eq!(output.status.code(), Some(self.code), "{words:?}: {said}");
        for part in self.parts {
            assert!(said.contains(part), "{words:?}: {part:?} is not in: {said}");
        }
        for odd in ["{", "rpc error", "desc =", "context deadline", "strconv", "panic"] {
            assert!(!said.contains(odd), "{words:?}: {odd:?} is in: {said}");
        }
        said
    }

    /// The same for a call that says a single line.
    pub fn check_line(&self) {
        let said = self.check();
        let is_line = said.starts_with("Error: ") && said.trim_end().lines().count() == 1;
        assert!(is_line, "{:?}: {said}", self.words);
    }
}
