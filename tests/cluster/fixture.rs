//! The members' processes, and clients that remember what they were told.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusd::pb::kv_client::KvClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::{HashKvRequest, PutRequest, RangeRequest, StatusRequest};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use super::member::{Process, flags, serve};
use super::ports;
use super::preload;
use super::proxy::Network;

/// Long enough for anything on a busy machine; what takes longer does not happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Member {
    pub name: String,
    pub client: String,
    /// Where others reach it.
    pub peer: String,
    listen: String,
    child: Option<Process>,
}

pub struct Cluster {
    root: TempDir,
    /// Whether disks can be made to fail.
    has_bad_disks: bool,
    pub members: Vec<Member>,
    pub network: Option<Network>,
    /// Variables for members that are started from now on.
    pub environment: Vec<(&'static str, PathBuf)>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for at in 0..self.members.len() {
            self.kill(at);
        }
    }
}

impl Cluster {
    /// Starts `count` members that form a cluster.
    pub fn start(count: usize) -> Self {
        Self::start_in(None, false, count)
    }

    /// Without members.
    pub fn empty() -> Self {
        Self::start_in(None, false, 0)
    }

    /// Starts them on disks that can fail.
    pub fn start_on_bad_disks(count: usize) -> Self {
        Self::start_in(None, true, count)
    }

    /// Starts them on disks that can fail, in a network that can be cut.
    pub async fn start_apart(count: usize) -> Self {
        let cluster = Self::start_in(Some(Network::new()), true, count);
        let all: Vec<usize> = (0..count).collect();
        cluster.ready(&all).await;
        for at in all {
            cluster.introduce(at).await;
        }
        cluster
    }

    /// Starts three members that keep so little of the log that one which was away gets a snapshot.
    pub async fn start_with_short_logs() -> Self {
        let mut cluster = Self::empty();
        for _ in 0..3 {
            cluster.add();
        }
        for at in 0..3 {
            cluster.run_with_short_log(at);
        }
        cluster.ready(&[0, 1, 2]).await;
        cluster
    }

    pub fn run_with_short_log(&mut self, at: usize) {
        let place = |member: &Member| format!("{}={}", member.name, member.peer);
        let all = self.members.iter().map(place).collect::<Vec<_>>().join(",");
        let short = ["--snapshot-count=50", "--snapshot-catchup-entries=20"];
        self.run_with(at, &[&short[..], &["--initial-cluster", &all]].concat());
    }

    /// Tells the network who the member at this place is.
    pub async fn introduce(&self, at: usize) {
        let mut client = MaintenanceClient::new(self.channel(at));
        let status = client.status(StatusRequest {}).await.unwrap().into_inner();
        self.network.as_ref().unwrap().name(at, status.header.unwrap().member_id);
    }

    fn start_in(network: Option<Network>, has_bad_disks: bool, count: usize) -> Self {
        let root = tempfile::tempdir().unwrap();
        let environment = Vec::new();
        let mut cluster = Self { root, has_bad_disks, members: Vec::new(), network, environment };
        for _ in 0..count {
            cluster.add();
        }
        for at in 0..count {
            cluster.run(at, "new");
        }
        cluster
    }

    /// A member that is not started yet.
    pub fn add(&mut self) -> usize {
        let at = self.members.len();
        let port = ports::free();
        let listen = format!("http://127.0.0.1:{port}");
        let client = format!("http://127.0.0.1:{}", ports::free());
        let peer = self.network.as_ref().map(|network| network.front(at, port));
        let peer = peer.unwrap_or_else(|| listen.clone());
        let name = format!("m{}", at + 1);
        self.members.push(Member { name, client, peer, listen, child: None });
        at
    }

    pub fn dir(&self, at: usize) -> PathBuf {
        self.root.path().join(&self.members[at].name)
    }

    /// Lets members that are not started yet meet over TLS.
    pub fn secure_peers(&mut self) {
        for member in &mut self.members {
            member.peer = member.peer.replacen("http:", "https:", 1);
            member.listen = member.listen.replacen("http:", "https:", 1);
        }
    }

    /// Gives a member's disk a fault of the shim's.
    pub fn spoil_disk(&self, at: usize, fault: &str) {
        File::create(self.dir(at).with_extension(fault)).unwrap();
    }

    pub fn repair_disk(&self, at: usize, fault: &str) {
        fs::remove_file(self.dir(at).with_extension(fault)).unwrap();
    }

    pub fn wipe(&mut self, at: usize) {
        self.kill(at);
        fs::remove_dir_all(self.dir(at)).unwrap();
    }

    pub fn has_ended(&mut self, at: usize) -> bool {
        let child = self.members[at].child.as_mut();
        child.is_none_or(|child| child.try_wait().unwrap().is_some())
    }

    /// Starts a member; its first start needs to know the cluster's state.
    pub fn run(&mut self, at: usize, state: &str) {
        let all: Vec<String> =
            self.members.iter().map(|member| format!("{}={}", member.name, member.peer)).collect();
        self.run_with(at, &["--initial-cluster-state", state, "--initial-cluster", &all.join(",")]);
    }

    pub fn run_with(&mut self, at: usize, arguments: &[&str]) {
        let dir = self.dir(at);
        fs::create_dir_all(&dir).unwrap();
        let log = File::options().create(true).append(true).open(self.log_path(at)).unwrap();
        let member = &mut self.members[at];
        let mut command = serve();
        command.args(flags(&member.name, &dir, &member.client, &member.listen));
        if self.has_bad_disks {
            command.env("LD_PRELOAD", preload::build());
            command.env("SHIM_DIR", &dir).env("SHIM_MARKS", &dir);
        }
        command.args(["--initial-advertise-peer-urls", &member.peer]);
        command.args(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        member.child = Some(Process::start(&mut command, log));
    }

    /// A file of the test beside the members' directories.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.root.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn log_path(&self, at: usize) -> PathBuf {
        self.root.path().join(format!("{}.log", self.members[at].name))
    }

    /// All that a member has written.
    pub fn log(&self, at: usize) -> String {
        fs::read_to_string(self.log_path(at)).unwrap_or_default()
    }

    /// The last lines that the members wrote.
    pub fn logs(&self) -> String {
        let tail = |at: usize| {
            let text = self.log(at);
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {at}\n{}\n", lines[lines.len().saturating_sub(25)..].join("\n"))
        };
        (0..self.members.len()).map(tail).collect()
    }

    pub fn kill(&mut self, at: usize) {
        self.members[at].child = None;
    }

    pub fn signal(&self, at: usize, signal: i32) {
        let pid = rustix::process::Pid::from_child(self.members[at].child.as_ref().unwrap());
        let signal = rustix::process::Signal::from_named_raw(signal).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for a member to end by itself; its exit code.
    pub fn wait(&mut self, at: usize) -> Option<i32> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let child = self.members[at].child.as_mut().unwrap();
            if let Some(status) = child.try_wait().unwrap() {
                self.members[at].child = None;
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("member {at} does not end:\n{}", self.logs());
    }

    pub fn channel(&self, at: usize) -> Channel {
        Endpoint::from_shared(self.members[at].client.clone()).unwrap().connect_lazy()
    }

    /// Waits until the members answer linearizable reads.
    pub async fn ready(&self, members: &[usize]) {
        for at in members {
            let answered = async {
                loop {
                    let read = timeout(Duration::from_secs(5), get(self.channel(*at), "none"));
                    if let Ok(Ok(_)) = read.await {
                        return;
                    }
                    sleep(Duration::from_millis(20)).await;
                }
            };
            if timeout(PATIENCE, answered).await.is_err() {
                panic!("member {at} does not serve:\n{}", self.logs());
            }
        }
    }

    /// Where the leader is, as the members say.
    pub async fn leader(&self) -> usize {
        self.leader_but(usize::MAX).await
    }

    /// Waits until some other member leads.
    pub async fn leader_but(&self, past: usize) -> usize {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            for at in (0..self.members.len()).filter(|at| *at != past) {
                let mut client = MaintenanceClient::new(self.channel(at));
                let status = timeout(Duration::from_secs(1), client.status(StatusRequest {})).await;
                let Ok(Ok(status)) = status else { continue };
                let status = status.into_inner();
                if status.leader != 0 && status.leader == status.header.unwrap().member_id {
                    return at;
                }
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("no leader:\n{}", self.logs());
    }

    /// Every member has the same history.
    pub async fn compare_hashes(&self, members: &[usize]) {
        self.ready(members).await;
        let revision = {
            let mut client = KvClient::new(self.channel(members[0]));
            let answer = client.range(RangeRequest { key: "x".into(), ..Default::default() }).await;
            answer.unwrap().into_inner().header.unwrap().revision
        };
        let mut hashes = Vec::new();
        for at in members {
            // A linearizable read has shown that the member has this revision.
            get(self.channel(*at), "x").await.unwrap();
            let mut client = MaintenanceClient::new(self.channel(*at));
            let answer = client.hash_kv(HashKvRequest { revision }).await.unwrap().into_inner();
            hashes.push((answer.hash, answer.compact_revision));
        }
        assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    }
}

pub async fn get(channel: Channel, key: &str) -> Result<Option<Bytes>, tonic::Status> {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let request = RangeRequest { key, ..Default::default() };
    let answer = KvClient::new(channel).range(request).await?.into_inner();
    Ok(answer.kvs.into_iter().next().map(|kv| kv.value))
}

pub async fn put(channel: Channel, key: &str, value: &str) -> Result<i64, tonic::Status> {
    let (key, value) =
        (Bytes::copy_from_slice(key.as_bytes()), Bytes::copy_from_slice(value.as_bytes()));
    let request = PutRequest { key, value, ..Default::default() };
    let answer = KvClient::new(channel).put(request).await?.into_inner();
    Ok(answer.header.unwrap().revision)
}
