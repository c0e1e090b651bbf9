//! A member whose peers send what no member sends. It refuses, counts, says so now and then, and
//! goes on to serve.
//!
//! Two real members form a cluster with a third, which is a port of this test.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use rusd::clock::split_mix;
use rusd::raft::{ConfState, Entry, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::fixture::{Cluster, PATIENCE, get, put};
use super::membership::{id_of, list};

/// What is said on the streams that members dial, and how an answer to anything begins.
#[derive(Clone, Default)]
struct Lies {
    head: Vec<u8>,
    message: Vec<u8>,
    append: Vec<u8>,
}

/// The third member.
#[derive(Clone, Default)]
struct Impostor {
    lies: Arc<Mutex<Lies>>,
    told: Arc<AtomicUsize>,
}

impl Impostor {
    fn start(port: u16) -> Self {
        let this = Self::default();
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let impostor = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let impostor = impostor.clone();
                tokio::spawn(async move { impostor.answer(stream).await });
            }
        });
        this
    }

    /// Answers whatever was asked, and hangs up.
    async fn answer(&self, mut stream: TcpStream) {
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            match stream.read(&mut buffer).await {
                Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
                _ => return,
            }
        }
        let lies = self.lies.lock().unwrap().clone();
        let path = String::from_utf8_lossy(&request);
        let body = match path.split('/').nth(3) {
            Some("message") => &lies.message,
            _ => &lies.append,
        };
        let _ = stream.write_all(&lies.head).await;
        let _ = stream.write_all(body).await;
        let _ = stream.shutdown().await;
        self.told.fetch_add(1, Ordering::Relaxed);
        // What was sent is not lost with the connection.
        let _ = timeout(Duration::from_secs(1), stream.read(&mut buffer)).await;
    }

    /// Says this until everybody who asks has heard it some times.
    async fn tell(&self, what: &str, lies: Lies) {
        *self.lies.lock().unwrap() = lies;
        let before = self.told.load(Ordering::Relaxed);
        let begun = Instant::now();
        while self.told.load(Ordering::Relaxed) < before + 12 {
            assert!(begun.elapsed() < PATIENCE, "nobody asks after {what}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Who is lied to, and as whom.
#[derive(Clone, Copy)]
struct Roles {
    cluster: u64,
    from: u64,
    to: u64,
}

struct Scene {
    cluster: Cluster,
    impostor: Impostor,
    roles: Roles,
}

impl Scene {
    async fn start() -> Self {
        let mut cluster = Cluster::empty();
        for _ in 0..3 {
            cluster.add();
        }
        let port = cluster.members[2].peer.rsplit(':').next().unwrap().parse().unwrap();
        let impostor = Impostor::start(port);
        cluster.run(0, "new");
        cluster.run(1, "new");
        cluster.ready(&[0, 1]).await;
        let to = id_of(&cluster, 0).await;
        let other = id_of(&cluster, 1).await;
        let members = list(&cluster, 0).await;
        let from = members.iter().find(|member| ![to, other].contains(&member.id)).unwrap().id;
        let id = hex_of(&cluster.log(0), "\"cluster-id\":\"");
        Self { cluster, impostor, roles: Roles { cluster: id, from, to } }
    }

    /// Both real members live and write.
    async fn serves(&mut self, after: &str) {
        for at in [0, 1] {
            assert!(!self.cluster.has_ended(at), "{after}:\n{}", self.cluster.logs());
            let begun = Instant::now();
            loop {
                let channel = self.cluster.channel(at);
                let write = timeout(Duration::from_secs(5), put(channel.clone(), "k", after)).await;
                let read = timeout(Duration::from_secs(5), get(channel, "k")).await;
                if let (Ok(Ok(_)), Ok(Ok(found))) = (write, read) {
                    assert_eq!(found.as_deref(), Some(after.as_bytes()));
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "{after}:\n{}", self.cluster.logs());
                sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// What members count of this.
    async fn counted(&self, series: &str) -> f64 {
        let address = self.cluster.members[0].client.trim_start_matches("http://");
        let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let text = ask(address, request.as_bytes()).await;
        let line = text.lines().find(|line| line.starts_with(series));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    async fn end(mut self) {
        self.serves("at the end").await;
        self.cluster.compare_hashes(&[0, 1]).await;
        for at in [0, 1] {
            let log = self.cluster.log(at);
            assert!(!log.contains("panicked"), "{log}");
            let refusals = log.lines().filter(|line| line.contains("refused")).count();
            assert!(refusals < 100, "{refusals} lines");
        }
    }

    fn address(&self) -> String {
        self.cluster.members[0].peer.trim_start_matches("http://").to_owned()
    }

    /// Headers of a member of this cluster.
    fn headers(&self) -> String {
        let Roles { cluster, from, to } = self.roles;
        format!(
            "host: x\r\nx-etcd-cluster-id: {cluster:x}\r\nx-rusd-version: 1\r\n\
             x-server-version: 3.7.1\r\nx-min-cluster-version: 3.0.0\r\n\
             x-server-from: {from:x}\r\nx-raft-to: {to:x}\r\nconnection: close\r\n"
        )
    }

    fn post(&self, path: &str, body: &[u8]) -> Vec<u8> {
        let head = format!(
            "POST {path} HTTP/1.1\r\n{}content-length: {}\r\n\r\n",
            self.headers(),
            body.len()
        );
        [head.as_bytes(), body].concat()
    }
}

fn hex_of(text: &str, before: &str) -> u64 {
    let start = text.find(before).unwrap_or_else(|| panic!("no {before}: {text}")) + before.len();
    let end = start + text[start..].find('"').unwrap();
    u64::from_str_radix(&text[start..end], 16).unwrap()
}

/// Sends bytes and returns what comes back until the end, or until nothing more comes.
async fn ask(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // The other side may hang up first.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(3), stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

fn noise(seed: u64, count: usize) -> Vec<u8> {
    (0..count as u64).map(|at| split_mix(seed << 32 | at) as u8).collect()
}

const APPEND: i32 = 3;
const APPEND_RESPONSE: i32 = 4;
const VOTE: i32 = 5;
const SNAPSHOT: i32 = 7;
const HEARTBEAT: i32 = 8;
const HEARTBEAT_RESPONSE: i32 = 9;
const TRANSFER: i32 = 13;
const TIMEOUT_NOW: i32 = 14;
const READ_INDEX: i32 = 15;
const READ_INDEX_RESPONSE: i32 = 16;
const PROPOSE: i32 = 2;

fn normal(data: &'static [u8]) -> Entry {
    Entry { data: Bytes::from_static(data), ..Entry::default() }
}

fn change(data: Vec<u8>) -> Entry {
    Entry { entry_type: 1, data: data.into(), ..Entry::default() }
}

/// Messages that no sane member sends.
fn messages(roles: Roles) -> Vec<(&'static str, Message)> {
    let Roles { from, to, .. } = roles;
    let of = |msg_type, term| Message { msg_type, from, to, term, ..Message::default() };
    let with = |message: Message, entries: Vec<Entry>| Message { entries, ..message };
    let snapshot = |voters: &[u64], learners: &[u64]| {
        let mut message = of(SNAPSHOT, 1 << 30);
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (1 << 40, 1);
        let (voters, learners) = (voters.to_vec(), learners.to_vec());
        *metadata.mut_conf_state() = ConfState { voters, learners, ..ConfState::default() };
        message
    };
    let at = |index, term| Entry { index, term, ..Entry::default() };
    let mut messages = vec![
        ("nothing at all", Message::default()),
        ("from nobody", Message { from: 0, ..of(HEARTBEAT, 1) }),
        ("from ourselves", Message { from: to, ..of(HEARTBEAT, 1) }),
        ("from a stranger", Message { from: 77, ..of(HEARTBEAT, 1) }),
        ("to another", Message { to: 77, ..of(HEARTBEAT, 1) }),
        ("an append without a term", of(APPEND, 0)),
        ("a proposal with a term", with(of(PROPOSE, 1), vec![normal(b"x")])),
        ("an empty proposal", of(PROPOSE, 0)),
        ("a proposal of nothing", with(of(PROPOSE, 0), vec![normal(b"")])),
        ("a proposal of noise", with(of(PROPOSE, 0), vec![normal(b"\xff\xfe\xfd\xfc\xfb\xfa")])),
        ("a proposal cut off", with(of(PROPOSE, 0), vec![normal(b"\x22\x20\x0a")])),
        ("a request of the future", with(of(PROPOSE, 0), vec![normal(b"\x82\xfa\x01\x00")])),
        ("a change cut off", with(of(PROPOSE, 0), vec![change(vec![0x10])])),
        ("a change of noise", with(of(PROPOSE, 0), vec![change(noise(7, 50))])),
        // It adds member 5, whose description is not one.
        (
            "a change without sense",
            with(of(PROPOSE, 0), vec![change(b"\x18\x05\x22\x02{}".to_vec())]),
        ),
        ("no change", with(of(PROPOSE, 0), vec![change(Vec::new())])),
        (
            "an entry of a type unknown",
            with(of(PROPOSE, 0), vec![Entry { entry_type: 9, ..normal(b"x") }]),
        ),
        ("a read of nothing", of(READ_INDEX, 0)),
        ("a read of two", with(of(READ_INDEX, 0), vec![normal(b"x"), normal(b"y")])),
        ("a read of noise", with(of(READ_INDEX, 0), vec![normal(b"noise")])),
        ("an answer to no read", of(READ_INDEX_RESPONSE, 1)),
        ("a gap", with(of(APPEND, 1 << 30), vec![at(7, 1), at(9, 1)])),
        ("falling terms", with(of(APPEND, 1 << 30), vec![at(1, 3), at(2, 2)])),
        ("a place at the end of all", Message { index: u64::MAX, log_term: 1, ..of(APPEND, 2) }),
        ("a commit beyond the log", Message { commit: 1 << 40, ..of(HEARTBEAT, 1 << 30) }),
        ("an acknowledgement beyond", Message { index: 1 << 40, ..of(APPEND_RESPONSE, 2) }),
        (
            "a hint beyond",
            Message { reject: true, reject_hint: u64::MAX, ..of(APPEND_RESPONSE, 2) },
        ),
        ("a snapshot on a stream", snapshot(&[from, to], &[])),
        ("a snapshot of nobody", snapshot(&[], &[])),
        ("a snapshot without us", snapshot(&[from], &[])),
        ("a learner that votes", snapshot(&[from, to], &[to])),
        ("the last term of all", of(VOTE, u64::MAX)),
        ("a heartbeat of that term", of(HEARTBEAT, u64::MAX)),
        ("an append of the one before", of(APPEND, u64::MAX - 1)),
        ("a vote without a term", of(VOTE, 0)),
        ("an old vote", of(VOTE, 1)),
        ("an answer to no heartbeat", of(HEARTBEAT_RESPONSE, 1)),
        ("a transfer to the sender", of(TRANSFER, 1)),
        ("a call to lead", of(TIMEOUT_NOW, 1)),
    ];
    for msg_type in [0, 1, 10, 11, 12, 19, 20, 21, 22, 23, 99, -1] {
        messages.push(("a type that members do not send", Message { ..of(msg_type, 1) }));
    }
    messages
}

/// As on a `message` stream.
fn framed(message: &Message) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    bytes.put_u64(message.encoded_len() as u64);
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_make_no_sense_are_refused() {
    let mut scene = Scene::start().await;
    let address = scene.address();
    for (what, message) in messages(scene.roles) {
        let body = message.encode_to_vec();
        let answer = ask(&address, &scene.post("/raft", &body)).await;
        assert!([204, 403].contains(&status(&answer)), "{what}: {answer}");
        let answer = ask(&address, &scene.post("/raft/snapshot", &framed(&message))).await;
        assert!([400, 403, 409, 500].contains(&status(&answer)), "{what} as a snapshot: {answer}");
        scene.serves(what).await;
    }
    assert!(scene.counted("rusd_network_peer_messages_refused_total").await > 20.0);
    assert!(scene.counted("rusd_network_peer_snapshots_refused_total").await > 20.0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_make_no_sense_are_left() {
    let mut scene = Scene::start().await;
    let good = b"HTTP/1.1 200 OK\r\nx-rusd-version: 1\r\nconnection: close\r\n\r\n".to_vec();
    let streams = |message: Vec<u8>, append: Vec<u8>| Lies { head: good.clone(), message, append };
    let length = |length: u64| length.to_be_bytes().to_vec();
    let count = |count: u64| [&[1][..], &count.to_be_bytes()].concat();
    let head = |head: &[u8]| Lies { head: head.to_vec(), ..Lies::default() };
    let mut all =
        vec![
        ("nothing", streams(Vec::new(), Vec::new())),
        ("noise", streams(noise(1, 5000), noise(2, 5000))),
        ("absurd lengths", streams(length(u64::MAX), count(u64::MAX))),
        ("lengths just too large", streams(length((512 << 20) + 1), count((512 << 20) + 1))),
        ("less than announced", streams([length(100), noise(3, 50)].concat(), count(7))),
        ("what cannot be decoded", streams([length(9), vec![0xff; 9]].concat(), vec![
            2, 0, 0, 0, 0, 0, 0, 0, 3, 0xff, 0xff, 0xff,
        ])),
        ("frames of an unknown kind", streams(length(0), vec![9; 100])),
        ("entries that continue nothing", streams(length(0), {
            [count(1), length(2), vec![8, 0], length(3)].concat()
        })),
        ("a great many empty entries", streams(length(0), {
            [count(1 << 16), vec![0; 8 << 16], length(3)].concat()
        })),
        ("an answer of noise", head(&noise(4, 5000))),
        ("a status of its own", head(b"HTTP/1.1 999 what\r\n\r\n")),
        ("a head without end", head(&b"HTTP/1.1 200 OK\r\nx: ".repeat(5000))),
        ("a body that is not chunked as it says", head(
            b"HTTP/1.1 200 OK\r\nx-rusd-version: 1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        )),
        ("somebody else", head(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")),
    ];
    let mut whole = vec![2];
    for (what, message) in messages(scene.roles) {
        whole.extend_from_slice(&framed(&message));
        all.push((what, streams(framed(&message), std::mem::replace(&mut whole, vec![2]))));
    }
    for (what, lies) in all {
        scene.impostor.tell(what, lies).await;
        scene.serves(what).await;
    }
    assert!(scene.counted("rusd_network_peer_messages_refused_total").await > 20.0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_make_no_sense_are_refused_on_every_path() {
    let mut scene = Scene::start().await;
    let (address, headers) = (scene.address(), scene.headers());
    let id = format!("{:x}", scene.roles.from);
    let paths = [
        "/raft".to_owned(),
        format!("/raft/stream/message/{id}"),
        format!("/raft/stream/msgapp/{id}"),
        "/raft/stream/msgapp/zz".to_owned(),
        "/raft/stream/other/1".to_owned(),
        "/raft/stream//".to_owned(),
        "/raft/snapshot".to_owned(),
        "/raft/probing".to_owned(),
        "/raft/../../x".to_owned(),
        "/members".to_owned(),
        "/members/promote/".to_owned(),
        format!("/members/promote/{id}"),
        "/members/promote/18446744073709551616".to_owned(),
        "/members/promote/../1".to_owned(),
        "/leases".to_owned(),
        "/leases/internal".to_owned(),
        "/downgrade/enabled".to_owned(),
        "/version".to_owned(),
        "/%00%ff".to_owned(),
    ];
    for (at, path) in paths.iter().enumerate() {
        ask_by_every_method(&address, path, &headers, &noise(at as u64, 300)).await;
        send_bodies_that_are_none(&address, path, &headers).await;
        scene.serves(path).await;
    }
    let noises = (0..50).map(|seed| noise(seed, 1 + (split_mix(seed) % 3000) as usize));
    for bytes in noises {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let _ = stream.write_all(&bytes).await;
    }
    let other = |name: &str, value: &str| {
        let lines = headers.split_inclusive("\r\n").filter(|line| !line.starts_with(name));
        format!("{}{name}: {value}\r\n", lines.collect::<String>())
    };
    for (headers, expected) in [
        (other("x-etcd-cluster-id", "1"), 412),
        (other("x-etcd-cluster-id", "not hex"), 412),
        (other("x-raft-to", "1"), 412),
        (other("x-rusd-version", "").replace("x-rusd-version: \r\n", ""), 412),
    ] {
        let request = format!("GET /raft/stream/message/{id} HTTP/1.1\r\n{headers}\r\n");
        let answer = ask(&address, request.as_bytes()).await;
        assert_eq!(status(&answer), expected, "{headers}: {answer}");
    }
    let stranger = format!("GET /raft/stream/message/77 HTTP/1.1\r\n{headers}\r\n");
    assert_eq!(status(&ask(&address, stranger.as_bytes()).await), 404);
    scene.end().await;
}

/// A path is asked with each method, as a stranger and as a member of this cluster.
async fn ask_by_every_method(address: &str, path: &str, headers: &str, body: &[u8]) {
    for method in ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW", "\x01\x02"] {
        for headers in ["host: x\r\nconnection: close\r\n", headers] {
            let line = format!("{method} {path} HTTP/1.1\r\n{headers}");
            let end = format!("content-length: {}\r\n\r\n", body.len());
            let request = [line.as_bytes(), end.as_bytes(), body].concat();
            let is_stream = method == "GET" && path.starts_with("/raft/stream/");
            // A stream that is granted does not end.
            let answer = if is_stream && headers.contains("raft-to") {
                let asked = timeout(Duration::from_millis(300), ask(address, &request)).await;
                asked.unwrap_or_default()
            } else {
                ask(address, &request).await
            };
            let status = status(&answer);
            let is_answered = (200..600).contains(&status);
            assert!(is_answered || is_stream, "{method} {path}: {answer:?}");
            assert!(status != 204, "{method} {path}: {answer:?}");
        }
    }
}

/// A path gets bodies that are shorter than announced, larger than a reader wants, or in chunks that
/// are none.
async fn send_bodies_that_are_none(address: &str, path: &str, headers: &str) {
    for tail in [
        "content-length: 1000\r\n\r\nshort",
        "content-length: 99999999999999999999\r\n\r\n",
        "content-length: -1\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        "transfer-encoding: chunked\r\n\r\n5\r\nab",
    ] {
        let request = format!("POST {path} HTTP/1.1\r\n{headers}{tail}");
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "{path} {tail:?} is not given up");
        let answer = String::from_utf8_lossy(&answer);
        assert!(status(&answer) != 204, "{path} {tail:?}: {answer}");
    }
}
