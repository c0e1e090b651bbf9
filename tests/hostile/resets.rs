//! Calls that their clients cancel: in sequence on one well-behaved connection, and in large
//! numbers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use prost::Message;
use rusd::pb::watch_request::RequestUnion;
use rusd::pb::{RangeRequest, WatchCreateRequest, WatchRequest};

use super::case::Case;
use super::fixture::{Member, PATIENCE};
use super::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RESET, SETTINGS, call, frame, hello,
    message,
};

const RANGE: &str = "/etcdserverpb.KV/Range";
const WATCH: &str = "/etcdserverpb.Watch/Watch";
const CANCEL: [u8; 4] = [0, 0, 0, 8];

fn range() -> Vec<u8> {
    message(&RangeRequest { key: "a".into(), ..Default::default() }.encode_to_vec())
}

fn watch() -> Vec<u8> {
    let create = WatchCreateRequest { key: "a".into(), ..Default::default() };
    let request_union = Some(RequestUnion::CreateRequest(create));
    message(&WatchRequest { request_union }.encode_to_vec())
}

/// The frames of a call on this stream, and its cancellation right behind them.
fn cancelled(path: &str, payload: &[u8], end: u8, stream: u32) -> Vec<u8> {
    let head = frame(HEADERS, END_HEADERS, stream, &call(path));
    [head, frame(DATA, end, stream, payload), frame(RESET, 0, stream, &CANCEL)].concat()
}

/// Connects. The receiver gets an item for each answered ping, and an error when the server ends
/// the connection.
fn connect(address: &str) -> (TcpStream, Receiver<Result<(), String>>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&hello(&[])).unwrap();
    let (mut reader, (said, heard)) = (stream.try_clone().unwrap(), mpsc::channel());
    thread::spawn(move || {
        let mut head = [0; 9];
        while reader.read_exact(&mut head).is_ok() {
            let [a, b, c, kind, flags, ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            if reader.read_exact(&mut payload).is_err() {
                break;
            }
            let answered = match kind {
                SETTINGS if flags & 1 == 0 => reader.write_all(&frame(SETTINGS, 1, 0, &[])),
                PING if flags & 1 == 0 => reader.write_all(&frame(PING, 1, 0, &payload)),
                _ => Ok(()),
            };
            let news = match kind {
                PING if flags & 1 == 1 => Ok(()),
                GOAWAY => Err(String::from_utf8_lossy(&payload).into_owned()),
                _ => continue,
            };
            if answered.is_err() || said.send(news).is_err() {
                break;
            }
        }
    });
    (stream, heard)
}

/// Cancels `calls` calls, `at_once` of them in each write. Checks every 5000 calls that the
/// connection still works.
fn cancel_in_sequence(address: &str, calls: u32, at_once: u32, path: &str, payload: &[u8]) {
    let (mut stream, heard) = connect(address);
    let numbers: Vec<u32> = (0..calls).collect();
    for (part, numbers) in numbers.chunks(at_once as usize).enumerate() {
        let end = if path == RANGE { END_STREAM } else { 0 };
        let mut bytes = Vec::new();
        let is_asked = (part as u32 * at_once).is_multiple_of(5000);
        let cancels = numbers.len() - usize::from(is_asked);
        for number in &numbers[..cancels] {
            bytes.extend(cancelled(path, payload, end, 2 * number + 1));
        }
        for number in &numbers[cancels..] {
            // Servers limit pings, but allow one after each answered call.
            bytes.extend(frame(HEADERS, END_HEADERS, 2 * number + 1, &call(RANGE)));
            bytes.extend(frame(DATA, END_STREAM, 2 * number + 1, &range()));
            bytes.extend(frame(PING, 0, 0, &[7; 8]));
        }
        stream.write_all(&bytes).unwrap();
        if is_asked {
            heard.recv_timeout(PATIENCE).unwrap().unwrap_or_else(|why| {
                panic!("{path}, {at_once} at once, call {}: {why}", numbers[0]);
            });
        }
    }
    // The last call is answered.
    let last = 2 * calls + 1;
    let head = frame(HEADERS, END_HEADERS, last, &call(RANGE));
    let ask = [head, frame(DATA, END_STREAM, last, &range()), frame(PING, 0, 0, &[7; 8])];
    stream.write_all(&ask.concat()).unwrap();
    heard.recv_timeout(PATIENCE).unwrap().unwrap_or_else(|why| panic!("{path}: {why}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_calls_cancelled_in_sequence() {
    let member = Member::start(&["--grpc-keepalive-min-time", "0s"]);
    let name = "100,000 calls cancelled one by one";
    let case = Case { name, growth_kib_max: 64 << 10, left_kib_max: 32 << 10 };
    case.run(&member, async |member, _| {
        let address = member.address.clone();
        let work = move || {
            for (path, payload) in [(RANGE, range()), (WATCH, watch())] {
                cancel_in_sequence(&address, 40_000, 1, path, &payload);
                cancel_in_sequence(&address, 10_000, 100, path, &payload);
            }
        };
        tokio::task::spawn_blocking(work).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_on_many_connections() {
    let member = Member::start(&[]);
    let case = Case { name: "rapid resets", growth_kib_max: 64 << 10, left_kib_max: 32 << 10 };
    case.run(&member, async |member, end| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let address = member.address.clone();
                thread::spawn(move || {
                    while Instant::now() < end {
                        let (mut stream, _heard) = connect(&address);
                        for first in (0..1_000_000).step_by(100) {
                            let mut bytes = Vec::new();
                            for number in first..first + 100 {
                                let head =
                                    frame(HEADERS, END_HEADERS, 2 * number + 1, &call(RANGE));
                                bytes.extend(head);
                                let reset = frame(RESET, 0, 2 * number + 1, &CANCEL);
                                // Every other call is reset twice, which no well-behaved client
                                // does.
                                bytes.extend(reset.repeat(1 + number as usize % 2));
                            }
                            if stream.write_all(&bytes).is_err() || Instant::now() > end {
                                break;
                            }
                        }
                    }
                })
            })
            .collect();
        let wait = move || threads.into_iter().for_each(|thread| thread.join().unwrap());
        tokio::task::spawn_blocking(wait).await.unwrap();
    })
    .await;
}
