//! `lock`: holds a lock until a signal, or while a command runs.

use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use tokio::process::Command;

use super::signals::Signals;
use crate::cli::argv::Word;
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::client::{Client, Deadline, LogSink, Mutex, Session, rpc, timestamp};
use crate::clock::Clock as _;
use crate::pb::RangeRequest;

/// The session's time when `--ttl` makes no sense.
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
    let session = Session::new(&client, ttl).await?;
    let mut mutex = Mutex::new(&session, &context.arg(0));
    let mut signals = Signals::catch()?;
    let locked = tokio::select! {
        outcome = mutex.lock() => Some(outcome),
        () = signals.next() => None,
    };
    match locked {
        Some(outcome) => outcome?,
        None => {
            // A lock that was never asked for needs no release.
            let _ = mutex.unlock().await;
            return Err(Failure::error("context canceled"));
        }
    }
    if context.args.len() > 1 {
        let outcome = run_child(&mutex, &context.args[1..]).await;
        let unlocked = mutex.unlock().await;
        outcome?;
        return Ok(unlocked?);
    }
    show(&context, &client, &mutex).await?;
    tokio::select! {
        () = signals.next() => Ok(mutex.unlock().await?),
        () = session.lost() => Err(Failure::error("session expired")),
    }
}

async fn show(context: &Context, client: &Client, mutex: &Mutex<'_>) -> Outcome {
    let request = RangeRequest { key: mutex.key().clone(), ..RangeRequest::default() };
    let held = client.call(&rpc::RANGE, request, Deadline::NONE).await?;
    if held.kvs.is_empty() {
        return Err(Failure::error("lock lost on init"));
    }
    context.display.get(&held)
}

async fn run_child(mutex: &Mutex<'_>, words: &[Word]) -> Outcome {
    let mut words = words.iter().map(|word| std::ffi::OsString::from_vec(word.clone()));
    let Some(program) = words.next() else { return Ok(()) };
    let key = String::from_utf8_lossy(mutex.key()).into_owned();
    let status = Command::new(&program)
        .args(words)
        .env("ETCD_LOCK_KEY", key)
        .env("ETCD_LOCK_REV", mutex.held_revision.to_string())
        .stdin(std::process::Stdio::null())
        .status()
        .await
        .map_err(|error| Failure::error(spawn_error(&program.to_string_lossy(), &error)))?;
    if status.success() {
        return Ok(());
    }
    let code = status.code().map_or(255, |code| code as u8);
    Err(Failure::new(Exit::Child(code), exit_text(status)))
}

/// How Go words a child's end.
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

/// How Go words a command that could not be started.
pub(super) fn spawn_error(program: &str, error: &std::io::Error) -> String {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    match (missing, program.contains('/')) {
        (true, false) => format!("exec: \"{program}\": executable file not found in $PATH"),
        (true, true) => format!("fork/exec {program}: no such file or directory"),
        (false, _) => {
            let text = error.to_string();
            let reason = text.split(" (os error").next().unwrap_or_default().to_lowercase();
            format!("fork/exec {program}: {reason}")
        }
    }
}

fn warn_about_ttl(context: &Context) {
    let time = timestamp(context.clock.unix_nanos());
    LogSink::line(
        &context.printer,
        format!(
            "{{\"level\":\"warn\",\"ts\":\"{time}\",\"logger\":\"etcd-client\",\
             \"caller\":\"concurrency/session.go:125\",\
             \"msg\":\"WithTTL(): TTL should be > 0, preserving current TTL\",\
             \"current-session-ttl\":{SESSION_TTL_SECONDS}}}"
        ),
    );
}
