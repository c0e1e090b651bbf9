//! Runs a unit in one bash, in a scratch directory, with ports of its own.
//!
//! The ports of the pages, 2379 to 2381, are replaced by free ones in the text of each block, and put
//! back in what it prints. So are system directories. What is left to defaults (the endpoint of a
//! client, the URLs of a server without any flag for them) comes from etcd's own variables.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use regex::{Captures, Regex};
use rustix::process::{Pid, Signal, kill_process_group};

use super::child;
use super::output::{for_a_page, has_line, is_like};
use super::page::{Block, Kind, Unit};
use super::tables::{PATHS, SCRIPTS, STAND_INS};

/// A unit takes some seconds; this is for a machine that has other work.
const PATIENCE: Duration = Duration::from_secs(300);

pub struct Shell {
    dir: tempfile::TempDir,
    /// The free port that stands for 2379; the next two are free as well.
    first_port: u16,
    _reserved: UdpSocket,
}

/// What a block printed that a page shows otherwise.
pub struct Differs {
    pub line: usize,
    pub text: String,
}

/// What came of a unit.
#[derive(Default)]
pub struct Outcome {
    pub ran: usize,
    pub findings: Vec<String>,
    pub differs: Vec<Differs>,
}

impl Shell {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (first_port, _reserved) = three_ports();
        for path in ["bin", "home", "run"].into_iter().chain(PATHS.map(|path| &path[1..])) {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let bin = dir.path().join("bin");
        let rusd = std::env::var("DOCS_RUSD").unwrap_or_else(|_| child::RUSD.to_owned());
        symlink(&rusd, bin.join("rusd")).unwrap();
        let release = dir.path().join("home/target/release");
        fs::create_dir_all(&release).unwrap();
        symlink(&rusd, release.join("rusd")).unwrap();
        // rusd stands in for etcd's own tools, under their names.
        let etcds = dir.path().join("path/to/etcds/own");
        fs::create_dir_all(&etcds).unwrap();
        symlink(&rusd, etcds.join("etcdutl")).unwrap();
        for (name, calls) in STAND_INS {
            write_script(&bin.join(name), &stand_in(name, calls));
        }
        for (name, text) in SCRIPTS {
            write_script(&bin.join(name), text);
        }
        Self { dir, first_port, _reserved }
    }

    pub fn run(self, unit: &Unit) -> Outcome {
        let script = self.path("run/script");
        fs::write(&script, self.script(unit)).unwrap();
        let mut bash = child::command("bash");
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let client = format!("127.0.0.1:{}", self.first_port);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ETCD") {
                bash.env_remove(name);
            }
        }
        bash.arg(script).current_dir(self.path("home")).env("HOME", self.path("home"));
        bash.env("PATH", path).env("ETCDCTL_ENDPOINTS", client).env("TMPDIR", self.path("tmp"));
        bash.env("DOCS_PACKAGE", env!("CARGO_MANIFEST_DIR")).process_group(0);
        let noise = File::create(self.path("run/noise")).unwrap();
        bash.stdin(std::process::Stdio::null()).stdout(noise.try_clone().unwrap()).stderr(noise);
        let mut bash = Group(bash.spawn().unwrap());
        let ends = bash.wait();
        drop(bash);
        self.judge(unit, ends)
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The blocks, each in a file of its own that is sourced, so that variables, functions and jobs
    /// stay. Background jobs keep the block's output file open, which keeps nobody waiting.
    fn script(&self, unit: &Unit) -> String {
        let run = self.path("run");
        let mut script = format!("DOCS={}\n{DRIVER}", run.display());
        let scene = format!("{}/tests/docs/scenes", env!("CARGO_MANIFEST_DIR"));
        let helpers = fs::read_to_string(format!("{scene}/lib.sh")).unwrap();
        fs::write(run.join("lib"), self.moved(&helpers)).unwrap();
        if let Ok(text) = fs::read_to_string(format!("{scene}/{}.sh", unit.scene)) {
            fs::write(run.join("0"), self.moved(&text)).unwrap();
            script.push_str(". $DOCS/lib\nblock 0 Run\n");
        }
        for block in &unit.blocks {
            let name = block.line;
            match block.kind {
                Kind::Run | Kind::Fails | Kind::Terminal => {
                    fs::write(run.join(name.to_string()), self.moved(&block.text)).unwrap();
                    let defaults = self.defaults(&block.text);
                    let _ = writeln!(script, "{defaults}block {name} {:?}", block.kind);
                    if !defaults.is_empty() {
                        script.push_str("undo_defaults\n");
                    }
                }
                Kind::Log => {
                    let _ = writeln!(
                        script,
                        "cat $HOME/*.log $DOCS/*.out > $DOCS/{name}.end 2>/dev/null"
                    );
                }
                Kind::Output => {}
            }
        }
        script
    }

    /// Variables for the URLs that the block gives to no server.
    fn defaults(&self, text: &str) -> String {
        let has = |flags: &[&str]| flags.iter().any(|flag| text.contains(flag));
        if !text.contains(" serve") || has(&["--initial-cluster ", "--config-file", "ETCD_LISTEN"])
        {
            return String::new();
        }
        let (client, peer) = (self.first_port, self.first_port + 1);
        let mut calls = String::new();
        if !has(&["--listen-client-urls"]) {
            calls += &format!("default_client http://localhost:{client}\n");
        }
        if !has(&["--listen-peer-urls"]) {
            calls += &format!("default_peer http://localhost:{peer}\n");
        }
        calls
    }

    /// The text with this unit's ports and directories.
    fn moved(&self, text: &str) -> String {
        let ports = Regex::new(r"\b23(79|80|81)\b").unwrap();
        let text = ports.replace_all(text, |found: &Captures| {
            let port: u16 = found[0].parse().unwrap();
            (self.first_port + (port - 2379)).to_string()
        });
        let paths = Regex::new(&format!(r#"(^|[\s"'=:(>])({})\b"#, PATHS.join("|"))).unwrap();
        let root = self.dir.path().display().to_string();
        let mut moved = String::new();
        for line in text.split_inclusive('\n') {
            moved += &paths
                .replace_all(line, |found: &Captures| format!("{}{root}{}", &found[1], &found[2]));
        }
        moved
    }

    /// What was printed, with the ports and directories of the page.
    fn back(&self, text: &str) -> String {
        // What bash says of a job that ended is not the page's, and a client may have to wait or not.
        let notice = r"(?m)^(.*: line \d+: +\d+ (Killed|Terminated|Stopped)|waiting up to).*\n";
        let notice = Regex::new(notice).unwrap();
        let text = notice.replace_all(text, "");
        let mut text = text.replace(&self.dir.path().display().to_string(), "");
        for port in 0..3 {
            let ours = Regex::new(&format!(r"\b{}\b", self.first_port + port)).unwrap();
            text = ours.replace_all(&text, (2379 + port).to_string()).into_owned();
        }
        text
    }

    fn read(&self, name: String) -> String {
        let bytes = fs::read(self.path("run").join(name)).unwrap_or_default();
        self.back(&String::from_utf8_lossy(&bytes))
    }

    fn judge(&self, unit: &Unit, ends: bool) -> Outcome {
        let mut outcome = Outcome::default();
        let mut last = None;
        let scene = [Block { kind: Kind::Run, line: 0, text: String::new() }];
        let has_scene = self.path("run/0").exists();
        for block in scene[usize::from(!has_scene)..].iter().chain(&unit.blocks) {
            let at = format!("{}:{}", unit.page, block.line);
            match block.kind {
                Kind::Output => {
                    let seen =
                        last.map(|line| self.read(format!("{line}.end"))).unwrap_or_default();
                    if !is_like(&block.text, &seen) {
                        outcome.findings.push(format!(
                            "{at} shows\n{}and this was printed:\n{seen}",
                            block.text
                        ));
                        outcome.differs.push(Differs { line: block.line, text: for_a_page(&seen) });
                    }
                }
                Kind::Log => {
                    let logs = self.read(format!("{}.end", block.line));
                    let missing = block.text.lines().filter(|line| !has_line(line, &logs));
                    outcome
                        .findings
                        .extend(missing.map(|line| format!("{at}: not in a log: {line}\n{logs}")));
                }
                Kind::Run | Kind::Fails | Kind::Terminal => {
                    last = Some(block.line);
                    if std::env::var_os("SHOW").is_some() {
                        println!(
                            "--- {at}\n{}\n{}",
                            block.text,
                            self.read(format!("{}.end", block.line))
                        );
                    }
                    let said = self.read(format!("{}.verdict", block.line));
                    if said == "ok\n" {
                        outcome.ran += usize::from(block.line > 0);
                        continue;
                    }
                    let late = if ends { "" } else { " (out of time)" };
                    let printed = self.read(format!("{}.out", block.line));
                    let noise = self.read("noise".to_owned());
                    outcome.findings.push(format!(
                        "{at} ({}){late}: {said}\n{}printed:\n{printed}{noise}",
                        unit.scene, block.text
                    ));
                    return outcome;
                }
            }
        }
        outcome
    }
}

const DRIVER: &str = r#"
set -E
trap 'echo "failed: $BASH_COMMAND" >> $DOCS/failed' ERR
default_client() {
    export ETCD_LISTEN_CLIENT_URLS=$1 ETCD_ADVERTISE_CLIENT_URLS=$1
}
default_peer() {
    export ETCD_LISTEN_PEER_URLS=$1 ETCD_INITIAL_ADVERTISE_PEER_URLS=$1 ETCD_INITIAL_CLUSTER=default=$1
}
undo_defaults() {
    unset ETCD_LISTEN_CLIENT_URLS ETCD_ADVERTISE_CLIENT_URLS ETCD_LISTEN_PEER_URLS
    unset ETCD_INITIAL_ADVERTISE_PEER_URLS ETCD_INITIAL_CLUSTER
}
terminal() {
    (trap - ERR; . $DOCS/$1) > $DOCS/$1.out 2>&1 &
    disown
    if ! grep -q serve $DOCS/$1; then sleep 1; return; fi
    for wait in {1..600}; do
        grep -q 'ready to serve client requests' $DOCS/$1.out && return
        sleep 0.1
    done
    echo 'the server does not become ready' >> $DOCS/failed
}
block() {
    rm -f $DOCS/failed
    case $2 in
    Terminal) terminal $1 ;;
    *) . $DOCS/$1 > $DOCS/$1.out 2>&1 ;;
    esac
    code=$?
    cp $DOCS/$1.out $DOCS/$1.end
    if [ $2 = Fails ] && [ $code = 0 ]; then
        echo 'the last command succeeds' > $DOCS/$1.verdict
    elif [ $2 != Fails ] && [ -e $DOCS/failed ]; then
        cp $DOCS/failed $DOCS/$1.verdict
    else
        echo ok > $DOCS/$1.verdict
        return 0
    fi
    exit 1
}
"#;

/// Three ports that nobody listens on, of four digits as those of the pages, so that tables are as
/// wide. Members take and leave them while a unit runs, so the socket keeps other test processes
/// away meanwhile: all of them ask for the same port of UDP, which no member uses.
fn three_ports() -> (u16, UdpSocket) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let offset = (std::process::id().wrapping_mul(97) % 1900) as u16;
    loop {
        let first = 4000 + (offset + NEXT.fetch_add(1, Ordering::Relaxed)) % 1900 * 3;
        let Ok(reserved) = UdpSocket::bind(("127.0.0.1", first)) else { continue };
        if (first..first + 3).all(|port| TcpListener::bind(("0.0.0.0", port)).is_ok()) {
            return (first, reserved);
        }
    }
}

fn write_script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A program that accepts these calls alone, and does nothing.
fn stand_in(name: &str, calls: &[&str]) -> String {
    let quoted = |call: &&str| format!("\"{}\"", call.replace('*', "\"*\""));
    let calls: Vec<String> = calls.iter().map(quoted).collect();
    let calls = calls.join("|");
    format!(
        "case \"$*\" in\n{calls}) ;;\n*) echo \"{name} is not expected to: $*\" >&2; exit 1 ;;\nesac"
    )
}

/// A shell with everything that it started, which ends with this.
struct Group(Child);

impl Group {
    /// Whether the shell ended by itself in time.
    fn wait(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if self.0.try_wait().unwrap().is_some() {
                return true;
            }
            sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.0.id().cast_signed()).unwrap();
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.0.wait();
    }
}
