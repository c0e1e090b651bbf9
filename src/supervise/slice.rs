//! How soon a thread that wakes gets a processor.
//!
//! A put passes through several threads, one after the other. Where hostile or heavy requests keep
//! all processors busy, each of these waits for the end of another thread's slice when it wakes:
//! milliseconds. Linux, from 6.12 on, lets a thread ask for shorter slices: it gets the same part of
//! the processors, in smaller pieces, and sooner. Older kernels ignore the request.

use std::time::Duration;

/// Sets the length of the calling thread's slices; 0 stands for the system's own. A failure is
/// ignored: the thread works as before.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "there is no safe binding for sched_setattr")]
pub fn set(length: Duration) {
    let size = size_of::<libc::sched_attr>();
    let mut attributes = std::mem::MaybeUninit::<libc::sched_attr>::zeroed();
    // SAFETY: the system writes no more than `size` bytes. Thread 0 is the calling one.
    let read =
        unsafe { libc::syscall(libc::SYS_sched_getattr, 0, attributes.as_mut_ptr(), size, 0) };
    // SAFETY: zeros are a valid value of all fields, which are numbers.
    let mut attributes = unsafe { attributes.assume_init() };
    // A policy that somebody has chosen for the process, such as a real-time one, has no slices or
    // takes the field for something else.
    let is_usual = attributes.sched_policy == libc::SCHED_OTHER.unsigned_abs();
    if read == 0 && is_usual {
        attributes.sched_runtime = u64::try_from(length.as_nanos()).unwrap_or_default();
        // SAFETY: the system reads `size` bytes, which the structure's first field tells it.
        let _ = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    }
}

/// Other systems know no such request.
#[cfg(not(target_os = "linux"))]
pub fn set(_: Duration) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::limits::PROMPT_SLICE;

    /// The slice in /proc/thread-self/sched, where the kernel shows it.
    fn slice() -> Option<u64> {
        let text = std::fs::read_to_string("/proc/thread-self/sched").ok()?;
        let line = text.lines().find(|line| line.starts_with("se.slice"))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    #[test]
    fn a_thread_has_the_slices_that_it_asked_for_and_keeps_its_niceness() {
        rustix::process::setpriority_process(None, 3).unwrap();
        let usual = slice();
        set(PROMPT_SLICE);
        assert_eq!(rustix::process::getpriority_process(None).unwrap(), 3);
        let Some(short) = slice() else { return };
        // Kernels before 6.12 ignore the request.
        assert!(short == PROMPT_SLICE.as_nanos() as u64 || Some(short) == usual, "{short} ns");
        set(Duration::ZERO);
        assert_eq!(slice(), usual);
    }
}
