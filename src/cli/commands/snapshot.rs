//! `snapshot save`: one member's state into a file.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;

use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::go;
use crate::client::{Client, Deadline, LogSink, rpc, timestamp};
use crate::clock::Clock as _;
use crate::pb::SnapshotRequest;

/// A snapshot is pages of 512 bytes at least, and a SHA-256 behind them.
const PAGE: u64 = 512;
const HASH: u64 = 32;

pub(super) async fn save(mut context: Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("snapshot save expects one argument <filename>"));
    }
    let path = context.arg(0);
    let config = context.config().await?;
    config.tls.validate().map_err(Failure::arguments)?;
    let deadline = match context.flags.changed("command-timeout") {
        true => context.deadline(),
        false => Deadline::NONE,
    };
    if config.endpoints.len() != 1 {
        return Err(interrupted(format!(
            "snapshot must be requested to one selected node, not multiple [{}]",
            config.endpoints.join(" ")
        )));
    }
    let endpoint = config.endpoints[0].clone();
    let client = context
        .connect(config)
        .await
        .map_err(|failure| Failure { exit: Exit::Interrupted, ..failure })?;
    let part = format!("{path}.part");
    let outcome = fetch(&context, &client, &endpoint, &path, &part, deadline).await;
    if outcome.is_err() {
        // It may not have been made.
        let _ = fs::remove_file(&part);
    }
    let version = outcome.map_err(interrupted)?;
    context.printer.line(format!("Snapshot saved at {path}"));
    if !version.is_empty() {
        context.printer.line(format!("Server version {version}"));
    }
    Ok(())
}

fn interrupted(message: String) -> Failure {
    Failure::new(Exit::Interrupted, message)
}

async fn fetch(
    context: &Context,
    client: &Client,
    endpoint: &str,
    path: &str,
    part: &str,
    deadline: Deadline,
) -> Result<String, String> {
    let start = context.clock.now();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options
        .open(part)
        .map_err(|error| format!("could not open {part} (open {part}: {})", go_text(&error)))?;
    let shown = json!(part);
    log(
        context,
        None,
        "snapshot/v3_snapshot.go:83",
        "created temporary db file",
        &format!(",\"path\":{shown}"),
    );
    let requests = tokio_stream::once(SnapshotRequest {}).boxed();
    let mut stream = client
        .stream(&rpc::SNAPSHOT, requests, false, deadline)
        .await
        .map_err(|error| error.to_string())?;
    let first = client.next(&mut stream, deadline).await.map_err(|error| error.to_string())?;
    let logger = Some("client");
    log(context, logger, "v3/maintenance.go:236", "opened snapshot stream; downloading", "");
    let named = format!(",\"endpoint\":{}", json!(endpoint));
    log(context, None, "snapshot/v3_snapshot.go:96", "fetching snapshot", &named);
    let mut next = first;
    let (mut bytes, mut version) = (0, String::new());
    while let Some(piece) = next {
        if !piece.version.is_empty() {
            version = piece.version;
        }
        file.write_all(&piece.blob)
            .map_err(|error| format!("could not write snapshot: {}", go_text(&error)))?;
        bytes += piece.blob.len() as u64;
        next = client
            .next(&mut stream, deadline)
            .await
            .map_err(|error| format!("could not write snapshot: {error}"))?;
    }
    log(context, logger, "v3/maintenance.go:302", "completed snapshot read; closing", "");
    if bytes % PAGE != HASH {
        return Err(format!("sha256 checksum not found [bytes: {bytes}]"));
    }
    finish(&file, part, path)?;
    let took = context.clock.now().saturating_sub(start);
    report(context, endpoint, path, bytes, took, &version);
    Ok(version)
}

fn finish(file: &File, part: &str, path: &str) -> Result<(), String> {
    file.sync_all().map_err(|error| format!("could not fsync snapshot: {}", go_text(&error)))?;
    fs::rename(part, path).map_err(|error| {
        let reason = go_text(&error);
        format!("could not rename {part} to {path} (rename {part} {path}: {reason})")
    })
}

fn report(
    context: &Context,
    endpoint: &str,
    path: &str,
    bytes: u64,
    took: Duration,
    version: &str,
) {
    let tail = format!(
        ",\"endpoint\":{},\"size\":\"{}\",\"took\":\"{}\",\"etcd-version\":{}",
        json!(endpoint),
        go::size(bytes),
        go::duration(took),
        json!(version)
    );
    log(context, None, "snapshot/v3_snapshot.go:111", "fetched snapshot", &tail);
    let tail = format!(",\"path\":{}", json!(path));
    log(context, None, "snapshot/v3_snapshot.go:121", "saved", &tail);
}

fn log(context: &Context, logger: Option<&str>, caller: &str, message: &str, tail: &str) {
    let time = timestamp(context.clock.unix_nanos());
    let logger = logger.map(|name| format!("\"logger\":\"{name}\",")).unwrap_or_default();
    LogSink::line(
        &context.printer,
        format!(
            "{{\"level\":\"info\",\"ts\":\"{time}\",{logger}\"caller\":\"{caller}\",\
             \"msg\":\"{message}\"{tail}}}"
        ),
    );
}

/// An error's text without Rust's number, as Go writes it.
fn go_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
