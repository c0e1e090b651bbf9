//! The data directory before anything in it is opened: whether a member was started in it before,
//! and whether its permissions let others read it. Whether it is a directory of rusd's is decided
//! by `store`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A directory that may not be read, or is none.
#[derive(Debug, thiserror::Error)]
#[error("cannot access data directory {}: {source}", path.display())]
pub(super) struct Inaccessible {
    pub path: PathBuf,
    pub source: io::Error,
}

/// Whether a member has been started in this directory: its log exists, there or in `wal_dir`.
pub(super) fn is_initialized(path: &Path, wal_dir: Option<&Path>) -> Result<bool, Inaccessible> {
    let failed = |path: &Path, source| Inaccessible { path: path.to_path_buf(), source };
    warn_if_open(path).map_err(|error| failed(path, error))?;
    let log = wal_dir.map_or_else(|| path.join("member/wal"), Path::to_path_buf);
    let initialized = has_log(&log).map_err(|error| failed(&log, error))?;
    let dir = path.display().to_string();
    if initialized {
        let kind = "member";
        tracing::info!("data-dir" = dir, "dir-type" = kind, "server has already been initialized");
    } else {
        let kind = "empty";
        tracing::info!("data-dir" = dir, "dir-type" = kind, "Initialize and start etcd server");
    }
    Ok(initialized)
}

fn warn_if_open(path: &Path) -> io::Result<()> {
    let mode = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?.permissions().mode() & 0o777,
    };
    if mode != 0o700 {
        tracing::warn!(
            dir = %path.display(),
            mode = %format!("{mode:o}"),
            "the recommended permission of the data directory is 700, to keep others from the data"
        );
    }
    Ok(())
}

/// Whether a directory holds a log.
pub(super) fn has_log(path: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        if Path::new(&entry?.file_name()).extension().is_some_and(|extension| extension == "wal") {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_makes_the_member() {
        let root = tempfile::tempdir().unwrap();
        assert!(!is_initialized(&root.path().join("none"), None).unwrap());
        let wal = root.path().join("member/wal");
        fs::create_dir_all(&wal).unwrap();
        fs::write(wal.join("0.tmp"), "x").unwrap();
        assert!(!is_initialized(root.path(), None).unwrap());
        fs::write(wal.join("0000000000000000-0000000000000000.wal"), "x").unwrap();
        assert!(is_initialized(root.path(), None).unwrap());
        fs::remove_dir_all(&wal).unwrap();
        fs::write(&wal, "a file").unwrap();
        assert!(is_initialized(root.path(), None).is_err());
    }
}
