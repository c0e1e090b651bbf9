//! Which calls wait, which connections are closed, and when memory is given back.

use std::task::Context;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::task::noop_waker;

use super::*;
use crate::server::inbound::Arrived;

const MIB: usize = 1 << 20;

fn outbox() -> Arc<Outbox> {
    Outbox::new(Arc::default(), 0)
}

/// Zeroed pages take no memory until they are written.
fn answer(account: &Arc<Account>, bytes: usize) -> Bytes {
    account.charge(AnswerSize::Any, Bytes::from(vec![0; bytes]))
}

fn enters(account: &Account, kind: AnswerSize) -> bool {
    account.enter(kind).now_or_never().is_some()
}

fn gives(account: &Account, kind: AnswerSize) -> bool {
    let waker = noop_waker();
    let mut context = Context::from_waker(&waker);
    account.poll_room(kind, &mut Room::default(), &mut context).is_ready()
}

fn is_closed(account: &Account) -> bool {
    account.closing().now_or_never().is_some()
}

#[test]
fn one_large_answer_holds_nothing_up_on_its_connection() {
    let account = outbox().open(None);
    let large = answer(&account, 200 * MIB);
    assert!(enters(&account, AnswerSize::Any) && gives(&account, AnswerSize::Any));
    // Another answer may become the largest.
    let small = answer(&account, 50 * MIB);
    drop(large);
    let larger = answer(&account, 100 * MIB);
    assert!(enters(&account, AnswerSize::Any) && gives(&account, AnswerSize::Any));
    let more = answer(&account, 20 * MIB);
    assert!(!enters(&account, AnswerSize::Any) && !gives(&account, AnswerSize::Any));
    drop(small);
    assert!(enters(&account, AnswerSize::Any));
    drop((larger, more));
    assert_eq!((account.unsent_bytes(), account.largest_bytes.load(Ordering::SeqCst)), (0, 0));
}

#[test]
fn what_answers_hold_until_their_ends_makes_calls_wait_and_no_stream() {
    let account = outbox().open(None);
    let held: Vec<_> = (0..5).map(|_| account.hold(16 * MIB)).collect();
    assert_eq!(account.unsent_bytes(), 80 * MIB);
    assert!(!enters(&account, AnswerSize::Any) && gives(&account, AnswerSize::Any));
    let large = [answer(&account, 70 * MIB), answer(&account, 70 * MIB)];
    assert!(!gives(&account, AnswerSize::Any));
    drop(large);
    assert!(!enters(&account, AnswerSize::Any) && gives(&account, AnswerSize::Any));
    drop(held);
    assert!(enters(&account, AnswerSize::Any));
    assert_eq!(account.unsent_bytes(), 0);
}

#[tokio::test]
async fn leases_and_watches_go_on_within_their_own_part() {
    let account = outbox().open(None);
    let _large = [answer(&account, 100 * MIB), answer(&account, 100 * MIB)];
    assert!(!enters(&account, AnswerSize::Any) && !gives(&account, AnswerSize::Any));
    let mut renewals = Vec::new();
    while gives(&account, AnswerSize::Small) && enters(&account, AnswerSize::Small) {
        renewals.push(account.charge(AnswerSize::Small, Bytes::from_static(b"renewed")));
        assert!(renewals.len() <= limits::SMALL_UNSENT_BYTES_MAX, "they have no bound");
    }
    assert!(renewals.len() > 500, "{} renewals", renewals.len());
    let mut waiting = Box::pin(account.enter(AnswerSize::Small));
    assert!((&mut waiting).now_or_never().is_none());
    renewals.clear();
    assert!(waiting.await);
}

/// One thread takes a byte off while another one adds a byte that makes calls wait: neither sees
/// that it ends the wait.
#[test]
fn a_waiting_call_is_woken_by_whichever_answer_makes_room() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let account = outbox().open(None);
    let mut held = Vec::new();
    for bytes in (0..28).rev().map(|bits| 1 << bits) {
        let more = account.hold(bytes);
        if enters(&account, AnswerSize::Any) {
            held.push(more);
        }
    }
    let most = account.unsent_bytes();
    drop(held);
    let _held = account.hold(most - 1);
    for round in 0..5000 {
        let (last, start) = (account.hold(1), std::sync::Barrier::new(3));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                drop(last);
            });
            let adding = scope.spawn(|| {
                start.wait();
                account.hold(1)
            });
            start.wait();
            let entered = runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(60), account.enter(AnswerSize::Any)).await
            });
            assert_eq!(entered, Ok(true), "round {round}");
            drop(adding.join());
        });
    }
}

#[test]
fn memory_is_given_back_after_a_flood_of_calls_that_has_left_some() {
    let outbox = outbox();
    let account = outbox.open(None);
    let mut floods = Floods::default();
    let calls: Vec<_> = (0..=limits::GIVE_BACK_CALLS_MIN).map(|_| account.begin()).collect();
    assert!(!outbox.may_have_free_memory(&mut floods, 0));
    assert!(
        !outbox.may_have_free_memory(&mut floods, MIB + limits::GIVE_BACK_FREE_BYTES_MIN),
        "they are there"
    );
    drop(calls);
    assert!(outbox.may_have_free_memory(&mut floods, MIB + limits::GIVE_BACK_FREE_BYTES_MIN));
    assert!(!outbox.may_have_free_memory(&mut floods, MIB), "there is nothing to give");
    let mut few = Floods::default();
    drop((0..limits::GIVE_BACK_CALLS_MIN).map(|_| account.begin()).collect::<Vec<_>>());
    assert!(
        !outbox.may_have_free_memory(&mut few, 0)
            && !outbox.may_have_free_memory(&mut few, 100 * MIB)
    );
    // Answers that were larger while they were made.
    let mut answers = Floods::default();
    let unsent = answer(&account, 20 * MIB);
    assert!(!outbox.may_have_free_memory(&mut answers, 0));
    assert!(!outbox.may_have_free_memory(&mut answers, 100 * MIB), "they are there");
    drop(unsent);
    assert!(!outbox.may_have_free_memory(&mut answers, 50 * MIB), "little can be free");
    assert!(outbox.may_have_free_memory(&mut answers, 100 * MIB));
}

#[test]
fn memory_is_given_back_within_a_flood_that_leaves_holes() {
    let outbox = outbox();
    let account = outbox.open(None);
    let mut floods = Floods::default();
    let unsent = answer(&account, 100 * MIB);
    let held = 100 * MIB + limits::GIVE_BACK_HOLES_BYTES_MIN;
    assert!(!outbox.may_have_free_memory(&mut floods, 0));
    assert!(!outbox.may_have_free_memory(&mut floods, held), "it is counted");
    assert!(outbox.may_have_free_memory(&mut floods, held + MIB));
    floods.given_back(held + MIB, 100 * MIB);
    assert!(!outbox.may_have_free_memory(&mut floods, held), "once is enough");
    assert!(outbox.may_have_free_memory(&mut floods, held + MIB), "as many holes as before");
    // Its end.
    floods.given_back(held + MIB, 100 * MIB);
    drop(unsent);
    assert!(outbox.may_have_free_memory(&mut floods, 100 * MIB));
    // A store that grows is no flood.
    let mut growth = Floods::default();
    assert!(!outbox.may_have_free_memory(&mut growth, 0));
    assert!(!outbox.may_have_free_memory(&mut growth, held + MIB));
}

#[test]
fn many_connections_that_each_hold_a_little_are_closed_in_a_crowd() {
    let outbox = outbox();
    let part = limits::CONNECTION_UNSENT_BYTES_MIN - limits::UNSENT_ANSWER_BYTES;
    let idle: Vec<_> = (0..1100).map(|_| outbox.open(None)).collect();
    let _unsent: Vec<_> = idle.iter().map(|account| answer(account, part)).collect();
    for _ in 0..=limits::UNSENT_LOOKS_CROWDED_MAX {
        outbox.look();
    }
    let closed = idle.iter().filter(|account| is_closed(account)).count();
    // Enough are closed, and no more.
    assert_eq!(1100 - closed, limits::UNSENT_BYTES_MAX / limits::CONNECTION_UNSENT_BYTES_MIN);
}

#[test]
fn a_little_that_is_not_taken_is_borne_where_its_end_would_not_help() {
    let outbox = outbox();
    let (large, small) = (outbox.open(None), outbox.open(None));
    let _unsent = [answer(&large, 300 * MIB), answer(&small, 5000)];
    for _ in 0..10 {
        large.took_answer(limits::UNSENT_PROGRESS_BYTES);
        outbox.look();
    }
    assert!(!is_closed(&small), "it is not what crowds the member");
    assert!(!is_closed(&large), "it takes its answer, and nobody waits for room");
}

#[test]
fn a_client_that_takes_all_of_its_small_answers_is_not_closed_in_a_crowd() {
    let outbox = outbox();
    let (large, small) = (outbox.open(None), outbox.open(None));
    // Without the small client, the member would hold just as much as it may.
    let _crowd = answer(&large, limits::UNSENT_BYTES_MAX - limits::UNSENT_ANSWER_BYTES);
    for _ in 0..10 {
        // Each look finds another answer, that of the next call.
        let _unsent = answer(&small, 100);
        large.took_answer(limits::UNSENT_PROGRESS_BYTES);
        small.took_answer(100);
        outbox.look();
        assert!(!is_closed(&small));
    }
}

/// Each holds less than any share, and all together hold too much.
#[tokio::test]
async fn of_many_that_stand_still_with_little_as_many_are_closed_as_it_takes() {
    let outbox = outbox();
    let each = Arrived { frames: 1, bytes: 30 << 10, ..Arrived::default() };
    let crowd: Vec<_> = (0..5000).map(|_| outbox.open(None)).collect();
    crowd.iter().for_each(|account| account.unread().arrived(each));
    outbox.look();
    let healthy = outbox.open(None);
    healthy.unread().arrived(Arrived { bytes: 60 << 10, ..each });
    outbox.look();
    let closed = crowd.iter().filter(|account| is_closed(account)).count();
    let left = (5000 - closed) * (30 << 10);
    assert!(
        left <= limits::UNREAD_BYTES_LEFT && left > limits::UNREAD_BYTES_LEFT / 4 * 3,
        "{left}"
    );
    assert!(!is_closed(&healthy), "it has stood still for less time");
}

#[tokio::test]
async fn a_slow_reader_is_closed_once_others_wait_for_room() {
    let outbox = outbox();
    let (slow, quick) = (outbox.open(None), outbox.open(None));
    let _unsent = [answer(&slow, 300 * MIB), answer(&quick, 250 * MIB)];
    let looks = || {
        for _ in 0..=limits::UNSENT_LOOKS_CROWDED_MAX {
            slow.took_answer(MIB);
            quick.took_answer(5 * MIB);
            outbox.look();
        }
    };
    looks();
    assert!(!is_closed(&slow) && !is_closed(&quick));
    let _waiting = outbox.answers.wait_for_room();
    looks();
    assert!(is_closed(&slow));
    assert!(!is_closed(&quick));
}

#[test]
fn a_connection_that_is_blocked_now_and_then_is_idle_all_the_same() {
    let outbox = outbox();
    let account = outbox.open(None);
    let _unsent = [answer(&account, 100 * MIB), answer(&account, 100 * MIB)];
    account.took(10 * MIB);
    account.took_answer(5 * MIB);
    outbox.look();
    for look in 0..limits::UNSENT_LOOKS_MAX {
        assert!(!is_closed(&account), "after {look} looks");
        account.set_blocked(look % 2 == 0);
        outbox.look();
    }
    assert!(is_closed(&account));
}
