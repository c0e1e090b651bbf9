//! Starts that are refused, each with the subject and what to do; links; and how few flags a start
//! needs.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::fixture::Member;
use super::member::{self, Process, free_address, is_healthy};

/// A start's last line: what was said under the name rusd.
fn last(member: &mut Member) -> Value {
    let said = member.wait_refused();
    let line = said.lines().last().unwrap_or_else(|| panic!("nothing was said"));
    serde_json::from_str(line).unwrap_or_else(|_| panic!("{said}"))
}

struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// What a start with these flags says last.
    fn refused(&self, more: &[&str]) -> Value {
        last(&mut Member::spawn_with(more, &[], &self.path("data"), &self.path("log")))
    }
}

fn assert_told(said: &Value, subject: &str, hint: &str) {
    let text = |name: &str| said[name].as_str().unwrap_or_default();
    assert_eq!(text("level"), "fatal", "{said}");
    assert!(text("msg").contains(subject), "{subject} in {said}");
    assert!(text("hint").contains(hint), "{hint} in {said}");
    assert!(!text("error").is_empty(), "{said}");
    assert!(!said.to_string().contains("discovery failed"), "{said}");
}

#[test]
fn directories_may_be_names_alone() {
    let place = Place::new();
    let [client, peer] = [free_address(), free_address()].map(|at| format!("http://{at}"));
    for _ in 0..2 {
        let mut command = member::serve();
        let log = place.path("log");
        command.current_dir(place.root.path());
        command.args(member::flags("m", Path::new("data"), &client, &peer));
        command.args(member::alone("m", &peer)).args(["--wal-dir", "log-of-m"]);
        let mut process = Process::start(&mut command, fs::File::create(&log).unwrap());
        ready(client.trim_start_matches("http://"), &mut process, &log);
        assert!(place.path("log-of-m").is_dir());
    }
}

#[test]
fn a_refused_start_names_its_subject() {
    let place = Place::new();
    let ours = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = ours.local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let holder = format!("process {} (", std::process::id());
    let missing = place.path("missing.pem").display().to_string();
    let cases: &[(&[&str], &str, &str)] = &[
        (
            &["--listen-client-urls", &url],
            &format!("port {port} of --listen-client-urls is in use"),
            &holder,
        ),
        (
            &["--listen-metrics-urls", &url],
            &format!("port {port} of --listen-metrics-urls is in use"),
            "\"Port in use\"",
        ),
        (
            &["--listen-peer-urls", "http://192.0.2.1:2380"],
            "address 192.0.2.1 of --listen-peer-urls is not one of this machine",
            "0.0.0.0",
        ),
        (
            &[
                "--listen-client-urls",
                "https://127.0.0.1:0",
                "--cert-file",
                &missing,
                "--key-file",
                &missing,
            ],
            "missing.pem, of --cert-file, does not exist",
            "\"Missing file\"",
        ),
    ];
    for (flags, subject, hint) in cases {
        let mut said = place.refused(flags);
        // A child of another test has our listener, too, between fork and exec, and may be named.
        for _ in 0..20 {
            if said["hint"].as_str().is_some_and(|told| told.contains(hint)) {
                break;
            }
            said = place.refused(flags);
        }
        assert_told(&said, subject, hint);
    }
}

#[test]
fn refused_settings_name_what_is_wrong() {
    let place = Place::new();
    let missing = place.path("missing.pem").display().to_string();
    let own = format!("http://{}", free_address());
    let list = format!("one={own},two={own}");
    let cases: &[(&[&str], &str, &str)] = &[
        (
            &["--election-timeout", "1"],
            "the value of --election-timeout cannot be used",
            "rusd serve --help",
        ),
        (
            &["--space-policy", "x"],
            "the value of --space-policy cannot be used",
            "rusd serve --help",
        ),
        (
            &["--initial-cluster", "two=http://127.0.0.1:1"],
            "no entry for this member's --name",
            "--initial-cluster",
        ),
        (
            &["--initial-cluster", &list, "--initial-advertise-peer-urls", &own],
            "two members in --initial-cluster have the same URL",
            "a peer URL of its own",
        ),
        (
            &["--log-outputs", "/nonexistent/x"],
            "a place of --log-outputs cannot be opened",
            "\"Missing file\"",
        ),
        (
            &["--config-file", &missing],
            "a file that the settings name does not exist",
            "\"Missing file\"",
        ),
        (
            &["--listen-client-urls", "https://127.0.0.1:0"],
            "no certificate is given",
            "--cert-file",
        ),
        (&["--listen-peer-urls", "http://example.invalid:1"], "has a name", "0.0.0.0"),
        (&["--initial-cluster", "one"], "--initial-cluster cannot be read", "it takes NAME=URL"),
        (
            &["--initial-cluster", "one=127.0.0.1:2380"],
            "--initial-cluster cannot be read",
            "such as m1=http://10.0.0.1:2380",
        ),
        (
            &["--initial-cluster-state", "existing"],
            "--initial-cluster names no other member",
            "lists all members of the cluster",
        ),
    ];
    for (flags, subject, hint) in cases {
        assert_told(&place.refused(flags), subject, hint);
    }
    for (variable, value, hint) in [
        ("ETCD_CLIENT_CERT_AUTH", "yes", "it takes true or false"),
        ("ETCD_QUOTA_BACKEND_BYTES", "abc", "with a unit, such as 8GiB"),
        ("ETCD_LISTEN_METRICS_URLS", "127.0.0.51:45779", "such as http://127.0.0.1:2379"),
    ] {
        let (data, log) = (place.path("data"), place.path("log"));
        let said = last(&mut Member::spawn_with(&[], &[(variable, value)], &data, &log));
        assert_told(&said, &format!("the value of {variable} cannot be used"), hint);
    }
}

#[test]
fn a_refused_directory_is_named_with_what_to_do() {
    let place = Place::new();
    let data = place.path("data");
    fs::write(&data, "a file").unwrap();
    assert_told(&place.refused(&[]), "of --data-dir, is not in a directory", "correct --data-dir");
    fs::remove_file(&data).unwrap();

    fs::create_dir_all(data.join("member/snap")).unwrap();
    assert_told(&place.refused(&[]), "is a data directory of etcd", "rusd import --from-data-dir");
    fs::remove_dir_all(&data).unwrap();

    let holder = Member::start();
    let log = place.path("second");
    let said = last(&mut Member::spawn(&holder.data(), &log));
    let who = format!("is locked by process {} (", holder.child.id());
    assert_told(&said, &who, "\"Directory locked\"");
    let (held, pid) = (holder.data(), holder.child.id());
    drop(holder.child);
    assert!(!is_healthy(&holder.address), "process {pid} still serves {}", held.display());
}

#[test]
fn damage_is_told_with_the_way_out() {
    let mut member = Member::start();
    let data = member.data();
    member.stop();
    fs::remove_dir_all(data.join("member/wal")).unwrap();
    let said = last(&mut Member::spawn(&data, &data.with_extension("again")));
    assert_told(&said, "the log of data directory", "was started with --wal-dir before");
    assert_told(&said, "is not in it", "rusd rebuild");
    // The other way round: the log is found, and the store is not.
    let mut member = Member::start();
    let data = member.data();
    member.stop();
    let (log, wal) = (data.with_extension("again"), data.join("member/wal"));
    let none = data.with_extension("none");
    let wal = ["--wal-dir", wal.to_str().unwrap()];
    let said = last(&mut Member::spawn_with(&wal, &[], &none, &log));
    assert_told(&said, "has no store for the log of --wal-dir", "check --data-dir");
    fs::create_dir(data.join("other")).unwrap();
    let other = data.join("other").display().to_string();
    let said = last(&mut Member::spawn_with(&["--wal-dir", &other], &[], &data, &log));
    assert_told(&said, "is not in", "leave --wal-dir out");
}

#[test]
fn a_member_of_a_cluster_that_runs_is_told_how_to_join() {
    let place = Place::new();
    let [client, peer, second] = [(), (), ()].map(|()| format!("http://{}", free_address()));
    let mut command = member::serve();
    command.args(member::flags("first", &place.path("first"), &client, &peer));
    command.args(member::alone("first", &peer));
    let log = place.path("first.log");
    let mut first = Process::start(&mut command, fs::File::create(&log).unwrap());
    ready(client.split_once("//").unwrap().1, &mut first, &log);
    let list = format!("first={peer},two={second}");
    let urls = ["--listen-peer-urls", &second, "--initial-advertise-peer-urls", &second];
    let flags = [&urls[..], &["--name", "two", "--initial-cluster", &list]].concat();
    let urls = format!("--peer-urls={second}");
    let rusd = |words: &[&str]| {
        let mut command = crate::child::command(crate::child::RUSD);
        let output = command.args(words).args(["--endpoints", &client]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    rusd(&["member", "add", "two", "--learner", &urls]);
    let said = place.refused(&flags);
    assert_told(&said, "was added to a cluster that runs", "--initial-cluster-state existing");
    assert!(!place.path("data/member").exists(), "a cluster of its own was founded");
    // And so it joins.
    let joining = [&flags[..], &["--initial-cluster-state", "existing"]].concat();
    let log = place.path("log");
    let mut member = Member::spawn_with(&joining, &[], &place.path("data"), &log);
    wait_for(&log, "ready to serve client requests");
    drop(member.child.kill());
}

#[test]
fn a_forbidden_directory_is_told_with_its_owner() {
    if rustix::process::geteuid().is_root() {
        eprintln!("root may enter any directory: not tested");
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("data")).unwrap();
    fs::set_permissions(place.path("data"), fs::Permissions::from_mode(0o000)).unwrap();
    assert_told(&place.refused(&[]), "permission denied for", "this process runs as uid");
}

#[test]
fn etcd_keeps_its_words() {
    let place = Place::new();
    let ours = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", ours.local_addr().unwrap());
    let (data, peer) = (place.path("data"), format!("http://{}", free_address()));
    let mut command = etcd(&place);
    command.args(member::flags("one", &data, &url, &peer)).args(member::alone("one", &peer));
    let mut member = Member::run(command, url, &place.path("log"));
    let said = last(&mut member);
    assert_eq!(said["msg"], "discovery failed");
    assert!(said["hint"].is_null(), "{said}");
    let mut command = etcd(&place);
    command.args(["--election-timeout=1", "--log-format=human"]);
    let mut member = Member::run(command, free_address(), &place.path("log"));
    let said = last(&mut member);
    assert_eq!(said["msg"], "failed to verify flags");
    assert_eq!(said["error"], "unknown log format: human, supported values json, console");
}

/// The server under the name etcd.
fn etcd(place: &Place) -> Command {
    let link = place.path("etcd");
    if !link.exists() {
        std::os::unix::fs::symlink(crate::child::RUSD, &link).unwrap();
    }
    Command::new(link)
}

fn ready(address: &str, child: &mut Process, log: &Path) {
    let begun = std::time::Instant::now();
    while !is_healthy(address) {
        let said = || fs::read_to_string(log).unwrap_or_default();
        assert!(child.try_wait().unwrap().is_none(), "no start:\n{}", said());
        assert!(begun.elapsed() < super::fixture::PATIENCE, "no start:\n{}", said());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A free port whose neighbour below is free, too.
fn pair_of_ports() -> (u16, u16) {
    loop {
        let (below, above) = (crate::ports::free(), crate::ports::free());
        if above == below + 1 {
            return (below, above);
        }
    }
}

#[test]
fn members_need_their_name_and_the_list() {
    let place = Place::new();
    let ports = [pair_of_ports(), pair_of_ports(), pair_of_ports()];
    let list: Vec<String> =
        (0..3).map(|at| format!("m{}=http://127.0.0.1:{}", at + 1, ports[at].1)).collect();
    let list = list.join(",");
    let mut members: Vec<(Process, PathBuf)> = (0..3)
        .map(|at| {
            let (name, log) = (format!("m{}", at + 1), place.path(&format!("log{at}")));
            let mut command = member::serve();
            command.current_dir(&place.root);
            // By variables it is the same.
            match at {
                0 => command.env("ETCD_NAME", &name).env("ETCD_INITIAL_CLUSTER", &list),
                _ => command.args(["--name", &name, "--initial-cluster", &list]),
            };
            (Process::start(&mut command, fs::File::create(&log).unwrap()), log)
        })
        .collect();
    for (at, (child, log)) in members.iter_mut().enumerate() {
        ready(&format!("127.0.0.1:{}", ports[at].0), child, log);
    }

    // Started again without the list, one listens where nobody looks for it.
    drop(members.remove(2));
    let (log, told) = (place.path("log"), "this member listens for peers at no URL");
    let [peer, client] = [(), ()].map(|()| format!("http://{}", free_address()));
    for (more, is_told) in [
        (vec!["--initial-cluster", &list], false),
        (vec!["--listen-peer-urls", &peer, "--listen-client-urls", &client], true),
    ] {
        let mut command = member::serve();
        command.current_dir(&place.root).args(["--name", "m3"]).args(more);
        let child = &mut Process::start(&mut command, fs::File::create(&log).unwrap());
        match is_told {
            true => wait_for(&log, told),
            false => ready(&format!("127.0.0.1:{}", ports[2].0), child, &log),
        }
        assert_eq!(fs::read_to_string(&log).unwrap().contains(told), is_told);
    }
}

fn wait_for(log: &Path, text: &str) {
    let begun = std::time::Instant::now();
    while !fs::read_to_string(log).unwrap().contains(text) {
        assert!(begun.elapsed() < super::fixture::PATIENCE, "{}", fs::read_to_string(log).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn links_are_made_and_other_files_left_alone() {
    let place = Place::new();
    let link = |more: &[&str]| {
        let mut command = crate::child::command(crate::child::RUSD);
        let output = command.arg("link").arg(place.root.path()).args(more).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    fs::write(place.path("etcdctl"), "another program").unwrap();
    let (code, out, err) = link(&[]);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("etcdctl is there already"), "{err}");
    assert!(!place.path("etcd").is_symlink(), "all or none");
    assert_eq!(fs::read_to_string(place.path("etcdctl")).unwrap(), "another program");

    let (code, out, err) = link(&["--force"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("is not in PATH"), "{out}");
    let version = Command::new(place.path("etcdctl")).arg("version").output().unwrap();
    assert!(version.stdout.starts_with(b"etcdctl version: "));
    let (code, out, _) = link(&[]);
    assert_eq!(code, Some(0));
    assert_eq!(out.matches("is there already").count(), 3, "{out}");

    // A binary that was installed as one of them stays what it is.
    let bin = place.path("bin");
    fs::create_dir(&bin).unwrap();
    let own = bin.join("etcd");
    if fs::hard_link(crate::child::RUSD, &own).is_err() {
        fs::copy(crate::child::RUSD, &own).unwrap();
    }
    let mut command = crate::child::command(own.to_str().unwrap());
    let output = command.arg0("rusd").args(["link", "--force"]).arg(&bin).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(!own.is_symlink() && bin.join("etcdctl").is_symlink());
}

#[test]
fn a_certificate_that_ends_soon_is_told() {
    let place = Place::new();
    let mut make = crate::child::command(crate::child::RUSD);
    make.args(["cert", "gen", "--days", "10", "--hosts", "127.0.0.1"]).current_dir(&place.root);
    let made = make.output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let (cert, key) = (place.path("certs/server.crt"), place.path("certs/server.key"));
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let url = format!("https://{}", free_address());
    let flags = ["--listen-client-urls", &url, "--advertise-client-urls", &url];
    let files = ["--cert-file", cert, "--key-file", key];
    let flags = [flags.as_slice(), &files].concat();
    let member = Member::spawn_with(&flags, &[], &place.path("data"), &place.path("log"));
    member.wait_log("a certificate expires soon");
    let log = member.log();
    let line = log.lines().find(|line| line.contains("a certificate expires soon")).unwrap();
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["flag"], &line["level"]), (&"--cert-file".into(), &"warn".into()), "{line}");
    let days = line["days-left"].as_i64().unwrap();
    assert!((8..=10).contains(&days), "{line}");
}
