//! Answers of any length in little memory: a range is measured first, and its rows are read once
//! more, piece by piece, as the client takes them.
//!
//! ```text
//!   measure ─► short: the whole message, from one pass
//!          └─► long: its exact length, the first piece, and a Rest ─► next_piece ─► … ─► the end
//! ```
//!
//! gRPC states a message's length before its first byte, so nothing can be sent before the length of
//! the last row is known. The lengths come from the headers of the rows, without their values. The
//! second pass visits the index again at the same revision, where it finds the same keys: a row
//! never changes, and a pin keeps sweeps away (see `pins`). So an answer costs one piece and a place
//! in the index, however long it is; one in another order also costs the list of its revisions.
//!
//! The second pass counts bytes and rows. If they are not those that were measured, the piece is not
//! given out, and the answer ends with an error: it is never padded and never cut.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use prost::Message;
use prost::encoding::{bool, encode_varint, encoded_len_varint, int64, message};

use super::index::{KeyState, Visit, Visited};
use super::kv::Pair;
use super::pins::Pin;
use super::range::{
    ReadBudget, admits, by_index_pair, end_of, has_revision_filters, is_default_ordering,
    key_order, sort_by_key,
};
use super::{Error, Mvcc, ReadCheck, View};
use crate::limits;
use crate::pb::range_request::{SortOrder, SortTarget};
use crate::pb::{RangeRequest, ResponseHeader};
use crate::store::Part;
use crate::types::{KeyRange, Revision};

/// Keys that are visited, and rows that are read, at a time.
const ROWS_AT_ONCE: usize = 256;
/// Fields of a `RangeResponse`.
const HEADER: u32 = 1;
const MORE: u32 = 3;
const COUNT: u32 = 4;
/// Tag of the field `kvs`: number 2, with a length.
const ROW_TAG: u8 = 2 << 3 | 2;
/// Room for the row that ends a piece, unless it is stored in chunks.
const LAST_ROW_BYTES: usize = limits::RECORD_INLINE_BYTES_MAX;

/// How an answer is cut.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes that are left free for the caller in front of the message.
    pub room: usize,
    /// Length up to which an answer is made in one pass, as a whole.
    pub whole: usize,
    /// Length from which on the first piece of a longer answer is full.
    pub piece: usize,
    /// Longest message that can be sent.
    pub message: usize,
}

/// A range that was measured.
pub struct Measured {
    /// The beginning of the message, behind the free bytes; all of it if there is no rest. Empty if
    /// the message is too long.
    pub first: Vec<u8>,
    /// Length of the message.
    pub bytes: usize,
    /// Number of its rows.
    pub rows: usize,
    pub count: i64,
    pub rest: Option<Rest>,
}

/// The part of an answer that is not read yet.
pub struct Rest {
    pin: Pin,
    rows: Rows,
    /// Bytes and number of the rows that are to come.
    left_bytes: usize,
    left_rows: usize,
    /// The fields behind the rows.
    end: Vec<u8>,
    is_done: bool,
}

/// The rows of an answer, in its order.
#[derive(Clone)]
enum Rows {
    Walk(Box<Walk>),
    List(List),
}

/// Rows in the order of their keys.
#[derive(Clone)]
struct Walk {
    request: RangeRequest,
    range: KeyRange,
    main: i64,
    /// The key from which on nothing is visited yet; None at the end.
    start: Option<Box<[u8]>>,
    /// Rows that were visited, and the number of those that were read.
    found: Vec<Revision>,
    read: usize,
    /// Rows that may still be found.
    left: usize,
    /// Keys that were visited and exist, also those that the request filters out.
    seen: i64,
    /// The key behind the last row that the limit admits.
    beyond: Option<Box<[u8]>>,
    has_more: bool,
}

/// Rows in any other order.
#[derive(Clone)]
struct List {
    revisions: Arc<[Revision]>,
    read: usize,
    count: i64,
    has_more: bool,
}

/// Where rows go. Once `part` is `Length`, only their length counts.
struct Sink {
    bytes: Vec<u8>,
    full_at: usize,
    part: Part,
    row_bytes: usize,
    rows: usize,
}

impl Sink {
    fn is_full(&self) -> bool {
        self.part == Part::Record && self.bytes.len() >= self.full_at
    }

    /// Adds a row of this length; `put` writes it.
    fn add(&mut self, length: usize, put: impl FnOnce(&mut Vec<u8>)) {
        self.row_bytes += 1 + encoded_len_varint(length as u64) + length;
        self.rows += 1;
        if self.part == Part::Record {
            self.bytes.put_u8(ROW_TAG);
            encode_varint(length as u64, &mut self.bytes);
            put(&mut self.bytes);
        }
    }
}

impl Rows {
    /// Gives rows to the sink until it is full; true if there are no more.
    fn run(&mut self, view: &View<'_>, sink: &mut Sink) -> Result<bool, Error> {
        while !sink.is_full() {
            view.go_on()?;
            let goes_on = match self {
                Self::Walk(walk) if walk.request.keys_only => walk.keys(view, sink),
                Self::Walk(walk) => walk.rows(view, sink)?,
                Self::List(list) => list.rows(view, sink)?,
            };
            if !goes_on {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The number of all keys in the range, and whether the limit has cut some off.
    fn totals(&self, view: &View<'_>) -> Result<(i64, bool), Error> {
        match self {
            Self::List(list) => Ok((list.count, list.has_more)),
            Self::Walk(walk) => {
                let Some(beyond) = &walk.beyond else { return Ok((walk.seen, walk.has_more)) };
                let mut budget = ReadBudget::with_bytes(usize::MAX);
                let end = end_of(&walk.range);
                let rest = view.count_from(beyond, end, walk.main, &mut budget)?;
                Ok((walk.seen + rest, true))
            }
        }
    }
}

impl Walk {
    fn new(request: &RangeRequest, main: i64) -> Self {
        let left = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
        // Copies, since key and end are parts of the whole request, which they would keep.
        let [key, range_end] =
            [&request.key, &request.range_end].map(|bytes| Bytes::copy_from_slice(bytes));
        let request = RangeRequest { key, range_end, ..request.clone() };
        let range = KeyRange::new(request.key.clone(), request.range_end.clone());
        let start = Some(request.key.as_ref().into());
        Self {
            range,
            request,
            main,
            start,
            found: Vec::new(),
            read: 0,
            left: left.unwrap_or(usize::MAX),
            seen: 0,
            beyond: None,
            has_more: false,
        }
    }

    /// Visits some keys. `f` gets those that belong to the answer; the visit stops before a key at
    /// which `f` would be called and `is_full` says that it must not.
    fn visit(&mut self, view: &View<'_>, f: &mut dyn FnMut(&mut Visited<'_>) -> bool) {
        let Some(start) = self.start.take() else { return };
        let (is_filtered, mut stopped) = (has_revision_filters(&self.request), None);
        let index = view.mvcc.index.read();
        let end = end_of(&self.range);
        let visit = index.visit(&start, end, self.main, ROWS_AT_ONCE, |mut visited| {
            if self.left == 0 && !is_filtered {
                self.beyond = Some(visited.key().into());
                return false;
            }
            if !is_filtered || admits(&self.request, &visited.found) {
                if self.left == 0 {
                    self.has_more = true;
                } else if !f(&mut visited) {
                    stopped = Some(visited.key().into());
                    return false;
                } else {
                    self.left -= 1;
                }
            }
            self.seen += 1;
            true
        });
        drop(index);
        self.start = match visit {
            Visit::Next(next) => Some(next),
            Visit::Done => stopped,
        };
    }

    /// Rows without values, from the index alone. False if there are no more.
    fn keys(&mut self, view: &View<'_>, sink: &mut Sink) -> bool {
        self.visit(view, &mut |visited| {
            if sink.is_full() {
                return false;
            }
            let found = visited.found;
            let pair: Pair<'_> = by_index_pair(visited.key(), found);
            sink.add(pair.encoded_len(), |bytes| pair.put(bytes));
            true
        });
        self.start.is_some()
    }

    fn rows(&mut self, view: &View<'_>, sink: &mut Sink) -> Result<bool, Error> {
        if self.read == self.found.len() {
            if self.start.is_none() {
                return Ok(false);
            }
            let mut found = std::mem::take(&mut self.found);
            found.clear();
            self.visit(view, &mut |visited| {
                found.push(visited.found.modified);
                true
            });
            (self.found, self.read) = (found, 0);
        }
        self.read += read(view, &self.found[self.read..], sink)?;
        Ok(true)
    }
}

impl List {
    fn rows(&mut self, view: &View<'_>, sink: &mut Sink) -> Result<bool, Error> {
        let left = &self.revisions[self.read..];
        self.read += read(view, &left[..left.len().min(ROWS_AT_ONCE)], sink)?;
        Ok(self.read < self.revisions.len())
    }
}

/// Reads rows until the sink is full. Returns their number.
fn read(view: &View<'_>, revisions: &[Revision], sink: &mut Sink) -> Result<usize, Error> {
    let part = sink.part;
    let read = view.mvcc.store.visit(revisions, part, |length, record| {
        sink.add(length, |bytes| bytes.put_slice(record));
        !sink.is_full()
    })?;
    Ok(read)
}

impl View<'_> {
    /// Measures the answer to a range. Sort order and target must be known values.
    pub fn measure(
        &self,
        request: &RangeRequest,
        header: &ResponseHeader,
        bounds: &Bounds,
    ) -> Result<Measured, Error> {
        let main = self.readable(request.revision)?;
        let Some(mut rows) = self.rows_of(request, main)? else {
            return self.at_once(request, header, bounds);
        };
        let mut bytes = vec![0; bounds.room];
        message::encode(HEADER, header, &mut bytes);
        let full_at = bounds.room + bounds.piece.min(bounds.whole);
        let mut sink = Sink { bytes, full_at, part: Part::Record, row_bytes: 0, rows: 0 };
        let mut has_ended = rows.run(self, &mut sink)?;
        let piece = (rows.clone(), sink.bytes.len(), sink.row_bytes, sink.rows);
        if !has_ended {
            sink.full_at = bounds.room + bounds.whole;
            has_ended = rows.run(self, &mut sink)?;
        }
        if !has_ended {
            sink.bytes.truncate(piece.1);
            sink.part = Part::Length;
            rows.run(self, &mut sink)?;
        }
        let (count, has_more) = rows.totals(self)?;
        let mut end = Vec::with_capacity(16);
        if has_more {
            bool::encode(MORE, &has_more, &mut end);
        }
        if count != 0 {
            int64::encode(COUNT, &count, &mut end);
        }
        let bytes = message::encoded_len(HEADER, header) + sink.row_bytes + end.len();
        let mut measured =
            Measured { first: sink.bytes, bytes, rows: sink.rows, count, rest: None };
        if bytes > bounds.message {
            measured.first = Vec::new();
        } else if has_ended {
            measured.first.extend_from_slice(&end);
        } else {
            let (rows, _, row_bytes, count) = piece;
            let (left_bytes, left_rows) = (sink.row_bytes - row_bytes, sink.rows - count);
            let pin = self.pin();
            measured.rest = Some(Rest { pin, rows, left_bytes, left_rows, end, is_done: false });
        }
        // What was allocated beyond the message would not count while it waits for its client.
        measured.first.shrink_to_fit();
        Ok(measured)
    }

    /// The rows of an answer that can be read twice. None for the others: counts, single keys,
    /// pairs in the order of their values, and keys without values in another order than their own.
    fn rows_of(&self, request: &RangeRequest, main: i64) -> Result<Option<Rows>, Error> {
        if request.count_only || request.range_end.is_empty() {
            return Ok(None);
        }
        let (target, order) = (request.sort_target(), key_order(request));
        if is_default_ordering(target, order) {
            return Ok(Some(Rows::Walk(Box::new(Walk::new(request, main)))));
        }
        if request.keys_only || target == SortTarget::Value {
            return Ok(None);
        }
        self.list(request, main, order).map(|list| Some(Rows::List(list)))
    }

    /// As `answer` collects, filters, sorts and cuts, without reading a row.
    fn list(&self, request: &RangeRequest, main: i64, order: SortOrder) -> Result<List, Error> {
        // Without an order, only as many keys as the limit admits are sorted, and one more.
        let mut limit = request.limit;
        let is_cut_early = is_default_ordering(request.sort_target(), request.sort_order())
            && !has_revision_filters(request);
        let collected = if is_cut_early { limit.saturating_add(1) } else { 0 };
        let all = RangeRequest { limit: if limit > 0 { collected } else { 0 }, ..request.clone() };
        let mut walk = Walk::new(&all, main);
        let mut found: Vec<KeyState> = Vec::new();
        while walk.start.is_some() {
            self.go_on()?;
            walk.visit(self, &mut |visited| {
                found.push(visited.found);
                true
            });
        }
        let (count, _) = Rows::Walk(Box::new(walk)).totals(self)?;
        match request.sort_target() {
            SortTarget::Key if order == SortOrder::Descend => found.reverse(),
            SortTarget::Version => sort_by_key(&mut found, order, |state| state.version),
            SortTarget::Create => sort_by_key(&mut found, order, |state| state.created.main),
            SortTarget::Mod => sort_by_key(&mut found, order, |state| state.modified.main),
            SortTarget::Key | SortTarget::Value => {}
        }
        limit = if limit > 0 { limit } else { i64::MAX };
        let has_more = i64::try_from(found.len()).unwrap_or(i64::MAX) > limit;
        found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let revisions = found.iter().map(|state| state.modified).collect();
        Ok(List { revisions, read: 0, count, has_more })
    }

    fn at_once(
        &self,
        request: &RangeRequest,
        header: &ResponseHeader,
        bounds: &Bounds,
    ) -> Result<Measured, Error> {
        let mut response = self.range(request)?;
        response.header = Some(*header);
        let (bytes, rows, count) = (response.encoded_len(), response.kvs.len(), response.count);
        let mut first = Vec::new();
        if bytes <= bounds.message {
            first.reserve_exact(bounds.room + bytes);
            first.resize(bounds.room, 0);
            response.encode_raw(&mut first);
        }
        Ok(Measured { first, bytes, rows, count, rest: None })
    }
}

impl Rest {
    /// Whether the last piece was given out.
    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Bytes of the message that are still to come.
    pub fn bytes(&self) -> usize {
        if self.is_done { 0 } else { self.left_bytes + self.end.len() }
    }

    /// Memory that is held beside the pieces, however long their client takes.
    pub fn held_bytes(&self) -> usize {
        size_of::<Self>()
            + match &self.rows {
                Rows::Walk(walk) => {
                    let start = walk.start.as_ref().map_or(0, |start| start.len());
                    let ends = walk.request.key.len() + walk.request.range_end.len();
                    size_of::<Walk>() + ROWS_AT_ONCE * size_of::<Revision>() + ends + start
                }
                Rows::List(list) => size_of_val(&*list.revisions),
            }
    }
}

impl Mvcc {
    /// Reads the next piece of an answer, of `bytes` and one row at most. Fails with `Expired` once
    /// its rows may be gone, and with `Changed` if they are not those that were measured. Blocks;
    /// not for threads that serve connections.
    pub fn next_piece(
        &self,
        rest: &mut Rest,
        bytes: usize,
        wanted: &ReadCheck,
    ) -> Result<Vec<u8>, Error> {
        wanted.check()?;
        let view = rest.pin.view(self, wanted)?;
        let full_at = bytes.min(rest.left_bytes);
        let room = (full_at + LAST_ROW_BYTES).min(rest.left_bytes) + rest.end.len();
        let bytes = Vec::with_capacity(room);
        let mut sink = Sink { bytes, full_at, part: Part::Record, row_bytes: 0, rows: 0 };
        match rest.rows.run(&view, &mut sink) {
            // The state is being replaced; what is read again would be that of another state.
            Err(Error::Replaced) => return Err(Error::Expired),
            other => other?,
        };
        let left_bytes = rest.left_bytes.checked_sub(sink.bytes.len());
        let left_rows = rest.left_rows.checked_sub(sink.rows);
        let (Some(left_bytes), Some(left_rows)) = (left_bytes, left_rows) else {
            return Err(Error::Changed);
        };
        if (left_bytes == 0) != (left_rows == 0) || left_bytes > 0 && !sink.is_full() {
            return Err(Error::Changed);
        }
        (rest.left_bytes, rest.left_rows) = (left_bytes, left_rows);
        if left_rows == 0 {
            sink.bytes.append(&mut rest.end);
            rest.is_done = true;
        }
        Ok(sink.bytes)
    }
}

#[cfg(test)]
mod tests;
