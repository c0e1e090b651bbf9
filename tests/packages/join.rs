//! `rusd join`, with which the chart's pods find out what they are, in the ways that a pod can start.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::child::{RUSD, command};
use super::files::text_of;
use super::member::{Process, flags, free_address, is_healthy, serve};

/// What nothing needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const PODS: usize = 4;
/// How many of them are the first cluster.
const FIRST: usize = 3;

/// Pods with fixed addresses. The first ones are those of the first cluster.
struct Set {
    dir: TempDir,
    clients: [String; PODS],
    peers: [String; PODS],
}

impl Set {
    fn new() -> Self {
        let addresses = || std::array::from_fn(|_| free_address());
        Self { dir: tempfile::tempdir().unwrap(), clients: addresses(), peers: addresses() }
    }

    fn data(&self, pod: usize) -> PathBuf {
        self.dir.path().join(format!("p{pod}"))
    }

    fn first_cluster(&self) -> String {
        let member = |pod: usize| format!("p{pod}=http://{}", self.peers[pod]);
        (0..FIRST).map(member).collect::<Vec<_>>().join(",")
    }

    fn endpoints(&self) -> String {
        self.clients.join(",")
    }

    fn join(&self, pod: usize, more: &[&str]) -> Output {
        let mut join = command(RUSD);
        join.args(["join", "--name", &format!("p{pod}"), "--command-timeout", "3s"]);
        join.arg("--data-dir").arg(self.data(pod)).arg("--endpoints").arg(self.endpoints());
        join.args(["--peer-urls", &format!("http://{}", self.peers[pod])]).args(more);
        join.stdin(Stdio::null()).output().unwrap()
    }

    /// Joins as the chart's pods do, repeated as their kubelet repeats it.
    fn joined(&self, pod: usize, more: &[&str]) -> String {
        let patience = Instant::now() + PATIENCE;
        loop {
            let output = self.join(pod, more);
            if output.status.success() {
                return text_of(&output);
            }
            assert!(Instant::now() < patience, "{}", text_of(&output));
            sleep(Duration::from_millis(200));
        }
    }

    fn serve(&self, pod: usize) -> Process {
        let log = self.dir.path().join(format!("p{pod}.log"));
        let log = File::options().create(true).append(true).open(log).unwrap();
        let [client, peer] =
            [&self.clients[pod], &self.peers[pod]].map(|address| format!("http://{address}"));
        let mut command = serve();
        command.args(flags(&format!("p{pod}"), &self.data(pod), &client, &peer));
        command.args(["--initial-cluster", &self.first_cluster()]);
        Process::start(&mut command, log)
    }

    fn wait_healthy(&self, pods: &[usize]) {
        let patience = Instant::now() + PATIENCE;
        while !pods.iter().all(|pod| is_healthy(&self.clients[*pod])) {
            let log = |pod: &usize| {
                fs::read_to_string(self.dir.path().join(format!("p{pod}.log"))).unwrap_or_default()
            };
            let logs: String = pods.iter().map(log).collect();
            assert!(Instant::now() < patience, "{logs}");
            sleep(Duration::from_millis(50));
        }
    }

    fn ctl(&self, pod: usize, words: &[&str]) -> String {
        let mut ctl = command(RUSD);
        ctl.args(["--endpoints", &self.clients[pod], "--command-timeout", "30s"]).args(words);
        let output = ctl.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", text_of(&output));
        text_of(&output)
    }

    /// What was noted leads no server that has lost its log back under the same id.
    fn stays_out(&self, pod: usize, running: Process) {
        drop(running);
        assert!(self.data(pod).join("rebuild.json").exists());
        fs::remove_dir_all(self.data(pod).join("member")).unwrap();
        assert!(!self.serve(pod).wait().unwrap().success());
        let log = fs::read_to_string(self.dir.path().join(format!("p{pod}.log"))).unwrap();
        assert!(log.contains("has already been bootstrapped"), "{log}");
    }

    fn members(&self) -> usize {
        self.ctl(0, &["member", "list"]).lines().filter(|line| line.contains("started")).count()
    }
}

#[test]
fn pods_start_grow_and_lose_a_volume() {
    let set = Set::new();
    let first = set.first_cluster();
    let first = ["--initial-cluster", first.as_str()];

    // Only members of the first cluster may start one.
    let output = set.join(3, &first);
    assert!(!output.status.success());
    assert!(text_of(&output).contains("no cluster with a leader answers"), "{output:?}");
    let output = set.join(0, &[]);
    assert!(!output.status.success(), "{output:?}");
    let mut running: Vec<Process> = Vec::new();
    for pod in 0..2 {
        let said = set.joined(pod, &first);
        assert!(said.contains("starts as a member of the first one"), "{said}");
        running.push(set.serve(pod));
    }
    set.wait_healthy(&[0, 1]);
    set.ctl(0, &["put", "k", "v"]);

    // One of the first that comes late, and one that was not among them.
    let said = set.joined(2, &first);
    assert!(said.contains("is in the cluster and has not started"), "{said}");
    running.push(set.serve(2));
    set.wait_healthy(&[0, 1, 2]);
    let said = set.joined(3, &[]);
    assert!(said.contains("Added member"), "{said}");
    // Once more, as after a pod that ended in between: nothing is added twice.
    let said = set.joined(3, &[]);
    assert!(said.contains("has not started"), "{said}");
    running.push(set.serve(3));
    set.wait_healthy(&[0, 1, 2, 3]);
    assert_eq!(set.members(), 4);
    let said = set.joined(3, &["--replace"]);
    assert!(said.contains("holds a member, which starts as it is"), "{said}");
    let note = |pod: usize| set.data(pod).join("rebuild.json");
    assert!(note(2).exists() && !note(3).exists(), "of no use once there is a log");

    // The directory of a member that runs is somewhere else.
    let elsewhere = set.dir.path().join("aside");
    fs::create_dir(&elsewhere).unwrap();
    let mut join = command(RUSD);
    join.args(["join", "--name", "p2", "--replace", "--endpoints", &set.clients[0], "--data-dir"]);
    join.arg(&elsewhere).args(["--peer-urls", &format!("http://{}", set.peers[2])]);
    let output = join.output().unwrap();
    assert!(text_of(&output).contains("is running, so"), "{output:?}");
    assert!(!output.status.success() && !elsewhere.join("rebuild.json").exists());

    // A volume is lost: nothing happens by itself, unless the chart says so.
    drop(running.remove(2));
    fs::remove_dir_all(set.data(2)).unwrap();
    let output = set.join(2, &first);
    assert!(!output.status.success());
    assert!(text_of(&output).contains("add --replace"), "{output:?}");
    let said = set.joined(2, &["--replace"]);
    assert!(said.contains("whose data is lost") && said.contains("Added member"), "{said}");
    running.push(set.serve(2));
    set.wait_healthy(&[0, 1, 2, 3]);
    assert_eq!(set.ctl(2, &["get", "k", "--print-value-only"]), "v\n");
    assert_eq!(set.members(), 4);
    set.stays_out(2, running.pop().unwrap());

    // Without a quorum a lost volume costs no member its place.
    running.truncate(1);
    for pod in [1, 3] {
        fs::remove_dir_all(set.data(pod)).unwrap();
    }
    let output = set.join(3, &["--replace"]);
    assert!(!output.status.success(), "{output:?}");
}
