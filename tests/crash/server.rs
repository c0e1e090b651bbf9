//! The whole member under load, killed or cut from power, and started again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusd::pb::alarm_request::AlarmAction;
use rusd::pb::kv_client::KvClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::request_op::Request;
use rusd::pb::watch_client::WatchClient;
use rusd::pb::watch_request::RequestUnion;
use rusd::pb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, Event, PutRequest,
    RangeRequest, RangeResponse, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use super::member::{Process, alone, flags, serve};
use super::oracle::Oracle;
use super::ports;
use super::rounds;
use super::shim::{self, Chance};

/// Long enough for a start on a busy machine; a member that needs more does not start.
const START: Duration = Duration::from_secs(60);
const CLIENTS: u64 = 8;
const KEYS: u64 = 20;

pub(super) struct Fixture {
    root: TempDir,
    pub(super) runtime: Runtime,
    client_port: u16,
    peer_port: u16,
    pub(super) oracle: Arc<Oracle>,
    pub(super) compacted: i64,
}

/// A running member; dropped, it is killed.
pub(super) struct Member {
    pub(super) child: Process,
    log: PathBuf,
}

impl Member {
    pub(super) fn is_dead(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub(super) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(super) fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            runtime: Runtime::new().unwrap(),
            client_port: ports::free(),
            peer_port: ports::free(),
            oracle: Arc::default(),
            compacted: 0,
        }
    }

    pub(super) fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    fn whole_log(&self) -> String {
        fs::read_to_string(self.root.path().join("log")).unwrap()
    }

    pub(super) fn start(&self, prepare: impl FnOnce(&mut Command, &Path)) -> Member {
        let client = format!("http://127.0.0.1:{}", self.client_port);
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let log = self.root.path().join("log");
        fs::create_dir_all(self.data()).unwrap();
        let mut command = serve();
        command.args(flags("one", &self.data(), &client, &peer)).args(alone("one", &peer));
        prepare(&mut command, &self.data());
        let child = Process::start(&mut command, File::create(&log).unwrap());
        Member { child, log }
    }

    pub(super) fn channel(&self) -> Channel {
        let address = format!("http://127.0.0.1:{}", self.client_port);
        let _context = self.runtime.enter();
        Endpoint::from_shared(address).unwrap().connect_lazy()
    }

    /// Waits until the member answers a linearizable range; None if it dies first.
    pub(super) fn wait_ready(&self, member: &mut Member) -> Option<RangeResponse> {
        self.runtime.block_on(async {
            let ready = async {
                while !member.is_dead() {
                    let all = timeout(Duration::from_secs(5), range_all(self.channel())).await;
                    if let Ok(Ok(all)) = all {
                        return Some(all);
                    }
                    sleep(Duration::from_millis(5)).await;
                }
                None
            };
            timeout(START, ready).await.unwrap_or_else(|_| panic!("no start:\n{}", member.log()))
        })
    }

    /// Writes and watches until the time is over or the member dies.
    pub(super) fn load(&self, member: &mut Member, seed: u64, time: Duration) {
        let (channel, oracle) = (self.channel(), &self.oracle);
        self.runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for client in 0..CLIENTS {
                let oracle = Arc::clone(oracle);
                tasks.spawn(write(channel.clone(), oracle, seed, client));
            }
            let (watched, from) = (Arc::clone(oracle), oracle.seen() + 1);
            let watcher = watch(channel.clone(), from, move |events| {
                watched.watch(&events);
                true
            });
            tasks.spawn(watcher);
            let died = async {
                while !member.is_dead() {
                    sleep(Duration::from_millis(2)).await;
                }
            };
            let _ = timeout(time, died).await;
            let _ = member.child.kill();
            // The tasks end when their connection does.
            while let Some(ended) = tasks.join_next().await {
                ended.unwrap();
            }
        });
        member.child.wait().unwrap();
    }

    /// Starts the member again, lets the watcher resume, and compares everything.
    pub(super) fn verify(&mut self, chance: &mut Chance) {
        let mut member = self.start(|_, _| {});
        let Some(all) = self.wait_ready(&mut member) else {
            panic!("the member does not start again:\n{}", member.log());
        };
        let current = all.header.as_ref().unwrap().revision;
        if self.oracle.seen() < current {
            self.read_history(self.oracle.seen() + 1, current, |oracle, events| {
                oracle.watch(events)
            });
        }
        self.oracle.judge(current, &all.kvs, self.compacted);
        if chance.below(4) == 0 {
            let first = self.compacted.max(1) + 1;
            if first <= current {
                self.read_history(first, current, |oracle, events| {
                    oracle.compare_history(first, events);
                });
            }
            self.compact(chance, current);
        }
    }

    fn compact(&mut self, chance: &mut Chance, current: i64) {
        let span = (current - self.compacted).max(1);
        let revision = self.compacted + chance.below(span as u64) as i64;
        if revision > self.compacted {
            let request = CompactionRequest { revision, physical: chance.below(2) == 0 };
            let mut client = KvClient::new(self.channel());
            self.runtime.block_on(client.compact(request)).unwrap();
            self.compacted = revision;
        }
    }

    /// All events of [from, to], then `take`.
    fn read_history(&self, from: i64, to: i64, take: impl FnOnce(&Oracle, &[Event])) {
        let events = self.runtime.block_on(async {
            let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
            let mut all: Vec<Event> = Vec::new();
            let read = watch(self.channel(), from, move |events| {
                all.extend(events);
                let last = all.last().and_then(|event| event.kv.as_ref());
                if last.is_none_or(|kv| kv.mod_revision < to) {
                    return true;
                }
                sender.try_send(std::mem::take(&mut all)).unwrap();
                false
            });
            timeout(START, read).await.expect("the watcher never caught up");
            receiver.recv().await.expect("the watcher ended early")
        });
        take(&self.oracle, &events);
    }
}

async fn range_all(channel: Channel) -> Result<RangeResponse, tonic::Status> {
    let every = Bytes::from_static(b"\0");
    let request = RangeRequest { key: every.clone(), range_end: every, ..Default::default() };
    let mut client = KvClient::new(channel).max_decoding_message_size(usize::MAX);
    Ok(client.range(request).await?.into_inner())
}

/// One client: puts, and transactions that put one key and delete another, one at a time.
async fn write(channel: Channel, oracle: Arc<Oracle>, seed: u64, client: u64) {
    let mut kv = KvClient::new(channel);
    let mut chance = Chance::new(seed << 8 | client);
    for count in 0_u64.. {
        let key = Bytes::from(format!("{client}/{}", chance.below(KEYS)));
        let mut value = format!("{seed}/{client}/{count}/").into_bytes();
        let bytes = if chance.below(50) == 0 { 20_000 } else { value.len() + 100 };
        value.resize(bytes, b'v');
        let value = Bytes::from(value);
        oracle.try_write(&value);
        let put = PutRequest { key, value: value.clone(), ..Default::default() };
        let header = if chance.below(4) == 0 {
            let other = Bytes::from(format!("{client}/{}", KEYS + chance.below(KEYS)));
            let delete = DeleteRangeRequest { key: other.clone(), ..Default::default() };
            let also = PutRequest { key: other, value: value.clone(), ..Default::default() };
            let second = if chance.below(2) == 0 {
                Request::RequestDeleteRange(delete)
            } else {
                Request::RequestPut(also)
            };
            let success =
                [Request::RequestPut(put), second].map(|op| RequestOp { request: Some(op) });
            let txn = TxnRequest { success: success.to_vec(), ..Default::default() };
            kv.txn(txn).await.map(|answer| answer.into_inner().header)
        } else {
            kv.put(put).await.map(|answer| answer.into_inner().header)
        };
        // A write without an answer may have happened.
        let Ok(header) = header else { return };
        oracle.acknowledge(&value, header.unwrap().revision);
    }
}

/// Watches all keys until `take` says false or the connection ends.
async fn watch(channel: Channel, from: i64, mut take: impl FnMut(Vec<Event>) -> bool) {
    let every = Bytes::from_static(b"\0");
    let create = WatchCreateRequest {
        key: every.clone(),
        range_end: every,
        start_revision: from,
        ..Default::default()
    };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    let requests = tokio_stream::StreamExt::chain(
        tokio_stream::once(create),
        tokio_stream::pending::<WatchRequest>(),
    );
    let Ok(answers) = client.watch(requests).await else { return };
    let mut answers = answers.into_inner();
    while let Ok(Some(answer)) = answers.message().await {
        assert!(!answer.canceled, "the watcher was cancelled: {}", answer.cancel_reason);
        if !answer.events.is_empty() && !take(answer.events) {
            return;
        }
    }
}

#[test]
fn a_killed_member_keeps_every_acknowledged_write() {
    let mut fixture = Fixture::new();
    rounds(|seed| {
        let mut chance = Chance::new(seed);
        let mut member = fixture.start(|_, _| {});
        assert!(fixture.wait_ready(&mut member).is_some(), "no start:\n{}", member.log());
        let time = Duration::from_millis(20 + chance.below(500));
        fixture.load(&mut member, seed, time);
        fixture.verify(&mut chance);
    });
    assert!(fixture.oracle.writes() > 0);
}

#[test]
fn a_power_cut_keeps_every_acknowledged_write() {
    let library = shim::build();
    let mut fixture = Fixture::new();
    let mut unsynced = 0;
    rounds(|seed| {
        let mut chance = Chance::new(seed);
        let range = 8 << chance.below(10);
        let kill_at = (chance.below(4) > 0).then(|| 1 + chance.below(range));
        let mut member = fixture.start(|command, dir| {
            shim::preload(command, &library, dir, kill_at);
        });
        if fixture.wait_ready(&mut member).is_some() {
            let time = Duration::from_millis(20 + chance.below(700));
            fixture.load(&mut member, seed, time);
        }
        drop(member);
        unsynced += shim::power_cut(&fixture.data(), &mut chance);
        fixture.verify(&mut chance);
    });
    assert!(fixture.oracle.writes() > 0 && unsynced > 0);
}

/// Puts until the answer is, or is not, that there is no space.
async fn put_until(channel: Channel, oracle: &Oracle, seed: u64, refused: bool) {
    let mut kv = KvClient::new(channel);
    for count in 0_u64.. {
        let mut value = format!("full/{seed}/{count}/").into_bytes();
        value.resize(20_000, b'v');
        let value = Bytes::from(value);
        oracle.try_write(&value);
        let key = Bytes::from_static(b"full");
        match kv.put(PutRequest { key, value: value.clone(), ..Default::default() }).await {
            Ok(answer) => {
                oracle.acknowledge(&value, answer.into_inner().header.unwrap().revision);
                if !refused {
                    return;
                }
            }
            Err(status) => {
                let text = "etcdserver: mvcc: database space exceeded";
                assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, text));
                if refused {
                    return;
                }
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn without_syncs_nothing_is_synced_and_that_is_said() {
    let library = shim::build();
    let fixture = Fixture::new();
    for flag in ["--unsafe-no-fsync=false", "--unsafe-no-fsync"] {
        let mut member = fixture.start(|command, dir| {
            shim::preload(command, &library, dir, None);
            command.arg(flag);
        });
        let ready = fixture.wait_ready(&mut member);
        let found = ready.unwrap_or_else(|| panic!("no start:\n{}", member.log()));
        let is_second = flag == "--unsafe-no-fsync";
        assert_eq!(found.kvs.len(), if is_second { 100 } else { 0 }, "a kill loses nothing");
        let before = shim::syncs(&fixture.data());
        fixture.runtime.block_on(async {
            let mut kv = KvClient::new(fixture.channel());
            for number in 0..100 {
                let key = Bytes::from(format!("{flag}{number}"));
                let put = PutRequest { key, value: "v".into(), ..Default::default() };
                kv.put(put).await.unwrap();
            }
            // Long enough for commits of the store.
            sleep(Duration::from_secs(1)).await;
        });
        let synced = shim::syncs(&fixture.data()) - before;
        assert_eq!(synced == 0, is_second, "{synced} syncs with {flag}");
        let address = format!("127.0.0.1:{}", fixture.client_port);
        let metrics = super::member::get(&address, "/metrics");
        let shown = format!("\nrusd_unsafe_no_fsync {}\n", i32::from(is_second));
        assert!(metrics.contains(&shown), "{metrics}");
        assert_eq!(fixture.whole_log().contains("UNSAFE: --unsafe-no-fsync"), is_second);
    }
}

#[test]
fn a_full_disk_raises_the_alarm_and_loses_nothing() {
    let library = shim::build();
    let mut fixture = Fixture::new();
    let mut member = fixture.start(|command, dir| shim::preload(command, &library, dir, None));
    assert!(fixture.wait_ready(&mut member).is_some(), "no start:\n{}", member.log());
    let full = shim::full_mark(&fixture.data());
    for seed in 0..2 {
        fs::write(&full, b"").unwrap();
        let (channel, oracle) = (fixture.channel(), &fixture.oracle);
        fixture.runtime.block_on(async {
            let refused = put_until(channel.clone(), oracle, 2 * seed, true);
            let ended = timeout(START, refused).await;
            assert!(ended.is_ok(), "no alarm:\n{}", member.log());
        });
        let read = fixture.runtime.block_on(range_all(channel.clone())).unwrap();
        // The write that found the disk full may stand, and it may have been the first.
        assert!(read.header.unwrap().revision >= oracle.acknowledged(), "reads go on");
        fs::remove_file(&full).unwrap();
        let mut maintenance = MaintenanceClient::new(channel.clone());
        fixture.runtime.block_on(async {
            let allowed = async {
                let list = AlarmRequest { action: AlarmAction::Get.into(), ..Default::default() };
                for alarm in maintenance.alarm(list).await.unwrap().into_inner().alarms {
                    assert_eq!(alarm.alarm(), AlarmType::Nospace);
                    let disarm = AlarmRequest {
                        action: AlarmAction::Deactivate.into(),
                        member_id: alarm.member_id,
                        alarm: alarm.alarm,
                    };
                    maintenance.alarm(disarm).await.unwrap();
                }
                put_until(channel, oracle, 2 * seed + 1, false).await;
            };
            let ended = timeout(START, allowed).await;
            assert!(ended.is_ok(), "the alarm stays:\n{}", member.log());
        });
    }
    drop(member);
    fixture.verify(&mut Chance::new(1));
}
