//! Completions in the shells that are here: each loads the script as a user does, and completes
//! commands, flags, values and names that only the cluster knows.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "tests wait in real time")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
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
const PATIENCE: Duration = Duration::from_secs(60);

/// A program with a `rusd` in its path, an empty home and the endpoint in its variables.
fn with_rusd(program: &str, home: &Path, endpoint: &str) -> Command {
    let link = home.join("rusd");
    if !link.exists() {
        symlink(child::RUSD, &link).unwrap();
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = child::command(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("ETCD") {
            command.env_remove(name);
        }
    }
    command
        .env("PATH", format!("{}:{path}", home.display()))
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home)
        .env("TERM", "dumb")
        .env("ETCDCTL_ENDPOINTS", endpoint)
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

/// Whether a shell is here; says so if it is not.
fn has(shell: &str) -> bool {
    let is_here = child::command(shell).args(["-c", "true"]).output().is_ok();
    if !is_here {
        println!("there is no {shell} here; its completions are not tried");
    }
    is_here
}

fn rusd(member: &Member, words: &[&str]) -> Output {
    let mut command = child::command(child::RUSD);
    let output = command.arg(format!("--endpoints={}", member.endpoint)).args(words).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    output
}

/// A member with some keys, a user, a role and a lease, whose id is returned.
fn filled() -> (Member, String) {
    let member = Member::start();
    for key in [
        "app/one",
        "app/two/x",
        "app/two/y",
        "other",
        "q:a=b",
        "sp ace/a$(touch x)",
        "\x1b[2Jk",
        "--hex",
    ] {
        rusd(&member, &["put", "--", key, "v"]);
    }
    rusd(&member, &["role", "add", "reader"]);
    rusd(&member, &["user", "add", "alice", "--new-user-password", "pw"]);
    let granted = String::from_utf8(rusd(&member, &["lease", "grant", "600"]).stdout).unwrap();
    let lease = granted.split_whitespace().nth(1).unwrap().to_owned();
    (member, lease)
}

/// What `__complete` offers for a line, without descriptions, and its last line.
fn offered(home: &Path, endpoint: &str, line: &str) -> (Vec<String>, String) {
    let mut command = with_rusd("rusd", home, endpoint);
    let output = command.arg("__completeNoDesc").args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    let directive = lines.pop().unwrap();
    (lines, directive)
}

#[test]
fn names_are_those_of_the_cluster_one_level_at_a_time() {
    let (member, lease) = filled();
    let home = tempfile::tempdir().unwrap();
    let names = |line: &str| offered(home.path(), &member.endpoint, line);
    let listed = String::from_utf8(rusd(&member, &["member", "list"]).stdout).unwrap();
    let id = listed.split(',').next().unwrap();
    for (line, expected, directive) in [
        ("get ", vec!["app/", "other", "q:a=b", "sp ace/"], ":6"),
        ("get app", vec!["app/"], ":6"),
        ("del app/", vec!["app/one", "app/two/"], ":6"),
        ("watch --prefix app/two/", vec!["app/two/x", "app/two/y"], ":4"),
        ("put o", vec!["other"], ":4"),
        ("put other ", vec![], ":4"),
        ("get other o", vec!["other"], ":4"),
        ("role grant-permission reader read o", vec!["other"], ":4"),
        ("member remove ", vec![id], ":4"),
        ("move-leader ", vec![id], ":4"),
        ("user get a", vec!["alice"], ":4"),
        ("user grant-role alice ", vec!["reader"], ":4"),
        ("lease revoke ", vec![lease.as_str()], ":4"),
        ("put --lease ", vec![lease.as_str()], ":4"),
        ("get --endpoints ", vec![member.endpoint.as_str()], ":4"),
        // Flags that are typed count.
        ("get --endpoints 127.0.0.1:1 app", vec![], ":4"),
        // Nobody is asked for a password.
        ("get --user alice app", vec![], ":4"),
        ("get --user alice:pw app", vec!["app/"], ":6"),
    ] {
        let (found, told) = names(line);
        assert_eq!(
            (found, told.as_str()),
            (expected.into_iter().map(str::to_owned).collect(), directive),
            "{line}"
        );
    }
}

#[test]
fn many_keys_below_a_prefix_hide_no_other() {
    let member = Member::start();
    // More than one page each; put by transactions, which take 128 at most.
    for prefix in ["a/x", "a/y/z", "b/"] {
        for part in 0..3 {
            let puts: String =
                (0..100).map(|at| format!("put {prefix}{part}{at:02} v\n")).collect();
            let mut txn = child::command(child::RUSD);
            txn.arg(format!("--endpoints={}", member.endpoint)).arg("txn");
            let mut child = txn.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let text = format!("\n{puts}\n\n");
            std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
            assert!(child.wait().unwrap().success());
        }
    }
    let home = tempfile::tempdir().unwrap();
    let names = |line: &str| offered(home.path(), &member.endpoint, line).0;
    assert_eq!(names("get "), ["a/", "b/"]);
    let below = names("get a/");
    assert!(below.len() >= 100 && below.contains(&"a/x000".to_owned()), "{}", below.len());
    assert_eq!(names("get a/y"), ["a/y/"]);
    assert_eq!(names("get b"), ["b/"]);
}

#[test]
fn where_nothing_answers_nothing_is_offered_and_soon() {
    let home = tempfile::tempdir().unwrap();
    // A port that takes connections and says nothing, and one where nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap().to_string();
    let dead = format!("127.0.0.1:{}", ports::free());
    for endpoint in [silent.as_str(), dead.as_str(), "no.such.host.invalid:1", "https://"] {
        for line in ["get a", "member remove ", "lease revoke ", "user get ", "get --endpoints "] {
            let begin = Instant::now();
            let mut command = with_rusd("rusd", home.path(), endpoint);
            let output = command.arg("__complete").args(line.split(' ')).output().unwrap();
            // Half a second, and what a busy machine needs to start a process.
            assert!(begin.elapsed() < Duration::from_secs(10), "{endpoint} {line}");
            assert_eq!(output.stdout, b":4\n", "{endpoint} {line}: {output:?}");
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(stderr.lines().count(), 1, "{endpoint} {line}: {stderr}");
        }
    }
}

/// What bash offers for a line, as it calls the function: with words that it has split at `:` and
/// `=`, and the part of the last word that it completes.
fn of_bash(home: &Path, endpoint: &str, line: &str, words: &[&str], part: &str) -> Vec<String> {
    let mut script = String::from("source <(rusd completion bash) || exit 1\n");
    script.push_str("complete -p rusd | grep -q -- '-F _rusd_complete rusd' || exit 2\n");
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    script.push_str(&format!(
        "COMP_WORDS=({})\nCOMP_CWORD={}\n",
        quoted.join(" "),
        words.len() - 1
    ));
    script.push_str(&format!("COMP_LINE={}\nCOMP_POINT={}\n", quote(line), line.len()));
    script.push_str(&format!("_rusd_complete rusd {} '' \n", quote(part)));
    script.push_str("printf '%s\\n' \"${COMPREPLY[@]}\"\n");
    let output =
        with_rusd("bash", home, endpoint).args(["--norc", "-c", &script]).output().unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    said.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[test]
fn bash_completes() {
    if !has("bash") {
        return;
    }
    let (member, _) = filled();
    let home = tempfile::tempdir().unwrap();
    let of = |line: &str, words: &[&str], part: &str| {
        of_bash(home.path(), &member.endpoint, line, words, part)
    };
    assert_eq!(of("rusd ser", &["rusd", "ser"], "ser"), ["serve"]);
    let line = "rusd serve --initial-cluster-s";
    assert_eq!(
        of(line, &["rusd", "serve", "--initial-cluster-s"], "--initial-cluster-s"),
        ["--initial-cluster-state"]
    );
    let line = "rusd serve --log-format=";
    assert_eq!(of(line, &["rusd", "serve", "--log-format", "="], ""), ["json", "console", "human"]);
    let line = "rusd serve --log-format=j";
    assert_eq!(of(line, &["rusd", "serve", "--log-format", "=", "j"], "j"), ["json"]);
    assert_eq!(of("rusd get app/t", &["rusd", "get", "app/t"], "app/t"), ["app/two/"]);
    // Behind a colon and an equals sign bash takes what follows for another word.
    assert_eq!(of("rusd get q:", &["rusd", "get", "q", ":"], ""), ["a=b"]);
    assert_eq!(of("rusd get q:a=", &["rusd", "get", "q", ":", "a", "="], ""), ["b"]);
    // Nothing in a key is for the shell.
    assert_eq!(of("rusd get sp", &["rusd", "get", "sp"], "sp"), ["sp\\ ace/"]);
    let deep = of("rusd get sp\\ ace/", &["rusd", "get", "sp\\ ace/"], "sp\\ ace/");
    assert_eq!(deep, ["sp\\ ace/a\\$\\(touch\\ x\\)"]);
    assert_eq!(of("rusd get \"sp ace/", &["rusd", "get", "\"sp ace/"], "sp ace/"), [""; 0]);
    assert_eq!(
        of("rusd get 'sp ace/", &["rusd", "get", "'sp ace/"], "sp ace/"),
        ["sp ace/a$(touch x)"]
    );
    fs::write(home.path().join("backup.db"), "").unwrap();
    assert_eq!(of("rusd snapshot save b", &["rusd", "snapshot", "save", "b"], "b"), ["backup.db"]);
    assert!(!home.path().join("x").exists(), "a key was run");
}

#[test]
fn fish_completes() {
    if !has("fish") {
        return;
    }
    let (member, _) = filled();
    let home = tempfile::tempdir().unwrap();
    let of = |line: &str| {
        let script = format!("rusd completion fish | source\ncomplete -C {}\n", quote(line));
        let mut fish = with_rusd("fish", home.path(), &member.endpoint);
        let output = fish.args(["--no-config", "-c", &script]).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let name = |line: &str| line.split('\t').next().unwrap().to_owned();
        said.lines().map(name).collect::<Vec<String>>()
    };
    assert_eq!(of("rusd ser"), ["serve"]);
    assert_eq!(of("rusd serve --initial-cluster-s"), ["--initial-cluster-state"]);
    assert_eq!(of("rusd serve --log-format=j"), ["--log-format=json"]);
    assert_eq!(of("rusd get app/"), ["app/one", "app/two/"]);
    assert_eq!(of("rusd user get "), ["alice"]);
    fs::write(home.path().join("backup.db"), "").unwrap();
    assert_eq!(of("rusd snapshot save b"), ["backup.db"]);
}

/// A terminal within zsh: each line is typed with a tab behind it, and what stands on the line then
/// is written to a file by a key of our own.
const ZSH: &str = r#"
zmodload zsh/zpty || exit 3
zpty -b shell zsh -f -i
zpty -w shell "autoload -Uz compinit; compinit -u -d $HOME/dump; source <(rusd completion zsh)"
zpty -w shell 'note() { print -r -- "$BUFFER" >> $HOME/lines; BUFFER=; CURSOR=0 }; zle -N note; bindkey "^T" note'
zpty -w shell 'print -r -- ready >> $HOME/lines'
waited() {
    local turn
    for turn in {1..600}; do
        zpty -r -t shell > /dev/null
        [[ $(wc -l 2>/dev/null < $HOME/lines) -ge $1 ]] && return
        sleep 0.1
    done
    print -r -- "no line $1"; exit 4
}
touch $HOME/lines
waited 1
count=1
while IFS= read -r line; do
    zpty -w -n shell "$line"$'\t'$'\x14'
    (( count++ ))
    waited $count
done < $HOME/asked
zpty -d shell
"#;

#[test]
fn zsh_completes() {
    if !has("zsh") {
        return;
    }
    let (member, _) = filled();
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("backup.db"), "").unwrap();
    let asked = [
        ("rusd ser", "rusd serve "),
        ("rusd serve --initial-cluster-s", "rusd serve --initial-cluster-state "),
        ("rusd serve --log-format=j", "rusd serve --log-format=json "),
        ("rusd get app/t", "rusd get app/two/"),
        ("rusd get q:", "rusd get q:a=b "),
        ("rusd get sp", "rusd get sp\\ ace/"),
        ("rusd user get a", "rusd user get alice "),
        ("rusd snapshot save b", "rusd snapshot save backup.db "),
    ];
    let lines: String = asked.iter().map(|(line, _)| format!("{line}\n")).collect();
    fs::write(home.path().join("asked"), lines).unwrap();
    let mut zsh = with_rusd("zsh", home.path(), &member.endpoint);
    let mut child = zsh.args(["-f", "-c", ZSH]).stdout(Stdio::piped()).spawn().unwrap();
    let patience = Instant::now() + 2 * PATIENCE;
    while child.try_wait().unwrap().is_none() && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let output = child.wait_with_output().unwrap();
    if output.status.code() == Some(3) {
        println!("this zsh has no terminals of its own; its completions are not tried");
        return;
    }
    let found = fs::read_to_string(home.path().join("lines")).unwrap();
    let found: Vec<&str> = found.lines().skip(1).collect();
    let expected: Vec<&str> = asked.iter().map(|(_, line)| *line).collect();
    assert_eq!(found, expected, "{output:?}");
}
