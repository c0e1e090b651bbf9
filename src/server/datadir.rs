//! The data directory before anything in it is opened: whose it is, and whether it is new.
//!
//! `proxy/` beside `member/` makes etcd refuse the directory, so that an upgrade tool which puts
//! the old program back cannot start it empty. The other way round, a `member/` of etcd's without
//! ours is refused here for the same reason.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

/// Makes what is missing and says whether the member was started here before.
pub(super) fn prepare(path: &Path) -> Result<bool, String> {
    let failed = |error: io::Error| format!("cannot access data directory {}: {error}", path.display());
    make(path).map_err(failed)?;
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode != 0o700 {
        tracing::warn!(
            dir = %path.display(),
            error = %format!("directory has permission {mode:o}, the recommended permission is 700 to prevent possible unprivileged access to the data"),
            "check file permission"
        );
    }
    let member = path.join("member");
    let ours = path.join("proxy").is_dir();
    if member.is_dir() && !ours && !empty(&member).map_err(failed)? {
        return Err(format!(
            "{} holds the data of an etcd server; rusd does not take it over yet, and does not \
             start empty beside it",
            path.display()
        ));
    }
    let initialized = has_log(&member.join("wal")).map_err(failed)?;
    let kind = if initialized { "member" } else { "empty" };
    let dir = path.display().to_string();
    if initialized {
        tracing::info!("data-dir" = dir, "dir-type" = kind, "server has already been initialized");
    } else {
        tracing::info!("data-dir" = dir, "dir-type" = kind, "Initialize and start etcd server");
    }
    make(&path.join("proxy")).map_err(failed)?;
    make(&member).map_err(failed)?;
    fs::File::open(path).and_then(|directory| directory.sync_all()).map_err(failed)?;
    Ok(initialized)
}

fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn empty(path: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(path)?.next().is_none())
}

fn has_log(path: &Path) -> io::Result<bool> {
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
    fn a_new_directory_is_closed_to_others_and_to_etcd() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b.etcd");
        assert_eq!(prepare(&path), Ok(false));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert!(path.join("member").is_dir() && path.join("proxy").is_dir());
        assert_eq!(prepare(&path), Ok(false));
        fs::create_dir(path.join("member/wal")).unwrap();
        fs::write(path.join("member/wal/0000000000000000-0000000000000000.wal"), "x").unwrap();
        assert_eq!(prepare(&path), Ok(true));
    }

    #[test]
    fn etcds_directory_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("member/snap")).unwrap();
        let error = prepare(root.path()).unwrap_err();
        assert!(error.contains("holds the data of an etcd server"), "{error}");
        assert!(!root.path().join("proxy").exists());
    }
}
