use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

fn why(supervisor: &Supervisor) -> String {
    supervisor.failure_reason().unwrap_or_default()
}

#[test]
fn a_panic_in_a_thread_is_the_members_end() {
    let supervisor = Supervisor::default();
    let thread = supervisor.thread("worker", || panic!("entry {} is odd", 7)).unwrap();
    assert_eq!(thread.join(), Err::<(), _>(Gone));
    assert_eq!(why(&supervisor), "worker panicked: entry 7 is odd");
    let other = supervisor.thread("other", || 5).unwrap();
    assert_eq!(other.join(), Ok(5), "what runs is not cut off");
}

#[test]
fn the_first_reason_counts_and_is_told_once() {
    let supervisor = Supervisor::default();
    let told = Arc::new(AtomicUsize::new(0));
    let count = |told: &Arc<AtomicUsize>| {
        let told = Arc::clone(told);
        move |why: &str| {
            assert_eq!(why, "the disk is gone");
            told.fetch_add(1, Ordering::Relaxed);
        }
    };
    supervisor.on_failure(count(&told));
    supervisor.fail("the disk is gone");
    supervisor.fail("the log cannot be written");
    assert_eq!((why(&supervisor).as_str(), told.load(Ordering::Relaxed)), ("the disk is gone", 1));
    supervisor.on_failure(count(&told));
    assert_eq!(told.load(Ordering::Relaxed), 2, "who comes late learns of it at once");
}

#[tokio::test]
async fn a_panic_in_a_task_is_the_members_end() {
    let supervisor = Supervisor::default();
    let mut failure = supervisor.failure();
    supervisor.task("duty", async {
        tokio::task::yield_now().await;
        panic!("no lease");
    });
    failure.wait_for(Option::is_some).await.unwrap();
    assert_eq!(why(&supervisor), "duty panicked: no lease");
}

#[tokio::test]
async fn a_task_that_is_cut_off_is_no_panic() {
    let supervisor = Supervisor::default();
    supervisor.task("endless", std::future::pending()).abort();
    let mut tasks = supervisor.tasks("connection");
    tasks.start(async {});
    tasks.all_ended().await;
    assert_eq!(supervisor.failure_reason(), None);
    tasks.start(async { panic!("a frame too many") });
    tasks.all_ended().await;
    assert_eq!(why(&supervisor), "connection panicked: a frame too many");
}

#[tokio::test]
async fn what_leaves_the_tasks_threads_is_guarded_as_well() {
    for number in 0..3 {
        let supervisor = Supervisor::default();
        let panics = || -> u8 { panic!("{}", "too long") };
        match number {
            0 => assert_eq!(supervisor.blocking("read", panics).await, Err(Gone)),
            1 => assert_eq!(supervisor.inline("read", panics).await, Err(Gone)),
            _ => assert!(supervisor.nice("read", panics).await.is_err()),
        }
        assert_eq!(why(&supervisor), "read panicked: too long");
    }
    let supervisor = Supervisor::default();
    assert_eq!(supervisor.nice("read", || 3).await.unwrap(), 3);
    assert_eq!(supervisor.blocking("read", || 3).await, Ok(3));
    assert_eq!(supervisor.failure_reason(), None);
}

/// Writes nothing until it is told to, as a full pipe does.
struct Stuck(Arc<Mutex<()>>);

impl tracing::Subscriber for Stuck {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        drop(self.0.lock());
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_log_that_stands_still_keeps_no_member_from_its_end() {
    let log = Arc::new(Mutex::new(()));
    let full = log.lock();
    let supervisor = Supervisor::default();
    let (told, is_told) = std::sync::mpsc::sync_channel(1);
    supervisor.on_failure(move |_| told.send(()).unwrap());
    let failing = supervisor.clone();
    let stuck = tracing::Dispatch::new(Stuck(Arc::clone(&log)));
    let thread = std::thread::spawn(move || {
        tracing::dispatcher::with_default(&stuck, || failing.fail("the disk is gone"));
    });
    is_told.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    assert_eq!(supervisor.failure().borrow().as_deref(), Some("the disk is gone"));
    drop(full);
    thread.join().unwrap();
}
