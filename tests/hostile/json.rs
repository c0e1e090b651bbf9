//! Clients of the JSON gateway that do not read, hang up, or send what is no request.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rusd::pb::PutRequest;
use rusd::pb::kv_client::KvClient;
use tokio::net::{TcpSocket, TcpStream as Stream};

use super::case::Case;
use super::fixture::{Member, foreign};

/// A busy debug build.
const SMALL_KIB_MAX: u64 = 96 << 10;
/// 256 MiB: unsent answers above which each connection has its share of them.
const UNSENT_KIB_MAX: u64 = 256 << 10;

fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn watch(key: &str, more: &str) -> Vec<u8> {
    let key = STANDARD.encode(key);
    request("/v3/watch", format!(r#"{{"create_request":{{"key":"{key}"{more}}}}}"#).as_bytes())
}

/// Connects `count` times with small buffers, so that what is not read stays with the server, and
/// sends `first` on each.
async fn connect(member: &Member, count: usize, first: &[u8]) -> Vec<Stream> {
    let address: SocketAddr = member.address.parse().unwrap();
    let mut streams = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let stream = socket.connect(address).await.unwrap();
        let mut rest = first;
        while !rest.is_empty() {
            stream.writable().await.unwrap();
            if let Ok(sent) = stream.try_write(rest) {
                rest = &rest[sent..];
            }
        }
        streams.push(stream);
    }
    streams
}

async fn put(member: &Member, key: &'static str, count: usize, bytes: usize) {
    let mut kv = KvClient::new(member.channel().await);
    for _ in 0..count {
        let value = Bytes::from(vec![b'v'; bytes]);
        kv.put(PutRequest { key: key.into(), value, ..Default::default() }).await.unwrap();
    }
}

/// As many watches as the limit of open files allows, 10,000 at most. The member needs as many.
fn many() -> usize {
    super::files::spare().min(10_000)
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_watches_each_on_a_connection() {
    let count = many();
    let member = Member::start(&[]);
    // 48 KiB for a watch and its connection, in a debug build.
    let growth_kib_max = SMALL_KIB_MAX + 48 * count as u64;
    let name = "watches over HTTP/1.1, unread";
    let case = Case { name, growth_kib_max, left_kib_max: SMALL_KIB_MAX };
    case.run(&member, async |member, end| {
        let watches = connect(member, count, &watch("watched", "")).await;
        put(member, "watched", 5, 1000).await;
        // Each client finds the events when it looks at last.
        for watch in watches.iter().step_by(100) {
            let mut came = Vec::new();
            while !String::from_utf8_lossy(&came).contains(r#""version":"5""#) {
                watch.readable().await.unwrap();
                let mut piece = [0; 4096];
                if let Ok(bytes) = watch.try_read(&mut piece) {
                    assert_ne!(bytes, 0, "a watch was ended: {}", String::from_utf8_lossy(&came));
                    came.extend_from_slice(&piece[..bytes]);
                }
            }
        }
        tokio::time::sleep_until(end.into()).await;
        watches
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn histories_that_nobody_reads() {
    let member = Member::start(&[]);
    put(&member, "history", 200, 20_000).await;
    let name = "300 watches of 8 MB each over HTTP/1.1, unread";
    let growth_kib_max = UNSENT_KIB_MAX + 2 * SMALL_KIB_MAX;
    let case = Case { name, growth_kib_max, left_kib_max: SMALL_KIB_MAX };
    case.run(&member, async |member, end| {
        let more = r#","start_revision":"2","prev_kv":true"#;
        let watches = connect(member, 300, &watch("history", more)).await;
        tokio::time::sleep_until(end.into()).await;
        watches
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_ranges_that_nobody_reads() {
    let member = Member::start(&[]);
    put(&member, "large", 1, 1_000_000).await;
    let name = "40 connections with 50 ranges of 1.3 MB each in a row, unread";
    let growth_kib_max = UNSENT_KIB_MAX + 2 * SMALL_KIB_MAX;
    let case = Case { name, growth_kib_max, left_kib_max: SMALL_KIB_MAX };
    case.run(&member, async |member, end| {
        let key = STANDARD.encode("large");
        let range = request("/v3/kv/range", format!(r#"{{"key":"{key}"}}"#).as_bytes());
        let streams = connect(member, 40, &range.repeat(50)).await;
        tokio::time::sleep_until(end.into()).await;
        streams
    })
    .await;
}

/// Each answer is read as its client takes it, so what they are asked for does not count.
#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_everything_that_nobody_reads() {
    let member = Member::start(&[]);
    let mut kv = KvClient::new(member.channel().await);
    for number in 0..400 {
        let (key, value) = (Bytes::from(format!("{number}")), vec![b'v'; 100_000].into());
        kv.put(PutRequest { key, value, ..Default::default() }).await.unwrap();
    }
    let name = "53 MB on each of 100 connections over HTTP/1.1, unread";
    let growth_kib_max = SMALL_KIB_MAX + (100 << 10);
    let case = Case { name, growth_kib_max, left_kib_max: SMALL_KIB_MAX };
    case.run(&member, async |member, end| {
        let all = request("/v3/kv/range", br#"{"key":"AA==","range_end":"AA=="}"#);
        let streams = connect(member, 100, &all).await;
        tokio::time::sleep_until(end.into()).await;
        streams
    })
    .await;
}

/// What is no request, or no document: nested without end, cut off, lying about its length.
fn rubbish() -> Vec<Vec<u8>> {
    let post = |rest: &str| format!("POST /v3/kv/put HTTP/1.1\r\nHost: x\r\n{rest}").into_bytes();
    vec![
        request("/v3/kv/put", "[".repeat(100_000).as_bytes()),
        request("/v3/kv/put", format!("{{\"key\":{}", "{\"key\":".repeat(50_000)).as_bytes()),
        request("/v3/kv/put", format!("{{\"value\":\"{}", "\\u0000".repeat(100_000)).as_bytes()),
        request("/v3/kv/put", format!("{{\"lease\":{}}}", "9".repeat(100_000)).as_bytes()),
        request("/v3/kv/put", &[0xff; 100_000]),
        post("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}"),
        post("Transfer-Encoding: chunked\r\n\r\n8000000000000000\r\n{}"),
        post("Content-Length: 18446744073709551615\r\n\r\n{}"),
        post("Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"),
        post(&format!("{}\r\n", "X: y\r\n".repeat(10_000))),
        post(&format!("X: {}\r\n\r\n", "y".repeat(2 << 20))),
        b"GET /v3/watch HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\
          \x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0{}"
            .to_vec(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_is_refused() {
    let member = Member::start(&[]);
    let name = "rubbish to the gateway";
    let case = Case { name, growth_kib_max: SMALL_KIB_MAX, left_kib_max: SMALL_KIB_MAX };
    case.run(&member, async |member, end| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let address = member.address.clone();
                thread::spawn(move || {
                    let all = rubbish();
                    for one in all.iter().cycle() {
                        if Instant::now() > end {
                            return;
                        }
                        let mut stream = TcpStream::connect(&address).unwrap();
                        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
                        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                        // The server may hang up before all of it is sent.
                        let _ = stream.write_all(one);
                        let mut answer = [0; 1024];
                        let bytes = stream.read(&mut answer).unwrap_or(0);
                        let answer = String::from_utf8_lossy(&answer[..bytes]);
                        assert!(!answer.contains(" 200 ") || foreign().is_some(), "{answer}");
                    }
                })
            })
            .collect();
        let join = || threads.into_iter().for_each(|thread| thread.join().unwrap());
        tokio::task::spawn_blocking(join).await.unwrap();
    })
    .await;
    put(&member, "after", 1, 10).await;
}
