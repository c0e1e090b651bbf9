//! Replays what etcd 3.7.1's own command line tools printed, against the shipped binary as client
//! and as server. `tests/data/cli-golden.jsonl` was recorded with the real tools and a real server.
//!
//! One line is one case: `cmd` with `stdin` (or `stdin_chunks`, pairs of text and seconds to wait)
//! and `env`; then `stdout`, `stderr` and `exit` after `mask`, or fragments that must occur
//! (`stdout_has`, `stderr_has`). `capture` keeps a part of standard output as `@{NAME}`; names with
//! an underscore in front are not folded back into later outputs. `signal` is sent when standard
//! output matches; `bg` starts a command that a later case `join`s; `decode` shows protobuf as
//! text. Cases run in order and build on each other.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use regex::Regex;
use serde_json::Value;

#[path = "common/child.rs"]
mod child;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "common/member.rs"]
mod member;
#[path = "common/ports.rs"]
mod ports;

use member::Member;

#[test]
fn prints_what_etcds_tools_print() {
    let server = Member::start();
    let mut runner = Runner::new(&server);
    let text = fs::read_to_string("tests/data/cli-golden.jsonl").unwrap();
    let mut failures = Vec::new();
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let id = case["id"].as_str().unwrap();
        // A minute of load whose verdict is about the machine.
        if case["slow"] == true && std::env::var_os("RUSD_CLI_SLOW").is_none() {
            continue;
        }
        for complaint in runner.run(&case) {
            failures.push(format!("{id}: {complaint}"));
        }
    }
    assert!(failures.is_empty(), "{} complaints:\n{}", failures.len(), failures.join("\n"));
}

/// A command under way.
struct Process {
    child: Child,
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
    pumps: Vec<JoinHandle<()>>,
}

impl Process {
    fn start(command: &mut Command, input: Vec<(String, f64)>) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let (out, err) = (Arc::default(), Arc::default());
        let pumps = vec![
            pump(child.stdout.take().unwrap(), Arc::clone(&out)),
            pump(child.stderr.take().unwrap(), Arc::clone(&err)),
        ];
        let mut stdin = child.stdin.take().unwrap();
        thread::spawn(move || {
            for (text, pause) in input {
                // A command that does not read has ended.
                if stdin.write_all(text.as_bytes()).and_then(|()| stdin.flush()).is_err() {
                    return;
                }
                sleep(Duration::from_secs_f64(pause));
            }
        });
        Self { child, out, err, pumps }
    }

    fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn send(&mut self, spec: &Value) {
        let when = spec["when"].as_str().map(|text| Regex::new(text).unwrap());
        let wait = Duration::from_secs_f64(spec["after"].as_f64().unwrap_or(1.0));
        let patience = Instant::now() + wait;
        while Instant::now() < patience && !self.ended() {
            let shown = String::from_utf8_lossy(&self.out.lock().unwrap()).into_owned();
            if when.as_ref().is_some_and(|when| when.is_match(&shown)) {
                sleep(Duration::from_millis(150));
                break;
            }
            sleep(Duration::from_millis(30));
        }
        if !self.ended() {
            let name = spec["sig"].as_str().unwrap();
            let pid = self.child.id().to_string();
            child::command("kill").args([&format!("-{name}"), &pid]).status().unwrap();
        }
    }

    /// Standard output, standard error, and the exit code or the negative signal.
    fn finish(mut self, seconds: u64) -> (Vec<u8>, String, i64) {
        let patience = Instant::now() + Duration::from_secs(seconds);
        while !self.ended() && Instant::now() < patience {
            sleep(Duration::from_millis(10));
        }
        let mut note = String::new();
        if !self.ended() {
            note = format!("(killed: still running after {seconds}s)\n");
            self.child.kill().unwrap();
        }
        let status = self.child.wait().unwrap();
        for pump in self.pumps {
            pump.join().unwrap();
        }
        let out = self.out.lock().unwrap().clone();
        note.push_str(&String::from_utf8_lossy(&self.err.lock().unwrap()));
        let exit = status.code().unwrap_or_else(|| -status.signal().unwrap_or(999));
        (out, note, i64::from(exit))
    }
}

fn pump(mut from: impl Read + Send + 'static, to: Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            to.lock().unwrap().extend_from_slice(&buffer[..read]);
        }
    })
}

struct Runner {
    variables: HashMap<String, String>,
    background: HashMap<String, (Process, Value)>,
    tools: PathBuf,
    dir: PathBuf,
}

impl Runner {
    fn new(server: &Member) -> Self {
        let dir = server.dir.path().to_path_buf();
        let tools = dir.join("tools");
        fs::create_dir(&tools).unwrap();
        for tool in ["etcdctl", "etcdutl"] {
            let binary = Path::new(child::RUSD);
            std::os::unix::fs::symlink(binary, tools.join(tool)).unwrap();
        }
        let work = dir.join("work");
        fs::create_dir(&work).unwrap();
        let variables = HashMap::from([
            ("EP".into(), server.endpoint.clone()),
            ("TMP".into(), work.to_str().unwrap().into()),
        ]);
        Self { variables, background: HashMap::new(), tools, dir: work }
    }

    /// Puts values in the place of `@{NAME}`.
    fn substitute(&self, text: &str) -> String {
        self.variables.iter().fold(text.to_string(), |text, (name, value)| {
            text.replace(&format!("@{{{name}}}"), value)
        })
    }

    /// The reverse, longest value first.
    fn fold(&self, text: String) -> String {
        let mut known: Vec<_> = self.variables.iter().collect();
        known.retain(|(name, value)| !name.starts_with('_') && !value.is_empty());
        known.sort_by_key(|(name, value)| (std::cmp::Reverse(value.len()), (*name).clone()));
        known
            .into_iter()
            .fold(text, |text, (name, value)| text.replace(value, &format!("@{{{name}}}")))
    }

    fn start(&self, case: &Value) -> Process {
        let words: Vec<_> =
            case["cmd"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
        let mut command = child::command(self.tools.join(words[0]));
        if words[0] == "etcdctl" && case["no_ep"] != true {
            command.arg(format!("--endpoints={}", self.variables["EP"]));
        }
        command.args(words[1..].iter().map(|word| self.substitute(word)));
        command.current_dir(&self.dir);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD") {
                command.env_remove(name);
            }
        }
        for (name, value) in case["env"].as_object().into_iter().flatten() {
            command.env(name, self.substitute(value.as_str().unwrap()));
        }
        let input = match case["stdin_chunks"].as_array() {
            Some(chunks) => chunks
                .iter()
                .map(|chunk| {
                    (self.substitute(chunk[0].as_str().unwrap()), chunk[1].as_f64().unwrap())
                })
                .collect(),
            None => vec![(self.substitute(case["stdin"].as_str().unwrap_or_default()), 0.0)],
        };
        Process::start(&mut command, input)
    }

    /// Runs one case; what it returns is wrong with it.
    fn run(&mut self, case: &Value) -> Vec<String> {
        let mut process = match case["join"].as_str() {
            Some(name) => self.background.remove(name).unwrap().0,
            None => self.start(case),
        };
        if let Some(name) = case["bg"].as_str() {
            self.background.insert(name.into(), (process, case.clone()));
            sleep(Duration::from_secs_f64(case["settle"].as_f64().unwrap_or(1.0)));
            return Vec::new();
        }
        if !case["signal"].is_null() {
            process.send(&case["signal"]);
        }
        let (out, err, exit) = process.finish(case["timeout"].as_u64().unwrap_or(30));
        let out = match case["decode"].as_str() {
            Some("pb") => protobuf(&out).unwrap_or_else(|| "UNDECODABLE".into()),
            _ => String::from_utf8_lossy(&out).into_owned(),
        };
        for (name, pattern) in case["capture"].as_object().into_iter().flatten() {
            let pattern = Regex::new(pattern.as_str().unwrap()).unwrap();
            if let Some(found) = pattern.captures(&out) {
                self.variables.insert(name.clone(), found[1].to_string());
            }
        }
        let [out, err] = [out, err].map(|text| mask(case, self.fold(text)));
        let mut complaints = Vec::new();
        if case["exit"].as_i64() != Some(exit) {
            complaints.push(format!("exit: want {}, got {exit}", case["exit"]));
        }
        for (name, got) in [("stdout", out), ("stderr", err)] {
            if let Some(fragments) = case[format!("{name}_has")].as_array() {
                for fragment in fragments.iter().filter_map(Value::as_str) {
                    if !got.contains(fragment) {
                        complaints.push(format!("{name} lacks {fragment:?} in {got:?}"));
                    }
                }
            } else if case[name].as_str() != Some(&got) {
                complaints.push(format!("{name}:\n  want {}\n  got  {got:?}", case[name]));
            }
        }
        complaints
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        for (process, _) in self.background.values_mut() {
            let _ = process.child.kill();
        }
    }
}

fn mask(case: &Value, text: String) -> String {
    let Some(masks) = case["mask"].as_array() else { return text };
    let group = Regex::new(r"\\(\d)").unwrap();
    masks.iter().fold(text, |text, mask| {
        let pattern = Regex::new(mask[0].as_str().unwrap()).unwrap();
        let replacement = mask[1].as_str().unwrap().replace('$', "$$");
        let replacement = group.replace_all(&replacement, "$${$1}");
        pattern.replace_all(&text, replacement.as_ref()).into_owned()
    })
}

/// Protobuf as text without its schema: `1:5 2:{…} 3:"txt"`, a submessage wherever it parses.
fn protobuf(bytes: &[u8]) -> Option<String> {
    let mut rest = bytes;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest)?;
        let (field, kind) = (tag >> 3, tag & 7);
        if field == 0 || field > 5000 {
            return None;
        }
        match kind {
            0 => fields.push(format!("{field}:{}", varint(&mut rest)?)),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (inner, tail) = rest.split_at_checked(length)?;
                rest = tail;
                let message = protobuf(inner).filter(|_| !inner.is_empty());
                fields.push(match message {
                    Some(message) => format!("{field}:{{{message}}}"),
                    None => {
                        let text: String = inner.iter().map(|byte| *byte as char).collect();
                        format!("{field}:{}", Value::from(text))
                    }
                });
            }
            _ => return None,
        }
    }
    Some(fields.join(" "))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 127) << shift;
        if byte & 128 == 0 {
            return Some(value);
        }
    }
    None
}
