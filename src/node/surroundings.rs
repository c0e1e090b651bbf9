//! The clock, disk, network and threads that a member uses: the system's, or a simulator's.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use super::stall::LogWriting;
use super::waits::Waits;
use crate::clock::Clock;
use crate::go;
use crate::metrics;
use crate::peer::{Dial, Peers, Reach, TcpDial};
use crate::raft;
use crate::raft::log::{Disk, SystemDisk, Unsynced};
use crate::store::Options;
use crate::supervise::Supervisor;
use crate::trace::Tracer;

/// The clock, disk, network and threads that a member uses.
pub struct Surroundings {
    pub clock: Arc<dyn Clock>,
    pub disk: Arc<dyn Disk>,
    /// None: the member and its peers dial each other. A simulator gives its own.
    pub transport: Option<Arc<dyn raft::Transport>>,
    pub dial: Arc<dyn Dial>,
    /// Given together with `transport`.
    pub reach: Option<Arc<dyn Reach>>,
    pub log: raft::log::Options,
    pub store: Options,
    /// Starts the member's threads and tasks.
    pub supervisor: Supervisor,
    /// Makes the spans of clients' requests; off by default.
    pub tracer: Tracer,
}

impl Surroundings {
    pub fn system(clock: Arc<dyn Clock>) -> Self {
        Self {
            disk: Arc::new(SystemDisk),
            transport: None,
            dial: Arc::new(TcpDial::default()),
            reach: None,
            log: raft::log::Options::default(),
            store: Options::new(Arc::clone(&clock)),
            supervisor: Supervisor::default(),
            tracer: Tracer::default(),
            clock,
        }
    }

    /// As `system`, but log and store are not synced: a power cut can lose what was acknowledged,
    /// and can leave a directory that no member starts from.
    pub fn unsynced(clock: Arc<dyn Clock>) -> Self {
        let mut surroundings = Self::system(clock);
        surroundings.disk = Arc::new(Unsynced(SystemDisk));
        surroundings.store.syncs = false;
        metrics::unsynced().set(1);
        surroundings
    }
}

impl Surroundings {
    /// The part for raft, with an observer that passes raft's events on to this member.
    pub(super) fn of_raft(
        self,
        peers: &Arc<Peers>,
        (waits, log_writing): (&Arc<Waits>, &Arc<LogWriting>),
        applier: SyncSender<Vec<raft::Committed>>,
    ) -> raft::Surroundings {
        let syncs = self.store.syncs;
        let Self { clock, disk, transport, supervisor, .. } = self;
        let transport = transport.unwrap_or_else(|| Arc::clone(peers) as Arc<dyn raft::Transport>);
        let (waits, log_writing) = (Arc::clone(waits), Arc::clone(log_writing));
        let observer =
            Arc::new(Observer { supervisor: supervisor.clone(), waits, log_writing, syncs });
        raft::Surroundings { clock, disk, transport, observer, applier, supervisor }
    }
}

/// Passes what happens in raft on to the supervisor, the waiters and the metrics.
struct Observer {
    supervisor: Supervisor,
    waits: Arc<Waits>,
    log_writing: Arc<LogWriting>,
    syncs: bool,
}

impl raft::Observer for Observer {
    fn fatal(&self, error: &raft::Error) {
        self.supervisor.fail(&error.to_string());
    }

    fn dropped(&self, tickets: &[u64]) {
        tickets.iter().for_each(|ticket| self.waits.dropped(*ticket));
    }

    fn synced(&self, took: Duration) {
        // As in etcd, a sync that was left out is not counted.
        if !self.syncs {
            return;
        }
        metrics::wal_fsync_seconds().observe(took.as_secs_f64());
        if took >= Duration::from_secs(1) {
            tracing::warn!(took = go::duration(took), "expected-duration" = "1s", "slow fdatasync");
        }
    }

    fn log_busy_since(&self, since: Option<Duration>) {
        self.log_writing.note(since);
    }

    fn written(&self, bytes: usize, took: Duration) {
        metrics::wal_write_seconds().observe(took.as_secs_f64());
        metrics::wal_write_bytes().add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
