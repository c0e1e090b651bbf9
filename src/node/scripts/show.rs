//! Answers as lines of a script.

use crate::mvcc::ChangeKind;
use crate::mvcc::kv::Pair;
use crate::pb::ResponseHeader;
use crate::pb::raw::{DeleteRangeResponse, PutResponse, RangeResponse, Response, TxnResponse};
use crate::store::Row;
use crate::types::Revision;
use crate::watch::Item;

pub(super) type Lines = Vec<String>;

/// Bytes as a word of the scripts; long ones are cut.
pub(super) fn word(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 40;
    match bytes.len() {
        0 => "\"\"".to_owned(),
        len if len > SHOWN_MAX => {
            format!("{}.. ({len} bytes)", bytes[..SHOWN_MAX / 2].escape_ascii())
        }
        _ => bytes.escape_ascii().to_string(),
    }
}

/// `KEY = VALUE` and the numbers that are set.
pub(super) fn pair(kv: &[u8]) -> String {
    let pair = Pair::parse(kv).unwrap();
    let mut line = format!("{} = {} ", word(pair.key), word(pair.value));
    let numbers = [
        ("create", pair.create_revision),
        ("mod", pair.mod_revision),
        ("version", pair.version),
        ("lease", pair.lease),
    ];
    for (name, number) in numbers.into_iter().filter(|(_, number)| *number != 0) {
        line += &format!(" {name} {number}");
    }
    line
}

pub(super) fn indent(lines: Lines) -> impl Iterator<Item = String> {
    lines.into_iter().map(|line| format!("  {line}"))
}

/// ` @REVISION`; nothing for the empty headers of nested transactions.
fn at(header: Option<&ResponseHeader>) -> String {
    match header.map_or(0, |header| header.revision) {
        0 => String::new(),
        revision => format!(" @{revision}"),
    }
}

pub(super) fn put(response: &PutResponse) -> Lines {
    let mut lines = vec![format!("put{}", at(response.header.as_ref()))];
    lines.extend(response.prev_kv.iter().map(|kv| format!("  previous {}", pair(kv))));
    lines
}

pub(super) fn delete(response: &DeleteRangeResponse) -> Lines {
    let at = at(response.header.as_ref());
    let mut lines = vec![format!("delete{at} deleted {}", response.deleted)];
    lines.extend(response.prev_kvs.iter().map(|kv| format!("  previous {}", pair(kv))));
    lines
}

pub(super) fn range(response: &RangeResponse) -> Lines {
    let more = if response.more { " more" } else { "" };
    let at = at(response.header.as_ref());
    let mut lines = vec![format!("range{at} count {}{more}", response.count)];
    lines.extend(response.kvs.iter().map(|kv| format!("  {}", pair(kv))));
    lines
}

pub(super) fn txn(response: &TxnResponse) -> Lines {
    let branch = if response.succeeded { "then" } else { "else" };
    let mut lines = vec![format!("txn{} {branch}", at(response.header.as_ref()))];
    for op in &response.responses {
        let of_op = match &op.response {
            Some(Response::Put(response)) => put(response),
            Some(Response::DeleteRange(response)) => delete(response),
            Some(Response::Range(response)) => range(response),
            Some(Response::Txn(response)) => txn(response),
            None => vec!["nothing".to_owned()],
        };
        lines.extend(indent(of_op));
    }
    lines
}

pub(super) fn row(row: &Row) -> String {
    let kind = if row.tombstone { "delete" } else { "put" };
    let what = if row.tombstone { tombstone(&row.kv) } else { pair(&row.kv) };
    format!("  {} {kind} {what}", row.rev)
}

/// A deletion: its key, and in events the revision.
fn tombstone(kv: &[u8]) -> String {
    let pair = Pair::parse(kv).unwrap();
    assert_eq!((pair.create_revision, pair.version, pair.lease), (0, 0, 0));
    let mod_revision = match pair.mod_revision {
        0 => String::new(),
        revision => format!("  mod {revision}"),
    };
    format!("{}{mod_revision}", word(pair.key))
}

/// `previous` gives the pair before a change, for watchers that asked for it.
pub(super) fn item(
    item: &Item,
    is_brief: bool,
    previous: impl Fn(&crate::mvcc::Change) -> Option<bytes::Bytes>,
) -> Lines {
    let (watch_id, revision, changes) = match item {
        Item::Created { watch_id, revision } => {
            return vec![format!("watch {watch_id} @{revision} created")];
        }
        Item::Canceled { watch_id, revision } => {
            return vec![format!("watch {watch_id} @{revision} canceled")];
        }
        Item::Progress { watch_id, revision } => {
            return vec![format!("watch {watch_id} @{revision} progress")];
        }
        Item::Compacted { watch_id, compact_revision } => {
            return vec![format!("watch {watch_id} canceled: compacted at {compact_revision}")];
        }
        Item::Events { watch_id, revision, changes } => (watch_id, revision, changes),
    };
    if is_brief {
        let (first, last) = (changes[0].revision, changes[changes.len() - 1].revision);
        let count = changes.len();
        return vec![format!("watch {watch_id} @{revision} {count} events, {first} to {last}")];
    }
    let mut lines = vec![format!("watch {watch_id} @{revision}")];
    for change in changes {
        lines.push(match change.kind {
            ChangeKind::Put => format!("  {} put {}", change.revision, pair(&change.kv)),
            ChangeKind::Delete => format!("  {} delete {}", change.revision, tombstone(&change.kv)),
        });
        lines.extend(previous(change).map(|kv| format!("    previous {}", pair(&kv))));
    }
    lines
}

/// A short form for successive responses of one watcher with one event each.
#[derive(Default)]
pub(super) struct Singles {
    /// Watch id, first and last revision, and the number of responses.
    row: Option<(i64, Revision, Revision, usize)>,
}

impl Singles {
    /// Whether the item was added to the row, which may begin with it.
    pub(super) fn take(&mut self, item: &Item) -> bool {
        let Item::Events { watch_id, changes, .. } = item else { return false };
        let [change] = &changes[..] else { return false };
        match &mut self.row {
            None => self.row = Some((*watch_id, change.revision, change.revision, 1)),
            Some((id, _, last, count)) if id == watch_id => {
                assert!(*last < change.revision, "out of order");
                (*last, *count) = (change.revision, *count + 1);
            }
            Some(_) => return false,
        }
        true
    }

    pub(super) fn end(&mut self) -> Option<String> {
        let (id, first, last, count) = self.row.take()?;
        Some(format!("watch {id} {count} responses of one event, {first} to {last}"))
    }
}
