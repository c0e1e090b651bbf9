//! Moves LMDB's table of readers from its file into memory.
//!
//! Each read transaction writes into that table. In a mapped file such a write can wait for the
//! file system: while a disk does not respond, all threads that read would block, and with them all
//! connections that they serve. No other process needs the table, since the data directory is
//! locked, so anonymous memory replaces the mapping that LMDB has made. The file stays: creating it
//! at a start would need a free inode.

use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

use crate::store::Error;

/// Replaces the mapping of the lock file `lock`. The environment was just opened, and no thread
/// uses it yet. If the mapping is not found, that is logged, and LMDB goes on with the file.
pub(super) fn take(lock: &Path) -> Result<(), Error> {
    let mapping = match find(lock) {
        Ok(mapping) => mapping,
        Err(error) => {
            let file = lock.display();
            let text = "the table of readers stays in its file: reads wait while the disk stands";
            tracing::warn!(%file, %error, "{text}");
            return Ok(());
        }
    };
    let at = ptr::with_exposed_provenance_mut::<u8>(mapping.start);
    let bytes = mapping.len();
    let mut table = vec![0; bytes];
    // SAFETY: LMDB mapped this range for reading and writing, as long as the environment lives, and
    // no thread uses it yet. No reference to it exists.
    unsafe { ptr::copy_nonoverlapping(at, table.as_mut_ptr(), bytes) };
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: the range belongs to LMDB, which refers to it by its address and unmaps it by that.
    // Its mutexes are not locked. If the call fails, the range may be unmapped; then the
    // environment is closed without another access to it.
    unsafe { mmap_anonymous(at.cast(), bytes, access, MapFlags::PRIVATE | MapFlags::FIXED) }
        .map_err(|errno| Error::Io { file: lock.to_path_buf(), source: errno.into() })?;
    // SAFETY: the range is mapped for writing, and the copy is as long as the range.
    unsafe { ptr::copy_nonoverlapping(table.as_ptr(), at, bytes) };
    Ok(())
}

/// The address range at which this process has mapped the file for writing. There is only one: heed
/// opens no environment twice.
fn find(lock: &Path) -> io::Result<Range<usize>> {
    let path = lock.canonicalize()?;
    let maps = std::fs::read("/proc/self/maps")?;
    let found = maps.split(|byte| *byte == b'\n').find_map(|line| parse(line, &path));
    found.ok_or_else(|| io::Error::other("/proc/self/maps does not show its mapping"))
}

/// Parses a line such as `7f00-7f01 rw-s 00000000 08:01 1234 /a/path`.
fn parse(line: &[u8], path: &Path) -> Option<Range<usize>> {
    let rest = line.strip_suffix(path.as_os_str().as_bytes())?;
    let mut fields = std::str::from_utf8(rest).ok()?.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (address(start)?, address(end)?);
    let is_whole = fields.next()? == "rw-s" && address(fields.next()?)? == 0;
    // The two fields left are device and inode. A third would mean that `path` is only the end of a
    // longer path with spaces.
    (is_whole && fields.count() == 2).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::Env;
    use super::*;
    use crate::store::Bucket;

    /// Whether anything in this process is mapped from the file.
    fn is_mapped(file: &Path) -> bool {
        let file = file.canonicalize().unwrap();
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().any(|line| line.ends_with(file.to_str().unwrap()))
    }

    #[test]
    fn readers_and_the_writer_need_nothing_of_the_lock_file() {
        type Make = fn(&Path);
        let cases: [(&str, Make); 4] = [
            ("nothing", |_| {}),
            ("a short file", |lock| fs::write(lock, "stale").unwrap()),
            ("a long file", |lock| fs::write(lock, vec![7; 1 << 20]).unwrap()),
            ("a link to nothing", |lock| symlink(lock.with_extension("other"), lock).unwrap()),
        ];
        for (case, make) in cases {
            let dir = tempfile::tempdir().unwrap();
            let lock = dir.path().join("lock.mdb");
            make(&lock);
            for round in 0..2_u8 {
                let env = Env::open(dir.path()).unwrap();
                assert!(!is_mapped(&lock) && is_mapped(&dir.path().join("data.mdb")), "{case}");
                let pinned = env.pin().unwrap();
                // The pages that the pinned transaction sees would be used again by these.
                for value in 0..20 {
                    let mut writer = env.write().unwrap();
                    writer.put_small(Bucket::Meta, b"key", Some(&[round, value])).unwrap();
                    writer.commit().unwrap();
                    let found = env.read().unwrap().small(Bucket::Meta, b"key").unwrap();
                    assert_eq!(found, Some(vec![round, value]), "{case}");
                }
                let old = env.read_pinned(&pinned).small(Bucket::Meta, b"key").unwrap();
                assert_eq!(old, (round == 1).then(|| vec![0, 19]), "{case}");
            }
        }
    }

    #[test]
    fn threads_share_the_table_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..500 {
                        let reader = env.read().unwrap();
                        let one = reader.small(Bucket::Meta, b"one").unwrap();
                        assert_eq!(one, reader.small(Bucket::Meta, b"two").unwrap());
                    }
                });
            }
            for value in 0..50_u8 {
                let mut writer = env.write().unwrap();
                for name in [b"one", b"two"] {
                    writer.put_small(Bucket::Meta, name, Some(&[value; 1000])).unwrap();
                }
                writer.commit().unwrap();
            }
        });
    }

    #[test]
    fn only_the_mapping_of_the_very_file_is_found() {
        let find = |line: &str| parse(line.as_bytes(), Path::new("/d/a b/lock.mdb"));
        let found = find("7f10000-7f32000 rw-s 00000000 08:01 77       /d/a b/lock.mdb");
        assert_eq!(found, Some(0x7f1_0000..0x7f3_2000));
        for line in [
            "",
            "7f10000-7f32000 rw-p 00000000 00:00 0",
            "7f10000-7f32000 rw-s 00000000 08:01 77       /d/a b/data.mdb",
            "7f10000-7f32000 rw-s 00000000 08:01 77       /x/d/a b/lock.mdb",
            "7f10000-7f32000 rw-s 00000000 08:01 77       /x /d/a b/lock.mdb",
            "7f10000-7f32000 rw-s 00000000 08:01 77       /d/a b/lock.mdb (deleted)",
            "7f10000-7f32000 rw-s 00001000 08:01 77       /d/a b/lock.mdb",
            "7f10000-7f32000 r--s 00000000 08:01 77       /d/a b/lock.mdb",
        ] {
            assert_eq!(find(line), None, "{line}");
        }
    }
}
