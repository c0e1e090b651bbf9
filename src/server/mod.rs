//! The server program: configuration, listeners, start and stop.
//!
//! ```text
//!   flags ─► log ─► bind peer and client ports ─► data directory ─► node ─► metrics port
//!         ─► ready (published through the log) ─► client ports ─► READY=1
//!   signal ─► streams end, ports close ─► node stops, all is durable ─► die by the signal
//! ```
//!
//! Nothing below this room reads flags, the environment or signals. A port is bound early, so that
//! a second server fails before it touches the data, and answers late, so that no client sees a
//! member that is not part of its cluster yet. The metrics port answers in between: a probe must
//! be able to tell a member that waits for its quorum from one that hangs.

mod cluster;
mod config;
mod datadir;
mod discovery;
mod environment;
mod executor;
mod file;
mod flags;
mod go;
#[cfg(test)]
mod hostile_snapshot_tests;
mod hpack;
mod inbound;
mod io;
mod join;
mod listen;
mod log;
mod malloc;
mod notify;
mod outbox;
mod resolve;
mod said;
mod signals;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod tests;
mod tls;
mod unfinished;
mod unread;
mod url;
#[cfg(test)]
mod wire_tests;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::clock::SystemClock;
use crate::http::{self, Http, Port};
use crate::node::{self, Node};
use crate::supervise::Tasks;
use crate::upkeep::{CheckpointPace, Retention};
use crate::{limits, metrics, rpc};
use config::{Compaction, Config, Notice, Source, Stop};
use listen::{Keepalive, Listener, Services};
use outbox::Outbox;
use signals::Signals;

pub use signals::take_strays;

const VERSION: &str = "3.7.1";
/// What stands where etcd names its commit and its compiler.
const GIT_SHA: &str = concat!("rusd-", env!("CARGO_PKG_VERSION"));
const GO_VERSION: &str = "none, this is rusd";

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

/// Runs the server with these words, the program's name first, until a signal. `skipped` of them
/// come before the flags.
pub fn main(words: Vec<OsString>, skipped: usize) -> ExitCode {
    malloc::set_up();
    let words: Vec<String> =
        words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let environment: Vec<(String, String)> = std::env::vars_os()
        .map(|(name, value)| {
            (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
        })
        .collect();
    let mut notices = Vec::new();
    let flags = words.get(skipped..).unwrap_or_default();
    match config::load(flags, &environment, &mut notices) {
        Ok(config) => match log::Logger::new(&config.log) {
            Ok(logger) => {
                logger.install();
                log_panics();
                start(config, &words, &notices)
            }
            Err(error) => {
                let stop = Stop::Invalid(error);
                stop_early(&stop, &words, &notices)
            }
        },
        Err(stop) => stop_early(&stop, &words, &notices),
    }
}

/// What a server would be started with, in no certain form; or its exit code and what it would say,
/// which for help and version is not worth a word here. For tests that give it anything.
pub fn settings(
    arguments: &[String],
    environment: &[(String, String)],
) -> Result<String, (u8, String)> {
    let mut notices = Vec::new();
    match config::load(arguments, environment, &mut notices) {
        Ok(config) => Ok(format!("{config:?} {notices:?}")),
        Err(stop) => {
            let (code, text) = stop.outcome();
            Err((code, text.to_owned()))
        }
    }
}

/// A member and what it answers with, for [`serve_connection`].
pub struct Served {
    pub rpc: Arc<rpc::Server>,
    pub http: Arc<Http>,
    pub node: Node,
    pub port: Port,
}

/// Serves one connection as a port without TLS does, until it ends: for tests that bring their own.
pub async fn serve_connection<S>(stream: S, served: Served)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let is_client = served.port == Port::Client;
    let services = Services {
        outbox: Outbox::new(Arc::clone(served.node.answers()), served.rpc.message_bytes_max()),
        rpc: Some(served.rpc).filter(|_| is_client),
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
        header_timeout: limits::HTTP_HEADER_TIMEOUT,
        connections: Arc::new(Semaphore::new(1)),
        supervisor: served.node.supervisor().clone(),
    };
    let (_running, stop) = watch::channel(false);
    listen::connection(stream, listen::Origin::default(), services, stop).await;
}

/// A panic is a mistake of ours; its line must not be lost among lines of another form.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(target: log::FATAL, place, thread, "panic: {}", text.unwrap_or("unknown"));
    }));
}

/// Tells what was asked for. A reader that has gone away has had enough; anything else that is in the
/// way is a failure.
fn told(text: &str) -> ExitCode {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            drop(writeln!(std::io::stderr(), "write /dev/stdout: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

/// Ends a start that the flags do not allow, in etcd's way.
fn stop_early(stop: &Stop, words: &[String], notices: &[Notice]) -> ExitCode {
    let mut err = std::io::stderr();
    match stop {
        Stop::Help => {
            drop(err.write_all(USAGE.as_bytes()));
            return told(&help());
        }
        Stop::Version => return told(&version()),
        Stop::Usage(text) => drop(write!(err, "{text}\n{USAGE}")),
        Stop::Invalid(error) => {
            default_log();
            notices.iter().for_each(said::notice);
            tracing::info!(args = ?words, "Running: ");
            tracing::warn!(error, "failed to verify flags");
            if error.starts_with("--advertise-client-urls is required") {
                tracing::warn!(error, "advertise client URLs are not set");
            }
        }
        Stop::Conflict(variable) => {
            default_log();
            notices.iter().for_each(said::notice);
            tracing::error!(
                target: log::FATAL,
                { "environment-variable" = variable },
                "conflicting environment variable is shadowed by corresponding command-line flag \
                 (either unset environment variable or disable flag))"
            );
        }
    }
    ExitCode::from(stop.outcome().0)
}

fn default_log() {
    let settings =
        config::Log { level: config::Level::Info, json: true, outputs: vec!["default".into()] };
    if let Ok(logger) = log::Logger::new(&settings) {
        logger.install();
    }
}

const USAGE: &str = "Usage:\n\n  etcd [flags]\n    Start the server.\n\n  etcd --version\n    \
                     Show the version.\n\n  etcd -h | --help\n    Show the flags.\n";

fn help() -> String {
    let mut text = String::from("Flags (a value may follow = or a space):\n\n");
    for flag in flags::FLAGS.iter().filter(|flag| !flag.help.is_empty()) {
        let note = match flag.support {
            flags::Support::Honoured => "",
            flags::Support::Ignored => " (accepted without effect)",
            flags::Support::Default => " (only the default is supported yet)",
        };
        text.push_str(&format!("  --{} '{}'\n    {}{note}\n", flag.name, flag.default, flag.help));
    }
    text
}

fn version() -> String {
    let (system, arch) = (std::env::consts::OS, said::arch());
    format!(
        "etcd Version: {VERSION}\nGit SHA: {GIT_SHA}\nGo Version: {GO_VERSION}\nGo OS/Arch: {system}/{arch}\n"
    )
}

/// The last line of a server that cannot go on.
fn fatal(message: &str, error: &str) -> ExitCode {
    tracing::error!(target: log::FATAL, error, "{message}");
    ExitCode::FAILURE
}

fn start(mut config: Config, arguments: &[String], notices: &[Notice]) -> ExitCode {
    notices.iter().for_each(said::notice);
    tracing::info!(args = ?arguments, "Running: ");
    let clients = [config.listen_client_urls.as_slice(), &config.listen_client_http_urls].concat();
    if let Err(error) = config.tls.make(&config.data_dir, &clients, &config.listen_peer_urls) {
        return fatal("discovery failed", &error);
    }
    // The member's own tasks and its peers have one thread for themselves: clients' load does not
    // delay them, and what comes from a peer wakes one thread and not several that share the work.
    let clients = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let member = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("rusd-member")
        .enable_all()
        .build();
    let (clients, member) = match (clients, member) {
        (Ok(clients), Ok(member)) => (clients, member),
        (Err(error), _) | (_, Err(error)) => {
            return fatal("cannot start threads", &error.to_string());
        }
    };
    let ended = clients.block_on(run(&config, arguments, member.handle()));
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
        Err(error) => fatal("discovery failed", &error.to_string()),
    }
}

/// Ends the process the way its signal would have. The first process of a container cannot be
/// killed by a default action, so it ends with success.
fn die_by(signal: i32) -> ExitCode {
    if std::process::id() == 1 {
        return ExitCode::SUCCESS;
    }
    drop(signal_hook::low_level::emulate_default_handler(signal));
    ExitCode::from(128_u8.saturating_add(u8::try_from(signal).unwrap_or(0)))
}

/// Why a member that was started ends.
enum End {
    Signal(i32),
    Failure(String),
    /// The cluster goes on without this member.
    Removed,
}

/// Serves until a signal, or until the node cannot go on. An error means that it was never started.
async fn run(
    config: &Config,
    arguments: &[String],
    member: &tokio::runtime::Handle,
) -> Result<End, cluster::Error> {
    let connections = connections_max()?;
    let is_initialized = datadir::is_initialized(&config.data_dir, config.wal_dir.as_deref())?;
    let Bound { peers, clients, probes } = bind(config, member)?;
    let node = open(config, is_initialized, &peers, member).await?;
    if config.locks_memory
        && let Err(error) = lock_memory()
    {
        return Ok(stop_node(&node, End::Failure(error)).await);
    }
    // Before anybody can see this member: who then stops it finds all of it in the store.
    let mut signals = Signals::catch().map_err(|why| format!("catching signals failed: {why}"))?;
    say_gates(config);
    said::local_address(config);

    let services = services(config, arguments, &node, connections);
    let (stop, stopped) = watch::channel(false);
    let mut ports = node.supervisor().tasks("port");
    let serve = |ports: &mut Tasks, listeners: Vec<Listener>, services: &Services| {
        for listener in listeners {
            ports.start(listen::serve(listener, services.clone(), stopped.clone()));
        }
    };
    let checks_names = !config.tls.skip_peer_names;
    let for_peers = services.of_other(Port::Peer, connections, checks_names);
    for listener in peers {
        let serving = listen::serve(listener, for_peers.clone(), stopped.clone());
        ports.start_on(serving, member);
    }
    serve(&mut ports, probes, &services.of_other(Port::Metrics, connections, true));
    said::serving(config, node.header().member_id);
    let (mut ready, mut fatal, mut removed) = (node.ready(), node.fatal(), node.removed());
    tokio::select! {
        ready = ready.wait_for(|ready| *ready) => {
            if ready.is_err() {
                return Ok(End::Failure("the member stopped before it was ready".into()));
            }
        }
        error = failure(&mut fatal) => return Ok(End::Failure(error)),
        () = removal(&node, &mut removed) => return Ok(stop_node(&node, End::Removed).await),
        signal = signals.next() => return Ok(stop_node(&node, End::Signal(signal)).await),
    }
    let rpc = services.rpc.clone();
    if let Some(rpc) = &rpc {
        ports.start(Arc::clone(rpc).watch_leader());
    }
    let (outbox, mut ending) = (Arc::clone(&services.outbox), stopped.clone());
    ports.start(async move {
        tokio::select! {
            never = outbox.look_after() => match never {},
            _ = ending.wait_for(|stop| *stop) => {}
        }
    });
    said::ready(&clients);
    serve(&mut ports, clients, &services);
    let ended = tokio::select! {
        signal = signals.next() => End::Signal(signal),
        error = failure(&mut fatal) => End::Failure(error),
        () = removal(&node, &mut removed) => End::Removed,
    };
    if let Some(rpc) = &rpc {
        rpc.stop();
    }
    if let End::Failure(_) = ended {
        // Nothing may be written any more, so there is nothing to wait for but last words.
        stop.send_replace(true);
        let _ = tokio::time::timeout(limits::FAILURE_GRACE, ports.all_ended()).await;
        return Ok(ended);
    }
    tokio::select! {
        handed = node.hand_over() => if let Err(error) = handed {
            tracing::warn!(%error, "leadership transfer failed");
        },
        error = failure(&mut fatal) => return Ok(End::Failure(error)),
    }
    stop.send_replace(true);
    ports.all_ended().await;
    let ended = stop_node(&node, ended).await;
    tracing::info!("closed etcd server");
    Ok(ended)
}

/// The ports of a member that does not answer yet.
struct Bound {
    peers: Vec<Listener>,
    clients: Vec<Listener>,
    probes: Vec<Listener>,
}

/// Binds all ports; peers' belong to the member's own runtime.
fn bind(config: &Config, member: &tokio::runtime::Handle) -> Result<Bound, String> {
    if config.sockets.reuse_address || config.sockets.reuse_port {
        tracing::info!(
            "reuse-address" = config.sockets.reuse_address,
            "reuse-port" = config.sockets.reuse_port,
            "configuring socket options"
        );
    }
    tracing::info!("listen-peer-urls" = ?urls(&config.listen_peer_urls), "configuring peer listeners");
    let failed = |what: &'static str| move |why: String| format!("{what} failed: {why}");
    let peer_tls = tls::acceptor(&config.listen_peer_urls, &config.tls.peer)
        .map_err(failed("creating peer listener"))?;
    let for_http = config.listen_client_http_urls.as_slice();
    let client_urls = [&config.listen_client_urls, for_http, &config.listen_metrics_urls].concat();
    let client_tls = tls::acceptor(&client_urls, &config.tls.client).map_err(failed("listener"))?;
    let peers = {
        let _there = member.enter();
        listen::bind(&config.listen_peer_urls, peer_tls.as_ref(), config.sockets)?
    };
    tls::say_what_is_plain(true, &config.listen_peer_urls, &config.tls.peer);
    tracing::info!("listen-client-urls" = ?urls(&config.listen_client_urls), "configuring client listeners");
    let shared = [&config.listen_client_urls, for_http].concat();
    tls::say_what_is_plain(false, &shared, &config.tls.client);
    let clients = listen::bind_clients(
        &config.listen_client_urls,
        for_http,
        client_tls.as_ref(),
        config.sockets,
    )?;
    let probes = listen::bind(&config.listen_metrics_urls, client_tls.as_ref(), config.sockets)?;
    Ok(Bound { peers, clients, probes })
}

fn urls(urls: &[url::Url]) -> Vec<String> {
    urls.iter().map(url::Url::to_string).collect()
}

/// Stops the node, and says how it ended: a failure on the way is one of the whole.
async fn stop_node(node: &Node, ended: End) -> End {
    let mut fatal = node.fatal();
    let stopping = tokio::time::timeout(limits::NODE_STOP_TIMEOUT, node.stop());
    tokio::select! {
        biased;
        error = failure(&mut fatal) => return End::Failure(error),
        stopped = stopping => if stopped.is_err() {
            tracing::error!("the node did not stop in time; the log will be replayed");
        },
    }
    node.supervisor().why().map_or(ended, End::Failure)
}

/// Resolves when this member has to end, as the cluster has removed it.
async fn removal(node: &Node, removed: &mut watch::Receiver<Option<Duration>>) {
    match removed.wait_for(Option::is_some).await.map(|grace| grace.unwrap_or_default()) {
        Ok(grace) => {
            tokio::time::sleep(grace).await;
            node.leave().await;
        }
        Err(_) => std::future::pending().await,
    }
}

/// Resolves when the node cannot go on.
async fn failure(fatal: &mut watch::Receiver<Option<String>>) -> String {
    match fatal.wait_for(Option::is_some).await {
        Ok(error) => error.clone().unwrap_or_default(),
        Err(_) => std::future::pending().await,
    }
}

/// Connections that the process's open files allow.
fn connections_max() -> Result<usize, String> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.unwrap_or(u64::MAX);
    if limit <= limits::DESCRIPTORS_RESERVED {
        return Err(format!(
            "file descriptor limit[{limit}] of etcd process is too low, and should be set higher \
             than {} to ensure that the process has enough file descriptors",
            limits::DESCRIPTORS_RESERVED
        ));
    }
    let free = usize::try_from(limit - limits::DESCRIPTORS_RESERVED).unwrap_or(usize::MAX);
    Ok(free.min(Semaphore::MAX_PERMITS))
}

/// Keeps what this process touches in RAM from here on, the mapped store included. The map's address
/// space counts against the limit of locked memory, though only touched pages are locked.
fn lock_memory() -> Result<(), String> {
    use rustix::mm::{MlockAllFlags, mlockall};
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    mlockall(flags).map_err(|error| {
        format!(
            "cannot lock memory (--memory-mlock): {error}; give the process CAP_IPC_LOCK, or set its \
             limit of locked memory (ulimit -l, LimitMEMLOCK) to unlimited"
        )
    })
}

/// Opens the data directory and starts the node in it.
async fn open(
    config: &Config,
    is_initialized: bool,
    peers: &[Listener],
    member: &tokio::runtime::Handle,
) -> Result<Node, cluster::Error> {
    if is_initialized {
        said::settings(config, None);
        if matches!(config.source, Source::Discovery) {
            tracing::warn!(
                "discovery token is ignored since cluster already initialized; valid logs are found"
            );
        }
        let (members, token) = (Vec::new(), config.token.clone());
        let first = cluster::First { members, token, join: None };
        let node = start_node(config, first, member).await?;
        if config.initial_corrupt_check
            && let Err(error) = node.check_at_start().await
        {
            tracing::error!(%error, "checkInitialHashKV failed");
            drop(stop_node(&node, End::Removed).await);
            return Err(error.into());
        }
        return Ok(node);
    }
    let starting = async {
        let found = async {
            let planned = cluster::planned(config).await?;
            said::settings(config, Some(&planned));
            cluster::first(config, planned).await
        };
        let first = found.await.inspect_err(|error| tracing::error!(%error, "bootstrap failed"))?;
        start_node(config, first, member).await
    };
    if !config.new_cluster {
        return starting.await;
    }
    // The first members ask each other whether they ran before; none should wait for the others.
    tokio::select! {
        node = starting => node,
        never = listen::turn_away(peers) => match never {},
    }
}

async fn start_node(
    config: &Config,
    first: cluster::First,
    member: &tokio::runtime::Handle,
) -> Result<Node, cluster::Error> {
    let settings = node_config(config, first);
    let mut surroundings = node::Surroundings::system(Arc::new(SystemClock::new()));
    surroundings.dial = Arc::new(tls::TlsDial::new(config)?);
    let runtime = member.clone();
    let supervisor = surroundings.supervisor.clone();
    let started = supervisor.blocking("start", move || {
        let _entered = runtime.enter();
        Node::start_with(settings, surroundings)
    });
    match started.await {
        Ok(Ok(node)) => {
            metrics::set_server_id(node.member_id());
            Ok(node)
        }
        Ok(Err(error)) => Err(error.to_string().into()),
        Err(gone) => Err(supervisor.why().unwrap_or_else(|| gone.to_string()).into()),
    }
}

fn node_config(config: &Config, first: cluster::First) -> node::Config {
    node::Config {
        name: config.name.clone(),
        data_dir: config.data_dir.clone(),
        wal_dir: config.wal_dir.clone(),
        cluster_token: first.token,
        initial_cluster: first.members,
        join: first.join,
        force_new_cluster: config.force_new_cluster,
        strict_reconfig_check: config.strict_reconfig_check,
        max_learners: config.max_learners,
        peer_urls: urls(&config.advertise_peer_urls),
        client_urls: urls(&config.advertise_client_urls),
        heartbeat_interval: config.heartbeat,
        election_timeout: config.election,
        initial_election_tick_advance: config.hasten_election,
        pre_vote: config.pre_vote,
        snapshot_count: config.snapshot_count,
        snapshot_catchup_entries: config.catch_up_entries,
        downgrade_check_interval: config.downgrade_check,
        corrupt_check_interval: config.corrupt_check,
        compact_hash_check_interval: config.compact_hash_check,
        max_request_bytes: config.max_request_bytes,
        quota_backend_bytes: config.quota_bytes,
        keeps_space: config.keeps_space,
        defrag_at_start_bytes: config.defrag_at_start_bytes,
        commit_interval: config.batch_interval.unwrap_or(limits::COMMIT_INTERVAL),
        retention: match config.compaction {
            Compaction::Off => None,
            Compaction::Periodic(period) => Some(Retention::Periodic(period)),
            Compaction::Revision(count) => Some(Retention::Revision(count)),
        },
        compaction_sleep_interval: config.compaction_pause.unwrap_or(limits::COMPACTION_PAUSE),
        checkpoint_pace: CheckpointPace::default(),
        auth: node::AuthConfig {
            token: config.auth_token.clone(),
            token_ttl: config.auth_token_ttl,
            bcrypt_cost: config.bcrypt_cost,
        },
    }
}

fn say_gates(config: &Config) {
    for (name, stage, on) in &config.gates {
        metrics::set_feature(name, stage, *on);
    }
    if config.extensive_metrics {
        rpc::enable_handling_seconds();
    }
}

fn services(config: &Config, arguments: &[String], node: &Node, connections: usize) -> Services {
    let request_timeout = Duration::from_secs(5) + 2 * config.election;
    let rpc = rpc::Server::new(
        node.clone(),
        rpc::Config {
            request_bytes_max: config.max_request_bytes,
            txn_ops_max: config.max_txn_ops,
            election_timeout: config.election,
            warning_duration: config.warning_request,
            watch_progress_interval: config.progress_interval,
        },
    );
    let http = Http::new(
        node.clone(),
        http::Config {
            origins: config.origins.clone(),
            hosts: config.hosts.clone(),
            request_timeout,
            command_line: arguments.to_vec(),
        },
    );
    Services {
        outbox: Outbox::new(Arc::clone(node.answers()), rpc.message_bytes_max()),
        rpc: Some(rpc),
        serves_http: true,
        http,
        peers: Arc::clone(node.peers()),
        port: Port::Client,
        names_users: config.tls.client.demands_certificates,
        checks_addresses: false,
        keepalive: Keepalive {
            minimum: config.keepalive_min,
            interval: config.keepalive_interval,
            timeout: config.keepalive_timeout,
            streams_max: config.max_concurrent_streams,
        },
        header_timeout: limits::HTTP_HEADER_TIMEOUT,
        connections: Arc::new(Semaphore::new(connections)),
        supervisor: node.supervisor().clone(),
    }
}
