use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

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
use crate::pb::{PutRequest, RangeRequest};

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
    let message: &[u8] = if refusal.is_some() { &[] } else { &[0; 5] };
    serve_message(listener, message, refusal).await;
}

async fn answer(
    message: &'static [u8],
    code: u16,
    text: &'static str,
) -> Result<http::Response<impl http_body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    trailers.insert("grpc-message", text.parse().unwrap());
    let body = Full::new(Bytes::from_static(message));
    let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
    let answer = http::Response::builder().header("content-type", "application/grpc");
    Ok(answer.body(body).unwrap())
}

async fn serve_message(
    listener: TcpListener,
    message: &'static [u8],
    refusal: Option<&'static str>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let code = if refusal.is_some() { 9 } else { 0 };
        let answer = service_fn(move |_| answer(message, code, refusal.unwrap_or_default()));
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

#[tokio::test]
async fn an_answer_that_is_no_message_is_an_internal_error() {
    let (listener, address) = listener().await;
    // A field of a wire type that there is not.
    tokio::spawn(serve_message(listener, &[0, 0, 0, 0, 1, 0xf], None));
    let client = client_of(&[plain(address)]).await;
    let request = RangeRequest { key: "a".into(), ..RangeRequest::default() };
    let requests = tokio_stream::once(request.clone()).boxed();
    let called = client.call(&rpc::RANGE, request, Deadline::after(PATIENCE)).await.unwrap_err();
    let text = "failed to decode Protobuf message: invalid wire type value: 7";
    let Error::Status(status) = called else { panic!("{called:?}") };
    assert_eq!((status.code(), status.message()), (Code::Internal, text));
    let opened = client.stream(&rpc::RANGE_STREAM, requests, false, Deadline::NONE).await;
    let streamed = client.next(&mut opened.unwrap(), Deadline::after(PATIENCE)).await.unwrap_err();
    let Error::Stream(status) = streamed else { panic!("{streamed:?}") };
    assert_eq!((status.code(), status.message()), (Code::Internal, text));
}

/// A server that has waited in vain is asked again, as by etcd's client, and not after the deadline.
#[tokio::test]
async fn what_the_server_gave_up_is_tried_again_until_the_deadline() {
    let (listener, address) = listener().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let answer = service_fn(move |_| match counted.fetch_add(1, Ordering::Relaxed) {
            2 => answer(&[0; 5], 0, ""),
            _ => answer(&[], 4, ""),
        });
        let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
    });
    let client = client_of(&[plain(address)]).await;
    let put = PutRequest { key: "key".into(), ..Default::default() };
    let put = |deadline| client.call(&rpc::PUT, put.clone(), deadline);
    put(Deadline::after(PATIENCE)).await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    let refused = put(Deadline::after(Duration::from_millis(200))).await.unwrap_err();
    assert!(calls.load(Ordering::Relaxed) > 4, "{refused}");
}
