//! Frames that clients may send and an HTTP/2 library would not.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::connection::{Origin, connection};
use super::io;
use super::tests::Member;
use crate::limits;
use crate::pb::range_request::{SortOrder, SortTarget};
use crate::pb::watch_request::RequestUnion;
use crate::pb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, RangeRequest,
    WatchCreateRequest, WatchRequest,
};

const PATIENCE: Duration = Duration::from_secs(60);
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// An HTTP/2 client that sends any frame.
struct Client<S> {
    stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn greet(mut stream: S) -> Self {
        stream.write_all(io::PREFACE).await.unwrap();
        let mut client = Self { stream };
        client.send(SETTINGS, 0, 0, &[]).await;
        client
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        self.stream.write_all(&bytes).await.unwrap();
    }

    async fn receive(&mut self) -> Frame {
        let read = async {
            let mut head = [0; 9];
            self.stream.read_exact(&mut head).await.unwrap();
            let [a, b, c, kind, flags, d, e, f, g] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.stream.read_exact(&mut payload).await.unwrap();
            Frame { kind, flags, stream: u32::from_be_bytes([d, e, f, g]), payload }
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap()
    }

    /// The next message on a stream, which is one frame.
    async fn data_of(&mut self, stream: u32) -> Vec<u8> {
        loop {
            let frame = self.receive().await;
            assert_ne!(frame.kind, GOAWAY, "{}", String::from_utf8_lossy(&frame.payload));
            if frame.stream == stream && frame.kind == DATA {
                return frame.payload;
            }
        }
    }

    /// All frames of a stream until the server has answered a ping, after which none can follow.
    async fn answer(&mut self, stream: u32) -> Vec<Frame> {
        let mut frames = Vec::new();
        let is_last = |frame: &Frame| {
            frame.kind == RESET
                || matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0
        };
        while !frames.last().is_some_and(is_last) {
            let frame = self.receive().await;
            assert_ne!(frame.kind, GOAWAY, "{}", String::from_utf8_lossy(&frame.payload));
            if frame.stream == stream {
                frames.push(frame);
            }
        }
        self.send(PING, 0, 0, &[7; 8]).await;
        loop {
            let frame = self.receive().await;
            if frame.kind == PING {
                return frames;
            }
            if frame.stream == stream {
                frames.push(frame);
            }
        }
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

/// A POST to this path whose authority enters the table; `more` comes after it.
fn request(path: &str, authority: &[u8], more: &[u8]) -> Vec<u8> {
    // The method and the scheme are in the static table, the names of path and authority as well.
    [&[0x83, 0x86, 0x04], &string(path.as_bytes())[..], authority, more].concat()
}

fn grpc() -> Vec<u8> {
    [&[0, 12][..], b"content-type", &string(b"application/grpc")].concat()
}

fn range(key: &'static str) -> Vec<u8> {
    let message = RangeRequest { key: Bytes::from(key), ..Default::default() }.encode_to_vec();
    [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_authority_of_a_grpc_client_is_taken() {
    let member = Member::start("").await;
    let path = "/etcdserverpb.KV/Range";
    let authorities: [&[u8]; 9] = [
        b"127.0.0.1:2379",
        b"#initially=[http://127.0.0.1:2379]",
        b"%2Ftmp%2Fx.sock",
        b"127.0.0.1:1,127.0.0.1:2",
        b"etcd/a",
        b"::1",
        b"",
        b"a b\"\\",
        b"\xff\xfe",
    ];
    for authority in authorities {
        let connection = TcpStream::connect(member.address).await.unwrap();
        let mut client = Client::greet(connection).await;
        // Go's client indexes the static table's name, or its empty field; C-core spells the name.
        let field = match authority {
            b"" => vec![0x81],
            _ => [&[0x41][..], &string(authority)].concat(),
        };
        let spelled = [&[0x40][..], &string(b":authority"), &string(authority)].concat();
        // The field by its place in the table, where the first request has put it.
        let known = if authority.is_empty() { vec![0x81] } else { vec![0xbe] };
        let spelled = if authority.is_empty() { vec![0x81] } else { spelled };
        for (stream, field) in [(1, field), (3, known), (5, spelled)] {
            let block = request(path, &field, &grpc());
            client.send(HEADERS, END_HEADERS, stream, &block).await;
            client.send(DATA, END_STREAM, stream, &range("a")).await;
            let kinds: Vec<u8> =
                client.answer(stream).await.iter().map(|frame| frame.kind).collect();
            let name = String::from_utf8_lossy(authority);
            assert_eq!(kinds, [HEADERS, DATA, HEADERS], "{name:?}, stream {stream}");
        }
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_with_a_fragment_is_no_method() {
    let member = Member::start("").await;
    let connection = TcpStream::connect(member.address).await.unwrap();
    let mut client = Client::greet(connection).await;
    let authority = [&[0x41][..], &string(b"a")].concat();
    for (stream, path, expected) in [
        (1, "/etcdserverpb.KV/Range#f", vec![HEADERS]),
        (3, "/etcdserverpb.KV/Range", vec![HEADERS, DATA, HEADERS]),
        (5, "/etcdserverpb.KV/Range?x#", vec![HEADERS]),
    ] {
        let block = request(path, &authority, &grpc());
        client.send(HEADERS, END_HEADERS, stream, &block).await;
        client.send(DATA, END_STREAM, stream, &range("a")).await;
        let frames = client.answer(stream).await;
        let kinds: Vec<u8> =
            frames.iter().map(|frame| frame.kind).filter(|kind| *kind != RESET).collect();
        assert_eq!(kinds, expected, "{path}");
    }
    member.stop().await;
}

/// An empty authority that enters the table is there for later requests, and takes no entry from a
/// table that is full to the last byte.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_authority_may_enter_the_table() {
    let member = Member::start("").await;
    let mut client = Client::greet(TcpStream::connect(member.address).await.unwrap()).await;
    client.send(SETTINGS, 1, 0, &[]).await;
    let path = "/etcdserverpb.KV/Range";
    let entry = |length: usize| [&[0x40, 1, b'a'][..], &string(&vec![b'v'; length])].concat();
    let overhead = 32 + 1;
    // The oldest entry, of 133 bytes, then the authority's, then what fills the table.
    let table = limits::HEADER_TABLE_BYTES as usize - (overhead + 100) - (32 + 10);
    let whole = table / (overhead + 100) - 1;
    let rest = table - whole * (overhead + 100);
    let mut fill: Vec<u8> = std::iter::repeat_n(entry(100), whole).flatten().collect();
    fill.extend(entry(rest / 2 - overhead));
    fill.extend(entry(rest - rest / 2 - overhead));
    let place = |entries: usize| vec![0x80 | u8::try_from(62 + entries).unwrap()];
    let (authority, oldest) = (place(whole + 2), place(whole + 3));
    let mut size = vec![0x3f];
    prost::encoding::encode_varint(u64::from(limits::HEADER_TABLE_BYTES) - 31, &mut size);
    let first = request(path, &[], &[grpc(), entry(100)].concat());
    let blocks = [
        [size, first].concat(),
        request(path, &[0x41, 0], &[grpc(), fill].concat()),
        request(path, &authority, &[grpc(), oldest.clone()].concat()),
        request(path, &authority, &[grpc(), oldest].concat()),
    ];
    for (stream, block) in [1, 3, 5, 7].into_iter().zip(blocks) {
        client.send(HEADERS, END_HEADERS, stream, &block).await;
        client.send(DATA, END_STREAM, stream, &range("a")).await;
        let kinds: Vec<u8> = client.answer(stream).await.iter().map(|frame| frame.kind).collect();
        assert_eq!(kinds, [HEADERS, DATA, HEADERS], "stream {stream}");
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_metadata_is_refused_before_the_method_is_looked_for() {
    let member = Member::start("").await;
    // 400 and 200 in the static table. The last deadline is over before an answer is possible.
    let cases: [(&str, &[u8], u8); 4] = [
        ("grpc-timeout", b"abc", 0x8c),
        ("grpc-timeout", b"-5S", 0x8c),
        ("x-bin", b"!!!", 0x8c),
        ("grpc-timeout", b"0n", 0x88),
    ];
    for path in ["/etcdserverpb.KV/Range", "/etcdserverpb.Watch/Watch", "/nobody/knows"] {
        for (name, value, status) in cases {
            let mut client = Client::greet(TcpStream::connect(member.address).await.unwrap()).await;
            let field = [&[0][..], &string(name.as_bytes()), &string(value)].concat();
            let more = [grpc(), field].concat();
            client.send(HEADERS, END_HEADERS, 1, &request(path, b"\x41\x01a", &more)).await;
            client.send(DATA, END_STREAM, 1, &range("a")).await;
            let answer = &client.answer(1).await[0];
            assert_eq!((answer.kind, answer.payload[0]), (HEADERS, status), "{path} {value:?}");
        }
    }
    member.stop().await;
}

/// A field that enters the table.
fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    [&[0x40][..], &string(name), &string(value)].concat()
}

/// The kinds of frames that answer a block; checks that the connection serves the next call.
async fn answers(member: &Member, block: &[u8]) -> Vec<u8> {
    let mut client = Client::greet(TcpStream::connect(member.address).await.unwrap()).await;
    let kinds = async |client: &mut Client<TcpStream>, stream, block: &[u8]| {
        client.send(HEADERS, END_HEADERS, stream, block).await;
        client.send(DATA, END_STREAM, stream, &range("a")).await;
        client.answer(stream).await.iter().map(|frame| frame.kind).collect::<Vec<_>>()
    };
    let answered = kinds(&mut client, 1, block).await;
    let next = request("/etcdserverpb.KV/Range", &field(b":authority", b"a"), &grpc());
    assert_eq!(kinds(&mut client, 3, &next).await, [HEADERS, DATA, HEADERS]);
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_in_a_call_resets_its_stream_alone() {
    let member = Member::start("").await;
    let path = "/etcdserverpb.KV/Range";
    let authority = field(b":authority", b"etcd/a");
    let twice = [&[0x01][..], &string(b"etcd/a"), &[0x01], &string(b"b")].concat();
    let mut refused = vec![
        // A second authority, a pseudo header after another field, an unknown one.
        request(path, &twice, &grpc()),
        request(path, &grpc(), &authority),
        request(path, &field(b":nothing", b"a"), &grpc()),
        [&authority[..], &grpc()].concat(),
    ];
    let long = [&b"a".repeat(90)[..], b"B"].concat();
    let fields: [(&[u8], &[u8]); 10] = [
        (&long, b"x"),
        (b"x", b"a\0b"),
        (b"x", b"a\r\nb: c"),
        (b"token", b"a\x7f"),
        (b"client-api-version", b"\x01"),
        (b"Upper", b"x"),
        (b"a b", b"x"),
        (b"x\0", b"b"),
        (b"", b"x"),
        (b"connection", b"close"),
    ];
    for (name, value) in fields {
        refused.push(request(path, &authority, &[grpc(), field(name, value)].concat()));
    }
    for (number, block) in refused.iter().enumerate() {
        assert_eq!(answers(&member, block).await, [RESET], "{number}");
    }
    member.stop().await;
}

/// As in etcd, whose interceptors see a stream before its message, and count the attempt to read
/// or to send one.
#[tokio::test(flavor = "multi_thread")]
async fn calls_count_though_their_messages_cannot_be_read_or_sent() {
    let member = Member::start("").await;
    // A method that no other test calls, what it is sent, and what is added to its counts of calls
    // started, messages received, messages sent, and calls ended with the code.
    type Case = (&'static str, &'static str, &'static str, &'static [u8], [u64; 4]);
    let cases: [Case; 3] = [
        ("v3electionpb.Election", "Observe", "Internal", b"\xff\xff\xff", [1, 1, 0, 1]),
        ("etcdserverpb.Auth", "UserGet", "FailedPrecondition", b"\x0a\x01a", [1, 1, 1, 1]),
        ("etcdserverpb.Auth", "RoleGet", "Internal", b"\xff\xff\xff", [0, 0, 0, 0]),
    ];
    for (service, method, code, message, added) in cases {
        let count = |name: &str| {
            let labels = [
                format!("grpc_method=\"{method}\""),
                format!("grpc_service=\"{service}\""),
                if name.contains("handled") {
                    format!("grpc_code=\"{code}\"")
                } else {
                    String::new()
                },
            ];
            let text = crate::metrics::render();
            let is_it = |line: &&str| {
                line.starts_with(name) && labels.iter().all(|it| line.contains(it.as_str()))
            };
            text.lines().find(is_it).unwrap().rsplit(' ').next().unwrap().parse::<u64>().unwrap()
        };
        let counts = || {
            ["started", "msg_received", "msg_sent", "handled"]
                .map(|name| count(&format!("grpc_server_{name}_total{{")))
        };
        let before = counts();
        let path = format!("/{service}/{method}");
        let mut client = Client::greet(TcpStream::connect(member.address).await.unwrap()).await;
        let block = request(&path, &field(b":authority", b"a"), &grpc());
        let message = [&[0, 0, 0, 0, message.len() as u8][..], message].concat();
        client.send(HEADERS, END_HEADERS, 1, &block).await;
        client.send(DATA, END_STREAM, 1, &message).await;
        client.answer(1).await;
        let now = counts();
        assert_eq!(std::array::from_fn(|at| now[at] - before[at]), added, "{method}");
        // An encoding that etcd does not have is refused before anything counts.
        let more = [grpc(), field(b"grpc-encoding", b"x")].concat();
        let block = request(&path, &field(b":authority", b"a"), &more);
        client.send(HEADERS, END_HEADERS, 3, &block).await;
        client.send(DATA, END_STREAM, 3, &message).await;
        client.answer(3).await;
        assert_eq!(counts(), now, "{method}");
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grpc_go_does_not_look_at_is_no_fault() {
    let member = Member::start("").await;
    let authority = field(b":authority", b"a");
    let fields = [
        ("te", "gzip"),
        ("te", "trailers"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("keep-alive", "1"),
        ("proxy-connection", "x"),
        ("content-length", "3"),
        ("content-length", "x"),
    ];
    for (name, value) in fields {
        let more = [grpc(), field(name.as_bytes(), value.as_bytes())].concat();
        let block = request("/etcdserverpb.KV/Range", &authority, &more);
        assert_eq!(answers(&member, &block).await, [HEADERS, DATA, HEADERS], "{name}: {value}");
    }
    // An invalid scheme.
    let mut block = request("/etcdserverpb.KV/Range", &authority, &grpc());
    block.splice(1..2, [&[6][..], &string(b"1$")].concat());
    assert_eq!(answers(&member, &block).await, [HEADERS, DATA, HEADERS]);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_methods_and_paths_are_answered() {
    let member = Member::start("").await;
    let authority = field(b":authority", b"a");
    for path in ["/a b/c", "", "x", "http://a/etcdserverpb.KV/Range", "/\"<>\\^`{|}/b"] {
        let answered = answers(&member, &request(path, &authority, &grpc())).await;
        assert_eq!(answered[0], HEADERS, "{path:?}");
    }
    for method in ["CONNECT", "P T", ""] {
        let mut block = request("/etcdserverpb.KV/Range", &authority, &grpc());
        block.splice(..1, [&[2][..], &string(method.as_bytes())].concat());
        assert_eq!(answers(&member, &block).await[0], HEADERS, "{method:?}");
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_requests_are_answered_as_by_gos_server() {
    let member = Member::start("").await;
    let ask = async |head: &str| {
        let mut stream = TcpStream::connect(member.address).await.unwrap();
        let text = format!("{head}\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    for (path, clean) in [
        ("//version", "/version"),
        ("/../version", "/version"),
        ("/a/./b//c/../?x=1", "/a/b/?x=1"),
        ("//", "/"),
    ] {
        let answer = ask(&format!("GET {path} HTTP/1.1")).await;
        assert!(answer.starts_with("HTTP/1.1 307 Temporary Redirect\r\n"), "{path}: {answer}");
        assert!(answer.contains(&format!("\r\nLocation: {clean}\r\n")), "{path}: {answer}");
        let link = format!("\r\n\r\n<a href=\"{clean}\">Temporary Redirect</a>.\n\n");
        assert!(answer.ends_with(&link), "{path}: {answer}");
    }
    for (expect, code) in [("x", 417), ("100-continue", 200), ("100-Continue, x", 200)] {
        let answer = ask(&format!("GET /version HTTP/1.1\r\nExpect: {expect}")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{expect}: {answer}");
    }
    member.stop().await;
}

/// A connection without TLS that is served as if it had come over TLS.
async fn secured(member: &Member) -> (tokio::io::DuplexStream, watch::Sender<bool>) {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let (stop, stopped) = watch::channel(false);
    let origin = Origin { is_secured: true, ..Origin::default() };
    tokio::spawn(connection(theirs, origin, member.services.clone(), stopped));
    (ours, stop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_late_is_awaited() {
    let member = Member::start("").await;
    for length in [0, 2, 60_000] {
        let (stream, _stop) = secured(&member).await;
        let mut client = Client::greet(stream).await;
        let authority = [&[0x41][..], &string(b"localhost")].concat();
        let block = request("/version", &authority, &[]);
        client.send(HEADERS, END_HEADERS, 1, &block).await;
        // The server has seen the headers when it answers this.
        client.send(PING, 0, 0, &[7; 8]).await;
        while client.receive().await.kind != PING {}
        for _ in 0..length / 10_000 {
            client.send(DATA, 0, 1, &[b' '; 10_000]).await;
        }
        client.send(DATA, END_STREAM, 1, &vec![b' '; length % 10_000]).await;
        let frames = client.answer(1).await;
        let kinds: Vec<u8> =
            frames.iter().map(|frame| frame.kind).filter(|kind| *kind != WINDOW_UPDATE).collect();
        assert_eq!(kinds, [HEADERS, DATA], "{length} bytes");
    }
    member.stop().await;
}

/// gRPC does not look at the stated length; Go's HTTP server does.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_longer_than_stated_resets_its_stream() {
    let member = Member::start("").await;
    for (stated, is_taken) in
        [("14", true), ("20", true), ("5", false), ("0", false), ("+14", false)]
    {
        let (stream, _stop) = secured(&member).await;
        let mut client = Client::greet(stream).await;
        let length = field(b"content-length", stated.as_bytes());
        let block = request("/v3/kv/range", &field(b":authority", b"a"), &length);
        client.send(HEADERS, END_HEADERS, 1, &block).await;
        client.send(DATA, END_STREAM, 1, br#"{"key":"YQ=="}"#).await;
        let mut kinds: Vec<u8> = client.answer(1).await.iter().map(|frame| frame.kind).collect();
        kinds.retain(|kind| *kind != WINDOW_UPDATE);
        assert_eq!(kinds, if is_taken { vec![HEADERS, DATA] } else { vec![RESET] }, "{stated}");
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_hosts_is_for_plain_connections() {
    let member = Member::start("--host-whitelist a.example").await;
    let ask = async |host: &str| {
        let (mut stream, _stop) = secured(&member).await;
        let text = format!("GET /version HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    for host in ["a.example", "b.example", "localhost:1"] {
        let answer = ask(host).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{host}: {answer}");
    }
    let (stream, _stop) = secured(&member).await;
    let mut client = Client::greet(stream).await;
    let authority = [&[0x41][..], &string(b"b.example")].concat();
    let mut block = request("/version", &authority, &[]);
    block[0] = 0x82;
    client.send(HEADERS, END_HEADERS | END_STREAM, 1, &block).await;
    // `:status: 200` is in the static table.
    assert_eq!(client.answer(1).await[0].payload[0], 0x88);

    // An HTTP/1.1 request may name its host in the first line, which then counts.
    for (target, host, code) in [
        ("http://a.example/version", "b.example", 200),
        ("http://b.example/version", "a.example", 421),
        ("/version", "a.example:1", 200),
        ("/version", "b.example", 421),
    ] {
        let mut stream = TcpStream::connect(member.address).await.unwrap();
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{target} {host}: {answer}");
    }
    member.stop().await;
}

/// The memory of a call whose message has not come; the rest is made once it has.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_takes_little_before_its_message_has_come() {
    let member = Member::start("").await;
    let rpc = member.services.rpc.clone().unwrap();
    let call = rpc.call(http::Request::new(http_body_util::Full::new(Bytes::new())), None);
    let bytes = size_of_val(&call);
    drop(call);
    eprintln!("a call takes {bytes} bytes");
    assert!(bytes <= 2048, "{bytes} bytes");
    member.stop().await;
}

fn framed(message: &impl Message) -> Vec<u8> {
    let message = message.encode_to_vec();
    [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat()
}

/// Go's client has one connection. While it takes large ranges, slowly or not, its leases live on
/// and its watches get events.
#[tokio::test(flavor = "multi_thread")]
async fn leases_and_watches_go_on_beside_large_ranges() {
    const VALUE_BYTES: usize = 10_000_000;
    let member = Member::start("--max-request-bytes 12000000").await;
    let mut large = RangeRequest { key: "a".into(), range_end: "b".into(), ..Default::default() };
    large.serializable = true;
    // An answer in the order of its values lies in memory as a whole.
    (large.sort_target, large.sort_order) = (SortTarget::Value.into(), SortOrder::Ascend.into());
    for n in 0..4 {
        member.put(&format!("a{n}"), vec![b'x'; VALUE_BYTES]).await;
    }
    let mut client = Client::greet(TcpStream::connect(member.address).await.unwrap()).await;
    // The connection's window is large, and each stream has the first window of HTTP/2.
    client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()).await;
    let authority = [&[0x41][..], &string(b"a")].concat();
    let call = |path: &str| request(path, &authority, &grpc());
    for stream in [1, 3, 5] {
        client.send(HEADERS, END_HEADERS, stream, &call("/etcdserverpb.KV/Range")).await;
        client.send(DATA, END_STREAM, stream, &framed(&large)).await;
    }
    let answers = std::sync::Arc::clone(member.services.outbox.answers());
    let end = crate::clock::instant() + PATIENCE;
    while answers.unsent_bytes() < 3 * 4 * VALUE_BYTES {
        assert!(crate::clock::instant() < end, "the ranges are not answered");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let grant = LeaseGrantRequest { id: 7, ttl: 60 };
    let create = WatchCreateRequest { key: "k".into(), ..Default::default() };
    let watch = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let renewal = LeaseKeepAliveRequest { id: 7 };
    for (stream, path, message) in [
        (7, "/etcdserverpb.Lease/LeaseGrant", framed(&grant)),
        (9, "/etcdserverpb.Watch/Watch", framed(&watch)),
        (11, "/etcdserverpb.Lease/LeaseKeepAlive", framed(&renewal)),
    ] {
        client.send(HEADERS, END_HEADERS, stream, &call(path)).await;
        let flags = if stream == 7 { END_STREAM } else { 0 };
        client.send(DATA, flags, stream, &message).await;
        client.data_of(stream).await;
    }
    // A stream that was open before goes on as well.
    client.send(DATA, 0, 11, &framed(&renewal)).await;
    let answer = client.data_of(11).await;
    let answer = LeaseKeepAliveResponse::decode(&answer[5..]).unwrap();
    assert!((1..=60).contains(&answer.ttl), "{answer:?}");
    drop(client);
    member.stop().await;
}
