//! A full disk.

use super::*;
use crate::apply;
use crate::pb::DeleteRangeRequest;

/// A disk without free space.
struct NoRoom;

impl store::Faults for NoRoom {
    fn free_bytes(&self) -> Option<u64> {
        Some(0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_transactions_delete_and_read_and_raise_no_alarm() {
    let dir = tempfile::tempdir().unwrap();
    let mut surroundings = Surroundings::system(Arc::new(SystemClock::new()));
    surroundings.store.faults = Some(Arc::new(NoRoom));
    let node = Node::start_with(config(dir.path()), surroundings).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    let delete = DeleteRangeRequest { key: "a".into(), ..Default::default() };
    let range = RangeRequest { key: "a".into(), ..Default::default() };
    for request in [Request::RequestDeleteRange(delete), Request::RequestRange(range)] {
        let success = vec![RequestOp { request: Some(request) }];
        let op = Op::Txn(TxnRequest { success, ..Default::default() });
        node.quota_gate(&op).await.unwrap();
    }
    assert_eq!(node.alarms(), [], "what adds nothing raised the alarm");
    assert_eq!(node.quota_gate(&put("a", "1")).await, Err(Error::Apply(apply::Error::NoSpace)));
    assert_eq!(node.alarms().len(), 1);
    node.stop().await;
}
