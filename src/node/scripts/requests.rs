//! Parses commands of scripts into the requests of a client.

use crate::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::range_request::{SortOrder, SortTarget};
use crate::pb::request_op::Request;
use crate::pb::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};
use crate::types::KeyRange;
use crate::watch::WatchSpec;

use super::words::Command;

type Result<T> = std::result::Result<T, String>;

/// `put KEY [VALUE] [lease=N] [prev] [ignore_value] [ignore_lease]`
pub(super) fn put(command: &mut Command) -> Result<PutRequest> {
    Ok(PutRequest {
        key: command.word("the key")?,
        value: command.word_or_empty(),
        lease: command.option_number("lease")?,
        prev_kv: command.flag("prev"),
        ignore_value: command.flag("ignore_value"),
        ignore_lease: command.flag("ignore_lease"),
    })
}

/// `delete KEY [END] [prev]`
pub(super) fn delete(command: &mut Command) -> Result<DeleteRangeRequest> {
    let key = command.word("the key")?;
    let range_end = command.word_or_empty();
    Ok(DeleteRangeRequest { key, range_end, prev_kv: command.flag("prev") })
}

/// `range KEY [END] [rev=N] [limit=N] [sort=TARGET] [asc|desc] [keys] [count]
/// [minmod=N] [maxmod=N] [mincreate=N] [maxcreate=N]`
pub(super) fn range(command: &mut Command) -> Result<RangeRequest> {
    let target = match command.option("sort").as_deref() {
        None | Some("key") => SortTarget::Key,
        Some("version") => SortTarget::Version,
        Some("create") => SortTarget::Create,
        Some("mod") => SortTarget::Mod,
        Some("value") => SortTarget::Value,
        Some(other) => return Err(format!("sort={other}")),
    };
    let order = match (command.flag("asc"), command.flag("desc")) {
        (false, false) => SortOrder::None,
        (_, true) => SortOrder::Descend,
        (true, false) => SortOrder::Ascend,
    };
    Ok(RangeRequest {
        key: command.word("the key")?,
        range_end: command.word_or_empty(),
        limit: command.option_number("limit")?,
        revision: command.option_number("rev")?,
        sort_order: order as i32,
        sort_target: target as i32,
        serializable: false,
        keys_only: command.flag("keys"),
        count_only: command.flag("count"),
        min_mod_revision: command.option_number("minmod")?,
        max_mod_revision: command.option_number("maxmod")?,
        min_create_revision: command.option_number("mincreate")?,
        max_create_revision: command.option_number("maxcreate")?,
    })
}

/// `txn` with lines below it: `if TARGET KEY [END] OPERATOR OPERAND`, `then OPERATION`,
/// `else OPERATION`.
pub(super) fn txn(command: &mut Command) -> Result<TxnRequest> {
    let mut request = TxnRequest::default();
    for mut line in std::mem::take(&mut command.below) {
        match line.text("if, then or else")?.as_str() {
            "if" => request.compare.push(compare(&mut line)?),
            "then" => request.success.push(operation(&mut line)?),
            "else" => request.failure.push(operation(&mut line)?),
            other => return Err(format!("{other} in a txn")),
        }
        line.end()?;
    }
    Ok(request)
}

fn operation(command: &mut Command) -> Result<RequestOp> {
    let request = match command.text("an operation")?.as_str() {
        "put" => Request::RequestPut(put(command)?),
        "delete" => Request::RequestDeleteRange(delete(command)?),
        "range" => Request::RequestRange(range(command)?),
        "txn" => Request::RequestTxn(Box::new(txn(command)?)),
        other => return Err(format!("{other} in a txn")),
    };
    Ok(RequestOp { request: Some(request) })
}

fn compare(command: &mut Command) -> Result<Compare> {
    let target = command.text("what to compare")?;
    let key = command.word("the key")?;
    // KEY [END] OPERATOR OPERAND
    let range_end = match command.words_left() {
        3 => command.word("the end")?,
        _ => bytes::Bytes::new(),
    };
    let result = match command.text("the operator")?.as_str() {
        "=" => CompareResult::Equal,
        "!=" => CompareResult::NotEqual,
        ">" => CompareResult::Greater,
        "<" => CompareResult::Less,
        other => return Err(format!("{other} is no operator")),
    };
    let (target, union) = match target.as_str() {
        "version" => (CompareTarget::Version, TargetUnion::Version(command.number("operand")?)),
        "create" => {
            (CompareTarget::Create, TargetUnion::CreateRevision(command.number("operand")?))
        }
        "mod" => (CompareTarget::Mod, TargetUnion::ModRevision(command.number("operand")?)),
        "value" => (CompareTarget::Value, TargetUnion::Value(command.word("operand")?)),
        "lease" => (CompareTarget::Lease, TargetUnion::Lease(command.number("operand")?)),
        other => return Err(format!("{other} cannot be compared")),
    };
    Ok(Compare {
        result: result as i32,
        target: target as i32,
        key,
        range_end,
        target_union: Some(union),
    })
}

/// `lease grant ID ttl=SECONDS`
pub(super) fn lease_grant(command: &mut Command) -> Result<LeaseGrantRequest> {
    Ok(LeaseGrantRequest { id: command.number("the id")?, ttl: command.option_number("ttl")? })
}

/// `watch KEY [END] [id=N] [from=REVISION] [filter=noput|nodelete|noput,nodelete]`
pub(super) fn watch(command: &mut Command) -> Result<WatchSpec> {
    let filter = command.option("filter").unwrap_or_default();
    let is_filtered = |name: &str| filter.split(',').any(|filter| filter == name);
    Ok(WatchSpec {
        range: KeyRange::new(command.word("the key")?, command.word_or_empty()),
        start_revision: command.option_number("from")?,
        watch_id: command.option_number("id")?,
        no_put: is_filtered("noput"),
        no_delete: is_filtered("nodelete"),
        prev_kv: false,
    })
}
