//! Sends spans to a collector, as `--enable-distributed-tracing` asks for.
//!
//! One task takes ended spans from their queue, in batches, and sends one batch at a time: over
//! gRPC without TLS, as etcd does. A batch that cannot be sent is tried again for a while, then
//! dropped and counted. Meanwhile the queue fills up, and what does not fit is dropped as well, so
//! that nothing waits for a collector that is away or slow.

use std::sync::Arc;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use super::config::{Config, Tracing};
use super::otlp::{self, ExportRequest, ExportResponse};
use super::services::stopping;
use crate::clock::{self, Backoff, Clock, LogLimit, SystemClock};
use crate::supervise::{Supervisor, Tasks};
use crate::trace::{Ended, Tracer};
use crate::{go, limits, metrics};

/// The port of a target that names none, as in gRPC for Go.
const DEFAULT_PORT: &str = "443";

/// The tracer of a member with these settings, and what sends its spans. Without tracing the one is
/// off and the other is nothing.
pub(super) fn set_up(config: &Config) -> Result<(Tracer, Option<Exporter>), String> {
    let Some(settings) = &config.tracing else { return Ok((Tracer::default(), None)) };
    check_address(&settings.address)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let (tracer, spans) = Tracer::new(Arc::clone(&clock), settings.per_million);
    let exporter = Exporter {
        spans,
        channel: channel(&settings.address)?,
        resource: otlp::resource(settings),
        address: settings.address.clone(),
        said: LogLimit::new(limits::TRACE_LOG_INTERVAL),
        dropped: metrics::trace_spans_dropped().get(),
        clock,
    };
    say(settings);
    Ok((tracer, Some(exporter)))
}

fn say(settings: &Tracing) {
    tracing::debug!(
        address = settings.address,
        "service-name" = settings.service_name,
        "service-instance-id" = settings.instance_id,
        "sampling-rate" = settings.per_million,
        "distributed tracing enabled"
    );
    tracing::info!("distributed tracing setup enabled");
}

/// Refuses an address that is no target of gRPC, in Go's words. Any other is accepted, and may turn
/// out to name nothing.
fn check_address(address: &str) -> Result<(), String> {
    let url = go::quote(format!("dns:///{address}"));
    if address.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(format!("parse {url}: net/url: invalid control character in URL"));
    }
    let escapes = address.match_indices('%').map(|(at, _)| &address.as_bytes()[at..]);
    let faulty = escapes
        .map(|rest| &rest[..rest.len().min(3)])
        .find(|escape| escape.len() < 3 || !escape[1..].iter().all(u8::is_ascii_hexdigit));
    match faulty {
        Some(escape) => Err(format!("parse {url}: invalid URL escape {}", go::quote(escape))),
        None => Ok(()),
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A channel that connects when it is used, and again after it lost its connection.
fn channel(address: &str) -> Result<Channel, String> {
    let target = Target::parse(address);
    // The connector knows where to go; the URI only names the authority.
    let authority = match &target {
        Target::Tcp(place) => place.as_str(),
        Target::Unix(_) => "localhost",
    };
    let endpoint = Endpoint::from_shared(format!("http://{authority}"))
        .unwrap_or_else(|_| Endpoint::from_static("http://collector"))
        .user_agent(concat!("rusd/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| error.to_string())?
        // A collector that vanished without a word would cost all spans until the kernel gives its
        // connection up.
        .http2_keep_alive_interval(limits::TRACE_EXPORT_TIMEOUT)
        .keep_alive_timeout(limits::TRACE_EXPORT_TIMEOUT);
    Ok(endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
        let target = target.clone();
        async move {
            let stream: Box<dyn Stream> = match &target {
                Target::Tcp(place) => Box::new(TcpStream::connect(place.as_str()).await?),
                Target::Unix(path) => Box::new(UnixStream::connect(path).await?),
            };
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    })))
}

/// A target of gRPC: a host and a port, perhaps behind the name of a resolver, or a unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Tcp(String),
    Unix(String),
}

impl Target {
    fn parse(address: &str) -> Self {
        if let Some(path) = address.strip_prefix("unix:") {
            return Self::Unix(path.strip_prefix("//").unwrap_or(path).to_owned());
        }
        let resolvers = ["dns:///", "passthrough:///", "dns:", "ipv4:", "ipv6:"];
        let place = resolvers.iter().find_map(|resolver| address.strip_prefix(resolver));
        let place = place.unwrap_or(address);
        if place.is_empty() {
            return Self::Tcp(String::new());
        }
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => (host, port),
            _ => (place, DEFAULT_PORT),
        };
        let host = if host.is_empty() { "localhost" } else { host };
        Self::Tcp(format!("{host}:{port}"))
    }
}

/// Sends spans to the collector.
pub(super) struct Exporter {
    spans: mpsc::Receiver<Ended>,
    channel: Channel,
    resource: otlp::Resource,
    address: String,
    clock: Arc<dyn Clock>,
    said: LogLimit,
    /// Spans that were dropped when that was looked at last.
    dropped: u64,
}

/// A running exporter.
pub(super) struct Exporting {
    tasks: Tasks,
    stop: watch::Sender<bool>,
}

impl Exporting {
    pub(super) fn start(exporter: Option<Exporter>, supervisor: &Supervisor) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = supervisor.tasks("traces");
        if let Some(exporter) = exporter {
            tasks.start(exporter.run(stopped));
        }
        Self { tasks, stop }
    }

    /// Sends what is left, within `limits::TRACE_FLUSH_TIMEOUT`.
    pub(super) async fn finish(mut self) {
        self.stop.send_replace(true);
        drop(tokio::time::timeout(limits::TRACE_FLUSH_TIMEOUT, self.tasks.all_ended()).await);
    }
}

impl Exporter {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let batch = self.gather(&mut stop).await;
            if batch.is_empty() {
                return;
            }
            self.export(batch, &mut stop).await;
        }
    }

    /// The next batch. Empty once the server stops and nothing is left.
    async fn gather(&mut self, stop: &mut watch::Receiver<bool>) -> Vec<Ended> {
        const MAX: usize = limits::TRACE_BATCH_SPANS_MAX;
        let (mut batch, spans) = (Vec::new(), &mut self.spans);
        tokio::select! {
            biased;
            _ = spans.recv_many(&mut batch, MAX) => {}
            () = stopping(stop) => {}
        }
        let more = async {
            while (1..MAX).contains(&batch.len()) {
                let room = MAX - batch.len();
                if spans.recv_many(&mut batch, room).await == 0 {
                    break;
                }
            }
        };
        tokio::select! {
            () = more => {}
            () = self.clock.sleep(limits::TRACE_BATCH_INTERVAL) => {}
            () = stopping(stop) => {}
        }
        batch
    }

    /// Sends a batch. What is not sent in time, or refused, is counted as dropped.
    async fn export(&mut self, batch: Vec<Ended>, stop: &mut watch::Receiver<bool>) {
        let count = batch.len() as u64;
        let request = otlp::request(&self.resource, batch);
        let mut why = "the collector does not answer".to_owned();
        let sending = async {
            let mut backoff =
                Backoff::new(limits::TRACE_EXPORT_RETRY, limits::TRACE_EXPORT_RETRY_MAX);
            loop {
                let status = match self.send(request.clone()).await {
                    Ok(answer) => return Some(answer),
                    Err(status) => status,
                };
                why = cause(&status);
                if !may_be_repeated(status.code()) || *stop.borrow() {
                    return None;
                }
                tokio::select! {
                    () = backoff.rest(&*self.clock) => {}
                    () = stopping(stop) => {}
                }
            }
        };
        let limit = limits::TRACE_EXPORT_TIMEOUT;
        let answer = clock::timeout(&*self.clock, limit, sending).await.flatten();
        let (lost, why) = match answer {
            None => (count, why),
            Some(ExportResponse { partial_success: Some(partial) }) => {
                let rejected = u64::try_from(partial.rejected_spans).unwrap_or_default();
                (rejected.min(count), partial.error_message)
            }
            Some(_) => (0, String::new()),
        };
        metrics::trace_spans_dropped().inc_by(lost);
        let why = if lost > 0 { why } else { "the collector takes them too slowly".to_owned() };
        self.say_dropped(&why);
    }

    async fn send(&self, request: ExportRequest) -> Result<ExportResponse, Status> {
        let mut client = tonic::client::Grpc::new(self.channel.clone())
            .max_decoding_message_size(limits::TRACE_ANSWER_BYTES_MAX);
        client.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let codec = ProstCodec::<ExportRequest, ExportResponse>::default();
        let path = PathAndQuery::from_static(otlp::EXPORT);
        client
            .unary(tonic::Request::new(request), path, codec)
            .await
            .map(tonic::Response::into_inner)
    }

    /// Logs now and then that spans were dropped since that was looked at last.
    fn say_dropped(&mut self, why: &str) {
        let total = metrics::trace_spans_dropped().get();
        if total == self.dropped || !self.said.may_log(self.clock.now()) {
            return;
        }
        let dropped = total - self.dropped;
        self.dropped = total;
        tracing::warn!(
            address = self.address,
            dropped,
            error = why,
            hint =
                "see --distributed-tracing-address, or lower --distributed-tracing-sampling-rate",
            "failed to export traces"
        );
    }
}

/// Whether the collector may take the same spans later, by OTLP's rules.
fn may_be_repeated(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
    )
}

/// The innermost cause of a failed call: tonic's own text says no more than that it failed.
fn cause(status: &Status) -> String {
    let mut error: &dyn std::error::Error = status;
    while let Some(source) = error.source() {
        error = source;
    }
    match error.downcast_ref::<Status>() {
        Some(status) => format!("{}: {}", status.code(), status.message()),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_grpc() {
        let tcp = |place: &str| Target::Tcp(place.to_owned());
        for (address, target) in [
            ("localhost:4317", tcp("localhost:4317")),
            ("dns:///collector:4317", tcp("collector:4317")),
            ("passthrough:///10.0.0.1:4317", tcp("10.0.0.1:4317")),
            ("collector", tcp("collector:443")),
            ("[::1]:4317", tcp("[::1]:4317")),
            ("[::1]", tcp("[::1]:443")),
            (":4317", tcp("localhost:4317")),
            ("", tcp("")),
            ("unix:/run/otel.sock", Target::Unix("/run/otel.sock".to_owned())),
            ("unix:///run/otel.sock", Target::Unix("/run/otel.sock".to_owned())),
        ] {
            assert_eq!(Target::parse(address), target, "{address}");
        }
    }

    #[test]
    fn an_address_that_grpc_cannot_parse_is_refused() {
        for (address, why) in [
            ("%zz", r#"parse "dns:///%zz": invalid URL escape "%zz""#),
            ("a%4", r#"parse "dns:///a%4": invalid URL escape "%4""#),
            ("a\nb", r#"parse "dns:///a\nb": net/url: invalid control character in URL"#),
        ] {
            assert_eq!(check_address(address).unwrap_err(), why);
        }
        for address in ["", "a b", "http://127.0.0.1:4317", "host:99999999", "%41:4317"] {
            assert_eq!(check_address(address), Ok(()), "{address}");
        }
    }
}
