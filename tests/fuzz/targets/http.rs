//! Connections to the client and the peer port: HTTP/1.1 and HTTP/2, from the first byte on.

use bytes::BytesMut;
use rusd::http::{Config, Http as Handlers, Port};
use rusd::rpc::METHODS;
use rusd::server::{Served, serve_connection};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::grpc::{framed, kind};
use super::member::Member;
use super::{Notes, Shape, Target};
use crate::mutate::{Part, join, parts};

/// Kinds of parts. The first part's highest bit chooses the port.
const RAW: u8 = 0;
/// Type, flags, stream, payload.
const FRAME: u8 = 1;
/// The beginning of HTTP/2.
const PREFACE: u8 = 2;
/// Stream and method.
const CALL: u8 = 3;
/// Stream and message.
const MESSAGE: u8 = 4;
const KINDS: u8 = 5;
const PEER: u8 = 0x80;

const INPUTS_MAX: usize = 2000;
const BUFFER_BYTES: usize = 64 << 10;

pub struct Http {
    member: Member,
    handlers: Arc<Handlers>,
    inputs: usize,
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8], out: &mut Vec<u8>) {
    out.extend(&(payload.len() as u32).to_be_bytes()[1..]);
    out.extend([kind, flags, 0, 0, 0, stream]);
    out.extend(payload);
}

/// A header without any table.
fn header(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(0);
    for text in [name, value] {
        out.push(text.len().min(126) as u8);
        out.extend(text.bytes().take(126));
    }
}

fn connection(input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for Part { kind, bytes } in parts(input) {
        match (kind % PEER % KINDS, bytes.as_slice()) {
            (FRAME, [kind, flags, stream, payload @ ..]) => {
                frame(*kind, *flags, *stream, payload, &mut out);
            }
            (PREFACE, _) => {
                out.extend(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
                frame(4, 0, 0, &bytes[..bytes.len() / 6 * 6], &mut out);
            }
            (CALL, [stream, method, rest @ ..]) => {
                let (service, name) = METHODS[usize::from(*method) % METHODS.len()];
                let mut headers = Vec::new();
                header(":method", "POST", &mut headers);
                header(":scheme", "http", &mut headers);
                header(":path", &format!("/{service}/{name}"), &mut headers);
                header(":authority", "a", &mut headers);
                header("content-type", "application/grpc", &mut headers);
                header("te", "trailers", &mut headers);
                headers.extend(rest);
                frame(1, 4, *stream, &headers, &mut out);
            }
            (MESSAGE, [stream, message @ ..]) => frame(0, 1, *stream, &framed(message), &mut out),
            (_, bytes) => out.extend(bytes),
        }
    }
    out
}

impl Http {
    pub fn new() -> Self {
        let member = Member::new(1);
        let config = Config {
            origins: vec!["http://a".to_owned()],
            hosts: vec!["a".to_owned()],
            request_timeout: Duration::from_secs(1),
            command_line: Vec::new(),
        };
        let handlers = Handlers::new(member.node.clone(), config);
        Self { member, handlers, inputs: 0 }
    }
}

impl Target for Http {
    fn seeds(&mut self) -> Vec<Vec<u8>> {
        let get = |path: &str, more: &str| {
            join(&[Part::new(RAW, format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n"))])
        };
        let ask = |kind: u8, text: String| join(&[Part::new(PEER | kind, text)]);
        let put = [10, 1, b'k', 18, 1, b'v'];
        let mut seeds = vec![
            get("/health?serializable=true&exclude=NOSPACE", ""),
            get("/readyz?verbose&allowlist=data_corruption", "Origin: http://a\r\n"),
            get("/version", "Connection: keep-alive\r\n"),
            get("/debug/vars", ""),
            get("/metrics", ""),
            join(&[
                Part::new(PREFACE, [0, 3, 0, 0, 0, 100]),
                Part::new(CALL, [1, kind("KV", "Put")]),
                Part::new(MESSAGE, [&[1][..], &put].concat()),
                Part::new(FRAME, [8, 0, 0, 0, 1, 0, 0]),
                Part::new(CALL, [3, kind("KV", "Range")]),
                Part::new(FRAME, [&[0, 1, 3, 0, 0, 0, 0, 3][..], &put[..3]].concat()),
                Part::new(FRAME, [6, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]),
                Part::new(FRAME, [3, 0, 1, 0, 0, 0, 8]),
            ]),
        ];
        let json = |path: &str, more: &str, body: &str| {
            let length = body.len();
            let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{more}Content-Length: {length}");
            join(&[Part::new(RAW, format!("{head}\r\n\r\n{body}"))])
        };
        seeds.push(json("/v3/kv/put", "Grpc-Timeout: 1S\r\n", r#"{"key":"YQ==","value":"Yg=="}"#));
        seeds.push(json("/v3beta/kv/range", "Authorization: Bearer x.1\r\n", r#"{"key":"YQ=="}"#));
        seeds.push(json(
            "/v3/watch",
            "",
            r#"{"create_request":{"key":"YQ=="}}{"cancel_request":{}}"#,
        ));
        seeds.push(json(
            "/v3/lease/keepalive",
            "Connection: close\r\n",
            "{\"ID\":1}\n{\"ID\":\"2\"}",
        ));
        seeds.push(join(&[
            Part::new(
                RAW,
                "GET /v3/watch HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            ),
            // A masked text frame, with a mask of zeros, and a close frame.
            Part::new(
                RAW,
                b"\x81\xa1\0\0\0\0{\"create_request\":{\"key\":\"YQ==\"}}\x88\x80\0\0\0\0".to_vec(),
            ),
        ]));
        for path in
            ["/version", "/members", "/downgrade/enabled", "/raft/probing", "/raft/stream/msgapp/1"]
        {
            seeds.push(ask(RAW, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")));
        }
        let post = |path: &str, body: &str| {
            format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        seeds.push(ask(RAW, post("/members/hashkv", "{\"revision\":1}")));
        seeds.push(ask(RAW, post("/members/promote/123", "")));
        seeds.push(ask(RAW, post("/leases", "\x08\x4d")));
        seeds.push(ask(RAW, post("/leases/internal", "\x0a\x04\x08\x4d\x10\x01")));
        seeds.push(ask(RAW, post("/raft", "\x08\x08\x10\x01")));
        seeds
    }

    fn shape(&self) -> Shape {
        Shape::Parts(|kind| kind % PEER % KINDS == MESSAGE)
    }

    fn words(&self) -> &'static [&'static [u8]] {
        &[
            b"GET ",
            b"POST ",
            b"OPTIONS ",
            b"HEAD ",
            b" HTTP/1.1\r\n",
            b" HTTP/1.0\r\n",
            b"\r\n\r\n",
            b"Host: ",
            b"Origin: ",
            b"Content-Length: ",
            b"Transfer-Encoding: chunked\r\n\r\n",
            b"\r\n",
            b"Connection: close\r\n",
            b"Expect: 100-continue\r\n",
            b"/health",
            b"/livez",
            b"/readyz",
            b"/livez/serializable_read",
            b"/metrics",
            b"/v3/kv/range",
            b"/v3/watch",
            b"{\"create_request\":{}}",
            b"Grpc-Metadata-Token: ",
            b"Upgrade: websocket\r\n",
            b"\x81\x80\0\0\0\0",
            b"?exclude=",
            b"&",
            b"%00",
            b"%",
            b"true",
            b"verbose",
            b"NOSPACE",
            b"CORRUPT",
            b"/members/hashkv",
            b"/members/promote/",
            b"/leases",
            b"/raft/snapshot",
            b"/raft/stream/message/",
            b"X-Etcd-Cluster-ID: ",
            b"X-Rusd-Version: 0.1.0\r\n",
            b"grpc-timeout",
            b"1n",
            b"99999999H",
            b"hasleader",
            b"true",
            b"grpc-encoding",
            b"gzip",
            b"token",
            &[0x40],
            &[0x82],
            &[0xff, 0xff, 0xff, 0x7f],
        ]
    }

    fn memory_max(&self, length: usize) -> usize {
        (32 << 20) + 512 * length
    }

    fn run(&mut self, input: &[u8], notes: &mut Notes) {
        if self.inputs >= INPUTS_MAX || self.member.is_over() {
            *self = Self::new();
        }
        self.inputs += 1;
        let is_peer = parts(input).first().is_some_and(|part| part.kind & PEER != 0);
        let (mut ours, theirs) = tokio::io::duplex(BUFFER_BYTES);
        let served = Served {
            rpc: Arc::clone(&self.member.rpc),
            http: Arc::clone(&self.handlers),
            node: self.member.node.clone(),
            port: if is_peer { Port::Peer } else { Port::Client },
        };
        let bytes = connection(input);
        let talk = async move {
            let write = async {
                // The server may hang up before it has read all.
                let _ = ours.write_all(&bytes).await;
                let _ = ours.shutdown().await;
                let mut answer = BytesMut::new();
                while answer.len() < BUFFER_BYTES {
                    match ours.read_buf(&mut answer).await {
                        Ok(0) | Err(_) => break,
                        Ok(_) => {}
                    }
                }
                // Without it the server would wait for us to read.
                drop(ours);
                answer
            };
            tokio::join!(write, serve_connection(theirs, served)).0
        };
        match self.member.wait(talk) {
            None => notes.text("waits"),
            Some(answer) => {
                notes.number("answer", answer.len() as u64);
                let line: Vec<u8> = answer.iter().copied().take(12).collect();
                if line.starts_with(b"HTTP/1.1 ") {
                    notes.number("status", u64::from(line[9] - b'0') << 8 | u64::from(line[11]));
                }
            }
        }
        // What was asked of the member goes on without the connection.
        self.member.settle();
        let fatal = self.member.node.fatal().borrow().clone();
        assert_eq!(fatal, None, "nobody ends a member from there");
    }
}
