//! Every bound of the server, with its reason. A queue, batch, buffer or retry that is not bounded
//! here is a bug.

use std::time::Duration;

/// Largest encoded proposal: etcd's default of `--max-request-bytes`.
pub const REQUEST_BYTES_MAX: usize = 1_572_864;
/// Bytes by which a gRPC message may exceed the largest request: etcd's `grpcOverheadBytes`.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;
/// Depth of nested transactions below the outermost. `--max-txn-ops` bounds the depth, too, to 128
/// by default; this bound holds where the flag is larger. Decoding, checking, applying, encoding
/// and dropping a transaction take some kilobytes of stack for each level in a debug build, on
/// threads with 2 MiB. The number may be raised but not lowered: logs may hold transactions of this
/// depth, which a member must be able to apply.
pub const TXN_DEPTH_MAX: usize = 256;
/// Entries that may be committed and not yet applied; above it proposals are refused with "too many
/// requests". etcd's `maxGapBetweenApplyAndCommitIndex`.
pub const APPLY_BACKLOG_MAX: u64 = 5000;
/// Proposals that may wait for the raft loop; above it the caller gets "too many requests".
pub const PROPOSE_QUEUE_MAX: usize = 16_384;

/// Bytes of records that are applied and not yet in LMDB. While the tail is full, apply waits for
/// the committer; one entry that is larger by itself is admitted.
pub const TAIL_BYTES_MAX: usize = 64 << 20;
/// Operations after which the committer commits without waiting for its interval.
pub const COMMIT_OPS_MAX: usize = 10_000;
/// Bytes after which the committer commits without waiting for its interval.
pub const COMMIT_BYTES_MAX: usize = 16 << 20;
/// How long applied entries may wait for their commit to LMDB: etcd's backend batch interval. The
/// log holds them meanwhile. A commit costs two syncs and rewrites the pages on the path to each
/// row it changes, so entries that share one commit are much cheaper than entries with one each.
pub const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// Rows that one commit deletes for compaction. Most pages of the deleted rows become free and need
/// not be written, so a few large commits take less of the disk from the log than many small ones.
pub const COMPACTION_ROWS_MAX: usize = 10_000;
/// As `COMPACTION_ROWS_MAX`, after such a commit has found the disk full. Each deleted row may cost
/// one page of 4 KiB, so a commit needs at most a quarter of a megabyte.
pub const COMPACTION_ROWS_FULL_DISK: usize = 64;
/// Rows newer than the index checkpoint from which on it is written anew. A start reads these rows
/// beside the checkpoint: a tenth of a second.
pub const CHECKPOINT_ROWS: u64 = 50_000;
/// Shortest time between two index checkpoints: 1M keys make a file of 30 MB. With a busy writer, a
/// start also reads the rows of up to this long.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);
/// Rest after each piece of an index checkpoint, which keeps it to a tenth of one processor.
pub const CHECKPOINT_PAUSE: Duration = Duration::from_millis(1);
/// Bytes of an index checkpoint that are written while the index lock is held; one larger key is
/// admitted.
pub const CHECKPOINT_STEP_BYTES: usize = 256 << 10;
/// Bytes of an index checkpoint between two syncs of its file: a sync of the whole file would delay
/// those of the log.
pub const CHECKPOINT_SYNC_BYTES: usize = 4 << 20;
/// Keys that a read visits each time that it holds the index lock, so that apply, which needs the
/// lock for each entry, waits only briefly.
pub const INDEX_HOLD_KEYS_MAX: usize = 1000;
/// Keys that compaction visits while it holds the index lock (a third of a millisecond), and its
/// rest after each such piece. Apply needs the lock for each entry, so it must be free most of the
/// time: with 1000 keys and no rest, the 99th percentile of puts was 50 ms.
pub const INDEX_COMPACT_KEYS_MAX: usize = 250;
pub const INDEX_COMPACT_REST: Duration = Duration::from_millis(1);
/// Rows that are sorted by key before they go into the index, at a start and when a snapshot is
/// installed. With so many, each leaf of a large index gets several rows at once; they take 40 MiB.
pub const INDEX_BULK_ROWS_MAX: usize = 512 << 10;
/// Bytes of the keys of these rows. The bulk is full once they are reached, so its last key may
/// exceed them.
pub const INDEX_BULK_KEY_BYTES: usize = 32 << 20;
/// Rows that are read from LMDB within one read transaction: while it lasts, the writer cannot
/// reuse the pages that were freed since it began.
pub const READ_CHUNK_ROWS: usize = 1000;
/// Bytes read from LMDB within one read transaction; one larger record is admitted.
pub const READ_CHUNK_BYTES: usize = 4 << 20;
/// Longest page of keys (`limit` of a range) that is read on a thread that serves connections;
/// longer ranges are read on a blocking thread.
pub const INLINE_RANGE_KEYS_MAX: i64 = 128;
/// Times that the index lock is held (`INDEX_HOLD_KEYS_MAX` keys each) for a short page or a count
/// on a thread that serves connections: half a millisecond in all. A read that needs more is begun
/// again on a blocking thread.
pub const INLINE_INDEX_HOLDS_MAX: usize = 4;
/// As `INLINE_INDEX_HOLDS_MAX`, for all reads of a transaction together: 32 holds take four
/// milliseconds. A transaction that needs more is read on another thread, and one that writes is
/// measured there before it is proposed.
pub const INLINE_TXN_INDEX_HOLDS_MAX: usize = 32;
/// Bytes of pairs that are read on a thread that serves connections; a page with more is read on a
/// blocking thread.
pub const INLINE_RANGE_BYTES_MAX: usize = 1 << 20;
/// Replies of physical compactions, which wait for their sweep. Above this number, those whose
/// callers have gone away are dropped; the others stay, since each has a caller.
pub const SWEEP_ANSWERS_MAX: usize = 1024;
/// Rest after a step of a sweep failed, before it is tried again.
pub const SWEEP_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Batches of committed entries that apply holds and has not reported as applied.
pub const APPLY_QUEUE_BATCHES_MAX: usize = 64;
/// Records larger than this are stored in chunks: as one value, LMDB would need that many
/// contiguous free pages.
pub const RECORD_INLINE_BYTES_MAX: usize = 8 << 10;
/// Values up to this size certainly share a page with others; somewhat larger ones have pages of
/// their own in LMDB.
pub const LMDB_SHARED_PAGE_BYTES_MAX: usize = 1900;
/// Bytes of a record in one chunk: with its key and headers, a chunk fits one page of LMDB.
pub const RECORD_CHUNK_BYTES: usize = 4000;
/// Address space that LMDB's map reserves. It is never resized, since that would need all
/// transactions to end first, and costs no memory.
pub const MAP_BYTES: usize = 1 << 40;
/// Slots for LMDB's read transactions: as many may be open at a time, on any threads.
pub const READERS_MAX: u32 = 2048;
/// Disk space held back in a file, which is given up when the disk is full so that deletes and
/// compaction can still commit.
pub const RESERVE_BYTES: u64 = 64 << 20;
/// The reserve takes at most this fraction (1/16) of its file system.
pub const RESERVE_DISK_PARTS: u64 = 16;
/// Time from giving up the reserve to taking it again. Without it, each commit on a full disk would
/// fail once before it gets the space; with a longer time, other programs use the space up.
pub const RESERVE_RETAKE_REST: Duration = Duration::from_secs(1);
/// For how many looks at the room, one with each commit, a proposal that found none counts as wanted,
/// so that the log makes room for it: a minute of writing.
pub const REFUSED_LOOKS: u32 = 600;
/// Shortest time between two log lines that say that the disk is full: the commit is tried each
/// second.
pub const FULL_DISK_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Bytes of disk that are reckoned for each byte of a record: a record slightly larger than a page
/// has two pages for itself, and each commit writes the pages on the path to its rows anew.
pub const STORE_BYTES_PER_BYTE: u64 = 2;
/// LMDB files up to this size are checked down to their leaf pages when they are opened, which
/// takes about 0.1 s. In larger files, the leaf pages of the two tables of rows are left out.
pub const OPEN_CHECK_BYTES_MAX: u64 = 256 << 20;
/// Bytes of the store's file that the quota does not count: what a store without keys takes beyond
/// an etcd's, for its tables and for the pages between two commits. A quota that is just enough for
/// etcd would be exceeded for good without that.
pub const QUOTA_FREE_BYTES: u64 = 60 << 10;
/// Size of the store at which NOSPACE is raised: etcd's default of `--quota-backend-bytes`.
pub const QUOTA_BYTES: i64 = 2 << 30;

/// Size of a segment of the log: etcd's.
pub const SEGMENT_BYTES: u64 = 64_000_000;
/// Events that the raft loop takes from its inbox in one turn.
pub const RAFT_EVENTS_MAX: usize = 4096;
/// Bytes of proposals that the raft loop takes in one turn.
pub const RAFT_BATCH_BYTES_MAX: usize = 1 << 20;
/// Bytes of recent log entries that stay in memory for apply and for followers; older ones are read
/// from their segments.
pub const LOG_CACHE_BYTES_MAX: usize = 64 << 20;

/// Revisions in one response to a lagging watcher, etcd's `watchBatchMaxRevs`; one revision is
/// never split.
pub const WATCH_CATCH_UP_REVISIONS_MAX: usize = 1000;
/// Responses that are queued for one watch stream; when there are more, its watchers become
/// lagging.
pub const WATCH_STREAM_RESPONSES_MAX: usize = 128;
/// Bytes of events that are queued for one watch stream; one larger response is admitted.
pub const WATCH_STREAM_BYTES_MAX: usize = 2 << 20;
/// Bytes of history that are read at once for the lagging watchers of one stream, previous pairs
/// included; one larger transaction is admitted. A stream whose client does not read costs as much.
pub const WATCH_CATCH_UP_BYTES: usize = 256 << 10;
/// Bytes of one large transaction after which the previous pairs of its further events are not read
/// with the history, but when the response is made: a stream whose client takes nothing keeps its
/// piece of history.
pub const WATCH_HISTORY_PREVIOUS_BYTES: usize = 1 << 20;
/// Bytes of previous pairs that are read for a response in a turn for history. The previous pairs of
/// a response with more are read for one response at a time.
pub const WATCH_PREVIOUS_BYTES: usize = 8 << 20;
/// Bytes of previous pairs that the consumer of a watch stream reads itself, on the thread that serves
/// its connection: the size of a large value.
pub const WATCH_PREVIOUS_INLINE_BYTES: usize = 1 << 20;
/// Bytes of events that wait in all watch streams of a member. Above it, a stream takes only small
/// events, and only into an empty queue; its watchers become lagging and read the events from the
/// store later. Above half of it, streams read history in pieces of `WATCH_SMALL_BYTES`.
pub const WATCH_BYTES_MAX: usize = 128 << 20;
/// Bytes of history that a stream reads at once while all watch streams hold more than half of
/// `WATCH_BYTES_MAX`, and the largest events that enter an empty queue while they hold all of it.
pub const WATCH_SMALL_BYTES: usize = 16 << 10;
/// Watchers of a stream that has ended which are removed while the hub's lock is held once: apply
/// needs the lock to publish.
pub const WATCHERS_REMOVED_AT_ONCE: usize = 1000;
/// Watch streams that read history at the same time, each on a blocking thread.
pub const CATCH_UPS_RUNNING_MAX: usize = 2;
/// Bytes of history and of previous pairs that were read in these turns and whose streams have not
/// come for them, since their clients take nothing. The largest read does not count. Above it, what
/// was read first is dropped, and read again if its stream comes.
pub const CATCH_UPS_UNCLAIMED_BYTES_MAX: usize = 32 << 20;
/// Changes, times the watchers that may want them, which the consumer of a watch stream goes through
/// itself, on the thread that serves its connection: some milliseconds.
pub const WATCH_CHECKS_INLINE_MAX: usize = 20_000;
/// Lagging watchers of one stream that share one read of history.
pub const CATCH_UP_WATCHERS_MAX: usize = 512;
/// Time between two progress notifications of a watcher: etcd's default.
pub const WATCH_PROGRESS_INTERVAL: Duration = Duration::from_secs(600);
/// Shortest progress interval that the flag may ask for: etcd's.
pub const WATCH_PROGRESS_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Watchers on one stream; above it, a create request is refused.
pub const WATCHERS_PER_STREAM_MAX: usize = 1 << 20;

/// Longest TTL of a lease: etcd's `MaxLeaseTTL`.
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;
/// Expired leases that the leader revokes in a second: etcd's `leaseRevokeRate`.
pub const LEASE_REVOKES_PER_SECOND: usize = 1000;
/// Time between two notes in the log of how long a lease has left, so that a new leader need not
/// begin its whole TTL anew: etcd's.
pub const LEASE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
/// Leases whose remaining time is noted with one entry: etcd's.
pub const LEASE_CHECKPOINT_LEASES_MAX: usize = 1000;
/// Revokes of expired leases that are proposed at the same time: etcd's `maxPendingRevokes`.
pub const LEASE_REVOKES_PENDING_MAX: usize = 16;
/// Hashes of past compactions that are kept to answer HashKV: etcd's.
pub const COMPACTION_HASHES_KEPT: usize = 10;

/// Client API versions that a metric counts apart. A client chooses this label, so all further ones
/// are counted as `other`.
pub const CLIENT_VERSIONS_MAX: usize = 32;

/// Threads of which a scrape reads the processor time. tokio's blocking threads, which a flood of long reads
/// makes many, may be 512; two small files each take some microseconds to read.
pub const METRIC_THREADS_MAX: usize = 1024;
/// Series of `etcd_debugging_server_alarms`: more than the alarms of any cluster that exists. Clients
/// choose the member id of an alarm.
pub const ALARM_SERIES_MAX: usize = 64;
/// Rows in the first piece of a range stream: etcd's.
pub const STREAM_CHUNK_ROWS: i64 = 10;
/// Pause between two batches of a compaction: etcd's default.
pub const COMPACTION_PAUSE: Duration = Duration::from_millis(10);

/// Open files that client connections leave to the store, the log and peers: etcd's
/// `reservedInternalFDNum`.
pub const DESCRIPTORS_RESERVED: u64 = 150;
/// How long a new connection may take to send enough to tell its protocol. Without it, silent
/// connections would hold descriptors for ever.
pub const PREFACE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an HTTP/1.1 connection may take for the header of a request, and may be idle between
/// two requests.
pub const HTTP_HEADER_TIMEOUT: Duration = Duration::from_secs(120);
/// Connections that may wait to be accepted. Go, and so etcd, asks for `net.core.somaxconn`, whose
/// default is this number; the kernel grants at most that. Above it a client's SYN is dropped and
/// repeated after a second.
pub const LISTEN_BACKLOG: i32 = 4096;
/// Bytes that are read ahead from an HTTP/1.1 client while a stream is answered, to see whether it
/// hangs up.
pub const LINE_AHEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes of the head of an HTTP/1.1 request: Go's bound and the buffer that it adds.
pub const HTTP1_HEAD_BYTES_MAX: usize = (1 << 20) + 4096;
/// Header lines that reach hyper: as many as it reads without allocating for them.
pub const HTTP1_HEAD_LINES_MAX: usize = 100;
/// A longer head reaches hyper only with the headers that something looks at, so that what nobody
/// looks at takes no memory beside an answer that lasts.
pub const HTTP1_HEAD_TRIMMED_BYTES: usize = 16 << 10;
/// Bytes of a head that reaches hyper, in which tokens are the largest part.
pub const HTTP1_HEAD_PASSED_BYTES_MAX: usize = 64 << 10;
/// hyper's buffer for one connection: hyper refuses a head that fills it, and more than a head may
/// be in it.
pub const HTTP1_BUFFER_BYTES_MAX: usize = 128 << 10;
/// Bytes of a path and query: the `http` crate takes no more than 65,534.
pub const HTTP1_TARGET_BYTES_MAX: usize = 60_000;
/// Bytes of the first line by which etcd's multiplexer tells HTTP/1 from other protocols.
pub const HTTP1_LINE_SNIFFED_BYTES_MAX: usize = 4096;
/// How long a client is read after its request was refused: Go's time.
pub const REFUSED_PATIENCE: Duration = Duration::from_millis(500);
/// Bytes of a line between two chunks, of all lines behind the last, and of what is no data above
/// what an honest client sends: Go's.
pub const CHUNK_LINE_BYTES_MAX: usize = 4096;
pub const TRAILER_BYTES_MAX: usize = 4096;
pub const CHUNK_EXCESS_BYTES_MAX: u64 = 16 << 10;
/// How long a WebSocket's close frame may take to be sent.
pub const WEBSOCKET_CLOSE_PATIENCE: Duration = Duration::from_secs(1);
/// Bytes that are read from a WebSocket at once: an idle one keeps as many.
pub const WEBSOCKET_READ_BYTES: usize = 4 << 10;
/// How long a call of the JSON gateway goes on after its client hung up: longer than any call takes
/// that does not wait for other clients.
pub const GATEWAY_GONE_PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of the largest JSON document that is read where it arrives, and of the largest message of a
/// stream that is written as JSON where it is sent. Either takes less than a millisecond. Larger ones
/// take turns on other threads.
pub const GATEWAY_SMALL_BYTES: usize = 16 << 10;
/// Bytes of larger JSON documents that may wait for their turn: about half a second's work. Those
/// beyond are read where they arrive.
pub const GATEWAY_WAITING_BYTES_MAX: usize = 16 << 20;
/// Documents of the largest size that may wait in any case, if `--max-request-bytes` makes them larger
/// than usual.
pub const GATEWAY_WAITING_DOCUMENTS_MIN: usize = 4;
/// Bytes of a large JSON answer that are written at a time.
pub const GATEWAY_PIECE_BYTES: usize = 64 << 10;
/// Bytes of a request body that no handler reads, which are read before the answer is sent. Go
/// reads as much after its handler.
pub const HTTP_BODY_BYTES_MAX: usize = 256 << 10;
/// Scrapes of `/metrics` that are written at a time. Each takes some milliseconds, so that many at
/// once would hold up all other calls.
pub const SCRAPES_MAX: usize = 1;
/// How long reading such a body may take; after that the answer is sent without it.
pub const HTTP_BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of the headers of one HTTP/2 request. Auth tokens are the largest of them.
pub const HEADER_BYTES_MAX: u32 = 64 << 10;
/// Size of the HPACK table that a client may use: a little less than h2's, 4096 bytes.
/// `server/hpack.rs` replaces some empty values by one byte, which makes the entry longer in h2's
/// table; h2 must not drop an entry that the client still refers to.
pub const HEADER_TABLE_BYTES: u32 = 3968;
/// HTTP/2 flow control window of a client's stream: request bytes that may be sent and not read
/// yet.
pub const STREAM_WINDOW_BYTES: u32 = 256 << 10;
/// HTTP/2 flow control window of a client's connection: request bytes that it costs at most while
/// nothing of it is read. h2 derives a budget for small unread DATA frames from it, counting half
/// of the window at 256 bytes a frame, less the frame's payload, and closes the connection above
/// that. A stream full of lease renewals, 15 bytes each, needs a window of 4 MiB if each has a
/// frame of its own.
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// Streams that the client reset before h2 handed them over; above it h2 closes the connection. A
/// client that cancels each call at once stays below it, since h2 hands all streams over after each
/// `FRAMES_PER_TURN_MAX`. One that resets each call twice exceeds it after as many calls.
pub const RESET_STREAMS_MAX: usize = 1024;
/// Frames of one connection that are read before its task yields and h2 hands over the requests
/// that it has. One read of 8 KiB can hold 900 frames, and a thread runs `TASKS_BETWEEN_POLLS`
/// tasks between two looks at its sockets. Without this bound, a burst of calls and cancellations
/// in one read would also exceed `RESET_STREAMS_MAX`.
pub const FRAMES_PER_TURN_MAX: u32 = 32;
/// Messages of one response stream that are sent before its task yields. A client that sends
/// without waiting for answers would otherwise get a hundred at once, which takes the thread about
/// a millisecond.
pub const ANSWERS_PER_TURN_MAX: u32 = 16;
/// A frame of a stream's answer takes no further message once it has so many bytes.
pub const JOINED_MESSAGES_BYTES: usize = 32 << 10;
/// Streams whose consumers a delivery wakes at once; the others are woken as many at a time.
pub const WATCH_WAKES_AT_ONCE: usize = 16;
/// Tasks that a thread runs before it polls its sockets (tokio's `event_interval`). A poll takes
/// less than a microsecond and a task up to a hundred. With tokio's default of 61, a short call
/// could wait for six milliseconds before its arrival was noticed.
pub const TASKS_BETWEEN_POLLS: u32 = 16;
/// Every so many tasks that a thread runs, one is taken from those that other threads have woken
/// (tokio's `global_queue_interval`): calls that apply has answered, among others. With tokio's
/// default, up to 127, a client that sends calls without awaiting their answers begins many for
/// each one that ends, and those in flight grow to gigabytes.
pub const TASKS_BETWEEN_WOKEN: u32 = 2;
/// A frame uses up one more of `FRAMES_PER_TURN_MAX` for each of these bytes in it. A connection so
/// reads some 60 KiB before it yields, which takes some tens of microseconds. With half a megabyte,
/// sixty clients that send as fast as they can delayed all others by tens of milliseconds.
pub const BYTES_PER_EXTRA_FRAME: usize = 2 << 10;
/// Streams that h2 may reset over a client's protocol errors in the life of a connection; None is
/// no bound. DATA that crosses an early answer counts as such an error, so h2's default of 1024
/// closes a connection that has lived for weeks and did nothing wrong.
pub const ERROR_RESETS_MAX: Option<usize> = None;
/// Requests of one connection that h2 has handed over and whose tasks have not run yet; above it
/// the connection is not read. Without it, requests pile up: the connection's task may be woken
/// again before those of its requests.
pub const REQUESTS_QUEUED_MAX: usize = 64;
/// Bytes that are read from a client while its socket takes no answers. A call may have 12 bytes,
/// and its answer, with stream and headers, some kilobytes.
pub const BLOCKED_READ_BYTES_MAX: usize = 16 << 10;
/// Bytes of answers, beside the largest, that one connection may hold; above it no further call on
/// it is begun. A page of keys of the default size is smaller.
pub const CONNECTION_UNSENT_BYTES_MAX: usize = 64 << 20;
/// Bytes of answers that a connection may always hold, however small its equal share of
/// `UNSENT_BYTES_MAX` is: the answers of one turn of its task.
pub const CONNECTION_UNSENT_BYTES_MIN: usize = 256 << 10;
/// Bytes of answers that all connections together may hold. Above it, long ranges are built one at
/// a time, and each connection may hold no more than an equal share.
pub const UNSENT_BYTES_MAX: usize = 256 << 20;
/// Bytes of unsent answers of all connections above which no long range is begun. It is twice
/// `UNSENT_BYTES_MAX`, so that a slow reader of one answer of 256 MiB does not stop all other long
/// ranges.
pub const UNSENT_BYTES_FULL: usize = 512 << 20;
/// Largest answer that counts as short while unsent answers exceed `UNSENT_BYTES_MAX`. Calls with
/// short answers need no turn, and a client may make thousands of them at once.
pub const CROWDED_RANGE_BYTES_MAX: usize = 64 << 10;
/// Bytes that answers about leases and watches may hold on a connection that has reached its bound
/// for other answers. A renewal must not wait behind a range; its answer has some 50 bytes.
pub const SMALL_UNSENT_BYTES_MAX: usize = 1 << 20;
/// Memory that is reckoned for an answer beside its message: its frames, headers, stream and task,
/// which lives until the answer has left. Measured with 240,000 answers to puts.
pub const UNSENT_ANSWER_BYTES: usize = 3 << 10;
/// As `UNSENT_ANSWER_BYTES`, for leases and watches, most of whose messages share one stream.
pub const SMALL_UNSENT_ANSWER_BYTES: usize = 1 << 10;
/// Calls that may wait on one connection until it holds fewer answers; more get "too many
/// requests".
pub const CALLS_WAITING_MAX: usize = 1024;
/// How long a long read keeps its processor while others wait for one.
pub const READ_SLICE: Duration = Duration::from_millis(2);
/// How long no turn may begin before the first long read in line takes the place of the one that
/// has held a processor longest: the disk of that one may stand still.
pub const READ_STANDSTILL_MAX: Duration = Duration::from_millis(50);
/// Long ranges that are built at the same time, and as many writes with long answers: each holds
/// its rows and its encoded message.
pub const LONG_ANSWERS_MAX: usize = 4;
/// Calls that wait for one of these turns, each for as long as a request may take; more get "too
/// many requests". Each is a stream and a task of some kilobytes.
pub const LONG_ANSWERS_WAITING_MAX: usize = 4096;
/// Length up to which the answer to a range is made as a whole, from one pass over its rows. A
/// longer one is measured first and then read in pieces, which costs a second search for each row.
/// While unsent answers exceed `UNSENT_BYTES_MAX`, it is `CROWDED_RANGE_BYTES_MAX`.
pub const ANSWER_WHOLE_BYTES_MAX: usize = 4 << 20;
/// Bytes of the first piece of a longer answer. Each piece has twice as many as the one before, up
/// to `ANSWER_PIECE_BYTES_MAX`: a client that opens no window costs the first two, one that opens it
/// and does not read its socket four, and for one that takes all, the two changes of threads for
/// each piece cost little.
pub const ANSWER_PIECE_BYTES_MIN: usize = 64 << 10;
pub const ANSWER_PIECE_BYTES_MAX: usize = 256 << 10;
/// Pieces that are read at the same time. Each takes a fraction of a millisecond, and waits for no
/// client.
pub const ANSWER_PIECES_READ_MAX: usize = 4;
/// How long a sweep waits for an answer that is read in pieces. After that it ends with an error, and
/// what the compaction has doomed is deleted. A client that takes 4 MiB a second gets 240 MiB in
/// that time, also if a compaction comes right after its request.
pub const ANSWER_HOLD_MAX: Duration = Duration::from_secs(60);
/// The same while NOSPACE is raised: then all writers wait for what the sweep deletes.
pub const ANSWER_HOLD_WITHOUT_SPACE: Duration = Duration::from_secs(5);
/// Bytes of messages of one connection that have arrived in part: two dozen of the largest requests
/// by default. Above it, partial messages that have received nothing for `UNFINISHED_OLD` are given
/// up; if as many bytes again are given up and not yet dropped, the connection is closed.
pub const CONNECTION_UNFINISHED_BYTES_MAX: usize = 32 << 20;
/// As `CONNECTION_UNFINISHED_BYTES_MAX`, for all connections together, whether logged in or not;
/// above it the connection that holds most is closed.
pub const UNFINISHED_BYTES_MAX: usize = 128 << 20;
/// Messages of the largest size that fit into a connection's budget of unfinished bytes, even if
/// `--max-request-bytes` makes them larger than usual; twice as many fit into the member's budget.
pub const UNFINISHED_MESSAGES_MIN: usize = 4;
/// A partial message is old once nothing of it has arrived for this long: a client that sends a
/// hundred large requests at a time on a busy machine returns to each of them sooner.
pub const UNFINISHED_OLD: Duration = Duration::from_secs(5);
/// Divisor of the member's budget by which its partial messages may exceed it before the oldest is
/// given up whatever its age. With it, partial messages and those given up but not yet dropped stay
/// within twice the budget.
pub const UNFINISHED_EXCESS_PART: usize = 2;
/// Bytes of requests of all connections that have arrived and that no call has read: as many as
/// eight full connections hold, or thousands of clients whose requests are read a moment later.
/// Above it, a connection that holds more than half of an equal share is read only once per look.
pub const UNREAD_BYTES_MAX: usize = 128 << 20;
/// Lower bound of the half share of `UNREAD_BYTES_MAX`, however many connections there are: twice
/// the largest frame.
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
/// Looks without progress after which a connection may be closed. It has made no progress if, since
/// the look before, less than a frame was read of its requests, and not all that was there, and if
/// its client took less than a frame of answers.
pub const UNREAD_LOOKS_MAX: u32 = 2;
/// Looks in a row for which a connection whose requests are not read is kept because its client
/// takes answers. Requests unread for longer are taken to stay unread.
pub const UNREAD_LOOKS_TAKING_MAX: u32 = 60;
/// Looks without progress are counted up to this number: of the connections that have reached it,
/// the one that holds most is closed first.
pub const UNREAD_LOOKS_COUNTED_MAX: u32 = 10;
/// Streams of a connection that the server has reset and whose DATA must not count as unread. DATA
/// may arrive for one round trip after the reset, in which a client hardly begins as many calls
/// that end early.
pub const RESETS_REMEMBERED_MAX: usize = 64;
/// Slow counts that run at the same time: each visits keys under the index lock, which apply needs.
/// Up to `COUNTS_WAITING_MAX` more wait, each for as long as a request may take.
pub const COUNTS_RUNNING_MAX: usize = 4;
pub const COUNTS_WAITING_MAX: usize = 4096;
/// Writes whose answers are measured at the same time, if that takes more than a page does. Each
/// reads up to a short answer's bytes, in small pieces. Up to `MEASURES_WAITING_MAX` more wait,
/// each for as long as a request may take.
pub const MEASURES_RUNNING_MAX: usize = 4;
pub const MEASURES_WAITING_MAX: usize = 4096;
/// Time between two looks at the connections for those that hold too much.
pub const UNSENT_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Looks in a row that find that a client took nothing. Then its connection is closed if it holds
/// more than its part of the unsent answers, or is so blocked that nothing more is read from it.
pub const UNSENT_LOOKS_MAX: u32 = 30;
/// As `UNSENT_LOOKS_MAX`, while all connections together hold more than `UNSENT_BYTES_MAX`.
pub const UNSENT_LOOKS_CROWDED_MAX: u32 = 2;
/// Bytes that a client must take between two looks, or it counts as taking nothing: the size of one
/// frame.
pub const UNSENT_PROGRESS_BYTES: usize = 16 << 10;
/// While a call waits for room, a client must take 1/60 of what its connection holds between two
/// looks of a second, so that it holds up other clients for at most a minute.
pub const UNSENT_PROGRESS_PARTS: usize = 60;
/// Free memory is given back to the system once more bytes than this were held and three quarters
/// of them are gone. `GIVE_BACK_FREE_BYTES_MIN` are enough if the process has grown by more than
/// this.
pub const GIVE_BACK_UNSENT_BYTES_MIN: usize = 64 << 20;
/// As `GIVE_BACK_UNSENT_BYTES_MIN`, for the number of connections and of calls at a time, each of
/// which takes some kilobytes beside its messages. Memory is then given back only if the process
/// has also grown by more than `GIVE_BACK_FREE_BYTES_MIN`, since otherwise little can be free.
pub const GIVE_BACK_CONNECTIONS_MIN: usize = 50;
pub const GIVE_BACK_CALLS_MIN: usize = 500;
pub const GIVE_BACK_FREE_BYTES_MIN: usize = 8 << 20;
/// Free memory is given back in the middle of a flood, too, once the process has grown by so many bytes
/// more than are counted: answers of different sizes that come and go leave holes between each other.
pub const GIVE_BACK_HOLES_BYTES_MIN: usize = 256 << 20;
/// Shortest time between two times that memory is given back: each locks the allocator for some
/// milliseconds.
pub const GIVE_BACK_INTERVAL: Duration = Duration::from_secs(5);
/// HTTP/2 pings that may come too early before a connection ends with GOAWAY "too_many_pings":
/// grpc-go's.
pub const PING_STRIKES_MAX: u32 = 2;
/// How long a stop waits for answers that are under way.
pub const SHUTDOWN_GRACE: Duration = Duration::from_millis(500);
/// How long a member that cannot go on waits for its connections to tell their clients.
pub const FAILURE_GRACE: Duration = Duration::from_millis(200);
/// How long a stop waits for the node to commit what is sealed and to write its checkpoint; what is
/// missing after that is replayed from the log at the next start.
pub const NODE_STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a message to the service manager waits for room in its socket.
pub const NOTIFY_TIMEOUT: Duration = Duration::from_secs(5);
/// How much longer a start may take with each message that asks for it, and the pause between them:
/// two of three may be late.
pub const START_EXTENSION: Duration = Duration::from_secs(30);
pub const START_EXTENSION_PAUSE: Duration = Duration::from_secs(10);
/// Shortest pause between signs of life, for a unit whose watchdog waits for microseconds.
pub const WATCHDOG_INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Pause after a failed accept, which mostly means that the process has no descriptor left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time before the first TCP keepalive probe and between two probes: etcd's.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// A segment takes at most this fraction (1/16) of its file system: with two segments in use, the
/// prepared one and one about to be removed, the log takes a quarter of a small disk.
pub const LOG_SEGMENT_DISK_PARTS: u64 = 16;
/// Smallest segment: it holds two of the largest requests.
pub const LOG_SEGMENT_BYTES_MIN: u64 = 4 << 20;
/// The size of a segment that is smaller than usual, for want of room, is a multiple of this.
pub const LOG_SEGMENT_STEP_BYTES: u64 = 64 << 10;
/// An entry larger than this fraction (1/8) of a segment counts twice when the log is asked for
/// room, since up to its own size may be left unused at the end of the segment before it. A smaller
/// entry leaves less than 1/8 unused.
pub const LOG_LARGE_ENTRY_PARTS: u64 = 8;
/// Bytes of a segment that are kept for records without entries, which must be written on a full
/// disk, too. They hold over a thousand hard states (votes); a quarter of them is for the records
/// that let older segments be removed.
pub const LOG_SLACK_BYTES: u64 = 64 << 10;
/// Time between two looks at who leads, who is missing and how much of the quota is left.
pub const OUTLOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A peer that was not connected for so long is said to be unreachable: a connection that broke is
/// made again within a second.
pub const PEER_MISSED_AFTER: Duration = Duration::from_secs(3);
/// A leader that was not known for so long is said to be lost: one that hands over is followed at
/// once.
pub const LEADER_MISSED_AFTER: Duration = Duration::from_millis(500);
/// Parts of the quota, in percent, whose use is warned of.
pub const SPACE_MARKS_PERCENT: [u64; 2] = [80, 95];
/// Certificates are warned of that end in fewer days.
pub const CERTIFICATE_DAYS_LEFT_MIN: i64 = 30;
/// How often that is.
pub const CERTIFICATE_LOOK_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Open files of other processes that are looked at to find who listens on a port: some ten thousand
/// take a fraction of a second.
pub const PROC_LOOKS_MAX: usize = 200_000;
/// Lines of one message that the server's log has in `LOG_REPEATS_WINDOW`, under the name rusd; more
/// of them are counted, and one line says how many there were.
pub const LOG_REPEATS_PASSED: u64 = 10;
pub const LOG_REPEATS_WINDOW: Duration = Duration::from_secs(60);
/// The same for slow syncs, of which one is written.
pub const LOG_SLOW_SYNC_WINDOW: Duration = Duration::from_secs(10);
/// The same for slow requests: so many are written in `LOG_REPEATS_WINDOW`.
pub const LOG_SLOW_REQUESTS_PASSED: u64 = 100;
/// Messages whose repeats are counted at a time.
pub const LOG_REPEATS_PLACES: usize = 256;
/// How long a line of the server's log waits for a pipe, a socket or a terminal to take it: half of
/// an election timeout, since all threads that log wait for it.
pub const LOG_WRITE_MAX: Duration = Duration::from_millis(500);
/// A line that waited longer than this was taken late: whoever reads the log is slow.
pub const LOG_WRITE_LATE: Duration = Duration::from_millis(100);
/// For how long after a late line no line waits. What is not taken at once is lost meanwhile.
pub const LOG_WRITE_REST: Duration = Duration::from_secs(1);
/// The pause before a line is offered again to a terminal that says it is ready and takes nothing.
pub const LOG_WRITE_RETRY: Duration = Duration::from_millis(10);
/// How long a member that has to stop waits for the line with the reason to be written: the log may
/// be a file on the disk that has failed. Its raft goes on for that long.
pub const LAST_LINE_MAX: Duration = Duration::from_secs(1);
/// A write of the log that takes longer is logged as slow while it lasts. etcd uses the same time
/// for writes that have ended.
pub const LOG_STALL_WARN_AFTER: Duration = Duration::from_secs(1);
/// Time between two looks whether a write of the log is slow.
pub const LOG_STALL_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Pause between two attempts to create the next segment while the disk has no room for it.
pub const LOG_ROOM_RETRY: Duration = Duration::from_millis(200);
/// Zeros that are written ahead of the log's end: some seconds of writing. A sync of the log then
/// writes no file metadata.
pub const LOG_FILL_AHEAD_BYTES: u64 = 8 << 20;
/// How long zeros are not written after the log was opened. Their syncs would take turns with those
/// for which a member waits that is about to serve.
pub const LOG_FILL_REST: Duration = Duration::from_millis(300);
/// Zeros that are written and synced at once: larger pieces would delay the log's own syncs.
pub const LOG_FILL_CHUNK_BYTES: usize = 1 << 20;
/// Longest record of the log that is accepted as such; a longer one is damage. The default of
/// `--max-request-bytes` is 85 times smaller.
pub const LOG_RECORD_BYTES_MAX: u64 = 128 << 20;
/// Upper bound of the checksum, metadata and hard state at the head of a segment.
pub const LOG_SEGMENT_HEAD_BYTES: u64 = 128;
/// Segments that are kept for members that were away, half a gigabyte: sending entries is cheaper
/// than a snapshot.
pub const LOG_SEGMENTS_FOR_PEERS: u32 = 8;
/// Capacity to which the log writer's buffer shrinks after a larger batch.
pub const LOG_BUFFER_BYTES_KEPT: usize = 4 << 20;
/// How long an offline command waits while its node applies no further entry of the log. A sole
/// voter needs an election before the first, which takes some seconds on a disk that is slow to
/// sync.
pub const SETTLE_STALL: Duration = Duration::from_secs(60);
/// Bytes that are read at once when old entries are fetched from a segment.
pub const LOG_READ_BYTES: u64 = 1 << 20;

/// Jobs that the log writer has and has not yet reported durable. Above it the raft loop takes no
/// new proposals, so that it never has to wait for the writer.
pub const LOG_JOBS_MAX: usize = 256;
/// A sole voter writes batches of up to this many entries and bytes within the raft loop. Proposals
/// that arrive during such a write make the next batch larger, and a large batch goes to the log
/// writer.
pub const LOG_INLINE_ENTRIES_MAX: usize = 16;
pub const LOG_INLINE_BYTES_MAX: usize = 64 << 10;
/// A follower with a quick disk writes batches of up to this size within the raft loop: it has
/// little else to do there.
pub const LOG_INLINE_FOLLOWER_ENTRIES_MAX: usize = 256;
pub const LOG_INLINE_FOLLOWER_BYTES_MAX: usize = 256 << 10;
/// A disk is quick if its syncs take less than this on average. A proposal that the follower
/// forwards may wait for one of them.
pub const LOG_INLINE_SYNC_MAX: Duration = Duration::from_millis(2);
/// Proposals that must wait in the inbox before the raft loop takes them while the log writer is
/// busy. A smaller batch would only queue behind the running write; its proposals rather join those
/// that come meanwhile.
pub const PROPOSALS_PER_BATCH_MIN: usize = 128;
/// Messages of other members that may wait for the raft loop. Above it they are dropped; raft
/// repeats those that matter.
pub const RAFT_MESSAGES_MAX: usize = 4096;
/// Reads that may wait for the raft loop; above it the caller gets "too many requests".
pub const RAFT_READS_MAX: usize = 65_536;
/// Configuration changes that may wait for the one before them; more are dropped. etcd admits one
/// at a time.
pub const CONF_CHANGES_WAITING_MAX: usize = 16;
/// Read index requests of other members that a new leader holds until it has committed an entry of
/// its term (Raft, section 6.4 of the dissertation). More are dropped; the members ask again.
pub const FORWARDED_READS_MAX: usize = 1024;
/// How long a read index may take before it is requested again with a new context: etcd's.
pub const READ_INDEX_RETRY: Duration = Duration::from_millis(500);
/// Bytes and entries of one batch for apply, which publishes, answers and reports once for each
/// batch.
pub const APPLY_BATCH_BYTES_MAX: u64 = 4 << 20;
pub const APPLY_BATCH_ENTRIES_MAX: u64 = 1024;
/// Bytes of pairs in the answers to the entries of one batch. Once they are reached, the answers so
/// far are given before the batch goes on: a transaction of a few bytes may answer with all keys.
pub const APPLY_ANSWER_BYTES_MAX: usize = 8 << 20;
/// Bytes of the batches that apply holds; the batch that exceeds them is admitted. Further
/// committed entries stay in the log until apply has reported some batches as applied.
pub const APPLY_HELD_BYTES_MAX: u64 = 16 << 20;
/// Bytes of uncommitted entries that a leader holds; above it, it drops proposals.
pub const RAFT_UNCOMMITTED_BYTES_MAX: u64 = 256 << 20;
/// Bytes of entries in one message to a member: etcd's `maxSizePerMsg`.
pub const RAFT_MESSAGE_BYTES_MAX: u64 = 512 << 10;
/// Highest term or index that is accepted from a peer or the log. No cluster reaches it, and adding
/// to it does not overflow.
pub const RAFT_NUMBER_MAX: u64 = i64::MAX as u64;
/// Terms above this are no cluster's own, and one message raises a member's term there by
/// `RAFT_TERM_RISE_MAX` at most: more elections than a member can have missed.
pub const RAFT_TERM_HIGH: u64 = 1 << 62;
pub const RAFT_TERM_RISE_MAX: u64 = 1 << 20;
/// Messages with entries that are sent to one member and not yet acknowledged. All of them fit the
/// member's queue (`PEER_QUEUE_BYTES_MAX`); while acknowledgements are slow, the messages become
/// larger instead of more.
pub const RAFT_INFLIGHT_MAX: usize = 32;

/// Attempts of one call: as etcd's client.
pub const CLIENT_ATTEMPTS_MAX: u32 = 100;
/// Pause before a call or a watch is tried again: as etcd's client.
pub const CLIENT_RETRY_WAIT: Duration = Duration::from_millis(25);
/// How long a connection may take until the server has sent its HTTP/2 preface: gRPC's minimum
/// connect timeout.
pub const CLIENT_DIAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after an endpoint could not be dialled: short, so that a restarted server is found
/// quickly.
pub const CLIENT_RECONNECT_WAIT: Duration = Duration::from_millis(250);
/// How long `rusd defrag` and `rusd compaction --physical` wait for their answer without
/// `--command-timeout`: gigabytes are copied or deleted meanwhile.
pub const CLIENT_LONG_CALL_PATIENCE: Duration = Duration::from_secs(600);
/// How long a client whose call has no timeout waits for an endpoint before it logs why. It is
/// etcdctl's default timeout of a command.
pub const CLIENT_SILENCE_MAX: Duration = Duration::from_secs(5);
/// Pause before a lost keep-alive stream is opened again: as etcd's client.
pub const CLIENT_KEEP_ALIVE_RETRY_WAIT: Duration = Duration::from_millis(500);
/// Shortest interval of HTTP/2 pings: servers close connections that ping more often.
pub const CLIENT_KEEP_ALIVE_MIN: Duration = Duration::from_secs(10);
/// Largest request that a client sends: as etcd's client. A server may refuse a smaller one.
pub const CLIENT_SEND_BYTES_MAX: usize = 2 << 20;
/// Largest response that a client takes: as etcd's client, `math.MaxInt32`.
pub const CLIENT_RECEIVE_BYTES_MAX: usize = i32::MAX as usize;
/// HTTP/2 flow control windows of a client: a page of keys fits, so that it arrives without a round
/// trip in between.
pub const CLIENT_WINDOW_BYTES: u32 = 4 << 20;
/// Endpoints that a command asks at the same time: as many as a cluster has members, and more.
pub const CLIENT_ENDPOINTS_AT_ONCE: usize = 64;
/// Requests that are queued on one stream of a client; above it the caller waits.
pub const CLIENT_STREAM_REQUESTS_MAX: usize = 64;

/// Messages that are queued for one stream of a peer: etcd's `streamBufSize`.
pub const PEER_QUEUE_MAX: usize = 4096;
/// Bytes that are queued for one stream of a peer: four times what raft may have in flight to it
/// (`RAFT_INFLIGHT_MAX` messages of `RAFT_MESSAGE_BYTES_MAX`), since a message with one larger
/// entry exceeds its size.
pub const PEER_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Largest message from a peer: etcd's.
pub const PEER_MESSAGE_BYTES_MAX: u64 = 512 << 20;
/// Entries in one message from a peer. Decoding a message delays those of all other peers. A member
/// puts no more than this into the messages that it sends.
pub const PEER_MESSAGE_ENTRIES_MAX: u64 = 1 << 16;
/// Messages are collected up to this size before they are written to a peer's socket.
pub const PEER_CHUNK_BYTES: usize = 256 << 10;
/// Bytes of entries in the messages of peers that may wait for the raft loop. Above it messages are
/// dropped; raft repeats those that matter.
pub const RAFT_MESSAGES_BYTES_MAX: usize = 64 << 20;
/// How long the message of a unary request may take to arrive once its handler waits for it.
pub const REQUEST_BODY_TIMEOUT: Duration = Duration::from_secs(60);
/// Lines of one log message that are written in a second. Of further ones, one in this many is
/// written: etcd's sampling.
pub const LOG_LINES_PER_SECOND: u64 = 100;
/// Bytes of a request that a log line shows, and levels of messages within it: what a client sends
/// must not fill the log.
pub const LOGGED_REQUEST_BYTES_MAX: usize = 2048;
pub const LOGGED_DEPTH_MAX: usize = 16;
/// Bytes of a connection that `etcd gateway` holds in each direction.
pub const RELAY_BUFFER_BYTES: usize = 16 << 10;
/// How long a connection of `etcd gateway` stays after one direction has ended, or while one side
/// has closed and the other takes nothing.
pub const RELAY_LINGER: Duration = Duration::from_secs(30);
/// Time to connect to a remote; after it the next one is tried.
pub const RELAY_DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Shortest time between two attempts at a remote that refused.
pub const RELAY_RETRY_MIN: Duration = Duration::from_millis(100);
/// Idle time after which a side is asked whether it is there, as Go's programs do.
pub const RELAY_KEEPALIVE: Duration = Duration::from_secs(15);
/// How long sent bytes may be unacknowledged before a side counts as gone.
pub const RELAY_UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(120);
/// Wake-ups that may wait for the thread which compresses and removes old log files. It looks at all
/// of them each time, so a second wake-up before it has looked would add nothing.
pub const LOG_KEEPER_WAKES_MAX: usize = 1;
/// Counters of the sampler. A message is assigned one by its hash, so two may share one.
pub const LOG_SAMPLER_PLACES: usize = 4096;

/// First and longest pause before a proposal that found no leader is made again: fractions of an
/// election.
pub const PROPOSE_RETRY: Duration = Duration::from_millis(20);
pub const PROPOSE_RETRY_MAX: Duration = Duration::from_millis(200);
/// First and longest pause before a starting member proposes its name and client URLs again. That
/// succeeds only after it has applied most of what was committed.
pub const PUBLISH_RETRY: Duration = Duration::from_millis(20);
pub const PUBLISH_RETRY_MAX: Duration = Duration::from_secs(1);
/// How long a read index may wait for an answer of a leader, beyond two election timeouts. etcd
/// bounds a request by the same sum.
pub const READ_WAIT: Duration = Duration::from_secs(5);

/// Largest configuration file; etcd's longest has a few kilobytes.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1 << 20;
/// A configuration file nested as deeply is refused; its settings stand at the second level.
pub const CONFIG_FILE_DEPTH_MAX: usize = 16;
/// A configuration file with this many YAML aliases is refused: eight that are nested in each other
/// make at most a few dozen copies.
pub const CONFIG_FILE_ALIASES_MAX: usize = 9;
/// Height of a tree in a bbolt file that is accepted. A branch has at least two children, so a tree
/// is no higher than a page number has bits.
pub const BBOLT_DEPTH_MAX: usize = 64;
/// Largest page of a bbolt file, with its overflow pages, that is accepted; the default of
/// `--max-request-bytes` is 300 times smaller.
pub const BBOLT_PAGE_BYTES_MAX: u64 = 512 << 20;
/// Bytes of a snapshot that are encoded at a time; the rows for them are read beforehand and take
/// about as much again.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 << 10;
/// Bytes of a snapshot in one message to a client: etcd's.
pub const SNAPSHOT_MESSAGE_BYTES: usize = 32 << 10;
/// Pieces of a snapshot that are ready before their receiver takes them.
pub const SNAPSHOT_PIECES_MAX: usize = 4;
/// How long the receiver of a snapshot may take for one piece. It occupies a thread and one of
/// `SNAPSHOTS_MAX` places.
pub const SNAPSHOT_STALL_MAX: Duration = Duration::from_secs(60);
/// Bytes a second that a receiver must take on average, from `SNAPSHOT_STALL_MAX` after its begin.
/// At this rate 2 GiB take nine hours; a slower client would pin pages of the store for days. A
/// snapshot from another member that arrives more slowly is refused, since only one is received at
/// a time.
pub const SNAPSHOT_READER_RATE_MIN: u64 = 64 << 10;
/// Snapshots for clients at the same time; each has a thread and 2 MiB of pieces. One more gets
/// "too many requests".
pub const SNAPSHOTS_MAX: usize = 8;
/// A download whose receiver has taken nothing for this long loses its place to a waiting client.
pub const SNAPSHOT_FAIR_WAIT: Duration = Duration::from_secs(5);
/// Calls of HashKV and Hash that read the store for clients at the same time, and those that wait;
/// above it the caller gets "too many requests". One that runs has a thread of its own, and a
/// HashKV takes 40 bytes of memory for each key.
pub const HASHES_RUNNING_MAX: usize = 1;
pub const HASHES_WAITING_MAX: usize = 64;
/// Hashes of history for other members that wait: one is computed at a time, and each member asks
/// only now and then.
pub const PEER_HASHES_WAITING_MAX: usize = 16;
/// Reports of the store's space that wait for the one that is being made.
pub const USAGES_WAITING_MAX: usize = 16;
/// How long deletions by compaction wait for a snapshot that is being read. Most are read by then.
/// After it the snapshot reads from one LMDB transaction, and the file grows meanwhile, since freed
/// pages cannot be reused.
pub const SNAPSHOT_HOLD_MAX: Duration = Duration::from_secs(5);

/// Bytes of rows that one commit adds to a generation that is built from a snapshot. Larger commits
/// would delay the log's syncs on the same disk.
pub const SNAPSHOT_BUILD_BYTES: usize = 8 << 20;
/// Such commits whose rows are read ahead, so that reading and writing overlap.
pub const SNAPSHOT_BUILD_BATCHES: usize = 2;
/// Pause before a snapshot that did not arrive is sent again: each attempt reads the state once
/// more to measure it.
pub const SNAPSHOT_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// As `SNAPSHOT_RETRY_PAUSE`, if the disk of the receiving member has no room: an operator has to
/// free some.
pub const SNAPSHOT_NO_ROOM_PAUSE: Duration = Duration::from_secs(10);
/// Bytes of the reason with which a peer refuses a snapshot that are logged.
pub const PEER_REASON_BYTES_MAX: usize = 1024;
/// Bytes of rows that are read at once for a snapshot; one larger record is admitted.
pub const SNAPSHOT_READ_BYTES: usize = 512 << 10;
/// Window in which the sender of a snapshot measures how long puts take, to set its rate.
pub const SNAPSHOT_PACE_WINDOW: Duration = Duration::from_millis(100);
/// After this many windows the sender is silent for two, to measure how long puts take without the
/// snapshot.
pub const SNAPSHOT_PACE_SILENCE: u32 = 16;
/// Samples that a window needs to be judged by. With fewer, hardly any client is delayed, and the
/// rate is not limited.
pub const SNAPSHOT_PACE_SAMPLES_MIN: u32 = 5;
/// Puts that take less than this count as not delayed.
pub const SNAPSHOT_PACE_LATENCY_MIN: Duration = Duration::from_micros(500);
/// Bytes a second at which a snapshot is sent while puts are slow: the lowest rate, so that it
/// arrives; the first one; and the highest, which is more than any disk reads.
pub const SNAPSHOT_RATE_MIN: u64 = 4 << 20;
pub const SNAPSHOT_RATE_FIRST: u64 = 32 << 20;
pub const SNAPSHOT_RATE_MAX: u64 = 4 << 30;
/// Slices of the threads that each put passes through. Linux's own have 1.4 to 4 ms; a turn of these
/// threads takes some tens of microseconds.
pub const PROMPT_SLICE: Duration = Duration::from_micros(200);
/// Niceness of the threads that read and build snapshots and do other long work: beside a thread at
/// the usual priority they get a tenth of a processor.
pub const LONG_WORK_NICENESS: i32 = 10;
/// Largest raft message in front of a snapshot: it holds only numbers. Each connection may send
/// one, so it may cost no more than the headers of a request.
pub const SNAPSHOT_HEAD_BYTES_MAX: u64 = 64 << 10;
/// How long a peer may take to receive a snapshot and to build its state from it.
pub const SNAPSHOT_ANSWER_MAX: Duration = Duration::from_secs(3600);
/// Time between two round-trip probes of a peer, etcd's; also how long the answer may take.
pub const PEER_PROBE_INTERVAL: Duration = Duration::from_secs(4);
/// The longest silence of a peer's stream, and the longest time in which a peer takes nothing of what
/// is written to it, before the connection is closed: etcd's defaults, and the least that its flags
/// take.
pub const PEER_READ_TIMEOUT: Duration = Duration::from_secs(5);
pub const PEER_WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connecting to a peer may take before a snapshot is sent, and reading its reason for a
/// refusal afterwards.
pub const PEER_DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a member's answer to a question of another: members, versions, or leases with their
/// keys.
pub const PEER_ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes of a question of a member to the leader: etcd's `ConnReadLimitByte`.
pub const PEER_QUESTION_BYTES_MAX: usize = 64 << 10;
/// Peers that a member dials although its log does not name them yet: they have called it with
/// their id and URLs. Anybody may call, so at most one is added in each
/// `PEER_UNCONFIRMED_INTERVAL`, it is dialled only every `PEER_REMEMBERED_RETRY` until it has
/// answered, and forgotten if it has not after `PEER_REMEMBERED_FOR`. At one a second, 15 are
/// remembered at a time.
pub const PEERS_UNCONFIRMED_MAX: usize = 16;
pub const PEER_UNCONFIRMED_INTERVAL: Duration = Duration::from_secs(1);
pub const PEER_REMEMBERED_RETRY: Duration = Duration::from_secs(5);
pub const PEER_REMEMBERED_FOR: Duration = Duration::from_secs(15);
/// URLs of such a peer that are kept; a member has one or two.
pub const PEER_UNCONFIRMED_URLS_MAX: usize = 4;
/// Pause between two attempts to read a peer's stream, or to post to it: etcd's.
pub const PEER_RETRY: Duration = Duration::from_millis(100);
/// Messages that wait to be posted to a peer that reads no stream: etcd's `pipelineBufSize`.
pub const PEER_POSTS_QUEUE_MAX: usize = 64;
/// Bytes of raft messages that are taken from POST requests at the same time, and so the largest of
/// them.
pub const PEER_POSTS_BYTES_MAX: usize = 32 << 20;
/// How long one of them, or the message in front of a snapshot, may take to arrive.
pub const PEER_POST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a member goes on after it has applied its own removal, so that others learn of the
/// commit: etcd's.
pub const REMOVED_GRACE: Duration = Duration::from_secs(1);
/// How often, and how many times, a removed member then looks whether a remaining member knows of
/// the removal. In a cluster of two, the other cannot commit without this member's vote until it
/// does. Five minutes in all are longer than a restart takes.
pub const REMOVED_LOOK_INTERVAL: Duration = Duration::from_millis(100);
pub const REMOVED_LOOKS_MAX: u32 = 3000;
/// How long a peer must have been connected to count as healthy when the membership changes: etcd's
/// `HealthInterval`.
pub const PEER_HEALTHY_AFTER: Duration = Duration::from_secs(5);
/// How long one question to the leader may take before it is asked again.
pub const ASK_LEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// First and longest pause between two looks whether a lease that is renewed after its deadline has
/// been revoked.
pub const LEASE_EXPIRED_LOOK: Duration = Duration::from_millis(50);
pub const LEASE_EXPIRED_LOOK_MAX: Duration = Duration::from_millis(500);
/// First and longest pause between two questions to the leader. etcd's is always the first.
pub const ASK_LEADER_PAUSE: Duration = Duration::from_millis(50);
pub const ASK_LEADER_PAUSE_MAX: Duration = Duration::from_millis(500);
/// How long a new member waits for another to answer whether a member with this one's id has run in
/// the cluster before: etcd's.
pub const BOOTSTRAP_CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a joining member waits for the list of members: etcd's.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Simple tokens that a member holds, about 200 bytes each. Above it, the token that expires first
/// is dropped for a new one.
pub const SIMPLE_TOKENS_MAX: usize = 100_000;
/// How long an unused simple token is valid: etcd's default of `--auth-token-ttl`.
pub const SIMPLE_TOKEN_TTL: Duration = Duration::from_secs(300);
/// Passwords that wait to be hashed or compared. Above it, the newest login of the user name with
/// the most of them gets "too many requests", or the one that arrives, if no other name has more.
/// At bcrypt cost 10 a thread does sixteen a second, so the last waits about as long as a request
/// may.
pub const PASSWORDS_PENDING_MAX: usize = 64;
/// Longest name of a user or role: the longest key of a bbolt file, so that a snapshot can hold the
/// name.
pub const AUTH_NAME_BYTES_MAX: usize = 32_768;
/// Characters of a name, or bytes of a key, in the lines of the log about users, roles and logins; a
/// request may hold a megabyte.
pub const LOGGED_NAME_LETTERS_MAX: usize = 256;
/// Names of roles in one such line.
pub const LOGGED_NAMES_MAX: usize = 32;
/// Shortest time between two lines of the log about callers from another cluster, and what is shown
/// of a word that such a caller says of itself.
pub const STRANGER_LINE_INTERVAL: Duration = Duration::from_secs(10);
pub const STRANGER_WORD_BYTES_MAX: usize = 64;
/// Shortest time between two lines of the log about refused tokens.
pub const REFUSED_TOKEN_LINE_INTERVAL: Duration = Duration::from_secs(1);
/// Hexadecimal digits of a refused token's SHA-256 in such a line: etcd's.
pub const TOKEN_FINGERPRINT_LETTERS: usize = 12;
/// Times that one login compares its password. It does so again if users or roles changed between
/// the comparison and the apply of its entry.
pub const LOGIN_ATTEMPTS_MAX: usize = 10;
/// Threads that hash passwords, at most; half of the processors if those are fewer, so that logins
/// leave the other half to requests.
pub const PASSWORD_THREADS_MAX: usize = 4;
/// Niceness of these threads: they get a thirtieth of a thread at the usual priority where both
/// want to run. With 10, which gives a tenth, a flood of logins doubled the 99th percentile of puts
/// on two processors.
pub const PASSWORD_NICENESS: i32 = 15;
/// Fraction (1/10) of one processor's time in which passwords are hashed at the usual priority: at
/// bcrypt cost 10, about one login a second.
pub const PASSWORD_CREDIT_SHARE: u32 = 10;
/// Processor time at the usual priority that can be saved up for passwords: some thirty logins at
/// bcrypt cost 10.
pub const PASSWORD_CREDIT_MAX: Duration = Duration::from_secs(2);

/// How long a name server may take to answer, unless `resolv.conf` says otherwise: as in C's
/// resolver.
pub const DNS_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest timeout that is taken from `resolv.conf`: as in C's resolver.
pub const DNS_TIMEOUT_MAX: Duration = Duration::from_secs(30);
/// Rounds through the name servers, unless `resolv.conf` says otherwise: as in C's resolver.
pub const DNS_ATTEMPTS: usize = 2;
/// Most rounds that are taken from `resolv.conf`: as in C's resolver.
pub const DNS_ATTEMPTS_MAX: usize = 5;
/// Name servers that are asked, and search suffixes that are tried: as in C's resolver.
pub const DNS_SERVERS_MAX: usize = 3;
pub const DNS_SEARCH_MAX: usize = 6;
/// Longest answer that is received. A datagram without EDNS has at most 512 bytes, but some servers
/// send longer ones.
pub const DNS_DATAGRAM_BYTES_MAX: usize = 4096;
/// Longest name in wire format (RFC 1035, section 2.3.4).
pub const DNS_NAME_BYTES_MAX: usize = 255;
/// How long a start waits for the host names in peer URLs to resolve: as etcd.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Times that the pause doubles between two questions to a discovery service that does not answer:
/// as etcd.
pub const DISCOVERY_BACKOFFS_MAX: u32 = 8;
/// How long the leader waits, before it answers a member about a lease, until it has applied all
/// that was committed: as etcd.
pub const LEASE_APPLY_TIMEOUT: Duration = Duration::from_secs(1);
/// How often, and how many times, a starting member looks whether it is connected to more than one
/// peer, to campaign earlier then: etcd's 50 ms and 5 s. After that it waits for its election
/// timeout.
pub const PEERS_REACHED_INTERVAL: Duration = Duration::from_millis(50);
pub const PEERS_REACHED_LOOKS_MAX: u32 = 100;

/// Interval at which the files of certificates are read for the metric of their ends.
pub const CERTIFICATE_READ_INTERVAL: Duration = Duration::from_secs(60);

/// How long `rusd doctor` waits for each answer of a member.
pub const DOCTOR_PATIENCE: Duration = Duration::from_secs(1);
/// Members and URLs of a list that `rusd doctor` asks at once: with three connections each, fewer
/// than the 1024 open files that a shell allows.
pub const DOCTOR_PLACES_MAX: usize = 300;
/// What `rusd doctor` takes for a problem. Entries that a member is behind the leader: more than a
/// busy cluster applies within the time that a question takes.
pub const DOCTOR_LAG_ENTRIES: u64 = 5000;
/// A sync, or a message there and back, may take this part of the election timeout: etcd's rule.
pub const DOCTOR_TIMEOUT_PART: f64 = 10.0;
/// Syncs below which their times say nothing.
pub const DOCTOR_SYNCS_MIN: f64 = 100.0;
/// Changes of the leader in an hour.
pub const DOCTOR_LEADER_CHANGES_MAX: f64 = 5.0;
/// Difference of clocks at which etcd's members complain of each other.
pub const DOCTOR_CLOCK_SKEW_SECONDS: f64 = 1.0;
/// Part of the quota, in percent, that leaves too little time.
pub const DOCTOR_QUOTA_PERCENT: u64 = 80;
/// Shortest time of growth from which a pace is reckoned, and days to the quota that are worth a
/// word.
pub const DOCTOR_PACE_SECONDS_MIN: f64 = 600.0;
pub const DOCTOR_PACE_DAYS: f64 = 7.0;
/// Free bytes within the store's file that are worth a defragmentation, and free bytes of a disk
/// that are too few.
pub const DOCTOR_FREE_BYTES_MIN: u64 = 64 << 20;
/// Free part of a disk.
pub const DOCTOR_DISK_FREE_PERCENT: f64 = 5.0;
/// Days at which a certificate's end is an error and no warning.
pub const DOCTOR_CERTIFICATE_ERROR_DAYS: i64 = 7;
/// Used part of the limit of open files, and the least that this limit should be.
pub const DOCTOR_OPEN_FILES_PERCENT: f64 = 80.0;
pub const DOCTOR_OPEN_FILES_MIN: f64 = 1024.0;
/// Used part of the limit of memory, and the least that this limit should be.
pub const DOCTOR_MEMORY_PERCENT: f64 = 90.0;
pub const DOCTOR_MEMORY_BYTES_MIN: f64 = (256_u64 << 20) as f64;
/// Days after which a backup is old.
pub const DOCTOR_BACKUP_DAYS: f64 = 7.0;
/// Bytes of a file that the doctor's bundle names with a checksum; longer ones have their size only.
pub const BUNDLE_HASHED_BYTES_MAX: u64 = 1 << 30;

/// How long a TLS handshake may take: etcd's.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// TLS handshakes at the same time on one kind of port: each costs some 30 KiB and a millisecond of
/// processor time. Others wait for their turn, no longer than a handshake may take.
pub const TLS_HANDSHAKES_MAX: usize = 1024;
/// A handshake that has taken longer ends when others wait for its place. An honest client finishes
/// in a few round trips.
pub const TLS_HANDSHAKE_FAIR_TIME: Duration = Duration::from_secs(1);

/// Bytes that a defragmentation copies with one commit; one larger record is admitted. The syncs of
/// such a commit delay those of the log by a few milliseconds.
pub const DEFRAG_PIECE_BYTES: usize = 1 << 20;
/// Changed keys of small buckets that are collected before a defragmentation copies them again.
pub const DEFRAG_CHANGES_MAX: usize = 10_000;
/// Pieces that a defragmentation copies after it has reached the row that was newest when it began.
/// If writers still outrun it, the rest is copied while the committer pauses.
pub const DEFRAG_CATCH_UP_PIECES_MAX: u32 = 256;
/// Free disk space that a defragmentation leaves to the log and the store; on a small disk at most
/// the fraction that the reserve takes there (`RESERVE_DISK_PARTS`).
pub const DEFRAG_FREE_BYTES_KEPT: u64 = 32 << 20;
/// Files and directories that a defragmentation makes before it removes any: the new generation, its
/// mark, store, lock and index. The next contents of `CURRENT` come after the mark.
pub const DEFRAG_FILES: u64 = 5;
/// How long a defragmentation waits for readers of the old file to end. After that the file is
/// unlinked while they read, and the system frees its space when they end.
pub const DEFRAG_READERS_WAIT: Duration = Duration::from_secs(5);
/// Bytes by which the old file is truncated at once: freeing gigabytes at once delays the log's
/// syncs on some file systems.
pub const DEFRAG_TRUNCATE_BYTES: u64 = 64 << 20;
/// Requests to defragment that may wait for the running one; above it the caller gets "too many
/// requests".
pub const DEFRAGS_WAITING_MAX: usize = 16;
/// How often, and how many times, a request looks for room while the store's last commit found the
/// disk full. In all it is a little longer than the second after which that commit is tried again.
pub const ROOM_LOOK_INTERVAL: Duration = Duration::from_millis(50);
pub const ROOM_LOOKS_MAX: u32 = 24;
/// Time between two looks of the space policy `auto`.
pub const SPACE_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Newest revisions that the space policy `auto` never compacts: a Kubernetes cluster makes as many
/// in a minute or two. Clients that read page by page, or watch, may still need them.
pub const SPACE_REVISIONS_KEPT: i64 = 1000;
/// Fraction (1/8) of the quota that must be free for the policy to end a recovery and disarm
/// NOSPACE.
pub const SPACE_ROOM_PARTS: u64 = 8;
/// How long the policy rests when neither compaction nor defragmentation makes room: what is left
/// is live data.
pub const SPACE_NO_GAIN_REST: Duration = Duration::from_secs(60);
/// Time between two looks whether a sweep has ended.
pub const SWEEP_LOOK: Duration = Duration::from_millis(20);
/// How long HashKV at the revision of a compaction waits for its sweep, which finds that hash. Most
/// sweeps begin with the next commit, a tenth of a second later, and are short.
pub const HASH_SWEEP_WAIT: Duration = Duration::from_secs(1);
/// How long the policy waits for the sweep of its compaction before it logs so and rests: some sweeps
/// are slow, and one on a failing disk never ends.
pub const SPACE_SWEEP_WAIT: Duration = Duration::from_secs(60);
/// How long, the first time and at most, the policy waits for a compaction that got no answer
/// before it proposes one again. The first may still be in the log, and without a quorum a second
/// would only wait beside it.
pub const SPACE_ANSWER_WAIT: Duration = Duration::from_secs(10);
pub const SPACE_ANSWER_WAIT_MAX: Duration = Duration::from_secs(600);
/// Free bytes within the file from which on the policy defragments unasked, if they are also more
/// than half of the file.
pub const SPACE_FREE_BYTES_MIN: u64 = 64 << 20;
/// Shortest time between two such defragmentations: each copies everything that is in use.
pub const SPACE_RECLAIM_INTERVAL: Duration = Duration::from_secs(600);
/// Samples of the store's size that are kept, and the time between two: the last hour.
pub const SPACE_SAMPLES_MAX: usize = 60;
pub const SPACE_SAMPLE_INTERVAL: Duration = Duration::from_secs(60);
/// Key prefixes that a report of the store's space counts apart: some megabytes while it is made.
pub const SPACE_PREFIXES_MAX: usize = 10_000;
/// Longest such prefix.
pub const SPACE_PREFIX_BYTES_MAX: usize = 256;

/// Bytes of records that the scrub reads within one read transaction; one larger record is
/// admitted.
pub const SCRUB_PIECE_BYTES: usize = 1 << 20;
/// Rate at which the scrub reads: 2 GiB take nine minutes and little of a disk's bandwidth.
pub const SCRUB_BYTES_PER_SECOND: u64 = 4 << 20;
/// Rest between two scrubs.
pub const SCRUB_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// Time from the start of a member to its first scrub, which keeps it out of the work of a start.
pub const SCRUB_DELAY: Duration = Duration::from_secs(5);
/// Time between two looks of a fenced member whether it is the leader, which it hands over.
pub const FENCE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Damaged places that a check of a data directory lists; further ones are only counted.
pub const DAMAGES_NAMED_MAX: usize = 200;
/// Longest segment that is read. An entry may go beyond a segment's usual end, but offsets within a
/// segment have 32 bits.
pub const LOG_SEGMENT_BYTES_MAX: u64 = u32::MAX as u64;
/// Keys whose versions a check of a data directory compares: some 400 MB. Keys that come after so
/// many are not compared.
pub const CHECK_KEYS_MAX: usize = 4 << 20;
/// Bytes that the parent reads of a check's report: enough for `DAMAGES_NAMED_MAX` findings with
/// long names.
pub const CHECK_REPORT_BYTES_MAX: u64 = 16 << 20;

/// Spans that have ended and wait to be sent, with what a batch holds at most: the defaults of
/// OpenTelemetry's SDKs, which etcd uses. What comes while the queue is full is dropped and counted.
pub const TRACE_SPANS_QUEUED_MAX: usize = 2048;
pub const TRACE_BATCH_SPANS_MAX: usize = 512;
/// How long a batch waits for more spans; likewise.
pub const TRACE_BATCH_INTERVAL: Duration = Duration::from_secs(5);
/// Bytes of a text in a span: a key may have a megabyte. With two of them in each span, a batch
/// stays below the 4 MiB that a collector takes in one message, and a full queue below 16 MiB.
pub const TRACE_TEXT_BYTES_MAX: usize = 1024;
/// Events of a span that are kept; the default of OpenTelemetry's SDKs.
pub const TRACE_EVENTS_MAX: usize = 128;
/// How long a batch is tried to be sent, and the pauses between two attempts. While the collector
/// is away, spans wait in the queue for so long and are then dropped batch by batch.
pub const TRACE_EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
pub const TRACE_EXPORT_RETRY: Duration = Duration::from_secs(1);
pub const TRACE_EXPORT_RETRY_MAX: Duration = Duration::from_secs(5);
/// Bytes of a collector's answer, which says little more than how many spans it refused.
pub const TRACE_ANSWER_BYTES_MAX: usize = 64 << 10;
/// How long a stop waits for the spans that are left to be sent.
pub const TRACE_FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Shortest time between two log lines about spans that could not be sent.
pub const TRACE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Largest file that is read as one of a few lines, such as CURRENT: rusd writes none that is
/// longer.
pub const SMALL_FILE_BYTES_MAX: u64 = 1 << 20;

/// Columns of a help text where no terminal tells its own, and the most: longer lines are hard to
/// read.
pub const HELP_COLUMNS: usize = 80;
pub const HELP_COLUMNS_MAX: usize = 120;

/// How long a completion may ask the cluster: a person waits for it.
pub const COMPLETION_TIMEOUT: Duration = Duration::from_millis(500);
/// Names that a completion offers, keys that it reads at a time, and how often.
pub const COMPLETION_NAMES_MAX: usize = 200;
pub const COMPLETION_KEYS_PAGE: i64 = 100;
pub const COMPLETION_PAGES_MAX: usize = 100;

/// Callers of `rusd bench`. Each has a histogram of 16 KiB.
pub const BENCH_CLIENTS_MAX: u64 = 20_000;
/// Connections of `rusd bench` to each server; a process may open as many sockets at most.
pub const BENCH_CONNECTIONS_MAX: u64 = 10_000;
/// Different keys of `rusd bench`, which it holds in memory, and their bytes together.
pub const BENCH_KEYS_MAX: u64 = 10_000_000;
pub const BENCH_KEYS_BYTES_MAX: u64 = 1 << 30;
/// Longest value that `rusd bench` puts: more than any server takes by default.
pub const BENCH_VALUE_BYTES_MAX: u64 = 64 << 20;
/// Puts in one transaction of `rusd bench`; servers take 128 by default.
pub const BENCH_TXN_OPS_MAX: u64 = 10_000;
pub const BENCH_WATCHERS_MAX: u64 = 100_000;
/// Requests of one run of `rusd bench`, and the largest rate that can be asked for.
pub const BENCH_REQUESTS_MAX: u64 = 1_000_000_000_000;
pub const BENCH_RATE_MAX: u64 = 100_000_000;
pub const BENCH_DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
pub const BENCH_ROUNDS_MAX: u64 = 1000;
/// Largest value of `--scale` and of `--tolerance`, in percent.
pub const BENCH_PERCENT_MAX: u64 = 1000;
/// Keys that `rusd bench` deletes with one request. One transaction for a million would take longer than
/// servers let a request take.
pub const BENCH_DELETE_KEYS: i64 = 10_000;
/// How long `rusd bench` waits until all watches of a run have been made.
pub const BENCH_WATCH_WAIT: Duration = Duration::from_secs(30);
/// Time between two looks at a server's memory while it answers.
pub const BENCH_MEMORY_LOOK: Duration = Duration::from_millis(100);
/// Largest file that `bench check` reads as a baseline.
pub const BENCH_BASELINE_BYTES_MAX: u64 = 16 << 20;
