//! Members as processes: their addresses, their flags, and their end with the test; and a single
//! member for tests of clients.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{child, ports};

/// `rusd serve` on free ports, killed when dropped.
pub struct Member {
    child: Process,
    pub endpoint: String,
    peer: String,
    /// Flags beside those that all members have.
    more: Vec<String>,
    pub dir: tempfile::TempDir,
}

impl Member {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    pub fn start_with(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [endpoint, peer] = [free_address(), free_address()];
        let more: Vec<String> = more.iter().map(ToString::to_string).collect();
        let child = spawn(&dir, &endpoint, &peer, &more);
        let member = Self { child, endpoint, peer, more, dir };
        member.wait_until_healthy();
        member
    }

    /// Kills the process with SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts the process again, with the same directory and addresses.
    pub fn restart(&mut self) {
        self.child = spawn(&self.dir, &self.endpoint, &self.peer, &self.more);
        self.wait_until_healthy();
    }

    fn wait_until_healthy(&self) {
        let patience = Instant::now() + Duration::from_secs(60);
        while Instant::now() < patience {
            if is_healthy(&self.endpoint) {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        let log = fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        panic!("the member does not become healthy:\n{log}");
    }
}

fn spawn(dir: &tempfile::TempDir, client: &str, peer: &str, more: &[String]) -> Process {
    let [client, peer] = [client, peer].map(|address| format!("http://{address}"));
    let log = File::options().create(true).append(true).open(dir.path().join("log")).unwrap();
    let mut command = serve();
    command.args(flags("default", &dir.path().join("data"), &client, &peer));
    command.args(alone("default", &peer)).args(more);
    Process::start(&mut command, log)
}

/// The command `rusd serve`, to which flags must be added.
pub fn serve() -> Command {
    let mut command = child::command(child::RUSD);
    command.arg("serve");
    command
}

/// A host and port without a listener.
pub fn free_address() -> String {
    format!("127.0.0.1:{}", ports::free())
}

/// Flags of a member with this name and directory, which listens at these URLs and advertises them.
/// A caller can override a flag: the last one counts.
pub fn flags(name: &str, data: &Path, client: &str, peer: &str) -> [String; 12] {
    let data = data.to_str().unwrap();
    let pairs = [
        ["--name", name],
        ["--data-dir", data],
        ["--listen-client-urls", client],
        ["--advertise-client-urls", client],
        ["--listen-peer-urls", peer],
        ["--initial-advertise-peer-urls", peer],
    ];
    let mut words = pairs.as_flattened().iter().map(|word| (*word).to_owned());
    std::array::from_fn(|_| words.next().unwrap())
}

/// Flags of a new cluster with this member alone.
pub fn alone(name: &str, peer: &str) -> [String; 2] {
    ["--initial-cluster".to_owned(), format!("{name}={peer}")]
}

/// A process that is killed when this is dropped.
pub struct Process(Child);

impl Process {
    /// Starts the process; its output goes to `log`.
    pub fn start(command: &mut Command, log: File) -> Self {
        let output = log.try_clone().unwrap();
        Self(command.stdout(output).stderr(log).spawn().unwrap())
    }
}

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The answer to a plain GET; empty if there is none.
pub fn get(address: &str, path: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(address) else { return String::new() };
    let mut answer = Vec::new();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(request.as_bytes());
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Whether a healthy member answers at the address.
pub fn is_healthy(address: &str) -> bool {
    get(address, "/health").contains("\"health\":\"true\"")
}
