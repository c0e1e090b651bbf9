//! What a path is that should be a data directory, and is none.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::cli::shell::quoted;

/// The first of the directories of a member that may not be looked into.
pub(super) fn denied(data_dir: &Path, wal_dir: Option<&Path>) -> Option<PathBuf> {
    let member = data_dir.join("member");
    let (log, store) = (member.join("wal"), member.join("db"));
    let all = [data_dir, &member, &log, &store].into_iter().chain(wal_dir);
    all.into_iter().find(|path| is_denied(path)).map(Path::to_path_buf)
}

fn is_denied(path: &Path) -> bool {
    fs::read_dir(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

/// The data directory that was meant by one that is none: in which it lies, or the only one in it.
pub(super) fn near(path: &Path) -> Option<PathBuf> {
    let is_one = |dir: &Path| {
        ["wal", "db", "snap"].iter().any(|name| dir.join("member").join(name).is_dir())
    };
    // A relative path does not name what it lies in.
    let whole = fs::canonicalize(path).ok()?;
    if let Some(outer) = whole.ancestors().skip(1).find(|dir| is_one(dir)) {
        return Some(outer.to_path_buf());
    }
    let inner = fs::read_dir(path).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut inner = inner.filter(|dir| is_one(dir));
    inner.next().filter(|_| inner.next().is_none())
}

/// Why there is no store of rusd's in a directory, and what to do.
pub(super) fn without_store(data_dir: &Path) -> String {
    let dir = data_dir.display();
    if let Some(path) = denied(data_dir, None) {
        return forbidden(&path);
    }
    match fs::metadata(data_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return format!("{dir}: there is no such directory; correct --data-dir");
        }
        Err(error) => return format!("{dir}: {}", crate::go::reason(&error)),
        Ok(found) if !found.is_dir() => return format!("{dir} is a file, and no data directory"),
        Ok(_) => {}
    }
    let member = data_dir.join("member");
    if member.join("snap").exists() {
        let from = quoted(&dir.to_string());
        return format!(
            "{dir} is a data directory of etcd; 'rusd import --from-data-dir {from} --data-dir NEW' \
             makes one of rusd's of it"
        );
    }
    if member.is_dir() {
        return format!(
            "{dir} has no store in member/db: the member has lost it. In a cluster, 'rusd rebuild' \
             makes the member anew from the others; a single member is restored from a backup"
        );
    }
    match near(data_dir) {
        Some(other) => format!("{dir} is no data directory; {} is one", other.display()),
        None => format!(
            "{dir} is no data directory: no member was started in it. If it should be one, look \
             for a disk that is not mounted"
        ),
    }
}

/// Why there is no store of etcd's in a directory.
pub(super) fn without_etcds_store(data_dir: &Path) -> String {
    let dir = data_dir.display();
    if data_dir.join("member/db").is_dir() {
        return format!(
            "{dir} is a data directory of rusd already: start it with 'rusd serve --data-dir {}'",
            quoted(&dir.to_string())
        );
    }
    if let Some(path) = denied(data_dir, None) {
        return forbidden(&path);
    }
    match near(data_dir) {
        Some(other) => format!("{dir} is no data directory; {} is one", other.display()),
        None => format!("{dir} is no data directory of etcd: it has no member/snap/db"),
    }
}

/// That a path may not be used, and as whom it may.
pub(super) fn forbidden(path: &Path) -> String {
    let uid = rustix::process::geteuid().as_raw();
    let owner = match fs::metadata(path) {
        Ok(found) => format!("it belongs to uid {} (mode {:o})", found.uid(), found.mode() & 0o777),
        Err(_) => "a directory above it may not be entered".to_owned(),
    };
    format!(
        "permission denied for {}: {owner}, and this process runs as uid {uid}. Run this as the user \
         of the server, such as with sudo -u rusd",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_data_directory_is_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        assert!(without_store(&path("none")).ends_with("no such directory; correct --data-dir"));
        fs::write(path("file"), "x").unwrap();
        assert!(without_store(&path("file")).ends_with("is a file, and no data directory"));
        fs::create_dir(path("empty")).unwrap();
        assert!(without_store(&path("empty")).contains("a disk that is not mounted"));
        fs::create_dir_all(path("lost/member/wal")).unwrap();
        assert!(without_store(&path("lost")).contains("'rusd rebuild'"));
        let said = without_store(&path("lost/member"));
        assert!(said.contains("no data directory; ") && said.ends_with("/lost is one"), "{said}");
        fs::create_dir_all(path("etcds/member/snap")).unwrap();
        assert!(without_store(&path("etcds")).contains("rusd import --from-data-dir"));
        fs::create_dir_all(path("own/member/db")).unwrap();
        assert!(without_etcds_store(&path("own")).contains("of rusd already"));
        assert!(without_etcds_store(&path("empty")).contains("no member/snap/db"));
        assert!(forbidden(root.path()).contains("permission denied for /"));
    }
}
