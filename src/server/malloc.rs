//! How glibc's allocator is set up for a member.
//!
//! glibc keeps small freed blocks apart, in "fast bins", and merges all of them at once when a
//! large block is wanted, under the lock of the arena. Compaction frees a block for nearly every
//! key: with half a million keys the apply thread, whose arena it is, then merged for 60 to 110 ms,
//! and all puts waited. Without fast bins each block is merged with its neighbours when it is
//! freed. The per-thread caches stay; neither throughput nor memory in use changes measurably.

/// Called before there are other threads.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "mallopt is a C function")]
pub(super) fn set_up() {
    // SAFETY: mallopt changes a number of the allocator, and no other thread allocates yet. Its
    // refusal costs only the pause above.
    let _ = unsafe { libc::mallopt(libc::M_MXFAST, 0) };
}

/// Gives free memory back to the system, that between blocks in use included. Each arena is locked
/// while its pages are looked at, some milliseconds, so this is for after a flood or a start.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "malloc_trim is a C function")]
pub(super) fn give_back() {
    // SAFETY: malloc_trim takes the allocator's locks itself, and touches free memory only.
    let _ = unsafe { libc::malloc_trim(0) };
}

/// Bytes of the process's own resident memory, free memory of the allocator included; 0 if the
/// system does not say.
pub(super) fn held_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = |at| text.split(' ').nth(at).and_then(|pages| pages.parse::<usize>().ok());
    // The second field counts all resident pages, the third those that belong to files.
    let own = pages(1).unwrap_or(0).saturating_sub(pages(2).unwrap_or(0));
    own * rustix::param::page_size()
}

/// Other allocators give memory back by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back() {}

/// Other allocators have no fast bins.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn set_up() {}
