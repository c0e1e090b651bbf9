//! The settings with which a member starts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::circle::Join;
use crate::auth::password;
use crate::limits;
use crate::upkeep::{CheckpointPace, Retention};

#[derive(Clone)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub wal_dir: Option<PathBuf>,
    /// Of the first start; a log that exists says who the member is.
    pub cluster_token: String,
    /// Name and peer URLs of each first member, this one among them.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    /// Where peers reach this member.
    pub peer_urls: Vec<String>,
    /// The membership as the members of a running cluster tell it, if this member joins one.
    pub join: Option<Join>,
    /// Drops all other members at the start.
    pub force_new_cluster: bool,
    pub strict_reconfig_check: bool,
    pub max_learners: usize,
    pub client_urls: Vec<String>,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    /// The first election comes as soon as the others are reached.
    pub initial_election_tick_advance: bool,
    /// Whether a member asks for votes before it starts an election with a new term.
    pub pre_vote: bool,
    pub snapshot_count: u64,
    pub snapshot_catchup_entries: u64,
    /// Time between looks at whether a downgrade is complete; zero is never.
    pub downgrade_check_interval: Duration,
    /// Time between comparisons of the members' histories by the leader; zero is never.
    pub corrupt_check_interval: Duration,
    /// Time between comparisons of what the members' compactions found.
    pub compact_hash_check_interval: Option<Duration>,
    pub max_request_bytes: usize,
    /// 0 is the default, less is no quota.
    pub quota_backend_bytes: i64,
    /// Compacts, reclaims and takes NOSPACE back without being asked.
    pub keeps_space: bool,
    /// Free bytes within the store for which a start defragments it; 0 for none.
    pub defrag_at_start_bytes: u64,
    pub commit_interval: Duration,
    pub retention: Option<Retention>,
    pub compaction_sleep_interval: Duration,
    pub checkpoint_pace: CheckpointPace,
    pub auth: AuthConfig,
}

impl Config {
    /// The server's defaults for a data directory that exists.
    pub fn of(data_dir: &Path) -> Self {
        Self {
            name: "default".to_owned(),
            data_dir: data_dir.to_path_buf(),
            wal_dir: None,
            cluster_token: "etcd-cluster".to_owned(),
            initial_cluster: Vec::new(),
            peer_urls: Vec::new(),
            join: None,
            force_new_cluster: false,
            strict_reconfig_check: true,
            max_learners: 1,
            client_urls: Vec::new(),
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_millis(1000),
            initial_election_tick_advance: true,
            pre_vote: true,
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            downgrade_check_interval: Duration::ZERO,
            corrupt_check_interval: Duration::ZERO,
            compact_hash_check_interval: None,
            max_request_bytes: limits::REQUEST_BYTES_MAX,
            quota_backend_bytes: 0,
            keeps_space: false,
            defrag_at_start_bytes: 0,
            commit_interval: limits::COMMIT_INTERVAL,
            retention: None,
            compaction_sleep_interval: limits::COMPACTION_PAUSE,
            checkpoint_pace: CheckpointPace::default(),
            auth: AuthConfig::default(),
        }
    }

    /// The longest time that a request may take: etcd's 5 s and two elections.
    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }

    /// Where the log is.
    pub(super) fn log_dir(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.data_dir.join("member/wal"))
    }

    pub(super) fn quota_bytes(&self) -> i64 {
        quota_bytes(self.quota_backend_bytes)
    }
}

/// The quota that `--quota-backend-bytes` asks for.
pub fn quota_bytes(given: i64) -> i64 {
    if given == 0 { limits::QUOTA_BYTES } else { given }
}

/// How logins are answered.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// `--auth-token`, as etcd reads it.
    pub token: String,
    pub token_ttl: Duration,
    pub bcrypt_cost: u32,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            token: "simple".to_owned(),
            token_ttl: limits::SIMPLE_TOKEN_TTL,
            bcrypt_cost: password::COST,
        }
    }
}

/// The shortest lease: one and a half elections, so that a change of leader cannot end it.
pub(super) fn minimum_ttl_seconds(election_timeout: Duration) -> i64 {
    let millis = election_timeout.as_millis() * 3 / 2;
    i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX)
}
