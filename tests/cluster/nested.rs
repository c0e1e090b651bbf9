//! Transactions nested as deep as etcd takes them, asked of followers and read from the log again.

use bytes::Bytes;
use rusd::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use rusd::pb::request_op::Request;
use rusd::pb::{Compare, PutRequest, RequestOp, StatusRequest, TxnRequest};
use tonic::Status;
use tonic::transport::Channel;
use tonic_prost::ProstCodec;

use super::fixture::{Cluster, get};

fn put(key: &str) -> RequestOp {
    let key = Bytes::copy_from_slice(key.as_bytes());
    RequestOp { request: Some(Request::RequestPut(PutRequest { key, ..Default::default() })) }
}

/// A put in so many transactions, each in the other; each compares, and takes the branch without it
/// if the comparison does not hold.
fn nested(depth: usize, key: &str) -> TxnRequest {
    let compare = vec![Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Version as i32,
        key: "nothing".into(),
        target_union: Some(TargetUnion::Version(0)),
        ..Default::default()
    }];
    let last = TxnRequest { success: vec![put(key)], ..Default::default() };
    (0..depth).fold(last, |txn, _| TxnRequest {
        compare: compare.clone(),
        success: vec![RequestOp { request: Some(Request::RequestTxn(Box::new(txn))) }],
        failure: vec![put("failed")],
    })
}

/// The answer is nested as deep, which our library cannot read: nobody here knows its fields.
async fn run(channel: Channel, txn: TxnRequest) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/etcdserverpb.KV/Txn");
    let codec = ProstCodec::<TxnRequest, StatusRequest>::default();
    grpc.unary(tonic::Request::new(txn), path, codec).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_as_deep_as_etcds_pass_followers_and_restarts() {
    let mut cluster = Cluster::start(3);
    let all = [0, 1, 2];
    cluster.ready(&all).await;
    let leader = cluster.leader().await;
    for (at, depth) in [(leader, 60), ((leader + 1) % 3, 100), ((leader + 2) % 3, 127)] {
        run(cluster.channel(at), nested(depth, &depth.to_string())).await.unwrap();
        let refused = run(cluster.channel(at), nested(128, "refused")).await.unwrap_err();
        assert_eq!(refused.message(), "etcdserver: too many operations in txn request");
    }
    for at in all {
        cluster.kill(at);
    }
    for at in all {
        cluster.run(at, "new");
    }
    cluster.ready(&all).await;
    for at in all {
        for key in ["60", "100", "127"] {
            assert!(get(cluster.channel(at), key).await.unwrap().is_some(), "{at} {key}");
        }
        for key in ["failed", "refused"] {
            assert_eq!(get(cluster.channel(at), key).await.unwrap(), None, "{at} {key}");
        }
    }
    cluster.compare_hashes(&all).await;
}
