//! What a person at a terminal sees of a server, and what everybody else gets instead.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use super::fixture::{Member, PATIENCE};
use super::member::{self, Process, free_address, is_healthy};

/// A member whose output is a terminal of 80 columns, as `script` makes one; what the terminal got
/// is in `log`. None if there is no such program.
fn at_a_terminal(
    root: &Path,
    log: &Path,
    variables: &[(&str, &str)],
    more: &[&str],
) -> Option<(Process, String)> {
    let tools = ["script", "stty"].map(|tool| Command::new(tool).arg("--version").output());
    if tools.iter().any(Result::is_err) {
        eprintln!("script and stty are not installed: not tested");
        return None;
    }
    let (address, peer) = (free_address(), format!("http://{}", free_address()));
    let flags = member::flags("one", &root.join("data"), &format!("http://{address}"), &peer);
    let words = [flags.as_slice(), &more.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()];
    let words = words.concat().join(" ");
    let line = format!("stty cols 80 -onlcr; exec {} serve {words}", crate::child::RUSD);
    let mut command = crate::child::command("script");
    command.args(["-q", "-e", "-f", "-c", &line]).arg(log).stdin(Stdio::null());
    command.env_remove("NO_COLOR").env("TERM", "xterm").env("SHELL", "/bin/sh").env("TZ", "UTC");
    command.envs(variables.iter().copied());
    let sink = File::create(root.join("script")).unwrap();
    Some((Process::start(&mut command, sink), address))
}

fn wait_for(log: &Path, text: &str) -> String {
    for _ in 0..PATIENCE.as_millis() / 20 {
        let bytes = fs::read(log).unwrap_or_default();
        let said = String::from_utf8_lossy(&bytes).into_owned();
        if said.contains(text) {
            return said;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("no {text}:\n{}", fs::read_to_string(log).unwrap_or_default());
}

/// The lines without those that `script` adds.
fn lines(said: &str) -> Vec<&str> {
    said.lines().filter(|line| !line.starts_with("Script ") && !line.is_empty()).collect()
}

#[test]
fn a_terminal_gets_short_lines_for_people() {
    let root = tempfile::tempdir().unwrap();
    let log = root.path().join("log");
    let Some((_child, address)) =
        at_a_terminal(root.path(), &log, &[("NO_COLOR", "1"), ("ETCD_ODD", "a\x1b[2Jb")], &[])
    else {
        return;
    };
    // The member may be ready before it says that it leads.
    wait_for(&log, "ready to serve client requests on");
    let said = wait_for(&log, "leader elected");
    assert!(is_healthy(&address));
    let lines = lines(&said);
    for line in &lines {
        assert!(line.chars().count() <= 80, "too long: {line}");
        assert!(!line.contains('\x1b') && !line.contains("{\""), "{line:?}");
    }
    assert!(said.contains("environment-variable=\"ETCD_ODD=a\\u001b[2Jb\""), "{said}");
    let first = lines.iter().find(|line| line.contains(" INFO  ")).unwrap();
    assert!(first.contains("rusd ") && said.contains("times=UTC"), "{said}");
    let place = "member one starts in a new data directory";
    for told in [place, "listening", "leader elected", "cluster ", "), this member", &address] {
        assert!(said.contains(told), "{told} in {said}");
    }
    for detail in ["starting an etcd server", "became follower", "Running: "] {
        assert!(!said.contains(detail), "{detail} in {said}");
    }
}

#[test]
fn levels_are_coloured_unless_the_terminal_is_dumb() {
    for (term, is_coloured) in [("xterm", true), ("dumb", false)] {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("log");
        let Some(_running) = at_a_terminal(root.path(), &log, &[("TERM", term)], &[]) else {
            return;
        };
        let said = wait_for(&log, "ready to serve client requests on");
        assert_eq!(said.contains("\x1b[32mINFO \x1b[0m"), is_coloured, "{said:?}");
    }
}

#[test]
fn a_format_that_was_asked_for_is_kept_at_a_terminal() {
    for (format, begins) in [("json", "{\"level\":\""), ("console", "20")] {
        let root = tempfile::tempdir().unwrap();
        let log = root.path().join("log");
        let flag = format!("--log-format={format}");
        let Some(_running) = at_a_terminal(root.path(), &log, &[], &[&flag]) else { return };
        let said = wait_for(&log, "ready to serve client requests");
        for line in lines(&said) {
            assert!(line.starts_with(begins), "{line:?}");
        }
    }
}

#[test]
fn a_file_gets_json_or_the_form_that_was_asked_for() {
    let member = Member::start();
    for line in member.log().lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["level"].is_string() && line["msg"].is_string(), "{line}");
    }
    let log = member.log();
    let elected = log.lines().find(|line| line.contains("raft.node: ")).unwrap();
    let words: Vec<&str> = elected.split("raft.node: ").nth(1).unwrap().split(' ').collect();
    let [own, "elected", "leader", leader, "at", "term", ..] = words[..] else {
        panic!("{elected}")
    };
    assert!(own == leader && u64::from_str_radix(own, 16).is_ok(), "{elected}");

    let root = tempfile::tempdir().unwrap();
    let (data, log) = (root.path().join("data"), root.path().join("log"));
    let human = Member::spawn_with(&["--log-format=human"], &[], &data, &log);
    human.wait_log("ready to serve client requests on");
    assert!(!human.log().contains('\x1b'), "{}", human.log());
}
