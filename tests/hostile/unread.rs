//! Clients that ask and do not read. The answers that wait for them are bounded, without a login.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use rusd::pb::kv_client::KvClient;
use rusd::pb::request_op::Request;
use rusd::pb::{PutRequest, RangeRequest, RequestOp, TxnRequest};

use super::case::Case;
use super::fixture::Member;
use super::frames::{
    DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, PING, RESET, SETTINGS,
    WINDOW_UPDATE, call, frame, hello, message,
};

/// The cost of ten connections that are not read, and of a busy debug build.
const SMALL_KIB_MAX: u64 = 128 << 10;

/// Writes what `next` returns on `count` connections and reads nothing, until `end`. A connection
/// whose server stops reading is kept; one that the server ends is opened again.
async fn flood(
    member: &Member,
    count: usize,
    end: Instant,
    next: impl Fn(u32) -> Vec<u8> + Send + Sync + Copy + 'static,
) -> Vec<TcpStream> {
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let address = member.address.clone();
            thread::spawn(move || {
                let mut last = None;
                while Instant::now() < end {
                    let Ok(mut stream) = TcpStream::connect(&address) else {
                        thread::sleep(Duration::from_millis(10));
                        continue;
                    };
                    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
                    let mut number = 0;
                    let mut sent = stream.write_all(&hello(&[]));
                    while sent.is_ok() && Instant::now() < end {
                        let batch: Vec<u8> = (number..number + 500).flat_map(next).collect();
                        number += 500;
                        sent = stream.write_all(&batch);
                    }
                    if sent.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
                        let rest = end.saturating_duration_since(Instant::now());
                        thread::sleep(rest);
                    }
                    last = Some(stream);
                }
                last
            })
        })
        .collect();
    let join = || threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect();
    tokio::task::spawn_blocking(join).await.unwrap()
}

fn stream_of(number: u32) -> u32 {
    2 * number + 1
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_headers_alone() {
    let member = Member::start(&[]);
    let name = "calls of an unknown method, unread";
    let case = Case { name, growth_kib_max: SMALL_KIB_MAX, left_kib_max: SMALL_KIB_MAX };
    case.run(&member, async |member, end| {
        flood(member, 4, end, |number| {
            frame(HEADERS, END_HEADERS | END_STREAM, stream_of(number), &call("/no/such"))
        })
        .await
    })
    .await;
}

/// Calls whose answers come from another thread, and that a client sends faster than it awaits them.
#[tokio::test(flavor = "multi_thread")]
async fn puts_without_a_pause_whose_answers_are_taken() {
    let member = Member::start(&[]);
    let name = "puts in a row, answers taken";
    // The budget: on a busy machine the threads that take the answers may not get their turn.
    let case =
        Case { name, growth_kib_max: (256 << 10) + SMALL_KIB_MAX, left_kib_max: SMALL_KIB_MAX };
    case.run(&member, async |member, end| {
        let address = member.address.clone();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let mut stream = TcpStream::connect(&address).unwrap();
                let mut taken = stream.try_clone().unwrap();
                let window = (u32::MAX / 2 - 65_535).to_be_bytes();
                stream
                    .write_all(&[hello(&[]), frame(WINDOW_UPDATE, 0, 0, &window)].concat())
                    .unwrap();
                // Ends with the connection.
                thread::spawn(move || std::io::copy(&mut taken, &mut std::io::sink()));
                thread::spawn(move || {
                    let mut number = 0;
                    while Instant::now() < end {
                        let calls = (0..100).flat_map(|at| put(stream_of(number + at)));
                        if stream.write_all(&calls.collect::<Vec<_>>()).is_err() {
                            break;
                        }
                        number += 100;
                    }
                    let _ = stream.shutdown(Shutdown::Both);
                })
            })
            .collect();
        let ended = tokio::task::spawn_blocking(|| {
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        ended.await.unwrap();
    })
    .await;
}

fn put(stream: u32) -> Vec<u8> {
    let put = PutRequest { key: "a".into(), value: "b".into(), ..Default::default() };
    let head = frame(HEADERS, END_HEADERS, stream, &call("/etcdserverpb.KV/Put"));
    [head, frame(DATA, END_STREAM, stream, &message(&put.encode_to_vec()))].concat()
}

/// Each change of the windows' size is a change of each open stream.
#[tokio::test(flavor = "multi_thread")]
async fn windows_of_many_open_streams_that_change() {
    let member = Member::start(&[]);
    let name = "windows of 3000 open streams";
    // 48 MiB: four kilobytes for each call.
    let case = Case { name, growth_kib_max: (48 << 10) + SMALL_KIB_MAX, left_kib_max: 16 << 10 };
    case.run(&member, async |member, end| {
        flood(member, 4, end, |number| match number {
            0..3000 => {
                frame(HEADERS, END_HEADERS, stream_of(number), &call("/etcdserverpb.Watch/Watch"))
            }
            _ => {
                let size = (65_535 + number % 2).to_be_bytes();
                let name = INITIAL_WINDOW_SIZE.to_be_bytes();
                frame(SETTINGS, 0, 0, &[&name[..], &size[..]].concat())
            }
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_taken_back_at_once() {
    let member = Member::start(&[]);
    let name = "calls that are reset at once";
    let case = Case { name, growth_kib_max: SMALL_KIB_MAX, left_kib_max: SMALL_KIB_MAX };
    case.run(&member, async |member, end| {
        flood(member, 4, end, |number| {
            let stream = stream_of(number);
            let range = RangeRequest { key: Bytes::from_static(b"a"), ..Default::default() };
            [
                frame(HEADERS, END_HEADERS, stream, &call("/etcdserverpb.KV/Range")),
                frame(DATA, END_STREAM, stream, &message(&range.encode_to_vec())),
                frame(RESET, 0, stream, &[0, 0, 0, 8]),
            ]
            .concat()
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_h2_itself_refuses() {
    let member = Member::start(&[]);
    let name = "malformed calls, unread";
    let case = Case { name, growth_kib_max: SMALL_KIB_MAX, left_kib_max: SMALL_KIB_MAX };
    case.run(&member, async |member, end| {
        // No scheme and no path: the server answers each with RST_STREAM.
        flood(member, 4, end, |number| {
            frame(HEADERS, END_HEADERS | END_STREAM, stream_of(number), b"\x83")
        })
        .await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_and_pings_that_want_an_answer() {
    let member = Member::start(&[]);
    let name = "settings and pings, unread";
    let case = Case { name, growth_kib_max: SMALL_KIB_MAX, left_kib_max: SMALL_KIB_MAX };
    case.run(&member, async |member, end| {
        flood(member, 4, end, |number| match number % 1000 {
            0 => frame(PING, 0, 0, &[7; 8]),
            _ => frame(SETTINGS, 0, 0, &[]),
        })
        .await
    })
    .await;
}

/// 256 MiB: unsent answers up to which long ranges run in parallel. Beyond that, four that are
/// under way, with four times their answer each.
const LARGE_KIB_MAX: u64 = (256 + 4 * 4 * ROWS as u64) << 10;
/// Number of rows, of one megabyte each.
const ROWS: usize = 40;

async fn fill(member: &Member) {
    let mut kv = KvClient::new(member.channel().await);
    for number in 0..ROWS {
        let (key, value) =
            (Bytes::from(format!("large/{number:03}")), vec![b'v'; 1_000_000].into());
        kv.put(PutRequest { key, value, ..Default::default() }).await.unwrap();
    }
}

fn all_large() -> Vec<u8> {
    let range = RangeRequest {
        key: Bytes::from_static(b"large/"),
        range_end: Bytes::from_static(b"large0"),
        ..Default::default()
    };
    message(&range.encode_to_vec())
}

fn ask_for_all(stream: u32) -> Vec<u8> {
    [
        frame(HEADERS, END_HEADERS, stream, &call("/etcdserverpb.KV/Range")),
        frame(DATA, END_STREAM, stream, &all_large()),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_everything_on_one_connection() {
    let member = Member::start(&[]);
    fill(&member).await;
    let name = "40 ranges of 40 MB on one connection, unread";
    let case = Case { name, growth_kib_max: LARGE_KIB_MAX, left_kib_max: 96 << 10 };
    case.run(&member, async |member, end| {
        let mut stream = TcpStream::connect(&member.address).unwrap();
        let asks: Vec<u8> = (0..40).flat_map(|number| ask_for_all(stream_of(number))).collect();
        stream.write_all(&[hello(&[]), asks].concat()).unwrap();
        // The server closes a connection that takes nothing after some time.
        let waits = |bytes| bytes > 0.0;
        member.until("nothing is said to wait", "rusd_network_client_unsent_bytes", waits).await;
        tokio::time::sleep_until(end.into()).await;
        stream
    })
    .await;
    // An answer that is being built for a closed connection counts until it is dropped.
    let name = "rusd_network_client_unsent_bytes";
    member.until("what nobody will read still counts", name, |bytes| bytes == 0.0).await;
}

/// Of an answer that is read in pieces, two wait at a time, each with a row of a megabyte. Beside
/// them four are measured, each with four megabytes in a buffer that has grown. 96 MiB: a busy debug build.
const PIECES_KIB_MAX: u64 = (40 * 4 + 4 * 12 + 96) << 10;

/// Sends the same on so many connections to a member with large rows, and reads nothing.
async fn ask_and_read_nothing(case: Case, connections: usize, asks: Vec<u8>) {
    let member = Member::start(&[]);
    fill(&member).await;
    case.run(&member, async |member, end| {
        let ask = |_| {
            let mut stream = TcpStream::connect(&member.address).unwrap();
            stream.write_all(&asks).unwrap();
            stream
        };
        let streams: Vec<TcpStream> = (0..connections).map(ask).collect();
        tokio::time::sleep_until(end.into()).await;
        streams
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_everything_on_many_connections() {
    let name = "40 MB on each of 40 connections, unread";
    let case = Case { name, growth_kib_max: PIECES_KIB_MAX, left_kib_max: 96 << 10 };
    ask_and_read_nothing(case, 40, [hello(&[]), ask_for_all(1)].concat()).await;
}

/// Of each answer a piece is read before its client opens a window. These pieces count, so that no
/// further call begins on a connection once they have its part of 64 MiB. Each takes twice its bytes.
const WINDOWLESS_KIB_MAX: u64 = (2 * 4 * 64 + 4 * 12 + 96) << 10;

#[tokio::test(flavor = "multi_thread")]
async fn ranges_of_everything_without_a_window() {
    let name = "400 ranges of 40 MB without a window on each of 4 connections";
    let case = Case { name, growth_kib_max: WINDOWLESS_KIB_MAX, left_kib_max: 96 << 10 };
    let asks = (0..400).flat_map(|number| ask_for_all(stream_of(number)));
    let hello = hello(&[(INITIAL_WINDOW_SIZE, 0)]);
    ask_and_read_nothing(case, 4, hello.into_iter().chain(asks).collect()).await;
}

/// 512 MiB: unsent answers up to which writes do not wait. Four answers of ten megabytes under way,
/// four times each. 96 MiB: a busy debug build.
const WRITES_KIB_MAX: u64 = (512 + 4 * 4 * 10 + 96) << 10;

/// A transaction that puts a key and reads ten megabytes. The apply thread makes its answer, and
/// all other writes wait for that thread.
fn change_and_ask_for_ten(stream: u32) -> Vec<u8> {
    let (key, range_end) = (Bytes::from_static(b"large/"), Bytes::from_static(b"large/010"));
    let range = RangeRequest { key, range_end, ..Default::default() };
    let put = PutRequest { key: Bytes::from_static(b"small"), ..Default::default() };
    let requests = [Request::RequestPut(put), Request::RequestRange(range)];
    let success = requests.map(|request| RequestOp { request: Some(request) }).into();
    let txn = TxnRequest { success, ..Default::default() };
    [
        frame(HEADERS, END_HEADERS, stream, &call("/etcdserverpb.KV/Txn")),
        frame(DATA, END_STREAM, stream, &message(&txn.encode_to_vec())),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_answer_with_much() {
    let member = Member::start(&[]);
    fill(&member).await;
    let name = "10 MB in the answer to each of 400 transactions that write, unread";
    let case = Case { name, growth_kib_max: WRITES_KIB_MAX, left_kib_max: 96 << 10 };
    case.run(&member, async |member, end| {
        let ask = |_| {
            let mut stream = TcpStream::connect(&member.address).unwrap();
            let asks = (0..10).flat_map(|number| change_and_ask_for_ten(stream_of(number)));
            stream.write_all(&[hello(&[]), asks.collect()].concat()).unwrap();
            stream
        };
        let streams: Vec<TcpStream> = (0..40).map(ask).collect();
        tokio::time::sleep_until(end.into()).await;
        streams
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_large_answer_is_for_whoever_reads_it_slowly() {
    let member = Member::start(&[]);
    fill(&member).await;
    let slow = member.endpoint().initial_stream_window_size(65_535).connect().await.unwrap();
    let range = RangeRequest {
        key: Bytes::from_static(b"large/"),
        range_end: Bytes::from_static(b"large0"),
        ..Default::default()
    };
    let mut kv = KvClient::new(slow).max_decoding_message_size(usize::MAX);
    let mut answers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (mut kv, range) = (kv.clone(), range.clone());
        answers.spawn(async move { kv.range(range).await.unwrap().into_inner().kvs.len() });
    }
    while let Some(rows) = answers.join_next().await {
        assert_eq!(rows.unwrap(), ROWS);
    }
    assert_eq!(kv.range(range).await.unwrap().into_inner().kvs.len(), ROWS);
}
