//! Each family of metrics moves under the work that it counts. The table says which work that is;
//! `tests/tidy` wants each family in a table. Families of several members are driven in
//! `tests/cluster/metrics.rs`.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use rusd::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use rusd::pb::kv_client::KvClient;
use rusd::pb::lease_client::LeaseClient;
use rusd::pb::maintenance_client::MaintenanceClient;
use rusd::pb::request_op::Request as Op;
use rusd::pb::watch_client::WatchClient;
use rusd::pb::watch_request::RequestUnion;
use rusd::pb::{
    CompactionRequest, Compare, DefragmentRequest, DeleteRangeRequest, HashKvRequest, HashRequest,
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    RequestOp, SnapshotRequest, TxnRequest, WatchCreateRequest, WatchRequest,
};
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};

use super::fixture::{Member, PATIENCE};
use super::member::get;
use super::scrape::Scrape;

type Driven = &'static [(&'static str, &'static [&'static str])];

/// The work, and the families that it moves.
const DRIVEN: Driven = &[
    (
        "start",
        &[
            "etcd_cluster_version",
            "etcd_debugging_mvcc_current_revision",
            "etcd_disk_wal_fsync_duration_seconds",
            "etcd_disk_wal_write_bytes_total",
            "etcd_disk_wal_write_duration_seconds",
            "etcd_mvcc_db_total_size_in_bytes",
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "etcd_network_known_peers",
            "etcd_server_apply_duration_seconds",
            "etcd_server_feature_enabled",
            "etcd_server_has_leader",
            "etcd_server_id",
            "etcd_server_is_leader",
            "etcd_server_leader_changes_seen_total",
            "etcd_server_proposals_applied_total",
            "etcd_server_proposals_committed_total",
            "etcd_server_quota_backend_bytes",
            "etcd_server_version",
            "os_fd_limit",
            "os_fd_used",
            "process_cpu_seconds_total",
            "process_max_fds",
            "process_network_receive_bytes_total",
            "process_network_transmit_bytes_total",
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
            "process_virtual_memory_bytes",
            "process_virtual_memory_max_bytes",
            "promhttp_metric_handler_requests_in_flight",
            "promhttp_metric_handler_requests_total",
            "rusd_memory_anonymous_bytes",
            "rusd_thread_cpu_seconds_total",
        ],
    ),
    (
        "put",
        &[
            "etcd_debugging_disk_backend_commit_spill_duration_seconds",
            "etcd_debugging_disk_backend_commit_write_duration_seconds",
            "etcd_debugging_mvcc_keys_total",
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "etcd_disk_backend_commit_duration_seconds",
            "etcd_mvcc_put_total",
            "etcd_network_client_grpc_received_bytes_total",
            "etcd_network_client_grpc_sent_bytes_total",
            "etcd_server_client_requests_total",
            "etcd_server_request_duration_seconds",
            "etcd_server_slow_apply_total",
            "grpc_server_handled_total",
            "grpc_server_handling_seconds",
            "grpc_server_msg_received_total",
            "grpc_server_msg_sent_total",
            "grpc_server_started_total",
        ],
    ),
    ("range", &["etcd_mvcc_range_total", "etcd_server_range_duration_seconds"]),
    ("delete", &["etcd_mvcc_delete_total"]),
    ("transaction", &["etcd_mvcc_txn_total"]),
    (
        "watch",
        &[
            "etcd_debugging_mvcc_events_total",
            "etcd_debugging_mvcc_watch_stream_total",
            "etcd_debugging_mvcc_watcher_total",
            "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
            "etcd_debugging_server_watch_send_loop_progress_duration_seconds",
            "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
            "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
        ],
    ),
    (
        "a watch that nobody reads",
        &[
            "etcd_debugging_mvcc_pending_events_total",
            "etcd_debugging_mvcc_slow_watcher_total",
            "rusd_network_client_unsent_bytes",
        ],
    ),
    ("a message that is too large", &["etcd_network_server_stream_failures_total"]),
    (
        "leases",
        &[
            "etcd_debugging_lease_granted_total",
            "etcd_debugging_lease_renewed_total",
            "etcd_debugging_lease_revoked_total",
            "etcd_debugging_lease_ttl_total",
            "etcd_debugging_server_lease_expired_total",
        ],
    ),
    ("hash", &["etcd_mvcc_hash_duration_seconds", "etcd_mvcc_hash_rev_duration_seconds"]),
    (
        "compaction",
        &[
            "etcd_debugging_mvcc_compact_revision",
            "etcd_debugging_mvcc_db_compaction_keys_total",
            "etcd_debugging_mvcc_db_compaction_last",
            "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
            "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
        ],
    ),
    (
        "defragmentation",
        &[
            "etcd_disk_backend_defrag_duration_seconds",
            "etcd_disk_defrag_inflight",
            "rusd_disk_backend_defrag_pause_duration_seconds",
        ],
    ),
    ("snapshot", &["etcd_disk_backend_snapshot_duration_seconds"]),
    ("many reads", &["etcd_mvcc_db_open_read_transactions"]),
    ("many puts", &["etcd_server_proposals_pending"]),
    ("users", &["etcd_debugging_auth_revision"]),
    (
        "health",
        &[
            "etcd_server_health_success",
            "etcd_server_healthcheck",
            "etcd_server_healthchecks_total",
        ],
    ),
    ("alarm", &["etcd_debugging_server_alarms", "etcd_server_health_failures"]),
    ("scrub", &["rusd_scrub_bytes_total", "rusd_scrub_passes_total", "rusd_scrub_records_total"]),
    // The log is cut by whole segments of 64 MiB.
    (
        "log",
        &["etcd_debugging_snap_save_total_duration_seconds", "etcd_snap_fsync_duration_seconds"],
    ),
];

/// What the space policy moves, on a member with a small quota.
const DRIVEN_BY_A_QUOTA: Driven = &[(
    "history without an end",
    &[
        "rusd_space_policy_compactions_total",
        "rusd_space_policy_reclaimed_bytes_total",
        "rusd_space_policy_reclaims_total",
        "rusd_space_policy_recoveries_total",
    ],
)];

/// Work that goes on until all of its families have moved: some of them show what is under way.
const ENDLESS: [&str; 6] = [
    "log",
    "a watch that nobody reads",
    "defragmentation",
    "many reads",
    "many puts",
    "history without an end",
];

struct Driver {
    member: Member,
    _root: tempfile::TempDir,
    kv: KvClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

impl Driver {
    async fn start(flags: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let (data, log) = (root.path().join("data"), root.path().join("log"));
        let mut member = Member::spawn_with(flags, &[], &data, &log);
        member.wait_ready();
        let (kv, channel) = (member.kv().await, member.channel().await);
        Self { member, _root: root, kv, maintenance: MaintenanceClient::new(channel) }
    }

    /// Does each work of the table, until its families have moved.
    async fn drive(&self, driven: Driven) {
        for (work, families) in driven {
            let before = match *work {
                // These have moved when the member is ready, or by itself later.
                "start" | "scrub" => Scrape::default(),
                _ => Scrape::of_async(&self.member.address).await,
            };
            let mut missing: BTreeSet<&str> = families.iter().copied().collect();
            let looking = async {
                while !missing.is_empty() {
                    let now = Scrape::of_async(&self.member.address).await;
                    missing.retain(|family| !now.has_moved(&before, family));
                }
            };
            let mut working = pin!(self.work(work));
            let both = async {
                if ENDLESS.contains(work) {
                    tokio::select! {
                        () = looking => {}
                        () = &mut working => panic!("{work} ends"),
                    }
                } else {
                    tokio::join!(looking, working);
                }
            };
            let ended = timeout(PATIENCE, both).await;
            assert!(ended.is_ok(), "{work} does not move {missing:?}");
        }
    }

    async fn work(&self, work: &str) {
        let mut kv = self.kv.clone();
        match work {
            "start" | "scrub" => {}
            "put" => drop(kv.put(put("key", 100)).await.unwrap()),
            "range" => drop(kv.range(range("key", "")).await.unwrap()),
            "delete" => {
                let request = DeleteRangeRequest { key: "key".into(), ..Default::default() };
                drop(kv.delete_range(request).await.unwrap());
            }
            "transaction" => {
                let success = vec![op(Op::RequestPut(put("key", 1)))];
                drop(kv.txn(TxnRequest { success, ..Default::default() }).await.unwrap());
            }
            "watch" => self.watch().await,
            "a watch that nobody reads" => self.watch_unread().await,
            "a message that is too large" => self.send_too_large().await,
            "leases" => self.use_leases().await,
            "hash" => {
                let mut maintenance = self.maintenance.clone();
                maintenance.hash(HashRequest {}).await.unwrap();
                maintenance.hash_kv(HashKvRequest { revision: 0 }).await.unwrap();
            }
            "compaction" => {
                let last = kv.put(put("key", 1)).await.unwrap().into_inner();
                let revision = last.header.unwrap().revision;
                let request = CompactionRequest { revision, physical: true };
                drop(kv.compact(request).await.unwrap());
            }
            "defragmentation" => loop {
                self.maintenance.clone().defragment(DefragmentRequest {}).await.unwrap();
            },
            "snapshot" => {
                let answer = self.maintenance.clone().snapshot(SnapshotRequest {}).await.unwrap();
                let mut pieces = answer.into_inner();
                while pieces.message().await.unwrap().is_some() {}
            }
            "many reads" => self.read_much().await,
            "log" => loop {
                kv.put(put("key", 1_000_000)).await.unwrap();
            },
            "many puts" => loop {
                kv.put(put("key", 1000)).await.unwrap();
            },
            "history without an end" => loop {
                // Refused while the quota is exceeded.
                if kv.put(put("key", 1500)).await.is_err() {
                    sleep(Duration::from_millis(20)).await;
                }
            },
            "users" => {
                self.post("/v3/auth/user/add", r#"{"name":"someone","password":"secret"}"#).await;
            }
            "health" => {
                for path in ["/health", "/livez", "/readyz"] {
                    let (address, path) = (self.member.address.clone(), path.to_owned());
                    tokio::task::spawn_blocking(move || get(&address, &path)).await.unwrap();
                }
            }
            "alarm" => self.raise_alarm().await,
            _ => panic!("nothing is known of {work}"),
        }
    }

    /// Reads so much that a look finds a reader in the middle of it. Does not end.
    async fn read_much(&self) {
        for number in 0..300 {
            self.kv.clone().put(put(&format!("many/{number}"), 10_000)).await.unwrap();
        }
        let readers = (0..4).map(|_| {
            let mut kv = self.kv.clone();
            async move { while kv.range(range("\0", "\0")).await.is_ok() {} }
        });
        futures_util::future::join_all(readers).await;
    }

    async fn raise_alarm(&self) {
        let alarm = |action| format!(r#"{{"action":"{action}","alarm":"NOSPACE"}}"#);
        self.post("/v3/maintenance/alarm", &alarm("ACTIVATE")).await;
        assert!(!self.member.is_healthy());
        self.post("/v3/maintenance/alarm", &alarm("DEACTIVATE")).await;
    }

    /// Asks the JSON gateway.
    async fn post(&self, path: &str, body: &str) {
        let head = "Host: x\r\nConnection: close\r\nContent-Type: application/json";
        let length = body.len();
        let request =
            format!("POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}");
        let answer = String::from_utf8(self.member.raw(request.as_bytes())).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
    }

    async fn watch(&self) {
        let (sender, requests) = tokio::sync::mpsc::channel(1);
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        sender.send(create("key")).await.unwrap();
        let mut client = WatchClient::new(self.member.channel().await);
        let mut answers = client.watch(requests).await.unwrap().into_inner();
        assert!(answers.message().await.unwrap().unwrap().created);
        self.kv.clone().put(put("key", 1)).await.unwrap();
        assert_eq!(answers.message().await.unwrap().unwrap().events.len(), 1);
        // Progress is told at the tick after the next, since the first comes after an event.
        while !answers.message().await.unwrap().unwrap().events.is_empty() {}
    }

    async fn watch_unread(&self) {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.member.address)).unwrap();
        let channel = endpoint.initial_stream_window_size(1000).connect().await.unwrap();
        let (sender, requests) = tokio::sync::mpsc::channel(1);
        let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
        sender.send(create("unread")).await.unwrap();
        let _answers = WatchClient::new(channel).watch(requests).await.unwrap();
        for _ in 0..400 {
            self.kv.clone().put(put("unread", 5000)).await.unwrap();
        }
        std::future::pending().await
    }

    /// A request of a watch that ends its stream.
    async fn send_too_large(&self) {
        let request = create(&"k".repeat(3 << 20));
        let mut client = WatchClient::new(self.member.channel().await);
        let answers = client.watch(tokio_stream::once(request)).await;
        let refused = match answers {
            Ok(answers) => answers.into_inner().message().await.map(drop),
            Err(status) => Err(status),
        };
        assert!(refused.is_err());
    }

    async fn use_leases(&self) {
        let mut client = LeaseClient::new(self.member.channel().await);
        let grant = |ttl| LeaseGrantRequest { ttl, id: 0 };
        let kept = client.lease_grant(grant(60)).await.unwrap().into_inner().id;
        // The shortest TTL that there is; it ends by itself.
        client.lease_grant(grant(1)).await.unwrap();
        let renewal = tokio_stream::once(LeaseKeepAliveRequest { id: kept });
        let mut renewed = client.lease_keep_alive(renewal).await.unwrap().into_inner();
        assert!(renewed.message().await.unwrap().unwrap().ttl > 0);
        client.lease_revoke(LeaseRevokeRequest { id: kept }).await.unwrap();
    }
}

fn put(key: &str, bytes: usize) -> PutRequest {
    let key = Bytes::copy_from_slice(key.as_bytes());
    PutRequest { key, value: vec![b'v'; bytes].into(), ..Default::default() }
}

fn range(key: &str, end: &str) -> RangeRequest {
    let [key, range_end] = [key, end].map(|text| Bytes::copy_from_slice(text.as_bytes()));
    RangeRequest { key, range_end, ..Default::default() }
}

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn create(key: &str) -> WatchRequest {
    let key = Bytes::copy_from_slice(key.as_bytes());
    let create = WatchCreateRequest { key, progress_notify: true, ..Default::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_family_moves_under_the_work_that_it_counts() {
    let flags = [
        "--metrics=extensive",
        "--warning-apply-duration=1ns",
        "--watch-progress-notify-interval=1s",
        "--feature-gates=CompactHashCheck=true",
        "--snapshot-count=50",
        "--snapshot-catchup-entries=20",
        "--log-level=error",
    ];
    Driver::start(&flags).await.drive(DRIVEN).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_families_of_the_space_policy_move_when_the_quota_is_reached() {
    let flags = ["--space-policy=auto", "--quota-backend-bytes=4194304"];
    Driver::start(&flags).await.drive(DRIVEN_BY_A_QUOTA).await;
}

/// Series count what transactions hold, and not only requests of their own.
#[tokio::test(flavor = "multi_thread")]
async fn operations_are_counted_within_transactions_too() {
    let driver = Driver::start(&[]).await;
    let names = ["etcd_mvcc_put_total", "etcd_mvcc_range_total", "etcd_mvcc_delete_total"];
    let counts = || {
        let scrape = Scrape::of(&driver.member.address);
        let size = "etcd_debugging_mvcc_total_put_size_in_bytes";
        [names[0], names[1], names[2], size].map(|name| scrape.series[name])
    };
    let before = counts();
    let delete = DeleteRangeRequest { key: "c".into(), ..Default::default() };
    let nested = TxnRequest {
        success: vec![op(Op::RequestPut(put("b", 7))), op(Op::RequestDeleteRange(delete))],
        ..Default::default()
    };
    let compare = Compare {
        target: CompareTarget::Version.into(),
        result: CompareResult::Equal.into(),
        key: "a".into(),
        target_union: Some(TargetUnion::Version(0)),
        ..Default::default()
    };
    let txn = TxnRequest {
        compare: vec![compare],
        success: vec![
            op(Op::RequestPut(put("aa", 3))),
            op(Op::RequestRange(range("aa", ""))),
            op(Op::RequestTxn(Box::new(nested))),
        ],
        failure: vec![op(Op::RequestPut(put("never", 1000)))],
    };
    driver.kv.clone().txn(txn).await.unwrap();
    let reads = vec![op(Op::RequestRange(range("a", ""))), op(Op::RequestRange(range("b", "")))];
    let reading = TxnRequest { success: reads, ..Default::default() };
    driver.kv.clone().txn(reading).await.unwrap();
    let after = counts();
    let moved: Vec<f64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
    assert_eq!(moved, [2.0, 3.0, 1.0, (2 + 3 + 1 + 7) as f64]);
}

/// etcd's families that nothing here is what they count: docs/compat.md says why.
fn is_absent(family: &str) -> bool {
    ["go_", "etcd_grpc_proxy_", "etcd_debugging_store_"].iter().any(|it| family.starts_with(it))
        || [
            "etcd_debugging_disk_backend_commit_rebalance_duration_seconds",
            "etcd_debugging_snap_save_marshalling_duration_seconds",
            "etcd_server_go_version",
        ]
        .contains(&family)
}

/// The labels of a series, and its bucket if it has one.
fn labels_of(series: &str) -> (Vec<String>, Option<String>) {
    let label = regex::Regex::new(r#"(\w+)="((?:[^"\\]|\\.)*)""#).unwrap();
    let mut labels = Vec::new();
    let mut bucket = None;
    for found in label.captures_iter(series) {
        match &found[1] {
            "le" => bucket = Some(found[2].to_owned()),
            name => labels.push(name.to_owned()),
        }
    }
    labels.sort();
    (labels, bucket)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_families_are_etcds_but_for_those_that_mean_nothing_here() {
    let driver = Driver::start(&[]).await;
    for work in ["put", "range", "users", "health", "alarm"] {
        driver.work(work).await;
    }
    let scrape = Scrape::of(&driver.member.address);
    let mut findings = Vec::new();
    let table = include_str!("../data/etcd-metrics.tsv");
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [family, kind, labels, buckets] = columns[..] else { panic!("{line}") };
        let found = scrape.types.get(family);
        if is_absent(family) {
            findings.extend(found.map(|_| format!("{family} is there")));
            continue;
        }
        match found {
            Some(found) if found == kind => {}
            Some(found) => findings.push(format!("{family} is a {found} and not a {kind}")),
            // A family with labels may have had no cause yet.
            None if !labels.is_empty() => {}
            None => findings.push(format!("{family} is missing")),
        }
        let labels: Vec<&str> = labels.split(',').filter(|label| !label.is_empty()).collect();
        let is_its = |series: &&String| {
            let of = series.split('{').next().unwrap();
            of == family || of == format!("{family}_bucket")
        };
        let mut found = Vec::new();
        for series in scrape.series.keys().filter(is_its) {
            let (its, bucket) = labels_of(series);
            if its != labels {
                findings.push(format!("{series} has other labels than {labels:?}"));
            }
            found.extend(bucket);
        }
        let edges = |texts: Vec<&str>| {
            let mut edges: Vec<f64> = texts.iter().map(|text| text.parse().unwrap()).collect();
            edges.sort_by(f64::total_cmp);
            edges.dedup();
            edges
        };
        let expected = edges(buckets.split_whitespace().collect());
        let its = edges(found.iter().map(String::as_str).collect());
        if !its.is_empty() && its != expected {
            findings.push(format!("{family} has other buckets: {found:?}"));
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}
