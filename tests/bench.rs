//! `rusd bench` as its users see it: what it measures and prints, what it refuses, and that it leaves
//! nothing behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Output, Stdio};

use serde_json::Value;

use member::Member;

#[path = "common/child.rs"]
mod child;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "common/member.rs"]
mod member;
#[path = "common/ports.rs"]
mod ports;

const ROWS: [&str; 18] = [
    "idle",
    "put-100k",
    "keys-1m",
    "put-100",
    "put-1",
    "put-300",
    "txn-100",
    "txn-4",
    "lease-grant",
    "keep-alive",
    "get-100",
    "watch-1000",
    "range-1000",
    "list-10000",
    "fat-range",
    "fat-stream",
    "bulk",
    "save",
];

/// The words of a line, for a member.
fn run(member: &Member, line: &str) -> Output {
    let mut command = child::command(child::RUSD);
    command.arg(format!("--endpoints={}", member.endpoint)).args(line.split_whitespace());
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("ETCD") {
            command.env_remove(variable);
        }
    }
    command.stdin(Stdio::null()).output().unwrap()
}

/// Standard output of a command that ends with this code.
fn said(member: &Member, line: &str, code: i32) -> String {
    let output = run(member, line);
    assert_eq!(output.status.code(), Some(code), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of a command that ends with this code.
fn complained(member: &Member, line: &str, code: i32) -> String {
    let output = run(member, line);
    assert_eq!(output.status.code(), Some(code), "{line}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

fn json(member: &Member, line: &str) -> Value {
    serde_json::from_str(&said(member, &format!("{line} -o json"), 0)).unwrap()
}

fn keys(member: &Member) -> Vec<String> {
    let found = said(member, "get --prefix --keys-only /", 0);
    found.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn leases(member: &Member) -> u64 {
    let list = json(member, "lease list");
    list["leases"].as_array().map_or(0, |all| all.len() as u64)
}

/// The figure of a row in a table.
fn figure<'a>(table: &'a Value, row: &str, name: &str) -> &'a Value {
    let all = table["figures"].as_array().unwrap();
    let found = all.iter().find(|it| it["row"] == row && it["figure"] == name);
    found.unwrap_or_else(|| panic!("{row} has no {name}: {table}"))
}

#[test]
fn a_table_has_every_row_of_one_server() {
    let member = Member::start();
    let table = json(&member, "bench table --scale 1 --rounds 1 --duration 300ms");
    let rows: BTreeSet<&str> =
        table["figures"].as_array().unwrap().iter().map(|it| it["row"].as_str().unwrap()).collect();
    assert_eq!(rows, BTreeSet::from(ROWS));
    assert_eq!(table["notes"], Value::Array(Vec::new()), "{table}");
    for (row, name) in [
        ("idle", "memory"),
        ("idle", "anonymous memory"),
        ("keys-1m", "store"),
        ("keys-1m", "keys/s"),
        ("put-100", "server CPU per put"),
        ("put-100", "apply per put"),
        ("put-100", "raft-log per put"),
        ("txn-100", "keys/s"),
        ("watch-1000", "p50"),
        ("fat-stream", "server CPU per MB"),
        ("save", "snapshot"),
    ] {
        let value = figure(&table, row, name)["values"][0].as_f64();
        assert!(value.is_some_and(|value| value >= 0.0), "{row} {name}: {value:?}");
        assert!(figure(&table, row, name)["ratio"].is_null(), "{row} {name}");
    }
    assert_eq!(keys(&member), Vec::<String>::new());
    assert_eq!(leases(&member), 0);
}

#[test]
fn two_servers_are_compared_and_a_saved_table_guards_them() {
    let (first, second) = (Member::start(), Member::start());
    let sizes = "--scale 2 --rounds 3 --duration 300ms --row put-100,list-10000";
    let line = format!("bench table {sizes} --compare {}", second.endpoint);
    let text = said(&first, &line, 0);
    assert!(text.contains("first/second") && text.contains(&second.endpoint), "{text}");
    let table = json(&first, &line);
    let rows: Vec<&Value> = table["figures"].as_array().unwrap().iter().collect();
    assert!(rows.iter().all(|it| it["row"] == "put-100" || it["row"] == "list-10000"), "{table}");
    let cpu = figure(&table, "put-100", "server CPU per put");
    let [ratio, least, most] =
        ["ratio", "ratioMin", "ratioMax"].map(|name| cpu[name].as_f64().unwrap());
    assert!(0.0 < least && least <= ratio && ratio <= most, "{cpu}");
    assert_eq!(keys(&first), Vec::<String>::new());
    assert_eq!(keys(&second), Vec::<String>::new());

    let file = first.dir.path().join("baseline.json");
    let check = |tolerance: u64| {
        format!(
            "bench check {} --tolerance {tolerance} --rounds 1 --duration 300ms --compare {}",
            file.display(),
            second.endpoint
        )
    };
    // The same server on both sides: no ratio is a hundred times the baseline's, and each a hundred times
    // a thousandth of it.
    let with_ratios = |factor: f64| {
        let mut changed = table.clone();
        for it in changed["figures"].as_array_mut().unwrap() {
            if let Some(ratio) = it["ratio"].as_f64() {
                it["ratio"] = Value::from(ratio * factor);
            }
        }
        fs::write(&file, changed.to_string()).unwrap();
    };
    with_ratios(100.0);
    let passed = said(&first, &check(10), 0);
    assert!(passed.contains("PASS") && passed.contains("put-100"), "{passed}");
    with_ratios(0.001);
    let failed = said(&first, &check(1000), 1);
    assert!(failed.contains("FAIL"), "{failed}");
    assert_eq!(keys(&second), Vec::<String>::new());

    let alone = complained(&first, &format!("bench check {}", file.display()), 2);
    assert!(alone.contains("needs --compare"), "{alone}");
    fs::write(&file, "{}").unwrap();
    let wrong = complained(&first, &check(10), 3);
    assert!(wrong.contains("not what 'rusd bench table -o json' prints"), "{wrong}");
}

#[test]
fn the_ceiling_is_that_of_the_slowest_serial_thread() {
    let member = Member::start();
    let told = json(&member, "bench ceiling --clients 20 --duration 1s");
    let threads = told["members"][0]["cpuMicrosecondsPerPut"].as_object().unwrap();
    let serial = ["raft", "raft-log", "apply", "committer"];
    let most = serial.iter().filter_map(|name| threads.get(*name)?.as_f64()).fold(0.0, f64::max);
    let slowest = &told["slowest"];
    assert!(serial.contains(&slowest["thread"].as_str().unwrap()), "{told}");
    assert_eq!(slowest["cpuMicrosecondsPerPut"].as_f64(), Some(most), "{told}");
    assert!(most > 0.0 && most < 1e6, "{told}");
    let text = said(&member, "bench ceiling --clients 20 --duration 300ms", 0);
    assert!(text.contains("is the slowest serial stage"), "{text}");
    assert_eq!(keys(&member), Vec::<String>::new());
}

#[test]
fn keys_of_others_are_left_alone_and_its_own_are_deleted() {
    let member = Member::start();
    said(&member, "bench put --clients 2 --total 50 --keys 20", 0);
    assert_eq!(keys(&member), Vec::<String>::new());
    // So many that each key is among them.
    said(&member, "bench put --clients 2 --total 800 --keys 20 --keep", 0);
    assert_eq!(keys(&member).len(), 20);
    // Its own keys do not keep it from a next run, which deletes them.
    said(&member, "bench range --clients 2 --total 50 --keys 10", 0);
    assert_eq!(keys(&member), Vec::<String>::new());
    // Before its own keys, and behind them.
    for other in ["/app", "/zoo"] {
        said(&member, &format!("put {other} x"), 0);
        for line in ["bench put --total 10", "bench table --row put-1", "bench ceiling"] {
            let refused = complained(&member, line, 3);
            assert!(refused.contains("holds keys other than the benchmark's"), "{refused}");
            assert!(refused.contains("--force"), "{refused}");
        }
        said(&member, "bench put --clients 2 --total 50 --keys 20 --force", 0);
        assert_eq!(keys(&member), [other]);
        said(&member, &format!("del {other}"), 0);
    }
}

#[test]
fn requests_of_all_kinds_are_counted() {
    let member = Member::start();
    for (line, requests) in [
        ("put", 40),
        ("range --range-size 30", 40),
        ("range --range-size 100 --stream", 40),
        ("txn --ops 5", 40),
        ("watch --watchers 7", 280),
        ("lease", 40),
        ("keep-alive", 40),
    ] {
        let told = json(&member, &format!("bench {line} --clients 4 --total 40 --keys 100"));
        let server = &told["servers"][0];
        assert_eq!(server["requests"], requests, "{line}: {told}");
        assert_eq!(server["errors"], 0, "{line}: {told}");
    }
    assert_eq!(leases(&member), 0);
}

#[test]
fn numbers_that_no_run_can_have_are_refused_with_their_range() {
    let member = Member::start();
    for (line, part) in [
        ("put --clients 0", "--clients 0 is out of range; it takes 1 to 20000"),
        ("put --clients 1000000000", "--clients 1000000000 is out of range; it takes 1 to 20000"),
        ("put --conns -1", "--conns -1 is out of range; it takes 1 to 10000"),
        ("put --keys 99999999999", "--keys 99999999999 is out of range; it takes 1 to 10000000"),
        (
            "put --val-size 1000000000000",
            "--val-size 1000000000000 is out of range; it takes 0 to 67108864",
        ),
        (
            "put --key-size 3",
            "--key-size 3 is too small: 10000 keys below /rusd-bench/ need 16 bytes",
        ),
        ("put --keys 10000000 --key-size 4096", "together they may have 1073741824 bytes"),
        ("put --total -5", "--total -5 is out of range; it takes 0 to 1000000000000"),
        ("put --duration 0s", "--duration 0s is out of range; it takes up to 168h0m0s"),
        ("put --duration 1000000h", "is out of range; it takes up to 168h0m0s"),
        ("put --rounds 0 --compare x", "--rounds 0 is out of range; it takes 1 to 1000"),
        ("watch --watchers 0", "--watchers 0 is out of range; it takes 1 to 100000"),
        ("range --range-size 20000", "--range-size 20000 is more than --keys 10000"),
        ("txn --ops 0", "--ops 0 is out of range; it takes 1 to 10000"),
        ("table --scale 0", "--scale 0 is out of range; it takes 1 to 1000"),
        ("table --row put-100,pat", "there is no row pat; rows are idle, put-100k"),
        ("ceiling --clients 0", "--clients 0 is out of range; it takes 1 to 20000"),
        ("pit", "unknown command"),
    ] {
        let complaint = complained(&member, &format!("bench {line}"), 2);
        assert!(complaint.contains(part), "{line}: {complaint}");
    }
    // More operations than the server takes.
    let refused = run(&member, "bench txn --ops 1000 --total 3");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let absent = complained(&member, "bench check /nowhere/baseline.json --compare x", 3);
    assert!(absent.contains("/nowhere/baseline.json: No such file"), "{absent}");
}
