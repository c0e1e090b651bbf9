//! Requests of HTTP/1.1, most of them faulty: the bytes of each answer are etcd's.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::fixture::{Member, PATIENCE};
use super::member;

const CORS: [&str; 3] = [
    "Access-Control-Allow-Headers: accept, content-type, authorization",
    "Access-Control-Allow-Methods: POST, GET, OPTIONS, PUT, DELETE",
    "Access-Control-Allow-Origin: *",
];

/// The bytes that a text in the table stands for.
fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some((repeated, behind)) = rest.strip_prefix("<<").and_then(|r| r.split_once(">>")) {
            let (what, count) = repeated.rsplit_once('*').unwrap();
            for number in 0..count.parse().unwrap() {
                out.extend(unescaped(&what.replace('#', &format!("{number}"))));
            }
            rest = behind;
        } else if let Some(escape) = rest.strip_prefix('\\') {
            let (byte, length) = match escape.as_bytes()[0] {
                b'r' => (b'\r', 1),
                b'n' => (b'\n', 1),
                b't' => (b'\t', 1),
                b'x' => (u8::from_str_radix(&escape[1..3], 16).unwrap(), 3),
                other => (other, 1),
            };
            out.push(byte);
            rest = &escape[length..];
        } else {
            out.push(first as u8);
            rest = &rest[1..];
        }
    }
    out
}

/// The text as it stands in the table.
fn escaped(bytes: &[u8]) -> String {
    let escaped = bytes.iter().map(|byte| match byte {
        b'\\' => "\\\\".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\n' => "\\n".to_owned(),
        b'\t' => "\\t".to_owned(),
        b' '..=b'~' => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    });
    escaped.collect()
}

/// The first answer as it stands in the table, and the bytes behind it; None while it is not
/// complete. `has_ended`: nothing more comes; `is_head`: no answer has a body.
fn first_answer(bytes: &[u8], has_ended: bool, is_head: bool) -> Option<(String, &[u8])> {
    let end = bytes.windows(4).position(|end| end == b"\r\n\r\n")?;
    let (head, rest) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 4..]);
    let (status, headers) = head.split_once("\r\n").unwrap_or((&*head, ""));
    let status = status.strip_prefix("HTTP/").unwrap();
    let mut headers: Vec<&str> =
        headers.split("\r\n").filter(|line| !line.starts_with("Date: ")).collect();
    let length = headers.iter().find_map(|line| line.strip_prefix("Content-Length: "));
    let length = match length {
        // The answer to HEAD has the length and not the body.
        _ if is_head || status.contains(" 1") => 0,
        Some(length) => length.parse().unwrap(),
        None if has_ended => rest.len(),
        None => return None,
    };
    let body = String::from_utf8_lossy(rest.get(..length)?).into_owned();
    let body = match body.strip_prefix(r#"{"header":{"#) {
        Some(ids) => {
            headers.retain(|line| !line.starts_with("Content-Length: "));
            format!("{{HEADER{}", ids.split_once('}').unwrap().1)
        }
        None if body.starts_with(r#"{"etcdserver":"#) => "{VERSION}".to_owned(),
        None => escaped(body.as_bytes()),
    };
    headers.sort_unstable();
    let mut headers = headers.join("|").replace("Sec-WebSocket-", "Sec-Websocket-");
    headers = headers.replace(&CORS.join("|"), "CORS");
    Some((format!("{status}|{headers}|{body}"), &rest[length..]))
}

/// All answers as they stand in the table.
fn answers(mut bytes: &[u8], has_ended: bool, is_head: bool) -> Vec<String> {
    let mut answers = Vec::new();
    while let Some((answer, rest)) = first_answer(bytes, has_ended, is_head) {
        answers.push(answer);
        bytes = rest;
    }
    answers
}

/// What a member answers, and whether it ends the connection; a connection that stays open is read
/// until there are so many answers.
fn ask(member: &Member, request: &[u8], count: usize, ends: bool) -> (String, bool) {
    let mut stream = TcpStream::connect(&member.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut sender = stream.try_clone().unwrap();
    let (request, is_head) = (request.to_vec(), request.starts_with(b"HEAD "));
    // The server may answer, and end the connection, before all is sent.
    let sent = std::thread::spawn(move || drop(sender.write_all(&request)));
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    let has_ended = loop {
        if !ends && answers(&bytes, false, is_head).len() >= count {
            break false;
        }
        match stream.read(&mut piece) {
            Ok(0) => break true,
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break true,
            Err(error) => panic!("{error}: {}", escaped(&bytes)),
        }
    };
    drop(stream);
    sent.join().unwrap();
    (answers(&bytes, has_ended, is_head).join("  "), has_ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_answered_as_by_etcd() {
    let root = tempfile::tempdir().unwrap();
    let (data, log) = (root.path().join("data"), root.path().join("log"));
    let mut member = Member::spawn_with(&["--gateway-exact-errors"], &[], &data, &log);
    member.wait_ready();
    // The answers tell the cluster's version, which is decided soon after the start.
    let begun = std::time::Instant::now();
    while member::get(&member.address, "/version").contains("not_decided") {
        assert!(begun.elapsed() < PATIENCE, "no version is decided");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mut wrong = Vec::new();
    for line in include_str!("data/http1.tsv").lines().filter(|line| !line.starts_with("# ")) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [name, request, ends, expected] = columns[..] else { panic!("{line}") };
        // Names are written in another way, as they may be.
        let expected = &expected.replace("Sec-WebSocket-", "Sec-Websocket-");
        let (ends, count) = (ends == "closed", expected.split("  ").count());
        let (answer, has_ended) = ask(&member, &unescaped(request), count, ends);
        if (answer.as_str(), has_ended) != (expected, ends) {
            wrong.push(format!("{name}\n  expected {expected}\n  answered {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(metric(&member, "rusd_network_client_http_refused_total") >= 80);
    member.serves().await;
}

fn metric(member: &Member, name: &str) -> u64 {
    let metrics = member.raw(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let metrics = String::from_utf8(metrics).unwrap();
    let (_, value) = metrics.split_once(&format!("\n{name} ")).expect("the metric is there");
    value.lines().next().unwrap().parse().unwrap()
}

#[test]
fn the_beginning_of_a_head_counts() {
    let member = Member::start();
    let mut half = TcpStream::connect(&member.address).unwrap();
    half.write_all(b"GET /version HTTP/1.1\r\nX: ").unwrap();
    half.write_all(&[b'a'; 500_000]).unwrap();
    let wait = |is_reached: fn(u64) -> bool| {
        let end = std::time::Instant::now() + PATIENCE;
        let bytes = || metric(&member, "rusd_network_client_unfinished_bytes");
        while !is_reached(bytes()) {
            assert!(std::time::Instant::now() < end, "{}", bytes());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    };
    wait(|bytes| bytes >= 500_000);
    // The rest comes, and nothing is left.
    half.write_all(b"\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    half.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    wait(|bytes| bytes == 0);
}
