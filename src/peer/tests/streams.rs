//! Streams between members that follow the protocol.

use tokio::io::AsyncWriteExt as _;

use super::*;

#[test]
fn members_replicate_over_sockets_and_survive_the_loss_of_one() {
    let mut cluster = Cluster::new();
    let leader = cluster.elect();
    let mut count = 0;
    // From the leader, then forwarded by a follower: one after the other, so that the order is
    // known.
    for at in [leader, (leader + 1) % 3] {
        for _ in 0..100 {
            cluster.propose(at, count);
            count += 1;
        }
        cluster.expect(count);
    }
    let (reply, answer) = sync_channel(1);
    let follower = cluster.members[(leader + 2) % 3].as_ref().unwrap();
    follower.handle.read_index(move |outcome| reply.send(outcome).unwrap());
    let index = answer.recv_timeout(Duration::from_secs(20)).unwrap().unwrap();
    assert!(index >= 203, "{index}");

    cluster.stop(leader);
    let second = cluster.elect();
    assert_ne!(second, leader);
    for _ in 0..100 {
        cluster.propose(second, count);
        count += 1;
    }
    cluster.expect(count);
    cluster.members[leader] = Some(cluster.start(leader));
    cluster.expect(count);
}

#[test]
fn a_peer_that_takes_nothing_costs_no_more_than_its_queue() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _context = runtime.enter();
    let of = member_config;
    let peers = peers_of(of(1), &runtime);
    peers.update(2, Vec::new());
    let path = "/raft/stream/msgapp/2";
    let mut request = http::Request::get(path).body(http_body_util::Empty::<Bytes>::new()).unwrap();
    *request.headers_mut() = headers::headers(&of(2), Some(1)).unwrap();
    // The peer asks for the stream and then reads nothing.
    let hung = runtime.block_on(peers.answer(request));
    assert_eq!(hung.status(), 200);
    let peer = peers.peer(2).unwrap();
    let fill = |bytes: usize| {
        let entry = Entry { data: vec![0; bytes].into(), ..Entry::default() };
        let mut message = Message { to: 2, from: 1, entries: vec![entry], ..Message::default() };
        message.set_msg_type(MessageType::MsgAppend);
        (0..2 * limits::PEER_QUEUE_MAX).filter(|_| peer.send(message.clone()).is_none()).count()
    };
    let large = fill(1 << 20);
    assert!(0 < large && large << 20 <= limits::PEER_QUEUE_BYTES_MAX, "{large}");
    let small = fill(1);
    assert!(large + small <= limits::PEER_QUEUE_MAX, "{large} and {small}");
    drop(hung);
    assert_eq!(fill(1), 0, "nobody holds the stream");
}

#[tokio::test]
async fn a_peer_is_dialled_from_the_address_that_was_chosen() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: http::Uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    for local in [None, Some([127, 0, 0, 3].into())] {
        let dial = TcpDial { local };
        let (dialled, accepted) = tokio::join!(dial.dial(&url), listener.accept());
        dialled.map(drop).unwrap();
        let expected = local.unwrap_or([127, 0, 0, 1].into());
        assert_eq!(accepted.unwrap().1.ip(), expected);
    }
}

#[tokio::test]
async fn a_stream_is_dialled_anew_once_it_is_silent_for_the_time_that_is_set() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let config = PeersConfig { read_timeout: Duration::from_millis(1), ..member_config(1) };
    let dial = Arc::new(TcpDial::default());
    let runtime = tokio::runtime::Handle::current();
    let peers = Peers::new(config, dial, runtime, Supervisor::default());
    peers.update(2, vec![url.clone()]);
    let owner: std::sync::Weak<dyn super::super::owner::PeerOwner> = Arc::downgrade(&peers) as _;
    tokio::spawn(super::super::reader::read(owner, 2, vec![url], Channel::Other));
    let head = b"HTTP/1.1 200 OK\r\nX-Rusd-Version: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    // With the least timeout of the flag, a minute would be enough for a dozen.
    let dialled = async {
        let mut streams = Vec::new();
        while streams.len() < 30 {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(head).await.unwrap();
            streams.push(stream);
        }
    };
    tokio::time::timeout(Duration::from_secs(60), dialled).await.expect("it waits on");
}
