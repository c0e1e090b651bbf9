//! Progress of work on files that tells nothing itself: the bytes that it has written so far, of
//! those that there will be.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use crate::cli::context::Context;
use crate::cli::printer::{OnSignal, Unit};

/// Interval at which files are measured.
const LOOK: Duration = Duration::from_millis(200);
/// Directories within the measured one that are looked into: a member's has three levels.
const DEPTH_MAX: usize = 4;
/// Size of a block in which the file system counts.
const BLOCK: u64 = 512;

/// Does the work with a bar that follows what `path`, a file or a directory, takes up. It begins at
/// what is there before.
pub(super) fn follow<T>(
    context: &Context,
    title: &Path,
    total: u64,
    path: &Path,
    work: impl FnOnce() -> T,
) -> T {
    if !context.printer.errors_on_screen() {
        return work();
    }
    let title = title.as_os_str().as_encoded_bytes();
    let bar = context.printer.progress(total, Unit::Bytes, title, OnSignal::End);
    let before = taken(path);
    let (done, is_done) = sync_channel::<()>(1);
    thread::scope(|scope| {
        scope.spawn(move || {
            while is_done.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                bar.set(taken(path).saturating_sub(before).min(total));
            }
        });
        let result = work();
        // Ends the thread, which clears the bar.
        drop(done);
        result
    })
}

/// The bytes that a file, or all files in a directory, take up on the disk. What cannot be read
/// counts as nothing: a bar must not make the work fail.
pub(super) fn taken(path: &Path) -> u64 {
    within(path, 0)
}

fn within(path: &Path, depth: usize) -> u64 {
    let Ok(found) = fs::symlink_metadata(path) else { return 0 };
    if !found.is_dir() {
        return found.blocks() * BLOCK;
    }
    if depth == DEPTH_MAX {
        return 0;
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| within(&entry.path(), depth + 1)).sum()
}
