//! Long answers: whose turn it is to make them, and when they are given.

use super::*;

/// A page that turns out long costs as much as any long range; both are built to their ends.
#[test]
fn a_cancelled_long_range_keeps_its_turn_while_it_is_read() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).max_blocking_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let node = start(dir.path()).await;
        for key in ["a1", "a2", "a3"] {
            let value = "x".repeat(600_000);
            node.propose(&Credentials::default(), put(key, &value)).await.unwrap();
        }
        let range = RangeRequest {
            key: "a".into(),
            range_end: "b".into(),
            serializable: true,
            ..Default::default()
        };
        let page = RangeRequest { limit: 10, ..range.clone() };
        let free = || node.0.answers.free_turns();
        for request in [range, page] {
            // Blocks the only thread on which reads may run.
            let (release, released) = std::sync::mpsc::sync_channel::<()>(1);
            let busy = tokio::task::spawn_blocking(move || released.recv().is_err());
            let reader = node.clone();
            let call = tokio::spawn(async move {
                reader.range(&Credentials::default(), &request).await.unwrap().kvs.len()
            });
            until("the range has a turn", || free() == limits::LONG_ANSWERS_MAX - 1).await;
            call.abort();
            assert!(call.await.unwrap_err().is_cancelled());
            assert_eq!(free(), limits::LONG_ANSWERS_MAX - 1, "the work has lost its turn");
            drop(release);
            assert!(busy.await.unwrap());
            until("the turn is given back", || free() == limits::LONG_ANSWERS_MAX).await;
        }
        node.stop().await;
    });
}

/// The answers of a batch are given together, unless they become large.
#[test]
fn large_answers_are_given_before_their_batch_is_applied() {
    use futures_util::FutureExt;

    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let mut surroundings = Surroundings::system(Arc::new(SystemClock::new()));
    surroundings.transport = Some(Arc::new(raft::NoTransport));
    let (node, steps) = Node::start_stepped(config(dir.path()), surroundings).unwrap();
    let turn = || {
        steps.raft().unwrap();
        while steps.log().unwrap() {}
        runtime.block_on(async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
        });
    };
    let apply = || {
        while steps.apply(usize::MAX).is_some() {
            node.0.machine.store.flush().unwrap();
        }
    };
    while !*node.ready().borrow() {
        turn();
        apply();
    }
    let who = Credentials::default();
    let value = "x".repeat(1_000_000);
    for n in 0..5 {
        let mut call = Box::pin(node.propose(&who, put(&format!("a{n}"), &value)));
        let end = crate::clock::instant() + Duration::from_secs(60);
        loop {
            turn();
            apply();
            if let Some(reply) = call.as_mut().now_or_never() {
                reply.unwrap();
                break;
            }
            assert!(crate::clock::instant() < end, "no answer");
        }
    }
    let range = RangeRequest { key: "a".into(), range_end: "b".into(), ..Default::default() };
    let op = |request| RequestOp { request: Some(request) };
    let small = PutRequest { key: "k".into(), ..Default::default() };
    let txn = TxnRequest {
        success: vec![op(Request::RequestPut(small)), op(Request::RequestRange(range))],
        ..Default::default()
    };
    // As many writes with long answers as may be under way at a time.
    const CALLS: usize = limits::LONG_ANSWERS_MAX;
    let mut calls: Vec<_> =
        (0..CALLS).map(|_| Box::pin(node.propose(&who, Op::Txn(txn.clone())))).collect();
    let before = steps.status().committed;
    let end = crate::clock::instant() + Duration::from_secs(60);
    while steps.status().committed < before + CALLS as u64 {
        // Each poll lets a call measure its answer, take its turn, and be proposed.
        assert!(calls.iter_mut().all(|call| call.as_mut().now_or_never().is_none()));
        assert!(crate::clock::instant() < end, "they are not committed");
        turn();
    }
    let mut applied = 0;
    while applied < CALLS / 2 {
        applied += steps.apply(1).map_or(0, |applied| applied.entries.len());
    }
    let answered = calls.iter_mut().filter_map(|call| call.as_mut().now_or_never()).count();
    assert!(answered >= 2, "{answered} calls are answered when half of a batch is applied");
    apply();
    node.stop_now();
}
