//! The limit of open files of a test's process.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the limit as far as it may be, since many systems give 1024 at first, and returns how many
/// files that leaves, besides a thousand for other tests of the process.
pub fn spare() -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let files = limit.maximum.map_or(usize::MAX, |maximum| maximum as usize);
    files.saturating_sub(1000)
}
