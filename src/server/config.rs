//! The configuration, and how a start that does not serve ends.
//!
//! ```text
//!   flags, environment, file ─► values ─► load ─► check ─► Config
//! ```
//!
//! The settings of a `Config` hold together: only `load` makes one.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::discovery::Discovery;
use super::rotate::Rotation;
use super::tls;
use super::url::Url;
use crate::gateway;

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
    /// Panic and fatal: nothing is logged but the line before the end.
    Fatal,
}

#[derive(Clone, Debug)]
pub(super) struct Log {
    pub level: Level,
    pub form: Form,
    pub outputs: Vec<String>,
    /// How files among the outputs are rotated; None if they are not.
    pub rotation: Option<Rotation>,
    /// Whether lines that repeat are counted and summed up.
    pub sums_repeats: bool,
}

impl Log {
    /// JSON on these outputs, without rotation, as etcd's programs log before they have read their
    /// settings.
    pub(super) fn json(level: Level, outputs: Vec<String>) -> Self {
        Self { level, form: Form::Json, outputs, rotation: None, sums_repeats: false }
    }
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// zap's console form, which is etcd's.
    Console,
    /// For a person at a terminal; under the name rusd alone.
    Human,
}

/// The name by which the server was started. What the server says, and what it takes for granted,
/// is etcd's under that name and may be kinder under rusd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartedAs {
    Etcd,
    Rusd,
}

#[derive(Clone, Debug)]
pub(super) struct Config {
    pub started_as: StartedAs,
    pub name: String,
    pub data_dir: PathBuf,
    pub wal_dir: Option<PathBuf>,
    /// Whether a data directory of etcd is made one of rusd's.
    pub takes_in_etcds: bool,
    pub listen_peer_urls: Vec<Url>,
    pub listen_client_urls: Vec<Url>,
    /// For HTTP alone. If there are any, `listen_client_urls` are for gRPC alone.
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
    /// `--initial-election-tick-advance`.
    pub election_tick_advance: bool,
    pub pre_vote: bool,
    pub sockets: Sockets,
    pub peer_timeouts: PeerTimeouts,
    /// Whether memory is locked, so that it is never swapped out.
    pub locks_memory: bool,
    pub max_request_bytes: usize,
    pub max_txn_ops: usize,
    pub max_concurrent_streams: u32,
    pub keepalive_min: Duration,
    pub keepalive_interval: Duration,
    pub keepalive_timeout: Duration,
    pub quota_bytes: i64,
    /// The space policy `auto`: a full store is compacted, and its alarm disarmed, without a
    /// request.
    pub space_policy_is_auto: bool,
    pub defrag_at_start_bytes: u64,
    pub snapshot_count: u64,
    pub catch_up_entries: u64,
    pub downgrade_check: Duration,
    pub initial_corrupt_check: bool,
    pub corrupt_check: Duration,
    /// Time between comparisons of compaction hashes; None if their feature gate is closed.
    pub compact_hash_check: Option<Duration>,
    /// The same time whether the gate is open or not, which the log shows.
    pub hash_check_interval: Duration,
    pub writing: Writing,
    pub compaction: Compaction,
    /// `periodic` or `revision`, also if nothing is compacted, since the log shows it.
    pub compaction_mode: String,
    pub progress_interval: Duration,
    pub auth_token: String,
    pub auth_token_ttl: Duration,
    pub bcrypt_cost: u32,
    /// A request that takes longer is logged.
    pub warning_request: Duration,
    /// An apply, or a read, that takes longer is logged with its request.
    pub warning_apply: Duration,
    pub extensive_metrics: bool,
    /// None if calls are not traced.
    pub tracing: Option<Tracing>,
    pub origins: Vec<String>,
    /// None if JSON is not served.
    pub gateway: Option<gateway::Config>,
    pub hosts: Vec<String>,
    /// All feature gates: name, stage, and whether it is open.
    pub gates: Vec<(&'static str, &'static str, bool)>,
    /// The feature gates that were set.
    pub gates_set: Vec<(&'static str, bool)>,
    /// Counts of files to keep, which the log shows. Other rules decide here what is kept.
    pub wals_max: u64,
    pub snapshots_max: u64,
    /// Used if `source` is `Source::Discovery`.
    pub discovery: Discovery,
    pub tls: tls::Settings,
    pub log: Log,
}

/// How long a connection between members may stand still.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerTimeouts {
    /// Without a byte of a peer's stream.
    pub read: Duration,
    /// Without a byte that a peer takes of what is written to it.
    pub write: Duration,
}

/// How the store is written. None leaves the choice to the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writing {
    pub batch_interval: Option<Duration>,
    /// Operations after which the store commits without waiting for that interval.
    pub batch_limit: Option<usize>,
    /// Rows that one commit deletes for a compaction.
    pub compaction_batch_limit: Option<usize>,
    pub compaction_pause: Option<Duration>,
    /// Whether log and store are synced; false with `--unsafe-no-fsync`.
    pub syncs: bool,
}

/// What is traced, and who is told.
#[derive(Clone, Debug)]
pub(super) struct Tracing {
    /// A target of gRPC.
    pub address: String,
    pub service_name: String,
    pub instance_id: String,
    /// Traces that are recorded of a million that begin here.
    pub per_million: u32,
}

/// Options of listening sockets.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sockets {
    /// SO_REUSEPORT: take a port that another process listens on with the same option.
    pub reuse_port: bool,
    /// SO_REUSEADDR: take a port with connections in TIME_WAIT. Every listener does, whatever this
    /// says.
    pub reuse_address: bool,
}

/// Where the members of the first cluster are named.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In `--initial-cluster`.
    Flags(String),
    /// In DNS.
    Domain { domain: String, service: Option<String> },
    /// By themselves, through a discovery service.
    Discovery,
}

/// Something to be logged that happened before there was a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    DefaultName,
    DefaultDataDir(PathBuf),
    OldName(String),
    /// The text of the line.
    Deprecated(&'static str),
    /// A timeout between members that was raised to the least, and what that is.
    Raised(&'static str, Duration),
    /// Flags that no one gave, and the values that follow from other flags.
    Follows(Vec<(&'static str, String)>),
    /// Client URLs to listen on that no one gave, which others reach without TLS.
    Exposed(Vec<String>),
    /// Flags with other values than their defaults that change nothing here.
    NoEffect(Vec<&'static str>),
    FileUsed(PathBuf),
    KeyUnknown(String),
    VariableUsed {
        name: String,
        value: String,
    },
    VariableUnknown(String),
    /// A variable that has the name of a flag and does not stand for it.
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
    /// The command line cannot be parsed: prints this text and the usage; exit code 2.
    Usage(String),
    /// The settings do not hold together: logs this text; exit code 1.
    Invalid(String),
    /// This environment variable contradicts a flag: logs its name; exit code 1.
    Conflict(String),
}

pub(super) fn invalid<T>(text: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Invalid(text.into()))
}

impl Stop {
    /// The exit code, and the text of the error.
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

    /// The address that this member dials peers from, if the feature gate `SetMemberLocalAddr` is
    /// open: the first of its advertised peer addresses that is not a name, loopback or
    /// unspecified.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        let hosts = self.advertise_peer_urls.iter().map(|url| url.host_port().0);
        let mut addresses = hosts.filter_map(|host| host.parse::<IpAddr>().ok());
        addresses
            .find(|address| !address.is_loopback() && !address.is_unspecified())
            .filter(|_| self.is_open("SetMemberLocalAddr"))
    }
}
