//! `txn`: compares and operations from standard input, committed as one transaction.

use std::io::{self, BufRead as _};

use super::{del, get, put};
use crate::cli::argv::{FlagError, Flags, Word, find};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::spec;
use crate::client::rpc;
use crate::go;
use crate::pb::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::pb::request_op::Request;
use crate::pb::{Compare, RequestOp, TxnRequest};

pub(super) async fn run(mut context: Context) -> Outcome {
    if !context.args.is_empty() {
        return Err(Failure::arguments("txn command does not accept argument"));
    }
    let client = context.client().await?;
    let mut request = TxnRequest::default();
    prompt(&context, "compares:");
    while let Some(line) = next_line()? {
        request.compare.push(compare(&line)?);
    }
    prompt(&context, "success requests (get, put, del):");
    while let Some(line) = next_line()? {
        request.success.push(operation(&line, &context).await?);
    }
    prompt(&context, "failure requests (get, put, del):");
    while let Some(line) = next_line()? {
        request.failure.push(operation(&line, &context).await?);
    }
    let reads = |op: &RequestOp| matches!(op.request, Some(Request::RequestRange(_)));
    let read_only = request.success.iter().chain(&request.failure).all(reads);
    let method = if read_only { &rpc::TXN_READ } else { &rpc::TXN };
    let response = client.call(method, request, context.late_deadline()).await?;
    context.display.txn(&response)
}

fn prompt(context: &Context, text: &str) {
    if context.flags.bool("interactive") {
        context.printer.line(text);
    }
}

/// The next line, trimmed; None for an empty one. A last line without a newline is an error, as in
/// etcdctl.
fn next_line() -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    let read = io::stdin().lock().read_until(b'\n', &mut line);
    read.map_err(|error| Failure::new(Exit::InvalidInput, error))?;
    if line.last() != Some(&b'\n') {
        return Err(Failure::new(Exit::InvalidInput, "EOF"));
    }
    let line = line.trim_ascii();
    Ok(if line.is_empty() { None } else { Some(line.to_vec()) })
}

/// Whether a line is a valid compare, or an operation with valid flags.
pub(super) fn understands(line: &[u8]) -> bool {
    let is_operation = |words: Vec<Word>| {
        let tree = spec::operations();
        let found = find(&tree, &words);
        Flags::of(&found.path).parse(&found.words).is_ok()
    };
    compare(line).is_ok() || split(line).is_ok_and(is_operation)
}

fn invalid(text: &str) -> Failure {
    Failure::new(Exit::InvalidInput, text)
}

/// An error text with the line that it is about.
fn invalid_line(what: &str, line: &[u8], why: &[u8]) -> Failure {
    Failure::bytes(Exit::InvalidInput, [what.as_bytes(), line, why].concat())
}

/// Reads `target("key") op "value"`.
fn compare(line: &[u8]) -> Result<Compare, Failure> {
    let malformed = |why: &[u8]| invalid_line("malformed comparison: ", line, why);
    let Some(open) = line.iter().position(|byte| *byte == b'(') else {
        return Err(malformed(b""));
    };
    let target = &line[..open];
    let (key, op, value) = parts(&line[open + 1..]);
    let Some(value) = value else {
        let key = format!("({}) ", go::quote(key.unwrap_or_default()));
        let op = op.unwrap_or_default();
        let got = [b"; got ", target, key.as_bytes(), &op, b" \"\""].concat();
        return Err(malformed(&got));
    };
    let number = |base| {
        let refused = |_| invalid_line("invalid txn compare request: ", line, b"");
        go::parse_int(&value, base).map_err(refused)
    };
    let (target, union) = match target {
        b"ver" | b"version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        b"c" | b"create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        b"m" | b"mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        b"val" | b"value" => (CompareTarget::Value, TargetUnion::Value(value.clone().into())),
        // etcdctl panics here. Hexadecimal, as lease ids are in every other place.
        b"lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        _ => return Err(malformed(&[b" (unknown target ", target, b")"].concat())),
    };
    let result = match op.as_deref() {
        Some(b"=") => CompareResult::Equal,
        Some(b"!=") => CompareResult::NotEqual,
        Some(b">") => CompareResult::Greater,
        Some(b"<") => CompareResult::Less,
        _ => return Err(Failure::new(Exit::BadConnection, "Unknown result op")),
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.unwrap_or_default().into(),
        range_end: bytes::Bytes::new(),
        target_union: Some(union),
    })
}

/// Key, operator and value of `"key") op "value"`, as far as the text can be parsed.
fn parts(text: &[u8]) -> (Option<Word>, Option<Word>, Option<Word>) {
    let Some((key, rest)) = go::unquote(text.trim_ascii_start()) else { return (None, None, None) };
    let Some(rest) = rest.strip_prefix(b")").filter(|rest| starts_blank(rest)) else {
        return (Some(key), None, None);
    };
    let rest = rest.trim_ascii_start();
    let length = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
    if length == 0 {
        return (Some(key), None, None);
    }
    let (op, rest) = (rest[..length].to_vec(), &rest[length..]);
    let value = go::unquote(rest.trim_ascii_start()).filter(|_| starts_blank(rest));
    (Some(key), Some(op), value.map(|(value, _)| value))
}

fn starts_blank(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_whitespace)
}

/// Reads a get, put or del with its flags.
async fn operation(line: &[u8], context: &Context) -> Result<RequestOp, Failure> {
    let words = split(line)?;
    if words.len() < 2 {
        return Err(invalid_line("invalid txn compare request: ", line, b""));
    }
    let unknown = || invalid_line("invalid txn request: ", line, b"");
    let tree = spec::operations();
    let found = find(&tree, &words);
    let mut flags = Flags::of(&found.path);
    let args = flags.parse(&found.words).map_err(|error| match error {
        FlagError::Help | FlagError::Message(_) => unknown(),
    })?;
    let request = match found.command().get_name() {
        "get" => Request::RequestRange(get::request(&flags, &args)?),
        "put" => Request::RequestPut(put::request(&flags, &args, || Ok(Vec::new()))?),
        "del" => {
            let request = del::request(&flags, &args)?;
            del::pause(&flags, &args, context).await;
            Request::RequestDeleteRange(request)
        }
        _ => return Err(unknown()),
    };
    Ok(RequestOp { request: Some(request) })
}

/// Splits a line into words: `"…"` as Go reads it, `'…'` as it stands, or what has no blank.
pub(super) fn split(line: &[u8]) -> Result<Vec<Word>, Failure> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(&first) = rest.first() {
        let length = match first {
            b'"' => quoted_length(rest),
            b'\'' => rest[1..].iter().position(|byte| *byte == b'\'').map(|at| at + 2),
            byte if byte.is_ascii_whitespace() => None,
            _ => Some(rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len())),
        };
        let Some(length) = length else {
            rest = &rest[1..];
            continue;
        };
        let (word, tail) = rest.split_at(length);
        words.push(match first {
            b'"' => go::unquote(word).ok_or_else(|| invalid("invalid syntax"))?.0,
            b'\'' => word[1..length - 1].to_vec(),
            _ => word.to_vec(),
        });
        rest = tail;
    }
    Ok(words)
}

/// The length of a double-quoted word, if it ends.
fn quoted_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(line: &str) -> String {
        compare(line.as_bytes()).unwrap_err().message.unwrap_or_default().to_string()
    }

    #[test]
    fn words_split_with_quotes() {
        let words = split(br#"put 'sq k' "a\tb \"q\"" x"y"#).unwrap();
        assert_eq!(words, [b"put".as_slice(), b"sq k", b"a\tb \"q\"", b"x\"y"]);
    }

    #[test]
    fn compares_are_read() {
        let read = compare(br#"mod("a b") >  "12""#).unwrap();
        assert_eq!(read.key.as_ref(), b"a b");
        assert_eq!(read.target_union, Some(TargetUnion::ModRevision(12)));
        assert_eq!(read.result(), CompareResult::Greater);
        let lease = compare(b"lease(`k`) = \"1f\"").unwrap();
        assert_eq!(lease.target_union, Some(TargetUnion::Lease(31)));
    }

    #[test]
    fn broken_compares_are_named() {
        assert_eq!(message("mod t1"), "malformed comparison: mod t1");
        assert_eq!(
            message("mod(\"t1\") = 0"),
            "malformed comparison: mod(\"t1\") = 0; got mod(\"t1\") = \"\""
        );
        assert_eq!(
            message("foo(\"t1\") = \"0\""),
            "malformed comparison: foo(\"t1\") = \"0\" (unknown target foo)"
        );
        assert_eq!(
            message("mod(\"t1\") = \"x\""),
            "invalid txn compare request: mod(\"t1\") = \"x\""
        );
    }
}
