//! What a person sees of rusd's commands on a terminal, and what a script gets of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output, Stdio};

use member::Member;
use pty::{Screen, visible};
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

#[path = "common/child.rs"]
mod child;
#[allow(dead_code, reason = "a suite needs a part of it")]
#[path = "common/member.rs"]
mod member;
#[path = "common/ports.rs"]
mod ports;
#[path = "common/pty.rs"]
mod pty;

/// A command under one of the names.
fn command(name: &str, member: &Member, words: &[&[u8]]) -> Command {
    let mut command = child::command(child::RUSD);
    command.arg0(name).arg(format!("--endpoints={}", member.endpoint));
    command.args(words.iter().map(|word| OsStr::from_bytes(word)));
    for (variable, _) in std::env::vars_os() {
        if variable.as_bytes().starts_with(b"ETCD") {
            command.env_remove(variable);
        }
    }
    command.env("TERM", "xterm-256color").env_remove("NO_COLOR").stdin(Stdio::null());
    command
}

fn rusd(member: &Member, words: &str) -> Command {
    let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
    command("rusd", member, &words)
}

/// Into a pipe.
fn piped(member: &Member, words: &str) -> Output {
    rusd(member, words).output().unwrap()
}

fn said(member: &Member, words: &str) -> String {
    let output = piped(member, words);
    assert!(output.status.success(), "{words}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// On a terminal: all that was sent to it.
fn sent(command: Command, columns: u16) -> Vec<u8> {
    Screen::start(command, columns).end().0
}

fn put(member: &Member, key: &[u8], value: &[u8]) {
    // By standard input, since an argument has no zero byte.
    let mut put = command("rusd", member, &[b"put", b"--", key]);
    let mut put = put.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(value).unwrap();
    assert!(put.wait().unwrap().success());
}

#[test]
fn nothing_that_others_wrote_reaches_a_terminal_raw() {
    let member = Member::start();
    let (key, value) =
        (b"k\x1b]0;x\x07\n\xc2\x9b".as_slice(), b"v\x1b[2J\r\xff\n\xe2\x80\xae".as_slice());
    put(&member, key, value);
    let named = |words: &[&[u8]]| {
        assert!(command("rusd", &member, words).output().unwrap().status.success(), "{words:?}");
    };
    named(&[b"role", b"add", b"r\x1b[5m"]);
    named(&[b"role", b"grant-permission", b"r\x1b[5m", b"read", key]);
    named(&[b"user", b"add", b"u\x1bc:pw"]);
    named(&[b"user", b"grant-role", b"u\x1bc", b"r\x1b[5m"]);
    let mut all: Vec<Vec<&[u8]>> = vec![
        vec![b"role", b"list"],
        vec![b"role", b"get", b"r\x1b[5m"],
        vec![b"user", b"list"],
        vec![b"user", b"get", b"u\x1bc", b"--detail"],
        vec![b"role", b"get", b"none\x1b[1m"],
        vec![b"get", b"k", b"--order=\x1b]8;;x\x07"],
        vec![b"bog\x1b[7mus"],
        vec![b"get", b"--fl\x1bag"],
        vec![b"space"],
    ];
    for format in ["simple", "table", "fields", "json", "protobuf", "yaml", "jsonl"] {
        all.push(vec![b"get", b"--prefix", b"k", b"-o", format.as_bytes()]);
    }
    all.push(vec![b"get", b"--prefix", b"k"]);
    all.push(vec![b"put", b"k", b"v", b"--prev-kv"]);
    for words in all {
        let sent = sent(command("rusd", &member, &words), 80);
        let text = visible(&sent).join("\n");
        assert!(!text.is_empty(), "{words:?}");
        assert!(!text.chars().any(|it| it.is_control() && it != '\n'), "{words:?}: {text:?}");
        assert!(!text.contains('\u{202e}'), "{words:?}: {text:?}");
    }
    let seen = visible(&sent(rusd(&member, "get --prefix k\x1b"), 80)).join("\n");
    let shown = "k\\x1b]0;x\\x07\\n\\u009b\nv\\x1b[2J\\r\\xff\n\\u202e\n";
    assert_eq!(seen, shown);
    // A watch shows the same, and a pipe has the bytes.
    let mut watch = Screen::start(rusd(&member, "watch --prefix --rev=1 k\x1b"), 80);
    watch.wait_for("\\u202e");
    let status = child::command("kill").arg(watch.child().id().to_string()).status().unwrap();
    assert!(status.success());
    let seen = visible(&watch.end().0).join("\n");
    assert_eq!(seen, format!("PUT\n{shown}"));
    let raw = [key, b"\n", value, b"\n"].concat();
    for name in ["rusd", "etcdctl"] {
        let output = command(name, &member, &[b"get", b"--prefix", b"k\x1b"]).output().unwrap();
        assert_eq!(output.stdout, raw, "{name}");
    }
    // etcd's names write to a terminal as etcd does.
    let sent = sent(command("etcdctl", &member, &[b"get", b"--prefix", b"k\x1b"]), 80);
    assert!(sent.starts_with(b"k\x1b]0;x\x07"), "{sent:?}");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    let member = Member::start();
    put(&member, b"/a/long/key/of/some/length", &b"{\"value\":true}".repeat(100));
    said(&member, "put k v");
    let commands = [
        "endpoint status",
        "endpoint status -o table",
        "endpoint health",
        "endpoint hashkv",
        "member list",
        "alarm list -o table",
        "get --prefix / -o table",
        "lease list -o table",
        "space",
    ];
    for columns in [40, 80, 120, 200] {
        for words in commands {
            let text = visible(&sent(rusd(&member, words), columns));
            for line in &text {
                let width = line.chars().count();
                assert!(width <= usize::from(columns), "{words}, {columns}: {text:#?}");
            }
        }
    }
    let [narrow, wide] =
        [80, 200].map(|columns| visible(&sent(rusd(&member, "endpoint status"), columns)));
    assert!(narrow[0].starts_with("ENDPOINT") && narrow[0].contains("ROLE"), "{narrow:#?}");
    assert!(narrow[1].contains("leader") && narrow[2].starts_with("No room for"), "{narrow:#?}");
    for title in ["TERM", "INDEX", "APPLIED", "CLUSTER"] {
        assert!(wide[0].contains(title) && !narrow[0].contains(title), "{wide:#?}");
    }
    assert_eq!(wide.len(), 3, "{wide:#?}");
    let members = visible(&sent(rusd(&member, "member list"), 80));
    assert!(members[1].contains(" default ") && members[1].contains(" leader "), "{members:#?}");
    // Asked for, and in a pipe, it is etcd's line and etcd's table.
    let line = said(&member, "member list");
    assert!(line.contains(", started, default, http://"), "{line}");
    let asked = visible(&sent(rusd(&member, "member list -o simple"), 200)).join("\n");
    assert_eq!(asked, line);
    let etcds = command("etcdctl", &member, &[b"endpoint", b"status", b"-w", b"table"]);
    let etcds = { etcds }.output().unwrap().stdout;
    assert_eq!(said(&member, "endpoint status -w table").into_bytes(), etcds);
}

#[test]
fn colours_are_where_they_belong() {
    let member = Member::start();
    said(&member, "put k v");
    let escapes = |bytes: &[u8]| bytes.contains(&0x1b);
    let terminal = |words: &str, variable: &str, value: &str| {
        let mut command = rusd(&member, words);
        command.env(variable, value);
        sent(command, 80)
    };
    let doctor = "doctor --data-dir /no/such";
    for words in ["get k", "member list", "endpoint health", "bogus", doctor] {
        assert!(escapes(&terminal(words, "LANG", "C")), "{words}");
        assert!(!escapes(&terminal(words, "NO_COLOR", "1")), "{words}");
        assert!(!escapes(&terminal(words, "TERM", "dumb")), "{words}");
        assert!(!escapes(&terminal(&format!("{words} --color=never"), "LANG", "C")), "{words}");
        let output = piped(&member, words);
        assert!(!escapes(&output.stdout) && !escapes(&output.stderr), "{words}");
    }
    let always = said(&member, "get k --color=always");
    assert_eq!(always, "\x1b[2mk\x1b[0m\nv\n");
    let sent = terminal("get k", "LANG", "C");
    assert_eq!(sent, b"\x1b[2mk\x1b[0m\r\nv\r\n");
    let error = String::from_utf8(terminal("role get none", "LANG", "C")).unwrap();
    assert!(error.contains("\x1b[1;31mError:\x1b[0m "), "{error:?}");
    let refused = piped(&member, "get k --color=pink");
    assert!(!refused.status.success());
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(
        text.starts_with("Error: unknown --color pink; it is one of auto, always, never"),
        "{text}"
    );
}

/// JSON and YAML that say the same.
fn same(json: &Value, yaml: &Yaml) -> bool {
    match (json, yaml) {
        (Value::Null, Yaml::Null) => true,
        (Value::Bool(one), Yaml::Boolean(other)) => one == other,
        (Value::Number(one), Yaml::Integer(other)) => one.as_i64() == Some(*other),
        (Value::Number(one), Yaml::Real(other)) => one.as_f64() == other.parse().ok(),
        (Value::String(one), Yaml::String(other)) => one == other,
        (Value::Array(one), Yaml::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Yaml::Hash(other)) => {
            let has = |(key, value): (&Yaml, &Yaml)| {
                one.get(key.as_str().unwrap()).is_some_and(|json| same(json, value))
            };
            one.len() == other.len() && other.iter().all(has)
        }
        _ => false,
    }
}

#[test]
fn yaml_and_jsonl_say_the_same_in_text_and_hexadecimal() {
    let member = Member::start();
    put(&member, b"a: 'b' # \"c\"", "no\nyes\t\u{7f}\u{85} ü\u{202e}".as_bytes());
    put(&member, b"b", b"\xff\xfe");
    let grant = said(&member, "lease grant 600 -o jsonl");
    let lease: Value = serde_json::from_str(&grant).unwrap();
    let lease = lease["id"].as_str().unwrap();
    assert_eq!(lease.len(), 16, "{grant}");
    said(&member, &format!("put --lease={lease} c 1"));
    said(&member, "user add u:pw");
    said(&member, "role add r");
    said(&member, "role grant-permission r read a b");
    let file = member.dir.path().join("s.db");
    let file = file.to_str().unwrap();
    said(&member, &format!("snapshot save {file}"));
    let commands = [
        "get --prefix a".to_owned(),
        "get --from-key a".to_owned(),
        "get --prefix nothing".to_owned(),
        "member list".to_owned(),
        "endpoint status".to_owned(),
        "endpoint hashkv".to_owned(),
        "alarm list".to_owned(),
        "lease list".to_owned(),
        "user list".to_owned(),
        "user get u".to_owned(),
        "role list".to_owned(),
        "role get r".to_owned(),
        "auth status".to_owned(),
        "space".to_owned(),
        format!("snapshot status {file}"),
        format!("hashkv {file}"),
    ];
    for words in &commands {
        let lines = said(&member, &format!("{words} -o jsonl"));
        let yaml = said(&member, &format!("{words} -o yaml"));
        let lines: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let documents =
            YamlLoader::load_from_str(&yaml).unwrap_or_else(|why| panic!("{why}: {yaml}"));
        let document = &documents[0];
        let whole = Value::from(lines.clone());
        let is_one = lines.len() == 1 && same(&lines[0], document);
        // The time and the counters of `space` may have moved on.
        let moves = words == "space" || words == "endpoint status";
        assert!(moves || is_one || same(&whole, document), "{words}: {lines:#?}\n{yaml}");
    }
    let pairs = said(&member, "get --from-key a -o jsonl");
    let pairs: Vec<Value> = pairs.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(pairs[0]["key"], "a: 'b' # \"c\"");
    assert_eq!(pairs[0]["value"], "no\nyes\t\u{7f}\u{85} ü\u{202e}");
    assert_eq!((&pairs[1]["value"], &pairs[1]["valueBase64"]), (&Value::Null, &"//4=".into()));
    assert_eq!(pairs[2]["lease"], lease);
    let members: Value = serde_json::from_str(&said(&member, "member list -o jsonl")).unwrap();
    let etcds: Value = serde_json::from_str(&said(&member, "member list -o json")).unwrap();
    let id = etcds["members"][0]["ID"].as_u64().unwrap();
    assert_eq!(members["id"], format!("{id:x}"));
    assert_eq!((&members["leader"], &members["name"]), (&true.into(), &"default".into()));
    // etcd's tools have neither.
    let refused = command("etcdctl", &member, &[b"get", b"a", b"-w", b"yaml"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(4));
    assert_eq!(refused.stderr, b"Error: unsupported output format\n");
    let unknown = command("etcdctl", &member, &[b"get", b"a", b"-o", b"json"]).output().unwrap();
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("unknown shorthand flag: 'o' in -o"));
}

#[test]
fn a_watch_in_jsonl_has_a_line_for_each_event() {
    let member = Member::start();
    said(&member, "put w 1");
    said(&member, "put w 2");
    said(&member, "del w");
    let mut watch = Screen::start(rusd(&member, "watch w --rev=1 --prev-kv -o jsonl"), 80);
    watch.wait_for("DELETE");
    assert!(child::command("kill").arg(watch.child().id().to_string()).status().unwrap().success());
    let lines = visible(&watch.end().0);
    let events: Vec<Value> =
        lines[..3].iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&events[0]["type"], &events[0]["value"]), (&"PUT".into(), &"1".into()));
    assert_eq!(events[1]["previous"]["value"], "1");
    assert_eq!(
        (&events[2]["type"], &events[2]["previous"]["value"]),
        (&"DELETE".into(), &"2".into())
    );
}

#[test]
fn kubernetes_values_and_json_are_decoded() {
    let member = Member::start();
    // runtime.Unknown with v1/Pod, whose metadata has the name web.
    let pod =
        b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x0b\x0a\x05\x0a\x03web\x12\x02\x18\x07\x1a\0\"\0";
    put(&member, b"/registry/pods/default/web", pod);
    put(&member, b"/registry/x", br#"{"kind":"X","apiVersion":"a/v1","n":[1,2]}"#);
    put(&member, b"/registry/y", b"plain");
    let text = said(&member, "get --prefix /registry/ --decode");
    let expected = "\
/registry/pods/default/web
apiVersion: \"v1\"
kind: \"Pod\"
metadata:
  name: \"web\"
\"2\":
  \"3\": 7
/registry/x
{
  \"kind\": \"X\",
  \"apiVersion\": \"a/v1\",
  \"n\": [
    1,
    2
  ]
}
/registry/y
plain
";
    assert_eq!(text, expected);
    let line = said(&member, "get /registry/x --decode -o jsonl");
    assert!(line.contains(r#""decoded":{"kind":"X","apiVersion":"a/v1","n":[1,2]}"#), "{line}");
    let watch = command(
        "rusd",
        &member,
        &[b"watch", b"--rev=1", b"/registry/pods/default/web", b"--decode"],
    );
    let mut watch = Screen::start(watch, 80);
    watch.wait_for("metadata:");
    assert!(child::command("kill").arg(watch.child().id().to_string()).status().unwrap().success());
    let refused = piped(&member, "get k --decode -o json");
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
}

#[test]
fn a_person_is_asked_before_what_cannot_be_undone() {
    let member = Member::start();
    let fill = || ["a/1", "a/2", "a/3"].map(|key| said(&member, &format!("put {key} v")));
    fill();
    let asked = |words: &str, answer: &str| {
        let mut screen = Screen::start(rusd(&member, words), 80);
        screen.wait_for("Continue? [y/N] ");
        screen.type_line(answer);
        let (sent, status) = screen.end();
        (visible(&sent).join("\n"), status.code().unwrap())
    };
    for answer in ["n", "", "no", "x"] {
        let (text, code) = asked("del --prefix a/", answer);
        assert!(text.starts_with("This deletes 3 keys, from \"a/1\" to \"a/3\"."), "{text}");
        assert!(text.contains("Error: not confirmed, so nothing was changed"), "{text}");
        assert_eq!(code, 1, "{text}");
    }
    assert_eq!(said(&member, "get --prefix a/ --keys-only").matches("a/").count(), 3);
    let (text, code) = asked("del a/1 a/3", "Y");
    assert!(text.contains("deletes 2 keys") && code == 0, "{text}");
    assert_eq!(said(&member, "get --prefix a/ --print-value-only"), "v\n");
    fill();
    // Nobody is asked about one key, after --yes, or in a pipe.
    for words in ["del a/1", "del --prefix a/ --yes", "del -y --prefix a/"] {
        let text = visible(&sent(rusd(&member, words), 80)).join("\n");
        assert!(!text.contains("Continue"), "{words}: {text}");
    }
    fill();
    assert_eq!(said(&member, "del --prefix a/"), "3\n");

    let (text, _) = asked("compaction 2", "n");
    assert!(text.starts_with("This discards the history before revision 2; the present"), "{text}");
    let id: Value = serde_json::from_str(&said(&member, "member list -o jsonl")).unwrap();
    let id = id["id"].as_str().unwrap();
    let (text, code) = asked(&format!("member remove {id}"), "n");
    let removal =
        format!("This removes member {id} (default), the leader, for good. No voter remains");
    assert!(text.replace('\n', " ").starts_with(&removal) && code == 1, "{text}");
    let (text, code) = asked("user delete somebody", "n");
    assert!(text.starts_with("This deletes the user somebody for good") && code == 1, "{text}");
    let (text, code) = asked("role delete some", "n");
    assert!(text.starts_with("This deletes the role some for good") && code == 1, "{text}");
    let (text, _) = asked("auth disable", "n");
    assert!(text.starts_with("This switches authentication off"), "{text}");
    let (text, _) = asked("downgrade enable 3.6", "n");
    assert!(text.starts_with("This prepares all members"), "{text}");
    let dir = member.dir.path().join("certs");
    let made = format!("cert gen --dir {} --only client", dir.to_str().unwrap());
    said(&member, &made);
    let (text, code) = asked(&format!("{made} --force"), "n");
    assert!(text.starts_with("--force in ") && code == 1, "{text}");
    // etcd's names never ask.
    let etcdctl = command("etcdctl", &member, &[b"compaction", b"2"]);
    assert!(Screen::start(etcdctl, 80).end().1.success());
}

#[test]
fn bars_fit_and_leave_the_terminal_clean() {
    let member = Member::start();
    for columns in [60, 80, 200] {
        let bench = rusd(&member, "bench put --clients 4 --duration 1500ms");
        let mut screen = Screen::start(bench, columns);
        screen.wait_for(" left");
        let (sent, status) = screen.end();
        assert!(status.success());
        assert!(String::from_utf8_lossy(&sent).contains("put: 4 clients"), "{sent:?}");
        for drawn in String::from_utf8(sent.clone()).unwrap().split(['\r', '\n']) {
            let text = visible(drawn.as_bytes()).concat();
            assert!(text.chars().count() <= usize::from(columns), "{columns}: {text:?}");
        }
        let seen = visible(&sent).join("\n");
        assert!(!seen.contains(" left") && seen.contains("requests/s"), "{seen}");
    }
    // A signal clears the bar and ends the process as it does without one.
    let mut screen = Screen::start(rusd(&member, "bench put --clients 4 --duration 100s"), 80);
    screen.wait_for(" left");
    let id = screen.child().id().to_string();
    assert!(child::command("kill").args(["-INT", &id]).status().unwrap().success());
    let (sent, status) = screen.end();
    assert_eq!(status.signal(), Some(2), "{status:?}");
    assert_eq!(visible(&sent).concat(), "", "{sent:?}");
    // Nowhere else there is one.
    let words = "bench put --clients 4 --duration 300ms";
    assert_eq!(piped(&member, words).stderr, b"");
    let mut dumb = rusd(&member, words);
    dumb.env("TERM", "dumb");
    assert!(!String::from_utf8(sent_by(dumb)).unwrap().contains(" left"));

    let file = member.dir.path().join("s.db");
    let save = format!("snapshot save {}", file.to_str().unwrap());
    let seen = visible(&sent_by(rusd(&member, &save))).join("\n");
    assert!(seen.starts_with("Snapshot saved at ") && !seen.contains('{'), "{seen}");
    let data = member.dir.path().join("restored");
    let restore = format!(
        "snapshot restore {} --data-dir {}",
        file.to_str().unwrap(),
        data.to_str().unwrap()
    );
    let seen = visible(&sent_by(rusd(&member, &restore))).join("\n");
    assert!(!seen.contains(" left"), "{seen}");
    assert!(data.join("member").is_dir(), "{seen}");
}

fn sent_by(command: Command) -> Vec<u8> {
    sent(command, 80)
}

#[test]
fn one_flag_sets_the_format_of_a_benchmark() {
    let member = Member::start();
    for (flag, is_json) in [("-o json", true), ("-w json", true), ("--write-out=simple", false)] {
        let text = said(&member, &format!("bench put --clients 2 --total 20 {flag}"));
        assert_eq!(serde_json::from_str::<Value>(&text).is_ok(), is_json, "{text}");
    }
}
