//! The JSON gateway of a whole member. Statuses, bodies and headers are what etcd 3.7.1 answers,
//! but for the field `error`.

mod large;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::tests::Member;

/// How long an answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{}: {error}", self.body))
    }
}

async fn connect(member: &Member, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(member.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn ask(member: &Member, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: \
         {length}\r\n{headers}\r\n{body}"
    );
    let mut stream = connect(member, &request).await;
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer));
    read.await.expect("the answer ends").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

async fn post(member: &Member, path: &str, body: &str) -> Answer {
    ask(member, "POST", path, "", body).await
}

/// Reads the chunks of a stream's answer until there are so many. Each is one line.
async fn lines(stream: &mut TcpStream, count: usize) -> Vec<Value> {
    let mut text = Vec::new();
    let read = async {
        loop {
            stream.read_buf(&mut text).await.unwrap();
            let text = std::str::from_utf8(&text).unwrap();
            let Some((_, mut rest)) = text.split_once("\r\n\r\n") else { continue };
            let mut lines = Vec::new();
            while let Some((size, after)) = rest.split_once("\r\n") {
                let size = usize::from_str_radix(size, 16).unwrap();
                let Some(chunk) = after.get(..size + 2).filter(|_| size > 0) else { break };
                assert!(chunk.ends_with("}\n\r\n"), "a chunk is no whole line: {chunk:?}");
                lines.push(serde_json::from_str(chunk.trim()).unwrap());
                rest = &after[size + 2..];
            }
            if lines.len() >= count {
                return lines;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the lines come")
}

/// A request for a connection that is kept.
fn request(path: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn watch(create: &str) -> String {
    request("/v3/watch", create)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_answered_in_json() {
    let member = Member::start("").await;
    let put = post(&member, "/v3/kv/put", r#"{"key":"Zm9v","value":"YmFy"}"#).await;
    assert_eq!((put.status, &put.json()["header"]["revision"]), (200, &"2".into()));
    for header in [
        "content-type: application/json",
        "grpc-metadata-content-type: application/grpc",
        "access-control-allow-origin: *",
        "content-length: ",
    ] {
        assert!(put.head.contains(header), "{header} is missing: {}", put.head);
    }
    let range = post(&member, "/v3beta/kv/range", r#"{"key":"Zm9v"}"#).await.json();
    assert_eq!(range["kvs"][0]["value"], "YmFy");
    assert_eq!(range["count"], "1");
    let txn = r#"{"compare":[{"target":"VERSION","key":"Zm9v","version":1}],
        "success":[{"requestPut":{"key":"YQ=="}},{"request_range":{"key":"Zm9v"}}]}"#;
    let txn = post(&member, "/v3/kv/txn", txn).await.json();
    assert_eq!(txn["succeeded"], true);
    assert_eq!(txn["responses"][0]["response_put"]["header"]["revision"], "3");
    assert_eq!(txn["responses"][1]["response_range"]["kvs"][0]["key"], "Zm9v");
    let older = post(&member, "/v3/kv/lease/leases", "").await;
    assert_eq!(older.status, 200, "{}", older.body);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_have_etcds_statuses_codes_and_texts() {
    let member = Member::start("").await;
    for (method, path, body, status, code, text) in [
        ("GET", "/v3/kv/range", "", 501, 12, "Method Not Allowed"),
        ("POST", "/v3/kv/rangestream", "{}", 404, 5, "Not Found"),
        ("POST", "/v3/kv/range/", "{}", 404, 5, "Not Found"),
        ("POST", "/v3/kv/range", "", 400, 3, "etcdserver: key is not provided"),
        ("POST", "/v3/kv/range", "{\"key\":", 400, 3, "unexpected EOF"),
        (
            "POST",
            "/v3/kv/range",
            "x",
            400,
            3,
            "invalid character 'x' looking for beginning of value",
        ),
        (
            "POST",
            "/v3/kv/range",
            "[]",
            400,
            3,
            "proto: syntax error (line 1:1): unexpected token [",
        ),
        ("POST", "/v3/lease/revoke", "{\"ID\":5}", 404, 5, "etcdserver: requested lease not found"),
        (
            "POST",
            "/v3/auth/authenticate",
            "{}",
            400,
            9,
            "etcdserver: authentication is not enabled",
        ),
    ] {
        let answer = ask(&member, method, path, "", body).await;
        let expected = serde_json::json!({ "error": text, "code": code, "message": text });
        assert_eq!((answer.status, answer.json()), (status, expected), "{method} {path} {body}");
    }
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_counts() {
    let member = Member::start("").await;
    for (stated, status, text) in [
        ("soon", 400, "invalid grpc-timeout: soon"),
        ("1n", 504, "context deadline exceeded"),
        ("-1H", 504, "context deadline exceeded"),
        ("-0S", 400, "etcdserver: key is not provided"),
    ] {
        let header = format!("Grpc-Timeout: {stated}\r\n");
        let body = if stated == "-0S" { "{}" } else { r#"{"key":"YQ=="}"# };
        let answer = ask(&member, "POST", "/v3/kv/range", &header, body).await;
        assert_eq!((answer.status, &answer.json()["message"]), (status, &text.into()), "{stated}");
    }
    let header = "Grpc-Timeout: 9999999999999S\r\n";
    let answer = ask(&member, "POST", "/v3/kv/range", header, r#"{"key":"YQ=="}"#).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_change_errors_and_turn_the_gateway_off() {
    let exact = Member::start("--gateway-exact-errors").await;
    let refused = post(&exact, "/v3/kv/range", "{}").await;
    assert_eq!(refused.body, r#"{"code":3,"message":"etcdserver: key is not provided"}"#);
    exact.stop().await;
    let off = Member::start("--enable-grpc-gateway=false").await;
    let missing = post(&off, "/v3/kv/range", "{}").await;
    assert_eq!((missing.status, missing.body.as_str()), (404, "404 page not found\n"));
    off.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_comes_in_any_of_three_headers() {
    let member = Member::start("").await;
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name":"root","password":"p"}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/enable", ""),
    ] {
        assert_eq!(post(&member, path, body).await.status, 200, "{path}");
    }
    let login = r#"{"name":"root","password":"p"}"#;
    let token = post(&member, "/v3/auth/authenticate", login).await.json()["token"].clone();
    let token = token.as_str().unwrap();
    let range = r#"{"key":"YQ=="}"#;
    for header in ["Authorization: ", "authorization: Bearer ", "Grpc-Metadata-Token: "] {
        let header = format!("{header}{token}\r\n");
        let answer = ask(&member, "POST", "/v3/kv/range", &header, range).await;
        assert_eq!(answer.status, 200, "{header}{}", answer.body);
    }
    let none = post(&member, "/v3/kv/range", range).await;
    assert_eq!((none.status, &none.json()["code"]), (400, &3.into()));
    let wrong = ask(&member, "POST", "/v3/kv/range", "Authorization: x.1\r\n", range).await;
    assert_eq!(wrong.status, 401);
    let why = "etcdserver: invalid auth token";
    assert!(wrong.head.contains(&format!("www-authenticate: {why}")), "{}", wrong.head);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_after_its_request_and_each_line_is_a_chunk() {
    let member = Member::start("").await;
    let mut stream = connect(&member, &watch(r#"{"create_request":{"key":"YQ=="}}"#)).await;
    assert_eq!(lines(&mut stream, 1).await[0]["result"]["created"], true);
    member.put("a", vec![b'x'; 100_000]).await;
    let event = &lines_after(&mut stream, 1).await[0]["result"]["events"][0];
    assert_eq!(event["kv"]["key"], "YQ==");
    let value = event["kv"]["value"].as_str().unwrap().len();
    assert_eq!(value, 100_000_usize.div_ceil(3) * 4);
    member.stop().await;
}

/// As `lines`, of an answer whose head was read.
async fn lines_after(stream: &mut TcpStream, count: usize) -> Vec<Value> {
    let mut text = b"\r\n\r\n".to_vec();
    let read = async {
        loop {
            stream.read_buf(&mut text).await.unwrap();
            let text = std::str::from_utf8(&text).unwrap();
            let whole: Vec<_> = text.lines().filter(|line| line.starts_with('{')).collect();
            if whole.len() >= count && text.ends_with("}\n\r\n") {
                return whole.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the lines come")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewals_end_with_the_request() {
    let member = Member::start("").await;
    let lease = post(&member, "/v3/lease/grant", r#"{"TTL":60,"ID":7}"#).await;
    assert_eq!(lease.json()["ID"], "7");
    let two = "{\"ID\":7}\n{\"ID\":\"8\"}";
    let request = format!(
        "POST /v3/lease/keepalive HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{two}",
        two.len()
    );
    let mut stream = connect(&member, &request).await;
    let renewed = lines(&mut stream, 2).await;
    assert_eq!(renewed[0]["result"]["TTL"], "60");
    assert_eq!(renewed[1]["result"]["TTL"], Value::Null);
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest));
    end.await.expect("the answer ends").unwrap();
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_within_a_stream_has_the_names_of_both_generations() {
    let member = Member::start("").await;
    let line = |code: i32, status: u16, reason: &str, text: &str| {
        serde_json::json!({ "error": {
            "grpc_code": code, "http_code": status, "http_status": reason, "code": code,
            "message": text,
        } })
    };
    for (path, body) in
        [("/v3/auth/user/add", r#"{"name":"root","password":"p"}"#), ("/v3/auth/enable", "")]
    {
        post(&member, path, body).await;
        post(&member, "/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#).await;
    }
    let refused = post(&member, "/v3/lease/keepalive", r#"{"ID":1}"#).await;
    let (_, json) = refused.body.split_once("\r\n").unwrap();
    let json: Value = serde_json::from_str(json.split("\r\n").next().unwrap()).unwrap();
    assert_eq!(refused.status, 400);
    assert_eq!(json, line(3, 400, "Bad Request", "etcdserver: user name is empty"));
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_that_is_too_large_is_refused_and_others_are_served() {
    let member = Member::start("--max-request-bytes 1000").await;
    let value = "A".repeat(2_000_000);
    let body = format!(r#"{{"key":"YQ==","value":"{value}"}}"#);
    let refused = post(&member, "/v3/kv/put", &body).await;
    assert_eq!((refused.status, &refused.json()["code"]), (429, &8.into()), "{}", refused.body);
    assert_eq!(post(&member, "/v3/kv/put", r#"{"key":"YQ=="}"#).await.status, 200);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_closes_its_side_gets_its_answer() {
    let member = Member::start("").await;
    let request =
        "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n\r\n{\"key\":\"YQ==\"}";
    let mut stream = connect(&member, request).await;
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer));
    read.await.expect("the answer ends").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_comes_from_headers() {
    let member = Member::start("").await;
    let range = r#"{"key":"YQ=="}"#;
    for (header, status, code) in [
        ("Grpc-Metadata-Hasleader: true\r\n", 200, Value::Null),
        ("Grpc-Metadata-Client-Api-Version: 3.7\r\n", 200, Value::Null),
        ("Grpc-Metadata-X-Bin: AAA=\r\n", 200, Value::Null),
        ("Grpc-Metadata-X-Bin: !\r\n", 400, 3.into()),
        ("Grpc-Metadata-:path: x\r\n", 500, 13.into()),
        ("Grpc-Metadata-Token: \u{e9}\r\n", 200, Value::Null),
        ("Authorization: \u{e9}\r\n", 500, 13.into()),
        ("Grpc-Metadata-Grpc-Encoding: x\r\nGrpc-Metadata-Te: x\r\n", 200, Value::Null),
    ] {
        let answer = ask(&member, "POST", "/v3/kv/range", header, range).await;
        assert_eq!((answer.status, &answer.json()["code"]), (status, &code), "{header}");
    }
    member.stop().await;
}

const OPEN: &str = "GET /v3/watch HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\n\
                Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                Sec-WebSocket-Protocol: Bearer, nonsense\r\n\r\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_carries_documents_and_lines() {
    let member = Member::start("").await;
    let mut stream = connect(&member, OPEN).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    // The example of RFC 6455, section 1.3.
    assert!(head.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="), "{head}");
    assert!(head.contains("sec-websocket-protocol: bearer\r\n"), "{head}");
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    let create = Message::text(r#"{"create_request":{"key":"YQ=="}}"#);
    socket.send(create).await.unwrap();
    let mut line = async || {
        let message = tokio::time::timeout(PATIENCE, socket.next()).await.expect("a line comes");
        serde_json::from_str::<Value>(message.unwrap().unwrap().to_text().unwrap()).unwrap()
    };
    assert_eq!(line().await["result"]["created"], true);
    member.put("a", "1").await;
    assert_eq!(line().await["result"]["events"][0]["kv"]["value"], "MQ==");
    socket.send(Message::Ping("x".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("x".into()));
    socket.close(None).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, socket.next()).await.expect("it is closed");
    assert!(matches!(closed, Some(Ok(Message::Close(_)))), "{closed:?}");
    let refused = OPEN.replace("Version: 13", "Version: 8");
    let mut refused = connect(&member, &refused).await;
    let mut status = [0; 12];
    refused.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 400");
    drop(socket);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_that_is_too_long_or_faulty_ends_its_socket_with_a_reason() {
    let member = Member::start("").await;
    for (frame, code, reason) in [
        // A text of a terabyte, and one without a mask.
        (&b"\x81\xff\0\0\x01\0\0\0\0\0\0\0\0\0{"[..], 1009_u16, ""),
        (b"\x81\x02{}", 1002, "bad MASK"),
        (b"\x81\x81\0\0\0\0\xff", 1002, ""),
        (b"\xc1\x82\0\0\0\0{}", 1002, "RSV1 set"),
        (b"\x83\x80\0\0\0\0", 1002, "bad opcode 3"),
        (b"\x80\x80\0\0\0\0", 1002, "continuation after FIN"),
        (b"\x09\x80\0\0\0\0", 1002, "FIN not set on control"),
        (b"\x01\x81\0\0\0\0{\x81\x81\0\0\0\0}", 1002, "data before FIN"),
    ] {
        let mut stream = connect(&member, OPEN).await;
        stream.write_all(frame).await.unwrap();
        let mut answer = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer));
        // The end may be a reset, since the rest of the frame was not read.
        let _ = end.await.expect("the socket ends");
        let length = u8::try_from(2 + reason.len()).unwrap();
        let close = [&[0x88, length][..], &code.to_be_bytes(), reason.as_bytes()].concat();
        assert!(answer.ends_with(&close), "{code}: {answer:?}");
    }
    member.put("a", "1").await;
    member.stop().await;
}

/// A leader's key comes from the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_key_writes_nothing() {
    let member = Member::start("").await;
    for (path, body) in [
        ("/v3/election/proclaim", r#"{"leader":{},"value":"eA=="}"#),
        ("/v3/election/resign", r#"{"leader":{}}"#),
        ("/v3/lock/unlock", "{}"),
    ] {
        let refused = post(&member, path, body).await;
        let why = "etcdserver: key is not provided";
        assert_eq!((refused.status, &refused.json()["message"]), (500, &why.into()), "{path}");
    }
    let range = post(&member, "/v3/kv/range", r#"{"key":"YQ=="}"#).await;
    assert_eq!(range.json()["header"]["revision"], "1");
    member.stop().await;
}

/// The place in a lock's queue goes with the client that waits there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_is_not_given_to_a_client_that_has_gone() {
    let member = Member::start("").await;
    for id in [7, 8] {
        let lease = format!(r#"{{"TTL":600,"ID":{id}}}"#);
        assert_eq!(post(&member, "/v3/lease/grant", &lease).await.status, 200);
    }
    let held = post(&member, "/v3/lock/lock", r#"{"name":"bQ==","lease":7}"#).await;
    assert_eq!(held.status, 200, "{}", held.body);
    let wait = request("/v3/lock/lock", r#"{"name":"bQ==","lease":8}"#);
    let waiting = connect(&member, &wait).await;
    let until = async |count: &str| {
        let count = format!("\"count\":\"{count}\"");
        let keys = r#"{"key":"bQ==","range_end":"bg==","count_only":true}"#;
        while !post(&member, "/v3/kv/range", keys).await.body.contains(&count) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, until("2")).await.expect("the second waits");
    drop(waiting);
    tokio::time::timeout(PATIENCE, until("1")).await.expect("its place goes");
    member.stop().await;
}

/// A client that goes is gone at once, whether its answer has begun or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_ends_when_its_client_hangs_up() {
    let member = Member::start("").await;
    let free = || member.services.connections.available_permits();
    // One more is taken by whoever accepts the next connection.
    let none_open = 99;
    let mut begun = connect(&member, &watch(r#"{"create_request":{"key":"YQ=="}}"#)).await;
    lines(&mut begun, 1).await;
    let waiting = connect(&member, &watch("")).await;
    let half =
        connect(&member, &watch("{\"create_request\":{").replace("Length: ", "Length: 9")).await;
    while free() > none_open - 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop((begun, waiting, half));
    let all_gone = async {
        while free() < none_open {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, all_gone).await.expect("the connections stay");
    member.stop().await;
}

/// A long body is still on its way when the stream begins to wait, which is no hanging up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_may_be_asked_for_in_a_long_body() {
    let member = Member::start("").await;
    let key = STANDARD.encode([b'k'; 30_000]);
    let long = watch(&format!(r#"{{"create_request":{{"key":"{key}"}}}}"#));
    let many: String = (1..=1000)
        .map(|id| format!(r#"{{"create_request":{{"key":"YQ==","watch_id":{id}}}}}"#))
        .collect();
    for (request, creates) in [(long, 1), (watch(&many), 1000)] {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let mut stream = connect(&member, &format!("{head}\r\n\r\n")).await;
        stream.set_nodelay(true).unwrap();
        for piece in body.as_bytes().chunks(body.len() / 4) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.write_all(piece).await.unwrap();
        }
        let came = lines(&mut stream, creates).await;
        assert!(came.iter().all(|line| line["result"]["created"] == true), "{came:?}");
        let ended = tokio::time::timeout(Duration::from_millis(100), stream.read_u8()).await;
        assert!(ended.is_err(), "the stream goes on: {ended:?}");
    }
    member.stop().await;
}

/// The answer would be lost if the connection ended before the body came.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_waits_for_the_body_of_its_request() {
    let member = Member::start("").await;
    for (path, status) in [("/v3/nope", "404"), ("/v3beta/nope", "404")] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n");
        let mut stream = connect(&member, &head).await;
        for _ in 0..2 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            stream.write_all(&[b' '; 25_000]).await.unwrap();
        }
        stream
            .write_all(b"GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answers = String::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answers));
        read.await.expect("the answers end").unwrap();
        assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{answers}");
        assert!(answers.contains("etcdserver"), "{answers}");
    }
    member.stop().await;
}
