use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;

use super::super::config::TlsOptions;
use super::super::endpoint::Address;
use super::*;
use crate::clock::SystemClock;
use crate::pb::RangeRequest;

/// Longest wait of a test. Even a busy machine needs much less, so exceeding it is a failure.
const PATIENCE: Duration = Duration::from_secs(90);

struct Quiet;

impl LogSink for Quiet {
    fn event(&self, _: &Event<'_>) {}
}

async fn client_of(endpoints: &[String]) -> Client {
    let config = Config {
        endpoints: endpoints.to_vec(),
        dial_timeout: Duration::ZERO,
        keep_alive_time: Duration::from_secs(60),
        keep_alive_timeout: Duration::from_secs(60),
        send_bytes_max: 0,
        receive_bytes_max: 0,
        tls: TlsOptions { skip_verify: true, ..TlsOptions::default() },
        credentials: Credentials::None,
        reach: Reach::UntilDeadline,
        logger: "client",
    };
    Client::connect(config, Arc::new(Quiet), Arc::new(SystemClock::new())).await.unwrap()
}

fn plain(address: SocketAddr) -> String {
    format!("http://{address}")
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Answers each call with an empty message, or with `refusal`.
async fn serve(listener: TcpListener, refusal: Option<&'static str>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let answer = service_fn(move |_| async move {
            let mut trailers = http::HeaderMap::new();
            let code = if refusal.is_some() { "9" } else { "0" };
            trailers.insert("grpc-status", code.parse().unwrap());
            trailers.insert("grpc-message", refusal.unwrap_or_default().parse().unwrap());
            let message: &[u8] = if refusal.is_some() { &[] } else { &[0; 5] };
            let body = Full::new(Bytes::from_static(message));
            let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
            let answer = http::Response::builder().header("content-type", "application/grpc");
            Ok::<_, Infallible>(answer.body(body).unwrap())
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(connection.serve_connection(TokioIo::new(stream), answer));
    }
}

#[tokio::test]
async fn a_restarting_endpoint_is_found_beside_a_silent_one() {
    // The kernel completes connections to this socket, and nothing is ever sent on them.
    let (_silent, silent) = listener().await;
    let restarting = TcpSocket::new_v4().unwrap();
    restarting.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = restarting.local_addr().unwrap();
    let client = client_of(&[plain(silent), plain(address)]).await;
    let last = Mutex::new(String::new());
    let restart = async {
        while last.lock().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
        serve(restarting.listen(8).unwrap(), None).await;
    };
    let picked = async {
        tokio::select! {
            (node, _) = client.inner.nodes.pick(&last) => node.connector.address.clone(),
            () = restart => unreachable!("it serves on"),
        }
    };
    let picked = timeout(PATIENCE, picked).await.expect("the endpoint is not found again");
    assert_eq!(picked, Address::Tcp(address.to_string()));
}

#[tokio::test]
async fn dialling_a_silent_endpoint_ends() {
    let (_silent, address) = listener().await;
    let client = client_of(&[plain(address), format!("https://{address}")]).await;
    let dial = |at: usize| timeout(PATIENCE, client.inner.nodes.all[at].dial());
    for outcome in <[_; 2]>::from(tokio::join!(dial(0), dial(1))) {
        let why = outcome.expect("it is waited for without an end").map(drop).unwrap_err();
        assert!(why.text.contains("timeout"), "{}", why.text);
    }
}

#[tokio::test]
async fn a_call_that_a_learner_refuses_does_not_wait_for_a_silent_endpoint() {
    let (_silent, silent) = listener().await;
    let ((learner, at_learner), (voter, at_voter)) = (listener().await, listener().await);
    tokio::spawn(serve(learner, Some("etcdserver: rpc not supported for learner")));
    tokio::spawn(serve(voter, None));
    let client = client_of(&[plain(silent), plain(at_learner), plain(at_voter)]).await;
    for node in &client.inner.nodes.all[1..] {
        *node.channel.lock() = Some(node.dial().await.unwrap());
    }
    let request = RangeRequest { key: "a".into(), ..RangeRequest::default() };
    let answer = client.call(&rpc::RANGE, request, Deadline::after(PATIENCE)).await;
    answer.expect("the voter answers");
}
