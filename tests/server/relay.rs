//! `etcd gateway`: its texts, and what it passes on.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::fixture::{Member, PATIENCE};
use super::member::{Process, free_address, is_healthy};
use super::{child, names};

/// Exit code, standard output and the last line of standard error of the program named `name`.
fn run(name: &str, words: &str) -> (i32, String, String) {
    let root = tempfile::tempdir().unwrap();
    let program = root.path().join(name);
    std::os::unix::fs::symlink(child::RUSD, &program).unwrap();
    let output = child::command(program.to_str().unwrap()).args(words.split(' ')).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    let last = err.trim_end_matches('\n').rsplit('\n').next().unwrap().to_owned();
    (output.status.code().unwrap(), out, last)
}

#[test]
fn texts_and_codes_are_etcds() {
    for name in ["etcd", "rusd"] {
        let run = |words: &str| run(name, words);
        let (code, out, _) = run("gateway");
        assert_eq!(code, 0);
        let (usage, flag) = match name {
            "etcd" => (
                "gateway related command\n\nUsage:\n  etcd gateway [command]",
                "\n      --retry-delay duration        duration of delay",
            ),
            // Help under our own name is our own.
            _ => (
                "Passes TCP connections on",
                "\n      --retry-delay duration     duration of delay",
            ),
        };
        assert!(out.starts_with(usage), "{out}");
        let (code, out, _) = run("gateway start --help");
        assert_eq!(code, 0);
        assert!(out.contains(flag), "{out}");
        let (code, _, last) = run("gateway start --nope");
        assert_eq!((code, last.as_str()), (1, "unknown flag: --nope"));
        for (words, told) in [
            ("--endpoints foo", "error parsing endpoint \"foo\""),
            ("--listen-addr nope", "failed to validate listen address: nope\n"),
            ("--listen-addr h.invalid:1", "failed to resolve listen host: h.invalid\n"),
            ("--endpoints h.invalid:1", "failed to resolve endpoint host: h.invalid\n"),
            ("--endpoints=", "no endpoints found\n"),
            (
                "--endpoints 127.0.0.1:23790",
                "SRV or endpoint (127.0.0.1:23790->127.0.0.1:23790) should not resolve to the \
                 gateway listen addr (127.0.0.1:23790)\n",
            ),
        ] {
            let (code, out, _) = run(&format!("gateway start {words}"));
            assert_eq!((code, out.as_str()), (1, told), "{words}");
        }
        let (code, _, last) = run("gateway start --discovery-srv a.invalid");
        let why = "dns lookup errors: lookup _etcd-client-ssl._tcp.a.invalid: no such host and \
                   lookup _etcd-client._tcp.a.invalid: no such host";
        assert_eq!((code, last.as_str()), (1, why));
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let (code, _, last) = run(&format!("gateway start --listen-addr {address}"));
        let why = format!("listen tcp {address}: bind: address already in use");
        assert_eq!((code, last), (1, why));
        let (code, _, last) = run("grpc-proxy start --endpoints a:1");
        assert_eq!(code, 1);
        assert!(last.starts_with("etcd grpc-proxy is not part of rusd."), "{last}");
    }
}

struct Gateway {
    process: Process,
    address: String,
    root: tempfile::TempDir,
}

impl Gateway {
    fn start(words: &[&str], resolv_conf: Option<&Path>) -> Self {
        let (root, address) = (tempfile::tempdir().unwrap(), free_address());
        let mut command = child::command(child::RUSD);
        command.args(["gateway", "start", "--listen-addr", &address]).args(words);
        if let Some(path) = resolv_conf {
            command.env("RUSD_RESOLV_CONF", path);
        }
        let log = File::create(root.path().join("log")).unwrap();
        let process = Process::start(&mut command, log);
        let gateway = Self { process, address, root };
        gateway.wait_log("ready to proxy client requests");
        gateway
    }

    fn log(&self) -> String {
        fs::read_to_string(self.root.path().join("log")).unwrap()
    }

    fn wait_log(&self, text: &str) {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if self.log().contains(text) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no {text} in:\n{}", self.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_passed_on_past_what_refuses() {
    let mut member = Member::start();
    let silent = free_address();
    let endpoints = format!("http://{silent},{}", member.address);
    let words = ["--endpoints", &endpoints, "--retry-delay", "100ms"];
    let mut gateway = Gateway::start(&words, None);
    for _ in 0..4 {
        assert!(is_healthy(&gateway.address), "{}", gateway.log());
    }
    gateway.wait_log("deactivated endpoint");
    gateway.wait_log("failed to activate endpoint (stay inactive for another interval)");
    let direct = std::mem::replace(&mut member.address, gateway.address.clone());
    member.serves().await;

    // A client that hangs up, one that says nothing, and the member's end.
    drop(TcpStream::connect(&gateway.address).unwrap());
    let mut idle = TcpStream::connect(&gateway.address).unwrap();
    idle.set_read_timeout(Some(PATIENCE)).unwrap();
    idle.write_all(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0; 8];
    std::io::Read::read_exact(&mut idle, &mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1");
    member.child.kill().unwrap();
    member.child.wait().unwrap();
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut idle, &mut rest);
    let _listener = TcpListener::bind(&silent).unwrap();
    gateway.wait_log(r#""msg":"activated","address""#);
    assert!(!is_healthy(&direct));

    kill_process(Pid::from_child(&gateway.process), Signal::TERM).unwrap();
    assert_eq!(gateway.process.wait().unwrap().signal(), Some(15));
    assert!(!gateway.log().contains("panic"), "{}", gateway.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn remotes_are_found_in_dns() {
    let member = Member::start();
    let port: u16 = member.address.rsplit(':').next().unwrap().parse().unwrap();
    let root = tempfile::tempdir().unwrap();
    let conf = root.path().join("resolv.conf");
    let server = names::serve(vec![("_etcd-client", vec![port])]);
    fs::write(&conf, format!("nameserver 127.0.0.1:{server}\n")).unwrap();
    let words = ["--discovery-srv", "a.test", "--insecure-discovery"];
    let gateway = Gateway::start(&words, Some(&conf));
    gateway.wait_log("discovered cluster from SRV");
    assert!(is_healthy(&gateway.address), "{}", gateway.log());
    // What is not secure does not count, and the endpoints of the flag take its place.
    let words = ["--discovery-srv", "a.test", "--endpoints", &member.address];
    let gateway = Gateway::start(&words, Some(&conf));
    gateway.wait_log("failed to validate discovered endpoints");
    assert!(is_healthy(&gateway.address), "{}", gateway.log());
}
