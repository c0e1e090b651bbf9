//! The node of this process: how it starts in its data directory, why it ends, and how it stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use super::config::{Compaction, Config, Source};
use super::listen::{self, Listener};
use super::notify::Manager;
use super::refusal::Refusal;
use super::url::texts;
use super::{cluster, startup_log, tls};
use crate::clock::SystemClock;
use crate::node::{self, Node};
use crate::offline::{self, TakenIn};
use crate::supervise::Supervisor;
use crate::trace::Tracer;
use crate::upkeep::{CheckpointPace, Retention};
use crate::{limits, metrics};

/// Why a member that was started ends.
pub(super) enum End {
    Signal(i32),
    Failure(String),
    /// The cluster goes on without this member.
    Removed,
}

/// Opens the data directory and starts the node in it.
pub(super) async fn open(
    config: &Config,
    is_initialized: bool,
    peers: &[Listener],
    member: &Handle,
    manager: &Manager,
    tracer: Tracer,
) -> Result<Node, cluster::Error> {
    if config.takes_in_etcds {
        manager.while_loading(take_in(config)).await?;
    }
    if is_initialized {
        startup_log::settings(config, None);
        if matches!(config.source, Source::Discovery) {
            tracing::warn!(
                "discovery token is ignored since cluster already initialized; valid logs are found"
            );
        }
        let (members, token) = (Vec::new(), config.token.clone());
        let first = cluster::FirstStart { members, token, join: None };
        let node = manager.while_loading(start_node(config, first, member, tracer)).await?;
        if config.initial_corrupt_check
            && let Err(error) = manager.while_loading(node.check_at_start()).await
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
            startup_log::settings(config, Some(&planned));
            cluster::first(config, planned).await
        };
        let first = found.await.inspect_err(|error| tracing::error!(%error, "bootstrap failed"))?;
        manager.while_loading(start_node(config, first, member, tracer)).await
    };
    if !config.new_cluster {
        return starting.await;
    }
    // The first members ask each other whether they ran before. Each turns the others away while it
    // asks, so that none waits for another.
    tokio::select! {
        node = starting => node,
        never = listen::turn_away(peers) => match never {},
    }
}

/// Makes the data directory one of rusd's if it is etcd's.
async fn take_in(config: &Config) -> Result<(), cluster::Error> {
    let (data_dir, supervisor) = (config.data_dir.clone(), Supervisor::default());
    let taken = supervisor.blocking("import", move || offline::take_in(&data_dir)).await;
    match taken {
        Ok(Ok(Some(TakenIn { imported, kept }))) => tracing::info!(
            "local-member-id" = format!("{:x}", imported.member_id),
            "cluster-id" = format!("{:x}", imported.cluster_id),
            revision = imported.revision,
            hash = imported.hash,
            "applied-index" = imported.applied,
            "last-index" = imported.last,
            "requests-of-v2" = imported.ignored,
            kept = %kept.display(),
            "took in etcd's data directory"
        ),
        Ok(Ok(None)) => {}
        Ok(Err(error)) => {
            return Err(format!("taking in etcd's data directory failed: {error}").into());
        }
        Err(gone) => {
            return Err(supervisor.failure_reason().unwrap_or_else(|| gone.to_string()).into());
        }
    }
    Ok(())
}

async fn start_node(
    config: &Config,
    first: cluster::FirstStart,
    member: &Handle,
    tracer: Tracer,
) -> Result<Node, cluster::Error> {
    let settings = node_config(config, first);
    let clock = Arc::new(SystemClock::new());
    let mut surroundings = match config.writing.syncs {
        true => node::Surroundings::system(clock),
        false => node::Surroundings::unsynced(clock),
    };
    surroundings.tracer = tracer;
    surroundings.dial = Arc::new(tls::TlsDial::new(&config.tls, config.local_address())?);
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
        Ok(Err(error)) => Err(Refusal::of_directory(config, &error).into()),
        Err(gone) => Err(supervisor.failure_reason().unwrap_or_else(|| gone.to_string()).into()),
    }
}

fn node_config(config: &Config, first: cluster::FirstStart) -> node::Config {
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
        peer_urls: texts(&config.advertise_peer_urls),
        client_urls: texts(&config.advertise_client_urls),
        heartbeat_interval: config.heartbeat,
        election_timeout: config.election,
        peer_read_timeout: config.peer_timeouts.read,
        initial_election_tick_advance: config.election_tick_advance,
        pre_vote: config.pre_vote,
        snapshot_count: config.snapshot_count,
        snapshot_catchup_entries: config.catch_up_entries,
        downgrade_check_interval: config.downgrade_check,
        corrupt_check_interval: config.corrupt_check,
        compact_hash_check_interval: config.compact_hash_check,
        max_request_bytes: config.max_request_bytes,
        quota_backend_bytes: config.quota_bytes,
        space_policy_is_auto: config.space_policy_is_auto,
        defrag_at_start_bytes: config.defrag_at_start_bytes,
        commit_interval: config.writing.batch_interval.unwrap_or(limits::COMMIT_INTERVAL),
        commit_ops_max: config.writing.batch_limit.unwrap_or(limits::COMMIT_OPS_MAX),
        compaction_rows_max: config
            .writing
            .compaction_batch_limit
            .map_or(limits::COMPACTION_ROWS_MAX, |rows| rows.min(limits::COMPACTION_ROWS_MAX)),
        warning_apply_duration: config.warning_apply,
        retention: match config.compaction {
            Compaction::Off => None,
            Compaction::Periodic(period) => Some(Retention::Periodic(period)),
            Compaction::Revision(count) => Some(Retention::Revision(count)),
        },
        compaction_batch_rows: config
            .writing
            .compaction_batch_limit
            .unwrap_or(limits::READ_CHUNK_ROWS),
        compaction_sleep_interval: config
            .writing
            .compaction_pause
            .unwrap_or(limits::COMPACTION_PAUSE),
        checkpoint_pace: CheckpointPace::default(),
        auth: node::AuthConfig {
            token: config.auth_token.clone(),
            token_ttl: config.auth_token_ttl,
            bcrypt_cost: config.bcrypt_cost,
        },
    }
}

/// Stops the node within `limits::NODE_STOP_TIMEOUT`. Returns `ended`, or the failure that the node
/// met meanwhile.
pub(super) async fn stop_node(node: &Node, ended: End) -> End {
    let mut fatal = node.fatal();
    let stopping = tokio::time::timeout(limits::NODE_STOP_TIMEOUT, node.stop());
    tokio::select! {
        biased;
        error = failure(&mut fatal) => return End::Failure(error),
        stopped = stopping => if stopped.is_err() {
            tracing::error!("the node did not stop in time; the log will be replayed");
        },
    }
    node.supervisor().failure_reason().map_or(ended, End::Failure)
}

/// Resolves when this member has to end because the cluster has removed it.
pub(super) async fn removal(node: &Node, removed: &mut watch::Receiver<Option<Duration>>) {
    match removed.wait_for(Option::is_some).await.map(|grace| grace.unwrap_or_default()) {
        Ok(grace) => {
            tokio::time::sleep(grace).await;
            node.leave().await;
        }
        Err(_) => std::future::pending().await,
    }
}

/// Resolves when the node cannot go on.
pub(super) async fn failure(fatal: &mut watch::Receiver<Option<String>>) -> String {
    match fatal.wait_for(Option::is_some).await {
        Ok(error) => error.clone().unwrap_or_default(),
        Err(_) => std::future::pending().await,
    }
}
