//! Threads and duties that panic: the member ends and says what did, and the others go on.
//!
//! The member is this test's own binary, so that the panic can be planted into the running server.
#![cfg(debug_assertions)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rusd::clock::SystemClock;
use rusd::pb::kv_client::KvClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::{PutRequest, StatusRequest};
use rusd::planted::{self, Bug};
use rusd::server::StartedAs;
use tonic::transport::{Channel, Endpoint};

use super::fixture::PATIENCE;
use super::member::{Process, flags};
use super::ports;

/// The server's arguments, one a line, for the process that is one.
const ARGUMENTS: &str = "RUSD_TEST_SERVER_ARGUMENTS";
/// Names the file whose content is the name of what is to panic.
const PLANT: &str = "RUSD_TEST_SERVER_PLANT";

const LOOK: Duration = Duration::from_millis(20);

/// What can panic. The zeros ahead of the log and the committer have work while keys are written.
const NAMES: [&str; 7] =
    ["apply", "sweeper", "committer", "raft-log", "raft-log-zeros", "raft", "expire-leases"];

/// Does nothing unless a test below starts it in a process of its own.
#[test]
fn a_server_to_plant_bugs_in() {
    let (Ok(arguments), Ok(file)) = (std::env::var(ARGUMENTS), std::env::var(PLANT)) else {
        return;
    };
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            let Ok(name) = fs::read_to_string(&file) else { continue };
            if let Some(name) = NAMES.into_iter().find(|known| *known == name) {
                planted::plant_everywhere(Some(Bug::Panic(name)));
            }
        }
    });
    let words = std::iter::once("etcd").chain(arguments.lines()).map(Into::into).collect();
    let ended = rusd::server::main(words, StartedAs::Etcd);
    let is_success = format!("{ended:?}") == format!("{:?}", ExitCode::SUCCESS);
    std::process::exit(if is_success { 0 } else { 1 });
}

struct Member {
    child: Process,
    client: String,
    log: PathBuf,
    plant: PathBuf,
}

/// Starts so many members of one cluster.
fn start(root: &Path, count: usize) -> Vec<Member> {
    let url = |_| format!("http://127.0.0.1:{}", ports::free());
    let peers: Vec<String> = (0..count).map(url).collect();
    let named = peers.iter().enumerate().map(|(number, peer)| format!("m{number}={peer}"));
    let cluster = named.collect::<Vec<_>>().join(",");
    let start = |(number, peer): (usize, &String)| {
        let (name, client) = (format!("m{number}"), url(number));
        let path = |what: &str| root.join(format!("{name}.{what}"));
        let mut arguments = flags(&name, &path("data"), &client, peer).to_vec();
        arguments.extend(["--initial-cluster".to_owned(), cluster.clone()]);
        let (log, plant) = (path("log"), path("plant"));
        let mut command = crate::child::command(std::env::current_exe().unwrap());
        command.args(["--exact", "panics::a_server_to_plant_bugs_in", "--nocapture"]);
        command.env(ARGUMENTS, arguments.join("\n")).env(PLANT, &plant);
        let child = Process::start(&mut command, File::create(&log).unwrap());
        Member { child, client, log, plant }
    };
    peers.iter().enumerate().map(start).collect()
}

impl Member {
    fn channel(&self) -> Channel {
        Endpoint::from_shared(self.client.clone()).unwrap().timeout(LOOK * 100).connect_lazy()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Writes once what the log writer gets and not the raft loop. False if nobody took it.
    async fn put(&self) -> bool {
        let (key, value) = ("key".into(), vec![7; 200_000].into());
        let put = PutRequest { key, value, ..PutRequest::default() };
        KvClient::new(self.channel()).put(put).await.is_ok()
    }

    /// This member's id, and its leader's.
    async fn ids(&self) -> Option<(u64, u64)> {
        let status = MaintenanceClient::new(self.channel()).status(StatusRequest {}).await.ok()?;
        let status = status.into_inner();
        Some((status.header?.member_id, status.leader))
    }
}

/// Tries until it is done, or says what was not.
async fn until<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let clock = SystemClock::new();
    loop {
        if let Some(done) = attempt().await {
            return done;
        }
        assert!(rusd::clock::Clock::now(&clock) < PATIENCE, "{what}");
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_whose_thread_or_duty_panics_ends_with_its_name() {
    for name in NAMES {
        let root = tempfile::tempdir().unwrap();
        let mut member = start(root.path(), 1).remove(0);
        until("no start", async || member.put().await.then_some(())).await;
        fs::write(&member.plant, name).unwrap();
        let goes_on = format!("{name} panicked, and the member goes on");
        let status = until(&goes_on, async || {
            member.put().await;
            member.child.try_wait().unwrap()
        });
        let status = status.await;
        let log = member.log();
        assert_eq!(status.code(), Some(1), "{log}");
        let said = format!("{name} panicked: a bug was planted");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains("the member cannot go on") && last.contains(&said), "{name}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_apply_thread_panics_is_replaced() {
    let root = tempfile::tempdir().unwrap();
    let mut members = start(root.path(), 3);
    for member in &members {
        until("no start", async || member.put().await.then_some(())).await;
    }
    let (_, leader) = members[0].ids().await.unwrap();
    let mut leads = 0;
    for (number, member) in members.iter().enumerate() {
        let (id, _) = member.ids().await.unwrap();
        leads = if id == leader { number } else { leads };
    }
    let mut first = members.swap_remove(leads);
    fs::write(&first.plant, "apply").unwrap();
    let ended = until("the leader goes on without its apply thread", async || {
        first.put().await;
        first.child.try_wait().unwrap()
    });
    assert_eq!(ended.await.code(), Some(1), "{}", first.log());
    for member in &members {
        until("the others do not go on", async || member.put().await.then_some(())).await;
        let (_, now) = member.ids().await.unwrap();
        assert_ne!(now, leader);
    }
}
