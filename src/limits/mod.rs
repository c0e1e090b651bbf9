//! Every bound of the server, with its reason. A queue, batch, buffer or retry that is not bounded
//! here is a bug.

use std::time::Duration;

/// Largest encoded proposal, etcd's default of `--max-request-bytes`.
pub const REQUEST_BYTES_MAX: usize = 1_572_864;
/// What gRPC may receive beyond the largest request: etcd's overhead allowance.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
/// Transactions in each other, below the outermost. With the default of `--max-txn-ops` that bounds it
/// to 128; with a larger one this does. Decoding, checking, applying, encoding and dropping one takes
/// stack for each level, some kilobytes in a debug build, on threads that have 2 MiB. The log holds such
/// requests, so it may only grow.
pub const TXN_DEPTH_MAX: usize = 256;
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
/// How long applied entries may wait for LMDB, etcd's; the log holds them meanwhile. A commit costs
/// two syncs and the pages on the way to its rows, however few these are.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// Rows that one commit deletes for compaction. Most of their pages become free and are not written,
/// so that few large commits leave the log more of the disk than many small ones.
pub const COMPACTION_ROWS_MAX: usize = 10_000;
/// And where more found the disk full: each may cost a page, a quarter of a megabyte in all.
pub const COMPACTION_ROWS_FULL_DISK: usize = 64;
/// Rows that a start may have to read beside the index checkpoint before it is written anew: a tenth
/// of a second of reading.
pub const CHECKPOINT_ROWS: u64 = 50_000;
/// Time between two index checkpoints at least. With a busy writer, a start reads the rows of so
/// long; 1M keys make a file of 30 MB.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);
/// Rest after each piece of an index checkpoint, so that it takes a tenth of a processor.
pub const CHECKPOINT_PAUSE: Duration = Duration::from_millis(1);
/// Bytes of an index checkpoint written while the index lock is held; one larger key is admitted.
pub const CHECKPOINT_STEP_BYTES: usize = 256 << 10;
/// Bytes of an index checkpoint between two syncs, so that those of the log wait little.
pub const CHECKPOINT_SYNC_BYTES: usize = 4 << 20;
/// Keys visited while the index lock is held.
pub const INDEX_HOLD_KEYS_MAX: usize = 1000;
/// Keys that compaction looks at while it holds the index lock, a third of a millisecond, and its rest
/// after them. Apply takes the lock for each entry, so it must find it free for most of the time: with
/// 1000 keys and no rest the 99th percentile of puts was 50 ms.
pub const INDEX_COMPACT_KEYS_MAX: usize = 250;
pub const INDEX_COMPACT_REST: Duration = Duration::from_millis(1);
/// Rows that are sorted by key before they go into the index, at a start and with a snapshot: enough
/// that each leaf of a large index gets several of them at once, in 40 MiB.
pub const INDEX_BULK_ROWS_MAX: usize = 512 << 10;
/// Bytes of their keys, but for the last one's.
pub const INDEX_BULK_KEY_BYTES: usize = 32 << 20;
/// Rows read from LMDB within one read transaction: it pins pages that the writer could reuse.
pub const READ_CHUNK_ROWS: usize = 1000;
/// Bytes read from LMDB within one read transaction; one larger record is admitted.
pub const READ_CHUNK_BYTES: usize = 4 << 20;
/// Longest page that is read on a thread that serves connections; longer ranges go elsewhere.
pub const INLINE_RANGE_KEYS_MAX: i64 = 128;
/// Keys visited for such a page or a count, in times that the index lock is held: half a millisecond.
/// What takes more is tried again elsewhere.
pub const INLINE_INDEX_HOLDS_MAX: usize = 4;
/// As `INLINE_INDEX_HOLDS_MAX`, for all reads of a transaction: 32 holds take four milliseconds. A
/// transaction is read, or measured before it is proposed, on another thread.
pub const INLINE_TXN_INDEX_HOLDS_MAX: usize = 32;
/// Bytes of pairs read for such a page.
pub const INLINE_RANGE_BYTES_MAX: usize = 1 << 20;
/// Replies of compactions that may wait for their sweep before those are dropped for which nobody
/// waits any more.
pub const SWEEP_ANSWERS_MAX: usize = 1024;
/// Rest after a sweep failed, before the same step is tried again.
pub const SWEEP_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Batches of committed entries that apply holds and has not reported as applied.
pub const APPLY_QUEUE_BATCHES_MAX: usize = 64;
/// Records larger than this are stored in chunks: LMDB would need contiguous pages.
pub const RECORD_INLINE_BYTES_MAX: usize = 8 << 10;
/// Size of such a chunk; it fits one LMDB page with its header.
pub const RECORD_CHUNK_BYTES: usize = 4000;
/// Address space reserved for LMDB's map; never resized, costs no memory.
pub const MAP_BYTES: usize = 1 << 40;
/// LMDB reader slots: one for each thread that may read at a time.
pub const READERS_MAX: u32 = 2048;
/// Disk space held back, so that deletes and compaction still commit on a full disk.
pub const RESERVE_BYTES: u64 = 64 << 20;
/// The reserve takes at most this fraction (1/16) of its file system.
pub const RESERVE_DISK_PARTS: u64 = 16;
/// Pause before a reserve that was given up is taken again. Without it each commit on a full disk
/// would fail first; with a longer one other writers take the space.
pub const RESERVE_RETAKE_REST: Duration = Duration::from_secs(1);
/// How often the log says that the disk is full, while each second finds it so.
pub const FULL_DISK_SAY_INTERVAL: Duration = Duration::from_secs(60);
/// Bytes that a byte of a record takes at most: one slightly larger than a page has two for itself, and
/// each commit writes the pages on the way to its rows anew.
pub const STORE_BYTES_PER_BYTE: u64 = 2;
/// LMDB files up to this size are checked to the last leaf page when opened; it takes about 0.1 s.
pub const OPEN_CHECK_BYTES_MAX: u64 = 256 << 20;
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

/// Revisions in one catch-up response; a revision is never split.
pub const WATCH_CATCH_UP_REVISIONS_MAX: usize = 1000;
/// Responses buffered for one watch stream before its watchers fall back to catch-up.
pub const WATCH_STREAM_RESPONSES_MAX: usize = 128;
/// Bytes of events buffered for one watch stream; one larger response is admitted.
pub const WATCH_STREAM_BYTES_MAX: usize = 2 << 20;
/// Bytes of history read at once for the lagging watchers of one stream, with previous pairs; one
/// larger transaction is admitted. As much is what a stream costs whose client does not read.
pub const WATCH_CATCH_UP_BYTES: usize = 256 << 10;
/// Bytes from which on the previous pairs of one large transaction are read when its response is made
/// and not with its history.
pub const WATCH_PREVIOUS_BYTES: usize = 8 << 20;
/// Bytes that wait in all watch streams of a member. Above it, streams buffer no events that they have
/// not to, and above half of it they read history in small pieces: nothing is lost, and nobody waits
/// for a client that does not read.
pub const WATCH_BYTES_MAX: usize = 128 << 20;
/// Bytes of history that a stream reads at once while all watch streams hold more than half of
/// `WATCH_BYTES_MAX`. An event of this size still enters an empty queue.
pub const WATCH_SMALL_BYTES: usize = 16 << 10;
/// Watchers of a stream that ended which are removed while the hub's lock is held: apply needs it.
pub const WATCHERS_REMOVED_AT_ONCE: usize = 1000;
/// Watch streams that read history at the same time, each on a thread.
pub const CATCH_UPS_RUNNING_MAX: usize = 2;
/// Watchers of one stream that share one read of history.
pub const CATCH_UP_WATCHERS_MAX: usize = 512;
/// Time between two progress notifications of a watcher, etcd's default.
pub const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// The shortest time that a flag can ask for, etcd's.
pub const WATCH_PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Watchers on one stream.
pub const WATCHERS_PER_STREAM_MAX: usize = 1 << 20;

/// Longest lease, etcd's.
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;
/// Expired leases revoked each second, etcd's pace.
pub const LEASE_REVOKES_PER_SECOND: usize = 1000;
/// How often the rest of a long lease is noted in the log, etcd's.
pub const LEASE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
/// Remainders noted with one entry, etcd's.
pub const LEASE_CHECKPOINT_LEASES_MAX: usize = 1000;
/// Revokes in flight at once.
pub const LEASE_REVOKES_PENDING_MAX: usize = 16;
/// Hashes of past compactions kept to answer HashKV, etcd's.
pub const COMPACTION_HASHES_KEPT: usize = 10;

/// Different client API versions counted apart; a client chooses the label, so the rest is `other`.
pub const CLIENT_VERSIONS_MAX: usize = 32;
/// Rows in the first piece of a range stream, etcd's.
pub const STREAM_CHUNK_ROWS: i64 = 10;
/// Pause between two batches of a compaction, etcd's.
pub const COMPACTION_PAUSE: Duration = Duration::from_millis(10);

/// Open files kept back from client connections for the store, the log and peers, etcd's.
pub const DESCRIPTORS_RESERVED: u64 = 150;
/// How long a new connection may take to show its protocol, so that silent ones end.
pub const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an HTTP/1.1 connection may take for, or wait between, requests.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Connections that may wait to be accepted, etcd's with the defaults of Linux; the kernel takes less
/// if `net.core.somaxconn` says so. Above it a client tries again after a second.
pub const LISTEN_BACKLOG: i32 = 4096;
/// Bytes of a body that nobody needs, read before the answer as Go reads them after it.
pub const HTTP_BODY_BYTES_MAX: usize = 256 << 10;
/// How long such a body may take; then the answer comes without it.
pub const HTTP_BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of request headers in one HTTP/2 request; tokens are the largest of them.
pub const HEADER_BYTES_MAX: u32 = 64 << 10;
/// Table of header fields that a client may keep: a little less than what h2 keeps, 4096, since some of
/// its entries are longer here than there (see `server/hpack.rs`).
pub const HEADER_TABLE_BYTES: u32 = 3968;
/// Bytes of requests that one client connection may have unread, for each of its streams.
pub const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// The same for the whole connection: what a connection that nobody here reads costs at most. h2
/// derives its budget for small unread DATA frames from it, half as much at 256 bytes a frame less
/// what is in it, and ends the connection above that. A stream full of renewals, which are of 15
/// bytes, needs 4 MiB of it if they come one by one.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Streams that their client reset before h2 handed them over; above it h2 ends the connection. A
/// client that cancels its calls at once does not get there: all are handed over after each
/// `FRAMES_PER_TURN_MAX`. One that resets each of them twice does after as many.
pub const RESET_STREAMS_MAX: usize = 1024;
/// Frames of one client after which others have their turn, and h2 hands over the requests that it has.
/// A read of 8 KiB may hold 900, and `TURNS_BETWEEN_NEWS` come before the next look at the sockets. A
/// burst of calls and of their cancellations in one read would also reach the limit above.
pub const FRAMES_PER_TURN_MAX: u32 = 32;
/// Messages of one stream after which other tasks have their turn. A client that does not wait for its
/// answers would otherwise get a hundred of them at once, which takes a thread about a millisecond.
pub const ANSWERS_PER_TURN_MAX: u32 = 16;
/// Tasks that a thread runs before it looks whether sockets have news. A look costs less than a
/// microsecond and a turn up to a hundred, so that with tokio's 61 a short call could wait for six
/// milliseconds before anybody knew of it.
pub const TURNS_BETWEEN_NEWS: u32 = 16;
/// A frame counts once more for each of these in it: some 60 KiB pass in a turn, which takes a
/// thread some tens of microseconds. With half a megabyte, sixty clients that send as fast as they can
/// hold up everybody else by tens of milliseconds.
pub const TURN_BYTES: usize = 2 << 10;
/// Streams that h2 may reset over a client's mistakes in the life of a connection, such as DATA that
/// crosses an early answer. h2's default of 1024 ends a connection of weeks that did nothing wrong.
pub const ERROR_RESETS_MAX: Option<usize> = None;
/// Requests of one connection that h2 has handed over and no thread has begun with; above it nothing
/// more is read. A connection is woken before its requests otherwise, and they pile up.
pub const REQUESTS_QUEUED_MAX: usize = 64;
/// Bytes read from a client whose socket takes nothing. A call may be 12 bytes, and its answer, with
/// stream and headers, some kilobytes.
pub const BLOCKED_READ_BYTES_MAX: usize = 16 << 10;
/// Bytes of answers that one connection may hold; above it no further call on it is begun. A page of
/// keys of the default size is smaller.
pub const CONNECTION_UNSENT_BYTES_MAX: usize = 64 << 20;
/// What a connection may hold however crowded it is: the answers of one turn.
pub const CONNECTION_UNSENT_BYTES_MIN: usize = 256 << 10;
/// What all connections together may hold before long ranges are built one at a time, and connections
/// hold no more than their share.
pub const UNSENT_BYTES_MAX: usize = 256 << 20;
/// Unsent bytes of all connections from which long ranges wait for room: one answer of 256 MiB to a
/// slow reader alone stops no other call.
pub const UNSENT_BYTES_FULL: usize = 512 << 20;
/// Bytes of a short answer while all hold more than `UNSENT_BYTES_MAX`: such calls take no turn, and a
/// client may make thousands at once.
pub const CROWDED_RANGE_BYTES_MAX: usize = 64 << 10;
/// Bytes that streams of leases and watches, and calls about leases, may hold on a connection that is
/// over its part: renewals must not wait behind a range, and an answer of theirs has some 50 bytes.
pub const SMALL_UNSENT_BYTES_MAX: usize = 1 << 20;
/// What an answer costs beside its message: its frames, headers and stream.
pub const UNSENT_ANSWER_BYTES: usize = 1 << 10;
/// Calls that may wait on one connection that is over its part; more are told "too many requests".
pub const CALLS_WAITING_MAX: usize = 1024;
/// How long a long read keeps its processor while others wait for one.
pub const READ_SLICE: Duration = Duration::from_millis(2);
/// How long nothing may move before the first that waits takes the place of one that has a processor.
pub const READ_STANDSTILL_MAX: Duration = Duration::from_millis(50);
/// Long ranges that are built at a time, and as many writes with long answers: each holds its rows and
/// its message.
pub const LONG_ANSWERS_MAX: usize = 4;
/// Calls that wait to build one, for as long as a request may take; more are told "too many requests".
/// Each is a stream and a task of some kilobytes.
pub const LONG_ANSWERS_WAITING_MAX: usize = 4096;
/// Bytes of messages of one connection that have arrived in part. Above it, parts that have
/// received nothing for `UNFINISHED_OLD` are given up; if as many bytes again are given up and not
/// yet dropped, the connection is closed. Two dozen of the largest requests by default.
pub const CONNECTION_UNFINISHED_BYTES_MAX: usize = 32 << 20;
/// As `CONNECTION_UNFINISHED_BYTES_MAX`, for all connections together and before any login; above
/// it the connection that holds most is closed.
pub const UNFINISHED_BYTES_MAX: usize = 128 << 20;
/// The largest messages that fit into the budget of a connection, and twice as many into the
/// member's, where a flag makes messages larger.
pub const UNFINISHED_MESSAGES_MIN: usize = 4;
/// A partial message is old once nothing of it has arrived for this long: a client that sends a
/// hundred large requests at a time on a busy machine returns to each of them sooner.
pub const UNFINISHED_OLD: Duration = Duration::from_secs(5);
/// Divisor of the member's budget by which its partial messages may exceed it before the oldest is
/// given up whatever its age. With it, partial messages and those given up but not yet dropped stay
/// within twice the budget.
pub const UNFINISHED_EXCESS_PART: usize = 2;
/// Bytes of requests of all connections that have arrived and no call has read. Above it, a
/// connection that holds more than half of an equal share is read only once per look. Eight full
/// connections, or thousands of clients whose requests are read a moment later.
pub const UNREAD_BYTES_MAX: usize = 128 << 20;
/// Lower bound of the half share of `UNREAD_BYTES_MAX`, however many connections there are: a read
/// of one frame fits twice.
pub const UNREAD_SHARE_BYTES_MIN: usize = 32 << 10;
/// Memory of an unread frame beside its bytes: its slot in h2's queue.
pub const UNREAD_FRAME_BYTES: usize = 256;
/// Memory that an unread frame may keep from being freed: the frame is a slice of a read buffer of
/// this size.
pub const UNREAD_BUFFER_BYTES: usize = 8 << 10;
/// A connection reports its unread bytes to the member's sum in steps of this size, so that short
/// requests do not touch a counter that all connections share.
pub const UNREAD_STEP_BYTES: usize = 4 << 10;
/// Unread bytes down to which connections are closed once they exceed `UNREAD_BYTES_MAX`, so that
/// some time passes before the next must be closed.
pub const UNREAD_BYTES_LEFT: usize = UNREAD_BYTES_MAX / 4 * 3;
/// Looks after which a connection may be closed of whose requests no frame's worth was read between two, nor
/// all that was there, and that took no frame's worth of answers.
pub const UNREAD_LOOKS_MAX: u32 = 2;
/// Looks in a row for which a connection whose requests are not read is kept because its client
/// takes answers. Requests unread for longer are taken to stay unread.
pub const UNREAD_LOOKS_TAKING_MAX: u32 = 60;
/// Looks without progress that are counted at most: among connections that have stood still for at
/// least as many, the one that holds most is closed first.
pub const UNREAD_LOOKS_COUNTED_MAX: u32 = 10;
/// Streams reset from here on which DATA may still come, for each connection: a reset takes one round
/// trip, in which a client hardly begins as many calls that end early.
pub const RESETS_REMEMBERED_MAX: usize = 64;
/// Slow counts that run at a time: each visits keys under the index lock, which apply needs.
/// `COUNTS_WAITING_MAX` more wait for their turn, for as long as a request may take.
pub const COUNTS_RUNNING_MAX: usize = 4;
pub const COUNTS_WAITING_MAX: usize = 4096;
/// Writes whose answers are measured at a time, where that takes more than a page does: each reads
/// up to a short answer's bytes, in small pieces. `MEASURES_WAITING_MAX` more wait, for as long as
/// a request may take.
pub const MEASURES_RUNNING_MAX: usize = 4;
pub const MEASURES_WAITING_MAX: usize = 4096;
/// How often connections are looked at that hold too much.
pub const UNSENT_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Looks after which a connection that holds too much and takes nothing is closed.
pub const UNSENT_LOOKS_MAX: u32 = 30;
/// As `UNSENT_LOOKS_MAX`, while all connections together hold more than `UNSENT_BYTES_MAX`.
pub const UNSENT_LOOKS_CROWDED_MAX: u32 = 2;
/// Bytes that a client must take between two looks, one frame, or it has taken nothing.
pub const UNSENT_PROGRESS_BYTES: usize = 16 << 10;
/// While a call waits for room, a client must take 1/60 of what its connection holds between two
/// looks of a second, so that it holds up other clients for at most a minute.
pub const UNSENT_PROGRESS_PARTS: usize = 60;
/// Free memory is given back to the system after more than this many bytes were held and three
/// quarters of them are gone.
pub const UNSENT_BYTES_KEPT: usize = 64 << 20;
/// As `UNSENT_BYTES_KEPT`, for connections and for calls at a time, each of which takes some
/// kilobytes beside its messages; but only if the process has grown by `FREE_BYTES_KEPT` meanwhile,
/// of which most may be free.
pub const CONNECTIONS_KEPT: usize = 50;
pub const CALLS_KEPT: usize = 500;
pub const FREE_BYTES_KEPT: usize = 8 << 20;
/// Time between two times of giving back at least: each locks the allocator for some milliseconds.
pub const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(5);
/// Pings too many before a client is told to calm down, grpc-go's.
pub const PING_STRIKES_MAX: u32 = 2;
/// How long a stop waits for answers under way.
pub const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);
/// How long a member that cannot go on lets its ports tell their clients.
pub const FAILURE_GRACE: Duration = Duration::from_millis(200);
/// How long a stop waits for the node; then the log replays what is missing.
pub const NODE_STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept, which mostly means that descriptors ran out.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between TCP keepalive probes, and before the first of them, etcd's.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// A segment takes at most this fraction (1/16) of its file system: two segments, the prepared one
/// and one about to be removed are a quarter of a small disk.
pub const LOG_SEGMENT_DISK_PARTS: u64 = 16;
/// Segments are not made smaller than this, which holds two of the largest requests.
pub const LOG_SEGMENT_BYTES_MIN: u64 = 4 << 20;
/// A segment for which the disk has less room than usual is a multiple of this.
pub const LOG_SEGMENT_STEP_BYTES: u64 = 64 << 10;
/// An entry larger than this fraction (1/8) of a segment counts twice when the log is asked for
/// room, since up to its own size may be left unused at the end of the segment before it. A smaller
/// entry leaves less than 1/8 unused.
pub const LOG_LARGE_ENTRY_PARTS: u64 = 8;
/// Bytes of a segment kept for records without entries: over a thousand votes, and a quarter for the
/// records that let older segments go.
pub const LOG_SLACK_BYTES: u64 = 64 << 10;
/// A write of the log that takes longer is said to be slow while it lasts, etcd's for one that is over.
pub const LOG_STALL_SAID_AFTER: Duration = Duration::from_secs(1);
/// How often it is looked at.
pub const LOG_STALL_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often room for the next segment is looked for while the disk has none.
pub const LOG_ROOM_RETRY: Duration = Duration::from_millis(200);
/// Zeros written ahead of the log's end: some seconds of writing, so that syncs write no metadata.
pub const LOG_FILL_AHEAD_BYTES: u64 = 8 << 20;
/// Zeros written and synced at once; larger pieces would delay the syncs of the log itself.
pub const LOG_FILL_CHUNK_BYTES: usize = 1 << 20;
/// Longest record that is believed; a longer one is damage. The default limit of a request is 85
/// times smaller.
pub const LOG_RECORD_BYTES_MAX: u64 = 128 << 20;
/// Checksum, metadata and state at the head of a segment take less than this.
pub const LOG_SEGMENT_HEAD_BYTES: u64 = 128;
/// Segments kept for members that were away, half a gigabyte: the log is cheaper than a snapshot.
pub const LOG_SEGMENTS_FOR_PEERS: u32 = 8;
/// Capacity that the log writer's buffer keeps after an unusually large batch.
pub const LOG_BUFFER_BYTES_KEPT: usize = 4 << 20;
/// How long an offline command waits for a stopped member's log without seeing one more entry applied.
/// A sole voter needs an election for that, some seconds on a disk that is slow to sync.
pub const SETTLE_STALL: Duration = Duration::from_secs(60);
/// Bytes read at once when old entries are fetched from a segment.
pub const LOG_READ_BYTES: u64 = 1 << 20;

/// Jobs given to the log writer and not yet reported durable. Above it the raft loop takes no new
/// proposals, so that it never waits for the writer itself.
pub const LOG_JOBS_MAX: usize = 256;
/// A sole voter writes batches of up to this many entries and bytes within the raft loop. Proposals
/// that arrive meanwhile wait and make the next batch large, which then goes to the log writer.
pub const LOG_INLINE_ENTRIES_MAX: usize = 16;
pub const LOG_INLINE_BYTES_MAX: usize = 64 << 10;
/// A follower on a quick disk writes batches of up to this size within the raft loop: no other work
/// of a follower waits for the loop.
pub const LOG_INLINE_FOLLOWER_ENTRIES_MAX: usize = 256;
pub const LOG_INLINE_FOLLOWER_BYTES_MAX: usize = 256 << 10;
/// A disk is quick if its syncs take less than this on average. A proposal that a follower forwards
/// may wait for one of them.
pub const LOG_INLINE_SYNC_MAX: Duration = Duration::from_millis(2);
/// While the log writer is busy, this many waiting proposals make a batch of their own; fewer wait
/// for the writer.
pub const PROPOSALS_PER_BATCH_MIN: usize = 128;
/// Messages of other members that may wait for the raft loop; raft repeats what is dropped.
pub const RAFT_MESSAGES_MAX: usize = 4096;
/// Reads that may wait for the raft loop; above it the caller gets "too many requests".
pub const RAFT_READS_MAX: usize = 65_536;
/// Configuration changes that may wait for the one before them. etcd admits one at a time.
pub const CONF_CHANGES_WAITING_MAX: usize = 16;
/// Reads of other members held until the leader has committed in its term; they ask again.
pub const FORWARDED_READS_MAX: usize = 1024;
/// After this a read index is asked for again, with a new context; etcd's.
pub const READ_INDEX_RETRY: Duration = Duration::from_millis(500);
/// Bytes and entries of one batch for apply, which answers and reports once a batch is applied.
pub const APPLY_BATCH_BYTES_MAX: u64 = 4 << 20;
pub const APPLY_BATCH_ENTRIES_MAX: u64 = 1024;
/// Bytes of pairs in the answers to a batch; with more, those so far are given before the batch goes on.
/// A transaction of a few bytes may answer with all keys.
pub const APPLY_ANSWER_BYTES_MAX: usize = 8 << 20;
/// Bytes of the batches that apply holds; one batch more is admitted. What is committed beyond them
/// stays in the log until apply has reported some of them.
pub const APPLY_HELD_BYTES_MAX: u64 = 16 << 20;
/// Entries that a leader holds uncommitted before it drops proposals.
pub const RAFT_UNCOMMITTED_BYTES_MAX: u64 = 256 << 20;
/// Bytes of entries in one message to a member, etcd's.
pub const RAFT_MESSAGE_BYTES_MAX: u64 = 512 << 10;
/// Highest term or index that is believed: no cluster gets there, and from there it can still count.
pub const RAFT_NUMBER_MAX: u64 = i64::MAX as u64;
/// Messages with entries in flight to one member. Together they fit its queue; once they are
/// acknowledged slowly, they become larger instead of more.
pub const RAFT_INFLIGHT_MAX: usize = 32;

/// Attempts of one call, etcd's client's.
pub const CLIENT_ATTEMPTS_MAX: u32 = 100;
/// Pause before a call or a watch is tried again, etcd's client's.
pub const CLIENT_RETRY_WAIT: Duration = Duration::from_millis(25);
/// How long connecting to an endpoint may take until the server has begun to speak, gRPC's.
pub const CLIENT_DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after an endpoint could not be dialled: short enough that a restarted server is found at once.
pub const CLIENT_RECONNECT_WAIT: Duration = Duration::from_millis(250);
/// How long a client that waits without an end is silent about it: what a call of etcdctl's that has
/// an end takes at most.
pub const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(5);
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

/// Messages queued for one stream of a peer, etcd's.
pub const PEER_QUEUE_MAX: usize = 4096;
/// Bytes queued for one stream of a peer: what raft may have in flight would be four times that.
pub const PEER_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Largest message from a peer, etcd's.
pub const PEER_MESSAGE_BYTES_MAX: u64 = 512 << 20;
/// Entries in one message from a peer: what a member sends at once has half as many at most. Decoding
/// them holds up the other peers.
pub const PEER_MESSAGE_ENTRIES_MAX: u64 = 1 << 16;
/// Messages are put together up to this size before they go to a peer's socket.
pub const PEER_CHUNK_BYTES: usize = 256 << 10;
/// Bytes of entries from peers that may wait for the raft loop; raft repeats what is dropped.
pub const RAFT_MESSAGES_BYTES_MAX: usize = 64 << 20;
/// How long a unary request's message may take to arrive once it is awaited.
pub const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Lines of one log message in a second; of the rest one in as many is written. etcd's.
pub const LOG_LINES_PER_SECOND: u64 = 100;
/// Log messages that are counted apart; more share places.
pub const LOG_SAMPLER_PLACES: usize = 4096;

/// First and longest pause before a proposal that found no leader is made again: fractions of an
/// election.
pub const PROPOSE_RETRY: Duration = Duration::from_millis(20);
pub const PROPOSE_RETRY_MAX: Duration = Duration::from_millis(200);
/// First and longest pause before a member that starts tells again who it is. It cannot before it has
/// applied most of what was committed.
pub const PUBLISH_RETRY: Duration = Duration::from_millis(20);
pub const PUBLISH_RETRY_MAX: Duration = Duration::from_secs(1);
/// How long a read may wait for a leader's word, beyond two elections: what its caller waits, as in
/// etcd.
pub const READ_WAIT: Duration = Duration::from_secs(5);

/// A configuration file; etcd's longest is a few kilobytes.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;
/// From this depth on a configuration file is refused; its settings stand in the second.
pub const CONFIG_FILE_DEPTH_MAX: usize = 16;
/// A configuration file with this many YAML aliases is refused: eight that nest in each other give
/// at most a few dozen copies.
pub const CONFIG_FILE_ALIASES_MAX: usize = 9;
/// Branches above one another in a bbolt file: each has two children, so fewer bits than a page
/// number has are enough for any tree.
pub const BBOLT_DEPTH_MAX: usize = 64;
/// Largest page, with what overflows, that is believed; the default limit of a request is 300 times
/// smaller.
pub const BBOLT_PAGE_BYTES_MAX: u64 = 512 << 20;
/// Bytes of a snapshot put together at a time; about as many again are read for them.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;
/// Bytes of a snapshot in one message to a client, etcd's.
pub const SNAPSHOT_MESSAGE_BYTES: usize = 32 << 10;
/// Pieces of a snapshot ready for a client that reads slowly.
pub const SNAPSHOT_PIECES_MAX: usize = 4;
/// How long a reader of a snapshot may take for a piece: it keeps a thread and a place.
pub const SNAPSHOT_STALL_MAX: Duration = Duration::from_secs(60);
/// Bytes a second that such a reader must take on average after that time. A slower one would keep
/// pages of the store for days: at this pace 2 GiB take nine hours. A member's snapshot that comes
/// more slowly is refused, since it keeps out all others.
pub const SNAPSHOT_READER_RATE_MIN: u64 = 64 << 10;
/// Snapshots for clients at once; each has a thread and 2 MiB of pieces. One more gets "too many
/// requests".
pub const SNAPSHOTS_MAX: usize = 8;
/// A snapshot download whose reader has taken nothing for this long gives its seat to another
/// client.
pub const SNAPSHOT_FAIR_WAIT: Duration = Duration::from_secs(5);
/// Hashes of history computed for clients at once, and such that wait for it; above it the caller gets
/// "too many requests". Each holds 40 bytes for each key in memory and is on a thread of its own.
pub const HASHES_RUNNING_MAX: usize = 1;
pub const HASHES_WAITING_MAX: usize = 64;
/// Hashes of history that wait to be computed for other members, one at a time: each asks now and then.
pub const PEER_HASHES_WAITING_MAX: usize = 16;
/// Reports of the store's space that wait for the one under way.
pub const USAGES_WAITING_MAX: usize = 16;
/// How long deletions by compaction wait for snapshots that are being read. Most are read by then, and
/// the file need not grow for them.
pub const SNAPSHOT_HOLD_MAX: Duration = Duration::from_secs(5);

/// Bytes of rows that one commit brings into a generation that is being built. Larger ones would hold
/// up the log's syncs on the same disk.
pub const SNAPSHOT_BUILD_BYTES: usize = 8 << 20;
/// Such commits that are read ahead, so that reading and writing go on side by side.
pub const SNAPSHOT_BUILD_BATCHES: usize = 2;
/// Rest before a snapshot that did not arrive is sent again: each attempt measures the state anew.
pub const SNAPSHOT_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// As `SNAPSHOT_RETRY_PAUSE`, if the receiving member's disk has no room: an operator has to free
/// some.
pub const SNAPSHOT_NO_ROOM_PAUSE: Duration = Duration::from_secs(10);
/// Bytes of a peer's reason for refusing a snapshot that go into the log.
pub const PEER_REASON_BYTES_MAX: usize = 1024;
/// Bytes of rows read at once for a snapshot; one larger record is admitted.
pub const SNAPSHOT_READ_BYTES: usize = 512 << 10;
/// Window in which the sender of a snapshot measures how long puts take, to set its rate.
pub const SNAPSHOT_PACE_WINDOW: Duration = Duration::from_millis(100);
/// After this many windows the sender is silent for two, to measure how long puts take without the
/// snapshot.
pub const SNAPSHOT_PACE_SILENCE: u32 = 16;
/// Batches of proposals that a window needs to be judged by; with fewer nobody is held up.
pub const SNAPSHOT_PACE_SAMPLES_MIN: u32 = 5;
/// Puts that take less are not held up by anything.
pub const SNAPSHOT_PACE_LATENCY_MIN: Duration = Duration::from_micros(500);
/// Bytes a second of a snapshot while puts suffer: at least, so that it arrives, at first, and at
/// most, which is more than any disk takes.
pub const SNAPSHOT_RATE_MIN: u64 = 4 << 20;
pub const SNAPSHOT_RATE_FIRST: u64 = 32 << 20;
pub const SNAPSHOT_RATE_MAX: u64 = 4 << 30;
/// Niceness of the threads that read and build snapshots: with puts to serve they get a tenth.
pub const SNAPSHOT_NICENESS: i32 = 10;
/// Largest message in front of a snapshot: it holds numbers only. Each connection may send one, so it
/// costs no more than a request's headers.
pub const SNAPSHOT_HEAD_BYTES_MAX: u64 = 64 << 10;
/// How long a peer may take for a snapshot and for building its state from it.
pub const SNAPSHOT_ANSWER_MAX: Duration = Duration::from_secs(3600);
/// How often a peer is asked how far it is, etcd's; that is also how long the answer may take.
pub const PEER_PROBE_INTERVAL: Duration = Duration::from_secs(4);
/// How long connecting to a peer may take.
pub const PEER_DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a member's answer to a single question: members, versions, leases with their keys.
pub const PEER_ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes of a question of a member's to the leader, etcd's.
pub const PEER_QUESTION_BYTES_MAX: usize = 64 << 10;
/// Peers that a member believes in before the log has told it of them. Anybody may call, so there is
/// at most one more in a time, it is dialled seldom until it has answered, and forgotten if it never
/// does: no more than fit come meanwhile.
pub const PEERS_REMEMBERED_MAX: usize = 16;
pub const PEER_REMEMBER_INTERVAL: Duration = Duration::from_secs(1);
pub const PEER_REMEMBERED_RETRY: Duration = Duration::from_secs(5);
pub const PEER_REMEMBERED_FOR: Duration = Duration::from_secs(15);
/// URLs of it that are believed; a member has one or two.
pub const PEER_REMEMBERED_URLS_MAX: usize = 4;
/// Largest message that is taken in a request of its own. Members of this release send none so, and
/// what others would send fits.
pub const PEER_POST_BYTES_MAX: usize = 4 << 20;
/// Such requests that are read at a time, and how long one may take, or the message in front of a
/// snapshot.
pub const PEER_POSTS_MAX: usize = 4;
pub const PEER_POST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a member goes on after it has applied its removal, so that others learn of it, etcd's.
pub const REMOVED_GRACE: Duration = Duration::from_secs(1);
/// How often, and for how long, a removed member then looks whether one that stays knows of it: with
/// two voters, the other could not go on without its vote. Five minutes outlive a restart.
pub const REMOVED_LOOK_INTERVAL: Duration = Duration::from_millis(100);
pub const REMOVED_LOOKS_MAX: u32 = 3000;
/// How long a peer must have been connected to count when the membership changes, etcd's.
pub const PEER_HEALTHY_AFTER: Duration = Duration::from_secs(5);
/// How long one attempt to reach the leader may take before the next.
pub const ASK_LEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// First and longest pause before it is looked again whether an overdue lease has been revoked.
pub const LEASE_EXPIRED_LOOK: Duration = Duration::from_millis(50);
pub const LEASE_EXPIRED_LOOK_MAX: Duration = Duration::from_millis(500);
/// Pause between two attempts to reach the leader, etcd's, and the longest.
pub const ASK_LEADER_PAUSE: Duration = Duration::from_millis(50);
pub const ASK_LEADER_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a new member waits for another member to answer whether this one has run in the cluster
/// before; etcd's.
pub const BOOTSTRAP_CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a joining member waits for the list of members, etcd's.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Simple tokens that a member remembers; the one that ends first makes room for a new one. A token
/// costs about 200 bytes.
pub const SIMPLE_TOKENS_MAX: usize = 100_000;
/// How long a simple token lives unused, etcd's default of `--auth-token-ttl`.
pub const SIMPLE_TOKEN_TTL: Duration = Duration::from_secs(300);
/// Passwords that wait to be hashed or compared; above it the caller gets "too many requests", or who
/// waits longest for the name that most wait for. At cost 10 a thread works off sixteen a second, so
/// the last one waits about as long as a request may.
pub const PASSWORDS_PENDING_MAX: usize = 64;
/// Longest name of a user or role: the longest key of a bbolt file, so that a snapshot can hold it.
pub const AUTH_NAME_BYTES_MAX: usize = 32_768;
/// Letters of a name that a refused login leaves in the log; the request may bring a megabyte.
pub const LOGGED_NAME_LETTERS_MAX: usize = 256;
/// Looks at a password that one login may take while users and roles keep changing.
pub const LOGIN_ATTEMPTS_MAX: usize = 10;
/// Threads that hash: logins may not take more than half of a small machine.
pub const PASSWORD_THREADS_MAX: usize = 4;
/// Niceness of these threads: a thirtieth of what a thread that serves gets, where both want to run.
/// With 10, a tenth, a flood of logins doubled the 99th percentile of puts on two cores.
pub const PASSWORD_NICENESS: i32 = 15;
/// The fraction (1/10) of the time that may be spent on passwords at the usual priority: one login
/// a second at cost 10.
pub const PASSWORD_CREDIT_SHARE: u32 = 10;
/// How much of it can be saved up: some thirty logins at cost 10.
pub const PASSWORD_CREDIT_MAX: Duration = Duration::from_secs(2);

/// Time that one name server has for an answer, unless `resolv.conf` says another, as in C.
pub const DNS_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that `resolv.conf` may say, as in C.
pub const DNS_TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// Rounds through the name servers, unless `resolv.conf` says another number, as in C.
pub const DNS_ATTEMPTS: usize = 2;
/// The most that `resolv.conf` may say, as in C.
pub const DNS_ATTEMPTS_MAX: usize = 5;
/// Name servers that are asked, and suffixes that are tried: what C's library takes.
pub const DNS_SERVERS_MAX: usize = 3;
pub const DNS_SEARCH_MAX: usize = 6;
/// A datagram without extensions has 512 bytes; some servers do not keep to that.
pub const DNS_DATAGRAM_BYTES_MAX: usize = 4096;
/// Longest name in its own encoding.
pub const DNS_NAME_BYTES_MAX: usize = 255;
/// How long a name in a peer URL may stay unknown, as in etcd.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Times that the pause doubles between questions to a discovery service that is away, as in etcd.
pub const DISCOVERY_BACKOFFS_MAX: u32 = 8;
/// Time that the leader's apply has to get to what was committed when a lease was asked about, as
/// in etcd.
pub const LEASE_APPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// How often, and for how long, a member that starts looks whether it has reached the others before
/// it lets its first election come by itself: etcd's 50 ms and 5 s.
pub const PEERS_REACHED_INTERVAL: Duration = Duration::from_millis(50);
pub const PEERS_REACHED_LOOKS_MAX: u32 = 100;

/// A TLS handshake must be done by then, etcd's.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once on one kind of port: each costs some 30 KiB and a millisecond of
/// arithmetic. The others wait for their turn, as long as a handshake may take.
pub const TLS_HANDSHAKES_MAX: usize = 1024;
/// A handshake that has taken longer ends when others wait for its place. An honest one has done its
/// part in a few round trips.
pub const TLS_HANDSHAKE_FAIR_TIME: Duration = Duration::from_secs(1);

/// Bytes copied into one commit by a defragmentation; one larger record is admitted. Its syncs hold
/// up those of the log for a few milliseconds.
pub const DEFRAG_PIECE_BYTES: usize = 1 << 20;
/// Keys of small buckets that may change before a defragmentation copies them again.
pub const DEFRAG_CHANGES_MAX: usize = 10_000;
/// Pieces with which a defragmentation goes after rows that came while it copied. If writers outrun
/// it by then, the store's commits wait for the rest.
pub const DEFRAG_CATCH_UP_PIECES_MAX: u32 = 256;
/// Free disk space that a defragmentation leaves to the log and the store; on a small disk as much as
/// the reserve is there.
pub const DEFRAG_FREE_BYTES_MIN: u64 = 32 << 20;
/// How long readers of the old file are waited for. Then it is removed under them, and its space
/// comes free when they end.
pub const DEFRAG_READERS_WAIT: Duration = Duration::from_secs(5);
/// Bytes of the old file given back at once.
pub const DEFRAG_TRUNCATE_BYTES: u64 = 64 << 20;
/// Requests to defragment that may wait for the one under way; above it the caller gets "too many
/// requests".
pub const DEFRAGS_WAITING_MAX: usize = 16;
/// How often, and how many times, a request looks for room while a commit that found none is tried
/// again: for a little longer than the second that the store rests in between.
pub const ROOM_LOOK_INTERVAL: Duration = Duration::from_millis(50);
pub const ROOM_LOOKS_MAX: u32 = 24;
/// How often the space policy `auto` looks whether there is something to do.
pub const SPACE_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Newest revisions that it never compacts away, as many as a Kubernetes cluster makes in a minute or
/// two: who reads or watches in pages has not gone on to newer ones yet.
pub const SPACE_REVISIONS_KEPT: i64 = 1000;
/// A recovery ends, and the alarm with it, once this fraction (1/8) of the quota is free.
pub const SPACE_ROOM_PARTS: u64 = 8;
/// How long it rests when nothing helps: what is left is live data.
pub const SPACE_HELPLESS_REST: Duration = Duration::from_secs(60);
/// How often it looks whether a compaction has been swept up.
pub const SPACE_SWEEP_LOOK: Duration = Duration::from_millis(20);
/// How long it looks before it says so and rests: some sweeps are slow, and one that the disk fails
/// never ends.
pub const SPACE_SWEEP_WAIT: Duration = Duration::from_secs(60);
/// How long a compaction that got no answer is waited for, the first time and at most, before it is
/// proposed again: until then it may be in the log, and without a quorum another would wait there, too.
pub const SPACE_ANSWER_WAIT: Duration = Duration::from_secs(10);
pub const SPACE_ANSWER_WAIT_MAX: Duration = Duration::from_secs(600);
/// Free bytes within the file, beside a half of it, that are given back without being asked.
pub const SPACE_FREE_BYTES_MIN: u64 = 64 << 20;
/// Time between two such times at least, since each copies what is in use.
pub const SPACE_RECLAIM_INTERVAL: Duration = Duration::from_secs(600);
/// Looks at the store's size that are remembered, and the time between two: the last hour.
pub const SPACE_SAMPLES_MAX: usize = 60;
pub const SPACE_SAMPLE_INTERVAL: Duration = Duration::from_secs(60);
/// Prefixes that a report of the store's space counts apart: some megabytes while it is made.
pub const SPACE_PREFIXES_MAX: usize = 10_000;
/// Longest such prefix.
pub const SPACE_PREFIX_BYTES_MAX: usize = 256;

/// Bytes of records that the scrub reads within one read transaction; one larger record is admitted.
pub const SCRUB_PIECE_BYTES: usize = 1 << 20;
/// How fast the scrub reads: 2 GiB take nine minutes, and a disk hardly notices.
pub const SCRUB_BYTES_PER_SECOND: u64 = 4 << 20;
/// Rest between two scrubs.
pub const SCRUB_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Time from the start to the first scrub, for the rush of a start.
pub const SCRUB_DELAY: Duration = Duration::from_secs(5);
/// How often a member with a damaged store looks whether it leads.
pub const FENCE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Damaged places that a check of a data directory names; the rest is counted.
pub const DAMAGES_NAMED_MAX: usize = 200;
/// Longest segment that is read: an entry may go over its end, but places within it have 32 bits.
pub const LOG_SEGMENT_BYTES_MAX: u64 = u32::MAX as u64;
/// Keys whose versions a check of a data directory follows, some 400 MB; later ones are not compared.
pub const CHECK_KEYS_MAX: usize = 4 << 20;
/// Bytes of a check's report that its parent reads: so many findings with long names.
pub const CHECK_REPORT_BYTES_MAX: u64 = 16 << 20;

/// Bytes of a file of a few lines, such as CURRENT, that are read: a longer one is none of rusd's.
pub const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;
