//! A member in a process of its own on free ports.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use bytes::Bytes;
use rusd::pb::kv_client::KvClient;
use rusd::pb::{PutRequest, RangeRequest};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::member::{self, Process, alone, flags, free_address, serve};

/// What nothing needs on a busy machine; a test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running member; dropped, it is killed.
pub struct Member {
    pub child: Process,
    pub address: String,
    pub log: PathBuf,
    /// Goes with the member that made it.
    root: Option<TempDir>,
}

impl Member {
    /// A new member that answers.
    pub fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut member = Self::spawn(&root.path().join("data"), &root.path().join("log"));
        member.wait_ready();
        member.root = Some(root);
        member
    }

    /// A process on this data directory, which may refuse it.
    pub fn spawn(data: &Path, log: &Path) -> Self {
        Self::spawn_by(serve(), data, log).0
    }

    /// A process with these limits of open files, and where it listens to peers.
    pub fn spawn_limited(soft: u32, hard: u32, data: &Path, log: &Path) -> (Self, String) {
        let mut shell = crate::child::command("sh");
        let script = format!("ulimit -S -n {soft}; ulimit -H -n {hard}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script, crate::child::RUSD, "serve"]);
        Self::spawn_by(shell, data, log)
    }

    fn spawn_by(mut command: Command, data: &Path, log: &Path) -> (Self, String) {
        let (address, for_peers) = (free_address(), free_address());
        let (client, peer) = (format!("http://{address}"), format!("http://{for_peers}"));
        command.args(flags("one", data, &client, &peer)).args(alone("one", &peer));
        (Self::run(command, address, log), for_peers)
    }

    /// A process with more flags, which count more than the usual ones, and variables. `PEER` stands
    /// for where it listens to peers.
    pub fn spawn_with(more: &[&str], variables: &[(&str, &str)], data: &Path, log: &Path) -> Self {
        let (address, peer) = (free_address(), format!("http://{}", free_address()));
        let client = format!("http://{address}");
        let mut command = serve();
        command.args(flags("one", data, &client, &peer)).args(alone("one", &peer));
        command.args(more.iter().map(|word| word.replace("PEER", &peer)));
        command.envs(variables.iter().copied());
        Self::run(command, address, log)
    }

    /// A process with these flags and its ports alone, which is not to serve, and where it listens to
    /// peers.
    pub fn spawn_bare(more: &[&str]) -> (Self, TempDir, String) {
        let root = tempfile::tempdir().unwrap();
        let (address, for_peers) = (free_address(), free_address());
        let (client, peer) = (format!("http://{address}"), format!("http://{for_peers}"));
        let mut command = serve();
        command.args(["--listen-peer-urls", &peer, "--listen-client-urls", &client]);
        command.args(["--advertise-client-urls", &client]).args(more).current_dir(&root);
        let log = root.path().join("log");
        (Self::run(command, address, &log), root, for_peers)
    }

    /// A process whose settings, and `more` of them, are in `file`.
    pub fn spawn_from_file(file: &Path, data: &Path, more: &str, log: &Path) -> Self {
        let address = free_address();
        let (client, peer) = (format!("http://{address}"), format!("http://{}", free_address()));
        let settings = format!(
            "name: one\ndata-dir: {}\nlisten-client-urls: {client}\n\
             advertise-client-urls: {client}\nlisten-peer-urls: {peer}\n\
             initial-advertise-peer-urls: {peer}\ninitial-cluster: one={peer}\n{more}",
            data.display()
        );
        fs::write(file, settings).unwrap();
        let mut command = serve();
        // All other flags and variables count no more.
        command.args(["--name", "flag", "--config-file"]).arg(file);
        command.env("ETCD_DATA_DIR", "/nonexistent");
        Self::run(command, address, log)
    }

    /// A process that listens there.
    pub fn run(mut command: Command, address: String, log: &Path) -> Self {
        let child = Process::start(&mut command, File::create(log).unwrap());
        Self { child, address, log: log.to_path_buf(), root: None }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn data(&self) -> PathBuf {
        self.root.as_ref().unwrap().path().join("data")
    }

    pub fn wait_ready(&mut self) {
        for _ in 0..PATIENCE.as_millis() / 20 {
            assert!(self.child.try_wait().unwrap().is_none(), "no start:\n{}", self.log());
            if self.is_healthy() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no start:\n{}", self.log());
    }

    /// Waits for a refused start, and gives what was said.
    pub fn wait_refused(&mut self) -> String {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert_eq!(status.code(), Some(1), "{}", self.log());
                return self.log();
            }
            assert!(!self.is_healthy(), "it serves:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("neither serves nor ends:\n{}", self.log());
    }

    /// Waits for a process to end with this code, and gives what it said; its address may be served by
    /// another one.
    pub fn wait_ended(&mut self, code: i32) -> String {
        let status = self.wait();
        assert_eq!(status.code(), Some(code), "{}", self.log());
        self.log()
    }

    /// Waits until the log has this text.
    pub fn wait_log(&self, text: &str) {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if self.log().contains(text) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("no {text}:\n{}", self.log());
    }

    /// Asks it to end in order, and waits for that.
    pub fn stop(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("it does not end:\n{}", self.log());
    }

    pub fn is_healthy(&self) -> bool {
        member::is_healthy(&self.address)
    }

    /// A connection of its own.
    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        endpoint.connect().await.unwrap()
    }

    pub async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await)
    }

    /// Shows that a new client is served and that nothing has panicked.
    pub async fn serves(&self) {
        let mut kv = self.kv().await;
        let (key, value) = (Bytes::from("served"), Bytes::from("yes"));
        kv.put(PutRequest { key: key.clone(), value: value.clone(), ..Default::default() })
            .await
            .unwrap();
        let range = RangeRequest { key, ..Default::default() };
        assert_eq!(kv.range(range).await.unwrap().into_inner().kvs[0].value, value);
        let log = self.log();
        assert!(!log.contains("panicked"), "{log}");
    }

    /// Sends bytes and reads until the server ends the connection.
    pub fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
        // The server may have had enough before all is sent.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            ended => drop(ended.unwrap()),
        }
        answer
    }

    /// Memory of its own in KiB; the mapped file does not count.
    pub fn memory_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}
