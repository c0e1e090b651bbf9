//! Every bound of the server, with its reason. A queue, batch, buffer or retry that is not bounded
//! here is a bug.

use std::time::Duration;

/// Largest encoded proposal, etcd's default of `--max-request-bytes`.
pub const REQUEST_BYTES_MAX: usize = 1_572_864;
/// What gRPC may receive beyond the largest request: etcd's overhead allowance.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
/// Operations in one list of a transaction, etcd's default of `--max-txn-ops`.
pub const TXN_OPS_MAX: usize = 128;
/// Entries that may be committed and not yet applied before requests are refused.
pub const APPLY_BACKLOG_MAX: u64 = 5000;
/// Proposals that may wait for the raft loop; above it the caller gets "too many requests".
pub const PROPOSE_QUEUE_MAX: usize = 16_384;

/// Records applied and not yet in LMDB. When full, apply waits; one oversize entry is admitted.
pub const TAIL_BYTES_MAX: usize = 64 << 20;
/// Operations after which the committer commits without waiting for its interval.
pub const COMMIT_OPS_MAX: usize = 10_000;
/// Bytes after which the committer commits without waiting for its interval.
pub const COMMIT_BYTES_MAX: usize = 16 << 20;
/// How long applied entries may wait for LMDB. etcd waits 100 ms; the log holds them meanwhile.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(20);
/// Rows that one commit deletes for compaction, so that puts queued behind it wait little.
pub const COMPACTION_ROWS_MAX: usize = 1000;
/// Keys visited while the index lock is held.
pub const INDEX_HOLD_KEYS_MAX: usize = 1000;
/// Rows read from LMDB within one read transaction: it pins pages that the writer could reuse.
pub const READ_CHUNK_ROWS: usize = 1000;
/// Records larger than this are stored in chunks: LMDB would need contiguous pages.
pub const RECORD_INLINE_BYTES_MAX: usize = 8 << 10;
/// Size of such a chunk; it fits one LMDB page with its header.
pub const RECORD_CHUNK_BYTES: usize = 4000;
/// Address space reserved for LMDB's map; never resized, costs no memory.
pub const MAP_BYTES: usize = 1 << 40;
/// LMDB reader slots: one for each thread that may read at a time.
pub const READERS_MAX: u32 = 2048;
/// Backend size at which NOSPACE is raised, etcd's default of `--quota-backend-bytes`.
pub const QUOTA_BYTES: i64 = 2 << 30;

/// Log segment size, etcd's.
pub const SEGMENT_BYTES: u64 = 64_000_000;
/// Events drained by the raft loop in one turn.
pub const RAFT_EVENTS_MAX: usize = 4096;
/// Bytes of proposals merged into one turn of the raft loop.
pub const RAFT_BATCH_BYTES_MAX: usize = 1 << 20;
/// Recent log entries kept in memory for apply and for followers.
pub const LOG_CACHE_BYTES_MAX: usize = 64 << 20;

/// Recent events kept for watchers that lag a little.
pub const EVENT_RING_BYTES_MAX: usize = 128 << 20;
/// Revisions in one catch-up response; a revision is never split.
pub const WATCH_CATCH_UP_REVISIONS_MAX: usize = 1000;
/// Responses buffered for one watch stream before its watchers fall back to catch-up.
pub const WATCH_STREAM_RESPONSES_MAX: usize = 128;
/// Watchers on one stream.
pub const WATCHERS_PER_STREAM_MAX: usize = 1 << 20;

/// Longest lease, etcd's.
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;
/// Expired leases revoked each second, etcd's pace.
pub const LEASE_REVOKES_PER_SECOND: usize = 1000;
/// Revokes in flight at once.
pub const LEASE_REVOKES_PENDING_MAX: usize = 16;
/// Hashes of past compactions kept to answer HashKV, etcd's.
pub const COMPACTION_HASHES_KEPT: usize = 10;

/// Attempts of one call, etcd's client's.
pub const CLIENT_ATTEMPTS_MAX: u32 = 100;
/// Pause before a call or a watch is tried again, etcd's client's.
pub const CLIENT_RETRY_WAIT: Duration = Duration::from_millis(25);
/// Pause after no endpoint could be dialled: short enough that a restarted server is found at once.
pub const CLIENT_RECONNECT_WAIT: Duration = Duration::from_millis(250);
/// Pause before a lost keep-alive stream is opened again, etcd's client's.
pub const CLIENT_KEEP_ALIVE_RETRY_WAIT: Duration = Duration::from_millis(500);
/// Shortest interval of HTTP/2 pings: servers close connections that ping more often.
pub const CLIENT_KEEP_ALIVE_MIN: Duration = Duration::from_secs(10);
/// Largest request of a client, etcd's client's: below what a server accepts.
pub const CLIENT_SEND_BYTES_MAX: usize = 2 << 20;
/// Largest response that a client takes, etcd's client's: the largest that gRPC can frame for Go.
pub const CLIENT_RECEIVE_BYTES_MAX: usize = i32::MAX as usize;
/// Flow control windows of a client: a page of keys arrives without a round trip in between.
pub const CLIENT_WINDOW_BYTES: u32 = 4 << 20;
/// Requests queued on one stream of a client; the caller waits beyond it.
pub const CLIENT_STREAM_REQUESTS_MAX: usize = 64;
