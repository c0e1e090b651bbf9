//! What users write: the server's flags, variables and file, the commands' words and lines.

use rusd::cli::{self, Program};
use rusd::server;

use super::{Notes, Shape, Target, file, scratch};
use crate::mutate::{Part, join, parts};

/// Kinds of parts.
const FILE: u8 = 0;
const FLAG: u8 = 1;
const VARIABLE: u8 = 2;
const WORD: u8 = 3;
const LINE: u8 = 4;
const KINDS: u8 = 5;

pub struct Settings {
    dir: tempfile::TempDir,
}

impl Settings {
    pub fn new() -> Self {
        Self { dir: scratch() }
    }
}

impl Target for Settings {
    fn seeds(&mut self) -> Vec<Vec<u8>> {
        let yaml = "name: 'm1'\nheartbeat-interval: 500\ngrpc-keepalive-interval: 5000000000\n\
                    log-outputs: [stderr, /x]\nlisten-client-urls: http://127.0.0.1:1,unix://a:2\n\
                    pre-vote: true\nwal-dir: ~\nclient-transport-security:\n  cert-file: /c\n  \
                    client-cert-auth: true\n  allowed-hostname: [a, b]\n";
        let flags = [
            "--initial-cluster=a=http://1.2.3.4:5,b=http://[::1]:7",
            "--name",
            "a",
            "-initial-advertise-peer-urls=http://1.2.3.4:5",
            "--auto-compaction-retention=1h30m",
            "--cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "--log-level=debug",
        ];
        let variables = ["ETCD_NAME=b", "ETCD_LISTEN_PEER_URLS=https://127.0.0.1:1", "ETCD_X=1"];
        let words = [
            "role",
            "grant-permission",
            "--prefix",
            "r",
            "readwrite",
            "/a",
            "--endpoints=a:1,\"b:2\"",
            "--command-timeout=5s",
            "-w",
            "json",
        ];
        let lines = [
            "version(\"a\") > \"1\"",
            "value(\"k\") = \"x\\n\\u00e9\"",
            "put --lease=1f 'k' \"v\\x00\"",
            "get --prefix foo --rev=7",
            "watch --rev 3 a b -- echo x",
            "lease(\"a\") != \"ff\"",
            "{\"kind\": \"Pod\", \"n\": [1, 2.5, null]}",
            "k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x0b\x0a\x05\x0a\x03web\x12\x02\x18\x07\x1a\0\"\0",
        ];
        let all = |kind, list: &[&str]| -> Vec<u8> {
            join(&list.iter().map(|text| Part::new(kind, *text)).collect::<Vec<_>>())
        };
        vec![
            join(&[Part::new(FILE, yaml)]),
            join(&[Part::new(FILE, "name: &a [x]\nx: &b [*a,*a]\ny: &c [*b,*b]\n")]),
            join(&[Part::new(FILE, "{\"name\": \"j\", \"auth-token\": \"simple\"}")]),
            all(FLAG, &flags),
            all(VARIABLE, &variables),
            all(WORD, &words),
            all(LINE, &lines),
        ]
    }

    fn shape(&self) -> Shape {
        Shape::Parts(|_| false)
    }

    fn words(&self) -> &'static [&'static [u8]] {
        &[
            b"--",
            b"=",
            b"http://",
            b"https://",
            b"unix://",
            b"unixs://",
            b":2379",
            b"[::1]",
            b",",
            b"1h",
            b"0.000000001ns",
            b"9223372036854775807",
            b"-9223372036854775808",
            b"true",
            b"infinity",
            b"quota-backend-bytes",
            b"snapshot-count",
            b"election-timeout",
            b"heartbeat-interval",
            b"auto-compaction-mode",
            b"periodic",
            b"revision",
            b"name: ",
            b"&a ",
            b"*a",
            b"<<: ",
            b"- ",
            b"\n  ",
            b"!!str ",
            b"%YAML 1.2\n",
            b"---\n",
            b"{",
            b"[",
            b"peer-transport-security:\n",
            b"tls-min-version",
            b"discovery-srv",
            b"cors",
            b"version(",
            b"\"",
            b"'",
            b"\\",
            b"\\x",
            b"\\u",
            b"\\777",
            b" -- ",
            b"watch ",
            b"put ",
            b"--lease=",
            b"|\n",
        ]
    }

    fn length_max(&self) -> usize {
        4 << 10
    }

    fn memory_max(&self, length: usize) -> usize {
        // An alias in YAML stands for what it names, and the file's length is bounded.
        (16 << 20) + 4096 * length
    }

    fn run(&mut self, input: &[u8], notes: &mut Notes) {
        let (mut flags, mut variables) = (Vec::new(), Vec::new());
        let (mut words, mut lines) = (Vec::new(), Vec::new());
        let mut is_of_server = false;
        for Part { kind, bytes } in parts(input) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            is_of_server |= kind % KINDS < WORD;
            match kind % KINDS {
                FILE => {
                    let path = file(self.dir.path(), "etcd.yaml", &bytes);
                    flags.push(format!("--config-file={}", path.display()));
                }
                FLAG => flags.push(text),
                VARIABLE => variables.extend(
                    text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())),
                ),
                WORD => words.push(bytes),
                _ => lines.push(bytes),
            }
        }
        if is_of_server {
            let settings = server::settings(&flags, &variables);
            notes.result("settings", &settings.map_err(|(code, text)| format!("{code} {text}")));
        }
        if !words.is_empty() || !lines.is_empty() {
            for program in [Program::Rusd, Program::Etcdctl, Program::Etcdutl] {
                let understood = cli::count_understood(program, &words, &lines);
                notes.number("understood", understood as u64);
            }
        }
    }
}
