//! Which parts are given up, when, and which stay.

use std::collections::VecDeque;
use std::convert::Infallible;

use futures_util::FutureExt;
use http_body_util::BodyExt;

use super::*;

const MIB: usize = 1 << 20;

/// A body that gives these frames and then stays pending.
#[derive(Default)]
pub(in crate::server) struct Frames(pub(in crate::server) VecDeque<Bytes>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Poll::Pending,
        }
    }
}

type Request = CountedRequestBody<Frames>;

/// A budget for which every part is old at once.
fn impatient() -> Arc<PartialMessages> {
    let mut all = PartialMessages::new(0);
    Arc::get_mut(&mut all).unwrap().old = Duration::ZERO;
    all
}

fn connection(all: &Arc<PartialMessages>) -> PartialAccount {
    all.connection(Arc::default())
}

fn is_closed(connection: &PartialAccount) -> bool {
    connection.closing.notified().now_or_never().is_some()
}

/// A request of which `bytes` bytes arrive, in frames, and the last byte never does.
fn request(connection: &PartialAccount, bytes: usize) -> Request {
    let zeros = Bytes::from(vec![0; MIB]);
    let prefix = [&[0][..], &(bytes as u32 + 1).to_be_bytes()].concat();
    let mut frames = VecDeque::from([Bytes::from(prefix)]);
    frames.extend((0..bytes / MIB).map(|_| zeros.clone()));
    frames.push_back(zeros.slice(..bytes % MIB));
    CountedRequestBody::new(Frames(frames), connection.clone())
}

/// Reads the frames that are there; returns the error that ends the body, if one does.
fn read(request: &mut Request) -> Option<rpc::BoxError> {
    while let Some(frame) = request.frame().now_or_never() {
        if let Err(error) = frame.unwrap() {
            return Some(error);
        }
    }
    None
}

#[test]
fn messages_are_followed_however_they_are_cut() {
    let message =
        |bytes: usize| [&[0][..], &(bytes as u32).to_be_bytes(), &vec![7; bytes]].concat();
    let all = [message(3), message(0), message(20)].concat();
    for cut in 1..all.len() {
        let mut messages = Messages::default();
        let (mut at, mut open) = (0, 0);
        for part in all.chunks(cut) {
            at += part.len();
            open = messages.feed(part);
            let begins = [0, 8, 13, 38].into_iter().rfind(|begin| *begin <= at).unwrap();
            assert_eq!(open, at - begins, "cut {cut} at {at}");
        }
        assert_eq!(open, 0);
    }
}

#[test]
fn the_oldest_parts_of_a_connection_are_given_up() {
    let all = impatient();
    let (greedy, other) = (connection(&all), connection(&all));
    let mut healthy = request(&other, MIB);
    assert!(read(&mut healthy).is_none());
    let mut requests: Vec<_> = (0..40).map(|_| request(&greedy, MIB)).collect();
    assert!(requests.iter_mut().all(|request| read(request).is_none()));
    let ends = |request: &mut Request| {
        let error = read(request)?;
        let status = error.downcast_ref::<tonic::Status>().expect("another error");
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        Some(())
    };
    let ended = requests.iter_mut().map(|request| ends(request).is_some()).collect::<Vec<_>>();
    let lives = limits::CONNECTION_UNFINISHED_BYTES_MAX / (MIB + PREFIX_BYTES);
    assert!(ended[..40 - lives].iter().all(|ended| *ended), "{ended:?}");
    assert!(!ended[40 - lives..].contains(&true), "{ended:?}");
    assert!(read(&mut healthy).is_none(), "another connection has paid for it");
    drop((requests, healthy));
    assert_eq!(all.bytes_of_each(), (0, 0));
    assert!(all.state.lock().connections.is_empty());
}

/// As with a client that sends a hundred large requests at a time.
#[test]
fn parts_of_which_more_has_just_come_stay() {
    let all = PartialMessages::new(0);
    let busy = connection(&all);
    let budget = limits::UNFINISHED_BYTES_MAX;
    let most = budget + budget / limits::UNFINISHED_EXCESS_PART;
    let count = most / (MIB + PREFIX_BYTES);
    let mut requests: Vec<_> = (0..count).map(|_| request(&busy, MIB)).collect();
    assert!(requests.iter_mut().all(|request| read(request).is_none()));
    all.look();
    assert!(requests.iter_mut().all(|request| read(request).is_none()));
    assert!(!is_closed(&busy));
    // Above the larger bound, the oldest is given up all the same.
    let mut more = [request(&busy, MIB), request(&busy, MIB)];
    assert!(more.iter_mut().all(|request| read(request).is_none()));
    assert!(read(&mut requests[0]).is_some() && read(&mut requests[count - 1]).is_none());
    let (bytes, _) = all.bytes_of_each();
    assert!(bytes <= most);
}

#[test]
fn what_has_become_old_is_given_up_although_nothing_comes() {
    let mut all = PartialMessages::new(0);
    Arc::get_mut(&mut all).unwrap().old = Duration::from_millis(1);
    let greedy = connection(&all);
    let mut requests: Vec<_> = (0..40).map(|_| request(&greedy, MIB)).collect();
    assert!(requests.iter_mut().all(|request| read(request).is_none()));
    std::thread::sleep(Duration::from_millis(2));
    all.look();
    assert!(all.bytes_of_each().0 <= limits::CONNECTION_UNFINISHED_BYTES_MAX);
    assert!(read(&mut requests[0]).is_some() && read(&mut requests[39]).is_none());
}

#[test]
fn many_connections_have_one_budget() {
    let all = impatient();
    let connections: Vec<_> =
        (0..2 * limits::UNFINISHED_BYTES_MAX / MIB).map(|_| connection(&all)).collect();
    let mut requests = Vec::new();
    for connection in &connections {
        let mut request = request(connection, MIB);
        assert!(read(&mut request).is_none());
        let (bytes, given_up) = all.bytes_of_each();
        assert!(bytes <= limits::UNFINISHED_BYTES_MAX);
        assert!(given_up <= limits::UNFINISHED_BYTES_MAX + 2 * MIB);
        requests.push(request);
    }
    assert!(all.bytes_of_each().0 > limits::UNFINISHED_BYTES_MAX - 2 * MIB);
    assert!(read(&mut requests[0]).is_some() && read(requests.last_mut().unwrap()).is_none());
    // A part that has just received more is younger than one that waits.
    let half = requests.len() / 2 + 2;
    requests[half].body.0.push_back(Bytes::new());
    requests[half].messages.left += 2;
    requests[half].body.0.push_back(Bytes::from_static(b"x"));
    assert!(read(&mut requests[half]).is_none());
    let mut more: Vec<_> = connections[..8].iter().map(|it| request(it, MIB)).collect();
    assert!(more.iter_mut().all(|request| read(request).is_none()));
    assert!(read(&mut requests[half]).is_none(), "it has sent on");
    assert!(read(&mut requests[half + 1]).is_some());
}

/// The calls do not read on, as on streams whose answers wait for the client's window.
#[test]
fn a_connection_on_which_what_was_given_up_stays_is_closed() {
    let all = impatient();
    let (greedy, other) = (connection(&all), connection(&all));
    let mut healthy = request(&other, MIB);
    assert!(read(&mut healthy).is_none());
    let mut requests = Vec::new();
    while !is_closed(&greedy) {
        let mut request = request(&greedy, MIB);
        assert!(read(&mut request).is_none());
        requests.push(request);
        let held = requests.len() * (MIB + PREFIX_BYTES);
        let (bytes, given_up) = all.bytes_of_each();
        assert_eq!(bytes + given_up, held + MIB + PREFIX_BYTES, "something does not count");
        assert!(held <= 2 * limits::CONNECTION_UNFINISHED_BYTES_MAX + 2 * MIB, "it goes on");
    }
    assert!(read(&mut healthy).is_none() && !is_closed(&other));
    drop((requests, healthy));
    assert_eq!(all.bytes_of_each(), (0, 0));
    let state = all.state.lock();
    assert!(state.connections.is_empty() && state.given_up_bytes == 0);
}

#[test]
fn what_was_given_up_has_one_budget_for_many_connections() {
    let all = impatient();
    let connections: Vec<_> = (0..16).map(|_| connection(&all)).collect();
    let mut requests = Vec::new();
    for round in 0..40 {
        for connection in &connections {
            let mut request = request(connection, MIB);
            assert!(read(&mut request).is_none());
            requests.push(request);
        }
        if connections.iter().any(is_closed) {
            let (bytes, given_up) = all.bytes_of_each();
            let most = 2 * (limits::UNFINISHED_BYTES_MAX + 16 * (MIB + PREFIX_BYTES));
            assert!(bytes + given_up <= most, "{bytes} and {given_up} bytes, round {round}");
            let closing = |held: &&ConnectionParts| held.is_closing;
            let closed = all.state.lock().connections.values().filter(closing).count();
            assert!(closed <= 2, "{closed} connections are closed");
            return;
        }
    }
    panic!("no connection is closed");
}

#[test]
fn one_message_may_be_larger_than_a_budget() {
    let all = impatient();
    let connection = connection(&all);
    let mut small = request(&connection, 10);
    assert!(read(&mut small).is_none());
    let mut large = request(&connection, limits::UNFINISHED_BYTES_MAX + MIB);
    assert!(read(&mut large).is_none());
    assert!(read(&mut small).is_some());
}

#[test]
fn whoever_waits_for_the_rest_is_woken() {
    let all = impatient();
    let connection = connection(&all);
    let mut waiting = request(&connection, MIB);
    assert!(read(&mut waiting).is_none());
    let woken = Arc::new(Woken::default());
    let waker = futures_util::task::waker(Arc::clone(&woken));
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut waiting).poll_frame(&mut context).is_pending());
    let mut large = request(&connection, limits::CONNECTION_UNFINISHED_BYTES_MAX);
    assert!(read(&mut large).is_none());
    assert!(woken.0.load(Ordering::Relaxed));
}

#[derive(Default)]
pub(in crate::server) struct Woken(pub(in crate::server) AtomicBool);

impl futures_util::task::ArcWake for Woken {
    fn wake_by_ref(woken: &Arc<Self>) {
        woken.0.store(true, Ordering::Relaxed);
    }
}
