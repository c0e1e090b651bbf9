//! Every flag and variable of etcd: what is taken, what is refused, with which code and words; and
//! those that must have an effect.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::time::Duration;

use rusd::server::settings;
use rustix::process::{Pid, Signal, kill_process};

use super::fixture::{Member, PATIENCE};

/// Fails last of all checks, in etcd and here: what comes so far was taken.
const LAST: [&str; 2] = ["--tls-min-version=TLS1.3", "--cipher-suites=TLS_AES_128_GCM_SHA256"];
const TAKEN: &str = "cipher suites cannot be configured when only TLS1.3 is enabled";

/// Where docs/compat.md says that this server differs: words, code, text.
const DIFFERENCES: [(&str, u8, &str); 2] = [
    (
        "ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK=x",
        1,
        "invalid value \"x\" for ETCD_EXPERIMENTAL_INITIAL_CORRUPT_CHECK: parse error",
    ),
    (
        "--feature-gates=LeaseCheckpointPersist=true",
        1,
        "feature gate LeaseCheckpointPersist=true is not supported by rusd yet",
    ),
];

#[test]
fn every_flag_and_variable_is_taken_or_refused_as_by_etcd() {
    let mut findings = Vec::new();
    for line in include_str!("data/flags.tsv").lines().filter(|line| !line.starts_with("# ")) {
        let mut columns = line.split('\t');
        let (words, code) = (columns.next().unwrap(), columns.next().unwrap().parse().unwrap());
        let text = columns.next().unwrap();
        let differs = DIFFERENCES.iter().find(|(differs, ..)| *differs == words);
        let expected = differs.map_or((code, text), |&(_, code, text)| (code, text));
        let (mut flags, mut variables) = (LAST.map(str::to_owned).to_vec(), Vec::new());
        for word in words.split(' ') {
            match word.strip_prefix("ETCD_").and_then(|rest| rest.split_once('=')) {
                Some((name, value)) => variables.push((format!("ETCD_{name}"), value.to_owned())),
                None => flags.push(word.to_owned()),
            }
        }
        let found = match settings(&flags, &variables) {
            Err((code, text)) if text == TAKEN => (code, "taken".to_owned()),
            Err(found) => found,
            Ok(_) => (0, "it would start".to_owned()),
        };
        if (found.0, found.1.as_str()) != expected {
            findings.push(format!("{words}: {found:?} and not {expected:?}"));
        }
    }
    assert!(findings.is_empty(), "{} differ:\n{}", findings.len(), findings.join("\n"));
}

#[test]
fn help_says_what_has_no_effect_and_version_is_etcds() {
    let run = |name: &str, words: &[&str]| {
        let output = crate::child::command(crate::child::RUSD).arg0(name).args(words).output();
        let output = output.unwrap();
        assert_eq!(output.status.code(), Some(0), "{name} {words:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let help = run("etcd", &["-h"]);
    let after = |flag: &str| help.split_once(&format!("--{flag} '")).unwrap().1;
    for flag in ["max-wals", "max-snapshots", "backend-bbolt-freelist-type", "enable-pprof"] {
        let line = after(flag).lines().nth(1).unwrap();
        assert!(line.ends_with("(accepted without effect)"), "{flag}: {line}");
    }
    let own = run("rusd", &["serve", "-h"]);
    assert_eq!(own, run("rusd", &["help", "serve"]));
    let flat = own.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flat.contains("Log files kept. Accepted without effect. [default 5] [ETCD_MAX_WALS]"));
    assert_eq!(
        run("rusd", &["gateway", "start", "-h"]),
        run("rusd", &["help", "gateway", "start"])
    );
    let gateway = run("rusd", &["gateway"]);
    assert!(gateway == run("rusd", &["help", "gateway"]) && gateway.contains("--retry-delay"));
    let version = run("rusd", &["serve", "--version"]);
    let lines: Vec<&str> = version.lines().collect();
    assert_eq!((lines.len(), lines[0]), (4, "etcd Version: 3.7.1"));
    assert!(lines[1].starts_with("Git SHA: rusd-") && lines[2].ends_with("this is rusd"));
    assert!(lines[3].starts_with("Go OS/Arch: linux/"));
}

fn spawn(more: &[&str], variables: &[(&str, &str)]) -> (Member, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    let (data, log) = (root.path().join("data"), root.path().join("log"));
    (Member::spawn_with(more, variables, &data, &log), root)
}

#[test]
fn a_variable_that_an_image_sets_is_warned_about_and_nothing_else() {
    let variables = [("ETCD_VERSION", "v3.7.1"), ("ETCD_VERIFY", "all"), ("ETCD_WAL_DIR", "")];
    let (mut member, _root) = spawn(&[], &variables);
    member.wait_ready();
    let log = member.log();
    for said in [
        r#""msg":"cannot set special environment variable","key":"ETCD_VERSION","value":"v3.7.1""#,
        r#""msg":"unrecognized environment variable","environment-variable":"ETCD_VERIFY=all""#,
        r#""msg":"unrecognized environment variable","environment-variable":"ETCD_WAL_DIR=""#,
    ] {
        assert!(log.contains(said), "{said} in {log}");
    }
}

#[test]
fn a_refused_start_says_what_it_was_told_first() {
    let (mut member, _root) = spawn(&["--election-timeout=1"], &[("ETCD_ZZ", "1")]);
    let said = member.wait_refused();
    let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("{text} in {said}"));
    assert!(at("ETCD_ZZ=1") < at(r#""msg":"Running: ","args":["#));
    assert!(
        at(r#""msg":"Running: ","args":["#) < at("the value of --election-timeout cannot be used")
    );
    assert!(said.contains(r#","serve","--name","one","#), "{said}");
}

#[test]
fn a_log_that_cannot_be_opened_is_named() {
    let (mut member, _root) = spawn(&["--log-outputs=/nonexistent/x"], &[]);
    let why = r#"open sink \"/nonexistent/x\": open /nonexistent/x: no such file or directory"#;
    assert!(member.wait_refused().contains(why), "{}", member.log());
}

#[test]
fn a_journal_that_is_not_there_ends_the_start() {
    let socket = std::path::Path::new("/run/systemd/journal/socket");
    let (mut member, _root) = spawn(&["--log-outputs=systemd/journal"], &[]);
    if socket.exists() {
        member.wait_ready();
        return;
    }
    let said = member.wait_refused();
    let why = "can't find journal (dial unixgram /run/systemd/journal/socket: connect: no such file \
               or directory)";
    assert!(
        said.contains("systemd's journal, of --log-outputs, is not there") && said.contains(why),
        "{said}"
    );
}

#[test]
fn a_log_is_rotated() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("logs/etcd.log");
    let output = format!("--log-outputs={}", path.display());
    let more = ["--enable-log-rotation", &output, "--log-rotation-config-json"];
    let (mut refused, _root) = spawn(&[&more[..], &["{\"maxsize\": \"1\"}"]].concat(), &[]);
    let why = "cannot unmarshal string into Go struct field logRotationConfig.Logger.maxsize of \
               type int";
    assert!(refused.wait_refused().contains(why), "{}", refused.log());

    // Full from an earlier run, which set others aside.
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::write(&path, "full\n".repeat(1 << 20)).unwrap();
    let aside = |day: u8| path.with_file_name(format!("etcd-2020-01-0{day}T00-00-00.000.log"));
    for day in 1..=3 {
        fs::write(aside(day), "old").unwrap();
    }
    let json = "{\"maxsize\": 1, \"maxbackups\": 2, \"compress\": true}";
    let (mut member, _root) = spawn(&[&more[..], &[json]].concat(), &[]);
    member.wait_ready();
    assert!(fs::read_to_string(&path).unwrap().starts_with("{\"level\":"));
    let names = || -> Vec<String> {
        let found = fs::read_dir(path.parent().unwrap()).unwrap();
        found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    // The file, what was set aside, and the newest of the others.
    let is_done = |names: &[String]| {
        let compressed = names.iter().filter(|name| name.ends_with(".log.gz")).count();
        names.len() == 3 && compressed == 2
    };
    let waited = (0..PATIENCE.as_millis() / 20).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        is_done(&names())
    });
    assert!(waited, "{:?}", names());
    assert!(names().contains(&"etcd-2020-01-03T00-00-00.000.log.gz".to_owned()), "{:?}", names());
}

#[tokio::test]
async fn slow_requests_and_flags_without_effect_are_said() {
    let more = ["--warning-apply-duration=1ns", "--max-wals=3", "--backend-batch-limit=1"];
    let (mut member, _root) = spawn(&more, &[("ETCD_MAX_SNAPSHOTS", "2")]);
    member.wait_ready();
    member.serves().await;
    let log = member.log();
    let without = r#""msg":"flags that have no effect in rusd were given","flags":["max-snapshots","max-wals"]"#;
    assert!(log.contains(without), "{log}");
    let slow = |prefix: &str, name: &str| {
        let lines = log.lines().filter(|line| line.contains("apply request took too long"));
        let lines = lines.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.into_iter().find(|line| {
            line["prefix"] == prefix && line["request"].as_str().unwrap().contains(name)
        })
    };
    let put = slow("", " put:<key:").unwrap_or_else(|| panic!("no put in {log}"));
    assert_eq!((&put["level"], &put["expected-duration"]), (&"warn".into(), &"1ns".into()));
    assert!(put["took"].as_str().unwrap().ends_with('s'));
    assert!(put["request"].as_str().unwrap().starts_with("header:<ID:"), "{put}");
    assert!(put["response"].as_str().unwrap().starts_with("size:"), "{put}");
    let range = slow("read-only range ", "key:").unwrap_or_else(|| panic!("no range in {log}"));
    let response = range["response"].as_str().unwrap();
    assert!(response.starts_with("range_response_count:1 size:"), "{range}");
}

/// etcd's fields, in its order.
const FIELDS: &str = "etcd-version git-sha go-version go-os go-arch max-cpu-set max-cpu-available \
    member-initialized name data-dir wal-dir wal-dir-dedicated member-dir force-new-cluster \
    heartbeat-interval election-timeout initial-election-tick-advance snapshot-count max-wals \
    max-snapshots snapshot-catchup-entries initial-advertise-peer-urls listen-peer-urls \
    advertise-client-urls listen-client-urls listen-metrics-urls local-address cors host-whitelist \
    initial-cluster initial-cluster-state initial-cluster-token quota-backend-bytes \
    max-request-bytes max-concurrent-streams pre-vote feature-gates initial-corrupt-check \
    corrupt-check-time-interval compact-check-time-interval auto-compaction-mode \
    auto-compaction-retention auto-compaction-interval discovery-token discovery-endpoints \
    discovery-dial-timeout discovery-request-timeout discovery-keepalive-time \
    discovery-keepalive-timeout discovery-insecure-transport discovery-insecure-skip-tls-verify \
    discovery-cert discovery-key discovery-cacert discovery-user downgrade-check-interval \
    max-learners v2-deprecation";

#[test]
fn a_start_says_all_that_etcds_says() {
    let (mut member, _root) = spawn(&["--auto-compaction-retention=1"], &[]);
    member.wait_ready();
    let log = member.log();
    let line = log.lines().find(|line| line.contains("starting an etcd server")).unwrap();
    let mut rest = line;
    for field in FIELDS.split_whitespace() {
        let named = format!(",\"{field}\":");
        let at = rest.find(&named).unwrap_or_else(|| panic!("{field}, or its order, in {line}"));
        rest = &rest[at + named.len()..];
    }
    for said in [
        "\"quota-backend-bytes\":2147483648,",
        "\"member-initialized\":false,",
        "\"auto-compaction-retention\":\"1h0m0s\",",
        "\"compact-check-time-interval\":\"1m0s\",",
        "\"initial-cluster\":\"one=http://127.0.0.1:",
        "\"pre-vote\":true,",
    ] {
        assert!(line.contains(said), "{said} in {line}");
    }
}

#[test]
fn two_processes_share_a_port_if_both_say_so() {
    let (mut first, _root) = spawn(&["--socket-reuse-port"], &[]);
    first.wait_ready();
    let shares = format!("--listen-client-urls=http://{}", first.address);
    let (mut refused, _root) = spawn(&[&shares], &[]);
    assert!(refused.wait_ended(1).contains("address already in use"), "{}", refused.log());
    let (second, _root) = spawn(&[&shares, "--socket-reuse-port", "--socket-reuse-address"], &[]);
    second.wait_log("ready to serve client requests");
    let said = r#""msg":"configuring socket options","reuse-address":true,"reuse-port":true"#;
    assert!(second.log().contains(said), "{}", second.log());
}

#[test]
fn without_a_prevote_a_lone_member_raises_its_term() {
    let others = ["--initial-cluster=one=PEER,two=http://127.0.0.1:1,three=http://127.0.0.1:2"];
    let (with, _root) = spawn(&others, &[]);
    let (without, _root) = spawn(&[others[0], "--pre-vote=false"], &[]);
    without.wait_log("became candidate at term 3");
    with.wait_log("became pre-candidate at term 1");
    assert!(!with.log().contains("became candidate"), "{}", with.log());
}

/// Locked memory needs a privilege or a limit that not every machine gives; without them the start
/// is refused, and nobody believes in a lock that is not there.
#[test]
fn memory_is_locked_or_the_start_refused() {
    let (mut member, _root) = spawn(&["--memory-mlock"], &[]);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let field = |status: &str, name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().split_whitespace().next().unwrap().to_owned()
    };
    let capabilities = u64::from_str_radix(&field(&own, "CapEff:"), 16).unwrap();
    let limits = fs::read_to_string("/proc/self/limits").unwrap();
    let limit = limits.lines().find(|line| line.starts_with("Max locked memory")).unwrap();
    let is_unlimited = limit.split_whitespace().nth(3) == Some("unlimited");
    // CAP_IPC_LOCK.
    if capabilities >> 14 & 1 == 0 && !is_unlimited {
        assert!(member.wait_refused().contains("cannot lock memory (--memory-mlock)"));
        return;
    }
    member.wait_ready();
    let status = fs::read_to_string(format!("/proc/{}/status", member.child.id())).unwrap();
    assert_ne!(field(&status, "VmLck:"), "0");
}

#[test]
fn flags_that_lead_nowhere_end_as_in_etcd() {
    let alone = ["--discovery-srv-name=x"];
    let (mut member, _root, _) = Member::spawn_bare(&alone);
    let said = member.wait_ended(1);
    let why = r#"couldn't find local name \"default\" in the initial cluster configuration"#;
    assert!(said.contains(why), "{said}");

    // Nobody asks for a certificate where nothing is secured.
    let files = ["--peer-client-cert-file=/none", "--peer-client-key-file=/none"];
    let (mut member, _root) = spawn(&files, &[]);
    member.wait_ready();
    let (mut member, _root) = spawn(&["--force=x", "--v", "-snapshot", "--vv=2"], &[]);
    member.wait_ready();
}

/// Signals that a program of Go lives through, by number: those without a name are real-time ones.
const STRAYS: [i32; 12] = [10, 12, 14, 24, 25, 26, 27, 29, 30, 35, 50, 64];

fn send(child: &std::process::Child, number: i32) {
    // rustix knows no real-time signals.
    let id = child.id().to_string();
    let sent =
        crate::child::command("sh").args(["-c", &format!("kill -{number} {id}")]).status().unwrap();
    assert!(sent.success(), "kill -{number}");
}

#[test]
fn stray_signals_are_lived_through_and_quit_says_what_threads_do() {
    let mut member = Member::start();
    for number in STRAYS {
        send(&member.child, number);
    }
    std::thread::sleep(Duration::from_millis(100));
    member.wait_ready();
    kill_process(Pid::from_child(&member.child), Signal::QUIT).unwrap();
    assert_eq!(member.wait().code(), Some(2), "{}", member.log());
    let log = member.log();
    assert!(log.contains("SIGQUIT: quit\n\nthread "), "{log}");
    for name in ["rusd-member", "raft"] {
        let is_state = |line: &str| line.starts_with("thread ") && line.contains(name);
        assert!(log.lines().any(is_state), "{name} in {log}");
    }
}

#[test]
fn commands_live_through_stray_signals_and_their_children_have_the_defaults() {
    let member = Member::start();
    let root = tempfile::tempdir().unwrap();
    let (ready, state) = (root.path().join("ready"), root.path().join("state"));
    let script = format!(
        "grep SigIgn /proc/self/status > {state}; echo $$ > {ready}.part; mv {ready}.part {ready}; \
         exec sleep 1000",
        state = state.display(),
        ready = ready.display()
    );
    let mut lock = crate::child::command(crate::child::RUSD);
    lock.args(["lock", "l", "--endpoints", &member.address, "--", "sh", "-c", &script]);
    let mut lock = lock.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let waited = (0..PATIENCE.as_millis() / 20).any(|_| {
        std::thread::sleep(Duration::from_millis(20));
        ready.exists()
    });
    assert!(waited, "no lock");
    for number in STRAYS {
        send(&lock, number);
    }
    std::thread::sleep(Duration::from_millis(100));
    assert!(lock.try_wait().unwrap().is_none(), "the command has ended");
    let ignored = fs::read_to_string(&state).unwrap();
    let ignored = u64::from_str_radix(ignored.trim().rsplit('\t').next().unwrap(), 16).unwrap();
    for number in STRAYS {
        assert_eq!(ignored >> (number - 1) & 1, 0, "{number} is ignored in a child");
    }
    kill_process(Pid::from_child(&lock), Signal::QUIT).unwrap();
    assert_eq!(lock.wait().unwrap().code(), Some(2));
    // Its command is nobody's now.
    let sleeper = fs::read_to_string(&ready).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(sleeper).unwrap(), Signal::KILL).unwrap();
}
