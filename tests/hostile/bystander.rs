//! A well-behaved client on a thread of its own: it puts and reads, watches what it puts, and keeps
//! a lease alive, all on one connection. Any error ends the test.

use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{fmt, fs};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use rusd::limits::PROMPT_SLICE;
use rusd::pb::kv_client::KvClient;
use rusd::pb::lease_client::LeaseClient;
use rusd::pb::watch_client::WatchClient;
use rusd::pb::watch_request::RequestUnion;
use rusd::pb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, PutRequest, RangeRequest,
    WatchCreateRequest, WatchRequest, WatchResponse,
};
use rusd::supervise::slice;
use rustix::process::Pid;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use super::fixture::PATIENCE;

/// Pause between two rounds. Without one the bystander would be a load itself.
const PAUSE: Duration = Duration::from_millis(2);
const LEASE_SECONDS: i64 = 60;
const KEY: Bytes = Bytes::from_static(b"bystander");

/// Durations of one kind of call.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Times {
    fn part(&self, part: f64) -> f64 {
        let place = ((self.0.len() as f64 * part) as usize).min(self.0.len().saturating_sub(1));
        self.0.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (half, high, most) = (self.part(0.5), self.part(0.99), self.part(1.0));
        write!(to, "{} of {half:.1}/{high:.1}/{most:.1} ms", self.0.len())
    }
}

/// The durations of one phase.
#[derive(Default)]
pub struct Report {
    puts: Times,
    gets: Times,
    events: Times,
    renewals: Times,
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { puts, gets, events, renewals } = self;
        write!(to, "p50/p99/max: puts {puts}, gets {gets}, events {events}, renewals {renewals}")
    }
}

pub struct Bystander {
    task: Pid,
    report: Arc<Mutex<Report>>,
    ended: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Bystander {
    /// Starts the thread, and returns once it is served.
    pub fn start(address: String) -> Self {
        let report = Arc::new(Mutex::new(Report::default()));
        let ended = Arc::new(AtomicBool::new(false));
        let (shared, until) = (Arc::clone(&report), Arc::clone(&ended));
        let (tell, task) = mpsc::channel();
        let thread = thread::spawn(move || {
            tell.send(this_task()).unwrap();
            // What it waits for a processor is not to count: a client has a machine of its own.
            slice::set(PROMPT_SLICE);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(work(address, &shared, &until));
        });
        let bystander = Self { task: task.recv().unwrap(), report, ended, thread };
        while bystander.report.lock().unwrap().puts.0.is_empty() {
            assert!(!bystander.thread.is_finished(), "the bystander could not begin");
            thread::sleep(PAUSE);
        }
        bystander
    }

    /// Thread id, for the scheduler.
    pub fn task(&self) -> Pid {
        self.task
    }

    /// The durations since the last call.
    pub fn take(&self) -> Report {
        assert!(!self.thread.is_finished(), "the bystander was not served");
        sorted(&self.report)
    }

    pub fn finish(self) -> Report {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().expect("the bystander was not served");
        sorted(&self.report)
    }
}

/// Id of the calling thread.
fn this_task() -> Pid {
    let link = fs::read_link("/proc/thread-self").unwrap();
    let number = link.file_name().and_then(OsStr::to_str).and_then(|number| number.parse().ok());
    number.and_then(Pid::from_raw).unwrap()
}

fn sorted(report: &Mutex<Report>) -> Report {
    let mut report = std::mem::take(&mut *report.lock().unwrap());
    let Report { puts, gets, events, renewals } = &mut report;
    for times in [puts, gets, events, renewals] {
        times.0.sort_unstable();
    }
    report
}

/// A channel, and the number of connections that it has opened so far.
async fn connect(address: String) -> (Channel, Arc<AtomicUsize>) {
    let made = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&made);
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let dial = tower::service_fn(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        let address = address.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    (endpoint.connect_with_connector(dial).await.unwrap(), made)
}

async fn within<T>(what: &str, answer: impl Future<Output = Result<T, tonic::Status>>) -> T {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(status)) => panic!("the bystander's {what} failed: {status}"),
        Err(_) => panic!("the bystander's {what} was not answered"),
    }
}

/// etcd's answer to a renewal while the leader is busy for more than a second. etcd's client
/// repeats the renewal after this pause, as long as the lease lives.
const BUSY: &str = "etcdserver: request timed out, waiting for the applied index took too long";
const BUSY_PAUSE: Duration = Duration::from_millis(500);

struct Lease {
    client: LeaseClient<Channel>,
    id: i64,
    requests: Sender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

impl Lease {
    async fn grant(channel: Channel) -> Self {
        let mut client = LeaseClient::new(channel);
        let grant = LeaseGrantRequest { ttl: LEASE_SECONDS, id: 0 };
        let id = within("grant", client.lease_grant(grant)).await.into_inner().id;
        let (requests, answers) = Self::stream(&mut client).await;
        let mut lease = Self { client, id, requests, answers };
        lease.renew().await;
        lease
    }

    async fn stream(
        client: &mut LeaseClient<Channel>,
    ) -> (Sender<LeaseKeepAliveRequest>, Streaming<LeaseKeepAliveResponse>) {
        let (requests, receiver) = channel_of(1);
        let answers = within("renewals", client.lease_keep_alive(receiver)).await;
        (requests, answers.into_inner())
    }

    async fn renew(&mut self) {
        let answer = within("renewal", self.answer()).await;
        assert!(answer.expect("the bystander's renewals ended").ttl > 0, "its lease is gone");
    }

    async fn answer(&mut self) -> Result<Option<LeaseKeepAliveResponse>, tonic::Status> {
        loop {
            self.requests.send(LeaseKeepAliveRequest { id: self.id }).await.unwrap();
            match self.answers.message().await {
                Err(status) if status.message() == BUSY => tokio::time::sleep(BUSY_PAUSE).await,
                answer => return answer,
            }
            (self.requests, self.answers) = Self::stream(&mut self.client).await;
        }
    }
}

fn channel_of<T>(size: usize) -> (Sender<T>, ReceiverStream<T>) {
    let (sender, receiver) = channel(size);
    (sender, ReceiverStream::new(receiver))
}

async fn watch(channel: Channel) -> (Sender<WatchRequest>, Streaming<WatchResponse>) {
    let (sender, requests) = channel_of(1);
    let create = WatchCreateRequest { key: KEY, ..Default::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    sender.send(create).await.unwrap();
    let answers = within("watch", WatchClient::new(channel).watch(requests)).await;
    let mut answers = answers.into_inner();
    assert!(within("watch", answers.message()).await.unwrap().created);
    (sender, answers)
}

async fn work(address: String, report: &Mutex<Report>, ended: &AtomicBool) {
    let (channel, connections) = connect(address).await;
    let mut lease = Lease::grant(channel.clone()).await;
    let (_requests, mut events) = watch(channel.clone()).await;
    let mut kv = KvClient::new(channel);
    let mut number = 0_u64;
    while !ended.load(Ordering::Relaxed) {
        number += 1;
        let value = Bytes::from(number.to_string());
        let start = Instant::now();
        let put =
            PutRequest { key: KEY, value: value.clone(), lease: lease.id, ..Default::default() };
        within("put", kv.put(put)).await;
        let put = start.elapsed();
        let event = within("event", events.message()).await.expect("the bystander's watch ended");
        let event_came = start.elapsed();
        let seen: Vec<_> =
            event.events.iter().map(|event| &event.kv.as_ref().unwrap().value).collect();
        assert_eq!(seen, [&value], "another event than the bystander's own");
        let start = Instant::now();
        let range = RangeRequest { key: KEY, ..Default::default() };
        let got = within("get", kv.range(range)).await.into_inner();
        assert_eq!(got.kvs[0].value, value, "the bystander reads something else");
        let get = start.elapsed();
        let start = Instant::now();
        lease.renew().await;
        let renewal = start.elapsed();
        assert_eq!(connections.load(Ordering::Relaxed), 1, "the bystander lost its connection");
        {
            let mut report = report.lock().unwrap();
            report.puts.0.push(put);
            report.events.0.push(event_came);
            report.gets.0.push(get);
            report.renewals.0.push(renewal);
        }
        tokio::time::sleep(PAUSE).await;
    }
}
