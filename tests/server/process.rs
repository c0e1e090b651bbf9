//! Starts that must be refused, and stops.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusd::clock::SystemClock;
use rusd::pb::auth_client::AuthClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::watch_client::WatchClient;
use rusd::pb::watch_request::RequestUnion;
use rusd::pb::{
    AuthRoleAddRequest, DeleteRangeRequest, PutRequest, RangeRequest, StatusRequest,
    WatchCreateRequest, WatchRequest,
};
use rusd::raft::Entry;
use rusd::raft::log::{self, Batch, Disk, SystemDisk};
use rusd::store::{Options, Store};
use rustix::process::{Pid, Signal, kill_process};
use tokio_stream::StreamExt as _;
use tonic::Code;

use super::fixture::{Member, PATIENCE};

#[test]
fn a_directory_in_use_is_refused_with_its_holder() {
    let holder = Member::start();
    let log = holder.data().with_extension("second");
    let said = Member::spawn(&holder.data(), &log).wait_refused();
    assert!(said.contains("rusd.lock"), "{said}");
    assert!(said.contains(&format!("(pid {})", holder.child.id())), "{said}");
}

fn refused(make: impl FnOnce(&Path)) -> String {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    make(&data);
    let said = Member::spawn(&data, &root.path().join("log")).wait_refused();
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn etcds_directory_is_refused_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    for dir in ["member/snap", "member/wal"] {
        fs::create_dir_all(data.join(dir)).unwrap();
    }
    let files = ["member/snap/db", "member/wal/0000000000000000-0000000000000000.wal"];
    for file in files {
        fs::write(data.join(file), "etcd's own bytes").unwrap();
    }
    let said = Member::spawn(&data, &root.path().join("log")).wait_refused();
    assert!(said.contains("member/snap"), "{said}");
    assert!(said.contains("rusd import"), "{said}");
    for file in files {
        assert_eq!(fs::read(data.join(file)).unwrap(), b"etcd's own bytes");
    }
    assert!(!data.join("member/db").exists());
}

/// etcd ends where both directories are; on ours alone it would start an empty cluster.
#[test]
fn etcd_would_refuse_a_directory_of_ours() {
    let member = Member::start();
    for dir in ["member", "proxy"] {
        assert!(member.data().join(dir).is_dir(), "{dir}");
    }
}

#[test]
fn a_store_of_a_later_release_is_refused() {
    let mut member = Member::start();
    member.stop();
    let migrate = |target: &str| {
        let mut migrate = crate::child::command(crate::child::RUSD);
        migrate.args(["migrate", "--force", "--target-version", target, "--data-dir"]);
        let output = migrate.arg(member.data()).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    migrate("3.9");
    let said = Member::spawn(&member.data(), &member.log.with_extension("again")).wait_refused();
    assert!(said.contains(r#"version \"3.9.0\" is not supported"#), "{said}");
    // 3.8 has changed nothing in the store. The member takes it, and writes what it writes itself.
    migrate("3.8");
    let mut taken = Member::spawn(&member.data(), &member.log.with_extension("taken"));
    taken.wait_ready();
    taken.stop();
    let said = migrate("3.7");
    assert!(said.contains("storage version up-to-date"), "{said}");
}

/// Clients take what the limit allows, and no more: peers still get through.
#[test]
fn clients_leave_open_files_for_peers() {
    let root = tempfile::tempdir().unwrap();
    let (data, log) = (root.path().join("data"), root.path().join("log"));
    let (mut member, for_peers) = Member::spawn_limited(160, 220, &data, &log);
    member.wait_ready();
    let limits = fs::read_to_string(format!("/proc/{}/limits", member.child.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft = line.split_whitespace().nth(3).unwrap();
    assert_eq!(soft, "220", "etcd's runtime lifts the soft limit too");

    let mut clients: Vec<TcpStream> =
        (0..100).map(|_| TcpStream::connect(&member.address).unwrap()).collect();
    let ask = b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let answer = |stream: &mut TcpStream, patience: Duration| {
        let mut answer = String::new();
        stream.set_read_timeout(Some(patience)).unwrap();
        stream.write_all(ask).unwrap();
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    let last = &mut clients[99];
    assert!(answer(last, Duration::from_secs(1)).is_err(), "more clients than open files allow");
    let mut peer = TcpStream::connect(for_peers).unwrap();
    assert!(answer(&mut peer, PATIENCE).unwrap().contains("etcdserver"));
    let mut last = clients.pop().unwrap();
    drop(clients);
    assert!(answer(&mut last, PATIENCE).unwrap().contains("etcdserver"), "its turn has come");
}

#[test]
fn a_file_stands_for_the_flags_and_the_log_may_live_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let wal = format!("wal-dir: {}\n", path("wal").display());
    let start =
        |more: &str| Member::spawn_from_file(&path("yaml"), &path("data"), more, &path("log"));
    let mut member = start(&wal);
    member.wait_ready();
    member.stop();
    assert!(path("wal").join("0000000000000000-0000000000000000.wal").exists());
    assert!(!path("data").join("member/wal").exists());
    start(&wal).wait_ready();
    fs::rename(path("wal"), path("away")).unwrap();
    let said = start(&wal).wait_refused();
    assert!(said.contains("the log is missing"), "{said}");
    let said = start("heartbeat-interval: soon\n").wait_refused();
    assert!(said.contains("invalid value \\\"soon\\\" for heartbeat-interval"), "{said}");
}

#[test]
fn a_log_without_its_store_is_refused() {
    let said = refused(|data| {
        fs::create_dir_all(data.join("member/wal")).unwrap();
        let segment = "member/wal/0000000000000000-0000000000000000.wal";
        fs::write(data.join(segment), "not a log").unwrap();
    });
    assert!(said.contains("member"), "{said}");
}

/// What stands in the way shows only once raft and apply work.
#[test]
fn a_member_that_ends_before_it_serves_says_that_it_did() {
    let mut member = Member::start();
    member.stop();
    let disk: Arc<dyn Disk> = Arc::new(SystemDisk);
    let options = log::Options { fill_ahead: false, ..log::Options::default() };
    let (mut writer, _, recovered) =
        log::open(&disk, &member.data().join("member/wal"), options).unwrap();
    let (index, term) = (recovered.table.last_index() + 1, recovered.table.last_term());
    let unreadable = Bytes::from_static(b"\xff");
    let entries = vec![Entry { index, term, data: unreadable, ..Entry::default() }];
    let batch = Batch { entries, ..Batch::default() };
    writer.append(&batch).unwrap();
    writer.write().unwrap();
    drop(writer);
    let second = member.data().with_extension("second");
    let said = Member::spawn(&member.data(), &second).wait_refused();
    assert!(said.contains("the member cannot go on"), "{said}");
    assert!(!said.contains("discovery failed"), "{said}");
}

#[test]
fn a_file_in_the_place_of_a_directory_is_named() {
    let said = refused(|data| fs::write(data, "a file").unwrap());
    assert!(said.contains("/data"), "{said}");
    let said = refused(|data| {
        fs::create_dir_all(data).unwrap();
        fs::write(data.join("member"), "a file").unwrap();
    });
    assert!(said.contains("member"), "{said}");
}

#[test]
fn a_foreign_lock_file_does_no_harm() {
    let root = tempfile::tempdir().unwrap();
    let data = root.path().join("data");
    fs::create_dir_all(&data).unwrap();
    // What a killed process leaves behind, or somebody else's bytes.
    fs::write(data.join("rusd.lock"), [0xff; 5000]).unwrap();
    let mut member = Member::spawn(&data, &root.path().join("log"));
    member.wait_ready();
    let lock = fs::read_to_string(data.join("rusd.lock")).unwrap();
    assert_eq!(lock.trim(), member.child.id().to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn gauges_say_what_there_is_when_somebody_looks() {
    let member = Member::start();
    let mut kv = member.kv().await;
    for key in ["a", "b", "c"] {
        let put = PutRequest { key: key.into(), value: "v".into(), ..Default::default() };
        kv.put(put).await.unwrap();
    }
    kv.delete_range(DeleteRangeRequest { key: "b".into(), ..Default::default() }).await.unwrap();
    let create = WatchCreateRequest { key: "a".into(), ..Default::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::once(create).chain(tokio_stream::pending());
    let mut watch = WatchClient::new(member.channel().await);
    let mut answers = watch.watch(requests).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().unwrap().created);
    let mut auth = AuthClient::new(member.channel().await);
    auth.role_add(AuthRoleAddRequest { name: "role".into() }).await.unwrap();
    let answer = member.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = String::from_utf8(answer).unwrap();
    for line in [
        "etcd_debugging_mvcc_keys_total 2",
        "etcd_debugging_mvcc_watcher_total 1",
        "etcd_debugging_mvcc_slow_watcher_total 0",
        "etcd_debugging_auth_revision 2",
    ] {
        assert!(answer.lines().any(|found| found == line), "no {line} in {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_streams_at_once_and_leaves_nothing_to_replay() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut member = Member::start();
        let mut kv = member.kv().await;
        for number in 0..50 {
            let key = Bytes::from(format!("key {number}"));
            kv.put(PutRequest { key, value: "v".into(), ..Default::default() }).await.unwrap();
        }
        let mut maintenance = MaintenanceClient::new(member.channel().await);
        let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let create = WatchCreateRequest { key: "key".into(), ..Default::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        sender.send(create).await.unwrap();
        let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut watch = WatchClient::new(member.channel().await);
        let mut answers = watch.watch(requests).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().unwrap().created);

        kill_process(Pid::from_child(&member.child), signal).unwrap();
        let ended = tokio::time::timeout(PATIENCE, answers.message()).await.unwrap();
        let ended = ended.expect_err("the stream went on");
        assert_eq!(ended.code(), Code::Unavailable, "{ended}");
        assert_eq!(ended.message(), "etcdserver: server stopped");
        // The request half is still open, and holds nobody up.
        assert_eq!(member.wait().signal(), Some(signal.as_raw()));
        drop(sender);

        let db = member.data().join("member/db");
        let options = Options::new(std::sync::Arc::new(SystemClock::new()));
        let (store, opened) = Store::open(&db, options).unwrap();
        assert!(opened.consistent_index >= status.raft_index, "something is left to replay");
        drop(store);

        let mut again = Member::spawn(&member.data(), &member.log.with_extension("again"));
        again.wait_ready();
        let said = again.log();
        assert!(!said.contains("reading all rows"), "{said}");
        let range =
            RangeRequest { key: "key".into(), range_end: "kez".into(), ..Default::default() };
        let found = again.kv().await.range(range).await.unwrap().into_inner();
        assert_eq!(found.count, 50);
        assert_eq!(found.header.unwrap().revision, 51);
    }
}
