//! A disk in memory for the log, on which nothing goes wrong.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusd::raft::log::{Disk, File};

type Bytes = Arc<Mutex<Vec<u8>>>;

#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<BTreeMap<PathBuf, Bytes>>>);

struct Handle(Bytes);

impl Disk for Memory {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let bytes = Bytes::default();
        self.0.lock().insert(path.to_path_buf(), Arc::clone(&bytes));
        Ok(Arc::new(Handle(bytes)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let bytes = self.0.lock().get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(Handle(bytes)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let files = self.0.lock();
        let inside = files.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect())
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.lock().keys().any(|known| known.starts_with(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut files = self.0.lock();
        let moved: Vec<PathBuf> =
            files.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            let bytes = files.remove(&path).unwrap();
            let rest = path.strip_prefix(from).unwrap();
            let is_same = rest.as_os_str().is_empty();
            files.insert(if is_same { to.to_path_buf() } else { to.join(rest) }, bytes);
        }
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.lock().remove(path);
        Ok(())
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.lock().retain(|path, _| !path.starts_with(dir));
        Ok(())
    }

    fn fsync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl File for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.0.lock();
        let found = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
        let found = found.and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.0.lock();
        let (start, end) = (offset as usize, offset as usize + new.len());
        let length = bytes.len().max(end);
        bytes.resize(length, 0);
        bytes[start..end].copy_from_slice(new);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().resize(len as usize, 0);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut bytes = self.0.lock();
        let length = bytes.len().max(len as usize);
        bytes.resize(length, 0);
        Ok(())
    }

    fn fdatasync(&self) -> io::Result<()> {
        Ok(())
    }
}
