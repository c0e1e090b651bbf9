//! `get`: one key, a range, a prefix, or everything from a key.

use futures_util::StreamExt as _;

use crate::cli::argv::{Flags, Word};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::format::Format;
use crate::client::{Client, Deadline, Error, prefix_end, rpc};
use crate::go;
use crate::pb::range_request::{SortOrder, SortTarget};
use crate::pb::{RangeRequest, RangeResponse};

pub(super) async fn run(mut context: Context) -> Outcome {
    let request = request(&context.flags, &context.args)?;
    let deadline = context.deadline();
    let client = context.client().await?;
    let response = match context.flags.bool("stream") {
        true => stream(&client, request, deadline).await?,
        false => client.call(&rpc::RANGE, request, deadline).await?,
    };
    if context.flags.bool("count-only") && context.display.format != Format::Fields {
        return Err(Failure::arguments("--count-only is only for `--write-out=fields`"));
    }
    if context.flags.bool("print-value-only") {
        if context.display.format != Format::Simple {
            return Err(Failure::arguments("print-value-only is only for `--write-out=simple`"));
        }
        context.display.value_only = true;
    }
    context.display.get(&response)
}

async fn stream(
    client: &Client,
    request: RangeRequest,
    deadline: Deadline,
) -> Result<RangeResponse, Error> {
    let requests = tokio_stream::once(request).boxed();
    let known = |error| match error {
        Error::Stream(status) => Error::Status(status),
        other => other,
    };
    let mut stream =
        client.stream(&rpc::RANGE_STREAM, requests, false, deadline).await.map_err(known)?;
    let mut whole = RangeResponse::default();
    while let Some(part) = client.next(&mut stream, deadline).await.map_err(known)? {
        let Some(part) = part.range_response else { continue };
        whole.header = part.header.or(whole.header);
        whole.kvs.extend(part.kvs);
        whole.more = part.more;
        whole.count = part.count;
    }
    Ok(whole)
}

/// Parses a consistency, `l` or `s`. A wrong one is reported as `shown`: `member list` passes
/// another value there, as etcdctl does by mistake.
pub(super) fn is_serializable(consistency: &[u8], shown: &[u8]) -> Result<bool, Failure> {
    match consistency {
        b"s" => Ok(true),
        b"l" => Ok(false),
        _ => {
            let text = format!("unknown consistency flag {}", go::quote(shown));
            Err(Failure::new(Exit::BadFeature, text))
        }
    }
}

/// The request that flags and arguments describe; `txn` uses it as well.
pub(super) fn request(flags: &Flags, args: &[Word]) -> Result<RangeRequest, Failure> {
    let [key, rest @ ..] = args else {
        return Err(Failure::arguments(
            "get command needs one argument as key and an optional argument as range_end",
        ));
    };
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    let (keys_only, count_only) = (flags.bool("keys-only"), flags.bool("count-only"));
    if prefix && from_key {
        return Err(Failure::arguments(
            "`--prefix` and `--from-key` cannot be set at the same time, choose one",
        ));
    }
    if keys_only && count_only {
        return Err(Failure::arguments(
            "`--keys-only` and `--count-only` cannot be set at the same time, choose one",
        ));
    }
    let consistency = flags.bytes("consistency");
    let serializable = is_serializable(consistency, consistency)?;
    let (key, range_end) = range(key, rest, prefix, from_key)?;
    let (sort_target, sort_order) = sort(flags)?;
    let (min_create_revision, max_create_revision) = bounds(flags, "create", "Create")?;
    let (min_mod_revision, max_mod_revision) = bounds(flags, "mod", "Mod")?;
    Ok(RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        limit: flags.int("limit"),
        revision: flags.int("rev").max(0),
        sort_order: sort_order.into(),
        sort_target: sort_target.into(),
        serializable,
        keys_only,
        count_only,
        min_mod_revision,
        max_mod_revision,
        min_create_revision,
        max_create_revision,
    })
}

/// Key and range end for `KEY [END]`, a prefix, or everything from a key.
pub(super) fn range(
    key: &[u8],
    rest: &[Word],
    prefix: bool,
    from_key: bool,
) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    if (prefix || from_key) && !rest.is_empty() {
        return Err(Failure::arguments(
            "too many arguments, only accept one argument when `--prefix` or `--from-key` is set",
        ));
    }
    let first = || if key.is_empty() { vec![0] } else { key.to_vec() };
    Ok(match (prefix, from_key, rest.first()) {
        (true, ..) if key.is_empty() => (vec![0], vec![0]),
        (true, ..) => (key.to_vec(), prefix_end(key)),
        (_, true, _) => (first(), vec![0]),
        (_, _, Some(end)) => (key.to_vec(), end.clone()),
        _ => (key.to_vec(), Vec::new()),
    })
}

fn sort(flags: &Flags) -> Result<(SortTarget, SortOrder), Failure> {
    let (order, target) = (flags.bytes("order"), flags.bytes("sort-by"));
    let bad = |what: &[u8], word| Err(Failure::bytes(Exit::BadFeature, [what, word].concat()));
    let sort_order = match order.to_ascii_uppercase().as_slice() {
        b"ASCEND" => SortOrder::Ascend,
        b"DESCEND" => SortOrder::Descend,
        b"" => SortOrder::None,
        _ => return bad(b"bad sort order ", order),
    };
    let sort_target = match target.to_ascii_uppercase().as_slice() {
        b"CREATE" => SortTarget::Create,
        b"KEY" | b"" => SortTarget::Key,
        b"MODIFY" => SortTarget::Mod,
        b"VALUE" => SortTarget::Value,
        b"VERSION" => SortTarget::Version,
        _ => return bad(b"bad sort target ", target),
    };
    // The server returns keys in ascending order anyway; asked for it, it would sort once more.
    match (sort_target, sort_order) {
        (SortTarget::Key, SortOrder::Ascend) => Ok((SortTarget::Key, SortOrder::None)),
        pair => Ok(pair),
    }
}

fn bounds(flags: &Flags, flag: &str, name: &str) -> Result<(i64, i64), Failure> {
    let (min, max) = (flags.int(&format!("min-{flag}-rev")), flags.int(&format!("max-{flag}-rev")));
    if max > 0 && min > max {
        let text = format!("getMin{name}Rev(={min}) > getMax{name}Rev(={max})");
        return Err(Failure::new(Exit::BadFeature, text));
    }
    Ok((min.max(0), max.max(0)))
}
