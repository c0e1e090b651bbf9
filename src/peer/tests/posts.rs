//! Messages that go in requests of their own.

use std::convert::Infallible;
use std::sync::Weak;

use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};

use super::one::Peer;
use super::owner::PeerOwner;
use super::*;

#[test]
fn a_member_that_can_dial_nobody_takes_part() {
    let mut cluster = Cluster::with_mute(Some(2));
    let mut count = 0;
    // Without a vote of its own the mute member would still hear a leader; with one of the others
    // gone, its vote and its acknowledgements are needed.
    for gone in [None, Some(0)] {
        if let Some(gone) = gone {
            cluster.stop(gone);
        }
        let mut leader = cluster.elect();
        cluster.until("a leader that the mute member knows", |cluster| {
            leader = cluster.elect();
            let mute = cluster.members[2].as_ref().unwrap();
            mute.handle.status().leader == leader as u64 + 1
        });
        for at in [leader, 2] {
            for _ in 0..20 {
                cluster.propose(at, count);
                count += 1;
                cluster.until("it is applied", |cluster| {
                    cluster.running().all(|member| member.applied.len() >= count)
                });
            }
        }
        cluster.expect(count);
    }
}

/// What the peer at the other end does with a message.
#[derive(Clone, Copy, Debug)]
enum Other {
    Answers(u16),
    Hangs,
    Away,
    /// Takes whatever comes, as a member of etcd does.
    IsStranger,
}

/// A member that posts, and the peer that it posts to, without sockets.
struct Owner {
    config: PeersConfig,
    peer: Other,
    arrived: Arc<Mutex<Vec<Message>>>,
    unsent: Mutex<Vec<(u64, bool)>>,
    removed: AtomicUsize,
}

impl Owner {
    fn of(peer: Other) -> Arc<Self> {
        Arc::new(Self {
            config: member_config(1),
            peer,
            arrived: Arc::default(),
            unsent: Mutex::default(),
            removed: AtomicUsize::new(0),
        })
    }
}

impl Dial for Owner {
    fn dial<'a>(&'a self, _: &'a http::Uri) -> Dialing<'a> {
        let peer = self.peer;
        if matches!(peer, Other::Away) {
            return Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) });
        }
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let arrived = Arc::clone(&self.arrived);
        tokio::spawn(async move {
            let answer = service_fn(|request: http::Request<hyper::body::Incoming>| {
                let arrived = Arc::clone(&arrived);
                async move {
                    let mut answer = Response::new(Full::<Bytes>::default());
                    if !matches!(peer, Other::IsStranger) {
                        *answer.headers_mut() = headers::headers(&member_config(2), None).unwrap();
                    }
                    if request.uri().path() == "/raft/probing" {
                        return Ok::<_, Infallible>(answer);
                    }
                    assert_eq!(request.uri().path(), "/raft");
                    assert_eq!(request.headers()["x-raft-to"], "2");
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    arrived.lock().push(Message::decode(body).unwrap());
                    match peer {
                        Other::Answers(status) => {
                            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
                        }
                        _ => std::future::pending().await,
                    }
                    Ok(answer)
                }
            });
            let _ = http1::Builder::new().serve_connection(TokioIo::new(theirs), answer).await;
        });
        Box::pin(async move { Ok(Box::new(ours) as Box<dyn Link>) })
    }
}

/// The owner as the tasks hold it.
struct Shared(Arc<Owner>);

impl PeerOwner for Shared {
    fn config(&self) -> &PeersConfig {
        &self.0.config
    }
    fn dial(&self) -> Arc<dyn Dial> {
        Arc::clone(&self.0) as Arc<dyn Dial>
    }
    fn supervisor(&self) -> Supervisor {
        Supervisor::default()
    }
    fn peer(&self, _: u64) -> Option<Arc<Peer>> {
        None
    }
    fn receive(&self, _: u64, _: Message) -> bool {
        true
    }
    fn unsent(&self, message: Message, may_have_come: bool) {
        self.0.unsent.lock().push((message.index, may_have_come));
    }
    fn forget(&self, _: u64) {}
    fn removed(&self) {
        self.0.removed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Posts messages 0 to 3, the last one once nothing is left to be done for the others, and returns
/// those that arrived, those that are reported unsent (and whether they may have come), and how
/// often the peer has said that this member was removed.
async fn post_to(peer: Other) -> (Vec<u64>, Vec<(u64, bool)>, usize) {
    let shared = Owner::of(peer);
    let owner: Arc<dyn PeerOwner> = Arc::new(Shared(Arc::clone(&shared)));
    let held: Weak<dyn PeerOwner> = Arc::downgrade(&owner);
    let (outgoing, queued) = one::queue(4);
    let post = post::post(held, 2, vec!["http://peer.invalid:1".into()], queued);
    let task = tokio::spawn(post);
    let message = |index| Message { to: 2, from: 1, index, ..Message::default() };
    for index in 0..3 {
        assert!(outgoing.push(message(index)).is_ok());
    }
    let takes_all = matches!(peer, Other::Answers(204));
    let until = async |count: usize| loop {
        let done = match takes_all {
            true => shared.arrived.lock().len(),
            false => shared.unsent.lock().len(),
        };
        if done == count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    until(3).await;
    assert!(outgoing.push(message(3)).is_ok());
    until(4).await;
    task.abort();
    let arrived = shared.arrived.lock().iter().map(|message| message.index).collect();
    let unsent = std::mem::take(&mut *shared.unsent.lock());
    (arrived, unsent, shared.removed.load(Ordering::Relaxed))
}

#[tokio::test]
async fn what_cannot_be_posted_is_reported_and_what_may_have_come_is_told_apart() {
    let (taken, full, refused, gone, silent, away, stranger) = tokio::join!(
        post_to(Other::Answers(204)),
        post_to(Other::Answers(503)),
        post_to(Other::Answers(500)),
        post_to(Other::Answers(410)),
        post_to(Other::Hangs),
        post_to(Other::Away),
        post_to(Other::IsStranger),
    );
    assert_eq!(taken, (vec![0, 1, 2, 3], vec![], 0));
    let all = vec![(0, false), (1, false), (2, false), (3, false)];
    // Who is there and has no room is asked for each of them.
    assert_eq!(full, (vec![0, 1, 2, 3], all.clone(), 0));
    assert_eq!(refused, (vec![0, 3], all.clone(), 0));
    assert_eq!(gone, (vec![0, 3], all.clone(), 2));
    assert_eq!(silent, (vec![0, 3], vec![(0, true), (1, false), (2, false), (3, true)], 0));
    assert_eq!(away, (vec![], all.clone(), 0));
    assert_eq!(stranger, (vec![], all, 0));
}

#[tokio::test]
async fn what_a_stream_has_queued_when_its_connection_ends_is_reported() {
    let of_type = |msg_type: MessageType, index| Message {
        to: 2,
        from: 1,
        index,
        msg_type: msg_type as i32,
        ..Message::default()
    };
    let (propose, append) = (MessageType::MsgPropose, MessageType::MsgAppend);
    for is_replaced in [false, true] {
        let shared = Owner::of(Other::Away);
        let owner: Arc<dyn PeerOwner> = Arc::new(Shared(Arc::clone(&shared)));
        let (outgoing, queued) = one::queue(8);
        let held: Weak<dyn PeerOwner> = Arc::downgrade(&owner);
        let stream = answer::MessageStream::new(queued, frame::Channel::BOTH[0], held);
        for (msg_type, index) in [(append, 1), (propose, 2), (append, 3), (propose, 4)] {
            assert!(outgoing.push(of_type(msg_type, index)).is_ok());
        }
        let sender = (!is_replaced).then_some(outgoing);
        drop(stream);
        let proposals = vec![(2, false), (4, false)];
        match sender {
            Some(sender) => {
                assert_eq!(*shared.unsent.lock(), [proposals, vec![(3, false)]].concat());
                assert!(sender.push(of_type(propose, 5)).is_err(), "nobody takes it any more");
            }
            None => assert_eq!(*shared.unsent.lock(), proposals, "the peer is there"),
        }
    }
}
