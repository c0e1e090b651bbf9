//! The settings with which a member starts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::auth::password;
use crate::limits;
use crate::upkeep::{CheckpointPace, Retention};

/// The membership as the members of a running cluster reported it to this member, which joins them.
#[derive(Clone, Debug)]
pub struct Join {
    pub cluster_id: u64,
    pub member_id: u64,
    /// Ids and peer URLs of all members, this one included.
    pub members: Vec<(u64, Vec<String>)>,
}

#[derive(Clone)]
pub struct Config {
    pub name: String,
    pub data_dir: PathBuf,
    pub wal_dir: Option<PathBuf>,
    /// Read at the first start only: after that, the log says who the member is.
    pub cluster_token: String,
    /// Name and peer URLs of each founding member, this one included.
    pub initial_cluster: Vec<(String, Vec<String>)>,
    /// The URLs at which peers reach this member.
    pub peer_urls: Vec<String>,
    /// The membership as a running cluster reported it, if this member joins one.
    pub join: Option<Join>,
    /// Whether the start removes all other members, so that this one is a cluster of its own.
    pub force_new_cluster: bool,
    pub strict_reconfig_check: bool,
    pub max_learners: usize,
    pub client_urls: Vec<String>,
    pub heartbeat_interval: Duration,
    pub election_timeout: Duration,
    /// The longest silence of a peer's stream before this member hangs up.
    pub peer_read_timeout: Duration,
    /// Whether all but two ticks of the first election timeout are skipped once two peers are
    /// connected.
    pub initial_election_tick_advance: bool,
    /// Whether the member asks for pre-votes before it starts an election (PreVote, Raft thesis
    /// 9.6).
    pub pre_vote: bool,
    pub snapshot_count: u64,
    pub snapshot_catchup_entries: u64,
    /// Time between two checks of whether a downgrade is complete; zero for none.
    pub downgrade_check_interval: Duration,
    /// Time between two comparisons of the members' histories by the leader; zero for none.
    pub corrupt_check_interval: Duration,
    /// Time between two comparisons of the hashes that the members' compactions computed.
    pub compact_hash_check_interval: Option<Duration>,
    pub max_request_bytes: usize,
    /// 0 for the default, a negative number for no quota.
    pub quota_backend_bytes: i64,
    /// Whether the member compacts, defragments and disarms NOSPACE by itself (`--space-policy
    /// auto`).
    pub space_policy_is_auto: bool,
    /// Free bytes within the store from which a start defragments it; 0 for never.
    pub defrag_at_start_bytes: u64,
    pub commit_interval: Duration,
    /// Operations after which the store commits without waiting for that interval.
    pub commit_ops_max: usize,
    /// Rows that one commit deletes for a compaction, at most.
    pub compaction_rows_max: usize,
    /// An apply that takes longer is logged.
    pub warning_apply_duration: Duration,
    pub retention: Option<Retention>,
    pub compaction_sleep_interval: Duration,
    /// Rows that a compaction reads between two such pauses; not 0.
    pub compaction_batch_rows: usize,
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
            peer_read_timeout: limits::PEER_READ_TIMEOUT,
            initial_election_tick_advance: true,
            pre_vote: true,
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            downgrade_check_interval: Duration::ZERO,
            corrupt_check_interval: Duration::ZERO,
            compact_hash_check_interval: None,
            max_request_bytes: limits::REQUEST_BYTES_MAX,
            quota_backend_bytes: 0,
            space_policy_is_auto: false,
            defrag_at_start_bytes: 0,
            commit_interval: limits::COMMIT_INTERVAL,
            commit_ops_max: limits::COMMIT_OPS_MAX,
            compaction_rows_max: limits::COMPACTION_ROWS_MAX,
            warning_apply_duration: Duration::from_millis(100),
            retention: None,
            compaction_sleep_interval: limits::COMPACTION_PAUSE,
            compaction_batch_rows: limits::READ_CHUNK_ROWS,
            checkpoint_pace: CheckpointPace::default(),
            auth: AuthConfig::default(),
        }
    }

    /// The longest time that a request may take: etcd's 5 s and two election timeouts.
    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }

    /// The directory of the log.
    pub(super) fn log_dir(&self) -> PathBuf {
        self.wal_dir.clone().unwrap_or_else(|| self.data_dir.join("member/wal"))
    }

    pub(super) fn quota_bytes(&self) -> i64 {
        quota_bytes(self.quota_backend_bytes)
    }
}

/// The quota in bytes for a value of `--quota-backend-bytes`; negative for none.
pub fn quota_bytes(given: i64) -> i64 {
    if given == 0 { limits::QUOTA_BYTES } else { given }
}

/// Settings of tokens and passwords.
#[derive(Clone, Debug)]
pub struct AuthConfig {
    /// The value of `--auth-token`, in etcd's syntax.
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

/// The shortest TTL of a lease in seconds: one and a half election timeouts, etcd's, so that a
/// change of leaders does not end a lease that is renewed.
pub(super) fn minimum_ttl_seconds(election_timeout: Duration) -> i64 {
    let millis = election_timeout.as_millis() * 3 / 2;
    i64::try_from(millis.div_ceil(1000)).unwrap_or(i64::MAX)
}
