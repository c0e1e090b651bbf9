//! The configuration, and how a start that does not serve ends.
//!
//! ```text
//!   flags, environment, file ─► values ─► load ─► check ─► Config
//! ```
//!
//! What the configuration says holds together: only `load` makes one.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::discovery::Discovery;
use super::tls;
use super::url::Url;

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
    pub tls: tls::Settings,
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
