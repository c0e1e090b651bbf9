//! The server program: configuration, listeners, start and stop.
//!
//! ```text
//!   flags ─► log ─► bind peer and client ports ─► data directory ─► node ─► metrics port
//!         ─► ready (published through the log) ─► client ports ─► READY=1
//!   signal ─► streams end ─► leadership handed on ─► ports close ─► node stops, all is durable
//!          ─► die by the signal
//! ```
//!
//! Nothing below this room reads flags, the environment or signals. A port is bound early, so that
//! a second server fails before it touches the data, and answers late, so that no client sees a
//! member that is not part of its cluster yet. The metrics port answers in between: a probe must
//! be able to tell a member that waits for its quorum from one that hangs.
//!
//! | subject | files |
//! |---|---|
//! | settings | `flags`, `reference`, `kindly`, `file`, `config`, `environment`, `values`, `addresses`, `check`, `load` |
//! | the first members | `url`, `resolve`, `member_list`, `discovery`, `join`, `cluster` |
//! | a connection | `stream`, `connection`, `executor`, `io`, `inbound`, `hpack`, `huffman` |
//! | bytes that clients make the member hold | `outbox`, `unread`, `unfinished` |
//! | ports | `listen`, `services`, `tls`, `serve` |
//! | the TCP gateway | `relay` |
//! | spans | `traces`, `otlp` |
//! | start and end | `early_exit`, `refusal`, `holders`, `datadir`, `member`, `run`, `outlook`, `startup_log`, `signals` |
//! | process | `log`, `rotate`, `journal`, `notify`, `malloc`, `version` |

mod addresses;
mod certificates;
mod charged;
mod check;
mod cluster;
mod config;
mod connection;
mod datadir;
mod discovery;
mod early_exit;
mod environment;
mod executor;
mod file;
mod flags;
#[cfg(test)]
mod gateway_tests;
mod heads;
mod holders;
#[cfg(test)]
mod hostile_snapshot_tests;
mod hpack;
mod huffman;
mod inbound;
mod io;
mod join;
mod journal;
mod kindly;
mod line;
mod listen;
mod load;
mod log;
mod malloc;
mod measured;
mod member;
mod member_list;
mod notify;
mod otlp;
mod outbox;
mod outlook;
mod reference;
mod refusal;
mod relay;
mod resolve;
mod rotate;
mod run;
mod serve;
mod services;
mod signals;
#[cfg(test)]
mod snapshot_tests;
mod socket;
mod startup_log;
mod stream;
#[cfg(test)]
mod tests;
mod tls;
mod traces;
mod unfinished;
mod unread;
mod url;
mod values;
mod version;
mod websocket;
#[cfg(test)]
mod wire_tests;
mod write_limit;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Semaphore, watch};

use crate::gateway::{self, Gateway};
use crate::http::{Http, Port};
use crate::node::Node;
use crate::supervise::{Supervisor, slice};
use crate::{limits, rpc, supervise};
pub use config::StartedAs;
use config::{Config, Notice, Stop};
use connection::{Origin, connection};
use early_exit::stop_early;
use member::End;
use outbox::Outbox;
use refusal::Refusal;
use services::{Keepalive, Services};
use signals::die_by;

pub use reference::{Reference, gateway_flags, help_topic, serve_flags};
pub use relay::relay;
pub use signals::take_strays;

/// Names and peer URLs of a cluster's first members, as `--initial-cluster` gives them, checked
/// against this member's name and advertised URLs.
pub async fn first_cluster(
    name: &str,
    initial_cluster: &str,
    advertise_peer_urls: &str,
) -> Result<Vec<(String, Vec<String>)>, String> {
    let advertised = url::Url::parse_list(advertise_peer_urls)?;
    cluster::listed(name, initial_cluster, &advertised).await
}

/// Runs the server until it ends, and returns its exit code. `words` is the command line with the
/// program's name.
pub fn main(words: Vec<OsString>, started_as: StartedAs) -> ExitCode {
    malloc::set_up();
    let words: Vec<String> =
        words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let environment: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .collect();
    let mut notices = Vec::new();
    // As rusd, the command `serve` comes before the flags.
    let skipped = if started_as == StartedAs::Rusd { 2 } else { 1 };
    let flags = words.get(skipped..).unwrap_or_default();
    let (flags, environment) = match started_as {
        StartedAs::Etcd => (flags.to_vec(), environment),
        StartedAs::Rusd => match kindly::arguments(flags) {
            Ok(flags) => (flags, kindly::environment(environment)),
            Err(mistake) => return early_exit::mistaken(&mistake),
        },
    };
    match load::load(started_as, &flags, &environment, &mut notices) {
        Ok(config) => match log::Logger::new(&config.log) {
            Ok(logger) => {
                logger.install();
                end_at_panic();
                start(config, &words, &notices)
            }
            Err(error) => stop_early(started_as, &Stop::Invalid(error), &words, &notices),
        },
        Err(stop) => stop_early(started_as, &stop, &words, &notices),
    }
}

/// The settings that a server would start with, as a debug text; or its exit code and the text of
/// its error, which is empty for help and version. For tests that give it arbitrary input.
pub fn settings(
    arguments: &[String],
    environment: &[(String, String)],
) -> Result<String, (u8, String)> {
    let mut notices = Vec::new();
    match load::load(StartedAs::Etcd, arguments, environment, &mut notices) {
        Ok(config) => Ok(format!("{config:?} {notices:?}")),
        Err(stop) => {
            let (code, text) = stop.outcome();
            Err((code, text.to_owned()))
        }
    }
}

/// What [`serve_connection`] serves: a member, its services, and the kind of port.
pub struct Served {
    pub rpc: Arc<rpc::Server>,
    pub http: Arc<Http>,
    pub node: Node,
    pub port: Port,
}

/// Serves one connection until it ends, as a port without TLS does. For tests that bring their own
/// stream.
pub async fn serve_connection<S>(stream: S, served: Served)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let is_client = served.port == Port::Client;
    let gateway = Gateway::new(Arc::clone(&served.rpc), gateway::Config::default());
    let services = Services {
        outbox: Outbox::new(Arc::clone(served.node.answers()), served.rpc.message_bytes_max()),
        rpc: Some(served.rpc).filter(|_| is_client),
        gateway: is_client.then_some(gateway),
        serves_http: true,
        http: served.http,
        peers: Arc::clone(served.node.peers()),
        port: served.port,
        names_users: false,
        checks_addresses: false,
        keepalive: Keepalive {
            minimum: Duration::from_secs(5),
            interval: Duration::ZERO,
            timeout: Duration::from_secs(20),
            streams_max: 16,
        },
        is_traced: false,
        header_timeout: limits::HTTP_HEADER_TIMEOUT,
        peer_write_timeout: limits::PEER_WRITE_TIMEOUT,
        connections: Arc::new(Semaphore::new(1)),
        supervisor: served.node.supervisor().clone(),
    };
    let (_running, stop) = watch::channel(false);
    connection(stream, Origin::default(), services, stop).await;
}

/// Logs panics, which are mistakes in rusd, as lines of the log's form, and ends the process: the
/// text of the default hook would be lost among them.
fn end_at_panic() {
    supervise::end_at_panic(1, |place, thread, panicked| {
        tracing::error!(target: log::FATAL, place, thread, "panic: {}", panicked.why());
        tracing::error!(error = %panicked, "the member stops");
        fatal("the member cannot go on", &panicked.to_string());
    });
}

/// Logs the last line of a server that cannot go on.
fn fatal(message: &str, error: &str) -> ExitCode {
    tracing::error!(target: log::FATAL, error, "{message}");
    ExitCode::FAILURE
}

/// Logs the last line of a server that does not start.
fn refused(started_as: StartedAs, refusal: &Refusal) -> ExitCode {
    let Refusal { subject, error, hint } = refusal;
    if started_as == StartedAs::Etcd {
        return fatal("discovery failed", error);
    }
    tracing::error!(
        target: log::FATAL,
        error,
        hint = Some(hint.as_str()).filter(|hint| !hint.is_empty()),
        "{subject}"
    );
    ExitCode::FAILURE
}

/// The runtimes of clients and of the member. The member's own tasks and its peers have one thread
/// for themselves: clients' load does not delay them, and a message from a peer wakes one thread
/// instead of several that share the work.
fn runtimes() -> std::io::Result<(Runtime, Runtime)> {
    let clients = Builder::new_multi_thread()
        .event_interval(limits::TASKS_BETWEEN_POLLS)
        .global_queue_interval(limits::TASKS_BETWEEN_WOKEN)
        .on_thread_start(|| slice::set(Duration::ZERO))
        .enable_all()
        .build()?;
    let member = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("rusd-member")
        .on_thread_start(|| slice::set(Duration::ZERO))
        .enable_all()
        .build()?;
    Ok((clients, member))
}

fn start(mut config: Config, arguments: &[String], notices: &[Notice]) -> ExitCode {
    startup_log::begun();
    notices.iter().for_each(startup_log::notice);
    tracing::info!(args = ?arguments, "Running: ");
    startup_log::unsynced(&config);
    let clients = [config.listen_client_urls.as_slice(), &config.listen_client_http_urls].concat();
    if let Err(error) = config.tls.make(&config.data_dir, &clients, &config.listen_peer_urls) {
        return refused(config.started_as, &Refusal::of_text(&error));
    }
    if config.started_as == StartedAs::Rusd
        && let Some(refusal) = Refusal::of_files(&config)
    {
        return refused(config.started_as, &refusal);
    }
    let (clients, member) = match runtimes() {
        Ok(runtimes) => runtimes,
        Err(error) => return fatal("cannot start threads", &error.to_string()),
    };
    // A new thread inherits the slices of the one that has started it, so both runtimes set them back.
    // The worker of `member` then gets short ones by a task: the runtime's threads for blocking work,
    // which are to keep the usual ones, start in the same way as the worker.
    let prompt = async { slice::set(limits::PROMPT_SLICE) };
    Supervisor::default().task_on(member.handle(), "slice", prompt);
    let ended = clients.block_on(run::run(&config, arguments, member.handle()));
    // Connections that did not end in time must not hold the process.
    clients.shutdown_background();
    member.shutdown_background();
    match ended {
        Ok(End::Signal(signal)) => die_by(signal),
        Ok(End::Failure(error)) => fatal("the member cannot go on", &error),
        Ok(End::Removed) => {
            let error = "the member has been permanently removed from the cluster";
            tracing::error!(error, "server error");
            tracing::warn!("data-dir used by this member must be removed");
            ExitCode::SUCCESS
        }
        Err(error @ cluster::Error::Discovery(_)) => {
            tracing::warn!(
                "discovery-token" = config.discovery.token,
                "discovery-endpoints" = ?config.discovery.endpoints,
                %error,
                "failed to bootstrap; discovery token was already used"
            );
            tracing::warn!(
                "do not reuse discovery token; generate a new one to bootstrap a cluster"
            );
            ExitCode::FAILURE
        }
        Err(cluster::Error::Refused(refusal)) => refused(config.started_as, &refusal),
        Err(error) => {
            refused(config.started_as, &Refusal::of_bootstrap(&config, &error.to_string()))
        }
    }
}
