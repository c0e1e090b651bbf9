//! The families with fixed labels, one function each.

use std::sync::{LazyLock, OnceLock};

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, exponential_buckets,
};

use super::REGISTRY;

/// The version of etcd that this server is compatible with.
const VERSION: &str = "3.7.1";

fn add<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    // A malformed name panics at the first use of any metric. A name that is used twice is not
    // registered, so its series is missing from the scrape; the test that renders all of them finds
    // that.
    #[expect(clippy::expect_used, reason = "names and buckets are constants of this file")]
    let collector = made.expect("metric definition");
    drop(registry.register(Box::new(collector.clone())));
    collector
}

/// Registers the families of this file, if nobody has used one yet.
pub(super) fn register() {
    LazyLock::force(&FAMILIES);
}

macro_rules! families {
    ($( $name:ident: $kind:ident $series:literal $help:literal $(, $argument:expr)*; )*) => {
        struct Families {
            $($name: families!(@type $kind),)*
        }

        static FAMILIES: LazyLock<Families> = LazyLock::new(|| {
            $(let $name = add(&REGISTRY, families!(@new $kind $series $help $(, $argument)*));)*
            let families = Families { $($name,)* };
            families.server_version.with_label_values(&[VERSION]).set(1);
            families.build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
            for code in ["200", "500", "503"] {
                let _ = families.scrapes.with_label_values(&[code]);
            }
            families
        });

        $(families!(@function $kind $name $help);)*
    };
    (@type counter) => { IntCounter };
    (@type gauge) => { IntGauge };
    (@type seconds) => { Histogram };
    (@type millis) => { Histogram };
    (@type counters) => { IntCounterVec };
    (@type gauges) => { IntGaugeVec };
    (@type histograms) => { HistogramVec };
    (@new counter $series:literal $help:literal) => { IntCounter::new($series, $help) };
    (@new gauge $series:literal $help:literal) => { IntGauge::new($series, $help) };
    (@new seconds $series:literal $help:literal, $start:expr, $count:expr) => {
        exponential_buckets($start, 2.0, $count).and_then(|buckets| {
            Histogram::with_opts(HistogramOpts::new($series, $help).buckets(buckets))
        })
    };
    (@new millis $series:literal $help:literal, $start:expr, $count:expr) => {
        families!(@new seconds $series $help, $start, $count)
    };
    (@new counters $series:literal $help:literal, $labels:expr) => {
        IntCounterVec::new(Opts::new($series, $help), &$labels)
    };
    (@new gauges $series:literal $help:literal, $labels:expr) => {
        IntGaugeVec::new(Opts::new($series, $help), &$labels)
    };
    (@new histograms $series:literal $help:literal, $start:expr, $count:expr, $labels:expr) => {
        exponential_buckets($start, 2.0, $count).and_then(|buckets| {
            HistogramVec::new(HistogramOpts::new($series, $help).buckets(buckets), &$labels)
        })
    };
    (@function counter $name:ident $help:literal) => {
        #[doc = $help]
        pub fn $name() -> &'static IntCounter { &FAMILIES.$name }
    };
    (@function gauge $name:ident $help:literal) => {
        #[doc = $help]
        pub fn $name() -> &'static IntGauge { &FAMILIES.$name }
    };
    (@function seconds $name:ident $help:literal) => {
        #[doc = $help]
        pub fn $name() -> &'static Histogram { &FAMILIES.$name }
    };
    (@function millis $name:ident $help:literal) => {
        families!(@function seconds $name $help);
    };
    // A family with labels gets no function here. The functions below resolve its known labels
    // once, and bound the number of labels that clients choose.
    (@function counters $name:ident $help:literal) => {};
    (@function gauges $name:ident $help:literal) => {};
    (@function histograms $name:ident $help:literal) => {};
}

families! {
    has_leader: gauge "etcd_server_has_leader" "1 while this member knows a leader.";
    is_leader: gauge "etcd_server_is_leader" "1 while this member is the leader.";
    is_learner: gauge "etcd_server_is_learner" "1 while this member is a learner.";
    leader_changes_seen: counter "etcd_server_leader_changes_seen_total" "Leader changes seen.";
    proposals_committed: gauge "etcd_server_proposals_committed_total" "Proposals committed.";
    proposals_applied: gauge "etcd_server_proposals_applied_total" "Proposals applied.";
    proposals_pending: gauge "etcd_server_proposals_pending" "Proposals waiting to be committed.";
    proposals_failed: counter "etcd_server_proposals_failed_total" "Proposals that failed.";
    heartbeat_send_failures: counter "etcd_server_heartbeat_send_failures_total"
        "Heartbeats that the leader sent late.";
    slow_apply: counter "etcd_server_slow_apply_total" "Requests whose apply took too long.";
    slow_read_indexes: counter "etcd_server_slow_read_indexes_total"
        "Read indexes that had to be asked for again, or that timed out.";
    read_indexes_failed: counter "etcd_server_read_indexes_failed_total"
        "Times that a leader was lost while reads waited for its index.";
    quota_backend_bytes: gauge "etcd_server_quota_backend_bytes" "Backend quota in bytes.";
    snapshot_apply_in_progress: gauge "etcd_server_snapshot_apply_in_progress_total"
        "1 while an incoming snapshot is applied.";
    learner_promote_successes: counter "etcd_server_learner_promote_successes"
        "Learners promoted by this member.";
    learner_promote_failures: counters "etcd_server_learner_promote_failures"
        "Promotions that this member refused as the leader.", ["Reason"];
    health_success: counter "etcd_server_health_success" "Successful health checks.";
    health_failures: counter "etcd_server_health_failures" "Failed health checks.";
    server_id: gauges "etcd_server_id" "1 for the id of this member.", ["server_id"];
    server_version: gauges "etcd_server_version" "1 for the running version.", ["server_version"];
    cluster_version: gauges "etcd_cluster_version" "1 for the cluster version.", ["cluster_version"];
    feature_enabled: gauges "etcd_server_feature_enabled" "1 for a feature that is on.", ["name", "stage"];
    health_check: gauges "etcd_server_healthcheck" "Last result of each health check.", ["type", "name"];
    health_checks: counters "etcd_server_healthchecks_total" "Results of each health check.",
        ["type", "name", "status"];
    request_duration: histograms "etcd_server_request_duration_seconds"
        "Time that a request of each type took.", 0.001, 14, ["type", "success"];
    apply_duration: histograms "etcd_server_apply_duration_seconds"
        "Time that the apply of each operation took.", 0.0001, 20, ["version", "op", "success"];
    range_duration: histograms "etcd_server_range_duration_seconds"
        "Time that ranges took, without the wait for a read index.", 0.0001, 20, ["success"];

    wal_fsync_seconds: seconds "etcd_disk_wal_fsync_duration_seconds"
        "Time that a sync of the log took.", 0.001, 14;
    wal_write_seconds: seconds "etcd_disk_wal_write_duration_seconds"
        "Time that a write to the log took.", 0.001, 14;
    wal_write_bytes: gauge "etcd_disk_wal_write_bytes_total" "Bytes written to the log.";
    backend_commit_seconds: seconds "etcd_disk_backend_commit_duration_seconds"
        "Time that a commit of the store took.", 0.001, 14;
    backend_commit_spill_seconds: seconds
        "etcd_debugging_disk_backend_commit_spill_duration_seconds"
        "Time that a commit of the store took to put its rows into pages.", 0.001, 14;
    backend_commit_write_seconds: seconds
        "etcd_debugging_disk_backend_commit_write_duration_seconds"
        "Time that a commit of the store took to write and sync its pages.", 0.001, 14;
    backend_defrag_seconds: seconds "etcd_disk_backend_defrag_duration_seconds"
        "Time that a defragmentation took.", 0.1, 13;
    backend_snapshot_seconds: seconds "etcd_disk_backend_snapshot_duration_seconds"
        "Time that a snapshot of the store took.", 0.01, 17;
    defrag_pause_seconds: seconds "rusd_disk_backend_defrag_pause_duration_seconds"
        "Time that commits of the store waited for the end of a defragmentation.", 0.001, 14;
    space_compactions: counter "rusd_space_policy_compactions_total"
        "Compactions that the space policy made for want of space.";
    space_reclaims: counter "rusd_space_policy_reclaims_total"
        "Defragmentations that the space policy made.";
    space_reclaimed_bytes: counter "rusd_space_policy_reclaimed_bytes_total"
        "Bytes that they gave back.";
    space_recoveries: counter "rusd_space_policy_recoveries_total"
        "NOSPACE alarms that the space policy cleared.";
    scrub_bytes: counter "rusd_scrub_bytes_total" "Bytes of records whose checksums were verified.";
    scrub_records: counter "rusd_scrub_records_total" "Records whose checksums were verified.";
    scrub_passes: counter "rusd_scrub_passes_total" "Times that the scrub has read the whole store.";
    log_stall_seconds: gauge "rusd_log_write_under_way_seconds"
        "Whole seconds for which the log has been at the write that it is at.";
    store_damaged: gauge "rusd_store_damaged"
        "1 once damage was found in the store; the member serves nobody then.";
    unsynced: gauge "rusd_unsafe_no_fsync"
        "1 while neither log nor store is synced: a power cut loses data then.";
    defrag_inflight: gauge "etcd_disk_defrag_inflight" "1 while the store is defragmented.";

    snap_fsync_seconds: seconds "etcd_snap_fsync_duration_seconds"
        "Time that writing and syncing a snapshot record of the log took.", 0.001, 14;
    snap_save_seconds: seconds "etcd_debugging_snap_save_total_duration_seconds"
        "Time that cutting the log behind a snapshot record took.", 0.001, 14;
    snap_db_fsync_seconds: seconds "etcd_snap_db_fsync_duration_seconds"
        "Time that syncing a received state took.", 0.001, 14;
    snap_db_save_seconds: seconds "etcd_snap_db_save_total_duration_seconds"
        "Time that receiving a state and building the store from it took.", 0.1, 10;

    db_total_bytes: gauge "etcd_mvcc_db_total_size_in_bytes" "Size of the store on disk.";
    db_in_use_bytes: gauge "etcd_mvcc_db_total_size_in_use_in_bytes" "Bytes of the store in use.";
    db_open_reads: gauge "etcd_mvcc_db_open_read_transactions" "Read transactions now open.";
    mvcc_range: counter "etcd_mvcc_range_total" "Ranges served.";
    mvcc_put: counter "etcd_mvcc_put_total" "Puts applied.";
    mvcc_delete: counter "etcd_mvcc_delete_total" "Deletes applied.";
    mvcc_txn: counter "etcd_mvcc_txn_total" "Transactions applied.";
    hash_seconds: seconds "etcd_mvcc_hash_duration_seconds" "Time that a hash took.", 0.01, 15;
    hash_rev_seconds: seconds "etcd_mvcc_hash_rev_duration_seconds"
        "Time that a hash up to a revision took.", 0.01, 15;

    keys: gauge "etcd_debugging_mvcc_keys_total" "Keys in the store.";
    watchers: gauge "etcd_debugging_mvcc_watcher_total" "Watchers.";
    watch_streams: gauge "etcd_debugging_mvcc_watch_stream_total" "Watch streams.";
    slow_watchers: gauge "etcd_debugging_mvcc_slow_watcher_total" "Watchers that are catching up.";
    events: counter "etcd_debugging_mvcc_events_total" "Events sent.";
    pending_events: gauge "etcd_debugging_mvcc_pending_events_total" "Events waiting to be sent.";
    current_revision: gauge "etcd_debugging_mvcc_current_revision" "Revision of the store.";
    compact_revision: gauge "etcd_debugging_mvcc_compact_revision" "Revision of the last compaction.";
    compacted_keys: counter "etcd_debugging_mvcc_db_compaction_keys_total" "Rows removed by compaction.";
    index_compaction_pause_millis: millis
        "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds"
        "Time for which a compaction held the index.", 0.5, 14;
    compaction_pause_millis: millis "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds"
        "Time that each batch of a compaction took.", 1.0, 13;
    compaction_millis: millis "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds"
        "Time that a compaction took.", 100.0, 14;
    compaction_last: gauge "etcd_debugging_mvcc_db_compaction_last" "Unix time of the last compaction.";
    put_bytes: gauge "etcd_debugging_mvcc_total_put_size_in_bytes"
        "Bytes of the keys and values of all puts.";
    auth_revision: gauge "etcd_debugging_auth_revision" "Revision of users and roles.";
    lease_granted: counter "etcd_debugging_lease_granted_total" "Leases granted.";
    lease_revoked: counter "etcd_debugging_lease_revoked_total" "Leases revoked.";
    lease_renewed: counter "etcd_debugging_lease_renewed_total" "Lease renewals on the leader.";
    lease_ttl_seconds: seconds "etcd_debugging_lease_ttl_total" "TTLs of granted leases.", 1.0, 24;
    lease_expired: counter "etcd_debugging_server_lease_expired_total" "Leases expired.";

    watch_send_seconds: seconds
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds"
        "Time from taking an item of a watch stream until its last response was taken.", 0.001, 14;
    watch_send_event_seconds: seconds
        "etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds"
        "The same for items with events, divided by their number.", 0.001, 14;
    watch_send_control_seconds: seconds
        "etcd_debugging_server_watch_send_loop_control_stream_duration_seconds"
        "Time from taking the answer to a watch request until its response was taken.", 0.001, 14;
    watch_send_progress_seconds: seconds
        "etcd_debugging_server_watch_send_loop_progress_duration_seconds"
        "Time that it took to ask for the progress of all watchers of a stream.", 0.001, 14;
    trace_spans_dropped: counter "rusd_trace_spans_dropped_total"
        "Spans that were recorded and could not be sent to the collector.";

    client_received_bytes: counter "etcd_network_client_grpc_received_bytes_total"
        "Bytes of messages received from gRPC clients.";
    client_sent_bytes: counter "etcd_network_client_grpc_sent_bytes_total"
        "Bytes of messages sent to gRPC clients.";
    unsent_bytes: gauge "rusd_network_client_unsent_bytes"
        "Bytes of answers that wait to be sent to clients.";
    unsent_closed: counter "rusd_network_client_unsent_closed_total"
        "Connections closed because their client took no answers.";
    answers_cut: counter "rusd_network_client_answers_cut_total"
        "Answers that ended in their middle because the rest could not be read.";
    unfinished_bytes: gauge "rusd_network_client_unfinished_bytes"
        "Bytes of requests' messages of which the rest has not come.";
    unfinished_ended: counter "rusd_network_client_unfinished_ended_total"
        "Calls ended because the rest of their message did not come while others needed the room.";
    unread_bytes: gauge "rusd_network_client_unread_bytes"
        "Bytes of requests that have come and are not read.";
    unread_closed: counter "rusd_network_client_unread_closed_total"
        "Connections closed because their requests could not be read while all held too much.";
    http_refused: counter "rusd_network_client_http_refused_total"
        "Requests of HTTP/1.1 refused by their heads.";
    stream_failures: counters "etcd_network_server_stream_failures_total"
        "Streams that ended because a message could not be read.", ["Type", "API"];
    known_peers: gauges "etcd_network_known_peers" "1 for each known peer.", ["Local", "Remote"];
    active_peers: gauges "etcd_network_active_peers" "1 for each peer whose streams are read.",
        ["Local", "Remote"];
    peer_sent_bytes: counters "etcd_network_peer_sent_bytes_total"
        "Bytes of messages sent to each peer.", ["To"];
    peer_received_bytes: counters "etcd_network_peer_received_bytes_total"
        "Bytes of messages received from each peer.", ["From"];
    peer_sent_failures: counters "etcd_network_peer_sent_failures_total"
        "Messages to each peer that found no stream or no room.", ["To"];
    peer_received_failures: counters "etcd_network_peer_received_failures_total"
        "Messages from each peer that could not be read, or found no room.", ["From"];
    disconnected_peers: counters "etcd_network_disconnected_peers_total"
        "Times that each peer was lost.", ["Local", "Remote"];
    peer_round_trip: histograms "etcd_network_peer_round_trip_time_seconds"
        "Time to each peer and back.", 0.0001, 16, ["To"];
    snapshot_send_inflights: gauges "etcd_network_snapshot_send_inflights_total"
        "Snapshots on their way to each peer.", ["To"];
    snapshot_send_duration: histograms "etcd_network_snapshot_send_total_duration_seconds"
        "Time that sending a snapshot took.", 0.1, 10, ["To"];
    snapshot_receive_success: counters "etcd_network_snapshot_receive_success"
        "Snapshots that came from each peer.", ["From"];
    snapshot_receive_failures: counters "etcd_network_snapshot_receive_failures"
        "Snapshots from each peer that were refused or broke off.", ["From"];
    snapshot_receive_inflights: gauges "etcd_network_snapshot_receive_inflights_total"
        "Snapshots on their way from each peer.", ["From"];
    snapshot_receive_duration: histograms "etcd_network_snapshot_receive_total_duration_seconds"
        "Time that receiving a snapshot took.", 0.1, 10, ["From"];
    snapshot_send_success: counters "etcd_network_snapshot_send_success"
        "Snapshots that reached each peer.", ["To"];
    snapshot_send_failures: counters "etcd_network_snapshot_send_failures"
        "Snapshots that did not reach each peer.", ["To"];
    settings: gauges "rusd_setting"
        "A setting that members should have in common, by its flag; times in milliseconds.", ["name"];
    build_info: gauges "rusd_build_info" "1 for the version of this build.", ["version"];
    last_snapshot: gauge "rusd_last_snapshot_save_timestamp_seconds"
        "Unix time at which a client had the last snapshot whole; 0 if none had since the start.";
    growth_bytes: gauge "rusd_space_growth_bytes"
        "Change of the bytes of the store in use within rusd_space_growth_seconds.";
    growth_seconds: gauge "rusd_space_growth_seconds" "For how long that growth was observed.";
    disk_free_bytes: gauge "rusd_disk_free_bytes" "Bytes that the store's disk has free.";
    disk_total_bytes: gauge "rusd_disk_total_bytes" "Size of the store's disk.";
    messages_refused: counter "rusd_network_peer_messages_refused_total"
        "Messages of peers that raft was not shown.";
    snapshots_refused: counter "rusd_network_peer_snapshots_refused_total"
        "Snapshots of peers that were refused.";

    scrapes_in_flight: gauge "promhttp_metric_handler_requests_in_flight"
        "Scrapes that are being answered.";
    scrapes: counters "promhttp_metric_handler_requests_total" "Scrapes by HTTP status.", ["code"];
}

/// Sets this member's id in `etcd_server_id` and `etcd_network_known_peers`.
pub fn set_server_id(member_id: u64) {
    let id = format!("{member_id:x}");
    FAMILIES.server_id.with_label_values(&[id.as_str()]).set(1);
    FAMILIES.known_peers.with_label_values(&[id.as_str(), id.as_str()]).set(1);
}

/// The series of one peer.
pub struct PeerSeries {
    pub active: IntGauge,
    pub known: IntGauge,
    pub lost: IntCounter,
    pub sent_bytes: IntCounter,
    pub received_bytes: IntCounter,
    pub sent_failures: IntCounter,
    pub received_failures: IntCounter,
    pub round_trip: Histogram,
}

/// The series of one peer. Their number is bounded by that of the members that this one ever knew.
pub fn peer(member_id: u64, peer_id: u64) -> PeerSeries {
    let (local, remote) = (format!("{member_id:x}"), format!("{peer_id:x}"));
    let (both, remote) = ([local.as_str(), remote.as_str()], [remote.as_str()]);
    PeerSeries {
        active: FAMILIES.active_peers.with_label_values(&both),
        known: FAMILIES.known_peers.with_label_values(&both),
        lost: FAMILIES.disconnected_peers.with_label_values(&both),
        sent_bytes: FAMILIES.peer_sent_bytes.with_label_values(&remote),
        received_bytes: FAMILIES.peer_received_bytes.with_label_values(&remote),
        sent_failures: FAMILIES.peer_sent_failures.with_label_values(&remote),
        received_failures: FAMILIES.peer_received_failures.with_label_values(&remote),
        round_trip: FAMILIES.peer_round_trip.with_label_values(&remote),
    }
}

/// Forgets the series of a caller that was no member. Anybody can call.
pub fn forget_peer(member_id: u64, peer_id: u64) {
    let (local, remote) = (format!("{member_id:x}"), format!("{peer_id:x}"));
    let (both, remote) = ([local.as_str(), remote.as_str()], [remote.as_str()]);
    for gauges in [&FAMILIES.active_peers, &FAMILIES.known_peers] {
        let _ = gauges.remove_label_values(&both);
    }
    let _ = FAMILIES.disconnected_peers.remove_label_values(&both);
    for counters in [
        &FAMILIES.peer_sent_bytes,
        &FAMILIES.peer_received_bytes,
        &FAMILIES.peer_sent_failures,
        &FAMILIES.peer_received_failures,
    ] {
        let _ = counters.remove_label_values(&remote);
    }
    let _ = FAMILIES.peer_round_trip.remove_label_values(&remote);
}

/// Counts a proposal as pending until the guard is dropped.
pub fn pending_proposal() -> Inflight {
    FAMILIES.proposals_pending.inc();
    Inflight(FAMILIES.proposals_pending.clone())
}

/// The series of snapshots to or from one peer. As in etcd, they appear with the first snapshot.
pub struct SnapshotSeries {
    inflight: IntGauge,
    pub successes: IntCounter,
    pub failures: IntCounter,
    pub seconds: Histogram,
}

impl SnapshotSeries {
    /// Counts a snapshot as in flight until the guard is dropped.
    pub fn begin(&self) -> Inflight {
        self.inflight.inc();
        Inflight(self.inflight.clone())
    }
}

/// Guard of what is in flight. A guard, since a future is dropped when its client or its connection
/// ends.
pub struct Inflight(IntGauge);

impl Drop for Inflight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

pub fn snapshots_to(peer_id: u64) -> SnapshotSeries {
    let peer = format!("{peer_id:x}");
    let to = [peer.as_str()];
    SnapshotSeries {
        inflight: FAMILIES.snapshot_send_inflights.with_label_values(&to),
        successes: FAMILIES.snapshot_send_success.with_label_values(&to),
        failures: FAMILIES.snapshot_send_failures.with_label_values(&to),
        seconds: FAMILIES.snapshot_send_duration.with_label_values(&to),
    }
}

/// Snapshots from a peer; None stands for a sender that is no known member.
pub fn snapshots_from(peer_id: Option<u64>) -> SnapshotSeries {
    let peer = peer_id.map_or_else(|| "UNKNOWN_SNAPSHOT_SENDER".into(), |id| format!("{id:x}"));
    let from = [peer.as_str()];
    SnapshotSeries {
        inflight: FAMILIES.snapshot_receive_inflights.with_label_values(&from),
        successes: FAMILIES.snapshot_receive_success.with_label_values(&from),
        failures: FAMILIES.snapshot_receive_failures.with_label_values(&from),
        seconds: FAMILIES.snapshot_receive_duration.with_label_values(&from),
    }
}

/// Sets the cluster version, such as `3.7`. As in etcd, the series of an earlier version becomes 0
/// and stays.
pub fn set_cluster_version(version: &str) {
    static SHOWN: Mutex<String> = Mutex::new(String::new());
    let mut shown = SHOWN.lock();
    if *shown == version {
        return;
    }
    if !shown.is_empty() {
        FAMILIES.cluster_version.with_label_values(&[shown.as_str()]).set(0);
    }
    FAMILIES.cluster_version.with_label_values(&[version]).set(1);
    version.clone_into(&mut shown);
}

/// Sets whether a feature gate is on; `stage` is `ALPHA` or `BETA`.
pub fn set_feature(name: &str, stage: &str, enabled: bool) {
    FAMILIES.feature_enabled.with_label_values(&[name, stage]).set(i64::from(enabled));
}

/// Sets a setting of this member by the name of its flag.
pub fn set_setting(name: &str, value: i64) {
    FAMILIES.settings.with_label_values(&[name]).set(value);
}

/// Counts a promotion that was refused. `reason` is one of the texts of the error table.
pub fn learner_promotion_failed(reason: &str) {
    FAMILIES.learner_promote_failures.with_label_values(&[reason]).inc();
}

/// Counts a stream that ends because its next message cannot be read; `api` is `watch` or
/// `lease-keepalive`.
pub fn stream_failed(api: &str) {
    FAMILIES.stream_failures.with_label_values(&["receive", api]).inc();
}

/// Counts a scrape that was answered.
pub(super) fn scraped() {
    FAMILIES.scrapes.with_label_values(&["200"]).inc();
}

/// Records the result of one health check, such as (`readyz`, `data_corruption`).
pub fn health_checked(kind: &str, name: &str, healthy: bool) {
    FAMILIES.health_check.with_label_values(&[kind, name]).set(i64::from(healthy));
    let status = if healthy { "success" } else { "error" };
    FAMILIES.health_checks.with_label_values(&[kind, name, status]).inc();
}

macro_rules! operations {
    ($($variant:ident $label:literal)*) => {
        /// The kind of a request, in the words of etcd's metric labels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Operation { $($variant,)* }

        impl Operation {
            const COUNT: usize = [$(Self::$variant),*].len();
            fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

operations! {
    Range "Range"
    Put "Put"
    DeleteRange "DeleteRange"
    Txn "Txn"
    ReadonlyTxn "ReadonlyTxn"
    Compaction "Compaction"
    LeaseGrant "LeaseGrant"
    LeaseRevoke "LeaseRevoke"
    LeaseCheckpoint "LeaseCheckpoint"
    Alarm "Alarm"
    Authenticate "Authenticate"
    AuthEnable "AuthEnable"
    AuthDisable "AuthDisable"
    AuthStatus "AuthStatus"
    UserAdd "AuthUserAdd"
    UserDelete "AuthUserDelete"
    UserGet "AuthUserGet"
    UserChangePassword "AuthUserChangePassword"
    UserGrantRole "AuthUserGrantRole"
    UserRevokeRole "AuthUserRevokeRole"
    UserList "AuthUserList"
    RoleList "AuthRoleList"
    RoleAdd "AuthRoleAdd"
    RoleDelete "AuthRoleDelete"
    RoleGet "AuthRoleGet"
    RoleGrantPermission "AuthRoleGrantPermission"
    RoleRevokePermission "AuthRoleRevokePermission"
    ClusterVersionSet "ClusterVersionSet"
    ClusterMemberAttrSet "ClusterMemberAttrSet"
    DowngradeInfoSet "DowngradeInfoSet"
}

// As in etcd, a series of these two families appears with its first use. It is kept here, so that
// later uses need no lookup of labels.
type Slots = [[OnceLock<Histogram>; 2]; Operation::COUNT];
static REQUESTS: Slots = [const { [const { OnceLock::new() }; 2] }; Operation::COUNT];
static APPLIES: Slots = [const { [const { OnceLock::new() }; 2] }; Operation::COUNT];
static RANGES: [OnceLock<Histogram>; 2] = [const { OnceLock::new() }; 2];

fn truth(success: bool) -> &'static str {
    if success { "true" } else { "false" }
}

/// Time from the receipt of a request to its answer, in seconds.
pub fn request_seconds(operation: Operation, success: bool) -> &'static Histogram {
    REQUESTS[operation as usize][usize::from(success)].get_or_init(|| {
        FAMILIES.request_duration.with_label_values(&[operation.label(), truth(success)])
    })
}

/// Time that the apply of one operation took, in seconds.
pub fn apply_seconds(operation: Operation, success: bool) -> &'static Histogram {
    // etcd names no operation here for this one (`dispatch` in apply/uber_applier.go).
    let label = if operation == Operation::AuthStatus { "unknown" } else { operation.label() };
    APPLIES[operation as usize][usize::from(success)]
        .get_or_init(|| FAMILIES.apply_duration.with_label_values(&["v3", label, truth(success)]))
}

/// Time that a range took once its read index was applied, in seconds.
pub fn range_seconds(success: bool) -> &'static Histogram {
    RANGES[usize::from(success)]
        .get_or_init(|| FAMILIES.range_duration.with_label_values(&[truth(success)]))
}
