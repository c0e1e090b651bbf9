//! Heads as they come in pieces of any size.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::chunks::Fed;
use super::*;
use crate::clock::split_mix;

/// What hyper gets of the bytes if they come `cut` at a time, the refusal behind it, and the fault
/// of a body.
fn through(bytes: &[u8], cut: usize) -> (Vec<u8>, Vec<u8>, Option<&'static str>) {
    let mut heads = Heads::new(false);
    let mut out = Vec::new();
    let mut pieces = bytes.chunks(cut);
    loop {
        while heads.take_ready(7, |ready| out.extend_from_slice(ready)) {}
        if heads.is_over() {
            break;
        }
        match pieces.next() {
            Some(piece) => {
                let passed = heads.pass(piece);
                out.extend_from_slice(&piece[..passed]);
            }
            None => heads.end(),
        }
    }
    let refusal = heads.take_due_refusal().map(|refusal| refusal.answer()).unwrap_or_default();
    (out, refusal, heads.fault())
}

const GET: &str = "GET /version HTTP/1.1\r\nHost: a\r\n\r\n";
const POST: &str = "POST /v3/kv/range HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}";
const CHUNKED: &str = "POST /v3/kv/range HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                       2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n";

#[test]
fn requests_pass_however_they_are_cut() {
    let bad = refusal_of("400 Bad Request");
    let cases = [
        ([GET, GET].concat(), [GET, GET].concat(), ""),
        ([POST, GET, CHUNKED, POST].concat(), [POST, GET, CHUNKED, POST].concat(), ""),
        // Line ends behind a body, of which Go takes four bytes.
        ([POST, "\r\n\r\n", GET].concat(), [POST, GET].concat(), ""),
        ([POST, "\r\n\r\n\r\n", GET].concat(), POST.to_owned(), bad.as_str()),
        ([CHUNKED, "GET\r\n\r\n", GET].concat(), CHUNKED.to_owned(), bad.as_str()),
        ([GET, "GET /vers"].concat(), GET.to_owned(), bad.as_str()),
        (
            "GET /\"a\" HTTP/1.7\r\nHost:\r\n a\r\nX: b \r\n\tc\r\n\r\n".to_owned() + GET,
            "GET /%22a%22 HTTP/1.1\r\nHost: a\r\nX: b  c\r\n\r\n".to_owned() + GET,
            "",
        ),
        // Nothing comes behind them.
        ([GET, POST, "\r\n"].concat(), [GET, POST].concat(), ""),
        // Nothing is read behind the last request.
        (
            GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n") + "\0\0\r\n",
            GET.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
            "",
        ),
    ];
    for (input, output, refusal) in cases {
        for cut in 1..=input.len() {
            let (passed, refused, fault) = through(input.as_bytes(), cut);
            assert_eq!(String::from_utf8(passed).unwrap(), output, "cut {cut}");
            assert_eq!(String::from_utf8(refused).unwrap(), refusal, "cut {cut}");
            assert_eq!(fault, None);
        }
    }
}

fn refusal_of(text: &str) -> String {
    format!(
        "HTTP/1.1 {text}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n\
         {text}"
    )
}

#[test]
fn a_faulty_chunk_ends_its_body_with_a_reason() {
    let input = CHUNKED.replace("0\r\nX", "+0\r\nX");
    for cut in 1..=input.len() {
        let (passed, refused, fault) = through(input.as_bytes(), cut);
        assert_eq!(fault, Some("invalid byte in chunk length"), "cut {cut}");
        assert!(String::from_utf8(passed).unwrap().contains("2;a=b\r\n{}\r\n"), "cut {cut}");
        assert!(refused.is_empty(), "cut {cut}");
    }
    let mut chunks = Chunks::default();
    assert_eq!(chunks.feed(b"2\r\n{}\r\n00\r\n\r\nGET"), Fed::Whole(13));
}

#[test]
fn a_long_head_keeps_what_is_looked_at() {
    let lines: String = (0..20_000).map(|line| format!("X-{line}: a\r\n")).collect();
    let trace = "Grpc-Metadata-Traceparent: c\r\nGrpc-Metadata-Tracestate: d\r\n";
    let input = format!("GET / HTTP/1.1\r\n{lines}Host: a\r\nCookie: b\r\n{lines}{trace}\r\n");
    let kept = format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: b\r\n{trace}\r\n");
    for cut in [1000, input.len()] {
        let (passed, _, _) = through(input.as_bytes(), cut);
        assert_eq!(passed, kept.as_bytes());
    }
    let tokens = "Cookie: a\r\n".repeat(limits::HTTP1_HEAD_LINES_MAX + 1);
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(limits::HTTP1_HEAD_BYTES_MAX));
    for input in [format!("GET / HTTP/1.1\r\n{tokens}Host: a\r\n\r\n"), endless] {
        let (passed, refused, _) = through(input.as_bytes(), 4000);
        assert_eq!(passed, b"");
        let refused = String::from_utf8(refused).unwrap();
        assert_eq!(refused, refusal_of("431 Request Header Fields Too Large"));
    }
}

#[test]
fn what_follows_a_request_for_another_protocol_waits_for_the_answer() {
    let upgrade = GET.replace("\r\n\r\n", "\r\nUpgrade: websocket\r\n\r\n");
    for is_through in [true, false] {
        let mut heads = Heads::new(false);
        let input = upgrade.clone() + "\x01\x02\r\n";
        assert_eq!(heads.pass(input.as_bytes()), upgrade.len());
        assert!(!heads.take_ready(100, |_| ()));
        heads.answered(is_through);
        let mut out = Vec::new();
        assert_eq!(heads.take_ready(100, |ready| out.extend_from_slice(ready)), is_through);
        assert_eq!(out, if is_through { &b"\x01\x02\r\n"[..] } else { b"" });
        assert_eq!(heads.is_over(), !is_through);
        assert_eq!(heads.take_due_refusal(), (!is_through).then_some(head::BAD));
    }
}

#[test]
fn a_port_of_grpc_says_nothing_to_what_is_not_http() {
    for (input, refusal) in [
        ("\x16\x03\x01\n", Some(head::SILENT)),
        ("GET / HTTP/2.0\r\n", Some(head::SILENT)),
        ("G(T / HTTP/1.1\r\n", Some(head::BAD)),
        ("GET / HTTP/1.1\r\n", None),
    ] {
        let mut heads = Heads::new(true);
        assert_eq!(heads.pass(input.as_bytes()), 0, "{input:?}");
        assert_eq!((heads.is_over(), heads.take_due_refusal()), (refusal.is_some(), refusal));
    }
    let long = format!("GET /{}", "a".repeat(limits::HTTP1_LINE_SNIFFED_BYTES_MAX));
    let mut heads = Heads::new(true);
    assert_eq!(heads.pass(long.as_bytes()), 0);
    assert!(heads.is_over() && heads.take_due_refusal() == Some(head::SILENT));
}

#[test]
fn any_number_of_heads_is_written_anew_at_once() {
    let heads = "GET /\" HTTP/1.2\nHost:\n\n".repeat(100_000);
    let (passed, refused, _) = through(heads.as_bytes(), heads.len());
    assert_eq!(passed.len(), 100_000 * "GET /%22 HTTP/1.1\r\nHost: \r\n\r\n".len());
    assert!(refused.is_empty());
}

/// The paths of the requests that begin in these bytes, which pass unchanged.
fn paths_of(bytes: &[u8]) -> Vec<String> {
    let mut heads = Heads::new(false);
    let (mut paths, mut begun) = (Vec::new(), 0);
    for (at, byte) in bytes.iter().enumerate() {
        let was_head = matches!(heads.state, State::Head);
        heads.pass(&[*byte]);
        while heads.take_ready(usize::MAX, |_| ()) {}
        if was_head && heads.held.is_empty() {
            let head = String::from_utf8_lossy(&bytes[begun..=at]).into_owned();
            paths.extend(head.split(' ').nth(1).map(str::to_owned));
        }
        if heads.held.is_empty() {
            begun = at + 1;
        }
    }
    paths
}

/// The paths of the requests that hyper finds in these bytes.
async fn paths_for_hyper(bytes: &[u8]) -> Vec<String> {
    let (mut client, server) = tokio::io::duplex(1 << 16);
    let found = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let found = Arc::clone(&found);
        async move {
            found.lock().push(request.uri().path().to_owned());
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(http::Response::new(Full::<bytes::Bytes>::default()))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    let serve = builder.half_close(true).serve_connection(TokioIo::new(server), service);
    let talk = async {
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let _ = client.read_to_end(&mut Vec::new()).await;
    };
    let _ = tokio::join!(serve, talk);
    std::mem::take(&mut *found.lock())
}

/// Where a request ends must be the same for both, or one could be hidden in another.
#[tokio::test]
async fn hyper_finds_no_request_that_was_not_judged() {
    const PARTS: [&str; 20] = [
        "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
        "GET /with HTTP/1.1\r\nHost: a\r\nContent-Length: 25\r\n\r\n",
        "GET /plain HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /plain HTTP/1.1\r\nHost: a\r\n",
        "2\r\n{}\r\n",
        "2;a=b \r\n{}",
        "0\r\n",
        "0\r\n",
        "0\r\n\r\n",
        "0\r\n\n",
        "0;\r\n",
        "X: y\r\n",
        "X: y\n",
        "X: y\r\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        "abc",
    ];
    let mut seed = 1;
    for _ in 0..3000 {
        let mut next = |below: usize| {
            seed = split_mix(seed);
            (seed % below as u64) as usize
        };
        let mut input = PARTS[next(3)].to_owned();
        (0..2 + next(9)).for_each(|_| input += PARTS[next(PARTS.len())]);
        let (passed, _, _) = through(input.as_bytes(), 1 + next(input.len()));
        let judged = paths_of(&passed);
        let found = paths_for_hyper(&passed).await;
        // hyper may give up earlier.
        assert!(judged.starts_with(&found), "{input:?}: {found:?} of {judged:?}");
    }
}
