//! Documents that are large, and clients that take them slowly or not at all.

use std::io::ErrorKind;

use super::*;
use crate::metrics;

/// Asks for all keys.
const ALL: &str = r#"{"key":"AA==","range_end":"AA=="}"#;

/// Puts 20 MB, more than the system's buffers of a connection take.
async fn fill(member: &Member) {
    for number in 0..20 {
        member.put(&format!("k{number}"), vec![7; 1_000_000]).await;
    }
}

/// The same request of a client that knows no chunks.
fn old(request: &str) -> String {
    request.replace("HTTP/1.1", "HTTP/1.0")
}

/// Joins the chunks of a body.
fn joined(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, after)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        whole.push_str(&after[..size]);
        body = &after[size + 2..];
    }
    whole
}

/// Its length is not known before it is read. etcd states none from two kilobytes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_read_while_it_is_sent_is_whole() {
    let member = Member::start("").await;
    for number in 0..6 {
        let value = STANDARD.encode(vec![b'0' + number; 1_000_000]);
        let key = STANDARD.encode([number]);
        post(&member, "/v3/kv/put", &format!(r#"{{"key":"{key}","value":"{value}"}}"#)).await;
    }
    let answer = post(&member, "/v3/kv/range", ALL).await;
    assert!(answer.head.contains("transfer-encoding: chunked"), "{}", answer.head);
    assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
    let found: Value = serde_json::from_str(&joined(&answer.body)).unwrap();
    let pairs = found["kvs"].as_array().unwrap();
    assert_eq!((pairs.len(), &found["count"]), (6, &"6".into()));
    for (number, pair) in (0_u8..).zip(pairs) {
        assert_eq!(pair["key"], STANDARD.encode([number]));
        assert_eq!(pair["value"], STANDARD.encode(vec![b'0' + number; 1_000_000]));
    }
    // A client that knows no chunks sees the end of the connection.
    let mut stream = connect(&member, &old(&request("/v3/kv/range", ALL))).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert_eq!(serde_json::from_str::<Value>(body).unwrap()["kvs"], found["kvs"]);
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_is_as_long_as_its_head_says() {
    let member = Member::start("").await;
    for key in ["a", "b", "c"] {
        member.put(key, vec![7; 1_000_000]).await;
    }
    let answer = post(&member, "/v3/kv/range", ALL).await;
    let stated = format!("content-length: {}", answer.body.len());
    assert!(answer.head.contains(&stated), "{}", answer.head);
    let value = answer.json()["kvs"][2]["value"].as_str().unwrap().len();
    assert_eq!(value, 1_000_000_usize.div_ceil(3) * 4);
    member.stop().await;
}

/// All of an answer that is not read while it is sent counts while its client takes nothing, and not
/// only what is on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_takes_counts_whole() {
    let member = Member::start("").await;
    fill(&member).await;
    let body = r#"{"success":[{"request_range":{"key":"AA==","range_end":"AA=="}}]}"#;
    let idle = connect(&member, &request("/v3/kv/txn", body)).await;
    let unsent = || member.services.outbox.answers().unsent_bytes();
    let counted = async {
        while unsent() < 20_000_000 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("it counts");
    drop(idle);
    let gone = async {
        while unsent() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it counts no more");
    member.stop().await;
}

/// Without space, a compaction waits five seconds for whoever takes an answer slowly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_taken_too_slowly_is_cut_and_counted() {
    let member = Member::start("").await;
    fill(&member).await;
    let range = request("/v3/kv/range", ALL);
    let mut slow = connect(&member, &range).await;
    slow.readable().await.unwrap();
    // Without chunks, only a reset tells that there should be more.
    let mut without_chunks = connect(&member, &old(&range)).await;
    without_chunks.readable().await.unwrap();
    let alarm = r#"{"action":"ACTIVATE","memberID":"1","alarm":"NOSPACE"}"#;
    assert_eq!(post(&member, "/v3/maintenance/alarm", alarm).await.status, 200);
    let deleted = post(&member, "/v3/kv/deleterange", ALL).await.json();
    let revision = deleted["header"]["revision"].as_str().unwrap();
    let compaction = format!(r#"{{"revision":"{revision}","physical":true}}"#);
    let before = metrics::answers_cut().get();
    assert_eq!(post(&member, "/v3/kv/compaction", &compaction).await.status, 200);
    let mut came = Vec::new();
    let ended = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut came)).await.unwrap();
    assert!(ended.is_err() || !came.ends_with(b"0\r\n\r\n"), "it claims to be whole");
    let ended =
        tokio::time::timeout(PATIENCE, without_chunks.read_to_end(&mut came)).await.unwrap();
    assert_eq!(ended.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    assert!(metrics::answers_cut().get() > before);
    member.stop().await;
}
