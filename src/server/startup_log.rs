//! What the server says of itself in its log while it starts, in etcd's words.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use super::cluster::PlannedMembers;
use super::config::{Compaction, Config, Notice, StartedAs};
use super::listen::Listener;
use super::log;
use super::url::{Url, texts};
use super::version::{GIT_SHA, GO_VERSION, VERSION};
use crate::{go, node};

pub(super) fn notice(notice: &Notice) {
    match notice {
        Notice::DefaultName => tracing::warn!(
            name = "default",
            "it isn't recommended to use default name, please set a value for --name. Note that \
             etcd might run into issue when multiple members have the same default name"
        ),
        Notice::DefaultDataDir(path) => {
            tracing::warn!("data-dir" = %path.display(), "'data-dir' was empty; using default");
        }
        Notice::OldName(flag) => {
            tracing::warn!(flag, "this flag has lost its prefix experimental- in etcd 3.6");
        }
        Notice::Deprecated(text) => tracing::warn!("{text}"),
        Notice::Raised(flag, least) => {
            let least = go::duration(*least);
            tracing::info!("{flag} increased to minimum value: {least}");
        }
        Notice::Follows(flags) => {
            let fields: Vec<Value> = flags.iter().map(|pair| json!(pair)).collect();
            let fields = Value::from(fields);
            tracing::info!(%fields, "addresses that were not given follow from other flags");
        }
        Notice::Exposed(urls) => tracing::warn!(
            ?urls,
            hint = "--listen-client-urls http://127.0.0.1:2379 serves this machine alone; --cert-file \
                    and --key-file are for TLS; see docs/security.md",
            "clients on other machines are served without TLS, since no flag says otherwise"
        ),
        Notice::NoEffect(flags) => tracing::warn!(
            ?flags,
            hint = "docs/compat.md says why; they may be left out",
            "flags that have no effect in rusd were given"
        ),
        Notice::FileUsed(path) => tracing::info!(
            path = %path.display(),
            "loaded server configuration, other configuration command line flags and environment \
             variables will be ignored if provided"
        ),
        Notice::KeyUnknown(key) => {
            tracing::warn!(key, "unknown key in the configuration file");
        }
        Notice::VariableUsed { name, value } => tracing::info!(
            "variable-name" = name,
            "variable-value" = value,
            "recognized and used environment variable"
        ),
        Notice::VariableSpecial { name, value } => {
            tracing::warn!(key = name, value, "cannot set special environment variable");
        }
        Notice::VariableUnknown(text) => {
            tracing::warn!("environment-variable" = text, "unrecognized environment variable");
        }
    }
}

/// What a person who starts the server is told first.
pub(super) fn begun() {
    let (pid, times) = (std::process::id(), log::zone());
    let rusd = GIT_SHA.trim_start_matches("rusd-");
    tracing::info!(
        target: log::PEOPLE,
        pid, times,
        "rusd {rusd}, with the API of etcd {VERSION}"
    );
}

/// What a person is told of the member's place.
fn of_the_place(config: &Config, planned: Option<&PlannedMembers>) {
    let kind = if planned.is_none() { "its" } else { "a new" };
    let (name, dir) = (&config.name, config.data_dir.display());
    tracing::info!(target: log::PEOPLE, "member {name} starts in {kind} data directory {dir}");
    let (peers, clients) = (texts(&config.listen_peer_urls), texts(&config.listen_client_urls));
    tracing::info!(target: log::PEOPLE, clients = ?clients, peers = ?peers, "listening");
    let advertised = [texts(&config.advertise_client_urls), texts(&config.advertise_peer_urls)];
    if advertised != [clients, peers] {
        let [clients, peers] = advertised;
        tracing::info!(target: log::PEOPLE, clients = ?clients, peers = ?peers, "advertising");
    }
}

/// What a person is told of the cluster that this member is part of.
pub(super) fn cluster(node: &node::Node) {
    let (mut members, own) = (node.members(), node.member_id());
    members.sort_by(|one, other| one.name.cmp(&other.name));
    let (id, count) = (format!("{:x}", node.cluster_id()), members.len());
    let noun = if count == 1 { "member" } else { "members" };
    tracing::info!(target: log::PEOPLE, "cluster {id} has {count} {noun}");
    for member in members {
        let kind = match (member.id == own, member.is_learner) {
            (true, true) => ", this member, a learner",
            (true, false) => ", this member",
            (false, true) => ", a learner",
            (false, false) => "",
        };
        let name = if member.name.is_empty() { "(not started)" } else { &member.name };
        let (id, peers) = (member.id, member.peer_ur_ls.join(","));
        tracing::info!(target: log::PEOPLE, peers, "  {name} ({id:x}){kind}");
    }
}

/// Warns of a member that listens elsewhere than where the others look for it, as after a restart
/// without the flags that its addresses followed from at the first start.
fn elsewhere(config: &Config, node: &node::Node) {
    let members = node.members();
    let own = members.iter().find(|member| member.id == node.member_id());
    let Some(own) = own.filter(|_| members.len() > 1 && config.started_as == StartedAs::Rusd)
    else {
        return;
    };
    let known: Vec<Url> = own.peer_ur_ls.iter().flat_map(|text| Url::parse(text)).collect();
    let is_there = |known: &Url| config.listen_peer_urls.iter().any(|url| listens(url, known));
    if known.is_empty() || known.iter().any(is_there) {
        return;
    }
    tracing::warn!(
        "listen-peer-urls" = ?texts(&config.listen_peer_urls),
        "known-peer-urls" = ?texts(&known),
        hint = "unless something passes connections on, start it with the --initial-cluster or \
                --listen-peer-urls of its first start; see the handbook, \"Member unreachable\"",
        "this member listens for peers at no URL that the others know"
    );
}

/// Whether a listener at `url` may be what answers at `known`: a name may be that of any address.
fn listens(url: &Url, known: &Url) -> bool {
    let ((host, port), (known_host, known_port)) = (url.host_port(), known.host_port());
    let is_name = |host: &str| host.parse::<IpAddr>().is_err();
    let is_any = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    url.is_unix() && url.place() == known.place()
        || port == known_port
            && (host == known_host || is_any || is_name(host) || is_name(known_host))
}

/// Warns of a member whose acknowledged writes a power cut can lose.
pub(super) fn unsynced(config: &Config) {
    if !config.writing.syncs {
        tracing::warn!(
            hint = "start without --unsafe-no-fsync unless losing all data is fine",
            "UNSAFE: --unsafe-no-fsync is set; log and store are never synced, so a power cut or a \
             crash of the system loses acknowledged writes and can leave a data directory that no \
             member starts from"
        );
    }
}

/// Logs the settings that an operator looks at first when a member behaves oddly: etcd's fields, in
/// etcd's order. `planned` is None for a member that has data, since it looks for no others.
pub(super) fn settings(config: &Config, planned: Option<&PlannedMembers>) {
    let is_initialized = planned.is_none();
    let fields: Vec<Value> = [
        of_the_program(is_initialized),
        of_the_member(config),
        of_addresses(config, planned),
        of_bounds(config),
        of_checks(config),
        of_discovery(config),
    ]
    .into_iter()
    .flatten()
    .map(|(name, value)| json!([name, value]))
    .collect();
    let fields = Value::from(fields);
    tracing::info!(%fields, "starting an etcd server");
    of_the_place(config, planned);
}

type Fields = Vec<(&'static str, Value)>;

fn of_the_program(is_initialized: bool) -> Fields {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    vec![
        ("etcd-version", json!(VERSION)),
        ("git-sha", json!(GIT_SHA)),
        ("go-version", json!(GO_VERSION)),
        ("go-os", json!(std::env::consts::OS)),
        ("go-arch", json!(arch())),
        ("max-cpu-set", json!(processors)),
        ("max-cpu-available", json!(processors)),
        ("member-initialized", json!(is_initialized)),
    ]
}

fn of_the_member(config: &Config) -> Fields {
    let wal_dir = config.wal_dir.clone().unwrap_or_default().display().to_string();
    // The election timeout is counted, and shown, in whole heartbeats.
    let beats = config.election.as_nanos() / config.heartbeat.as_nanos().max(1);
    let election = config.heartbeat * u32::try_from(beats).unwrap_or(u32::MAX);
    vec![
        ("name", json!(config.name)),
        ("data-dir", json!(config.data_dir.display().to_string())),
        ("wal-dir", json!(wal_dir)),
        ("wal-dir-dedicated", json!(wal_dir)),
        ("member-dir", json!(config.data_dir.join("member").display().to_string())),
        ("force-new-cluster", json!(config.force_new_cluster)),
        ("heartbeat-interval", json!(go::duration(config.heartbeat))),
        ("election-timeout", json!(go::duration(election))),
        ("initial-election-tick-advance", json!(config.election_tick_advance)),
        ("snapshot-count", json!(config.snapshot_count)),
        ("max-wals", json!(config.wals_max)),
        ("max-snapshots", json!(config.snapshots_max)),
        ("snapshot-catchup-entries", json!(config.catch_up_entries)),
    ]
}

fn of_addresses(config: &Config, planned: Option<&PlannedMembers>) -> Fields {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort();
        list
    };
    let members = planned.map(PlannedMembers::text).unwrap_or_default();
    let token = planned.map(|planned| planned.token.as_str()).unwrap_or_default();
    let local = config.local_address().map(|address| address.to_string()).unwrap_or_default();
    vec![
        ("initial-advertise-peer-urls", json!(texts(&config.advertise_peer_urls))),
        ("listen-peer-urls", json!(texts(&config.listen_peer_urls))),
        ("advertise-client-urls", json!(texts(&config.advertise_client_urls))),
        ("listen-client-urls", json!(texts(&config.listen_client_urls))),
        ("listen-metrics-urls", json!(texts(&config.listen_metrics_urls))),
        ("local-address", json!(local)),
        ("cors", json!(sorted(&config.origins))),
        ("host-whitelist", json!(sorted(&config.hosts))),
        ("initial-cluster", json!(members)),
        ("initial-cluster-state", json!(if config.new_cluster { "new" } else { "existing" })),
        ("initial-cluster-token", json!(token)),
    ]
}

fn of_bounds(config: &Config) -> Fields {
    let quota = node::quota_bytes(config.quota_bytes);
    let gates: BTreeMap<&str, bool> = config.gates_set.iter().copied().collect();
    let gates: Vec<String> = gates.iter().map(|(name, on)| format!("{name}={on}")).collect();
    vec![
        ("quota-backend-bytes", json!(quota)),
        ("max-request-bytes", json!(config.max_request_bytes)),
        ("max-concurrent-streams", json!(config.max_concurrent_streams)),
        ("pre-vote", json!(config.pre_vote)),
        ("feature-gates", json!(gates.join(","))),
    ]
}

fn of_checks(config: &Config) -> Fields {
    let retention = match config.compaction {
        Compaction::Off => Duration::ZERO,
        Compaction::Periodic(period) => period,
        // etcd's log shows a count of revisions as so many nanoseconds.
        Compaction::Revision(count) => Duration::from_nanos(count.unsigned_abs()),
    };
    let retention = go::duration(retention);
    vec![
        ("initial-corrupt-check", json!(config.initial_corrupt_check)),
        ("corrupt-check-time-interval", json!(go::duration(config.corrupt_check))),
        ("compact-check-time-interval", json!(go::duration(config.hash_check_interval))),
        ("auto-compaction-mode", json!(config.compaction_mode)),
        ("auto-compaction-retention", json!(retention)),
        ("auto-compaction-interval", json!(retention)),
    ]
}

fn of_discovery(config: &Config) -> Fields {
    let discovery = &config.discovery;
    let mut endpoints = discovery.endpoints.clone();
    endpoints.sort();
    vec![
        ("discovery-token", json!(discovery.token)),
        ("discovery-endpoints", json!(endpoints.join(","))),
        ("discovery-dial-timeout", json!(go::duration(discovery.dial_timeout))),
        ("discovery-request-timeout", json!(go::duration(discovery.request_timeout))),
        ("discovery-keepalive-time", json!(go::duration(discovery.keep_alive_time))),
        ("discovery-keepalive-timeout", json!(go::duration(discovery.keep_alive_timeout))),
        ("discovery-insecure-transport", json!(discovery.tls.insecure_transport)),
        ("discovery-insecure-skip-tls-verify", json!(discovery.tls.skip_verify)),
        ("discovery-cert", json!(discovery.tls.cert)),
        ("discovery-key", json!(discovery.tls.key)),
        ("discovery-cacert", json!(discovery.tls.ca)),
        ("discovery-user", json!(discovery.user)),
        ("downgrade-check-interval", json!(go::duration(config.downgrade_check))),
        ("max-learners", json!(config.max_learners)),
        ("v2-deprecation", json!("write-only")),
    ]
}

/// The processor's kind as Go calls it.
pub(super) fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(super) fn local_address(config: &Config) {
    if !config.is_open("SetMemberLocalAddr") {
        return;
    }
    match config.local_address() {
        Some(local) => tracing::info!(LocalAddr = %local, "setting member local address"),
        None => tracing::warn!(
            "advertise-peer-urls" = ?texts(&config.advertise_peer_urls),
            "unable to set a member local address due to lack of suitable local addresses"
        ),
    }
}

/// Says what the member listens on, and what it tells others.
pub(super) fn serving(config: &Config, node: &node::Node) {
    tracing::info!(
        "local-member-id" = %format!("{:x}", node.member_id()),
        "initial-advertise-peer-urls" = ?texts(&config.advertise_peer_urls),
        "listen-peer-urls" = ?texts(&config.listen_peer_urls),
        "advertise-client-urls" = ?texts(&config.advertise_client_urls),
        "listen-client-urls" = ?texts(&config.listen_client_urls),
        "listen-metrics-urls" = ?texts(&config.listen_metrics_urls),
        "now serving peer/client/metrics"
    );
    elsewhere(config, node);
}

/// Says where clients are served, and whether over TLS.
pub(super) fn ready(listeners: &[Listener]) {
    for listener in listeners {
        tracing::info!("ready to serve client requests");
        let (traffic, address) = (listener.traffic.name(), listener.address.as_str());
        let security = match (listener.is_plain, listener.is_secured()) {
            (true, true) => "with TLS or without",
            (true, false) => "without TLS",
            (false, _) => "with TLS",
        };
        tracing::info!(
            target: log::PEOPLE,
            "ready to serve client requests on {address}, {security}"
        );
        if listener.is_plain {
            tracing::info!(
                traffic,
                address,
                "serving client traffic insecurely; this is strongly discouraged!"
            );
        }
        if listener.is_secured() {
            tracing::info!(traffic, address, "serving client traffic securely");
        }
    }
}
