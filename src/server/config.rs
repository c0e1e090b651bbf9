//! From flags and environment to a configuration that holds together.
//!
//! The order of the checks and their texts are etcd's, since scripts and people match them. A flag
//! that this server does not honour is taken at its default only; anything else is refused, so that
//! nobody believes in a setting that does nothing.

use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use super::discovery::Discovery;
use super::file;
use super::flags::{self, Flag, Given, Kind, Support};
use super::go;
use super::url::{self, Url};
use super::{environment, tls};
use crate::client::TlsOptions;
use crate::limits;

/// Longest election timeout that etcd takes.
const ELECTION_MS_MAX: u64 = 50_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compaction {
    Off,
    Periodic(Duration),
    Revision(i64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Debug,
    Info,
    Warn,
    Error,
    /// Panic and fatal: nothing but the end is worth a line.
    Fatal,
}

#[derive(Clone, Debug)]
pub(super) struct Log {
    pub level: Level,
    pub json: bool,
    pub outputs: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub wal_dir: Option<PathBuf>,
    pub listen_peer_urls: Vec<Url>,
    pub listen_client_urls: Vec<Url>,
    /// For HTTP alone; then the others are for gRPC alone.
    pub listen_client_http_urls: Vec<Url>,
    pub listen_metrics_urls: Vec<Url>,
    pub advertise_peer_urls: Vec<Url>,
    pub advertise_client_urls: Vec<Url>,
    pub source: Source,
    pub new_cluster: bool,
    pub force_new_cluster: bool,
    pub strict_reconfig_check: bool,
    pub max_learners: usize,
    pub token: String,
    pub heartbeat: Duration,
    pub election: Duration,
    pub hasten_election: bool,
    pub pre_vote: bool,
    pub sockets: Sockets,
    /// Whether memory is kept from being swapped out.
    pub locks_memory: bool,
    pub max_request_bytes: usize,
    pub max_txn_ops: usize,
    pub max_concurrent_streams: u32,
    pub keepalive_min: Duration,
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    pub quota_bytes: i64,
    /// Whether a full store is compacted and the alarm taken back without being asked.
    pub keeps_space: bool,
    pub defrag_at_start_bytes: u64,
    pub snapshot_count: u64,
    pub catch_up_entries: u64,
    pub downgrade_check: Duration,
    pub initial_corrupt_check: bool,
    pub corrupt_check: Duration,
    /// Where its gate is open.
    pub compact_hash_check: Option<Duration>,
    /// Whether its gate is open or not.
    pub hash_check_interval: Duration,
    pub batch_interval: Option<Duration>,
    pub compaction: Compaction,
    /// `periodic` or `revision`, whether anything is compacted or not.
    pub compaction_mode: String,
    pub compaction_pause: Option<Duration>,
    pub progress_interval: Duration,
    pub auth_token: String,
    pub auth_token_ttl: Duration,
    pub bcrypt_cost: u32,
    pub warning_request: Duration,
    pub extensive_metrics: bool,
    pub origins: Vec<String>,
    pub hosts: Vec<String>,
    pub gates: Vec<(&'static str, &'static str, bool)>,
    /// Those of them that were set.
    pub gates_set: Vec<(&'static str, bool)>,
    /// Counts of files that are kept by other rules here; the log shows them.
    pub wals_max: u64,
    pub snapshots_max: u64,
    /// Whether it is used is said by `source`.
    pub discovery: Discovery,
    pub tls: super::tls::Settings,
    pub log: Log,
}

/// Options of listening sockets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sockets {
    /// Take a port that another process listens on with the same option.
    pub reuse_port: bool,
    /// Take a port whose old connections are not forgotten yet; every listener does.
    pub reuse_address: bool,
}

/// Where the members of the first cluster are named.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In `--initial-cluster`.
    Flags(String),
    /// In DNS.
    Domain { domain: String, service: Option<String> },
    /// By each other, through a discovery service.
    Discovery,
}

/// Something worth a log line before there is a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    DefaultName,
    DefaultDataDir(PathBuf),
    OldName(String),
    /// In the words of the line.
    Deprecated(&'static str),
    FileUsed(PathBuf),
    KeyUnknown(String),
    VariableUsed {
        name: String,
        value: String,
    },
    VariableUnknown(String),
    /// It has the name of a flag, and is not one.
    VariableSpecial {
        name: String,
        value: String,
    },
}

/// How a start that does not serve ends.
#[derive(Debug)]
pub(super) enum Stop {
    Help,
    Version,
    /// The command line cannot be parsed: text, usage, 2.
    Usage(String),
    /// The settings do not hold together: a log line, 1.
    Invalid(String),
    /// An environment variable contradicts a flag: a log line, 1.
    Conflict(String),
}

pub(super) fn invalid<T>(text: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Invalid(text.into()))
}

impl Stop {
    /// The exit code, and what is said of it.
    pub(super) fn outcome(&self) -> (u8, &str) {
        match self {
            Self::Help | Self::Version => (0, ""),
            Self::Usage(text) => (2, text),
            Self::Invalid(text) | Self::Conflict(text) => (1, text),
        }
    }
}

/// Reads the command line and `environment`, checks them and adds what they imply. The notices are
/// worth their lines even if nothing comes of the rest.
pub(super) fn load(
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
    if go::parse_bool(given.text("version")) == Some(true) {
        return Err(Stop::Version);
    }
    let variable = || environment.iter().find(|(name, _)| name == "ETCD_CONFIG_FILE");
    let file = match given.text("config-file") {
        "" => variable().map_or("", |(_, path)| path.as_str()),
        path => path,
    };
    if !file.is_empty() {
        let path = PathBuf::from(file);
        let (given, unknown) = file::read(&path).map_err(Stop::Invalid)?;
        notices.push(Notice::FileUsed(path));
        notices.extend(unknown.into_iter().map(Notice::KeyUnknown));
        refuse_unsupported(&given)?;
        return build(&given, notices);
    }
    for old in std::mem::take(&mut given.old_names) {
        notices.push(Notice::OldName(old));
    }
    environment::add(&mut given, environment, notices)?;
    refuse_unsupported(&given)?;
    build(&given, notices)
}

/// A flag that is not honoured may only repeat its default.
fn refuse_unsupported(given: &Given) -> Result<(), Stop> {
    let equal = |flag: &Flag, text: &str| match flag.kind {
        Kind::Bool => go::parse_bool(text) == go::parse_bool(flag.default),
        Kind::Uint | Kind::Int => go::parse_int(text) == go::parse_int(flag.default),
        _ => text == flag.default,
    };
    for (flag, text) in given.given().filter(|(flag, _)| flag.support == Support::Default) {
        if !equal(flag, text) {
            return invalid(format!("flag --{} is not supported by rusd yet", flag.name));
        }
    }
    let gates = flags::gates(given.text("feature-gates")).map_err(Stop::Invalid)?;
    for (name, on) in gates {
        let known = flags::GATES.iter().find(|(gate, ..)| *gate == name);
        if known.is_some_and(|&(_, _, default, free)| on != default && !free) {
            return invalid(format!("feature gate {name}={on} is not supported by rusd yet"));
        }
    }
    Ok(())
}

/// Typed access; the texts were checked when they were given.
pub(super) struct Values<'a>(pub &'a Given);

impl Values<'_> {
    pub(super) fn uint(&self, name: &str) -> u64 {
        go::parse_uint(self.0.text(name), u64::MAX).unwrap_or_default()
    }
    fn int(&self, name: &str) -> i64 {
        go::parse_int(self.0.text(name)).unwrap_or_default()
    }
    /// A duration; a negative one counts as zero.
    fn duration(&self, name: &str) -> Duration {
        let nanos = go::parse_duration(self.0.text(name)).unwrap_or_default();
        Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
    }
    pub(super) fn bool(&self, name: &str) -> bool {
        go::parse_bool(self.0.text(name)) == Some(true)
    }
    /// Zero means that the server chooses.
    fn own_duration(&self, name: &str) -> Option<Duration> {
        Some(self.duration(name)).filter(|value| !value.is_zero())
    }
    fn urls(&self, name: &str) -> Vec<Url> {
        Url::parse_list(self.0.text(name)).unwrap_or_default()
    }
    pub(super) fn words(&self, name: &str) -> Vec<String> {
        self.0
            .text(name)
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

fn build(given: &Given, notices: &mut Vec<Notice>) -> Result<Config, Stop> {
    let values = Values(given);
    let used = flags::DEPRECATED.iter().filter(|(name, _)| given.is_set(name));
    notices.extend(used.map(|&(_, text)| Notice::Deprecated(text)));
    if given.text("discovery-fallback") == "proxy" {
        return invalid(
            "v2 proxy is deprecated, and --discovery-fallback can't be configured as \"proxy\"",
        );
    }
    let log = log_settings(given)?;
    let name = given.text("name").to_owned();
    let mut config = Config {
        data_dir: data_dir(given),
        wal_dir: Some(given.text("wal-dir")).filter(|dir| !dir.is_empty()).map(PathBuf::from),
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
        hasten_election: values.bool("initial-election-tick-advance"),
        pre_vote: values.bool("pre-vote"),
        sockets: sockets(given),
        locks_memory: values.bool("memory-mlock"),
        max_request_bytes: usize::try_from(values.uint("max-request-bytes")).unwrap_or(usize::MAX),
        max_txn_ops: usize::try_from(values.uint("max-txn-ops")).unwrap_or(usize::MAX),
        max_concurrent_streams: u32::try_from(values.uint("max-concurrent-streams"))
            .unwrap_or(u32::MAX),
        keepalive_min: values.duration("grpc-keepalive-min-time"),
        keepalive_interval: values.duration("grpc-keepalive-interval"),
        keepalive_timeout: values.duration("grpc-keepalive-timeout"),
        quota_bytes: values.int("quota-backend-bytes"),
        keeps_space: given.text("space-policy") == "auto",
        defrag_at_start_bytes: values.uint("bootstrap-defrag-threshold-megabytes") << 20,
        snapshot_count: match values.uint("snapshot-count") {
            0 => 10_000,
            count => count,
        },
        catch_up_entries: values.uint("snapshot-catchup-entries"),
        downgrade_check: values.duration("downgrade-check-time"),
        initial_corrupt_check: is_open(given, "InitialCorruptCheck"),
        corrupt_check: values.duration("corrupt-check-time"),
        compact_hash_check: is_open(given, "CompactHashCheck")
            .then(|| values.duration("compact-hash-check-time")),
        hash_check_interval: values.duration("compact-hash-check-time"),
        batch_interval: values.own_duration("backend-batch-interval"),
        compaction: Compaction::Off,
        compaction_mode: given.text("auto-compaction-mode").to_owned(),
        compaction_pause: values.own_duration("compaction-sleep-interval"),
        progress_interval: values
            .own_duration("watch-progress-notify-interval")
            .unwrap_or(limits::WATCH_PROGRESS_INTERVAL)
            .max(limits::WATCH_PROGRESS_INTERVAL_MIN),
        auth_token: given.text("auth-token").to_owned(),
        auth_token_ttl: token_ttl(values.uint("auth-token-ttl")),
        bcrypt_cost: u32::try_from(values.uint("bcrypt-cost")).unwrap_or(u32::MAX),
        warning_request: values.duration("warning-unary-request-duration"),
        extensive_metrics: given.text("metrics") == "extensive",
        origins: values.words("cors"),
        hosts: values.words("host-whitelist"),
        gates: gate_settings(given),
        gates_set: gates_set(given),
        wals_max: values.uint("max-wals"),
        snapshots_max: values.uint("max-snapshots"),
        discovery: discovery(given),
        tls: tls::settings(given),
        log,
        name,
    };
    check(&config, given)?;
    notices.extend(defaults_to_notice(&config, given));
    config.compaction =
        compaction(given.text("auto-compaction-mode"), given.text("auto-compaction-retention"))?;
    follow_defaults(&mut config);
    Ok(config)
}

/// etcd warns of a member that is not named, and of a directory that depends on where it was started.
fn defaults_to_notice(config: &Config, given: &Given) -> impl Iterator<Item = Notice> {
    let dir = given.text("data-dir").is_empty();
    let dir = dir.then(|| Notice::DefaultDataDir(config.data_dir.clone()));
    dir.into_iter().chain((config.name == "default").then_some(Notice::DefaultName))
}

/// The default would tell clients of a place where this member does not listen.
fn is_advertise_missing(given: &Given) -> bool {
    let is_set = |name| given.is_set(name);
    is_set("listen-client-urls") && !is_set("advertise-client-urls") && !given.is_from_file()
}

fn data_dir(given: &Given) -> PathBuf {
    match given.text("data-dir") {
        "" => PathBuf::from(format!("{}.etcd", given.text("name"))),
        path => PathBuf::from(path),
    }
}

impl Config {
    /// Whether a feature gate is open.
    pub(super) fn is_open(&self, gate: &str) -> bool {
        self.gates.iter().any(|(name, _, on)| *name == gate && *on)
    }

    /// Where this member connects to peers from, if it is told to: the first address that it tells
    /// them which is one.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        let hosts = self.advertise_peer_urls.iter().map(|url| url.host_port().0);
        let mut addresses = hosts.filter_map(|host| host.parse::<IpAddr>().ok());
        addresses
            .find(|address| !address.is_loopback() && !address.is_unspecified())
            .filter(|_| self.is_open("SetMemberLocalAddr"))
    }
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
    if !discovery_endpoints(given).is_empty() {
        return Source::Discovery;
    }
    let service = Some(text("discovery-srv-name")).filter(|name| !name.is_empty());
    match (given.text("discovery-srv"), service) {
        // A service without a domain finds nobody, and takes the place of the default all the same.
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
        endpoints: discovery_endpoints(given),
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

/// In the order given, each once. An empty list is none, unless it was given.
fn discovery_endpoints(given: &Given) -> Vec<String> {
    let mut endpoints: Vec<String> = Vec::new();
    if given.is_set("discovery-endpoints") {
        for endpoint in given.text("discovery-endpoints").split(',') {
            if !endpoints.iter().any(|known| known == endpoint) {
                endpoints.push(endpoint.to_owned());
            }
        }
    }
    endpoints
}

/// One way to name the members, and that one completely.
fn check_source(given: &Given) -> Result<(), Stop> {
    let endpoints = discovery_endpoints(given);
    let is_set = |name| given.is_set(name) && !given.text(name).is_empty();
    let ways = [is_set("initial-cluster"), is_set("discovery-srv"), !endpoints.is_empty()];
    if ways.into_iter().filter(|is_used| *is_used).count() > 1 {
        return invalid(
            "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
             \"discovery-endpoints\" or \"discovery-srv\"",
        );
    }
    if given.text("discovery-token").is_empty() != endpoints.is_empty() {
        return invalid("both --discovery-token and --discovery-endpoints must be set");
    }
    if endpoints.iter().any(|endpoint| endpoint.trim().is_empty()) {
        return invalid("--discovery-endpoints must not contain empty endpoints");
    }
    Ok(())
}

fn is_open(given: &Given, gate: &str) -> bool {
    gate_settings(given).iter().any(|(name, _, on)| *name == gate && *on)
}

fn gates_set(given: &Given) -> Vec<(&'static str, bool)> {
    flags::gates(given.text("feature-gates")).unwrap_or_default()
}

fn gate_settings(given: &Given) -> Vec<(&'static str, &'static str, bool)> {
    let set = gates_set(given);
    flags::GATES
        .iter()
        .map(|&(name, stage, default, _)| {
            let on =
                set.iter().rev().find(|(gate, _)| *gate == name).map_or(default, |&(_, on)| on);
            (name, stage, on)
        })
        .collect()
}

fn log_settings(given: &Given) -> Result<Log, Stop> {
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
    let json = match given.text("log-format") {
        "json" | "" => true,
        "console" => false,
        other => {
            return invalid(format!("unknown log format: {other}, supported values json, console"));
        }
    };
    if given.text("log-outputs").is_empty() {
        return invalid("open sink \"\": open : no such file or directory");
    }
    let outputs = Values(given).words("log-outputs");
    if outputs.len() > 1 && outputs.iter().any(|output| output == "default") {
        return invalid("multi logoutput for \"default\" is not supported yet");
    }
    if outputs.iter().any(|output| output == "systemd/journal") {
        return invalid("log output systemd/journal is not supported by rusd yet");
    }
    Ok(Log { level, json, outputs })
}

/// etcd's checks in etcd's order.
fn check(config: &Config, given: &Given) -> Result<(), Stop> {
    let bind = |urls: &[Url]| url::check_bind(urls).map_err(Stop::Invalid);
    bind(&config.listen_peer_urls)?;
    bind(&config.listen_client_urls)?;
    bind(&config.listen_client_http_urls)?;
    bind(&config.listen_metrics_urls)?;
    if let Err(why) = url::check_host(&config.advertise_peer_urls) {
        let urls = go::quote(&url::join(&config.advertise_peer_urls));
        return invalid(format!(
            "--initial-advertise-peer-urls {urls} must be \"host:port\" ({why})"
        ));
    }
    if let Err(why) = url::check_host(&config.advertise_client_urls) {
        let urls = go::quote(&url::join(&config.advertise_client_urls));
        return invalid(format!(
            "--advertise-client-urls {urls} must be in the format \"host:port\", \
             \"unix:/path/to/socket\" or \"unixs:/path/to/socket\" ({why})"
        ));
    }
    check_source(given)?;
    let (heartbeat, election) = (config.heartbeat.as_millis(), config.election.as_millis());
    if heartbeat == 0 {
        return invalid("--heartbeat-interval must be >0 (set to 0ms)");
    }
    if election == 0 {
        return invalid("--election-timeout must be >0 (set to 0ms)");
    }
    if heartbeat.saturating_mul(5) > election {
        return invalid(format!(
            "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
        ));
    }
    if election > u128::from(ELECTION_MS_MAX) {
        return invalid(format!(
            "--election-timeout[{election}ms] is too long, and should be set less than {ELECTION_MS_MAX}ms"
        ));
    }
    if is_advertise_missing(given) {
        return invalid(
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        );
    }
    if Values(given).int("max-learners") < 0 {
        return invalid("membership: too many learner members in cluster");
    }
    match given.text("auto-compaction-mode") {
        "periodic" | "revision" => {}
        "" => return invalid("undefined auto-compaction-mode"),
        mode => return invalid(format!("unknown auto-compaction-mode {}", go::quote(mode))),
    }
    if !["alarm", "auto"].contains(&given.text("space-policy")) {
        let policy = go::quote(given.text("space-policy"));
        return invalid(format!("unknown space-policy {policy}; it is alarm or auto"));
    }
    check_time(given, "compact-hash-check-time")?;
    let clients = [config.listen_client_urls.as_slice(), &config.listen_client_http_urls].concat();
    let (peers, probes) = (&config.listen_peer_urls, &config.listen_metrics_urls);
    config.tls.check(&clients, peers, probes).map_err(Stop::Invalid)
}

/// Seconds as etcd counts them, in nanoseconds of 64 bits that wrap. What comes out negative is no
/// time, for which there is a default.
fn token_ttl(seconds: u64) -> Duration {
    let nanos = seconds.cast_signed().wrapping_mul(1_000_000_000);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or_default())
}

fn check_time(given: &Given, name: &str) -> Result<(), Stop> {
    if go::parse_duration(given.text(name)).is_ok_and(|nanos| nanos <= 0) {
        return invalid(format!("--{name} must be >0 (set to {})", given.text(name)));
    }
    Ok(())
}

/// What to keep: hours or a duration for `periodic`, a number of revisions for `revision`.
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
        && let Some(host) = default_host()
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

/// The address that this machine would use to reach others. Nothing is sent.
fn default_host() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified()).then(|| ip.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn of(line: &str) -> Result<Config, Stop> {
        load(&words(line), &[], &mut Vec::new())
    }

    fn refused(line: &str) -> String {
        match of(line) {
            Err(Stop::Invalid(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn defaults_are_etcds() {
        let config = of("").unwrap();
        assert_eq!(config.data_dir, PathBuf::from("default.etcd"));
        assert_eq!(config.election, Duration::from_secs(1));
        assert_eq!(config.max_request_bytes, 1_572_864);
        assert_eq!(config.snapshot_count, 10_000);
        assert_eq!(config.compaction, Compaction::Off);
        assert!(
            matches!(config.source, Source::Flags(list) if list == "default=http://localhost:2380")
        );
    }

    #[test]
    fn peers_are_reached_from_the_first_address_that_they_are_told() {
        let all = "--initial-cluster default=http://127.0.0.1:1 --initial-advertise-peer-urls \
                   http://127.0.0.1:1,http://host:2,http://[2001:db8::1]:4,http://192.0.2.1:3";
        assert_eq!(of(all).unwrap().local_address(), None);
        let gate = "--feature-gates SetMemberLocalAddr=true";
        let expected = "192.0.2.1".parse().unwrap();
        let config = of(&format!("{all} {gate}")).unwrap();
        assert_eq!(config.local_address(), Some(expected), "lists are sorted");
        assert_eq!(of(gate).unwrap().local_address(), None);
    }

    #[test]
    fn a_name_alone_names_the_first_cluster() {
        let config = of("--name m1").unwrap();
        assert!(matches!(config.source, Source::Flags(list) if list == "m1=http://localhost:2380"));
        assert_eq!(config.data_dir, PathBuf::from("m1.etcd"));
    }

    #[test]
    fn settings_that_do_not_hold_together_are_refused_in_etcds_words() {
        for (line, text) in [
            ("extra", "\"extra\" is not a valid flag"),
            (
                "--listen-client-urls http://127.0.0.1:1",
                "--advertise-client-urls is required when --listen-client-urls is set explicitly",
            ),
            ("--heartbeat-interval 0", "--heartbeat-interval must be >0 (set to 0ms)"),
            ("--discovery-token t", "both --discovery-token and --discovery-endpoints must be set"),
            (
                "--discovery-endpoints=",
                "both --discovery-token and --discovery-endpoints must be set",
            ),
            (
                "--discovery-token t --discovery-endpoints a:1,,b:1",
                "--discovery-endpoints must not contain empty endpoints",
            ),
            (
                "--discovery-srv a.test --initial-cluster default=http://localhost:2380",
                "multiple discovery or bootstrap flags are set. Choose one of \"initial-cluster\", \
                 \"discovery-endpoints\" or \"discovery-srv\"",
            ),
            (
                "--heartbeat-interval 300",
                "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
            ),
            (
                "--election-timeout 50001",
                "--election-timeout[50001ms] is too long, and should be set less than 50000ms",
            ),
            (
                "--peer-cert-file c --peer-key-file k --peer-client-cert-file x",
                "ClientKeyFile and ClientCertFile must both be present or both absent: key: , cert: x]",
            ),
            ("--max-learners=-1", "membership: too many learner members in cluster"),
            ("--auto-compaction-mode x", "unknown auto-compaction-mode \"x\""),
            (
                "--auto-compaction-retention 0.5",
                "error parsing CompactionRetention: time: missing unit in duration \"0.5\"",
            ),
            ("--unsafe-no-fsync", "flag --unsafe-no-fsync is not supported by rusd yet"),
            (
                "--listen-peer-urls https://127.0.0.1:1",
                "cannot listen on TLS for 127.0.0.1:1: KeyFile and CertFile are not presented",
            ),
            (
                "--listen-client-urls https://127.0.0.1:1 --advertise-client-urls https://127.0.0.1:1",
                "TLS key/cert (--cert-file, --key-file) must be provided for client url \
                 https://127.0.0.1:1 with HTTPS scheme",
            ),
            (
                "--tls-max-version TLS1.1",
                "unexpected TLS version \"TLS1.1\" (must be one of: TLS1.2, TLS1.3)",
            ),
            (
                "--tls-min-version TLS1.3 --cipher-suites TLS_AES_128_GCM_SHA256",
                "cipher suites cannot be configured when only TLS1.3 is enabled",
            ),
            ("--cipher-suites NONE", "unexpected TLS cipher suite \"NONE\""),
            (
                "--log-outputs systemd/journal",
                "log output systemd/journal is not supported by rusd yet",
            ),
            (
                "--peer-auto-tls --peer-client-cert-auth",
                "--peer-auto-tls makes certificates that no authority has signed, so that peers \
                 cannot meet --peer-client-cert-auth or --peer-trusted-ca-file",
            ),
            (
                "--peer-cert-allowed-cn a,b --peer-cert-allowed-hostname c",
                "AllowedCNs and AllowedHostnames are mutually exclusive (cns=[\"a\" \"b\"], \
                 hostnames=[\"c\"])",
            ),
            (
                "--feature-gates LeaseCheckpoint=true",
                "feature gate LeaseCheckpoint=true is not supported by rusd yet",
            ),
        ] {
            assert_eq!(refused(line), text, "{line}");
        }
    }

    #[test]
    fn unsupported_flags_may_repeat_their_default() {
        of("--cert-file= --client-cert-auth=false --pre-vote=1 --auth-token simple").unwrap();
        of("--feature-gates InitialCorruptCheck=true,LeaseCheckpoint=false").unwrap();
    }

    #[test]
    fn numbers_of_any_size_are_times_that_can_be_added() {
        let ttl = |text: &str| of(&format!("--auth-token-ttl {text}")).unwrap().auth_token_ttl;
        for (text, seconds) in [("300", 300), ("0", 0), ("9223372036", 9_223_372_036)] {
            assert_eq!(ttl(text), Duration::from_secs(seconds), "{text}");
        }
        // What overflows in etcd is negative there, and so the default is used.
        for text in ["9223372037", "18446744073709551615", "9223372036854775808"] {
            assert_eq!(ttl(text), Duration::ZERO, "{text}");
        }
        let durations = flags::FLAGS.iter().filter(|flag| flag.kind == Kind::Duration);
        for name in durations.map(|flag| flag.name) {
            let longest = of(&format!("--{name} 2562047h47m16.854775807s"));
            assert!(longest.is_ok(), "--{name}: {longest:?}");
            let longer = of(&format!("--{name} 2562047h47m16.854775808s"));
            assert!(matches!(longer, Err(Stop::Usage(_))), "--{name}: {longer:?}");
        }
    }

    #[test]
    fn compaction_retention_reads_hours_durations_and_revisions() {
        let kept = |line: &str| of(line).unwrap().compaction;
        assert_eq!(
            kept("--auto-compaction-retention 5"),
            Compaction::Periodic(Duration::from_secs(5 * 3600))
        );
        assert_eq!(
            kept("--auto-compaction-retention 10m"),
            Compaction::Periodic(Duration::from_secs(600))
        );
        assert_eq!(
            kept("--auto-compaction-mode revision --auto-compaction-retention 1000"),
            Compaction::Revision(1000)
        );
        assert_eq!(
            kept("--auto-compaction-mode revision --auto-compaction-retention 1s"),
            Compaction::Revision(1_000_000_000)
        );
        assert!(refused("--auto-compaction-retention=-1h").contains("must not be negative"));
    }

    #[test]
    fn the_environment_fills_in_and_conflicts_stop() {
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let environment = [
            variable("ETCD_NAME", "n"),
            variable("ETCD_DATA_DIR", ""),
            variable("ETCD_ENABLE_V2", "1"),
            variable("HOME", "/"),
        ];
        let mut notices = Vec::new();
        let config = load(&[], &environment, &mut notices).unwrap();
        assert_eq!(config.name, "n");
        assert!(notices.contains(&Notice::VariableUnknown("ETCD_ENABLE_V2=1".into())));
        let (name, value) = ("ETCD_NAME".into(), "n".into());
        assert!(notices.contains(&Notice::VariableUsed { name, value }));
        let stop = load(&words("--name x"), &environment, &mut Vec::new()).unwrap_err();
        assert!(matches!(stop, Stop::Conflict(name) if name == "ETCD_NAME"));
        let variables = [variable("ETCD_ELECTION_TIMEOUT", "x")];
        let stop = load(&[], &variables, &mut Vec::new()).unwrap_err();
        assert!(matches!(stop, Stop::Invalid(text)
            if text == "invalid value \"x\" for ETCD_ELECTION_TIMEOUT: parse error"));
    }

    #[test]
    fn deprecated_flags_are_warned_about_wherever_they_are_given() {
        let warned = |line: &str, environment: &[(String, String)]| -> Vec<&str> {
            let mut notices = Vec::new();
            load(&words(line), environment, &mut notices).unwrap();
            let said = notices.iter().filter_map(|notice| match notice {
                Notice::Deprecated(text) => text.split(' ').next(),
                _ => None,
            });
            said.collect()
        };
        assert_eq!(warned("--max-wals 5", &[]), [""; 0]);
        assert_eq!(
            warned("--v2-deprecation gone --max-snapshots 5", &[]),
            ["--max-snapshots", "--v2-deprecation"]
        );
        let variable = ("ETCD_MAX_SNAPSHOTS".to_owned(), "5".to_owned());
        assert_eq!(warned("", &[variable]), ["--max-snapshots"]);
    }
}
