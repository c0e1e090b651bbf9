//! `make-mirror`: copies a prefix to another cluster and follows its changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use crate::cli::context::Context;
use crate::cli::exit::{Failure, Outcome};
use crate::cli::printer::{OnSignal, Printer, Unit};
use crate::cli::spec::Program;
use crate::client::{
    Client, Config, Deadline, Error, TlsOptions, WatchBatch, WatchSpec, Watcher, prefix_end, rpc,
};
use crate::pb::request_op::Request;
use crate::pb::{DeleteRangeRequest, EventType, PutRequest, RangeRequest, RequestOp, TxnRequest};

/// Keys per page of the copy, etcdctl's.
const PAGE_KEYS: i64 = 1000;
/// Interval at which the number of copied keys is printed.
const TOTAL_INTERVAL: Duration = Duration::from_secs(30);

struct Mirror {
    source: Client,
    destination: Client,
    prefix: Vec<u8>,
    dest_prefix: Vec<u8>,
    ops_max: usize,
    total: Arc<AtomicU64>,
    printer: Printer,
}

pub(super) async fn run(mut context: Context) -> Outcome {
    if context.args.len() != 1 {
        return Err(Failure::arguments("make-mirror takes one destination argument"));
    }
    let destination = destination(&context)?;
    let destination = context.connect(destination).await?;
    let source = context.client().await?;
    let bytes = |name| context.flags.bytes(name).to_vec();
    let (prefix, mut dest_prefix) = (bytes("prefix"), bytes("dest-prefix"));
    let strip = context.flags.bool("no-dest-prefix");
    if strip && !dest_prefix.is_empty() {
        return Err(Failure::arguments(
            "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one",
        ));
    }
    let start = (context.flags.int("rev") - 1).max(0);
    if start == 0 && !strip && dest_prefix.is_empty() {
        dest_prefix.clone_from(&prefix);
    }
    let total = Arc::new(AtomicU64::new(0));
    let ops_max = usize::try_from(context.flags.int("max-txn-ops")).unwrap_or_default().max(1);
    let printer = context.printer.clone();
    let mirror = Mirror {
        source,
        destination,
        prefix,
        dest_prefix,
        ops_max,
        total: Arc::clone(&total),
        printer: printer.clone(),
    };
    let ticker = tokio::spawn(async move {
        loop {
            sleep(TOTAL_INTERVAL).await;
            printer.line(total.load(Ordering::Relaxed).to_string());
        }
    });
    let outcome = mirror.run(start).await;
    ticker.abort();
    Err(match outcome {
        Ok(()) if context.program == Program::Rusd => {
            Failure::error("the source has ended the watch; start again with --rev to go on")
        }
        Ok(()) => Failure::error("<nil>"),
        Err(error) => error.into(),
    })
}

fn destination(context: &Context) -> Result<Config, Failure> {
    let flags = &context.flags;
    let path = |name| flags.path(name).map(PathBuf::from);
    let size = |name| usize::try_from(flags.int(name)).unwrap_or_default();
    Ok(Config {
        endpoints: vec![context.text(0)?],
        dial_timeout: flags.duration("dial-timeout"),
        keep_alive_time: flags.duration("keepalive-time"),
        keep_alive_timeout: flags.duration("keepalive-timeout"),
        send_bytes_max: size("max-request-bytes"),
        receive_bytes_max: size("max-recv-bytes"),
        tls: TlsOptions {
            cert: path("dest-cert"),
            key: path("dest-key"),
            ca: path("dest-cacert"),
            insecure_transport: flags.bool("dest-insecure-transport"),
            skip_verify: false,
            server_name: String::new(),
        },
        credentials: context.password_login("dest-user", "dest-password")?,
        reach: context.reach(),
        logger: "etcd-client",
    })
}

impl Mirror {
    async fn run(&self, start: i64) -> Result<(), Error> {
        let revision = if start == 0 { self.copy().await? } else { start };
        let range_end = prefix_end(&self.prefix);
        let key = if self.prefix.is_empty() { vec![0] } else { self.prefix.clone() };
        let mut watcher = Watcher::new(&self.source, false);
        let spec = WatchSpec {
            key: key.into(),
            range_end: range_end.into(),
            revision: revision + 1,
            ..WatchSpec::default()
        };
        watcher.add(spec);
        if self.printer.errors_on_screen() {
            let copied = self.total.load(Ordering::Relaxed);
            self.printer.err(format!(
                "{copied} keys copied, up to revision {revision}; changes follow until ctrl-c\n"
            ));
        }
        while let Some(batch) = watcher.next().await {
            if batch.compact_revision != 0 {
                return Err(Error::Other(batch.error().unwrap_or_default()));
            }
            self.follow(batch).await?;
        }
        Ok(())
    }

    /// Copies the present state, and returns its revision.
    async fn copy(&self) -> Result<i64, Error> {
        let probe = if self.prefix.is_empty() { b"foo".to_vec() } else { self.prefix.clone() };
        let request = RangeRequest { key: probe.into(), ..RangeRequest::default() };
        let response = self.source.call(&rpc::RANGE, request, Deadline::NONE).await?;
        let revision = response.header.unwrap_or_default().revision;
        let mut key = if self.prefix.is_empty() { vec![0] } else { self.prefix.clone() };
        let mut bar = None;
        let mut copied = 0;
        loop {
            let request = RangeRequest {
                key: key.into(),
                range_end: prefix_end(&self.prefix).into(),
                limit: PAGE_KEYS,
                revision,
                ..RangeRequest::default()
            };
            let page = self.source.call(&rpc::RANGE, request, Deadline::NONE).await?;
            // The first page says how many keys there are.
            let bar = bar.get_or_insert_with(|| {
                let keys = page.count.unsigned_abs();
                self.printer.progress(keys, Unit::Items, "keys", OnSignal::End)
            });
            for kv in &page.kvs {
                let request = PutRequest {
                    key: self.rename(&kv.key),
                    value: kv.value.clone(),
                    ..PutRequest::default()
                };
                self.destination.call(&rpc::PUT, request, Deadline::NONE).await?;
                self.total.fetch_add(1, Ordering::Relaxed);
                copied += 1;
                bar.set(copied);
            }
            let Some(last) = page.kvs.last().filter(|_| page.more) else { return Ok(revision) };
            key = [&last.key[..], &[0]].concat();
        }
    }

    /// Applies a batch of events with one transaction per revision.
    async fn follow(&self, batch: WatchBatch) -> Result<(), Error> {
        let mut ops = Vec::new();
        let mut last = 0;
        for event in batch.events {
            let kind = event.r#type();
            let Some(kv) = event.kv else { continue };
            if last != 0 && kv.mod_revision > last || ops.len() == self.ops_max {
                self.commit(std::mem::take(&mut ops)).await?;
            }
            last = kv.mod_revision;
            let key = self.rename(&kv.key);
            let request = match kind {
                EventType::Put => Request::RequestPut(PutRequest {
                    key,
                    value: kv.value,
                    ..PutRequest::default()
                }),
                EventType::Delete => Request::RequestDeleteRange(DeleteRangeRequest {
                    key,
                    ..DeleteRangeRequest::default()
                }),
            };
            ops.push(RequestOp { request: Some(request) });
            self.total.fetch_add(1, Ordering::Relaxed);
        }
        if ops.is_empty() { Ok(()) } else { self.commit(ops).await }
    }

    async fn commit(&self, success: Vec<RequestOp>) -> Result<(), Error> {
        let request = TxnRequest { success, ..TxnRequest::default() };
        self.destination.call(&rpc::TXN, request, Deadline::NONE).await.map(|_| ())
    }

    /// Replaces the source's prefix by the destination's.
    fn rename(&self, key: &[u8]) -> Bytes {
        let tail = key.strip_prefix(self.prefix.as_slice()).unwrap_or(key);
        [self.dest_prefix.as_slice(), tail].concat().into()
    }
}
