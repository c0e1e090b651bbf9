//! Servers that are not there, do not understand the client, or refuse it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use super::member::{Member, free_address};
use super::places::{answering, secured, shop, silent};
use super::table::{Case, NEVER, PATIENCE, end, run, rusd};

/// Checks calls of `get k` with these words more.
fn check(words: &[&str], code: i32, parts: &[&str]) {
    let words = [words, &["get", "k", NEVER]].concat();
    Case { words: &words, variables: &[], code, parts }.check_line();
}

#[test]
fn what_is_no_etcd_is_told() {
    let dead = free_address();
    let (_silent, silent) = silent();
    let at = |address: &str| format!("--endpoints={address}");
    let refused = "connection refused. Is a server running there? Start one with 'rusd serve'";
    check(&[&at(&dead)], 2, &[&format!("cannot connect to {dead}: {refused}")]);
    check(&[&at("no-such-host.invalid:2379")], 2, &["unknown host. Check the name"]);
    for endpoint in ["htps://127.0.0.1:2379", "http:/127.0.0.1:2379"] {
        check(&[&at(endpoint)], 2, &[endpoint, "An endpoint begins with http://, https://"]);
    }
    check(&[&at("127.0.0.1")], 2, &["127.0.0.1: it is no HOST:PORT", "127.0.0.1:2379"]);
    check(&[&at("unix:///no/such.sock")], 2, &["no socket", "'rusd serve'"]);
    check(&[&at("")], 2, &["--endpoints"]);
    check(
        &[&at(&silent), "--dial-timeout=1s"],
        2,
        &["no answer within 1s", "once there is a quorum", "--dial-timeout"],
    );
    let url = format!("https://{silent}");
    check(&[&at(&url), "--dial-timeout=1s"], 2, &["no answer within 1s"]);
    check(&[&at(&answering(b""))], 2, &["closes the connection", "or wait for it with --wait 30s"]);
    let http = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    check(&[&at(&http)], 2, &["not gRPC", "2379 by default"]);
    // All are named, each with its cause.
    let both = format!("{dead},no-such-host.invalid:1");
    check(
        &[&at(&both)],
        2,
        &[&format!("{dead}: connection refused; no-such-host"), "unknown host"],
    );
}

#[test]
fn what_is_wrong_with_tls_is_told() {
    let shop = shop();
    let (ca, other) = (shop.path("ca.crt"), shop.path("other.crt"));
    let plain = Member::start();
    let mutual = ["--client-cert-auth".to_owned(), format!("--trusted-ca-file={ca}")];
    let servers = ["server", "expired", "elsewhere"].map(|name| secured(&shop, name, &[]));
    let [tls, expired, elsewhere] = servers.each_ref().map(|it| format!("https://{}", it.address));
    let mutual = secured(&shop, "server", &mutual);
    let wants = format!("https://{}", mutual.address);

    check(&["--endpoints", &servers[0].address], 2, &["speaks TLS", "Use https://", "--cacert"]);
    let url = format!("https://{}", plain.endpoint);
    check(&["--endpoints", &url, "--cacert", &ca], 2, &["TLS", "http://"]);
    let own = ["--endpoints", &tls];
    check(&[&own[..], &["--cacert", &other]].concat(), 2, &["unknown authority", "--cacert FILE"]);
    check(&own, 2, &["unknown authority", "--cacert FILE"]);
    let at = |url| ["--cacert", &ca, "--endpoints", url];
    let names = ["not for 127.0.0.1 but for elsewhere.example", "rusd cert gen --hosts"];
    check(&at(&elsewhere), 2, &names);
    check(&at(&expired), 2, &["its certificate has expired on 2021-02-03", "check the clocks"]);
    check(&at(&wants), 2, &["it wants a client certificate", "--cert FILE and --key FILE"]);
    for (name, parts) in [
        ("expired", ["the client certificate has expired or is not valid yet", "rusd cert show"]),
        ("early", ["the client certificate has expired or is not valid yet", "check the clocks"]),
        (
            "stranger",
            ["does not know the authority of the client certificate", "--trusted-ca-file"],
        ),
    ] {
        let [cert, key] = ["crt", "key"].map(|kind| shop.path(&format!("{name}.{kind}")));
        check(&[&at(&wants)[..], &["--cert", &cert, "--key", &key]].concat(), 2, &parts);
    }
    // And who does nothing wrong is let in.
    let [cert, key] = ["crt", "key"].map(|kind| shop.path(&format!("client.{kind}")));
    let words = [&at(&wants)[..], &["--cert", &cert, "--key", &key, "put", "k", "v"]].concat();
    assert!(run(rusd(&words)).status.success());
}

#[test]
fn what_is_wrong_with_a_login_is_told() {
    let member = Member::start();
    let at = format!("--endpoints={}", member.endpoint);
    let good = |words: &[&str]| {
        let output = run(rusd(&[&[at.as_str()], words].concat()));
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    // One that only a certificate lets in, which this member does not ask for.
    let noted = good(&["user", "add", "root", "--no-password"]);
    assert!(noted.contains("client certificate") && noted.contains("user passwd root"), "{noted}");
    good(&["user", "delete", "root", "--yes"]);
    assert_eq!(good(&["user", "add", "root:secret"]), "");
    good(&["user", "grant-role", "root", "root"]);
    good(&["user", "add", "alice:pw"]);
    good(&["user", "add", "carl", "--no-password"]);
    let nothing = [&at, "user", "passwd", "alice", "--interactive=false"];
    let parts = ["empty password", "standard input"];
    Case { words: &nothing, variables: &[], code: 128, parts: &parts }.check_line();
    good(&["auth", "enable"]);
    check(&[&at, "--user=carl:pw"], 2, &["this user has no password", "--cert"]);
    check(&[&at], 2, &["login needed", "--user NAME[:PASSWORD]"]);
    check(&[&at, "--user=root:wrong"], 2, &["wrong user name or password", "--password"]);
    check(&[&at, "--user=nobody:pw"], 2, &["wrong user name or password"]);
    check(&[&at, "--auth-jwt-token=no.such.token"], 2, &["login needed", "token"]);
    check(&[&at, "--user=alice:pw"], 1, &["permission denied", "rusd user get NAME"]);
    let words = [&at, "--user=root:secret", "user", "get", "carol"];
    let parts = ["no such user", "rusd user list"];
    Case { words: &words, variables: &[], code: 1, parts: &parts }.check_line();
}

#[test]
fn every_command_ends_where_nothing_listens() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("backup.db");
    let file = file.to_str().unwrap();
    let dead = free_address();
    let at = format!("--endpoints={dead}");
    let commands: &[&[&str]] = &[
        &["put", "k", "v"],
        &["del", "k"],
        &["txn"],
        &["compaction", "1"],
        &["watch", "k"],
        &["watch", "-i"],
        &["lock", "l"],
        &["lock", "l", "true"],
        &["elect", "e", "v"],
        &["elect", "-l", "e"],
        &["lease", "grant", "60"],
        &["lease", "list"],
        &["lease", "timetolive", "1"],
        &["lease", "revoke", "1"],
        &["lease", "keep-alive", "1"],
        &["lease", "keep-alive", "--once", "1"],
        &["member", "list"],
        &["alarm", "list"],
        &["alarm", "disarm"],
        &["endpoint", "status"],
        &["endpoint", "status", "--cluster"],
        &["endpoint", "hashkv"],
        &["defrag"],
        &["space"],
        &["space", "--cluster"],
        &["move-leader", "1"],
        &["snapshot", "save", file],
        &["make-mirror", &dead],
        &["auth", "status"],
        &["user", "list"],
        &["role", "list"],
        &["downgrade", "cancel"],
        &["check", "perf"],
        &["check", "datascale"],
        &["bench", "put"],
        &["bench", "watch"],
        &["bench", "table"],
        &["bench", "ceiling"],
    ];
    for words in commands {
        let words = [words, &[at.as_str(), NEVER][..]].concat();
        let parts = [dead.as_str(), "connection refused", "'rusd serve'"];
        Case { words: &words, variables: &[], code: 2, parts: &parts }.check_line();
    }
    let words = ["endpoint", "health", &at, NEVER];
    Case { words: &words, variables: &[], code: 1, parts: &["connection refused"] }.check();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "a part of a file is left");
}

#[test]
fn endpoints_are_asked_at_once_and_told_in_their_order() {
    const SILENT: usize = 20;
    let member = Member::start();
    let silent: Vec<_> = (0..SILENT).map(|_| silent()).collect();
    let mut all: Vec<&str> = silent.iter().map(|(_, address)| address.as_str()).collect();
    all.insert(SILENT / 2, &member.endpoint);
    // One after the other they take twice the patience of `end`.
    let at = format!("--endpoints={}", all.join(","));
    for words in [["endpoint", "status"].as_slice(), &["endpoint", "hashkv"], &["space"]] {
        let words = [words, &[at.as_str(), "--dial-timeout=6s"]].concat();
        let output = run(rusd(&words));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        let told: Vec<_> =
            said.lines().filter(|line| line.contains("no answer within 6s")).collect();
        assert_eq!(told.len(), SILENT, "{said}");
        for (line, (_, address)) in told.iter().zip(&silent) {
            assert!(line.contains(address), "{address} is not in: {line}");
        }
        assert!(String::from_utf8(output.stdout).unwrap().contains(&member.endpoint));
    }
}

#[test]
fn a_client_waits_for_a_server_that_is_not_up_yet() {
    let mut member = Member::start();
    member.kill();
    let at = format!("--endpoints={}", member.endpoint);
    let words = ["get", "k", "--wait=1s", &at];
    let parts = ["waiting up to 1s for a server", "Error: cannot connect to", "refused"];
    Case { words: &words, variables: &[], code: 2, parts: &parts }.check();
    let mut put = rusd(&["put", "k", "v", "--wait=1h", "--command-timeout=30s", &at]);
    let mut put = put.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = lines(put.stderr.take().unwrap());
    let said = stderr.recv_timeout(PATIENCE).unwrap();
    assert!(said.starts_with("waiting up to 1h0m0s for a server"), "{said}");
    member.restart();
    let output = end(put);
    assert_eq!(output.stdout, b"OK\n");
    assert!(stderr.try_recv().is_err());
    // What does not pass by itself is not waited for.
    let http = answering(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    check(&["--wait=1h", "--endpoints", &http], 2, &["not gRPC"]);
}

/// The lines of a stream as they come.
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = sync_channel(1000);
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn started(words: &[&str]) -> (Child, Receiver<String>, Receiver<String>) {
    let mut command = rusd(words);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    (child, lines(out), lines(err))
}

#[test]
fn a_watch_says_when_its_server_goes_and_is_back_and_loses_nothing() {
    let mut member = Member::start();
    let at = format!("--endpoints={}", member.endpoint);
    let (mut watch, out, err) = started(&["watch", "k", &at]);
    let put = |value: &str| assert!(run(rusd(&["put", "k", value, &at])).status.success());
    // Until it is there.
    let patience = Instant::now() + PATIENCE;
    put("first");
    while out.recv_timeout(Duration::from_secs(1)).is_err() {
        assert!(Instant::now() < patience, "no event");
        put("first");
    }
    for round in ["a", "b"] {
        member.kill();
        let said = err.recv_timeout(PATIENCE).unwrap();
        assert!(said.starts_with("connection lost; waiting until a server is back"), "{said}");
        assert!(said.contains(&member.endpoint) && said.contains("refused"), "{said}");
        sleep(Duration::from_secs(1));
        member.restart();
        // Most of these are put before the watch is back.
        let values: Vec<String> = (0..5).map(|at| format!("{round}{at}")).collect();
        values.iter().for_each(|value| put(value));
        let said = err.recv_timeout(PATIENCE).unwrap();
        assert!(said.starts_with("connected again"), "{said}");
        let mut seen = Vec::new();
        while seen.last() != values.last() {
            let line = out.recv_timeout(PATIENCE).unwrap();
            seen.extend(line.starts_with(round).then_some(line));
        }
        assert_eq!(seen, values);
    }
    assert!(err.try_recv().is_err(), "it is said more than once");
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn a_lock_and_an_election_end_when_their_lease_does() {
    let mut member = Member::start();
    let at = format!("--endpoints={}", member.endpoint);
    let (holder, held, said) = started(&["lock", "l", "--ttl=2s", &at]);
    held.recv_timeout(PATIENCE).unwrap();
    let (waiting, _none, waiting_said) = started(&["lock", "l", "--ttl=2", &at]);
    let (with_command, _ran, command_said) =
        started(&["lock", "other", "--ttl=2", &at, "sh", "--", "-c", "echo go; sleep 20"]);
    let [running, queued] = [b"other", b"l/".as_slice()].map(|prefix| {
        let prefix = String::from_utf8(prefix.to_vec()).unwrap();
        let wanted = if prefix == "l/" { 2 } else { 1 };
        let patience = Instant::now() + PATIENCE;
        loop {
            let found = run(rusd(&["get", "--prefix", &prefix, "--keys-only", &at])).stdout;
            let count =
                String::from_utf8(found).unwrap().lines().filter(|it| !it.is_empty()).count();
            if count >= wanted {
                return true;
            }
            assert!(Instant::now() < patience, "no key under {prefix}");
            sleep(Duration::from_millis(50));
        }
    });
    assert!(running && queued);
    member.kill();
    for (child, said) in [(holder, said), (waiting, waiting_said)] {
        let lost = said.recv_timeout(PATIENCE).unwrap();
        assert!(lost.starts_with("connection lost"), "{lost}");
        let ended = said.recv_timeout(PATIENCE).unwrap();
        assert!(ended.starts_with("Error: the lock is lost: its lease of 2s"), "{ended}");
        assert_eq!(end(child).status.code(), Some(1));
    }
    let warned: Vec<_> = (0..2).map(|_| command_said.recv_timeout(PATIENCE).unwrap()).collect();
    assert!(warned[1].starts_with("Warning: the lock is lost"), "{warned:?}");
    assert!(warned[1].contains("the command runs on"), "{warned:?}");
    drop(with_command_end(with_command));
}

/// Ends a lock whose command still runs.
fn with_command_end(mut child: Child) -> Child {
    child.kill().unwrap();
    child.wait().unwrap();
    child
}
