//! `etcd gateway start`: passes TCP connections on to a cluster's client ports.
//!
//! ```text
//!   client ─► listener ─► pick a remote ─► dial ─► bytes both ways, until one side is gone
//!                              ▲             │ refused
//!                              └─ look again ◄┘ set aside for --retry-delay
//! ```
//!
//! It knows nothing of what it passes on, TLS included. Remotes are those of `--endpoints`, or of
//! SRV records with their priorities and weights. Flags, texts and outcomes are etcd's. The number of
//! connections is bounded by the process's open files; further ones wait in the kernel's queue.

mod copy;
mod flags;
mod remotes;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::config::{Level, Log};
use super::early_exit::told;
use super::log::Logger;
use super::notify::Manager;
use super::run;
use super::signals::{Signals, die_by, end_early_if_first};
use crate::clock::SystemClock;
use crate::dns::{self, Resolver};
use crate::supervise::Supervisor;
use crate::{files, go, limits};
use flags::{Flags, Stop};

pub(super) use flags::{FLAGS, Flag};
use remotes::{Remote, Remotes};

/// Why nothing is passed on.
enum Failure {
    /// For standard output, as etcd has it.
    Told(String),
    /// For standard error.
    Error(String),
}

/// Runs `etcd gateway …` or `etcd grpc-proxy …`. `words` is the command line with the program's
/// name.
pub fn relay(words: Vec<OsString>) -> ExitCode {
    let words: Vec<String> =
        words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let mut rest = words.get(1..).unwrap_or_default();
    if rest.split_off_first().is_none_or(|command| command != "gateway") {
        return say_error(
            "etcd grpc-proxy is not part of rusd. Clients of rusd do not need one: watches and \
             leases of many clients cost a member little. `etcd gateway start` passes connections \
             on, and etcd's own grpc-proxy works in front of rusd.\n",
        );
    }
    match flags::parse(rest) {
        Ok(flags) => start(&flags, &words),
        Err(Stop::Help(text)) => told(&text),
        Err(Stop::Bad(text)) => say_error(&text),
    }
}

/// The command whose help the words behind `gateway` ask for.
pub(super) fn help_topic(words: &[String]) -> Option<&'static [&'static str]> {
    match flags::parse(words) {
        Err(Stop::Help(text)) if text == flags::ABOUT => Some(&["gateway"]),
        Err(Stop::Help(_)) => Some(&["gateway", "start"]),
        _ => None,
    }
}

fn say_error(text: &str) -> ExitCode {
    drop(std::io::stderr().write_all(text.as_bytes()));
    ExitCode::FAILURE
}

fn start(flags: &Flags, words: &[String]) -> ExitCode {
    let outputs = vec!["default".to_owned()];
    match Logger::new(&Log::json(Level::Info, outputs)) {
        Ok(logger) => logger.install(),
        Err(error) => return say_error(&format!("{error}\n")),
    }
    tracing::info!(args = ?words, "Running: ");
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return say_error(&format!("cannot start threads: {error}\n")),
    };
    let ended = runtime.block_on(run(flags));
    runtime.shutdown_background();
    match ended {
        Ok(signal) => die_by(signal),
        Err(Failure::Told(text)) => {
            drop(std::io::stdout().write_all(text.as_bytes()));
            ExitCode::FAILURE
        }
        Err(Failure::Error(text)) => say_error(&format!("{text}\n")),
    }
}

/// Passes connections on until a signal, which it returns.
async fn run(flags: &Flags) -> Result<i32, Failure> {
    let is_early = end_early_if_first();
    let mut found = discover(flags).await?;
    if found.is_empty() {
        found = flags.endpoints.iter().map(|endpoint| named(endpoint)).collect::<Result<_, _>>()?;
    }
    let told = |text: String| Failure::Told(format!("{text}\n"));
    let listen = flags.listen.as_str();
    let (host, port) = split_host_port(listen)
        .ok_or_else(|| told(format!("failed to validate listen address: {listen}")))?;
    let own = resolve(host)
        .await
        .ok_or_else(|| told(format!("failed to resolve listen host: {host}")))?;
    for remote in &found {
        let Remote { host, port: remote_port, .. } = remote;
        let addresses = resolve(host)
            .await
            .ok_or_else(|| told(format!("failed to resolve endpoint host: {host}")))?;
        let is_own = |address: &&IpAddr| remote_port.to_string() == port && own.contains(address);
        if let Some(address) = addresses.iter().find(is_own) {
            return Err(told(format!(
                "SRV or endpoint ({host}:{remote_port}->{address}:{remote_port}) should not resolve \
                 to the gateway listen addr ({listen})"
            )));
        }
    }
    if found.is_empty() {
        return Err(told("no endpoints found".to_owned()));
    }
    let connections = connections_max().map_err(Failure::Error)?;
    let listener = bind(listen, host, port).await.map_err(Failure::Error)?;
    let mut signals = Signals::catch(&is_early)
        .map_err(|why| Failure::Error(format!("catching signals failed: {why}")))?;
    let manager = Manager::of_environment();
    manager.ready().await;
    let remotes = Arc::new(Remotes::new(found, flags.retry_delay, Arc::new(SystemClock::new())));
    tracing::info!(endpoints = ?remotes.addresses(), "ready to proxy client requests");
    let supervisor = Supervisor::default();
    supervisor.task("relay-monitor", Arc::clone(&remotes).monitor());
    // A task that gets its turn shows that connections do. Remotes that are gone are no reason for a
    // restart.
    let look = || async {
        let _ = supervisor.inline("relay-alive", || ()).await;
    };
    tokio::select! {
        never = accept(&listener, remotes, connections, &supervisor) => match never {},
        never = manager.alive(look) => match never {},
        signal = signals.next() => {
            manager.stopping().await;
            Ok(signal)
        }
    }
}

async fn accept(
    listener: &TcpListener,
    remotes: Arc<Remotes>,
    connections: usize,
    supervisor: &Supervisor,
) -> std::convert::Infallible {
    let connections = Arc::new(Semaphore::new(connections));
    loop {
        let permit = Arc::clone(&connections).acquire_owned().await;
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
                continue;
            }
        };
        let remotes = Arc::clone(&remotes);
        supervisor.task("relay", async move {
            let _permit = permit;
            prepare(&client);
            if let Some(remote) = remotes.dial().await {
                prepare(&remote);
                copy::both(&client, &remote).await;
            }
        });
    }
}

/// Small writes are not held back, and a machine that is gone without a word is noticed, as Go sets
/// its connections up. Settings that the system refuses are done without.
fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, limits::RELAY_KEEPALIVE);
    let _ = sockopt::set_tcp_keepintvl(stream, limits::RELAY_KEEPALIVE);
    let patience = u32::try_from(limits::RELAY_UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
    let _ = sockopt::set_tcp_user_timeout(stream, patience);
}

/// Each connection takes two descriptors.
fn connections_max() -> Result<usize, String> {
    run::connections_max().map(|connections| (connections / 2).max(1))
}

/// Listens on all addresses where the host is left out, as Go does.
async fn bind(listen: &str, host: &str, port: &str) -> Result<TcpListener, String> {
    let failed = |why: String| format!("listen tcp {listen}: {why}");
    let number: u16 =
        port.parse().map_err(|_| format!("listen tcp: address {port}: invalid port"))?;
    let bound = match host {
        // A system may be without IPv6.
        "" => match TcpListener::bind(("::", number)).await {
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                TcpListener::bind(("0.0.0.0", number)).await
            }
            bound => bound,
        },
        host => TcpListener::bind((host, number)).await,
    };
    bound.map_err(|error| failed(format!("bind: {}", go::reason(&error))))
}

/// Host and port as Go's `SplitHostPort` finds them.
fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    match host.strip_prefix('[') {
        Some(inner) => Some((inner.strip_suffix(']')?, port)),
        None if host.contains([':', '[', ']']) => None,
        None => Some((host, port)),
    }
    .filter(|(_, port)| !port.contains([']', '[']))
}

/// An endpoint of `--endpoints`: its scheme does not matter.
fn named(endpoint: &str) -> Result<Remote, Failure> {
    let address = endpoint.split_once("://").map_or(endpoint, |(_, rest)| {
        rest.split(['/', '?', '#'])
            .next()
            .unwrap_or_default()
            .rsplit('@')
            .next()
            .unwrap_or_default()
    });
    let (host, port) = split_host_port(address)
        .ok_or_else(|| Failure::Told(format!("error parsing endpoint {}", go::quote(address))))?;
    let port = port.parse().unwrap_or_default();
    Ok(Remote { host: host.to_owned(), port, priority: 0, weight: 0 })
}

/// The addresses of a host; None if it has none.
async fn resolve(host: &str) -> Option<BTreeSet<IpAddr>> {
    let found = tokio::net::lookup_host((host.trim_end_matches('.'), 0)).await.ok()?;
    let found: BTreeSet<IpAddr> = found.map(|address: SocketAddr| address.ip()).collect();
    (!found.is_empty()).then_some(found)
}

/// The remotes that SRV records name, those for TLS first. Unless `--insecure-discovery` is given,
/// only those for TLS count, and only if somebody listens there.
async fn discover(flags: &Flags) -> Result<Vec<Remote>, Failure> {
    let domain = flags.discovery_srv.as_str();
    if domain.is_empty() {
        return Ok(Vec::new());
    }
    let (resolver, clock) = (Resolver::new(std::env::var_os(dns::VARIABLE)), SystemClock::new());
    let suffix = match flags.discovery_srv_name.as_str() {
        "" => String::new(),
        name => format!("-{name}"),
    };
    let (secure, plain) = (format!("etcd-client-ssl{suffix}"), format!("etcd-client{suffix}"));
    let secure = resolver.services(&clock, &secure, domain).await;
    let plain = resolver.services(&clock, &plain, domain).await;
    if let (Err(secure), Err(plain)) = (&secure, &plain) {
        return Err(Failure::Error(format!("dns lookup errors: {secure} and {plain}")));
    }
    let remotes = |found: Vec<dns::Service>| found.into_iter().map(Remote::from);
    let secure: Vec<Remote> = remotes(secure.unwrap_or_default()).collect();
    let plain: Vec<Remote> = remotes(plain.unwrap_or_default()).collect();
    let shown = |scheme: &str, list: &[Remote]| -> Vec<String> {
        list.iter().map(|remote| format!("{scheme}://{}", remote.address())).collect()
    };
    let endpoints = [shown("https", &secure), shown("http", &plain)].concat();
    tracing::info!("srv-server" = domain, ?endpoints, "discovered cluster from SRV");
    if flags.insecure_discovery {
        return Ok([secure, plain].concat());
    }
    tracing::info!("srv-server" = domain, ?endpoints, "validating discovered SRV endpoints");
    let (valid, refused) = validated(flags, secure, &plain).await;
    let endpoints = shown("https", &valid);
    if refused.is_empty() {
        tracing::info!(
            "srv-server" = domain,
            ?endpoints,
            "using validated discovered SRV endpoints"
        );
    } else {
        let error = refused.join(",");
        tracing::warn!(
            "srv-server" = domain,
            ?endpoints,
            error,
            "failed to validate discovered endpoints"
        );
    }
    Ok(valid)
}

/// The remotes for TLS that can be reached, and why others do not count. As in etcd, the file of
/// authorities must be readable, and nothing is said over the connection: clients check whom they
/// talk to.
async fn validated(
    flags: &Flags,
    secure: Vec<Remote>,
    plain: &[Remote],
) -> (Vec<Remote>, Vec<String>) {
    if !flags.trusted_ca.is_empty()
        && let Err(error) = files::read_small(flags.trusted_ca.as_ref())
    {
        let why = format!("open {}: {}", flags.trusted_ca, go::reason(&error));
        return (Vec::new(), vec![why]);
    }
    let (mut valid, mut refused) = (Vec::new(), Vec::new());
    for remote in secure {
        match remotes::dial(&remote).await {
            Ok(_) => valid.push(remote),
            Err(error) => {
                let endpoint = go::quote(format!("https://{}", remote.address()));
                refused.push(format!("{endpoint} failed to dial ({error})"));
            }
        }
    }
    let insecure = |remote: &Remote| {
        format!("{} is insecure", go::quote(format!("http://{}", remote.address())))
    };
    refused.extend(plain.iter().map(insecure));
    (valid, refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_split_as_go_splits_them() {
        for (text, split) in [
            ("a:1", Some(("a", "1"))),
            (":1", Some(("", "1"))),
            ("[::1]:2", Some(("::1", "2"))),
            ("a:", Some(("a", ""))),
            ("a", None),
            ("::1:2", None),
            ("[::1]", None),
            ("[::1:2", None),
        ] {
            assert_eq!(split_host_port(text), split, "{text}");
        }
        let address = |text: &str| named(text).ok().map(|remote| remote.address());
        assert_eq!(address("http://a:1/x"), Some("a:1".to_owned()));
        assert_eq!(address("https://u@[::1]:2"), Some("[::1]:2".to_owned()));
        assert_eq!(address("a:x"), Some("a:0".to_owned()));
        assert_eq!(address("foo"), None);
    }
}
