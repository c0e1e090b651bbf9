//! The life of a server with valid settings: ports are bound, the node starts, clients are served,
//! and all of it ends in the opposite order.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};

use super::config::{Compaction, Config};
use super::listen::{self, Listener};
use super::member::{End, failure, open, removal, stop_node};
use super::notify::Manager;
use super::outbox::Outbox;
use super::refusal::Refusal;
use super::serve::serve;
use super::services::{Keepalive, Services};
use super::signals::{self, Signals};
use super::traces::{self, Exporting};
use super::url::texts;
use super::{certificates, cluster, datadir, log, malloc, outlook, startup_log, tls};
use crate::gateway::Gateway;
use crate::http::{self, Http, Port};
use crate::node::Node;
use crate::supervise::Tasks;
use crate::{limits, metrics, rpc};

/// Serves until a signal, the member's removal, or a failure of the node. An error means that the
/// member never served.
pub(super) async fn run(
    config: &Config,
    arguments: &[String],
    member: &Handle,
) -> Result<End, cluster::Error> {
    let is_early = signals::end_early_if_first();
    let connections = connections_max()?;
    let is_initialized = datadir::is_initialized(&config.data_dir, config.wal_dir.as_deref())
        .map_err(|error| Refusal::of_inaccessible(&error))?;
    let Bound { peers, clients, probes } = bind(config, member)?;
    let manager = Manager::of_environment();
    let (tracer, exporter) = traces::set_up(config)?;
    let node = open(config, is_initialized, &peers, member, &manager, tracer).await?;
    let exporting = Exporting::start(exporter, node.supervisor());
    if config.locks_memory
        && let Err(error) = lock_memory()
    {
        return Ok(stop_node(&node, End::Failure(error)).await);
    }
    // Installed before this member can be seen from outside: a signal sent once it can be seen ends
    // it in order, with all of its state in the store.
    let mut signals =
        Signals::catch(&is_early).map_err(|why| format!("catching signals failed: {why}"))?;
    show_settings(config);
    startup_log::local_address(config);

    let services = services(config, arguments, &node, connections);
    let (stop, stopped) = watch::channel(false);
    let mut ports = node.supervisor().tasks("port");
    let start = |ports: &mut Tasks, listeners: Vec<Listener>, services: &Services| {
        for listener in listeners {
            ports.start(serve(listener, services.clone(), stopped.clone()));
        }
    };
    let checks_names = !config.tls.skip_peer_addresses;
    let for_peers = services.of_other(Port::Peer, connections, checks_names);
    for listener in peers {
        let serving = serve(listener, for_peers.clone(), stopped.clone());
        ports.start_on(serving, member);
    }
    start(&mut ports, probes, &services.of_other(Port::Metrics, connections, true));
    startup_log::serving(config, &node);
    watch_surroundings(config, &node, &mut ports, &stopped);
    if let Some(ended) = until_ready(&node, &manager, &mut signals).await {
        return Ok(ended);
    }
    let rpc = services.rpc.clone();
    if let Some(rpc) = &rpc {
        ports.start(Arc::clone(rpc).watch_leader());
    }
    look_after_memory(&services, &mut ports, &stopped);
    start_until_stop(&mut ports, &stopped, node.wake_watchers());
    startup_log::cluster(&node);
    startup_log::ready(&clients);
    start(&mut ports, clients, &services);
    ports.start(manager.clone().serving(node.clone(), stopped.clone()));
    let (mut fatal, mut removed) = (node.fatal(), node.removed());
    let ended = tokio::select! {
        signal = signals.next() => End::Signal(signal),
        error = failure(&mut fatal) => End::Failure(error),
        () = removal(&node, &mut removed) => End::Removed,
    };
    manager.stopping().await;
    Ok(wind_down(&node, rpc.as_deref(), &stop, ports, exporting, ended).await)
}

/// Bounds what clients hold, and gives back what the start needed and has freed, which is spread over
/// the threads' arenas.
fn look_after_memory(services: &Services, ports: &mut Tasks, stopped: &watch::Receiver<bool>) {
    let supervisor = services.supervisor.clone();
    let looks = Arc::clone(&services.outbox).look_after(supervisor.clone());
    start_until_stop(ports, stopped, looks);
    ports.start(async move {
        let _ = supervisor.blocking("give-back", malloc::give_back).await;
    });
}

/// Starts work that has no end of its own. It ends when the server stops.
fn start_until_stop(
    ports: &mut Tasks,
    stopped: &watch::Receiver<bool>,
    work: impl Future<Output = Infallible> + Send + 'static,
) {
    let mut ending = stopped.clone();
    ports.start(async move {
        tokio::select! {
            never = work => match never {},
            _ = ending.wait_for(|stop| *stop) => {}
        }
    });
}

/// Starts what looks at the member and its files from outside.
fn watch_surroundings(
    config: &Config,
    node: &Node,
    ports: &mut Tasks,
    stopped: &watch::Receiver<bool>,
) {
    ports.start(outlook::watch(node.clone(), config.clone(), stopped.clone()));
    ports.start(certificates::warn(node.clone(), config.clone(), stopped.clone()));
    ports.start(certificates::watch(&config.tls, node, stopped.clone()));
}

/// Waits until the member may serve its clients. Returns why it ends if it ends before.
async fn until_ready(node: &Node, manager: &Manager, signals: &mut Signals) -> Option<End> {
    let (mut ready, mut fatal, mut removed) = (node.ready(), node.fatal(), node.removed());
    let ended = tokio::select! {
        ready = ready.wait_for(|ready| *ready) => {
            let failure = || End::Failure("the member stopped before it was ready".into());
            return ready.is_err().then(failure);
        }
        error = failure(&mut fatal) => return Some(End::Failure(error)),
        () = removal(node, &mut removed) => End::Removed,
        signal = signals.next() => End::Signal(signal),
        never = manager.while_applying(|| node.status().raft_applied_index) => match never {},
    };
    manager.stopping().await;
    Some(stop_node(node, ended).await)
}

/// Ends streams, hands the leadership on, closes the ports and stops the node, in this order.
async fn wind_down(
    node: &Node,
    rpc: Option<&rpc::Server>,
    stop: &watch::Sender<bool>,
    mut ports: Tasks,
    exporting: Exporting,
    ended: End,
) -> End {
    if let Some(rpc) = rpc {
        rpc.stop();
    }
    if let End::Failure(_) = ended {
        // After a failure nothing may be written, so only answers that report it are waited for.
        stop.send_replace(true);
        let _ = tokio::time::timeout(limits::FAILURE_GRACE, ports.all_ended()).await;
        return ended;
    }
    let mut fatal = node.fatal();
    tokio::select! {
        handed = node.hand_over() => if let Err(error) = handed {
            tracing::warn!(%error, "leadership transfer failed");
        },
        error = failure(&mut fatal) => return End::Failure(error),
    }
    stop.send_replace(true);
    ports.all_ended().await;
    let ((), ended) = tokio::join!(exporting.finish(), stop_node(node, ended));
    log::tell_repeats(true);
    tracing::info!("closed etcd server");
    tracing::info!(target: log::PEOPLE, "stopped; all that was acknowledged is on the disk");
    ended
}

/// The bound ports of a member that does not answer yet.
struct Bound {
    peers: Vec<Listener>,
    clients: Vec<Listener>,
    probes: Vec<Listener>,
}

/// Binds all ports. The listeners for peers belong to `member`, its own runtime.
fn bind(config: &Config, member: &Handle) -> Result<Bound, cluster::Error> {
    if config.sockets.reuse_address || config.sockets.reuse_port {
        tracing::info!(
            "reuse-address" = config.sockets.reuse_address,
            "reuse-port" = config.sockets.reuse_port,
            "configuring socket options"
        );
    }
    tracing::info!("listen-peer-urls" = ?texts(&config.listen_peer_urls), "configuring peer listeners");
    let failed = |what: &'static str| move |why: String| format!("{what} failed: {why}");
    let peer_tls = tls::acceptor(&config.listen_peer_urls, &config.tls.peer)
        .map_err(failed("creating peer listener"))?;
    let for_http = config.listen_client_http_urls.as_slice();
    let client_urls = [&config.listen_client_urls, for_http, &config.listen_metrics_urls].concat();
    let client_tls = tls::acceptor(&client_urls, &config.tls.client).map_err(failed("listener"))?;
    let peers = {
        let _there = member.enter();
        listen::bind(&config.listen_peer_urls, peer_tls.as_ref(), config.sockets)
            .map_err(|unbound| Refusal::of_port("listen-peer-urls", &unbound))?
    };
    tls::say_what_is_plain(true, &config.listen_peer_urls, &config.tls.peer);
    tracing::info!("listen-client-urls" = ?texts(&config.listen_client_urls), "configuring client listeners");
    let shared = [&config.listen_client_urls, for_http].concat();
    tls::say_what_is_plain(false, &shared, &config.tls.client);
    let clients = listen::bind_clients(
        &config.listen_client_urls,
        for_http,
        client_tls.as_ref(),
        config.sockets,
    )
    .map_err(|unbound| {
        let is_for_http = for_http.contains(&unbound.url);
        let flag = if is_for_http { "listen-client-http-urls" } else { "listen-client-urls" };
        Refusal::of_port(flag, &unbound)
    })?;
    let probes = listen::bind(&config.listen_metrics_urls, client_tls.as_ref(), config.sockets)
        .map_err(|unbound| Refusal::of_port("listen-metrics-urls", &unbound))?;
    Ok(Bound { peers, clients, probes })
}

/// The number of connections that the limit of open files allows; an error if it is too low.
pub(super) fn connections_max() -> Result<usize, String> {
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

/// Keeps in RAM what this process touches from here on, the mapped store included. The map's
/// address space counts against the limit of locked memory, though only touched pages are locked.
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

/// Shows the settings in the metrics. Those that members should have in common are there for a
/// comparison, as `rusd doctor` makes it.
fn show_settings(config: &Config) {
    let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let retention = match config.compaction {
        Compaction::Off => 0,
        Compaction::Periodic(period) => millis(period),
        Compaction::Revision(count) => count,
    };
    for (name, value) in [
        ("auto-compaction-retention", retention),
        ("election-timeout", millis(config.election)),
        ("heartbeat-interval", millis(config.heartbeat)),
        ("max-learners", number(config.max_learners)),
        ("max-request-bytes", number(config.max_request_bytes)),
        ("max-txn-ops", number(config.max_txn_ops)),
        ("pre-vote", i64::from(config.pre_vote)),
    ] {
        metrics::set_setting(name, value);
    }
    for (name, stage, on) in &config.gates {
        metrics::set_feature(name, stage, *on);
    }
    if config.extensive_metrics {
        rpc::enable_handling_seconds();
    }
}

pub(super) fn services(
    config: &Config,
    arguments: &[String],
    node: &Node,
    connections: usize,
) -> Services {
    let request_timeout = Duration::from_secs(5) + 2 * config.election;
    let rpc = rpc::Server::new(
        node.clone(),
        rpc::Config {
            request_bytes_max: config.max_request_bytes,
            txn_ops_max: config.max_txn_ops,
            election_timeout: config.election,
            warning_duration: config.warning_request,
            warning_apply_duration: config.warning_apply,
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
    let gateway = config.gateway.map(|gateway| Gateway::new(Arc::clone(&rpc), gateway));
    Services {
        outbox: Outbox::new(Arc::clone(node.answers()), rpc.message_bytes_max()),
        gateway,
        rpc: Some(rpc),
        serves_http: true,
        http,
        peers: Arc::clone(node.peers()),
        port: Port::Client,
        names_users: config.tls.client.demands_certificates,
        checks_addresses: false,
        is_traced: node.tracer().is_on(),
        keepalive: Keepalive {
            minimum: config.keepalive_min,
            interval: config.keepalive_interval,
            timeout: config.keepalive_timeout,
            streams_max: config.max_concurrent_streams,
        },
        header_timeout: limits::HTTP_HEADER_TIMEOUT,
        peer_write_timeout: config.peer_timeouts.write,
        connections: Arc::new(Semaphore::new(connections)),
        supervisor: node.supervisor().clone(),
    }
}
