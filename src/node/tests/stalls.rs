//! A log on a disk that stands still for a while.

use std::io;
use std::sync::atomic::AtomicU64;

use parking_lot::Condvar;

use super::*;
use crate::raft::log::{Disk, File, Space, SystemDisk};

/// The system's disk, whose syncs wait while the test says so.
#[derive(Default)]
pub(in crate::node) struct Stalling {
    stands: Mutex<bool>,
    changed: Condvar,
}

impl Stalling {
    pub(in crate::node) fn stand_still(&self, stands: bool) {
        *self.stands.lock() = stands;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut stands = self.stands.lock();
        while *stands {
            self.changed.wait(&mut stands);
        }
    }
}

struct StallingFile {
    file: Arc<dyn File>,
    disk: Arc<Stalling>,
}

/// The disk in the form that the log takes.
pub(in crate::node) struct StallingDisk(pub Arc<Stalling>);

impl StallingDisk {
    fn wrap(&self, file: io::Result<Arc<dyn File>>) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(StallingFile { file: file?, disk: Arc::clone(&self.0) }))
    }
}

impl File for StallingFile {
    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.file.allocate(len)
    }
    fn fdatasync(&self) -> io::Result<()> {
        self.disk.pass();
        self.file.fdatasync()
    }
}

impl Disk for StallingDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.wrap(SystemDisk.create(path))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.wrap(SystemDisk.open(path))
    }
    crate::raft::log::system_names!();
    fn space(&self, dir: &Path) -> io::Result<Space> {
        SystemDisk.space(dir)
    }
}

/// The system's clock, ahead by some seconds.
#[derive(Default)]
struct Ahead {
    system: SystemClock,
    seconds: AtomicU64,
}

impl Clock for Ahead {
    fn now(&self) -> Duration {
        self.system.now() + Duration::from_secs(self.seconds.load(Ordering::Relaxed))
    }

    fn unix_nanos(&self) -> u64 {
        self.system.unix_nanos()
    }

    fn random(&self) -> u64 {
        self.system.random()
    }
}

/// A sole voter goes on leading and may answer reads; but the probe for readiness, which stands for
/// writes, fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_log_stands_still_is_alive_and_not_ready() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, disk) = (Arc::new(Ahead::default()), Arc::new(Stalling::default()));
    let mut surroundings = Surroundings::system(Arc::clone(&clock) as Arc<dyn Clock>);
    surroundings.disk = Arc::new(StallingDisk(Arc::clone(&disk)));
    let node = Node::start_with(config(dir.path()), surroundings).unwrap();
    node.ready().wait_for(|ready| *ready).await.unwrap();
    let probes = async || (node.probe(true).await, node.probe(false).await);
    assert_eq!(probes().await, (Ok(()), Ok(())));
    disk.stand_still(true);
    let writer = node.clone();
    let write = async move { writer.propose(&Credentials::default(), put("k", "v")).await };
    let write = tokio::spawn(write);
    // The thread that prepares the next segment may wait for the disk first.
    until("the log writes", || !node.log_stall().is_zero()).await;
    assert_eq!(probes().await, (Ok(()), Ok(())), "a slow disk is no reason");
    let seconds = node.request_timeout().as_secs() + 1;
    clock.seconds.store(seconds, Ordering::Relaxed);
    let told = probes().await;
    node.refresh_metrics();
    let shown = crate::metrics::log_stall_seconds().get();
    disk.stand_still(false);
    assert_eq!(told, (Ok(()), Err(Error::Timeout)));
    assert!(shown >= i64::try_from(seconds).unwrap(), "{shown} s");
    write.await.unwrap().unwrap();
    assert_eq!(probes().await, (Ok(()), Ok(())));
    node.stop().await;
}
