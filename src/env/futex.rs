//! Waiting for a word of memory that another process changes.

use std::time::Duration;

use crate::sync::atomic::AtomicU32;
#[cfg(any(not(target_os = "linux"), clusdb_loom))]
use crate::sync::atomic::Ordering;

/// Waits while the word has this value, or for so long. May end early. On Linux the thread sleeps on a futex; elsewhere it looks
/// at the word once a millisecond.
#[cfg(all(target_os = "linux", not(clusdb_loom)))]
pub fn wait_while(word: &AtomicU32, value: u32, timeout: Duration) {
    use rustix::thread::futex::{Flags, Timespec, wait};
    let timeout = Timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    // Another value, a signal or the end of the time: the caller looks again.
    let _ = wait(word, Flags::empty(), value, Some(&timeout));
}

/// As on Linux, by looking.
#[cfg(any(not(target_os = "linux"), clusdb_loom))]
pub fn wait_while(word: &AtomicU32, value: u32, timeout: Duration) {
    let step = Duration::from_millis(1);
    let mut waited = Duration::ZERO;
    while word.load(Ordering::Acquire) == value && waited < timeout {
        std::thread::sleep(step);
        waited += step;
    }
}

/// Wakes all who wait for the word, in any process.
#[cfg(all(target_os = "linux", not(clusdb_loom)))]
pub fn wake_all(word: &AtomicU32) {
    // Nobody to wake is no failure.
    let _ = rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), i32::MAX as u32);
}

/// As on Linux: those who wait look by themselves.
#[cfg(any(not(target_os = "linux"), clusdb_loom))]
pub fn wake_all(_: &AtomicU32) {}
