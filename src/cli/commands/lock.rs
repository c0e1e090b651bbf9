//! `lock`: holds a lock until a signal, or while a command runs.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use tokio::process::Command;

use super::signals::Signals;
use crate::cli::argv::Word;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::spec::Program;
use crate::client::{Client, Error, Mutex, Session, rpc};
use crate::clock::Clock as _;
use crate::go;
use crate::pb::RangeRequest;

/// TTL of the session's lease if `--ttl` is not positive, in seconds.
const SESSION_TTL_SECONDS: i64 = 60;

pub(super) async fn run(mut context: Context) -> Outcome {
    if context.args.is_empty() {
        return Err(Failure::arguments(
            "lock takes a lock name argument and an optional command to execute",
        ));
    }
    let client = context.client().await?;
    let mut ttl = context.flags.int("ttl");
    if ttl <= 0 {
        ttl = SESSION_TTL_SECONDS;
        warn_about_ttl(&context);
    }
    let session = Session::new(&client, ttl, context.late_deadline()).await?;
    let mut mutex = Mutex::new(&session, context.arg(0));
    let mut signals = Signals::catch()?;
    let locked = tokio::select! {
        outcome = mutex.lock() => Some(outcome),
        () = signals.next() => None,
        () = lost(&context, &session) => return Err(expired(&context, ttl)),
    };
    match locked {
        Some(outcome) => outcome?,
        None => {
            // Deletes the key that waits for the lock. If that takes too long, the key ends with
            // its lease.
            let _ = context.deadline().bound(mutex.unlock()).await;
            return Err(Failure::error("context canceled"));
        }
    }
    if context.args.len() > 1 {
        let outcome = tokio::select! {
            outcome = run_child(&mutex, &context.args[1..]) => outcome,
            () = warn_once_lost(&context, &session, ttl) => Ok(()),
        };
        let unlocked = release(&context, &mut mutex).await;
        outcome?;
        return unlocked;
    }
    show(&context, &client, &mutex).await?;
    if context.printer.closed() {
        // Standard output is closed, so the caller cannot learn that it holds the lock: it is
        // released.
        return release(&context, &mut mutex).await;
    }
    tokio::select! {
        () = signals.next() => release(&context, &mut mutex).await,
        () = session.lost() => Err(expired(&context, ttl)),
    }
}

/// Returns when the session is lost while the lock is waited for. etcdctl waits on without it.
pub(super) async fn lost(context: &Context, session: &Session) {
    match context.program {
        Program::Rusd => session.lost().await,
        _ => std::future::pending().await,
    }
}

fn expired(context: &Context, ttl: i64) -> Failure {
    Failure::error(match context.program {
        Program::Rusd => format!(
            "the lock is lost: its lease of {ttl}s was not renewed in time, or was revoked. Another \
             may hold the lock now"
        ),
        _ => "session expired".to_owned(),
    })
}

/// Warns when the lock is lost while its command runs, and never returns. The command runs on, as
/// under etcdctl, which does not say it.
async fn warn_once_lost(context: &Context, session: &Session, ttl: i64) {
    lost(context, session).await;
    let text = expired(context, ttl).message.unwrap_or_default();
    context.printer.err(format!("Warning: {text}; the command runs on\n"));
    std::future::pending().await
}

/// Releases the lock within --command-timeout. The call needs a deadline: signals are caught, so a
/// user could not end it.
async fn release(context: &Context, mutex: &mut Mutex<'_>) -> Outcome {
    let released = context.deadline().bound(mutex.unlock()).await;
    Ok(released.unwrap_or(Err(Error::Deadline))?)
}

async fn show(context: &Context, client: &Client, mutex: &Mutex<'_>) -> Outcome {
    let request = RangeRequest { key: mutex.key().clone(), ..RangeRequest::default() };
    let held = client.call(&rpc::RANGE, request, context.late_deadline()).await?;
    if held.kvs.is_empty() {
        return Err(Failure::error("lock lost on init"));
    }
    context.display.get(&held)
}

async fn run_child(mutex: &Mutex<'_>, words: &[Word]) -> Outcome {
    let Some((program, words)) = words.split_first() else { return Ok(()) };
    let status = Command::new(OsStr::from_bytes(program))
        .args(words.iter().map(|word| OsStr::from_bytes(word)))
        .env("ETCD_LOCK_KEY", OsStr::from_bytes(mutex.key()))
        .env("ETCD_LOCK_REV", mutex.held_revision.to_string())
        .stdin(std::process::Stdio::null())
        .status()
        .await
        .map_err(|error| Failure::bytes(Exit::Error, spawn_error(program, &error)))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().map_or(255, |code| code as u8);
    Err(Failure::new(Exit::Child(code), exit_text(status)))
}

/// The text of Go's error for a child that failed.
pub(super) fn exit_text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal: {}", signal_name(signal)),
        (None, None) => "exit status -1".into(),
    }
}

fn signal_name(signal: i32) -> String {
    match signal {
        1 => "hangup".into(),
        2 => "interrupt".into(),
        6 => "aborted".into(),
        9 => "killed".into(),
        11 => "segmentation fault".into(),
        13 => "broken pipe".into(),
        15 => "terminated".into(),
        other => format!("signal {other}"),
    }
}

/// The text of Go's error for a command that could not be started.
pub(super) fn spawn_error(program: &[u8], error: &std::io::Error) -> Vec<u8> {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    if missing && !program.contains(&b'/') {
        return format!("exec: {}: executable file not found in $PATH", go::quote(program)).into();
    }
    [b"fork/exec ", program, b": ", go::reason(error).as_bytes()].concat()
}

fn warn_about_ttl(context: &Context) {
    if context.program == Program::Rusd {
        let text = format!("Warning: --ttl must be above zero; it is {SESSION_TTL_SECONDS}s now\n");
        return context.printer.err(text);
    }
    let time = go::timestamp(context.clock.unix_nanos());
    let json = || {
        format!(
            "{{\"level\":\"warn\",\"ts\":\"{time}\",\"logger\":\"etcd-client\",\
             \"caller\":\"concurrency/session.go:125\",\
             \"msg\":\"WithTTL(): TTL should be > 0, preserving current TTL\",\
             \"current-session-ttl\":{SESSION_TTL_SECONDS}}}"
        )
    };
    context.printer.log(json, String::new);
}
