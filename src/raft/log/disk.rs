//! The disk as the log sees it, so that a simulator can stand in for it.

use std::fs::{self, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::files;
use crate::limits;

/// Files and directories by path.
pub trait Disk: Send + Sync {
    /// Makes an empty file for reading and writing, replacing one of that name.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Opens a file for reading and writing.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>>;
    /// Names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    fn exists(&self, path: &Path) -> bool;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn remove_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// Makes the names in a directory survive a power cut.
    fn fsync_dir(&self, dir: &Path) -> io::Result<()>;
    /// The file system that holds a directory.
    fn space(&self, _dir: &Path) -> io::Result<Space> {
        Ok(Space { total_bytes: u64::MAX, free_bytes: u64::MAX })
    }
}

/// A file system's size, and what it has left for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub total_bytes: u64,
    pub free_bytes: u64,
}

/// Whether the disk has no room or no inode left: then nothing is broken, and the same call may
/// succeed later.
pub(super) fn is_full(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

/// Reserves space for a file up to a length. After an error the file is as long as it was: a part
/// of the space would be of no use, and it would be missing on a full disk.
pub(super) fn allocate(file: &dyn File, len: u64) -> io::Result<()> {
    let before = file.size()?;
    file.allocate(len).inspect_err(|_| {
        // If this fails, too, blocks stay after the file's old end, where nothing is read.
        let _ = file.set_len(before);
    })
}

/// An open file. The system reports a failed sync once for each handle, so each thread that syncs
/// has its own handle.
pub trait File: Send + Sync {
    fn size(&self) -> io::Result<u64>;
    /// Fills the buffer from `offset` on.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// The next bytes from `offset` on that may be others than zero; None if there are none up to the
    /// file's end.
    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.size()?;
        Ok((offset < size).then_some(offset..size))
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves space up to `len`, which reads as zeros, and makes the file at least that long.
    /// After an error a part of it may be reserved, and the file longer.
    fn allocate(&self, len: u64) -> io::Result<()>;
    fn fdatasync(&self) -> io::Result<()>;
}

/// The real disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        Ok(Arc::new(files::open_with(&options, path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(files::open_with(OpenOptions::new().read(true).write(true), path)?))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        fs::read_dir(dir)?
            .map(|item| Ok(item?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        fs::remove_dir_all(dir)
    }

    fn fsync_dir(&self, dir: &Path) -> io::Result<()> {
        files::sync_dir(dir)
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(Space {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }
}

impl File for fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        use rustix::fs::{SeekFrom, seek};
        let size = File::size(self)?;
        if offset >= size {
            return Ok(None);
        }
        let start = match seek(self, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => return Ok(None),
            // The file system does not know of holes.
            Err(_) => return Ok(Some(offset..size)),
        };
        // A hole at the start of the data would be no progress.
        let hole = seek(self, SeekFrom::Hole(start)).ok().filter(|hole| *hole > start);
        Ok(Some(start..hole.unwrap_or(size)))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        fs::File::set_len(self, len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::retry_on_intr;
        // Some file systems return EINTR while a signal is pending.
        match retry_on_intr(|| fallocate(self, FallocateFlags::empty(), 0, len)) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(self, len),
            Err(errno) => Err(errno.into()),
        }
    }

    fn fdatasync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A disk that is never told to make anything survive a power cut, for `--unsafe-no-fsync`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unsynced<D>(pub D);

struct UnsyncedFile(Arc<dyn File>);

impl<D: Disk> Disk for Unsynced<D> {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(UnsyncedFile(self.0.create(path)?)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        Ok(Arc::new(UnsyncedFile(self.0.open(path)?)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.0.list(dir)
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.0.create_dir(dir)
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.exists(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn remove_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.0.remove_dir_all(dir)
    }

    fn fsync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.0.space(dir)
    }
}

impl File for UnsyncedFile {
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.0.data_from(offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.0.allocate(len)
    }

    fn fdatasync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes zeros on a file system that cannot reserve space: a hole would get its blocks only when
/// it is written, and the disk may be full by that time.
fn write_zeros(file: &fs::File, len: u64) -> io::Result<()> {
    let zeros = vec![0; limits::LOG_FILL_CHUNK_BYTES];
    let mut at = File::size(file)?;
    while at < len {
        let piece = zeros.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
        file.write_all_at(&zeros[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}
