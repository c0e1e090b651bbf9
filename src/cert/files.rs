//! Files that get their final names together, once all of them are written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};

use super::Error;
use crate::files;

/// The path and content of a file that is to be placed.
pub(super) struct Draft {
    pub path: PathBuf,
    pub text: String,
    /// Whether this is a key, which is for its owner only.
    pub is_secret: bool,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Io { path, source }
}

/// Files that are removed when this is dropped, those that were renamed meanwhile excepted.
struct Pending(Vec<PathBuf>);

impl Drop for Pending {
    fn drop(&mut self) {
        for path in &self.0 {
            // The error that led here is the one to report.
            let _ = fs::remove_file(path);
        }
    }
}

/// Writes and syncs all files under temporary names, then gives them their final ones. Unless
/// `replaces` is set, an existing file is an error before anything is written.
pub(super) fn place(drafts: &[Draft], replaces: bool) -> Result<(), Error> {
    if let Some(draft) = drafts.iter().find(|draft| !replaces && draft.path.exists()) {
        return Err(Error::Exists(draft.path.clone()));
    }
    let mut pending = Pending(Vec::new());
    for draft in drafts {
        let mut temporary = draft.path.clone().into_os_string();
        temporary.push(format!(".{}.tmp", std::process::id()));
        let temporary = PathBuf::from(temporary);
        // One that an earlier process with this id has left.
        let _ = fs::remove_file(&temporary);
        let mode = if draft.is_secret { 0o600 } else { 0o644 };
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary);
        let mut file = file.map_err(failed(&temporary))?;
        pending.0.push(temporary.clone());
        let written = file.write_all(draft.text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(failed(&temporary))?;
    }
    let mut placed = Pending(Vec::new());
    for (draft, temporary) in drafts.iter().zip(&pending.0) {
        let renamed = match replaces {
            true => fs::rename(temporary, &draft.path),
            false => rename_new(temporary, &draft.path),
        };
        match renamed {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists(draft.path.clone()));
            }
            renamed => renamed.map_err(failed(&draft.path))?,
        }
        if !replaces {
            placed.0.push(draft.path.clone());
        }
    }
    for draft in drafts {
        let dir = files::parent(&draft.path);
        files::sync_dir(dir).map_err(failed(dir))?;
    }
    placed.0.clear();
    Ok(())
}

/// Renames, unless the new name has been taken meanwhile.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The file system does not know the flag; the name was free a moment ago.
        Err(rustix::io::Errno::INVAL) => fs::rename(from, to),
        renamed => Ok(renamed?),
    }
}

/// Makes a directory and those above it; a private one is for its owner only.
pub(super) fn make_dir(path: &Path, is_private: bool) -> Result<(), Error> {
    let mode = if is_private { 0o700 } else { 0o755 };
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(failed(path))
}
