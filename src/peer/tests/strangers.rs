//! Requests from strangers, and from members that violate the protocol.

use super::*;
use crate::metrics;

#[test]
fn strangers_get_no_stream() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = member_config(1);
    let peers = peers_of(config, &runtime);
    peers.update(2, Vec::new());
    peers.remove(3);
    let asking = member_config(2);
    let ask = |path: &str, change: &dyn Fn(&mut http::HeaderMap)| {
        let mut request =
            http::Request::get(path).body(http_body_util::Empty::<Bytes>::new()).unwrap();
        *request.headers_mut() = headers::headers(&asking, Some(1)).unwrap();
        change(request.headers_mut());
        runtime.block_on(peers.answer(request)).status().as_u16()
    };
    let as_is = |_: &mut http::HeaderMap| {};
    assert_eq!(ask("/raft/stream/message/2", &as_is), 200);
    assert_eq!(ask("/raft/stream/msgapp/2", &as_is), 200);
    assert_eq!(ask("/raft/stream/message/7", &as_is), 404);
    assert_eq!(ask("/raft/stream/message/3", &as_is), 410);
    assert_eq!(ask("/raft/stream/other/2", &as_is), 404);
    assert_eq!(ask("/raft/stream/message/2/x", &as_is), 404);
    assert_eq!(ask("/raft/probing", &as_is), 200);
    assert_eq!(ask("/raft", &as_is), 405);
    let set = |name: &'static str, value: &'static str| {
        move |headers: &mut http::HeaderMap| {
            headers.insert(name, http::HeaderValue::from_static(value));
        }
    };
    assert_eq!(ask("/raft/stream/message/2", &set("x-etcd-cluster-id", "8")), 412);
    assert!(!peers.may_log_stranger(), "nothing was logged of a member of another cluster");
    assert_eq!(ask("/raft/stream/message/2", &set("x-raft-to", "5")), 412);
    for version in ["3.8.0-alpha.0", "v3.9.1", "x"] {
        let later = set("x-server-version", version);
        assert_eq!(ask("/raft/stream/message/2", &later), 200, "{version}");
    }
    let etcd = |headers: &mut http::HeaderMap| {
        headers.remove("x-rusd-version");
    };
    assert_eq!(ask("/raft/stream/message/2", &etcd), 412);
    // A member that is behind does not know all others: a caller that tells its URLs is accepted.
    assert_eq!(ask("/raft/stream/message/7", &as_is), 404);
    let reachable = set("x-peerurls", "http://127.0.0.1:1");
    assert_eq!(ask("/raft/stream/message/7", &reachable), 404);
    assert_eq!(ask("/raft/stream/message/7", &as_is), 200);
    assert_eq!(ask("/raft/stream/message/3", &reachable), 410);
    assert_eq!(ask("/raft/stream/message/3", &as_is), 410);
}

/// Who posts a proposal tells its client that it may be proposed again, unless it was taken.
#[test]
fn a_posted_message_that_raft_does_not_take_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let peers = peers_of(member_config(1), &runtime);
    peers.update(2, Vec::new());
    let mut message = Message { to: 1, from: 2, term: 1, ..Message::default() };
    message.set_msg_type(MessageType::MsgPropose);
    let body = http_body_util::Full::new(Bytes::from(prost::Message::encode_to_vec(&message)));
    let mut request = http::Request::post("/raft").body(body).unwrap();
    *request.headers_mut() = headers::headers(&member_config(2), Some(1)).unwrap();
    // Raft does not run yet.
    let answer = runtime.block_on(peers.answer(request));
    assert_eq!(answer.status(), 503);
}

/// The log's word may come between the look for a caller and its acceptance.
#[test]
fn who_is_accepted_as_a_caller_takes_no_place_of_a_member() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let peers = peers_of(member_config(1), &runtime);
    let urls = |port: u16| vec![format!("http://127.0.0.1:{port}")];
    peers.update(2, urls(1));
    peers.insert(2, urls(2), true);
    let peer = peers.peer(2).unwrap();
    assert!(!peer.is_unconfirmed && peer.urls == urls(1));
    peers.remove(2);
    peers.insert(2, urls(2), true);
    assert!(peers.peer(2).is_none());
}

#[test]
fn strangers_that_call_are_dialled_seldom() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = member_config(1);
    let peers = peers_of(config, &runtime);
    let asking = member_config(2);
    let began = crate::clock::instant();
    let call = |id: u64, urls: &str| {
        let path = format!("/raft/stream/message/{id:x}");
        let body = http_body_util::Empty::<Bytes>::new();
        let mut request = http::Request::get(path).body(body).unwrap();
        *request.headers_mut() = headers::headers(&asking, Some(1)).unwrap();
        request.headers_mut().insert("x-peerurls", http::HeaderValue::from_str(urls).unwrap());
        assert_eq!(runtime.block_on(peers.answer(request)).status(), 404);
    };
    call(99, &"http://127.0.0.1:1,".repeat(limits::PEER_UNCONFIRMED_URLS_MAX + 1));
    assert!(peers.peer(99).is_none(), "nobody has so many URLs");
    (100..228).for_each(|id| call(id, "http://127.0.0.1:1"));
    let believed = (100..228).filter(|id| peers.peer(*id).is_some()).count();
    let seconds = began.elapsed().as_secs() as usize;
    assert!((1..=seconds + 1).contains(&believed), "{believed} in {seconds} s");
    // A peer that the log names is not forgotten for its silence.
    peers.update(100, Vec::new());
    (100..228).for_each(|id| peers.forget(id));
    let left: Vec<u64> = (100..228).filter(|id| peers.peer(*id).is_some()).collect();
    assert_eq!(left, [100]);
    let shown = metrics::render();
    let series = |id: u64| shown.contains(&format!("\"{id:x}\""));
    assert!(series(100));
    assert!((101..228).all(|id| !series(id)), "a stranger leaves series behind");
}

/// A body that does not end after its first bytes.
struct NeverEnds(Bytes);

impl http_body::Body for NeverEnds {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        match std::mem::take(&mut self.0) {
            bytes if bytes.is_empty() => std::task::Poll::Pending,
            bytes => std::task::Poll::Ready(Some(Ok(http_body::Frame::data(bytes)))),
        }
    }
}

#[test]
fn posted_messages_hold_a_bounded_number_of_bytes() {
    use futures_util::FutureExt as _;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = member_config(1);
    let peers = peers_of(config, &runtime);
    let asking = member_config(2);
    let headers = headers::headers(&asking, Some(1)).unwrap();
    let post = |bytes: usize| {
        let body = http_body_util::Full::new(Bytes::from(vec![0; bytes]));
        let mut request = http::Request::post("/raft").body(body).unwrap();
        *request.headers_mut() = headers.clone();
        request
    };
    runtime.block_on(async {
        let large = peers.answer(post(limits::PEER_POSTS_BYTES_MAX + 1)).await;
        assert_eq!(large.status(), 503);
        let hold = |bytes: usize| {
            let body = NeverEnds(vec![0; bytes].into());
            let mut request = http::Request::post("/raft").body(body).unwrap();
            *request.headers_mut() = headers.clone();
            let mut answer = Box::pin(peers.answer(request));
            assert!(answer.as_mut().now_or_never().is_none());
            answer
        };
        // Callers that send nothing hold nothing, however many they are.
        let mut held: Vec<_> = (0..1000).map(|_| hold(0)).collect();
        assert_ne!(peers.answer(post(1)).await.status(), 503);
        held.extend((0..8).map(|_| hold(limits::PEER_POSTS_BYTES_MAX / 8)));
        assert_eq!(peers.answer(post(1)).await.status(), 503);
        drop(held);
        assert_ne!(peers.answer(post(1)).await.status(), 503);
    });
}
