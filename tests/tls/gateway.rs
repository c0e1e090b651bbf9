//! The JSON gateway over HTTP/2, which only TLS brings.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rusd::tls::{ClientFiles, Connector};
use tokio::time::timeout;

use super::server::{PATIENCE, Port, Server, client, mutual};
use super::shop::Shop;

/// Their lines are more than the 64 MiB that a connection may leave untaken, so lines wait for the client
/// to take others.
const WATCHES: usize = 90;
const VALUE_BYTES: usize = 1_000_000;

fn post(path: &str, body: String) -> http::Request<Full<Bytes>> {
    let request = http::Request::post(format!("https://localhost{path}"));
    request.body(Full::new(Bytes::from(body))).unwrap()
}

async fn connect(server: &Server, shop: &Shop) -> http2::SendRequest<Full<Bytes>> {
    let files = ClientFiles { protocol: "h2", ..client(shop, "client") };
    let connector = Connector::new(files).unwrap();
    let stream = connector.connect(server.dial(Port::Client).await, "localhost").await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(4 << 20).initial_connection_window_size(64 << 20);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A common name would not count, and its owner may think that it does.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_with_a_common_name_is_refused_while_authentication_is_on() {
    let shop = Shop::new();
    let server = Server::start("https", &mutual(&shop)).await;
    let mut sender = connect(&server, &shop).await;
    for (path, body) in [
        ("/v3/auth/user/add", r#"{"name":"root","password":"pw"}"#),
        ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
        ("/v3/auth/enable", "{}"),
    ] {
        let answer = sender.send_request(post(path, body.into())).await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    for token in [None, Some("a.token")] {
        let mut range = post("/v3/kv/range", r#"{"key":"YQ=="}"#.into());
        if let Some(token) = token {
            range.headers_mut().insert("authorization", token.parse().unwrap());
        }
        let answer = sender.send_request(range).await.unwrap();
        assert_eq!(answer.status(), 400);
        let text = answer.into_body().collect().await.unwrap().to_bytes();
        let expected = "CommonName of client sending a request against gateway will be ignored";
        assert!(String::from_utf8_lossy(&text).contains(expected), "{text:?}");
    }
}

/// All streams of a connection that reads get their lines, however much there is of them at once.
#[tokio::test(flavor = "multi_thread")]
async fn large_lines_reach_all_watches_of_one_connection() {
    let shop = Shop::new();
    let server = Server::start("https", &mutual(&shop)).await;
    let mut sender = connect(&server, &shop).await;
    let key = STANDARD.encode("watched");
    let mut watches = Vec::new();
    for _ in 0..WATCHES {
        let create = format!(r#"{{"create_request":{{"key":"{key}"}}}}"#);
        let mut answer = sender.send_request(post("/v3/watch", create)).await.unwrap();
        let created = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        assert!(created.starts_with(br#"{"result":{"header""#), "{created:?}");
        watches.push(tokio::spawn(async move {
            let mut bytes = 0;
            while bytes < VALUE_BYTES * 4 / 3 {
                bytes += answer.frame().await.unwrap().unwrap().into_data().unwrap().len();
            }
        }));
    }
    let value = STANDARD.encode(vec![b'v'; VALUE_BYTES]);
    let put = post("/v3/kv/put", format!(r#"{{"key":"{key}","value":"{value}"}}"#));
    assert_eq!(sender.send_request(put).await.unwrap().status(), 200);
    for watch in watches {
        timeout(PATIENCE, watch).await.expect("the line comes").unwrap();
    }
}
