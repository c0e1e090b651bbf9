//! Messages that are sent in part only, on many streams of many connections, without a login.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rusd::pb::PutRequest;
use rusd::pb::kv_client::KvClient;

use super::case::Case;
use super::fixture::{Member, PATIENCE};
use super::frames::{
    DATA, END_HEADERS, HEADERS, INITIAL_WINDOW_SIZE, WINDOW_UPDATE, call, frame, hello, message,
};

/// 128 MiB: the server's bound on unfinished messages. Twice, since a message grows by copying. 256
/// MiB: a busy debug build.
const UNFINISHED_KIB_MAX: u64 = (2 * 128 + 256) << 10;
const CONNECTIONS: usize = 60;
const STREAMS: u32 = 200;
/// Less than a stream's initial window; all parts of a connection fit into its window.
const PART_BYTES: usize = 60_000;

/// The beginning of a call whose message states 2 MiB.
fn part(stream: u32, path: &str) -> Vec<u8> {
    [frame(HEADERS, END_HEADERS, stream, &call(path)), rest_missing(stream)].concat()
}

fn rest_missing(stream: u32) -> Vec<u8> {
    let message = [&[0][..], &(2_u32 << 20).to_be_bytes(), &vec![7; PART_BYTES - 5]].concat();
    let mut bytes = Vec::new();
    for payload in message.chunks(16 << 10) {
        bytes.extend(frame(DATA, 0, stream, payload));
    }
    bytes
}

/// Waits until the server has announced the connection's window.
pub fn await_window(stream: &mut TcpStream) {
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
        let ended = "rusd_network_client_unfinished_ended_total";
        member.until("no call has ended", ended, |count| count > 0.0).await;
        let bytes = member.metric("rusd_network_client_unfinished_bytes");
        // Messages that were given up count until their buffers are freed.
        let most = f64::from(2 * (128 << 20));
        assert!(bytes > 0.0 && bytes <= most, "{bytes} bytes are said to be there");
        member.takes_large_puts().await;
        held
    })
    .await;
    let bytes = "rusd_network_client_unfinished_bytes";
    member.until("what nobody will finish still counts", bytes, |bytes| bytes <= 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn puts_without_their_ends() {
    parts_of("/etcdserverpb.KV/Put", "12,000 puts without their ends").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_streams_without_their_ends() {
    parts_of("/etcdserverpb.Watch/Watch", "12,000 requests of watches without their ends").await;
}

/// A connection that is read, and the bytes that the server's window still permits it to send.
#[derive(Default)]
struct Windowed {
    left: AtomicI64,
    is_ended: AtomicBool,
}

impl Windowed {
    fn read(&self, mut stream: TcpStream) {
        let mut next = || -> std::io::Result<()> {
            let mut head = [0; 9];
            stream.read_exact(&mut head)?;
            let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
            stream.read_exact(&mut payload)?;
            if head[3] == WINDOW_UPDATE && head[5..] == [0; 4] {
                let more = u32::from_be_bytes(payload[..4].try_into().unwrap());
                self.left.fetch_add(i64::from(more), Ordering::SeqCst);
            }
            Ok(())
        };
        while next().is_ok() {}
        self.is_ended.store(true, Ordering::SeqCst);
    }

    fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::SeqCst)
    }

    /// Sends `bytes`, of which `data_bytes` are DATA, once the window permits it.
    fn send(&self, stream: &mut TcpStream, bytes: &[u8], data_bytes: usize) {
        let late = Instant::now() + PATIENCE;
        let data_bytes = i64::try_from(data_bytes).unwrap();
        while self.left.load(Ordering::SeqCst) < data_bytes && !self.is_ended() {
            assert!(Instant::now() < late, "the server permits no more");
            std::thread::sleep(Duration::from_millis(1));
        }
        self.left.fetch_sub(data_bytes, Ordering::SeqCst);
        // Fails if the server has ended the connection.
        let _ = stream.write_all(bytes);
    }
}

/// A watch stream reads no requests while an event waits for its client's window. So it does not
/// notice that the part of its next request was given up, and the server must free that part
/// without it.
#[tokio::test(flavor = "multi_thread")]
async fn requests_without_their_ends_on_streams_that_take_no_event() {
    const ROUNDS_MAX: u32 = 20;
    let member = Member::start(&[]);
    let name = "requests without their ends of watches whose events are not taken";
    let growth_kib_max = (2 * 2 * 32 + 256) << 10;
    let case = Case { name, growth_kib_max, left_kib_max: 96 << 10 };
    case.run(&member, async |member, end| {
        let mut kv = KvClient::new(member.channel().await);
        let mut stream = TcpStream::connect(&member.address).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&hello(&[(INITIAL_WINDOW_SIZE, 1)])).unwrap();
        let shared = Arc::new(Windowed::default());
        shared.left.store(65_535, Ordering::SeqCst);
        let (reads, reader) = (Arc::clone(&shared), stream.try_clone().unwrap());
        let reader = tokio::task::spawn_blocking(move || reads.read(reader));
        // Creates a watch on the key `k`.
        let create = message(&[0x0a, 3, 0x0a, 1, b'k']);
        for round in 0..ROUNDS_MAX {
            let (shared, mut sender, create) =
                (Arc::clone(&shared), stream.try_clone().unwrap(), create.clone());
            let sent = tokio::task::spawn_blocking(move || {
                for number in round * STREAMS..(round + 1) * STREAMS {
                    let number = 2 * number + 1;
                    let head = call("/etcdserverpb.Watch/Watch");
                    let bytes = [
                        frame(HEADERS, END_HEADERS, number, &head),
                        frame(DATA, 0, number, &create),
                        rest_missing(number),
                    ];
                    shared.send(&mut sender, &bytes.concat(), create.len() + PART_BYTES);
                }
            });
            sent.await.unwrap();
            // Parts that the streams read within this time end in the usual way, and another round
            // is needed.
            tokio::time::sleep(Duration::from_millis(200)).await;
            kv.put(PutRequest { key: "k".into(), ..Default::default() }).await.unwrap();
            tokio::time::sleep(Duration::from_millis(200)).await;
            if member.log().contains("streams with unfinished requests") {
                break;
            }
        }
        let late = Instant::now() + PATIENCE / 4;
        let has_said =
            || member.log().contains("closing a connection whose client takes no answers");
        while !shared.is_ended() || !has_said() {
            assert!(Instant::now() < late, "the connection goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        reader.await.unwrap();
        tokio::time::sleep_until(end.into()).await;
        stream
    })
    .await;
    let bytes = "rusd_network_client_unfinished_bytes";
    member.until("what nobody will finish still counts", bytes, |bytes| bytes <= 0.0).await;
}
