//! Commands of the shipped binary where golden cases cannot look: names that are no text, output that
//! cannot be written, servers that go away.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use member::Member;

#[path = "common/child.rs"]
mod child;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "common/member.rs"]
mod member;
#[path = "common/ports.rs"]
mod ports;

/// What nothing needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A command under one of the names, for a member.
fn command(name: &str, endpoint: &str, words: &[&[u8]]) -> Command {
    let mut command = child::command(child::RUSD);
    command.arg0(name).arg(format!("--endpoints={endpoint}"));
    command.args(words.iter().map(|word| OsStr::from_bytes(word)));
    for (variable, _) in std::env::vars_os() {
        if variable.as_bytes().starts_with(b"ETCD") {
            command.env_remove(variable);
        }
    }
    command.stdin(Stdio::null());
    command
}

fn output(member: &Member, words: &[&[u8]]) -> Output {
    command("etcdctl", &member.endpoint, words).output().unwrap()
}

/// Standard output of a command that succeeds.
fn said(member: &Member, words: &[&[u8]]) -> Vec<u8> {
    let output = output(member, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    output.stdout
}

/// Whether a process ends in time, and how.
fn end(mut child: Child) -> Output {
    let patience = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > patience {
            child.kill().unwrap();
            panic!("no end: {:?}", child.wait_with_output());
        }
        sleep(Duration::from_millis(20));
    }
    child.wait_with_output().unwrap()
}

fn interrupt(child: &Child) {
    let id = child.id().to_string();
    assert!(child::command("kill").args(["-INT", &id]).status().unwrap().success());
}

/// A process and the lines that it prints.
fn lines(mut command: Command) -> (Child, Receiver<Vec<u8>>) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let stdout: ChildStdout = child.stdout.take().unwrap();
    let (sender, lines) = sync_channel(100_000);
    thread::spawn(move || {
        for line in BufReader::new(stdout).split(b'\n') {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    (child, lines)
}

#[test]
fn names_are_bytes() {
    let member = Member::start();
    let key = said(&member, &[b"lock", b"l\xff", b"printenv", b"ETCD_LOCK_KEY"]);
    assert!(key.starts_with(b"l\xff/"), "{key:?}");

    for (name, words) in [
        (b"l\xff/", [b"lock".as_slice(), b"l\xff"].as_slice()),
        (b"e\xff/", &[b"elect", b"e\xff", b"v\xff"]),
    ] {
        let (child, lines) = lines(command("etcdctl", &member.endpoint, words));
        let key = lines.recv_timeout(PATIENCE).unwrap();
        assert!(key.starts_with(name), "{words:?}: {key:?}");
        let value = lines.recv_timeout(PATIENCE).unwrap();
        assert_eq!(value, words.get(2).copied().unwrap_or_default(), "{words:?}");
        // Another name is another lock; the same one waits.
        said(&member, &[b"lock", b"l\xfe", b"true"]);
        interrupt(&child);
        assert!(end(child).status.success(), "{words:?}");
        assert_eq!(said(&member, &[b"get", b"--prefix", name]), b"");
    }

    let file = member.dir.path().join(OsStr::from_bytes(b"s\xff.db"));
    let saved = said(&member, &[b"snapshot", b"save", file.as_os_str().as_bytes()]);
    let line = [b"Snapshot saved at ", file.as_os_str().as_bytes(), b"\n"].concat();
    assert!(saved.starts_with(&line), "{saved:?}");
    assert!(fs::metadata(&file).unwrap().len() > 0);
    let output_of = |words: &[&[u8]]| child_output(words);
    let status = output_of(&[b"snapshot", b"status", file.as_os_str().as_bytes()]);
    assert!(status.status.success(), "{status:?}");

    said(&member, &[b"put", b"\xffk", b"v\xff"]);
    let words: [&[u8]; 4] = [b"make-mirror", b"--prefix=\xff", b"--dest-prefix=\xfe", b"@"];
    let mut mirror = command("etcdctl", &member.endpoint, &words[..3]);
    let mut mirror = mirror.arg(&member.endpoint).stdout(Stdio::null()).spawn().unwrap();
    let patience = Instant::now() + PATIENCE;
    while said(&member, &[b"get", b"\xfek"]) != b"\xfek\nv\xff\n" {
        assert!(Instant::now() < patience, "nothing is mirrored");
        sleep(Duration::from_millis(50));
    }
    mirror.kill().unwrap();
    mirror.wait().unwrap();
}

/// A command without a member.
fn child_output(words: &[&[u8]]) -> Output {
    let mut command = child::command(child::RUSD);
    command.arg0("etcdutl").args(words.iter().map(|word| OsStr::from_bytes(word)));
    command.output().unwrap()
}

#[test]
fn what_is_no_text_is_refused_where_text_is_needed() {
    let member = Member::start();
    let marshal = "Error: rpc error: code = Internal desc = grpc: error while marshaling: string \
                   field contains invalid UTF-8\n";
    for (words, code, error) in [
        ([b"user".as_slice(), b"add", b"u\xff:pw"].as_slice(), 1, marshal.as_bytes()),
        (&[b"role", b"get", b"r\xff"], 1, marshal.as_bytes()),
        (&[b"--user=u\xff:pw", b"get", b"k"], 2, marshal.as_bytes()),
        (&[b"get", b"--order", b"\xff", b"k"], 4, b"Error: bad sort order \xff\n"),
        (&[b"-w", b"\xff", b"get", b"k"], 4, b"Error: unsupported output format\n"),
        (
            &[b"put", b"--lease", b"\xff", b"k", b"v"],
            128,
            b"Error: bad lease ID (strconv.ParseInt: parsing \"\\xff\": invalid syntax), expecting \
              ID in Hex\n",
        ),
        (&[b"--cacert", b"/\xff", b"get", b"k"], 128, b"Error: open /\xff: no such file or directory\n"),
        (
            &[b"lock", b"l", b"no\xff"],
            1,
            b"Error: exec: \"no\\xff\": executable file not found in $PATH\n",
        ),
    ] {
        let output = output(&member, words);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {stderr}");
        assert_eq!(output.stderr, error, "{words:?}: {stderr}");
    }
}

#[test]
fn a_quiet_client_does_not_hide_what_is_said_of_variables() {
    for level in ["error", "FATAL"] {
        let mut get = command("etcdctl", "http://127.0.0.1:1", &[b"get", b"a"]);
        get.env("ETCD_CLIENT_DEBUG", level).env("ETCDCTL_NO_SUCH", "1");
        get.arg("--command-timeout=10ms");
        let said = get.output().unwrap().stderr;
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains("\"environment-variable\":\"ETCDCTL_NO_SUCH=1\""), "{said}");
        assert!(!said.contains("\"logger\":\"etcd-client\""), "{said}");
        let refused = get.env("ETCDCTL_ENDPOINTS", "http://127.0.0.1:2").output().unwrap();
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(said.contains("conflicting environment variable"), "{said}");
        assert_eq!(refused.status.code(), Some(1));
    }
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    for (value, is_told) in [("1", true), ("", false)] {
        let mut get = command("rusd", "http://127.0.0.1:1", &[b"get", b"a"]);
        get.env("ETCDCTL_CERT", "").env("ETCDCTL_NO_SUCH", value).arg("--command-timeout=10ms");
        let said = get.output().unwrap().stderr;
        let said = String::from_utf8_lossy(&said);
        assert_eq!(said.contains("ETCDCTL_NO_SUCH is set"), is_told, "{said}");
        assert!(!said.contains("ETCDCTL_CERT"), "{said}");
    }
}

#[test]
fn help_for_a_command_that_does_not_exist_is_a_wrong_command_line() {
    let output = child::command(child::RUSD).args(["help", "gett"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("did you mean 'rusd get'?"), "{said}");
}

#[test]
fn a_flag_before_serve_is_refused_with_the_way_out() {
    let output = child::command(child::RUSD).args(["--debug", "serve"]).output().unwrap();
    assert_eq!(output.status.code(), Some(128));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("serve must be the first argument"), "{said}");
    let output = child::command(child::RUSD).arg("serv").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("in full"), "{said}");
}

/// etcdutl looks at the pages alone: what a value has become does not show there.
#[test]
fn a_snapshot_that_was_changed_is_called_damaged() {
    let member = Member::start();
    said(&member, &[b"put", b"k", b"a value that is looked for"]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.db");
    said(&member, &[b"snapshot", b"save", path.as_os_str().as_encoded_bytes()]);
    let good = std::fs::read(&path).unwrap();
    let mut changed = good.clone();
    let value = b"a value that";
    let at = good.windows(value.len()).position(|bytes| bytes == value).unwrap();
    changed[at] ^= 1;
    let database = &good[..good.len() - 32];
    for (bytes, fault) in [
        (good.as_slice(), None),
        (database, None),
        (&changed, Some("SHA-256 does not match")),
        (&[&good, &b"xyz"[..]].concat(), Some("cut off or added")),
        (&good[..good.len() - 1], Some("cut off or added")),
    ] {
        std::fs::write(&path, bytes).unwrap();
        for (name, fault) in [("rusd", fault), ("etcdutl", None)] {
            let mut command = child::command(child::RUSD);
            command.arg0(name).args(["snapshot", "status"]).arg(&path);
            let output = command.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), fault.is_none(), "{said}");
            assert!(said.contains(fault.unwrap_or_default()), "{said}");
        }
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let member = Member::start();
    said(&member, &[b"put", b"k", b"v"]);
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let done: &[&[&str]] = &[
        &["get", "k"],
        &["get", "k", "-w", "json"],
        &["get", "k", "-w", "fields"],
        &["get", "k", "-w", "protobuf"],
        &["put", "k", "w"],
        &["del", "none"],
        &["member", "list", "-w", "table"],
        &["endpoint", "status"],
        &["endpoint", "health"],
        &["lease", "grant", "60"],
        &["lock", "l"],
        &["elect", "e", "v"],
        &["watch", "k", "--rev", "1"],
        &["version"],
        &["options"],
        &["completion", "bash"],
        &["help", "get"],
        &["--help"],
        &["get", "--help"],
        &["man"],
        &["space"],
    ];
    for name in ["rusd", "etcdctl"] {
        for words in done {
            let is_rusds = matches!(words[0], "man" | "space");
            if is_rusds && name != "rusd" {
                continue;
            }
            let raw: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
            let mut command = command(name, &member.endpoint, &raw);
            let child = command.stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
            let output = end(child);
            let stderr = String::from_utf8(output.stderr).unwrap();
            let is_told = stderr.ends_with("Error: write /dev/stdout: no space left on device\n");
            assert!(is_told, "{name} {words:?}: {stderr}");
            assert_eq!(output.status.code(), Some(1), "{name} {words:?}: {stderr}");
        }
    }
    for words in [["serve", "--help"], ["serve", "--version"], ["__complete", "ge"]] {
        let mut command = child::command(child::RUSD);
        let output = command.args(words).stdout(full()).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}: {stderr}");
        assert!(stderr.contains("write /dev/stdout: "), "{words:?}: {stderr}");
    }
    // A failure keeps its code, however its output fared.
    for (words, code) in [
        ([b"get".as_slice()].as_slice(), 2),
        (&[b"endpoint", b"status", b"-w", b"protobuf"], 4),
        (&[b"bogus"], 2),
        (&[b"user", b"list", b"x"], 128),
        (&[b"role", b"get", b"nobody"], 1),
    ] {
        let mut full_command = command("rusd", &member.endpoint, words);
        let output = full_command.stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    }
    let words: [&[u8]; 2] = [b"endpoint", b"health"];
    let dead = format!("127.0.0.1:{}", ports::free());
    for stdout in [Stdio::from(full()), Stdio::from(closed_pipe())] {
        let mut health = command("rusd", &dead, &words);
        let output = health.arg("--command-timeout=100ms").stdout(stdout).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
}

/// The writing end of a pipe that nobody reads.
fn closed_pipe() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}

#[test]
fn a_reader_that_goes_away_ends_a_command_as_it_ends_etcds() {
    let member = Member::start();
    said(&member, &[b"put", b"k", b"v"]);
    for words in [[b"get".as_slice(), b"k"].as_slice(), &[b"watch", b"k", b"--rev=1"], &[b"--help"]]
    {
        let run = |name| {
            let mut command = command(name, &member.endpoint, words);
            end(command.stdout(closed_pipe()).spawn().unwrap()).status
        };
        assert_eq!(run("etcdctl").signal(), Some(13), "{words:?}");
        assert_eq!(run("rusd").code(), Some(0), "{words:?}");
    }
}

#[test]
fn a_benchmark_ends_once_its_server_is_gone() {
    let mut member = Member::start();
    let mut benchmarks = Vec::new();
    for kind in ["put", "range", "txn", "watch", "lease", "keep-alive"] {
        // Without a rate, they would keep a slow machine from answering one another.
        let words: [&[u8]; 7] = [
            b"bench",
            kind.as_bytes(),
            b"--total=1000000000",
            b"--clients=20",
            b"--keys=100",
            b"--rate=20",
            b"--command-timeout=5s",
        ];
        let mut command = command("rusd", &member.endpoint, &words);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        benchmarks.push((kind, child));
    }
    // Rows count in seconds, not in requests, and have more patience unless it is given.
    let words: [&[u8]; 5] =
        [b"bench", b"table", b"--row=put-100", b"--duration=10m", b"--command-timeout=5s"];
    let mut table = command("rusd", &member.endpoint, &words);
    let child = table.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    benchmarks.push(("table", child));
    sleep(Duration::from_secs(3));
    for (kind, child) in &mut benchmarks {
        if let Some(status) = child.try_wait().unwrap() {
            let mut stderr = String::new();
            child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
            panic!("{kind} ended before the server, {status}: {stderr}");
        }
    }
    member.kill();
    for (kind, child) in benchmarks {
        let output = end(child);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{kind}: {stderr}");
        // The streams of renewals may end before one is opened anew.
        let is_said = stderr.contains("Error: no answer from 127.0.0.1:")
            || kind == "keep-alive" && stderr.contains("the server went away");
        assert!(is_said, "{kind}: {stderr}");
    }
}

/// It takes as long as there is to delete; etcdctl gives it five seconds, as all calls.
#[test]
fn a_physical_compaction_and_a_defragmentation_are_waited_for() {
    let slow = ["--compaction-batch-limit=10", "--compaction-sleep-interval=7s"];
    let member = Member::start_with(&slow);
    let compact = |name: &str, words: &[&[u8]]| {
        for _ in 0..15 {
            said(&member, &[b"put", b"k", b"v"]);
        }
        let status = String::from_utf8(said(&member, &[b"endpoint", b"status", b"-w", b"fields"]));
        let status = status.unwrap();
        let now = status.lines().find_map(|line| line.strip_prefix("\"Revision\" : ")).unwrap();
        let all = [&[b"compaction".as_slice(), b"--physical", now.as_bytes()], words].concat();
        command(name, &member.endpoint, &all).output().unwrap()
    };
    let done = compact("rusd", &[b"--yes"]);
    assert!(done.status.success(), "{done:?}");
    for (name, words) in
        [("etcdctl", [].as_slice()), ("rusd", &[b"--yes".as_slice(), b"--command-timeout=1s"])]
    {
        let late = compact(name, words);
        assert!(!late.status.success(), "{name}: {late:?}");
    }
    let defrag = command("rusd", &member.endpoint, &[b"defrag"]).output().unwrap();
    assert!(defrag.status.success(), "{defrag:?}");
}

#[test]
fn a_command_that_waits_says_for_what() {
    let dead = format!("127.0.0.1:{}", ports::free());
    for words in [[b"role".as_slice(), b"list"].as_slice(), &[b"watch", b"k"], &[b"lock", b"l"]] {
        let mut command = command("etcdctl", &dead, words);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(line.contains("no endpoint answers; waiting until one does"), "{words:?}: {line}");
        assert!(line.contains("connection refused"), "{words:?}: {line}");
    }
}

#[test]
fn watches_typed_while_the_server_is_away_are_all_made() {
    const HALF: usize = 150;
    let mut member = Member::start();
    let mut watch = command("etcdctl", &member.endpoint, &[b"watch", b"-i"]);
    watch.stdin(Stdio::piped());
    let (mut child, lines) = lines(watch);
    let mut stdin = child.stdin.take().unwrap();
    let name = |at: usize| format!("k{at:03}");
    for at in 0..HALF {
        writeln!(stdin, "watch {}", name(at)).unwrap();
    }
    let put = |member: &Member, at: usize| {
        said(member, &[b"put", name(at).as_bytes(), b"v"]);
    };
    // The last one is there, and so are the others.
    let patience = Instant::now() + PATIENCE;
    loop {
        put(&member, HALF - 1);
        if lines.recv_timeout(Duration::from_secs(1)).is_ok() {
            break;
        }
        assert!(Instant::now() < patience, "no watch is made");
    }
    member.kill();
    let typing = thread::spawn(move || {
        for at in HALF..2 * HALF {
            writeln!(stdin, "watch {}", name(at)).unwrap();
            sleep(Duration::from_millis(10));
        }
        stdin
    });
    sleep(Duration::from_millis(300));
    member.restart();
    let stdin = typing.join().unwrap();
    // Watches from now on see what comes once they are there.
    let patience = Instant::now() + PATIENCE;
    let mut unseen: Vec<usize> = (0..2 * HALF).collect();
    while !unseen.is_empty() && Instant::now() < patience {
        for at in &unseen {
            put(&member, *at);
        }
        while let Ok(line) = lines.recv_timeout(Duration::from_secs(1)) {
            unseen.retain(|at| name(*at).as_bytes() != line);
        }
    }
    assert!(unseen.is_empty(), "nobody watches {unseen:?}");
    drop(stdin);
    assert_eq!(end(child).status.code(), Some(3));
}
