//! Heads as they come in pieces of any size.

use super::chunks::Fed;
use super::*;

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
    let input = format!("GET / HTTP/1.1\r\n{lines}Host: a\r\nCookie: b\r\n{lines}\r\n");
    for cut in [1000, input.len()] {
        let (passed, _, _) = through(input.as_bytes(), cut);
        assert_eq!(passed, b"GET / HTTP/1.1\r\nHost: a\r\nCookie: b\r\n\r\n");
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
