//! The data directory: its layout, its lock, and what is refused there.
//!
//! | path | what |
//! |---|---|
//! | `rusd.lock` | locked while a process uses the directory |
//! | `member/db/CURRENT` | names the generation in use |
//! | `member/db/gen-N/` | one LMDB environment and its index checkpoint |
//! | `member/db/reserve` | space given up first when the disk is full |
//! | `proxy/` | empty: etcd refuses a directory that has `member/` and `proxy/` |

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Error;
use crate::files;

const LOCK_FILE: &str = "rusd.lock";
/// How often the lock file is opened again because another process has removed it meanwhile.
const LOCK_ROUNDS_MAX: u32 = 1000;
const CURRENT_FILE: &str = "CURRENT";

/// Network file systems, by the number that statfs gives.
const NETWORK: [(u32, &str); 5] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xfe53_4d42, "SMB2"),
    (0xff53_4d42, "CIFS"),
    (0x00c3_6400, "Ceph"),
];

/// The lock on a data directory. The system releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct DirLock {
    _file: File,
}

/// Locks the data directory, which is created if missing. Offline commands take the same lock.
/// Fails if another process holds it, and on directories that `refuse_foreign` refuses.
pub fn lock(data_dir: &Path) -> Result<DirLock, Error> {
    create_dir(data_dir)?;
    refuse_foreign(data_dir)?;
    lock_any(data_dir)
}

/// As [`lock`], but also on a directory of etcd's, which must exist.
pub fn lock_to_import(data_dir: &Path) -> Result<DirLock, Error> {
    refuse_network(data_dir)?;
    lock_any(data_dir)
}

fn lock_any(data_dir: &Path) -> Result<DirLock, Error> {
    let path = data_dir.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = locked(&path, &options)?;
    // The process id only makes the error of a second process more helpful, so failing to write it
    // is no error.
    let written = file.set_len(0).and_then(|()| file.rewind());
    let _ = written.and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(DirLock { _file: file })
}

/// Locks a data directory that is only read, without changing anything in it. Returns None if it
/// has no lock file: it was never in use.
pub fn lock_at_rest(data_dir: &Path) -> Result<Option<DirLock>, Error> {
    refuse_foreign(data_dir)?;
    let path = data_dir.join(LOCK_FILE);
    match locked(&path, OpenOptions::new().read(true)) {
        Ok(file) => Ok(Some(DirLock { _file: file })),
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Opens and locks the lock file, until the one that is locked is the one that others find.
fn locked(path: &Path, options: &OpenOptions) -> Result<File, Error> {
    for _ in 0..LOCK_ROUNDS_MAX {
        let file = files::open_with(options, path).map_err(Error::io(path))?;
        if take(&file, path)? {
            return Ok(file);
        }
    }
    // On some file systems a file is another one at each look, as far as its numbers tell.
    let source = io::Error::other("the name stands for another file each time");
    Err(Error::Io { file: path.to_path_buf(), source })
}

/// Locks the file. Returns false if it is no longer the one of this name: a restore that failed
/// removes the lock file that it has made, and a lock on that one keeps nobody out.
fn take(file: &File, path: &Path) -> Result<bool, Error> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            let locked = file.metadata().map_err(Error::io(path))?;
            match fs::metadata(path) {
                Ok(named) => Ok(files::identity(&named) == files::identity(&locked)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(source) => Err(Error::Io { file: path.to_path_buf(), source }),
            }
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            let read = file.take(20).read_to_string(&mut pid);
            let pid = if read.is_ok() { pid.trim() } else { "" };
            let holder = if pid.is_empty() { String::new() } else { format!(" (pid {pid})") };
            Err(Error::Locked { file: path.to_path_buf(), holder })
        }
        Err(errno) => Err(Error::Io { file: path.to_path_buf(), source: errno.into() }),
    }
}

/// Creates what is missing of the data directory's layout. `member/db` is not created here: opening
/// the store renames a complete one into place.
pub fn lay_out(data_dir: &Path) -> Result<(), Error> {
    create_dir(data_dir)?;
    refuse_foreign(data_dir)?;
    create_dir(&data_dir.join("member"))?;
    create_dir(&data_dir.join("proxy"))?;
    sync_dir(data_dir)
}

/// Refuses etcd's data directory, known by `member/snap`, and network file systems, which lose the
/// locks and the order of writes that the store relies on.
pub fn refuse_foreign(data_dir: &Path) -> Result<(), Error> {
    let found = data_dir.join("member").join("snap");
    if found.try_exists().map_err(Error::io(&found))? {
        return Err(Error::Etcd { found });
    }
    refuse_network(data_dir)
}

fn refuse_network(data_dir: &Path) -> Result<(), Error> {
    let stat = rustix::fs::statfs(data_dir)
        .map_err(|errno| Error::Io { file: data_dir.to_path_buf(), source: errno.into() })?;
    // The kernel's numbers have 32 bits; the field's width and sign differ by architecture.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "see above")]
    let magic = stat.f_type as u32;
    match NETWORK.iter().find(|(number, _)| *number == magic) {
        Some((_, kind)) => Err(Error::NetworkFileSystem { dir: data_dir.to_path_buf(), kind }),
        None => Ok(()),
    }
}

/// Creates a directory and its parents, readable by the owner only.
pub(super) fn create_dir(dir: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io(dir))
}

/// Makes durable which names were created, renamed or removed in `dir`.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    files::sync_dir(dir).map_err(Error::io(dir))
}

/// Replaces a small file durably and atomically: after a crash it has the old contents or the new
/// ones.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("tmp");
    put_aside(&temporary, bytes).map_err(Error::io(&temporary))?;
    fs::rename(&temporary, path).map_err(Error::io(path))?;
    sync_dir(files::parent(path))
}

/// Writes the temporary file that is to be renamed, and syncs it. If it has the right contents
/// already, it is only synced: on a full disk, `prepare_current` has written it.
fn put_aside(temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    if files::read_small(temporary).is_ok_and(|found| found == bytes) {
        return files::open(temporary)?.sync_all();
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = files::open_with(&options, temporary)?;
    file.write_all(bytes)?;
    file.sync_all()
}

pub(super) fn generation_dir(db: &Path, generation: u64) -> PathBuf {
    db.join(format!("gen-{generation}"))
}

/// The generations that have a directory, in ascending order.
pub(super) fn generations(db: &Path) -> Result<Vec<u64>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(db).map_err(Error::io(db))? {
        let name = entry.map_err(Error::io(db))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("gen-"));
        found.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether `db` is missing or empty, so that a store may be made there.
pub fn is_vacant(db: &Path) -> Result<bool, Error> {
    match fs::read_dir(db) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(Error::Io { file: db.to_path_buf(), source }),
    }
}

/// The contents of CURRENT: the generation's directory name and its CRC-32C.
fn current_line(generation: u64) -> String {
    let name = format!("gen-{generation}");
    format!("{name} {:08x}\n", crc32c::crc32c(name.as_bytes()))
}

/// Makes CURRENT name the generation, durably and atomically.
pub(super) fn write_current(db: &Path, generation: u64) -> Result<(), Error> {
    write_whole(&db.join(CURRENT_FILE), current_line(generation).as_bytes())
}

/// Writes the future contents of CURRENT into its temporary file. Naming the generation then needs
/// only a rename, which no full disk can refuse half-way through an installation.
pub(super) fn prepare_current(db: &Path, generation: u64) -> Result<(), Error> {
    let temporary = db.join(CURRENT_FILE).with_extension("tmp");
    put_aside(&temporary, current_line(generation).as_bytes()).map_err(Error::io(&temporary))
}

/// The generation that CURRENT names. A missing file is damage, since the directory is not empty.
pub(super) fn read_current(db: &Path) -> Result<u64, Error> {
    let path = db.join(CURRENT_FILE);
    let text = match files::read_small(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = "the file is missing, though the store is not empty";
            return Err(Error::damage(path, "offset 0", what));
        }
        Err(source) => return Err(Error::Io { file: path, source }),
    };
    let text = String::from_utf8_lossy(&text);
    let number = text.strip_prefix("gen-").and_then(|rest| rest.split(' ').next());
    let generation = number.and_then(|number| number.parse().ok());
    match generation {
        Some(generation) if text == current_line(generation) => Ok(generation),
        _ => Err(Error::damage(path, "offset 0", "not the name of a generation and its checksum")),
    }
}
