//! Large numbers of connections, pings, settings and resets.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::case::Case;
use super::fixture::{Member, PATIENCE, foreign};
use super::frames::{END_HEADERS, HEADERS, PING, call, frame, hello};

/// Opens a connection, sends `first` and then `piece` over and over, and reads nothing. When the
/// server ends the connection or stops reading it, opens the next, until `end`. Returns the last
/// connection.
fn flood(address: &str, first: &[u8], piece: &[u8], end: Instant) -> Option<TcpStream> {
    let mut last = None;
    while Instant::now() < end {
        let Ok(mut stream) = TcpStream::connect(address) else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut sent = stream.write_all(first);
        while Instant::now() < end && sent.is_ok() {
            sent = stream.write_all(piece);
        }
        last = Some(stream);
    }
    last
}

/// Floods from `count` threads.
async fn floods(
    count: usize,
    member: &Member,
    end: Instant,
    first: &[u8],
    piece: &[u8],
) -> Vec<TcpStream> {
    let threads: Vec<_> = (0..count)
        .map(|_| {
            let (address, first, piece) = (member.address.clone(), first.to_vec(), piece.to_vec());
            thread::spawn(move || flood(&address, &first, &piece, end))
        })
        .collect();
    tokio::task::spawn_blocking(move || {
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_that_want_answers() {
    let member = Member::start(&[]);
    let case = Case { name: "pings, unread", growth_kib_max: 32 << 10, left_kib_max: 16 << 10 };
    let pings = frame(PING, 0, 0, &[7; 8]).repeat(500);
    case.run(&member, async |member, end| floods(4, member, end, &hello(&[]), &pings).await).await;
}

/// A few connections only, so that a bound on connections does not help the server.
#[tokio::test(flavor = "multi_thread")]
async fn calls_that_are_begun_and_left() {
    let member = Member::start(&[]);
    let name = "10 connections with 3000 begun calls each";
    // 120 MiB: four kilobytes for each call. 64 MiB: a busy debug build.
    let case = Case { name, growth_kib_max: (120 + 64) << 10, left_kib_max: 16 << 10 };
    case.run(&member, async |member, end| {
        let address = member.address.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let mut streams = Vec::new();
            for _ in 0..10 {
                let mut stream = TcpStream::connect(&address).unwrap();
                let heads = (0..3000).flat_map(|number| {
                    frame(HEADERS, END_HEADERS, 2 * number + 1, &call("/etcdserverpb.KV/Put"))
                });
                let heads: Vec<u8> = heads.collect();
                stream.write_all(&[hello(&[]), heads].concat()).unwrap();
                streams.push(stream);
            }
            streams
        });
        let opened = opened.await.unwrap();
        tokio::time::sleep_until(end.into()).await;
        opened
    })
    .await;
}

/// Three waves in sequence: the memory that they leave behind must not add up.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_say_nothing() {
    let member = Member::start(&[]);
    let before = member.usage().anonymous_kib;
    for name in ["3000 silent connections", "3000 more", "and 3000 more"] {
        let case = Case { name, growth_kib_max: 64 << 10, left_kib_max: 16 << 10 };
        case.run(&member, silent).await;
    }
    // The allocator returns memory some time after the connections have ended.
    let late = Instant::now() + PATIENCE / 2;
    loop {
        let left = member.usage().anonymous_kib.saturating_sub(before);
        if foreign().is_some() || left <= 24 << 10 {
            eprintln!("+{} MiB after all of them", left >> 10);
            return;
        }
        assert!(Instant::now() < late, "{left} KiB of memory are left");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn silent(member: &Member, end: Instant) -> Vec<TcpStream> {
    let address = member.address.clone();
    let opened = tokio::task::spawn_blocking(move || {
        let start = Instant::now();
        let mut streams: Vec<TcpStream> = Vec::new();
        for _ in 0..3000 {
            match TcpStream::connect(&address) {
                Ok(stream) => streams.push(stream),
                Err(_) => break,
            }
        }
        eprintln!("{} connections in {:?}", streams.len(), start.elapsed());
        streams
    });
    let opened = opened.await.unwrap();
    tokio::time::sleep_until(end.into()).await;
    opened
}
