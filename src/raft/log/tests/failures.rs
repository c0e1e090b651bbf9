//! A disk that fails.

use super::*;

/// A disk whose writes and syncs fail on demand, that counts the bytes that are read, and that does
/// something once, right after a file has told its size.
#[derive(Default)]
pub(super) struct Failing {
    pub(super) after_size: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    write: AtomicBool,
    sync: AtomicBool,
    pub(super) read: AtomicU64,
}

struct FailingFile(Arc<dyn File>, Arc<Failing>);

impl File for FailingFile {
    fn size(&self) -> io::Result<u64> {
        let size = self.0.size()?;
        let act = self.1.after_size.lock().take();
        act.into_iter().for_each(|act| act());
        Ok(size)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.1.read.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.0.read_at(buffer, offset)
    }
    fn data_from(&self, offset: u64) -> io::Result<Option<std::ops::Range<u64>>> {
        self.0.data_from(offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.1.write.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("the disk is full"));
        }
        self.0.write_at(bytes, offset)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }
    fn fdatasync(&self) -> io::Result<()> {
        if self.1.sync.swap(false, Ordering::SeqCst) {
            return Err(io::Error::other("the disk is gone"));
        }
        self.0.fdatasync()
    }
}

pub(super) struct FailingDisk(pub(super) Arc<Failing>);

impl Disk for FailingDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(FailingFile(SystemDisk.create(path)?, Arc::clone(&self.0))))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(FailingFile(SystemDisk.open(path)?, Arc::clone(&self.0))))
    }
    super::super::system_names!();
}

#[test]
fn an_unsynced_disk_gets_all_writes_and_no_sync() {
    let fixture = Fixture::new();
    let switch = Arc::new(Failing { sync: AtomicBool::new(true), ..Failing::default() });
    let disk: Arc<dyn Disk> = Arc::new(Unsynced(FailingDisk(Arc::clone(&switch))));
    let (mut writer, ..) = open(&disk, &fixture.dir, SMALL).unwrap();
    for first in (1..=600).step_by(10) {
        writer.append(&batch(first..=first + 9, 1)).unwrap();
        writer.write().unwrap();
        writer.sync().unwrap();
    }
    assert!(fixture.segments().len() > 1, "no segment was begun");
    assert!(switch.sync.load(Ordering::SeqCst), "a sync reached the disk");
    drop(writer);
    let (.., recovered) = fixture.open().unwrap();
    assert_eq!(recovered.table.last_index(), 600);
}

#[test]
fn nothing_is_written_after_a_failure() {
    for sync in [false, true] {
        let fixture = Fixture::new();
        let switch = Arc::<Failing>::default();
        let disk: Arc<dyn Disk> = Arc::new(FailingDisk(Arc::clone(&switch)));
        let (mut writer, ..) = open(&disk, &fixture.dir, SMALL).unwrap();
        writer.append(&batch(1..=2, 1)).unwrap();
        if sync {
            switch.sync.store(true, Ordering::SeqCst);
            writer.write().unwrap();
            let error = writer.sync().unwrap_err().to_string();
            assert!(error.contains("the disk is gone"), "{error}");
        } else {
            switch.write.store(true, Ordering::SeqCst);
            let error = writer.write().unwrap_err().to_string();
            assert!(error.contains("the disk is full"), "{error}");
        }
        // The disk works again, and still nothing is written.
        assert!(matches!(writer.append(&batch(3..=3, 1)), Err(Error::Failed)));
        assert!(matches!(writer.write(), Err(Error::Failed)));
        assert!(matches!(writer.sync(), Err(Error::Failed)));
    }
}
