//! Messages of which only a part comes, on many streams of many connections, before any login.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rusd::pb::PutRequest;
use rusd::pb::kv_client::KvClient;

use super::fixture::{Case, Member, PATIENCE};
use super::frames::{DATA, END_HEADERS, HEADERS, WINDOW_UPDATE, call, frame, hello};

/// What the member holds of such messages, twice for how a message grows, and a busy debug build.
const UNFINISHED_KIB_MAX: u64 = (2 * 128 + 256) << 10;
const CONNECTIONS: usize = 60;
const STREAMS: u32 = 200;
/// Less than a stream's first window, and all of them less than their connection's.
const PART_BYTES: usize = 60_000;

/// The beginning of a message of 2 MiB.
fn part(stream: u32, path: &str) -> Vec<u8> {
    let message = [&[0][..], &(2_u32 << 20).to_be_bytes(), &vec![7; PART_BYTES - 5]].concat();
    let mut bytes = frame(HEADERS, END_HEADERS, stream, &call(path));
    for payload in message.chunks(16 << 10) {
        bytes.extend(frame(DATA, 0, stream, payload));
    }
    bytes
}

/// Waits until the server has told the connection's window.
fn await_window(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).unwrap();
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).unwrap();
        if head[3] == WINDOW_UPDATE && head[5..] == [0; 4] {
            return;
        }
    }
}

async fn parts_of(path: &'static str, name: &'static str) {
    let member = Member::start(&[]);
    let case = Case { name, growth_kib_max: UNFINISHED_KIB_MAX, left_kib_max: 96 << 10 };
    case.run(&member, async |member, end| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let address = member.address.clone();
                tokio::task::spawn_blocking(move || {
                    let mut stream = TcpStream::connect(&address).unwrap();
                    stream.set_write_timeout(Some(PATIENCE)).unwrap();
                    stream.write_all(&hello(&[])).unwrap();
                    await_window(&mut stream);
                    for number in 0..STREAMS {
                        stream.write_all(&part(2 * number + 1, path)).unwrap();
                    }
                    stream
                })
            })
            .collect();
        let mut held = Vec::new();
        for thread in threads {
            held.push(thread.await.unwrap());
        }
        tokio::time::sleep_until(end.into()).await;
        let ended = || member.metric("rusd_network_client_unfinished_ended_total");
        let late = Instant::now() + PATIENCE;
        while ended() == 0.0 {
            assert!(Instant::now() < late, "no call has ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let bytes = member.metric("rusd_network_client_unfinished_bytes");
        assert!(bytes > 0.0 && bytes <= f64::from(128 << 20), "{bytes} bytes are said to be there");
        // Whoever sends all of a message is served.
        let mut kv = KvClient::new(member.channel().await);
        for _ in 0..4 {
            let value = Bytes::from(vec![b'v'; 1_000_000]);
            kv.put(PutRequest { key: "large".into(), value, ..Default::default() }).await.unwrap();
        }
        held
    })
    .await;
    let end = Instant::now() + PATIENCE;
    while member.metric("rusd_network_client_unfinished_bytes") > 0.0 {
        assert!(Instant::now() < end, "what nobody will finish still counts");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_without_their_ends() {
    parts_of("/etcdserverpb.KV/Put", "12,000 puts without their ends").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_streams_without_their_ends() {
    parts_of("/etcdserverpb.Watch/Watch", "12,000 requests of watches without their ends").await;
}
