//! Clients that remember what they were told, and find out whether it was true.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusd::pb::watch_client::WatchClient;
use rusd::pb::watch_request::RequestUnion;
use rusd::pb::{WatchCreateRequest, WatchRequest};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use super::fixture::{Cluster, PATIENCE, get, put};

const WRITERS: usize = 6;
const WATCHERS: usize = 2;
/// All that writers write begins so.
const PREFIX: &str = "writer/";
const PREFIX_END: &str = "writer0";

/// What clients know.
#[derive(Default)]
struct Oracle {
    /// Of each key, the last acknowledged count and the last tried.
    known: Mutex<BTreeMap<String, (u64, u64)>>,
    /// Every acknowledged write, by its revision.
    writes: Mutex<BTreeMap<i64, (String, u64)>>,
    acknowledged: AtomicU64,
    ended: AtomicBool,
    /// Why the last write failed.
    failure: Mutex<String>,
}

/// What one watcher saw: by revision the key, its version and its count.
type SeenChanges = BTreeMap<i64, (String, i64, u64)>;

/// Writers and watchers that run until they are told to end.
pub struct Load {
    oracle: Arc<Oracle>,
    writers: Vec<tokio::task::JoinHandle<()>>,
    watchers: Vec<tokio::task::JoinHandle<()>>,
    seen: Vec<Arc<Mutex<SeenChanges>>>,
}

impl Load {
    pub fn start(cluster: &Cluster, members: &[usize]) -> Self {
        let oracle = Arc::new(Oracle::default());
        let channels: Vec<_> = members.iter().map(|at| cluster.channel(*at)).collect();
        let writer = |writer| tokio::spawn(count_up(Arc::clone(&oracle), channels.clone(), writer));
        let writers = (0..WRITERS).map(writer).collect();
        let seen: Vec<_> = (0..WATCHERS).map(|_| Arc::new(Mutex::default())).collect();
        let watch = |(at, seen)| tokio::spawn(watch(Arc::clone(seen), channels.clone(), at));
        let watchers = seen.iter().enumerate().map(watch).collect();
        Self { oracle, writers, watchers, seen }
    }

    /// Waits until so many more writes are acknowledged.
    pub async fn goes_on(&self, cluster: &Cluster) {
        let before = self.oracle.acknowledged.load(Ordering::Relaxed);
        let begun = Instant::now();
        while self.oracle.acknowledged.load(Ordering::Relaxed) < before + 20 {
            if begun.elapsed() > PATIENCE {
                let why = self.oracle.failure.lock().unwrap().clone();
                panic!("nothing is written: {why}\n{}", cluster.logs());
            }
            self.assert_running();
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// A task that ended has found something wrong; its panic says what.
    pub fn assert_running(&self) {
        let tasks = self.writers.iter().chain(&self.watchers);
        assert!(tasks.into_iter().all(|task| !task.is_finished()), "a client found a lie");
    }

    pub async fn end(self, cluster: &Cluster, members: &[usize]) {
        self.oracle.ended.store(true, Ordering::Relaxed);
        for writer in self.writers {
            writer.await.unwrap();
        }
        self.oracle.verify(cluster, members).await;
        let writes = self.oracle.writes.lock().unwrap().clone();
        let last = writes.last_key_value().map_or(0, |(revision, _)| *revision);
        for (watcher, seen) in self.watchers.into_iter().zip(&self.seen) {
            let begun = Instant::now();
            while seen.lock().unwrap().last_key_value().is_none_or(|(at, _)| *at < last) {
                assert!(!watcher.is_finished(), "a watcher found a lie");
                assert!(begun.elapsed() < PATIENCE, "a watch stands still:\n{}", cluster.logs());
                sleep(Duration::from_millis(20)).await;
            }
            watcher.abort();
            assert_complete(&seen.lock().unwrap(), &writes);
        }
        cluster.compare_hashes(members).await;
    }
}

/// One writer: counts up under a key of its own, at whichever member answers, and reads it back.
/// A count below an acknowledged one is a lost write or a stale read. A write without an answer may
/// happen at any time from then on, so the next ones go to another key.
async fn count_up(oracle: Arc<Oracle>, channels: Vec<Channel>, writer: usize) {
    let (mut at, mut keys, mut count) = (writer, 0, 0);
    while !oracle.ended.load(Ordering::Relaxed) {
        at += 1;
        let channel = &channels[at % channels.len()];
        count += 1;
        let key = format!("{PREFIX}{writer}/{keys}");
        oracle.known.lock().unwrap().entry(key.clone()).or_default().1 = count;
        let value = count.to_string();
        let written = put(channel.clone(), &key, &value);
        match timeout(Duration::from_secs(2), written).await {
            Ok(Ok(revision)) => oracle.note(revision, &key, count),
            failed => {
                *oracle.failure.lock().unwrap() = format!("{failed:?}");
                (keys, count) = (keys + 1, 0);
                sleep(Duration::from_millis(20)).await;
            }
        }
        let acknowledged = oracle.known.lock().unwrap()[&key].0;
        let channel = channels[(at + 1) % channels.len()].clone();
        if let Ok(Ok(value)) = timeout(Duration::from_secs(2), get(channel, &key)).await {
            oracle.judge(&key, value.as_deref(), acknowledged);
        }
        // The machine has more to do than this.
        sleep(Duration::from_millis(5)).await;
    }
}

/// Watches from the first revision on, at one member after the other.
async fn watch(seen: Arc<Mutex<SeenChanges>>, channels: Vec<Channel>, first: usize) {
    for at in first.. {
        let next = seen.lock().unwrap().last_key_value().map_or(1, |(revision, _)| revision + 1);
        let create = WatchCreateRequest {
            key: PREFIX.into(),
            range_end: PREFIX_END.into(),
            start_revision: next,
            ..Default::default()
        };
        let create = RequestUnion::CreateRequest(create);
        let create = WatchRequest { request_union: Some(create) };
        // The stream of requests stays open as long as this watch.
        let (requests, asked) = tokio::sync::mpsc::channel(1);
        requests.send(create).await.unwrap();
        let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
        let mut client = WatchClient::new(channels[at % channels.len()].clone());
        let patience = Duration::from_secs(3);
        let Ok(Ok(answers)) = timeout(patience, client.watch(asked)).await else {
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let mut answers = answers.into_inner();
        // What is silent may be stopped, or cut off.
        while let Ok(Ok(Some(answer))) = timeout(patience, answers.message()).await {
            let mut seen = seen.lock().unwrap();
            for event in answer.events {
                let kv = event.kv.unwrap();
                let last = seen.last_key_value().map_or(0, |(revision, _)| *revision);
                assert!(kv.mod_revision > last, "{} comes after {last}", kv.mod_revision);
                let key = String::from_utf8(kv.key.to_vec()).unwrap();
                seen.insert(kv.mod_revision, (key, kv.version, number(&kv.value)));
            }
        }
    }
}

/// Everything acknowledged is there, and no version of any key is missing.
fn assert_complete(seen: &SeenChanges, writes: &BTreeMap<i64, (String, u64)>) {
    for (revision, (key, count)) in writes {
        let found = seen.get(revision).map(|(key, _, count)| (key, count));
        assert_eq!(found, Some((key, count)), "a watcher at revision {revision}");
    }
    let mut versions: BTreeMap<&str, i64> = BTreeMap::new();
    for (revision, (key, version, _)) in seen {
        let last = versions.entry(key).or_default();
        *last += 1;
        assert_eq!(*version, *last, "{key} at revision {revision}");
    }
}

fn number(value: &[u8]) -> u64 {
    str::from_utf8(value).unwrap().parse().unwrap()
}

impl Oracle {
    fn note(&self, revision: i64, key: &str, count: u64) {
        let other = self.writes.lock().unwrap().insert(revision, (key.to_owned(), count));
        assert_eq!(other, None, "two writes have revision {revision}, one is {key}");
        self.known.lock().unwrap().get_mut(key).unwrap().0 = count;
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    fn judge(&self, key: &str, value: Option<&[u8]>, acknowledged: u64) {
        let value = value.map_or(0, number);
        let tried = self.known.lock().unwrap()[key].1;
        assert!(
            (acknowledged..=tried).contains(&value),
            "{key} is {value}, but {acknowledged} was acknowledged and {tried} tried"
        );
    }

    /// Reads everything back on each of these members.
    async fn verify(&self, cluster: &Cluster, members: &[usize]) {
        cluster.ready(members).await;
        let known = self.known.lock().unwrap().clone();
        for at in members {
            for (key, (acknowledged, _)) in &known {
                let value = get(cluster.channel(*at), key).await.unwrap();
                self.judge(key, value.as_deref(), *acknowledged);
            }
        }
    }
}
