//! A disk that only reads, for a log that must stay as it is. All that opening a log would write,
//! cut, rename or remove succeeds without effect.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::disk::{Disk, File, SystemDisk};
use crate::files;

pub struct ReadOnlyDisk;

/// `None` stands for a file that opening the log would have made.
struct Untouched(Option<fs::File>);

impl Disk for ReadOnlyDisk {
    fn create(&self, _: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Untouched(None)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(Untouched(Some(files::open(path)?))))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        SystemDisk.list(dir)
    }

    fn create_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        SystemDisk.exists(path)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn fsync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

impl File for Untouched {
    fn size(&self) -> io::Result<u64> {
        self.0.as_ref().map_or(Ok(0), File::size)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.0 {
            Some(file) => File::read_at(file, buffer, offset),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.0.as_ref().map_or(Ok(None), |file| File::data_from(file, offset))
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn fdatasync(&self) -> io::Result<()> {
        Ok(())
    }
}
