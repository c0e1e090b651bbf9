//! A member that is behind gets bad snapshots from others: it refuses all of them, and then takes
//! the good one, once.

use std::convert::Infallible;
use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use prost::Message as _;
use sha2::{Digest, Sha256};

use super::snapshot_tests::{Member, addresses, file_of, has, put, start, start_at, until};
use crate::bbolt::{Item, Reader};
use crate::node::Node;
use crate::peer::{DIGEST_BYTES, SnapshotDigest};
use crate::raft::{ConfState, Message};

const SNAPSHOT: i32 = 7;

/// A snapshot to send: the message, the file and the headers.
#[derive(Clone)]
struct Offer {
    message: Message,
    file: Vec<u8>,
    cluster: u64,
    has_digest: bool,
    is_rusd: bool,
}

impl Offer {
    /// A good snapshot of `from`, for `to`.
    async fn of(from: &Node, to: &Node) -> Self {
        let file = file_of(from).await;
        let mut message = Message { msg_type: SNAPSHOT, ..Message::default() };
        (message.from, message.to) = (from.member_id(), to.member_id());
        let (index, term, conf_state) = place(&file);
        message.term = term;
        let metadata = message.mut_snapshot().mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.conf_state = Some(conf_state);
        Self { message, file, cluster: to.cluster_id(), has_digest: true, is_rusd: true }.signed()
    }

    /// Corrects the digest after the file was changed.
    fn signed(mut self) -> Self {
        let end = self.file.len() - DIGEST_BYTES;
        let mut digest = SnapshotDigest::default();
        digest.update(&self.file[..end]);
        self.file[end..].copy_from_slice(&digest.finish());
        self
    }

    fn body(&self) -> Vec<u8> {
        let mut body = BytesMut::new();
        body.put_u64(self.message.encoded_len() as u64);
        body.extend_from_slice(&self.message.encode_to_vec());
        body.extend_from_slice(&self.file);
        body.to_vec()
    }

    async fn to(&self, node: &Node) -> u16 {
        self.post(node, self.body()).await
    }

    /// Sends `body` in the place of the snapshot's own.
    async fn post(&self, node: &Node, body: Vec<u8>) -> u16 {
        let length = Some(body.len() as u64);
        self.post_of_length(node, body, length).await
    }

    /// As `post`, with another length than the body has, or none.
    async fn post_of_length(&self, node: &Node, body: Vec<u8>, length: Option<u64>) -> u16 {
        let mut request = hyper::Request::post("/raft/snapshot")
            .header("x-etcd-cluster-id", format!("{:x}", self.cluster))
            .header("x-server-version", "3.7.1");
        if self.is_rusd {
            request = request.header("x-rusd-version", "1");
        }
        if self.has_digest {
            let digest = Sha256::digest(self.message.encode_to_vec());
            request = request.header("x-rusd-snapshot-digest", format!("{digest:x}"));
        }
        let request = request.body(Announced { body: Some(body.into()), length }).unwrap();
        node.peers().answer(request).await.status().as_u16()
    }
}

/// A body that says of itself what it likes.
struct Announced {
    body: Option<Bytes>,
    length: Option<u64>,
}

impl Body for Announced {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.body.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Applied index, its term and the voters, as the file's meta bucket has them.
fn place(file: &[u8]) -> (u64, u64, ConfState) {
    let temp = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(temp.path(), &file[..file.len() - DIGEST_BYTES]).unwrap();
    let file = File::open(temp.path()).unwrap();
    let reader = Reader::open(&file).unwrap();
    let meta = reader.bucket(b"meta").unwrap().unwrap();
    let (mut index, mut term, mut conf_state) = (0, 0, ConfState::default());
    let mut cursor = reader.cursor(&meta);
    while let Some((key, item)) = cursor.next().unwrap() {
        let Item::Value(value) = item else { continue };
        let number = || u64::from_be_bytes(value.try_into().unwrap());
        match key {
            b"consistent_index" => index = number(),
            b"term" => term = number(),
            b"confState" => {
                let json: serde_json::Value = serde_json::from_slice(value).unwrap();
                let voters = json["voters"].as_array().unwrap();
                conf_state.voters = voters.iter().map(|id| id.as_u64().unwrap()).collect();
            }
            _ => {}
        }
    }
    assert!(index > 0 && term > 0 && conf_state.voters.len() == 3);
    (index, term, conf_state)
}

/// Two members that have purged their log, and a third that the others cannot reach.
async fn scene(dir: &Path, addresses: &[SocketAddr]) -> (Member, Member, Member) {
    let first = start(dir, 0, addresses).await;
    let second = start(dir, 1, addresses).await;
    for n in 0..400 {
        put(&first.node, &format!("key {}", n % 50), 1000).await;
    }
    let nowhere: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let late = start_at(dir, 2, addresses, nowhere).await;
    (first, second, late)
}

/// Snapshots of which only the message is wrong, and the status that refuses each.
fn misplaced(good: &Offer) -> Vec<(&'static str, Offer, u16)> {
    let edited = |edit: &dyn Fn(&mut Message)| {
        let mut offer = good.clone();
        edit(&mut offer.message);
        offer
    };
    let conf = |edit: &dyn Fn(&mut ConfState)| {
        edited(&|message| edit(message.mut_snapshot().mut_metadata().mut_conf_state()))
    };
    let us = good.message.to;
    vec![
        ("of nobody", conf(&|conf| conf.voters.clear()), 409),
        ("without us", conf(&|conf| conf.voters.retain(|id| *id != us)), 409),
        ("a learner that votes", conf(&|conf| conf.learners = vec![us]), 409),
        ("a voter twice", conf(&|conf| conf.voters.push(us)), 409),
        ("with a member 0", conf(&|conf| conf.voters.push(0)), 409),
        ("joint", conf(&|conf| conf.voters_outgoing = vec![us]), 409),
        ("that leaves", conf(&|conf| conf.auto_leave = true), 409),
        ("with a learner to be", conf(&|conf| conf.learners_next = vec![77]), 409),
        ("with one that nobody knows", conf(&|conf| conf.voters.push(77)), 500),
        ("without one", conf(&|conf| conf.voters.truncate(0)), 409),
        ("no configuration", edited(&|m| m.mut_snapshot().mut_metadata().conf_state = None), 409),
        ("no place", edited(&|m| m.mut_snapshot().metadata = None), 409),
        ("no snapshot", edited(&|m| m.snapshot = None), 409),
        ("an old index", edited(&|m| m.mut_snapshot().mut_metadata().index = 1), 409),
        ("a later index", edited(&|m| m.mut_snapshot().mut_metadata().index += 1), 500),
        (
            "the last index of all",
            edited(&|m| m.mut_snapshot().mut_metadata().index = u64::MAX),
            500,
        ),
        ("another term", edited(&|m| m.mut_snapshot().mut_metadata().term += 1), 500),
        ("an old leader", edited(&|m| m.term = 0), 409),
        ("another message", edited(&|m| m.msg_type = 3), 400),
        ("to another", edited(&|m| m.to = 77), 403),
        ("from a stranger", edited(&|m| m.from = 77), 403),
        ("from ourselves", edited(&|m| m.from = us), 403),
        ("of another cluster", Offer { cluster: 1, ..good.clone() }, 412),
        ("of other software", Offer { is_rusd: false, ..good.clone() }, 412),
        ("without a digest", Offer { has_digest: false, ..good.clone() }, 400),
    ]
}

async fn refuses_all(good: &Offer, late: &Node) {
    for (what, offer, status) in misplaced(good) {
        assert_eq!(offer.to(late).await, status, "{what}");
    }
    let file_bytes = good.file.len();
    let step = file_bytes / 40;
    // Both meta pages, and pages of all kinds behind them.
    let places = [0, 20, 24, 40, 60, 80, 4096, 4116, 4120, 4140, file_bytes - 1, file_bytes - 33];
    let places: Vec<usize> = (1..40).map(|at| at * step + at).chain(places).collect();
    for at in places {
        let mut offer = good.clone();
        offer.file[at] ^= 1 << (at % 8);
        assert_eq!(offer.to(late).await, 500, "a bit of byte {at} is flipped");
        // A changed file may come with a digest that fits. Then only contradictions can be refused,
        // such as this one between the message's index and the file's.
        offer.message.mut_snapshot().mut_metadata().index += 1;
        assert_eq!(offer.signed().to(late).await, 500, "a bit of byte {at}, and its digest");
    }
    let body = good.body();
    let head_bytes = body.len() - file_bytes;
    for at in 0..head_bytes {
        let mut flipped = body.clone();
        flipped[at] ^= 0x40;
        let status = good.post(late, flipped).await;
        assert!(status >= 400, "byte {at} of the message: {status}");
    }
    let ends = [0, 1, 7, 8, 9, head_bytes - 1, head_bytes, head_bytes + 31, head_bytes + 4096];
    let ends = ends.into_iter().chain([body.len() / 2, body.len() - 33, body.len() - 1]);
    for end in ends {
        let status = good.post(late, body[..end].to_vec()).await;
        assert!(status >= 400, "cut off after {end} of {} bytes: {status}", body.len());
    }
    let longer = [&body[..], b"x"].concat();
    assert_eq!(good.post(late, longer).await, 500, "something follows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_snapshots_are_refused_and_a_good_one_is_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let addresses = addresses();
    let (first, second, late) = scene(dir.path(), &addresses).await;
    let good = Offer::of(&first.node, &late.node).await;
    refuses_all(&good, &late.node).await;
    for (length, status) in [(Some(1 << 60), 507), (None, 411)] {
        assert_eq!(good.post_of_length(&late.node, good.body(), length).await, status);
    }
    assert!(!has(&late.node, "key 49").await, "nothing of them is there");
    assert_eq!(good.to(&late.node).await, 204);
    until("the state", async || has(&late.node, "key 49").await).await;
    assert_eq!(good.to(&late.node).await, 409, "a replay");
    // It starts again where the others look for it.
    late.stop().await;
    let late = start(dir.path(), 2, &addresses).await;
    put(&first.node, "later", 10).await;
    until("what came later", async || has(&late.node, "later").await).await;
    assert_eq!(good.to(&late.node).await, 409, "a replay");
    // A leader takes no snapshot at all.
    let offer = Offer::of(&late.node, &first.node).await;
    assert_eq!(offer.to(&first.node).await, 409);
    put(&first.node, "last", 10).await;
    until("what came last", async || has(&late.node, "last").await).await;
    for member in [first, second, late] {
        member.stop().await;
    }
}
