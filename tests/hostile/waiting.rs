//! Complete requests on streams whose answers are not taken: the server does not read them, and
//! they wait.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::case::Case;
use super::fixture::{Member, PATIENCE};
use super::frames::{DATA, END_HEADERS, HEADERS, SETTINGS, call, frame, hello, message};
use super::unfinished::await_window;

/// 192 MiB of unread requests: one and a half times `UNREAD_BYTES_MAX`, above which connections are
/// read more slowly. 64 MiB that the allocator keeps. 192 MiB for a busy debug build.
const WAITING_KIB_MAX: u64 = (192 + 64 + 192) << 10;
const CONNECTIONS: usize = 80;
/// As many streams as nearly fill the connection's window, if each fills its own.
const STREAMS: u32 = 64;
const FRAMES: usize = 15;
const FRAME_BYTES: usize = 16 << 10;
const INITIAL_WINDOW_SIZE: u16 = 4;
/// A frame type that HTTP/2 does not define.
const UNKNOWN: u8 = 0xff;
/// A flag of SETTINGS.
const ACK: u8 = 1;

/// As many copies of a request as fill one frame.
fn requests(one: &[u8]) -> Vec<u8> {
    let one = message(one);
    assert_eq!(FRAME_BYTES % one.len(), 0);
    one.repeat(FRAME_BYTES / one.len())
}

/// Sends `count` pieces on each connection, as far as the server reads them, and takes no answers.
async fn unread<P>(name: &'static str, count: u32, piece: P)
where
    P: Fn(u32) -> Vec<u8> + Send + Copy + 'static,
{
    let member = Member::start(&[]);
    let case = Case { name, growth_kib_max: WAITING_KIB_MAX, left_kib_max: 96 << 10 };
    case.run(&member, async |member, end| {
        // When the server closes connections, it reads on from others, so they are written to for a
        // while.
        let late = Instant::now() + PATIENCE / 8;
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let address = member.address.clone();
                tokio::task::spawn_blocking(move || {
                    let mut stream = TcpStream::connect(&address).unwrap();
                    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
                    stream.write_all(&hello(&[(INITIAL_WINDOW_SIZE, 0)])).unwrap();
                    await_window(&mut stream);
                    // The server's SETTINGS, with the windows of streams, apply once they are
                    // acknowledged.
                    stream.write_all(&frame(SETTINGS, ACK, 0, &[])).unwrap();
                    for bytes in (0..count).map(piece) {
                        let mut parts = bytes.chunks(FRAME_BYTES);
                        // Ends when the server reads no more or has closed the connection.
                        if parts
                            .any(|part| Instant::now() > late || stream.write_all(part).is_err())
                        {
                            break;
                        }
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
        let closed = "rusd_network_client_unread_closed_total";
        member.until("no connection is closed", closed, |count| count > 0.0).await;
        assert!(member.log().contains("closing connections whose requests cannot be read"));
        let bytes = member.metric("rusd_network_client_unread_bytes");
        let most = (192 << 20) + CONNECTIONS * 4 * FRAME_BYTES;
        assert!(bytes > 0.0 && bytes <= most as f64, "{bytes} bytes are said to wait");
        member.takes_large_puts().await;
        held
    })
    .await;
    let bytes = "rusd_network_client_unread_bytes";
    member.until("what nobody will read still counts", bytes, |bytes| bytes <= 0.0).await;
}

/// A call that sends `first`, and then `FRAMES` frames full of `one`.
fn full(number: u32, path: &str, first: &[u8], one: &[u8]) -> Vec<u8> {
    let (number, requests) = (2 * number + 1, requests(one));
    let mut bytes = frame(HEADERS, END_HEADERS, number, &call(path));
    bytes.extend(frame(DATA, 0, number, first));
    for _ in 0..FRAMES {
        bytes.extend(frame(DATA, 0, number, &requests));
    }
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn renewals_whose_answers_are_not_taken() {
    unread("80 connections full of renewals that are not read", STREAMS, |number| {
        // A renewal of an unknown lease, with an unknown field that makes it longer.
        let renewal = &[8, 7, 0x12, 7, 0, 0, 0, 0, 0, 0, 0];
        full(number, "/etcdserverpb.Lease/LeaseKeepAlive", &[], renewal)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_watches_whose_answers_are_not_taken() {
    unread("80 connections full of requests of watches that are not read", STREAMS, |number| {
        let create = message(&[0x0a, 3, 0x0a, 1, b'k']);
        // A progress request, with an unknown field that makes it longer.
        let request = &[0x1a, 9, 0x0a, 7, 0, 0, 0, 0, 0, 0, 0];
        full(number, "/etcdserverpb.Watch/Watch", &create, request)
    })
    .await;
}

/// A request of a few bytes keeps the whole buffer that it was read into.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_not_read_between_large_frames_that_say_nothing() {
    unread("80 connections with 2000 unread bytes in 16 MB of frames", 2000, |number| {
        let head = frame(HEADERS, END_HEADERS, 1, &call("/etcdserverpb.Lease/LeaseKeepAlive"));
        let head = if number == 0 { head } else { Vec::new() };
        [head, frame(DATA, 0, 1, &[0]), frame(UNKNOWN, 0, 0, &[7; 8100])].concat()
    })
    .await;
}
