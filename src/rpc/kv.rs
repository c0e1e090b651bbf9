//! KV: ranges, puts, deletes, transactions, compactions.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use prost::Message;
use tonic::Status;

use super::answer::Encode;
use super::encoded::{Encoded, PREFIX_BYTES, SEND_BYTES_MAX};
use super::error::{Error, status};
use super::{Server, check, spans, stats};
use crate::auth::Credentials;
use crate::clock;
use crate::limits::{STREAM_CHUNK_ROWS, TXN_DEPTH_MAX};
use crate::metrics::{self, Operation};
use crate::node::{self, Op, RangeAnswer, Reply};
use crate::pb::loggable;
use crate::pb::logged::logged;
use crate::pb::shapes::Shaped as _;
use crate::pb::tolerant::{self, Below, Malformed};
use crate::pb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest,
    ResponseHeader, TxnRequest, raw,
};
use crate::trace::{Context, Span};

/// Passes a write through the node's quota gate and gives the request back. It comes before the
/// checks of the request, as in etcd: a malformed put is NOSPACE when the quota is exceeded.
macro_rules! within_quota {
    ($server:expr, $kind:ident, $request:expr) => {{
        let op = Op::$kind($request);
        $server.node.quota_gate(&op).await.map_err($crate::rpc::error::status)?;
        match op {
            Op::$kind(request) => request,
            _ => return Err($crate::rpc::kv::mismatch()),
        }
    }};
}
pub(super) use within_quota;

/// A reply of another kind than the proposal's: a bug in the node, reported as Internal.
pub(super) fn mismatch() -> Status {
    Status::internal("the node answered with another kind of reply")
}

macro_rules! propose {
    ($server:expr, $who:expr, $kind:ident, $request:expr) => {
        match $server.node.propose($who, Op::$kind($request)).await {
            Ok(Reply::$kind(response)) => Ok(response),
            Ok(_) => Err($crate::rpc::kv::mismatch()),
            Err(error) => Err($crate::rpc::error::status(error)),
        }
    };
}
pub(super) use propose;

/// Decodes a transaction, and cuts what is nested deeper than `TXN_DEPTH_MAX`. `check::txn` refuses
/// it by its depth, after the faults that come before that in etcd's order.
pub(super) fn decoded_txn(bytes: Bytes) -> Result<TxnRequest, Malformed> {
    tolerant::transaction(bytes, TXN_DEPTH_MAX, Below::Cut)
}

/// The answer to a read, encoded where it was read.
type Read = Result<Result<Encoded, Status>, node::Error>;

/// The times of a read that goes past the log.
struct Reading {
    operation: Operation,
    start: Instant,
    /// When a range had the index that it waited for.
    range_began: Option<Instant>,
    took: Duration,
}

impl Reading {
    fn begin(operation: Operation) -> Self {
        let (start, took) = (clock::instant(), Duration::ZERO);
        Self { operation, start, range_began: None, took }
    }

    fn ended(&mut self, result: &Read) {
        let (now, is_ok) = (clock::instant(), matches!(result, Ok(Ok(_))));
        self.took = now.saturating_duration_since(self.start);
        metrics::request_seconds(self.operation, is_ok).observe(self.took.as_secs_f64());
        if let Some(began) = self.range_began {
            let took = now.saturating_duration_since(began);
            metrics::range_seconds(is_ok).observe(took.as_secs_f64());
        }
    }
}

impl Server {
    /// Logs a read that took too long, as etcd does; `rows` says how many rows the answer has.
    fn warn_if_slow(
        &self,
        prefix: &str,
        reading: &Reading,
        request: impl FnOnce() -> String,
        result: &Read,
        rows: fn(&Encoded) -> String,
    ) {
        let expected = self.config.warning_apply_duration;
        let answer = match result {
            Ok(Ok(encoded)) => Ok(|| format!("{} size:{}", rows(encoded), encoded.bytes)),
            Ok(Err(status)) => Err(status as &dyn Display),
            Err(error) => Err(error as &dyn Display),
        };
        node::warn_if_slow(prefix, reading.took, expected, request, answer);
    }

    pub(super) async fn range(
        self: Arc<Self>,
        who: Credentials,
        request: RangeRequest,
    ) -> Result<Encoded, Status> {
        if self.node.is_learner() && !request.serializable {
            return Err(Error::NotSupportedForLearner.into());
        }
        check::range(&request)?;
        let mut reading = Reading::begin(Operation::Range);
        let began = &mut reading.range_began;
        let bounds = (PREFIX_BYTES, SEND_BYTES_MAX);
        let result = self.node.range_in_pieces(&who, &request, began, bounds).await;
        let result = result.map(|answer| match answer {
            RangeAnswer::Short(response) => response.encoded(),
            RangeAnswer::Encoded(answer) => Encoded::range(answer),
        });
        reading.ended(&result);
        let request = || logged(RangeRequest::SHAPE, &request.encode_to_vec());
        self.warn_if_slow("read-only range ", &reading, request, &result, stats::rows_of_range);
        result.map_err(status)?
    }

    pub(super) async fn put(
        self: Arc<Self>,
        who: Credentials,
        request: PutRequest,
    ) -> Result<raw::PutResponse, Status> {
        let request = within_quota!(self, Put, request);
        check::put(&request)?;
        propose!(self, &who, Put, request)
    }

    pub(super) async fn delete_range(
        self: Arc<Self>,
        who: Credentials,
        request: DeleteRangeRequest,
    ) -> Result<raw::DeleteRangeResponse, Status> {
        check::delete_range(&request)?;
        propose!(self, &who, DeleteRange, request)
    }

    pub(super) async fn txn(
        self: Arc<Self>,
        who: Credentials,
        request: TxnRequest,
    ) -> Result<Encoded, Status> {
        let request = within_quota!(self, Txn, request);
        check::txn(&request, self.config.txn_ops_max)?;
        if check::is_read_only(&request) {
            let mut reading = Reading::begin(Operation::ReadonlyTxn);
            let result = self.node.read_txn_as(&who, &request, Encode::encoded).await;
            reading.ended(&result);
            let request = || loggable::txn(&request);
            self.warn_if_slow("read-only txn ", &reading, request, &result, stats::rows_of_txn);
            return result.map_err(status)?;
        }
        propose!(self, &who, Txn, request)?.encoded()
    }

    pub(super) async fn compact(
        self: Arc<Self>,
        who: Credentials,
        request: CompactionRequest,
    ) -> Result<CompactionResponse, Status> {
        propose!(self, &who, Compaction, request)
    }

    pub(super) async fn range_stream(
        self: Arc<Self>,
        who: Credentials,
        request: RangeRequest,
    ) -> Result<impl Stream<Item = Result<raw::RangeStreamResponse, Status>> + Send + use<>, Status>
    {
        check::range_stream(&request)?;
        let span = self.node.tracer();
        let span = span.within(who.span(), "range_streaming", || spans::of_stream(&request));
        let who = who.within(Context::Unsampled);
        let chunks = Chunks::new(self, who, request, span);
        Ok(stream::unfold(Some(chunks), |chunks| async {
            let mut chunks = chunks?;
            match chunks.next().await {
                Ok((chunk, last)) => Some((Ok(chunk), if last { None } else { Some(chunks) })),
                Err(error) => Some((Err(status(error)), None)),
            }
        }))
    }
}

/// A RangeStream: one range in chunks, all of them at the revision of the first.
struct Chunks {
    server: Arc<Server>,
    /// Without a span: as in etcd, all chunks have one together.
    who: Credentials,
    request: RangeRequest,
    /// Rows that may still be sent.
    left: i64,
    sent: i64,
    header: Option<ResponseHeader>,
    _span: Span,
}

impl Chunks {
    fn new(server: Arc<Server>, who: Credentials, mut request: RangeRequest, _span: Span) -> Self {
        // A negative limit means no limit and one chunk for all rows, as a negative limit of Range
        // does.
        let left = if request.limit == 0 { i64::MAX } else { request.limit };
        if !request.count_only {
            request.limit = STREAM_CHUNK_ROWS.min(left);
        }
        Self { server, who, request, left, sent: 0, header: None, _span }
    }

    /// The next chunk, and whether it is the last. Only the last one carries header, `more` and
    /// count.
    async fn next(&mut self) -> Result<(raw::RangeStreamResponse, bool), node::Error> {
        let mut began = None;
        let (node, who, request) = (&self.server.node, &self.who, &self.request);
        let range = node.range_as(who, request, &mut began, |response| response).await;
        if let Some(began) = began {
            let took = clock::instant().saturating_duration_since(began);
            metrics::range_seconds(range.is_ok()).observe(took.as_secs_f64());
        }
        let mut range = range?;
        let header = self.header.get_or_insert_with(|| range.header.unwrap_or_default()).to_owned();
        if self.request.count_only {
            let response = raw::RangeResponse {
                header: Some(header),
                count: range.count,
                ..Default::default()
            };
            return Ok((raw::RangeStreamResponse { range_response: Some(response) }, true));
        }
        if self.request.revision <= 0 {
            self.request.revision = header.revision;
        }
        // If the range is linearizable, the first chunk was read at a read index. The others read
        // the same revision, so they need no read index.
        self.request.serializable = true;
        let rows = range.kvs.len() as i64;
        let last = !range.more || rows >= self.left;
        if last {
            range.header = Some(header);
            range.count += self.sent;
        } else {
            let key = range.kvs.last().and_then(|row| KeyValue::decode(row.clone()).ok());
            let Some(row) = key else {
                return Err(node::Error::Internal("a row of the range cannot be decoded".into()));
            };
            self.request.key = Bytes::from([row.key.as_ref(), b"\0"].concat());
            self.left -= rows;
            self.sent += rows;
            let bytes: usize = range.kvs.iter().map(Bytes::len).sum();
            let limit = next_limit(self.request.limit, bytes, self.server.config.request_bytes_max);
            self.request.limit = limit.min(self.left);
            range = raw::RangeResponse { kvs: range.kvs, ..Default::default() };
        }
        Ok((raw::RangeStreamResponse { range_response: Some(range) }, last))
    }
}

/// The limit of the next chunk, in rows. It doubles while a chunk has less than half of `target`
/// bytes, and halves while a chunk has more than twice as many.
fn next_limit(limit: i64, bytes: usize, target: usize) -> i64 {
    if bytes < target / 2 {
        limit.saturating_mul(2)
    } else if bytes > target.saturating_mul(2) {
        (limit / 2).max(1)
    } else {
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_grow_and_shrink_towards_the_target() {
        assert_eq!(next_limit(10, 400, 1000), 20);
        assert_eq!(next_limit(10, 500, 1000), 10);
        assert_eq!(next_limit(10, 2001, 1000), 5);
        assert_eq!(next_limit(1, 2001, 1000), 1);
    }
}
