//! From flags and environment to a configuration that holds together.
//!
//! A flag or feature gate whose other values would break a promise if they were ignored is accepted
//! at its default only.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use super::check::{self, check, refuse_unsupported};
use super::config::{
    Compaction, Config, Form, Level, Log, Notice, PeerTimeouts, Sockets, Source, StartedAs, Stop,
    Tracing, Writing, invalid,
};
use super::discovery::Discovery;
use super::flags::{self, Given};
use super::rotate::Rotation;
use super::values::Values;
use super::{addresses, environment, file, journal, rotate, tls, url};
use crate::client::TlsOptions;
use crate::{gateway, go, limits};

/// Reads the command line and `environment`, or in their place a configuration file, checks the
/// settings and adds what they imply. `notices` are to be logged also if the settings are invalid.
pub(super) fn load(
    started_as: StartedAs,
    arguments: &[String],
    environment: &[(String, String)],
    notices: &mut Vec<Notice>,
) -> Result<Config, Stop> {
    let mut given = flags::parse(arguments).map_err(|stop| match stop {
        flags::Stop::Help => Stop::Help,
        flags::Stop::Bad(text) => Stop::Usage(text),
    })?;
    if let Some(word) = &given.rest {
        return invalid(format!("{} is not a valid flag", go::quote(word)));
    }
    if go::parse_bool(given.text("version")) == Ok(true) {
        return Err(Stop::Version);
    }
    let variable = || environment.iter().find(|(name, _)| name == "ETCD_CONFIG_FILE");
    let file = match given.text("config-file") {
        "" => variable().map_or("", |(_, path)| path.as_str()),
        path => path,
    };
    if !file.is_empty() {
        let path = PathBuf::from(file);
        let (mut given, unknown) = file::read(&path).map_err(Stop::Invalid)?;
        notices.push(Notice::FileUsed(path));
        notices.extend(old_names(&mut given));
        notices.extend(unknown.into_iter().map(Notice::KeyUnknown));
        refuse_unsupported(&given)?;
        return build(started_as, given, notices);
    }
    notices.extend(old_names(&mut given));
    environment::add(&mut given, environment, notices)?;
    notices.extend(old_names(&mut given));
    refuse_unsupported(&given)?;
    build(started_as, given, notices)
}

fn old_names(given: &mut Given) -> impl Iterator<Item = Notice> + use<> {
    std::mem::take(&mut given.old_names).into_iter().map(Notice::OldName)
}

/// A configuration from what flags and variables, or a file, have given.
fn build(
    started_as: StartedAs,
    mut given: Given,
    notices: &mut Vec<Notice>,
) -> Result<Config, Stop> {
    if started_as == StartedAs::Rusd {
        let follows = addresses::follow(&mut given);
        let exposed = addresses::exposed(&follows);
        notices.extend((!follows.is_empty()).then_some(Notice::Follows(follows)));
        notices.extend((!exposed.is_empty()).then_some(Notice::Exposed(exposed)));
    }
    let given = &given;
    let used = flags::DEPRECATED.iter().filter(|(name, _)| given.is_set(name));
    notices.extend(used.map(|&(_, text)| Notice::Deprecated(text)));
    notices.extend(raised(given));
    let without_effect = check::without_effect(given);
    notices.extend((!without_effect.is_empty()).then_some(Notice::NoEffect(without_effect)));
    if given.text("discovery-fallback") == "proxy" {
        return invalid(
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        );
    }
    let mut config = settings(started_as, given)?;
    check(&config, given)?;
    notices.extend(defaults_to_notice(&config, given));
    config.compaction =
        compaction(given.text("auto-compaction-mode"), given.text("auto-compaction-retention"))?;
    follow_defaults(&mut config);
    Ok(config)
}

/// The settings one by one, before they are checked against each other.
fn settings(started_as: StartedAs, given: &Given) -> Result<Config, Stop> {
    let (values, log) = (Values(given), log_settings(started_as, given)?);
    let name = given.text("name").to_owned();
    Ok(Config {
        started_as,
        data_dir: data_dir(given),
        wal_dir: Some(given.text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
        takes_in_etcds: values.bool("import-etcd-dir"),
        listen_peer_urls: values.urls("listen-peer-urls"),
        listen_client_urls: values.urls("listen-client-urls"),
        listen_client_http_urls: values.urls("listen-client-http-urls"),
        listen_metrics_urls: values.urls("listen-metrics-urls"),
        advertise_peer_urls: values.urls("initial-advertise-peer-urls"),
        advertise_client_urls: values.urls("advertise-client-urls"),
        source: source(given),
        new_cluster: given.text("initial-cluster-state") == "new",
        force_new_cluster: values.bool("force-new-cluster"),
        strict_reconfig_check: values.bool("strict-reconfig-check"),
        max_learners: usize::try_from(values.int("max-learners")).unwrap_or_default(),
        token: given.text("initial-cluster-token").to_owned(),
        heartbeat: Duration::from_millis(values.uint("heartbeat-interval")),
        election: Duration::from_millis(values.uint("election-timeout")),
        election_tick_advance: values.bool("initial-election-tick-advance"),
        pre_vote: values.bool("pre-vote"),
        sockets: sockets(given),
        peer_timeouts: peer_timeouts(given),
        locks_memory: values.bool("memory-mlock"),
        max_request_bytes: usize::try_from(values.uint("max-request-bytes")).unwrap_or(usize::MAX),
        max_txn_ops: usize::try_from(values.uint("max-txn-ops")).unwrap_or(usize::MAX),
        max_concurrent_streams: u32::try_from(values.uint("max-concurrent-streams"))
            .unwrap_or(u32::MAX),
        keepalive_min: values.duration("grpc-keepalive-min-time"),
        keepalive_interval: values.duration("grpc-keepalive-interval"),
        keepalive_timeout: values.duration("grpc-keepalive-timeout"),
        quota_bytes: values.int("quota-backend-bytes"),
        space_policy_is_auto: given.text("space-policy") == "auto",
        defrag_at_start_bytes: values.uint("bootstrap-defrag-threshold-megabytes") << 20,
        snapshot_count: snapshot_count(values.uint("snapshot-count")),
        catch_up_entries: values.uint("snapshot-catchup-entries"),
        downgrade_check: values.duration("downgrade-check-time"),
        initial_corrupt_check: values.is_open("InitialCorruptCheck"),
        corrupt_check: values.duration("corrupt-check-time"),
        compact_hash_check: values
            .is_open("CompactHashCheck")
            .then(|| values.duration("compact-hash-check-time")),
        hash_check_interval: values.duration("compact-hash-check-time"),
        writing: writing(&values),
        compaction: Compaction::Off,
        compaction_mode: given.text("auto-compaction-mode").to_owned(),
        progress_interval: progress_interval(&values),
        auth_token: given.text("auth-token").to_owned(),
        auth_token_ttl: token_ttl(values.uint("auth-token-ttl")),
        bcrypt_cost: u32::try_from(values.uint("bcrypt-cost")).unwrap_or(u32::MAX),
        warning_request: values.duration("warning-unary-request-duration"),
        warning_apply: values.duration("warning-apply-duration"),
        extensive_metrics: given.text("metrics") == "extensive",
        tracing: tracing(&values),
        origins: values.words("cors"),
        gateway: gateway(&values),
        hosts: values.words("host-whitelist"),
        gates: values.gates(),
        gates_set: values.gates_set(),
        wals_max: values.uint("max-wals"),
        snapshots_max: values.uint("max-snapshots"),
        discovery: discovery(given),
        tls: tls::settings(given),
        log,
        name,
    })
}

fn writing(values: &Values<'_>) -> Writing {
    Writing {
        batch_interval: values.own_duration("backend-batch-interval"),
        batch_limit: values.own_count("backend-batch-limit"),
        compaction_batch_limit: values.own_count("compaction-batch-limit"),
        compaction_pause: values.own_duration("compaction-sleep-interval"),
        syncs: !values.bool("unsafe-no-fsync"),
    }
}

fn tracing(values: &Values<'_>) -> Option<Tracing> {
    let Values(given) = values;
    let text = |name: &str| given.text(name).to_owned();
    values.bool("enable-distributed-tracing").then(|| Tracing {
        address: text("distributed-tracing-address"),
        service_name: text("distributed-tracing-service-name"),
        instance_id: text("distributed-tracing-instance-id"),
        // `check` refuses what is out of range.
        per_million: u32::try_from(values.int(check::SAMPLING_RATE)).unwrap_or_default(),
    })
}

fn gateway(values: &Values<'_>) -> Option<gateway::Config> {
    let exact_errors = values.bool("gateway-exact-errors");
    values.bool("enable-grpc-gateway").then_some(gateway::Config { exact_errors })
}

/// etcd warns of the default name, and of a data directory that depends on the working directory.
fn defaults_to_notice(config: &Config, given: &Given) -> impl Iterator<Item = Notice> {
    let dir = given.text("data-dir").is_empty();
    let dir = dir.then(|| Notice::DefaultDataDir(config.data_dir.clone()));
    dir.into_iter().chain((config.name == "default").then_some(Notice::DefaultName))
}

fn data_dir(given: &Given) -> PathBuf {
    match given.text("data-dir") {
        "" => PathBuf::from(format!("{}.etcd", given.text("name"))),
        path => PathBuf::from(path),
    }
}

/// As in etcd, 5 s at least: the sender of a stream gives a sign of life three times in that time.
fn peer_timeouts(given: &Given) -> PeerTimeouts {
    let at_least = |name, least: Duration| Values(given).duration(name).max(least);
    PeerTimeouts {
        read: at_least("raft-read-timeout", limits::PEER_READ_TIMEOUT),
        write: at_least("raft-write-timeout", limits::PEER_WRITE_TIMEOUT),
    }
}

/// The timeouts between members that are below the least.
fn raised(given: &Given) -> impl Iterator<Item = Notice> {
    let least = [
        ("raft-read-timeout", limits::PEER_READ_TIMEOUT),
        ("raft-write-timeout", limits::PEER_WRITE_TIMEOUT),
    ];
    let below = least.into_iter().filter(|&(name, least)| Values(given).duration(name) < least);
    below.map(|(name, least)| Notice::Raised(name, least))
}

fn sockets(given: &Given) -> Sockets {
    let values = Values(given);
    Sockets {
        reuse_port: values.bool("socket-reuse-port"),
        reuse_address: values.bool("socket-reuse-address"),
    }
}

/// What `--initial-cluster` says, or in its place DNS or a discovery service.
fn source(given: &Given) -> Source {
    let text = |name| given.text(name).to_owned();
    if !Values(given).discovery_endpoints().is_empty() {
        return Source::Discovery;
    }
    let service = Some(text("discovery-srv-name")).filter(|name| !name.is_empty());
    match (given.text("discovery-srv"), service) {
        // A service without a domain names no members, but still takes the place of the default
        // list.
        ("", Some(_)) if !given.is_set("initial-cluster") && !given.is_from_file() => {
            Source::Flags(String::new())
        }
        ("", _) => Source::Flags(text("initial-cluster")),
        (domain, service) => Source::Domain { domain: domain.to_owned(), service },
    }
}

fn discovery(given: &Given) -> Discovery {
    let values = Values(given);
    let text = |name| given.text(name).to_owned();
    let path = |name| Some(given.text(name)).filter(|it| !it.is_empty()).map(PathBuf::from);
    Discovery {
        endpoints: Values(given).discovery_endpoints(),
        token: text("discovery-token"),
        dial_timeout: values.duration("discovery-dial-timeout"),
        request_timeout: values.duration("discovery-request-timeout"),
        keep_alive_time: values.duration("discovery-keepalive-time"),
        keep_alive_timeout: values.duration("discovery-keepalive-timeout"),
        tls: TlsOptions {
            cert: path("discovery-cert"),
            key: path("discovery-key"),
            ca: path("discovery-cacert"),
            insecure_transport: values.bool("discovery-insecure-transport"),
            skip_verify: values.bool("discovery-insecure-skip-tls-verify"),
            server_name: String::new(),
        },
        user: text("discovery-user"),
        password: text("discovery-password"),
    }
}

fn log_settings(started_as: StartedAs, given: &Given) -> Result<Log, Stop> {
    if given.text("logger") != "zap" {
        return invalid(format!("unknown logger option {}", go::quote(given.text("logger"))));
    }
    let level = match given.text("log-level").to_ascii_lowercase().as_str() {
        "debug" => Level::Debug,
        "info" | "" => Level::Info,
        "warn" => Level::Warn,
        "error" => Level::Error,
        "dpanic" | "panic" | "fatal" => Level::Fatal,
        _ => {
            return Err(Stop::Usage(format!(
                "unrecognized level: {}",
                go::quote(given.text("log-level"))
            )));
        }
    };
    let form = log_form(started_as, given)?;
    if given.text("log-outputs").is_empty() {
        return invalid("open sink \"\": open : no such file or directory");
    }
    let outputs = Values(given).words("log-outputs");
    if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
        return invalid("multi logoutput for \"default\" is not supported yet");
    }
    let rotation = match Values(given).bool("enable-log-rotation") {
        true => Some(rotation(given, &outputs).map_err(Stop::Invalid)?),
        false => None,
    };
    if outputs.len() > 1 && outputs.iter().any(|output| output == journal::OUTPUT) {
        let mut sorted: Vec<String> = outputs.iter().map(go::quote).collect();
        sorted.sort();
        sorted.dedup();
        return invalid(format!(
            "running with systemd/journal but other '--log-outputs' values ([{}]) are configured \
             with 'default'; override 'default' value with something else",
            sorted.join(" ")
        ));
    }
    Ok(Log { level, form, outputs, rotation, sums_repeats: started_as == StartedAs::Rusd })
}

/// The form of log lines. Under the name rusd, a person who starts the server at a terminal gets
/// lines for people, unless a format or another place was asked for.
fn log_form(started_as: StartedAs, given: &Given) -> Result<Form, Stop> {
    let is_rusd = started_as == StartedAs::Rusd;
    let chosen = ["log-format", "log-outputs"].iter().any(|name| given.is_set(name));
    match given.text("log-format") {
        "human" if is_rusd => Ok(Form::Human),
        "json" | "" if is_rusd && !chosen && std::io::stderr().is_terminal() => Ok(Form::Human),
        "json" | "" => Ok(Form::Json),
        "console" => Ok(Form::Console),
        other => {
            let more = if is_rusd { ", human" } else { "" };
            invalid(format!("unknown log format: {other}, supported values json, console{more}"))
        }
    }
}

fn rotation(given: &Given, outputs: &[String]) -> Result<Rotation, String> {
    rotate::check_outputs(outputs)?;
    Rotation::parse(given.text("log-rotation-config-json"))
}

fn progress_interval(values: &Values<'_>) -> Duration {
    let given = values.own_duration("watch-progress-notify-interval");
    given.unwrap_or(limits::WATCH_PROGRESS_INTERVAL).max(limits::WATCH_PROGRESS_INTERVAL_MIN)
}

/// Zero means the default.
fn snapshot_count(given: u64) -> u64 {
    if given == 0 { 10_000 } else { given }
}

/// A token's TTL from seconds, computed in wrapping 64-bit nanoseconds as etcd does. A negative
/// product becomes zero, for which the default TTL is used.
fn token_ttl(seconds: u64) -> Duration {
    let nanos = seconds.cast_signed().wrapping_mul(1_000_000_000);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

/// What to keep: hours, or a duration, for `periodic`; a number of revisions for `revision`.
fn compaction(mode: &str, retention: &str) -> Result<Compaction, Stop> {
    let parse = |why: String| Stop::Invalid(format!("error parsing CompactionRetention: {why}"));
    let retention = if retention.is_empty() { "0" } else { retention };
    let value = match retention.parse::<i64>() {
        Ok(count) if mode == "revision" => count,
        Ok(hours) => hours
            .checked_mul(3_600_000_000_000)
            .ok_or_else(|| parse(format!("time: invalid duration {}", go::quote(retention))))?,
        // A duration counts its nanoseconds as revisions, as in etcd.
        Err(_) => go::parse_duration(retention).map_err(parse)?,
    };
    if value < 0 {
        return invalid(format!(
            "--auto-compaction-retention must not be negative (set to {retention})"
        ));
    }
    Ok(match (value, mode) {
        (0, _) => Compaction::Off,
        (count, "revision") => Compaction::Revision(count),
        (nanos, _) => Compaction::Periodic(Duration::from_nanos(nanos.unsigned_abs())),
    })
}

/// What follows from other settings when it is not given: the advertised host of a member that
/// listens everywhere, and a first cluster of this member alone.
fn follow_defaults(config: &mut Config) {
    let default_peer = flags::find("initial-advertise-peer-urls").map_or("", |flag| flag.default);
    let listens_everywhere =
        config.listen_peer_urls.first().is_some_and(|url| url.host_port().0 == "0.0.0.0");
    if listens_everywhere
        && url::join(&config.advertise_peer_urls) == default_peer
        && let Some(host) = addresses::default_host()
    {
        let port = config.listen_peer_urls[0].host_port().1.to_owned();
        let url = config.advertise_peer_urls[0].with_host(&host, &port);
        config.advertise_peer_urls = vec![url];
    }
    let default_cluster = flags::find("initial-cluster").map_or("", |flag| flag.default);
    if config.name != "default"
        && let Source::Flags(list) = &mut config.source
        && list == default_cluster
    {
        let members: Vec<String> =
            config.advertise_peer_urls.iter().map(|url| format!("{}={url}", config.name)).collect();
        *list = members.join(",");
    }
}

#[cfg(test)]
mod tests;
