//! Opening files of a data directory so that a FIFO or a device in a file's place cannot block the
//! process.
//!
//! Opening a FIFO waits for its other end, and reading a device such as `/dev/zero` never ends. So
//! anything but a regular file is refused, with an error that names its kind: once before it is
//! opened, and once more when it is open, since it may have been replaced in between. A symbolic
//! link counts as its target. Small files are read up to `SMALL_FILE_BYTES_MAX`.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::limits::SMALL_FILE_BYTES_MAX;

/// Opens a regular file for reading.
pub fn open(path: &Path) -> io::Result<File> {
    open_with(OpenOptions::new().read(true), path)
}

/// Opens a regular file with `options`, which may create it.
pub fn open_with(options: &OpenOptions, path: &Path) -> io::Result<File> {
    check(path)?;
    // O_NONBLOCK has no effect on a regular file, and keeps the opening of a FIFO from waiting.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = options.clone().custom_flags(nonblocking).open(path)?;
    regular(file.metadata()?.file_type())?;
    Ok(file)
}

/// Device and inode, by which a file is told from another one that has taken its name.
pub fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// The directory that holds the last name of a path: the working directory for a name alone, of
/// which `Path::parent` gives an empty path that nothing can open. A root holds itself.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir.as_os_str().is_empty() => Path::new("."),
        Some(dir) => dir,
        None => path,
    }
}

/// Makes durable which names were created, renamed or removed in a directory.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Whether a disk or a quota has no room left.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// An error if `path` exists and is not a regular file: for files that a library opens. A missing
/// file is fine.
pub fn check(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) => regular(found.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads a whole file of a few lines. One with more than `SMALL_FILE_BYTES_MAX` bytes is refused.
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(SMALL_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SMALL_FILE_BYTES_MAX {
        let text = format!("it is longer than {SMALL_FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

fn regular(found: FileType) -> io::Result<()> {
    if found.is_file() {
        return Ok(());
    }
    let name = match found {
        _ if found.is_dir() => "a directory",
        _ if found.is_fifo() => "a FIFO",
        _ if found.is_socket() => "a socket",
        _ => "a device",
    };
    let text = format!("it is {name}, not a regular file");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_path_has_a_directory_that_can_be_opened() {
        for (path, dir) in [("a", "."), ("a/b", "a"), ("./a", "."), ("/a", "/"), ("/", "/")] {
            assert_eq!(parent(Path::new(path)), Path::new(dir), "{path}");
        }
    }

    #[test]
    fn only_regular_files_are_opened_and_small_ones_are_read_whole() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        assert_eq!(open(&file).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&file, vec![7; SMALL_FILE_BYTES_MAX as usize]).unwrap();
        let link = dir.path().join("link");
        symlink(&file, &link).unwrap();
        assert_eq!(read_small(&link).unwrap().len() as u64, SMALL_FILE_BYTES_MAX);
        fs::write(&file, vec![7; SMALL_FILE_BYTES_MAX as usize + 1]).unwrap();
        assert_eq!(read_small(&link).unwrap_err().kind(), io::ErrorKind::FileTooLarge);

        let fifo = dir.path().join("fifo");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RWXU,
            0,
        )
        .unwrap();
        for (path, name) in [
            (fifo.as_path(), "a FIFO"),
            (Path::new("/dev/zero"), "a device"),
            (dir.path(), "a dir"),
        ] {
            for options in [
                OpenOptions::new().read(true).clone(),
                OpenOptions::new().write(true).create(true).truncate(true).clone(),
            ] {
                let refused = open_with(&options, path).unwrap_err().to_string();
                assert!(refused.contains(name), "{refused}");
            }
        }
    }
}
